//! Small things that every use of browser objects needs.

use bytes::Bytes;
use js_sys::{Promise, Reflect, Uint8Array};
use peerloom_core::runtime::BoxFuture;
use wasm_bindgen::{JsCast, JsValue};
use wasm_bindgen_futures::{JsFuture, future_to_promise};
use web_sys::MessageEvent;

/// A browser's error in its own words.
pub(crate) fn describe(error: &JsValue) -> String {
    if let Some(error) = error.dyn_ref::<js_sys::Error>() {
        let message = String::from(error.message());
        if !message.is_empty() {
            return message;
        }
        return error.name().into();
    }
    error.as_string().unwrap_or_else(|| "the browser gives no reason".into())
}

/// Whether a browser's error is of this kind: the name of a `DOMException`.
pub(crate) fn is_named(error: &JsValue, name: &str) -> bool {
    error.dyn_ref::<js_sys::Error>().is_some_and(|error| error.name() == name)
}

/// Leaves a promise to itself. Nobody wants to know that it was rejected, so the console must not say so either.
pub(crate) fn forget(promise: Promise) {
    drop(JsFuture::from(promise));
}

/// A property of an object; undefined if it has none.
pub(crate) fn property(object: &JsValue, name: &str) -> JsValue {
    Reflect::get(object, &JsValue::from_str(name)).unwrap_or(JsValue::UNDEFINED)
}

/// Sets a property of an object that we have just made.
pub(crate) fn set_property(object: &JsValue, name: &str, value: &JsValue) {
    // Only frozen objects and proxies refuse.
    let _ = Reflect::set(object, &JsValue::from_str(name), value);
}

/// Whether the page's (or worker's) global object has this interface.
pub(crate) fn has_global(name: &str) -> bool {
    !property(&js_sys::global(), name).is_undefined()
}

/// What a socket or channel of binary type `arraybuffer` received; `None` if it is text.
pub(crate) fn binary_message(event: &MessageEvent) -> Option<Bytes> {
    let data = event.data();
    data.is_object().then(|| Uint8Array::new(&data).to_vec().into())
}

/// A promise for what a call from the page brings. It is the page's to wait for, so it has no other owner; a closed node
/// ends what its calls wait for. One function for all, because each future that becomes a promise by itself is a kilobyte.
pub(crate) fn promise(future: BoxFuture<'static, Result<JsValue, JsValue>>) -> Promise {
    future_to_promise(future)
}
