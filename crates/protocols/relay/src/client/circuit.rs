//! The stream to a relay that carries a circuit, counted.

use std::{
    any::Any,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use peerloom_core::{Circuit, Stream, StreamError, multistream_select::NegotiatedStream};

/// A stream of `hop` or `stop` whose messages are done with.
pub(super) struct CircuitStream {
    stream: NegotiatedStream,
    /// What came together with the last message.
    unread: Bytes,
    circuit: Arc<Circuit>,
}

impl CircuitStream {
    pub(super) fn new(stream: NegotiatedStream, unread: Bytes, circuit: Arc<Circuit>) -> Self {
        Self { stream, unread, circuit }
    }
}

impl Stream for CircuitStream {
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, StreamError>> {
        let read = match self.unread.is_empty() {
            true => std::task::ready!(self.stream.poll_read(cx))?,
            false => Some(std::mem::take(&mut self.unread)),
        };
        if let Some(chunk) = &read {
            self.circuit.count_received(chunk.len());
        }
        Poll::Ready(Ok(read))
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, data: &mut Bytes) -> Poll<Result<(), StreamError>> {
        let before = data.len();
        let written = self.stream.poll_write(cx, data);
        self.circuit.count_sent(before.saturating_sub(data.len()));
        written
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        self.stream.poll_flush(cx)
    }

    fn poll_close_write(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        self.stream.poll_close_write(cx)
    }

    fn reset(&mut self, code: u32) {
        self.stream.reset(code);
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}
