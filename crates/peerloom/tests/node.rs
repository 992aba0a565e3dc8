//! Nodes as a user of the crate makes them, on loopback.

#![cfg(all(
    feature = "tcp",
    feature = "websocket",
    feature = "quic",
    feature = "webrtc",
    feature = "relay-client",
    feature = "autonat"
))]
// Allowed in tests; clippy takes only the functions marked as such for tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::time::Duration;

use peerloom::{
    Keypair, Multiaddr, Node, NodeEvent, PreSharedKey, ProtocolName, StartError, StreamError, StreamExt as _,
    ping::ping,
};
use peerloom_relay::{RelayConfig, RelayLimits};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

const HELLO: ProtocolName = ProtocolName::from_static("/test-hello/1.0.0");
const QUIC: &str = "/ip4/127.0.0.1/udp/0/quic-v1";

fn address(text: &str) -> Multiaddr {
    text.parse().unwrap()
}

async fn hello(node: &Node, server: &Node) -> std::io::Result<String> {
    let mut stream = node.open_stream(server.peer_id(), &[HELLO]).await.unwrap().into_io();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

fn on_loopback(node: &Node) -> Vec<Multiaddr> {
    let addresses = node.listen_addresses();
    addresses.into_iter().filter(|address| address.to_string().starts_with("/ip4/127.0.0.1/")).collect()
}

#[tokio::test]
async fn one_port_is_reached_by_every_transport() {
    let server = peerloom::builder().port(0).start().await.unwrap();
    let addresses = on_loopback(&server);
    assert_eq!(addresses.len(), 5, "{addresses:?}");
    for address in addresses {
        let client = peerloom::start().await.unwrap();
        let connection = client.dial(address).await.unwrap();
        ping(&client, &connection).await.unwrap();
        client.close().await;
    }
}

#[tokio::test]
async fn a_handler_of_the_builder_serves_whoever_comes_first() {
    let server = peerloom::builder().listen(address(QUIC)).handle(HELLO, async |incoming| {
        let _ = incoming.stream.into_io().write_all(b"hello").await;
    });
    let server = server.agent_version("greeter/1.0").start().await.unwrap();
    let client = peerloom::start().await.unwrap();
    let mut events = client.events();
    client.dial(server.listen_addresses().remove(0)).await.unwrap();
    // The handler drops the stream without closing it.
    assert_eq!(hello(&client, &server).await.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
    while !matches!(events.next().await.unwrap(), NodeEvent::PeerUpdated { .. }) {}
    let details = client.peer_store().details(server.peer_id()).unwrap();
    assert_eq!(details.agent_version.as_deref(), Some("greeter/1.0"));
    assert!(details.protocols.contains(&HELLO));
}

#[test]
fn a_data_directory_keeps_every_address() {
    let directory = tempfile::tempdir().unwrap();
    // Below the numbers that the system gives to dialers, one of which would take it between the runs.
    let port = (10_000..30_000).find(|port| std::net::UdpSocket::bind(("127.0.0.1", *port)).is_ok()).unwrap();
    // With the runtime ends whatever the node was made of, as with a process.
    let run = || {
        let builder = ["quic-v1/webtransport", "webrtc-direct"]
            .iter()
            .fold(peerloom::builder().data_dir(directory.path()), |builder, rest| {
                builder.listen(address(&format!("/ip4/127.0.0.1/udp/{port}/{rest}")))
            });
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async { builder.start().await.unwrap().listen_addresses() })
    };
    let addresses = run();
    assert!(addresses.iter().all(|address| address.to_string().contains("/certhash/")), "{addresses:?}");
    assert_eq!(run(), addresses);
}

#[tokio::test]
async fn a_data_directory_keeps_what_is_known_of_peers() {
    let directory = tempfile::tempdir().unwrap();
    let server = peerloom::builder().listen(address("/ip4/127.0.0.1/tcp/0")).start().await.unwrap();
    let start = || peerloom::builder().data_dir(directory.path()).start();
    let first = start().await.unwrap();
    first.dial(server.listen_addresses().remove(0)).await.unwrap();
    // Somebody else's turn does not come before the first has let go.
    let beside = start().await.unwrap();
    assert!(beside.dial(server.peer_id()).await.is_err());
    beside.close().await;
    first.close().await;
    let second = start().await.unwrap();
    second.dial(server.peer_id()).await.unwrap();
}

#[tokio::test]
async fn an_identity_that_is_given_goes_before_the_one_that_is_kept() {
    let directory = tempfile::tempdir().unwrap();
    let kept = peerloom::builder().data_dir(directory.path()).start().await.unwrap();
    let given = Keypair::generate();
    let node = peerloom::builder().data_dir(directory.path()).identity(given.clone()).start().await.unwrap();
    assert_eq!(node.peer_id(), given.peer_id());
    assert_ne!(node.peer_id(), kept.peer_id());
}

#[tokio::test]
async fn a_private_network_is_for_those_who_have_its_key() {
    let key = PreSharedKey::from_bytes([7; 32]);
    let private = || peerloom::builder().private_network(key.clone());
    let server = private().listen(address("/ip4/127.0.0.1/tcp/0")).start().await.unwrap();
    let reachable = server.listen_addresses().remove(0);

    let member = private().start().await.unwrap();
    let connection = member.dial(reachable.clone()).await.unwrap();
    ping(&member, &connection).await.unwrap();
    peerloom::start().await.unwrap().dial(reachable).await.unwrap_err();

    let error = private().listen(address(QUIC)).start().await.unwrap_err();
    assert!(
        matches!(&error, StartError::NotPrivate { address } if *address == self::address(QUIC)),
        "{error}"
    );
    let on_port = private().port(0).start().await.unwrap();
    assert!(on_port.listen_addresses().iter().all(|address| !address.to_string().contains("/udp/")));
}

#[tokio::test]
async fn a_transport_of_ones_own_stands_beside_the_others() {
    let network = peerloom_sim::Network::new(Duration::ZERO);
    let [server, client] = [(); 2].map(|()| {
        let keypair = Keypair::generate();
        peerloom::builder().transport(network.transport(keypair.clone())).identity(keypair)
    });
    let server = server.listen(address("/memory/0")).listen(address(QUIC)).start().await.unwrap();
    let client = client.start().await.unwrap();
    let addresses = server.listen_addresses();
    assert_eq!(addresses.len(), 2);
    for address in addresses {
        let connection = client.dial(address).await.unwrap();
        ping(&client, &connection).await.unwrap();
    }
}

#[tokio::test]
async fn nodes_that_meet_at_a_relay_are_connected_directly() {
    let relay = peerloom::builder().listen(address(QUIC)).start().await.unwrap();
    peerloom_relay::serve(&relay, RelayConfig::new(RelayLimits::default())).unwrap();
    let place = address(&format!("{}/p2p-circuit", relay.listen_addresses()[0]));

    let hidden = peerloom::builder().listen(place).start().await.unwrap();
    let guest = peerloom::start().await.unwrap();
    let way = hidden.listen_addresses().into_iter().find(|address| address.to_string().contains("/webrtc/"));
    let connection = guest.dial(way.unwrap()).await.unwrap();
    assert_eq!(connection.peer, hidden.peer_id());
    assert!(connection.is_direct());
    ping(&guest, &connection).await.unwrap();
}

#[tokio::test]
async fn an_unknown_protocol_is_the_first_reads_error() {
    let server = peerloom::builder().listen(address("/ip4/127.0.0.1/tcp/0")).start().await.unwrap();
    let client = peerloom::start().await.unwrap();
    client.dial(server.listen_addresses().remove(0)).await.unwrap();
    let mut stream = client.open_stream(server.peer_id(), &[HELLO]).await.unwrap();
    assert!(matches!(stream.read_chunk().await, Err(StreamError::ProtocolNotSupported)));
}

#[tokio::test]
async fn what_cannot_be_started_is_named() {
    let taken = peerloom::builder().listen(address("/ip4/127.0.0.1/tcp/0")).start().await.unwrap();
    let again = taken.listen_addresses()[0].without_peer_id();
    let error = peerloom::builder().listen(again.clone()).start().await.unwrap_err();
    assert!(error.to_string().contains(&again.to_string()), "{error}");
    let error = peerloom::builder().listen(address("/ip4/127.0.0.1/sctp/1")).start().await.unwrap_err();
    assert!(matches!(error, StartError::Listen(_)), "{error}");
    let twice = peerloom::builder().handle(HELLO, async |_| {}).handle(HELLO, async |_| {});
    assert!(matches!(twice.start().await.unwrap_err(), StartError::Handle(_)));
}

#[test]
fn a_node_can_be_started_in_any_task() {
    fn is_send(_: impl Send) {}
    is_send(peerloom::builder().port(0).start());
}

#[tokio::test]
async fn a_node_finds_out_that_another_reaches_it() {
    use peerloom::autonat::{ClientConfig, ServerConfig};

    let (mut private, mut serves) = (ClientConfig::default(), ServerConfig::default());
    (private.private, private.confidence, serves.private) = (true, 1, true);
    let server = peerloom::builder().listen(address("/ip4/127.0.0.1/udp/0/quic-v1")).autonat(None);
    let server = server.serve_autonat(serves).start().await.unwrap();
    let client =
        peerloom::builder().listen(address("/ip4/127.0.0.1/tcp/0")).autonat(private).start().await.unwrap();
    let mut events = client.events();
    client.dial(server.listen_addresses().remove(0)).await.unwrap();
    let verdict = async {
        loop {
            if let Some(NodeEvent::ReachabilityChanged { reachability, .. }) = events.next().await {
                return reachability;
            }
        }
    };
    let verdict = tokio::time::timeout(Duration::from_secs(60), verdict).await.unwrap();
    assert_eq!(verdict, peerloom::Reachability::Reachable);
    assert_eq!(client.own_addresses()[0].reachability, verdict);
}
