//! Key derivation and the running hash: Noise spec, "The SymmetricState object".

use super::{
    cipher::CipherState,
    error::NoiseError,
    primitives::{TAG_LENGTH, hmac_sha256, sha256},
};

/// 32 bytes long, so it is the initial hash as it is (Noise spec, "The SymmetricState object").
const PROTOCOL_NAME: &[u8; 32] = b"Noise_XX_25519_ChaChaPoly_SHA256";

pub(super) struct SymmetricState {
    chaining_key: [u8; 32],
    hash: [u8; 32],
    cipher: Option<CipherState>,
}

impl SymmetricState {
    pub(super) fn new(prologue: &[u8]) -> Self {
        let mut state = Self { chaining_key: *PROTOCOL_NAME, hash: *PROTOCOL_NAME, cipher: None };
        state.mix_hash(prologue);
        state
    }

    pub(super) fn mix_hash(&mut self, data: &[u8]) {
        self.hash = sha256(&[&self.hash, data]);
    }

    pub(super) fn mix_key(&mut self, input: &[u8; 32]) -> Result<(), NoiseError> {
        let (chaining_key, key) = derive(&self.chaining_key, input);
        self.chaining_key = chaining_key;
        self.cipher = Some(CipherState::new(&key)?);
        Ok(())
    }

    /// Appends `plaintext` to `message`: sealed once there is a key, as it is before that.
    pub(super) fn encrypt_and_hash(
        &mut self,
        plaintext: &[u8],
        message: &mut Vec<u8>,
    ) -> Result<(), NoiseError> {
        let start = message.len();
        message.extend_from_slice(plaintext);
        if let Some(cipher) = &mut self.cipher {
            message.extend_from_slice(&[0; TAG_LENGTH]);
            let sealed = message.get_mut(start..).ok_or(NoiseError::Truncated)?;
            cipher.seal_in_place(&self.hash, sealed)?;
        }
        let part = message.get(start..).ok_or(NoiseError::Truncated)?;
        self.hash = sha256(&[&self.hash, part]);
        Ok(())
    }

    pub(super) fn decrypt_and_hash(&mut self, part: &[u8]) -> Result<Vec<u8>, NoiseError> {
        let plaintext = match &mut self.cipher {
            Some(cipher) => cipher.open(&self.hash, part)?,
            None => part.to_vec(),
        };
        self.mix_hash(part);
        Ok(plaintext)
    }

    /// How long `length` bytes of plaintext are on the wire at this point.
    pub(super) fn sealed_length(&self, length: usize) -> usize {
        length.saturating_add(if self.cipher.is_some() { TAG_LENGTH } else { 0 })
    }

    /// The ciphers of the initiator's and of the responder's messages.
    pub(super) fn split(&self) -> Result<(CipherState, CipherState), NoiseError> {
        let (initiator, responder) = derive(&self.chaining_key, b"");
        Ok((CipherState::new(&initiator)?, CipherState::new(&responder)?))
    }

    #[cfg(test)]
    pub(super) fn handshake_hash(&self) -> [u8; 32] {
        self.hash
    }
}

/// Noise spec, "HKDF" with two outputs.
fn derive(chaining_key: &[u8; 32], input: &[u8]) -> ([u8; 32], [u8; 32]) {
    let temporary = hmac_sha256(chaining_key, &[input]);
    let first = hmac_sha256(&temporary, &[&[1]]);
    let second = hmac_sha256(&temporary, &[&first, &[2]]);
    (first, second)
}
