//! From the addresses of a peer to one connection, on simulated time.

// Allowed in tests; clippy takes only the functions marked as such for tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use peerloom_core::{
    Connection, DialError, Keypair, ListenError, Listener, Multiaddr, PeerId, Protocol, Transport,
    runtime::BoxFuture,
};
use peerloom_node::{ConnectError, Limits, Node};
use peerloom_sim::{MemoryTransport, Network};
use tokio::time::Instant;

const LATENCY: Duration = Duration::from_millis(20);
/// "Connection Attempt Delay" of RFC 8305.
const STAGGER: Duration = Duration::from_millis(250);

const QUIC: &str = "/ip4/192.0.2.1/udp/4001/quic-v1";
const TCP: &str = "/ip4/192.0.2.1/tcp/4001";
const WS: &str = "/ip4/192.0.2.1/tcp/4001/ws";

/// What becomes of a dial of some address.
#[derive(Clone)]
enum Fate {
    /// Somebody listens there, at this address of the network in memory.
    Open(Multiaddr),
    Refused,
}

/// Addresses as there are in the world, of which some lead somewhere, and the others into silence.
#[derive(Clone)]
struct World {
    network: Network,
    fates: Arc<Mutex<HashMap<Multiaddr, Fate>>>,
    under_way: Arc<AtomicUsize>,
    most_under_way: Arc<AtomicUsize>,
    dialed: Arc<Mutex<Vec<Multiaddr>>>,
}

impl World {
    fn new() -> Self {
        Self {
            network: Network::new(LATENCY),
            fates: Arc::default(),
            under_way: Arc::default(),
            most_under_way: Arc::default(),
            dialed: Arc::default(),
        }
    }

    fn node(&self) -> Node {
        self.node_with(Limits::default())
    }

    fn node_with(&self, limits: Limits) -> Node {
        let keypair = Keypair::generate();
        let memory = self.network.transport(keypair.clone());
        Node::builder(keypair).transport(Dialer { world: self.clone(), memory }).limits(limits).build()
    }

    /// A node that is there at these addresses.
    async fn server_at(&self, addresses: &[&str]) -> Node {
        let keypair = Keypair::generate();
        let server = Node::builder(keypair.clone()).transport(self.network.transport(keypair)).build();
        let memory = server.listen("/memory/0".parse().unwrap()).await.unwrap().remove(0).without_peer_id();
        for address in addresses {
            self.set(address, Fate::Open(memory.clone()));
        }
        server
    }

    fn set(&self, address: &str, fate: Fate) {
        self.fates.lock().unwrap().insert(parse(address), fate);
    }

    fn dialed(&self) -> Vec<String> {
        std::mem::take(&mut *self.dialed.lock().unwrap()).iter().map(Multiaddr::to_string).collect()
    }
}

struct Dialer {
    world: World,
    memory: MemoryTransport,
}

impl Transport for Dialer {
    fn can_dial(&self, address: &Multiaddr) -> bool {
        !address.protocols().any(|protocol| protocol == Protocol::WebRtcDirect)
    }

    fn can_listen(&self, address: &Multiaddr) -> bool {
        self.memory.can_listen(address)
    }

    fn dial(&self, address: Multiaddr) -> BoxFuture<'static, Result<Box<dyn Connection>, DialError>> {
        let plain = address.without_peer_id();
        self.world.dialed.lock().unwrap().push(plain.clone());
        let fate = self.world.fates.lock().unwrap().get(&plain).cloned();
        let under_way = UnderWay::new(&self.world);
        let dial = match &fate {
            Some(Fate::Open(memory)) => Some(self.memory.dial(match address.peer_id() {
                Some(peer) => memory.with_peer_id(peer),
                None => memory.clone(),
            })),
            _ => None,
        };
        Box::pin(async move {
            let _under_way = under_way;
            match (dial, fate) {
                (Some(dial), _) => dial.await,
                (None, Some(Fate::Refused)) => {
                    tokio::time::sleep(LATENCY * 2).await;
                    Err(DialError::Unreachable { address, reason: "connection refused".into() })
                }
                _ => std::future::pending().await,
            }
        })
    }

    fn listen(&self, address: Multiaddr) -> BoxFuture<'static, Result<Box<dyn Listener>, ListenError>> {
        self.memory.listen(address)
    }
}

/// Counts dials that are neither over nor cancelled.
struct UnderWay(Arc<AtomicUsize>);

impl UnderWay {
    fn new(world: &World) -> Self {
        let now = world.under_way.fetch_add(1, Ordering::Relaxed) + 1;
        world.most_under_way.fetch_max(now, Ordering::Relaxed);
        Self(world.under_way.clone())
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn parse(address: &str) -> Multiaddr {
    address.parse().unwrap()
}

fn know(node: &Node, peer: PeerId, addresses: &[&str]) {
    for address in addresses {
        node.peer_store().add_address(peer, &parse(address));
    }
}

/// How long the best address alone takes.
async fn best_alone() -> Duration {
    let world = World::new();
    let server = world.server_at(&[TCP]).await;
    let client = world.node();
    know(&client, server.peer_id(), &[TCP]);
    let start = Instant::now();
    client.dial(server.peer_id()).await.unwrap();
    start.elapsed()
}

#[tokio::test(start_paused = true)]
async fn a_silent_address_costs_one_stagger_and_is_cancelled() {
    let world = World::new();
    let server = world.server_at(&[TCP, WS]).await;
    let client = world.node();
    know(&client, server.peer_id(), &[WS, TCP, QUIC]);
    let start = Instant::now();
    client.dial(server.peer_id()).await.unwrap();
    assert!(start.elapsed() <= best_alone().await + STAGGER, "{:?}", start.elapsed());
    assert_eq!(world.dialed(), [QUIC, TCP]);
    assert_eq!(world.under_way.load(Ordering::Relaxed), 0);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!((server.connections().len(), client.connections().len()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_refusal_costs_its_round_trip_only() {
    let world = World::new();
    let server = world.server_at(&[TCP]).await;
    world.set(QUIC, Fate::Refused);
    let client = world.node();
    know(&client, server.peer_id(), &[TCP, QUIC]);
    let start = Instant::now();
    client.dial(server.peer_id()).await.unwrap();
    assert!(start.elapsed() <= best_alone().await + LATENCY * 2, "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn private_addresses_that_lead_nowhere_cost_nothing() {
    let world = World::new();
    let server = world.server_at(&[TCP]).await;
    let client = world.node();
    know(&client, server.peer_id(), &["/ip4/172.17.0.1/tcp/1", "/ip4/10.0.0.1/tcp/1", TCP]);
    let start = Instant::now();
    client.dial(server.peer_id()).await.unwrap();
    assert!(start.elapsed() <= best_alone().await, "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn the_best_address_may_appear_in_the_middle_of_a_dial() {
    let world = World::new();
    let server = world.server_at(&[TCP]).await;
    let client = world.node();
    let peer = server.peer_id();
    know(&client, peer, &[QUIC]);
    let late = async {
        tokio::time::sleep(Duration::from_secs(2)).await;
        know(&client, peer, &[TCP]);
    };
    let start = Instant::now();
    let (dialed, ()) = tokio::join!(client.dial(peer), late);
    dialed.unwrap();
    assert!(start.elapsed() <= Duration::from_secs(2) + best_alone().await, "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn where_udp_is_swallowed_it_is_no_longer_waited_for() {
    let world = World::new();
    let client = world.node();
    let mut took = Vec::new();
    for host in 1..=20 {
        let (tcp, quic) =
            (format!("/ip4/192.0.2.{host}/tcp/1"), format!("/ip4/192.0.2.{host}/udp/1/quic-v1"));
        let server = world.server_at(&[&tcp]).await;
        know(&client, server.peer_id(), &[&tcp, &quic]);
        let start = Instant::now();
        client.dial(server.peer_id()).await.unwrap();
        took.push(start.elapsed());
    }
    let best = best_alone().await;
    assert!(took[0] > best && took[5..].iter().all(|took| *took <= best), "{took:?}");

    // UDP is tried first again some time later, and if it works, trusted.
    tokio::time::sleep(Duration::from_secs(60)).await;
    for _ in 0..2 {
        world.dialed();
        let server = world.server_at(&["/ip4/192.0.2.99/udp/1/quic-v1"]).await;
        know(&client, server.peer_id(), &["/ip4/192.0.2.99/udp/1/quic-v1", "/ip4/192.0.2.99/tcp/1"]);
        client.dial(server.peer_id()).await.unwrap();
        assert_eq!(world.dialed(), ["/ip4/192.0.2.99/udp/1/quic-v1"]);
    }
}

#[tokio::test(start_paused = true)]
async fn an_address_that_failed_is_tried_after_the_others() {
    let world = World::new();
    let server = world.server_at(&[TCP]).await;
    let client = world.node();
    know(&client, server.peer_id(), &[TCP, QUIC]);
    world.set(QUIC, Fate::Refused);
    let connection = client.dial(server.peer_id()).await.unwrap();
    client.disconnect(server.peer_id()).await;
    drop(connection);
    world.dialed();
    client.dial(server.peer_id()).await.unwrap();
    assert_eq!(world.dialed(), [TCP]);
}

#[tokio::test(start_paused = true)]
async fn an_error_names_each_address_and_what_became_of_it() {
    let world = World::new();
    let client = world.node();
    let peer = Keypair::generate().peer_id();
    let webrtc = "/ip4/192.0.2.1/udp/4001/webrtc-direct";
    world.set(TCP, Fate::Refused);
    know(&client, peer, &[TCP, QUIC, webrtc]);
    let error = client.dial(peer).await.unwrap_err();
    let ConnectError::AllFailed { attempts, .. } = &*error else { panic!("{error}") };
    assert!(matches!(
        attempts.as_slice(),
        [ConnectError::NoTransport { .. }, ConnectError::Dial(_), ConnectError::TimedOut { .. }]
    ));
    let text = error.to_string();
    assert!([TCP, QUIC, webrtc, "refused"].iter().all(|part| text.contains(part)), "{text}");
    assert_eq!(world.under_way.load(Ordering::Relaxed), 0);
}

#[tokio::test(start_paused = true)]
async fn a_list_of_addresses_is_one_dial() {
    let world = World::new();
    let server = world.server_at(&[WS]).await;
    let client = world.node();
    let connection = client.dial(vec![parse(WS), parse(QUIC)]).await.unwrap();
    assert_eq!(connection.peer, server.peer_id());

    let (one, two) = (Keypair::generate().peer_id(), Keypair::generate().peer_id());
    let several = client.dial(vec![parse(WS).with_peer_id(one), parse(QUIC).with_peer_id(two)]).await;
    assert!(matches!(&*several.unwrap_err(), ConnectError::SeveralPeers { .. }));
    assert!(matches!(&*client.dial(vec![]).await.unwrap_err(), ConnectError::NoAddressGiven));
    let nobody = client.dial(vec![parse("/ip4/192.0.2.7/tcp/1")]).await.unwrap_err();
    assert!(nobody.to_string().starts_with("the peer cannot be reached"), "{nobody}");
}

#[tokio::test(start_paused = true)]
async fn an_address_at_which_somebody_else_answers_is_forgotten() {
    let world = World::new();
    let _other = world.server_at(&[TCP]).await;
    let client = world.node();
    let peer = Keypair::generate().peer_id();
    know(&client, peer, &[TCP]);
    client.dial(peer).await.unwrap_err();
    assert!(client.peer_store().addresses(peer).is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_dial_leaves_no_attempt_behind() {
    let world = World::new();
    let client = world.node();
    let peer = Keypair::generate().peer_id();
    know(&client, peer, &[TCP, QUIC, WS]);
    assert!(tokio::time::timeout(Duration::from_secs(3), client.dial(peer)).await.is_err());
    assert_eq!(world.under_way.load(Ordering::Relaxed), 0);
}

#[tokio::test(start_paused = true)]
async fn where_ip6_is_swallowed_it_is_no_longer_waited_for() {
    let world = World::new();
    let client = world.node();
    let mut took = Vec::new();
    for host in 1..=20 {
        let (ip4, ip6) = (format!("/ip4/192.0.2.{host}/tcp/1"), format!("/ip6/2001:db8::{host}/tcp/1"));
        let server = world.server_at(&[&ip4]).await;
        know(&client, server.peer_id(), &[&ip4, &ip6]);
        let start = Instant::now();
        client.dial(server.peer_id()).await.unwrap();
        took.push(start.elapsed());
    }
    let best = best_alone().await;
    assert!(took[0] > best && took[5..].iter().all(|took| *took <= best), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn dials_of_one_peer_are_one_whoever_says_where_it_is() {
    let world = World::new();
    let server = world.server_at(&[TCP]).await;
    let client = world.node();
    let peer = server.peer_id();
    know(&client, peer, &[QUIC]);
    let by_address = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        client.dial(vec![parse(TCP).with_peer_id(peer)]).await
    };
    let start = Instant::now();
    let (by_peer, by_address, again) = tokio::join!(client.dial(peer), by_address, client.dial(peer));
    let id = by_peer.unwrap().id;
    assert_eq!((by_address.unwrap().id, again.unwrap().id), (id, id));
    assert!(start.elapsed() <= Duration::from_secs(1) + best_alone().await, "{:?}", start.elapsed());
    assert_eq!(world.dialed(), [QUIC, TCP]);
    // One that is there is not made again, at whichever address.
    assert_eq!(client.dial(vec![parse(WS).with_peer_id(peer)]).await.unwrap().id, id);
    assert!(world.dialed().is_empty());
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!((server.connections().len(), client.connections().len()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn dials_of_many_peers_keep_to_the_budget_of_all() {
    const PEERS: usize = 30;
    let world = World::new();
    let mut limits = Limits::default();
    limits.concurrent_dials = 5;
    let client = world.node_with(limits);
    let mut servers = Vec::new();
    for host in 0..PEERS {
        let (quic, tcp) =
            (format!("/ip4/192.0.2.{host}/udp/1/quic-v1"), format!("/ip4/192.0.2.{host}/tcp/1"));
        let server = world.server_at(&[&tcp]).await;
        know(&client, server.peer_id(), &[&quic, &tcp]);
        servers.push(server);
    }
    let dials = servers.iter().map(|server| client.dial(server.peer_id()));
    assert!(futures_util::future::join_all(dials).await.iter().all(Result::is_ok));
    assert_eq!(world.most_under_way.load(Ordering::Relaxed), 5);
    assert_eq!(client.connections().len(), PEERS);
}

#[tokio::test(start_paused = true)]
async fn an_address_that_only_waited_for_its_turn_is_held_against_nobody() {
    const OTHER_WS: &str = "/ip4/192.0.2.1/tcp/4002/ws";
    let world = World::new();
    let mut limits = Limits::default();
    limits.concurrent_dials = 1;
    let client = world.node_with(limits);
    let server = world.server_at(&[TCP, WS, OTHER_WS]).await;
    let (peer, silent) = (server.peer_id(), Keypair::generate().peer_id());
    know(&client, silent, &["/ip4/192.0.2.2/tcp/1"]);
    know(&client, peer, &[WS, TCP]);
    let (failed, dialed) = tokio::join!(client.dial(silent), client.dial(peer));
    assert!(failed.is_err());
    dialed.unwrap();
    assert_eq!(world.dialed(), ["/ip4/192.0.2.2/tcp/1", TCP]);

    client.disconnect(peer).await;
    client.peer_store().remove_address(peer, &parse(TCP));
    know(&client, peer, &[OTHER_WS, WS]);
    client.dial(peer).await.unwrap();
    assert_eq!(world.dialed(), [WS], "the one seen last, which nothing speaks against");
}

#[tokio::test(start_paused = true)]
async fn more_silent_addresses_than_the_budget_has_room_for_do_not_hide_one_that_works() {
    let world = World::new();
    let server = world.server_at(&[WS]).await;
    let client = world.node();
    let silent: Vec<String> = (2..12).map(|host| format!("/ip4/192.0.2.{host}/udp/1/quic-v1")).collect();
    know(&client, server.peer_id(), &[WS]);
    silent.iter().for_each(|address| know(&client, server.peer_id(), &[address]));
    let start = Instant::now();
    client.dial(server.peer_id()).await.unwrap();
    // Attempts that have had 5 s give way.
    let took = start.elapsed();
    assert!(took <= Duration::from_secs(5) + STAGGER + best_alone().await, "{took:?}");
    assert_eq!(world.most_under_way.load(Ordering::Relaxed), Limits::default().dials_per_peer);
    assert_eq!(world.under_way.load(Ordering::Relaxed), 0);
}
