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
pub use connections::{ConnectionId, ConnectionInfo, Direction, KeepError, LostReason, MAX_KEPT_PEERS};
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
