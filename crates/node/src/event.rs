use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    pin::pin,
    sync::Arc,
    time::Duration,
};

use futures_util::stream::{self, Stream};
use parking_lot::Mutex;
use peerloom_core::{
    ConnectionError, HandshakeError, ListenError, Multiaddr, PeerId, ProtocolName, runtime::MaybeSend,
};
use tokio::sync::Notify;

use crate::{
    addresses::Reachability,
    connections::{ConnectionInfo, LostReason},
    dial::ConnectError,
    gating::Denied,
    resources::LimitExceeded,
};

/// Something that changed in a node.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum NodeEvent {
    /// A connection is ready for streams.
    ConnectionEstablished {
        /// The connection.
        connection: ConnectionInfo,
        /// Whether it is the only one to this peer: the peer has come.
        first: bool,
    },
    /// A connection is over.
    ConnectionClosed {
        /// The connection.
        connection: ConnectionInfo,
        /// Why.
        reason: Arc<ConnectionError>,
        /// Whether none to this peer is left: the peer has gone.
        last: bool,
    },
    /// A direct connection has come beside one through a relay. New streams take it; the relayed one is closed once it is idle.
    ConnectionUpgraded {
        /// The connection that was the best so far.
        relayed: ConnectionInfo,
        /// The one that is the best now.
        direct: ConnectionInfo,
    },
    /// A relay has reserved a place for this node: it can be reached there.
    RelayReserved {
        /// The relay.
        relay: PeerId,
        /// For how long, if it is not renewed. It will be.
        expires_in: Duration,
        /// The addresses to give to other peers, with `/p2p/…`.
        addresses: Vec<Multiaddr>,
        /// Whether there was a reservation before this one, without a gap.
        renewed: bool,
    },
    /// A reservation is gone, or was not had again.
    RelayLost {
        /// The relay.
        relay: PeerId,
        /// Why.
        reason: String,
        /// When it is asked for again; `None` if never.
        retry_in: Option<Duration>,
    },
    /// There is no connection to a peer that is kept: it was lost, or was not had again. Once it is, that is a
    /// [`ConnectionEstablished`](Self::ConnectionEstablished).
    KeptPeerLost {
        /// The peer.
        peer: PeerId,
        /// Why.
        reason: LostReason,
        /// When the next attempt comes, if not before: [`Node::resumed`](crate::Node::resumed) makes it come at once.
        retry_in: Duration,
    },
    /// This machine was asleep, the page was frozen, or the network is another one. What was known to work may not.
    Resumed,
    /// The [`PeerStore`](crate::PeerStore) has new details of a peer; identify has told them, for example.
    PeerUpdated {
        /// The peer.
        peer: PeerId,
    },
    /// A peer has told what it handles, or that it handles other protocols now. Of a peer that has just come, all of its
    /// protocols are `added`, also if they were known from an earlier time: so whoever waits for peers that speak a protocol
    /// hears of each of them, once for each time that it comes, and need not know who found out.
    PeerProtocolsChanged {
        /// The peer.
        peer: PeerId,
        /// What it handles from now on, at most [`MAX_PROTOCOLS`](crate::identify::MAX_PROTOCOLS).
        added: Vec<ProtocolName>,
        /// What it handles no longer.
        removed: Vec<ProtocolName>,
    },
    /// A dial by this node failed.
    DialFailed {
        /// The peer, where the target named one.
        peer: Option<PeerId>,
        /// Why.
        error: Arc<ConnectError>,
    },
    /// Somebody dialed us, and no connection came of it.
    IncomingFailed {
        /// Where it came from.
        remote_address: Multiaddr,
        /// Why.
        error: Arc<HandshakeError>,
    },
    /// Somebody dialed us and may not pass: see [`Gating`](crate::Gating).
    IncomingDenied {
        /// Who or what, and why.
        denied: Denied,
    },
    /// A remote was refused a connection or a stream, because a limit of this node is reached. Told once a second at most of
    /// each kind of scope and resource.
    IncomingRefused {
        /// The limit.
        error: LimitExceeded,
        /// How many more were refused for the same kind of scope and resource since it was told of last.
        untold: u64,
    },
    /// The addresses to give to other peers are other ones now.
    ListenAddressesChanged {
        /// All of them.
        addresses: Vec<Multiaddr>,
    },
    /// Whether others reach one of this node's own addresses is known now, or known to be otherwise.
    ReachabilityChanged {
        /// The address, without `/p2p/…`.
        address: Multiaddr,
        /// Whether they do.
        reachability: Reachability,
    },
    /// A listener ended by itself.
    ListenerFailed {
        /// Why.
        error: Arc<ListenError>,
    },
    /// The set of protocols that this node handles is another one now.
    ProtocolsChanged,
    /// The reader was too slow, and this many events are lost to it. State is to be read anew.
    Lagged {
        /// How many.
        missed: u64,
    },
}

/// For logs.
impl fmt::Display for NodeEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ConnectionEstablished { connection, .. } => {
                write!(f, "connected to {} at {}", connection.peer, connection.remote_address)
            }
            Self::ConnectionClosed { connection, reason, .. } => {
                write!(
                    f,
                    "connection to {} at {} is over: {reason}",
                    connection.peer, connection.remote_address
                )
            }
            Self::ConnectionUpgraded { relayed, direct } => {
                write!(
                    f,
                    "{} no longer takes {}, but {}",
                    direct.peer, relayed.remote_address, direct.remote_address
                )
            }
            Self::RelayReserved { relay, expires_in, .. } => {
                write!(f, "{relay} relays for {} s", expires_in.as_secs())
            }
            Self::RelayLost { relay, reason, .. } => write!(f, "{relay} relays no longer: {reason}"),
            Self::KeptPeerLost { peer, reason, retry_in } => {
                write!(f, "{peer} is dialed again in {} ms: {reason}", retry_in.as_millis())
            }
            Self::Resumed => f.write_str("back from a sleep, or in another network"),
            Self::PeerUpdated { peer } => write!(f, "more is known of {peer}"),
            Self::PeerProtocolsChanged { peer, added, removed } => {
                write!(f, "{peer} handles {} more protocols, and {} no longer", added.len(), removed.len())
            }
            Self::DialFailed { error, .. } => write!(f, "dial failed: {error}"),
            Self::IncomingFailed { remote_address, error } => {
                write!(f, "nothing came of a connection from {remote_address}: {error}")
            }
            Self::IncomingDenied { denied } => denied.fmt(f),
            Self::IncomingRefused { error, untold } => {
                write!(f, "refused: {error}")?;
                match untold {
                    0 => Ok(()),
                    untold => write!(f, " ({untold} more before it)"),
                }
            }
            Self::ListenAddressesChanged { addresses } => {
                f.write_str("listening on")?;
                addresses.iter().try_for_each(|address| write!(f, " {address}"))
            }
            Self::ReachabilityChanged { address, reachability } => match reachability {
                Reachability::Reachable => write!(f, "others reach {address}"),
                Reachability::Unreachable => write!(f, "others do not reach {address}"),
                Reachability::Unknown => write!(f, "whether others reach {address} is no longer known"),
            },
            Self::ListenerFailed { error } => write!(f, "listener ended: {error}"),
            Self::ProtocolsChanged => f.write_str("other protocols are handled now"),
            Self::Lagged { missed } => write!(f, "{missed} events were missed"),
        }
    }
}

/// Events that a reader may lag behind before the oldest are lost to it.
const EVENT_BACKLOG: usize = 1024;

/// The memory that a backlog keeps once everybody has read it: enough for what comes in a burst every now and then.
const KEPT_CAPACITY: usize = 16;

/// A reader of a node's events, from the moment of [`Node::events`](crate::Node::events) on.
#[derive(Debug)]
pub struct Events {
    channel: Arc<Channel>,
    reader: u64,
}

impl Events {
    /// The next event; `None` once the node is closed. Cancel-safe.
    pub async fn next(&mut self) -> Option<NodeEvent> {
        loop {
            // Asked for before the backlog is looked at, so that nothing comes in between.
            let mut news = pin!(self.channel.news.notified());
            news.as_mut().enable();
            if let Some(read) = self.channel.read(self.reader) {
                return read;
            }
            news.await;
        }
    }

    /// The same events as a [`Stream`], for code that wants one. It ends once the node is closed.
    pub fn into_stream(self) -> impl Stream<Item = NodeEvent> + MaybeSend + Unpin + 'static {
        Box::pin(stream::unfold(self, async |mut events| Some((events.next().await?, events))))
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        let mut state = self.channel.state.lock();
        state.readers.remove(&self.reader);
        state.forget_read();
    }
}

/// The writing end.
#[derive(Debug, Clone, Default)]
pub(crate) struct EventSender(Arc<Channel>);

/// From the one node to all of its readers. There is room for what the slowest of them has not read yet, and none set aside:
/// most nodes never have more than a few events that somebody still has to read.
#[derive(Debug, Default)]
struct Channel {
    state: Mutex<State>,
    news: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// The oldest first.
    backlog: VecDeque<Arc<NodeEvent>>,
    /// How many there were before the first of them.
    before: u64,
    /// How many each reader has behind it.
    readers: BTreeMap<u64, u64>,
    next_reader: u64,
    closed: bool,
}

impl EventSender {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn emit(&self, event: NodeEvent) {
        tracing::debug!("{event}");
        let mut state = self.0.state.lock();
        if state.closed || state.readers.is_empty() {
            return;
        }
        if state.backlog.len() >= EVENT_BACKLOG {
            state.backlog.pop_front();
            state.before = state.before.saturating_add(1);
        }
        state.backlog.push_back(Arc::new(event));
        drop(state);
        self.0.news.notify_waiters();
    }

    pub(crate) fn subscribe(&self) -> Events {
        let mut state = self.0.state.lock();
        let reader = state.next_reader;
        state.next_reader = reader.wrapping_add(1);
        let end = state.end();
        state.readers.insert(reader, end);
        Events { channel: self.0.clone(), reader }
    }

    /// Readers see the end once they have read what there is.
    pub(crate) fn close(&self) {
        self.0.state.lock().closed = true;
        self.0.news.notify_waiters();
    }
}

impl Channel {
    /// What `reader` has to be given: an event, or the end. `None` if there is nothing new.
    fn read(&self, reader: u64) -> Option<Option<NodeEvent>> {
        let mut state = self.state.lock();
        let (before, end) = (state.before, state.end());
        let position = state.readers.get_mut(&reader)?;
        if *position < before {
            let missed = before.saturating_sub(*position);
            *position = before;
            return Some(Some(NodeEvent::Lagged { missed }));
        }
        if *position >= end {
            return state.closed.then_some(None);
        }
        let at = usize::try_from(position.saturating_sub(before)).unwrap_or(usize::MAX);
        *position = position.saturating_add(1);
        let event = state.backlog.get(at).cloned();
        if at == 0 {
            state.forget_read();
        }
        drop(state);
        // Whoever reads it last need not copy it.
        Some(event.map(Arc::unwrap_or_clone))
    }
}

impl State {
    fn end(&self) -> u64 {
        self.before.saturating_add(self.backlog.len() as u64)
    }

    /// Forgets what every reader has behind it.
    fn forget_read(&mut self) {
        let unread = self.readers.values().copied().min().unwrap_or_else(|| self.end());
        while self.before < unread && self.backlog.pop_front().is_some() {
            self.before = self.before.saturating_add(1);
        }
        if self.backlog.is_empty() && self.backlog.capacity() > KEPT_CAPACITY {
            self.backlog = VecDeque::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{FutureExt as _, StreamExt as _};

    use super::*;

    fn event(number: u64) -> NodeEvent {
        NodeEvent::Lagged { missed: number }
    }

    fn next(events: &mut Events) -> Option<u64> {
        match events.next().now_or_never() {
            Some(Some(NodeEvent::Lagged { missed })) => Some(missed),
            Some(other) => panic!("{other:?}"),
            None => None,
        }
    }

    #[tokio::test]
    async fn the_stream_of_events_has_them_all_and_ends_with_the_node() {
        let sender = EventSender::new();
        let mut events = sender.subscribe().into_stream();
        sender.emit(NodeEvent::ProtocolsChanged);
        sender.emit(NodeEvent::Lagged { missed: 3 });
        sender.close();
        assert!(matches!(events.next().await, Some(NodeEvent::ProtocolsChanged)));
        assert!(matches!(events.next().await, Some(NodeEvent::Lagged { missed: 3 })));
        assert!(events.next().await.is_none());
        assert!(sender.subscribe().next().await.is_none(), "a closed node's reader sees the end at once");
    }

    #[test]
    fn each_reader_has_the_events_since_it_came_in_their_order() {
        let sender = EventSender::new();
        let mut first = sender.subscribe();
        sender.emit(event(1));
        let mut second = sender.subscribe();
        sender.emit(event(2));
        assert_eq!([next(&mut first), next(&mut first), next(&mut first)], [Some(1), Some(2), None]);
        sender.emit(event(3));
        assert_eq!([next(&mut second), next(&mut second), next(&mut second)], [Some(2), Some(3), None]);
        assert_eq!([next(&mut first), next(&mut first)], [Some(3), None]);
    }

    #[test]
    fn a_reader_that_lags_is_told_how_many_it_missed_and_holds_up_nobody() {
        let sender = EventSender::new();
        let (mut slow, mut fast) = (sender.subscribe(), sender.subscribe());
        let all = EVENT_BACKLOG as u64 + 5;
        for number in 0..all {
            sender.emit(event(number));
            assert_eq!(next(&mut fast), Some(number));
        }
        assert_eq!(next(&mut slow), Some(5), "it lags by five");
        for number in 5..all {
            assert_eq!(next(&mut slow), Some(number));
        }
        assert_eq!(next(&mut slow), None);
    }

    #[test]
    fn only_what_somebody_has_not_read_takes_memory() {
        let sender = EventSender::new();
        sender.emit(event(0));
        let backlog = || {
            let state = sender.0.state.lock();
            (state.backlog.len(), state.backlog.capacity())
        };
        assert_eq!(backlog(), (0, 0), "nobody reads");
        let (slow, mut fast) = (sender.subscribe(), sender.subscribe());
        for number in 0..EVENT_BACKLOG as u64 {
            sender.emit(event(number));
            next(&mut fast);
        }
        assert_eq!(backlog().0, EVENT_BACKLOG);
        drop(slow);
        assert_eq!(backlog(), (0, 0));
    }

    #[tokio::test]
    async fn a_reader_that_waits_is_woken_and_an_abandoned_wait_loses_nothing() {
        let sender = EventSender::new();
        let mut events = sender.subscribe();
        assert!(events.next().now_or_never().is_none());
        let (read, ()) = tokio::join!(events.next(), async { sender.emit(event(7)) });
        assert!(matches!(read, Some(NodeEvent::Lagged { missed: 7 })));
        let (end, ()) = tokio::join!(events.next(), async { sender.close() });
        assert!(end.is_none());
    }
}
