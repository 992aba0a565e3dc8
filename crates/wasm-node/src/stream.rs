use std::{
    cell::RefCell,
    future::poll_fn,
    pin::pin,
    rc::Rc,
    task::{Context, Poll},
};

use bytes::{Buf, Bytes};
use js_sys::{Object, Promise, Uint8Array};
use peerloom_core::{
    NegotiatedStream, NegotiationError, Stream, StreamError, multistream_select::Attachment,
};
use wasm_bindgen::prelude::{JsValue, wasm_bindgen};

use crate::{
    error::{coded, stream_error},
    js::{self, promise},
    transports::WebTransportStream,
};

/// A stream of the core. Reading, writing and closing may go on side by side, but at most one of each at a time.
#[wasm_bindgen]
pub struct WasmStream {
    /// `None` once the browser's own streams were taken out.
    inner: Rc<RefCell<Option<NegotiatedStream>>>,
    /// What was attached to the stream, once the browser's own streams were taken out: it counts as open until they have ended.
    attached: RefCell<Vec<Box<dyn Attachment>>>,
    protocol: String,
    native: bool,
}

impl WasmStream {
    /// `native` says that a browser's own streams are below, which the page can have instead.
    pub(crate) fn new(stream: NegotiatedStream, native: bool) -> Self {
        Self {
            protocol: stream.protocol().to_string(),
            inner: Rc::new(RefCell::new(Some(stream))),
            attached: RefCell::default(),
            native,
        }
    }

    /// A promise for what `poll` gives, once it is ready.
    fn promise(
        &self,
        mut poll: impl FnMut(&mut NegotiatedStream, &mut Context<'_>) -> Poll<Result<JsValue, JsValue>> + 'static,
    ) -> Promise {
        let inner = self.inner.clone();
        promise(Box::pin(poll_fn(move |cx| match inner.borrow_mut().as_mut() {
            Some(stream) => poll(stream, cx),
            None => Poll::Ready(Err(stream_error(&StreamError::WriteClosed))),
        })))
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
    #[wasm_bindgen(unchecked_return_type = "Promise<Uint8Array<ArrayBuffer> | undefined>")]
    pub fn read(&self) -> Promise {
        self.promise(|stream, cx| {
            stream.poll_read(cx).map(|read| match read {
                Ok(Some(chunk)) => Ok(Uint8Array::from(&*chunk).into()),
                Ok(None) => Ok(JsValue::UNDEFINED),
                Err(error) => Err(stream_error(&error)),
            })
        })
    }

    /// Writes all of `data`, waiting for flow control.
    #[wasm_bindgen(unchecked_return_type = "Promise<void>")]
    pub fn write(&self, data: Uint8Array) -> Promise {
        let mut data = Bytes::from(data.to_vec());
        self.promise(move |stream, cx| {
            while data.has_remaining() {
                match stream.poll_write(cx, &mut data) {
                    Poll::Ready(Ok(())) => {}
                    other => return done(other),
                }
            }
            done(Poll::Ready(Ok(())))
        })
    }

    /// Closes the write half after what was written.
    #[wasm_bindgen(js_name = closeWrite, unchecked_return_type = "Promise<void>")]
    pub fn close_write(&self) -> Promise {
        self.promise(|stream, cx| done(stream.poll_close_write(cx)))
    }

    /// Abandons both halves.
    pub fn reset(&self, code: u32) {
        if let Some(stream) = self.inner.borrow_mut().as_mut() {
            stream.reset(code);
        }
    }

    /// Lets go of the stream; what was not closed is reset. Of one that was taken out, it says that both directions have ended.
    pub fn discard(&self) {
        self.inner.take();
        self.attached.take();
    }

    /// Waits until the remote has accepted the protocol.
    #[wasm_bindgen(unchecked_return_type = "Promise<void>")]
    pub fn confirm(&self) -> Promise {
        self.promise(|stream, cx| {
            // Cancel-safe, so a new future at each poll goes on where the last one was.
            pin!(stream.confirm()).poll(cx).map(|confirmed| match confirmed {
                Ok(()) => Ok(JsValue::UNDEFINED),
                Err(NegotiationError::NoCommonProtocol) => Err(coded(&StreamError::ProtocolNotSupported)),
                Err(error) => Err(coded(&error)),
            })
        })
    }

    /// The browser's own streams, to be used instead of this: `{ readable, writable, unread }`. Only after
    /// [`confirm`](Self::confirm), and while nothing is being read or written; undefined where there are none.
    #[wasm_bindgen(unchecked_return_type = "CoreNativeStreams | undefined")]
    pub fn take(&self) -> Option<Object> {
        if !self.native {
            return None;
        }
        let mut stream = self.inner.take()?;
        self.attached.replace(stream.take_attached());
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

/// What a step that only succeeds or fails is to the page.
fn done(step: Poll<Result<(), StreamError>>) -> Poll<Result<JsValue, JsValue>> {
    step.map(|done| match done {
        Ok(()) => Ok(JsValue::UNDEFINED),
        Err(error) => Err(stream_error(&error)),
    })
}
