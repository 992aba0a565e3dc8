#![doc = include_str!("../README.md")]
//!
//! # What a node does
//!
//! [`start`] gives a node with a new identity and every transport that is compiled in; [`builder`] one that is told more. A
//! node **binds no socket until it listens or dials**. It says who it is (identify), answers pings, resolves names in
//! addresses, and reaches peers behind relays; it gets from there to a direct WebRTC connection by itself.
//!
//! - [`Builder::port`] listens on one number with every transport, [`Builder::listen`] and [`Node::listen`] on an address.
//! - [`Builder::data_dir`] keeps the identity and the certificates, so that the addresses survive a restart, and what is known of
//!   peers, so that they are found again.
//! - [`Node::dial`] takes an address, `text.parse::<Multiaddr>()?`, or a peer id whose addresses are known. Connections are
//!   shared: dialing twice costs nothing.
//! - [`Node::open_stream`] takes a peer or a connection, and the protocols that would do, the one preferred most first. With one,
//!   it costs no round trip: what is written goes out together with the protocol's name.
//! - [`Node::handle`] takes an async closure and runs it for each stream that a remote opens; [`Builder::handle`] does the same
//!   from before the node listens. One that captures something is written `move |incoming| { let it = it.clone(); async move
//!   { … } }`, because many of them run at once.
//! - [`StreamExt::into_io`] makes tokio's `AsyncRead` and `AsyncWrite` of a stream; [`StreamExt::read_chunk`] and
//!   [`StreamExt::write_all`] take and give [`Bytes`](https://docs.rs/bytes) without a copy.
//! - [`Node::events`] tells what happens: [`Events::next`], or [`Events::into_stream`] for combinators.
//! - [`Node::close`] says goodbye to every peer. Dropping the last handle ends the node, too, without the goodbye.
//!
//! Every wait on a remote has a limit, and so has whatever a remote can make grow: [`Limits`]. [`Node::builder`] is the bare
//! builder below this one: it has no transports but those that are added.
//!
//! # A chat
//!
//! One stream for each message; whoever is connected gets it.
//!
//! ```rust
//! use peerloom::{Node, NodeEvent, PeerId, ProtocolName, StreamExt as _};
//! use tokio::{
//!     io::{AsyncReadExt as _, AsyncWriteExt as _},
//!     sync::mpsc,
//! };
//!
//! const CHAT: ProtocolName = ProtocolName::from_static("/example-chat/1.0.0");
//! const LONGEST: u64 = 16 * 1024;
//!
//! /// A node that gives what others say to `heard`.
//! async fn join(heard: mpsc::Sender<(PeerId, String)>) -> Result<Node, Box<dyn std::error::Error>> {
//!     let receive = move |incoming: peerloom::IncomingStream| {
//!         let heard = heard.clone();
//!         async move {
//!             let mut message = String::new();
//!             if incoming.stream.into_io().take(LONGEST).read_to_string(&mut message).await.is_ok() {
//!                 let _ = heard.send((incoming.connection.peer, message)).await;
//!             }
//!         }
//!     };
//!     let address = "/ip4/127.0.0.1/udp/0/quic-v1".parse()?;
//!     Ok(peerloom::builder().listen(address).handle(CHAT, receive).start().await?)
//! }
//!
//! async fn say(node: &Node, text: &str) -> Result<(), Box<dyn std::error::Error>> {
//!     for connection in node.connections() {
//!         let mut stream = node.open_stream(&connection, &[CHAT]).await?.into_io();
//!         stream.write_all(text.as_bytes()).await?;
//!         stream.shutdown().await?;
//!     }
//!     Ok(())
//! }
//!
//! #[tokio::main]
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let (to_alice, mut alice_hears) = mpsc::channel(16);
//!     let (to_bob, mut bob_hears) = mpsc::channel(16);
//!     let (alice, bob) = (join(to_alice).await?, join(to_bob).await?);
//!
//!     let mut events = alice.events();
//!     bob.dial(alice.listen_addresses().remove(0)).await?;
//!     say(&bob, "hello").await?;
//!     assert_eq!(alice_hears.recv().await, Some((bob.peer_id(), "hello".to_owned())));
//!     say(&alice, "hello, you").await?;
//!     assert_eq!(bob_hears.recv().await, Some((alice.peer_id(), "hello, you".to_owned())));
//!
//!     bob.close().await;
//!     while let Some(event) = events.next().await {
//!         if let NodeEvent::ConnectionClosed { connection, last: true, .. } = event {
//!             assert_eq!(connection.peer, bob.peer_id());
//!             break;
//!         }
//!     }
//!     Ok(())
//! }
//! ```
//!
//! # A file
//!
//! Streams are tokio's, so a file is copied into one:
//!
//! ```rust
//! use peerloom::{ProtocolName, StreamExt as _};
//! use tokio::{
//!     fs::File,
//!     io::{AsyncReadExt as _, AsyncWriteExt as _, copy},
//! };
//!
//! const FILE: ProtocolName = ProtocolName::from_static("/example-file/1.0.0");
//! const LARGEST: u64 = 1 << 30;
//!
//! #[tokio::main]
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let directory = tempfile::tempdir()?;
//!     let (original, received) = (directory.path().join("original"), directory.path().join("received"));
//!     tokio::fs::write(&original, vec![7; 1_000_000]).await?;
//!
//!     let path = received.clone();
//!     let receiver = peerloom::builder()
//!         .listen("/ip4/127.0.0.1/tcp/0".parse()?)
//!         .handle(FILE, move |incoming| {
//!             let path = path.clone();
//!             async move {
//!                 let mut stream = incoming.stream.into_io();
//!                 let Ok(mut file) = File::create_new(path).await else { return };
//!                 // The sender closes its half behind the file; a stream that breaks is an error, not an end.
//!                 if let Ok(length) = copy(&mut (&mut stream).take(LARGEST), &mut file).await
//!                     && file.sync_all().await.is_ok()
//!                 {
//!                     let _ = stream.write_u64(length).await;
//!                     let _ = stream.shutdown().await;
//!                 }
//!             }
//!         })
//!         .start()
//!         .await?;
//!
//!     let sender = peerloom::start().await?;
//!     let connection = sender.dial(receiver.listen_addresses().remove(0)).await?;
//!     let mut stream = sender.open_stream(&connection, &[FILE]).await?.into_io();
//!     let sent = copy(&mut File::open(&original).await?, &mut stream).await?;
//!     stream.shutdown().await?;
//!     assert_eq!(stream.read_u64().await?, sent);
//!     assert!(tokio::fs::read(&received).await? == tokio::fs::read(&original).await?);
//!     Ok(())
//! }
//! ```
#![cfg_attr(docsrs, feature(doc_cfg))]

mod builder;
mod error;
pub mod identity;
#[cfg(any(feature = "tcp", feature = "websocket", feature = "quic", feature = "webrtc"))]
mod interfaces;
#[cfg(feature = "peer-storage")]
mod peers;
mod port;
mod transports;
#[cfg(all(feature = "webrtc", feature = "relay-client"))]
mod webrtc;

#[doc(inline)]
pub use peerloom_core::{
    Circuit, CircuitEnd, CircuitLimits, Connection, ConnectionError, DialError, HandshakeError, Incoming,
    KeyError, Keypair, ListenError, Listener, ListenerEvent, Multiaddr, MultiaddrError, NegotiatedStream,
    NegotiationError, PeerId, PeerIdError, Protocol, ProtocolName, ProtocolNameError, PublicKey, Stream,
    StreamError, StreamExt, StreamIo, Transport, framing, runtime,
};
#[doc(inline)]
pub use peerloom_node::{
    AddressSource, ConnectError, ConnectionId, ConnectionInfo, Denied, DialTarget, Direction, Events, Gate,
    Gating, HandleError, IncomingStream, IpNetwork, KnownAddress, Limits, MetadataError, Node, NodeBuilder,
    NodeEvent, OpenStreamError, OpenedStream, OwnAddress, Passage, PeerAddressSource, PeerChange,
    PeerDetails, PeerStorage, PeerStorageError, PeerStore, Reachability, Refusal, Rule, RuleError,
    StoredPeer, StreamTarget, WeakNode, identify, ping, resources,
};
#[cfg(feature = "peer-storage")]
#[doc(inline)]
pub use peerloom_peer_storage::{PeerFile, PeerFileError};
#[cfg(any(feature = "tcp", feature = "websocket"))]
#[doc(inline)]
pub use peerloom_upgrade::pnet::{KeyFileError, PreSharedKey};
#[cfg(any(feature = "quic", feature = "tcp"))]
#[doc(inline)]
pub use peerloom_upgrade::tls::KeyExchange;
#[cfg(feature = "websocket")]
#[doc(inline)]
pub use peerloom_websocket::{CertificateFileError, CertificateFiles, Trust};

/// The protocol that measures how many bytes per second a connection carries: the feature `perf`.
#[cfg(feature = "perf")]
pub mod perf {
    #[doc(inline)]
    pub use peerloom_perf::*;
}

/// Names in addresses: the feature `dns`.
#[cfg(feature = "dns")]
pub mod dns {
    #[doc(inline)]
    pub use peerloom_dns::*;
}

/// Which of a node's addresses others reach: the feature `autonat`.
#[cfg(feature = "autonat")]
pub mod autonat {
    #[doc(inline)]
    pub use peerloom_autonat::*;
}

/// Peers that cannot be dialed are reached through one that can: the features `relay-client` and, to be that one,
/// `relay-server`.
#[cfg(feature = "relay-client")]
pub mod relay {
    #[doc(inline)]
    pub use peerloom_relay::*;
}

pub use crate::{builder::Builder, error::StartError};

/// Starts a node with a new identity and every transport that is compiled in. It dials, is dialed once it
/// [listens](Node::listen), and binds no socket before either; it says who it is and answers pings, resolves names, reaches
/// peers through relays, and from there directly over WebRTC.
///
/// ```
/// # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let node = peerloom::start().await?;
/// println!("I am {}", node.peer_id());
/// # Ok(()) }
/// ```
pub async fn start() -> Result<Node, StartError> {
    builder().start().await
}

/// Starts to put a node together that is other than that of [`start`].
///
/// ```
/// # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let node = peerloom::builder().port(0).agent_version("weather/1.0").start().await?;
/// for address in node.listen_addresses() {
///     println!("reachable at {address}");
/// }
/// # Ok(()) }
/// ```
pub fn builder() -> Builder {
    Builder::default()
}

/// The README of the repository is tested with this crate.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct RepositoryReadme;
