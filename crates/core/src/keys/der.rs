//! The little of ASN.1 DER that keys and signatures are written in: strict, so that each has one encoding.

#![warn(clippy::arithmetic_side_effects)]

use super::{KeyError, RSA_BITS};

const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const SEQUENCE: u8 = 0x30;

/// What comes before the point in the `SubjectPublicKeyInfo` of a P-256 key: id-ecPublicKey with prime256v1, and the head
/// of a bit string of 65 bytes.
const P256_SPKI_PREFIX: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86,
    0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

/// The `AlgorithmIdentifier` rsaEncryption with its NULL.
const RSA_ALGORITHM: [u8; 15] =
    [0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00];

/// The uncompressed point (0x04, x, y) in the `SubjectPublicKeyInfo` of an ECDSA key, which must be on P-256.
pub(super) fn p256_point(spki: &[u8]) -> Result<[u8; 65], KeyError> {
    let point = spki.strip_prefix(&P256_SPKI_PREFIX).ok_or(KeyError::Malformed("ECDSA P-256"))?;
    match <[u8; 65]>::try_from(point) {
        Ok(point) if point.first() == Some(&4) => Ok(point),
        _ => Err(KeyError::Malformed("ECDSA P-256")),
    }
}

/// The `SubjectPublicKeyInfo` of an ECDSA key on P-256, from its uncompressed point.
pub(super) fn p256_spki(point: &[u8; 65]) -> Vec<u8> {
    [&P256_SPKI_PREFIX[..], point].concat()
}

/// Checks the `SubjectPublicKeyInfo` of an RSA key: the form, the size of the modulus and that of the exponent.
pub(super) fn check_rsa(spki: &[u8]) -> Result<(), KeyError> {
    let (modulus, exponent) = rsa_numbers(spki).ok_or(KeyError::Malformed("RSA"))?;
    let leading_zeros = modulus.first().map_or(0, |byte| byte.leading_zeros() as usize);
    let bits = modulus.len().saturating_mul(8).saturating_sub(leading_zeros);
    if !RSA_BITS.contains(&bits) {
        return Err(KeyError::RsaSize(bits));
    }
    // Verification takes as many multiplications as the exponent has bits. Those in use are 3 and 65537; odd they all are,
    // and libraries take at most 33 bits.
    let odd = exponent.last().is_some_and(|byte| byte & 1 == 1);
    if !odd || exponent == [1] || exponent.len() > 4 {
        return Err(KeyError::Malformed("RSA"));
    }
    Ok(())
}

fn rsa_numbers(spki: &[u8]) -> Option<(&[u8], &[u8])> {
    let info = whole(SEQUENCE, spki)?;
    let bits = whole(BIT_STRING, info.strip_prefix(&RSA_ALGORITHM)?)?;
    // The first byte of a bit string counts the bits of the last one that are not used.
    let key = whole(SEQUENCE, bits.strip_prefix(&[0])?)?;
    let (modulus, rest) = positive_integer(key)?;
    let (exponent, rest) = positive_integer(rest)?;
    rest.is_empty().then_some((modulus, exponent))
}

/// The signature `r || s`, each of 32 bytes, from its DER encoding.
pub(super) fn ecdsa_signature(der: &[u8]) -> Option<[u8; 64]> {
    let numbers = whole(SEQUENCE, der)?;
    let (r, rest) = positive_integer(numbers)?;
    let (s, rest) = positive_integer(rest)?;
    if !rest.is_empty() {
        return None;
    }
    let mut raw = [0; 64];
    let (raw_r, raw_s) = raw.split_at_mut(32);
    for (to, number) in [(raw_r, r), (raw_s, s)] {
        let start = to.len().checked_sub(number.len())?;
        to.get_mut(start..)?.copy_from_slice(number);
    }
    Some(raw)
}

/// The content of an element with this tag that fills `input` exactly.
fn whole(tag: u8, input: &[u8]) -> Option<&[u8]> {
    let (content, rest) = element(tag, input)?;
    rest.is_empty().then_some(content)
}

/// A positive integer without leading zeros, and what follows it.
fn positive_integer(input: &[u8]) -> Option<(&[u8], &[u8])> {
    let (content, rest) = element(INTEGER, input)?;
    let number = match content {
        // A zero byte is there to keep the number from being negative, and for nothing else.
        [0, number @ ..] if number.first().is_some_and(|byte| *byte >= 0x80) => number,
        [1..=0x7f, ..] => content,
        _ => return None,
    };
    Some((number, rest))
}

/// The content of the first element, which must have this tag, and what follows it.
fn element(tag: u8, input: &[u8]) -> Option<(&[u8], &[u8])> {
    let rest = input.strip_prefix(&[tag])?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81 => {
            let (&length, rest) = rest.split_first()?;
            // Lengths are minimally encoded, here and below.
            (length >= 0x80).then_some((usize::from(length), rest))?
        }
        0x82 => {
            let (length, rest) = rest.split_first_chunk::<2>()?;
            let length = usize::from(u16::from_be_bytes(*length));
            (length >= 0x100).then_some((length, rest))?
        }
        _ => return None,
    };
    rest.split_at_checked(length)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A signature of two numbers given by their content.
    fn signature(r: &[u8], s: &[u8]) -> Vec<u8> {
        let integer = |number: &[u8]| [&[INTEGER, number.len() as u8], number].concat();
        let content = [integer(r), integer(s)].concat();
        [&[SEQUENCE, content.len() as u8], &content[..]].concat()
    }

    #[test]
    fn a_signature_is_padded_to_its_raw_form() {
        let raw = ecdsa_signature(&signature(&[1], &[0, 0x80])).unwrap();
        assert_eq!((raw[31], raw[63]), (1, 0x80));
        assert_eq!(raw.iter().filter(|byte| **byte != 0).count(), 2);
    }

    #[test]
    fn signatures_in_another_encoding_are_refused() {
        let good = signature(&[1], &[2]);
        assert!(ecdsa_signature(&good).is_some());
        for (r, s) in [(&[0, 1][..], &[1][..]), (&[0x80], &[1]), (&[], &[1]), (&[0], &[1]), (&[1; 33], &[1])]
        {
            assert_eq!(ecdsa_signature(&signature(r, s)), None, "{r:?} {s:?}");
        }
        assert_eq!(ecdsa_signature(&[&good[..], &[0]].concat()), None);
        assert_eq!(ecdsa_signature(&good[..good.len() - 1]), None);
        let long_length = [&[SEQUENCE, 0x81, 6], &good[2..]].concat();
        assert_eq!(ecdsa_signature(&long_length), None);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes: Vec<u8>) {
            let _ = ecdsa_signature(&bytes);
            let _ = check_rsa(&bytes);
            let _ = p256_point(&bytes);
        }

        #[test]
        fn no_damage_to_a_signature_panics(r: [u8; 32], s: [u8; 32], at: prop::sample::Index, byte: u8) {
            let mut der = signature(&r, &s);
            let at = at.index(der.len());
            der[at] = byte;
            let _ = ecdsa_signature(&der);
        }
    }
}
