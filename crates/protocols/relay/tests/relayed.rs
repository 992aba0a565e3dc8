//! Whole nodes that reach each other through a relay.

// Allowed in tests; clippy takes only the functions marked as such for tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use common::*;
use peerloom_core::{
    CircuitEnd, CircuitLimits, ConnectionError, DialError, Keypair, ListenError, Multiaddr, Protocol,
    StreamError, StreamExt,
};
use peerloom_node::{ConnectError, ConnectionInfo, Node, NodeEvent, OpenStreamError, Passage, ping};
use peerloom_relay::{HOP, RelayLimits, STOP};

async fn closed(events: &mut peerloom_node::Events) -> Arc<ConnectionError> {
    until(events, |event| match event {
        NodeEvent::ConnectionClosed { connection, reason, .. } if !connection.is_direct() => {
            Some(reason.clone())
        }
        _ => None,
    })
    .await
}

/// The relayed connection of the side that was dialed, which is ready a little later.
async fn relayed(node: &Node) -> ConnectionInfo {
    let find = || node.connections().into_iter().find(|connection| !connection.is_direct());
    eventually("somebody comes through the relay", || find().is_some()).await;
    find().unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_peer_behind_a_relay_is_reached_and_echoes() {
    let world = World::new();
    let relay = world.relay(unlimited()).await;
    let (server, address) = world.reachable(&relay).await;
    assert_eq!(address, relay.circuit().with_peer_id(server.peer_id()));
    assert_eq!(server.listen_addresses(), std::slice::from_ref(&address));

    let (client, _) = world.client();
    let connection = client.dial(address.clone()).await.unwrap();
    assert_eq!(
        (connection.peer, connection.is_direct(), connection.is_limited()),
        (server.peer_id(), false, false)
    );
    assert_eq!(connection.remote_address, relay.circuit());
    assert_eq!(connection.circuit.as_ref().unwrap().relay(), relay.node.peer_id());
    let mut stream = client.open_stream(server.peer_id(), &[ECHO]).await.unwrap();
    assert_eq!(echoed(&mut stream, b"through the relay").await, b"through the relay");

    let inbound = relayed(&server).await;
    assert_eq!(inbound.peer, client.peer_id());
    assert!(inbound.remote_address.is_relayed());
    let stats = relay.server.stats();
    assert_eq!((stats.reservations, stats.circuits, stats.circuits_opened), (1, 1, 1));
    assert!(stats.bytes > 34);
    // The same circuit is not opened twice, and closing it ends it everywhere.
    assert_eq!(client.dial(address).await.unwrap().id, connection.id);
    client.close_connection(connection.id).await;
    eventually("the circuit ends", || relay.server.stats().circuits == 0).await;
    eventually("the server sees it", || server.connections().iter().all(|connection| connection.is_direct()))
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_gate_at_the_far_end_hears_from_the_relay_who_comes() {
    let world = World::new();
    let relay = world.relay(unlimited()).await;
    let (server, address) = world.reachable(&relay).await;
    let mut events = server.events();
    let (client, _) = world.client();
    server.gating().deny(client.peer_id().into());
    client.dial(address.clone()).await.unwrap_err();
    let denied = until(&mut events, |event| match event {
        NodeEvent::IncomingDenied { denied } => Some(denied.clone()),
        _ => None,
    })
    .await;
    // Before it has proved anything.
    let incoming = Passage::Incoming { remote_address: relay.circuit().with_peer_id(client.peer_id()) };
    assert_eq!(denied.passage, incoming);
    eventually("the circuit ends", || relay.server.stats().circuits == 0).await;

    assert!(server.gating().forget(&client.peer_id().into()));
    client.dial(address).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn who_is_denied_neither_reserves_nor_is_reached_nor_reaches() {
    let world = World::new();
    let relay = world.relay(unlimited()).await;
    let (server, address) = world.reachable(&relay).await;
    let (client, _) = world.client();
    client.dial(relay.address.clone()).await.unwrap();
    for denied in [server.peer_id(), client.peer_id()] {
        // What is connected stays so.
        relay.node.gating().deny(denied.into());
        let error = client.dial(address.clone()).await.unwrap_err().to_string();
        assert!(error.contains("does not permit it"), "{error}");
        relay.node.gating().forget(&denied.into());
    }
    relay.node.gating().deny(client.peer_id().into());
    let error = client.listen(relay.circuit()).await.unwrap_err().to_string();
    assert!(error.contains("does not permit it"), "{error}");
    relay.node.gating().forget(&client.peer_id().into());
    client.dial(address).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_connection_to_the_relay_that_there_is_serves_all_circuits() {
    let world = World::new();
    let relay = world.relay(unlimited()).await;
    let (client, _) = world.client();
    client.dial(relay.address.clone()).await.unwrap();
    for _ in 0..3 {
        let (_server, address) = world.reachable(&relay).await;
        client.dial(address).await.unwrap();
    }
    let direct = client.connections().into_iter().filter(|connection| connection.is_direct());
    assert_eq!(direct.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_peer_without_known_addresses_is_reached_through_the_relays_at_hand() {
    let world = World::new();
    let relay = world.relay(unlimited()).await;
    let (server, _) = world.reachable(&relay).await;
    let (client, _) = world.client();
    client.dial(relay.address.clone()).await.unwrap();
    eventually("the relay is known as one", || client.peer_store().supports(relay.node.peer_id(), &HOP))
        .await;
    let connection = client.dial(server.peer_id()).await.unwrap();
    assert!(!connection.is_direct());
}

#[tokio::test(start_paused = true)]
async fn the_limits_that_the_relay_announces_are_known_on_both_sides() {
    let world = World::new();
    let relay = world.relay(RelayLimits::default()).await;
    let (server, address) = world.reachable(&relay).await;
    let (client, _) = world.client();
    let connection = client.dial(address).await.unwrap();
    let announced = CircuitLimits { bytes: Some(128 * 1024), duration: Some(Duration::from_secs(120)) };
    let inbound = relayed(&server).await;
    for side in [&connection, &inbound] {
        let circuit = side.circuit.as_ref().unwrap();
        assert_eq!((side.is_limited(), circuit.limits()), (true, announced));
        let left = circuit.bytes_left().unwrap();
        assert!(left < 128 * 1024 && left > 120 * 1024, "{left}");
        assert!(circuit.time_left().unwrap() <= Duration::from_secs(120));
    }
}

#[tokio::test(start_paused = true)]
async fn only_protocols_that_opted_in_run_on_a_limited_connection() {
    let world = World::new();
    let relay = world.relay(RelayLimits::default()).await;
    let (server, address) = world.reachable(&relay).await;
    let greedy = peerloom_core::ProtocolName::from_static("/greedy/1.0.0");
    server.handle(greedy.clone(), |incoming| echo(incoming.stream)).unwrap();
    let (client, _) = world.client();
    client.dial(address).await.unwrap();

    let refused = client.open_stream(server.peer_id(), &[ECHO]).await;
    assert!(matches!(refused, Err(OpenStreamError::Limited { .. })), "{refused:?}");
    let mut stream = client.open_stream_on_limited(server.peer_id(), &[greedy]).await.unwrap();
    let refused = stream.read_chunk().await;
    assert!(matches!(refused, Err(StreamError::ProtocolNotSupported)), "{refused:?}");

    let mut stream = client.open_stream_on_limited(server.peer_id(), &[ECHO]).await.unwrap();
    assert_eq!(echoed(&mut stream, b"short").await, b"short");
    ping::ping(&client, server.peer_id()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_circuit_that_exceeds_its_bytes_ends_with_that_reason_on_both_sides() {
    let world = World::new();
    let relay = world.relay(RelayLimits::default()).await;
    let (server, address) = world.reachable(&relay).await;
    let (client, _) = world.client();
    let (mut ours, mut theirs) = (client.events(), server.events());
    client.dial(address).await.unwrap();
    let mut stream = client.open_stream_on_limited(server.peer_id(), &[ECHO]).await.unwrap();
    let chunk = Bytes::from(vec![7; 200_000]);
    let error = async {
        loop {
            stream.write_all(chunk.clone()).await?;
        }
    };
    let error: Result<(), StreamError> = tokio::time::timeout(Duration::from_secs(60), error).await.unwrap();
    let error = error.unwrap_err();
    for reason in [closed(&mut ours).await, closed(&mut theirs).await] {
        let expected = CircuitEnd::Bytes(128 * 1024);
        assert!(
            matches!(&*reason, ConnectionError::CircuitEnded { limit, .. } if *limit == expected),
            "{reason}"
        );
    }
    assert!(error.to_string().contains("bytes are used up"), "{error}");
    let stats = relay.server.stats();
    assert!(stats.bytes <= 2 * 128 * 1024, "{stats:?}");
    eventually("the place is free", || relay.server.stats().circuits == 0).await;
}

#[tokio::test(start_paused = true)]
async fn a_circuit_that_exceeds_its_time_ends_with_that_reason_on_both_sides() {
    let world = World::new();
    let relay = world.relay(RelayLimits::default()).await;
    let (server, address) = world.reachable(&relay).await;
    let (client, _) = world.client();
    let (mut ours, mut theirs) = (client.events(), server.events());
    let connection = client.dial(address).await.unwrap();
    let start = tokio::time::Instant::now();
    for reason in [closed(&mut ours).await, closed(&mut theirs).await] {
        let expected = CircuitEnd::Duration(Duration::from_secs(120));
        assert!(
            matches!(&*reason, ConnectionError::CircuitEnded { limit, .. } if *limit == expected),
            "{reason}"
        );
    }
    assert!(start.elapsed() < Duration::from_secs(121));
    assert_eq!(connection.circuit.unwrap().time_left(), Some(Duration::ZERO));
    assert_eq!(relay.server.stats().circuits, 0);
}

#[tokio::test(start_paused = true)]
async fn a_circuit_that_is_closed_in_order_names_no_limit() {
    let world = World::new();
    let relay = world.relay(RelayLimits::default()).await;
    let (server, address) = world.reachable(&relay).await;
    let (client, _) = world.client();
    let mut theirs = server.events();
    let connection = client.dial(address).await.unwrap();
    relayed(&server).await;
    client.close_connection(connection.id).await;
    let reason = closed(&mut theirs).await;
    assert!(matches!(&*reason, ConnectionError::ClosedByRemote), "{reason}");
}

#[tokio::test(start_paused = true)]
async fn a_circuit_ends_with_the_relay() {
    let world = World::new();
    let relay = world.relay(RelayLimits::default()).await;
    let (server, address) = world.reachable(&relay).await;
    let (client, _) = world.client();
    let (mut ours, mut theirs) = (client.events(), server.events());
    client.dial(address).await.unwrap();
    relayed(&server).await;
    relay.node.close().await;
    for reason in [closed(&mut ours).await, closed(&mut theirs).await] {
        assert!(!matches!(&*reason, ConnectionError::CircuitEnded { .. }), "{reason}");
    }
}

#[tokio::test(start_paused = true)]
async fn much_goes_through_an_unlimited_circuit_both_ways_and_half_closes() {
    let world = World::new();
    let relay = world.relay(unlimited()).await;
    let (server, address) = world.reachable(&relay).await;
    let (client, _) = world.client();
    client.dial(address).await.unwrap();
    let mut stream = client.open_stream(server.peer_id(), &[ECHO]).await.unwrap();
    let sent: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
    let mut received = Vec::new();
    for chunk in sent.chunks(500_000) {
        stream.write_all(Bytes::copy_from_slice(chunk)).await.unwrap();
        while received.len() < chunk.len() {
            received.extend_from_slice(&stream.read_chunk().await.unwrap().unwrap());
        }
        assert_eq!(received, chunk);
        received.clear();
    }
    stream.close_write().await.unwrap();
    assert!(stream.read_chunk().await.unwrap().is_none());
}

#[tokio::test(start_paused = true)]
async fn listening_says_why_a_relay_cannot_be_used() {
    let world = World::new();
    let (client, _) = world.client();
    let reason = async |address: Multiaddr| match client.listen(address).await {
        Err(ListenError::Io { reason, .. }) => reason,
        other => panic!("{other:?}"),
    };

    let nobody = format!("/memory/404/p2p/{}/p2p-circuit", Keypair::generate().peer_id());
    let unreachable = reason(nobody.parse().unwrap()).await;
    assert!(unreachable.contains("cannot be reached"), "{unreachable}");

    let plain = world.node();
    let address = plain.listen("/memory/0".parse().unwrap()).await.unwrap().remove(0);
    let not_a_relay = reason(address.with(Protocol::P2pCircuit)).await;
    assert!(not_a_relay.contains("is not a relay"), "{not_a_relay}");

    let full = world.relay({
        let mut limits = RelayLimits::default();
        limits.reservations = 0;
        limits
    });
    let full = reason(full.await.circuit()).await;
    assert!(full.contains("has no place for a reservation"), "{full}");

    let relay = world.relay(RelayLimits::default()).await;
    listen_at(&client, &relay).await;
    let twice = reason(relay.circuit()).await;
    assert!(twice.contains("already"), "{twice}");
}

#[tokio::test(start_paused = true)]
async fn any_relay_is_one_that_the_node_is_connected_to_and_that_has_a_place() {
    let world = World::new();
    let any: Multiaddr = "/p2p-circuit".parse().unwrap();
    let (node, _) = world.client();
    let refused = node.listen(any.clone()).await;
    assert!(
        matches!(&refused, Err(ListenError::Io { reason, .. }) if reason.contains("no further relay")),
        "{refused:?}"
    );

    let mut limits = RelayLimits::default();
    limits.reservations = 0;
    let full = world.relay(limits).await;
    let relay = world.relay(RelayLimits::default()).await;
    node.dial(full.address).await.unwrap();
    node.dial(relay.address.clone()).await.unwrap();
    // Long enough for both to have said what they are.
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(node.listen(any.clone()).await.unwrap(), [relay.circuit().with_peer_id(node.peer_id())]);
    let refused = node.listen(any).await;
    assert!(
        matches!(&refused, Err(ListenError::Io { reason, .. }) if reason.contains("no place")),
        "{refused:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn dialing_says_why_a_circuit_cannot_be_had() {
    let world = World::new();
    let relay = world.relay(RelayLimits::default()).await;
    let (client, _) = world.client();
    let reason = async |destination| match client.dial(relay.circuit().with_peer_id(destination)).await {
        Err(error) => match &*error {
            ConnectError::Dial(DialError::Unreachable { reason, .. }) => reason.clone(),
            other => panic!("{other:?}"),
        },
        Ok(connection) => panic!("{connection:?}"),
    };
    let stranger = reason(Keypair::generate().peer_id()).await;
    assert!(stranger.contains("NO_RESERVATION"), "{stranger}");

    // A destination that has changed its mind.
    let (server, _) = world.reachable(&relay).await;
    assert!(server.unhandle(&STOP));
    let refusing = reason(server.peer_id()).await;
    assert!(refusing.contains("CONNECTION_FAILED"), "{refusing}");

    // One that has gone, and its reservation with it.
    server.close().await;
    eventually("the relay sees it go", || relay.server.stats().reservations == 0).await;
    let gone = reason(server.peer_id()).await;
    assert!(gone.contains("NO_RESERVATION"), "{gone}");
}
