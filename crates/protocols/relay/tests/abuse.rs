//! Strangers that want more of a relay than there is for them, relays that do not keep to the protocol, and nonsense.

// Allowed in tests; clippy takes only the functions marked as such for tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use common::*;
use peerloom_core::{
    CircuitLimits, Keypair, ListenError, Multiaddr, PeerId, Protocol, ProtocolName, Stream, StreamExt,
    framing::{MessageStream, encode},
    multistream_select::NegotiatedStream,
};
use peerloom_node::{Node, NodeEvent};
use peerloom_relay::{
    HOP, RelayConfig, RelayLimits, STOP, Voucher,
    message::{HopMessage, MAX_MESSAGE_LENGTH, Reservation, Status, StopMessage},
};
use tokio::time::sleep;

const NO_LIMITS: CircuitLimits = CircuitLimits { bytes: None, duration: None };

/// A thousand of the memory network's dialers count as one machine.
fn machine(address: &Multiaddr) -> Option<IpAddr> {
    match address.protocols().next()? {
        Protocol::Memory(_) => Some(Ipv4Addr::new(192, 0, 2, 1).into()),
        _ => None,
    }
}

/// A plain node, connected to the relay.
async fn connected(world: &World, relay: &Relay) -> Node {
    let node = world.node();
    node.dial(relay.address.clone()).await.unwrap();
    node
}

/// Writes these bytes, whatever they are, and reads what comes back.
async fn say(node: &Node, to: PeerId, protocol: ProtocolName, bytes: Bytes) -> Option<Bytes> {
    let mut stream = node.open_stream(to, &[protocol]).await.unwrap();
    let _ = stream.write_all(bytes).await;
    let _ = stream.close_write().await;
    MessageStream::new(stream, MAX_MESSAGE_LENGTH).read().await.ok().flatten()
}

async fn ask(node: &Node, relay: &Relay, request: &HopMessage) -> (Status, Option<Reservation>) {
    let request = encode(&request.encode(), MAX_MESSAGE_LENGTH).unwrap();
    let answer = say(node, relay.node.peer_id(), HOP, request).await.unwrap();
    match HopMessage::decode(&answer).unwrap() {
        HopMessage::Status { status, reservation, .. } => (status, reservation),
        other => panic!("{other:?}"),
    }
}

fn status(message: &[u8]) -> Status {
    match HopMessage::decode(message).unwrap() {
        HopMessage::Status { status, .. } => status,
        other => panic!("{other:?}"),
    }
}

/// The tasks of a node when everybody has been identified.
async fn idle_tasks(node: &Node) -> usize {
    sleep(Duration::from_secs(5)).await;
    node.running_tasks()
}

/// What is left on a relay after everybody has gone.
async fn nothing_is_left(relay: &Relay, tasks_before: usize) {
    eventually("all have gone", || relay.node.connections().is_empty()).await;
    eventually("all tasks have ended", || relay.node.running_tasks() <= tasks_before).await;
    let stats = relay.server.stats();
    assert_eq!((stats.reservations, stats.circuits), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn of_a_thousand_reservations_from_one_ip_eight_are_granted() {
    let world = World::new();
    let mut config = RelayConfig::default();
    config.origin = machine;
    let relay = world.relay_with(Keypair::generate(), "/memory/0", config).await;
    let tasks_before = idle_tasks(&relay.node).await;
    let mut nodes = Vec::new();
    let mut answers = Vec::new();
    for _ in 0..1000 {
        let node = connected(&world, &relay).await;
        answers.push(ask(&node, &relay, &HopMessage::Reserve).await.0);
        nodes.push(node);
    }
    assert_eq!(tally(answers)[&Status::Ok], 8);
    assert_eq!(relay.server.stats().reservations, 8);
    assert_eq!(relay.server.stats().refused, 992);
    sleep(Duration::from_secs(30)).await;
    assert_eq!(relay.node.running_tasks(), tasks_before);
    drop(nodes);
    nothing_is_left(&relay, tasks_before).await;
}

#[tokio::test(start_paused = true)]
async fn one_peer_that_asks_a_thousand_times_has_one_reservation() {
    let world = World::new();
    let relay = world.relay(RelayLimits::default()).await;
    let node = connected(&world, &relay).await;
    for _ in 0..1000 {
        assert_eq!(ask(&node, &relay, &HopMessage::Reserve).await.0, Status::Ok);
    }
    assert_eq!(relay.server.stats().reservations, 1);
}

#[tokio::test(start_paused = true)]
async fn places_are_bounded_per_autonomous_system_where_it_is_known() {
    let world = World::new();
    let mut config = RelayConfig::default();
    config.limits.reservations_per_ip = 1000;
    config.origin = machine;
    config.asn = Some(Arc::new(|_| Some(64_496)));
    let relay = world.relay_with(Keypair::generate(), "/memory/0", config).await;
    let mut nodes = Vec::new();
    let mut answers = Vec::new();
    for _ in 0..40 {
        let node = connected(&world, &relay).await;
        answers.push(ask(&node, &relay, &HopMessage::Reserve).await.0);
        nodes.push(node);
    }
    assert_eq!(tally(answers)[&Status::Ok], 32);
}

#[tokio::test(start_paused = true)]
async fn circuits_to_peers_that_never_reserved_are_refused_and_cost_nothing() {
    let world = World::new();
    let relay = world.relay(RelayLimits::default()).await;
    let node = connected(&world, &relay).await;
    let bystander = connected(&world, &relay).await;
    let tasks_before = idle_tasks(&relay.node).await;
    for destination in [bystander.peer_id(), relay.node.peer_id(), Keypair::generate().peer_id()] {
        for _ in 0..100 {
            let (status, _) = ask(&node, &relay, &HopMessage::Connect { destination }).await;
            assert_eq!(status, Status::NoReservation);
        }
    }
    assert_eq!(
        ask(&node, &relay, &HopMessage::Connect { destination: node.peer_id() }).await.0,
        Status::PermissionDenied
    );
    sleep(Duration::from_secs(30)).await;
    assert_eq!((relay.server.stats().circuits, relay.node.running_tasks()), (0, tasks_before));
}

#[tokio::test(start_paused = true)]
async fn one_peer_has_no_more_circuits_than_it_may() {
    let world = World::new();
    let relay = world.relay(unlimited()).await;
    let (server, _) = world.reachable(&relay).await;
    let node = connected(&world, &relay).await;
    let request = HopMessage::Connect { destination: server.peer_id() };
    let mut circuits = Vec::new();
    for _ in 0..16 {
        let stream = node.open_stream(relay.node.peer_id(), &[HOP]).await.unwrap();
        let mut stream = MessageStream::new(stream, MAX_MESSAGE_LENGTH);
        stream.write(&request.encode()).await.unwrap();
        assert_eq!(status(&stream.read().await.unwrap().unwrap()), Status::Ok);
        circuits.push(stream);
    }
    assert_eq!(ask(&node, &relay, &request).await.0, Status::ResourceLimitExceeded);
    // Somebody else is not let in either: the destination has as many as it may.
    let other = connected(&world, &relay).await;
    assert_eq!(ask(&other, &relay, &request).await.0, Status::ResourceLimitExceeded);
    // They say nothing on their circuits, so the destination gives them up, and their places are free again.
    eventually("silent circuits end", || relay.server.stats().circuits == 0).await;
    drop(circuits);
}

#[tokio::test(start_paused = true)]
async fn a_reservation_or_a_circuit_over_a_circuit_is_denied() {
    for limits in [RelayLimits::default(), unlimited()] {
        let world = World::new();
        let relay = world.relay(limits).await;
        // A relay that is itself behind the other one.
        let (inner, _) = world.client();
        let server = peerloom_relay::serve(&inner, RelayConfig::default()).unwrap();
        let address = listen_at(&inner, &relay).await;
        let (client, _) = world.client();
        let connection = client.dial(address).await.unwrap();
        for request in [HopMessage::Reserve, HopMessage::Connect { destination: inner.peer_id() }] {
            let stream = client.open_stream_on_limited(connection.id, &[HOP]).await.unwrap();
            let mut stream = MessageStream::new(stream, MAX_MESSAGE_LENGTH);
            stream.write(&request.encode()).await.unwrap();
            assert_eq!(status(&stream.read().await.unwrap().unwrap()), Status::PermissionDenied);
        }
        assert_eq!(server.stats().reservations, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn streams_that_are_opened_and_left_are_ended_by_the_deadline() {
    let world = World::new();
    let relay = world.relay(RelayLimits::default()).await;
    let node = connected(&world, &relay).await;
    let tasks_before = idle_tasks(&relay.node).await;
    let mut streams = Vec::new();
    // Silent; cut off in the length; cut off in the message.
    for part in [&b""[..], b"\x80", b"\x05\x08"] {
        for _ in 0..60 {
            let mut stream = node.open_stream(relay.node.peer_id(), &[HOP]).await.unwrap();
            stream.confirm().await.unwrap();
            stream.write_all(part.into()).await.unwrap();
            streams.push(stream);
        }
    }
    assert!(relay.node.running_tasks() >= tasks_before + 180);
    sleep(RelayLimits::default().request_timeout + Duration::from_secs(1)).await;
    assert_eq!(relay.node.running_tasks(), tasks_before);
    for mut stream in streams {
        stream.read_chunk().await.unwrap_err();
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_read_its_answer_is_not_waited_for() {
    let world = World::new();
    let relay = world.relay(RelayLimits::default()).await;
    let node = connected(&world, &relay).await;
    let tasks_before = idle_tasks(&relay.node).await;
    let mut streams = Vec::new();
    for _ in 0..100 {
        let mut stream = node.open_stream(relay.node.peer_id(), &[HOP]).await.unwrap();
        stream.write_all(encode(&HopMessage::Reserve.encode(), 100).unwrap()).await.unwrap();
        streams.push(stream);
    }
    sleep(Duration::from_secs(30)).await;
    assert_eq!(relay.node.running_tasks(), tasks_before);
}

#[tokio::test(start_paused = true)]
async fn nonsense_is_answered_as_such_and_never_with_a_reservation() {
    let world = World::new();
    let relay = world.relay(RelayLimits::default()).await;
    let node = connected(&world, &relay).await;
    let tasks_before = idle_tasks(&relay.node).await;
    let framed = |message: &[u8]| encode(message, 1 << 20).unwrap();
    let answer = HopMessage::Status { status: Status::Ok, reservation: None, limits: NO_LIMITS }.encode();
    let cases = [
        (framed(&[]), Status::MalformedMessage),
        (framed(&[0xff; 40]), Status::MalformedMessage),
        (framed(&[0x08, 9]), Status::MalformedMessage),
        (framed(&[0x08, 1]), Status::MalformedMessage),
        (framed(&[0x08, 1, 0x12, 3, 0x0a, 1, 7]), Status::MalformedMessage),
        // A length that is too much, and one that is none.
        (framed(&vec![0; MAX_MESSAGE_LENGTH + 1]), Status::MalformedMessage),
        (Bytes::from_static(&[0xff; 11]), Status::MalformedMessage),
        (framed(&answer), Status::UnexpectedMessage),
    ];
    for (bytes, expected) in cases {
        let answer = say(&node, relay.node.peer_id(), HOP, bytes.clone()).await.unwrap();
        assert_eq!(status(&answer), expected, "{bytes:?}");
    }
    // Cut off: there is nothing to answer.
    assert_eq!(say(&node, relay.node.peer_id(), HOP, Bytes::from_static(&[9, 8])).await, None);
    sleep(Duration::from_secs(30)).await;
    assert_eq!((relay.server.stats().reservations, relay.node.running_tasks()), (0, tasks_before));
}

/// A destination that reserves and answers `stop` streams as `answer` does.
async fn odd_destination<F, Fut>(world: &World, relay: &Relay, answer: F) -> Node
where
    F: Fn(NegotiatedStream) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    let node = connected(world, relay).await;
    node.handle(STOP, move |incoming| answer(incoming.stream)).unwrap();
    assert_eq!(ask(&node, relay, &HopMessage::Reserve).await.0, Status::Ok);
    node
}

#[tokio::test(start_paused = true)]
async fn a_destination_that_is_silent_refuses_or_talks_nonsense_fails_the_circuit_in_time() {
    let world = World::new();
    let relay = world.relay(RelayLimits::default()).await;
    let silent = odd_destination(&world, &relay, |stream| async move {
        let _held = stream;
        std::future::pending().await
    });
    let gone = odd_destination(&world, &relay, |stream| async move { drop(stream) });
    let replies = [
        encode(&StopMessage::Status(Status::PermissionDenied).encode(), 100).unwrap(),
        encode(&[0xff; 20], 100).unwrap(),
        encode(&vec![0; MAX_MESSAGE_LENGTH + 1], 1 << 20).unwrap(),
    ];
    let replying = replies.map(|reply| {
        odd_destination(&world, &relay, move |mut stream| {
            let reply = reply.clone();
            async move {
                let _ = stream.write_all(reply).await;
                let _ = stream.close_write().await;
            }
        })
    });
    let mut destinations = vec![silent.await, gone.await];
    for node in replying {
        destinations.push(node.await);
    }
    let source = connected(&world, &relay).await;
    let tasks_before = idle_tasks(&relay.node).await;
    for node in &destinations {
        let request = HopMessage::Connect { destination: node.peer_id() };
        let answer = tokio::time::timeout(Duration::from_secs(11), ask(&source, &relay, &request)).await;
        assert_eq!(answer.unwrap().0, Status::ConnectionFailed);
    }
    sleep(Duration::from_secs(30)).await;
    assert_eq!((relay.server.stats().circuits, relay.node.running_tasks()), (0, tasks_before));
}

/// A circuit of raw streams: the source's end and the destination's.
async fn raw_circuit(world: &World, relay: &Relay) -> (Node, NegotiatedStream, Node, NegotiatedStream) {
    let (sender, mut accepted) = tokio::sync::mpsc::channel(1);
    let destination = odd_destination(world, relay, move |stream| {
        let sender = sender.clone();
        async move {
            let mut stream = MessageStream::new(stream, MAX_MESSAGE_LENGTH);
            stream.read().await.unwrap().unwrap();
            stream.write(&StopMessage::Status(Status::Ok).encode()).await.unwrap();
            sender.send(stream.into_parts().0).await.unwrap();
        }
    })
    .await;
    let source = connected(world, relay).await;
    let stream = source.open_stream(relay.node.peer_id(), &[HOP]).await.unwrap();
    let mut stream = MessageStream::new(stream, MAX_MESSAGE_LENGTH);
    stream.write(&HopMessage::Connect { destination: destination.peer_id() }.encode()).await.unwrap();
    assert_eq!(status(&stream.read().await.unwrap().unwrap()), Status::Ok);
    (source, stream.into_parts().0, destination, accepted.recv().await.unwrap())
}

#[tokio::test(start_paused = true)]
async fn a_half_that_is_closed_ends_only_its_direction() {
    let world = World::new();
    let relay = world.relay(RelayLimits::default()).await;
    let (_source, mut near, _destination, mut far) = raw_circuit(&world, &relay).await;
    near.write_all(Bytes::from_static(b"last words")).await.unwrap();
    near.close_write().await.unwrap();
    assert_eq!(far.read_chunk().await.unwrap().unwrap(), "last words");
    assert!(far.read_chunk().await.unwrap().is_none());
    sleep(Duration::from_secs(10)).await;
    far.write_all(Bytes::from_static(b"an answer")).await.unwrap();
    assert_eq!(near.read_chunk().await.unwrap().unwrap(), "an answer");
    far.close_write().await.unwrap();
    assert!(near.read_chunk().await.unwrap().is_none());
    eventually("the circuit is over", || relay.server.stats().circuits == 0).await;
}

#[tokio::test(start_paused = true)]
async fn a_reset_and_a_lost_connection_end_the_circuit_at_the_other_end() {
    let world = World::new();
    let relay = world.relay(RelayLimits::default()).await;
    let (_source, mut near, _destination, mut far) = raw_circuit(&world, &relay).await;
    far.reset(0);
    near.read_chunk().await.unwrap_err();
    let (source, _near, _destination, mut far) = raw_circuit(&world, &relay).await;
    source.close().await;
    far.read_chunk().await.unwrap_err();
    eventually("both circuits are over", || relay.server.stats().circuits == 0).await;
}

#[tokio::test(start_paused = true)]
async fn the_last_byte_that_a_circuit_may_carry_arrives_and_the_next_ends_it() {
    let world = World::new();
    let relay = world.relay(RelayLimits::default()).await;
    let (_source, mut near, _destination, mut far) = raw_circuit(&world, &relay).await;
    let limit = 128 * 1024;
    near.write_all(vec![1; limit].into()).await.unwrap();
    let mut received = 0;
    while received < limit {
        received += far.read_chunk().await.unwrap().unwrap().len();
    }
    // All of it is used up, and nothing is wrong yet; the other direction has its own.
    sleep(Duration::from_secs(20)).await;
    far.write_all(Bytes::from_static(b"still here")).await.unwrap();
    assert_eq!(near.read_chunk().await.unwrap().unwrap(), "still here");
    near.write_all(Bytes::from_static(b"!")).await.unwrap();
    far.read_chunk().await.unwrap_err();
    near.read_chunk().await.unwrap_err();
    eventually("the circuit is over", || relay.server.stats().circuits == 0).await;
}

#[tokio::test(start_paused = true)]
async fn a_receiver_that_does_not_read_holds_the_sender_back_instead_of_filling_the_relay() {
    let world = World::new();
    let relay = world.relay(unlimited()).await;
    let (_source, mut near, _destination, _far) = raw_circuit(&world, &relay).await;
    let chunk = Bytes::from(vec![0; 64 * 1024]);
    let mut written = 0_u64;
    while tokio::time::timeout(Duration::from_secs(5), near.write_all(chunk.clone())).await.is_ok() {
        written += chunk.len() as u64;
        assert!(written < 256 << 20, "the relay takes everything");
    }
    // It has passed on no more than the receiver's window.
    assert!(relay.server.stats().bytes <= 32 << 20, "{:?}", relay.server.stats());
}

#[tokio::test(start_paused = true)]
async fn clients_that_come_and_go_leave_nothing_behind() {
    let world = World::new();
    let relay = world.relay(RelayLimits::default()).await;
    let tasks_before = idle_tasks(&relay.node).await;
    for _ in 0..50 {
        let (_source, near, _destination, far) = raw_circuit(&world, &relay).await;
        drop((near, far));
    }
    nothing_is_left(&relay, tasks_before).await;
}

/// A relay that answers every request with these bytes.
async fn odd_relay(
    world: &World,
    answer: impl Fn(&Node, PeerId) -> Option<Bytes> + Send + Sync + 'static,
) -> Multiaddr {
    let node = world.node();
    let (weak, answer) = (node.downgrade(), Arc::new(answer));
    node.handle(HOP, move |incoming| {
        let (node, answer) = (weak.upgrade().unwrap(), answer.clone());
        async move {
            let bytes = answer(&node, incoming.connection.peer);
            drop(node);
            let mut stream = incoming.stream;
            match bytes {
                Some(bytes) => {
                    let _ = stream.write_all(bytes).await;
                    let _ = stream.close_write().await;
                }
                None => std::future::pending().await,
            }
        }
    })
    .unwrap();
    let address = node.listen("/memory/0".parse().unwrap()).await.unwrap().remove(0);
    world.keep(node);
    address.with(Protocol::P2pCircuit)
}

fn granted(voucher: Vec<u8>, expires: u64) -> Option<Bytes> {
    let reservation = Some(Reservation { expires, addresses: Vec::new(), voucher: voucher.into() });
    let answer = HopMessage::Status { status: Status::Ok, reservation, limits: NO_LIMITS };
    Some(encode(&answer.encode(), MAX_MESSAGE_LENGTH).unwrap())
}

#[tokio::test(start_paused = true)]
async fn a_relay_that_does_not_keep_to_the_protocol_is_not_listened_at() {
    let world = World::new();
    let (client, _) = world.client();
    let reason = async |relay: Multiaddr| match client.listen(relay).await {
        Err(ListenError::Io { reason, .. }) => reason,
        other => panic!("{other:?}"),
    };
    let seal = |node: &Node, peer, expires| Voucher::seal(node.keypair(), peer, expires).encode_protobuf();
    let far = 4_000_000_000;

    let silent = reason(odd_relay(&world, |_, _| None).await).await;
    assert!(silent.contains("did not answer within 5 s"), "{silent}");
    let broken = reason(odd_relay(&world, |_, _| Some(Bytes::from_static(&[0xff; 50]))).await).await;
    assert!(broken.contains("broke off"), "{broken}");
    let nonsense = reason(odd_relay(&world, |_, _| Some(Bytes::from_static(&[2, 8, 7]))).await).await;
    assert!(nonsense.contains("nonsense"), "{nonsense}");
    let order = encode(&HopMessage::Reserve.encode(), 100).unwrap();
    let order = reason(odd_relay(&world, move |_, _| Some(order.clone())).await).await;
    assert!(order.contains("out of order"), "{order}");
    let empty = HopMessage::Status { status: Status::Ok, reservation: None, limits: NO_LIMITS };
    let empty = encode(&empty.encode(), 100).unwrap();
    let empty = reason(odd_relay(&world, move |_, _| Some(empty.clone())).await).await;
    assert!(empty.contains("out of order"), "{empty}");

    let garbage = reason(odd_relay(&world, move |_, _| granted(vec![1, 2, 3], far)).await).await;
    assert!(garbage.contains("bad voucher"), "{garbage}");
    let of_another =
        move |_: &Node, peer| granted(Voucher::seal(&Keypair::generate(), peer, far).encode_protobuf(), far);
    let of_another = reason(odd_relay(&world, of_another).await).await;
    assert!(of_another.contains("gave a voucher of"), "{of_another}");
    let for_another = move |node: &Node, _| granted(seal(node, Keypair::generate().peer_id(), far), far);
    let for_another = reason(odd_relay(&world, for_another).await).await;
    assert!(for_another.contains("voucher is for"), "{for_another}");
    let early =
        reason(odd_relay(&world, move |node, peer| granted(seal(node, peer, far - 60), far)).await).await;
    assert!(early.contains("before the reservation"), "{early}");

    // One without a voucher is as good as before there were vouchers.
    client.listen(odd_relay(&world, move |_, _| granted(Vec::new(), far)).await).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_stranger_that_plays_relay_is_denied() {
    let world = World::new();
    let relay = world.relay(RelayLimits::default()).await;
    let (server, _) = world.reachable(&relay).await;
    let direct = listen(&server).await;
    let stranger = world.node();
    stranger.dial(direct).await.unwrap();
    let framed = |message: StopMessage| encode(&message.encode(), MAX_MESSAGE_LENGTH).unwrap();
    let cases = [
        (
            framed(StopMessage::Connect { source: stranger.peer_id(), limits: NO_LIMITS }),
            Status::PermissionDenied,
        ),
        (framed(StopMessage::Status(Status::Ok)), Status::UnexpectedMessage),
        (encode(&[0xff; 9], 100).unwrap(), Status::MalformedMessage),
    ];
    for (request, expected) in cases {
        let answer = say(&stranger, server.peer_id(), STOP, request).await.unwrap();
        assert_eq!(StopMessage::decode(&answer), Ok(StopMessage::Status(expected)));
    }
    assert_eq!(server.connections().len(), 2);
}

async fn listen(node: &Node) -> Multiaddr {
    node.listen("/memory/0".parse().unwrap()).await.unwrap().remove(0)
}

#[tokio::test(start_paused = true)]
async fn a_relay_that_is_silent_or_lies_about_the_source_brings_no_connection() {
    let world = World::new();
    let relay = world.relay(RelayLimits::default()).await;
    let (server, _) = world.reachable(&relay).await;
    let mut events = server.events();
    let tasks_before = idle_tasks(&server).await;
    // Somebody with the relay's key: silent streams, and then a circuit from "somebody" on which another one speaks.
    let mut silent = Vec::new();
    for _ in 0..50 {
        let mut stream = relay.node.open_stream(server.peer_id(), &[STOP]).await.unwrap();
        stream.confirm().await.unwrap();
        silent.push(stream);
    }
    assert!(server.running_tasks() >= tasks_before + 50);
    sleep(Duration::from_secs(11)).await;
    assert!(server.running_tasks() <= tasks_before);

    let stream = relay.node.open_stream(server.peer_id(), &[STOP]).await.unwrap();
    let mut stream = MessageStream::new(stream, MAX_MESSAGE_LENGTH);
    let source = Keypair::generate().peer_id();
    stream.write(&StopMessage::Connect { source, limits: NO_LIMITS }.encode()).await.unwrap();
    assert_eq!(
        StopMessage::decode(&stream.read().await.unwrap().unwrap()),
        Ok(StopMessage::Status(Status::Ok))
    );
    let liar = Keypair::generate();
    let address = relay.circuit();
    let _connection =
        peerloom_upgrade::upgrade_outbound(stream.into_parts().0.into_io(), &liar, address).await;
    let error = until(&mut events, |event| match event {
        NodeEvent::IncomingFailed { error, .. } => Some(error.to_string()),
        _ => None,
    });
    let error = error.await;
    assert!(error.contains("expected peer") && error.contains(&liar.peer_id().to_string()), "{error}");
    assert_eq!(server.connections().len(), 1);
}
