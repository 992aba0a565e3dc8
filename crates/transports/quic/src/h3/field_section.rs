//! QPACK field sections (RFC 9204, section 4.5) without a dynamic table, which our settings rule out. Only the
//! pseudo-header fields of a request or response are of interest; others are checked for form and skipped.

#![warn(clippy::arithmetic_side_effects)]

use bytes::{Buf, BufMut};

use super::huffman;

/// The longest encoded field section that we accept, in bytes; announced as SETTINGS_MAX_FIELD_SECTION_SIZE.
pub(crate) const MAX_BYTES: usize = 16 * 1024;

/// The entries of the static table that we encode with, RFC 9204 appendix A.
pub(crate) mod static_table {
    pub(crate) const AUTHORITY: u64 = 0;
    pub(crate) const PATH: u64 = 1;
    pub(crate) const METHOD_CONNECT: u64 = 15;
    pub(crate) const SCHEME_HTTPS: u64 = 23;
    pub(crate) const STATUS: u64 = 24;
    pub(crate) const ORIGIN: u64 = 90;
    pub(super) const LAST: u64 = 98;
}

/// Why bytes are not a field section for us.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FieldSectionError {
    #[error("truncated field section")]
    Truncated,
    #[error("reference to a dynamic table, which was not offered")]
    DynamicTable,
    #[error("reference past the end of the static table")]
    StaticTable,
    #[error("invalid string or number in a field section")]
    Invalid,
    #[error("pseudo-header field given twice")]
    Duplicate,
}

/// The pseudo-header fields of RFC 9114 section 4.3 and RFC 9220.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct PseudoHeader {
    pub(crate) method: Option<Vec<u8>>,
    pub(crate) scheme: Option<Vec<u8>>,
    pub(crate) authority: Option<Vec<u8>>,
    pub(crate) path: Option<Vec<u8>>,
    pub(crate) protocol: Option<Vec<u8>>,
    pub(crate) status: Option<Vec<u8>>,
}

impl PseudoHeader {
    pub(crate) fn decode(mut section: &[u8]) -> Result<Self, FieldSectionError> {
        let input = &mut section;
        let mut fields = Self::default();
        let required_inserts = integer(input, 8)?.value;
        let _base = integer(input, 7)?;
        if required_inserts != 0 {
            return Err(FieldSectionError::DynamicTable);
        }
        while let Some(first) = input.first().copied() {
            if first & 0x80 != 0 {
                // Indexed field line: 1 T index(6+)
                let index = integer(input, 6)?;
                index.in_static_table(0x40)?;
                let (name, value) = static_entry(index.value)?;
                fields.set(name, value.as_bytes().to_vec())?;
            } else if first & 0x40 != 0 {
                // Literal field line with name reference: 01 N T index(4+)
                let index = integer(input, 4)?;
                index.in_static_table(0x10)?;
                let (name, _) = static_entry(index.value)?;
                fields.set(name, string(input, 7)?)?;
            } else if first & 0x20 != 0 {
                // Literal field line with literal name: 001 N H length(3+)
                let name = string(input, 3)?;
                let value = string(input, 7)?;
                fields.set(std::str::from_utf8(&name).map_err(|_| FieldSectionError::Invalid)?, value)?;
            } else {
                // The two forms with a post-base index.
                return Err(FieldSectionError::DynamicTable);
            }
        }
        Ok(fields)
    }

    fn set(&mut self, name: &str, value: Vec<u8>) -> Result<(), FieldSectionError> {
        let field = match name {
            ":method" => &mut self.method,
            ":scheme" => &mut self.scheme,
            ":authority" => &mut self.authority,
            ":path" => &mut self.path,
            ":protocol" => &mut self.protocol,
            ":status" => &mut self.status,
            _ => return Ok(()),
        };
        match field.replace(value) {
            None => Ok(()),
            Some(_) => Err(FieldSectionError::Duplicate),
        }
    }
}

/// Appends the prefix of a section that uses no dynamic table.
pub(crate) fn encode_prefix(out: &mut Vec<u8>) {
    out.put_slice(&[0, 0]);
}

/// Appends a field that the static table holds whole.
pub(crate) fn encode_indexed(index: u64, out: &mut Vec<u8>) {
    encode_integer(index, 6, 0xc0, out);
}

/// Appends a field whose name is that of a static entry.
pub(crate) fn encode_named(index: u64, value: &str, out: &mut Vec<u8>) {
    encode_integer(index, 4, 0x50, out);
    encode_string(value, 7, 0, out);
}

/// Appends a field.
pub(crate) fn encode_literal(name: &str, value: &str, out: &mut Vec<u8>) {
    encode_string(name, 3, 0x20, out);
    encode_string(value, 7, 0, out);
}

/// Name and value of a static entry, for those that matter here. Their names would tell the others apart, but nobody
/// asks.
fn static_entry(index: u64) -> Result<(&'static str, &'static str), FieldSectionError> {
    Ok(match index {
        static_table::AUTHORITY => (":authority", ""),
        static_table::PATH => (":path", "/"),
        static_table::METHOD_CONNECT => (":method", "CONNECT"),
        16 => (":method", "DELETE"),
        17 => (":method", "GET"),
        18 => (":method", "HEAD"),
        19 => (":method", "OPTIONS"),
        20 => (":method", "POST"),
        21 => (":method", "PUT"),
        22 => (":scheme", "http"),
        static_table::SCHEME_HTTPS => (":scheme", "https"),
        static_table::STATUS => (":status", "103"),
        25 => (":status", "200"),
        26 => (":status", "304"),
        27 => (":status", "404"),
        28 => (":status", "503"),
        63 => (":status", "100"),
        64 => (":status", "204"),
        65 => (":status", "206"),
        66 => (":status", "302"),
        67 => (":status", "400"),
        68 => (":status", "403"),
        69 => (":status", "421"),
        70 => (":status", "425"),
        71 => (":status", "500"),
        index if index <= static_table::LAST => ("", ""),
        _ => return Err(FieldSectionError::StaticTable),
    })
}

/// A prefixed integer (RFC 7541, section 5.1) and the bits before it.
struct Integer {
    flags: u8,
    value: u64,
}

impl Integer {
    fn in_static_table(&self, flag: u8) -> Result<(), FieldSectionError> {
        if self.flags & flag == 0 { Err(FieldSectionError::DynamicTable) } else { Ok(()) }
    }
}

fn integer(input: &mut &[u8], prefix_bits: u32) -> Result<Integer, FieldSectionError> {
    let first = next(input)?;
    let mask = u8::MAX.checked_shr(8u32.saturating_sub(prefix_bits)).unwrap_or(0);
    let flags = first & !mask;
    let mut value = u64::from(first & mask);
    if first & mask == mask {
        // Four more bytes reach 2^28, more than any section may hold.
        for shift in [0, 7, 14, 21, 28] {
            let byte = next(input)?;
            value = value.saturating_add(u64::from(byte & 0x7f) << shift);
            if byte & 0x80 == 0 {
                return Ok(Integer { flags, value });
            }
        }
        return Err(FieldSectionError::Invalid);
    }
    Ok(Integer { flags, value })
}

fn encode_integer(value: u64, prefix_bits: u32, flags: u8, out: &mut Vec<u8>) {
    let mask = u8::MAX.checked_shr(8u32.saturating_sub(prefix_bits)).unwrap_or(0);
    let Some(mut rest) = value.checked_sub(mask.into()) else {
        out.push(flags | value as u8);
        return;
    };
    out.push(flags | mask);
    while rest >= 0x80 {
        out.push(0x80 | rest as u8);
        rest >>= 7;
    }
    out.push(rest as u8);
}

/// A string literal (RFC 7541, section 5.2) whose length has so many bits in the first byte, after the Huffman flag.
fn string(input: &mut &[u8], prefix_bits: u32) -> Result<Vec<u8>, FieldSectionError> {
    let Integer { flags, value: length } = integer(input, prefix_bits)?;
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    let (text, rest) = input.split_at_checked(length).ok_or(FieldSectionError::Truncated)?;
    *input = rest;
    let huffman_flag = 1u8.checked_shl(prefix_bits).unwrap_or(0);
    if flags & huffman_flag != 0 {
        huffman::decode(text).ok_or(FieldSectionError::Invalid)
    } else {
        Ok(text.to_vec())
    }
}

fn encode_string(text: &str, prefix_bits: u32, flags: u8, out: &mut Vec<u8>) {
    encode_integer(text.len() as u64, prefix_bits, flags, out);
    out.put_slice(text.as_bytes());
}

fn next(input: &mut &[u8]) -> Result<u8, FieldSectionError> {
    input.try_get_u8().map_err(|_| FieldSectionError::Truncated)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_example_of_rfc_9204() {
        // Appendix B.1: literal field line with name reference, :path = /index.html
        let section = b"\x00\x00\x51\x0b/index.html";
        let fields = PseudoHeader::decode(section).unwrap();
        assert_eq!(fields.path.as_deref(), Some(&b"/index.html"[..]));
        let mut encoded = Vec::new();
        encode_prefix(&mut encoded);
        encode_named(static_table::PATH, "/index.html", &mut encoded);
        assert_eq!(encoded, section);
    }

    #[test]
    fn references_to_a_dynamic_table_are_refused() {
        for section in [&[1, 0][..], &[0, 0, 0x80], &[0, 0, 0x40, 0], &[0, 0, 0x10], &[0, 0, 0x00, 0]] {
            assert_eq!(PseudoHeader::decode(section), Err(FieldSectionError::DynamicTable), "{section:?}");
        }
        assert_eq!(PseudoHeader::decode(&[0, 0, 0xff, 36]), Err(FieldSectionError::StaticTable));
        assert_eq!(PseudoHeader::decode(&[0, 0, 0xff, 35]), Ok(PseudoHeader::default()));
    }

    #[test]
    fn a_pseudo_header_field_given_twice_is_refused() {
        assert_eq!(PseudoHeader::decode(&[0, 0, 0xc1, 0xc1]), Err(FieldSectionError::Duplicate));
    }

    #[test]
    fn truncated_sections_and_numbers_without_end_are_refused() {
        let mut whole = Vec::new();
        encode_prefix(&mut whole);
        encode_literal(":protocol", "webtransport", &mut whole);
        for length in (0..whole.len()).filter(|length| *length != 2) {
            assert_eq!(PseudoHeader::decode(&whole[..length]), Err(FieldSectionError::Truncated));
        }
        let endless = [&[0, 0, 0xff][..], &[0xff; 20]].concat();
        assert_eq!(PseudoHeader::decode(&endless), Err(FieldSectionError::Invalid));
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(path in ".{0,300}", protocol in ".{0,20}", other in "[a-z]{1,200}") {
            let mut section = Vec::new();
            encode_prefix(&mut section);
            encode_indexed(static_table::METHOD_CONNECT, &mut section);
            encode_literal(&other, "value", &mut section);
            encode_named(static_table::PATH, &path, &mut section);
            encode_literal(":protocol", &protocol, &mut section);
            let fields = PseudoHeader::decode(&section).unwrap();
            prop_assert_eq!(fields.method.unwrap(), b"CONNECT");
            prop_assert_eq!(fields.path.unwrap(), path.into_bytes());
            prop_assert_eq!(fields.protocol.unwrap(), protocol.into_bytes());
        }

        #[test]
        fn no_bytes_make_it_panic(section: Vec<u8>) {
            let _ = PseudoHeader::decode(&section);
        }
    }
}
