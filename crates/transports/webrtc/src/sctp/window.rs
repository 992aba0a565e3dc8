//! Which DATA chunks a remote may have with us at a time: a mirror of the library's receive buffer that keeps to its
//! bounds.

#![cfg_attr(not(test), warn(clippy::arithmetic_side_effects))]

use std::collections::VecDeque;

use super::guard::Violation;
use crate::limits;

/// Flags of a DATA chunk (RFC 9260 section 3.3.1).
const BEGINNING: u8 = 0b0010;
const ENDING: u8 = 0b0001;

/// What to do with a DATA chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// New and within bounds.
    Take,
    /// Had before; the library acknowledges it again.
    Duplicate,
    /// Beyond what we take now. A well-behaved sender comes again.
    Refuse,
}

/// The chunks that the library holds: received, and not yet read by the application.
#[derive(Debug, Default)]
pub(super) struct ReceiveWindow {
    /// Everything up to this TSN has arrived.
    cumulative: u32,
    /// What follows, with gaps.
    ahead: VecDeque<Option<Received>>,
    held_bytes: usize,
    held_chunks: usize,
    /// The message that is unfinished at `cumulative`.
    unfinished: Unfinished,
}

#[derive(Debug, Clone, Copy)]
struct Received {
    flags: u8,
    length: usize,
}

#[derive(Debug, Default, Clone, Copy)]
struct Unfinished {
    fragments: usize,
    bytes: usize,
}

impl ReceiveWindow {
    /// How many unread bytes the library may hold.
    pub(super) const BYTES: usize = limits::SCTP_RECEIVE_WINDOW;
    /// How many unread chunks: each costs far more than its bytes if those are few.
    const CHUNKS: usize = 8192;
    /// How far after the first missing TSN another may be.
    const AHEAD: u32 = 4096;
    /// Fragments of one message. Those of an honest sender are as large as the path allows.
    const FRAGMENTS: usize = 2048;

    /// Empty, expecting `initial` first.
    pub(super) fn starting_at(initial: u32) -> Self {
        Self { cumulative: initial.wrapping_sub(1), ..Self::default() }
    }

    pub(super) fn cumulative(&self) -> u32 {
        self.cumulative
    }

    /// Whether everything up to this TSN has arrived.
    pub(super) fn has(&self, tsn: u32) -> bool {
        let distance = tsn.wrapping_sub(self.cumulative);
        distance == 0 || distance > u32::MAX / 2
    }

    pub(super) fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    pub(super) fn free(&self) -> usize {
        Self::BYTES.saturating_sub(self.held_bytes)
    }

    pub(super) fn admit(&mut self, tsn: u32, flags: u8, length: usize) -> Result<Verdict, Violation> {
        if length == 0 {
            return Err(Violation("DATA chunk without data"));
        }
        if self.has(tsn) {
            return Ok(Verdict::Duplicate);
        }
        // RFC 9260 section 1.5: serial number arithmetic.
        let distance = tsn.wrapping_sub(self.cumulative);
        let slot = usize::try_from(distance).unwrap_or(usize::MAX).saturating_sub(1);
        if self.ahead.get(slot).is_some_and(Option::is_some) {
            return Ok(Verdict::Duplicate);
        }
        let bytes = self.held_bytes.saturating_add(length);
        if distance > Self::AHEAD || bytes > Self::BYTES || self.held_chunks >= Self::CHUNKS {
            return Ok(Verdict::Refuse);
        }
        if self.ahead.len() <= slot {
            self.ahead.resize(slot.saturating_add(1), None);
        }
        if let Some(entry) = self.ahead.get_mut(slot) {
            *entry = Some(Received { flags, length });
        }
        self.held_bytes = bytes;
        self.held_chunks = self.held_chunks.saturating_add(1);
        self.advance()?;
        Ok(Verdict::Take)
    }

    /// The application has read so much.
    pub(super) fn release(&mut self, chunks: usize, bytes: usize) {
        self.held_chunks = self.held_chunks.saturating_sub(chunks);
        self.held_bytes = self.held_bytes.saturating_sub(bytes);
    }

    fn advance(&mut self) -> Result<(), Violation> {
        while let Some(Some(received)) = self.ahead.front().copied() {
            self.ahead.pop_front();
            self.cumulative = self.cumulative.wrapping_add(1);
            if received.flags & BEGINNING != 0 {
                self.unfinished = Unfinished::default();
            }
            self.unfinished.fragments = self.unfinished.fragments.saturating_add(1);
            self.unfinished.bytes = self.unfinished.bytes.saturating_add(received.length);
            if self.unfinished.fragments > Self::FRAGMENTS
                || self.unfinished.bytes > limits::MAX_RECEIVED_MESSAGE
            {
                return Err(Violation("message too large"));
            }
            if received.flags & ENDING != 0 {
                self.unfinished = Unfinished::default();
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const WHOLE: u8 = BEGINNING | ENDING;

    #[test]
    fn chunks_in_any_order_advance_the_window() {
        let mut window = ReceiveWindow::starting_at(u32::MAX);
        assert_eq!(window.admit(1, WHOLE, 10), Ok(Verdict::Take));
        assert_eq!(window.admit(u32::MAX, WHOLE, 10), Ok(Verdict::Take));
        assert_eq!(window.cumulative(), u32::MAX);
        assert_eq!(window.admit(0, WHOLE, 10), Ok(Verdict::Take));
        assert_eq!(window.cumulative(), 1);
        for tsn in [u32::MAX, 0, 1] {
            assert_eq!(window.admit(tsn, WHOLE, 10), Ok(Verdict::Duplicate));
        }
        assert_eq!(window.held_bytes(), 30);
    }

    #[test]
    fn gap_cannot_be_used_to_exceed_the_window() {
        let mut window = ReceiveWindow::starting_at(0);
        let mut taken = 0;
        for tsn in 1..10_000 {
            taken += usize::from(window.admit(tsn, WHOLE, 1000) == Ok(Verdict::Take));
        }
        assert_eq!(taken, ReceiveWindow::BYTES / 1000);
        // The missing one does not fit either until something is read; a sender that keeps to the window never sees this.
        window.release(1, 1000);
        assert_eq!(window.admit(0, WHOLE, 1000), Ok(Verdict::Take));
    }

    #[test]
    fn message_that_never_ends_is_a_violation() {
        let mut window = ReceiveWindow::starting_at(0);
        assert_eq!(window.admit(0, BEGINNING, 1000), Ok(Verdict::Take));
        let violation = (1..1000).find_map(|tsn| window.admit(tsn, 0, 1000).err());
        assert_eq!(violation, Some(Violation("message too large")));
        let mut window = ReceiveWindow::starting_at(0);
        assert!((0..5000).any(|tsn| window.admit(tsn, 0, 1).is_err()), "nor one of single bytes");
    }

    #[test]
    fn tiny_chunks_are_bounded_by_number() {
        let mut window = ReceiveWindow::starting_at(0);
        let taken = (0..20_000).filter(|tsn| window.admit(*tsn, WHOLE, 1) == Ok(Verdict::Take)).count();
        assert_eq!(taken, ReceiveWindow::CHUNKS);
    }

    proptest! {
        #[test]
        fn bounds_hold_whatever_arrives(
            chunks in proptest::collection::vec((0..9000u32, any::<u8>(), 1..2000usize, any::<bool>()), 0..3000)
        ) {
            let mut window = ReceiveWindow::starting_at(5);
            for (tsn, flags, length, read) in chunks {
                if window.admit(tsn, flags, length).is_err() {
                    break;
                }
                if read {
                    window.release(1, length);
                }
                prop_assert!(window.held_bytes <= ReceiveWindow::BYTES);
                prop_assert!(window.held_chunks <= ReceiveWindow::CHUNKS);
                prop_assert!(window.ahead.len() <= ReceiveWindow::AHEAD as usize);
            }
        }
    }
}
