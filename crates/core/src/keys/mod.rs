//! The keys by which peers are known (peer-ids spec, "Keys"): we sign with Ed25519 and verify all four types of key.

mod der;
mod keypair;
mod protobuf;
mod public_key;
mod verify;

pub use keypair::Keypair;
pub use public_key::PublicKey;

/// The longest encoding of a public key that is looked at, in bytes; an RSA key of 8192 bits takes 1,066.
pub const MAX_ENCODED_KEY_BYTES: usize = 1280;

/// The sizes of RSA keys that are accepted, in bits: smaller ones are weak, larger ones cost more than a stranger may ask.
pub const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

/// Why bytes are not a key that we take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// It is longer than [`MAX_ENCODED_KEY_BYTES`], or a private key that is longer than any.
    #[error("key of {0} bytes is longer than any that is accepted")]
    TooLong(usize),
    /// The protobuf message is not exactly a type and data, in the one encoding that the spec allows.
    #[error("key is not a canonical protobuf message of a type and data")]
    Protobuf,
    /// No such type of key, or not for this purpose.
    #[error("key type {0} is not supported")]
    UnsupportedType(u64),
    /// The data is not a key of the type.
    #[error("malformed {0} key")]
    Malformed(&'static str),
    /// An RSA key outside of [`RSA_BITS`].
    #[error("RSA key of {0} bits; between 2048 and 8192 are accepted")]
    RsaSize(usize),
}

/// The signature was not made with this key for this message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("invalid signature")]
pub struct InvalidSignature;
