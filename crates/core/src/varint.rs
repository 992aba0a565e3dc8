//! Unsigned varints of the multiformats: seven bits a byte, the lowest first, minimal and at most nine bytes long.

#![warn(clippy::arithmetic_side_effects)]

/// The longest encoding that the multiformats allow.
pub const MAX_BYTES: usize = 9;

/// The largest value that fits into [`MAX_BYTES`].
pub const MAX: u64 = (1 << 63) - 1;

/// Why bytes are not an unsigned varint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum VarintError {
    /// The input ended within the varint.
    #[error("varint is cut short")]
    Truncated,
    /// A shorter encoding of the same value exists.
    #[error("varint is not minimally encoded")]
    NotMinimal,
    /// It is longer than [`MAX_BYTES`].
    #[error("varint is longer than {MAX_BYTES} bytes")]
    TooLong,
}

/// Takes a varint off the front of `input`; the second value is what follows it.
pub fn decode(input: &[u8]) -> Result<(u64, &[u8]), VarintError> {
    let mut value = 0u64;
    let mut rest = input;
    for shift in (0u32..).step_by(7).take(MAX_BYTES) {
        let (&byte, after) = rest.split_first().ok_or(VarintError::Truncated)?;
        rest = after;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            // unsigned-varint spec: a final zero byte adds nothing, so it must not be there, except for zero itself.
            if byte == 0 && shift > 0 {
                return Err(VarintError::NotMinimal);
            }
            return Ok((value, rest));
        }
    }
    Err(VarintError::TooLong)
}

/// Appends the varint of `value`. Values above [`MAX`] are written in ten bytes, which no decoder of varints takes.
pub fn encode(mut value: u64, output: &mut Vec<u8>) {
    while value >= 0x80 {
        output.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    output.push(value as u8);
}

/// Appends `bytes` with their length before them.
pub fn encode_prefixed(bytes: &[u8], output: &mut Vec<u8>) {
    encode(bytes.len() as u64, output);
    output.extend_from_slice(bytes);
}

/// Takes a length and as many bytes off the front of `input`; the second value is what follows them.
pub fn decode_prefixed(input: &[u8]) -> Result<(&[u8], &[u8]), VarintError> {
    let (length, rest) = decode(input)?;
    let length = usize::try_from(length).map_err(|_| VarintError::Truncated)?;
    rest.split_at_checked(length).ok_or(VarintError::Truncated)
}

/// How many bytes [`encode`] writes for `value`.
pub const fn encoded_len(value: u64) -> usize {
    let bits = 64u32.saturating_sub(value.leading_zeros());
    let bytes = bits.div_ceil(7) as usize;
    if bytes == 0 { 1 } else { bytes }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn values_at_the_edges_of_each_length_survive() {
        for value in [0, 1, 127, 128, 255, 300, 16_383, 16_384, MAX] {
            let mut bytes = Vec::new();
            encode(value, &mut bytes);
            assert_eq!(bytes.len(), encoded_len(value));
            assert_eq!(decode(&bytes), Ok((value, &[][..])));
        }
    }

    #[test]
    fn bad_varints_are_refused() {
        assert_eq!(decode(&[]), Err(VarintError::Truncated));
        assert_eq!(decode(&[0x80]), Err(VarintError::Truncated));
        assert_eq!(decode(&[0x80, 0x00]), Err(VarintError::NotMinimal));
        assert_eq!(decode(&[0xff; 9]), Err(VarintError::TooLong));
        assert_eq!(
            decode(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]),
            Err(VarintError::TooLong)
        );
        assert_eq!(decode_prefixed(&[2, 1]), Err(VarintError::Truncated));
    }

    proptest! {
        #[test]
        fn round_trip(value in 0..=MAX, tail: Vec<u8>) {
            let mut bytes = Vec::new();
            encode(value, &mut bytes);
            prop_assert_eq!(bytes.len(), encoded_len(value));
            bytes.extend_from_slice(&tail);
            prop_assert_eq!(decode(&bytes), Ok((value, &tail[..])));
        }

        #[test]
        fn whatever_decodes_encodes_to_the_same_bytes(input: Vec<u8>) {
            if let Ok((value, rest)) = decode(&input) {
                let mut bytes = Vec::new();
                encode(value, &mut bytes);
                bytes.extend_from_slice(rest);
                prop_assert_eq!(bytes, input);
            }
        }
    }
}
