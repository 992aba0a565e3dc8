//! The suite of all transports, on TCP: with Noise, with TLS, and in a private network.

use peerloom_core::{Multiaddr, Protocol};
use peerloom_tcp::TcpTransport;
use peerloom_transport_suite::Subject;
use peerloom_upgrade::pnet::PreSharedKey;
use tokio::{io::AsyncWriteExt as _, net::TcpStream};

peerloom_transport_suite::suite!(subject);

async fn subject() -> Subject {
    Subject::new(TcpTransport::new, "/ip4/127.0.0.1/tcp/0").with_garbage(send)
}

mod tls {
    use super::*;

    peerloom_transport_suite::suite!(subject);

    async fn subject() -> Subject {
        Subject::new(TcpTransport::new, "/ip4/127.0.0.1/tcp/0/tls").with_garbage(send)
    }
}

mod private_network {
    use super::*;

    peerloom_transport_suite::suite!(subject);

    async fn subject() -> Subject {
        let member =
            |keypair| TcpTransport::new(keypair).with_private_network(PreSharedKey::from_bytes([7; 32]));
        Subject::new(member, "/ip4/127.0.0.1/tcp/0").with_garbage(send)
    }
}

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
