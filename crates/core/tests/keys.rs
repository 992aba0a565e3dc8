//! Keys and signatures of every type, the same natively (aws-lc) and in a page (WebCrypto and RustCrypto). In Node:
//! `cargo test -p peerloom-core --test keys --target wasm32-unknown-unknown` with wasm-bindgen-test-runner.

#![allow(missing_docs)]
#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // Allowed in tests; clippy does not know those of wasm-bindgen.

use peerloom_core::{InvalidSignature, KeyError, Keypair, PublicKey, multihash::sha2_256};

#[cfg(not(target_arch = "wasm32"))]
use tokio::test as async_test;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as async_test;

// The public keys, and the private key of Ed25519, are the test vectors of the peer-ids spec. The signatures of MESSAGE were
// made by OpenSSL 3 with the private keys of the spec.

const MESSAGE: &[u8] = b"a message of peerloom";

/// `PrivateKey`.
const ED25519_PRIVATE: &str = "\
    080112407e0830617c4a7de83925dfb2694556b12936c477a0e1feb2e148ec9da60fee7d1ed1e8fae2c4a144b8be8fd4b47b\
    f3d3b34b871c3cacf6010f0e42d474fce27e\
    ";
/// `PublicKey`.
const ED25519_PUBLIC: &str = "080112201ed1e8fae2c4a144b8be8fd4b47bf3d3b34b871c3cacf6010f0e42d474fce27e";
/// `PublicKey`.
const SECP256K1_PUBLIC: &str = "08021221037777e994e452c21604f91de093ce415f5432f701dd8cd1a7a6fea0e630bfca99";
/// DER.
const SECP256K1_SIGNATURE: &str = "\
    3045022100bd77cee4953a369b125d115d1b09253806c3970af48b78591c1ce2a5fdb743700220129ad78d9974bb9f9a3950\
    b21703bb796324089c8ebeb2fffb5bc9225b6bfb69\
    ";
/// The same with the other of the two values that `s` may have.
const SECP256K1_HIGH_S_SIGNATURE: &str = "\
    3046022100bd77cee4953a369b125d115d1b09253806c3970af48b78591c1ce2a5fdb74370022100ed652872668b446065c6\
    af4de8fc4485578ad44a2089ed3bc476956a74ca45d8\
    ";
/// `PublicKey`.
const ECDSA_PUBLIC: &str = "\
    0803125b3059301306072a8648ce3d020106082a8648ce3d03010703420004de3d300fa36ae0e8f5d530899d83abab44abf3\
    161f162a4bc901d8e6ecda020e8b6d5f8da30525e71d6851510c098e5c47c646a597fb4dcec034e9f77c409e62\
    ";
/// DER.
const ECDSA_SIGNATURE: &str = "\
    3045022100e23864eb731233a880cba65600c879dba37975f34131b907416478349f2c4bcb02204e7c228ff7954fa3a29941\
    3d8ec109310c5a91229c15d4ce5e5bdf9900c4b74a\
    ";
/// `PublicKey`, 4096 bits.
const RSA_PUBLIC: &str = "\
    080012a60430820222300d06092a864886f70d01010105000382020f003082020a0282020100e1beab071d08200bde24eef0\
    0d049449b07770ff9910257b2d7d5dda242ce8f0e2f12e1af4b32d9efd2c090f66b0f29986dbb645dae9880089704a94e506\
    6d594162ae6ee8892e6ec70701db0a6c445c04778eb3de1293aa1a23c3825b85c6620a2bc3f82f9b0c309bc0ab3aeb187328\
    2bebd3da03c33e76c21e9beb172fd44c9e43be32e2c99827033cf8d0f0c606f4579326c930eb4e854395ad941256542c7939\
    02185153c474bed109d6ff5141ebf9cd256cf58893a37f83729f97e7cb435ec679d2e33901d27bb35aa0d7e20561da08885e\
    f0abbf8e2fb48d6a5487047a9ecb1ad41fa7ed84f6e3e8ecd5d98b3982d2a901b4454991766da295ab78822add5612a2df83\
    bcee814cf50973e80d7ef38111b1bd87da2ae92438a2c8cbcc70b31ee319939a3b9c761dbc13b5c086d6b64bf7ae7dacc146\
    22375d92a8ff9af7eb962162bbddebf90acb32adb5e4e4029f1c96019949ecfbfeffd7ac1e3fbcc6b6168c34be3d5a2e5999\
    fcbb39bba7adbca78eab09b9bc39f7fa4b93411f4cc175e70c0a083e96bfaefb04a9580b4753c1738a6a760ae1afd851a1a4\
    bdad231cf56e9284d832483df215a46c1c21bdf0c6cfe951c18f1ee4078c79c13d63edb6e14feaeffabc90ad317e4875fe64\
    8101b0864097e998f0ca3025ef9638cd2b0caecd3770ab54a1d9c6ca959b0f5dcbc90caeefc4135baca6fd475224269bbe1b\
    0203010001\
    ";
/// PKCS#1 v1.5.
const RSA_SIGNATURE: &str = "\
    5657aa23e0a13244b6c148c35e94466a2624063e6ed32f4ebf8da4225d66d5ad70bec545982d4c1dbf19104600fe288f1772\
    f282a1f8bf2c00858f8f14c1fb2b4545fd994538c3237de8abb052463f0ce7666e1ac2d899b41787c7f8a5cbc6f8e1e53afe\
    09087598ebb6ed2bdf2b4ab2107adc19319a22ce74639a54b2294ae41d02c85d2c3256b6ba56266edf989d39db9d307aadea\
    60f972c3a309663dfca526dad06ab43139043da073358de44cb3c9d8d9edec9f2984f8b76897b3cd85bdee657fb20fcb08e2\
    85319e99d71af30c3459450aeaf87e85c7b62367dc957c2da2132c5a68be81314f2189f198c73e439e031ac621359f6d6e64\
    7933b900386804e2a3b59ab15e6423d460b7ae70cb7a3e17b1ad22e32449fa72cef4d43a26c6c23ecf33b662ee134e0cfeeb\
    31904d00567082a760166928bf36d4c3a930b38f4134f6d1517f3c66d864f223cf28284ac1a28ff2cf32e106c20d21751132\
    937c203c741ec278853d4aadd0c904250afee872bcc9e5dcb20e9b841c10f37b1f20bac65f901a152d5c6f550ea69e15bf46\
    aee45ba02c77faf6f23c67ebe83eddc2b5d17e53389a3b32639ce43720699dc0913e59f8cd07efe42b0bd05c43cec4f170c8\
    328cebc10e925bb0d38850bbc61ed5802cef69197563d02afd7e261e8f2a567bf3b8a3ebb5b439ddb64624a35f5fdf1c7829\
    8036b3f92cac0bde26b62e8f\
    ";

#[async_test]
async fn spec_vectors_decode_and_encode_to_the_same_bytes() {
    for vector in [ED25519_PUBLIC, SECP256K1_PUBLIC, ECDSA_PUBLIC, RSA_PUBLIC] {
        let key = PublicKey::decode_protobuf(&hex(vector)).unwrap();
        assert_eq!(key.encode_protobuf(), hex(vector));
        // peer-ids spec, "Peer Ids": up to 42 bytes stand in the peer id themselves.
        let digest = if hex(vector).len() <= 42 { hex(vector) } else { sha2_256(&hex(vector)).to_vec() };
        assert!(key.peer_id().to_bytes().ends_with(&digest));
        assert_eq!(key.peer_id().public_key().is_some(), hex(vector).len() <= 42);
    }
}

#[async_test]
async fn private_key_of_the_spec_has_the_public_key_of_the_spec() {
    let keypair = Keypair::decode_protobuf(&hex(ED25519_PRIVATE)).unwrap();
    assert_eq!(keypair.public().encode_protobuf(), hex(ED25519_PUBLIC));
    assert_eq!(keypair.encode_protobuf(), hex(ED25519_PRIVATE));
    assert_eq!(Keypair::from_seed(keypair.seed()).peer_id(), keypair.peer_id());
}

#[async_test]
async fn private_key_in_the_older_form_is_read_if_its_parts_agree() {
    let new = hex(ED25519_PRIVATE);
    let older = [&[0x08, 0x01, 0x12, 96], &new[4..], &new[36..]].concat();
    assert_eq!(Keypair::decode_protobuf(&older).unwrap().encode_protobuf(), new);
    for at in [4, 40, 80] {
        let mut damaged = older.clone();
        damaged[at] ^= 1;
        assert_eq!(Keypair::decode_protobuf(&damaged).err(), Some(KeyError::Malformed("Ed25519 private")));
    }
}

#[async_test]
async fn signatures_made_elsewhere_are_verified() {
    for (key, signature) in [
        (SECP256K1_PUBLIC, SECP256K1_SIGNATURE),
        (SECP256K1_PUBLIC, SECP256K1_HIGH_S_SIGNATURE),
        (ECDSA_PUBLIC, ECDSA_SIGNATURE),
        (RSA_PUBLIC, RSA_SIGNATURE),
    ] {
        let key = PublicKey::decode_protobuf(&hex(key)).unwrap();
        check_signature(&key, &hex(signature)).await;
    }
}

#[async_test]
async fn our_own_signature_is_verified() {
    let keypair = Keypair::generate();
    check_signature(keypair.public(), &keypair.sign(MESSAGE)).await;
    assert_ne!(Keypair::generate().peer_id(), keypair.peer_id());
}

#[async_test]
async fn rfc_8032_vector_is_signed_as_the_rfc_says() {
    let seed = hex("c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7");
    let signature = "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac\
                     18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a";
    let keypair = Keypair::from_seed(seed.try_into().unwrap());
    assert_eq!(keypair.sign(&[0xaf, 0x82]).to_vec(), hex(signature));
}

/// The signature is accepted for MESSAGE, and nothing that differs from it in one bit is.
async fn check_signature(key: &PublicKey, signature: &[u8]) {
    assert_eq!(key.verify(MESSAGE, signature).await, Ok(()), "{key:?}");
    assert_eq!(key.verify(b"another message", signature).await, Err(InvalidSignature), "{key:?}");
    for bit in (0..signature.len() * 8).step_by(61) {
        let mut damaged = signature.to_vec();
        damaged[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(key.verify(MESSAGE, &damaged).await, Err(InvalidSignature), "{key:?}, bit {bit}");
    }
    for length in [0, 1, 63, signature.len() - 1] {
        assert_eq!(
            key.verify(MESSAGE, &signature[..length]).await,
            Err(InvalidSignature),
            "{key:?}, {length} bytes"
        );
    }
    let longer = [signature, &[0]].concat();
    assert_eq!(key.verify(MESSAGE, &longer).await, Err(InvalidSignature), "{key:?}");
}

#[async_test]
async fn rsa_keys_of_other_sizes_are_refused_before_anything_is_computed() {
    for (bits, accepted) in
        [(1024, false), (2047, false), (2048, true), (3072, true), (8192, true), (8193, false)]
    {
        let result = PublicKey::decode_protobuf(&rsa_key(bits, &[1, 0, 1]));
        match accepted {
            true => assert_eq!(result.unwrap().verify(MESSAGE, &[1; 256]).await, Err(InvalidSignature)),
            false => assert_eq!(result, Err(KeyError::RsaSize(bits)), "{bits}"),
        }
    }
    assert!(matches!(PublicKey::decode_protobuf(&rsa_key(16_384, &[3])), Err(KeyError::TooLong(_))));
}

#[async_test]
async fn rsa_keys_with_a_useless_or_costly_exponent_are_refused() {
    for exponent in [&[1][..], &[2], &[1, 0, 0], &[1; 5], &[1; 64]] {
        let result = PublicKey::decode_protobuf(&rsa_key(2048, exponent));
        assert_eq!(result, Err(KeyError::Malformed("RSA")), "{exponent:?}");
    }
}

#[async_test]
async fn what_is_no_key_is_refused() {
    let refused = |text: &str| PublicKey::decode_protobuf(&hex(text)).unwrap_err();
    assert_eq!(refused(""), KeyError::Protobuf);
    // A type alone; data alone; in the wrong order; a length beyond the end; something after the end.
    for text in ["0801", "120100", "12010008 01", "08011202 00", "08011201 0000"] {
        assert_eq!(refused(text), KeyError::Protobuf, "{text}");
    }
    // The type in more bytes than it needs.
    assert_eq!(refused("088100120100"), KeyError::Protobuf);
    assert_eq!(refused("0804120100"), KeyError::UnsupportedType(4));
    assert_eq!(refused("0801120100"), KeyError::Malformed("Ed25519"));
    // Uncompressed and other forms of a point.
    assert_eq!(refused(&format!("08021221{}", "04".repeat(33))), KeyError::Malformed("secp256k1"));
    // P-384 in the place of P-256.
    assert_eq!(
        refused(&ECDSA_PUBLIC.replace("2a8648ce3d030107", "2a8648ce3d030108")),
        KeyError::Malformed("ECDSA P-256")
    );
    assert_eq!(PublicKey::decode_protobuf(&[0; 1281]), Err(KeyError::TooLong(1281)));
    // As long as the private key of RSA with 4096 bits.
    let rsa_private = [&hex("080012ae12")[..], &[0; 2350]].concat();
    assert_eq!(Keypair::decode_protobuf(&rsa_private).err(), Some(KeyError::UnsupportedType(0)));
}

#[async_test]
async fn a_point_that_is_not_on_the_curve_verifies_nothing() {
    for (key, signature) in [(SECP256K1_PUBLIC, SECP256K1_SIGNATURE), (ECDSA_PUBLIC, ECDSA_SIGNATURE)] {
        let mut key = hex(key);
        let last = key.len() - 1;
        key[last] ^= 1;
        if let Ok(key) = PublicKey::decode_protobuf(&key) {
            assert_eq!(key.verify(MESSAGE, &hex(signature)).await, Err(InvalidSignature));
        }
    }
}

#[async_test]
async fn debug_output_does_not_show_the_secret() {
    let keypair = Keypair::from_seed([0xab; 32]);
    let text = format!("{keypair:?} {keypair:#?}").to_lowercase();
    assert!(text.contains(&keypair.peer_id().to_string().to_lowercase()));
    for secret in ["abab", "171, 171", "171,\n"] {
        assert!(!text.contains(secret), "{text}");
    }
}

/// The `PublicKey` message of an RSA key with a modulus of ones.
fn rsa_key(bits: usize, exponent: &[u8]) -> Vec<u8> {
    let mut modulus = vec![0xff; bits.div_ceil(8)];
    modulus[0] >>= (8 - bits % 8) % 8;
    let numbers = [integer(&modulus), integer(exponent)].concat();
    let algorithm = hex("300d06092a864886f70d0101010500");
    let bit_string = der(0x03, &[&[0][..], &der(0x30, &numbers)].concat());
    let spki = der(0x30, &[algorithm, bit_string].concat());
    let mut key = hex("080012");
    peerloom_core::varint::encode_prefixed(&spki, &mut key);
    key
}

fn integer(number: &[u8]) -> Vec<u8> {
    let sign: &[u8] = if number[0] >= 0x80 { &[0] } else { &[] };
    der(0x02, &[sign, number].concat())
}

fn der(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = match content.len() {
        length @ ..=0x7f => vec![length as u8],
        length @ ..=0xff => vec![0x81, length as u8],
        length => [&[0x82][..], &(length as u16).to_be_bytes()].concat(),
    };
    [&[tag], &length[..], content].concat()
}

fn hex(text: &str) -> Vec<u8> {
    data_encoding::HEXLOWER.decode(text.replace(' ', "").as_bytes()).unwrap()
}
