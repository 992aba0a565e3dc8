//! SCTP packets as the [guard](super::guard) looks at them and makes them (RFC 9260 section 3).

#![cfg_attr(not(test), warn(clippy::arithmetic_side_effects))]

use bytes::{BufMut, Bytes, BytesMut};

const COMMON_HEADER: usize = 12;
const CHUNK_HEADER: usize = 4;

/// Chunk types (RFC 9260, 3758, 6525, 8260).
pub(super) mod chunk {
    pub(in crate::sctp) const DATA: u8 = 0;
    pub(in crate::sctp) const INIT: u8 = 1;
    pub(in crate::sctp) const INIT_ACK: u8 = 2;
    pub(in crate::sctp) const SACK: u8 = 3;
    pub(in crate::sctp) const ABORT: u8 = 6;
    pub(in crate::sctp) const SHUTDOWN: u8 = 7;
    pub(in crate::sctp) const ERROR: u8 = 9;
    pub(in crate::sctp) const COOKIE_ECHO: u8 = 10;
    pub(in crate::sctp) const COOKIE_ACK: u8 = 11;
    pub(in crate::sctp) const I_DATA: u8 = 64;
    pub(in crate::sctp) const RE_CONFIG: u8 = 130;
    pub(in crate::sctp) const FORWARD_TSN: u8 = 192;
    pub(in crate::sctp) const I_FORWARD_TSN: u8 = 194;
}

/// Parameters of a RE-CONFIG chunk (RFC 6525 section 4).
pub(super) mod parameter {
    pub(in crate::sctp) const OUTGOING_RESET: u16 = 13;
    pub(in crate::sctp) const RESPONSE: u16 = 16;
    pub(in crate::sctp) const ADD_OUTGOING_STREAMS: u16 = 17;
    pub(in crate::sctp) const PERFORMED: u32 = 1;
    pub(in crate::sctp) const DENIED: u32 = 2;
    pub(in crate::sctp) const BAD_SEQUENCE_NUMBER: u32 = 5;
    pub(in crate::sctp) const IN_PROGRESS: u32 = 6;
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Header {
    pub(super) source: u16,
    pub(super) destination: u16,
    pub(super) tag: u32,
}

impl Header {
    pub(super) fn parse(packet: &[u8]) -> Option<Self> {
        Some(Self { source: u16_at(packet, 0)?, destination: u16_at(packet, 2)?, tag: u32_at(packet, 4)? })
    }

    /// A packet with this header and its checksum.
    pub(super) fn packet(self, chunks: &[u8]) -> Bytes {
        let mut packet = BytesMut::with_capacity(COMMON_HEADER.saturating_add(chunks.len()));
        packet.put_u16(self.source);
        packet.put_u16(self.destination);
        packet.put_u32(self.tag);
        packet.put_u32(0);
        packet.put_slice(chunks);
        let checksum = crc32c::crc32c(&packet);
        if let Some(field) = packet.get_mut(8..COMMON_HEADER) {
            field.copy_from_slice(&checksum.to_le_bytes());
        }
        packet.freeze()
    }
}

pub(super) struct ChunkView<'a> {
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) value: &'a [u8],
    /// Header and value, without padding.
    pub(super) bytes: &'a [u8],
}

/// Walks the chunks of a packet; `None` stands for one that does not fit and ends the walk.
pub(super) struct Chunks<'a> {
    rest: &'a [u8],
}

impl<'a> Chunks<'a> {
    pub(super) fn of(packet: &'a [u8]) -> Self {
        Self { rest: packet.get(COMMON_HEADER..).unwrap_or_default() }
    }

    /// A chunk by itself.
    pub(super) fn single(chunk: &'a [u8]) -> Option<ChunkView<'a>> {
        Self { rest: chunk }.chunk()
    }

    fn chunk(&mut self) -> Option<ChunkView<'a>> {
        let (kind, flags) = (*self.rest.first()?, *self.rest.get(1)?);
        let length = usize::from(u16_at(self.rest, 2)?);
        let bytes = self.rest.get(..length)?;
        let value = bytes.get(CHUNK_HEADER..)?;
        // RFC 9260 section 3.2: the padding of the last chunk may be missing.
        let next = length.checked_next_multiple_of(4)?.min(self.rest.len());
        self.rest = self.rest.get(next..)?;
        Some(ChunkView { kind, flags, value, bytes })
    }
}

impl<'a> Iterator for Chunks<'a> {
    type Item = Option<ChunkView<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let chunk = self.chunk();
        if chunk.is_none() {
            self.rest = &[];
        }
        Some(chunk)
    }
}

/// The parameters of a RE-CONFIG chunk: type and value.
pub(super) fn parameters(mut rest: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let kind = u16_at(rest, 0)?;
        let length = usize::from(u16_at(rest, 2)?);
        let value = rest.get(CHUNK_HEADER..length)?;
        rest = rest.get(length.checked_next_multiple_of(4)?..).unwrap_or_default();
        Some((kind, value))
    })
}

/// Appends a chunk and its padding.
pub(super) fn put_chunk(packet: &mut BytesMut, chunk: &[u8]) {
    packet.put_slice(chunk);
    while !packet.len().is_multiple_of(4) {
        packet.put_u8(0);
    }
}

pub(super) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at.checked_add(2)?)?.try_into().ok()?))
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

/// A RE-CONFIG chunk with one parameter.
pub(super) fn re_config(parameter: &[u8]) -> BytesMut {
    let mut chunk = BytesMut::new();
    let length = parameter.len().saturating_add(CHUNK_HEADER);
    chunk.put_u8(chunk::RE_CONFIG);
    chunk.put_u8(0);
    chunk.put_u16(u16::try_from(length).unwrap_or(u16::MAX));
    chunk.put_slice(parameter);
    while !chunk.len().is_multiple_of(4) {
        chunk.put_u8(0);
    }
    chunk
}

/// A response parameter (RFC 6525 section 4.4).
pub(super) fn response(sequence: u32, result: u32) -> Vec<u8> {
    let mut parameter = parameter::RESPONSE.to_be_bytes().to_vec();
    parameter.extend_from_slice(&12u16.to_be_bytes());
    parameter.extend_from_slice(&sequence.to_be_bytes());
    parameter.extend_from_slice(&result.to_be_bytes());
    parameter
}
