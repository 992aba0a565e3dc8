//! QUIC's variable-length integers, RFC 9000 section 16.

#![warn(clippy::arithmetic_side_effects)]

use bytes::{Buf, BufMut};

/// The longest encoding, in bytes.
pub(crate) const MAX_BYTES: usize = 8;

/// Appends `value`, of which only the low 62 bits can be said.
pub(crate) fn encode(value: u64, out: &mut impl BufMut) {
    match value {
        0..=0x3f => out.put_u8(value as u8),
        0x40..=0x3fff => out.put_u16(0x4000 | value as u16),
        0x4000..=0x3fff_ffff => out.put_u32(0x8000_0000 | value as u32),
        _ => out.put_u64(0xc000_0000_0000_0000 | value),
    }
}

/// How many bytes an integer that begins with `first` has.
pub(crate) fn encoded_len(first: u8) -> usize {
    1 << (first >> 6)
}

/// Takes an integer off the front of `input`; `None`, and nothing taken, if it is not all there.
pub(crate) fn decode(input: &mut impl Buf) -> Option<u64> {
    let first = *input.chunk().first()?;
    let length = encoded_len(first);
    if input.remaining() < length {
        return None;
    }
    let mask = u64::MAX >> (64_usize.saturating_sub(length.saturating_mul(8)).saturating_add(2));
    Some(input.get_uint(length) & mask)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_of_rfc_9000() {
        for (bytes, value) in [
            (&[0xc2, 0x19, 0x7c, 0x5e, 0xff, 0x14, 0xe8, 0x8c][..], 151_288_809_941_952_652),
            (&[0x9d, 0x7f, 0x3e, 0x7d], 494_878_333),
            (&[0x7b, 0xbd], 15_293),
            (&[0x25], 37),
        ] {
            assert_eq!(decode(&mut &*bytes), Some(value));
            let mut encoded = Vec::new();
            encode(value, &mut encoded);
            assert_eq!(encoded, bytes);
            assert_eq!(decode(&mut &bytes[..bytes.len() - 1]), None);
        }
        assert_eq!(decode(&mut &[0x40, 0x25][..]), Some(37));
        assert_eq!(decode(&mut &[][..]), None);
    }
}
