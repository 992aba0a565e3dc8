//! Scenarios of dialing: what a user's node meets out there, and that it is connected all the same, and soon.

// Allowed in tests; clippy takes only the functions marked as such for tests.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::{
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use peerloom_core::{Multiaddr, Protocol};
use peerloom_node::{ConnectionInfo, Node};
use peerloom_sim::{Host, HostConfig, Internet, LinkConfig};
use tokio::time::{Instant, sleep};

const LATENCY: Duration = Duration::from_millis(40);
/// What may be lost by addresses that do not answer.
const STAGGER: Duration = Duration::from_millis(250);
/// Timers go in steps of that.
const TICK: Duration = Duration::from_millis(2);

fn internet() -> Internet {
    let internet = Internet::new(17);
    internet.default_link(LinkConfig::new(LATENCY));
    internet
}

fn node(host: &Host) -> Node {
    let keypair = host.keypair();
    Node::builder(keypair.clone()).transport(host.transport(keypair)).build()
}

async fn listening(host: &Host, on: &[&str]) -> (Node, Vec<Multiaddr>) {
    let (node, mut addresses) = (node(host), Vec::new());
    for listen in on {
        addresses.extend(node.listen(listen.parse().unwrap()).await.unwrap());
    }
    (node, addresses)
}

fn know(node: &Node, server: &Node, addresses: &[Multiaddr]) {
    addresses.iter().for_each(|address| node.peer_store().add_address(server.peer_id(), address));
}

async fn timed_dial(client: &Node, server: &Node) -> (ConnectionInfo, Duration) {
    let start = Instant::now();
    (client.dial(server.peer_id()).await.unwrap(), start.elapsed())
}

fn is_udp(connection: &ConnectionInfo) -> bool {
    connection.remote_address.protocols().any(|protocol| matches!(protocol, Protocol::Udp(_)))
}

/// A round trip for QUIC, two for TCP.
const QUIC_ALONE: Duration = LATENCY.saturating_mul(2);
const TCP_ALONE: Duration = LATENCY.saturating_mul(4);

#[tokio::test(start_paused = true)]
async fn half_of_a_peers_addresses_are_dead() {
    let internet = internet();
    let ip = |last: u8| IpAddr::from(Ipv4Addr::new(20, 1, 0, last));
    let host = internet.host(HostConfig::new().address(ip(1)).address(ip(2)));
    let (server, mut addresses) =
        listening(&host, &["/ip4/0.0.0.0/udp/4001/quic-v1", "/ip4/0.0.0.0/tcp/4001"]).await;
    assert_eq!(addresses.len(), 4);
    // Where it was before it moved: one address that nobody has any more, and one at which other things run.
    let _successor = internet.host(HostConfig::new().address(ip(4)));
    for last in [3, 4] {
        addresses.push(format!("/ip4/{}/udp/4001/quic-v1", ip(last)).parse().unwrap());
        addresses.push(format!("/ip4/{}/tcp/4001", ip(last)).parse().unwrap());
    }
    let client = node(&internet.host(HostConfig::new()));
    know(&client, &server, &addresses);

    let (connection, took) = timed_dial(&client, &server).await;
    assert!(is_udp(&connection) && took <= QUIC_ALONE + STAGGER + TICK, "{took:?}");
    sleep(Duration::from_secs(1)).await;
    assert_eq!((server.connections().len(), internet.in_use().connections), (1, 1));

    // Once it is known which are dead, they cost nothing.
    client.disconnect(server.peer_id()).await;
    let (_, took) = timed_dial(&client, &server).await;
    assert!(took <= QUIC_ALONE + TICK, "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn udp_is_blocked_and_later_no_longer() {
    let internet = internet();
    let mut servers = Vec::new();
    for _ in 0..20 {
        let on = ["/ip4/0.0.0.0/udp/4001/quic-v1", "/ip4/0.0.0.0/tcp/4001", "/ip4/0.0.0.0/tcp/4002/ws"];
        servers.push(listening(&internet.host(HostConfig::new()), &on).await);
    }
    let laptop = internet.host(HostConfig::new());
    laptop.block_udp(true);
    let client = node(&laptop);
    let mut took = Vec::new();
    for (server, addresses) in &servers {
        know(&client, server, addresses);
        let (connection, time) = timed_dial(&client, server).await;
        assert!(!is_udp(&connection));
        took.push(time);
        client.disconnect(server.peer_id()).await;
    }
    assert!(took.iter().all(|took| *took <= TCP_ALONE + STAGGER + TICK), "{took:?}");
    // After five hosts that were silent over UDP, and not over TCP, the rest is spared it.
    assert!(took[5..].iter().all(|took| *took <= TCP_ALONE + TICK), "{took:?}");

    laptop.block_udp(false);
    sleep(Duration::from_secs(60)).await;
    let (server, _) = &servers[19];
    let (connection, took) = timed_dial(&client, server).await;
    assert!(is_udp(&connection) && took <= QUIC_ALONE + TICK, "{took:?}");
    // That the rest of what was found out is void, too, the next dial shows.
    let (connection, _) = timed_dial(&client, &servers[18].0).await;
    assert!(is_udp(&connection));
}

#[tokio::test(start_paused = true)]
async fn the_best_address_appears_while_a_slow_one_is_being_dialed() {
    let internet = internet();
    let host = internet.host(HostConfig::new());
    let (server, addresses) = listening(&host, &["/ip4/0.0.0.0/udp/4001/quic-v1"]).await;
    // The same peer by a way that takes seconds.
    let detour = internet.host(HostConfig::new());
    let keypair = server.keypair().clone();
    let slow = Node::builder(keypair.clone()).transport(detour.transport(keypair)).build();
    let slow_address = slow.listen("/ip4/0.0.0.0/tcp/4001".parse().unwrap()).await.unwrap().remove(0);
    let dialer = internet.host(HostConfig::new());
    internet.link(&dialer, &detour, LinkConfig::new(Duration::from_secs(1)));
    let client = node(&dialer);
    know(&client, &server, &[slow_address]);

    let appears = Duration::from_millis(700);
    let late = async {
        sleep(appears).await;
        know(&client, &server, &addresses);
    };
    let ((connection, took), ()) = tokio::join!(timed_dial(&client, &server), late);
    assert!(is_udp(&connection) && took <= appears + QUIC_ALONE + TICK, "{took:?}");
    sleep(Duration::from_secs(60)).await;
    assert_eq!(
        (slow.connections().len(), internet.in_use().connections),
        (0, 1),
        "nothing is left of the other"
    );
}
