use std::{
    collections::HashMap,
    sync::{Arc, Weak},
};

use futures_util::future::join_all;
use parking_lot::{Mutex, RwLock};
use peerloom_core::{
    Connection, ConnectionError, Keypair, ListenError, Multiaddr, PeerId, ProtocolName, Transport,
    multistream_select::{NegotiatedStream, NegotiationError, negotiate_outbound},
    runtime::{BoxFuture, MaybeSend, MaybeSync, TaskSet, await_remote, timeout},
};
use tokio::sync::{Semaphore, watch};

use crate::{
    addresses::OwnAddresses,
    builder::NodeBuilder,
    connections::{
        ClosedCounts, ConnectionId, ConnectionInfo, Connections, Direction, KeepError, KeptPeers, StreamUse,
        Tidier,
    },
    dial::{ConnectError, DialTarget, Dials},
    event::{EventSender, Events, NodeEvent},
    gating::{Gating, Passage},
    handshakes::Handshakes,
    limits::Limits,
    listen::Listeners,
    peer_store::{Keeper, PeerStore},
    relayed::ExpectDirect,
    resources::{LimitExceeded, MemoryReservation, ResourceSnapshot, Resources},
    router::{HandleError, Handler, IncomingStream, OpenedStream, Router, boxed_handler},
};

/// A libp2p peer: an identity with connections.
///
/// A handle; clones are the same node. When the last one is dropped, or [`close`](Self::close) is called, every
/// connection, listener and task of the node ends. A handler that needs the node holds a [`WeakNode`].
#[derive(Clone)]
pub struct Node(Arc<Owner>);

/// Ends the node when the last handle goes. The node's own tasks hold [`Shared`], never this.
struct Owner(Arc<Shared>);

/// A [`Node`] that this handle does not keep alive.
#[derive(Clone)]
pub struct WeakNode(Weak<Owner>);

impl WeakNode {
    /// The node, if it still lives.
    pub fn upgrade(&self) -> Option<Node> {
        self.0.upgrade().map(Node)
    }
}

/// What a stream is opened on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamTarget {
    /// Any connection to this peer.
    Peer(PeerId),
    /// This connection and no other.
    Connection(ConnectionId),
}

impl From<PeerId> for StreamTarget {
    fn from(peer: PeerId) -> Self {
        Self::Peer(peer)
    }
}

impl From<ConnectionId> for StreamTarget {
    fn from(id: ConnectionId) -> Self {
        Self::Connection(id)
    }
}

impl From<&ConnectionInfo> for StreamTarget {
    fn from(connection: &ConnectionInfo) -> Self {
        Self::Connection(connection.id)
    }
}

/// What an error names if it was asked for a stream without a protocol.
const NO_PROTOCOL: ProtocolName = ProtocolName::from_static("/");

/// Why a stream cannot be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenStreamError {
    /// There is no connection to the peer.
    #[error("not connected to {peer}")]
    NotConnected {
        /// The peer.
        peer: PeerId,
    },
    /// The connection named is over.
    #[error("connection {connection} is over")]
    ConnectionClosed {
        /// The connection.
        connection: ConnectionId,
    },
    /// There is only a limited connection, and the protocols have not opted in to run on one.
    #[error("the relay limits the connection to {peer}, and {protocol} does not run on limited connections")]
    Limited {
        /// The peer.
        peer: PeerId,
        /// The first of the protocols.
        protocol: ProtocolName,
    },
    /// A limit of this node is reached.
    #[error("no stream to {peer}: {source}")]
    LimitExceeded {
        /// The peer.
        peer: PeerId,
        /// The limit.
        source: LimitExceeded,
    },
    /// The connection failed while the stream was being opened.
    #[error("connection lost: {0}")]
    ConnectionLost(Arc<ConnectionError>),
    /// The remote handles none of the protocols, or did not negotiate as it must.
    #[error("{peer}: {source}")]
    Negotiation {
        /// The peer.
        peer: PeerId,
        /// What went wrong.
        source: NegotiationError,
    },
    /// The remote did not answer within [`Limits::negotiation_timeout`].
    #[error("{peer} did not answer in time")]
    TimedOut {
        /// The peer.
        peer: PeerId,
    },
}

impl Node {
    /// Starts to put a node with this identity together.
    pub fn builder(keypair: Keypair) -> NodeBuilder {
        NodeBuilder::new(keypair)
    }

    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self(Arc::new(Owner(shared)))
    }

    /// Who this node is.
    pub fn peer_id(&self) -> PeerId {
        self.shared().peer_id()
    }

    /// The node's identity.
    pub fn keypair(&self) -> &Keypair {
        &self.shared().keypair
    }

    /// Connects to an address or, at the addresses that the [`PeerStore`] knows, to a peer. A connection that there is
    /// already is not made again. Several calls for one target share one dial; it is cancelled when the last of their futures
    /// is dropped.
    ///
    /// The future does not keep the node alive.
    pub fn dial<T: Into<DialTarget>>(
        &self,
        target: T,
    ) -> impl Future<Output = Result<ConnectionInfo, Arc<ConnectError>>> + MaybeSend + use<T> {
        let (shared, target) = (self.shared().clone(), target.into());
        boxed(async move {
            let connection = shared.dial(target).await?;
            shared.connections.lock().want(connection.peer);
            Ok(connection)
        })
    }

    /// The same, for protocols that need a connection for a stream: it is closed when for [`Limits::unused_idle`] no stream and
    /// no tag has wanted it. One that the application dials, or has dialed, stays until it is
    /// [disconnected](Self::disconnect), or has to make room.
    pub fn dial_for_streams<T: Into<DialTarget>>(
        &self,
        target: T,
    ) -> impl Future<Output = Result<ConnectionInfo, Arc<ConnectError>>> + MaybeSend + use<T> {
        let (shared, target) = (self.shared().clone(), target.into());
        boxed(async move { shared.dial(target).await })
    }

    /// Keeps a connection to a peer from now on: at an address that says which peer, or at those that the [`PeerStore`] knows.
    /// Returns at once, and says which peer.
    ///
    /// Where there is none, the peer is dialed: at once, then again and again, at intervals that grow from a second to two minutes
    /// and are not the same for all nodes; and at once after [`resumed`](Self::resumed). How that goes is told by
    /// [`NodeEvent::KeptPeerLost`] and [`NodeEvent::ConnectionEstablished`]. Connections to the peer are not closed for want of
    /// use or of room.
    pub fn keep(&self, target: impl Into<DialTarget>) -> Result<PeerId, KeepError> {
        self.shared().keep(target.into())
    }

    /// Keeps a peer no longer; a connection to it stays for now. Whether it was kept.
    pub fn unkeep(&self, peer: PeerId) -> bool {
        self.shared().unkeep(peer)
    }

    /// The peers that are kept, connected or not.
    pub fn kept(&self) -> Vec<PeerId> {
        self.shared().kept_peers.peers()
    }

    /// To be called when this machine wakes from a sleep, a page is shown again, or the network is another one: kept peers that
    /// are lost are dialed at once, and those that seem to be connected are asked whether they still are.
    ///
    /// A sleep that makes timers late is found out without it.
    pub fn resumed(&self) {
        self.shared().resumed();
    }

    /// Listens on `address`, and returns the addresses at which this node can be reached through it, with `/p2p/…`.
    ///
    /// The future does not keep the node alive.
    pub fn listen(
        &self,
        address: Multiaddr,
    ) -> impl Future<Output = Result<Vec<Multiaddr>, ListenError>> + MaybeSend + use<> {
        let shared = self.shared().clone();
        boxed(async move { shared.listen(address).await })
    }

    /// Adds a way to reach peers to those that the node was built with, behind them in order. So a transport can be written on
    /// the node's own streams: one through relays, for example.
    pub fn add_transport(&self, transport: impl Transport) {
        self.shared().transports.write().push(Arc::new(transport));
    }

    /// Whether one of the transports can make something of this address.
    pub fn can_dial(&self, address: &Multiaddr) -> bool {
        self.shared().transport(|transport| transport.can_dial(address)).is_some()
    }

    /// Opens a stream for the first of `protocols` that the remote handles, on the best connection to it: a direct one before a
    /// relayed one, and of several the newest.
    ///
    /// With one protocol this costs no round trip: what is written goes out together with the protocol's name, and that the
    /// remote does not handle it shows as the first read's error.
    ///
    /// Fails with [`OpenStreamError::Limited`] if there is only a limited connection and no direct one is being made.
    ///
    /// The future does not keep the node alive.
    pub fn open_stream<T: Into<StreamTarget>>(
        &self,
        target: T,
        protocols: &[ProtocolName],
    ) -> impl Future<Output = Result<NegotiatedStream, OpenStreamError>> + MaybeSend + use<T> {
        let opening = self.shared().clone().open_stream(target.into(), protocols.to_vec(), false);
        async move { Ok(opening.await?.stream) }
    }

    /// The same for protocols that have opted in to run on limited connections too. They had better be short.
    pub fn open_stream_on_limited<T: Into<StreamTarget>>(
        &self,
        target: T,
        protocols: &[ProtocolName],
    ) -> impl Future<Output = Result<NegotiatedStream, OpenStreamError>> + MaybeSend + use<T> {
        let opening = self.shared().clone().open_stream(target.into(), protocols.to_vec(), true);
        async move { Ok(opening.await?.stream) }
    }

    /// The same, and says which connection was chosen. `on_limited` is whether the protocols have opted in.
    pub fn open_stream_and_tell<T: Into<StreamTarget>>(
        &self,
        target: T,
        protocols: &[ProtocolName],
        on_limited: bool,
    ) -> impl Future<Output = Result<OpenedStream, OpenStreamError>> + MaybeSend + use<T> {
        self.shared().clone().open_stream(target.into(), protocols.to_vec(), on_limited)
    }

    /// Lets streams to `peer` that may not use a limited connection wait for a direct one, as long as the guard lives.
    pub fn expect_direct(&self, peer: PeerId) -> ExpectDirect {
        self.shared().expect_direct(peer)
    }

    /// Gives every stream that a remote opens for `protocol` to `handler`. The handler's future runs until it ends; it is
    /// cancelled with the node. On limited connections the protocol is refused.
    pub fn handle<F, Fut>(&self, protocol: ProtocolName, handler: F) -> Result<(), HandleError>
    where
        F: Fn(IncomingStream) -> Fut + MaybeSend + MaybeSync + 'static,
        Fut: Future<Output = ()> + MaybeSend + 'static,
    {
        self.shared().handle(protocol, boxed_handler(handler), false)
    }

    /// The same, on limited connections too.
    pub fn handle_on_limited<F, Fut>(&self, protocol: ProtocolName, handler: F) -> Result<(), HandleError>
    where
        F: Fn(IncomingStream) -> Fut + MaybeSend + MaybeSync + 'static,
        Fut: Future<Output = ()> + MaybeSend + 'static,
    {
        self.shared().handle(protocol, boxed_handler(handler), true)
    }

    /// Handles `protocol` no longer; streams that are open stay so. Whether there was a handler.
    pub fn unhandle(&self, protocol: &ProtocolName) -> bool {
        let removed = self.shared().router.remove(protocol);
        if removed {
            self.shared().events.emit(NodeEvent::ProtocolsChanged);
        }
        removed
    }

    /// The protocols that this node handles, in the order of their names.
    pub fn protocols(&self) -> Vec<ProtocolName> {
        self.shared().router.protocols()
    }

    /// Runs a task of a protocol for as long as the node lives. One that needs the node holds a [`WeakNode`].
    pub fn spawn(&self, task: impl Future<Output = ()> + MaybeSend + 'static) {
        self.shared().tasks.spawn(task);
    }

    /// Handshakes, stream handlers and protocol tasks that have not ended.
    pub fn running_tasks(&self) -> usize {
        self.shared().tasks.len()
    }

    /// What happens in this node from now on.
    pub fn events(&self) -> Events {
        self.shared().events.subscribe()
    }

    /// Tells of something that a protocol has done. For protocols; an application listens.
    pub fn emit(&self, event: NodeEvent) {
        self.shared().events.emit(event);
    }

    /// What is known of peers.
    pub fn peer_store(&self) -> &PeerStore {
        &self.shared().peer_store
    }

    /// What connections, streams, memory and file descriptors are in use, by whom, and what was refused.
    pub fn resources(&self) -> ResourceSnapshot {
        self.shared().resources.snapshot()
    }

    /// Reserves memory that `protocol` is about to use for `peer`: for a buffer whose size the peer decides, for example. What
    /// streams take by themselves is counted without this.
    ///
    /// The reservation does not keep the node alive.
    pub fn reserve_memory(
        &self,
        peer: PeerId,
        protocol: &ProtocolName,
        bytes: usize,
    ) -> Result<MemoryReservation, LimitExceeded> {
        self.shared().resources.reserve_memory(peer, protocol, bytes)
    }

    /// Every established connection.
    pub fn connections(&self) -> Vec<ConnectionInfo> {
        self.shared().connections.lock().infos()
    }

    /// Whether there is a connection to `peer`.
    pub fn is_connected(&self, peer: PeerId) -> bool {
        self.shared().connections.lock().is_connected(peer)
    }

    /// Closes every connection to `peer`, in an orderly way. If it was kept, it is kept no longer.
    pub async fn disconnect(&self, peer: PeerId) {
        self.unkeep(peer);
        let connections = self.shared().connections.lock().of_peer(peer);
        self.shared().close_connections(connections).await;
    }

    /// What may pass, for changes.
    pub fn gating(&self) -> &Gating {
        &self.shared().gating
    }

    /// Closes, in an orderly way, the connections that the rules of [`gating`](Self::gating) do not let pass any more. How many
    /// they were.
    pub async fn close_denied(&self) -> usize {
        let shared = self.shared();
        let is_denied = |info: &ConnectionInfo| shared.gating.check_rules(&Passage::from(info)).is_err();
        let denied = {
            let connections = shared.connections.lock();
            let infos = connections.infos().into_iter().filter(is_denied);
            infos.filter_map(|info| Some((info.id, connections.by_id(info.id)?.1))).collect::<Vec<_>>()
        };
        let count = denied.len();
        shared.close_connections(denied).await;
        count
    }

    /// Closes the connections that are worth least, until no more than `keep` are left; but none with streams on it, to a
    /// protected peer, or younger than [`Limits::grace`]. How many. The node does so by itself past [`Limits::high_water`].
    ///
    /// Least is what another connection to the same peer does as well; then the peer's [tags](PeerStore::tag) count, who wants the
    /// connection, whether it takes a detour through a relay, who dialed, and for how long it was idle.
    pub async fn trim_connections(&self, keep: usize) -> usize {
        self.shared().trim(keep).await
    }

    /// How many connections were closed for want of room or of use.
    pub fn closed_counts(&self) -> ClosedCounts {
        self.shared().tidier.counts()
    }

    /// Closes one connection, in an orderly way.
    pub async fn close_connection(&self, id: ConnectionId) {
        let connection = self.shared().connections.lock().by_id(id);
        let connection = connection.map(|(_, connection)| (id, connection));
        self.shared().close_connections(connection.into_iter().collect()).await;
    }

    /// Ends the node: no further connections, goodbye to every peer within [`Limits::close_timeout`], what is known of peers written
    /// to [storage](NodeBuilder::peer_storage), then the end of every task. The handles that are left do nothing more.
    pub async fn close(&self) {
        let shared = self.shared();
        shared.listeners.lock().close();
        shared.kept_peers.close();
        let connections = shared.connections.lock().refuse_further();
        // Begun first: a page that is going away may not get much further.
        tokio::join!(shared.save_peers(), shared.close_connections(connections));
        // With what the end of the connections has changed.
        shared.save_peers().await;
        shared.shut_down();
    }

    /// A handle that does not keep the node alive.
    pub fn downgrade(&self) -> WeakNode {
        WeakNode(Arc::downgrade(&self.0))
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.0.0
    }
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Node").field(&self.peer_id()).finish()
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.0.shut_down();
    }
}

/// One piece of code for all who await the call; otherwise each of them has a copy of its own, which a page has to download.
fn boxed<T>(call: impl Future<Output = T> + MaybeSend + 'static) -> BoxFuture<'static, T> {
    Box::pin(call)
}

/// What the parts and tasks of one node have in common.
pub(crate) struct Shared {
    pub(crate) keypair: Keypair,
    pub(crate) transports: RwLock<Vec<Arc<dyn Transport>>>,
    pub(crate) limits: Limits,
    pub(crate) peer_store: PeerStore,
    /// There if what is known of peers is to outlive the node.
    pub(crate) keeper: Option<Keeper>,
    pub(crate) router: Router,
    pub(crate) events: EventSender,
    pub(crate) resources: Resources,
    pub(crate) connections: Mutex<Connections>,
    pub(crate) kept_peers: KeptPeers,
    pub(crate) tidier: Tidier,
    /// Changes with `connections` and with `expected_direct`.
    pub(crate) connection_changes: watch::Sender<()>,
    /// Guards per peer to which somebody makes a direct connection.
    pub(crate) expected_direct: Mutex<HashMap<PeerId, usize>>,
    pub(crate) listeners: Mutex<Listeners>,
    pub(crate) own_addresses: Mutex<OwnAddresses>,
    /// Listeners look at the machine's addresses when it changes.
    pub(crate) network_changes: watch::Sender<()>,
    pub(crate) dials: Mutex<Dials>,
    pub(crate) dial_slots: Semaphore,
    pub(crate) handshakes: Handshakes,
    pub(crate) gating: Gating,
    /// Handshakes, stream handlers and protocols. They hold this struct, so they must be ended, not waited for to end.
    pub(crate) tasks: TaskSet,
}

impl Shared {
    pub(crate) fn new(
        keypair: Keypair,
        transports: Vec<Arc<dyn Transport>>,
        limits: Limits,
        gating: Gating,
    ) -> Self {
        let events = EventSender::new();
        let seed =
            keypair.peer_id().to_bytes().iter().fold(0, |seed: u64, byte| seed << 8 | u64::from(*byte));
        Self {
            kept_peers: KeptPeers::new(seed),
            tidier: Tidier::default(),
            keypair,
            transports: RwLock::new(transports),
            peer_store: PeerStore::new(limits.stored_peers, events.clone()),
            keeper: None,
            router: Router::default(),
            resources: Resources::new(limits.resources.clone(), events.clone()),
            events,
            connections: Mutex::default(),
            connection_changes: watch::Sender::new(()),
            expected_direct: Mutex::default(),
            listeners: Mutex::default(),
            own_addresses: Mutex::default(),
            network_changes: watch::Sender::new(()),
            dials: Mutex::default(),
            dial_slots: Semaphore::new(limits.concurrent_dials),
            handshakes: Handshakes::new(
                limits.resources.transient.inbound_connections,
                limits.handshake_grace,
            ),
            gating,
            tasks: TaskSet::default(),
            limits,
        }
    }

    pub(crate) fn peer_id(&self) -> PeerId {
        self.keypair.peer_id()
    }

    /// The first transport that suits.
    pub(crate) fn transport(&self, suits: impl Fn(&dyn Transport) -> bool) -> Option<Arc<dyn Transport>> {
        self.transports.read().iter().find(|transport| suits(&***transport)).cloned()
    }

    fn handle(&self, protocol: ProtocolName, handler: Handler, on_limited: bool) -> Result<(), HandleError> {
        self.router.insert(protocol, handler, on_limited, self.limits.protocols)?;
        self.events.emit(NodeEvent::ProtocolsChanged);
        Ok(())
    }

    pub(crate) fn open_stream(
        self: Arc<Self>,
        target: StreamTarget,
        protocols: Vec<ProtocolName>,
        on_limited: bool,
    ) -> BoxFuture<'static, Result<OpenedStream, OpenStreamError>> {
        boxed(async move {
            let (info, connection, stream_use) = self.choose(target, &protocols, on_limited).await?;
            let stream_use = stream_use.of(&protocols);
            let (peer, deadline) = (info.peer, self.limits.negotiation_timeout);
            let refused = |source| OpenStreamError::LimitExceeded { peer, source };
            let mut resources = match &*protocols {
                [protocol] => self.resources.stream_for(&info, Direction::Outbound, protocol),
                _ => self.resources.stream(&info, Direction::Outbound),
            }
            .map_err(refused)?;
            drop(self);
            // The stream first, without a deadline of its own: waiting for the remote's stream limit is backpressure.
            let stream = connection.open_stream().await.map_err(OpenStreamError::ConnectionLost)?;
            match await_remote(deadline, negotiate_outbound(stream, &protocols)).await {
                Ok(Ok(mut stream)) => {
                    if protocols.len() > 1 {
                        resources.negotiated(stream.protocol()).map_err(refused)?;
                    }
                    stream.attach(resources);
                    if let Some(stream_use) = stream_use {
                        stream.attach(stream_use);
                    }
                    Ok(OpenedStream { stream, connection: info })
                }
                Ok(Err(source)) => Err(OpenStreamError::Negotiation { peer, source }),
                Err(_) => Err(OpenStreamError::TimedOut { peer }),
            }
        })
    }

    /// The connection for a stream; waits for a direct one that is being made if there is no other to use.
    async fn choose(
        &self,
        target: StreamTarget,
        protocols: &[ProtocolName],
        on_limited: bool,
    ) -> Result<(ConnectionInfo, Arc<dyn Connection>, StreamUse), OpenStreamError> {
        let mut changes = self.connection_changes.subscribe();
        loop {
            changes.borrow_and_update();
            let connection = self.connections.lock().use_for_stream(target);
            let (info, connection, stream_use) = connection.ok_or(match target {
                StreamTarget::Peer(peer) => OpenStreamError::NotConnected { peer },
                StreamTarget::Connection(connection) => OpenStreamError::ConnectionClosed { connection },
            })?;
            if on_limited || !info.is_limited() {
                return Ok((info, connection, stream_use));
            }
            let waits = matches!(target, StreamTarget::Peer(_)) && self.expects_direct(info.peer);
            if !waits || changes.changed().await.is_err() {
                let protocol = protocols.first().cloned().unwrap_or(NO_PROTOCOL);
                return Err(OpenStreamError::Limited { peer: info.peer, protocol });
            }
        }
    }

    async fn close_connections(&self, connections: Vec<(ConnectionId, Arc<dyn Connection>)>) {
        let goodbyes = join_all(connections.iter().map(|(_, connection)| connection.close()));
        // A remote that does not take our goodbye is left without one.
        let _ = timeout(self.limits.close_timeout, goodbyes).await;
        for (id, _) in connections {
            self.remove_connection(id, Arc::new(ConnectionError::ClosedLocally));
        }
    }

    /// Writes what is learnt of peers to storage, if there is any, for as long as the node lives.
    pub(crate) fn keep_peers(self: &Arc<Self>) {
        let shared = self.clone();
        if self.keeper.is_some() {
            self.tasks.spawn(async move {
                if let Some(keeper) = &shared.keeper {
                    keeper.run(&shared.peer_store).await;
                }
            });
        }
    }

    async fn save_peers(&self) {
        let Some(keeper) = &self.keeper else { return };
        match timeout(self.limits.close_timeout, keeper.flush(&self.peer_store)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "what was learnt of peers of late is not kept"),
            Err(_) => tracing::warn!("what was learnt of peers of late may not be kept: storage is too slow"),
        }
    }

    /// Ends everything at once. What the tasks hold of this struct goes with them.
    fn shut_down(&self) {
        self.listeners.lock().close();
        let left = self.connections.lock().refuse_further();
        self.kept_peers.close();
        self.tidier.close();
        for (id, _) in left {
            self.remove_connection(id, Arc::new(ConnectionError::ClosedLocally));
        }
        self.router.clear();
        if let Some(keeper) = &self.keeper {
            keeper.release();
        }
        self.tasks.close();
        self.events.close();
    }
}
