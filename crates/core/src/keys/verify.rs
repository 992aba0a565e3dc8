//! Verification of signatures: natively by aws-lc; in a page by the browser where it can, else by RustCrypto.

#[cfg(target_arch = "wasm32")]
mod browser;
#[cfg(not(target_arch = "wasm32"))]
mod native;

#[cfg(target_arch = "wasm32")]
pub(super) use browser::verify;
#[cfg(not(target_arch = "wasm32"))]
pub(super) use native::{verify, verify_blocking};
