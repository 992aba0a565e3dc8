//! Message framing of libp2p over a data channel (`webrtc/README.md`, "Multiplexing"): protobuf messages with a length
//! prefix, that give a channel the half-close and reset that it lacks.
//!
//! The prefix makes the channel a byte stream: some implementations send prefix and message apart, and so a frame may
//! span several messages of the channel, or share one.

#![warn(clippy::arithmetic_side_effects)]

use bytes::{Buf, BufMut, Bytes, BytesMut};
use prost::Message as _;

use crate::limits;

/// What a peer says about the halves of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub(crate) enum Flag {
    /// The sender sends nothing more.
    Fin = 0,
    /// The sender reads nothing more.
    StopSending = 1,
    /// The sender has given its half up.
    Reset = 2,
    /// The sender has had the FIN.
    FinAck = 3,
}

/// One frame.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Frame {
    #[prost(enumeration = "Flag", optional, tag = "1")]
    pub(crate) flag: Option<i32>,
    #[prost(bytes = "bytes", optional, tag = "2")]
    pub(crate) message: Option<Bytes>,
    /// Not in the spec yet, but spoken by go-libp2p and js-libp2p.
    #[prost(uint32, optional, tag = "3")]
    pub(crate) error_code: Option<u32>,
}

/// The most payload that fits into a message of [`limits::MAX_SENT_MESSAGE`]: three bytes of prefix, and a key and up to
/// three bytes of length in the protobuf.
pub(crate) const MAX_PAYLOAD: usize = limits::MAX_SENT_MESSAGE - 7;

/// A frame with `payload`, which must not be longer than [`MAX_PAYLOAD`].
pub(crate) fn encode_payload(payload: &[u8]) -> Bytes {
    /// Field 2, length-delimited.
    const KEY: u8 = 0x12;
    let mut field = [0; 4];
    let length = put_varint(&mut field, payload.len());
    let mut frame = BytesMut::with_capacity(payload.len().saturating_add(8));
    let mut prefix = [0; 4];
    let prefix_length = put_varint(&mut prefix, payload.len().saturating_add(length).saturating_add(1));
    frame.put_slice(prefix.get(..prefix_length).unwrap_or_default());
    frame.put_u8(KEY);
    frame.put_slice(field.get(..length).unwrap_or_default());
    frame.put_slice(payload);
    frame.freeze()
}

/// A frame with nothing but a flag and, for those that end a half in error, a code.
pub(crate) fn encode_flag(flag: Flag, error_code: Option<u32>) -> Bytes {
    let frame = Frame { flag: Some(flag.into()), message: None, error_code };
    frame.encode_length_delimited_to_vec().into()
}

/// Writes an unsigned LEB128 of at most four bytes and returns how many it took.
fn put_varint(buffer: &mut [u8; 4], mut value: usize) -> usize {
    let mut written = 0usize;
    for byte in buffer {
        written = written.saturating_add(1);
        *byte = (value & 0x7F) as u8;
        value >>= 7;
        if value == 0 {
            break;
        }
        *byte |= 0x80;
    }
    written
}

/// The remote does not keep to the framing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FramingError {
    #[error("frame is too long")]
    TooLong,
    #[error("malformed frame")]
    Malformed,
}

/// Cuts what comes out of a channel into frames.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    /// At most one unfinished frame and what came with its last part.
    buffer: BytesMut,
}

impl Decoder {
    /// Takes a message of the channel.
    pub(crate) fn push(&mut self, message: BytesMut) {
        if self.buffer.is_empty() {
            self.buffer = message;
        } else {
            self.buffer.extend_from_slice(&message);
        }
    }

    /// The next whole frame. After an error there is no way to go on.
    pub(crate) fn next(&mut self) -> Result<Option<Frame>, FramingError> {
        let Some((length, prefix)) = self.prefix()? else { return Ok(None) };
        if self.buffer.len().saturating_sub(prefix) < length {
            return Ok(None);
        }
        self.buffer.advance(prefix);
        let frame = self.buffer.split_to(length).freeze();
        let frame = Frame::decode(frame).map_err(|_| FramingError::Malformed)?;
        Ok(Some(frame))
    }

    /// The length of the frame at the front and of its prefix.
    fn prefix(&self) -> Result<Option<(usize, usize)>, FramingError> {
        let mut length = 0;
        // Three bytes hold 21 bits, which is more than the limit.
        for (at, byte) in self.buffer.iter().take(3).enumerate() {
            length |= usize::from(byte & 0x7F) << (7 * at as u32);
            if byte & 0x80 == 0 {
                return if length <= limits::MAX_RECEIVED_MESSAGE {
                    Ok(Some((length, at.saturating_add(1))))
                } else {
                    Err(FramingError::TooLong)
                };
            }
        }
        if self.buffer.len() >= 3 { Err(FramingError::TooLong) } else { Ok(None) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decode_all(decoder: &mut Decoder) -> Vec<Frame> {
        std::iter::from_fn(|| decoder.next().unwrap()).collect()
    }

    #[test]
    fn encoding_is_that_of_protobuf() {
        for length in [0, 1, 122, 123, 124, 125, 126, 127, 128, 200, 16_374, MAX_PAYLOAD] {
            let payload = Bytes::from(vec![7; length]);
            let frame = Frame { flag: None, message: Some(payload.clone()), error_code: None };
            let encoded = encode_payload(&payload);
            assert_eq!(encoded, frame.encode_length_delimited_to_vec(), "{length}");
            assert!(encoded.len() <= limits::MAX_SENT_MESSAGE);
        }
        assert_eq!(encode_flag(Flag::Fin, None), &[2, 8, 0][..]);
        assert_eq!(encode_flag(Flag::Reset, Some(9)), &[4, 8, 2, 24, 9][..]);
    }

    #[test]
    fn prefix_and_message_may_come_apart() {
        let mut decoder = Decoder::default();
        let frame = encode_payload(b"hello");
        for byte in frame.iter() {
            assert_eq!(decoder.next(), Ok(None));
            decoder.push(BytesMut::from(&[*byte][..]));
        }
        assert_eq!(decode_all(&mut decoder)[0].message.as_deref(), Some(&b"hello"[..]));
    }

    #[test]
    fn frame_over_the_limit_is_refused_before_it_arrives() {
        let mut decoder = Decoder::default();
        let mut prefix = [0; 4];
        let length = put_varint(&mut prefix, limits::MAX_RECEIVED_MESSAGE + 1);
        decoder.push(BytesMut::from(&prefix[..length]));
        assert_eq!(decoder.next(), Err(FramingError::TooLong));
        let mut decoder = Decoder::default();
        decoder.push(BytesMut::from(&[0x80, 0x80, 0x80][..]));
        assert_eq!(decoder.next(), Err(FramingError::TooLong));
    }

    #[test]
    fn frame_that_is_no_protobuf_is_refused() {
        let mut decoder = Decoder::default();
        decoder.push(BytesMut::from(&[2, 0xFF, 0xFF][..]));
        assert_eq!(decoder.next(), Err(FramingError::Malformed));
    }

    proptest! {
        #[test]
        fn frames_survive_any_cut(
            payloads in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 1..10),
            cut in 1..40usize,
        ) {
            let sent: Vec<u8> = payloads.iter().flat_map(|payload| encode_payload(payload)).collect();
            let mut decoder = Decoder::default();
            let mut received = Vec::new();
            for part in sent.chunks(cut) {
                decoder.push(BytesMut::from(part));
                received.extend(decode_all(&mut decoder).into_iter().map(|frame| frame.message.unwrap().to_vec()));
            }
            prop_assert_eq!(received, payloads);
        }

        #[test]
        fn nothing_a_remote_sends_panics(parts in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..50), 0..20)) {
            let mut decoder = Decoder::default();
            for part in parts {
                decoder.push(BytesMut::from(&part[..]));
                while let Ok(Some(_)) = decoder.next() {}
            }
        }
    }
}
