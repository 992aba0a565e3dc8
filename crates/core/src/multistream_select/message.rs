//! Messages: a varint length, text, and a line feed that the length includes.

#![warn(clippy::arithmetic_side_effects)]

use bytes::{Buf, Bytes};

use super::{MAX_MESSAGE_BYTES, NegotiationError};
use crate::varint::{self, VarintError};

pub(super) fn encode(text: &str, output: &mut Vec<u8>) {
    varint::encode((text.len() as u64).saturating_add(1), output);
    output.extend_from_slice(text.as_bytes());
    output.push(b'\n');
}

/// Reads messages from bytes that come in pieces of any size.
#[derive(Debug, Default)]
pub(super) struct MessageReader {
    /// What has come of the message that has not ended.
    gathered: Vec<u8>,
    /// How much of it is missing, once its length is known.
    missing: Option<usize>,
}

impl MessageReader {
    /// How many bytes can be read without going beyond the message; at least one.
    pub(super) fn wants(&self) -> usize {
        self.missing.unwrap_or(1).max(1)
    }

    /// Whether no part of a message has come that is not whole.
    pub(super) fn is_between_messages(&self) -> bool {
        self.gathered.is_empty() && self.missing.is_none()
    }

    /// Takes bytes off `input` up to the end of the next message, if that is there.
    pub(super) fn read(&mut self, input: &mut Bytes) -> Result<Option<String>, NegotiationError> {
        let missing = loop {
            if let Some(missing) = self.missing {
                break missing;
            }
            if !input.has_remaining() {
                return Ok(None);
            }
            self.gathered.push(input.get_u8());
            match varint::decode(&self.gathered) {
                Ok((0, _)) => return Err(NegotiationError::Protocol("empty message")),
                Ok((length, _)) if length <= MAX_MESSAGE_BYTES as u64 => {
                    self.gathered.clear();
                    self.missing = Some(length as usize);
                }
                Ok(_) => return Err(NegotiationError::Protocol("message is too long")),
                // A length of two bytes is as long as any that is allowed.
                Err(VarintError::Truncated) if self.gathered.len() < 2 => {}
                Err(_) => return Err(NegotiationError::Protocol("malformed message length")),
            }
        };
        let part = input.split_to(input.len().min(missing));
        self.gathered.extend_from_slice(&part);
        let missing = missing.saturating_sub(part.len());
        self.missing = (missing > 0).then_some(missing);
        if missing > 0 {
            return Ok(None);
        }
        let mut message = std::mem::take(&mut self.gathered);
        if message.pop() != Some(b'\n') {
            return Err(NegotiationError::Protocol("message does not end with a line feed"));
        }
        String::from_utf8(message).map(Some).map_err(|_| NegotiationError::Protocol("message is not text"))
    }
}
