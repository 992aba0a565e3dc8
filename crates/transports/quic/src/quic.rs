//! QUIC as libp2p has it: the remote is authenticated by TLS, and each libp2p stream is a bidirectional stream of QUIC's. A
//! dial takes one round trip.
//!
//! libp2p quic and tls specs; RFC 9000.

mod address;
mod connection;
mod listener;
mod transport;

pub use transport::{QuicConfig, QuicTransport};
