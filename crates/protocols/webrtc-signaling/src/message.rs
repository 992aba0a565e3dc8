//! The messages of the protocol (webrtc/webrtc.md, "Signaling Protocol").

#![warn(clippy::arithmetic_side_effects)]

use prost::Message as _;

/// The longest message, in bytes. An SDP that describes one data channel has about one kilobyte.
pub const MAX_MESSAGE_LENGTH: usize = 16 * 1024;
/// The longest candidate, in bytes of its JSON. Browsers write about 200.
pub const MAX_CANDIDATE_LENGTH: usize = 2 * 1024;

/// What one side tells the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// The SDP of an offer.
    Offer(String),
    /// The SDP of an answer.
    Answer(String),
    /// The JSON of an `RTCIceCandidateInit`.
    Candidate(String),
    /// There will be no more candidates. Never sent by us: js-libp2p does not wait for it.
    EndOfCandidates,
}

/// Why bytes are no message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MessageError {
    /// They are not the protobuf message.
    #[error("not a signaling message: {0}")]
    Protobuf(#[from] prost::DecodeError),
    /// The spec knows no such type.
    #[error("signaling message of unknown type {0}")]
    UnknownType(i32),
    /// A part that every such message has is missing.
    #[error("signaling message without {0}")]
    Missing(&'static str),
    /// A candidate of more than [`MAX_CANDIDATE_LENGTH`] bytes.
    #[error("candidate of {0} bytes")]
    CandidateTooLong(usize),
}

const SDP_OFFER: i32 = 0;
const SDP_ANSWER: i32 = 1;
const ICE_CANDIDATE: i32 = 2;

#[derive(Clone, PartialEq, prost::Message)]
struct Wire {
    #[prost(int32, optional, tag = "1")]
    kind: Option<i32>,
    #[prost(string, optional, tag = "2")]
    data: Option<String>,
}

impl Message {
    /// The protobuf, without a length before it.
    pub fn encode(self) -> Vec<u8> {
        let (kind, data) = match self {
            Self::Offer(sdp) => (SDP_OFFER, sdp),
            Self::Answer(sdp) => (SDP_ANSWER, sdp),
            Self::Candidate(json) => (ICE_CANDIDATE, json),
            Self::EndOfCandidates => (ICE_CANDIDATE, "null".to_owned()),
        };
        Wire { kind: Some(kind), data: Some(data) }.encode_to_vec()
    }

    /// Reads the protobuf.
    pub fn decode(bytes: &[u8]) -> Result<Self, MessageError> {
        let Wire { kind, data } = Wire::decode(bytes)?;
        let kind = kind.ok_or(MessageError::Missing("type"))?;
        if kind == ICE_CANDIDATE {
            return match data.unwrap_or_default() {
                json if json.len() > MAX_CANDIDATE_LENGTH => Err(MessageError::CandidateTooLong(json.len())),
                // What is left of the end-of-candidates event when it is written as JSON, by whom.
                json if matches!(json.as_str(), "" | "null" | "\"\"") => Ok(Self::EndOfCandidates),
                json => Ok(Self::Candidate(json)),
            };
        }
        let sdp = data.ok_or(MessageError::Missing("data"))?;
        match kind {
            SDP_OFFER => Ok(Self::Offer(sdp)),
            SDP_ANSWER => Ok(Self::Answer(sdp)),
            unknown => Err(MessageError::UnknownType(unknown)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_bytes_are_those_of_the_spec() {
        // Field 1 (varint) and field 2 (length-delimited); an offer's type, 0, is written too, as js-libp2p expects.
        let cases = [
            (Message::Offer("o".into()), *b"\x08\x00\x12\x01o"),
            (Message::Answer("a".into()), *b"\x08\x01\x12\x01a"),
            (Message::Candidate("c".into()), *b"\x08\x02\x12\x01c"),
        ];
        for (message, bytes) in cases {
            assert_eq!(message.clone().encode(), bytes);
            assert_eq!(Message::decode(&bytes), Ok(message));
        }
    }

    #[test]
    fn every_way_to_write_the_end_of_candidates_is_understood() {
        for bytes in [&b"\x08\x02"[..], b"\x08\x02\x12\x00", b"\x08\x02\x12\x04null", b"\x08\x02\x12\x02\"\""]
        {
            assert_eq!(Message::decode(bytes), Ok(Message::EndOfCandidates));
        }
        assert_eq!(Message::decode(&Message::EndOfCandidates.encode()), Ok(Message::EndOfCandidates));
    }

    #[test]
    fn messages_without_type_or_description_are_refused() {
        assert_eq!(Message::decode(b""), Err(MessageError::Missing("type")));
        assert_eq!(Message::decode(b"\x12\x01o"), Err(MessageError::Missing("type")));
        assert_eq!(Message::decode(b"\x08\x00"), Err(MessageError::Missing("data")));
    }

    #[test]
    fn unknown_types_are_refused() {
        assert_eq!(Message::decode(b"\x08\x03\x12\x01x"), Err(MessageError::UnknownType(3)));
    }

    #[test]
    fn oversized_candidates_are_refused() {
        let candidate = |length| Message::Candidate("c".repeat(length)).encode();
        assert!(Message::decode(&candidate(MAX_CANDIDATE_LENGTH)).is_ok());
        let refused = Message::decode(&candidate(MAX_CANDIDATE_LENGTH + 1));
        assert_eq!(refused, Err(MessageError::CandidateTooLong(MAX_CANDIDATE_LENGTH + 1)));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes: Vec<u8>) {
            let _ = Message::decode(&bytes);
        }

        #[test]
        fn what_is_written_is_read(sdp: String) {
            for message in [Message::Offer(sdp.clone()), Message::Answer(sdp)] {
                prop_assert_eq!(Message::decode(&message.clone().encode()), Ok(message));
            }
        }
    }
}
