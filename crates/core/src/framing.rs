//! Messages on a stream, each with its length before it as an unsigned varint.

#![warn(clippy::arithmetic_side_effects)]

use std::mem;

use bytes::{Buf, Bytes, BytesMut};

use crate::{
    stream::{Stream, StreamError, StreamExt},
    varint::{self, VarintError},
};

/// Why no message can be read or written.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum FramingError {
    /// The message is longer than agreed. When reading, nothing of it was buffered.
    #[error("message of {length} bytes, more than the {max} that are allowed")]
    TooLong {
        /// How long it is, in bytes.
        length: u64,
        /// How long it may be, in bytes.
        max: usize,
    },
    /// The length is not a varint.
    #[error("message length: {0}")]
    Length(#[from] VarintError),
    /// The stream ended within a message.
    #[error("stream ended within a message")]
    UnexpectedEnd,
    /// The stream failed.
    #[error(transparent)]
    Stream(#[from] StreamError),
}

/// A [`Stream`] as a sequence of messages, each of at most `max` bytes.
#[derive(Debug)]
pub struct MessageStream<S> {
    stream: S,
    decoder: MessageDecoder,
    unread: Bytes,
    max: usize,
}

impl<S: Stream> MessageStream<S> {
    /// Messages in both directions have at most `max` bytes.
    pub fn new(stream: S, max: usize) -> Self {
        Self { stream, decoder: MessageDecoder::new(max), unread: Bytes::new(), max }
    }

    /// The next message; `None` if the remote has closed its half after the last one. Cancel-safe. An error is final.
    pub async fn read(&mut self) -> Result<Option<Bytes>, FramingError> {
        loop {
            if let Some(message) = self.decoder.decode(&mut self.unread)? {
                return Ok(Some(message));
            }
            match self.stream.read_chunk().await? {
                Some(chunk) => self.unread = chunk,
                None if self.decoder.is_between_messages() => return Ok(None),
                None => return Err(FramingError::UnexpectedEnd),
            }
        }
    }

    /// Hands a message to the stream, waiting for flow control. Not cancel-safe.
    pub async fn write(&mut self, message: &[u8]) -> Result<(), FramingError> {
        let framed = encode(message, self.max)?;
        Ok(self.stream.write_all(framed).await?)
    }

    /// Waits until every message written has been handed to the layer below.
    pub async fn flush(&mut self) -> Result<(), FramingError> {
        Ok(self.stream.flush().await?)
    }

    /// Closes the write half: the remote reads the end after the last message.
    pub async fn close_write(&mut self) -> Result<(), FramingError> {
        Ok(self.stream.close_write().await?)
    }

    /// Abandons the stream.
    pub fn reset(&mut self, code: u32) {
        self.stream.reset(code);
    }

    /// The stream, and the bytes that came after the last message read. Part of a message, if the read of one was cancelled,
    /// is lost.
    pub fn into_parts(self) -> (S, Bytes) {
        (self.stream, self.unread)
    }
}

/// A message with its length before it, in one piece.
pub fn encode(message: &[u8], max: usize) -> Result<Bytes, FramingError> {
    let length = message.len() as u64;
    if message.len() > max {
        return Err(FramingError::TooLong { length, max });
    }
    let mut framed = Vec::with_capacity(message.len().saturating_add(varint::encoded_len(length)));
    varint::encode_prefixed(message, &mut framed);
    Ok(framed.into())
}

/// Cuts messages out of chunks of bytes. A message that lies in one chunk is a slice of it; else it is gathered.
#[derive(Debug)]
pub struct MessageDecoder {
    max: usize,
    state: State,
}

#[derive(Debug)]
enum State {
    /// The bytes of a length that has not ended.
    Length(Vec<u8>),
    /// What has come of a message, and how much is missing.
    Body { gathered: BytesMut, missing: usize },
}

impl MessageDecoder {
    /// Messages have at most `max` bytes.
    pub fn new(max: usize) -> Self {
        Self { max, state: State::Length(Vec::new()) }
    }

    /// Takes bytes off the front of `input` up to the end of the next message; `None` if there is none yet, and then
    /// `input` is used up. After an error the decoder is of no more use.
    pub fn decode(&mut self, input: &mut Bytes) -> Result<Option<Bytes>, FramingError> {
        loop {
            match &mut self.state {
                State::Length(prefix) => {
                    let Some(length) = decode_length(prefix, input)? else { return Ok(None) };
                    let max = self.max;
                    let missing = usize::try_from(length).ok().filter(|length| *length <= max);
                    let missing = missing.ok_or(FramingError::TooLong { length, max })?;
                    if missing <= input.len() {
                        prefix.clear();
                        return Ok(Some(input.split_to(missing)));
                    }
                    self.state = State::Body { gathered: BytesMut::new(), missing };
                }
                State::Body { gathered, missing } => {
                    let part = input.split_to(input.len().min(*missing));
                    *missing = missing.saturating_sub(part.len());
                    // Grows with what has come, not with what was announced.
                    gathered.extend_from_slice(&part);
                    if *missing > 0 {
                        return Ok(None);
                    }
                    let message = mem::take(gathered).freeze();
                    self.state = State::Length(Vec::new());
                    return Ok(Some(message));
                }
            }
        }
    }

    /// Whether the last byte taken was the last of a message.
    pub fn is_between_messages(&self) -> bool {
        matches!(&self.state, State::Length(prefix) if prefix.is_empty())
    }
}

/// Takes a length off `input`; `prefix` keeps the bytes of one that has not ended.
fn decode_length(prefix: &mut Vec<u8>, input: &mut Bytes) -> Result<Option<u64>, VarintError> {
    if prefix.is_empty() {
        match varint::decode(input) {
            Ok((length, rest)) => {
                input.advance(input.len().saturating_sub(rest.len()));
                return Ok(Some(length));
            }
            Err(VarintError::Truncated) => {}
            Err(error) => return Err(error),
        }
    }
    while input.has_remaining() {
        prefix.push(input.get_u8());
        match varint::decode(prefix) {
            Ok((length, _)) => return Ok(Some(length)),
            Err(VarintError::Truncated) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::memory_stream::MemoryStream;

    fn decode_all(chunks: &[&[u8]], max: usize) -> Result<(Vec<Bytes>, bool), FramingError> {
        let mut decoder = MessageDecoder::new(max);
        let mut messages = Vec::new();
        for chunk in chunks {
            let mut chunk = Bytes::copy_from_slice(chunk);
            while let Some(message) = decoder.decode(&mut chunk)? {
                messages.push(message);
            }
        }
        Ok((messages, decoder.is_between_messages()))
    }

    #[tokio::test]
    async fn messages_arrive_one_by_one_and_then_the_end() {
        let (ours, theirs) = MemoryStream::pair(8);
        let (mut ours, mut theirs) = (MessageStream::new(ours, 100), MessageStream::new(theirs, 100));
        let send = async {
            for message in ["", "a", "a message that is longer than the window"] {
                ours.write(message.as_bytes()).await.unwrap();
            }
            ours.close_write().await.unwrap();
        };
        let receive = async {
            let mut received = Vec::new();
            while let Some(message) = theirs.read().await.unwrap() {
                received.push(message);
            }
            received
        };
        let ((), received) = tokio::join!(send, receive);
        assert_eq!(received, ["", "a", "a message that is longer than the window"]);
    }

    #[tokio::test]
    async fn stream_that_ends_within_a_message_is_an_error() {
        for part in [&[0x80][..], &[3], &[3, 1, 2]] {
            let (mut ours, theirs) = MemoryStream::pair(100);
            ours.write_all(Bytes::copy_from_slice(part)).await.unwrap();
            ours.close_write().await.unwrap();
            let result = MessageStream::new(theirs, 100).read().await;
            assert!(matches!(result, Err(FramingError::UnexpectedEnd)), "{part:?}: {result:?}");
        }
    }

    #[tokio::test]
    async fn message_over_its_limit_is_refused_on_both_sides() {
        let (ours, theirs) = MemoryStream::pair(100);
        let (mut ours, mut theirs) = (MessageStream::new(ours, 5), MessageStream::new(theirs, 4));
        let refused = ours.write(b"123456").await;
        assert!(matches!(refused, Err(FramingError::TooLong { length: 6, max: 5 })), "{refused:?}");
        ours.write(b"12345").await.unwrap();
        let refused = theirs.read().await;
        assert!(matches!(refused, Err(FramingError::TooLong { length: 5, max: 4 })), "{refused:?}");
    }

    #[tokio::test]
    async fn bytes_after_a_message_are_given_back() {
        let (mut ours, theirs) = MemoryStream::pair(100);
        ours.write_all(Bytes::from_static(b"\x02hiraw bytes")).await.unwrap();
        let mut theirs = MessageStream::new(theirs, 4);
        assert_eq!(theirs.read().await.unwrap().unwrap(), "hi");
        assert_eq!(theirs.into_parts().1, "raw bytes");
    }

    #[test]
    fn announced_length_takes_no_memory() {
        let max = usize::MAX / 2;
        let mut decoder = MessageDecoder::new(max);
        let mut announced = Vec::new();
        varint::encode(1 << 60, &mut announced);
        announced.push(1);
        assert!(decoder.decode(&mut announced.into()).unwrap().is_none());
        let State::Body { gathered, .. } = &decoder.state else { panic!("within a message") };
        assert!(gathered.capacity() < 1024);
    }

    #[test]
    fn lengths_that_are_no_varints_are_refused() {
        for bad in [&[0x80, 0x00][..], &[0xff; 10]] {
            assert!(matches!(decode_all(&[bad], 1000), Err(FramingError::Length(_))), "{bad:?}");
        }
    }

    #[test]
    fn message_within_one_chunk_is_not_copied() {
        let mut chunk = Bytes::from_static(b"\x03abc");
        let whole = chunk.clone();
        let message = MessageDecoder::new(3).decode(&mut chunk).unwrap().unwrap();
        assert_eq!(message.as_ptr(), whole[1..].as_ptr());
    }

    proptest! {
        #[test]
        fn messages_survive_however_the_bytes_are_cut(
            messages in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..6),
            cut in 1usize..400,
        ) {
            let framed: Vec<u8> = messages.iter().flat_map(|message| encode(message, 300).unwrap()).collect();
            let chunks: Vec<&[u8]> = framed.chunks(cut).collect();
            let (decoded, between) = decode_all(&chunks, 300).unwrap();
            prop_assert_eq!(decoded, messages);
            prop_assert!(between);
        }

        #[test]
        fn nothing_that_a_remote_sends_panics(bytes: Vec<u8>, cut in 1usize..50) {
            let chunks: Vec<&[u8]> = bytes.chunks(cut).collect();
            if let Ok((messages, _)) = decode_all(&chunks, 64) {
                prop_assert!(messages.iter().all(|message| message.len() <= 64));
            }
        }
    }
}
