use aws_lc_rs::{
    aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey},
    agreement::{self, PrivateKey, X25519},
    digest, hmac,
};

use super::{Refused, TAG_LENGTH, nonce_bytes};

/// An X25519 key pair.
pub(in crate::noise) struct KeyPair {
    private: PrivateKey,
    public: [u8; 32],
}

impl KeyPair {
    pub(in crate::noise) fn from_secret(secret: [u8; 32]) -> Result<Self, Refused> {
        let private = PrivateKey::from_private_key(&X25519, &secret).map_err(|_| Refused)?;
        let public = private.compute_public_key().map_err(|_| Refused)?;
        let public = public.as_ref().try_into().map_err(|_| Refused)?;
        Ok(Self { private, public })
    }

    pub(in crate::noise) fn public(&self) -> &[u8; 32] {
        &self.public
    }

    /// Fails if the result is zero, which only a key of small order brings about (RFC 7748, section 6.1).
    pub(in crate::noise) fn agree(&self, remote: &[u8; 32]) -> Result<[u8; 32], Refused> {
        let remote = agreement::UnparsedPublicKey::new(&X25519, remote);
        agreement::agree(&self.private, remote, Refused, |secret| secret.try_into().map_err(|_| Refused))
    }
}

/// A ChaCha20-Poly1305 key.
pub(in crate::noise) struct AeadKey(LessSafeKey);

impl AeadKey {
    pub(in crate::noise) fn new(key: &[u8; 32]) -> Result<Self, Refused> {
        UnboundKey::new(&CHACHA20_POLY1305, key).map(|key| Self(LessSafeKey::new(key))).map_err(|_| Refused)
    }

    /// Encrypts in place and returns the tag.
    pub(in crate::noise) fn seal(
        &self,
        nonce: u64,
        associated_data: &[u8],
        data: &mut [u8],
    ) -> Result<[u8; TAG_LENGTH], Refused> {
        let nonce = Nonce::assume_unique_for_key(nonce_bytes(nonce));
        let tag = self
            .0
            .seal_in_place_separate_tag(nonce, Aad::from(associated_data), data)
            .map_err(|_| Refused)?;
        tag.as_ref().try_into().map_err(|_| Refused)
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
        let nonce = Nonce::assume_unique_for_key(nonce_bytes(nonce));
        self.0
            .open_separate_gather(nonce, Aad::from(associated_data), ciphertext, tag, plaintext)
            .map_err(|_| Refused)
    }
}

pub(in crate::noise) fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in parts {
        context.update(part);
    }
    let mut output = [0; 32];
    output.iter_mut().zip(context.finish().as_ref()).for_each(|(to, from)| *to = *from);
    output
}

pub(in crate::noise) fn hmac_sha256(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, key));
    for part in parts {
        context.update(part);
    }
    let mut output = [0; 32];
    output.iter_mut().zip(context.sign().as_ref()).for_each(|(to, from)| *to = *from);
    output
}
