//! A WebTransport session on a QUIC connection: what its streams and its owner share, and the task that watches over it.

use std::{
    collections::VecDeque,
    future::Future as _,
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use futures_util::future::join_all;
use parking_lot::Mutex;
use peerloom_core::{
    ConnectionError, HandshakeError,
    runtime::{BoxFuture, Instant, sleep, timeout},
};
use quinn::{RecvStream, SendStream};

use super::{
    STEP,
    limits::{CLOSE_TIMEOUT, LINGER, MAX_STREAMS, MAX_UNREAD_STREAMS, MIN_STREAMS, STOP_DELAY},
    receive_window::ReceiveWindow,
    stream::on_the_wire,
    unidirectional::UnidirectionalStreams,
};
use crate::h3::{
    capsule::{self, CapsuleReader},
    error_code,
    frame::{self, Splitter},
    varint,
};

/// How often a connection with open streams is asked whether one of them holds up the others.
const WINDOW_CHECK: Duration = Duration::from_secs(1);

/// What the streams of a session and its owner share.
pub(super) struct Session {
    pub(super) quic: quinn::Connection,
    /// The id of the CONNECT request's stream.
    id: u64,
    /// What each of our streams begins with.
    pub(super) header: Bytes,
    window: ReceiveWindow,
    accepted: Mutex<AcceptedStreams>,
    over: OnceLock<Arc<ConnectionError>>,
    /// Our side of the CONNECT stream, until the session is closed.
    connect: Mutex<Option<SendStream>>,
    /// Our control stream, which must stay open as long as the connection.
    _control: SendStream,
    unacknowledged: Mutex<Unacknowledged>,
    unread: Mutex<UnreadStreams>,
}

impl Session {
    /// The session that the CONNECT request on `connect` opened.
    pub(super) fn new(
        quic: quinn::Connection,
        connect: SendStream,
        control: SendStream,
        window: ReceiveWindow,
    ) -> Arc<Self> {
        let id = quinn::VarInt::from(connect.id()).into_inner();
        let mut header = BytesMut::new();
        varint::encode(frame::WEBTRANSPORT_STREAM, &mut header);
        varint::encode(id, &mut header);
        Arc::new(Self {
            quic,
            id,
            header: header.freeze(),
            window,
            accepted: Mutex::default(),
            over: OnceLock::new(),
            connect: Mutex::new(Some(connect)),
            _control: control,
            unacknowledged: Mutex::default(),
            unread: Mutex::default(),
        })
    }

    /// Reads the header of a bidirectional stream that the remote opened. `None` if the stream is not one of this
    /// session's, and has been refused.
    pub(super) async fn admit(
        &self,
        mut send: SendStream,
        mut recv: RecvStream,
    ) -> Option<(SendStream, RecvStream)> {
        let kind = read_varint(&mut recv).await.ok()??;
        if kind == frame::WEBTRANSPORT_STREAM && read_varint(&mut recv).await.ok()?? == self.id {
            return Some((send, recv));
        }
        // Another request, or a stream of a session that we do not have.
        let _ = send.reset(error_code::REQUEST_REJECTED.into());
        let _ = recv.stop(error_code::REQUEST_REJECTED.into());
        None
    }

    /// Fails if the session is over or being closed.
    pub(super) fn check_open(&self) -> Result<(), Arc<ConnectionError>> {
        self.over.get().map_or(Ok(()), |over| Err(over.clone()))
    }

    /// Why the session is over, now that quinn reports `error`.
    pub(super) fn over(&self, error: quinn::ConnectionError) -> Arc<ConnectionError> {
        self.over.get_or_init(|| Arc::new(into_connection_error(error))).clone()
    }

    /// Counts bytes that a stream handed to its reader.
    pub(super) fn count_read(&self, bytes: usize) {
        self.window.read(&self.quic, bytes);
    }

    /// Counts a stream of the remote's that was accepted, until [`forget_accepted`](Self::forget_accepted).
    pub(super) fn count_accepted(&self) {
        if let Some(limit) = self.accepted.lock().count() {
            self.quic.set_max_concurrent_bi_streams(limit.into());
        }
    }

    /// The stream is gone.
    pub(super) fn forget_accepted(&self) {
        let mut accepted = self.accepted.lock();
        accepted.open = accepted.open.saturating_sub(1);
    }

    /// Notes that `stream` was finished, so that a close waits for its bytes.
    pub(super) fn note_finished(&self, stream: &SendStream) {
        let stopped = stream.stopped();
        self.unacknowledged.lock().push(Box::pin(async move {
            let _ = stopped.await;
        }));
    }

    /// Takes the read half of a stream whose write half is finished and which nobody holds any more. The remote is told to
    /// stop only if it does not end the stream itself.
    pub(super) fn stop_later(&self, recv: RecvStream) {
        self.unread.lock().push(recv);
    }

    /// Closes the session in order. See [`peerloom_core::Connection::close`].
    pub(super) async fn close(self: Arc<Self>) {
        let _ = self.over.set(Arc::new(ConnectionError::ClosedLocally));
        let connect = self.connect.lock().take();
        let graceful = async {
            let Some(mut connect) = connect else {
                // Somebody else is closing it.
                self.quic.closed().await;
                return;
            };
            let finished = std::mem::take(&mut *self.unacknowledged.lock()).futures;
            join_all(finished).await;
            // Behind all that open streams have written.
            let _ = connect.set_priority(-1);
            if connect.write_all(&capsule::encode_close(0)).await.is_ok() && connect.finish().is_ok() {
                let _ = connect.stopped().await;
            }
        };
        let _ = timeout(CLOSE_TIMEOUT, graceful).await;
        self.quic.close(error_code::NO_ERROR.into(), b"");
    }

    /// Closes the session at once; bytes may be lost.
    pub(super) fn abandon(&self) {
        let _ = self.over.set(Arc::new(ConnectionError::ClosedLocally));
        self.quic.close(error_code::NO_ERROR.into(), b"");
    }

    /// Watches over the session until it ends. `connect` is the remote's side of the CONNECT stream.
    pub(super) async fn watch(self: Arc<Self>, connect: RequestStream, mut streams: UnidirectionalStreams) {
        let end = tokio::select! {
            end = connect.closed() => end,
            error = streams.run() => Err(error),
            () = self.keep_flowing() => return,
        };
        match end {
            Ok(()) | Err(SessionError::Reset) => {
                let _ = self.over.set(Arc::new(ConnectionError::ClosedByRemote));
                // webtransport draft, "Session Termination": upon the capsule, close our side too.
                if let Some(mut ours) = self.connect.lock().take() {
                    let _ = ours.finish();
                }
                let _ = timeout(LINGER, self.quic.closed()).await;
                self.quic.close(error_code::NO_ERROR.into(), b"");
            }
            Err(SessionError::Lost(error)) => drop(self.over(error)),
            Err(SessionError::Violation { code, reason }) => {
                let _ = self.over.set(Arc::new(ConnectionError::Protocol(reason.to_owned())));
                self.quic.close(code.into(), reason.as_bytes());
            }
        }
    }

    /// Never ends. Streams are what refer to a session, beside its owner and its task.
    async fn keep_flowing(self: &Arc<Self>) {
        loop {
            sleep(WINDOW_CHECK).await;
            self.unread.lock().stop_old();
            if Arc::strong_count(self) > 2 {
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
    fn push(&mut self, mut recv: RecvStream) {
        if discard(&mut recv) {
            return;
        }
        if self.0.len() >= MAX_UNREAD_STREAMS {
            self.0.pop_front().into_iter().for_each(stop);
        }
        self.0.push_back((Instant::now(), recv));
    }

    /// Forgets those that have ended, and stops those that had their time.
    fn stop_old(&mut self) {
        self.0.retain_mut(|(_, recv)| !discard(recv));
        while self.0.front().is_some_and(|(since, _)| since.elapsed() >= STOP_DELAY) {
            self.0.pop_front().into_iter().for_each(stop);
        }
    }
}

fn stop((_, mut recv): (Instant, RecvStream)) {
    let _ = recv.stop(on_the_wire(0));
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

/// Why a session cannot go on, or not even begin.
#[derive(Debug)]
pub(super) enum SessionError {
    /// The remote broke HTTP/3.
    Violation {
        /// The code to close the connection with.
        code: u32,
        /// What it did.
        reason: &'static str,
    },
    /// The stream was reset, or ended early.
    Reset,
    /// The connection is lost.
    Lost(quinn::ConnectionError),
}

impl SessionError {
    pub(super) fn violation(code: u32, reason: &'static str) -> Self {
        Self::Violation { code, reason }
    }

    /// The error of a handshake on `connection`, which is closed as HTTP/3 wants it.
    pub(super) fn fail_handshake(self, connection: &quinn::Connection) -> HandshakeError {
        let lost = |reason: String| HandshakeError::Lost { step: STEP, reason };
        match self {
            Self::Violation { code, reason } => {
                connection.close(code.into(), reason.as_bytes());
                HandshakeError::Invalid { step: STEP, reason: reason.to_owned() }
            }
            Self::Reset => lost("the request was cancelled".to_owned()),
            Self::Lost(quinn::ConnectionError::TimedOut) => HandshakeError::TimedOut { step: STEP },
            Self::Lost(error) => lost(error.to_string()),
        }
    }
}

impl From<quinn::ConnectionError> for SessionError {
    fn from(error: quinn::ConnectionError) -> Self {
        Self::Lost(error)
    }
}

impl From<quinn::ReadError> for SessionError {
    fn from(error: quinn::ReadError) -> Self {
        match error {
            quinn::ReadError::ConnectionLost(error) => Self::Lost(error),
            _ => Self::Reset,
        }
    }
}

impl From<quinn::WriteError> for SessionError {
    fn from(error: quinn::WriteError) -> Self {
        match error {
            quinn::WriteError::ConnectionLost(error) => Self::Lost(error),
            _ => Self::Reset,
        }
    }
}

/// The remote's side of the stream of a CONNECT request: one HEADERS frame, then capsules.
pub(super) struct RequestStream {
    stream: RecvStream,
    frames: Splitter,
    /// Received behind the HEADERS frame.
    unread: Bytes,
}

impl RequestStream {
    /// `kind`: the frame type that the stream begins with, if it was read already.
    pub(super) fn new(stream: RecvStream, kind: Option<u64>) -> Self {
        let frames = kind.map_or_else(Splitter::default, Splitter::after_type);
        Self { stream, frames, unread: Bytes::new() }
    }

    /// The content of the HEADERS frame.
    pub(super) async fn headers(&mut self) -> Result<Bytes, SessionError> {
        use crate::h3::field_section::MAX_BYTES;
        let mut section = BytesMut::new();
        loop {
            while let Some(piece) = self.frames.next(&mut self.unread) {
                match piece.kind {
                    frame::HEADERS if section.len() as u64 + piece.to_come > MAX_BYTES as u64 => {
                        return Err(SessionError::violation(error_code::FRAME_ERROR, "headers too long"));
                    }
                    frame::HEADERS => section.extend_from_slice(&piece.bytes),
                    frame::DATA | frame::SETTINGS => {
                        return Err(SessionError::violation(error_code::FRAME_UNEXPECTED, "no headers"));
                    }
                    // RFC 9114, section 9: unknown frames MUST be ignored.
                    _ => continue,
                }
                if piece.to_come == 0 {
                    return Ok(section.freeze());
                }
            }
            match read_chunk(&mut self.stream).await? {
                Some(chunk) => self.unread = chunk,
                None => return Err(SessionError::Reset),
            }
        }
    }

    /// Waits until the remote closes the session, by a capsule or by ending the stream.
    async fn closed(mut self) -> Result<(), SessionError> {
        let mut capsules = CapsuleReader::new(self.frames);
        let mut chunk = self.unread;
        loop {
            match capsules.read(chunk) {
                Ok(None) => {}
                Ok(Some(closed)) => {
                    tracing::trace!(code = closed.code, "the remote closed the session");
                    return Ok(());
                }
                Err(_) => {
                    return Err(SessionError::violation(error_code::MESSAGE_ERROR, "malformed capsule"));
                }
            }
            match read_chunk(&mut self.stream).await? {
                Some(next) => chunk = next,
                None => return Ok(()),
            }
        }
    }
}

/// The next bytes of a stream; `None` at its end.
pub(super) async fn read_chunk(stream: &mut RecvStream) -> Result<Option<Bytes>, SessionError> {
    Ok(stream.read_chunk(usize::MAX, true).await?.map(|chunk| chunk.bytes))
}

/// The integer that a stream begins with; `None` if it ends first.
pub(super) async fn read_varint(stream: &mut RecvStream) -> Result<Option<u64>, SessionError> {
    let mut bytes = BytesMut::with_capacity(varint::MAX_BYTES);
    loop {
        // Not a byte more: what follows belongs to somebody else.
        let wanted = bytes.first().map_or(1, |first| varint::encoded_len(*first)).saturating_sub(bytes.len());
        match stream.read_chunk(wanted, true).await? {
            Some(chunk) => bytes.extend_from_slice(&chunk.bytes),
            None => return Ok(None),
        }
        if let Some(value) = varint::decode(&mut &*bytes) {
            return Ok(Some(value));
        }
    }
}

fn into_connection_error(error: quinn::ConnectionError) -> ConnectionError {
    use quinn::ConnectionError as Quic;
    match error {
        // An application's close is orderly, whatever its code: browsers use several.
        Quic::ApplicationClosed(_) => ConnectionError::ClosedByRemote,
        Quic::LocallyClosed => ConnectionError::ClosedLocally,
        Quic::TimedOut => ConnectionError::TimedOut,
        Quic::TransportError(error) => ConnectionError::Protocol(error.to_string()),
        other => ConnectionError::Io(other.to_string()),
    }
}

/// Polls a future that may be dropped when it is pending.
pub(super) fn poll_once<F: Future>(cx: &mut Context<'_>, future: F) -> Poll<F::Output> {
    Pin::new(&mut std::pin::pin!(future)).poll(cx)
}
