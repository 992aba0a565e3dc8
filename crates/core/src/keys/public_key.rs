use std::fmt;

use bytes::Bytes;

use super::{InvalidSignature, KeyError, MAX_ENCODED_KEY_BYTES, der, protobuf, verify};
use crate::peer_id::PeerId;

/// A peer's public key: Ed25519, secp256k1, ECDSA on P-256, or RSA of 2048 to 8192 bits.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct PublicKey(pub(super) Kind);

#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    /// The point as RFC 8032 encodes it.
    Ed25519([u8; 32]),
    /// The compressed point of SEC 1.
    Secp256k1([u8; 33]),
    /// The uncompressed point of SEC 1.
    EcdsaP256(Box<[u8; 65]>),
    /// `SubjectPublicKeyInfo`, its form and the size of its modulus checked.
    Rsa(Bytes),
}

impl PublicKey {
    /// Parses the protobuf encoding, which must be the deterministic one.
    pub fn decode_protobuf(bytes: &[u8]) -> Result<Self, KeyError> {
        let (key_type, data) = protobuf::decode(bytes, MAX_ENCODED_KEY_BYTES)?;
        let kind = match key_type {
            protobuf::ED25519 => Kind::Ed25519(data.try_into().map_err(|_| KeyError::Malformed("Ed25519"))?),
            protobuf::SECP256K1 => {
                let point = <[u8; 33]>::try_from(data).map_err(|_| KeyError::Malformed("secp256k1"))?;
                if !matches!(point, [2 | 3, ..]) {
                    return Err(KeyError::Malformed("secp256k1"));
                }
                Kind::Secp256k1(point)
            }
            protobuf::ECDSA => Kind::EcdsaP256(Box::new(der::p256_point(data)?)),
            protobuf::RSA => {
                der::check_rsa(data)?;
                Kind::Rsa(Bytes::copy_from_slice(data))
            }
            other => return Err(KeyError::UnsupportedType(other)),
        };
        Ok(Self(kind))
    }

    /// The protobuf encoding, of which the peer id is made.
    pub fn encode_protobuf(&self) -> Vec<u8> {
        match &self.0 {
            Kind::Ed25519(point) => protobuf::encode(protobuf::ED25519, point),
            Kind::Secp256k1(point) => protobuf::encode(protobuf::SECP256K1, point),
            Kind::EcdsaP256(point) => protobuf::encode(protobuf::ECDSA, &der::p256_spki(point)),
            Kind::Rsa(spki) => protobuf::encode(protobuf::RSA, spki),
        }
    }

    /// The name of the peer that this key belongs to.
    pub fn peer_id(&self) -> PeerId {
        PeerId::of_encoded_key(&self.encode_protobuf())
    }

    /// Whether `signature` was made for `message` with this key. ECDSA and secp256k1 signatures are in DER.
    ///
    /// Asynchronous because a page lets the browser verify RSA and ECDSA.
    pub async fn verify(&self, message: &[u8], signature: &[u8]) -> Result<(), InvalidSignature> {
        verify::verify(&self.0, message, signature).await
    }

    /// [`verify`](Self::verify) on the spot.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn verify_blocking(&self, message: &[u8], signature: &[u8]) -> Result<(), InvalidSignature> {
        verify::verify_blocking(&self.0, message, signature)
    }

    pub(super) fn ed25519(point: [u8; 32]) -> Self {
        Self(Kind::Ed25519(point))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match &self.0 {
            Kind::Ed25519(_) => "Ed25519",
            Kind::Secp256k1(_) => "Secp256k1",
            Kind::EcdsaP256(_) => "EcdsaP256",
            Kind::Rsa(_) => "Rsa",
        };
        write!(f, "PublicKey({name} of {})", self.peer_id())
    }
}
