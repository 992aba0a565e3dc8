use std::{
    cell::RefCell,
    future::poll_fn,
    pin::pin,
    rc::Rc,
    task::{Context, Poll},
};

use bytes::{Buf, Bytes};
use js_sys::{Object, Uint8Array};
use peerloom_core::{NegotiatedStream, NegotiationError, Stream, StreamError};
use wasm_bindgen::prelude::{JsValue, wasm_bindgen};

use crate::{
    error::{coded, stream_error},
    js,
    transports::WebTransportStream,
};

/// A stream of the core. Reading, writing and closing may go on side by side, but at most one of each at a time.
#[wasm_bindgen]
pub struct WasmStream {
    /// `None` once the browser's own streams were taken out.
    inner: Rc<RefCell<Option<NegotiatedStream>>>,
    protocol: String,
    native: bool,
}

impl WasmStream {
    /// `native` says that a browser's own streams are below, which the page can have instead.
    pub(crate) fn new(stream: NegotiatedStream, native: bool) -> Self {
        Self { protocol: stream.protocol().to_string(), inner: Rc::new(RefCell::new(Some(stream))), native }
    }

    fn poll<T>(
        &self,
        mut poll: impl FnMut(&mut NegotiatedStream, &mut Context<'_>) -> Poll<Result<T, StreamError>>,
    ) -> impl Future<Output = Result<T, JsValue>> {
        let inner = self.inner.clone();
        poll_fn(move |cx| match inner.borrow_mut().as_mut() {
            Some(stream) => poll(stream, cx).map_err(|error| stream_error(&error)),
            None => Poll::Ready(Err(stream_error(&StreamError::WriteClosed))),
        })
    }
}

#[wasm_bindgen]
impl WasmStream {
    /// The protocol that the stream was opened for.
    #[wasm_bindgen(getter)]
    pub fn protocol(&self) -> String {
        self.protocol.clone()
    }

    /// Whether [`take`](Self::take) will give the browser's own streams once the protocol is confirmed.
    #[wasm_bindgen(getter, js_name = isNative)]
    pub fn is_native(&self) -> bool {
        self.native
    }

    /// The next bytes; undefined at the end.
    pub async fn read(&self) -> Result<Option<Uint8Array>, JsValue> {
        let chunk = self.poll(|stream, cx| stream.poll_read(cx)).await?;
        Ok(chunk.map(|chunk| Uint8Array::from(&*chunk)))
    }

    /// Writes all of `data`, waiting for flow control.
    pub async fn write(&self, data: Uint8Array) -> Result<(), JsValue> {
        let mut data = Bytes::from(data.to_vec());
        self.poll(move |stream, cx| {
            while data.has_remaining() {
                match stream.poll_write(cx, &mut data) {
                    Poll::Ready(Ok(())) => {}
                    other => return other,
                }
            }
            Poll::Ready(Ok(()))
        })
        .await
    }

    /// Closes the write half after what was written.
    #[wasm_bindgen(js_name = closeWrite)]
    pub async fn close_write(&self) -> Result<(), JsValue> {
        self.poll(|stream, cx| stream.poll_close_write(cx)).await
    }

    /// Abandons both halves.
    pub fn reset(&self, code: u32) {
        if let Some(stream) = self.inner.borrow_mut().as_mut() {
            stream.reset(code);
        }
    }

    /// Lets go of the stream; what was not closed is reset.
    pub fn discard(&self) {
        self.inner.take();
    }

    /// Waits until the remote has accepted the protocol.
    pub async fn confirm(&self) -> Result<(), JsValue> {
        let inner = self.inner.clone();
        let confirmed: Result<(), NegotiationError> = poll_fn(move |cx| match inner.borrow_mut().as_mut() {
            // Cancel-safe, so a new future at each poll goes on where the last one was.
            Some(stream) => pin!(stream.confirm()).poll(cx),
            None => Poll::Ready(Ok(())),
        })
        .await;
        confirmed.map_err(|error| match error {
            NegotiationError::NoCommonProtocol => coded(&StreamError::ProtocolNotSupported),
            error => coded(&error),
        })
    }

    /// The browser's own streams, to be used instead of this: `{ readable, writable, unread }`. Only after
    /// [`confirm`](Self::confirm), and while nothing is being read or written; undefined where there are none.
    #[wasm_bindgen(unchecked_return_type = "CoreNativeStreams | undefined")]
    pub fn take(&self) -> Option<Object> {
        if !self.native {
            return None;
        }
        let stream = self.inner.take()?;
        // Confirmed, so this is ready at once.
        let mut parts = pin!(stream.into_inner_parts());
        let Poll::Ready(Ok((stream, unread))) =
            parts.as_mut().poll(&mut Context::from_waker(std::task::Waker::noop()))
        else {
            return None;
        };
        let stream = stream.into_any().downcast::<WebTransportStream>().ok()?;
        let (readable, writable) = stream.into_browser_streams();
        let pair = Object::new();
        js::set_property(&pair, "readable", &readable);
        js::set_property(&pair, "writable", &writable);
        if !unread.is_empty() {
            js::set_property(&pair, "unread", &Uint8Array::from(&*unread));
        }
        Some(pair)
    }
}
