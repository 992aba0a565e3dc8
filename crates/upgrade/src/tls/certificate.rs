//! The certificate that a remote shows: what it must be, and whose it is. libp2p tls spec, "Peer Authentication".

#![warn(clippy::arithmetic_side_effects)]

use aws_lc_rs::signature::{self, UnparsedPublicKey, VerificationAlgorithm};
use peerloom_core::{HandshakeError, KeyError, PeerId, PublicKey};
use rustls::pki_types::{CertificateDer, UnixTime};
use x509_parser::{
    certificate::X509Certificate,
    der_parser::asn1_rs::{FromDer as _, OctetString, Sequence},
    extensions::{ParsedExtension, X509Extension},
    oid_registry as oid,
    x509::X509Version,
};

/// Of the libp2p public key extension.
pub(super) const EXTENSION_OID: &[u64] = &[1, 3, 6, 1, 4, 1, 53594, 1, 1];

/// What the identity key signs, in front of the certificate's `SubjectPublicKeyInfo`.
const SIGNATURE_PREFIX: &[u8] = b"libp2p-tls-handshake:";

/// The longest certificate that is looked at, in bytes. One with an RSA identity of 8192 bits and an RSA key takes 5 KiB.
const MAX_CERTIFICATE_BYTES: usize = 16 * 1024;

/// Why a remote's certificate does not prove who it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CertificateError {
    /// Several certificates, or none.
    #[error("the remote sent {0} certificates instead of one")]
    Count(usize),
    /// Not X.509, or not as X.509 must be.
    #[error("malformed certificate: {0}")]
    Malformed(&'static str),
    /// Expired, or not valid yet.
    #[error("the certificate is expired or not yet valid")]
    NotValidNow,
    /// An extension that must not be ignored and is not known here.
    #[error("the certificate has the unknown critical extension {0}")]
    UnknownCriticalExtension(String),
    /// The key may not be used for what TLS uses it for.
    #[error("the certificate's key is not for signatures")]
    NotForSignatures,
    /// There is no libp2p public key extension.
    #[error("the certificate has no libp2p public key extension")]
    NoExtension,
    /// The identity key cannot be used.
    #[error("unusable identity key: {0}")]
    IdentityKey(#[from] KeyError),
    /// The identity key did not sign the certificate's key.
    #[error("identity signature is wrong")]
    IdentitySignature,
    /// An algorithm that is not verified here.
    #[error("the certificate is signed with {0}, which is not supported")]
    UnsupportedAlgorithm(String),
    /// The certificate was not signed with its own key.
    #[error("the certificate's self-signature is wrong")]
    SelfSignature,
    /// The certificate is good, and another peer's.
    #[error("expected peer {expected}, but {actual} answered")]
    WrongPeer {
        /// The peer that was dialed.
        expected: PeerId,
        /// The peer that answered.
        actual: PeerId,
    },
}

impl From<CertificateError> for HandshakeError {
    fn from(error: CertificateError) -> Self {
        match error {
            CertificateError::WrongPeer { expected, actual } => Self::WrongPeer { expected, actual },
            other => Self::Invalid { step: super::STEP, reason: other.to_string() },
        }
    }
}

/// A remote's certificate, well-formed; [`verify`](Self::verify) says whether it is true.
#[derive(Debug)]
pub struct PeerCertificate<'a> {
    x509: X509Certificate<'a>,
    public_key: PublicKey,
    signature: Vec<u8>,
}

impl<'a> PeerCertificate<'a> {
    /// Reads a certificate and checks everything about it but its dates and signatures.
    pub fn parse(der: &'a CertificateDer<'_>) -> Result<Self, CertificateError> {
        if der.len() > MAX_CERTIFICATE_BYTES {
            return Err(CertificateError::Malformed("longer than any that is accepted"));
        }
        let (rest, x509) = X509Certificate::from_der(der)
            .map_err(|_| CertificateError::Malformed("it is not X.509 in DER"))?;
        if !rest.is_empty() {
            return Err(CertificateError::Malformed("it is followed by other bytes"));
        }
        if x509.version() != X509Version::V3 {
            return Err(CertificateError::Malformed("it is not of version 3"));
        }
        if x509.signature_algorithm != x509.tbs_certificate.signature {
            return Err(CertificateError::Malformed("it names two signature algorithms"));
        }
        if x509.issuer_uid.is_some() || x509.subject_uid.is_some() {
            return Err(CertificateError::Malformed("it has a unique id, which is deprecated"));
        }
        let (public_key, signature) = signed_key(x509.extensions())?;
        Ok(Self { x509, public_key, signature })
    }

    /// Checks that the certificate is valid `now`, signed by its own key, and that key by the identity key.
    pub fn verify(&self, now: UnixTime) -> Result<(), CertificateError> {
        let validity = self.x509.validity();
        let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        if now < validity.not_before.timestamp() || validity.not_after.timestamp() < now {
            return Err(CertificateError::NotValidNow);
        }
        let key = self.x509.public_key();
        UnparsedPublicKey::new(self.signature_algorithm()?, &key.subject_public_key.data)
            .verify(self.x509.tbs_certificate.as_ref(), &self.x509.signature_value.data)
            .map_err(|_| CertificateError::SelfSignature)?;
        self.public_key
            .verify_blocking(&signed_message(key.raw), &self.signature)
            .map_err(|_| CertificateError::IdentitySignature)
    }

    /// The identity key that the certificate claims.
    pub fn public_key(&self) -> &PublicKey {
        &self.public_key
    }

    /// The certificate's own key as `SubjectPublicKeyInfo` in DER: the one that TLS uses.
    pub(super) fn spki(&self) -> &[u8] {
        self.x509.public_key().raw
    }

    fn signature_algorithm(&self) -> Result<&'static dyn VerificationAlgorithm, CertificateError> {
        let signed_with = &self.x509.signature_algorithm.algorithm;
        let key = &self.x509.public_key().algorithm;
        let curve = key.parameters.as_ref().and_then(|parameters| parameters.as_oid().ok());
        let on = |wanted| key.algorithm == oid::OID_KEY_TYPE_EC_PUBLIC_KEY && curve.as_ref() == Some(&wanted);
        let (p256, p384) = (on(oid::OID_EC_P256), on(oid::OID_NIST_EC_P384));
        let rsa = key.algorithm == oid::OID_PKCS1_RSAENCRYPTION;
        let known: [(_, _, &'static dyn VerificationAlgorithm); 8] = [
            (p256, oid::OID_SIG_ECDSA_WITH_SHA256, &signature::ECDSA_P256_SHA256_ASN1),
            (p256, oid::OID_SIG_ECDSA_WITH_SHA384, &signature::ECDSA_P256_SHA384_ASN1),
            (p384, oid::OID_SIG_ECDSA_WITH_SHA256, &signature::ECDSA_P384_SHA256_ASN1),
            (p384, oid::OID_SIG_ECDSA_WITH_SHA384, &signature::ECDSA_P384_SHA384_ASN1),
            (key.algorithm == oid::OID_SIG_ED25519, oid::OID_SIG_ED25519, &signature::ED25519),
            (rsa, oid::OID_PKCS1_SHA256WITHRSA, &signature::RSA_PKCS1_2048_8192_SHA256),
            (rsa, oid::OID_PKCS1_SHA384WITHRSA, &signature::RSA_PKCS1_2048_8192_SHA384),
            (rsa, oid::OID_PKCS1_SHA512WITHRSA, &signature::RSA_PKCS1_2048_8192_SHA512),
        ];
        known
            .into_iter()
            .find(|(right_key, algorithm, _)| *right_key && algorithm == signed_with)
            .map(|(_, _, algorithm)| algorithm)
            .ok_or_else(|| CertificateError::UnsupportedAlgorithm(signed_with.to_id_string()))
    }
}

/// What the identity key signs for a certificate with this key.
pub(super) fn signed_message(spki: &[u8]) -> Vec<u8> {
    [SIGNATURE_PREFIX, spki].concat()
}

/// The identity key and its signature, out of the one extension that has them.
fn signed_key(extensions: &[X509Extension<'_>]) -> Result<(PublicKey, Vec<u8>), CertificateError> {
    let mut found = None;
    for extension in extensions {
        if extension.oid.iter().is_some_and(|arcs| arcs.eq(EXTENSION_OID.iter().copied())) {
            if found.replace(extension.value).is_some() {
                return Err(CertificateError::Malformed("it has two libp2p public key extensions"));
            }
        } else if extension.critical {
            check_critical(extension)?;
        }
    }
    decode_signed_key(found.ok_or(CertificateError::NoExtension)?)
}

/// "Endpoints MUST abort the connection attempt if the certificate contains critical extensions that the endpoint does
/// not understand."
fn check_critical(extension: &X509Extension<'_>) -> Result<(), CertificateError> {
    match extension.parsed_extension() {
        ParsedExtension::KeyUsage(usage) if usage.digital_signature() => Ok(()),
        ParsedExtension::KeyUsage(_) => Err(CertificateError::NotForSignatures),
        // Who may sign other certificates matters to none of ours.
        ParsedExtension::BasicConstraints(_) => Ok(()),
        _ => Err(CertificateError::UnknownCriticalExtension(extension.oid.to_id_string())),
    }
}

fn decode_signed_key(der: &[u8]) -> Result<(PublicKey, Vec<u8>), CertificateError> {
    let (public_key, signature) = split_signed_key(der)
        .ok_or(CertificateError::Malformed("its libp2p extension is not a SignedKey"))?;
    Ok((PublicKey::decode_protobuf(&public_key)?, signature))
}

fn split_signed_key(der: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let (after, sequence) = Sequence::from_der(der).ok()?;
    let (rest, public_key) = OctetString::from_der(&sequence.content).ok()?;
    let (rest, signature) = OctetString::from_der(rest).ok()?;
    let whole = after.is_empty() && rest.is_empty();
    whole.then(|| (public_key.as_ref().to_vec(), signature.as_ref().to_vec()))
}

#[cfg(test)]
mod tests;
