//! A connection over a circuit: it knows its relay, and why it ended if the relay ended it.

use std::{
    any::Any,
    sync::{Arc, OnceLock},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use peerloom_core::{
    Circuit, CircuitEnd, CloseReason, Connection, ConnectionError, Multiaddr, PeerId, PublicKey, Stream,
    StreamError, runtime::BoxFuture,
};

/// A relay's clock and ours do not start a circuit at the same moment: if it breaks with so little of its time left, that is
/// why.
const TIME_TOLERANCE: Duration = Duration::from_secs(1);

/// Bytes that may be lost with a reset, a quarter of all at most: what the connection to a relay reads at once.
const OVERTAKEN: u64 = 128 * 1024;

pub(super) struct CircuitConnection {
    inner: Box<dyn Connection>,
    end: Arc<End>,
}

struct End {
    circuit: Arc<Circuit>,
    /// Decided when the end is first seen: later the time is always used up.
    reason: OnceLock<Arc<ConnectionError>>,
}

impl CircuitConnection {
    pub(super) fn new(inner: Box<dyn Connection>, circuit: Arc<Circuit>) -> Self {
        Self { inner, end: Arc::new(End { circuit, reason: OnceLock::new() }) }
    }
}

impl End {
    fn reason(&self, reason: Arc<ConnectionError>) -> Arc<ConnectionError> {
        self.reason
            .get_or_init(|| match self.limit(&reason) {
                Some(limit) => Arc::new(ConnectionError::CircuitEnded { relay: self.circuit.relay(), limit }),
                None => reason,
            })
            .clone()
    }

    /// The limit that must have brought the end about.
    fn limit(&self, reason: &ConnectionError) -> Option<CircuitEnd> {
        if matches!(
            reason,
            ConnectionError::ClosedLocally
                | ConnectionError::ClosedByRemote
                | ConnectionError::ClosedFor { .. }
        ) {
            return None;
        }
        let limits = self.circuit.limits();
        let nearly = self.circuit.time_left().filter(|left| *left <= TIME_TOLERANCE);
        // js-libp2p's and rust-libp2p's relays count both directions together, where the spec has the bytes for each; and the
        // reset overtakes what they have sent last.
        let together = limits.bytes.filter(|bytes| {
            let overtaken = (bytes / 4).min(OVERTAKEN);
            self.circuit.bytes_carried() >= bytes.saturating_sub(overtaken)
        });
        self.circuit
            .used_up()
            .or_else(|| nearly.and(limits.duration).map(CircuitEnd::Duration))
            .or_else(|| together.map(CircuitEnd::Bytes))
    }

    fn stream_error(&self, error: StreamError) -> StreamError {
        match error {
            StreamError::ConnectionLost(reason) => StreamError::ConnectionLost(self.reason(reason)),
            other => other,
        }
    }
}

impl Connection for CircuitConnection {
    fn remote_peer(&self) -> PeerId {
        self.inner.remote_peer()
    }

    fn remote_public_key(&self) -> &PublicKey {
        self.inner.remote_public_key()
    }

    fn remote_address(&self) -> &Multiaddr {
        self.inner.remote_address()
    }

    fn circuit(&self) -> Option<&Arc<Circuit>> {
        Some(&self.end.circuit)
    }

    fn open_stream(&self) -> BoxFuture<'static, Result<Box<dyn Stream>, Arc<ConnectionError>>> {
        let (opening, end) = (self.inner.open_stream(), self.end.clone());
        Box::pin(async move {
            let stream = opening.await.map_err(|reason| end.reason(reason))?;
            Ok(Box::new(RelayedStream { stream, end }) as Box<dyn Stream>)
        })
    }

    fn accept_stream(&self) -> BoxFuture<'_, Result<Box<dyn Stream>, Arc<ConnectionError>>> {
        Box::pin(async move {
            let stream = self.inner.accept_stream().await.map_err(|reason| self.end.reason(reason))?;
            Ok(Box::new(RelayedStream { stream, end: self.end.clone() }) as Box<dyn Stream>)
        })
    }

    fn close(&self) -> BoxFuture<'static, ()> {
        self.inner.close()
    }

    fn close_for(&self, reason: CloseReason) -> BoxFuture<'static, ()> {
        self.inner.close_for(reason)
    }

    fn closed(&self) -> BoxFuture<'static, Arc<ConnectionError>> {
        let (closed, end) = (self.inner.closed(), self.end.clone());
        Box::pin(async move { end.reason(closed.await) })
    }
}

/// A stream of such a connection: its errors tell the same reason.
struct RelayedStream {
    stream: Box<dyn Stream>,
    end: Arc<End>,
}

impl RelayedStream {
    fn translate<T>(&self, poll: Poll<Result<T, StreamError>>) -> Poll<Result<T, StreamError>> {
        poll.map_err(|error| self.end.stream_error(error))
    }
}

impl Stream for RelayedStream {
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, StreamError>> {
        let read = self.stream.poll_read(cx);
        self.translate(read)
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, data: &mut Bytes) -> Poll<Result<(), StreamError>> {
        let written = self.stream.poll_write(cx, data);
        self.translate(written)
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        let flushed = self.stream.poll_flush(cx);
        self.translate(flushed)
    }

    fn poll_close_write(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        let closed = self.stream.poll_close_write(cx);
        self.translate(closed)
    }

    fn reset(&mut self, code: u32) {
        self.stream.reset(code);
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self.stream.into_any()
    }
}
