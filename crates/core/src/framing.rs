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
                    if !input.has_remaining() {
                        return Ok(None);
                    }
                    prefix.push(input.get_u8());
                    let length = match varint::decode(prefix) {
                        Ok((length, _)) => length,
                        Err(VarintError::Truncated) if prefix.len() < varint::MAX_BYTES => continue,
                        Err(error) => return Err(error.into()),
                    };
                    let max = self.max;
                    let missing = usize::try_from(length).ok().filter(|length| *length <= max);
                    let missing = missing.ok_or(FramingError::TooLong { length, max })?;
                    if missing <= input.len() {
                        self.state = State::Length(Vec::new());
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
