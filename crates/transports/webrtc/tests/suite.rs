//! The suite of all transports, on WebRTC-direct in both wire versions.

// The whole file is tests; clippy takes only the functions marked as such for those.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use peerloom_core::{Multiaddr, Protocol};
use peerloom_transport_suite::Subject;
use peerloom_webrtc::{WebRtcDirectConfig, WebRtcDirectTransport, WireVersion};
use tokio::net::UdpSocket;

mod v1 {
    peerloom_transport_suite::suite!(subject);

    async fn subject() -> super::Subject {
        super::subject(super::WireVersion::V1)
    }
}

mod v2 {
    peerloom_transport_suite::suite!(subject);

    async fn subject() -> super::Subject {
        super::subject(super::WireVersion::V2)
    }
}

fn subject(version: WireVersion) -> Subject {
    let transport = move |keypair| {
        let mut config = WebRtcDirectConfig::default();
        config.dial_version = version;
        WebRtcDirectTransport::new(keypair, config).unwrap()
    };
    Subject::new(transport, "/ip4/127.0.0.1/udp/0/webrtc-direct").with_garbage(send)
}

async fn send(address: Multiaddr, bytes: Vec<u8>) {
    let port = address.protocols().find_map(|protocol| match protocol {
        Protocol::Udp(port) => Some(port),
        _ => None,
    });
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.send_to(&bytes, ("127.0.0.1", port.unwrap())).await.unwrap();
}
