//! X25519, ChaCha20-Poly1305 and SHA-256 from the library that is fastest (natively) or smallest (in a page).

#[cfg(not(target_arch = "wasm32"))]
mod native;
#[cfg(not(target_arch = "wasm32"))]
use native as platform;
#[cfg(target_arch = "wasm32")]
mod browser;
#[cfg(target_arch = "wasm32")]
use browser as platform;

pub(super) use platform::{AeadKey, KeyPair, hmac_sha256, sha256};

/// Length of a Poly1305 tag in bytes.
pub(crate) const TAG_LENGTH: usize = 16;

/// The library refused: an authentication tag that does not match, or a key that no honest peer would send.
#[derive(Debug)]
pub(super) struct Refused;

/// Noise spec, "The ChaChaPoly cipher functions": 32 zero bits, then the counter in little-endian.
fn nonce_bytes(counter: u64) -> [u8; 12] {
    let mut nonce = [0; 12];
    if let Some(tail) = nonce.last_chunk_mut::<8>() {
        *tail = counter.to_le_bytes();
    }
    nonce
}
