//! Type, length, value: how HTTP/3 frames (RFC 9114, section 7.1) and capsules (RFC 9297, section 3.2) are laid out.

#![warn(clippy::arithmetic_side_effects)]

use bytes::{Buf, BufMut, Bytes};

use super::varint;

pub(crate) const DATA: u64 = 0x00;
pub(crate) const HEADERS: u64 = 0x01;
pub(crate) const SETTINGS: u64 = 0x04;
/// What a bidirectional WebTransport stream begins with, in place of a frame's type; the session's id follows.
pub(crate) const WEBTRANSPORT_STREAM: u64 = 0x41;

/// Appends a frame or capsule.
pub(crate) fn encode(kind: u64, value: &[u8], out: &mut impl BufMut) {
    varint::encode(kind, out);
    varint::encode(value.len() as u64, out);
    out.put_slice(value);
}

/// Splits a byte stream into type-length-values. Holds at most one header; values are passed on as they come, in
/// pieces.
#[derive(Debug, Default)]
pub(crate) struct Splitter {
    header: Header,
    /// The value that is under way: its type, and how much of it is to come.
    value: Option<(u64, u64)>,
}

/// A part of a value.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) kind: u64,
    pub(crate) bytes: Bytes,
    /// How much of the value follows this piece.
    pub(crate) to_come: u64,
}

impl Splitter {
    /// For a stream whose first type was read already.
    pub(crate) fn after_type(kind: u64) -> Self {
        let mut splitter = Self::default();
        let mut bytes = Vec::with_capacity(varint::MAX_BYTES);
        varint::encode(kind, &mut bytes);
        bytes.into_iter().for_each(|byte| splitter.header.put_u8(byte));
        splitter
    }

    /// The next piece of `input`; `None` when all of it is used up. The first piece of a value comes as soon as its
    /// length is known, without bytes if there are none yet.
    pub(crate) fn next(&mut self, input: &mut Bytes) -> Option<Piece> {
        while input.has_remaining() {
            if let Some((kind, length)) = self.value.take() {
                return Some(self.cut(kind, length, input));
            }
            self.header.put_u8(input.get_u8());
            if let Some((kind, length)) = self.header.complete() {
                return Some(self.cut(kind, length, input));
            }
        }
        None
    }

    fn cut(&mut self, kind: u64, length: u64, input: &mut Bytes) -> Piece {
        let here = usize::try_from(length).unwrap_or(usize::MAX).min(input.len());
        let bytes = input.split_to(here);
        let to_come = length.saturating_sub(here as u64);
        self.value = (to_come > 0).then_some((kind, to_come));
        Piece { kind, bytes, to_come }
    }
}

/// A type and a length, gathered byte by byte.
#[derive(Debug, Default)]
struct Header {
    bytes: [u8; 2 * varint::MAX_BYTES],
    length: usize,
}

impl Header {
    fn complete(&mut self) -> Option<(u64, u64)> {
        let mut bytes = self.bytes.get(..self.length)?;
        let value = (varint::decode(&mut bytes)?, varint::decode(&mut bytes)?);
        self.length = 0;
        Some(value)
    }

    fn put_u8(&mut self, byte: u8) {
        // Complete, and so empty again, before it can be full: two integers have at most 16 bytes.
        if let Some(slot) = self.bytes.get_mut(self.length) {
            *slot = byte;
            self.length = self.length.saturating_add(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn split(splitter: &mut Splitter, chunks: &[&[u8]]) -> Vec<(u64, Vec<u8>)> {
        let mut values = Vec::new();
        let mut value = Vec::new();
        for chunk in chunks {
            let mut input = Bytes::copy_from_slice(chunk);
            while let Some(piece) = splitter.next(&mut input) {
                value.extend_from_slice(&piece.bytes);
                if piece.to_come == 0 {
                    values.push((piece.kind, std::mem::take(&mut value)));
                }
            }
        }
        values
    }

    proptest! {
        #[test]
        fn values_survive_any_cut(
            values: Vec<(u32, Vec<u8>)>,
            cut in 1..20usize,
        ) {
            let mut wire = Vec::new();
            for (kind, value) in &values {
                encode((*kind).into(), value, &mut wire);
            }
            let mut splitter = Splitter::default();
            let chunks: Vec<&[u8]> = wire.chunks(cut).collect();
            let expected: Vec<_> = values.into_iter().map(|(kind, value)| (u64::from(kind), value)).collect();
            prop_assert_eq!(split(&mut splitter, &chunks), expected);
        }
    }

    #[test]
    fn a_type_read_before_is_not_lost() {
        let mut splitter = Splitter::after_type(HEADERS);
        assert_eq!(split(&mut splitter, &[&[2, 7, 8], &[0x40]]), [(HEADERS, vec![7, 8])]);
        let mut splitter = Splitter::after_type(0x4321_0000);
        assert_eq!(split(&mut splitter, &[&[0]]), [(0x4321_0000, vec![])]);
    }
}
