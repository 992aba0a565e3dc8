//! The established connections of a node, and the task that serves each.

mod keep;
mod kept_peers;

use std::{collections::BTreeMap, fmt, sync::Arc};

use peerloom_core::{
    Circuit, Connection, ConnectionError, Multiaddr, PeerId, ProtocolName, PublicKey, Stream,
    multistream_select::negotiate_inbound,
    runtime::{Instant, Task, spawn, timeout},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

pub(crate) use self::kept_peers::KeptPeers;
pub use self::{
    keep::MAX_KEPT_PEERS,
    kept_peers::{KeepError, LostReason},
};
use crate::{
    dial::ConnectError,
    event::NodeEvent,
    gating::Passage,
    node::Shared,
    relayed::RelayedConnection,
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
    by_peer: BTreeMap<PeerId, Vec<ConnectionId>>,
    closed: bool,
}

struct Entry {
    info: ConnectionInfo,
    connection: Arc<dyn Connection>,
    resources: ConnectionResources,
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

    pub(crate) fn is_direct(&self, peer: PeerId) -> bool {
        self.best(peer).is_some_and(|(info, _)| info.is_direct())
    }

    /// The connection for a new stream to `peer`: a direct one before a relayed one before a limited one, and of several the
    /// newest, which is the likeliest to be alive.
    pub(crate) fn best(&self, peer: PeerId) -> Option<(ConnectionInfo, Arc<dyn Connection>)> {
        let entries = self.by_peer.get(&peer)?.iter().filter_map(|id| self.by_id.get(id));
        let best = entries.max_by_key(|entry| (entry.info.preference(), entry.info.id))?;
        Some((best.info.clone(), best.connection.clone()))
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
        let ids = self.by_peer.get(&peer).map(Vec::as_slice).unwrap_or_default();
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
        if let Some(ids) = self.by_peer.get_mut(&entry.info.peer) {
            ids.retain(|other| *other != id);
            last = ids.is_empty();
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
        let (connection, streams): (Arc<dyn Connection>, _) = if connection.circuit().is_some() {
            let (relayed, streams) = RelayedConnection::new(connection);
            (Arc::new(relayed), Some(streams))
        } else {
            (Arc::from(connection), None)
        };
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
        let of_peer = connections.by_peer.get(&peer).map_or(0, Vec::len);
        // A peer at its own limit loses its oldest connection for the new one: that of a page which was reloaded, say, and
        // whose goodbye never came.
        let replaced = match of_peer >= self.resources.limit(&ResourceScope::Peer(peer)).connections {
            true => connections.by_peer.get(&peer).and_then(|ids| ids.first().copied()),
            false => None,
        };
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
        let serving = {
            let serving = serve(self.clone(), info.clone(), connection.clone());
            let shared = self.clone();
            match streams {
                Some(streams) => spawn(async move {
                    tokio::select! {
                        biased;
                        () = serving => {}
                        () = shared.relayed_is_idle(id, peer, &streams) => shared.replace(id),
                    }
                }),
                None => spawn(serving),
            }
        };
        connections.by_id.insert(id, Entry { info: info.clone(), connection, resources, _serving: serving });
        connections.by_peer.entry(peer).or_default().push(id);
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

    /// Ends a connection that another one has made superfluous.
    fn replace(&self, id: ConnectionId) {
        let connection = self.connections.lock().by_id(id);
        if let Some((_, connection)) = connection {
            let resources = self.remove_connection(id, Arc::new(ConnectionError::ClosedLocally));
            self.tasks.spawn(async move {
                connection.close().await;
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
        let mut connections = self.connections.lock();
        let (Entry { info, connection, mut resources, _serving: serving }, last) = connections.remove(id)?;
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
        drop((connection, serving));
        Some(resources)
    }
}

/// Gives each stream that the remote opens to its handler, until the connection is over.
async fn serve(shared: Arc<Shared>, info: ConnectionInfo, connection: Arc<dyn Connection>) {
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
                (Ok(slot), Ok(stream)) => shared.tasks.spawn(route(shared.clone(), info.clone(), stream, slot)),
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
    let negotiation = timeout(shared.limits.negotiation_timeout, negotiate_inbound(stream, supports)).await;
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
    // Handlers do not hold the node: one that runs for ever must not keep it alive.
    drop(shared);
    handler(IncomingStream { stream, connection }).await;
}
