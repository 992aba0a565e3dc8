//! [`SignedEnvelope`]: bytes with the signature of a peer, valid in one domain only (RFC 0002).

use bytes::Bytes;
use prost::Message;

use crate::{
    keys::{InvalidSignature, KeyError, Keypair, PublicKey},
    varint,
};

/// The longest envelope that is decoded, in bytes; identify's whole message has at most 8 KiB.
pub const MAX_ENVELOPE_BYTES: usize = 16 * 1024;

/// A payload, its type, and a signature that has not been verified yet: only [`verify`](Self::verify) gives the payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedEnvelope {
    public_key: PublicKey,
    payload_type: Bytes,
    payload: Bytes,
    signature: Bytes,
}

/// Why an envelope is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EnvelopeError {
    /// It is longer than [`MAX_ENVELOPE_BYTES`].
    #[error("signed envelope of {0} bytes is too long")]
    TooLong(usize),
    /// It is not the protobuf message of an envelope.
    #[error("signed envelope is malformed")]
    Malformed,
    /// The key of the signer is none.
    #[error("signed envelope: {0}")]
    Key(#[from] KeyError),
    /// The payload is of another type than the one asked for.
    #[error("signed envelope holds another type of payload")]
    PayloadType,
    /// The signature is not one of this payload in this domain.
    #[error("signed envelope: {0}")]
    Signature(#[from] InvalidSignature),
}

#[derive(Clone, PartialEq, Message)]
struct Envelope {
    /// The message `PublicKey`, kept as bytes: its encoding must be canonical, which prost does not check.
    #[prost(bytes = "bytes", tag = "1")]
    public_key: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    payload_type: Bytes,
    #[prost(bytes = "bytes", tag = "3")]
    payload: Bytes,
    #[prost(bytes = "bytes", tag = "5")]
    signature: Bytes,
}

impl SignedEnvelope {
    /// Signs `payload` for use in `domain`.
    pub fn seal(keypair: &Keypair, domain: &str, payload_type: &[u8], payload: impl Into<Bytes>) -> Self {
        let payload = payload.into();
        let signature = keypair.sign(&signed_bytes(domain, payload_type, &payload));
        Self {
            public_key: keypair.public().clone(),
            payload_type: Bytes::copy_from_slice(payload_type),
            payload,
            signature: Bytes::copy_from_slice(&signature),
        }
    }

    /// Parses the protobuf encoding.
    pub fn decode_protobuf(bytes: &[u8]) -> Result<Self, EnvelopeError> {
        if bytes.len() > MAX_ENVELOPE_BYTES {
            return Err(EnvelopeError::TooLong(bytes.len()));
        }
        let envelope = Envelope::decode(bytes).map_err(|_| EnvelopeError::Malformed)?;
        Ok(Self {
            public_key: PublicKey::decode_protobuf(&envelope.public_key)?,
            payload_type: envelope.payload_type,
            payload: envelope.payload,
            signature: envelope.signature,
        })
    }

    /// The protobuf encoding.
    pub fn encode_protobuf(&self) -> Vec<u8> {
        let envelope = Envelope {
            public_key: self.public_key.encode_protobuf().into(),
            payload_type: self.payload_type.clone(),
            payload: self.payload.clone(),
            signature: self.signature.clone(),
        };
        envelope.encode_to_vec()
    }

    /// The key that the envelope claims to be signed with.
    pub fn public_key(&self) -> &PublicKey {
        &self.public_key
    }

    /// What the envelope claims to hold.
    pub fn payload_type(&self) -> &[u8] {
        &self.payload_type
    }

    /// The payload, if it is of this type and [`public_key`](Self::public_key) signed it for this domain.
    pub async fn verify(&self, domain: &str, payload_type: &[u8]) -> Result<&Bytes, EnvelopeError> {
        if self.payload_type != payload_type {
            return Err(EnvelopeError::PayloadType);
        }
        let signed = signed_bytes(domain, payload_type, &self.payload);
        self.public_key.verify(&signed, &self.signature).await?;
        Ok(&self.payload)
    }
}

/// RFC 0002, "Signature Production / Verification".
fn signed_bytes(domain: &str, payload_type: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(domain.len().saturating_add(payload.len()).saturating_add(16));
    varint::encode_prefixed(domain.as_bytes(), &mut bytes);
    varint::encode_prefixed(payload_type, &mut bytes);
    varint::encode_prefixed(payload, &mut bytes);
    bytes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DOMAIN: &str = "a domain";
    const TYPE: &[u8] = b"/a/type";

    fn sealed() -> SignedEnvelope {
        SignedEnvelope::seal(&Keypair::from_seed([7; 32]), DOMAIN, TYPE, &b"payload"[..])
    }

    #[tokio::test]
    async fn envelope_survives_the_wire_and_gives_its_payload() {
        let envelope = SignedEnvelope::decode_protobuf(&sealed().encode_protobuf()).unwrap();
        assert_eq!(envelope, sealed());
        assert_eq!(envelope.verify(DOMAIN, TYPE).await.unwrap(), "payload");
        assert_eq!(envelope.public_key(), Keypair::from_seed([7; 32]).public());
    }

    #[test]
    fn what_is_signed_is_what_the_rfc_says() {
        let signed = signed_bytes("ab", &[1], &[2, 3, 4]);
        assert_eq!(signed, [2, b'a', b'b', 1, 1, 3, 2, 3, 4]);
    }

    #[tokio::test]
    async fn signature_holds_in_its_domain_only() {
        let envelope = sealed();
        let result = envelope.verify("another domain", TYPE).await;
        assert_eq!(result, Err(EnvelopeError::Signature(InvalidSignature)));
        assert_eq!(envelope.verify(DOMAIN, b"/another/type").await, Err(EnvelopeError::PayloadType));
    }

    #[tokio::test]
    async fn envelope_that_was_tampered_with_is_refused() {
        let other = Keypair::from_seed([8; 32]);
        for envelope in [
            SignedEnvelope { public_key: other.public().clone(), ..sealed() },
            SignedEnvelope { payload: "another".into(), ..sealed() },
            SignedEnvelope { signature: Bytes::new(), ..sealed() },
            SignedEnvelope { signature: other.sign(b"something else").to_vec().into(), ..sealed() },
        ] {
            assert_eq!(envelope.verify(DOMAIN, TYPE).await, Err(EnvelopeError::Signature(InvalidSignature)));
        }
    }

    #[test]
    fn what_is_no_envelope_is_refused() {
        let refused = |bytes: &[u8]| SignedEnvelope::decode_protobuf(bytes).unwrap_err();
        assert_eq!(refused(&[]), EnvelopeError::Key(KeyError::Protobuf));
        assert_eq!(refused(&[0xff; 20]), EnvelopeError::Malformed);
        let long = vec![0; MAX_ENVELOPE_BYTES + 1];
        assert_eq!(refused(&long), EnvelopeError::TooLong(long.len()));
        let whole = sealed().encode_protobuf();
        assert_eq!(refused(&whole[..whole.len() - 1]), EnvelopeError::Malformed);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes: Vec<u8>) {
            let _ = SignedEnvelope::decode_protobuf(&bytes);
        }

        #[test]
        fn no_damage_panics_or_passes(at: prop::sample::Index, bit in 0u8..8) {
            let mut bytes = sealed().encode_protobuf();
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            if let Ok(envelope) = SignedEnvelope::decode_protobuf(&bytes) {
                let signed = signed_bytes(DOMAIN, &envelope.payload_type, &envelope.payload);
                prop_assert!(envelope.public_key.verify_blocking(&signed, &envelope.signature).is_err());
            }
        }
    }
}
