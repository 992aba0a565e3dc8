use peerloom_core::{HandshakeError, KeyError};

use super::primitives::Refused;

/// Why a Noise handshake or a Noise message failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NoiseError {
    /// A message ends before all of its parts are there.
    #[error("message is truncated")]
    Truncated,
    /// A message is longer than the protocol, or we, allow.
    #[error("message of {length} bytes, at most {limit} allowed")]
    TooLong {
        /// Its length in bytes.
        length: usize,
        /// The bound in bytes.
        limit: usize,
    },
    /// A message was forged, damaged or sealed with another key.
    #[error("message cannot be decrypted")]
    Decrypt,
    /// The remote sent a Diffie-Hellman key of small order, or the library failed.
    #[error("key was refused")]
    BadKey,
    /// The handshake's payload is not the protobuf message that it must be.
    #[error("malformed payload: {0}")]
    Payload(&'static str),
    /// The remote's identity key cannot be used.
    #[error("unusable identity key: {0}")]
    IdentityKey(#[from] KeyError),
    /// The remote's identity key did not sign the remote's Noise key.
    #[error("identity signature is wrong")]
    IdentitySignature,
    /// A message was asked for or given when it was the other side's turn.
    #[error("message out of turn")]
    OutOfTurn,
    /// All 2^64 - 1 nonces of a direction are used up.
    #[error("nonces are exhausted")]
    NonceExhausted,
}

impl From<Refused> for NoiseError {
    fn from(_: Refused) -> Self {
        Self::BadKey
    }
}

impl From<NoiseError> for HandshakeError {
    fn from(error: NoiseError) -> Self {
        Self::Invalid { step: super::STEP, reason: error.to_string() }
    }
}
