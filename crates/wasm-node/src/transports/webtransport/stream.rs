use std::{
    any::Any,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use js_sys::{Object, Uint8Array};
use peerloom_core::{Stream, StreamError};
use wasm_bindgen::{JsCast, JsValue};
use wasm_bindgen_futures::JsFuture;
use web_sys::{ReadableStream, ReadableStreamDefaultReader, WritableStream, WritableStreamDefaultWriter};

use super::bindings::{WebTransportBidirectionalStream, WebTransportError};
use crate::{
    js,
    transports::{closed::Closed, pending::Pending},
};

/// The most that one write hands to the browser; it copies what it is given.
const MAX_WRITE: usize = 64 * 1024;

/// One of the session's bidirectional streams.
///
/// A page that wants the bytes takes the browser's own streams out with [`into_browser_streams`](Self::into_browser_streams),
/// so that they never pass through Wasm.
pub struct WebTransportStream {
    read: ReadHalf,
    write: WriteHalf,
    closed: Closed,
    /// The connection's account of writes that the browser has not finished.
    pending: Option<Pending>,
    taken: bool,
}

struct ReadHalf {
    stream: ReadableStream,
    reader: ReadableStreamDefaultReader,
    under_way: Option<JsFuture>,
    end: Option<Result<(), StreamError>>,
}

struct WriteHalf {
    stream: WritableStream,
    writer: WritableStreamDefaultWriter,
    /// `writer.ready`, while it is awaited.
    room: Option<JsFuture>,
    /// The last write; the browser settles them in order.
    last: Option<JsFuture>,
    end: Option<Result<(), StreamError>>,
}

impl WebTransportStream {
    /// From a `WebTransportBidirectionalStream`.
    pub(super) fn new(stream: &JsValue, closed: Closed) -> Result<Self, StreamError> {
        let stream: &WebTransportBidirectionalStream = stream.unchecked_ref();
        let (readable, writable) = (stream.readable(), stream.writable());
        // Both fail only on a stream that somebody else reads or writes.
        let locked = |_| StreamError::Protocol("the browser's stream is in use");
        Ok(Self {
            read: ReadHalf {
                reader: ReadableStreamDefaultReader::new(&readable).map_err(locked)?,
                stream: readable,
                under_way: None,
                end: None,
            },
            write: WriteHalf {
                writer: WritableStreamDefaultWriter::new(&writable).map_err(locked)?,
                stream: writable,
                room: None,
                last: None,
                end: None,
            },
            closed,
            pending: None,
            taken: false,
        })
    }

    pub(super) fn with_pending(mut self, pending: Pending) -> Self {
        self.pending = Some(pending);
        self
    }

    /// The browser's own pair, unlocked, to be used instead of this. Nothing is lost: a read that was under way is withdrawn,
    /// and writes that were accepted go out first.
    pub fn into_browser_streams(mut self) -> (ReadableStream, WritableStream) {
        self.taken = true;
        self.read.reader.release_lock();
        self.write.writer.release_lock();
        (self.read.stream.clone(), self.write.stream.clone())
    }

    fn error(&self, error: &JsValue) -> StreamError {
        if let Some(error) = error.dyn_ref::<WebTransportError>()
            && error.source().as_deref() == Some("stream")
        {
            return StreamError::Reset { code: error.stream_error_code().map_or(0, |code| code as u32) };
        }
        StreamError::ConnectionLost(self.closed.reason_or(|| js::describe(error)))
    }

    fn fail_write(&mut self, error: &JsValue) -> StreamError {
        let error = self.error(error);
        self.write.end = Some(Err(error.clone()));
        error
    }
}

impl Stream for WebTransportStream {
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, StreamError>> {
        loop {
            if let Some(end) = &self.read.end {
                return Poll::Ready(end.clone().map(|()| None));
            }
            let reader = &self.read.reader;
            let read = self.read.under_way.get_or_insert_with(|| JsFuture::from(reader.read()));
            let result = ready!(Pin::new(read).poll(cx));
            self.read.under_way = None;
            match result {
                Ok(result) if js::property(&result, "done").is_truthy() => self.read.end = Some(Ok(())),
                Ok(result) => {
                    let chunk: Uint8Array = js::property(&result, "value").unchecked_into();
                    if chunk.length() > 0 {
                        return Poll::Ready(Ok(Some(Bytes::from(chunk.to_vec()))));
                    }
                }
                Err(error) => self.read.end = Some(Err(self.error(&error))),
            }
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, data: &mut Bytes) -> Poll<Result<(), StreamError>> {
        if let Some(end) = &self.write.end {
            return Poll::Ready(Err(end.clone().err().unwrap_or(StreamError::WriteClosed)));
        }
        if data.is_empty() {
            return Poll::Ready(Ok(()));
        }
        let writer = &self.write.writer;
        while self.write.room.is_some() || !matches!(writer.desired_size(), Ok(Some(size)) if size > 0.0) {
            let room = self.write.room.get_or_insert_with(|| JsFuture::from(writer.ready()));
            let result = ready!(Pin::new(room).poll(cx));
            self.write.room = None;
            if let Err(error) = result {
                return Poll::Ready(Err(self.fail_write(&error)));
            }
        }
        let chunk = data.split_to(data.len().min(MAX_WRITE));
        let written = writer.write_with_chunk(&Uint8Array::from(&*chunk));
        self.write.last = Some(JsFuture::from(written));
        Poll::Ready(Ok(()))
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        if let Some(last) = &mut self.write.last {
            let result = ready!(Pin::new(last).poll(cx));
            self.write.last = None;
            if let Err(error) = result {
                return Poll::Ready(Err(self.fail_write(&error)));
            }
        }
        Poll::Ready(match &self.write.end {
            Some(end) => end.clone(),
            None => Ok(()),
        })
    }

    fn poll_close_write(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        ready!(self.poll_flush(cx))?;
        if self.write.end.is_none() {
            self.write.end = Some(Ok(()));
            // It settles when the remote has acknowledged everything; only the connection's close waits for that.
            let finished = JsFuture::from(self.write.writer.close());
            if let Some(pending) = &self.pending {
                pending.add(async { drop(finished.await) });
            }
        }
        Poll::Ready(Ok(()))
    }

    fn reset(&mut self, code: u32) {
        let reason = reset_reason(code);
        if !matches!(self.write.end, Some(Ok(()))) {
            js::forget(self.write.writer.abort_with_reason(&reason));
        }
        if self.read.end.is_none() {
            js::forget(self.read.reader.cancel_with_reason(&reason));
        }
        let end = Some(Err(StreamError::Reset { code }));
        self.read.end = end.clone();
        self.write.end = end;
        self.read.under_way = None;
        self.write.room = None;
        self.write.last = None;
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

impl Drop for WebTransportStream {
    fn drop(&mut self) {
        if self.taken {
            return;
        }
        if self.write.end.is_none() {
            js::forget(self.write.writer.abort());
        }
        if self.read.end.is_none() {
            js::forget(self.read.reader.cancel());
        }
    }
}

/// What to abort with so that `code` reaches the remote. Without a code, the browser's default says the same.
fn reset_reason(code: u32) -> JsValue {
    if code == 0 {
        return JsValue::UNDEFINED;
    }
    let options = Object::new();
    js::set_property(&options, "source", &JsValue::from_str("stream"));
    js::set_property(&options, "streamErrorCode", &JsValue::from(code));
    // The draft has a message before the options; the browsers of 2026 have only the options, and throw otherwise.
    WebTransportError::new("reset", &options)
        .or_else(|_| WebTransportError::from_options(&options))
        .map_or(JsValue::UNDEFINED, JsValue::from)
}
