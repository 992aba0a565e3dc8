//! The part of the WebTransport interface that we use. web-sys has it behind a flag that every user would have to set.

use js_sys::{Object, Promise};
use wasm_bindgen::prelude::{JsValue, wasm_bindgen};
use web_sys::{ReadableStream, WritableStream};

#[wasm_bindgen]
extern "C" {
    #[derive(Clone)]
    pub(super) type WebTransport;
    #[wasm_bindgen(constructor, catch)]
    pub(super) fn new(url: &str, options: &Object) -> Result<WebTransport, JsValue>;
    #[wasm_bindgen(method, getter)]
    pub(super) fn ready(this: &WebTransport) -> Promise;
    #[wasm_bindgen(method, getter)]
    pub(super) fn closed(this: &WebTransport) -> Promise;
    #[wasm_bindgen(method, getter, js_name = incomingBidirectionalStreams)]
    pub(super) fn incoming_bidirectional_streams(this: &WebTransport) -> ReadableStream;
    #[wasm_bindgen(method, catch, js_name = createBidirectionalStream)]
    pub(super) fn create_bidirectional_stream(this: &WebTransport) -> Result<Promise, JsValue>;
    #[wasm_bindgen(method, catch)]
    pub(super) fn close(this: &WebTransport) -> Result<(), JsValue>;

    pub(super) type WebTransportBidirectionalStream;
    #[wasm_bindgen(method, getter)]
    pub(super) fn readable(this: &WebTransportBidirectionalStream) -> ReadableStream;
    #[wasm_bindgen(method, getter)]
    pub(super) fn writable(this: &WebTransportBidirectionalStream) -> WritableStream;

    pub(super) type WebTransportError;
    #[wasm_bindgen(constructor, catch)]
    pub(super) fn new(message: &str, options: &Object) -> Result<WebTransportError, JsValue>;
    #[wasm_bindgen(constructor, catch)]
    pub(super) fn from_options(options: &Object) -> Result<WebTransportError, JsValue>;
    /// `stream` or `session`.
    #[wasm_bindgen(method, getter)]
    pub(super) fn source(this: &WebTransportError) -> Option<String>;
    #[wasm_bindgen(method, getter, js_name = streamErrorCode)]
    pub(super) fn stream_error_code(this: &WebTransportError) -> Option<f64>;
}
