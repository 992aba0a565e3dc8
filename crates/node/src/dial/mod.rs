//! From an address or a peer id to a connection: which addresses, in which order, how many at once.

mod history;
mod race;
mod ranking;

use std::{
    collections::HashMap,
    fmt,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use futures_util::{
    FutureExt, StreamExt,
    future::{AbortHandle, Aborted, OptionFuture, Shared as SharedFuture, WeakShared, abortable},
    stream::FuturesUnordered,
};
use parking_lot::Mutex;
use peerloom_core::{
    Connection, DialError, HandshakeError, Multiaddr, PeerId, Transport,
    runtime::{BoxFuture, Instant, sleep_until, timeout},
};
use tokio::sync::{Notify, SemaphorePermit};

use self::{
    history::{History, Outcome},
    race::{Attempt, FIRST_DELAY, PATIENCE, Race},
};
use crate::{
    connections::{ConnectionInfo, Direction},
    event::NodeEvent,
    gating::{Denied, Passage},
    node::Shared,
    resources::{ConnectionResources, LimitExceeded},
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
    /// The node's rules or its gate do not let this peer, this address or this connection pass.
    #[error(transparent)]
    Denied(#[from] Denied),
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
    /// A limit of this node is reached.
    #[error("no connection: {0}")]
    LimitExceeded(#[from] LimitExceeded),
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
type SharedDial = SharedFuture<BoxFuture<'static, DialResult>>;

#[derive(Default)]
pub(crate) struct Dials {
    /// Their callers own them; this map only lets a second caller find the first one's. A peer has one entry, whatever is
    /// said of its addresses.
    under_way: HashMap<DialTarget, UnderWay>,
    history: History,
}

struct UnderWay {
    dial: WeakShared<BoxFuture<'static, DialResult>>,
    competitors: Arc<Competitors>,
}

impl Dials {
    fn join_or_start(
        &mut self,
        target: DialTarget,
        start: impl FnOnce(Arc<Competitors>) -> BoxFuture<'static, DialResult>,
    ) -> SharedDial {
        let key = match (&target, target.peer()) {
            (DialTarget::Addresses(_), Some(peer)) => DialTarget::Peer(peer),
            _ => target.clone(),
        };
        if let Some(under_way) = self.under_way.get(&key)
            && let Some(dial) = under_way.dial.upgrade()
            && dial.peek().is_none()
        {
            under_way.competitors.join(target);
            return dial;
        }
        self.under_way.retain(|_, under_way| under_way.dial.upgrade().is_some());
        let competitors = Arc::new(Competitors::of(target));
        let dial = start(competitors.clone()).shared();
        if let Some(weak) = dial.downgrade() {
            self.under_way.insert(key, UnderWay { dial: weak, competitors });
        }
        dial
    }
}

impl Shared {
    pub(crate) async fn dial(self: &Arc<Self>, target: DialTarget) -> DialResult {
        if let DialTarget::Addresses(addresses) = &target {
            peer_of(addresses).map_err(|error| self.dial_failed(None, error))?;
        }
        match self.existing(&target) {
            Some(connection) => Ok(connection),
            None => self.dial_anew(target).await,
        }
    }

    /// The same, even if there is a connection.
    pub(crate) async fn dial_anew(self: &Arc<Self>, target: DialTarget) -> DialResult {
        let dial = self.dials.lock().join_or_start(target.clone(), |competitors| {
            let shared = self.clone();
            Box::pin(async move {
                let peer = target.peer();
                let connected = shared.connect(target, &competitors).await;
                connected.map_err(|error| shared.dial_failed(peer, error))
            })
        });
        dial.await
    }

    fn dial_failed(&self, peer: Option<PeerId>, error: ConnectError) -> Arc<ConnectError> {
        let error = Arc::new(error);
        self.events.emit(NodeEvent::DialFailed { peer, error: error.clone() });
        error
    }

    fn existing(&self, target: &DialTarget) -> Option<ConnectionInfo> {
        let connections = self.connections.lock();
        let dialed = |address: &Multiaddr| connections.dialed(&address.without_peer_id(), address.peer_id());
        let best = |peer| connections.best(peer).map(|(info, _)| info);
        match target {
            DialTarget::Peer(peer) => best(*peer),
            DialTarget::Address(address) => dialed(address),
            DialTarget::Addresses(addresses) => {
                let direct = target.peer().and_then(best).filter(ConnectionInfo::is_direct);
                direct.or_else(|| addresses.iter().find_map(dialed))
            }
        }
    }

    async fn connect(
        self: &Arc<Self>,
        target: DialTarget,
        competitors: &Competitors,
    ) -> Result<ConnectionInfo, ConnectError> {
        if target.peer() == Some(self.peer_id()) {
            return Err(ConnectError::SelfDial);
        }
        if let Some(peer) = target.peer() {
            self.gating.check(Passage::Peer { peer }).await?;
        }
        let (connection, resources) = match target {
            DialTarget::Address(address) => {
                let mut waiting = None.into();
                let _permit = self.dial_slot(Some(address.is_relayed()), &mut waiting).await;
                self.attempt(address).await?
            }
            DialTarget::Addresses(_) | DialTarget::Peer(_) => self.race(competitors).await?,
        };
        let info = self.adopt(connection, Direction::Outbound, None, resources)?;
        self.peer_store.dial_succeeded(info.peer, &info.remote_address);
        Ok(info)
    }

    /// A share of [`Limits::concurrent_dials`](crate::Limits::concurrent_dials), for which `waiting` has its place in the
    /// line.
    ///
    /// What a transport dials on its way through a relay has one of its own; to wait for it holding one is a deadlock.
    async fn dial_slot<'a>(
        &'a self,
        is_relayed: Option<bool>,
        waiting: &mut OptionFuture<BoxFuture<'a, Option<SemaphorePermit<'a>>>>,
    ) -> Option<SemaphorePermit<'a>> {
        if is_relayed == Some(true) {
            return None;
        }
        loop {
            match (&mut *waiting).await {
                Some(permit) => return permit,
                None => {
                    let acquiring: BoxFuture<'a, _> = Box::pin(self.dial_slots.acquire().map(Result::ok));
                    *waiting = Some(acquiring).into();
                }
            }
        }
    }

    /// Dials addresses as a [`Race`] has them follow. The first connection wins; the rest are cancelled.
    async fn race(&self, competitors: &Competitors) -> Result<Dialed, ConnectError> {
        let peer = competitors.peer;
        let mut race = Race::new(self.limits.addresses_per_dial, self.limits.dials_per_peer);
        let mut failures = Vec::new();
        let mut running = FuturesUnordered::new();
        let mut started: Vec<(Attempt, Instant, AbortHandle)> = Vec::new();
        // Kept from round to round: whoever asks anew comes last.
        let mut slot = OptionFuture::from(None);
        loop {
            // Asked for before the addresses are read, so that none comes in between.
            let mut news = pin!(self.peer_store.new_addresses());
            let mut joined = pin!(competitors.joined.notified());
            news.as_mut().enable();
            joined.as_mut().enable();
            self.enter(competitors, &mut race, &mut failures);
            if race.is_over() {
                return Err(match (failures.is_empty(), peer) {
                    (false, peer) => ConnectError::AllFailed { peer, attempts: failures },
                    (true, Some(peer)) => ConnectError::NoAddresses { peer },
                    (true, None) => ConnectError::NoAddressGiven,
                });
            }
            let now = Instant::now();
            let overdue = race.overdue(now);
            if let Some((.., handle)) = started.iter().find(|(attempt, ..)| Some(attempt) == overdue) {
                handle.abort();
            }
            let next_is_relayed = race.next(now).map(Multiaddr::is_relayed);
            let deadline = race.deadline();
            tokio::select! {
                biased;
                Some((attempt, outcome)) = running.next() => {
                    let error = match outcome {
                        Ok(Ok(dialed)) => {
                            let (connection, _): &Dialed = &dialed;
                            self.note_losers(connection.remote_peer(), &attempt, &started);
                            return Ok(dialed);
                        }
                        Ok(Err(error)) => error,
                        Err(Aborted) => self.gave_way(peer, &attempt),
                    };
                    started.retain(|(other, ..)| *other != attempt);
                    race.failed(&attempt);
                    failures.push(error);
                }
                permit = self.dial_slot(next_is_relayed, &mut slot), if next_is_relayed.is_some() => {
                    slot = OptionFuture::from(None);
                    let now = Instant::now();
                    let Some(attempt) = race.start(now) else { continue };
                    let address = match peer {
                        Some(peer) => attempt.address.with_peer_id(peer),
                        None => attempt.address.clone(),
                    };
                    let (dialing, handle) = abortable(self.attempt(address));
                    started.push((attempt.clone(), now, handle));
                    running.push(async move {
                        let _permit = permit;
                        (attempt, dialing.await)
                    });
                }
                () = sleep_until(deadline.unwrap_or(now)), if next_is_relayed.is_none() && deadline.is_some() => {}
                () = news => {}
                () = joined => {}
            }
        }
    }

    /// What becomes of an attempt in whose place another is made.
    fn gave_way(&self, peer: Option<PeerId>, attempt: &Attempt) -> ConnectError {
        let address = attempt.address.clone();
        if let Some(peer) = peer {
            self.peer_store.dial_failed(peer, &address);
        }
        self.dials.lock().history.record(&address.without_peer_id(), Outcome::Silent, Instant::now());
        ConnectError::TimedOut { address, after: PATIENCE }
    }

    /// Enters into the race what is known by now and can be dialed from here; what cannot is a failure at once.
    fn enter(&self, competitors: &Competitors, race: &mut Race, failures: &mut Vec<ConnectError>) {
        let mut addresses = competitors.addresses.lock().clone();
        if let Some(peer) = competitors.peer.filter(|_| competitors.known.load(Relaxed)) {
            addresses.extend(self.peer_store.addresses(peer));
            addresses.extend(self.routes(peer));
        }
        let now = Instant::now();
        for address in addresses {
            if race.knows(&address) {
                continue;
            }
            let impossible = match self.transport(|transport| transport.can_dial(&address)) {
                Some(_) => self
                    .gating
                    .check_rules(&Passage::Address { address: address.clone() })
                    .err()
                    .map(ConnectError::from),
                None => Some(ConnectError::NoTransport { address: address.clone() }),
            };
            let Some(impossible) = impossible else {
                let doubtful = self.dials.lock().history.is_doubtful(&address.without_peer_id(), now);
                race.add(address, doubtful);
                continue;
            };
            if failures.len() < self.limits.addresses_per_dial && !names(failures, &address) {
                failures.push(impossible);
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
    fn note_losers(&self, peer: PeerId, winner: &Attempt, started: &[(Attempt, Instant, AbortHandle)]) {
        let now = Instant::now();
        let Some((_, start, _)) = started.iter().find(|(attempt, ..)| attempt == winner) else { return };
        if winner.address.is_relayed() {
            return;
        }
        let needed = now.saturating_duration_since(*start);
        for (loser, start, _) in started.iter().filter(|(attempt, ..)| attempt != winner) {
            if now.saturating_duration_since(*start) >= needed.saturating_add(FIRST_DELAY) {
                let loser = loser.address.without_peer_id();
                self.dials.lock().history.record(&loser, Outcome::Silent, now);
                self.peer_store.dial_failed(peer, &loser);
            }
        }
    }

    /// Writes down that a peer was not to be had at an address.
    fn note_failure(&self, peer: PeerId, address: &Multiaddr, error: &ConnectError) {
        match error {
            // That says nothing of the peer.
            ConnectError::Dial(DialError::UnsupportedAddress { .. } | DialError::Denied { .. }) => {}
            // An address at which somebody else has proved to be is not the peer's.
            ConnectError::Dial(DialError::Handshake { source: HandshakeError::WrongPeer { .. }, .. }) => {
                self.peer_store.remove_address(peer, address);
            }
            _ => self.peer_store.dial_failed(peer, address),
        }
    }

    /// One piece of code for all who await it.
    fn attempt(&self, address: Multiaddr) -> BoxFuture<'_, Result<Dialed, ConnectError>> {
        Box::pin(self.pass_and_dial(address))
    }

    /// Through the gate, to the other side, and once more through the gate.
    async fn pass_and_dial(&self, address: Multiaddr) -> Result<Dialed, ConnectError> {
        let Some(transport) = self.transport(|transport| transport.can_dial(&address)) else {
            return Err(ConnectError::NoTransport { address });
        };
        self.gating.check(Passage::Address { address: address.clone() }).await?;
        let resources = self.resources.outgoing(&address)?;
        let connection = self.dial_with(&*transport, address).await?;
        self.gating.check(Passage::of(&*connection, Direction::Outbound)).await?;
        Ok((connection, resources))
    }

    async fn dial_with(
        &self,
        transport: &dyn Transport,
        address: Multiaddr,
    ) -> Result<Box<dyn Connection>, ConnectError> {
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
        if let (Some(peer), Err(error)) = (address.peer_id(), &outcome) {
            self.note_failure(peer, &address, error);
        }
        outcome
    }
}

/// A failure that comes after less than that is somebody's refusal, or the machine's own.
const SILENCE: Duration = Duration::from_secs(1);

/// A connection, and what it holds of the node's resources.
type Dialed = (Box<dyn Connection>, ConnectionResources);

/// Whose addresses race. Whoever dials the same peer meanwhile joins with what he knows.
struct Competitors {
    peer: Option<PeerId>,
    /// Given by callers.
    addresses: Mutex<Vec<Multiaddr>>,
    /// Whether those that the peer store knows, and learns in the meantime, take part.
    known: AtomicBool,
    joined: Notify,
}

impl Competitors {
    fn of(target: DialTarget) -> Self {
        let competitors = Self {
            peer: target.peer(),
            addresses: Mutex::default(),
            known: AtomicBool::new(false),
            joined: Notify::new(),
        };
        competitors.join(target);
        competitors
    }

    fn join(&self, target: DialTarget) {
        match target {
            DialTarget::Peer(_) => self.known.store(true, Relaxed),
            DialTarget::Addresses(more) => {
                let mut addresses = self.addresses.lock();
                for address in more {
                    let address = match self.peer {
                        Some(_) => address.without_peer_id(),
                        None => address,
                    };
                    if !addresses.contains(&address) {
                        addresses.push(address);
                    }
                }
            }
            DialTarget::Address(_) => {}
        }
        self.joined.notify_waiters();
    }
}

/// The one peer that the addresses name, if they name any.
pub(crate) fn peer_of(addresses: &[Multiaddr]) -> Result<Option<PeerId>, ConnectError> {
    let mut named = addresses.iter().filter_map(Multiaddr::peer_id);
    let Some(first) = named.next() else { return Ok(None) };
    match named.find(|second| *second != first) {
        Some(second) => Err(ConnectError::SeveralPeers { first, second }),
        None => Ok(Some(first)),
    }
}

fn names(failures: &[ConnectError], address: &Multiaddr) -> bool {
    let is_same = |failure: &ConnectError| match failure {
        ConnectError::NoTransport { address: other } => other == address,
        ConnectError::Denied(Denied { passage: Passage::Address { address: other }, .. }) => other == address,
        _ => false,
    };
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
