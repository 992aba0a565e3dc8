//! WebSocket inside of TLS, and ports that are shared with TCP.

// Allowed in tests; clippy takes only the functions marked as such for tests.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::{
    fs,
    path::PathBuf,
    sync::{Arc, LazyLock},
    time::Duration,
};

use peerloom_core::{
    Connection, DialError, HandshakeError, Keypair, Listener, ListenerEvent, Multiaddr, Protocol,
    StreamExt as _, Transport,
    runtime::{Task, spawn},
};
use peerloom_socket::tcp::TcpPorts;
use peerloom_tcp::TcpTransport;
use peerloom_transport_suite::Subject;
use peerloom_upgrade::pnet::PreSharedKey;
use peerloom_websocket::{CertificateFiles, Trust, WebSocketTransport};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

/// A certificate authority, and files with a certificate of its for 127.0.0.1 and example.org.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    directory: TempDir,
}

static AUTHORITY: LazyLock<Authority> = LazyLock::new(Authority::new);

impl Authority {
    fn new() -> Self {
        let mut parameters = CertificateParams::default();
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(parameters, KeyPair::generate().unwrap()).unwrap();
        let authority = Self { issuer, directory: tempfile::tempdir().unwrap() };
        authority.write();
        authority
    }

    fn write(&self) {
        let names = vec!["127.0.0.1".to_owned(), "example.org".to_owned()];
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(names).unwrap().signed_by(&key, &self.issuer).unwrap();
        fs::write(self.path("chain.pem"), certificate.pem()).unwrap();
        fs::write(self.path("key.pem"), key.serialize_pem()).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn files(&self) -> CertificateFiles {
        CertificateFiles::load(self.path("chain.pem"), self.path("key.pem")).unwrap()
    }

    fn trust(&self) -> Trust {
        Trust::platform_and(vec![self.issuer.der().clone()])
    }

    fn transport(&self, keypair: Keypair) -> WebSocketTransport {
        WebSocketTransport::new(keypair).with_certificate(self.files()).with_trust(self.trust())
    }
}

peerloom_transport_suite::suite!(subject);

async fn subject() -> Subject {
    Subject::new(|keypair| AUTHORITY.transport(keypair), "/ip4/127.0.0.1/tcp/0/tls/ws").with_garbage(send)
}

fn port(address: &Multiaddr) -> u16 {
    let port = |protocol| match protocol {
        Protocol::Tcp(port) => Some(port),
        _ => None,
    };
    address.protocols().find_map(port).unwrap()
}

/// What is neither TLS nor HTTP, and what only begins like TLS.
async fn send(address: Multiaddr, bytes: Vec<u8>) {
    for bytes in [&bytes[..], b"\x16\x03\x01\x00\x04\x01\x00\x00\x00", b"\x16\x03\x01\x02\x00\x01\x00"] {
        // The listener may have closed the socket before all was written.
        if let Ok(mut socket) = TcpStream::connect(("127.0.0.1", port(&address))).await {
            let _ = socket.write_all(bytes).await;
        }
    }
}

/// Accepts whoever comes, and echoes a byte on every stream.
struct Host {
    address: Multiaddr,
    _task: Task,
}

async fn host(transport: &dyn Transport, address: &str) -> Host {
    let mut listener = transport.listen(address.parse().unwrap()).await.unwrap();
    let address = listener.addresses()[0].clone();
    Host { address, _task: spawn(async move { serve(&mut *listener).await }) }
}

async fn serve(listener: &mut dyn Listener) {
    let mut tasks = Vec::new();
    while let Ok(ListenerEvent::Incoming(incoming)) = listener.next().await {
        tasks.push(spawn(async move {
            let Ok(connection) = incoming.handshake.await else { return };
            while let Ok(stream) = connection.accept_stream().await {
                let mut stream = stream.into_io();
                let Ok(byte) = stream.read_u8().await else { return };
                let _ = stream.write_u8(byte).await;
                let _ = stream.shutdown().await;
            }
        }));
    }
}

async fn echo(connection: &dyn Connection) {
    let mut stream = connection.open_stream().await.unwrap().into_io();
    stream.write_u8(7).await.unwrap();
    assert_eq!(stream.read_u8().await.unwrap(), 7);
}

async fn assert_reached(transport: &dyn Transport, address: &str) {
    let connection = transport.dial(address.parse().unwrap()).await;
    echo(&*connection.unwrap_or_else(|error| panic!("{error}"))).await;
}

async fn refusal(transport: &dyn Transport, address: &str) -> String {
    match transport.dial(address.parse().unwrap()).await {
        Ok(_) => panic!("{address} is connected"),
        Err(error) => error.to_string(),
    }
}

#[tokio::test]
async fn every_way_to_write_the_address_is_dialed() {
    let host = host(&AUTHORITY.transport(Keypair::generate()), "/ip4/127.0.0.1/tcp/0/tls/ws").await;
    let port = port(&host.address);
    assert_eq!(host.address, format!("/ip4/127.0.0.1/tcp/{port}/tls/ws").parse().unwrap());
    let dialer = AUTHORITY.transport(Keypair::generate());
    for rest in ["tls/ws", "wss", "tls/sni/example.org/ws", "tls/ws/noise"] {
        assert_reached(&dialer, &format!("/ip4/127.0.0.1/tcp/{port}/{rest}")).await;
    }
}

#[tokio::test]
async fn certificate_for_another_name_and_of_another_authority_is_refused() {
    let host = host(&AUTHORITY.transport(Keypair::generate()), "/ip4/127.0.0.1/tcp/0/wss").await;
    let port = port(&host.address);
    assert_eq!(host.address, format!("/ip4/127.0.0.1/tcp/{port}/wss").parse().unwrap());
    let dialer = AUTHORITY.transport(Keypair::generate());
    let error = refusal(&dialer, &format!("/ip4/127.0.0.1/tcp/{port}/tls/sni/example.net/ws")).await;
    assert!(error.contains("not valid for name"), "{error}");
    let stranger = Authority::new().transport(Keypair::generate());
    let error = refusal(&stranger, &format!("/ip4/127.0.0.1/tcp/{port}/tls/ws")).await;
    assert!(error.contains("invalid peer certificate"), "{error}");
}

#[tokio::test]
async fn who_trusts_anyone_takes_any_certificate_for_any_name_and_still_no_other_peer() {
    let keypair = Keypair::generate();
    let host = host(&AUTHORITY.transport(keypair.clone()), "/ip4/127.0.0.1/tcp/0/wss").await;
    let port = port(&host.address);
    let dialer = WebSocketTransport::new(Keypair::generate()).with_trust(Trust::anyone());
    let address = format!("/ip4/127.0.0.1/tcp/{port}/tls/sni/example.net/ws/p2p");
    assert_reached(&dialer, &format!("{address}/{}", keypair.peer_id())).await;
    let error = refusal(&dialer, &format!("{address}/{}", Keypair::generate().peer_id())).await;
    assert!(error.contains(&keypair.peer_id().to_string()), "{error}");
}

#[tokio::test]
async fn without_a_certificate_there_is_no_listening_with_tls() {
    let transport = WebSocketTransport::new(Keypair::generate());
    let address: Multiaddr = "/ip4/127.0.0.1/tcp/0/tls/ws".parse().unwrap();
    assert!(!transport.can_listen(&address) && transport.can_dial(&address));
    assert!(transport.listen(address).await.is_err());
}

#[tokio::test]
async fn replaced_certificate_is_used_by_the_next_handshakes() {
    let old = Authority::new();
    let new = Authority::new();
    let host = host(&old.transport(Keypair::generate()), "/ip4/127.0.0.1/tcp/0/tls/ws").await;
    let address = host.address.to_string();
    let knows_new = new.transport(Keypair::generate());
    let before = old.transport(Keypair::generate()).dial(host.address.clone()).await.unwrap();
    refusal(&knows_new, &address).await;
    for file in ["chain.pem", "key.pem"] {
        fs::copy(new.path(file), old.path(file)).unwrap();
    }
    // The files are looked at once a second.
    while knows_new.dial(host.address.clone()).await.is_err() {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // Not the dialer from before, which has a session that it may resume.
    refusal(&old.transport(Keypair::generate()), &address).await;
    echo(&*before).await;
}

#[tokio::test]
async fn one_port_serves_tcp_websocket_and_secure_websocket() {
    let keypair = Keypair::generate();
    let ports = TcpPorts::default();
    let tcp = TcpTransport::new(keypair.clone()).with_ports(ports.clone());
    let websocket = AUTHORITY.transport(keypair.clone()).with_ports(ports);
    let first = host(&tcp, "/ip4/127.0.0.1/tcp/0").await;
    let port = port(&first.address);
    let _ws = host(&websocket, &format!("/ip4/127.0.0.1/tcp/{port}/ws")).await;
    let wss = host(&websocket, &format!("/ip4/127.0.0.1/tcp/{port}/tls/ws")).await;
    let (tcp, websocket) = (TcpTransport::new(Keypair::generate()), AUTHORITY.transport(Keypair::generate()));
    let base = format!("/ip4/127.0.0.1/tcp/{port}");
    let peer = keypair.peer_id();
    for round in 0..2 {
        let mut dials = Vec::new();
        for rest in ["", "/noise", "/tls"] {
            dials.push(tcp.dial(format!("{base}{rest}/p2p/{peer}").parse().unwrap()));
        }
        for rest in ["/ws", "/tls/ws", "/wss", "/ws/noise"] {
            dials.push(websocket.dial(format!("{base}{rest}/p2p/{peer}").parse().unwrap()));
        }
        let mut connections = Vec::new();
        for dial in dials {
            connections.push(dial.await.unwrap_or_else(|error| panic!("{round}: {error}")));
        }
        for connection in &connections {
            echo(&**connection).await;
        }
    }
    // One service ends, the others do not notice.
    drop(wss);
    let error = refusal(&websocket, &format!("{base}/tls/ws")).await;
    assert!(error.starts_with("cannot reach"), "{error}");
    assert_reached(&tcp, &base).await;
    assert_reached(&websocket, &format!("{base}/ws")).await;
}

#[tokio::test]
async fn private_networks_are_private_on_every_transport() {
    let member = PreSharedKey::from_bytes([1; 32]);
    let keypair = Keypair::generate();
    let ports = TcpPorts::default();
    let tcp =
        TcpTransport::new(keypair.clone()).with_private_network(member.clone()).with_ports(ports.clone());
    let websocket = AUTHORITY.transport(keypair).with_private_network(member.clone()).with_ports(ports);
    let first = host(&tcp, "/ip4/127.0.0.1/tcp/0").await;
    let base = first.address.to_string();
    let _others =
        [host(&websocket, &format!("{base}/ws")).await, host(&websocket, &format!("{base}/tls/ws")).await];
    let dialers = |key: Option<PreSharedKey>| -> [Arc<dyn Transport>; 2] {
        let tcp = TcpTransport::new(Keypair::generate());
        let websocket = AUTHORITY.transport(Keypair::generate());
        match key {
            Some(key) => [
                Arc::new(tcp.with_private_network(key.clone())),
                Arc::new(websocket.with_private_network(key)),
            ],
            None => [Arc::new(tcp), Arc::new(websocket)],
        }
    };
    let outsiders = [dialers(None), dialers(Some(PreSharedKey::from_bytes([2; 32])))];
    for rest in ["", "/noise", "/tls", "/ws", "/tls/ws"] {
        let address: Multiaddr = format!("{base}{rest}").parse().unwrap();
        let suits = |transports: &[Arc<dyn Transport>; 2]| {
            transports.iter().find(|transport| transport.can_dial(&address)).unwrap().clone()
        };
        assert_reached(&*suits(&dialers(Some(member.clone()))), &address.to_string()).await;
        for outsider in &outsiders {
            let refused = suits(outsider).dial(address.clone()).await.map(|_| ()).unwrap_err();
            let expected = matches!(&refused, DialError::Handshake { source, .. }
                if !matches!(source, HandshakeError::WrongPeer { .. }));
            assert!(expected, "{refused}");
        }
    }
}
