//! What the holder of a stream does with it.

#![warn(clippy::arithmetic_side_effects)]

use std::task::{Poll, Waker};

use bytes::Bytes;
use peerloom_core::{StreamError, runtime::Instant};

use super::{
    limits::SEND_BUFFER,
    session::{Session, replace},
    stream::{StreamId, StreamState, WriteHalf},
};

/// A stream that its holder has reset, or that a violation took away.
const GONE: StreamError = StreamError::Reset { code: 0 };

impl Session {
    /// The next chunk of the stream, or its end; otherwise wakes `waker` when there is one.
    pub fn poll_read(&mut self, id: StreamId, waker: &Waker) -> Poll<Result<Option<Bytes>, StreamError>> {
        let Some(stream) = self.streams.get_mut(&id) else { return Poll::Ready(Err(GONE)) };
        if let Some(code) = stream.reset {
            return Poll::Ready(Err(StreamError::Reset { code }));
        }
        if let Some(chunk) = stream.received.pop() {
            self.unread = self.unread.saturating_sub(chunk.len());
            stream.receive_window.consume(chunk.len());
            if stream.receive_window.is_update_due() && !stream.remote_finished && self.end().is_none() {
                self.schedule(id);
            }
            return Poll::Ready(Ok(Some(chunk)));
        }
        if stream.remote_finished {
            return Poll::Ready(Ok(None));
        }
        replace(&mut stream.read_waker, waker);
        // A reader that waits wants the remote to know of the stream, even if nothing is ever written to it.
        let announce = stream.open_pending || stream.acknowledge_pending;
        if let Some(reason) = self.end() {
            return Poll::Ready(Err(reason.clone().into()));
        }
        if announce {
            self.schedule(id);
        }
        Poll::Pending
    }

    /// Takes as much of `data` as the stream's send buffer has room for; if none, wakes `waker` when it has.
    pub fn poll_write(
        &mut self,
        id: StreamId,
        data: &mut Bytes,
        waker: &Waker,
    ) -> Poll<Result<(), StreamError>> {
        self.check_writable(id)?;
        self.check_open()?;
        let Some(stream) = self.streams.get_mut(&id) else { return Poll::Ready(Err(GONE)) };
        if stream.write_half != WriteHalf::Open {
            return Poll::Ready(Err(StreamError::WriteClosed));
        }
        if data.is_empty() {
            return Poll::Ready(Ok(()));
        }
        let room = SEND_BUFFER.saturating_sub(stream.queued);
        if room == 0 {
            replace(&mut stream.write_waker, waker);
            return Poll::Pending;
        }
        let taken = data.split_to(data.len().min(room));
        stream.queued = stream.queued.saturating_add(taken.len());
        self.queued = self.queued.saturating_add(taken.len());
        stream.queue.push_back(taken);
        if stream.sendable() > 0 || stream.open_pending {
            self.schedule(id);
        }
        Poll::Ready(Ok(()))
    }

    /// Ready when everything taken has been handed to the layer below.
    pub fn poll_flush(&mut self, id: StreamId, waker: &Waker) -> Poll<Result<(), StreamError>> {
        self.check_writable(id)?;
        let Some(stream) = self.streams.get_mut(&id) else { return Poll::Ready(Err(GONE)) };
        let announce = stream.open_pending;
        let transmitted = stream.queued == 0 && stream.write_half != WriteHalf::Finishing && !announce;
        if transmitted && stream.sent_in <= self.batches_written {
            return Poll::Ready(Ok(()));
        }
        replace(&mut stream.write_waker, waker);
        if transmitted && !stream.awaits_flush {
            stream.awaits_flush = true;
            self.awaiting_flush.push(id);
        }
        if announce {
            self.schedule(id);
        }
        Poll::Pending
    }

    /// Closes the write half after what it has taken. Ready when that is on its way.
    pub fn poll_close_write(&mut self, id: StreamId, waker: &Waker) -> Poll<Result<(), StreamError>> {
        // A remote that has read to the end may drop the stream before our holder hears that the end is on its way:
        // what it resets is the other half then.
        if let Some(stream) = self.streams.get(&id)
            && stream.write_half == WriteHalf::Finished
            && stream.sent_in <= self.batches_written
        {
            return Poll::Ready(Ok(()));
        }
        self.check_writable(id)?;
        if let Some(stream) = self.streams.get_mut(&id)
            && stream.write_half == WriteHalf::Open
        {
            stream.write_half = WriteHalf::Finishing;
            self.schedule(id);
        }
        self.poll_flush(id, waker)
    }

    /// The holder abandons the stream. To be followed by [`drop_stream`](Self::drop_stream) sooner or later.
    pub fn reset_stream(&mut self, id: StreamId, code: u32) {
        self.reset(id, code);
    }

    /// The holder is gone.
    pub fn drop_stream(&mut self, id: StreamId, now: Instant) {
        self.release(id, now);
    }

    fn check_writable(&self, id: StreamId) -> Result<(), StreamError> {
        match self.streams.get(&id) {
            None => Err(GONE),
            Some(StreamState { reset: Some(code), .. }) => Err(StreamError::Reset { code: *code }),
            Some(_) => match self.end() {
                Some(reason) => Err(reason.clone().into()),
                None => Ok(()),
            },
        }
    }
}
