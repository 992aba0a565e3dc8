use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use x25519_dalek::{X25519_BASEPOINT_BYTES, x25519};

use super::{Refused, TAG_LENGTH, nonce_bytes};

/// An X25519 key pair.
pub(in crate::noise) struct KeyPair {
    secret: [u8; 32],
    public: [u8; 32],
}

impl KeyPair {
    pub(in crate::noise) fn from_secret(secret: [u8; 32]) -> Result<Self, Refused> {
        Ok(Self { secret, public: x25519(secret, X25519_BASEPOINT_BYTES) })
    }

    pub(in crate::noise) fn public(&self) -> &[u8; 32] {
        &self.public
    }

    /// Fails if the result is zero, which only a key of small order brings about (RFC 7748, section 6.1).
    pub(in crate::noise) fn agree(&self, remote: &[u8; 32]) -> Result<[u8; 32], Refused> {
        let shared = x25519(self.secret, *remote);
        // Every byte is looked at, so that the time taken says nothing about the secret.
        if shared.iter().fold(0, |bits, byte| bits | byte) == 0 { Err(Refused) } else { Ok(shared) }
    }
}

/// A ChaCha20-Poly1305 key.
pub(in crate::noise) struct AeadKey(peerloom_aead::Key);

impl AeadKey {
    pub(in crate::noise) fn new(key: &[u8; 32]) -> Result<Self, Refused> {
        Ok(Self(peerloom_aead::Key::new(key)))
    }

    /// Encrypts in place and returns the tag.
    pub(in crate::noise) fn seal(
        &self,
        nonce: u64,
        associated_data: &[u8],
        data: &mut [u8],
    ) -> Result<[u8; TAG_LENGTH], Refused> {
        self.0.seal(nonce_bytes(nonce), associated_data, data).map_err(|_| Refused)
    }

    /// Decrypts `ciphertext` into `plaintext`, which is as long, if the tag is right.
    pub(in crate::noise) fn open(
        &self,
        nonce: u64,
        associated_data: &[u8],
        ciphertext: &[u8],
        tag: &[u8; TAG_LENGTH],
        plaintext: &mut [u8],
    ) -> Result<(), Refused> {
        self.0.open(nonce_bytes(nonce), associated_data, ciphertext, tag, plaintext).map_err(|_| Refused)
    }
}

pub(in crate::noise) fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    let mut context = Sha256::new();
    for part in parts {
        context.update(part);
    }
    context.finalize().into()
}

pub(in crate::noise) fn hmac_sha256(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    // HMAC takes keys of any length; the error is an artefact of the library's trait.
    let Ok(mut context) = <Hmac<Sha256> as KeyInit>::new_from_slice(key) else { return [0; 32] };
    for part in parts {
        context.update(part);
    }
    context.finalize().into_bytes().into()
}
