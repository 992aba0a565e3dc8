//! The established connections of a node, and the task that serves each.

mod keep;
mod kept_peers;
mod simultaneous;
mod tidier;
mod tidy;
mod usage;
mod worth;

use std::{collections::BTreeMap, fmt, sync::Arc};

use peerloom_core::{
    Circuit, CloseReason, Connection, ConnectionError, Multiaddr, PeerId, ProtocolName, PublicKey, Stream,
    multistream_select::negotiate_inbound,
    runtime::{Instant, Task, await_remote, spawn},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use self::simultaneous::superseded;
pub use self::{
    keep::MAX_KEPT_PEERS,
    kept_peers::{KeepError, LostReason},
    tidier::ClosedCounts,
};
pub(crate) use self::{
    kept_peers::KeptPeers,
    tidier::Tidier,
    usage::{StreamUse, Usage},
};
use crate::{
    dial::ConnectError,
    event::NodeEvent,
    gating::Passage,
    node::{Shared, StreamTarget},
    resources::{ConnectionResources, RESET_CODE, ResourceScope},
    router::{Handler, IncomingStream},
};

/// Names one connection of one node; never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId(u64);

impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl ConnectionId {
    #[cfg(test)]
    pub(crate) fn for_tests(number: u64) -> Self {
        Self(number)
    }

    /// The number, for a binding that cannot carry the type.
    pub fn as_u64(self) -> u64 {
        self.0
    }
}

/// Who dialed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// The remote did.
    Inbound,
    /// This node did.
    Outbound,
}

/// What there is to know of an established connection.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ConnectionInfo {
    /// Its name in this node.
    pub id: ConnectionId,
    /// Who the remote has proved to be.
    pub peer: PeerId,
    /// The key with which it did.
    pub public_key: PublicKey,
    /// The address dialed, or the one that the remote came from. Without `/p2p/…`.
    pub remote_address: Multiaddr,
    /// The address of our end, where the transport tells it: that of a listener, the host of which may be unspecified or that of
    /// another interface, or another one.
    pub local_address: Option<Multiaddr>,
    /// Who dialed.
    pub direction: Direction,
    /// Since when it can carry streams.
    pub established: Instant,
    /// The way through a relay, if it takes one: how much may still go that way.
    pub circuit: Option<Arc<Circuit>>,
    /// Whether the [allow list](crate::resources::AllowList) let it in when there was no more room for others.
    pub allow_listed: bool,
}

impl ConnectionInfo {
    /// Whether bytes take no detour through a relay.
    pub fn is_direct(&self) -> bool {
        self.circuit.is_none()
    }

    /// Whether a relay bounds what the connection may carry. Protocols that have not opted in do not run on it.
    pub fn is_limited(&self) -> bool {
        self.circuit.as_ref().is_some_and(|circuit| circuit.is_limited())
    }

    /// Higher is better to carry a stream.
    fn preference(&self) -> u8 {
        match (self.is_direct(), self.is_limited()) {
            (true, _) => 2,
            (false, false) => 1,
            (false, true) => 0,
        }
    }
}

#[derive(Default)]
pub(crate) struct Connections {
    next_id: u64,
    by_id: BTreeMap<ConnectionId, Entry>,
    by_peer: BTreeMap<PeerId, OfPeer>,
    closed: bool,
}

#[derive(Default)]
struct OfPeer {
    ids: Vec<ConnectionId>,
    /// The application has dialed the peer.
    wanted: bool,
    /// The peer has dialed this node.
    has_dialed: bool,
}

struct Entry {
    info: ConnectionInfo,
    connection: Arc<dyn Connection>,
    resources: ConnectionResources,
    usage: Arc<Usage>,
    /// The peer dialed when this node did, and of the two connections both prefer this one.
    superseded_by: Option<ConnectionId>,
    /// Ends with the entry.
    _serving: Task,
}

impl Connections {
    pub(crate) fn infos(&self) -> Vec<ConnectionInfo> {
        self.by_id.values().map(|entry| entry.info.clone()).collect()
    }

    pub(crate) fn is_connected(&self, peer: PeerId) -> bool {
        self.by_peer.contains_key(&peer)
    }

    pub(crate) fn by_id(&self, id: ConnectionId) -> Option<(ConnectionInfo, Arc<dyn Connection>)> {
        self.by_id.get(&id).map(|entry| (entry.info.clone(), entry.connection.clone()))
    }

    /// The connection for a new stream, on which the stream counts from now on.
    pub(crate) fn use_for_stream(
        &self,
        target: StreamTarget,
    ) -> Option<(ConnectionInfo, Arc<dyn Connection>, StreamUse)> {
        let entry = match target {
            StreamTarget::Peer(peer) => self.best_entry(peer)?,
            StreamTarget::Connection(id) => self.by_id.get(&id)?,
        };
        Some((entry.info.clone(), entry.connection.clone(), entry.usage.count()))
    }

    /// Whether another connection to the same peer does all that this one could: a direct one beside one through a relay, or
    /// the one that both sides prefer of two that were dialed at the same time.
    fn is_superfluous(&self, entry: &Entry) -> bool {
        if let Some(by) = entry.superseded_by {
            return self.by_id.contains_key(&by);
        }
        let direct = |id: &ConnectionId| self.by_id.get(id).is_some_and(|entry| entry.info.is_direct());
        !entry.info.is_direct()
            && self.by_peer.get(&entry.info.peer).is_some_and(|of_peer| of_peer.ids.iter().any(direct))
    }

    /// The connection for a new stream to `peer`: a direct one before a relayed one before a limited one, and of several the
    /// newest, which is the likeliest to be alive; unless both sides dialed at the same time, and prefer another.
    pub(crate) fn best(&self, peer: PeerId) -> Option<(ConnectionInfo, Arc<dyn Connection>)> {
        let best = self.best_entry(peer)?;
        Some((best.info.clone(), best.connection.clone()))
    }

    fn best_entry(&self, peer: PeerId) -> Option<&Entry> {
        let entries = self.by_peer.get(&peer)?.ids.iter().filter_map(|id| self.by_id.get(id));
        entries.max_by_key(|entry| (entry.info.preference(), !self.is_superfluous(entry), entry.info.id))
    }

    /// The application wants connections to this peer: they do not close for want of use.
    pub(crate) fn want(&mut self, peer: PeerId) {
        if let Some(of_peer) = self.by_peer.get_mut(&peer) {
            of_peer.wanted = true;
        }
    }

    /// A connection that a dial of `address` would only repeat.
    pub(crate) fn dialed(&self, address: &Multiaddr, peer: Option<PeerId>) -> Option<ConnectionInfo> {
        let dialed = |info: &ConnectionInfo| {
            info.direction == Direction::Outbound
                && info.remote_address == *address
                && peer.is_none_or(|peer| peer == info.peer)
        };
        self.by_id.values().map(|entry| &entry.info).find(|info| dialed(info)).cloned()
    }

    pub(crate) fn of_peer(&self, peer: PeerId) -> Vec<(ConnectionId, Arc<dyn Connection>)> {
        let ids = self.by_peer.get(&peer).map(|of_peer| of_peer.ids.as_slice()).unwrap_or_default();
        ids.iter().filter_map(|id| Some((*id, self.by_id(*id)?.1))).collect()
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed
    }

    /// Takes no more connections from here on, and lists those there are.
    pub(crate) fn refuse_further(&mut self) -> Vec<(ConnectionId, Arc<dyn Connection>)> {
        self.closed = true;
        self.by_id.iter().map(|(id, entry)| (*id, entry.connection.clone())).collect()
    }

    fn remove(&mut self, id: ConnectionId) -> Option<(Entry, bool)> {
        let entry = self.by_id.remove(&id)?;
        let mut last = true;
        if let Some(of_peer) = self.by_peer.get_mut(&entry.info.peer) {
            of_peer.ids.retain(|other| *other != id);
            last = of_peer.ids.is_empty();
        }
        if last {
            self.by_peer.remove(&entry.info.peer);
        }
        Some((entry, last))
    }
}

impl Shared {
    /// Makes an authenticated connection one of the node's, unless a limit is reached; then it is closed.
    pub(crate) fn adopt(
        self: &Arc<Self>,
        connection: Box<dyn Connection>,
        direction: Direction,
        local_address: Option<Multiaddr>,
        mut resources: ConnectionResources,
    ) -> Result<ConnectionInfo, ConnectError> {
        let connection: Arc<dyn Connection> = Arc::from(connection);
        let peer = connection.remote_peer();
        let mut connections = self.connections.lock();
        if connections.closed {
            return Err(ConnectError::NodeClosed);
        }
        if peer == self.peer_id() {
            return Err(ConnectError::SelfDial);
        }
        // Once more, under the lock: what is denied from now on finds the connection there to close.
        self.gating.check_rules(&Passage::of(&*connection, direction))?;
        let siblings = connections.by_peer.get(&peer).map(|of_peer| of_peer.ids.clone()).unwrap_or_default();
        let of_peer = siblings.len();
        // A peer at its own limit loses its oldest connection for the new one: that of a page which was reloaded, say, and
        // whose goodbye never came.
        let most = self.resources.limit(&ResourceScope::Peer(peer)).connections;
        let replaced = siblings.first().copied().filter(|_| of_peer >= most);
        let id = ConnectionId(connections.next_id);
        let oldest = replaced.and_then(|id| connections.by_id.get_mut(&id));
        resources.establish(id, peer, oldest.map(|entry| &mut entry.resources))?;
        connections.next_id = id.0.wrapping_add(1);
        let info = ConnectionInfo {
            id,
            peer,
            public_key: connection.remote_public_key().clone(),
            remote_address: connection.remote_address().clone(),
            local_address: connection.local_address().or(local_address),
            direction,
            established: Instant::now(),
            circuit: connection.circuit().cloned(),
            allow_listed: resources.is_allow_listed(),
        };
        let before = connections.best(peer).map(|(info, _)| info).filter(|before| !before.is_direct());
        let usage = Arc::new(Usage::new(info.established, self.tidier.news.clone()));
        let serving = spawn(serve(self.clone(), info.clone(), connection.clone(), usage.clone()));
        let mut superseded_by = None;
        for sibling in &siblings {
            let Some(sibling) = connections.by_id.get_mut(sibling) else { continue };
            match superseded(self.peer_id(), &info, &sibling.info) {
                Some((loser, winner)) if loser == id => superseded_by = Some(winner),
                Some((_, winner)) => sibling.superseded_by = Some(winner),
                None => {}
            }
        }
        let entry =
            Entry { info: info.clone(), connection, resources, usage, superseded_by, _serving: serving };
        connections.by_id.insert(id, entry);
        let of_same_peer = connections.by_peer.entry(peer).or_default();
        of_same_peer.ids.push(id);
        of_same_peer.has_dialed |= direction == Direction::Inbound;
        self.tidy_later(&connections);
        if of_peer == 0 {
            self.peer_store.connected(peer);
        }
        // Emitted under the lock, as is the closing: so a reader never sees a connection go before it came.
        self.events.emit(NodeEvent::ConnectionEstablished { connection: info.clone(), first: of_peer == 0 });
        self.kept_peers
            .connected(peer, Some(&info.remote_address).filter(|_| direction == Direction::Outbound));
        if let Some(relayed) = before.filter(|_| info.is_direct()) {
            self.events.emit(NodeEvent::ConnectionUpgraded { relayed, direct: info.clone() });
        }
        drop(connections);
        self.connection_changes.send_replace(());
        if let Some(replaced) = replaced {
            self.replace(replaced);
        }
        Ok(info)
    }

    /// Ends a connection in whose place there is another one.
    fn replace(&self, id: ConnectionId) {
        let reason = CloseReason::Supplanted;
        let error = Arc::new(ConnectionError::ClosedFor { reason, by_remote: false });
        if let Some((connection, resources)) = self.remove_connection_if(id, error, |_| true) {
            self.tasks.spawn(async move {
                connection.close_for(reason).await;
                drop(resources);
            });
        }
    }

    /// Ends a connection's entry and tells so; nothing if that has happened already.
    /// Gives back what it still holds, for a goodbye.
    pub(crate) fn remove_connection(
        &self,
        id: ConnectionId,
        reason: Arc<ConnectionError>,
    ) -> Option<ConnectionResources> {
        self.remove_connection_if(id, reason, |_| true).map(|(_, resources)| resources)
    }

    fn remove_connection_if(
        &self,
        id: ConnectionId,
        reason: Arc<ConnectionError>,
        condition: impl FnOnce(&Entry) -> bool,
    ) -> Option<(Arc<dyn Connection>, ConnectionResources)> {
        let mut connections = self.connections.lock();
        connections.by_id.get(&id).filter(|entry| condition(entry))?;
        let (Entry { info, connection, mut resources, _serving: serving, .. }, last) =
            connections.remove(id)?;
        resources.leave_peer();
        let peer = info.peer;
        if last {
            let dialed = info.direction == Direction::Outbound;
            self.peer_store.disconnected(peer, dialed.then_some(&info.remote_address));
        }
        let event = NodeEvent::ConnectionClosed { connection: info, reason: reason.clone(), last };
        self.events.emit(event);
        let retry_in = if last && !connections.closed { self.kept_peers.lost(peer) } else { None };
        if let Some(retry_in) = retry_in {
            let reason = LostReason::Connection(reason);
            self.events.emit(NodeEvent::KeptPeerLost { peer, reason, retry_in });
        }
        drop(connections);
        self.connection_changes.send_replace(());
        #[cfg(not(target_arch = "wasm32"))]
        self.observer_gone(id);
        drop(serving);
        Some((connection, resources))
    }
}

/// Gives each stream that the remote opens to its handler, until the connection is over.
async fn serve(
    shared: Arc<Shared>,
    info: ConnectionInfo,
    connection: Arc<dyn Connection>,
    usage: Arc<Usage>,
) {
    let most = shared.resources.limit(&ResourceScope::Connection(info.id)).inbound_streams;
    let slots = Arc::new(Semaphore::new(most.min(Semaphore::MAX_PERMITS)));
    let mut closed = connection.closed();
    let reason = loop {
        // While no slot is free, streams stay unaccepted and the transport's backlog holds the remote back.
        let next = async {
            let slot = slots.clone().acquire_owned().await;
            (slot, connection.accept_stream().await)
        };
        tokio::select! {
            // What came before the end is served; and a simulation must not depend on chance.
            biased;
            (slot, stream) = next => match (slot, stream) {
                (Ok(slot), Ok(stream)) => {
                    shared.tasks.spawn(route(shared.clone(), info.clone(), stream, slot, usage.count()));
                }
                (_, Err(reason)) => break reason,
                // The semaphore is never closed.
                (Err(_), Ok(_)) => continue,
            },
            reason = &mut closed => break reason,
        }
    };
    shared.remove_connection(info.id, reason);
}

async fn route(
    shared: Arc<Shared>,
    connection: ConnectionInfo,
    mut stream: Box<dyn Stream>,
    slot: OwnedSemaphorePermit,
    stream_use: StreamUse,
) {
    let mut resources = match shared.resources.stream(&connection, Direction::Inbound) {
        Ok(resources) => resources,
        Err(full) => {
            stream.reset(RESET_CODE);
            return shared.resources.tell(&full);
        }
    };
    let supports = {
        let shared = shared.clone();
        let limited = connection.is_limited();
        move |name: &str| shared.router.supports(name, limited)
    };
    let negotiation =
        await_remote(shared.limits.negotiation_timeout, negotiate_inbound(stream, supports)).await;
    let mut stream = match negotiation {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            tracing::debug!(peer = %connection.peer, %error, "inbound stream was not negotiated");
            return;
        }
        Err(_) => {
            tracing::debug!(peer = %connection.peer, "inbound stream named no protocol in time");
            return;
        }
    };
    let protocol: ProtocolName = stream.protocol().clone();
    if let Err(full) = resources.negotiated(&protocol) {
        stream.reset(RESET_CODE);
        return shared.resources.tell(&full);
    }
    // Taken until the stream is gone and its handler has ended, whichever is later.
    let held = Arc::new((resources, slot));
    stream.attach(held.clone());
    let handler: Option<Handler> = shared.router.handler(&protocol);
    // The handler may have been taken away since; then the stream is reset by being dropped.
    let Some(handler) = handler else { return };
    if let Some(stream_use) = stream_use.of(std::slice::from_ref(&protocol)) {
        stream.attach(stream_use);
    }
    // Handlers do not hold the node: one that runs for ever must not keep it alive.
    drop(shared);
    handler(IncomingStream { stream, connection }).await;
}
