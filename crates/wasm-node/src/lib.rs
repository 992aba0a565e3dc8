//! Peerloom in a web page: [`transports`] on the browser's own networking objects, and the bindings that the npm package is
//! written on.

#[cfg(target_arch = "wasm32")]
mod event_listener;
#[cfg(target_arch = "wasm32")]
mod js;
#[cfg(any(test, target_arch = "wasm32"))]
mod sdp;
#[cfg(target_arch = "wasm32")]
pub mod transports;
