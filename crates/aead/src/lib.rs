//! ChaCha20-Poly1305 (RFC 8439) for the page.
//!
//! A crate of its own, because the libraries' code is generic: it is compiled where it is used, with that crate's
//! optimisation. Compiled for size, as the rest of the page is, it seals 90 MiB/s where it could seal 480.

use chacha20poly1305::{
    ChaCha20Poly1305, KeyInit,
    aead::{AeadInOut, inout::InOutBuf},
};

/// Bytes of a tag.
pub const TAG_LENGTH: usize = 16;

/// Bytes of a nonce.
pub const NONCE_LENGTH: usize = 12;

/// The data is too long, or it was not sealed with this key, nonce and associated data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused;

/// A ChaCha20-Poly1305 key.
pub struct Key(ChaCha20Poly1305);

impl Key {
    /// The key of these bytes.
    pub fn new(key: &[u8; 32]) -> Self {
        Self(ChaCha20Poly1305::new(key.into()))
    }

    /// Encrypts in place and returns the tag.
    pub fn seal(
        &self,
        nonce: [u8; NONCE_LENGTH],
        associated_data: &[u8],
        data: &mut [u8],
    ) -> Result<[u8; TAG_LENGTH], Refused> {
        self.0
            .encrypt_inout_detached(&nonce.into(), associated_data, data.into())
            .map(Into::into)
            .map_err(|_| Refused)
    }

    /// Decrypts `ciphertext` into `plaintext`, which is as long, if the tag is right.
    pub fn open(
        &self,
        nonce: [u8; NONCE_LENGTH],
        associated_data: &[u8],
        ciphertext: &[u8],
        tag: &[u8; TAG_LENGTH],
        plaintext: &mut [u8],
    ) -> Result<(), Refused> {
        let data = InOutBuf::new(ciphertext, plaintext).map_err(|_| Refused)?;
        self.0.decrypt_inout_detached(&nonce.into(), associated_data, data, tag.into()).map_err(|_| Refused)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sealed_opens_and_what_was_changed_does_not() {
        let key = Key::new(&[7; 32]);
        let mut sealed = *b"a frame of Noise";
        let tag = key.seal([1; 12], b"with", &mut sealed).unwrap();
        let mut opened = [0; 16];
        assert_eq!(key.open([1; 12], b"with", &sealed, &tag, &mut opened), Ok(()));
        assert_eq!(&opened, b"a frame of Noise");
        assert_eq!(key.open([2; 12], b"with", &sealed, &tag, &mut opened), Err(Refused));
        sealed[0] ^= 1;
        assert_eq!(key.open([1; 12], b"with", &sealed, &tag, &mut opened), Err(Refused));
    }
}
