//! The suite of all transports, on QUIC and on WebTransport.

// The whole file is tests; clippy takes only the functions marked as such for those.
#![allow(clippy::unwrap_used)]

use peerloom_core::{Multiaddr, Protocol};
use peerloom_quic::{QuicConfig, QuicTransport, WebTransportConfig, WebTransportTransport};
use peerloom_transport_suite::Subject;
use tokio::net::UdpSocket;

mod quic {
    use super::*;

    peerloom_transport_suite::suite!(subject);

    async fn subject() -> Subject {
        let transport = |keypair| QuicTransport::new(keypair, QuicConfig::default()).unwrap();
        Subject::new(transport, "/ip4/127.0.0.1/udp/0/quic-v1").with_garbage(send)
    }
}

mod webtransport {
    use super::*;

    peerloom_transport_suite::suite!(subject);

    async fn subject() -> Subject {
        let transport = |keypair| WebTransportTransport::new(keypair, WebTransportConfig::default());
        Subject::new(transport, "/ip4/127.0.0.1/udp/0/quic-v1/webtransport").with_garbage(send)
    }
}

async fn send(address: Multiaddr, bytes: Vec<u8>) {
    let port = address.protocols().find_map(|protocol| match protocol {
        Protocol::Udp(port) => Some(port),
        _ => None,
    });
    if let Ok(socket) = UdpSocket::bind("127.0.0.1:0").await {
        for datagram in bytes.chunks(1200) {
            let _ = socket.send_to(datagram, ("127.0.0.1", port.unwrap_or_default())).await;
        }
    }
}
