//! Who may connect, on whole nodes: rules that change, and gates of an application's.

// Allowed in tests; clippy takes only the functions marked as such for tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use parking_lot::Mutex;
use peerloom_core::Multiaddr;
use peerloom_node::{
    ConnectError, ConnectionInfo, Denied, Direction, Events, GATE_PATIENCE, Gating, Node, NodeEvent, Passage,
    Refusal, Rule,
};
use peerloom_sim::{Host, HostConfig, Internet, LinkConfig};
use tokio::time::{Instant, timeout};

const LATENCY: Duration = Duration::from_millis(20);

struct World {
    internet: Internet,
}

impl World {
    fn new() -> Self {
        let internet = Internet::new(1);
        internet.default_link(LinkConfig::new(LATENCY));
        Self { internet }
    }

    fn host(&self) -> Host {
        self.internet.host(HostConfig::new())
    }

    fn node(&self, gating: Gating) -> Node {
        node(&self.host(), gating)
    }

    /// A listening node, where, and in which network of one address that is.
    async fn server(&self, gating: Gating) -> (Node, Multiaddr, Rule) {
        let host = self.host();
        let node = node(&host, gating);
        let address = node.listen("/ip4/0.0.0.0/tcp/4001".parse().unwrap()).await.unwrap().remove(0);
        (node, address, host.addresses()[0].to_string().parse().unwrap())
    }
}

fn node(host: &Host, gating: Gating) -> Node {
    let keypair = host.keypair();
    Node::builder(keypair.clone()).transport(host.transport(keypair)).gating(gating).build()
}

/// A gate that lets everything pass, and a list of what has asked.
fn noting() -> (Gating, Arc<Mutex<Vec<Passage>>>) {
    let asked = Arc::<Mutex<Vec<Passage>>>::default();
    let noted = asked.clone();
    let gating = Gating::new().with_gate(move |passage| {
        noted.lock().push(passage);
        async { Ok(()) }
    });
    (gating, asked)
}

fn refusing(refused: impl Fn(&Passage) -> bool + Send + Sync + 'static) -> Gating {
    Gating::new().with_gate(move |passage: Passage| {
        let refused = refused(&passage);
        async move { if refused { Err(Refusal::from("not today")) } else { Ok(()) } }
    })
}

async fn next<T>(events: &mut Events, mut wanted: impl FnMut(NodeEvent) -> Option<T>) -> T {
    let search = async {
        loop {
            if let Some(found) = wanted(events.next().await.expect("the node lives")) {
                return found;
            }
        }
    };
    timeout(Duration::from_secs(300), search).await.expect("the event never came")
}

async fn established(events: &mut Events) -> ConnectionInfo {
    next(events, |event| match event {
        NodeEvent::ConnectionEstablished { connection, .. } => Some(connection),
        _ => None,
    })
    .await
}

async fn denied(events: &mut Events) -> Denied {
    next(events, |event| match event {
        NodeEvent::IncomingDenied { denied } => Some(denied),
        _ => None,
    })
    .await
}

fn denial(error: &ConnectError) -> &Denied {
    match error {
        ConnectError::Denied(denied) => denied,
        other => panic!("{other}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_gate_is_asked_about_every_step_on_both_sides_in_order() {
    let world = World::new();
    let (incoming, asked_inside) = noting();
    let (server, address, _) = world.server(incoming).await;
    let (outgoing, asked_outside) = noting();
    let client = world.node(outgoing);
    let mut events = server.events();
    let connection = client.dial(address.clone()).await.unwrap();
    let peer = server.peer_id();
    let remote_address = connection.remote_address.clone();
    let expected = [
        Passage::Peer { peer },
        Passage::Address { address },
        Passage::Connection { peer, remote_address, direction: Direction::Outbound },
    ];
    assert_eq!(*asked_outside.lock(), expected);

    let inbound = established(&mut events).await;
    let remote_address = inbound.remote_address.clone();
    let expected = [
        Passage::Incoming { remote_address: remote_address.clone() },
        Passage::Connection { peer: client.peer_id(), remote_address, direction: Direction::Inbound },
    ];
    assert_eq!(*asked_inside.lock(), expected);
}

#[tokio::test(start_paused = true)]
async fn a_denied_peer_is_not_dialed_and_the_error_says_who_denies_it() {
    let world = World::new();
    let (server, address, _) = world.server(Gating::new()).await;
    let client = world.node(Gating::new());
    client.gating().deny(server.peer_id().into());
    let start = Instant::now();
    let error = client.dial(address.clone()).await.unwrap_err();
    let expected = Passage::Peer { peer: server.peer_id() };
    assert_eq!(denial(&error).passage, expected);
    assert_eq!(denial(&error).reason, Refusal::Rule(server.peer_id().into()));
    assert_eq!(start.elapsed(), Duration::ZERO);

    // Without its name it turns out to be that peer.
    let error = client.dial(address.without_peer_id()).await.unwrap_err();
    assert!(matches!(denial(&error).passage, Passage::Connection { .. }), "{error}");
    assert!(client.connections().is_empty());

    assert!(client.gating().forget(&server.peer_id().into()));
    client.dial(address).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn denied_addresses_of_a_peer_are_left_out_and_named() {
    let world = World::new();
    let (server, address, rule) = world.server(Gating::new()).await;
    let client = world.node(Gating::new());
    client.gating().deny(rule.clone());
    let error = client.dial(vec![address.clone()]).await.unwrap_err();
    let ConnectError::AllFailed { attempts, .. } = &*error else { panic!("{error}") };
    let denied = Passage::Address { address: address.without_peer_id() };
    let [attempt] = attempts.as_slice() else { panic!("{error}") };
    assert_eq!(*denial(attempt), Denied::new(denied, Refusal::Rule(rule)));

    // Another one works.
    let other = server.listen("/ip4/0.0.0.0/udp/4001/quic-v1".parse().unwrap()).await.unwrap().remove(0);
    let gate = refusing(|passage| matches!(passage, Passage::Address { address } if is_tcp(address)));
    let client = world.node(gate);
    let addresses = server.listen_addresses();
    assert_eq!(addresses.len(), 2);
    let connection = client.dial(addresses).await.unwrap();
    assert_eq!(connection.remote_address, other.without_peer_id());
}

fn is_tcp(address: &Multiaddr) -> bool {
    address.to_string().contains("/tcp/")
}

#[tokio::test(start_paused = true)]
async fn a_denied_network_is_refused_before_its_handshake() {
    let world = World::new();
    let (server, address, _) = world.server(Gating::new()).await;
    let mut events = server.events();
    let host = world.host();
    let rule: Rule = host.addresses()[0].to_string().parse().unwrap();
    server.gating().deny(rule.clone());
    let client = node(&host, Gating::new());
    client.dial(address.clone()).await.unwrap_err();
    let refused = denied(&mut events).await;
    assert!(matches!(refused.passage, Passage::Incoming { .. }), "{refused}");
    assert_eq!(refused.reason, Refusal::Rule(rule));

    world.node(Gating::new()).dial(address).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_comes_in_is_refused_once_it_has_proved_who_it_is() {
    let world = World::new();
    let (server, address, _) = world.server(Gating::new()).await;
    let mut events = server.events();
    let [stranger, friend] = [(); 2].map(|()| world.node(Gating::new()));
    server.gating().deny(Rule::EveryPeer);
    server.gating().allow(friend.peer_id().into());
    // The dialer is done a moment before it is refused.
    let _ = stranger.dial(address.clone()).await;
    let refused = denied(&mut events).await;
    assert_eq!(refused.passage.peer(), Some(stranger.peer_id()));
    assert_eq!(refused.reason, Refusal::Rule(Rule::EveryPeer));
    friend.dial(address).await.unwrap();
    assert_eq!(established(&mut events).await.peer, friend.peer_id());
    assert_eq!(server.connections().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_is_denied_later_stays_until_it_is_closed() {
    let world = World::new();
    let (server, address, _) = world.server(Gating::new()).await;
    let clients = [(); 2].map(|()| world.node(Gating::new()));
    let mut events = server.events();
    for client in &clients {
        client.dial(address.clone()).await.unwrap();
        established(&mut events).await;
    }
    let mut events = clients[0].events();
    server.gating().deny(clients[0].peer_id().into());
    assert_eq!(server.connections().len(), 2);
    assert_eq!(server.close_denied().await, 1);
    assert_eq!(server.connections().iter().map(|info| info.peer).collect::<Vec<_>>(), [clients[1].peer_id()]);
    next(&mut events, |event| matches!(event, NodeEvent::ConnectionClosed { .. }).then_some(())).await;
    assert_eq!(server.close_denied().await, 0);
}

#[tokio::test(start_paused = true)]
async fn a_gate_refuses_at_each_step_with_its_own_words() {
    for refused in ["Peer", "Address", "Connection"] {
        let world = World::new();
        let (_server, address, _) = world.server(Gating::new()).await;
        let client = world.node(refusing(move |passage| format!("{passage:?}").starts_with(refused)));
        let error = client.dial(address).await.unwrap_err();
        assert!(format!("{:?}", denial(&error).passage).starts_with(refused), "{error}");
        assert!(error.to_string().ends_with(": not today"), "{error}");
        assert!(client.connections().is_empty());
    }
    for refused in ["Incoming", "Connection"] {
        let world = World::new();
        let gating = refusing(move |passage| format!("{passage:?}").starts_with(refused));
        let (server, address, _) = world.server(gating).await;
        let mut events = server.events();
        let client = world.node(Gating::new());
        let _ = client.dial(address).await;
        let denied = denied(&mut events).await;
        assert!(format!("{:?}", denied.passage).starts_with(refused), "{denied}");
        assert_eq!(denied.reason, Refusal::from("not today"));
        assert!(server.connections().is_empty());
    }
}

/// Counts the questions that it has not answered yet; it never answers.
fn silent() -> (Gating, Arc<AtomicUsize>) {
    struct Open(Arc<AtomicUsize>);
    impl Drop for Open {
        fn drop(&mut self) {
            self.0.fetch_sub(1, Relaxed);
        }
    }
    let open = Arc::<AtomicUsize>::default();
    let count = open.clone();
    let gating = Gating::new().with_gate(move |_: Passage| {
        count.fetch_add(1, Relaxed);
        let open = Open(count.clone());
        async move {
            let _open = open;
            std::future::pending().await
        }
    });
    (gating, open)
}

#[tokio::test(start_paused = true)]
async fn a_gate_that_never_answers_has_refused() {
    let world = World::new();
    let (gating, open) = silent();
    let (server, address, _) = world.server(gating).await;
    let mut events = server.events();
    let (gating, open_outside) = silent();
    let client = world.node(gating.patience(Duration::from_secs(2)));
    let start = Instant::now();
    let error = client.dial(address.clone()).await.unwrap_err();
    assert_eq!(start.elapsed(), Duration::from_secs(2));
    assert_eq!(denial(&error).reason, Refusal::NoAnswer { after: Duration::from_secs(2) });
    assert!(error.to_string().ends_with("the gate gave no answer within 2000 ms"), "{error}");

    world.node(Gating::new()).dial(address).await.unwrap_err();
    let denied = denied(&mut events).await;
    assert_eq!(denied.reason, Refusal::NoAnswer { after: GATE_PATIENCE });
    assert_eq!((open.load(Relaxed), open_outside.load(Relaxed)), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_question_is_dropped_with_the_dial_and_with_the_node() {
    let world = World::new();
    let (gating, open) = silent();
    let (server, address, _) = world.server(gating.clone()).await;
    let client = world.node(gating);
    let mut dial = Box::pin(client.dial(address.clone()));
    assert!(timeout(Duration::from_millis(1), &mut dial).await.is_err());
    assert_eq!(open.load(Relaxed), 1);
    drop(dial);
    assert_eq!(open.load(Relaxed), 0);

    let dialer = world.node(Gating::new());
    assert!(timeout(Duration::from_secs(1), dialer.dial(address)).await.is_err());
    assert_eq!(open.load(Relaxed), 1);
    server.close().await;
    // Cancelled tasks are dropped by the executor.
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(open.load(Relaxed), 0);
}

#[tokio::test(start_paused = true)]
async fn a_gate_that_hesitates_keeps_nobody_else_out() {
    let world = World::new();
    let host = world.host();
    let limits = {
        let mut limits = peerloom_node::Limits::default();
        limits.resources.transient.inbound_connections = 2;
        limits
    };
    let keypair = host.keypair();
    let friend = world.host();
    let friends_ip = friend.addresses()[0].to_string();
    // Whoever is known passes by at once; about all others the gate thinks for ever.
    let hesitating = Gating::new().with_gate(move |passage: Passage| {
        let known = passage.address().is_some_and(|address| address.to_string().contains(&friends_ip));
        async move {
            if !known {
                std::future::pending::<()>().await;
            }
            Ok(())
        }
    });
    let server = Node::builder(keypair.clone())
        .transport(host.transport(keypair))
        .gating(hesitating)
        .limits(limits)
        .build();
    let address = server.listen("/ip4/0.0.0.0/tcp/4001".parse().unwrap()).await.unwrap().remove(0);
    let strangers: Vec<_> = std::iter::repeat_with(|| world.node(Gating::new())).take(8).collect();
    let pushing: Vec<_> = strangers
        .iter()
        .map(|stranger| {
            let dial = stranger.dial(address.clone());
            peerloom_core::runtime::spawn(async move { drop(dial.await) })
        })
        .collect();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let friend = node(&friend, Gating::new());
    timeout(Duration::from_secs(10), friend.dial(address)).await.expect("the strangers made room").unwrap();
    drop(pushing);
}
