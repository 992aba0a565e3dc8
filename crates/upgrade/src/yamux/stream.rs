//! What a session knows of one stream.

#![warn(clippy::arithmetic_side_effects)]

use std::{collections::VecDeque, num::NonZeroU32, task::Waker};

use bytes::{Bytes, BytesMut};

use super::window::{ReceiveWindow, SendWindow};

/// The number of a stream in its session, unique among those that live.
pub type StreamId = NonZeroU32;

/// Received chunks that are gathered until they are worth a buffer of their own.
const GATHER: usize = 16 * 1024;

pub(super) struct StreamState {
    pub(super) received: Received,
    pub(super) receive_window: ReceiveWindow,
    pub(super) remote_finished: bool,

    /// Taken from the writer, not yet put into frames.
    pub(super) queue: VecDeque<Bytes>,
    pub(super) queued: usize,
    pub(super) send_window: SendWindow,
    pub(super) write_half: WriteHalf,
    /// The batch of frames that carried this stream's last bytes.
    pub(super) sent_in: u64,
    pub(super) awaits_flush: bool,

    /// SYN is still to be sent: with the stream's first frame.
    pub(super) open_pending: bool,
    /// ACK is still to be sent: with the stream's first frame after it was accepted.
    pub(super) acknowledge_pending: bool,
    /// The remote has acknowledged a stream that we opened.
    pub(super) acknowledged: bool,
    /// The error code, once either side has abandoned the stream.
    pub(super) reset: Option<u32>,
    /// Somebody holds the stream, or will accept it.
    pub(super) held: bool,
    /// It is among the session's ready streams.
    pub(super) scheduled: bool,

    pub(super) read_waker: Option<Waker>,
    pub(super) write_waker: Option<Waker>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WriteHalf {
    Open,
    /// FIN follows what is queued.
    Finishing,
    Finished,
}

impl StreamState {
    pub(super) fn outbound() -> Self {
        Self { open_pending: true, ..Self::inbound() }
    }

    pub(super) fn inbound() -> Self {
        Self {
            received: Received::default(),
            receive_window: ReceiveWindow::new(),
            remote_finished: false,
            queue: VecDeque::new(),
            queued: 0,
            send_window: SendWindow::new(),
            write_half: WriteHalf::Open,
            sent_in: 0,
            awaits_flush: false,
            open_pending: false,
            acknowledge_pending: false,
            acknowledged: false,
            reset: None,
            held: true,
            scheduled: false,
            read_waker: None,
            write_waker: None,
        }
    }

    /// How many queued bytes may be sent now.
    pub(super) fn sendable(&self) -> usize {
        self.queued.min(self.send_window.available())
    }

    /// Moves the first `length` queued bytes to `output`.
    pub(super) fn take_queued(&mut self, length: usize, output: &mut Vec<u8>) {
        let mut missing = length;
        while missing > 0
            && let Some(chunk) = self.queue.front_mut()
        {
            let part = chunk.split_to(chunk.len().min(missing));
            output.extend_from_slice(&part);
            missing = missing.saturating_sub(part.len());
            if chunk.is_empty() {
                self.queue.pop_front();
            }
        }
        self.queued = self.queued.saturating_sub(length);
        self.send_window.take(length);
    }

    /// Whether a FIN is all that is left to send.
    pub(super) fn finish_due(&self) -> bool {
        self.write_half == WriteHalf::Finishing && self.queued == 0
    }

    /// Whether both sides have said everything.
    pub(super) fn is_over(&self) -> bool {
        self.write_half == WriteHalf::Finished && self.remote_finished
    }
}

/// Bytes that arrived and wait for their reader, in order.
#[derive(Default)]
pub(super) struct Received {
    chunks: VecDeque<Bytes>,
    tail: BytesMut,
    length: usize,
}

impl Received {
    pub(super) fn len(&self) -> usize {
        self.length
    }

    /// Appends `chunk`, a slice of a buffer of `buffer` bytes.
    ///
    /// A slice keeps all of its buffer alive. So a slice that is less than a quarter of its buffer is copied: a remote that
    /// sends little to one stream and much to others cannot make us hold more than four times what it may send. Small
    /// chunks are gathered for the same reason: the bookkeeping of a chunk of one byte is a hundred bytes.
    pub(super) fn push(&mut self, chunk: Bytes, buffer: usize) {
        self.length = self.length.saturating_add(chunk.len());
        if chunk.len().saturating_mul(4) < buffer || chunk.len() < GATHER / 16 {
            self.tail.extend_from_slice(&chunk);
            if self.tail.len() >= GATHER {
                self.chunks.push_back(std::mem::take(&mut self.tail).freeze());
            }
        } else {
            if !self.tail.is_empty() {
                self.chunks.push_back(std::mem::take(&mut self.tail).freeze());
            }
            self.chunks.push_back(chunk);
        }
    }

    pub(super) fn pop(&mut self) -> Option<Bytes> {
        let chunk = match self.chunks.pop_front() {
            Some(chunk) => chunk,
            None if self.tail.is_empty() => return None,
            None => std::mem::take(&mut self.tail).freeze(),
        };
        self.length = self.length.saturating_sub(chunk.len());
        Some(chunk)
    }
}
