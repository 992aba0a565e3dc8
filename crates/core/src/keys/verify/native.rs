use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256K1_SHA256_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256,
    UnparsedPublicKey, VerificationAlgorithm,
};

use crate::keys::{InvalidSignature, der, public_key::Kind};

pub(in crate::keys) async fn verify(
    key: &Kind,
    message: &[u8],
    signature: &[u8],
) -> Result<(), InvalidSignature> {
    verify_blocking(key, message, signature)
}

pub(in crate::keys) fn verify_blocking(
    key: &Kind,
    message: &[u8],
    signature: &[u8],
) -> Result<(), InvalidSignature> {
    // The DER of signatures is parsed here, not by the library, so that page and server accept the same signatures.
    match key {
        Kind::Ed25519(point) => check(&ED25519, point, message, signature),
        Kind::Secp256k1(point) => {
            let raw = der::ecdsa_signature(signature).ok_or(InvalidSignature)?;
            check(&ECDSA_P256K1_SHA256_FIXED, point, message, &raw)
        }
        Kind::EcdsaP256(point) => {
            let raw = der::ecdsa_signature(signature).ok_or(InvalidSignature)?;
            check(&ECDSA_P256_SHA256_FIXED, point.as_slice(), message, &raw)
        }
        Kind::Rsa(spki) => check(&RSA_PKCS1_2048_8192_SHA256, spki, message, signature),
    }
}

fn check(
    algorithm: &'static dyn VerificationAlgorithm,
    key: &[u8],
    message: &[u8],
    signature: &[u8],
) -> Result<(), InvalidSignature> {
    UnparsedPublicKey::new(algorithm, key).verify(message, signature).map_err(|_| InvalidSignature)
}
