//! The SETTINGS frame (RFC 9114, section 7.2.4): how both sides say that they speak WebTransport, and which draft of it.

#![warn(clippy::arithmetic_side_effects)]

use super::{field_section, frame, stream_type, varint};

const MAX_FIELD_SECTION_SIZE: u64 = 0x06;
const ENABLE_CONNECT_PROTOCOL: u64 = 0x08;
const H3_DATAGRAM: u64 = 0x33;
const H3_DATAGRAM_DRAFT04: u64 = 0xffd277;
/// Of draft 02; what Chromium and Firefox look for.
const ENABLE_WEBTRANSPORT: u64 = 0x2b60_3742;
const WEBTRANSPORT_MAX_SESSIONS_DRAFT02: u64 = 0x2b60_3743;
/// Of drafts 07 to 12.
const WEBTRANSPORT_MAX_SESSIONS_DRAFT07: u64 = 0xc671_706a;
/// Of drafts 13 and 14; what Safari looks for.
const WT_MAX_SESSIONS: u64 = 0x14e9_cd29;
/// Of draft 15 on.
const WT_ENABLED: u64 = 0x2c7c_f000;
const WT_INITIAL_MAX_DATA: u64 = 0x2b61;
const WT_INITIAL_MAX_STREAMS_UNI: u64 = 0x2b64;
const WT_INITIAL_MAX_STREAMS_BIDI: u64 = 0x2b65;

/// A session's own flow control, on top of QUIC's, adds nothing where a connection carries one session. So it is
/// switched off by limits that cannot be reached. Safari refuses a server that omits them.
const NO_LIMIT: u64 = 1 << 60;

/// More than one, so that Safari reads the limits above; a second session on a connection is refused all the same.
const SESSIONS: u64 = 16;

/// The longest SETTINGS frame that we accept, in bytes.
pub(crate) const MAX_BYTES: usize = 4096;

/// The start of a control stream: its type and the SETTINGS frame. Client and server say the same, for those settings
/// that are a server's only are ignored from a client.
pub(crate) fn encode_control_stream() -> Vec<u8> {
    let settings = [
        (MAX_FIELD_SECTION_SIZE, field_section::MAX_BYTES as u64),
        (ENABLE_CONNECT_PROTOCOL, 1),
        (H3_DATAGRAM, 1),
        (H3_DATAGRAM_DRAFT04, 1),
        (ENABLE_WEBTRANSPORT, 1),
        (WEBTRANSPORT_MAX_SESSIONS_DRAFT02, 1),
        (WEBTRANSPORT_MAX_SESSIONS_DRAFT07, 1),
        (WT_MAX_SESSIONS, SESSIONS),
        (WT_ENABLED, 1),
        (WT_INITIAL_MAX_DATA, NO_LIMIT),
        (WT_INITIAL_MAX_STREAMS_UNI, NO_LIMIT),
        (WT_INITIAL_MAX_STREAMS_BIDI, NO_LIMIT),
    ];
    let mut content = Vec::new();
    for (identifier, value) in settings {
        varint::encode(identifier, &mut content);
        varint::encode(value, &mut content);
    }
    let mut out = Vec::new();
    varint::encode(stream_type::CONTROL, &mut out);
    frame::encode(frame::SETTINGS, &content, &mut out);
    out
}

/// The content of a SETTINGS frame breaks RFC 9114.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed SETTINGS")]
pub(crate) struct MalformedSettings;

/// What the remote's settings mean to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Settings {
    /// It takes WebTransport sessions, by one draft or another.
    pub(crate) webtransport: bool,
}

impl Settings {
    pub(crate) fn decode(mut content: &[u8]) -> Result<Self, MalformedSettings> {
        let mut settings = Self::default();
        while !content.is_empty() {
            let identifier = varint::decode(&mut content).ok_or(MalformedSettings)?;
            let value = varint::decode(&mut content).ok_or(MalformedSettings)?;
            match identifier {
                // HTTP/2's, which MUST NOT be sent: RFC 9114, section 7.2.4.1.
                0x02..=0x05 => return Err(MalformedSettings),
                ENABLE_WEBTRANSPORT | WEBTRANSPORT_MAX_SESSIONS_DRAFT07 | WT_MAX_SESSIONS | WT_ENABLED => {
                    settings.webtransport |= value > 0;
                }
                _ => {}
            }
        }
        Ok(settings)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_settings_offer_webtransport() {
        let encoded = encode_control_stream();
        // Type of the stream, type of the frame, two bytes of length.
        assert_eq!(encoded[..2], [0, 4]);
        assert_eq!(Settings::decode(&encoded[4..]), Ok(Settings { webtransport: true }));
        assert!(encoded.len() < MAX_BYTES);
    }

    #[test]
    fn any_draft_will_do_and_none_will_not() {
        for (identifier, value, webtransport) in [
            (ENABLE_WEBTRANSPORT, 1, true),
            (WEBTRANSPORT_MAX_SESSIONS_DRAFT07, 4, true),
            (WT_MAX_SESSIONS, 1, true),
            (WT_ENABLED, 1, true),
            (WT_ENABLED, 0, false),
            (H3_DATAGRAM, 1, false),
        ] {
            let mut content = Vec::new();
            varint::encode(identifier, &mut content);
            varint::encode(value, &mut content);
            assert_eq!(Settings::decode(&content), Ok(Settings { webtransport }));
        }
        assert_eq!(Settings::decode(&[]), Ok(Settings::default()));
    }

    #[test]
    fn truncated_and_forbidden_settings_are_refused() {
        for content in [&[6][..], &[6, 0x40], &[0x80], &[2, 0], &[5, 1]] {
            assert_eq!(Settings::decode(content), Err(MalformedSettings));
        }
    }
}
