//! Certificates of libp2p-TLS with one thing wrong with each, for whoever shows them to a transport.

use std::sync::Arc;

use peerloom_core::Keypair;
use rcgen::{CertificateParams, CustomExtension, PublicKeyData as _};
use rustls::sign::{CertifiedKey, SingleCertAndKey};

/// What is wrong with a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It says nothing of a peer.
    NoExtension,
    /// Another identity than it names has vouched for it.
    OtherIdentitySigned,
    /// It is not valid any more.
    Expired,
    /// An extension that nobody knows is said to matter.
    UnknownCritical,
    /// It was signed with another key than its own.
    OtherKeySigned,
    /// There are two.
    Chain,
}

/// Everything that can be wrong, and the words for it.
pub const FAULTS: [(Fault, &str); 6] = [
    (Fault::NoExtension, "no libp2p public key extension"),
    (Fault::OtherIdentitySigned, "identity signature is wrong"),
    (Fault::Expired, "expired or not yet valid"),
    (Fault::UnknownCritical, "unknown critical extension 1.2.3.4"),
    (Fault::OtherKeySigned, "self-signature is wrong"),
    (Fault::Chain, "2 certificates instead of one"),
];

/// A fresh certificate with this fault.
pub fn certified(fault: Fault) -> Arc<SingleCertAndKey> {
    let [key, other] = [(); 2].map(|()| rcgen::KeyPair::generate().unwrap());
    let [identity, stranger] = [(); 2].map(|()| Keypair::generate());
    let signer = if fault == Fault::OtherIdentitySigned { &stranger } else { &identity };
    let mut parameters = CertificateParams::default();
    if fault != Fault::NoExtension {
        parameters.custom_extensions.push(extension(&identity, signer, &key));
    }
    if fault == Fault::UnknownCritical {
        let mut unknown = CustomExtension::from_oid_content(&[1, 2, 3, 4], vec![5, 0]);
        unknown.set_criticality(true);
        parameters.custom_extensions.push(unknown);
    }
    if fault == Fault::Expired {
        parameters.not_after = rcgen::date_time_ymd(2020, 1, 1);
    }
    let issuer =
        rcgen::Issuer::new(parameters.clone(), if fault == Fault::OtherKeySigned { &other } else { &key });
    let der = parameters.signed_by(&key, &issuer).unwrap().der().clone();
    let private = rustls::pki_types::PrivateKeyDer::Pkcs8(key.serialize_der().into());
    let signer = rustls::crypto::aws_lc_rs::sign::any_ecdsa_type(&private).unwrap();
    let copies = if fault == Fault::Chain { 2 } else { 1 };
    Arc::new(CertifiedKey::new(vec![der; copies], signer).into())
}

/// The libp2p extension: `key` vouched for by `signer`, in the name of `identity`.
fn extension(identity: &Keypair, signer: &Keypair, key: &rcgen::KeyPair) -> CustomExtension {
    let message = [b"libp2p-tls-handshake:", key.subject_public_key_info().as_slice()].concat();
    let (public, signature) = (identity.public().encode_protobuf(), signer.sign(&message));
    let lengths = [public.len(), signature.len(), public.len() + signature.len() + 4];
    let [public_length, signature_length, all] = lengths.map(|length| u8::try_from(length).unwrap());
    let der = [&[0x30, all, 4, public_length][..], &public, &[4, signature_length], &signature].concat();
    CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 53594, 1, 1], der)
}
