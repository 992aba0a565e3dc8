//! Hosts that want more than their share, on simulated time: what they get is bounded, and the others are served.

// Allowed in tests; clippy takes only the functions marked as such for tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
// Tasks whose results are wanted.
#![allow(clippy::disallowed_methods)]

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use peerloom_core::{
    Connection, Keypair, Multiaddr, PeerId, ProtocolName, Stream, StreamError, StreamExt as _,
    Transport as _,
    multistream_select::NegotiatedStream,
    runtime::{Task, spawn},
};
use peerloom_node::{
    ConnectError, IpNetwork, Limits, Node, NodeEvent, OpenStreamError, ping,
    resources::{Amounts, LimitExceeded, Resource, ResourceScope, ScopeKind},
};
use peerloom_sim::{Host, HostConfig, Internet};

const SECOND: Duration = Duration::from_secs(1);
const ECHO: ProtocolName = ProtocolName::from_static("/echo/1.0.0");
const OTHER: ProtocolName = ProtocolName::from_static("/other/1.0.0");
/// What go-libp2p calls `StreamResourceLimitExceeded`.
const RESOURCE_LIMIT_EXCEEDED: u32 = 0x1002;

/// A server with an echo, and what it says.
struct World {
    internet: Internet,
    server: Node,
    refusals: Arc<Mutex<Vec<(LimitExceeded, u64)>>>,
    address: Multiaddr,
    _listening: Task,
}

impl World {
    async fn new(limits: Limits) -> Self {
        let internet = Internet::new(7);
        let server = node(&internet.host(HostConfig::new()), limits);
        for protocol in [ECHO, OTHER] {
            server.handle(protocol, |incoming| echo(incoming.stream)).unwrap();
        }
        let address =
            server.listen("/ip4/0.0.0.0/udp/4001/quic-v1".parse().unwrap()).await.unwrap().remove(0);
        let refusals = Arc::<Mutex<Vec<_>>>::default();
        let (mut events, heard) = (server.events(), refusals.clone());
        let listening = spawn(async move {
            while let Some(event) = events.next().await {
                if let NodeEvent::IncomingRefused { error, untold } = event {
                    heard.lock().unwrap().push((error, untold));
                }
            }
        });
        Self { internet, server, refusals, address, _listening: listening }
    }

    fn host(&self) -> Host {
        self.internet.host(HostConfig::new())
    }

    fn client(&self) -> Node {
        node(&self.host(), Limits::default())
    }

    /// Somebody new gets in and gets an echo.
    async fn assert_serves(&self) {
        let client = self.client();
        client.dial(self.address.clone()).await.unwrap();
        assert_echo(&client, self.server.peer_id(), ECHO).await;
        client.close().await;
    }

    /// A connection from somebody who has no node of its own.
    async fn connect(&self, host: &Host) -> Box<dyn Connection> {
        host.transport(host.keypair()).dial(self.address.clone()).await.unwrap()
    }

    fn held(&self, scope: &ResourceScope) -> Amounts {
        self.server.resources().held(scope)
    }

    /// What the server has said of refusals.
    fn refusals(&self) -> Vec<(LimitExceeded, u64)> {
        self.refusals.lock().unwrap().clone()
    }

    /// Nobody is there any more, and nothing is held for anybody.
    async fn assert_empty(&self) {
        tokio::time::sleep(60 * SECOND).await;
        let scopes = self.server.resources().scopes;
        assert!(scopes.is_empty(), "{scopes:?}");
    }
}

fn node(host: &Host, mut limits: Limits) -> Node {
    // What a host waits for in a queue is not what is tested here.
    limits.dial_timeout = 60 * SECOND;
    let keypair = host.keypair();
    Node::builder(keypair.clone()).transport(host.transport(keypair)).limits(limits).build()
}

fn ip_scope(host: &Host) -> ResourceScope {
    ResourceScope::Network(IpNetwork::new(host.public_address(), 32).unwrap())
}

async fn echo(mut stream: NegotiatedStream) {
    while let Ok(Some(chunk)) = stream.read_chunk().await {
        if stream.write_all(chunk).await.is_err() {
            return;
        }
    }
    let _ = stream.close_write().await;
}

async fn assert_echo(client: &Node, peer: PeerId, protocol: ProtocolName) {
    let mut stream = client.open_stream(peer, &[protocol]).await.unwrap();
    stream.write_all(Bytes::from_static(b"hello")).await.unwrap();
    assert_eq!(stream.read_chunk().await.unwrap().unwrap(), "hello");
    stream.close_write().await.unwrap();
}

/// A stream for `protocol` by somebody who has no node; the answer, or why there is none.
async fn ask(connection: &dyn Connection, protocol: &ProtocolName) -> Result<Box<dyn Stream>, StreamError> {
    let mut stream = connection.open_stream().await?;
    let length = u8::try_from(protocol.as_str().len() + 1).unwrap();
    let hello = [b"\x13/multistream/1.0.0\n".as_slice(), &[length], protocol.as_str().as_bytes(), b"\nhello"];
    stream.write_all(Bytes::from(hello.concat())).await?;
    let mut answer = Vec::new();
    while !answer.ends_with(b"hello") {
        answer.extend(stream.read_chunk().await?.ok_or(StreamError::Protocol("no answer"))?);
    }
    Ok(stream)
}

/// Opens connections, four each millisecond and each as another peer, and keeps those it gets.
fn flood(host: &Host, address: &Multiaddr, dialers: usize) -> Vec<Task> {
    let dialer = |number: usize| {
        let (transport, address) = (host.transport(Keypair::generate()), address.clone());
        let start = Duration::from_millis(number as u64 / 4);
        spawn(async move {
            tokio::time::sleep(start).await;
            loop {
                if let Ok(connection) = transport.dial(address.clone()).await {
                    connection.closed().await;
                }
                tokio::time::sleep(SECOND).await;
            }
        })
    };
    (0..dialers).map(dialer).collect()
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_connections_from_one_address_keep_nobody_else_out() {
    let world = World::new(Limits::default()).await;
    let attacker = world.host();
    let before = world.client();
    before.dial(world.address.clone()).await.unwrap();
    let flood = flood(&attacker, &world.address, 10_000);
    for round in 0..5 {
        tokio::time::sleep(SECOND).await;
        world.assert_serves().await;
        assert_echo(&before, world.server.peer_id(), ECHO).await;
        let resources = world.server.resources();
        let (all, attackers) = (resources.held(&ResourceScope::System), resources.held(&ip_scope(&attacker)));
        println!(
            "{round} s: {} connections of the attacker, {} in all, {} bytes; {} refused",
            attackers.connections,
            all.connections,
            all.memory,
            resources.times_refused(ScopeKind::Network, Resource::Connections)
                + resources.times_refused(ScopeKind::TransientNetwork, Resource::Connections),
        );
        assert!(attackers.connections <= 256 && all.connections <= 256 + 2, "{all:?}");
        assert!(world.server.connections().len() <= 256 + 2);
        assert!(world.server.running_tasks() <= 256 * 4, "{}", world.server.running_tasks());
    }
    let refusals = world.refusals();
    assert!((1..=30).contains(&refusals.len()), "{}", refusals.len());
    let untold: u64 = refusals.iter().map(|(_, untold)| untold).sum();
    assert!(untold > 1000, "{untold}");
    assert!(
        refusals.iter().any(|(error, _)| error.to_string().ends_with("256 of 256 connections")),
        "{refusals:?}"
    );
    drop(flood);
    before.close().await;
    world.assert_empty().await;
}

#[tokio::test(start_paused = true)]
async fn a_full_node_takes_those_on_the_allow_list() {
    let internet = Internet::new(7);
    let hosts = [(); 5].map(|()| internet.host(HostConfig::new()));
    let [server, first, stranger, friend, neighbour] = &hosts;
    let mut limits = Limits::default();
    limits.resources.system.connections = 1;
    limits.resources.allow.peers.insert(friend.keypair().peer_id());
    limits.resources.allow.networks.push(IpNetwork::new(neighbour.public_address(), 32).unwrap());
    let server = node(server, limits);
    server.handle(ECHO, |incoming| echo(incoming.stream)).unwrap();
    let address = server.listen("/ip4/0.0.0.0/tcp/4001".parse().unwrap()).await.unwrap().remove(0);
    let [first, stranger, friend, neighbour] =
        [first, stranger, friend, neighbour].map(|host| node(host, Limits::default()));
    for client in [&first, &stranger, &friend, &neighbour] {
        let _ = client.dial(address.clone()).await;
    }
    tokio::time::sleep(SECOND).await;
    assert!(server.is_connected(first.peer_id()) && !server.is_connected(stranger.peer_id()));
    for allowed in [&friend, &neighbour] {
        assert_echo(allowed, server.peer_id(), ECHO).await;
        let connections = server.connections();
        let theirs = connections.iter().find(|connection| connection.peer == allowed.peer_id()).unwrap();
        assert!(theirs.allow_listed);
    }
    let resources = server.resources();
    let held = |scope| resources.held(&scope).connections;
    assert_eq!((held(ResourceScope::System), held(ResourceScope::AllowedSystem)), (1, 2));
    assert_eq!((held(ResourceScope::Transient), held(ResourceScope::AllowedTransient)), (0, 0));
    // Dials that the allow list has room for are made, others are not.
    let outside = node(&internet.host(HostConfig::new()), Limits::default());
    let outside = outside.listen("/ip4/0.0.0.0/tcp/4001".parse().unwrap()).await.unwrap().remove(0);
    let error = server.dial(outside).await.unwrap_err();
    let ConnectError::LimitExceeded(full) = &*error else { panic!("{error}") };
    assert_eq!((full.scope.kind(), full.resource), (ScopeKind::System, Resource::Connections));
    assert_eq!(error.to_string(), "no connection: the node: 1 of 1 connections");
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_opens_streams_without_end_is_reset_and_others_are_served() {
    let mut limits = Limits::default();
    limits.resources.peer.inbound_streams = 64;
    let world = World::new(limits).await;
    let hostile = world.host();
    let mut connections = Vec::new();
    for _ in 0..4 {
        connections.push(world.connect(&hostile).await);
    }
    let mut streams = Vec::new();
    let mut refused = Vec::new();
    for number in 0..200 {
        match ask(&*connections[number % 4], &ECHO).await {
            Ok(stream) => streams.push(stream),
            Err(error) => refused.push(error),
        }
    }
    assert_eq!((streams.len(), refused.len()), (64, 200 - 64));
    let is_told = |error: &StreamError| matches!(error, StreamError::Reset { code: RESOURCE_LIMIT_EXCEEDED });
    assert!(refused.iter().all(is_told), "{refused:?}");
    let held = world.held(&ResourceScope::Peer(hostile.keypair().peer_id()));
    assert_eq!((held.connections, held.inbound_streams), (4, 64));
    world.assert_serves().await;
    let (error, _) = world.refusals().remove(0);
    assert_eq!(error.to_string(), format!("peer {}: 64 of 64 inbound streams", hostile.keypair().peer_id()));
    // One that is over makes room for another.
    streams.pop().unwrap().reset(0);
    tokio::time::sleep(SECOND).await;
    streams.push(ask(&*connections[0], &ECHO).await.unwrap());
    drop((streams, connections));
    world.assert_empty().await;
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_one_protocol_leaves_room_for_the_others() {
    let mut limits = Limits::default();
    limits.resources.protocol.inbound_streams = 40;
    limits.resources.protocol_peer.inbound_streams = 9;
    let world = World::new(limits).await;
    let hosts: Vec<Host> = (0..8).map(|_| world.host()).collect();
    let (mut connections, mut streams) = (Vec::new(), Vec::new());
    for host in &hosts {
        let connection = world.connect(host).await;
        for _ in 0..20 {
            streams.extend(ask(&*connection, &OTHER).await.ok());
        }
        connections.push(connection);
    }
    assert_eq!(streams.len(), 40);
    assert_eq!(world.held(&ResourceScope::Protocol(OTHER)).inbound_streams, 40);
    let of_first = ResourceScope::ProtocolPeer(OTHER, hosts[0].keypair().peer_id());
    assert_eq!(world.held(&of_first).inbound_streams, 9);
    let resources = world.server.resources();
    assert_eq!(resources.times_refused(ScopeKind::ProtocolPeer, Resource::InboundStreams), 4 * 11);
    assert!(resources.times_refused(ScopeKind::Protocol, Resource::InboundStreams) > 60);
    // The very peers that flood it are served otherwise.
    ask(&*connections[0], &ECHO).await.unwrap();
    world.assert_serves().await;
    drop((streams, connections));
    world.assert_empty().await;
}

#[tokio::test(start_paused = true)]
async fn streams_that_never_say_what_for_are_bounded_and_others_are_served() {
    let mut limits = Limits::default();
    limits.resources.transient.inbound_streams = 100;
    let world = World::new(limits).await;
    let hostile = world.host();
    let connection = world.connect(&hostile).await;
    let mut streams = Vec::new();
    for _ in 0..200 {
        let mut stream = connection.open_stream().await.unwrap();
        let _ = stream.write_all(Bytes::from_static(b"\x13/multi")).await;
        streams.push(stream);
    }
    tokio::time::sleep(SECOND).await;
    assert_eq!(world.held(&ResourceScope::Transient).inbound_streams, 100);
    // They have ten seconds.
    tokio::time::sleep(10 * SECOND).await;
    assert_eq!(world.held(&ResourceScope::Transient).inbound_streams, 0);
    world.assert_serves().await;
    drop((streams, connection));
    world.assert_empty().await;
}

#[tokio::test(start_paused = true)]
async fn who_hits_an_own_limit_is_told_which() {
    let world = World::new(Limits::default()).await;
    let mut limits = Limits::default();
    limits.resources.peer.outbound_streams = 3;
    limits.resources.protocol_peer.memory = 3 * (4 << 10) + 1000;
    let client = node(&world.host(), limits);
    let peer = client.dial(world.address.clone()).await.unwrap().peer;
    ping::ping(&client, peer).await.unwrap();
    tokio::time::sleep(SECOND).await;
    let mut streams = Vec::new();
    for _ in 0..3 {
        streams.push(client.open_stream(peer, &[ECHO]).await.unwrap());
    }
    let error = client.open_stream(peer, &[ECHO, OTHER]).await.err().unwrap();
    assert!(matches!(error, OpenStreamError::LimitExceeded { .. }), "{error}");
    assert_eq!(error.to_string(), format!("no stream to {peer}: peer {peer}: 3 of 3 outbound streams"));

    let mut memory = client.reserve_memory(peer, &ECHO, 800).unwrap();
    assert_eq!(memory.bytes(), 800);
    let error = memory.resize(1001).unwrap_err();
    assert_eq!((error.scope, error.limit), (ResourceScope::ProtocolPeer(ECHO, peer), 13_288));
    memory.resize(1000).unwrap();
    client.reserve_memory(peer, &ECHO, 1).unwrap_err();
    drop(memory);
    drop(client.reserve_memory(peer, &ECHO, 1).unwrap());
    drop(streams);
    client.open_stream(peer, &[ECHO]).await.unwrap();
    client.close().await;
    tokio::time::sleep(60 * SECOND).await;
    assert!(client.resources().scopes.is_empty());
    world.assert_empty().await;
}

#[tokio::test(start_paused = true)]
async fn what_a_cancelled_dial_or_stream_held_is_given_back() {
    let world = World::new(Limits::default()).await;
    let client = world.client();
    // Nobody is there, and nobody says so.
    let silent: Multiaddr = "/ip4/198.51.100.1/udp/4001/quic-v1".parse().unwrap();
    assert!(tokio::time::timeout(SECOND, client.dial(silent)).await.is_err());
    assert!(client.resources().scopes.is_empty());
    let peer = client.dial(world.address.clone()).await.unwrap().peer;
    tokio::time::sleep(SECOND).await;
    let before = client.resources().held(&ResourceScope::Peer(peer));
    // The answer takes 40 ms.
    let opening = client.open_stream(peer, &[ProtocolName::from_static("/unknown"), ECHO]);
    assert!(tokio::time::timeout(SECOND / 100, opening).await.is_err());
    assert_eq!(client.resources().held(&ResourceScope::Peer(peer)), before);
    assert_eq!(client.resources().held(&ResourceScope::Transient), Amounts::NONE);
}
