//! The suite of all transports, on WebSocket.

use peerloom_core::{Multiaddr, Protocol};
use peerloom_transport_suite::Subject;
use peerloom_websocket::WebSocketTransport;
use tokio::{io::AsyncWriteExt as _, net::TcpStream};

peerloom_transport_suite::suite!(subject);

async fn subject() -> Subject {
    Subject::new(WebSocketTransport::new, "/ip4/127.0.0.1/tcp/0/ws").with_garbage(send)
}

/// What is no WebSocket handshake.
async fn send(address: Multiaddr, bytes: Vec<u8>) {
    let port = address.protocols().find_map(|protocol| match protocol {
        Protocol::Tcp(port) => Some(port),
        _ => None,
    });
    // The listener may have closed the socket before all was written.
    if let Ok(mut socket) = TcpStream::connect(("127.0.0.1", port.unwrap_or_default())).await {
        let _ = socket.write_all(&bytes).await;
    }
}
