use peerloom_core::Protocol;
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use tokio::io::AsyncWriteExt as _;

use super::*;

const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

/// A service that ends every handshake with its own name.
fn named(name: &'static str) -> Serve {
    Arc::new(move |inbound: Inbound| {
        Box::pin(async move {
            let mut stream = inbound.stream;
            let mut first = BytesMut::new();
            let _ = stream.read_buf(&mut first).await;
            let reason = format!("{name} {:?}", first.first());
            Err(HandshakeError::Invalid { step: STEP, reason })
        })
    })
}

fn ws() -> Multiaddr {
    Multiaddr::from_protocols([Protocol::Ws])
}

fn port_of(listener: &PortListener) -> SocketAddr {
    listener.port.acceptor.bound
}

/// What comes of a dialer that sends `bytes`.
async fn outcome(listener: &mut PortListener, bytes: &[u8]) -> String {
    let mut dialer = TcpStream::connect(port_of(listener)).await.unwrap();
    dialer.write_all(bytes).await.unwrap();
    dialer.shutdown().await.unwrap();
    listener.accept().await.handshake.await.map(|_| ()).unwrap_err().to_string()
}

fn client_hello(alpn: &[&[u8]]) -> Vec<u8> {
    let mut config =
        ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    let mut client = ClientConnection::new(Arc::new(config), "example.org".try_into().unwrap()).unwrap();
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).unwrap();
    bytes
}

#[test]
fn first_bytes_tell_what_is_wanted_as_soon_as_they_can() {
    let https = client_hello(&[b"http/1.1"]);
    let libp2p = client_hello(&[b"/yamux/1.0.0", b"libp2p"]);
    for (bytes, expected) in [
        (&b"\x13/multistream/1.0.0\n"[..], Service::Libp2p),
        (b"\x00\x20noise", Service::Libp2p),
        (b"GET / HTTP/1.1\r\n", Service::Http),
        (b"GETTING NOWHERE", Service::Libp2p),
        (b"POST / HTTP/1.1\r\n", Service::Libp2p),
        (b"\xff", Service::Libp2p),
        (&https, Service::Https),
        (&client_hello(&[]), Service::Https),
        (&libp2p, Service::Libp2p),
        // Random bytes that begin like TLS.
        (b"\x16\x03\x01\x41\x00\x01", Service::Libp2p),
        (b"\x16\x03\x01\x01\x00\x02", Service::Libp2p),
        (b"\x16\x03\x09", Service::Libp2p),
        (b"\x16\x03\x01\x00\x04\x01\x00\x00\x00", Service::Libp2p),
    ] {
        assert_eq!(service(bytes), Some(expected), "{bytes:?}");
    }
    for bytes in
        [&b""[..], b"G", b"GET", b"\x16", b"\x16\x03\x01", &https[..100], &libp2p[..libp2p.len() - 1]]
    {
        assert_eq!(service(bytes), None, "{bytes:?}");
    }
    // A record that never ends, in pieces of any size.
    let endless = [&b"\x16\x03\x01\x40\x00\x01\x00\xff\xff"[..], &[0; MAX_CLIENT_HELLO]].concat();
    assert_eq!(service(&endless), Some(Service::Libp2p));
}

#[tokio::test]
async fn services_share_a_port_and_any_of_them_accepts_for_all() {
    let ports = TcpPorts::default();
    let mut tcp = ports.listen(LOOPBACK, Service::Libp2p, Multiaddr::empty(), named("tcp")).unwrap();
    let bound = port_of(&tcp);
    let mut http = ports.listen(bound, Service::Http, ws(), named("ws")).unwrap();
    assert_eq!(tcp.addresses().unwrap(), [tcp_multiaddr(bound)]);
    assert_eq!(http.addresses().unwrap(), [tcp_multiaddr(bound).with(Protocol::Ws)]);
    for listener in [&mut tcp, &mut http] {
        assert_eq!(outcome(listener, b"\x13/").await, "tcp: tcp Some(19)");
        assert_eq!(outcome(listener, b"GET /").await, "tcp: ws Some(71)");
        let refused = outcome(listener, &client_hello(&[])).await;
        assert_eq!(refused, "tcp: the dialer wants WebSocket over TLS, which this port does not serve");
        assert!(outcome(listener, b"").await.contains("said nothing"));
        assert!(outcome(listener, b"GE").await.contains("too little"));
    }
    drop(tcp);
    assert!(outcome(&mut http, b"\x13/").await.contains("libp2p over TCP, which this port does not serve"));
    assert_eq!(outcome(&mut http, b"GET /").await, "tcp: ws Some(71)");
    drop(http);
    assert!(TcpStream::connect(bound).await.is_err());
}

#[tokio::test]
async fn one_name_is_listened_on_once_and_unshared_ports_are_in_use() {
    let ports = TcpPorts::default();
    let tcp = ports.listen(LOOPBACK, Service::Libp2p, Multiaddr::empty(), named("tcp")).unwrap();
    let bound = port_of(&tcp);
    let again = ports.listen(bound, Service::Libp2p, Multiaddr::empty(), named("tcp"));
    assert_eq!(again.unwrap_err().kind(), io::ErrorKind::AddrInUse);
    let elsewhere = TcpPorts::default().listen(bound, Service::Http, ws(), named("ws"));
    assert_eq!(elsewhere.unwrap_err().kind(), io::ErrorKind::AddrInUse);
    drop(tcp);
    ports.listen(bound, Service::Libp2p, Multiaddr::empty(), named("tcp")).unwrap();
}

#[tokio::test]
async fn handshakes_under_way_do_not_keep_a_port_open() {
    let mut tcp =
        TcpPorts::default().listen(LOOPBACK, Service::Libp2p, Multiaddr::empty(), named("tcp")).unwrap();
    let bound = port_of(&tcp);
    let mut dialer = TcpStream::connect(bound).await.unwrap();
    dialer.write_all(b"\x13/").await.unwrap();
    let incoming = tcp.accept().await;
    drop(tcp);
    assert!(TcpStream::connect(bound).await.is_err());
    drop(incoming);
}

#[tokio::test]
async fn one_port_number_serves_both_families() {
    let ports = TcpPorts::default();
    let listen =
        |address: SocketAddr| ports.listen(address, Service::Libp2p, Multiaddr::empty(), named("both"));
    // A number that is free for the one may be somebody's for the other.
    for _ in 0..100 {
        let Ok(six) = listen("[::]:0".parse().unwrap()) else {
            return; // A machine without IPv6.
        };
        let four = SocketAddr::new(std::net::Ipv4Addr::UNSPECIFIED.into(), port_of(&six).port());
        match listen(four) {
            Ok(_) => return,
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::AddrInUse),
        }
    }
    panic!("no number of a hundred serves both");
}

#[tokio::test]
async fn a_dialer_that_speaks_is_not_kept_waiting_by_any_number_that_do_not() {
    let mut tcp =
        TcpPorts::default().listen(LOOPBACK, Service::Libp2p, Multiaddr::empty(), named("tcp")).unwrap();
    let bound = port_of(&tcp);
    let mut silent = Vec::new();
    for round in 0..4 {
        for _ in 0..100 {
            silent.push(TcpStream::connect(bound).await.unwrap());
        }
        assert_eq!(outcome(&mut tcp, b"\x13/").await, "tcp: tcp Some(19)", "{round}");
    }
    // The first of the silent have been turned away for the last, and the last have not.
    let mut byte = [0];
    assert_eq!(silent[0].read(&mut byte).await.unwrap_or(0), 0);
    assert!(silent[399].try_read(&mut byte).is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock));
}
