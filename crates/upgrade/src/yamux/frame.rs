//! The header that starts every frame: yamux spec, "Framing".

#![warn(clippy::arithmetic_side_effects)]

use super::stream::StreamId;

/// Length of a frame's header in bytes.
pub const HEADER_LENGTH: usize = 12;

const VERSION: u8 = 0;
const DATA: u8 = 0;
const WINDOW_UPDATE: u8 = 1;
const PING: u8 = 2;
const GO_AWAY: u8 = 3;

const SYN: u16 = 1;
const ACK: u16 = 2;
const FIN: u16 = 4;
const RST: u16 = 8;

/// What a frame is, by its header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Header {
    /// `length` bytes of a stream follow.
    Data {
        /// The stream.
        id: StreamId,
        /// What else the frame says about the stream.
        flags: Flags,
        /// Bytes that follow the header.
        length: u32,
    },
    /// More bytes of a stream may be sent. With [`Flags::reset`], `delta` is the error code instead.
    WindowUpdate {
        /// The stream.
        id: StreamId,
        /// What else the frame says about the stream.
        flags: Flags,
        /// By how much the window grows, in bytes.
        delta: u32,
    },
    /// A question that is to be answered with the same value.
    Ping(u32),
    /// The answer to a ping.
    Pong(u32),
    /// The session ends.
    GoAway(GoAwayCode),
}

/// The flags of frames that belong to a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Flags {
    /// SYN: the stream begins.
    pub open: bool,
    /// ACK: the stream is accepted.
    pub acknowledge: bool,
    /// FIN: the sender will send no more data.
    pub finish: bool,
    /// RST: the stream is abandoned.
    pub reset: bool,
}

/// Why a session ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GoAwayCode {
    /// In an orderly way.
    Normal,
    /// Because of a violation of the protocol.
    ProtocolError,
    /// Because of a failure of the sender's own.
    InternalError,
    /// With a code that the spec does not name.
    Other(u32),
}

/// The bytes are no header of Yamux version 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// The version is not 0.
    #[error("unknown yamux version {0}")]
    Version(u8),
    /// The type is not one of the spec's four.
    #[error("unknown yamux frame type {0}")]
    Type(u8),
    /// Flags without a meaning for the frame's type. They might change what the frame means, so it cannot be used.
    #[error("invalid yamux flags {0:#06x}")]
    Flags(u16),
    /// A frame of a stream names stream 0, which is the session itself.
    #[error("yamux frame of a stream without a stream id")]
    NoStream,
}

impl Header {
    /// Reads a header.
    pub fn decode(bytes: &[u8; HEADER_LENGTH]) -> Result<Self, FrameError> {
        let [version, kind, flags_high, flags_low, id0, id1, id2, id3, length0, length1, length2, length3] =
            *bytes;
        let flags = u16::from_be_bytes([flags_high, flags_low]);
        let id = u32::from_be_bytes([id0, id1, id2, id3]);
        let length = u32::from_be_bytes([length0, length1, length2, length3]);
        if version != VERSION {
            return Err(FrameError::Version(version));
        }
        match kind {
            DATA => Ok(Self::Data { id: stream(id)?, flags: Flags::decode(flags)?, length }),
            WINDOW_UPDATE => {
                Ok(Self::WindowUpdate { id: stream(id)?, flags: Flags::decode(flags)?, delta: length })
            }
            // The stream id of session frames "should" be 0; nothing depends on it.
            PING if flags == SYN => Ok(Self::Ping(length)),
            PING if flags == ACK => Ok(Self::Pong(length)),
            PING => Err(FrameError::Flags(flags)),
            GO_AWAY => Ok(Self::GoAway(GoAwayCode::decode(length))),
            _ => Err(FrameError::Type(kind)),
        }
    }

    /// The header's bytes.
    pub fn encode(&self) -> [u8; HEADER_LENGTH] {
        let (kind, flags, id, length) = match *self {
            Self::Data { id, flags, length } => (DATA, flags.encode(), id.get(), length),
            Self::WindowUpdate { id, flags, delta } => (WINDOW_UPDATE, flags.encode(), id.get(), delta),
            Self::Ping(value) => (PING, SYN, 0, value),
            Self::Pong(value) => (PING, ACK, 0, value),
            Self::GoAway(code) => (GO_AWAY, 0, 0, code.encode()),
        };
        let [flags_high, flags_low] = flags.to_be_bytes();
        let [id0, id1, id2, id3] = id.to_be_bytes();
        let [length0, length1, length2, length3] = length.to_be_bytes();
        [VERSION, kind, flags_high, flags_low, id0, id1, id2, id3, length0, length1, length2, length3]
    }
}

fn stream(id: u32) -> Result<StreamId, FrameError> {
    StreamId::new(id).ok_or(FrameError::NoStream)
}

impl Flags {
    fn decode(bits: u16) -> Result<Self, FrameError> {
        if bits & !(SYN | ACK | FIN | RST) != 0 {
            return Err(FrameError::Flags(bits));
        }
        Ok(Self {
            open: bits & SYN != 0,
            acknowledge: bits & ACK != 0,
            finish: bits & FIN != 0,
            reset: bits & RST != 0,
        })
    }

    fn encode(self) -> u16 {
        let bit = |set: bool, bit: u16| if set { bit } else { 0 };
        bit(self.open, SYN) | bit(self.acknowledge, ACK) | bit(self.finish, FIN) | bit(self.reset, RST)
    }
}

impl GoAwayCode {
    fn decode(code: u32) -> Self {
        match code {
            0 => Self::Normal,
            1 => Self::ProtocolError,
            2 => Self::InternalError,
            other => Self::Other(other),
        }
    }

    fn encode(self) -> u32 {
        match self {
            Self::Normal => 0,
            Self::ProtocolError => 1,
            Self::InternalError => 2,
            Self::Other(code) => code,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn header_that_decodes_encodes_to_the_same_meaning(bytes: [u8; HEADER_LENGTH]) {
            if let Ok(header) = Header::decode(&bytes) {
                prop_assert_eq!(Header::decode(&header.encode()), Ok(header));
            }
        }

        #[test]
        fn likely_header_that_decodes_encodes_to_the_same_meaning(
            kind in 0u8..4, flags in 0u8..16, id in 0u32..4, length: u32,
        ) {
            let mut bytes = [0, kind, 0, flags, 0, 0, 0, 0, 0, 0, 0, 0];
            bytes[4..8].copy_from_slice(&id.to_be_bytes());
            bytes[8..].copy_from_slice(&length.to_be_bytes());
            if let Ok(header) = Header::decode(&bytes) {
                prop_assert_eq!(Header::decode(&header.encode()), Ok(header));
            }
        }
    }

    #[test]
    fn header_is_laid_out_as_the_spec_says() {
        let flags = Flags { open: true, finish: true, ..Flags::default() };
        let header = Header::Data { id: StreamId::new(0x0102_0304).unwrap(), flags, length: 0x0506_0708 };
        assert_eq!(header.encode(), [0, 0, 0, 5, 1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(Header::GoAway(GoAwayCode::ProtocolError).encode(), [0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        assert_eq!(Header::Pong(9).encode(), [0, 2, 0, 2, 0, 0, 0, 0, 0, 0, 0, 9]);
    }

    #[test]
    fn header_of_another_protocol_is_refused() {
        let refused = |bytes| Header::decode(&bytes).unwrap_err();
        assert_eq!(refused([1, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0]), FrameError::Version(1));
        assert_eq!(refused([0, 4, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0]), FrameError::Type(4));
        assert_eq!(refused([0, 0, 0, 16, 0, 0, 0, 1, 0, 0, 0, 0]), FrameError::Flags(16));
        assert_eq!(refused([0, 2, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0]), FrameError::Flags(3));
        assert_eq!(refused([0, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]), FrameError::NoStream);
    }
}
