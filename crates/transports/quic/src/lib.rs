//! Peerloom's native QUIC transports. So far one: WebTransport, by which browsers dial servers that have no domain name
//! and no certificate of an authority.

pub mod certificate;
mod h3;
mod webtransport;

pub use webtransport::{WebTransportConfig, WebTransportTransport};
