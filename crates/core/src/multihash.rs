//! [`Multihash`]: a digest that says by which hash function it was made.

#![warn(clippy::arithmetic_side_effects)]

use std::fmt;

use bytes::Bytes;

use crate::{
    base_encoding::BASE16,
    varint::{self, VarintError},
};

/// The multicodec of a "digest" that is the data itself.
pub const IDENTITY: u64 = 0x00;
/// The multicodec of SHA2-256.
pub const SHA2_256: u64 = 0x12;
/// The longest digest that a [`Multihash`] carries, in bytes; twice that of the longest hash function in use.
pub const MAX_DIGEST_BYTES: usize = 128;

/// A digest with the multicodec of its hash function, of whatever hash function that is.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Multihash {
    bytes: Bytes,
    code: u64,
    digest_bytes: u8,
}

/// Why bytes are not a [`Multihash`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MultihashError {
    /// The code or the length is not a varint.
    #[error("multihash: {0}")]
    Varint(#[from] VarintError),
    /// The digest is longer or shorter than its length says.
    #[error("multihash: digest of {actual} bytes where {stated} are stated")]
    DigestLength {
        /// The length that the multihash states.
        stated: u64,
        /// The number of bytes that follow.
        actual: usize,
    },
    /// The digest is longer than [`MAX_DIGEST_BYTES`].
    #[error("multihash: digest of {0} bytes, more than {MAX_DIGEST_BYTES}")]
    TooLong(u64),
}

impl Multihash {
    /// The SHA2-256 multihash of a digest made elsewhere.
    pub fn sha2_256(digest: [u8; 32]) -> Self {
        let mut bytes = Vec::with_capacity(34);
        bytes.extend_from_slice(&[SHA2_256 as u8, 32]);
        bytes.extend_from_slice(&digest);
        Self { bytes: bytes.into(), code: SHA2_256, digest_bytes: 32 }
    }

    /// Hashes `data` with SHA2-256.
    pub fn sha2_256_of(data: &[u8]) -> Self {
        Self::sha2_256(sha2_256(data))
    }

    /// Parses a multihash that fills `bytes` exactly.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, MultihashError> {
        let (code, digest_bytes) = check(bytes)?;
        Ok(Self { bytes: Bytes::copy_from_slice(bytes), code, digest_bytes })
    }

    /// The multicodec of the hash function.
    pub fn code(&self) -> u64 {
        self.code
    }

    /// The digest alone.
    pub fn digest(&self) -> &[u8] {
        let start = self.bytes.len().saturating_sub(self.digest_bytes.into());
        self.bytes.get(start..).unwrap_or_default()
    }

    /// Code, length and digest.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl fmt::Debug for Multihash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Multihash({:#x}, {})", self.code, BASE16.encode(self.digest()))
    }
}

/// Whether `bytes` are a multihash: its code and the length of its digest.
pub(crate) fn check(bytes: &[u8]) -> Result<(u64, u8), MultihashError> {
    let (code, rest) = varint::decode(bytes)?;
    let (stated, digest) = varint::decode(rest)?;
    if stated > MAX_DIGEST_BYTES as u64 {
        return Err(MultihashError::TooLong(stated));
    }
    match u8::try_from(digest.len()) {
        Ok(length) if u64::from(length) == stated => Ok((code, length)),
        _ => Err(MultihashError::DigestLength { stated, actual: digest.len() }),
    }
}

/// The SHA2-256 digest of `data`.
#[cfg(not(target_arch = "wasm32"))]
pub fn sha2_256(data: &[u8]) -> [u8; 32] {
    let mut digest = [0; 32];
    // aws-lc-rs hands out a slice; for this algorithm it is always 32 bytes.
    for (to, from) in
        digest.iter_mut().zip(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, data).as_ref())
    {
        *to = *from;
    }
    digest
}

/// The SHA2-256 digest of `data`.
#[cfg(target_arch = "wasm32")]
pub fn sha2_256(data: &[u8]) -> [u8; 32] {
    use sha2::Digest;
    sha2::Sha256::digest(data).into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sha2_256_of_the_standard_message() {
        let hash = Multihash::sha2_256_of(b"abc");
        let hex = data_encoding::HEXLOWER.encode(hash.as_bytes());
        assert_eq!(hex, "1220ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(hash.digest().len(), 32);
        assert_eq!(Multihash::from_bytes(hash.as_bytes()).unwrap(), hash);
    }

    #[test]
    fn lengths_that_do_not_fit_are_refused() {
        assert_eq!(Multihash::from_bytes(&[]), Err(VarintError::Truncated.into()));
        let short = MultihashError::DigestLength { stated: 3, actual: 2 };
        assert_eq!(Multihash::from_bytes(&[0x12, 3, 1, 2]), Err(short));
        let long = MultihashError::DigestLength { stated: 1, actual: 2 };
        assert_eq!(Multihash::from_bytes(&[0x12, 1, 1, 2]), Err(long));
        let huge = [&[0x12, 0xff, 0x01][..], &[0; 255]].concat();
        assert_eq!(Multihash::from_bytes(&huge), Err(MultihashError::TooLong(255)));
    }

    proptest! {
        #[test]
        fn whatever_parses_keeps_its_bytes(input: Vec<u8>) {
            if let Ok(hash) = Multihash::from_bytes(&input) {
                prop_assert_eq!(hash.as_bytes(), &input[..]);
                prop_assert!(input.ends_with(hash.digest()));
            }
        }
    }
}
