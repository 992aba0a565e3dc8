//! Nodes on a network in memory and simulated time, one of them a relay.

// Each test binary uses its part of it.
#![allow(dead_code, unreachable_pub)]

use std::{cell::RefCell, collections::HashMap, time::Duration};

use peerloom_core::{Keypair, Multiaddr, ProtocolName, StreamExt, multistream_select::NegotiatedStream};
use peerloom_node::{Events, Limits, Node, NodeEvent};
use peerloom_relay::{ClientConfig, RelayClient, RelayConfig, RelayLimits, RelayServer, serve};
use peerloom_sim::Network;

pub const LATENCY: Duration = Duration::from_millis(20);
pub const ECHO: ProtocolName = ProtocolName::from_static("/echo/1.0.0");

pub struct World {
    pub network: Network,
    kept: RefCell<Vec<Node>>,
}

pub struct Relay {
    pub node: Node,
    pub server: RelayServer,
    pub address: Multiaddr,
}

impl World {
    pub fn new() -> Self {
        Self { network: Network::new(LATENCY), kept: RefCell::default() }
    }

    /// Lets a node live as long as the world.
    pub fn keep(&self, node: Node) {
        self.kept.borrow_mut().push(node);
    }

    pub fn node(&self) -> Node {
        self.node_with(Keypair::generate())
    }

    pub fn node_with(&self, keypair: Keypair) -> Node {
        let mut limits = Limits::default();
        // Many clients of one relay in one process.
        limits.resources.transient.inbound_connections = 2048;
        Node::builder(keypair.clone()).transport(self.network.transport(keypair)).limits(limits).build()
    }

    pub async fn relay(&self, limits: RelayLimits) -> Relay {
        self.relay_with(Keypair::generate(), "/memory/0", RelayConfig::new(limits)).await
    }

    pub async fn relay_with(&self, keypair: Keypair, listen: &str, config: RelayConfig) -> Relay {
        let node = self.node_with(keypair);
        let server = serve(&node, config).unwrap();
        let address = node.listen(listen.parse().unwrap()).await.unwrap().remove(0);
        Relay { node, server, address }
    }

    pub fn client(&self) -> (Node, RelayClient) {
        let node = self.node();
        let client = RelayClient::start(&node, ClientConfig::default()).unwrap();
        (node, client)
    }

    /// A client that echoes on limited connections too, and its address through the relay.
    pub async fn reachable(&self, relay: &Relay) -> (Node, Multiaddr) {
        let (node, _) = self.client();
        node.handle_on_limited(ECHO, |incoming| echo(incoming.stream)).unwrap();
        let address = listen_at(&node, relay).await;
        (node, address)
    }
}

impl Relay {
    /// What a client listens on to be reached through this relay.
    pub fn circuit(&self) -> Multiaddr {
        format!("{}/p2p-circuit", self.address).parse().unwrap()
    }
}

pub fn unlimited() -> RelayLimits {
    let mut limits = RelayLimits::default();
    limits.circuit_bytes = None;
    limits.circuit_duration = None;
    limits
}

pub async fn listen_at(node: &Node, relay: &Relay) -> Multiaddr {
    node.listen(relay.circuit()).await.unwrap().remove(0)
}

pub async fn echo(mut stream: NegotiatedStream) {
    while let Ok(Some(chunk)) = stream.read_chunk().await {
        if stream.write_all(chunk).await.is_err() {
            return;
        }
    }
    let _ = stream.close_write().await;
}

/// What comes back, up to the end.
pub async fn echoed(stream: &mut NegotiatedStream, bytes: &'static [u8]) -> Vec<u8> {
    stream.write_all(bytes.into()).await.unwrap();
    stream.close_write().await.unwrap();
    let mut all = Vec::new();
    while let Some(chunk) = stream.read_chunk().await.unwrap() {
        all.extend_from_slice(&chunk);
    }
    all
}

pub async fn until<T>(events: &mut Events, mut wanted: impl FnMut(&NodeEvent) -> Option<T>) -> T {
    let search = async {
        loop {
            let event = events.next().await.expect("the node is closed");
            if let Some(found) = wanted(&event) {
                return found;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(100_000), search).await.expect("the event never came")
}

/// Waits until `holds`, as long as simulated time can pass.
pub async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..10_000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("never: {what}");
}

/// How often each of the values comes.
pub fn tally<T: std::hash::Hash + Eq>(values: impl IntoIterator<Item = T>) -> HashMap<T, usize> {
    let mut counts = HashMap::new();
    for value in values {
        *counts.entry(value).or_insert(0) += 1;
    }
    counts
}
