//! Whole nodes on a network in memory and simulated time.

// Allowed in tests; clippy takes only the functions marked as such for tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use peerloom_core::{
    ConnectionError, DialError, HandshakeError, Keypair, Multiaddr, ProtocolName, Stream, StreamExt,
    multistream_select::NegotiatedStream,
};
use peerloom_node::{
    ConnectError, Direction, Events, Limits, Node, NodeBuilder, NodeEvent, OpenStreamError, identify, ping,
};
use peerloom_sim::Network;

const LATENCY: Duration = Duration::from_millis(20);
const ECHO: ProtocolName = ProtocolName::from_static("/echo/1.0.0");

struct World {
    network: Network,
}

impl World {
    fn new() -> Self {
        Self { network: Network::new(LATENCY) }
    }

    fn builder(&self) -> NodeBuilder {
        let keypair = Keypair::generate();
        Node::builder(keypair.clone()).transport(self.network.transport(keypair))
    }

    fn node(&self) -> Node {
        self.builder().build()
    }

    async fn echo_server(&self) -> (Node, Multiaddr) {
        let server = self.node();
        server.handle(ECHO, |incoming| echo(incoming.stream)).unwrap();
        let address = listen(&server).await;
        (server, address)
    }
}

async fn listen(node: &Node) -> Multiaddr {
    node.listen("/memory/0".parse().unwrap()).await.unwrap().remove(0)
}

async fn echo(mut stream: NegotiatedStream) {
    while let Ok(Some(chunk)) = stream.read_chunk().await {
        if stream.write_all(chunk).await.is_err() {
            return;
        }
    }
    let _ = stream.close_write().await;
}

async fn read_to_end(stream: &mut NegotiatedStream) -> Vec<u8> {
    let mut all = Vec::new();
    while let Some(chunk) = stream.read_chunk().await.unwrap() {
        all.extend_from_slice(&chunk);
    }
    all
}

async fn until<T>(events: &mut Events, mut wanted: impl FnMut(&NodeEvent) -> Option<T>) -> T {
    let search = async {
        loop {
            let event = events.next().await.expect("the node is closed");
            if let Some(found) = wanted(&event) {
                return found;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(300), search).await.expect("the event never came")
}

async fn closed(events: &mut Events) -> Arc<ConnectionError> {
    until(events, |event| match event {
        NodeEvent::ConnectionClosed { reason, .. } => Some(reason.clone()),
        _ => None,
    })
    .await
}

#[tokio::test(start_paused = true)]
async fn bytes_come_back_from_an_echo() {
    let world = World::new();
    let (_server, address) = world.echo_server().await;
    let client = world.node();
    let connection = client.dial(address).await.unwrap();
    assert_eq!(connection.direction, Direction::Outbound);
    let mut stream = client.open_stream(&connection, &[ECHO]).await.unwrap();
    stream.write_all(Bytes::from_static(b"hello")).await.unwrap();
    stream.close_write().await.unwrap();
    assert_eq!(read_to_end(&mut stream).await, b"hello");
}

#[tokio::test(start_paused = true)]
async fn a_stream_costs_one_round_trip_from_opening_to_the_first_byte_back() {
    let world = World::new();
    let (_server, address) = world.echo_server().await;
    let client = world.node();
    let connection = client.dial(address).await.unwrap();
    let start = tokio::time::Instant::now();
    let mut stream = client.open_stream(&connection, &[ECHO]).await.unwrap();
    stream.write_all(Bytes::from_static(b"hello")).await.unwrap();
    stream.read_chunk().await.unwrap();
    let round_trips = start.elapsed().as_secs_f64() / (2.0 * LATENCY.as_secs_f64());
    assert!((1.0..1.2).contains(&round_trips), "{round_trips} round trips");
}

#[tokio::test(start_paused = true)]
async fn a_refused_protocol_is_the_first_reads_error() {
    let world = World::new();
    let (server, address) = world.echo_server().await;
    let client = world.node();
    client.dial(address).await.unwrap();
    let unknown = ProtocolName::from_static("/unknown/1.0.0");
    let mut stream = client.open_stream(server.peer_id(), std::slice::from_ref(&unknown)).await.unwrap();
    stream.write_all(Bytes::from_static(b"hello")).await.unwrap();
    stream.read_chunk().await.unwrap_err();

    // With a choice the dialer waits for the answer.
    let stream = client.open_stream(server.peer_id(), &[unknown.clone(), ECHO]).await.unwrap();
    assert_eq!(stream.protocol(), &ECHO);
    let other = ProtocolName::from_static("/unknown/2.0.0");
    let error = client.open_stream(server.peer_id(), &[unknown, other]).await.err().unwrap();
    assert!(matches!(error, OpenStreamError::Negotiation { .. }), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_is_not_the_one_dialed_is_refused() {
    let world = World::new();
    let (server, address) = world.echo_server().await;
    let client = world.node();
    let somebody = Keypair::generate().peer_id();
    let error = client.dial(address.without_peer_id().with_peer_id(somebody)).await.unwrap_err();
    let ConnectError::Dial(DialError::Handshake {
        source: HandshakeError::WrongPeer { expected, actual },
        ..
    }) = &*error
    else {
        panic!("{error}");
    };
    assert_eq!((*expected, *actual), (somebody, server.peer_id()));
    assert!(client.connections().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_node_does_not_connect_to_itself() {
    let world = World::new();
    let node = world.node();
    let address = listen(&node).await;
    assert!(matches!(*node.dial(address.clone()).await.unwrap_err(), ConnectError::SelfDial));
    assert!(matches!(*node.dial(address.without_peer_id()).await.unwrap_err(), ConnectError::SelfDial));
    assert!(node.connections().is_empty());
}

#[tokio::test(start_paused = true)]
async fn identify_fills_both_peer_stores() {
    let world = World::new();
    let (server, address) = world.echo_server().await;
    let client = world.node();
    let (mut at_client, mut at_server) = (client.events(), server.events());
    client.dial(address.clone()).await.unwrap();
    let identified = |event: &NodeEvent| matches!(event, NodeEvent::PeerUpdated { .. }).then_some(());
    until(&mut at_client, identified).await;
    until(&mut at_server, identified).await;

    let details = client.peer_store().details(server.peer_id()).unwrap();
    assert!(details.protocols.contains(&ECHO));
    assert!(details.agent_version.unwrap().starts_with("peerloom/"));
    assert!(details.signed_record.is_some() && details.observed_address.is_some());
    assert_eq!(client.peer_store().addresses(server.peer_id()), [address.without_peer_id()]);
    assert!(!server.peer_store().supports(client.peer_id(), &ECHO));
}

#[tokio::test(start_paused = true)]
async fn a_new_protocol_is_pushed_to_connected_peers() {
    let world = World::new();
    let (server, address) = world.echo_server().await;
    let client = world.node();
    let mut events = client.events();
    client.dial(address).await.unwrap();
    let identified = |event: &NodeEvent| matches!(event, NodeEvent::PeerUpdated { .. }).then_some(());
    until(&mut events, identified).await;
    // The server must know that we take pushes before it pushes.
    tokio::time::sleep(LATENCY * 10).await;
    let added = ProtocolName::from_static("/added/1.0.0");
    server.handle(added.clone(), |_| async {}).unwrap();
    until(&mut events, identified).await;
    assert!(client.peer_store().supports(server.peer_id(), &added));
}

#[tokio::test(start_paused = true)]
async fn what_a_peer_says_of_another_peer_is_not_believed() {
    let world = World::new();
    let (server, address) = world.echo_server().await;
    // A client without identify of its own, which pushes a record that somebody else signed.
    let client = world.builder().identify(None).build();
    client.dial(address).await.unwrap();
    let somebody = Keypair::generate();
    let record = peerloom_core::PeerRecord::seal(&somebody, 1, &["/memory/1".parse().unwrap()]);
    let mut message = vec![0x42];
    let envelope = record.encode_protobuf();
    message.extend([(envelope.len() as u8) | 0x80, (envelope.len() >> 7) as u8]);
    message.extend(envelope);
    let push = ProtocolName::from_static(identify::PUSH_PROTOCOL);
    let stream = client.open_stream(server.peer_id(), &[push]).await.unwrap();
    let mut stream = peerloom_core::framing::MessageStream::new(stream, identify::MAX_MESSAGE_LENGTH);
    stream.write(&message).await.unwrap();
    stream.close_write().await.unwrap();
    tokio::time::sleep(LATENCY * 10).await;
    assert!(
        server.peer_store().details(client.peer_id()).is_none_or(|details| details.signed_record.is_none())
    );
    assert!(server.peer_store().addresses(somebody.peer_id()).is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_ping_takes_one_round_trip() {
    let world = World::new();
    let (server, address) = world.echo_server().await;
    let client = world.node();
    client.dial(address).await.unwrap();
    let round_trip = ping::ping(&client, server.peer_id()).await.unwrap();
    assert!(round_trip >= LATENCY * 2 && round_trip < LATENCY * 3, "{round_trip:?}");
}

#[tokio::test(start_paused = true)]
async fn a_peer_is_reached_at_whichever_of_its_addresses_works() {
    let world = World::new();
    let (server, address) = world.echo_server().await;
    let client = world.node();
    client.peer_store().add_address(server.peer_id(), &address);
    // Seen last, and so tried first: nobody listens there.
    tokio::time::sleep(Duration::from_secs(1)).await;
    client.peer_store().add_address(server.peer_id(), &"/memory/1".parse().unwrap());
    let connection = client.dial(server.peer_id()).await.unwrap();
    assert_eq!(connection.remote_address, address.without_peer_id());
    // A second dial finds the connection.
    assert_eq!(client.dial(server.peer_id()).await.unwrap().id, connection.id);
}

#[tokio::test(start_paused = true)]
async fn every_failed_address_is_in_the_error() {
    let world = World::new();
    let client = world.node();
    let peer = Keypair::generate().peer_id();
    assert!(matches!(*client.dial(peer).await.unwrap_err(), ConnectError::NoAddresses { .. }));
    for number in 1..4 {
        client.peer_store().add_address(peer, &format!("/memory/{number}").parse().unwrap());
    }
    let error = client.dial(peer).await.unwrap_err();
    let ConnectError::AllFailed { attempts, .. } = &*error else { panic!("{error}") };
    assert_eq!(attempts.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn simultaneous_dials_of_one_address_make_one_connection() {
    let world = World::new();
    let (server, address) = world.echo_server().await;
    let client = world.node();
    let dials = (0..10).map(|_| client.dial(address.clone()));
    let connections = futures_util::future::join_all(dials).await;
    let first = connections[0].as_ref().unwrap().id;
    assert!(connections.iter().all(|connection| connection.as_ref().unwrap().id == first));
    tokio::time::sleep(LATENCY * 4).await;
    assert_eq!(server.connections().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_dial_leaves_nothing_behind() {
    let world = World::new();
    let (server, address) = world.echo_server().await;
    let client = world.node();
    let tasks = alive_tasks();
    // After the transport's own round trip and before the end of the handshakes.
    let dial = tokio::time::timeout(LATENCY * 3, client.dial(address)).await;
    assert!(dial.is_err());
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(client.connections().is_empty() && server.connections().is_empty());
    assert_eq!(alive_tasks(), tasks);
}

#[tokio::test(start_paused = true)]
async fn close_says_goodbye_and_ends_every_task() {
    let world = World::new();
    let before = alive_tasks();
    let (server, address) = world.echo_server().await;
    let client = world.node();
    let mut events = server.events();
    let connection = client.dial(address).await.unwrap();
    let mut stream = client.open_stream(&connection, &[ECHO]).await.unwrap();
    stream.write_all(Bytes::from_static(b"hello")).await.unwrap();
    client.close().await;
    assert!(matches!(*closed(&mut events).await, ConnectionError::ClosedByRemote));
    stream.read_chunk().await.unwrap_err();
    assert!(matches!(*client.dial(listen(&server).await).await.unwrap_err(), ConnectError::NodeClosed));
    server.close().await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(alive_tasks(), before);
    while events.next().await.is_some() {}
}

#[tokio::test(start_paused = true)]
async fn dropped_nodes_leave_no_task_behind() {
    let world = World::new();
    let before = alive_tasks();
    let (server, address) = world.echo_server().await;
    // A handler that never ends must not keep its node alive.
    let hold = |incoming| async move {
        let _held = incoming;
        std::future::pending().await
    };
    server.handle(ProtocolName::from_static("/hang/1.0.0"), hold).unwrap();
    let client = world.node();
    let connection = client.dial(address).await.unwrap();
    let hang = ProtocolName::from_static("/hang/1.0.0");
    let mut stream = client.open_stream(&connection, &[hang]).await.unwrap();
    stream.write_all(Bytes::from_static(b"hello")).await.unwrap();
    tokio::time::sleep(LATENCY * 4).await;
    drop(server);
    drop((client, stream));
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(alive_tasks(), before);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_goes_silent_is_given_up() {
    let world = World::new();
    let (server, address) = world.echo_server().await;
    let client = world.node();
    let mut events = client.events();
    client.dial(address).await.unwrap();
    world.network.cut();
    assert!(matches!(*closed(&mut events).await, ConnectionError::TimedOut));
    assert!(!client.is_connected(server.peer_id()));
}

#[tokio::test(start_paused = true)]
async fn a_peer_at_its_limit_loses_its_oldest_connection_for_a_new_one() {
    let world = World::new();
    let mut limits = Limits::default();
    limits.resources.peer.connections = 2;
    let server = world.builder().limits(limits).build();
    let client = world.node();
    let mut addresses = Vec::new();
    for _ in 0..4 {
        let address = listen(&server).await;
        client.dial(address.clone()).await.unwrap();
        addresses.push(address.without_peer_id());
        tokio::time::sleep(LATENCY * 10).await;
    }
    assert_eq!(server.connections().len(), 2);
    let mut left: Vec<_> =
        client.connections().into_iter().map(|connection| connection.remote_address).collect();
    left.sort();
    addresses.sort();
    assert_eq!(left, addresses[2..]);
}

#[tokio::test(start_paused = true)]
async fn strangers_beyond_the_limit_on_connections_are_refused() {
    let world = World::new();
    let mut limits = Limits::default();
    limits.resources.system.connections = 2;
    let server = world.builder().limits(limits).build();
    let address = listen(&server).await;
    let clients: Vec<_> = (0..4).map(|_| world.node()).collect();
    for client in &clients {
        let _ = client.dial(address.clone()).await;
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(server.connections().len(), 2);
    assert_eq!(clients.iter().filter(|client| client.is_connected(server.peer_id())).count(), 2);
}

#[tokio::test(start_paused = true)]
async fn streams_beyond_the_limit_wait_until_one_is_free() {
    let world = World::new();
    let mut limits = Limits::default();
    limits.resources.connection.inbound_streams = 4;
    let server = world.builder().limits(limits).identify(None).build();
    server.handle(ECHO, |incoming| echo(incoming.stream)).unwrap();
    let address = listen(&server).await;
    let client = world.builder().identify(None).build();
    let connection = client.dial(address).await.unwrap();
    let mut streams = Vec::new();
    for _ in 0..5 {
        let mut stream = client.open_stream(&connection, &[ECHO]).await.unwrap();
        stream.write_all(Bytes::from_static(b"hello")).await.unwrap();
        streams.push(stream);
    }
    for stream in &mut streams[..4] {
        stream.read_chunk().await.unwrap();
    }
    let mut waiting = streams.pop().unwrap();
    assert!(tokio::time::timeout(Duration::from_secs(5), waiting.read_chunk()).await.is_err());
    streams[0].reset(0);
    assert_eq!(waiting.read_chunk().await.unwrap().unwrap(), "hello");
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_names_no_protocol_is_dropped_in_time() {
    let world = World::new();
    let (server, address) = world.echo_server().await;
    let keypair = Keypair::generate();
    let transport = world.network.transport(keypair);
    let connection = peerloom_core::Transport::dial(&transport, address).await.unwrap();
    let mut stream = connection.open_stream().await.unwrap();
    // One byte of a message that never ends.
    stream.write_all(Bytes::from_static(&[0x13])).await.unwrap();
    tokio::time::sleep(LATENCY * 4).await;
    let busy = server.running_tasks();
    tokio::time::sleep(Limits::default().negotiation_timeout).await;
    assert!(server.running_tasks() < busy);
    stream.read_chunk().await.unwrap_err();
}

fn alive_tasks() -> usize {
    tokio::runtime::Handle::current().metrics().num_alive_tasks()
}
