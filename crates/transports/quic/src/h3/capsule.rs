//! What travels on the CONNECT stream once the session is open: capsules (RFC 9297) in DATA frames. The one that matters
//! closes the session.

#![warn(clippy::arithmetic_side_effects)]

use bytes::{Buf, BufMut, Bytes};

use super::frame::{self, Splitter};

const CLOSE_WEBTRANSPORT_SESSION: u64 = 0x2843;

/// WebTransport over HTTP/3, "Session Termination": the reason MUST NOT be longer than 1024 bytes; a code precedes it.
const MAX_CLOSE: u64 = 4 + 1024;

/// The frame that closes a session, with the application's code. We give no reason in words.
pub(crate) fn encode_close(code: u32) -> Vec<u8> {
    let mut capsule = Vec::new();
    frame::encode(CLOSE_WEBTRANSPORT_SESSION, &code.to_be_bytes(), &mut capsule);
    let mut out = Vec::new();
    frame::encode(frame::DATA, &capsule, &mut out);
    out
}

/// The remote has closed the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SessionClosed {
    /// The application's code; 0 = none.
    pub(crate) code: u32,
}

/// A CLOSE_WEBTRANSPORT_SESSION capsule is too short or too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed CLOSE_WEBTRANSPORT_SESSION capsule")]
pub(crate) struct MalformedCapsule;

/// Reads capsules and keeps nothing of them but a close's code, so that no length that a remote states costs memory
/// (CVE-2026-57497 was such a case elsewhere).
#[derive(Debug)]
pub(crate) struct CapsuleReader {
    frames: Splitter,
    capsules: Splitter,
    code: Vec<u8>,
}

impl CapsuleReader {
    /// Continues where the HEADERS frame of the request or response was read by `frames`.
    pub(crate) fn new(frames: Splitter) -> Self {
        Self { frames, capsules: Splitter::default(), code: Vec::new() }
    }

    /// Takes the next bytes of the stream.
    pub(crate) fn read(&mut self, mut input: Bytes) -> Result<Option<SessionClosed>, MalformedCapsule> {
        while let Some(mut piece) = self.frames.next(&mut input) {
            if piece.kind != frame::DATA {
                continue;
            }
            while let Some(capsule) = self.capsules.next(&mut piece.bytes) {
                if capsule.kind != CLOSE_WEBTRANSPORT_SESSION {
                    continue;
                }
                if capsule.to_come.saturating_add(capsule.bytes.len() as u64) > MAX_CLOSE {
                    return Err(MalformedCapsule);
                }
                let wanted = 4usize.saturating_sub(self.code.len());
                self.code.put(capsule.bytes.take(wanted));
                if capsule.to_come == 0 {
                    let code = self.code.as_slice().try_get_u32().map_err(|_| MalformedCapsule)?;
                    return Ok(Some(SessionClosed { code }));
                }
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(wire: &[u8], cut: usize) -> Result<Option<SessionClosed>, MalformedCapsule> {
        let mut reader = CapsuleReader::new(Splitter::default());
        for chunk in wire.chunks(cut) {
            if let Some(closed) = reader.read(Bytes::copy_from_slice(chunk))? {
                return Ok(Some(closed));
            }
        }
        Ok(None)
    }

    fn data(capsules: &[(u64, &[u8])]) -> Vec<u8> {
        let mut inner = Vec::new();
        for (kind, value) in capsules {
            frame::encode(*kind, value, &mut inner);
        }
        let mut out = Vec::new();
        frame::encode(frame::DATA, &inner, &mut out);
        out
    }

    #[test]
    fn a_close_is_found_however_it_is_cut_and_whatever_precedes_it() {
        let mut wire = Vec::new();
        frame::encode(0x21, &[9; 100], &mut wire);
        wire.extend(data(&[(0x17, &[]), (0x78ae, &[1, 2, 3])]));
        frame::encode(frame::DATA, &[], &mut wire);
        wire.extend(data(&[(CLOSE_WEBTRANSPORT_SESSION, b"\0\0\x01\xa4because")]));
        for cut in 1..wire.len() {
            assert_eq!(read(&wire, cut), Ok(Some(SessionClosed { code: 420 })));
        }
        assert_eq!(read(&encode_close(7), 3), Ok(Some(SessionClosed { code: 7 })));
        // A capsule may span frames.
        let close = data(&[(CLOSE_WEBTRANSPORT_SESSION, &[0, 0, 0, 1])]).split_off(2);
        let mut wire = Vec::new();
        for byte in close {
            frame::encode(frame::DATA, &[byte], &mut wire);
        }
        assert_eq!(read(&wire, 100), Ok(Some(SessionClosed { code: 1 })));
    }

    #[test]
    fn closes_that_are_too_short_or_too_long_are_refused() {
        assert_eq!(read(&data(&[(CLOSE_WEBTRANSPORT_SESSION, &[0, 0, 1])]), 9), Err(MalformedCapsule));
        let long = vec![0; 4 + 1025];
        assert_eq!(read(&data(&[(CLOSE_WEBTRANSPORT_SESSION, &long)]), 9), Err(MalformedCapsule));
        assert!(read(&data(&[(CLOSE_WEBTRANSPORT_SESSION, &long[1..])]), 9).unwrap().is_some());
    }

    #[test]
    fn a_capsule_of_immense_length_costs_nothing() {
        let mut capsule = Vec::new();
        super::super::varint::encode(0x1234, &mut capsule);
        super::super::varint::encode(1 << 61, &mut capsule);
        let mut wire = Vec::new();
        super::super::varint::encode(frame::DATA, &mut wire);
        super::super::varint::encode(1 << 61, &mut wire);
        wire.extend(capsule);
        wire.extend([0; 100_000]);
        let mut reader = CapsuleReader::new(Splitter::default());
        assert_eq!(reader.read(wire.into()), Ok(None));
        assert!(reader.code.capacity() <= 16);
    }
}
