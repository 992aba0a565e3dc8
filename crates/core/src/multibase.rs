//! The multibase encodings that peers use in text forms of multiaddrs and peer ids.

use crate::base_encoding::{BASE16, BASE32, BASE64, BASE64URL};

/// Decodes text that begins with the prefix of its base. `None` if the base is unknown or the text is not of that base.
pub(crate) fn decode(text: &str) -> Option<Vec<u8>> {
    let mut characters = text.chars();
    let base = characters.next()?;
    let digits = characters.as_str();
    match base {
        'b' => BASE32.decode(digits),
        'B' => upper_case(digits).then(|| BASE32.decode(&digits.to_ascii_lowercase())).flatten(),
        'z' => bs58::decode(digits).into_vec().ok(),
        'k' => lower_case(digits).then(|| from_base36(digits)).flatten(),
        'K' => from_base36(&digits.to_ascii_lowercase()),
        'u' => BASE64URL.decode(digits),
        'U' => BASE64URL.padded().decode(digits),
        'm' => BASE64.decode(digits),
        'M' => BASE64.padded().decode(digits),
        'f' | 'F' => BASE16.decode(&digits.to_ascii_lowercase()),
        _ => None,
    }
}

/// Base64url without padding, as certificate hashes are written.
pub(crate) fn base64url(bytes: &[u8]) -> String {
    ["u", &BASE64URL.encode(bytes)].concat()
}

/// Base32 in lower case without padding, as CIDs are written.
pub(crate) fn base32(bytes: &[u8]) -> String {
    ["b", &BASE32.encode(bytes)].concat()
}

fn lower_case(digits: &str) -> bool {
    !digits.bytes().any(|byte| byte.is_ascii_uppercase())
}

fn upper_case(digits: &str) -> bool {
    !digits.bytes().any(|byte| byte.is_ascii_lowercase())
}

/// Base36 is a number in base 36, most significant digit first; leading zero digits stand for leading zero bytes.
fn from_base36(digits: &str) -> Option<Vec<u8>> {
    // Quadratic in the length, so longer text than a peer id in any form is not tried.
    const MAX_DIGITS: usize = 256;
    if digits.len() > MAX_DIGITS {
        return None;
    }
    let mut little_endian: Vec<u8> = Vec::new();
    for character in digits.chars() {
        let mut carry = character.to_digit(36)?;
        for byte in &mut little_endian {
            let sum = u32::from(*byte).saturating_mul(36).saturating_add(carry);
            *byte = (sum & 0xff) as u8;
            carry = sum >> 8;
        }
        if carry > 0 {
            little_endian.push(carry as u8);
        }
    }
    little_endian.extend(digits.bytes().take_while(|digit| *digit == b'0').map(|_| 0));
    little_endian.reverse();
    Some(little_endian)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_multibase_specs_own_vectors_decode() {
        let encodings = [
            "f796573206d616e692021",
            "bpfsxgidnmfxgsibb",
            "BPFSXGIDNMFXGSIBB",
            "k2lcpzo5yikidynfl",
            "K2LCPZO5YIKIDYNFL",
            "z7paNL19xttacUY",
            "meWVzIG1hbmkgIQ",
            "MeWVzIG1hbmkgIQ==",
            "ueWVzIG1hbmkgIQ",
            "UeWVzIG1hbmkgIQ==",
        ];
        for encoding in encodings {
            assert_eq!(decode(encoding).as_deref(), Some(&b"yes mani !"[..]), "{encoding}");
        }
        assert_eq!(decode("k002lcpzo5yikidynfl").as_deref(), Some(&b"\0\0yes mani !"[..]));
    }

    #[test]
    fn text_of_no_known_base_is_refused() {
        for text in ["", "x00", "bPFSX", "b1", "k-", "u=", "ééé"] {
            assert_eq!(decode(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_we_encode_decodes(bytes: Vec<u8>) {
            prop_assert_eq!(decode(&base64url(&bytes)), Some(bytes.clone()));
            prop_assert_eq!(decode(&base32(&bytes)), Some(bytes));
        }

        #[test]
        fn no_text_panics(text: String) {
            let _ = decode(&text);
        }
    }
}
