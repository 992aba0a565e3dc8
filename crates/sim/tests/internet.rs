//! What the simulated internet does to connections, on whole nodes.

// Allowed in tests; clippy takes only the functions marked as such for tests.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::future::join_all;
use peerloom_core::{
    Connection, ConnectionError, ListenerEvent, Multiaddr, StreamExt as _, Transport,
    runtime::{Task, spawn},
};
use peerloom_node::{ConnectError, ConnectionInfo, Node, NodeEvent, ping};
use peerloom_sim::{
    Host, HostConfig, Internet, LinkConfig, Nat, PACKET_OVERHEAD, PACKET_PAYLOAD, Trace, What,
};
use tokio::time::{Instant, sleep, timeout};

const QUIC: &str = "/ip4/0.0.0.0/udp/4001/quic-v1";
const LATENCY: Duration = Duration::from_millis(20);

fn node(host: &Host) -> Node {
    let keypair = host.keypair();
    Node::builder(keypair.clone()).transport(host.transport(keypair)).build()
}

async fn listening(host: &Host, on: &str) -> (Node, Multiaddr) {
    let node = node(host);
    let address = node.listen(on.parse().unwrap()).await.unwrap().remove(0);
    (node, address)
}

fn two_hosts(link: LinkConfig) -> (Internet, Host, Host) {
    let internet = Internet::new(1);
    internet.default_link(link);
    let hosts = [(); 2].map(|()| internet.host(HostConfig::new()));
    let [one, other] = hosts;
    (internet, one, other)
}

/// A listening node, and one that is connected to it.
async fn pair(one: &Host, other: &Host) -> (Node, Node, ConnectionInfo) {
    let (server, address) = listening(other, QUIC).await;
    let client = node(one);
    let connection = client.dial(address).await.unwrap();
    (client, server, connection)
}

async fn end_of(node: &Node) -> Arc<ConnectionError> {
    let mut events = node.events();
    loop {
        if let Some(NodeEvent::ConnectionClosed { reason, .. }) = events.next().await {
            return reason;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_dial_takes_the_round_trips_of_its_transport() {
    for (on, round_trips) in [
        ("/ip4/0.0.0.0/udp/1/quic-v1", 1),
        ("/ip4/0.0.0.0/tcp/1", 2),
        ("/ip4/0.0.0.0/tcp/1/ws", 3),
        ("/ip4/0.0.0.0/udp/1/quic-v1/webtransport", 3),
        ("/ip4/0.0.0.0/tcp/1/tls/ws", 4),
        ("/ip4/0.0.0.0/udp/1/webrtc-direct", 6),
    ] {
        let (_internet, one, other) = two_hosts(LinkConfig::new(LATENCY));
        let (_server, address) = listening(&other, on).await;
        let start = Instant::now();
        node(&one).dial(address).await.unwrap();
        assert_eq!(start.elapsed(), 2 * LATENCY * round_trips, "{on}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_port_without_a_listener_refuses_tcp_and_ignores_udp() {
    let (internet, one, other) = two_hosts(LinkConfig::new(LATENCY));
    let (client, ip) = (node(&one), other.addresses()[0]);
    let start = Instant::now();
    let refused = client.dial(format!("/ip4/{ip}/tcp/1").parse::<Multiaddr>().unwrap()).await.unwrap_err();
    assert_eq!(start.elapsed(), 2 * LATENCY);
    assert!(refused.to_string().contains("connection refused"), "{refused}");
    let ignored =
        client.dial(format!("/ip4/{ip}/udp/1/quic-v1").parse::<Multiaddr>().unwrap()).await.unwrap_err();
    assert!(ignored.to_string().contains("did not become a connection"), "{ignored}");
    assert_eq!(internet.connections(), 0);
}

#[tokio::test(start_paused = true)]
async fn where_udp_is_blocked_tcp_works() {
    let internet = Internet::new(1);
    let (server, quic) = listening(&internet.host(HostConfig::new()), QUIC).await;
    let tcp = server.listen("/ip4/0.0.0.0/tcp/4001".parse().unwrap()).await.unwrap().remove(0);
    let client = node(&internet.host(HostConfig::new().without_udp()));
    assert!(client.dial(quic).await.is_err());
    client.dial(tcp).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_short_partition_delays_and_a_long_one_ends_connections() {
    let (internet, one, other) = two_hosts(LinkConfig::new(LATENCY));
    let (client, server, connection) = pair(&one, &other).await;
    let mut pinger = ping::Pinger::open(&client, &connection).await.unwrap();
    assert_eq!(pinger.ping().await.unwrap(), 2 * LATENCY);

    internet.partition([&one], [&other]);
    let healing = async {
        sleep(Duration::from_secs(5)).await;
        internet.heal();
    };
    let (delayed, ()) = tokio::join!(pinger.ping(), healing);
    let delayed = delayed.unwrap();
    assert!(delayed > Duration::from_secs(5) && delayed < Duration::from_secs(10), "{delayed:?}");
    sleep(Duration::from_secs(60)).await;
    assert_eq!(pinger.ping().await.unwrap(), 2 * LATENCY, "alive, and as quick as before");

    internet.partition([&one], [&other]);
    let start = Instant::now();
    let (ours, theirs) = tokio::join!(end_of(&client), end_of(&server));
    assert!(matches!((&*ours, &*theirs), (ConnectionError::TimedOut, ConnectionError::TimedOut)));
    assert_eq!(start.elapsed(), Duration::from_secs(30));
    internet.heal();
    client.dial(connection.remote_address.clone()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_crashed_host_says_no_goodbye_and_one_that_restarted_resets() {
    let (_internet, one, other) = two_hosts(LinkConfig::new(LATENCY));
    let (client, server, connection) = pair(&one, &other).await;
    other.crash();
    let start = Instant::now();
    assert!(matches!(*end_of(&client).await, ConnectionError::TimedOut));
    assert_eq!(start.elapsed(), Duration::from_secs(30));
    let address: Multiaddr = connection.remote_address.clone();
    assert!(matches!(*client.dial(address).await.unwrap_err(), ConnectError::TimedOut { .. }));
    drop(server);

    other.restart();
    let (client, server, _connection) = pair(&one, &other).await;
    other.crash();
    drop(server);
    sleep(Duration::from_secs(1)).await;
    other.restart();
    let start = Instant::now();
    let reason = end_of(&client).await;
    assert!(matches!(&*reason, ConnectionError::Io(reason) if reason.contains("reset")), "{reason:?}");
    assert!(start.elapsed() < Duration::from_secs(16));
    pair(&one, &other).await;
}

#[tokio::test(start_paused = true)]
async fn a_host_that_sleeps_for_an_hour_is_given_up_and_finds_out_when_it_wakes() {
    let (_internet, one, other) = two_hosts(LinkConfig::new(LATENCY));
    let (client, server, connection) = pair(&one, &other).await;
    let start = Instant::now();
    one.sleep(Duration::from_secs(3600));
    let given_up = async {
        assert!(matches!(*end_of(&server).await, ConnectionError::TimedOut));
        start.elapsed()
    };
    let found_out = async {
        let reason = end_of(&client).await;
        assert!(matches!(&*reason, ConnectionError::Io(reason) if reason.contains("reset")), "{reason:?}");
        start.elapsed()
    };
    let times = tokio::join!(given_up, found_out);
    assert_eq!(times, (Duration::from_secs(30), Duration::from_secs(3600) + 2 * LATENCY));
    client.dial(connection.remote_address).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_runs_on_a_host_stands_still_while_it_sleeps_and_ends_when_it_crashes() {
    const HOUR: Duration = Duration::from_secs(3600);
    let (_internet, one, other) = two_hosts(LinkConfig::new(LATENCY));
    let (_server, address) = listening(&other, QUIC).await;
    let client = one.run(async { node(&one) }).await.unwrap();
    let connection = one.run(client.dial(address)).await.unwrap().unwrap();
    let start = Instant::now();
    let ticking = one.run(async {
        let mut ticks = Vec::new();
        for _ in 0..3 {
            sleep(Duration::from_secs(10)).await;
            ticks.push(start.elapsed());
        }
        ticks
    });
    let sleeping = async {
        sleep(Duration::from_secs(15)).await;
        one.sleep(HOUR);
    };
    let (ticks, ()) = tokio::join!(ticking, sleeping);
    let woken = HOUR + Duration::from_secs(15);
    assert_eq!(ticks.unwrap(), [10, 15 + 3600, 25 + 3600].map(Duration::from_secs));
    assert!(start.elapsed() > woken && !client.is_connected(connection.peer));

    // The node's own tasks, which nobody cancels, go with the host.
    one.run(client.dial(connection.remote_address)).await.unwrap().unwrap();
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let (before, of_client) = (tasks(), client.running_tasks());
    assert!(of_client > 0);
    let for_ever = one.run(std::future::pending::<()>());
    one.crash();
    assert_eq!(for_ever.await.unwrap_err().to_string(), "host 0 crashed");
    sleep(Duration::from_millis(1)).await;
    assert_eq!(client.running_tasks(), 0);
    assert!(tasks() <= before - of_client, "{before} - {of_client}, but {}", tasks());
}

/// The time from the first write to the arrival of the end, over QUIC.
async fn transfer(one: &Host, other: &Host, bytes: usize) -> Duration {
    let (dialer, acceptor, _accepting) = raw_pair(one, other).await;
    let start = Instant::now();
    let sending = async {
        let mut stream = dialer.open_stream().await.unwrap();
        stream.write_all(Bytes::from(vec![7; bytes])).await.unwrap();
        stream.close_write().await.unwrap();
        stream
    };
    let receiving = async {
        let mut stream = acceptor.accept_stream().await.unwrap();
        let mut received = 0;
        while let Some(chunk) = stream.read_chunk().await.unwrap() {
            received += chunk.len();
        }
        assert_eq!(received, bytes);
        (start.elapsed(), stream)
    };
    let (_sent, (elapsed, _received)) = tokio::join!(sending, receiving);
    elapsed
}

async fn raw_pair(one: &Host, other: &Host) -> (Box<dyn Connection>, Box<dyn Connection>, Task) {
    let server = other.transport(other.keypair());
    let mut listener = server.listen("/ip4/0.0.0.0/udp/0/quic-v1".parse().unwrap()).await.unwrap();
    let address = listener.addresses().remove(0);
    let accepting = async {
        let Ok(ListenerEvent::Incoming(incoming)) = listener.next().await else { panic!("no dialer") };
        incoming.handshake.await.unwrap()
    };
    let (dialer, acceptor) = tokio::join!(one.transport(one.keypair()).dial(address), accepting);
    // What the listener was is kept for as long as the test wants.
    (dialer.unwrap(), acceptor, spawn(async move { drop(listener) }))
}

#[tokio::test(start_paused = true)]
async fn bandwidth_shapes_a_transfer_as_computed() {
    const BANDWIDTH: u64 = 1_000_000;
    const MEBIBYTE: usize = 1 << 20;
    const SEGMENT: usize = 16 * 1024;
    let (_internet, one, other) = two_hosts(LinkConfig::new(LATENCY).bandwidth(BANDWIDTH));
    let packets = MEBIBYTE / SEGMENT * SEGMENT.div_ceil(PACKET_PAYLOAD);
    let expected = LATENCY.as_secs_f64() + (MEBIBYTE + packets * PACKET_OVERHEAD) as f64 / BANDWIDTH as f64;
    let elapsed = transfer(&one, &other, MEBIBYTE).await.as_secs_f64();
    assert!((elapsed - expected).abs() < 0.01, "{elapsed} s instead of {expected} s");

    // Two at once share it.
    let (first, second) =
        tokio::join!(transfer(&one, &other, MEBIBYTE / 2), transfer(&one, &other, MEBIBYTE / 2));
    let elapsed = first.max(second).as_secs_f64();
    assert!((elapsed - expected).abs() < 0.05, "{elapsed} s instead of {expected} s");
}

#[tokio::test(start_paused = true)]
async fn loss_costs_retransmissions_as_computed() {
    const LOSS: f64 = 0.1;
    const PINGS: u32 = 2000;
    let (_internet, one, other) = two_hosts(LinkConfig::new(LATENCY).loss(LOSS));
    let (client, _server, connection) = pair(&one, &other).await;
    let mut pinger = ping::Pinger::open(&client, &connection).await.unwrap();
    let mut total = Duration::ZERO;
    for _ in 0..PINGS {
        total += pinger.ping().await.unwrap();
    }
    // Each way: 9/8 of a round trip for the first loss, and twice as much for each further one.
    let patience = 2.0 * LATENCY.as_secs_f64() * 9.0 / 8.0;
    let expected = 2.0 * (LATENCY.as_secs_f64() + LOSS * patience / (1.0 - 2.0 * LOSS));
    let mean = total.as_secs_f64() / f64::from(PINGS);
    assert!((mean - expected).abs() < 0.003, "{mean} s instead of {expected} s");
}

#[tokio::test(start_paused = true)]
async fn a_stream_stays_in_order_whatever_the_link_does() {
    let link = LinkConfig::new(LATENCY).jitter(LATENCY).loss(0.05).reordering(0.2).bandwidth(2_000_000);
    let (internet, one, other) = two_hosts(link);
    let (dialer, acceptor, _accepting) = raw_pair(&one, &other).await;
    let sent: Vec<u8> = (0..500_000_u32).map(|at| (at ^ (at >> 8)) as u8).collect();
    let sending = async {
        let mut stream = dialer.open_stream().await.unwrap();
        for chunk in sent.chunks(777) {
            stream.write_all(Bytes::copy_from_slice(chunk)).await.unwrap();
        }
        stream.close_write().await.unwrap();
        stream
    };
    let receiving = async {
        let mut stream = acceptor.accept_stream().await.unwrap();
        let mut received = Vec::new();
        while let Some(chunk) = stream.read_chunk().await.unwrap() {
            received.extend_from_slice(&chunk);
        }
        (received, stream)
    };
    let (_sent, (received, _stream)) = tokio::join!(sending, receiving);
    assert!(received == sent);
    assert!(internet.trace().events().iter().any(|event| event.what == What::Lost));
}

#[tokio::test(start_paused = true)]
async fn the_real_upgrade_runs_over_a_simulated_link() {
    let (internet, one, other) = two_hosts(LinkConfig::new(LATENCY).loss(0.05));
    let secured = |host: &Host| {
        let keypair = host.keypair();
        Node::builder(keypair.clone()).transport(host.transport(keypair).secured()).build()
    };
    let (server, client) = (secured(&other), secured(&one));
    let address = server.listen("/ip4/0.0.0.0/tcp/4001".parse().unwrap()).await.unwrap().remove(0);
    let connection = client.dial(address).await.unwrap();
    assert_eq!(connection.peer, server.peer_id());
    ping::ping(&client, &connection).await.unwrap();
    client.close().await;
    server.close().await;
    drop((client, server));
    sleep(Duration::from_secs(60)).await;
    assert_eq!(internet.connections(), 0);
}

/// A public host, and what it sees of `host`, which listens.
async fn observed(rendezvous: &(Node, Multiaddr), host: &Host, on: &str) -> (Node, Multiaddr) {
    let (node, _) = listening(host, on).await;
    node.dial(rendezvous.1.clone()).await.unwrap();
    // The acceptor knows half a round trip later.
    sleep(Duration::from_secs(1)).await;
    let seen = rendezvous.0.connections().into_iter().find(|info| info.peer == node.peer_id()).unwrap();
    let address = seen.remote_address.with_peer_id(node.peer_id());
    (node, address)
}

fn host(internet: &Internet, nat: Option<Nat>) -> Host {
    internet.host(nat.map_or(HostConfig::new(), |nat| HostConfig::new().behind(nat)))
}

const KINDS: [Option<Nat>; 5] = [
    None,
    Some(Nat::FullCone),
    Some(Nat::RestrictedCone),
    Some(Nat::PortRestrictedCone),
    Some(Nat::Symmetric),
];

#[tokio::test(start_paused = true)]
async fn strangers_reach_a_full_cone_only() {
    for nat in KINDS {
        let internet = Internet::new(3);
        let rendezvous = listening(&internet.host(HostConfig::new()), QUIC).await;
        let (_inside, address) = observed(&rendezvous, &host(&internet, nat), QUIC).await;
        let stranger = node(&internet.host(HostConfig::new()));
        let reached = stranger.dial(address).await.is_ok();
        assert_eq!(reached, matches!(nat, None | Some(Nat::FullCone)), "{nat:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn holes_are_punched_unless_a_symmetric_nat_meets_one_that_looks_at_ports() {
    for on in [QUIC, "/ip4/0.0.0.0/tcp/4001"] {
        for (ours, theirs) in KINDS.iter().flat_map(|ours| KINDS.map(|theirs| (*ours, theirs))) {
            let internet = Internet::new(3);
            let rendezvous = listening(&internet.host(HostConfig::new()), on).await;
            let (one, at_one) = observed(&rendezvous, &host(&internet, ours), on).await;
            let (other, at_other) = observed(&rendezvous, &host(&internet, theirs), on).await;
            let (there, back) = tokio::join!(one.dial(at_other), other.dial(at_one));
            let looks_at_ports = |nat| matches!(nat, Some(Nat::PortRestrictedCone | Nat::Symmetric));
            let is_symmetric = |nat| nat == Some(Nat::Symmetric);
            let expected = !(is_symmetric(ours) && looks_at_ports(theirs)
                || looks_at_ports(ours) && is_symmetric(theirs));
            assert_eq!(there.is_ok() || back.is_ok(), expected, "{ours:?} and {theirs:?} over {on}");
            if expected {
                ping::ping(&one, other.peer_id()).await.unwrap();
                ping::ping(&other, one.peer_id()).await.unwrap();
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn hosts_behind_one_router_meet_inside_and_outside_only_by_hairpin() {
    for hairpin in [false, true] {
        let internet = Internet::new(3);
        let rendezvous = listening(&internet.host(HostConfig::new()), QUIC).await;
        let router = internet.router(Nat::FullCone);
        let router = if hairpin { router.hairpin() } else { router };
        let [one, other] = [(); 2].map(|()| internet.host(HostConfig::new().behind(&router)));
        let (inside, outer_address) = observed(&rendezvous, &one, QUIC).await;
        let inner_address = inside.listen_addresses().remove(0);
        assert_eq!(node(&other).dial(outer_address).await.is_ok(), hairpin);
        node(&other).dial(inner_address.clone()).await.unwrap();
        assert!(rendezvous.0.dial(inner_address).await.is_err(), "a private address means nothing outside");
    }
}

#[tokio::test(start_paused = true)]
async fn a_mapping_lasts_as_long_as_its_connection_and_a_reboot_ends_both() {
    let internet = Internet::new(3);
    let rendezvous = listening(&internet.host(HostConfig::new()), QUIC).await;
    let router = internet.router(Nat::PortRestrictedCone);
    let client = node(&internet.host(HostConfig::new().behind(&router)));
    let connection = client.dial(rendezvous.1.clone()).await.unwrap();
    sleep(Duration::from_secs(3600)).await;
    ping::ping(&rendezvous.0, client.peer_id()).await.unwrap();
    router.reboot();
    assert!(matches!(*end_of(&client).await, ConnectionError::TimedOut));
    client.dial(connection.remote_address).await.unwrap();
}

/// Nodes that dial, ping, lose each other and come back, on links that leave nothing out.
async fn busy_world(seed: u64) -> (Trace, Vec<String>) {
    const HOSTS: usize = 30;
    let internet = Internet::new(seed);
    let link = LinkConfig::new(LATENCY).jitter(Duration::from_millis(7)).loss(0.03).reordering(0.05);
    internet.default_link(link.bandwidth(1_000_000));
    let kind = |at: usize| if at.is_multiple_of(3) { KINDS[at / 3 % 5] } else { None };
    let hosts: Vec<Host> = (0..HOSTS).map(|at| host(&internet, kind(at))).collect();
    let (mut nodes, mut told) = (Vec::new(), Vec::new());
    for host in &hosts {
        let (node, address) = listening(host, QUIC).await;
        told.push(node.events());
        nodes.push((node, address));
    }
    let contact = async |at: usize, steps: usize| {
        let (node, address) = (&nodes[at].0, nodes[(at + steps) % HOSTS].1.clone());
        if let Ok(connection) = node.dial(address).await {
            let _ = ping::ping(node, &connection).await;
        }
    };
    for steps in [1, 4, 9] {
        join_all((0..HOSTS).map(|at| contact(at, steps))).await;
    }
    internet.partition(&hosts[..10], &hosts[10..]);
    sleep(Duration::from_secs(20)).await;
    hosts[4].crash();
    hosts[5].sleep(Duration::from_secs(40));
    sleep(Duration::from_secs(20)).await;
    internet.heal();
    join_all((0..HOSTS).map(|at| contact(at, 2))).await;
    for (node, _) in &nodes {
        node.close().await;
    }
    let mut events = Vec::new();
    for told in &mut told {
        while let Some(event) = told.next().await {
            events.push(event.to_string());
        }
    }
    (internet.trace(), events)
}

/// In a thread of its own, whose maps are seeded anew, and a runtime of its own.
fn run(seed: u64) -> (Trace, Vec<String>) {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    std::thread::spawn(move || runtime().unwrap().block_on(busy_world(seed))).join().unwrap()
}

#[test]
fn an_identical_seed_gives_an_identical_run_and_another_seed_another() {
    let (trace, events) = run(11);
    assert!(trace.count() > 1000 && events.len() > 100, "{} and {}", trace.count(), events.len());
    for _ in 0..3 {
        let (again, events_again) = run(11);
        assert_eq!(trace.first_difference(&again), None);
        assert_eq!(trace.digest(), again.digest());
        assert_eq!(events, events_again);
    }
    assert_ne!(trace.digest(), run(12).0.digest());
}

#[tokio::test(start_paused = true)]
async fn nothing_is_left_of_a_dial_that_was_given_up() {
    let (internet, one, other) = two_hosts(LinkConfig::new(LATENCY));
    let (server, address) = listening(&other, QUIC).await;
    let client = node(&one);
    for given in [1, 10, 21, 39] {
        assert!(timeout(Duration::from_millis(given), client.dial(address.clone())).await.is_err());
    }
    sleep(Duration::from_secs(60)).await;
    assert_eq!((internet.connections(), server.connections().len()), (0, 0));
}
