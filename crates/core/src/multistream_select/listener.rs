#![warn(clippy::arithmetic_side_effects)]

use bytes::Bytes;

use super::{
    HEADER, MAX_PROPOSALS, NOT_AVAILABLE, NegotiationError,
    message::{self, MessageReader},
};
use crate::protocol_name::ProtocolName;

/// The side that accepts the first proposal that it supports.
#[derive(Debug, Default)]
pub struct Listener {
    header_seen: bool,
    proposals: usize,
    reader: MessageReader,
    outgoing: Vec<u8>,
}

impl Listener {
    /// Waits for the remote's header.
    pub fn new() -> Self {
        Self::default()
    }

    /// The bytes to send now, if any.
    pub fn take_outgoing(&mut self) -> Bytes {
        std::mem::take(&mut self.outgoing).into()
    }

    /// How many bytes of the remote's can be given without any that come after the negotiation. At least one.
    pub fn wants(&self) -> usize {
        self.reader.wants()
    }

    /// Takes what belongs to the negotiation off `input`. The protocol, once the remote has proposed one for which `supports`
    /// gives a name; what is then left of `input` is that protocol's, and the last of
    /// [`take_outgoing`](Self::take_outgoing) must be sent before anything of it. An error is final.
    pub fn receive(
        &mut self,
        input: &mut Bytes,
        supports: impl Fn(&str) -> Option<ProtocolName>,
    ) -> Result<Option<ProtocolName>, NegotiationError> {
        while let Some(message) = self.reader.read(input)? {
            if !self.header_seen {
                if message != HEADER {
                    return Err(NegotiationError::Protocol("remote speaks another version"));
                }
                self.header_seen = true;
                message::encode(HEADER, &mut self.outgoing);
                continue;
            }
            if self.proposals >= MAX_PROPOSALS {
                return Err(NegotiationError::Protocol("too many proposals"));
            }
            self.proposals = self.proposals.saturating_add(1);
            // `ls`, which asks for a list of all protocols, is answered like any proposal that is not supported: nobody
            // needs it, and identify tells the same.
            if let Some(protocol) = supports(&message) {
                message::encode(&message, &mut self.outgoing);
                return Ok(Some(protocol));
            }
            message::encode(NOT_AVAILABLE, &mut self.outgoing);
        }
        Ok(None)
    }

    /// What it means that the remote has closed the stream: having been told of each of its proposals that it is not
    /// supported, it may do so.
    pub fn ended(&self) -> NegotiationError {
        if self.proposals > 0 && self.reader.is_between_messages() {
            NegotiationError::NoCommonProtocol
        } else {
            NegotiationError::UnexpectedEnd
        }
    }
}
