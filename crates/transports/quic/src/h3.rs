//! What WebTransport needs of HTTP/3 (RFC 9114, RFC 9204, RFC 9297): frames, settings, the headers of one CONNECT request
//! and the capsules that follow it. Bytes in, bytes and values out; no I/O.

pub(crate) mod capsule;
pub(crate) mod connect;
pub(crate) mod field_section;
pub(crate) mod frame;
mod huffman;
pub(crate) mod settings;
pub(crate) mod varint;

/// HTTP/3 error codes, RFC 9114 section 8.1, and WebTransport's.
pub(crate) mod error_code {
    use crate::streams::ErrorCodes;

    pub(crate) const NO_ERROR: u32 = 0x100;
    pub(crate) const STREAM_CREATION_ERROR: u32 = 0x103;
    pub(crate) const CLOSED_CRITICAL_STREAM: u32 = 0x104;
    pub(crate) const FRAME_UNEXPECTED: u32 = 0x105;
    pub(crate) const FRAME_ERROR: u32 = 0x106;
    pub(crate) const SETTINGS_ERROR: u32 = 0x109;
    pub(crate) const MISSING_SETTINGS: u32 = 0x10a;
    pub(crate) const REQUEST_REJECTED: u32 = 0x10b;
    pub(crate) const MESSAGE_ERROR: u32 = 0x10e;

    /// WebTransport over HTTP/3, "Resetting Data Streams": the range that carries applications' codes. Every 31st value
    /// in it is reserved for greasing.
    const FIRST: u64 = 0x52e4_a40f_a8db;
    const LAST: u64 = 0x52e5_ac98_3162;

    /// How an application's error codes go over HTTP/3.
    pub(crate) const APPLICATION: ErrorCodes =
        ErrorCodes { to_wire: from_application, from_wire: to_application };

    /// The application's error code as it goes over HTTP/3.
    fn from_application(code: u32) -> u64 {
        let code = u64::from(code);
        FIRST + code + code / 0x1e
    }

    /// The application's error code, 0 if `code` is HTTP/3's own.
    fn to_application(code: u64) -> u32 {
        if !(FIRST..=LAST).contains(&code) || (code - 0x21).is_multiple_of(0x1f) {
            return 0;
        }
        let shifted = code - FIRST;
        u32::try_from(shifted - shifted / 0x1f).unwrap_or(0)
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn application_codes_survive_and_the_others_are_none() {
            for code in [0, 1, 0x1d, 0x1e, 0x1f, 1000, u32::MAX - 1, u32::MAX] {
                assert_eq!(to_application(from_application(code)), code);
            }
            assert_eq!(from_application(0), FIRST);
            assert_eq!(from_application(u32::MAX), LAST);
            for code in [0, NO_ERROR.into(), FIRST - 1, LAST + 1, FIRST + 0x1e] {
                assert_eq!(to_application(code), 0);
            }
        }
    }
}

/// Types of unidirectional streams.
pub(crate) mod stream_type {
    pub(crate) const CONTROL: u64 = 0x00;
    pub(crate) const PUSH: u64 = 0x01;
    pub(crate) const QPACK_ENCODER: u64 = 0x02;
    pub(crate) const QPACK_DECODER: u64 = 0x03;
}
