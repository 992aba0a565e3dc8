//! `/ipfs/ping/1.0.0`: is a peer there, and how far away. libp2p spec, ping/ping.md.

use std::{collections::HashMap, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use peerloom_core::{
    PeerId, ProtocolName, StreamError, StreamExt,
    multistream_select::NegotiatedStream,
    runtime::{Instant, await_remote, timeout},
};

use crate::{
    node::{Node, OpenStreamError, StreamTarget},
    router::HandleError,
};

/// The protocol's name.
pub const PROTOCOL: &str = "/ipfs/ping/1.0.0";
/// Bytes of one ping; the answer is the same bytes.
pub const PAYLOAD_LENGTH: usize = 32;
/// How long a ping waits for its answer.
pub const TIMEOUT: Duration = Duration::from_secs(20);
/// Streams that one peer may keep open to be answered on (ping spec: at most two).
const STREAMS_PER_PEER: u8 = 2;

/// Why a ping brought no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PingError {
    /// No stream for it.
    #[error(transparent)]
    Open(#[from] OpenStreamError),
    /// The stream broke.
    #[error("ping: {0}")]
    Stream(#[from] StreamError),
    /// The remote closed the stream instead of answering.
    #[error("ping: the remote closed the stream")]
    Closed,
    /// The answer was not the bytes sent.
    #[error("ping: the answer was not what was sent")]
    WrongAnswer,
    /// No answer within [`TIMEOUT`].
    #[error("ping: no answer within {} s", TIMEOUT.as_secs())]
    TimedOut,
    /// The operating system gave no random bytes.
    #[error("ping: no randomness: {0}")]
    Randomness(getrandom::Error),
}

/// Pings `target` once: the round-trip time, without that of opening the stream.
///
/// For more than one, keep a [`Pinger`].
pub async fn ping(node: &Node, target: impl Into<StreamTarget>) -> Result<Duration, PingError> {
    let mut pinger = Pinger::open(node, target).await?;
    let round_trip = pinger.ping().await?;
    pinger.close().await;
    Ok(round_trip)
}

/// One stream for any number of pings, one after the other.
pub struct Pinger {
    stream: NegotiatedStream,
    received: BytesMut,
    /// Whether the protocol's own negotiation is behind us.
    warm: bool,
}

impl Pinger {
    /// Opens the stream.
    pub async fn open(node: &Node, target: impl Into<StreamTarget>) -> Result<Self, PingError> {
        Ok(Self::on(node.open_stream_on_limited(target, &[ProtocolName::from_static(PROTOCOL)]).await?))
    }

    pub(crate) fn on(stream: NegotiatedStream) -> Self {
        Self { stream, received: BytesMut::new(), warm: false }
    }

    /// The round-trip time. After an error the stream is of no more use.
    pub async fn ping(&mut self) -> Result<Duration, PingError> {
        if !self.warm {
            // The first exchange also carries the lazy negotiation, which the remote may answer for apart.
            self.exchange().await?;
            self.warm = true;
        }
        self.exchange().await
    }

    /// Closes the stream in an orderly way.
    pub async fn close(mut self) {
        let _ = timeout(TIMEOUT, self.stream.close_write()).await;
    }

    async fn exchange(&mut self) -> Result<Duration, PingError> {
        await_remote(TIMEOUT, self.exchange_without_deadline()).await.unwrap_or(Err(PingError::TimedOut))
    }

    async fn exchange_without_deadline(&mut self) -> Result<Duration, PingError> {
        let mut payload = [0; PAYLOAD_LENGTH];
        getrandom::fill(&mut payload).map_err(PingError::Randomness)?;
        let start = Instant::now();
        self.stream.write_all(Bytes::copy_from_slice(&payload)).await?;
        self.stream.flush().await?;
        while self.received.len() < PAYLOAD_LENGTH {
            let chunk = self.stream.read_chunk().await?.ok_or(PingError::Closed)?;
            if chunk.len() > PAYLOAD_LENGTH {
                return Err(PingError::WrongAnswer);
            }
            self.received.extend_from_slice(&chunk);
        }
        let answer = self.received.split();
        if answer != payload.as_slice() {
            return Err(PingError::WrongAnswer);
        }
        Ok(start.elapsed())
    }
}

/// Answers the pings of other peers.
pub(crate) fn answer(node: &Node) -> Result<(), HandleError> {
    let open = Arc::new(OpenStreams::default());
    node.handle_on_limited(ProtocolName::from_static(PROTOCOL), move |incoming| {
        let place = open.clone().enter(incoming.connection.peer);
        async move {
            // One stream too many is reset by being dropped.
            let Some(_place) = place else { return };
            if let Err(error) = echo_payloads(incoming.stream).await {
                tracing::trace!(peer = %incoming.connection.peer, %error, "ping stream ended");
            }
        }
    })
}

async fn echo_payloads(mut stream: NegotiatedStream) -> Result<(), StreamError> {
    let mut received = BytesMut::new();
    while let Some(chunk) = stream.read_chunk().await? {
        // What is received is echoed as soon as it is whole, so less than a payload is ever kept.
        received.extend_from_slice(&chunk);
        let whole = received.len().saturating_sub(received.len() % PAYLOAD_LENGTH);
        stream.write_all(received.split_to(whole).freeze()).await?;
        stream.flush().await?;
    }
    stream.close_write().await
}

/// How many ping streams each peer has open to us.
#[derive(Default)]
struct OpenStreams(Mutex<HashMap<PeerId, u8>>);

struct Place {
    open: Arc<OpenStreams>,
    peer: PeerId,
}

impl OpenStreams {
    fn enter(self: Arc<Self>, peer: PeerId) -> Option<Place> {
        {
            let mut counts = self.0.lock();
            let count = counts.entry(peer).or_insert(0);
            if *count >= STREAMS_PER_PEER {
                return None;
            }
            *count = count.saturating_add(1);
        }
        Some(Place { open: self, peer })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.open.0.lock();
        if let Some(count) = counts.get_mut(&self.peer) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                counts.remove(&self.peer);
            }
        }
    }
}
