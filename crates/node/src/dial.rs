//! From an address or a peer id to a connection: which addresses, in which order, how many at once.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use futures_util::{
    FutureExt, StreamExt,
    future::{Shared as SharedFuture, WeakShared},
    stream::FuturesUnordered,
};
use peerloom_core::{
    Connection, DialError, Multiaddr, PeerId, Protocol,
    runtime::{BoxFuture, sleep, timeout},
};

use crate::{
    connections::{ConnectionInfo, Direction},
    event::NodeEvent,
    node::Shared,
};

/// What to connect to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum DialTarget {
    /// One address; a final `/p2p/…` says who must answer there.
    Address(Multiaddr),
    /// A peer, at the addresses that the [`PeerStore`](crate::PeerStore) knows.
    Peer(PeerId),
}

impl From<Multiaddr> for DialTarget {
    fn from(address: Multiaddr) -> Self {
        Self::Address(address)
    }
}

impl From<PeerId> for DialTarget {
    fn from(peer: PeerId) -> Self {
        Self::Peer(peer)
    }
}

/// Why a dial brought no connection.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// No address of the peer is known.
    #[error("no address of {peer} is known")]
    NoAddresses {
        /// The peer.
        peer: PeerId,
    },
    /// None of the node's transports can dial the address.
    #[error("no transport can dial {address}")]
    NoTransport {
        /// The address.
        address: Multiaddr,
    },
    /// The target is this node itself.
    #[error("the target is this node itself")]
    SelfDial,
    /// There was no connection within [`Limits::dial_timeout`](crate::Limits::dial_timeout).
    #[error("{address} did not become a connection within {} s", .after.as_secs())]
    TimedOut {
        /// The address.
        address: Multiaddr,
        /// The limit.
        after: Duration,
    },
    /// The transport failed.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// Every address of the peer failed.
    #[error("{peer} cannot be reached: {}", Attempts(.attempts))]
    AllFailed {
        /// The peer.
        peer: PeerId,
        /// What became of each address, in the order in which they failed.
        attempts: Vec<ConnectError>,
    },
    /// The limit on connections is reached.
    #[error("too many connections to take one to {peer}")]
    TooManyConnections {
        /// The peer.
        peer: PeerId,
    },
    /// The node is closed.
    #[error("the node is closed")]
    NodeClosed,
}

struct Attempts<'a>(&'a [ConnectError]);

impl std::fmt::Display for Attempts<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (at, attempt) in self.0.iter().enumerate() {
            if at > 0 {
                f.write_str("; ")?;
            }
            attempt.fmt(f)?;
        }
        Ok(())
    }
}

type DialResult = Result<ConnectionInfo, Arc<ConnectError>>;

/// The dials under way. Their callers own them; this map only lets a second caller find the first one's.
#[derive(Default)]
pub(crate) struct Dials(HashMap<DialTarget, WeakShared<BoxFuture<'static, DialResult>>>);

impl Dials {
    fn join_or_start(
        &mut self,
        target: DialTarget,
        start: impl FnOnce() -> BoxFuture<'static, DialResult>,
    ) -> SharedFuture<BoxFuture<'static, DialResult>> {
        if let Some(under_way) = self.0.get(&target).and_then(WeakShared::upgrade)
            && under_way.peek().is_none()
        {
            return under_way;
        }
        self.0.retain(|_, dial| dial.upgrade().is_some());
        let dial = start().shared();
        if let Some(weak) = dial.downgrade() {
            self.0.insert(target, weak);
        }
        dial
    }
}

impl Shared {
    pub(crate) async fn dial(self: &Arc<Self>, target: DialTarget) -> DialResult {
        if let Some(connection) = self.existing(&target) {
            return Ok(connection);
        }
        let dial = self.dials.lock().join_or_start(target.clone(), || {
            let shared = self.clone();
            Box::pin(async move {
                let peer = target.peer();
                shared.connect(target).await.map_err(|error| {
                    let error = Arc::new(error);
                    shared.events.emit(NodeEvent::DialFailed { peer, error: error.clone() });
                    error
                })
            })
        });
        dial.await
    }

    fn existing(&self, target: &DialTarget) -> Option<ConnectionInfo> {
        let connections = self.connections.lock();
        match target {
            DialTarget::Peer(peer) => connections.best(*peer).map(|(info, _)| info),
            DialTarget::Address(address) => connections.dialed(&address.without_peer_id(), address.peer_id()),
        }
    }

    async fn connect(self: &Arc<Self>, target: DialTarget) -> Result<ConnectionInfo, ConnectError> {
        if target.peer() == Some(self.peer_id()) {
            return Err(ConnectError::SelfDial);
        }
        let connection = match target {
            DialTarget::Address(address) => self.attempt(address).await?,
            DialTarget::Peer(peer) => self.race(peer).await?,
        };
        let info = self.adopt(connection, Direction::Outbound)?;
        self.peer_store.add_address(info.peer, &info.remote_address);
        Ok(info)
    }

    /// Tries the peer's addresses, best first, each a little after the one before or as soon as that has failed. The first
    /// connection wins and the rest are cancelled (RFC 8305 in spirit).
    async fn race(&self, peer: PeerId) -> Result<Box<dyn Connection>, ConnectError> {
        let mut addresses = self.peer_store.addresses(peer);
        addresses.retain(|address| self.transport(|transport| transport.can_dial(address)).is_some());
        let mut waiting = best_first(addresses);
        waiting.extend(best_first(self.routes(peer, &waiting)));
        waiting.truncate(self.limits.addresses_per_dial);
        let mut running = FuturesUnordered::new();
        let mut attempts = Vec::new();
        loop {
            let mut delay = ATTEMPT_DELAY;
            if let Some(address) = waiting.pop_front() {
                if is_page_to_page(&address) {
                    delay = PAGE_TO_PAGE_DELAY;
                }
                running.push(self.attempt(address.with_peer_id(peer)));
            }
            if running.is_empty() {
                return Err(match attempts.is_empty() {
                    true => ConnectError::NoAddresses { peer },
                    false => ConnectError::AllFailed { peer, attempts },
                });
            }
            tokio::select! {
                Some(outcome) = running.next() => match outcome {
                    Ok(connection) => return Ok(connection),
                    Err(error) => attempts.push(error),
                },
                () = sleep(delay), if !waiting.is_empty() => {}
            }
        }
    }

    /// Ways to `peer` that are not among `known`.
    fn routes(&self, peer: PeerId, known: &VecDeque<Multiaddr>) -> Vec<Multiaddr> {
        let transports = self.transports.read().clone();
        let routes = transports.iter().flat_map(|transport| transport.routes(peer));
        let dialable = |route: &Multiaddr| self.transport(|transport| transport.can_dial(route)).is_some();
        let routes = routes.filter(dialable).map(|route| route.without_peer_id());
        routes.filter(|route| !known.contains(route)).take(self.limits.addresses_per_dial).collect()
    }

    async fn attempt(&self, address: Multiaddr) -> Result<Box<dyn Connection>, ConnectError> {
        let Some(transport) = self.transport(|transport| transport.can_dial(&address)) else {
            return Err(ConnectError::NoTransport { address });
        };
        // What a transport dials on its way through a relay has a slot of its own; to wait for one holding one is a deadlock.
        let _slot = match address.is_relayed() {
            true => None,
            false => self.dial_slots.acquire().await.ok(),
        };
        match timeout(self.limits.dial_timeout, transport.dial(address.clone())).await {
            Ok(outcome) => Ok(outcome?),
            Err(_) => Err(ConnectError::TimedOut { address, after: self.limits.dial_timeout }),
        }
    }
}

impl DialTarget {
    fn peer(&self) -> Option<PeerId> {
        match self {
            Self::Address(address) => address.peer_id(),
            Self::Peer(peer) => Some(*peer),
        }
    }
}

/// How long an address has before the next one is tried beside it (RFC 8305, "Connection Attempt Delay").
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// The same after an address that takes several round trips over a relay before it can answer at all.
const PAGE_TO_PAGE_DELAY: Duration = Duration::from_secs(5);

/// In the order in which to try them. They are few, and a general sort is many times the code.
fn best_first(addresses: Vec<Multiaddr>) -> VecDeque<Multiaddr> {
    let mut sorted: VecDeque<Multiaddr> = VecDeque::with_capacity(addresses.len());
    for address in addresses {
        let at = sorted.partition_point(|better| rank(better) <= rank(&address));
        sorted.insert(at, address);
    }
    sorted
}

/// Whether the relay in the address only introduces the two peers to each other.
fn is_page_to_page(address: &Multiaddr) -> bool {
    address.protocols().any(|protocol| protocol == Protocol::WebRtc)
}

/// Lower is tried first: fewer round trips before streams, UDP before TCP, IPv6 before IPv4; then direct connections that a
/// relay arranges, and relays last.
fn rank(address: &Multiaddr) -> (u8, u8, bool) {
    let mut relayed = 0;
    let mut ip4 = false;
    let mut transport = 5;
    for protocol in address.protocols() {
        match protocol {
            Protocol::P2pCircuit => relayed = 2,
            Protocol::WebRtc => relayed = 1,
            Protocol::Ip4(_) | Protocol::Dns4(_) => ip4 = true,
            Protocol::QuicV1 => transport = 0,
            Protocol::WebTransport => transport = 1,
            Protocol::Tcp(_) => transport = transport.min(2),
            Protocol::Ws | Protocol::Wss => transport = 3,
            Protocol::WebRtcDirect => transport = 4,
            _ => {}
        }
    }
    (relayed, transport, ip4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_addresses_that_need_fewest_round_trips_are_tried_first() {
        let expected = [
            "/ip6/::1/udp/1/quic-v1",
            "/ip4/1.2.3.4/udp/1/quic-v1",
            "/ip4/1.2.3.4/udp/1/quic-v1/webtransport",
            "/ip6/::1/tcp/1",
            "/ip4/1.2.3.4/tcp/1",
            "/ip4/1.2.3.4/tcp/1/ws",
            "/ip4/1.2.3.4/udp/1/webrtc-direct",
            "/ip4/1.2.3.4/tcp/1/ws/p2p-circuit/webrtc",
            "/ip4/1.2.3.4/udp/1/quic-v1/p2p-circuit",
        ]
        .map(|address| address.parse::<Multiaddr>().unwrap());
        let mut worst_first = Vec::from(expected.clone());
        worst_first.reverse();
        assert_eq!(best_first(worst_first), expected);
    }
}
