//! noise-libp2p: who the remote is, and keys that only it and we have.
//!
//! [`Handshake`] is the protocol as a state machine; [`authenticate`] drives it over a pipe.

mod authenticate;
mod cipher;
mod error;
mod frame;
// Not in a page, whose tests have no files.
#[cfg(all(any(test, fuzzing), not(target_arch = "wasm32")))]
pub mod fuzzing;
mod handshake;
mod payload;
mod primitives;
mod symmetric;
mod xx;

pub use authenticate::authenticate;
pub(crate) use authenticate::{randomness, run};
pub use cipher::CipherState;
pub use error::NoiseError;
pub(crate) use frame::{MAX_PLAINTEXT, frame_length, seal_frame};
pub use handshake::{Claim, Handshake, MAX_HANDSHAKE_MESSAGE, Randomness, RemoteIdentity};
pub use payload::NoiseExtensions;
pub(crate) use primitives::TAG_LENGTH;

/// How errors name this handshake.
pub(crate) const STEP: &str = "noise";
