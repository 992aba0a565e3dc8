//! [`WebRtcStream`]: a data channel as a libp2p stream.

use std::{
    any::Any,
    fmt,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use peerloom_core::{Stream, StreamError};

use crate::{
    driver::now,
    state::{Shared, StreamKey},
};

/// A data channel with libp2p's framing.
pub(crate) struct WebRtcStream {
    shared: Arc<Shared>,
    key: StreamKey,
}

impl WebRtcStream {
    pub(crate) fn new(shared: Arc<Shared>, key: StreamKey) -> Self {
        Self { shared, key }
    }

    /// Runs `work` and lets the connection's task send what came of it.
    fn with<T>(&self, work: impl FnOnce(&mut crate::state::State, StreamKey) -> T) -> T {
        let result = self.shared.with(|state| work(state, self.key));
        self.shared.driver.wake();
        result
    }
}

impl Stream for WebRtcStream {
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, StreamError>> {
        let read = self.shared.with(|state| state.read(now(), self.key, cx.waker()));
        if read.is_ready() {
            // The remote's window may have opened.
            self.shared.driver.wake();
        }
        read
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, data: &mut Bytes) -> Poll<Result<(), StreamError>> {
        self.with(|state, key| state.write(now(), key, data, cx.waker()))
    }

    fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        // What was taken is with SCTP.
        Poll::Ready(Ok(()))
    }

    fn poll_close_write(&mut self, _: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        Poll::Ready(self.with(|state, key| state.finish(now(), key)))
    }

    fn reset(&mut self, code: u32) {
        self.with(|state, key| state.reset(now(), key, code));
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

impl Drop for WebRtcStream {
    fn drop(&mut self) {
        self.with(|state, key| state.drop_stream(now(), key));
    }
}

impl fmt::Debug for WebRtcStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebRtcStream").field("key", &self.key).finish_non_exhaustive()
    }
}
