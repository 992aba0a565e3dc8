//! What no caller of a transport can see of a port.

use peerloom_core::{Keypair, ListenerEvent, StreamExt as _, Transport as _};
use peerloom_upgrade::tls::{ALPN, KeyExchange, PeerVerifier, TlsIdentity};
use quinn::{AsyncUdpSocket as _, crypto::rustls::QuicClientConfig};

use super::*;
use crate::{QuicConfig, QuicTransport};

/// Bytes sent in bulk.
const BULK: usize = 8 << 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bulk_leaves_in_batches_where_the_system_can() {
    let server = QuicTransport::new(Keypair::generate(), QuicConfig::default()).unwrap();
    let mut listener = server.listen("/ip4/127.0.0.1/udp/0/quic-v1".parse().unwrap()).await.unwrap();
    let address = listener.addresses().remove(0);
    let udp = |protocol| match protocol {
        Protocol::Udp(port) => Some(port),
        _ => None,
    };
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, address.protocols().find_map(udp).unwrap()));
    let receiving = async {
        let ListenerEvent::Incoming(incoming) = listener.next().await.unwrap() else { panic!() };
        let connection = incoming.handshake.await.unwrap();
        let mut stream = connection.accept_stream().await.unwrap();
        let mut received = 0;
        while let Some(chunk) = stream.read_chunk().await.unwrap() {
            received += chunk.len();
        }
        assert_eq!(received, BULK);
    };
    let ports = UdpPorts::default();
    let port = ports.to_dial(address.ip()).unwrap();
    let identity = TlsIdentity::new(&Keypair::generate(), KeyExchange::Classical).unwrap();
    let tls = identity.client(&[ALPN], Arc::new(PeerVerifier::new(None)));
    let mut config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()));
    let settings = Settings { idle_timeout: HANDSHAKE_TIMEOUT, unidirectional_streams: 0 };
    config.transport_config(transport_config(settings));
    let sending = async {
        let quic = port.endpoint().connect_with(config, address, "x").unwrap().await.unwrap();
        let (mut send, _recv) = quic.open_bi().await.unwrap();
        send.write_all(&vec![7; BULK]).await.unwrap();
        send.finish().unwrap();
        // The receiver may hang up once it has all.
        let _ = send.stopped().await;
        quic.stats().udp_tx
    };
    let (sent, ()) = tokio::join!(sending, receiving);
    println!("{} datagrams in {} writes", sent.datagrams, sent.ios);
    match port.socket.max_transmit_segments() {
        1 => println!("skipped: the system has no segmentation offload"),
        _ => assert!(sent.datagrams > 2 * sent.ios, "{sent:?}"),
    }
}
