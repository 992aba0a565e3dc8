//! Peerloom's native QUIC transports: [`QuicTransport`], by which servers and programs reach each other, and
//! [`WebTransportTransport`], by which browsers dial servers that have no domain name and no certificate of an authority.
//!
//! Both may listen on one UDP port, and WebRTC too: give them clones of the same [`UdpPorts`].

mod alpn;
pub mod certificate;
mod client_hello;
mod congestion;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod h3;
mod limits;
mod ports;
mod quic;
mod receive_window;
mod stream;
mod streams;
mod webtransport;

pub use ports::UdpPorts;
pub use quic::{QuicConfig, QuicTransport};
pub use webtransport::{WebTransportConfig, WebTransportTransport};

/// QUIC's name in errors.
const STEP: &str = "quic";
