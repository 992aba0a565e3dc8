//! libp2p's WebRTC-direct transport, native.

pub mod certificate;
mod dcep;
mod dtls;
mod framing;
mod ice;
pub mod limits;
mod peer_connection;
mod sctp;
mod stun;
mod ufrag;

pub use ufrag::WireVersion;
