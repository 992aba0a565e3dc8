//! What nodes on the simulated internet learn of their own addresses, and what they tell.

// Allowed in tests; clippy takes only the functions marked as such for tests.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::time::Duration;

use bytes::Bytes;
use peerloom_core::{Multiaddr, PeerRecord, StreamExt as _};
use peerloom_node::{
    AddressSource, Events, Node, NodeEvent, Reachability, addresses::OBSERVATION_TTL, identify,
};
use peerloom_sim::{Host, HostConfig, Internet, Nat};
use tokio::time::{sleep, timeout};

const QUIC: &str = "/ip4/0.0.0.0/udp/4001/quic-v1";
/// More than any exchange takes.
const A_WHILE: Duration = Duration::from_secs(5);

fn node(host: &Host) -> Node {
    let keypair = host.keypair();
    Node::builder(keypair.clone()).transport(host.transport(keypair)).build()
}

async fn listening(host: &Host) -> Node {
    let node = node(host);
    node.listen(QUIC.parse().unwrap()).await.unwrap();
    node
}

/// Servers in networks of their own.
async fn servers(internet: &Internet, count: u8) -> Vec<Node> {
    let mut servers = Vec::new();
    for network in 0..count {
        servers.push(listening(&internet.host(HostConfig::new().address([30, 0, network, 1]))).await);
    }
    servers
}

async fn dial_all(node: &Node, servers: &[Node]) {
    for server in servers {
        node.dial(server.listen_addresses().remove(0)).await.unwrap();
    }
    sleep(A_WHILE).await;
}

fn parse(address: &str) -> Multiaddr {
    address.parse().unwrap()
}

async fn next_addresses(events: &mut Events) -> Vec<Multiaddr> {
    let next = async {
        loop {
            if let Some(NodeEvent::ListenAddressesChanged { addresses }) = events.next().await {
                return addresses;
            }
        }
    };
    timeout(Duration::from_secs(3600), next).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_node_behind_a_nat_learns_its_address_of_four_and_tells_it_to_all() {
    let internet = Internet::new(7);
    let servers = servers(&internet, 5).await;
    let host = internet.host(HostConfig::new().behind(Nat::FullCone));
    let client = listening(&host).await;
    let inside = client.listen_addresses()[0].without_peer_id();
    dial_all(&client, &servers[..3]).await;
    assert_eq!(client.listen_addresses().len(), 1, "three are not enough");
    assert_eq!(servers[0].peer_store().addresses(client.peer_id()), [], "what is private is not told");

    let mut events = client.events();
    client.dial(servers[3].listen_addresses().remove(0)).await.unwrap();
    let told = next_addresses(&mut events).await;
    assert_eq!(told.len(), 2);
    assert_eq!(told[1], inside);
    let outside = told[0].clone();
    assert!(outside.to_string().starts_with(&format!("/ip4/{}/udp/", host.public_address())), "{outside}");
    let known = client.own_addresses();
    assert_eq!(known[0].source, AddressSource::Observed { observers: 4 });
    assert_eq!(known[0].reachability, Reachability::Unknown);
    // Identify has pushed it, and it is true.
    sleep(A_WHILE).await;
    assert_eq!(servers[0].peer_store().addresses(client.peer_id()), std::slice::from_ref(&outside));
    servers[4].dial(outside.with_peer_id(client.peer_id())).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_was_observed_is_forgotten_some_time_after_the_connections() {
    let internet = Internet::new(7);
    let servers = servers(&internet, 4).await;
    let client = listening(&internet.host(HostConfig::new().behind(Nat::FullCone))).await;
    dial_all(&client, &servers).await;
    assert_eq!(client.listen_addresses().len(), 2);
    let tasks = client.running_tasks();
    for server in &servers {
        server.disconnect(client.peer_id()).await;
    }
    sleep(OBSERVATION_TTL - A_WHILE).await;
    assert_eq!(client.listen_addresses().len(), 2);
    let mut events = client.events();
    assert_eq!(next_addresses(&mut events).await.len(), 1);
    sleep(A_WHILE).await;
    assert_eq!(client.own_addresses().len(), 1);
    sleep(OBSERVATION_TTL).await;
    assert!(client.running_tasks() < tasks);
}

/// The message of identify that tells nothing but the receiver's address, with its length before it.
fn claim(address: &Multiaddr) -> Bytes {
    let length = |length: usize| u8::try_from(length).unwrap();
    let address = address.as_bytes();
    // observedAddr = 4
    let message = [&[length(address.len() + 2), 0x22, length(address.len())], address].concat();
    message.into()
}

#[tokio::test(start_paused = true)]
async fn a_liar_with_many_names_is_one_observer() {
    let internet = Internet::new(7);
    let victim = listening(&internet.host(HostConfig::new())).await;
    let truth = victim.listen_addresses();
    let lie = parse("/ip4/40.0.0.1/udp/4001/quic-v1");
    let mut liars = Vec::new();
    for number in 0..100 {
        // All of them in one network.
        let host = internet.host(HostConfig::new().address([50, 0, 0, number]));
        let keypair = host.keypair();
        let liar = Node::builder(keypair.clone()).transport(host.transport(keypair)).identify(None).build();
        let claim = claim(&lie);
        liar.handle(identify::PROTOCOL.parse().unwrap(), move |mut incoming| {
            let claim = claim.clone();
            async move {
                let _ = incoming.stream.write_all(claim).await;
                let _ = incoming.stream.close_write().await;
                while let Ok(Some(_)) = incoming.stream.read_chunk().await {}
            }
        })
        .unwrap();
        liar.dial(truth[0].clone()).await.unwrap();
        liars.push(liar);
    }
    sleep(A_WHILE).await;
    let heard = victim.peer_store().details(liars[0].peer_id()).unwrap();
    assert_eq!(heard.observed_address, Some(lie.clone()));
    assert_eq!(victim.own_addresses().len(), 1, "not even worth a test");
    assert_eq!(victim.listen_addresses(), truth);

    // With an accomplice in another network it is tested, but not told.
    let host = internet.host(HostConfig::new().address([50, 0, 1, 1]));
    let keypair = host.keypair();
    let accomplice = Node::builder(keypair.clone()).transport(host.transport(keypair)).identify(None).build();
    accomplice
        .handle(identify::PROTOCOL.parse().unwrap(), move |mut incoming| {
            let claim = claim(&lie);
            async move {
                let _ = incoming.stream.write_all(claim).await;
                let _ = incoming.stream.close_write().await;
                while let Ok(Some(_)) = incoming.stream.read_chunk().await {}
            }
        })
        .unwrap();
    accomplice.dial(truth[0].clone()).await.unwrap();
    sleep(A_WHILE).await;
    assert_eq!(victim.own_addresses().len(), 2);
    assert_eq!(victim.listen_addresses(), truth);
}

#[tokio::test(start_paused = true)]
async fn symmetric_nats_and_tcp_from_other_ports_make_no_addresses() {
    let internet = Internet::new(7);
    let servers = servers(&internet, 6).await;
    let client = listening(&internet.host(HostConfig::new().behind(Nat::Symmetric))).await;
    dial_all(&client, &servers).await;
    assert_eq!(client.own_addresses().len(), 1, "every server sees another port");
    // A node that listens nowhere has no address, whatever others see.
    let silent = node(&internet.host(HostConfig::new().behind(Nat::FullCone)));
    dial_all(&silent, &servers).await;
    assert_eq!(silent.own_addresses(), []);
}

#[tokio::test(start_paused = true)]
async fn what_the_application_says_is_told_and_what_was_found_unreachable_is_not() {
    let internet = Internet::new(7);
    let server = listening(&internet.host(HostConfig::new())).await;
    let client = node(&internet.host(HostConfig::new()));
    let own = server.listen_addresses()[0].without_peer_id();
    let name = parse("/dns4/example.org/udp/4001/quic-v1");
    server.add_external_address(&name.with_peer_id(server.peer_id()));
    client.dial(server.listen_addresses().remove(0)).await.unwrap();
    sleep(A_WHILE).await;
    let known = |node: &Node| {
        let mut known = node.peer_store().addresses(server.peer_id());
        known.sort();
        known
    };
    assert_eq!(known(&client), [own.clone(), name.clone()]);

    let mut events = server.events();
    server.set_reachability(&own, Reachability::Unreachable);
    let first = events.next().await.unwrap();
    assert!(matches!(first, NodeEvent::ReachabilityChanged { reachability: Reachability::Unreachable, .. }));
    assert_eq!(next_addresses(&mut events).await, std::slice::from_ref(&name));
    server.set_reachability(&name, Reachability::Unreachable);
    sleep(A_WHILE).await;
    assert_eq!(server.listen_addresses(), [name.with_peer_id(server.peer_id())]);
    let late = node(&internet.host(HostConfig::new()));
    late.dial(own.with_peer_id(server.peer_id())).await.unwrap();
    sleep(A_WHILE).await;
    let record = late.peer_store().details(server.peer_id()).unwrap().signed_record.unwrap();
    assert_eq!(PeerRecord::open(&record).await.unwrap().addresses, [name]);
}
