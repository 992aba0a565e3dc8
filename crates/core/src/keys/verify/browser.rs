use ed25519_dalek::{Signature, VerifyingKey};
use js_sys::{Array, Function, Object, Promise, Reflect, Uint8Array};
use wasm_bindgen::{JsCast, JsValue};
use wasm_bindgen_futures::JsFuture;

use crate::keys::{InvalidSignature, der, public_key::Kind};

pub(in crate::keys) async fn verify(
    key: &Kind,
    message: &[u8],
    signature: &[u8],
) -> Result<(), InvalidSignature> {
    match key {
        Kind::Ed25519(point) => {
            let key = VerifyingKey::from_bytes(point).map_err(|_| InvalidSignature)?;
            let signature = Signature::from_slice(signature).map_err(|_| InvalidSignature)?;
            key.verify_strict(message, &signature).map_err(|_| InvalidSignature)
        }
        Kind::Secp256k1(point) => secp256k1(point, message, signature),
        Kind::EcdsaP256(point) => {
            let raw = der::ecdsa_signature(signature).ok_or(InvalidSignature)?;
            subtle_verify(
                &der::p256_spki(point),
                &[("name", "ECDSA"), ("namedCurve", "P-256"), ("hash", "SHA-256")],
                message,
                &raw,
            )
            .await
        }
        Kind::Rsa(spki) => {
            subtle_verify(spki, &[("name", "RSASSA-PKCS1-v1_5"), ("hash", "SHA-256")], message, signature)
                .await
        }
    }
}

/// Browsers have no secp256k1.
fn secp256k1(point: &[u8; 33], message: &[u8], signature: &[u8]) -> Result<(), InvalidSignature> {
    use k256::ecdsa::{Signature, VerifyingKey, signature::Verifier};
    let raw = der::ecdsa_signature(signature).ok_or(InvalidSignature)?;
    let key = VerifyingKey::from_sec1_bytes(point).map_err(|_| InvalidSignature)?;
    // k256 takes only the lower of the two values that `s` may have; other libraries take both, and so do we natively.
    let signature = Signature::from_slice(&raw).map_err(|_| InvalidSignature)?.normalize_s();
    key.verify(message, &signature).map_err(|_| InvalidSignature)
}

/// `crypto.subtle` by name, because it is there in windows and in workers alike but only in secure contexts.
async fn subtle_verify(
    spki: &[u8],
    algorithm: &[(&str, &str)],
    message: &[u8],
    signature: &[u8],
) -> Result<(), InvalidSignature> {
    // Every way in which this fails, a missing WebCrypto among them, leaves the signature unverified.
    match try_subtle_verify(spki, algorithm, message, signature).await {
        Ok(verified) if verified.is_truthy() => Ok(()),
        _ => Err(InvalidSignature),
    }
}

async fn try_subtle_verify(
    spki: &[u8],
    algorithm: &[(&str, &str)],
    message: &[u8],
    signature: &[u8],
) -> Result<JsValue, JsValue> {
    let crypto = Reflect::get(&js_sys::global(), &"crypto".into())?;
    let subtle = Reflect::get(&crypto, &"subtle".into())?;
    // One object serves as the parameters of both calls: what one of them does not know, it ignores.
    let parameters = Object::new();
    for (name, value) in algorithm {
        Reflect::set(&parameters, &(*name).into(), &(*value).into())?;
    }
    let usages = Array::of1(&"verify".into());
    let import = Array::of5(&"spki".into(), &Uint8Array::from(spki), &parameters, &JsValue::FALSE, &usages);
    let key = call(&subtle, "importKey", &import).await?;
    let verify = Array::of4(&parameters, &key, &Uint8Array::from(signature), &Uint8Array::from(message));
    call(&subtle, "verify", &verify).await
}

async fn call(object: &JsValue, method: &str, arguments: &Array) -> Result<JsValue, JsValue> {
    let function: Function = Reflect::get(object, &method.into())?.dyn_into()?;
    let promise: Promise = Reflect::apply(&function, object, arguments)?.dyn_into()?;
    JsFuture::from(promise).await
}
