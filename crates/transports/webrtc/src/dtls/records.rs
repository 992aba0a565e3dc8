//! What may reach the DTLS library: a check of the record and fragment headers that strangers can write.
//!
//! The library (rtc-dtls 0.21) keeps records of the epoch to come without a bound, reassembles handshake messages by
//! recursion over fragments of any number, and keeps a transcript of whatever handshake messages come later. Here each of
//! these gets one. And it forgets its retransmission timer when the remote repeats a flight, so repetitions are told apart.

#![cfg_attr(not(test), warn(clippy::arithmetic_side_effects))]

use std::collections::HashSet;

/// Handshake fragments in the life of a connection. A handshake takes about ten; the rest is for retransmissions and
/// for certificates of several kilobytes.
const MAX_HANDSHAKE_FRAGMENTS: usize = 192;

/// Records that may arrive encrypted before the handshake is complete: a Finished and the first data, overtaking.
const MAX_EARLY_RECORDS: usize = 64;

/// The largest datagram that is looked at. An SCTP packet of a browser has about 1,200 bytes.
const MAX_DATAGRAM: usize = 4096;

const HEADER: usize = 13;
const FRAGMENT_HEADER: usize = 12;

/// DTLS content types.
const CHANGE_CIPHER_SPEC: u8 = 20;
const HANDSHAKE: u8 = 22;
const APPLICATION_DATA: u8 = 23;

/// What to do with a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The library should see it.
    Pass,
    /// Nothing but handshake messages that the library has seen: what we said in reply was lost, or is late.
    Repetition,
    /// Nobody should see it.
    Drop,
}

#[derive(Debug, Default)]
pub(super) struct RecordGuard {
    handshake_fragments: usize,
    early_records: usize,
    seen: HashSet<Fragment>,
}

/// A part of a handshake message that was sent in the clear.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Fragment {
    message: u16,
    offset: u32,
    length: u32,
}

impl RecordGuard {
    pub(super) fn judge(&mut self, datagram: &[u8], connected: bool) -> Verdict {
        if datagram.len() > MAX_DATAGRAM || datagram.is_empty() {
            return Verdict::Drop;
        }
        match self.walk(datagram, connected) {
            Some(true) => Verdict::Pass,
            Some(false) => Verdict::Repetition,
            None => Verdict::Drop,
        }
    }

    /// Whether there is anything new in the datagram; `None` if it is malformed or too much.
    fn walk(&mut self, mut rest: &[u8], connected: bool) -> Option<bool> {
        let mut new = false;
        while !rest.is_empty() {
            let (header, body) = rest.split_at_checked(HEADER)?;
            let kind = *header.first()?;
            let epoch = u16::from_be_bytes(header.get(3..5)?.try_into().ok()?);
            let length = usize::from(u16::from_be_bytes(header.get(11..HEADER)?.try_into().ok()?));
            let (content, next) = body.split_at_checked(length)?;
            // Nobody renegotiates, so there are two epochs: clear and encrypted.
            if !(CHANGE_CIPHER_SPEC..=APPLICATION_DATA).contains(&kind)
                || *header.get(1)? != 0xFE
                || epoch > 1
            {
                return None;
            }
            match (kind, epoch) {
                (HANDSHAKE, 0) => new |= self.walk_fragments(content)?,
                (HANDSHAKE, _) => {
                    self.count_fragment();
                    new = true;
                }
                _ => new = true,
            }
            if epoch == 1 && !connected {
                self.early_records = self.early_records.saturating_add(1);
            }
            let within = self.handshake_fragments <= MAX_HANDSHAKE_FRAGMENTS
                && self.early_records <= MAX_EARLY_RECORDS;
            if !within && (kind == HANDSHAKE || !connected) {
                return None;
            }
            rest = next;
        }
        Some(new)
    }

    fn walk_fragments(&mut self, mut rest: &[u8]) -> Option<bool> {
        let mut new = false;
        while !rest.is_empty() {
            let (header, body) = rest.split_at_checked(FRAGMENT_HEADER)?;
            let total = u32_of_three(header.get(1..4)?)?;
            let message = u16::from_be_bytes(header.get(4..6)?.try_into().ok()?);
            let offset = u32_of_three(header.get(6..9)?)?;
            let length = u32_of_three(header.get(9..FRAGMENT_HEADER)?)?;
            // RFC 6347 section 4.2.3: fragments lie within their message.
            if offset.checked_add(length)? > total {
                return None;
            }
            (_, rest) = body.split_at_checked(usize::try_from(length).ok()?)?;
            self.count_fragment();
            if self.handshake_fragments <= MAX_HANDSHAKE_FRAGMENTS {
                new |= self.seen.insert(Fragment { message, offset, length });
            }
        }
        Some(new)
    }

    fn count_fragment(&mut self) {
        self.handshake_fragments = self.handshake_fragments.saturating_add(1);
    }
}

fn u32_of_three(bytes: &[u8]) -> Option<u32> {
    let [high, middle, low] = <[u8; 3]>::try_from(bytes).ok()?;
    Some(u32::from_be_bytes([0, high, middle, low]))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record(kind: u8, epoch: u8, content: &[u8]) -> Vec<u8> {
        let mut bytes = vec![kind, 0xFE, 0xFD, 0, epoch, 0, 0, 0, 0, 0, 0];
        bytes.extend_from_slice(&(content.len() as u16).to_be_bytes());
        bytes.extend_from_slice(content);
        bytes
    }

    /// One byte of a message of 200.
    fn fragment(offset: u8) -> Vec<u8> {
        vec![1, 0, 0, 200, 0, 0, 0, 0, offset, 0, 0, 1, 0xAA]
    }

    #[test]
    fn handshake_cut_into_countless_fragments_is_refused() {
        let mut guard = RecordGuard::default();
        let admitted = (0..200u8)
            .filter(|at| guard.judge(&record(HANDSHAKE, 0, &fragment(*at)), false) == Verdict::Pass)
            .count();
        assert_eq!(admitted, MAX_HANDSHAKE_FRAGMENTS);
        assert_eq!(
            guard.judge(&record(APPLICATION_DATA, 1, b"data"), true),
            Verdict::Pass,
            "an established connection goes on"
        );
    }

    #[test]
    fn flight_that_comes_again_is_recognised() {
        let mut guard = RecordGuard::default();
        let mut flight = record(HANDSHAKE, 0, &fragment(0));
        assert_eq!(guard.judge(&flight, false), Verdict::Pass);
        assert_eq!(guard.judge(&flight, false), Verdict::Repetition);
        flight.extend(record(HANDSHAKE, 0, &fragment(1)));
        assert_eq!(guard.judge(&flight, false), Verdict::Pass, "a part of it was lost");
    }

    #[test]
    fn encrypted_records_before_the_handshake_are_bounded() {
        let mut guard = RecordGuard::default();
        let early = record(APPLICATION_DATA, 1, b"data");
        assert_eq!(
            (0..1000).filter(|_| guard.judge(&early, false) == Verdict::Pass).count(),
            MAX_EARLY_RECORDS
        );
        assert_eq!(guard.judge(&early, true), Verdict::Pass);
    }

    #[test]
    fn records_of_an_epoch_that_never_comes_are_refused() {
        assert_eq!(RecordGuard::default().judge(&record(APPLICATION_DATA, 2, b"data"), true), Verdict::Drop);
    }

    #[test]
    fn what_is_no_dtls_is_refused() {
        let mut guard = RecordGuard::default();
        assert_eq!(guard.judge(b"", false), Verdict::Drop);
        assert_eq!(guard.judge(b"GET / HTTP/1.1\r\n\r\n", false), Verdict::Drop);
        assert_eq!(guard.judge(&record(19, 0, b""), false), Verdict::Drop);
        let whole = record(HANDSHAKE, 0, &fragment(0));
        for length in 1..whole.len() {
            assert_eq!(guard.judge(&whole[..length], false), Verdict::Drop);
        }
    }

    proptest! {
        #[test]
        fn nothing_a_stranger_sends_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300), connected: bool) {
            RecordGuard::default().judge(&bytes, connected);
        }
    }
}
