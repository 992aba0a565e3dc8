//! The certificate that we show: a fresh ECDSA key, vouched for by the identity key in the libp2p extension.

use std::sync::Arc;

use peerloom_core::Keypair;
use rcgen::PublicKeyData as _;
use rustls::{
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
    sign::CertifiedKey,
};

use super::certificate::{EXTENSION_OID, signed_message};

/// Why there is no certificate to show: the cryptographic library failed.
#[derive(Debug, Clone, thiserror::Error)]
#[error("cannot make a TLS certificate: {0}")]
pub struct TlsIdentityError(pub(super) String);

/// A certificate for `identity`. Its key is ECDSA P-256, which every implementation verifies and which is quick.
pub(super) fn generate(identity: &Keypair) -> Result<Arc<CertifiedKey>, TlsIdentityError> {
    let failed = |error: rcgen::Error| TlsIdentityError(error.to_string());
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(failed)?;
    let der = parameters(identity, &key.subject_public_key_info()).self_signed(&key).map_err(failed)?;
    let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let signer = rustls::crypto::aws_lc_rs::sign::any_ecdsa_type(&private)
        .map_err(|error| TlsIdentityError(error.to_string()))?;
    Ok(Arc::new(CertifiedKey::new(vec![der.der().clone()], signer)))
}

/// What the certificate of a key says, signed by `identity`.
pub(super) fn parameters(identity: &Keypair, spki: &[u8]) -> rcgen::CertificateParams {
    let signed_key = signed_key(&identity.public().encode_protobuf(), &identity.sign(&signed_message(spki)));
    let mut parameters = rcgen::CertificateParams::default();
    parameters.distinguished_name = rcgen::DistinguishedName::new();
    parameters.distinguished_name.push(rcgen::DnType::CommonName, "libp2p");
    // The years of the spec's test vectors: valid wherever a clock stands, for as long as a process may run.
    parameters.not_before = rcgen::date_time_ymd(1975, 1, 1);
    parameters.not_after = rcgen::date_time_ymd(4096, 1, 1);
    // The only extension, and so the first: js-libp2p looks at no other.
    parameters.custom_extensions = vec![rcgen::CustomExtension::from_oid_content(EXTENSION_OID, signed_key)];
    parameters
}

/// `SignedKey` in DER.
pub(super) fn signed_key(public_key: &[u8], signature: &[u8]) -> Vec<u8> {
    const SEQUENCE: u8 = 0x30;
    const OCTET_STRING: u8 = 0x04;
    let content = [tag_length_value(OCTET_STRING, public_key), tag_length_value(OCTET_STRING, signature)];
    tag_length_value(SEQUENCE, &content.concat())
}

fn tag_length_value(tag: u8, value: &[u8]) -> Vec<u8> {
    let mut der = vec![tag];
    match u8::try_from(value.len()) {
        Ok(short @ ..0x80) => der.push(short),
        _ => {
            let length = value.len().to_be_bytes();
            let significant: Vec<u8> = length.into_iter().skip_while(|byte| *byte == 0).collect();
            // At most eight bytes of length.
            der.push(0x80 | significant.len() as u8);
            der.extend(significant);
        }
    }
    der.extend_from_slice(value);
    der
}
