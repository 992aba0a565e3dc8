//! A reservation is kept, whatever happens to the relay and to the way to it.

// Allowed in tests; clippy takes only the functions marked as such for tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::time::Duration;

use common::*;
use peerloom_core::{Keypair, Multiaddr};
use peerloom_node::{Events, NodeEvent};
use peerloom_relay::{ClientConfig, RelayConfig, RelayLimits};
use tokio::time::{Instant, sleep};

const HOUR: Duration = Duration::from_secs(3600);

/// The addresses, and whether it was a renewal.
async fn reserved(events: &mut Events) -> (Vec<Multiaddr>, bool) {
    until(events, |event| match event {
        NodeEvent::RelayReserved { addresses, renewed, .. } => Some((addresses.clone(), *renewed)),
        _ => None,
    })
    .await
}

async fn lost(events: &mut Events) -> (String, Duration) {
    until(events, |event| match event {
        NodeEvent::RelayLost { reason, retry_in, .. } => Some((reason.clone(), retry_in.unwrap())),
        _ => None,
    })
    .await
}

#[tokio::test(start_paused = true)]
async fn a_reservation_is_announced_and_renewed_before_it_ends() {
    let world = World::new();
    let relay = world.relay(RelayLimits::default()).await;
    let (node, client) = world.client();
    let mut events = node.events();
    let address = listen_at(&node, &relay).await;
    assert_eq!(reserved(&mut events).await, (vec![address.clone()], false));
    assert_eq!(client.relays(), [relay.node.peer_id()]);
    let start = Instant::now();
    for round in 1..=5 {
        assert_eq!(reserved(&mut events).await, (vec![address.clone()], true));
        assert!(start.elapsed() < HOUR * round && relay.server.stats().reservations == 1);
    }
    assert!(start.elapsed() > HOUR * 3);
    assert_eq!(node.listen_addresses(), [address]);
    assert_eq!(relay.server.stats().reservations_made, 6);
}

#[tokio::test(start_paused = true)]
async fn a_reservation_ends_with_the_client() {
    let world = World::new();
    let relay = world.relay(RelayLimits::default()).await;
    let (node, client) = world.client();
    listen_at(&node, &relay).await;
    // No task of the client keeps the node alive.
    drop(node);
    eventually("the relay sees it go", || relay.server.stats().reservations == 0).await;
    assert!(client.relays().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_relay_that_restarts_is_used_again() {
    let world = World::new();
    let keypair = Keypair::generate();
    let relay = world.relay_with(keypair.clone(), "/memory/7", RelayConfig::default()).await;
    let (server, address) = world.reachable(&relay).await;
    let mut events = server.events();

    relay.node.close().await;
    let (reason, retry_in) = lost(&mut events).await;
    assert!(reason.contains("connection to the relay is over"), "{reason}");
    assert!(retry_in < ClientConfig::default().first_retry);
    eventually("no address is told", || server.listen_addresses().is_empty()).await;
    let (reason, _) = lost(&mut events).await;
    assert!(reason.contains("cannot be reached"), "{reason}");

    sleep(HOUR).await;
    let relay = world.relay_with(keypair, "/memory/7", RelayConfig::default()).await;
    let back = Instant::now();
    assert_eq!(reserved(&mut events).await, (vec![address.clone()], false));
    assert!(back.elapsed() < ClientConfig::default().longest_retry + Duration::from_secs(1));
    eventually("the address is told again", || server.listen_addresses() == [address.clone()]).await;
    assert_eq!(relay.server.stats().reservations, 1);

    let (client, _) = world.client();
    client.dial(address).await.unwrap();
    let mut stream = client.open_stream_on_limited(server.peer_id(), &[ECHO]).await.unwrap();
    assert_eq!(echoed(&mut stream, b"again").await, b"again");
}

#[tokio::test(start_paused = true)]
async fn attempts_at_a_relay_that_stays_away_come_further_and_further_apart() {
    let world = World::new();
    let relay = world.relay(RelayLimits::default()).await;
    let (node, _) = world.client();
    listen_at(&node, &relay).await;
    let mut events = node.events();
    relay.node.close().await;
    lost(&mut events).await;
    let mut waits = Vec::new();
    for _ in 0..12 {
        waits.push(lost(&mut events).await.1);
    }
    let config = ClientConfig::default();
    for (failures, wait) in waits.iter().enumerate() {
        let longest = (config.first_retry * 2_u32.pow(failures as u32)).min(config.longest_retry);
        assert!(*wait >= longest / 2 && *wait <= longest, "{failures}: {wait:?}");
    }
    // They are not all the same: there is jitter.
    assert!(waits[8..].iter().any(|wait| *wait != waits[8]));
}

#[tokio::test(start_paused = true)]
async fn a_relay_that_is_full_when_it_comes_back_is_asked_until_it_has_a_place() {
    let world = World::new();
    let keypair = Keypair::generate();
    let relay = world.relay_with(keypair.clone(), "/memory/7", RelayConfig::default()).await;
    let (node, _) = world.client();
    listen_at(&node, &relay).await;
    let mut events = node.events();
    relay.node.close().await;
    lost(&mut events).await;

    let mut limits = RelayLimits::default();
    limits.reservations = 1;
    let relay = world.relay_with(keypair, "/memory/7", RelayConfig::new(limits)).await;
    let (other, _) = world.client();
    listen_at(&other, &relay).await;
    let refused = until(&mut events, |event| match event {
        NodeEvent::RelayLost { reason, .. } if reason.contains("RESERVATION_REFUSED") => Some(()),
        NodeEvent::RelayReserved { .. } => panic!("there is no place"),
        _ => None,
    });
    refused.await;
    other.close().await;
    reserved(&mut events).await;
}

#[tokio::test(start_paused = true)]
async fn after_a_change_of_networks_the_reservation_is_made_anew_within_seconds() {
    let world = World::new();
    let relay = world.relay(RelayLimits::default()).await;
    let (node, client) = world.client();
    let address = listen_at(&node, &relay).await;
    let mut events = node.events();

    // On a network that still works, it is checked by renewing it.
    client.network_changed();
    assert_eq!(reserved(&mut events).await, (vec![address.clone()], true));

    world.network.cut();
    client.network_changed();
    let start = Instant::now();
    // To the relay the old connection still lives, so there is no gap between the two reservations.
    assert_eq!(reserved(&mut events).await, (vec![address], true));
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_cut_that_nobody_tells_of_is_found_by_the_renewal_at_the_latest() {
    let world = World::new();
    let relay = world.relay(RelayLimits::default()).await;
    let (node, _) = world.client();
    listen_at(&node, &relay).await;
    let mut events = node.events();
    world.network.cut();
    let start = Instant::now();
    reserved(&mut events).await;
    assert!(start.elapsed() < HOUR);
}

#[tokio::test(start_paused = true)]
async fn a_dead_connection_to_the_relay_does_not_keep_the_node_from_listening() {
    let world = World::new();
    let relay = world.relay(RelayLimits::default()).await;
    let (node, _) = world.client();
    node.dial(relay.address.clone()).await.unwrap();
    sleep(Duration::from_secs(1)).await;
    world.network.cut();
    let start = Instant::now();
    listen_at(&node, &relay).await;
    assert!(start.elapsed() < Duration::from_secs(15), "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn two_relays_are_kept_independently() {
    let world = World::new();
    let [one, other] = [world.relay(RelayLimits::default()).await, world.relay(RelayLimits::default()).await];
    let (node, client) = world.client();
    listen_at(&node, &one).await;
    let address = listen_at(&node, &other).await;
    assert_eq!(client.relays().len(), 2);
    let mut events = node.events();
    one.node.close().await;
    lost(&mut events).await;
    eventually("only the other is told", || node.listen_addresses() == [address.clone()]).await;
    assert_eq!(other.server.stats().reservations, 1);
}
