#![warn(clippy::arithmetic_side_effects)]

use bytes::Bytes;

use super::{
    HEADER, NOT_AVAILABLE, NegotiationError,
    message::{self, MessageReader},
};
use crate::protocol_name::ProtocolName;

/// The side that proposes protocols, in the order of its preference, until one is accepted.
#[derive(Debug)]
pub struct Dialer {
    /// The current proposal is the last; the next one comes before it.
    proposals: Vec<ProtocolName>,
    header_seen: bool,
    reader: MessageReader,
    outgoing: Vec<u8>,
}

impl Dialer {
    /// Begins with the header and the first proposal, to be sent together: see [`take_outgoing`](Self::take_outgoing).
    pub fn new(protocols: &[ProtocolName]) -> Self {
        let proposals: Vec<_> = protocols.iter().rev().cloned().collect();
        let mut dialer =
            Self { proposals, header_seen: false, reader: MessageReader::default(), outgoing: Vec::new() };
        message::encode(HEADER, &mut dialer.outgoing);
        dialer.propose();
        dialer
    }

    /// The bytes to send now, if any.
    pub fn take_outgoing(&mut self) -> Bytes {
        std::mem::take(&mut self.outgoing).into()
    }

    /// How many bytes of the remote's can be given without any that come after the negotiation. At least one.
    pub fn wants(&self) -> usize {
        self.reader.wants()
    }

    /// Takes what belongs to the negotiation off `input`. The protocol, once the remote has accepted it; what is then left of
    /// `input` is that protocol's. An error is final.
    pub fn receive(&mut self, input: &mut Bytes) -> Result<Option<ProtocolName>, NegotiationError> {
        if self.proposals.is_empty() {
            return Err(NegotiationError::NoCommonProtocol);
        }
        while let Some(message) = self.reader.read(input)? {
            if !self.header_seen {
                if message != HEADER {
                    return Err(NegotiationError::Protocol("remote speaks another version"));
                }
                self.header_seen = true;
            } else if message == NOT_AVAILABLE {
                self.proposals.pop();
                if !self.propose() {
                    return Err(NegotiationError::NoCommonProtocol);
                }
            } else {
                let accepted = self.proposals.pop().filter(|proposal| *proposal == *message);
                return accepted.map(Some).ok_or(NegotiationError::Protocol("answer to no proposal of ours"));
            }
        }
        Ok(None)
    }

    fn propose(&mut self) -> bool {
        let Some(proposal) = self.proposals.last() else { return false };
        message::encode(proposal.as_str(), &mut self.outgoing);
        true
    }
}
