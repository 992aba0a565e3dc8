//! From an address or a peer id to a connection: which addresses, in which order, how many at once.

mod history;
mod race;
mod ranking;

use std::{collections::HashMap, fmt, pin::pin, sync::Arc, time::Duration};

use futures_util::{
    FutureExt, StreamExt,
    future::{Shared as SharedFuture, WeakShared},
    stream::FuturesUnordered,
};
use peerloom_core::{
    Connection, DialError, HandshakeError, Multiaddr, PeerId,
    runtime::{BoxFuture, Instant, sleep_until, timeout},
};

use self::{
    history::{History, Outcome},
    race::{ATTEMPT_DELAY, Attempt, Race},
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
    /// One peer at whichever of these addresses. Those that end in `/p2p/…` must name the same one.
    Addresses(Vec<Multiaddr>),
    /// A peer, at the addresses that the [`PeerStore`](crate::PeerStore) knows.
    Peer(PeerId),
}

impl From<Multiaddr> for DialTarget {
    fn from(address: Multiaddr) -> Self {
        Self::Address(address)
    }
}

impl From<Vec<Multiaddr>> for DialTarget {
    fn from(addresses: Vec<Multiaddr>) -> Self {
        Self::Addresses(addresses)
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
    /// The list of addresses to dial is empty.
    #[error("no address to dial was given")]
    NoAddressGiven,
    /// The addresses to dial are not those of one peer.
    #[error("the addresses to dial are of {first} and of {second}")]
    SeveralPeers {
        /// A peer that an address names.
        first: PeerId,
        /// What another one names.
        second: PeerId,
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
    /// Every address failed.
    #[error("{} cannot be reached: {}", Whom(.peer), Attempts(.attempts))]
    AllFailed {
        /// The peer, if it is known whose addresses they are.
        peer: Option<PeerId>,
        /// What became of each address: those that no transport can dial, then the others in the order in which they failed.
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

struct Whom<'a>(&'a Option<PeerId>);

impl fmt::Display for Whom<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(peer) => peer.fmt(f),
            None => f.write_str("the peer"),
        }
    }
}

struct Attempts<'a>(&'a [ConnectError]);

impl fmt::Display for Attempts<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
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

#[derive(Default)]
pub(crate) struct Dials {
    /// Their callers own them; this map only lets a second caller find the first one's.
    under_way: HashMap<DialTarget, WeakShared<BoxFuture<'static, DialResult>>>,
    history: History,
}

impl Dials {
    fn join_or_start(
        &mut self,
        target: DialTarget,
        start: impl FnOnce() -> BoxFuture<'static, DialResult>,
    ) -> SharedFuture<BoxFuture<'static, DialResult>> {
        if let Some(under_way) = self.under_way.get(&target).and_then(WeakShared::upgrade)
            && under_way.peek().is_none()
        {
            return under_way;
        }
        self.under_way.retain(|_, dial| dial.upgrade().is_some());
        let dial = start().shared();
        if let Some(weak) = dial.downgrade() {
            self.under_way.insert(target, weak);
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
        let dialed = |address: &Multiaddr| connections.dialed(&address.without_peer_id(), address.peer_id());
        match target {
            DialTarget::Peer(peer) => connections.best(*peer).map(|(info, _)| info),
            DialTarget::Address(address) => dialed(address),
            DialTarget::Addresses(addresses) => addresses.iter().find_map(dialed),
        }
    }

    async fn connect(self: &Arc<Self>, target: DialTarget) -> Result<ConnectionInfo, ConnectError> {
        if target.peer() == Some(self.peer_id()) {
            return Err(ConnectError::SelfDial);
        }
        let connection = match target {
            DialTarget::Address(address) => self.attempt(address).await?,
            DialTarget::Addresses(addresses) => {
                let peer = peer_of(&addresses)?;
                self.race(Competitors::Given { peer, addresses }).await?
            }
            DialTarget::Peer(peer) => self.race(Competitors::Known(peer)).await?,
        };
        let info = self.adopt(connection, Direction::Outbound, None)?;
        self.peer_store.add_address(info.peer, &info.remote_address);
        Ok(info)
    }

    /// Dials addresses as a [`Race`] has them follow. The first connection wins; the rest are cancelled.
    async fn race(&self, competitors: Competitors) -> Result<Box<dyn Connection>, ConnectError> {
        let peer = competitors.peer();
        let mut race = Race::new(self.limits.addresses_per_dial);
        let mut failures = Vec::new();
        let mut running = FuturesUnordered::new();
        let mut started: Vec<(Attempt, Instant)> = Vec::new();
        loop {
            // Asked for before the addresses are read, so that none comes in between.
            let mut news = pin!(self.peer_store.new_addresses());
            news.as_mut().enable();
            self.enter(&competitors, &mut race, &mut failures);
            while let Some(attempt) = race.start(Instant::now()) {
                let address = match peer {
                    Some(peer) => attempt.address.with_peer_id(peer),
                    None => attempt.address.clone(),
                };
                started.push((attempt.clone(), Instant::now()));
                running.push(async { (attempt, self.attempt(address).await) });
            }
            if race.running() == 0 {
                return Err(match (failures.is_empty(), peer) {
                    (false, peer) => ConnectError::AllFailed { peer, attempts: failures },
                    (true, Some(peer)) => ConnectError::NoAddresses { peer },
                    (true, None) => ConnectError::NoAddressGiven,
                });
            }
            let deadline = race.deadline();
            tokio::select! {
                biased;
                Some((attempt, outcome)) = running.next() => match outcome {
                    Ok(connection) => {
                        self.note_losers(&attempt, &started);
                        return Ok(connection);
                    }
                    Err(error) => {
                        started.retain(|(other, _)| *other != attempt);
                        race.failed(&attempt);
                        self.forget_if_of_another(peer, &attempt, &error);
                        failures.push(error);
                    }
                },
                () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => {}
                () = news => {}
            }
        }
    }

    /// Enters into the race what is known by now and can be dialed from here; what cannot is a failure at once.
    fn enter(&self, competitors: &Competitors, race: &mut Race, failures: &mut Vec<ConnectError>) {
        let addresses = match competitors {
            Competitors::Known(peer) => {
                let mut addresses = self.peer_store.addresses(*peer);
                addresses.extend(self.routes(*peer));
                addresses
            }
            Competitors::Given { addresses, .. } => addresses.clone(),
        };
        let now = Instant::now();
        for address in addresses {
            if race.knows(&address) {
                continue;
            }
            if self.transport(|transport| transport.can_dial(&address)).is_some() {
                let doubtful = self.dials.lock().history.is_doubtful(&address.without_peer_id(), now);
                race.add(address, doubtful);
            } else if failures.len() < self.limits.addresses_per_dial && !names(failures, &address) {
                failures.push(ConnectError::NoTransport { address });
            }
        }
    }

    /// Ways to `peer` that transports offer without an address.
    fn routes(&self, peer: PeerId) -> Vec<Multiaddr> {
        let transports = self.transports.read().clone();
        let routes = transports.iter().flat_map(|transport| transport.routes(peer));
        routes.take(self.limits.addresses_per_dial).map(|route| route.without_peer_id()).collect()
    }

    /// Cancelled attempts that had said nothing for clearly longer than the winner needed would not have said anything.
    /// Without that a network that swallows UDP is never found out, as TCP wins before any time-out.
    fn note_losers(&self, winner: &Attempt, started: &[(Attempt, Instant)]) {
        let now = Instant::now();
        let Some((_, start)) = started.iter().find(|(attempt, _)| attempt == winner) else { return };
        if winner.address.is_relayed() {
            return;
        }
        let needed = now.saturating_duration_since(*start);
        let mut dials = self.dials.lock();
        for (loser, start) in started.iter().filter(|(attempt, _)| attempt != winner) {
            if now.saturating_duration_since(*start) >= needed.saturating_add(ATTEMPT_DELAY) {
                dials.history.record(&loser.address.without_peer_id(), Outcome::Silent, now);
            }
        }
    }

    /// An address at which somebody else has proved to be is not the peer's.
    fn forget_if_of_another(&self, peer: Option<PeerId>, attempt: &Attempt, error: &ConnectError) {
        let is_another = matches!(
            error,
            ConnectError::Dial(DialError::Handshake { source: HandshakeError::WrongPeer { .. }, .. })
        );
        if let Some(peer) = peer
            && is_another
        {
            self.peer_store.remove_address(peer, &attempt.address.without_peer_id());
        }
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
        let start = Instant::now();
        let outcome = match timeout(self.limits.dial_timeout, transport.dial(address.clone())).await {
            Ok(outcome) => outcome.map_err(ConnectError::from),
            Err(_) => {
                Err(ConnectError::TimedOut { address: address.clone(), after: self.limits.dial_timeout })
            }
        };
        let now = Instant::now();
        let silence = now.saturating_duration_since(start) >= SILENCE;
        let note = match &outcome {
            Ok(_) => Outcome::Connected,
            Err(ConnectError::Dial(DialError::Handshake { .. })) => Outcome::Refused,
            Err(_) if silence => Outcome::Silent,
            Err(_) => Outcome::Refused,
        };
        self.dials.lock().history.record(&address.without_peer_id(), note, now);
        outcome
    }
}

/// A failure that comes after less than that is somebody's refusal, or the machine's own.
const SILENCE: Duration = Duration::from_secs(1);

/// Whose addresses race.
enum Competitors {
    /// Those that the peer store knows, and learns in the meantime.
    Known(PeerId),
    Given {
        peer: Option<PeerId>,
        addresses: Vec<Multiaddr>,
    },
}

impl Competitors {
    fn peer(&self) -> Option<PeerId> {
        match self {
            Self::Known(peer) => Some(*peer),
            Self::Given { peer, .. } => *peer,
        }
    }
}

/// The one peer that the addresses name, if they name any.
fn peer_of(addresses: &[Multiaddr]) -> Result<Option<PeerId>, ConnectError> {
    let mut named = addresses.iter().filter_map(Multiaddr::peer_id);
    let Some(first) = named.next() else { return Ok(None) };
    match named.find(|second| *second != first) {
        Some(second) => Err(ConnectError::SeveralPeers { first, second }),
        None => Ok(Some(first)),
    }
}

fn names(failures: &[ConnectError], address: &Multiaddr) -> bool {
    let is_same = |failure: &ConnectError| matches!(failure, ConnectError::NoTransport { address: other } if other == address);
    failures.iter().any(is_same)
}

impl DialTarget {
    fn peer(&self) -> Option<PeerId> {
        match self {
            Self::Address(address) => address.peer_id(),
            Self::Addresses(addresses) => addresses.iter().find_map(Multiaddr::peer_id),
            Self::Peer(peer) => Some(*peer),
        }
    }
}
