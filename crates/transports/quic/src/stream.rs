//! [`QuicStream`]: a bidirectional stream, of a QUIC connection or of a WebTransport session on one.

use std::{
    any::Any,
    collections::VecDeque,
    sync::Arc,
    task::{Context, Poll, Waker, ready},
};

use bytes::Bytes;
use peerloom_core::{Stream, StreamError};
use quinn::{ReadError, RecvStream, SendStream, WriteError};

use crate::streams::{Streams, poll_once};

/// Chunks taken from quinn at a time. A chunk is what one packet held, so this is about 45 KiB.
const CHUNKS: usize = 32;

/// A bidirectional stream. Chunks are quinn's own memory, passed on.
pub(crate) struct QuicStream {
    streams: Arc<Streams>,
    send: SendStream,
    /// `None` only while the stream is being dropped.
    recv: Option<RecvStream>,
    /// Whether the remote opened it.
    accepted: bool,
    /// What is still to be written in front of everything else.
    header: Bytes,
    received: VecDeque<Bytes>,
    read: Half,
    write: Half,
}

/// How far one direction has come, and who waits for it.
struct Half {
    state: HalfState,
    waker: Option<Waker>,
}

enum HalfState {
    Open,
    /// The end was read, or written.
    Ended,
    Failed(StreamError),
}

impl QuicStream {
    /// A stream that the remote opened, its header read.
    pub(crate) fn inbound(streams: Arc<Streams>, send: SendStream, recv: RecvStream) -> Self {
        streams.count_accepted();
        let mut stream = Self::new(streams, send, recv, Bytes::new());
        stream.accepted = true;
        stream
    }

    /// A stream that we opened. Its header is on its way unless flow control forbids, so that the remote sees the stream
    /// even if it is to speak first.
    pub(crate) fn outbound(streams: Arc<Streams>, send: SendStream, recv: RecvStream) -> Self {
        let header = streams.header.clone();
        let mut stream = Self::new(streams, send, recv, header);
        let _ = stream.poll_header(&mut Context::from_waker(Waker::noop()));
        stream
    }

    fn new(streams: Arc<Streams>, send: SendStream, recv: RecvStream, header: Bytes) -> Self {
        streams.count_held();
        let (read, write) = (Half::new(), Half::new());
        Self {
            streams,
            send,
            recv: Some(recv),
            accepted: false,
            header,
            received: VecDeque::new(),
            read,
            write,
        }
    }

    fn poll_header(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        while !self.header.is_empty() {
            let header = std::slice::from_mut(&mut self.header);
            ready!(poll_once(cx, self.send.write_chunks(header))).map_err(|error| self.write_error(error))?;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, data: &mut Bytes) -> Poll<Result<(), StreamError>> {
        ready!(self.poll_header(cx))?;
        let polled = poll_once(cx, self.send.write_chunks(std::slice::from_mut(data)));
        polled.map(|result| match result {
            Ok(_) => Ok(()),
            Err(error) => Err(self.write_error(error)),
        })
    }

    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, StreamError>> {
        let mut chunks = [const { Bytes::new() }; CHUNKS];
        let Some(recv) = &mut self.recv else { return Poll::Ready(Ok(None)) };
        let count = match poll_once(cx, recv.read_chunks(&mut chunks)) {
            Poll::Ready(Ok(Some(count))) => count,
            Poll::Ready(Ok(None)) => return Poll::Ready(Ok(None)),
            Poll::Ready(Err(error)) => return Poll::Ready(Err(self.read_error(error))),
            Poll::Pending => {
                // An idle stream holds no memory.
                self.received = VecDeque::new();
                return Poll::Pending;
            }
        };
        let mut chunks = chunks.into_iter().take(count);
        let first = chunks.next().unwrap_or_default();
        self.received.extend(chunks);
        let bytes = self.received.iter().map(Bytes::len).sum::<usize>().saturating_add(first.len());
        self.streams.count_read(bytes);
        Poll::Ready(Ok(Some(first)))
    }

    fn read_error(&self, error: ReadError) -> StreamError {
        match error {
            ReadError::Reset(code) => StreamError::Reset { code: self.streams.codes.decode(code) },
            ReadError::ConnectionLost(error) => StreamError::ConnectionLost(self.streams.over(error)),
            // We stopped it, or polled in a way that we never do.
            ReadError::ClosedStream | ReadError::IllegalOrderedRead | ReadError::ZeroRttRejected => {
                StreamError::Reset { code: 0 }
            }
        }
    }

    fn write_error(&self, error: WriteError) -> StreamError {
        match error {
            WriteError::Stopped(code) => StreamError::Reset { code: self.streams.codes.decode(code) },
            WriteError::ConnectionLost(error) => StreamError::ConnectionLost(self.streams.over(error)),
            WriteError::ClosedStream | WriteError::ZeroRttRejected => StreamError::WriteClosed,
        }
    }

    fn abandon_write(&mut self, code: u32) {
        let _ = self.send.reset(self.streams.codes.encode(code));
    }

    fn abandon_read(&mut self, code: u32) {
        if let Some(recv) = &mut self.recv {
            let _ = recv.stop(self.streams.codes.encode(code));
        }
    }
}

impl Stream for QuicStream {
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, StreamError>> {
        if let Some(chunk) = self.received.pop_front() {
            return Poll::Ready(Ok(Some(chunk)));
        }
        match &self.read.state {
            HalfState::Open => {}
            HalfState::Ended => return Poll::Ready(Ok(None)),
            HalfState::Failed(error) => return Poll::Ready(Err(error.clone())),
        }
        let polled = self.poll_receive(cx);
        match &polled {
            Poll::Pending => self.read.wait(cx),
            Poll::Ready(Ok(None)) => self.read.state = HalfState::Ended,
            Poll::Ready(Err(error)) => self.read.state = HalfState::Failed(error.clone()),
            Poll::Ready(Ok(Some(_))) => {}
        }
        polled
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, data: &mut Bytes) -> Poll<Result<(), StreamError>> {
        ready!(self.write.check())?;
        if data.is_empty() {
            return Poll::Ready(Ok(()));
        }
        let polled = self.poll_send(cx, data);
        self.write.settle(cx, polled)
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        if let HalfState::Ended = self.write.state {
            return Poll::Ready(Ok(()));
        }
        ready!(self.write.check())?;
        // quinn sends what it has taken; only the header may still be here.
        let polled = self.poll_header(cx);
        self.write.settle(cx, polled)
    }

    fn poll_close_write(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        ready!(self.poll_flush(cx))?;
        if let HalfState::Open = self.write.state {
            self.streams.note_finished(&self.send);
            let _ = self.send.finish();
            self.write.state = HalfState::Ended;
        }
        Poll::Ready(Ok(()))
    }

    fn reset(&mut self, code: u32) {
        self.abandon_write(code);
        self.abandon_read(code);
        self.received = VecDeque::new();
        self.read.fail(StreamError::Reset { code });
        self.write.fail(StreamError::Reset { code });
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

impl Drop for QuicStream {
    fn drop(&mut self) {
        match (&self.write.state, &self.read.state) {
            // We have said all that we had to say, and the remote is to have time to read it.
            (HalfState::Ended, HalfState::Open) => {
                if let Some(recv) = self.recv.take() {
                    self.streams.stop_later(recv);
                }
            }
            (HalfState::Open, read) => {
                let reading = matches!(read, HalfState::Open);
                // quinn would finish the stream, and the remote would take half a message for a whole one.
                self.abandon_write(0);
                if reading {
                    self.abandon_read(0);
                }
            }
            (_, HalfState::Open) => self.abandon_read(0),
            _ => {}
        }
        if self.accepted {
            self.streams.forget_accepted();
        }
        self.streams.forget_held();
    }
}

impl Half {
    fn new() -> Self {
        Self { state: HalfState::Open, waker: None }
    }

    fn check(&self) -> Poll<Result<(), StreamError>> {
        Poll::Ready(match &self.state {
            HalfState::Open => Ok(()),
            HalfState::Ended => Err(StreamError::WriteClosed),
            HalfState::Failed(error) => Err(error.clone()),
        })
    }

    fn settle(
        &mut self,
        cx: &mut Context<'_>,
        polled: Poll<Result<(), StreamError>>,
    ) -> Poll<Result<(), StreamError>> {
        match &polled {
            Poll::Pending => self.wait(cx),
            Poll::Ready(Err(error)) => self.state = HalfState::Failed(error.clone()),
            Poll::Ready(Ok(())) => {}
        }
        polled
    }

    /// quinn wakes for what the remote does; this is for what our own side does.
    fn wait(&mut self, cx: &mut Context<'_>) {
        match &mut self.waker {
            Some(waker) => waker.clone_from(cx.waker()),
            None => self.waker = Some(cx.waker().clone()),
        }
    }

    fn fail(&mut self, error: StreamError) {
        self.state = HalfState::Failed(error);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}
