//! Dials the peers that are to be kept, and finds out after a sleep whether they are still there.

use std::{collections::BTreeSet, fmt, pin::pin, sync::Arc, time::Duration};

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use parking_lot::Mutex;
use peerloom_core::{
    ConnectionError, Multiaddr, PeerId, ProtocolName,
    runtime::{BoxFuture, Instant, Task, await_remote, sleep, sleep_until, spawn},
};
use tokio::sync::Notify;

use super::{
    ConnectionId,
    keep::{Keep, MAX_KEPT_PEERS},
};
use crate::{
    dial::{ConnectError, DialTarget, peer_of},
    event::NodeEvent,
    node::{Shared, StreamTarget},
    peer_store::{Tag, TagError},
    ping::{self, PingError, Pinger},
};

/// What kept peers are tagged and protected with.
const REASON: &str = "keep";
/// The weight of that tag.
const WEIGHT: i64 = 100;
/// After a sleep, a connection on which nothing is answered for so long gets another one beside it.
const CHECK: Duration = Duration::from_secs(5);

/// Why a peer cannot be kept.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeepError {
    /// None of the addresses ends in `/p2p/…`.
    #[error("no address says which peer to keep")]
    NoPeer,
    /// The addresses are those of several peers.
    #[error(transparent)]
    SeveralPeers(ConnectError),
    /// The peer is this node itself.
    #[error("the peer to keep is this node itself")]
    ThisNode,
    /// [`MAX_KEPT_PEERS`] is reached.
    #[error("{MAX_KEPT_PEERS} peers are kept already")]
    TooMany,
    /// There is no room to protect it.
    #[error(transparent)]
    Tag(#[from] TagError),
}

/// Why there is no connection to a peer that is kept.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum LostReason {
    /// The last one ended.
    Connection(Arc<ConnectionError>),
    /// It could not be made again.
    Dial(Arc<ConnectError>),
}

impl fmt::Display for LostReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connection(error) => error.fmt(f),
            Self::Dial(error) => error.fmt(f),
        }
    }
}

/// The kept peers of a node, and the task that keeps them once there are some.
pub(crate) struct KeptPeers {
    keep: Mutex<Keep>,
    task: Mutex<Option<Task>>,
    news: Notify,
}

impl KeptPeers {
    /// `seed` is for the waits.
    pub(crate) fn new(seed: u64) -> Self {
        Self { keep: Mutex::new(Keep::new(seed)), task: Mutex::default(), news: Notify::new() }
    }

    pub(crate) fn peers(&self) -> Vec<PeerId> {
        self.keep.lock().peers()
    }

    /// There is a connection to a peer, at `address` if this node has dialed it.
    pub(crate) fn connected(&self, peer: PeerId, address: Option<&Multiaddr>) {
        self.keep.lock().connected(peer, address, Instant::now());
    }

    /// The last connection to a peer is over. If it is kept, when it is dialed again.
    pub(crate) fn lost(&self, peer: PeerId) -> Option<Duration> {
        let retry_in = self.keep.lock().lost(peer, Instant::now())?;
        self.news.notify_one();
        Some(retry_in)
    }

    pub(crate) fn close(&self) {
        let task = self.task.lock().take();
        drop(task);
    }
}

impl Shared {
    pub(crate) fn keep(self: &Arc<Self>, target: DialTarget) -> Result<PeerId, KeepError> {
        let (peer, addresses) = match target {
            DialTarget::Peer(peer) => (Some(peer), self.peer_store.addresses(peer)),
            DialTarget::Address(address) => (address.peer_id(), vec![address]),
            DialTarget::Addresses(addresses) => {
                (peer_of(&addresses).map_err(KeepError::SeveralPeers)?, addresses)
            }
        };
        let peer = peer.ok_or(KeepError::NoPeer)?;
        if peer == self.peer_id() {
            return Err(KeepError::ThisNode);
        }
        self.peer_store.tag(peer, REASON, Tag::new(WEIGHT))?;
        self.peer_store.protect(peer, REASON)?;
        let connections = self.connections.lock();
        if !self.kept_peers.keep.lock().add(peer, addresses, connections.is_connected(peer), Instant::now()) {
            drop(connections);
            self.release(peer);
            return Err(KeepError::TooMany);
        }
        let mut task = self.kept_peers.task.lock();
        if !connections.is_closed() && task.is_none() {
            *task = Some(spawn(keep_peers(self.clone())));
        }
        drop(task);
        drop(connections);
        self.kept_peers.news.notify_one();
        Ok(peer)
    }

    pub(crate) fn unkeep(&self, peer: PeerId) -> bool {
        let kept = self.kept_peers.keep.lock().remove(peer);
        if kept {
            self.release(peer);
        }
        kept
    }

    fn release(&self, peer: PeerId) {
        self.peer_store.untag(peer, REASON);
        self.peer_store.unprotect(peer, REASON);
    }

    pub(crate) fn resumed(&self) {
        self.events.emit(NodeEvent::Resumed);
        self.kept_peers.keep.lock().resume(Instant::now());
        self.kept_peers.news.notify_one();
    }

    /// Whether somebody answers on a connection that may have died while this machine was asleep or changed networks. If nobody
    /// does, the peer is connected to anew; and only once that has worked, the silent connection is closed.
    async fn check(self: Arc<Self>, peer: PeerId) {
        let Some((info, _)) = self.connections.lock().best(peer) else { return };
        let mut answer = pin!(answers(self.clone(), info.id));
        if await_remote(CHECK, &mut answer).await.is_ok() {
            return;
        }
        tracing::debug!(%peer, connection = %info.id, "no answer after a sleep; connecting anew");
        let redial = async {
            let dialed = self.dial_anew(DialTarget::Peer(peer)).await;
            // The other connection has the same time to answer once there is a network for certain.
            if dialed.is_ok() {
                sleep(CHECK).await;
            }
            dialed.is_ok()
        };
        tokio::select! {
            biased;
            () = answer => {}
            connected = redial => {
                if connected {
                    self.replace(info.id);
                }
            }
        }
    }
}

/// Ready when the remote has answered something on the connection, or the connection is over.
async fn answers(shared: Arc<Shared>, connection: ConnectionId) {
    let protocol = ProtocolName::from_static(ping::PROTOCOL);
    let opening = shared.open_stream(StreamTarget::Connection(connection), vec![protocol], true);
    let Ok(opened) = opening.await else { return };
    // Whatever else comes of it is an answer: that pings are not handled, for example.
    if matches!(Pinger::on(opened.stream).ping().await, Err(PingError::TimedOut)) {
        std::future::pending().await
    }
}

async fn keep_peers(shared: Arc<Shared>) {
    // Each tells the peer that it has checked, if it was a check.
    let mut running: FuturesUnordered<BoxFuture<'static, Option<PeerId>>> = FuturesUnordered::new();
    let mut checked = BTreeSet::new();
    loop {
        let step = shared.kept_peers.keep.lock().step(Instant::now());
        if step.slept {
            shared.events.emit(NodeEvent::Resumed);
        }
        let to_check = if step.check { shared.kept_peers.peers() } else { Vec::new() };
        for peer in to_check.into_iter().filter(|peer| checked.insert(*peer)) {
            let check = shared.clone().check(peer);
            running.push(Box::pin(async move {
                check.await;
                Some(peer)
            }));
        }
        for (peer, addresses) in step.dial {
            let dial = shared.clone().dial_kept(peer, addresses);
            running.push(Box::pin(async move {
                dial.await;
                None
            }));
        }
        tokio::select! {
            biased;
            Some(done) = running.next() => {
                checked.retain(|peer| Some(*peer) != done);
            }
            () = shared.kept_peers.news.notified() => {}
            () = sleep_until(step.until.unwrap_or_else(Instant::now)), if step.until.is_some() => {}
        }
    }
}

impl Shared {
    async fn dial_kept(self: Arc<Self>, peer: PeerId, addresses: Vec<Multiaddr>) {
        // Each time, because the peer store forgets what nobody has confirmed for long.
        for address in &addresses {
            self.peer_store.add_address(peer, address);
        }
        let Err(error) = self.dial(DialTarget::Peer(peer)).await else { return };
        let retry_in = self.kept_peers.keep.lock().failed(peer, Instant::now());
        if let Some(retry_in) = retry_in {
            let reason = LostReason::Dial(error);
            self.events.emit(NodeEvent::KeptPeerLost { peer, reason, retry_in });
        }
    }
}
