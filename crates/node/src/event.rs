use std::{fmt, sync::Arc, time::Duration};

use futures_util::stream::{self, Stream};
use peerloom_core::{ConnectionError, HandshakeError, ListenError, Multiaddr, PeerId, runtime::MaybeSend};
use tokio::sync::broadcast;

use crate::{addresses::Reachability, connections::ConnectionInfo, dial::ConnectError};

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
    /// The [`PeerStore`](crate::PeerStore) has new details of a peer; identify has told them, for example.
    PeerUpdated {
        /// The peer.
        peer: PeerId,
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
            Self::PeerUpdated { peer } => write!(f, "more is known of {peer}"),
            Self::DialFailed { error, .. } => write!(f, "dial failed: {error}"),
            Self::IncomingFailed { remote_address, error } => {
                write!(f, "nothing came of a connection from {remote_address}: {error}")
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

/// A reader of a node's events, from the moment of [`Node::events`](crate::Node::events) on.
#[derive(Debug)]
pub struct Events(broadcast::Receiver<NodeEvent>);

impl Events {
    /// The next event; `None` once the node is closed. Cancel-safe.
    pub async fn next(&mut self) -> Option<NodeEvent> {
        match self.0.recv().await {
            Ok(event) => Some(event),
            Err(broadcast::error::RecvError::Lagged(missed)) => Some(NodeEvent::Lagged { missed }),
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }

    /// The same events as a [`Stream`], for code that wants one. It ends once the node is closed.
    pub fn into_stream(self) -> impl Stream<Item = NodeEvent> + MaybeSend + Unpin + 'static {
        Box::pin(stream::unfold(self, async |mut events| Some((events.next().await?, events))))
    }
}

/// The writing end, gone once the node is closed.
#[derive(Debug, Clone)]
pub(crate) struct EventSender(Arc<parking_lot::Mutex<Option<broadcast::Sender<NodeEvent>>>>);

impl EventSender {
    pub(crate) fn new() -> Self {
        Self(Arc::new(parking_lot::Mutex::new(Some(broadcast::Sender::new(EVENT_BACKLOG)))))
    }

    pub(crate) fn emit(&self, event: NodeEvent) {
        tracing::debug!("{event}");
        if let Some(sender) = &*self.0.lock() {
            // An error only says that nobody listens.
            let _ = sender.send(event);
        }
    }

    pub(crate) fn subscribe(&self) -> Events {
        match &*self.0.lock() {
            Some(sender) => Events(sender.subscribe()),
            // A closed node's reader sees the end at once.
            None => Events(broadcast::Sender::new(1).subscribe()),
        }
    }

    pub(crate) fn close(&self) {
        self.0.lock().take();
    }
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt as _;

    use super::*;

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
    }
}
