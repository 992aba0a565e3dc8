//! Base16, base32 and base64 (RFC 4648), strict: one text for one value.
//!
//! A general library for these is a tenth of the page's Wasm; text forms of addresses do not need its speed.

#![warn(clippy::arithmetic_side_effects)]

/// An alphabet of 2 to the power of `bits` digits.
pub(crate) struct Base {
    alphabet: &'static [u8],
    bits: u32,
    /// Whether the text is filled up with `=` to whole bytes.
    padded: bool,
}

pub(crate) const BASE16: Base = Base::new(b"0123456789abcdef", 4);
pub(crate) const BASE32: Base = Base::new(b"abcdefghijklmnopqrstuvwxyz234567", 5);
pub(crate) const BASE64: Base =
    Base::new(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/", 6);
pub(crate) const BASE64URL: Base =
    Base::new(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_", 6);
/// I2P's base64 has `-` and `~` for the last two digits.
pub(crate) const BASE64_I2P: Base =
    Base::new(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-~", 6).padded();

impl Base {
    const fn new(alphabet: &'static [u8], bits: u32) -> Self {
        Self { alphabet, bits, padded: false }
    }

    pub(crate) const fn padded(self) -> Self {
        Self { padded: true, ..self }
    }

    pub(crate) fn encode(&self, bytes: &[u8]) -> String {
        let mut text = String::with_capacity(bytes.len().saturating_mul(2));
        let mut buffer = 0u32;
        let mut available = 0u32;
        for byte in bytes {
            buffer = buffer << 8 | u32::from(*byte);
            available = available.saturating_add(8);
            while available >= self.bits {
                available = available.saturating_sub(self.bits);
                text.push(self.digit(buffer >> available));
            }
        }
        if available > 0 {
            text.push(self.digit(buffer << self.bits.saturating_sub(available)));
        }
        while self.padded && !self.is_whole(text.len()) {
            text.push('=');
        }
        text
    }

    /// `None` for anything that [`encode`](Self::encode) would not give.
    pub(crate) fn decode(&self, text: &str) -> Option<Vec<u8>> {
        let digits = match self.padded {
            true => self.is_whole(text.len()).then(|| text.trim_end_matches('='))?,
            false => text,
        };
        let mut bytes = Vec::with_capacity(digits.len());
        let mut buffer = 0u32;
        let mut available = 0u32;
        for digit in digits.bytes() {
            let value = self.alphabet.iter().position(|known| *known == digit)?;
            buffer = buffer << self.bits | value as u32;
            available = available.saturating_add(self.bits);
            if available >= 8 {
                available = available.saturating_sub(8);
                bytes.push((buffer >> available) as u8);
            }
        }
        // What is left must be less than a digit, and zero; and there must be as much padding as it takes, and no more.
        let left = buffer & !(u32::MAX << available);
        let padding = text.len().saturating_sub(digits.len());
        let one_text = available < self.bits && left == 0 && padding < self.whole();
        one_text.then_some(bytes)
    }

    /// The lowest bits of `value` as a digit.
    fn digit(&self, value: u32) -> char {
        let index = value & !(u32::MAX << self.bits);
        self.alphabet.get(index as usize).map_or('=', |digit| char::from(*digit))
    }

    /// How many digits make whole bytes.
    fn whole(&self) -> usize {
        match self.bits {
            5 => 8,
            6 => 4,
            _ => 2,
        }
    }

    fn is_whole(&self, digits: usize) -> bool {
        digits.is_multiple_of(self.whole())
    }
}

#[cfg(test)]
mod tests {
    use data_encoding::{BASE32_NOPAD, BASE64 as THEIR_BASE64, BASE64_NOPAD, BASE64URL_NOPAD, HEXLOWER};
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn rfc_4648_vectors() {
        for (text, base64, base32) in [
            ("", "", ""),
            ("f", "Zg==", "my"),
            ("fo", "Zm8=", "mzxq"),
            ("foo", "Zm9v", "mzxw6"),
            ("foob", "Zm9vYg==", "mzxw6yq"),
            ("fooba", "Zm9vYmE=", "mzxw6ytb"),
            ("foobar", "Zm9vYmFy", "mzxw6ytboi"),
        ] {
            assert_eq!(BASE64.padded().encode(text.as_bytes()), base64);
            assert_eq!(BASE64.padded().decode(base64).unwrap(), text.as_bytes());
            assert_eq!(BASE32.encode(text.as_bytes()), base32);
            assert_eq!(BASE32.decode(base32).unwrap(), text.as_bytes());
        }
    }

    proptest! {
        #[test]
        fn encodes_as_others_do(bytes: Vec<u8>) {
            prop_assert_eq!(BASE16.encode(&bytes), HEXLOWER.encode(&bytes));
            prop_assert_eq!(BASE32.encode(&bytes), BASE32_NOPAD.encode(&bytes).to_ascii_lowercase());
            prop_assert_eq!(BASE64.encode(&bytes), BASE64_NOPAD.encode(&bytes));
            prop_assert_eq!(BASE64.padded().encode(&bytes), THEIR_BASE64.encode(&bytes));
            prop_assert_eq!(BASE64URL.encode(&bytes), BASE64URL_NOPAD.encode(&bytes));
        }

        #[test]
        fn decodes_what_others_do_and_nothing_else(text in "[A-Za-c/+=]{0,9}") {
            let theirs = |encoding: &data_encoding::Encoding, text: &str| encoding.decode(text.as_bytes()).ok();
            prop_assert_eq!(BASE64.decode(&text), theirs(&BASE64_NOPAD, &text));
            // Theirs takes several padded texts one behind the other for one, which RFC 4648 knows nothing of.
            let is_one = !text.trim_end_matches('=').contains('=');
            let padded = if is_one { theirs(&THEIR_BASE64, &text) } else { None };
            prop_assert_eq!(BASE64.padded().decode(&text), padded);
            let lower = text.to_ascii_lowercase();
            prop_assert_eq!(BASE32.decode(&lower), theirs(&BASE32_NOPAD, &lower.to_ascii_uppercase()));
            prop_assert_eq!(BASE16.decode(&lower), theirs(&HEXLOWER, &lower));
        }

        #[test]
        fn padding_in_the_middle_is_refused(one in "[a-d]{3}=", other in "[a-d]{4}") {
            prop_assert_eq!(BASE64.padded().decode(&(one + &other)), None);
        }

        #[test]
        fn no_text_panics(text: String) {
            let _ = BASE64_I2P.decode(&text);
        }
    }
}
