//! [`Transport`](peerloom_core::Transport)s on the browser's own networking objects. None of them listens: a page is reached through
//! a relay, or over WebRTC that a relay has arranged.

mod address;
mod closed;
mod pending;
pub mod webrtc;
pub mod webrtc_direct;
pub mod websocket;
pub mod webtransport;

pub use webrtc::BrowserPeerConnections;
pub use webrtc_direct::WebRtcDirectTransport;
pub use websocket::WebSocketTransport;
pub use webtransport::{WebTransportStream, WebTransportTransport};
