//! The Huffman code of HPACK, which QPACK shares: RFC 7541, section 5.2 and appendix B. Decoding only; we never encode
//! with it, which is allowed.

#![warn(clippy::arithmetic_side_effects)]

use std::sync::LazyLock;

/// The length in bits of each symbol's code. The code is canonical: within a length codes ascend with the symbols, so
/// the lengths say all. Symbol 256 is the end of the string, which must not occur.
#[rustfmt::skip]
const CODE_BITS: [u8; 257] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28,
    28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
    6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6,
    5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
    13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
    7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5,
    6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28,
    20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23,
    24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23,
    21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25,
    19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
    20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23,
    26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
    30,
];

const END_OF_STRING: u16 = 256;
const MAX_BITS: usize = 30;

/// Per length: the first code of that length, and its symbols in ascending order.
static CODES: LazyLock<[(u32, Vec<u16>); MAX_BITS + 1]> = LazyLock::new(|| {
    let mut first = 0u32;
    std::array::from_fn(|bits| {
        let symbols: Vec<u16> = (0..=END_OF_STRING)
            .zip(CODE_BITS)
            .filter(|(_, length)| bits > 0 && usize::from(*length) == bits)
            .map(|(symbol, _)| symbol)
            .collect();
        let of_this_length = (first, symbols);
        first = first.wrapping_add(of_this_length.1.len() as u32).wrapping_shl(1);
        of_this_length
    })
});

/// `None` if `encoded` is not a valid encoding. The result has at most 8/5 of its length.
pub(super) fn decode(encoded: &[u8]) -> Option<Vec<u8>> {
    let mut decoded = Vec::with_capacity(encoded.len().saturating_mul(2));
    let mut code = 0u32;
    let mut bits = 0usize;
    let set_bits = encoded.iter().flat_map(|byte| (0..8).rev().map(move |at| (byte >> at) & 1 == 1));
    for set in set_bits {
        code = code.wrapping_shl(1) | u32::from(set);
        bits = bits.saturating_add(1);
        let (first, symbols) = CODES.get(bits)?;
        let symbol = code.checked_sub(*first).and_then(|index| symbols.get(index as usize));
        if let Some(symbol) = symbol {
            // The end of the string must not be said: u8 has no room for it.
            decoded.push(u8::try_from(*symbol).ok()?);
            (code, bits) = (0, 0);
        }
    }
    // Padding: fewer than 8 bits, all set, as the end of the string begins.
    let all_set = 1u32.wrapping_shl(bits as u32).wrapping_sub(1);
    (bits < 8 && code == all_set).then_some(decoded)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(text: &str) -> Vec<u8> {
        data_encoding::HEXLOWER.decode(text.as_bytes()).unwrap()
    }

    #[test]
    fn the_examples_of_rfc_7541() {
        for (encoded, decoded) in [
            ("f1e3c2e5f23a6ba0ab90f4ff", "www.example.com"),
            ("a8eb10649cbf", "no-cache"),
            ("25a849e95ba97d7f", "custom-key"),
            ("25a849e95bb8e8b4bf", "custom-value"),
            ("d07abe941054d444a8200595040b8166e082a62d1bff", "Mon, 21 Oct 2013 20:13:21 GMT"),
            ("9d29ad171863c78f0b97c8e9ae82ae43d3", "https://www.example.com"),
            ("", ""),
        ] {
            assert_eq!(decode(&hex(encoded)).unwrap(), decoded.as_bytes());
        }
    }

    #[test]
    fn every_symbol_has_the_code_of_appendix_b() {
        let code = |symbol: u16| {
            CODES.iter().enumerate().find_map(|(bits, (first, symbols))| {
                let index = symbols.iter().position(|other| *other == symbol)?;
                Some((first + index as u32, bits))
            })
        };
        for (symbol, expected) in [
            (0, (0x1ff8, 13)),
            (b'0'.into(), (0, 5)),
            (b'\\'.into(), (0x7fff0, 19)),
            (b'w'.into(), (0x78, 7)),
            (199, (0x1ffffec, 25)),
            (255, (0x3ffffee, 26)),
            (END_OF_STRING, (0x3fffffff, 30)),
        ] {
            assert_eq!(code(symbol), Some(expected));
        }
    }

    #[test]
    fn bad_padding_and_a_spoken_end_of_string_are_refused() {
        for bad in ["ff", "f1e3c2e5f23a6ba0ab90f4", "a8eb10649cb0", "fffffffc", "ffffffff"] {
            assert_eq!(decode(&hex(bad)), None, "{bad}");
        }
    }
}
