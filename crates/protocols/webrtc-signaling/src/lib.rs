//! `/webrtc-signaling/0.0.1`: two peers that only a relay can reach become direct WebRTC peers of each other. libp2p
//! spec, webrtc/webrtc.md.
//!
//! Over the relayed connection, which authenticates both sides, they exchange an SDP offer, an answer and ICE candidates as
//! these are found.

mod peer_connection;

pub use peer_connection::{PeerConnection, PeerConnectionEvent, PeerConnectionFactory, SignalingRole};

/// The protocol's name.
pub const PROTOCOL: &str = "/webrtc-signaling/0.0.1";
