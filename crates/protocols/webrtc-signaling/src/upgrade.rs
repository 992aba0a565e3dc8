//! Relayed connections that this node has dialed become direct ones without being asked to.

use std::{collections::HashMap, sync::Arc, time::Duration};

use futures_util::{StreamExt, stream::FuturesUnordered};
use peerloom_core::{
    Multiaddr, PeerId, Protocol, ProtocolName,
    runtime::{BoxFuture, Instant, sleep_until},
};
use peerloom_node::{ConnectionId, ConnectionInfo, Direction, Events, ExpectDirect, Node, NodeEvent};

use crate::{PROTOCOL, Shared};

/// Peers whose relayed connection may be upgraded; those of others stay as they are.
const MAX_PEERS: usize = 256;
/// Upgrades at one time.
const MAX_DIALS: usize = 8;
/// Pauses after an attempt. After the last one nothing more is tried on that relayed connection.
const BACK_OFF: [Duration; 2] = [Duration::from_secs(10), Duration::from_secs(60)];

/// How long streams wait for identify to tell whether there can be a direct connection.
const IDENTIFY_TIMEOUT: Duration = Duration::from_secs(10);

/// A relayed connection that is to be upgraded.
struct Relayed {
    id: ConnectionId,
    /// Where the peer is to be dialed.
    address: Multiaddr,
    /// Whether identify has told that it speaks the protocol.
    supported: bool,
    dialing: bool,
    attempts: usize,
    not_before: Instant,
    /// Streams wait until the first attempt is over, or it is known that there will be none.
    expected: Option<ExpectDirect>,
    expected_until: Instant,
}

#[derive(Default)]
struct Upgrades(HashMap<PeerId, Relayed>);

/// Runs until the node is closed.
pub(crate) async fn upgrade_relayed(shared: Arc<Shared>, mut events: Events) {
    let mut upgrades = Upgrades::default();
    let mut dials: FuturesUnordered<BoxFuture<'static, PeerId>> = FuturesUnordered::new();
    loop {
        let due = if dials.len() < MAX_DIALS { upgrades.next_due() } else { None };
        let expiry = upgrades.next_expiry();
        tokio::select! {
            event = events.next() => match (event, shared.node.upgrade()) {
                (Some(event), Some(node)) => upgrades.note(&node, event),
                _ => return,
            },
            Some(peer) = dials.next() => {
                if let Some(relayed) = upgrades.0.get_mut(&peer) {
                    relayed.dialing = false;
                    relayed.expected = None;
                }
            }
            peer = wait(expiry) => {
                if let Some(relayed) = upgrades.0.get_mut(&peer) {
                    relayed.expected = None;
                }
            }
            peer = wait(due) => {
                if let Some(node) = shared.node.upgrade()
                    && let Some(address) = upgrades.begin(peer, Instant::now())
                    && !shared.sessions.lock().contains(peer)
                {
                    let dial = node.dial_for_streams(address);
                    dials.push(Box::pin(async move {
                        // The node tells of failures.
                        let _ = dial.await;
                        peer
                    }));
                } else if let Some(relayed) = upgrades.0.get_mut(&peer) {
                    relayed.dialing = false;
                }
            }
        }
    }
}

async fn wait(due: Option<(Instant, PeerId)>) -> PeerId {
    match due {
        Some((time, peer)) => {
            sleep_until(time).await;
            peer
        }
        None => std::future::pending().await,
    }
}

impl Upgrades {
    fn note(&mut self, node: &Node, event: NodeEvent) {
        match event {
            NodeEvent::ConnectionEstablished { connection, .. } => self.established(node, connection),
            NodeEvent::ConnectionClosed { connection, .. } => {
                self.0.retain(|_, relayed| relayed.id != connection.id);
            }
            NodeEvent::PeerUpdated { peer } => {
                if let Some(relayed) = self.0.get_mut(&peer) {
                    relayed.supported = is_supported(node, peer);
                    if !relayed.supported {
                        relayed.expected = None;
                    }
                }
            }
            NodeEvent::Lagged { .. } => {
                let connections = node.connections();
                self.0.retain(|_, relayed| connections.iter().any(|connection| connection.id == relayed.id));
                let (direct, relayed): (Vec<_>, Vec<_>) =
                    connections.into_iter().partition(ConnectionInfo::is_direct);
                for connection in relayed.into_iter().chain(direct) {
                    self.established(node, connection);
                }
            }
            _ => {}
        }
    }

    fn established(&mut self, node: &Node, connection: ConnectionInfo) {
        let peer = connection.peer;
        if connection.is_direct() {
            self.0.remove(&peer);
        } else if connection.direction == Direction::Outbound
            && connection.remote_address.protocols().last() == Some(Protocol::P2pCircuit)
            && !self.0.contains_key(&peer)
            && self.0.len() < MAX_PEERS
        {
            let relayed = Relayed {
                id: connection.id,
                address: connection.remote_address.with(Protocol::WebRtc).with_peer_id(peer),
                supported: is_supported(node, peer),
                dialing: false,
                attempts: 0,
                not_before: connection.established,
                expected: Some(node.expect_direct(peer)),
                expected_until: connection.established + IDENTIFY_TIMEOUT,
            };
            self.0.insert(peer, relayed);
        }
    }

    fn next_due(&self) -> Option<(Instant, PeerId)> {
        let waiting = self.0.iter().filter(|(_, relayed)| relayed.supported && !relayed.dialing);
        waiting.map(|(peer, relayed)| (relayed.not_before, *peer)).min()
    }

    fn next_expiry(&self) -> Option<(Instant, PeerId)> {
        let waiting = self.0.iter().filter(|(_, relayed)| relayed.expected.is_some() && !relayed.dialing);
        waiting.map(|(peer, relayed)| (relayed.expected_until, *peer)).min()
    }

    /// Where to dial now.
    fn begin(&mut self, peer: PeerId, now: Instant) -> Option<Multiaddr> {
        let relayed = self.0.get_mut(&peer)?;
        let address = relayed.address.clone();
        match BACK_OFF.get(relayed.attempts) {
            Some(pause) => {
                relayed.attempts = relayed.attempts.saturating_add(1);
                relayed.not_before = now + *pause;
                relayed.dialing = true;
            }
            None => _ = self.0.remove(&peer),
        }
        Some(address)
    }
}

fn is_supported(node: &Node, peer: PeerId) -> bool {
    node.peer_store().supports(peer, &ProtocolName::from_static(PROTOCOL))
}
