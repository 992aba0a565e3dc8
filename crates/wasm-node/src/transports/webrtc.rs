//! The browser's RTCPeerConnection and its data channels as a connection and its streams (libp2p spec "WebRTC"), and how two
//! pages get one to each other. WebRTC-direct, to a server, uses the same.

mod bindings;
pub(crate) mod channel;
pub(crate) mod connection;
mod negotiated;

pub use negotiated::BrowserPeerConnections;
