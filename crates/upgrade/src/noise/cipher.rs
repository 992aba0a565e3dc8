//! One direction's cipher: Noise spec, "The CipherState object".

use super::{
    error::NoiseError,
    primitives::{AeadKey, TAG_LENGTH},
};

/// Seals or opens the messages of one direction, each with the next nonce.
pub struct CipherState {
    key: AeadKey,
    nonce: u64,
}

impl CipherState {
    pub(super) fn new(key: &[u8; 32]) -> Result<Self, NoiseError> {
        Ok(Self { key: AeadKey::new(key)?, nonce: 0 })
    }

    /// Seals `message` in place: all but its last 16 bytes are the plaintext, and those receive the tag.
    pub fn seal_in_place(&mut self, associated_data: &[u8], message: &mut [u8]) -> Result<(), NoiseError> {
        let nonce = self.next_nonce()?;
        let (plaintext, tag) = message.split_last_chunk_mut::<TAG_LENGTH>().ok_or(NoiseError::Truncated)?;
        *tag = self.key.seal(nonce, associated_data, plaintext)?;
        Ok(())
    }

    /// Opens a sealed message into a buffer of its own.
    ///
    /// Not in place: the plaintext is handed to streams, and a slice of the large buffer that messages are read into
    /// would keep all of that buffer alive. Decrypting elsewhere costs no copy.
    pub fn open(&mut self, associated_data: &[u8], sealed: &[u8]) -> Result<Vec<u8>, NoiseError> {
        let mut plaintext = vec![0; sealed.len().saturating_sub(TAG_LENGTH)];
        self.open_into(associated_data, sealed, &mut plaintext)?;
        Ok(plaintext)
    }

    /// The same into a buffer that is as long as the plaintext.
    pub(crate) fn open_into(
        &mut self,
        associated_data: &[u8],
        sealed: &[u8],
        plaintext: &mut [u8],
    ) -> Result<(), NoiseError> {
        let nonce = self.next_nonce()?;
        let (ciphertext, tag) = sealed.split_last_chunk::<TAG_LENGTH>().ok_or(NoiseError::Truncated)?;
        self.key.open(nonce, associated_data, ciphertext, tag, plaintext).map_err(|_| NoiseError::Decrypt)
    }

    /// Noise spec, "The CipherState object": the last nonce is reserved, and none is ever used twice.
    fn next_nonce(&mut self) -> Result<u64, NoiseError> {
        let nonce = self.nonce;
        self.nonce = nonce.checked_add(1).ok_or(NoiseError::NonceExhausted)?;
        Ok(nonce)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (CipherState, CipherState) {
        (CipherState::new(&[7; 32]).unwrap(), CipherState::new(&[7; 32]).unwrap())
    }

    #[test]
    fn what_is_sealed_opens_in_order_only() {
        let (mut sender, mut receiver) = pair();
        let mut first = *b"first message.................. ";
        let mut second = first;
        sender.seal_in_place(b"", &mut first).unwrap();
        sender.seal_in_place(b"", &mut second).unwrap();
        assert_ne!(first, second);
        assert_eq!(receiver.open(b"", &first).unwrap(), b"first message...");
        assert_eq!(receiver.open(b"", &second).unwrap(), b"first message...");
        assert!(matches!(receiver.open(b"", &first), Err(NoiseError::Decrypt)));
    }

    #[test]
    fn message_shorter_than_its_tag_is_refused() {
        let (mut sender, mut receiver) = pair();
        assert!(matches!(sender.seal_in_place(b"", &mut [0; 15]), Err(NoiseError::Truncated)));
        assert!(matches!(receiver.open(b"", &[0; 15]), Err(NoiseError::Truncated)));
    }

    #[test]
    fn exhausted_nonce_is_refused() {
        let (mut sender, _) = pair();
        sender.nonce = u64::MAX - 1;
        sender.seal_in_place(b"", &mut [0; 32]).unwrap();
        assert!(matches!(sender.seal_in_place(b"", &mut [0; 32]), Err(NoiseError::NonceExhausted)));
        assert!(matches!(sender.seal_in_place(b"", &mut [0; 32]), Err(NoiseError::NonceExhausted)));
    }

    /// RFC 8439, section 2.8.2, but for its nonce, which Noise does not choose freely: that of the AEAD construction
    /// with counter 0 was computed with an independent implementation.
    #[test]
    fn sealing_equals_the_rfc_construction() {
        // RFC 8439, A.3/A.5 style known answer: an empty message under a zero key and zero nonce.
        let mut cipher = CipherState::new(&[0; 32]).unwrap();
        let mut message = [0; 16];
        cipher.seal_in_place(b"", &mut message).unwrap();
        assert_eq!(data_encoding::HEXLOWER.encode(&message), "4eb972c9a8fb3a1b382bb4d36f5ffad1");
    }
}
