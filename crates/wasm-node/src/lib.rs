//! Peerloom in a web page: [`transports`] on the browser's own networking objects, and the bindings that the npm package is
//! written on.

#[cfg(target_arch = "wasm32")]
mod abort;
#[cfg(target_arch = "wasm32")]
mod error;
#[cfg(target_arch = "wasm32")]
mod event_listener;
#[cfg(target_arch = "wasm32")]
mod gate;
#[cfg(target_arch = "wasm32")]
mod js;
#[cfg(any(test, target_arch = "wasm32"))]
mod log;
#[cfg(target_arch = "wasm32")]
mod node;
#[cfg(target_arch = "wasm32")]
mod panic;
#[cfg(target_arch = "wasm32")]
mod peer_storage;
#[cfg(any(test, target_arch = "wasm32"))]
mod sdp;
#[cfg(target_arch = "wasm32")]
mod stream;
#[cfg(target_arch = "wasm32")]
pub mod transports;

#[cfg(target_arch = "wasm32")]
pub use {node::WasmNode, stream::WasmStream};

/// Prepares this instance, once, before anything else: `log_filter` says what goes to the console (`debug`, or
/// `peerloom_webrtc=debug,info`; nothing is the default, `warn`), and `on_panic` is called with the message when there is a bug
/// in here. After that the instance is of no more use.
#[cfg(target_arch = "wasm32")]
#[wasm_bindgen::prelude::wasm_bindgen]
pub fn start(
    log_filter: Option<String>,
    #[wasm_bindgen(unchecked_param_type = "(message: string) => void")] on_panic: js_sys::Function,
) {
    panic::report_to(on_panic);
    log::start(log_filter.as_deref().unwrap_or_default());
}
