//! The Data Channel Establishment Protocol (RFC 8832): the two messages with which a channel is opened in band.

use bytes::Bytes;

/// A DATA_CHANNEL_OPEN for a reliable, ordered channel without label and protocol: `webrtc/README.md`, "RTCDataChannel
/// label" wants the label empty.
const OPEN: [u8; 12] = [OPEN_TYPE, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// The channel for whose sake an offer has something to offer (webrtc/webrtc.md, "Connection Establishment", step 4).
const INIT_LABEL: &[u8] = b"init";

const OPEN_TYPE: u8 = 0x03;
const ACK_TYPE: u8 = 0x02;

/// The message that opens a channel.
pub(crate) fn open() -> Bytes {
    Bytes::from_static(&OPEN)
}

/// The answer to it.
pub(crate) fn ack() -> Bytes {
    Bytes::from_static(&[ACK_TYPE])
}

/// What the remote says about a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Message {
    /// It opens the channel. Label and protocol are for others ("MUST NOT require `label` to be an empty string"), but for
    /// the one label that says that the channel is no stream.
    Open { is_init: bool },
    /// It has heard that we did.
    Ack,
}

impl Message {
    /// `None` if it is neither, or if the lengths do not fit.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        match bytes {
            [ACK_TYPE, ..] => Some(Self::Ack),
            [
                OPEN_TYPE,
                _,
                _,
                _,
                _,
                _,
                _,
                _,
                label_high,
                label_low,
                protocol_high,
                protocol_low,
                rest @ ..,
            ] => {
                let label = usize::from(u16::from_be_bytes([*label_high, *label_low]));
                let protocol = usize::from(u16::from_be_bytes([*protocol_high, *protocol_low]));
                let is_init = rest.get(..label) == Some(INIT_LABEL);
                (label.checked_add(protocol)? == rest.len()).then_some(Self::Open { is_init })
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_messages_parse() {
        assert_eq!(Message::parse(&open()), Some(Message::Open { is_init: false }));
        assert_eq!(Message::parse(&ack()), Some(Message::Ack));
    }

    #[test]
    fn lengths_must_fit() {
        let mut named = OPEN.to_vec();
        named[9] = 3;
        assert_eq!(Message::parse(&named), None);
        named.extend_from_slice(b"abc");
        assert_eq!(Message::parse(&named), Some(Message::Open { is_init: false }));
        named[9] = 4;
        named.truncate(12);
        named.extend_from_slice(b"init");
        assert_eq!(Message::parse(&named), Some(Message::Open { is_init: true }));
        for length in 0..12 {
            assert_eq!(Message::parse(&OPEN[..length]), None);
        }
        assert_eq!(Message::parse(&[7]), None);
    }
}
