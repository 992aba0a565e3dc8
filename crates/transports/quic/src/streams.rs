//! What the streams of a QUIC connection and its owner share, whether they are the connection's own or those of a
//! WebTransport session on it.

use std::{
    collections::VecDeque,
    future::Future as _,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::join_all;
use parking_lot::Mutex;
use peerloom_core::{
    CloseReason, ConnectionError, Stream,
    runtime::{BoxFuture, Instant, sleep},
};
use quinn::{RecvStream, SendStream, VarInt};
use tokio::sync::Notify;

use crate::{
    limits::{MAX_STREAMS, MAX_UNREAD_STREAMS, MIN_STREAMS, STOP_DELAY},
    ports::Port,
    receive_window::ReceiveWindow,
    stream::QuicStream,
};

/// How often a connection with open streams is asked whether one of them holds up the others.
const WINDOW_CHECK: Duration = Duration::from_secs(1);

/// How an application's error codes go into QUIC's.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ErrorCodes {
    /// The code as QUIC carries it.
    pub(crate) to_wire: fn(u32) -> u64,
    /// The application's code; 0 if it is none.
    pub(crate) from_wire: fn(u64) -> u32,
}

impl ErrorCodes {
    pub(crate) fn encode(self, code: u32) -> VarInt {
        VarInt::from_u64((self.to_wire)(code)).unwrap_or(VarInt::MAX)
    }

    pub(crate) fn decode(self, code: VarInt) -> u32 {
        (self.from_wire)(code.into_inner())
    }
}

/// A QUIC connection whose TLS is done, with what it takes to put streams on it.
pub(crate) struct Established {
    pub(crate) quic: quinn::Connection,
    pub(crate) port: Arc<Port>,
    pub(crate) window: ReceiveWindow,
}

/// What the streams of a connection and its owner share.
pub(crate) struct Streams {
    pub(crate) quic: quinn::Connection,
    pub(crate) codes: ErrorCodes,
    /// What each of our streams begins with.
    pub(crate) header: Bytes,
    window: ReceiveWindow,
    accepted: Mutex<AcceptedStreams>,
    /// Streams of either side that somebody holds.
    held: AtomicUsize,
    /// Tells [`keep_flowing`](Self::keep_flowing) that there is something to look after.
    busy: Notify,
    over: OnceLock<Arc<ConnectionError>>,
    unacknowledged: Mutex<Unacknowledged>,
    unread: Mutex<UnreadStreams>,
    /// Whoever listens there again finds the socket that this connection keeps open.
    port: Arc<Port>,
}

impl Streams {
    pub(crate) fn new(
        quic: quinn::Connection,
        port: Arc<Port>,
        codes: ErrorCodes,
        header: Bytes,
        window: ReceiveWindow,
    ) -> Arc<Self> {
        Arc::new(Self {
            quic,
            codes,
            header,
            window,
            accepted: Mutex::default(),
            held: AtomicUsize::new(0),
            busy: Notify::new(),
            over: OnceLock::new(),
            unacknowledged: Mutex::default(),
            unread: Mutex::default(),
            port,
        })
    }

    /// Opens a stream. See [`peerloom_core::Connection::open_stream`].
    pub(crate) async fn open(self: Arc<Self>) -> Result<Box<dyn Stream>, Arc<ConnectionError>> {
        if let Some(over) = self.over.get() {
            return Err(over.clone());
        }
        let (send, recv) = self.quic.open_bi().await.map_err(|error| self.over(error))?;
        Ok(Box::new(QuicStream::outbound(self, send, recv)))
    }

    /// This end's socket, which is unspecified where it listens on all of the machine's addresses.
    pub(crate) fn local_socket(&self) -> SocketAddr {
        self.port.bound()
    }

    /// Why the connection is over, now that quinn reports `error`.
    pub(crate) fn over(&self, error: quinn::ConnectionError) -> Arc<ConnectionError> {
        self.over.get_or_init(|| Arc::new(into_connection_error(error))).clone()
    }

    /// Notes why the connection will be over, unless that is known already.
    pub(crate) fn ends_with(&self, error: ConnectionError) {
        let _ = self.over.set(Arc::new(error));
    }

    /// Ready when the connection is over.
    pub(crate) async fn closed(self: Arc<Self>) -> Arc<ConnectionError> {
        let error = self.quic.closed().await;
        self.over(error)
    }

    /// Counts bytes that a stream handed to its reader.
    pub(crate) fn count_read(&self, bytes: usize) {
        self.window.read(&self.quic, bytes);
    }

    /// Counts a stream that somebody holds, until [`forget_held`](Self::forget_held).
    pub(crate) fn count_held(&self) {
        if self.held.fetch_add(1, Ordering::Relaxed) == 0 {
            self.busy.notify_one();
        }
    }

    /// The stream is gone.
    pub(crate) fn forget_held(&self) {
        self.held.fetch_sub(1, Ordering::Relaxed);
    }

    /// Counts a stream of the remote's that was accepted, until [`forget_accepted`](Self::forget_accepted).
    pub(crate) fn count_accepted(&self) {
        if let Some(limit) = self.accepted.lock().count() {
            self.quic.set_max_concurrent_bi_streams(limit.into());
        }
    }

    /// The stream is gone.
    pub(crate) fn forget_accepted(&self) {
        let mut accepted = self.accepted.lock();
        accepted.open = accepted.open.saturating_sub(1);
    }

    /// Notes that `stream` was finished, so that a close waits for its bytes.
    pub(crate) fn note_finished(&self, stream: &SendStream) {
        let stopped = stream.stopped();
        self.unacknowledged.lock().push(Box::pin(async move {
            let _ = stopped.await;
        }));
    }

    /// Waits until the remote has acknowledged all bytes of the streams that were finished.
    pub(crate) async fn acknowledged(&self) {
        let finished = std::mem::take(&mut *self.unacknowledged.lock()).futures;
        join_all(finished).await;
    }

    /// Takes the read half of a stream whose write half is finished and which nobody holds any more. The remote is told to
    /// stop only if it does not end the stream itself.
    pub(crate) fn stop_later(&self, recv: RecvStream) {
        self.unread.lock().push(recv, self.codes);
    }

    /// Whether somebody holds a stream.
    pub(crate) fn any_held(&self) -> bool {
        self.held.load(Ordering::Relaxed) > 0
    }

    /// Looks after streams that nobody reads. Never ends, and sleeps while there are no streams.
    pub(crate) async fn keep_flowing(&self) {
        loop {
            if !self.any_held() && self.unread.lock().0.is_empty() {
                self.busy.notified().await;
            }
            sleep(WINDOW_CHECK).await;
            self.unread.lock().stop_old(self.codes);
            if self.any_held() {
                self.window.check(&self.quic);
            }
        }
    }
}

/// How many of the remote's streams are in use, and how many it may open.
struct AcceptedStreams {
    open: u32,
    limit: u32,
}

impl AcceptedStreams {
    /// One more. Returns a new limit, if it is time for one.
    fn count(&mut self) -> Option<u32> {
        self.open = self.open.saturating_add(1);
        if self.open < self.limit / 2 || self.limit >= MAX_STREAMS {
            return None;
        }
        self.limit = self.limit.saturating_mul(2).min(MAX_STREAMS);
        Some(self.limit)
    }
}

impl Default for AcceptedStreams {
    fn default() -> Self {
        Self { open: 0, limit: MIN_STREAMS }
    }
}

/// Streams that were finished and whose last bytes the remote may not have. Those that it has are forgotten whenever
/// the list has doubled; the rest are as many as its stream limit lets it leave unacknowledged.
#[derive(Default)]
struct Unacknowledged {
    futures: Vec<BoxFuture<'static, ()>>,
    look_at: usize,
}

impl Unacknowledged {
    const FIRST_LOOK: usize = 32;

    fn push(&mut self, acknowledged: BoxFuture<'static, ()>) {
        self.futures.push(acknowledged);
        if self.futures.len() > self.look_at.max(Self::FIRST_LOOK) {
            let cx = &mut Context::from_waker(Waker::noop());
            self.futures.retain_mut(|acknowledged| acknowledged.as_mut().poll(cx).is_pending());
            self.look_at = self.futures.len().saturating_mul(2);
        }
    }
}

/// Read halves that nobody reads, of streams whose write half is finished.
///
/// Firefox forgets what it has received and not yet read of a stream when it is told to stop sending on it: a server that
/// answers and drops the stream would take its answer back. So that comes late, and mostly never: the remote has been
/// answered, and ends its half.
#[derive(Default)]
struct UnreadStreams(VecDeque<(Instant, RecvStream)>);

impl UnreadStreams {
    fn push(&mut self, mut recv: RecvStream, codes: ErrorCodes) {
        if discard(&mut recv) {
            return;
        }
        if self.0.len() >= MAX_UNREAD_STREAMS {
            self.stop_oldest(codes);
        }
        self.0.push_back((Instant::now(), recv));
    }

    /// Forgets those that have ended, and stops those that had their time.
    fn stop_old(&mut self, codes: ErrorCodes) {
        self.0.retain_mut(|(_, recv)| !discard(recv));
        while self.0.front().is_some_and(|(since, _)| since.elapsed() >= STOP_DELAY) {
            self.stop_oldest(codes);
        }
    }

    fn stop_oldest(&mut self, codes: ErrorCodes) {
        if let Some((_, mut recv)) = self.0.pop_front() {
            let _ = recv.stop(codes.encode(0));
        }
    }
}

/// Throws away what has arrived. Whether that was all there will be.
fn discard(recv: &mut RecvStream) -> bool {
    let cx = &mut Context::from_waker(Waker::noop());
    loop {
        match poll_once(cx, recv.read_chunks(&mut [const { Bytes::new() }; 8])) {
            Poll::Ready(Ok(Some(_))) => {}
            Poll::Ready(Ok(None) | Err(_)) => return true,
            Poll::Pending => return false,
        }
    }
}

fn into_connection_error(error: quinn::ConnectionError) -> ConnectionError {
    use quinn::ConnectionError as Quic;
    match error {
        // An application's close is orderly, whatever its code: browsers use several.
        Quic::ApplicationClosed(close) => {
            let code = u32::try_from(close.error_code.into_inner()).ok();
            match code.and_then(CloseReason::from_code) {
                Some(reason) => ConnectionError::ClosedFor { reason, by_remote: true },
                None => ConnectionError::ClosedByRemote,
            }
        }
        Quic::LocallyClosed => ConnectionError::ClosedLocally,
        Quic::TimedOut => ConnectionError::TimedOut,
        Quic::TransportError(error) => ConnectionError::Protocol(error.to_string()),
        other => ConnectionError::Io(other.to_string()),
    }
}

/// Polls a future that may be dropped when it is pending.
pub(crate) fn poll_once<F: Future>(cx: &mut Context<'_>, future: F) -> Poll<F::Output> {
    Pin::new(&mut std::pin::pin!(future)).poll(cx)
}
