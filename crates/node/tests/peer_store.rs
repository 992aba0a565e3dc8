//! What nodes know of peers: how it comes in, who hears of it, and how it outlives them.

// Allowed in tests; clippy takes only the functions marked as such for tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use peerloom_core::{
    Keypair, Multiaddr, PeerId, ProtocolName, StreamExt as _,
    framing::MessageStream,
    runtime::{BoxFuture, sleep},
};
use peerloom_node::{
    Events, Limits, MAX_ADDRESSES_PER_PEER, Node, NodeBuilder, NodeEvent, PeerChange, PeerStorage,
    PeerStorageError, StoredPeer, WeakNode, identify,
};
use peerloom_sim::Network;

const LATENCY: Duration = Duration::from_millis(20);

fn builder(network: &Network) -> NodeBuilder {
    let keypair = Keypair::generate();
    Node::builder(keypair.clone()).transport(network.transport(keypair))
}

async fn listen(node: &Node) -> Multiaddr {
    node.listen("/memory/0".parse().unwrap()).await.unwrap().remove(0)
}

/// Storage that outlives nodes, and that can be made to fail.
#[derive(Clone, Default)]
struct Storage(Arc<Inner>);

#[derive(Default)]
struct Inner {
    peers: Mutex<BTreeMap<PeerId, Bytes>>,
    full: AtomicBool,
    unreadable: AtomicBool,
    slow: AtomicBool,
    writes: AtomicUsize,
}

impl Storage {
    fn peers(&self) -> Vec<PeerId> {
        self.0.peers.lock().unwrap().keys().copied().collect()
    }

    fn writes(&self) -> usize {
        self.0.writes.load(Relaxed)
    }
}

impl PeerStorage for Storage {
    fn load(&self, at_most: usize) -> Result<Vec<StoredPeer>, PeerStorageError> {
        if self.0.unreadable.load(Relaxed) {
            return Err(PeerStorageError::new("unreadable"));
        }
        let peers = self.0.peers.lock().unwrap();
        let peers = peers.iter().map(|(peer, record)| StoredPeer { peer: *peer, record: record.clone() });
        Ok(peers.take(at_most).collect())
    }

    fn write(&self, changes: Vec<PeerChange>) -> BoxFuture<'static, Result<(), PeerStorageError>> {
        self.0.writes.fetch_add(1, Relaxed);
        let storage = self.0.clone();
        Box::pin(async move {
            if storage.slow.load(Relaxed) {
                sleep(Duration::from_secs(3600)).await;
            }
            if storage.full.load(Relaxed) {
                return Err(PeerStorageError::new("the quota is exceeded"));
            }
            let mut peers = storage.peers.lock().unwrap();
            for change in changes {
                match change {
                    PeerChange::Put { peer, record, .. } => peers.insert(peer, record),
                    PeerChange::Remove { peer, .. } => peers.remove(&peer),
                };
            }
            Ok(())
        })
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_started_again_dials_by_the_id_alone() {
    let network = Network::new(LATENCY);
    let server = builder(&network).build();
    let address = listen(&server).await;
    let storage = Storage::default();
    let first = builder(&network).peer_storage(storage.clone()).build();
    first.dial(address.clone()).await.unwrap();
    sleep(LATENCY * 10).await;
    first.peer_store().set_metadata(server.peer_id(), "name", "the server").unwrap();
    first.close().await;

    let second = builder(&network).peer_storage(storage.clone()).build();
    let store = second.peer_store();
    assert_eq!(store.metadata(server.peer_id(), "name").unwrap(), "the server");
    let details = store.details(server.peer_id()).unwrap();
    assert!(details.protocols.contains(&ProtocolName::from_static(identify::PROTOCOL)));
    assert!(details.signed_record.is_some() && details.agent_version.is_some());
    let known = store.known_addresses(server.peer_id());
    assert!(known[0].certified && known[0].last_success.is_some());
    assert_eq!(second.dial(server.peer_id()).await.unwrap().remote_address, address.without_peer_id());
}

#[tokio::test(start_paused = true)]
async fn changes_are_written_together_a_little_later_and_without_a_goodbye() {
    let network = Network::new(LATENCY);
    let storage = Storage::default();
    let node = builder(&network).peer_storage(storage.clone()).build();
    let peers: Vec<_> = (0..300).map(|_| Keypair::generate().peer_id()).collect();
    for peer in &peers {
        node.peer_store().add_address(*peer, &"/memory/1".parse().unwrap());
    }
    sleep(Duration::from_millis(900)).await;
    assert_eq!(storage.writes(), 0);
    sleep(Duration::from_millis(200)).await;
    assert_eq!((storage.peers().len(), storage.writes()), (300, 2));
    node.peer_store().remove(peers[0]);
    sleep(Duration::from_secs(2)).await;
    assert_eq!((storage.peers().len(), storage.writes()), (299, 3));
    // Nothing happens, and nothing is written.
    sleep(Duration::from_secs(300)).await;
    assert_eq!(storage.writes(), 3);
    // The node goes without being closed.
    drop(node);
    let next = builder(&network).peer_storage(storage).build();
    assert_eq!(next.peer_store().addresses(peers[1]).len(), 1);
    assert_eq!(next.peer_store().addresses(peers[0]).len(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_is_believed_no_more_leaves_the_storage() {
    let network = Network::new(LATENCY);
    let storage = Storage::default();
    let node = builder(&network).peer_storage(storage.clone()).build();
    let peer = Keypair::generate().peer_id();
    node.peer_store().add_address(peer, &"/memory/1".parse().unwrap());
    sleep(Duration::from_secs(2)).await;
    assert_eq!(storage.peers(), [peer]);
    sleep(Duration::from_secs(31 * 24 * 3600)).await;
    assert!(storage.peers().is_empty() && node.peer_store().peers().is_empty());
}

#[tokio::test(start_paused = true)]
async fn pages_that_cannot_be_dialed_are_not_kept() {
    let network = Network::new(LATENCY);
    let storage = Storage::default();
    let server = builder(&network).peer_storage(storage.clone()).build();
    let address = listen(&server).await;
    let page = builder(&network).build();
    page.dial(address).await.unwrap();
    sleep(Duration::from_secs(5)).await;
    assert!(server.peer_store().details(page.peer_id()).is_some());
    server.close().await;
    assert!(storage.peers().is_empty());
}

#[tokio::test(start_paused = true)]
async fn storage_that_takes_nothing_hurts_nobody_and_is_asked_again() {
    let network = Network::new(LATENCY);
    let server = builder(&network).build();
    let address = listen(&server).await;
    let storage = Storage::default();
    storage.0.full.store(true, Relaxed);
    let node = builder(&network).peer_storage(storage.clone()).build();
    node.dial(address).await.unwrap();
    sleep(Duration::from_secs(3600)).await;
    assert!(storage.writes() < 20, "{} attempts", storage.writes());
    assert!(node.is_connected(server.peer_id()) && storage.peers().is_empty());
    storage.0.full.store(false, Relaxed);
    sleep(Duration::from_secs(600)).await;
    assert_eq!(storage.peers(), [server.peer_id()]);
    // Nor does one that never answers keep a node from closing.
    storage.0.slow.store(true, Relaxed);
    node.peer_store().add_address(Keypair::generate().peer_id(), &"/memory/1".parse().unwrap());
    let start = tokio::time::Instant::now();
    node.close().await;
    assert!(start.elapsed() < Duration::from_secs(10));
}

#[tokio::test(start_paused = true)]
async fn storage_that_cannot_be_read_is_left_alone() {
    let network = Network::new(LATENCY);
    let storage = Storage::default();
    storage.0.unreadable.store(true, Relaxed);
    let node = builder(&network).peer_storage(storage.clone()).build();
    node.peer_store().add_address(Keypair::generate().peer_id(), &"/memory/1".parse().unwrap());
    sleep(Duration::from_secs(60)).await;
    node.close().await;
    assert_eq!(storage.writes(), 0);
}

#[tokio::test(start_paused = true)]
async fn records_that_are_none_are_skipped_and_removed() {
    let network = Network::new(LATENCY);
    let storage = Storage::default();
    let good = Keypair::generate().peer_id();
    let first = builder(&network).peer_storage(storage.clone()).build();
    first.peer_store().add_address(good, &"/memory/1".parse().unwrap());
    first.close().await;
    let foreign = storage.0.peers.lock().unwrap()[&good].clone();
    // Somebody else's, garbage, nothing, and one of a later version.
    let later = Keypair::generate().peer_id();
    for (peer, record) in [
        (Keypair::generate().peer_id(), foreign),
        (Keypair::generate().peer_id(), Bytes::from_static(b"\xff\x00garbage")),
        (Keypair::generate().peer_id(), Bytes::new()),
        (later, Bytes::from_static(b"\x08\x09")),
    ] {
        storage.0.peers.lock().unwrap().insert(peer, record);
    }
    let second = builder(&network).peer_storage(storage.clone()).build();
    assert_eq!(second.peer_store().peers(), [good]);
    second.close().await;
    let mut left = vec![good, later];
    left.sort();
    assert_eq!(storage.peers(), left);
}

#[tokio::test(start_paused = true)]
async fn a_store_without_room_keeps_a_node_going() {
    for stored_peers in [0, 1] {
        let network = Network::new(LATENCY);
        let limits = || {
            let mut limits = Limits::default();
            limits.stored_peers = stored_peers;
            limits
        };
        let storage = Storage::default();
        let node = builder(&network).limits(limits()).peer_storage(storage.clone()).build();
        for _ in 0..3 {
            let server = builder(&network).build();
            node.dial(listen(&server).await).await.unwrap();
            sleep(Duration::from_secs(2)).await;
            assert!(node.peer_store().peers().len() <= stored_peers);
            server.close().await;
        }
        node.close().await;
        assert!(storage.peers().len() <= stored_peers);
    }
}

#[tokio::test(start_paused = true)]
async fn of_equal_addresses_the_one_that_worked_last_is_dialed_first() {
    let network = Network::new(LATENCY);
    let server = builder(&network).identify(None).build();
    let (older, newer) = (listen(&server).await, listen(&server).await);
    let client = builder(&network).identify(None).build();
    for address in [&newer, &older] {
        client.dial(address.clone()).await.unwrap();
        client.disconnect(server.peer_id()).await;
        sleep(Duration::from_secs(1)).await;
    }
    client.peer_store().add_address(server.peer_id(), &newer);
    let connection = client.dial(server.peer_id()).await.unwrap();
    assert_eq!(connection.remote_address, older.without_peer_id());
}

/// A protocol that says hello to every peer that speaks it. It knows nothing of identify, nor that of it.
fn greet(node: &Node) {
    const HELLO: ProtocolName = ProtocolName::from_static("/hello/1.0.0");
    let mut events = node.events();
    let weak: WeakNode = node.downgrade();
    node.spawn(async move {
        while let Some(event) = events.next().await {
            let speakers = match event {
                NodeEvent::PeerProtocolsChanged { peer, added, .. } if added.contains(&HELLO) => vec![peer],
                NodeEvent::Lagged { .. } => match weak.upgrade() {
                    Some(node) => node.peer_store().supporting(&HELLO),
                    None => return,
                },
                _ => continue,
            };
            for peer in speakers {
                let Some(opening) = weak.upgrade().map(|node| node.open_stream(peer, &[HELLO])) else {
                    return;
                };
                if let Ok(mut stream) = opening.await {
                    let _ = stream.write_all(Bytes::from_static(b"hello")).await;
                    let _ = stream.close_write().await;
                }
            }
        }
    });
}

/// Whom it was greeted by.
fn answer_greetings(node: &Node) -> tokio::sync::mpsc::Receiver<PeerId> {
    let (sender, greeted) = tokio::sync::mpsc::channel(64);
    let handler = move |mut incoming: peerloom_node::IncomingStream| {
        let sender = sender.clone();
        async move {
            if incoming
                .stream
                .read_chunk()
                .await
                .is_ok_and(|chunk| chunk.is_some_and(|chunk| chunk == "hello"))
            {
                let _ = sender.send(incoming.connection.peer).await;
            }
        }
    };
    node.handle(ProtocolName::from_static("/hello/1.0.0"), handler).unwrap();
    greeted
}

#[tokio::test(start_paused = true)]
async fn a_protocol_greets_every_peer_once_it_is_known_to_speak_it() {
    let network = Network::new(LATENCY);
    let greeter = builder(&network).build();
    greet(&greeter);
    let address = listen(&greeter).await;

    // One that speaks it from the beginning.
    let early = builder(&network).build();
    let mut greeted = answer_greetings(&early);
    early.dial(address.clone()).await.unwrap();
    assert_eq!(greeted.recv().await, Some(greeter.peer_id()));

    // One that learns it later, which identify pushes.
    let late = builder(&network).build();
    late.dial(address.clone()).await.unwrap();
    sleep(Duration::from_secs(1)).await;
    let mut greeted_late = answer_greetings(&late);
    assert_eq!(greeted_late.recv().await, Some(greeter.peer_id()));

    // One that comes again, of which everything is known by now.
    early.disconnect(greeter.peer_id()).await;
    sleep(Duration::from_secs(1)).await;
    early.dial(address).await.unwrap();
    assert_eq!(greeted.recv().await, Some(greeter.peer_id()));
    sleep(Duration::from_secs(10)).await;
    assert!(greeted.try_recv().is_err() && greeted_late.try_recv().is_err(), "nobody is greeted twice");
}

/// Everything there is to read, without waiting for more.
async fn drain(events: &mut Events) -> Vec<NodeEvent> {
    let mut read = Vec::new();
    while let Ok(Some(event)) = tokio::time::timeout(Duration::ZERO, events.next()).await {
        read.push(event);
    }
    read
}

#[tokio::test(start_paused = true)]
async fn a_slow_reader_of_events_is_told_that_it_lagged_and_slows_nobody() {
    let network = Network::new(LATENCY);
    let node = builder(&network).build();
    let (mut slow, mut fast) = (node.events(), node.events());
    let mut heard = 0;
    for number in 0..2000 {
        node.peer_store().update(node.peer_id(), |_| {});
        if number % 100 == 0 {
            heard += drain(&mut fast).await.len();
        }
    }
    heard += drain(&mut fast).await.len();
    assert_eq!(heard, 2000);
    let late = drain(&mut slow).await;
    assert!(matches!(late[0], NodeEvent::Lagged { missed: 976 }), "{:?}", late[0]);
    assert_eq!(late.len(), 1 + 1024);
    // And from there on it misses nothing.
    node.peer_store().update(node.peer_id(), |_| {});
    assert!(matches!(drain(&mut slow).await[..], [NodeEvent::PeerUpdated { .. }]));
}

/// The fields of an identify message.
fn field(message: &mut Vec<u8>, number: u8, value: &[u8]) {
    message.push(number << 3 | 2);
    let mut length = value.len();
    while length >= 0x80 {
        message.push(length as u8 | 0x80);
        length >>= 7;
    }
    message.push(length as u8);
    message.extend(value);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_tells_as_much_as_it_can_is_held_to_its_bounds() {
    let network = Network::new(LATENCY);
    let storage = Storage::default();
    let victim = builder(&network).peer_storage(storage.clone()).build();
    let address = listen(&victim).await;
    let hostile = builder(&network).identify(None).build();
    hostile.dial(address).await.unwrap();
    for round in 0..8_u16 {
        let push = ProtocolName::from_static(identify::PUSH_PROTOCOL);
        let stream = hostile.open_stream(victim.peer_id(), &[push]).await.unwrap();
        let mut stream = MessageStream::new(stream, identify::MAX_MESSAGE_LENGTH);
        for part in 0..identify::MAX_MESSAGES as u16 {
            let mut message = Vec::new();
            for number in 0..25_u16 {
                let number = (round << 12) + (part << 6) + number;
                field(&mut message, 3, format!("/{number}/{}", "x".repeat(240)).as_bytes());
                let address: Multiaddr = format!("/ip4/10.0.0.1/tcp/{number}").parse().unwrap();
                field(&mut message, 2, address.as_bytes());
            }
            field(&mut message, 6, &[b'a'; 1000]);
            stream.write(&message).await.unwrap();
        }
        stream.close_write().await.unwrap();
        sleep(Duration::from_secs(1)).await;
    }
    let details = victim.peer_store().details(hostile.peer_id()).unwrap();
    let names: usize = details.protocols.iter().map(|protocol| protocol.as_str().len()).sum();
    assert!(names > 0 && names <= 16 * 1024 && details.agent_version.unwrap().len() <= 128);
    let addresses = victim.peer_store().addresses(hostile.peer_id());
    assert!(!addresses.is_empty() && addresses.len() <= MAX_ADDRESSES_PER_PEER);
    victim.close().await;
    let stored = storage.0.peers.lock().unwrap()[&hostile.peer_id()].len();
    assert!(stored < 64 * 1024, "{stored} bytes");
}
