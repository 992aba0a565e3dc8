//! A libp2p node over any set of [`Transport`](peerloom_core::Transport)s.
//!
//! Streams are the base: [`Node::open_stream`] and [`Node::handle`] are the only way to get one, for identify and ping in
//! this crate as for an application's own protocol. What one part learns of a peer it writes into the [`PeerStore`];
//! what changes goes out as a [`NodeEvent`].
//!
//! ```no_run
//! # async fn example(transport: impl peerloom_core::Transport) -> Result<(), Box<dyn std::error::Error>> {
//! use peerloom_core::{Keypair, StreamExt};
//! use peerloom_node::Node;
//!
//! let node = Node::builder(Keypair::generate()).transport(transport).build();
//! node.handle("/echo/1.0.0".parse()?, |mut incoming| async move {
//!     while let Ok(Some(chunk)) = incoming.stream.read_chunk().await {
//!         if incoming.stream.write_all(chunk).await.is_err() {
//!             return;
//!         }
//!     }
//!     let _ = incoming.stream.close_write().await;
//! })?;
//! node.listen("/ip4/127.0.0.1/tcp/0".parse()?).await?;
//! # Ok(()) }
//! ```
//!
//! # Parts that know what the others know
//!
//! Protocols do not call each other. This one says hello to every peer that speaks it, as soon as that is known, and neither
//! identify, which finds it out, nor the application, which may have opened the connection, knows of it:
//!
//! ```
//! # use peerloom_node::{Node, NodeEvent};
//! use bytes::Bytes;
//! use peerloom_core::{ProtocolName, StreamExt};
//!
//! const HELLO: ProtocolName = ProtocolName::from_static("/hello/1.0.0");
//!
//! fn greet(node: &Node) {
//!     let mut events = node.events();
//!     let node_of_task = node.downgrade();
//!     node.spawn(async move {
//!         while let Some(event) = events.next().await {
//!             let Some(node) = node_of_task.upgrade() else { return };
//!             let speakers = match event {
//!                 // Once for each time that the peer comes, or learns it while it is connected.
//!                 NodeEvent::PeerProtocolsChanged { peer, added, .. } if added.contains(&HELLO) => vec![peer],
//!                 // Whoever is too slow for the events is told so, and looks at the state anew.
//!                 NodeEvent::Lagged { .. } => node.peer_store().supporting(&HELLO),
//!                 _ => continue,
//!             };
//!             for peer in speakers.into_iter().filter(|peer| node.is_connected(*peer)) {
//!                 let opening = node.open_stream(peer, &[HELLO]);
//!                 node.spawn(async move {
//!                     let Ok(mut stream) = opening.await else { return };
//!                     let _ = stream.write_all(Bytes::from_static(b"hello")).await;
//!                     let _ = stream.close_write().await;
//!                 });
//!             }
//!         }
//!     });
//! }
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let network = peerloom_sim::Network::new(std::time::Duration::from_millis(1));
//! # let node = || {
//! #     let keypair = peerloom_core::Keypair::generate();
//! #     Node::builder(keypair.clone()).transport(network.transport(keypair)).build()
//! # };
//! # let (alice, bob) = (node(), node());
//! # greet(&alice);
//! # let (sender, mut greeted) = tokio::sync::mpsc::channel(1);
//! # bob.handle(HELLO, move |mut incoming| {
//! #     let sender = sender.clone();
//! #     async move { let _ = sender.send(incoming.stream.read_chunk().await).await; }
//! # })?;
//! # let address = bob.listen("/memory/0".parse()?).await?.remove(0);
//! # alice.dial(address).await?;
//! # assert_eq!(greeted.recv().await.unwrap()?.unwrap(), "hello");
//! # Ok(()) }
//! ```

pub mod addresses;
mod builder;
mod connections;
mod dial;
mod event;
mod gating;
mod handshakes;
pub mod identify;
mod limits;
mod listen;
mod node;
mod peer_store;
pub mod ping;
mod relayed;
pub mod resources;
mod router;
mod wall_clock;

pub use addresses::{AddressSource, OwnAddress, Reachability};
pub use builder::NodeBuilder;
pub use connections::{
    ClosedCounts, ConnectionId, ConnectionInfo, Direction, KeepError, LostReason, MAX_KEPT_PEERS,
};
pub use dial::{ConnectError, DialTarget};
pub use event::{Events, NodeEvent};
pub use gating::{Denied, GATE_PATIENCE, Gate, Gating, IpNetwork, Passage, Refusal, Rule, RuleError};
pub use limits::Limits;
pub use node::{Node, OpenStreamError, StreamTarget, WeakNode};
pub use peer_store::{
    ADDRESS_TTL, KnownAddress, MAX_ADDRESSES_PER_PEER, MAX_METADATA_LENGTH, MAX_METADATA_NAME_LENGTH,
    MAX_METADATA_PER_PEER, MAX_STORED_BYTES, MAX_TAG_NAME_LENGTH, MAX_TAGGED_PEERS, MAX_TAGS_PER_PEER,
    MetadataError, PeerAddressSource, PeerChange, PeerDetails, PeerStorage, PeerStorageError, PeerStore,
    StoredPeer, Tag, TagError,
};
pub use relayed::ExpectDirect;
pub use router::{HandleError, IncomingStream, OpenedStream};
