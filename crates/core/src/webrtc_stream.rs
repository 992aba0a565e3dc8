//! The framing that gives WebRTC data channels half-close and reset (libp2p spec "WebRTC", "Multiplexing" and "Closing an
//! `RTCDataChannel`"), without I/O: the messages of one channel in and out, and what state its stream is in.
//!
//! It is here because the browser's transport and the native one share it and nothing else.

#![warn(clippy::arithmetic_side_effects)]

use bytes::{Buf, Bytes};

use crate::varint::{self, VarintError};

/// The longest message that is sent, prefix included: the spec's limit, which every browser can receive.
pub const MAX_MESSAGE_BYTES: usize = 16 * 1024;

/// The longest message that is accepted. Others send up to 256 KiB, and their own framing on top.
pub const MAX_RECEIVED_BYTES: usize = 257 * 1024;

/// The most that one message carries: [`MAX_MESSAGE_BYTES`] less the prefix (2) and the field's key (1) and length (2).
pub const MAX_PAYLOAD_BYTES: usize = MAX_MESSAGE_BYTES - 5;

/// go-libp2p reads 4 KiB of a channel message when it expects a length, and loses the rest.
const MAX_WITH_LENGTH: usize = 4096;

const FIN: u64 = 0;
const STOP_SENDING: u64 = 1;
const RESET_STREAM: u64 = 2;
const FIN_ACK: u64 = 3;

/// Protobuf: field number and wire type of `optional Flag flag = 1`, `optional bytes message = 2` and
/// `optional uint32 errorCode = 3`, which is not in the spec yet but spoken by go-libp2p and js-libp2p.
const FLAG_KEY: u8 = 0x08;
const PAYLOAD_KEY: u8 = 0x12;
const ERROR_CODE_KEY: u8 = 0x18;

/// How far one direction of a stream is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Half {
    /// Bytes may follow.
    Open,
    /// The writer has said that it is done, with FIN.
    Finished,
    /// It was abandoned: by its writer with RESET_STREAM, or by its reader with STOP_SENDING.
    Abandoned,
}

/// The remote broke the framing; the channel is of no more use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct FramingError(pub &'static str);

/// One stream on one data channel.
#[derive(Debug)]
pub struct WebRtcStream {
    /// Of a message that came in several pieces, what is there of it.
    partial: Vec<u8>,
    /// What we receive.
    read: Half,
    /// What we send.
    write: Half,
    /// What came with the remote's RESET_STREAM.
    reset_code: u32,
    fin_acked: bool,
    owes_fin_ack: bool,
}

impl Default for WebRtcStream {
    fn default() -> Self {
        Self {
            partial: Vec::new(),
            read: Half::Open,
            write: Half::Open,
            reset_code: 0,
            fin_acked: false,
            owes_fin_ack: false,
        }
    }
}

impl WebRtcStream {
    /// Takes what arrived on the channel and gives the payload that is in it, in order, to `payload`.
    ///
    /// Afterwards [`read_half`](Self::read_half) and [`write_half`](Self::write_half) may have changed, and there may be
    /// [`acknowledgement`](Self::acknowledgement) to send.
    pub fn receive(&mut self, mut data: Bytes, mut payload: impl FnMut(Bytes)) -> Result<(), FramingError> {
        // Implementations send one framed message per channel message, but the prefix makes a byte stream of them.
        if self.partial_is_length_of(&data) {
            self.partial.clear();
            return self.message(data, &mut payload);
        }
        if !self.partial.is_empty() {
            self.partial.extend_from_slice(&data);
            data = std::mem::take(&mut self.partial).into();
        }
        while !data.is_empty() {
            match varint::decode(&data) {
                Ok((length, _)) if length > MAX_RECEIVED_BYTES as u64 => {
                    return Err(FramingError("message is too long"));
                }
                Ok((length, rest)) if rest.len() as u64 >= length => {
                    data.advance(data.len().saturating_sub(rest.len()));
                    // Not longer than `data`, so it fits.
                    self.message(data.split_to(length as usize), &mut payload)?;
                }
                Ok(_) | Err(VarintError::Truncated) => {
                    self.partial = data.into();
                    return Ok(());
                }
                Err(_) => return Err(FramingError("malformed length")),
            }
        }
        Ok(())
    }

    /// Whether all that is there is the length, and `data` has what it announced: what [`channel_messages`] makes.
    fn partial_is_length_of(&self, data: &[u8]) -> bool {
        varint::decode(&self.partial)
            .is_ok_and(|(length, rest)| rest.is_empty() && length == data.len() as u64)
    }

    /// How far the remote is.
    pub fn read_half(&self) -> Half {
        self.read
    }

    /// How far we are.
    pub fn write_half(&self) -> Half {
        self.write
    }

    /// The error code with which the remote abandoned what we read; 0 if it gave none.
    pub fn reset_code(&self) -> u32 {
        self.reset_code
    }

    /// Whether everything that we wrote has arrived: the remote has acknowledged our FIN.
    pub fn is_write_acknowledged(&self) -> bool {
        self.fin_acked
    }

    /// Whether the channel may be closed without a loss to either side ("Closing an `RTCDataChannel`").
    pub fn is_done(&self) -> bool {
        let written = self.fin_acked || self.write == Half::Abandoned;
        written && self.read != Half::Open && !self.owes_fin_ack
    }

    /// Takes from the front of `data` what fits into one message, and gives that message.
    pub fn data(&self, data: &mut Bytes) -> Vec<u8> {
        let payload = data.split_to(data.len().min(MAX_PAYLOAD_BYTES));
        let length = payload.len() as u64;
        let body = varint::encoded_len(length).saturating_add(payload.len()).saturating_add(1);
        let mut message = Vec::with_capacity(body.saturating_add(3));
        varint::encode(body as u64, &mut message);
        message.push(PAYLOAD_KEY);
        varint::encode_prefixed(&payload, &mut message);
        message
    }

    /// Closes the write half. The message to send, or `None` if there is nothing to close any more.
    pub fn finish(&mut self) -> Option<Vec<u8>> {
        (self.write == Half::Open).then(|| {
            self.write = Half::Finished;
            control(FIN, 0)
        })
    }

    /// Abandons the write half, with an error code unless it is 0. The message to send, or `None` if it was at its end.
    pub fn reset(&mut self, code: u32) -> Option<Vec<u8>> {
        let had_more = self.write == Half::Open || self.write == Half::Finished && !self.fin_acked;
        self.write = Half::Abandoned;
        had_more.then(|| control(RESET_STREAM, code))
    }

    /// Abandons the read half, with an error code unless it is 0; whatever else arrives is dropped. The message to send, or `None` if it was at its end.
    pub fn stop(&mut self, code: u32) -> Option<Vec<u8>> {
        (self.read == Half::Open).then(|| {
            self.read = Half::Abandoned;
            control(STOP_SENDING, code)
        })
    }

    /// The acknowledgement that we owe the remote. It is to be sent at once, read or not: the remote may wait for it.
    pub fn acknowledgement(&mut self) -> Option<Vec<u8>> {
        std::mem::take(&mut self.owes_fin_ack).then(|| control(FIN_ACK, 0))
    }

    fn message(&mut self, mut message: Bytes, payload: &mut impl FnMut(Bytes)) -> Result<(), FramingError> {
        let mut flag = None;
        let mut data = Bytes::new();
        let mut code = 0;
        while !message.is_empty() {
            let key = take_varint(&mut message)?;
            // Protobuf: of a field that is there twice, the last one counts; unknown fields are skipped.
            match (key >> 3, key & 7) {
                (1, 0) => flag = Some(take_varint(&mut message)?),
                (2, 2) => data = take_prefixed(&mut message)?,
                // A uint32 is cut off to its low bits by protobuf's rules.
                (3, 0) => code = take_varint(&mut message)? as u32,
                (_, 0) => _ = take_varint(&mut message)?,
                (_, 1) => _ = take(&mut message, 8)?,
                (_, 2) => _ = take_prefixed(&mut message)?,
                (_, 5) => _ = take(&mut message, 4)?,
                _ => return Err(FramingError("malformed message")),
            }
        }
        if !data.is_empty() && self.read == Half::Open {
            payload(data);
        }
        match flag {
            Some(FIN) => {
                // Acknowledged even if we wanted no more of it, and each time that it is sent.
                self.owes_fin_ack = true;
                if self.read == Half::Open {
                    self.read = Half::Finished;
                }
            }
            Some(RESET_STREAM) => {
                self.read = Half::Abandoned;
                self.reset_code = code;
            }
            Some(STOP_SENDING) if self.write == Half::Open => self.write = Half::Abandoned,
            Some(FIN_ACK) if self.write == Half::Finished => self.fin_acked = true,
            // Nothing that changes anything, or a flag of the future.
            _ => {}
        }
        Ok(())
    }
}

/// A message of nothing but a flag and, unless it is 0, an error code.
fn control(flag: u64, code: u32) -> Vec<u8> {
    let mut body = vec![FLAG_KEY, flag as u8];
    if code != 0 {
        body.push(ERROR_CODE_KEY);
        varint::encode(code.into(), &mut body);
    }
    let mut message = Vec::with_capacity(body.len().saturating_add(1));
    varint::encode_prefixed(&body, &mut message);
    message
}

/// The messages of the channel that a framed message goes out in. A long one goes after its length, which is in a message of its
/// own, unless the remote is known to read both from one (`joined`): that costs a browser an eighth of its throughput or more.
pub fn channel_messages(framed: &[u8], joined: bool) -> impl Iterator<Item = &[u8]> {
    let length = match varint::decode(framed) {
        Ok((_, rest)) if framed.len() > MAX_WITH_LENGTH && !joined => framed.len().saturating_sub(rest.len()),
        _ => 0,
    };
    let (length, rest) = framed.split_at_checked(length).unwrap_or((&[], framed));
    [length, rest].into_iter().filter(|message| !message.is_empty())
}

fn take_varint(message: &mut Bytes) -> Result<u64, FramingError> {
    let (value, rest) = varint::decode(message).map_err(|_| FramingError("malformed message"))?;
    let used = message.len().saturating_sub(rest.len());
    message.advance(used);
    Ok(value)
}

fn take_prefixed(message: &mut Bytes) -> Result<Bytes, FramingError> {
    let length = take_varint(message)?;
    take(message, length)
}

fn take(message: &mut Bytes, length: u64) -> Result<Bytes, FramingError> {
    match usize::try_from(length) {
        Ok(length) if length <= message.len() => Ok(message.split_to(length)),
        _ => Err(FramingError("malformed message")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn receive(stream: &mut WebRtcStream, data: &[u8]) -> Result<Vec<u8>, FramingError> {
        let mut received = Vec::new();
        stream.receive(Bytes::copy_from_slice(data), |chunk| received.extend_from_slice(&chunk))?;
        Ok(received)
    }

    #[test]
    fn longest_message_is_as_long_as_the_spec_allows() {
        let mut data = Bytes::from(vec![7; MAX_MESSAGE_BYTES * 2]);
        let message = WebRtcStream::default().data(&mut data);
        assert_eq!(message.len(), MAX_MESSAGE_BYTES);
        assert_eq!(data.len(), MAX_MESSAGE_BYTES * 2 - MAX_PAYLOAD_BYTES);
        assert_eq!(receive(&mut WebRtcStream::default(), &message).unwrap(), vec![7; MAX_PAYLOAD_BYTES]);
    }

    #[test]
    fn length_of_a_long_message_is_a_message_of_its_own() {
        for (payload, expected) in [(4096 - 5, vec![4096]), (4096 - 4, vec![2, 4095]), (0, vec![3])] {
            let framed = WebRtcStream::default().data(&mut Bytes::from(vec![7; payload]));
            let messages: Vec<_> = channel_messages(&framed, false).collect();
            assert_eq!(messages.iter().map(|message| message.len()).collect::<Vec<_>>(), expected);
            let mut stream = WebRtcStream::default();
            let received: Vec<_> =
                messages.iter().flat_map(|message| receive(&mut stream, message).unwrap()).collect();
            assert_eq!(received, vec![7; payload]);
            assert!(stream.partial.is_empty());
            assert!(channel_messages(&framed, true).eq([framed.as_slice()]));
        }
    }

    #[test]
    fn both_sides_may_close_the_channel_only_after_both_acknowledgements() {
        let (mut a, mut b) = (WebRtcStream::default(), WebRtcStream::default());
        receive(&mut b, &a.finish().unwrap()).unwrap();
        assert_eq!(b.read_half(), Half::Finished);
        assert_eq!(a.finish(), None);
        receive(&mut a, &b.acknowledgement().unwrap()).unwrap();
        assert!(a.is_write_acknowledged() && !a.is_done() && !b.is_done());

        receive(&mut a, &b.data(&mut Bytes::from_static(b"more"))).unwrap();
        receive(&mut a, &b.finish().unwrap()).unwrap();
        assert!(!a.is_done(), "an acknowledgement is owed");
        receive(&mut b, &a.acknowledgement().unwrap()).unwrap();
        assert!(a.is_done() && b.is_done());
    }

    #[test]
    fn fin_is_acknowledged_after_we_have_stopped_reading() {
        let mut stream = WebRtcStream::default();
        assert!(stream.stop(0).is_some());
        assert!(receive(&mut stream, &stream_message(b"late", Some(FIN))).unwrap().is_empty());
        assert_eq!(stream.acknowledgement(), Some(control(FIN_ACK, 0)));
        assert_eq!(stream.acknowledgement(), None);
        assert_eq!(stream.read_half(), Half::Abandoned);
    }

    #[test]
    fn stop_sending_ends_our_half_and_not_the_remotes() {
        let mut stream = WebRtcStream::default();
        receive(&mut stream, &control(STOP_SENDING, 0)).unwrap();
        assert_eq!((stream.read_half(), stream.write_half()), (Half::Open, Half::Abandoned));
        assert_eq!((stream.finish(), stream.reset(0)), (None, None));
        assert_eq!(receive(&mut stream, &stream_message(b"x", None)).unwrap(), b"x");
    }

    #[test]
    fn reset_ends_what_we_read() {
        let mut stream = WebRtcStream::default();
        receive(&mut stream, &control(RESET_STREAM, 9)).unwrap();
        assert_eq!((stream.read_half(), stream.write_half()), (Half::Abandoned, Half::Open));
        assert_eq!(stream.reset_code(), 9);
        assert_eq!(receive(&mut stream, &stream_message(b"x", None)).unwrap(), b"");
    }

    #[test]
    fn acknowledgement_of_what_was_never_finished_means_nothing() {
        let mut stream = WebRtcStream::default();
        receive(&mut stream, &control(FIN_ACK, 0)).unwrap();
        assert!(!stream.is_write_acknowledged());
    }

    #[test]
    fn payload_that_comes_with_a_flag_is_read_before_it() {
        let mut stream = WebRtcStream::default();
        assert_eq!(receive(&mut stream, &stream_message(b"last", Some(FIN))).unwrap(), b"last");
        assert_eq!(stream.read_half(), Half::Finished);
    }

    #[test]
    fn unknown_fields_and_flags_are_skipped() {
        let mut stream = WebRtcStream::default();
        let mut body =
            vec![0x18, 5, 0x21, 1, 2, 3, 4, 5, 6, 7, 8, 0x2a, 1, 9, 0x35, 1, 2, 3, 4, FLAG_KEY, 99];
        body.extend_from_slice(&[PAYLOAD_KEY, 1, b'x']);
        let mut message = Vec::new();
        varint::encode_prefixed(&body, &mut message);
        assert_eq!(receive(&mut stream, &message).unwrap(), b"x");
        assert_eq!(stream.read_half(), Half::Open);
    }

    #[test]
    fn message_over_the_limit_is_refused_before_it_is_kept() {
        let mut stream = WebRtcStream::default();
        let mut message = Vec::new();
        varint::encode(MAX_RECEIVED_BYTES as u64 + 1, &mut message);
        assert!(receive(&mut stream, &message).is_err());
    }

    #[test]
    fn malformed_messages_are_refused() {
        for message in
            [&[1, 0x12][..], &[2, 0x12, 5], &[1, 0x13], &[2, 0x09, 1], &[3, 0x08, 0x80, 0x00], &[0x80, 0x00]]
        {
            assert!(receive(&mut WebRtcStream::default(), message).is_err(), "{message:?}");
        }
    }

    fn stream_message(payload: &[u8], flag: Option<u64>) -> Vec<u8> {
        let mut body = Vec::new();
        if let Some(flag) = flag {
            body.extend_from_slice(&[FLAG_KEY, flag as u8]);
        }
        body.push(PAYLOAD_KEY);
        varint::encode_prefixed(payload, &mut body);
        let mut message = Vec::new();
        varint::encode_prefixed(&body, &mut message);
        message
    }

    proptest! {
        #[test]
        fn bytes_survive_however_the_messages_are_cut(
            data in proptest::collection::vec(any::<u8>(), 0..100_000), cut in 1usize..20_000
        ) {
            let (mut writer, mut reader) = (WebRtcStream::default(), WebRtcStream::default());
            let mut rest = Bytes::from(data.clone());
            let mut wire = Vec::new();
            while !rest.is_empty() {
                wire.extend(writer.data(&mut rest));
            }
            wire.extend(writer.finish().unwrap());
            let mut received = Vec::new();
            for piece in wire.chunks(cut) {
                received.extend(receive(&mut reader, piece).unwrap());
            }
            prop_assert_eq!(received, data);
            prop_assert_eq!(reader.read_half(), Half::Finished);
        }

        #[test]
        fn nothing_a_stranger_sends_panics(messages in proptest::collection::vec(
            proptest::collection::vec(any::<u8>(), 0..40), 0..8)
        ) {
            let mut stream = WebRtcStream::default();
            for message in messages {
                if receive(&mut stream, &message).is_err() {
                    break;
                }
                prop_assert!(stream.partial.len() <= MAX_RECEIVED_BYTES + 10);
            }
        }
    }
}
