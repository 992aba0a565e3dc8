use std::{fmt, sync::Arc};

use zeroize::Zeroizing;

use super::{KeyError, PublicKey, protobuf};
use crate::peer_id::PeerId;

/// Our own identity: an Ed25519 key pair. Clones share the secret, which is wiped when the last of them is dropped.
#[derive(Clone)]
pub struct Keypair(Arc<Inner>);

struct Inner {
    secret: platform::Secret,
    seed: Zeroizing<[u8; 32]>,
    public: PublicKey,
    peer_id: PeerId,
}

impl Keypair {
    /// A new identity from the system's randomness.
    ///
    /// # Panics
    /// If the system has no randomness to give; nothing that would be done then could be secure.
    pub fn generate() -> Self {
        let mut seed = Zeroizing::new([0; 32]);
        platform::random(&mut seed);
        Self::from_seed(*seed)
    }

    /// The identity whose secret is `seed` (RFC 8032's "private key").
    pub fn from_seed(seed: [u8; 32]) -> Self {
        let seed = Zeroizing::new(seed);
        let (secret, point) = platform::expand(&seed);
        let public = PublicKey::ed25519(point);
        let peer_id = public.peer_id();
        Self(Arc::new(Inner { secret, seed, public, peer_id }))
    }

    /// The secret, to be kept where only its owner can read it.
    pub fn seed(&self) -> [u8; 32] {
        *self.0.seed
    }

    /// The public half.
    pub fn public(&self) -> &PublicKey {
        &self.0.public
    }

    /// The name of the peer that this is.
    pub fn peer_id(&self) -> PeerId {
        self.0.peer_id
    }

    /// Signs `message`.
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        platform::sign(&self.0.secret, message)
    }

    /// The protobuf message `PrivateKey`, as other implementations keep it in files.
    pub fn encode_protobuf(&self) -> Vec<u8> {
        let super::public_key::Kind::Ed25519(point) = &self.0.public.0 else { return Vec::new() };
        let data = Zeroizing::new([self.0.seed.as_slice(), point].concat());
        protobuf::encode(protobuf::ED25519, &data)
    }

    /// Parses the protobuf message `PrivateKey` of an Ed25519 key, in its present and in its older form.
    pub fn decode_protobuf(bytes: &[u8]) -> Result<Self, KeyError> {
        const MALFORMED: KeyError = KeyError::Malformed("Ed25519 private");
        // So that whoever brings the file of an RSA key, which is the longest, hears that it is the type that is wrong.
        const MAX_BYTES: usize = 8 * 1024;
        let (key_type, data) = protobuf::decode(bytes, MAX_BYTES)?;
        if key_type != protobuf::ED25519 {
            return Err(KeyError::UnsupportedType(key_type));
        }
        let (seed, points) = data.split_first_chunk::<32>().ok_or(MALFORMED)?;
        let keypair = Self::from_seed(*seed);
        // peer-ids spec, "Ed25519": the public key follows once, in old files twice, and must be the right one.
        let (point, rest) = points.split_first_chunk::<32>().ok_or(MALFORMED)?;
        let right = *keypair.public() == PublicKey::ed25519(*point);
        if !right || !(rest.is_empty() || rest == point) {
            return Err(MALFORMED);
        }
        Ok(keypair)
    }
}

/// Never the secret.
impl fmt::Debug for Keypair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keypair({})", self.0.peer_id)
    }
}

#[cfg(not(target_arch = "wasm32"))]
mod platform {
    use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};

    pub(super) type Secret = Ed25519KeyPair;

    #[allow(clippy::expect_used)] // See the documentation of `Keypair::generate`.
    pub(super) fn random(seed: &mut [u8; 32]) {
        aws_lc_rs::rand::fill(seed).expect("the system gives randomness");
    }

    #[allow(clippy::expect_used)] // Any 32 bytes are a seed; the library only checks how many there are.
    pub(super) fn expand(seed: &[u8; 32]) -> (Secret, [u8; 32]) {
        let secret = Ed25519KeyPair::from_seed_unchecked(seed).expect("32 bytes are a seed");
        let point = secret.public_key().as_ref().try_into().expect("an Ed25519 key has 32 bytes");
        (secret, point)
    }

    #[allow(clippy::expect_used)] // The length of an Ed25519 signature does not vary.
    pub(super) fn sign(secret: &Secret, message: &[u8]) -> [u8; 64] {
        secret.sign(message).as_ref().try_into().expect("an Ed25519 signature has 64 bytes")
    }
}

#[cfg(target_arch = "wasm32")]
mod platform {
    use ed25519_dalek::{Signer, SigningKey};

    pub(super) type Secret = SigningKey;

    #[allow(clippy::expect_used)] // See the documentation of `Keypair::generate`.
    pub(super) fn random(seed: &mut [u8; 32]) {
        getrandom::fill(seed).expect("the browser gives randomness");
    }

    pub(super) fn expand(seed: &[u8; 32]) -> (Secret, [u8; 32]) {
        let secret = SigningKey::from_bytes(seed);
        let point = secret.verifying_key().to_bytes();
        (secret, point)
    }

    pub(super) fn sign(secret: &Secret, message: &[u8]) -> [u8; 64] {
        secret.sign(message).to_bytes()
    }
}
