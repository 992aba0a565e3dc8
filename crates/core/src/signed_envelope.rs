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
