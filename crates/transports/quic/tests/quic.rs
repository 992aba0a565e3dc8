//! QUIC: what the suite of all transports does not ask.

// The whole file is tests; clippy takes only the functions marked as such for those.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use common::{Server, ask, echo, port};
use peerloom_core::{
    ConnectionError, DialError, HandshakeError, Keypair, ListenError, Multiaddr, StreamExt as _,
    Transport as _, runtime::timeout,
};
use peerloom_quic::{QuicConfig, QuicTransport, UdpPorts, WebTransportConfig, WebTransportTransport};
use peerloom_upgrade::tls::{ALPN, KeyExchange, PeerVerifier, TlsIdentity};
use quinn::crypto::rustls::QuicClientConfig;

const LISTEN: &str = "/ip4/127.0.0.1/udp/0/quic-v1";

fn transport(identity: &Keypair, config: QuicConfig) -> QuicTransport {
    QuicTransport::new(identity.clone(), config).unwrap()
}

async fn serve(identity: &Keypair, config: QuicConfig) -> Server {
    Server::new(transport(identity, config).listen(LISTEN.parse().unwrap()).await.unwrap())
}

fn localhost(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// A client made of quinn alone, without a keep-alive.
fn raw_config(identity: &Keypair, alpn: &[&[u8]]) -> quinn::ClientConfig {
    let tls = TlsIdentity::new(identity, KeyExchange::Classical).unwrap();
    let tls = tls.client(alpn, Arc::new(PeerVerifier::new(None)));
    quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()))
}

fn raw_endpoint() -> quinn::Endpoint {
    quinn::Endpoint::client(localhost(0)).unwrap()
}

#[tokio::test]
async fn resets_carry_their_code_as_it_is() {
    let mut server = serve(&Keypair::generate(), QuicConfig::default()).await;
    let config = raw_config(&Keypair::generate(), &[ALPN]);
    let raw =
        raw_endpoint().connect_with(config, localhost(port(&server.address)), "x").unwrap().await.unwrap();
    let accepted = server.accept().await;
    let (mut send, mut recv) = raw.open_bi().await.unwrap();
    send.write_all(b"x").await.unwrap();
    let mut stream = accepted.accept_stream().await.unwrap();
    stream.read_chunk().await.unwrap();
    stream.reset(0x1005);
    assert_eq!(recv.read(&mut [0; 1]).await, Err(quinn::ReadError::Reset(0x1005_u32.into())));
    assert_eq!(send.stopped().await, Ok(Some(0x1005_u32.into())));
}

#[tokio::test]
async fn a_remote_may_open_no_unidirectional_streams() {
    let mut server = serve(&Keypair::generate(), QuicConfig::default()).await;
    let config = raw_config(&Keypair::generate(), &[ALPN]);
    let raw =
        raw_endpoint().connect_with(config, localhost(port(&server.address)), "x").unwrap().await.unwrap();
    let _accepted = server.accept().await;
    assert!(timeout(Duration::from_millis(200), raw.open_uni()).await.is_err());
}

#[tokio::test]
async fn a_close_sends_what_was_written_on_streams_that_are_still_open() {
    let identity = Keypair::generate();
    let mut server = serve(&identity, QuicConfig::default()).await;
    let client =
        transport(&Keypair::generate(), QuicConfig::default()).dial(server.address.clone()).await.unwrap();
    let accepted = server.accept().await;
    let mut unfinished = client.open_stream().await.unwrap();
    let data = Bytes::from(vec![7; 200_000]);
    unfinished.write_all(data.clone()).await.unwrap();
    let reading = async {
        let mut stream = accepted.accept_stream().await.unwrap();
        let mut received = 0;
        while let Ok(Some(chunk)) = stream.read_chunk().await {
            received += chunk.len();
        }
        received
    };
    let (received, ()) = tokio::join!(reading, client.close());
    assert_eq!(received, data.len());
    assert!(matches!(*accepted.closed().await, ConnectionError::ClosedByRemote));
}

#[tokio::test]
async fn an_idle_connection_is_kept_alive_with_few_packets() {
    let mut server = serve(&Keypair::generate(), QuicConfig::default()).await;
    let config = raw_config(&Keypair::generate(), &[ALPN]);
    let raw =
        raw_endpoint().connect_with(config, localhost(port(&server.address)), "x").unwrap().await.unwrap();
    let accepted = server.accept().await;
    // What belongs to the handshake is to be over.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let before = raw.stats().udp_rx.datagrams;
    tokio::time::pause();
    tokio::time::sleep(Duration::from_secs(600)).await;
    tokio::time::resume();
    let received = raw.stats().udp_rx.datagrams - before;
    assert!((30..=50).contains(&received), "{received}");
    assert!(raw.close_reason().is_none());
    drop(accepted);
}

#[tokio::test]
async fn a_remote_that_goes_silent_is_given_up() {
    let config = QuicConfig::default().with_idle_timeout(Duration::from_millis(500));
    let mut server = serve(&Keypair::generate(), config).await;
    // In a runtime of its own: dropping that takes away its socket without a word.
    let address = localhost(port(&server.address));
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let config = raw_config(&Keypair::generate(), &[ALPN]);
            let raw = raw_endpoint().connect_with(config, address, "x").unwrap().await.unwrap();
            std::mem::forget(raw);
        });
        runtime.shutdown_background();
    });
    let accepted = server.accept().await;
    thread.join().unwrap();
    let over = timeout(Duration::from_secs(10), accepted.closed()).await.unwrap();
    assert!(matches!(*over, ConnectionError::TimedOut), "{over:?}");
}

#[tokio::test]
async fn a_client_that_moves_to_another_port_keeps_its_connection() {
    let mut server = serve(&Keypair::generate(), QuicConfig::default()).await;
    let endpoint = raw_endpoint();
    let config = raw_config(&Keypair::generate(), &[ALPN]);
    let raw = endpoint.connect_with(config, localhost(port(&server.address)), "x").unwrap().await.unwrap();
    let accepted = server.accept().await;
    for moved in [false, true] {
        if moved {
            endpoint.rebind(std::net::UdpSocket::bind(localhost(0)).unwrap()).unwrap();
        }
        let asking = async {
            let (mut send, mut recv) = raw.open_bi().await.unwrap();
            send.write_all(b"still there?").await.unwrap();
            send.finish().unwrap();
            assert_eq!(recv.read_to_end(100).await.unwrap(), b"still there?");
        };
        let both = async { tokio::join!(asking, echo(&*accepted)) };
        timeout(Duration::from_secs(10), both).await.unwrap();
    }
}

#[tokio::test]
async fn a_dial_leaves_from_the_port_that_is_listened_on() {
    let [us, them] = [(); 2].map(|()| Keypair::generate());
    let mut server = serve(&them, QuicConfig::default()).await;
    let ports = UdpPorts::default();
    let listening = transport(&us, QuicConfig::default().with_ports(ports.clone()));
    let alone = listening.dial(server.address.clone()).await.unwrap();
    let ours = Server::new(listening.listen(LISTEN.parse().unwrap()).await.unwrap());
    assert_ne!(port(server.accept().await.remote_address()), port(&ours.address));

    let quic = listening.dial(server.address.clone()).await.unwrap();
    let accepted = server.accept().await;
    assert_eq!(port(accepted.remote_address()), port(&ours.address));
    drop((alone, quic));
}

#[tokio::test]
async fn a_port_is_closed_with_its_last_connection_and_may_be_listened_on_before() {
    let identity = Keypair::generate();
    let listening = transport(&identity, QuicConfig::default());
    let mut server = Server::new(listening.listen(LISTEN.parse().unwrap()).await.unwrap());
    let address = server.address.clone();
    assert!(matches!(listening.listen(address.clone()).await, Err(ListenError::Io { .. })));
    let dialer = transport(&Keypair::generate(), QuicConfig::default());
    let client = dialer.dial(address.clone()).await.unwrap();
    let accepted = server.accept().await;
    drop(server);
    assert!(std::net::UdpSocket::bind(localhost(port(&address))).is_err());
    // The server's task ends in its own time.
    let again = async {
        loop {
            match listening.listen(address.clone()).await {
                Ok(listener) => break Server::new(listener),
                Err(_) => tokio::task::yield_now().await,
            }
        }
    };
    let mut again = timeout(Duration::from_secs(10), again).await.unwrap();
    let second = dialer.dial(address.clone()).await.unwrap();
    let accepted_again = again.accept().await;
    for (client, accepted) in [(&client, &accepted), (&second, &accepted_again)] {
        tokio::join!(ask(&**client, Bytes::from_static(b"hello")), echo(&**accepted));
    }
    drop((again, client, accepted, second, accepted_again));
    let free = async {
        while std::net::UdpSocket::bind(localhost(port(&address))).is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(Duration::from_secs(20), free).await.unwrap();
}

#[tokio::test]
async fn a_dial_of_nobody_and_of_other_addresses_says_so() {
    let config = QuicConfig::default().with_idle_timeout(Duration::from_millis(300));
    let dialer = transport(&Keypair::generate(), config);
    let silent = std::net::UdpSocket::bind(localhost(0)).unwrap();
    let address = format!("/ip4/127.0.0.1/udp/{}/quic-v1", silent.local_addr().unwrap().port());
    assert!(matches!(dialer.dial(address.parse().unwrap()).await, Err(DialError::Unreachable { .. })));
    for address in
        ["/ip4/127.0.0.1/udp/9/quic", "/ip4/127.0.0.1/udp/9/quic-v1/webtransport", "/ip4/127.0.0.1/tcp/9"]
    {
        let address: Multiaddr = address.parse().unwrap();
        assert!(!dialer.can_dial(&address) && !dialer.can_listen(&address));
        assert!(matches!(dialer.dial(address.clone()).await, Err(DialError::UnsupportedAddress { .. })));
        assert!(matches!(dialer.listen(address).await, Err(ListenError::UnsupportedAddress { .. })));
    }
}

#[tokio::test]
async fn a_protocol_that_nobody_serves_is_refused_on_both_sides() {
    let identity = Keypair::generate();
    let mut server = serve(&identity, QuicConfig::default()).await;
    let config = raw_config(&Keypair::generate(), &[b"h3", b"other"]);
    let refused = raw_endpoint().connect_with(config, localhost(port(&server.address)), "x").unwrap().await;
    assert!(matches!(refused, Err(quinn::ConnectionError::ConnectionClosed(_))));
    let handshake = server.handshakes.recv().await.unwrap().err();
    assert!(matches!(handshake, Some(HandshakeError::NoCommonProtocol { .. })), "{handshake:?}");

    // A dial of QUIC where only WebTransport is served.
    let web = WebTransportTransport::new(identity, WebTransportConfig::default());
    let web = Server::new(web.listen(format!("{LISTEN}/webtransport").parse().unwrap()).await.unwrap());
    let address = format!("/ip4/127.0.0.1/udp/{}/quic-v1", port(&web.address));
    let refused = transport(&Keypair::generate(), QuicConfig::default()).dial(address.parse().unwrap()).await;
    assert!(
        matches!(&refused, Err(DialError::Handshake { source: HandshakeError::NoCommonProtocol { .. }, .. })),
        "{:?}",
        refused.err()
    );
}

/// A ClientHello with a post-quantum key share is two packets.
#[tokio::test]
async fn post_quantum_dials_reach_a_port_with_both_protocols() {
    let identity = Keypair::generate();
    let ports = UdpPorts::default();
    let listening = transport(&identity, QuicConfig::default().with_ports(ports.clone()));
    let mut server = Server::new(listening.listen(LISTEN.parse().unwrap()).await.unwrap());
    let web = WebTransportTransport::new(identity.clone(), WebTransportConfig::default().with_ports(ports));
    let both = format!("{}/webtransport", server.address);
    let mut web = Server::new(web.listen(both.parse().unwrap()).await.unwrap());
    let config = QuicConfig::default().with_key_exchange(KeyExchange::PostQuantum);
    let dialer = transport(&Keypair::generate(), config);
    let client = dialer.dial(server.address.with_peer_id(identity.peer_id())).await.unwrap();
    // Either listener may have taken it.
    let accepted =
        tokio::select! { accepted = server.accept() => accepted, accepted = web.accept() => accepted };
    tokio::join!(ask(&*client, Bytes::from_static(b"hello")), echo(&*accepted));
}

#[tokio::test]
async fn an_endless_client_hello_is_refused() {
    let identity = Keypair::generate();
    let ports = UdpPorts::default();
    let listening = transport(&identity, QuicConfig::default().with_ports(ports.clone()));
    let server = Server::new(listening.listen(LISTEN.parse().unwrap()).await.unwrap());
    let web = WebTransportTransport::new(identity, WebTransportConfig::default().with_ports(ports));
    let _web =
        Server::new(web.listen(format!("{}/webtransport", server.address).parse().unwrap()).await.unwrap());
    let long = [b'x'; 250];
    let config = raw_config(&Keypair::generate(), &[&long[..]; 80]);
    let refused = raw_endpoint().connect_with(config, localhost(port(&server.address)), "x").unwrap().await;
    let Err(quinn::ConnectionError::ConnectionClosed(close)) = refused else { panic!("{refused:?}") };
    assert_eq!(close.error_code, quinn::TransportErrorCode::CRYPTO_BUFFER_EXCEEDED);
}

/// The first packets of clients that never send another.
fn half_open(address: SocketAddr, count: usize) -> Vec<Vec<u8>> {
    let config = raw_config(&Keypair::generate(), &[ALPN]);
    let mut endpoint = quinn_proto::Endpoint::new(Arc::default(), None, false, None);
    let now = tokio::time::Instant::now().into_std();
    let first = |_| {
        let (_, mut connection) = endpoint.connect(now, config.clone(), address, "x").unwrap();
        let mut packet = Vec::new();
        let _ = connection.poll_transmit(now, 1, &mut packet).unwrap();
        packet
    };
    (0..count).map(first).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_open_handshakes_do_not_keep_honest_dialers_out() {
    let identity = Keypair::generate();
    let mut server = serve(&identity, QuicConfig::default()).await;
    let address = localhost(port(&server.address));
    let socket = tokio::net::UdpSocket::bind(localhost(0)).await.unwrap();
    for (number, packet) in half_open(address, 10_000).iter().enumerate() {
        socket.send_to(packet, address).await.unwrap();
        // Or the kernel would drop most of them.
        if number % 16 == 0 {
            tokio::task::yield_now().await;
        }
    }
    let dialer = transport(&Keypair::generate(), QuicConfig::default());
    let dial = dialer.dial(server.address.with_peer_id(identity.peer_id()));
    let client = timeout(Duration::from_secs(20), dial).await.unwrap().unwrap();
    let accepted = server.accept().await;
    tokio::join!(ask(&*client, Bytes::from_static(b"hello")), echo(&*accepted));
    // Whoever did not prove an address got no more than a Retry packet.
    let mut answers = 0;
    let mut answer = BytesMut::zeroed(2000);
    while let Ok(Ok(length)) = timeout(Duration::from_millis(100), socket.recv(&mut answer)).await {
        // RFC 9000, section 17.2: the type of a long header.
        if answer[0] & 0xb0 == 0x80 && length > 1000 {
            answers += 1;
        }
    }
    // 64 handshakes, each of which repeats itself a few times.
    assert!(answers < 64 * 8, "{answers}");
}
