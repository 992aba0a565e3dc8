//! Dials by name, with a name server of their own on loopback.

// Allowed in tests; clippy takes only the functions marked as such for tests.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use hickory_resolver::proto::{
    op::{Message, OpCode, ResponseCode},
    rr::{
        RData, Record,
        rdata::{A, AAAA, TXT},
    },
};
use peerloom_core::{
    DialError, HandshakeError, Keypair, Listener, ListenerEvent, Multiaddr, PeerId, Protocol, Transport,
    runtime::{Task, spawn},
};
use peerloom_dns::{DnsTransport, SystemResolver};
use peerloom_tcp::TcpTransport;
use tokio::net::UdpSocket;

/// Answers questions by UDP until it is dropped.
struct NameServer {
    address: SocketAddr,
    _task: Task,
}

impl NameServer {
    async fn new(zone: impl Fn(&str) -> Vec<RData> + Send + 'static) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let task = spawn(async move {
            let mut buffer = [0; 1500];
            while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
                let Ok(question) = Message::from_vec(&buffer[..length]) else { continue };
                let query = question.queries[0].clone();
                let mut answer = Message::response(question.metadata.id, OpCode::Query);
                let name = query.name().to_ascii().to_lowercase();
                let known = zone(&name);
                if known.is_empty() {
                    answer.metadata.response_code = ResponseCode::NXDomain;
                }
                for data in known.into_iter().filter(|data| data.record_type() == query.query_type()) {
                    answer.add_answer(Record::from_rdata(query.name().clone(), 60, data));
                }
                answer.add_query(query);
                let _ = socket.send_to(&answer.to_vec().unwrap(), from).await;
            }
        });
        Self { address, _task: task }
    }

    fn transport(&self) -> DnsTransport {
        let resolver = SystemResolver::with_name_servers(&[self.address]).unwrap();
        DnsTransport::new(resolver).with_transport(TcpTransport::new(Keypair::generate()))
    }
}

/// A listening host on 127.0.0.1.
struct Host {
    peer: PeerId,
    port: u16,
    _task: Task,
}

async fn host() -> Host {
    let keypair = Keypair::generate();
    let peer = keypair.peer_id();
    // Through a transport for names: it listens as those in it do.
    let transport = DnsTransport::new(SystemResolver::with_name_servers(&[]).unwrap())
        .with_transport(TcpTransport::new(keypair));
    let mut listener = transport.listen("/ip4/127.0.0.1/tcp/0".parse().unwrap()).await.unwrap();
    let address = listener.addresses()[0].clone();
    let Some(Protocol::Tcp(port)) = address.protocols().nth(1) else { panic!("{address}") };
    Host { peer, port, _task: spawn(async move { accept(&mut *listener).await }) }
}

async fn accept(listener: &mut dyn Listener) {
    let mut connections = Vec::new();
    while let Ok(ListenerEvent::Incoming(incoming)) = listener.next().await {
        connections.push(incoming.handshake.await);
    }
}

fn text(text: String) -> RData {
    RData::TXT(TXT::new(vec![text]))
}

fn localhost(name: &str) -> Vec<RData> {
    match name {
        "host.test." => vec![RData::A(A(Ipv4Addr::LOCALHOST)), RData::AAAA(AAAA(Ipv6Addr::LOCALHOST))],
        _ => Vec::new(),
    }
}

#[tokio::test]
async fn a_host_is_reached_by_its_name() {
    let (host, names) = (host().await, NameServer::new(localhost).await);
    let transport = names.transport();
    for kind in ["dns", "dns4"] {
        let address: Multiaddr =
            format!("/{kind}/host.test/tcp/{}/p2p/{}", host.port, host.peer).parse().unwrap();
        assert!(transport.can_dial(&address));
        let connection = transport.dial(address).await.unwrap();
        assert_eq!(connection.remote_peer(), host.peer);
        let remote = format!("/ip4/127.0.0.1/tcp/{}", host.port);
        assert_eq!(connection.remote_address().to_string(), remote);
    }
    // Addresses without a name pass.
    let address: Multiaddr = format!("/ip4/127.0.0.1/tcp/{}", host.port).parse().unwrap();
    assert!(transport.can_dial(&address));
    transport.dial(address).await.unwrap();
}

#[tokio::test]
async fn a_name_leads_only_where_the_gate_lets_it() {
    let (host, names) = (host().await, NameServer::new(localhost).await);
    let loopback = |address: &Multiaddr| address.to_string().starts_with("/ip4/127.");
    let transport = names.transport().with_gate(move |address| async move {
        match loopback(&address) {
            true => Err("not into this machine".to_owned()),
            false => Ok(()),
        }
    });
    let named: Multiaddr = format!("/dns4/host.test/tcp/{}", host.port).parse().unwrap();
    let resolved: Multiaddr = format!("/ip4/127.0.0.1/tcp/{}", host.port).parse().unwrap();
    let error = transport.dial(named).await.err().unwrap();
    let DialError::Denied { address, reason } = &error else { panic!("{error}") };
    assert_eq!((address, reason.as_str()), (&resolved, "not into this machine"));
    // What was not resolved here, the caller has asked about itself.
    transport.dial(resolved).await.unwrap();
}

#[tokio::test]
async fn a_dnsaddr_leads_to_the_entry_that_works() {
    let host = host().await;
    let (port, peer) = (host.port, host.peer);
    let names = NameServer::new(move |name| match name {
        "_dnsaddr.node.test." => vec![
            // Nobody listens there; long texts come in parts.
            text(format!("dnsaddr=/ip4/127.0.0.1/tcp/1/p2p/{peer}")),
            RData::TXT(TXT::new(vec!["dnsaddr=/dns4/host.test".into(), format!("/tcp/{port}/p2p/{peer}")])),
            text(format!("dnsaddr=/ip4/127.0.0.1/udp/{port}/webrtc-direct/p2p/{peer}")),
            text("something else".to_owned()),
        ],
        name => localhost(name),
    })
    .await;
    let transport = names.transport();
    let address: Multiaddr = format!("/dnsaddr/node.test/p2p/{peer}").parse().unwrap();
    assert!(transport.can_dial(&address));
    assert_eq!(transport.dial(address).await.unwrap().remote_peer(), peer);
}

#[tokio::test]
async fn another_peer_behind_the_name_is_refused() {
    let (host, names) = (host().await, NameServer::new(localhost).await);
    let expected = Keypair::generate().peer_id();
    let address = format!("/dns/host.test/tcp/{}/p2p/{expected}", host.port).parse().unwrap();
    let error = names.transport().dial(address).await.map(|_| ()).unwrap_err();
    assert!(
        matches!(error, DialError::Handshake { source: HandshakeError::WrongPeer { .. }, .. }),
        "{error}"
    );
}

#[tokio::test]
async fn names_that_lead_nowhere_are_errors_that_say_so() {
    let names = NameServer::new(|name| match name {
        "_dnsaddr.udp.test." => vec![text("dnsaddr=/ip4/127.0.0.1/udp/1/quic-v1".to_owned())],
        name => localhost(name),
    })
    .await;
    let transport = names.transport();
    for (address, expected) in [
        ("/dns4/absent.test/tcp/1", "DNS knows nothing of absent.test"),
        ("/dns4/host.test/tcp/1", "onnection refused"),
        ("/dnsaddr/udp.test", "no transport for any address"),
    ] {
        let error = transport.dial(address.parse().unwrap()).await.map(|_| ()).unwrap_err().to_string();
        assert!(error.contains(expected), "{address}: {error}");
    }
    for address in ["/dns4/host.test/udp/1/quic-v1", "/dnsaddr/host.test/tcp/1", "/ip4/127.0.0.1/udp/1"] {
        assert!(!transport.can_dial(&address.parse().unwrap()), "{address}");
    }
}

#[tokio::test(start_paused = true)]
async fn name_server_that_says_nothing_is_given_up() {
    let silent = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let resolver = SystemResolver::with_name_servers(&[silent.local_addr().unwrap()]).unwrap();
    let transport = DnsTransport::new(resolver).with_transport(TcpTransport::new(Keypair::generate()));
    let dial = transport.dial("/dns4/host.test/tcp/1".parse().unwrap());
    let outcome = tokio::time::timeout(Duration::from_secs(60), dial).await.unwrap();
    assert!(matches!(outcome.map(|_| ()), Err(DialError::Unreachable { .. })));
}
