//! Which connections are kept, which are closed, and that both ends agree.

// Allowed in tests; clippy takes only the functions marked as such for tests.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::{collections::BTreeSet, time::Duration};

use bytes::Bytes;
use futures_util::future::join_all;
use peerloom_core::{CloseReason, ConnectionError, Keypair, Multiaddr, PeerId, ProtocolName, StreamExt as _};
use peerloom_node::{Direction, IncomingStream, Limits, Node, NodeEvent, Tag, ping};
use peerloom_sim::{Host, HostConfig, Internet, LinkConfig, Network};
use tokio::time::{sleep, timeout};

const SECOND: Duration = Duration::from_secs(1);
const ECHO: ProtocolName = ProtocolName::from_static("/echo/1.0.0");
const QUIC: &str = "/ip4/0.0.0.0/udp/4001/quic-v1";
const TCP: &str = "/ip4/0.0.0.0/tcp/4001";

fn node(host: &Host, limits: Limits) -> Node {
    let keypair = host.keypair();
    let node = Node::builder(keypair.clone()).transport(host.transport(keypair)).limits(limits).build();
    node.handle(ECHO, echo).unwrap();
    node
}

async fn echo(mut incoming: IncomingStream) {
    while let Ok(Some(chunk)) = incoming.stream.read_chunk().await {
        if incoming.stream.write_all(chunk).await.is_err() {
            return;
        }
    }
}

async fn listening(host: &Host, on: &str, limits: Limits) -> (Node, Multiaddr) {
    let node = node(host, limits);
    let address = node.listen(on.parse().unwrap()).await.unwrap().remove(0);
    (node, address)
}

fn with_marks(low: usize, high: usize, most: usize) -> Limits {
    let mut limits = Limits::default();
    (limits.low_water, limits.high_water, limits.resources.system.connections) = (low, high, most);
    limits
}

fn peers(node: &Node) -> BTreeSet<PeerId> {
    node.connections().into_iter().map(|connection| connection.peer).collect()
}

#[tokio::test(start_paused = true)]
async fn of_500_peers_the_worthiest_60_stay_connected() {
    let internet = Internet::new(1);
    let (hub, address) = listening(&internet.host(HostConfig::new()), QUIC, with_marks(48, 60, 100)).await;
    let others: Vec<Node> =
        (0..500).map(|_| node(&internet.host(HostConfig::new()), Limits::default())).collect();
    let mut dear = BTreeSet::new();
    let mut most = 0;
    let mut streams = Vec::new();
    for (at, other) in others.iter().enumerate() {
        // Some may find it full for a moment.
        if other.dial(address.clone()).await.is_ok() {
            match at % 50 {
                0 => hub.peer_store().tag(other.peer_id(), "friend", Tag::new(5)).unwrap(),
                1 => {
                    let mut stream = other.open_stream(hub.peer_id(), &[ECHO]).await.unwrap();
                    stream.write_all(Bytes::from_static(b"x")).await.unwrap();
                    streams.push(stream);
                }
                _ => {}
            }
            if at % 50 < 2 {
                dear.insert(other.peer_id());
            }
        }
        most = most.max(hub.connections().len());
        sleep(SECOND).await;
    }
    sleep(120 * SECOND).await;
    let left = peers(&hub);
    println!("at most {most}, in the end {}, {:?}", left.len(), hub.closed_counts());
    assert!(dear.len() >= 18, "{}", dear.len());
    assert!(dear.is_subset(&left), "those with a tag or a stream are still there");
    assert!(left.len() <= 60 && left.len() >= dear.len() && most <= 100);
    assert!(hub.closed_counts().trimmed + hub.closed_counts().unused > 400);
    for mut stream in streams {
        stream.write_all(Bytes::from_static(b"y")).await.unwrap();
        assert!(stream.read_chunk().await.unwrap().is_some());
    }
}

#[tokio::test(start_paused = true)]
async fn a_protected_peer_stays_under_pressure() {
    let internet = Internet::new(2);
    let (hub, address) = listening(&internet.host(HostConfig::new()), QUIC, with_marks(2, 4, 40)).await;
    let dear = node(&internet.host(HostConfig::new()), Limits::default());
    dear.dial(address.clone()).await.unwrap();
    hub.peer_store().protect(dear.peer_id(), "test").unwrap();
    // Worth nothing, were it not protected.
    hub.peer_store().tag(dear.peer_id(), "rude", Tag::new(-100)).unwrap();
    let mut strangers = Vec::new();
    for _ in 0..100 {
        let stranger = node(&internet.host(HostConfig::new()), Limits::default());
        let _ = stranger.dial(address.clone()).await;
        hub.peer_store().tag(stranger.peer_id(), "nice", Tag::new(10)).unwrap();
        strangers.push(stranger);
        sleep(2 * SECOND).await;
        assert!(hub.is_connected(dear.peer_id()));
    }
    sleep(60 * SECOND).await;
    assert!(hub.is_connected(dear.peer_id()) && hub.connections().len() <= 4);
    hub.peer_store().unprotect(dear.peer_id(), "test");
    assert_eq!(hub.trim_connections(1).await, hub.connections().len());
    assert!(!hub.is_connected(dear.peer_id()));
}

#[tokio::test(start_paused = true)]
async fn a_connection_dialed_for_a_stream_closes_when_nobody_needs_it() {
    let internet = Internet::new(3);
    let (server, address) = listening(&internet.host(HostConfig::new()), QUIC, Limits::default()).await;
    let client = node(&internet.host(HostConfig::new()), Limits::default());
    let idle = Limits::default().unused_idle;

    client.dial_for_streams(address.clone()).await.unwrap();
    let mut stream = client.open_stream(server.peer_id(), &[ECHO]).await.unwrap();
    stream.write_all(Bytes::from_static(b"x")).await.unwrap();
    sleep(10 * idle).await;
    stream.read_chunk().await.unwrap();
    assert_eq!(client.connections().len(), 1, "a stream is open");
    drop(stream);
    sleep(idle / 2).await;
    // Pings are nothing that anybody has a connection for.
    ping::ping(&client, server.peer_id()).await.unwrap();
    let mut events = server.events();
    sleep(idle / 2 + 6 * SECOND).await;
    assert!(client.connections().is_empty());
    sleep(SECOND).await;
    assert!(server.connections().is_empty());
    let told = loop {
        if let NodeEvent::ConnectionClosed { reason, .. } = events.next().await.unwrap() {
            break reason;
        }
    };
    let unused = CloseReason::GarbageCollected;
    assert!(matches!(*told, ConnectionError::ClosedFor { reason, by_remote: true } if reason == unused));
    assert_eq!(client.closed_counts().unused, 1);

    // A stream that the remote opens is a need as good as one's own, and so is a tag.
    client.dial_for_streams(address.clone()).await.unwrap();
    ping::ping(&client, server.peer_id()).await.unwrap();
    let theirs = server.open_stream(client.peer_id(), &[ECHO]).await.unwrap();
    let mut theirs = theirs;
    theirs.write_all(Bytes::from_static(b"x")).await.unwrap();
    sleep(10 * idle).await;
    assert_eq!(client.connections().len(), 1);
    client.peer_store().tag(server.peer_id(), "test", Tag::halving_every(8, idle)).unwrap();
    drop(theirs);
    sleep(3 * idle).await;
    assert_eq!(client.connections().len(), 1);
    sleep(4 * idle).await;
    assert!(client.connections().is_empty(), "the tag has faded");

    // What the application has dialed is its own to close.
    client.dial_for_streams(address.clone()).await.unwrap();
    client.dial(address).await.unwrap();
    sleep(100 * idle).await;
    assert_eq!(client.connections().len(), 1);
}

/// Over real Yamux.
#[tokio::test(start_paused = true)]
async fn the_remote_learns_why_a_connection_was_closed() {
    let network = Network::new(Duration::from_millis(10));
    let [server, client] = [1, 2].map(|seed| {
        let keypair = Keypair::from_seed([seed; 32]);
        Node::builder(keypair.clone()).transport(network.transport(keypair)).build()
    });
    let address = server.listen("/memory/0".parse().unwrap()).await.unwrap().remove(0);
    client.dial(address).await.unwrap();
    sleep(60 * SECOND).await;
    let mut events = client.events();
    assert_eq!(server.trim_connections(0).await, 1);
    let told = loop {
        if let NodeEvent::ConnectionClosed { reason, .. } = events.next().await.unwrap() {
            break reason.to_string();
        }
    };
    assert_eq!(told, "closed by the remote: it was not needed, or others were worth more");
}

/// Two nodes that dial each other at the same moment, or nearly.
async fn dial_each_other(seed: u64) {
    let internet = Internet::new(seed);
    let mut chance = seed;
    let mut random = move |bound: u64| {
        chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (chance >> 33) % bound
    };
    internet.default_link(
        LinkConfig::new(Duration::from_millis(1 + random(300))).jitter(Duration::from_millis(random(50))),
    );
    let hosts = [(); 2].map(|()| internet.host(HostConfig::new()));
    let kind = |choice| if choice == 0 { QUIC } else { TCP };
    let kinds = [(); 2].map(|()| kind(random(2)));
    let (one, to_one) = listening(&hosts[0], kinds[0], Limits::default()).await;
    let (other, to_other) = listening(&hosts[1], kinds[1], Limits::default()).await;
    let (early, late) = (Duration::from_millis(random(400)), Duration::from_millis(random(400)));
    let dial = async |from: &Node, to: Multiaddr, after: Duration| {
        sleep(after).await;
        let dialed = from.dial(to.clone()).await.unwrap();
        // A stream that is open meanwhile is not cut.
        let mut stream = from.open_stream(&dialed, &[ECHO]).await.unwrap();
        for _ in 0..20 {
            stream.write_all(Bytes::from_static(b"x")).await.unwrap();
            assert!(stream.read_chunk().await.unwrap().is_some(), "seed {seed}");
            sleep(SECOND).await;
        }
    };
    tokio::join!(dial(&one, to_other, early), dial(&other, to_one, late));
    sleep(30 * SECOND).await;
    let [left, right] = [&one, &other].map(Node::connections);
    assert_eq!((left.len(), right.len()), (1, 1), "seed {seed}");
    // Two TCP dials that meet are one connection, which both have dialed.
    let is_same = left[0].direction != right[0].direction || kinds == [TCP, TCP];
    assert!(is_same, "seed {seed}");
    ping::ping(&one, &left[0]).await.unwrap();
    // For good.
    sleep(600 * SECOND).await;
    let [id, their_id] = [&one, &other].map(|node| node.connections()[0].id);
    assert_eq!((id, their_id), (left[0].id, right[0].id), "seed {seed}");
}

#[tokio::test(start_paused = true)]
async fn peers_that_dial_each_other_at_once_end_with_one_connection() {
    for seed in 0..150 {
        dial_each_other(seed).await;
    }
}

#[tokio::test(start_paused = true)]
async fn both_sides_use_the_connection_that_the_lesser_peer_dialed() {
    let internet = Internet::new(7);
    let hosts = [(); 2].map(|()| internet.host(HostConfig::new()));
    let (one, to_one) = listening(&hosts[0], QUIC, Limits::default()).await;
    let (other, to_other) = listening(&hosts[1], TCP, Limits::default()).await;
    let (dialed, dialed_too) = tokio::join!(one.dial(to_other), other.dial(to_one));
    dialed.unwrap();
    dialed_too.unwrap();
    sleep(SECOND).await;
    assert_eq!((one.connections().len(), other.connections().len()), (2, 2));
    for (from, to) in [(&one, &other), (&other, &one)] {
        let opened = from.open_stream_and_tell(to.peer_id(), &[ECHO], false).await.unwrap();
        let dialed_it = opened.connection.direction == Direction::Outbound;
        assert_eq!(dialed_it, from.peer_id() < to.peer_id());
    }
}

#[tokio::test(start_paused = true)]
async fn a_swarm_that_dials_itself_ends_with_one_connection_for_each_pair() {
    let internet = Internet::new(8);
    internet.default_link(LinkConfig::new(Duration::from_millis(40)).jitter(Duration::from_millis(30)));
    let starting = (0..8).map(|_| internet.host(HostConfig::new()));
    let nodes = join_all(starting.map(async |host| listening(&host, QUIC, Limits::default()).await)).await;
    let dials = nodes.iter().flat_map(|(from, _)| {
        let others = nodes.iter().filter(|(to, _)| to.peer_id() != from.peer_id());
        others.map(|(_, address)| from.dial(address.clone()))
    });
    assert!(join_all(dials).await.iter().all(Result::is_ok));
    sleep(60 * SECOND).await;
    for (node, _) in &nodes {
        assert_eq!((node.connections().len(), peers(node).len()), (7, 7));
    }
    let quiet = timeout(600 * SECOND, async {
        let mut events = nodes[0].0.events();
        while let Some(event) = events.next().await {
            if matches!(event, NodeEvent::ConnectionClosed { .. }) {
                return;
            }
        }
    });
    assert!(quiet.await.is_err(), "no flapping");
}
