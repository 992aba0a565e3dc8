//! WebTransport: streams of a browser's own, to a server that it knows by the hash of its certificate.
//!
//! QUIC, then HTTP/3 settings, then a CONNECT request for `/.well-known/libp2p-webtransport?type=noise`, then the Noise
//! handshake on the first stream that the client opens; after that each libp2p stream is a stream of the session. One
//! session per connection. A dial takes one round trip for QUIC and one for all the rest.
//!
//! libp2p webtransport spec; draft-ietf-webtrans-http3, of which browsers speak drafts 02 to 15.

mod address;
mod connection;
mod handshake;
mod listener;
mod session;
#[cfg(test)]
mod tests;
mod tls;
mod transport;
mod unidirectional;

pub use transport::{WebTransportConfig, WebTransportTransport};

/// This transport's name in errors.
const STEP: &str = "webtransport";
