//! Verification of signatures: natively by aws-lc; in a page by the browser where it can, else by RustCrypto or,
//! for secp256k1, by ourselves.

#[cfg(target_arch = "wasm32")]
mod browser;
#[cfg(not(target_arch = "wasm32"))]
mod native;
#[cfg(any(test, target_arch = "wasm32"))]
mod secp256k1;

#[cfg(target_arch = "wasm32")]
pub(super) use browser::verify;
#[cfg(not(target_arch = "wasm32"))]
pub(super) use native::{verify, verify_blocking};
