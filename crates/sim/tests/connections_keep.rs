//! Peers that are kept: through restarts, partitions and sleeps.

// Allowed in tests; clippy takes only the functions marked as such for tests.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::time::Duration;

use peerloom_core::Multiaddr;
use peerloom_node::{Events, Node, NodeEvent};
use peerloom_sim::{Host, HostConfig, Internet, LinkConfig};
use tokio::time::{Instant, sleep, timeout};

const SECOND: Duration = Duration::from_secs(1);
const LATENCY: Duration = Duration::from_millis(20);

fn internet(seed: u64) -> (Internet, Host, Host) {
    let internet = Internet::new(seed);
    internet.default_link(LinkConfig::new(LATENCY));
    let [client, server] = [(); 2].map(|()| internet.host(HostConfig::new()));
    (internet, client, server)
}

async fn node(host: &Host) -> Node {
    let keypair = host.keypair();
    let transport = host.transport(keypair.clone());
    host.run(async move { Node::builder(keypair).transport(transport).build() }).await.unwrap()
}

async fn listening(host: &Host) -> (Node, Multiaddr) {
    let node = node(host).await;
    let listening = node.listen("/ip4/0.0.0.0/udp/4001/quic-v1".parse().unwrap());
    let address = host.run(listening).await.unwrap().unwrap().remove(0);
    (node, address)
}

/// The waits that were told since the last time.
fn waits(events: &mut Events) -> Vec<Duration> {
    let mut waits = Vec::new();
    while let Some(Some(event)) = futures_util::FutureExt::now_or_never(events.next()) {
        if let NodeEvent::KeptPeerLost { retry_in, .. } = event {
            waits.push(retry_in);
        }
    }
    waits
}

async fn until_connected(node: &Node, to: &Node) -> Duration {
    let start = Instant::now();
    while !node.is_connected(to.peer_id()) {
        sleep(Duration::from_millis(10)).await;
    }
    start.elapsed()
}

#[tokio::test(start_paused = true)]
async fn a_peer_is_connected_to_at_once_and_again_when_it_has_restarted() {
    let (_internet, host, other) = internet(1);
    let (server, address) = listening(&other).await;
    let client = node(&host).await;
    let peer = host.run(async { client.keep(address) }).await.unwrap().unwrap();
    assert_eq!((peer, client.kept()), (server.peer_id(), vec![peer]));
    assert!(until_connected(&client, &server).await <= 10 * LATENCY);

    let mut events = client.events();
    server.close().await;
    sleep(10 * SECOND).await;
    assert!(!client.is_connected(peer));
    let (server, _) = listening(&other).await;
    assert!(until_connected(&client, &server).await <= 60 * SECOND);
    let waits = waits(&mut events);
    assert!(waits.len() >= 2 && waits[0] <= SECOND && waits[1] > waits[0], "{waits:?}");
}

#[tokio::test(start_paused = true)]
async fn after_a_partition_the_peer_is_there_again_and_at_once_if_the_node_is_told() {
    for told in [false, true] {
        let (internet, host, other) = internet(2);
        let (server, address) = listening(&other).await;
        let client = node(&host).await;
        host.run(async { client.keep(address) }).await.unwrap().unwrap();
        until_connected(&client, &server).await;

        internet.partition([&host], [&other]);
        sleep(1800 * SECOND).await;
        assert!(!client.is_connected(server.peer_id()));
        internet.heal();
        if told {
            client.resumed();
        }
        let took = until_connected(&client, &server).await;
        let most = if told { SECOND } else { 150 * SECOND };
        assert!(took <= most, "told {told}: {took:?}");
        assert_eq!(client.connections().len(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_host_that_slept_for_an_hour_is_connected_again_at_once() {
    let (_internet, host, other) = internet(3);
    let (server, address) = listening(&other).await;
    let client = node(&host).await;
    host.run(async { client.keep(address) }).await.unwrap().unwrap();
    until_connected(&client, &server).await;

    host.sleep(3600 * SECOND);
    sleep(3600 * SECOND).await;
    assert!(!server.is_connected(client.peer_id()), "the server has given it up long ago");
    // Nobody tells it; the connection that it thinks it has is dead.
    let start = Instant::now();
    while !server.is_connected(client.peer_id()) {
        assert!(start.elapsed() < 20 * SECOND);
        sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_short_sleep_costs_no_connection() {
    let (_internet, host, other) = internet(4);
    let (server, address) = listening(&other).await;
    let client = node(&host).await;
    host.run(async { client.keep(address) }).await.unwrap().unwrap();
    until_connected(&client, &server).await;
    let before = client.connections()[0].id;
    for _ in 0..10 {
        host.sleep(20 * SECOND);
        sleep(20 * SECOND).await;
        client.resumed();
        sleep(20 * SECOND).await;
    }
    let after: Vec<_> = client.connections().iter().map(|connection| connection.id).collect();
    assert_eq!(after, [before]);
}

#[tokio::test(start_paused = true)]
async fn a_flapping_peer_is_dialed_ever_more_seldom_until_it_is_stable() {
    let (_internet, host, other) = internet(5);
    let (server, address) = listening(&other).await;
    let client = node(&host).await;
    let mut events = client.events();
    host.run(async { client.keep(address) }).await.unwrap().unwrap();
    for _ in 0..9 {
        until_connected(&client, &server).await;
        sleep(SECOND).await;
        server.disconnect(client.peer_id()).await;
        sleep(SECOND / 5).await;
    }
    let told = waits(&mut events);
    assert_eq!(told.len(), 9);
    for (at, wait) in told.iter().enumerate() {
        let longest = (SECOND * 2_u32.pow(at as u32)).min(120 * SECOND);
        assert!(*wait >= longest / 2 && *wait <= longest, "{at}: {wait:?}");
    }
    until_connected(&client, &server).await;
    sleep(60 * SECOND).await;
    server.disconnect(client.peer_id()).await;
    sleep(SECOND).await;
    assert!(waits(&mut events)[0] <= SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_is_kept_no_longer_is_left_alone() {
    let (_internet, host, other) = internet(6);
    let (server, address) = listening(&other).await;
    let client = node(&host).await;
    let peer = host.run(async { client.keep(address) }).await.unwrap().unwrap();
    until_connected(&client, &server).await;
    assert!(client.peer_store().is_protected(peer) && client.peer_store().weight(peer) > 0);
    client.disconnect(peer).await;
    assert!(client.kept().is_empty() && !client.unkeep(peer));
    assert!(!client.peer_store().is_protected(peer));
    let back = timeout(600 * SECOND, until_connected(&client, &server)).await;
    assert!(back.is_err());
}
