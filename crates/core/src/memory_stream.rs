//! Two connected streams in memory, for tests of what is built on [`Stream`]. As the trait allows, each half keeps only the
//! waker of its last poll, takes few bytes at a time, and tells a remote to stop when it is dropped.

use std::{
    any::Any,
    collections::VecDeque,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use bytes::{Buf, Bytes};

use crate::stream::{Stream, StreamError};

pub(crate) struct MemoryStream {
    incoming: Direction,
    outgoing: Direction,
}

type Direction = Arc<std::sync::Mutex<State>>;

struct State {
    /// What one write took is one chunk.
    chunks: VecDeque<Bytes>,
    window: usize,
    closed: bool,
    stopped: bool,
    reset: Option<u32>,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl MemoryStream {
    /// Each direction holds up to `window` bytes.
    pub(crate) fn pair(window: usize) -> (Self, Self) {
        let direction = || {
            Arc::new(std::sync::Mutex::new(State {
                chunks: VecDeque::new(),
                window,
                closed: false,
                stopped: false,
                reset: None,
                reader: None,
                writer: None,
            }))
        };
        let (there, back) = (direction(), direction());
        (Self { incoming: back.clone(), outgoing: there.clone() }, Self { incoming: there, outgoing: back })
    }

    /// What was written to the other end and not read yet, write by write.
    pub(crate) fn unread_chunks(&self) -> Vec<Bytes> {
        self.incoming.lock().unwrap().chunks.iter().cloned().collect()
    }
}

impl State {
    fn wake(&mut self) {
        wake(&mut self.reader);
        wake(&mut self.writer);
    }
}

fn wake(waker: &mut Option<Waker>) {
    if let Some(waker) = waker.take() {
        waker.wake();
    }
}

impl Stream for MemoryStream {
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, StreamError>> {
        let mut state = self.incoming.lock().unwrap();
        if let Some(code) = state.reset {
            return Poll::Ready(Err(StreamError::Reset { code }));
        }
        if let Some(chunk) = state.chunks.pop_front() {
            wake(&mut state.writer);
            return Poll::Ready(Ok(Some(chunk)));
        }
        if state.closed {
            return Poll::Ready(Ok(None));
        }
        state.reader = Some(cx.waker().clone());
        Poll::Pending
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, data: &mut Bytes) -> Poll<Result<(), StreamError>> {
        let mut state = self.outgoing.lock().unwrap();
        if let Some(code) = state.reset {
            return Poll::Ready(Err(StreamError::Reset { code }));
        }
        if state.stopped {
            return Poll::Ready(Err(StreamError::Reset { code: 0 }));
        }
        if state.closed {
            return Poll::Ready(Err(StreamError::WriteClosed));
        }
        if data.is_empty() {
            return Poll::Ready(Ok(()));
        }
        let held: usize = state.chunks.iter().map(Bytes::len).sum();
        let room = state.window.saturating_sub(held);
        if room == 0 {
            state.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let taken = data.split_to(data.remaining().min(room));
        state.chunks.push_back(taken);
        wake(&mut state.reader);
        Poll::Ready(Ok(()))
    }

    fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        match self.outgoing.lock().unwrap().reset {
            Some(code) => Poll::Ready(Err(StreamError::Reset { code })),
            None => Poll::Ready(Ok(())),
        }
    }

    fn poll_close_write(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        std::task::ready!(self.poll_flush(cx))?;
        let mut state = self.outgoing.lock().unwrap();
        state.closed = true;
        state.wake();
        Poll::Ready(Ok(()))
    }

    fn reset(&mut self, code: u32) {
        for direction in [&self.incoming, &self.outgoing] {
            let mut state = direction.lock().unwrap();
            state.reset = Some(code);
            state.wake();
        }
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

impl Drop for MemoryStream {
    fn drop(&mut self) {
        let mut outgoing = self.outgoing.lock().unwrap();
        if !outgoing.closed && outgoing.reset.is_none() {
            outgoing.reset = Some(0);
        }
        outgoing.wake();
        drop(outgoing);
        let mut incoming = self.incoming.lock().unwrap();
        incoming.stopped = true;
        incoming.wake();
    }
}
