//! `/ipfs/id/1.0.0` and `/ipfs/id/push/1.0.0`: who a peer is, where it listens and what it handles. libp2p spec,
//! identify/README.md.
//!
//! Every connection is identified once, both ways; when this node's addresses or protocols change, it pushes the news.
//! What is learnt goes into the [`PeerStore`].

#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod message;
mod push_limit;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::BytesMut;
use peerloom_core::{
    PeerId, PeerRecord, PeerRecordError, ProtocolName, StreamError, StreamExt,
    framing::{FramingError, MessageStream},
    multistream_select::NegotiatedStream,
    runtime::{sleep, timeout},
};

pub use self::message::{
    Identification, MAX_ADDRESSES, MAX_MESSAGE_LENGTH, MAX_MESSAGES, MAX_PROTOCOLS, MAX_VERSION_LENGTH,
    MessageError,
};
use self::push_limit::PushLimit;
use crate::{
    connections::ConnectionInfo,
    event::NodeEvent,
    node::{Node, OpenStreamError, WeakNode},
    peer_store::PeerStore,
    router::HandleError,
    wall_clock::unix_millis,
};

/// The name of the protocol that asks.
pub const PROTOCOL: &str = "/ipfs/id/1.0.0";
/// The name of the protocol that tells unasked.
pub const PUSH_PROTOCOL: &str = "/ipfs/id/push/1.0.0";
/// How long one exchange may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Changes that come within this time of the first are pushed together.
const PUSH_DELAY: Duration = Duration::from_millis(100);

/// What a node tells of itself beside its addresses and protocols.
#[derive(Debug, Clone)]
pub struct IdentifyConfig {
    /// The network, by whatever name its peers know it.
    pub protocol_version: String,
    /// The software and its version.
    pub agent_version: String,
}

impl Default for IdentifyConfig {
    fn default() -> Self {
        Self {
            protocol_version: "ipfs/0.1.0".to_owned(),
            agent_version: concat!("peerloom/", env!("CARGO_PKG_VERSION")).to_owned(),
        }
    }
}

/// Why a peer was not identified.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IdentifyError {
    /// No stream for it.
    #[error(transparent)]
    Open(#[from] OpenStreamError),
    /// A message was too long or cut short.
    #[error("identify: {0}")]
    Framing(#[from] FramingError),
    /// The stream broke.
    #[error("identify: {0}")]
    Stream(#[from] StreamError),
    /// What came was no identify message.
    #[error("identify: {0}")]
    Message(#[from] MessageError),
    /// There were more than [`MAX_MESSAGES`].
    #[error("identify: more than {MAX_MESSAGES} messages")]
    TooManyMessages,
    /// The peer tells another's key.
    #[error("identify: {peer} sent the key of {named}")]
    WrongKey {
        /// The peer of the connection.
        peer: PeerId,
        /// The peer whose key it is.
        named: PeerId,
    },
    /// The signed record is not one.
    #[error("identify: signed peer record: {0}")]
    Record(#[from] PeerRecordError),
    /// The peer tells another's record.
    #[error("identify: {peer} sent the record of {named}")]
    WrongRecord {
        /// The peer of the connection.
        peer: PeerId,
        /// The peer whose record it is.
        named: PeerId,
    },
    /// It took longer than 10 s.
    #[error("identify: timed out")]
    TimedOut,
    /// The node is closed.
    #[error("identify: the node is closed")]
    NodeClosed,
}

/// Answers, asks on every new connection, and pushes on every change.
pub(crate) fn start(node: &Node, config: IdentifyConfig) -> Result<(), HandleError> {
    let identify =
        Arc::new(Identify { node: node.downgrade(), config, sequence: AtomicU64::new(unix_millis()) });
    let pushes = Arc::new(PushLimit::default());

    let answering = identify.clone();
    node.handle_on_limited(ProtocolName::from_static(PROTOCOL), move |incoming| {
        let identify = answering.clone();
        async move {
            let peer = incoming.connection.peer;
            let telling = async { identify.tell(incoming.stream, &incoming.connection).await };
            if let Err(error) = timeout(TIMEOUT, telling).await.unwrap_or(Err(IdentifyError::TimedOut)) {
                tracing::debug!(%peer, %error, "did not tell a peer who we are");
            }
        }
    })?;

    let (hearing, limit) = (identify.clone(), pushes.clone());
    node.handle_on_limited(ProtocolName::from_static(PUSH_PROTOCOL), move |incoming| {
        let (identify, allowed) = (hearing.clone(), limit.allow(incoming.connection.peer));
        async move {
            let peer = incoming.connection.peer;
            if !allowed {
                tracing::debug!(%peer, "too many identify pushes");
                return;
            }
            if let Err(error) = identify.hear_in_time(incoming.stream, &incoming.connection).await {
                tracing::debug!(%peer, %error, "identify push was refused");
            }
        }
    })?;

    // From before the first connection on, so that none goes unidentified.
    let mut events = node.events();
    node.spawn(async move {
        while let Some(event) = events.next().await {
            match event {
                NodeEvent::ConnectionEstablished { connection, .. } => identify.spawn_ask(connection),
                NodeEvent::ConnectionClosed { connection, last: true, .. } => pushes.forget(connection.peer),
                NodeEvent::ListenAddressesChanged { .. } | NodeEvent::ProtocolsChanged => {
                    identify.spawn_push()
                }
                NodeEvent::Lagged { .. } => identify.spawn_ask_unidentified(),
                _ => {}
            }
        }
    });
    Ok(())
}

struct Identify {
    node: WeakNode,
    config: IdentifyConfig,
    /// Of our own record: greater with every change, and, because it is no less than the time of day, after a restart.
    sequence: AtomicU64,
}

impl Identify {
    fn spawn_ask(self: &Arc<Self>, connection: ConnectionInfo) {
        let Some(node) = self.node.upgrade() else { return };
        let identify = self.clone();
        node.spawn(async move {
            if let Err(error) = identify.ask(&connection).await {
                tracing::debug!(peer = %connection.peer, %error, "peer was not identified");
            }
        });
    }

    /// After lost events: whoever is connected and unknown is asked.
    fn spawn_ask_unidentified(self: &Arc<Self>) {
        let Some(node) = self.node.upgrade() else { return };
        for connection in node.connections() {
            if !node.peer_store().is_introduced(connection.peer) {
                self.spawn_ask(connection);
            }
        }
    }

    async fn ask(&self, connection: &ConnectionInfo) -> Result<(), IdentifyError> {
        // The node itself is not held while the remote takes its time.
        let opening = self
            .node
            .upgrade()
            .ok_or(IdentifyError::NodeClosed)?
            .open_stream_on_limited(connection.id, &[ProtocolName::from_static(PROTOCOL)]);
        let asking = async {
            let mut stream = opening.await?;
            // We have nothing to say; and this sends the lazily negotiated protocol's name. Remotes that do not wait for our
            // end, once they have told, want nothing more of us; if it was not that, reading fails as well.
            let _ = stream.close_write().await;
            self.hear(stream, connection).await
        };
        timeout(TIMEOUT, asking).await.unwrap_or(Err(IdentifyError::TimedOut))
    }

    async fn hear_in_time(
        &self,
        stream: NegotiatedStream,
        connection: &ConnectionInfo,
    ) -> Result<(), IdentifyError> {
        timeout(TIMEOUT, self.hear(stream, connection)).await.unwrap_or(Err(IdentifyError::TimedOut))
    }

    async fn hear(&self, stream: NegotiatedStream, connection: &ConnectionInfo) -> Result<(), IdentifyError> {
        let mut stream = MessageStream::new(stream, MAX_MESSAGE_LENGTH);
        let mut messages = BytesMut::new();
        let mut count = 0_usize;
        while let Some(message) = stream.read().await? {
            if count >= MAX_MESSAGES {
                return Err(IdentifyError::TooManyMessages);
            }
            count = count.saturating_add(1);
            messages.extend_from_slice(&message);
        }
        // The remote may wait for our half as well.
        let _ = stream.close_write().await;
        let identification = Identification::decode(messages)?;
        let peer = connection.peer;
        let verified = verify(&identification, peer).await?;
        let node = self.node.upgrade().ok_or(IdentifyError::NodeClosed)?;
        #[cfg(not(target_arch = "wasm32"))]
        if let Some(seen) = &identification.observed_address {
            node.shared().observed(connection, seen);
        }
        store(node.peer_store(), peer, identification, verified);
        Ok(())
    }

    async fn tell(&self, stream: NegotiatedStream, connection: &ConnectionInfo) -> Result<(), IdentifyError> {
        let messages = self.identification(Some(connection)).ok_or(IdentifyError::NodeClosed)?.encode();
        let mut stream = MessageStream::new(stream, MAX_MESSAGE_LENGTH);
        for message in messages {
            stream.write(&message).await?;
        }
        stream.close_write().await?;
        // Up to the remote's end: to drop a stream before it tells the remote to stop sending, upon which Firefox throws
        // away what it has received and not yet read.
        while stream.read().await?.is_some() {}
        Ok(())
    }

    /// Who we are, to the remote of this connection.
    fn identification(&self, connection: Option<&ConnectionInfo>) -> Option<Identification> {
        let node = self.node.upgrade()?;
        let remote = connection.map(|connection| &connection.remote_address);
        let addresses = node.shared().own_addresses.lock().told_to(remote);
        let record = PeerRecord::seal(node.keypair(), self.sequence.load(Ordering::Relaxed), &addresses);
        Some(Identification {
            public_key: Some(node.keypair().public().clone()),
            listen_addresses: addresses,
            protocols: node.protocols(),
            observed_address: connection.map(|connection| connection.remote_address.clone()),
            protocol_version: Some(self.config.protocol_version.clone()),
            agent_version: Some(self.config.agent_version.clone()),
            signed_record: Some(record),
        })
    }

    fn spawn_push(self: &Arc<Self>) {
        let Some(node) = self.node.upgrade() else { return };
        // The first change of a burst starts the push; those that find one waiting are in it.
        let next = self.sequence.load(Ordering::Relaxed).saturating_add(1).max(unix_millis());
        self.sequence.store(next, Ordering::Relaxed);
        let identify = self.clone();
        node.spawn(async move {
            sleep(PUSH_DELAY).await;
            if identify.sequence.load(Ordering::Relaxed) == next {
                identify.push_to_all();
            }
        });
    }

    fn push_to_all(self: &Arc<Self>) {
        let Some(node) = self.node.upgrade() else { return };
        let push = ProtocolName::from_static(PUSH_PROTOCOL);
        let mut told = std::collections::HashSet::new();
        for connection in node.connections() {
            if !node.peer_store().supports(connection.peer, &push) || !told.insert(connection.peer) {
                continue;
            }
            let identify = self.clone();
            let opening = node.open_stream_on_limited(connection.id, std::slice::from_ref(&push));
            node.spawn(async move {
                let pushing = async { identify.tell(opening.await?, &connection).await };
                if let Err(error) = timeout(TIMEOUT, pushing).await.unwrap_or(Err(IdentifyError::TimedOut)) {
                    tracing::debug!(peer = %connection.peer, %error, "identify push failed");
                }
            });
        }
    }
}

/// The signer is the record's peer is the connection's peer, or nothing of the message counts.
async fn verify(told: &Identification, peer: PeerId) -> Result<Option<PeerRecord>, IdentifyError> {
    if let Some(named) = told.public_key.as_ref().map(|key| key.peer_id())
        && named != peer
    {
        return Err(IdentifyError::WrongKey { peer, named });
    }
    let Some(envelope) = &told.signed_record else { return Ok(None) };
    let record = PeerRecord::open(envelope).await?;
    match record.peer_id == peer {
        true => Ok(Some(record)),
        false => Err(IdentifyError::WrongRecord { peer, named: record.peer_id }),
    }
}

fn store(peers: &PeerStore, peer: PeerId, told: Identification, record: Option<PeerRecord>) {
    match (told.signed_record, record) {
        // An older record is a replay or came the longer way.
        (Some(envelope), Some(record)) => drop(peers.certify(envelope, &record)),
        _ if told.listen_addresses.is_empty() => {}
        _ => peers.set_told_addresses(peer, &told.listen_addresses),
    }
    peers.update(peer, |details| {
        // In a push, what is absent is unchanged; in an answer everything is there.
        if !told.protocols.is_empty() {
            details.protocols = told.protocols;
        }
        details.public_key = told.public_key.or(details.public_key.take());
        details.agent_version = told.agent_version.or(details.agent_version.take());
        details.protocol_version = told.protocol_version.or(details.protocol_version.take());
        details.observed_address = told.observed_address.or(details.observed_address.take());
    });
}
