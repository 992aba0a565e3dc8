//! The streams of one end of a connection.

use std::{
    collections::VecDeque,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::{Buf, Bytes};
use peerloom_core::{ConnectionError, StreamError};

use super::flow::{Body, EndRef, Phase, State};

/// Bytes that a stream's writer may be ahead of the application that reads, each way.
pub const STREAM_WINDOW: usize = 256 * 1024;
/// Streams that one end may have open; it waits with the next.
pub const MAX_STREAMS: usize = 1024;
/// Streams that the remote has opened and nobody has accepted; the next is reset.
pub const MAX_UNACCEPTED: usize = 1024;
/// The most that travels as one.
const MAX_SEGMENT: usize = 16 * 1024;

#[derive(Debug)]
pub(crate) struct StreamState {
    /// Opened by this end.
    pub(super) ours: bool,
    /// Whether the remote has been told of it.
    announced: bool,
    received: VecDeque<Bytes>,
    received_end: bool,
    /// Read since the remote was last given credit for it.
    read: usize,
    /// What we may still send.
    credit: usize,
    write_closed: bool,
    /// We abandoned both halves.
    reset: Option<u32>,
    /// The remote writes no more.
    abandoned: Option<u32>,
    /// The remote reads no more.
    stopped: Option<u32>,
    pub(super) reader: Option<Waker>,
    pub(super) writer: Option<Waker>,
}

impl StreamState {
    fn new(ours: bool) -> Self {
        Self {
            ours,
            announced: !ours,
            received: VecDeque::new(),
            received_end: false,
            read: 0,
            credit: STREAM_WINDOW,
            write_closed: false,
            reset: None,
            abandoned: None,
            stopped: None,
            reader: None,
            writer: None,
        }
    }

    /// Bytes that have arrived.
    pub(super) fn unread(&self) -> usize {
        self.received.iter().map(Bytes::len).sum()
    }
}

impl State {
    pub(crate) fn poll_open(
        &mut self,
        at: EndRef,
        cx: &mut Context<'_>,
    ) -> Poll<Result<u64, Arc<ConnectionError>>> {
        let Some(end) = self.end_mut(at) else { return Poll::Ready(Err(lost())) };
        if let Phase::Over(reason) = &end.phase {
            return Poll::Ready(Err(reason.clone()));
        }
        if end.streams.values().filter(|stream| stream.ours).count() >= MAX_STREAMS {
            end.wakers.register(cx);
            return Poll::Pending;
        }
        let id = end.next_stream;
        end.next_stream = id.wrapping_add(2);
        end.streams.insert(id, StreamState::new(true));
        end.handles = end.handles.saturating_add(1);
        Poll::Ready(Ok(id))
    }

    pub(crate) fn poll_accept(
        &mut self,
        at: EndRef,
        cx: &mut Context<'_>,
    ) -> Poll<Result<u64, Arc<ConnectionError>>> {
        let Some(end) = self.end_mut(at) else { return Poll::Ready(Err(lost())) };
        if let Some(id) = end.unaccepted.pop_front() {
            end.handles = end.handles.saturating_add(1);
            return Poll::Ready(Ok(id));
        }
        if let Phase::Over(reason) = &end.phase {
            return Poll::Ready(Err(reason.clone()));
        }
        end.wakers.register(cx);
        Poll::Pending
    }

    pub(crate) fn poll_read(
        &mut self,
        now: Duration,
        at: EndRef,
        id: u64,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Bytes>, StreamError>> {
        let Some((phase, stream)) = self.stream_mut(at, id) else { return Poll::Ready(Err(lost().into())) };
        if let Some(code) = stream.reset.or(stream.abandoned) {
            return Poll::Ready(Err(StreamError::Reset { code }));
        }
        if let Some(chunk) = stream.received.pop_front() {
            stream.read = stream.read.saturating_add(chunk.len());
            if stream.read >= STREAM_WINDOW / 2 && !stream.received_end {
                let bytes = std::mem::take(&mut stream.read);
                self.push(now, at, Body::Credit { stream: id, bytes });
            }
            return Poll::Ready(Ok(Some(chunk)));
        }
        if stream.received_end {
            return Poll::Ready(Ok(None));
        }
        if let Phase::Over(reason) = phase {
            return Poll::Ready(Err(reason.clone().into()));
        }
        stream.reader = Some(cx.waker().clone());
        Poll::Pending
    }

    pub(crate) fn poll_write(
        &mut self,
        now: Duration,
        at: EndRef,
        id: u64,
        data: &mut Bytes,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), StreamError>> {
        let Some((phase, stream)) = self.stream_mut(at, id) else { return Poll::Ready(Err(lost().into())) };
        if let Err(error) = stream.writable(phase) {
            return Poll::Ready(Err(error));
        }
        if stream.write_closed {
            return Poll::Ready(Err(StreamError::WriteClosed));
        }
        if data.is_empty() {
            return Poll::Ready(Ok(()));
        }
        let take = data.remaining().min(stream.credit).min(MAX_SEGMENT);
        if take == 0 {
            stream.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        stream.credit = stream.credit.saturating_sub(take);
        let opens = !std::mem::replace(&mut stream.announced, true);
        let bytes = data.split_to(take);
        self.push(now, at, Body::Data { stream: id, bytes, opens, ends: false });
        Poll::Ready(Ok(()))
    }

    pub(crate) fn flush(&mut self, at: EndRef, id: u64) -> Result<(), StreamError> {
        let (phase, stream) = self.stream_mut(at, id).ok_or_else(lost)?;
        stream.writable(phase)
    }

    pub(crate) fn close_write(&mut self, now: Duration, at: EndRef, id: u64) -> Result<(), StreamError> {
        let (phase, stream) = self.stream_mut(at, id).ok_or_else(lost)?;
        if stream.write_closed && stream.reset.is_none() {
            return Ok(());
        }
        stream.writable(phase)?;
        stream.write_closed = true;
        let opens = !std::mem::replace(&mut stream.announced, true);
        self.push(now, at, Body::Data { stream: id, bytes: Bytes::new(), opens, ends: true });
        Ok(())
    }

    pub(crate) fn reset_stream(&mut self, now: Duration, at: EndRef, id: u64, code: u32) {
        let Some((_, stream)) = self.stream_mut(at, id) else { return };
        if stream.reset.is_some() {
            return;
        }
        stream.reset = Some(code);
        stream.received.clear();
        let wakers = [stream.reader.take(), stream.writer.take()];
        let announced = stream.announced;
        self.woken.extend(wakers.into_iter().flatten());
        if announced {
            self.push(now, at, Body::Abandon { stream: id, code, write: true, read: true });
        }
    }

    /// The last handle of the stream is gone.
    pub(crate) fn drop_stream(&mut self, now: Duration, at: EndRef, id: u64) {
        let Some(end) = self.end_mut(at) else { return };
        end.handles = end.handles.saturating_sub(1);
        if let Some(stream) = end.streams.remove(&id) {
            let write = !stream.write_closed && stream.stopped.is_none();
            let read = !stream.received_end && stream.abandoned.is_none();
            let woken = end.wakers.take();
            self.woken.extend(woken);
            if stream.announced && stream.reset.is_none() && (write || read) {
                self.push(now, at, Body::Abandon { stream: id, code: 0, write, read });
            }
        }
        self.reap(at.flow);
    }

    pub(super) fn receive_data(
        &mut self,
        now: Duration,
        at: EndRef,
        (id, opens): (u64, bool),
        bytes: Bytes,
        ends: bool,
    ) {
        let Some(end) = self.end_mut(at) else { return };
        if opens {
            if end.unaccepted.len() >= MAX_UNACCEPTED {
                return self.push(now, at, Body::Abandon { stream: id, code: 0, write: true, read: true });
            }
            end.unaccepted.push_back(id);
            end.streams.insert(id, StreamState::new(false));
            let woken = end.wakers.take();
            self.woken.extend(woken);
        }
        // A stream that is gone here has told the remote so.
        let Some((_, stream)) = self.stream_mut(at, id) else { return };
        if stream.reset.is_some() {
            return;
        }
        if !bytes.is_empty() {
            stream.received.push_back(bytes);
        }
        stream.received_end |= ends;
        let woken = stream.reader.take();
        self.woken.extend(woken);
    }

    pub(super) fn receive_credit(&mut self, at: EndRef, id: u64, bytes: usize) {
        let Some((_, stream)) = self.stream_mut(at, id) else { return };
        stream.credit = stream.credit.saturating_add(bytes);
        let woken = stream.writer.take();
        self.woken.extend(woken);
    }

    pub(super) fn receive_abandon(&mut self, at: EndRef, id: u64, code: u32, write: bool, read: bool) {
        let Some((_, stream)) = self.stream_mut(at, id) else { return };
        let mut woken = [None, None];
        // The end that came before it stands.
        if write && !stream.received_end {
            stream.abandoned = Some(code);
            stream.received.clear();
            woken[0] = stream.reader.take();
        }
        if read {
            stream.stopped = Some(code);
            woken[1] = stream.writer.take();
        }
        self.woken.extend(woken.into_iter().flatten());
    }

    fn stream_mut(&mut self, at: EndRef, id: u64) -> Option<(&Phase, &mut StreamState)> {
        let end = self.end_mut(at)?;
        Some((&end.phase, end.streams.get_mut(&id)?))
    }
}

impl StreamState {
    fn writable(&self, phase: &Phase) -> Result<(), StreamError> {
        if let Some(code) = self.reset.or(self.stopped.filter(|_| !self.write_closed)) {
            return Err(StreamError::Reset { code });
        }
        match phase {
            Phase::Over(reason) => Err(reason.clone().into()),
            _ => Ok(()),
        }
    }
}

fn lost() -> Arc<ConnectionError> {
    Arc::new(ConnectionError::ClosedLocally)
}
