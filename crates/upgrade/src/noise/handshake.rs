//! The handshake of noise-libp2p as a state machine: messages and randomness in, messages and a [`Claim`] out.

use peerloom_core::{Keypair, PeerId, PublicKey};

use super::{
    cipher::CipherState,
    error::NoiseError,
    payload::{self, NoiseExtensions, Payload},
    primitives::KeyPair,
    xx::{Next, Xx},
};
use crate::Role;

/// A handshake message that is longer than this is refused. The largest honest one, with an 8,192-bit RSA key and its
/// signature, has about 2,300 bytes.
pub const MAX_HANDSHAKE_MESSAGE: usize = 8 * 1024;

/// Two secrets that must come from a cryptographically secure source, fresh for each handshake.
pub struct Randomness {
    /// Becomes our static Noise key. The spec lets it live for one session only, so it does.
    pub static_key: [u8; 32],
    /// Becomes our ephemeral key.
    pub ephemeral_key: [u8; 32],
}

/// Noise_XX_25519_ChaChaPoly_SHA256 with libp2p's payloads.
///
/// Each side alternates [`next_message`](Self::next_message) and [`receive`](Self::receive) until [`ciphers`](Self::ciphers)
/// are there. After any error the handshake is of no more use.
pub struct Handshake {
    xx: Xx,
    payload: Vec<u8>,
}

impl Handshake {
    /// `extensions` go to the remote in the first message that is encrypted.
    pub fn new(
        role: Role,
        identity: &Keypair,
        prologue: &[u8],
        extensions: &NoiseExtensions,
        randomness: Randomness,
    ) -> Result<Self, NoiseError> {
        let static_key = KeyPair::from_secret(randomness.static_key)?;
        let ephemeral_key = KeyPair::from_secret(randomness.ephemeral_key)?;
        let payload = payload::encode(identity, static_key.public(), extensions);
        Ok(Self { xx: Xx::new(role, prologue, static_key, ephemeral_key), payload })
    }

    /// The message to send now, with its length before it; `None` while it is the remote's turn and at the end.
    pub fn next_message(&mut self) -> Result<Option<Vec<u8>>, NoiseError> {
        let (next, ours) = self.xx.turn();
        if !ours {
            return Ok(None);
        }
        let mut message = vec![0; 2];
        // noise spec, "The libp2p Handshake Payload": nothing may be sent in the first message, which is not secret.
        let payload: &[u8] = if next == Next::First { &[] } else { &self.payload };
        self.xx.write(payload, &mut message)?;
        let length = message.len().saturating_sub(2);
        let prefix = u16::try_from(length)
            .map_err(|_| NoiseError::TooLong { length, limit: usize::from(u16::MAX) })?;
        if let Some(start) = message.first_chunk_mut::<2>() {
            *start = prefix.to_be_bytes();
        }
        Ok(Some(message))
    }

    /// Takes the remote's next message, without the length before it. The claim comes with the message that carries it.
    pub fn receive(&mut self, message: &[u8]) -> Result<Option<Claim>, NoiseError> {
        if message.len() > MAX_HANDSHAKE_MESSAGE {
            return Err(NoiseError::TooLong { length: message.len(), limit: MAX_HANDSHAKE_MESSAGE });
        }
        let (next, _) = self.xx.turn();
        let payload = self.xx.read(message)?;
        // Whatever the first message carries was neither secret nor authenticated: it is ignored.
        if next == Next::First {
            return Ok(None);
        }
        let payload = payload::decode(&payload)?;
        Ok(Some(Claim { payload, static_key: *self.xx.remote_static() }))
    }

    /// The ciphers for sending and for receiving, once all three messages have passed.
    pub fn ciphers(&self) -> Result<(CipherState, CipherState), NoiseError> {
        self.xx.split()
    }
}

/// Who the remote says it is. [`verify`](Self::verify) turns it into a [`RemoteIdentity`], or not.
#[must_use = "the remote is not authenticated before its claim has been verified"]
pub struct Claim {
    payload: Payload,
    static_key: [u8; 32],
}

impl Claim {
    /// Checks that the identity key signed the static key with which the remote does this very handshake.
    pub async fn verify(self) -> Result<RemoteIdentity, NoiseError> {
        let Payload { public_key, signature, extensions } = self.payload;
        public_key
            .verify(&payload::signed_message(&self.static_key), &signature)
            .await
            .map_err(|_| NoiseError::IdentitySignature)?;
        Ok(RemoteIdentity { peer_id: public_key.peer_id(), public_key, extensions })
    }
}

/// Who the remote has proved to be.
#[derive(Debug, Clone)]
pub struct RemoteIdentity {
    /// Its peer id, derived from `public_key`.
    pub peer_id: PeerId,
    /// Its identity key.
    pub public_key: PublicKey,
    /// What it told us about itself.
    pub extensions: NoiseExtensions,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn randomness(seed: u8) -> Randomness {
        Randomness { static_key: [seed; 32], ephemeral_key: [seed.wrapping_add(1); 32] }
    }

    /// What a responder with the given payload tells an honest initiator.
    fn claim(payload: Vec<u8>) -> Result<Claim, NoiseError> {
        let honest = Keypair::generate();
        let extensions = NoiseExtensions::default();
        let mut initiator = Handshake::new(Role::Initiator, &honest, b"", &extensions, randomness(1))?;
        let mut responder = Handshake::new(Role::Responder, &honest, b"", &extensions, randomness(2))?;
        responder.payload = payload;
        let first = initiator.next_message()?.unwrap();
        responder.receive(&first[2..])?;
        let second = responder.next_message()?.unwrap();
        initiator.receive(&second[2..]).map(Option::unwrap)
    }

    #[tokio::test]
    async fn identity_that_signed_another_noise_key_is_refused() {
        let victim = Keypair::generate();
        let own = KeyPair::from_secret([2; 32]).unwrap();
        let payload = payload::encode(&victim, own.public(), &NoiseExtensions::default());
        assert_eq!(claim(payload).unwrap().verify().await.unwrap().peer_id, victim.peer_id());
        // Somebody repeats what the victim once said in another handshake.
        let stolen = payload::encode(&victim, &[9; 32], &NoiseExtensions::default());
        assert!(matches!(claim(stolen).unwrap().verify().await, Err(NoiseError::IdentitySignature)));
    }

    #[test]
    fn malformed_payload_is_refused() {
        for payload in [&b""[..], b"\xff\xff", b"\x0a\x00", b"\x0a\x02\x08\x01\x12\x00", b"\x12\x01\x00"] {
            assert!(claim(payload.to_vec()).is_err(), "{payload:?}");
        }
        let muxers = vec!["/yamux/1.0.0".parse().unwrap(); 33];
        let extensions = NoiseExtensions { stream_muxers: muxers, ..NoiseExtensions::default() };
        let payload = payload::encode(&Keypair::generate(), &[0; 32], &extensions);
        assert!(matches!(claim(payload).map(|_| ()), Err(NoiseError::Payload("too many extension entries"))));
    }
}
