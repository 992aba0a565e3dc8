//! The resets of streams that we send (RFC 6525).
//!
//! The library (rtc-sctp 0.21) resets a stream that both sides close twice: once because it was told to, and once in reply to
//! the remote. Either may come when the remote has already begun to use the stream for another channel. And what it sends in
//! reply it sends once: if that is lost, the remote waits for ever, and a remote that wants the numbers of requests without a
//! gap (dcsctp) refuses all later ones too.

#![cfg_attr(not(test), warn(clippy::arithmetic_side_effects))]

use std::{
    collections::{BTreeMap, HashMap},
    time::{Duration, Instant},
};

use bytes::Bytes;

use super::{
    guard::Violation,
    packet::{parameter, parameters, u16_at, u32_at},
};

/// Replies that a remote may leave unanswered: more than it can have streams, and some that are under way.
const MAX_REPLIES: usize = 4096;

/// Replies that are repeated at a time, the oldest first.
const REPETITIONS: usize = 32;

/// When a reply is repeated for the first time, and how much later at most each time after that: the bounds of the library's
/// own retransmission timers.
const FIRST_REPETITION: Duration = Duration::from_secs(1);
const LAST_INTERVAL: Duration = Duration::from_secs(60);

/// The resets of streams that we send: one in the life of each, and none after it.
#[derive(Debug, Default)]
pub(super) struct OurResets {
    /// Streams that we have closed, and whether the reset was sent.
    requested: HashMap<u16, bool>,
    /// Streams that have just come to their end, and whether we had reset them before the remote did.
    just_ended: HashMap<u16, bool>,
    /// Resets that the library has yet to send of streams that have come to their end.
    stale: HashMap<u16, usize>,
    /// Streams that were taken out of a request, by its number: the library may repeat it.
    withheld: HashMap<u32, Vec<u16>>,
    /// Packets that the remote has yet to answer, by the number of the request.
    replies: BTreeMap<u32, Bytes>,
    /// When they are repeated, and how long after the last time that is.
    repetition: Option<(Instant, Duration)>,
    /// The latest of our requests that the remote has answered.
    last_answered: Option<u32>,
}

impl OurResets {
    /// We have told the library to close a stream.
    pub(super) fn request(&mut self, stream: u16) {
        self.requested.insert(stream, false);
    }

    /// The remote has answered the request with this number. Returns whether it need not be repeated.
    pub(super) fn answered(&mut self, sequence: u32, result: u32) -> bool {
        let is_late = self.last_answered.is_some_and(|last| last.wrapping_sub(sequence) <= u32::MAX / 2);
        // RFC 6525 section 5.2.1: the sender asks again until the streams are reset. A number that is out of order is one
        // that overtook an earlier request, or one that the remote has dealt with already.
        if result == parameter::IN_PROGRESS || (result == parameter::BAD_SEQUENCE_NUMBER && !is_late) {
            return false;
        }
        if !is_late {
            self.last_answered = Some(sequence);
        }
        self.withheld.remove(&sequence);
        self.replies.remove(&sequence);
        if self.replies.is_empty() {
            self.repetition = None;
        }
        true
    }

    /// Looks at a packet with this parameter of a RE-CONFIG chunk that is about to be sent.
    pub(super) fn sending(&mut self, value: &[u8], packet: &Bytes) -> Option<()> {
        let (_, request) = parameters(value).find(|(kind, _)| *kind == parameter::OUTGOING_RESET)?;
        if u32_at(request, 4)? != 0 {
            self.replies.insert(u32_at(request, 0)?, packet.clone());
        }
        Some(())
    }

    /// Refuses a remote that makes us reset streams and never answers.
    pub(super) fn check(&self) -> Result<(), Violation> {
        if self.replies.len() > MAX_REPLIES {
            return Err(Violation("stream resets are not answered"));
        }
        Ok(())
    }

    /// Everything that the library had to send was looked at.
    pub(super) fn flushed(&mut self, now: Instant) {
        self.just_ended.clear();
        if !self.replies.is_empty() && self.repetition.is_none() {
            self.repetition = now.checked_add(FIRST_REPETITION).map(|due| (due, FIRST_REPETITION));
        }
    }

    /// When there may be something to [`repeat`](Self::repeat).
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.repetition.map(|(due, _)| due)
    }

    /// Packets to send again.
    pub(super) fn repeat(&mut self, now: Instant) -> impl Iterator<Item = Bytes> {
        let interval = self.repetition.filter(|(due, _)| *due <= now).map(|(_, interval)| interval);
        if let Some(interval) = interval {
            let next = interval.saturating_mul(2).min(LAST_INTERVAL);
            self.repetition = now.checked_add(next).map(|due| (due, next));
        }
        self.replies.values().take(if interval.is_some() { REPETITIONS } else { 0 }).cloned()
    }

    /// The library has forgotten a stream.
    pub(super) fn stream_ended(&mut self, stream: u16) {
        let Some(sent) = self.requested.remove(&stream) else { return };
        self.just_ended.insert(stream, sent);
        if !sent {
            let stale = self.stale.entry(stream).or_default();
            *stale = stale.saturating_add(1);
        }
    }

    /// Whether this reset would be one too many. `reply` if the remote asked for it.
    fn is_surplus(&mut self, stream: u16, reply: bool) -> bool {
        if reply {
            return self.just_ended.get(&stream).copied().unwrap_or_default();
        }
        if let Some(stale) = self.stale.get_mut(&stream) {
            *stale = stale.saturating_sub(1);
            if *stale == 0 {
                self.stale.remove(&stream);
            }
            return true;
        }
        if let Some(sent) = self.requested.get_mut(&stream) {
            *sent = true;
        }
        false
    }

    /// What to send instead of a RE-CONFIG chunk's parameter. A request that has nothing left resets a stream that does
    /// not exist: some remotes (dcsctp) do not bear a gap in the numbers of requests.
    pub(super) fn filter(&mut self, value: &[u8], reserved: u16) -> Option<Vec<u8>> {
        let (_, request) = parameters(value).find(|(kind, _)| *kind == parameter::OUTGOING_RESET)?;
        let sequence = u32_at(request, 0)?;
        let reply = u32_at(request, 4)? != 0;
        let streams: Vec<u16> =
            request.get(12..)?.chunks_exact(2).filter_map(|stream| u16_at(stream, 0)).collect();
        let withheld: Vec<u16> = match self.withheld.get(&sequence) {
            Some(withheld) => withheld.clone(),
            None => streams.iter().copied().filter(|stream| self.is_surplus(*stream, reply)).collect(),
        };
        if withheld.is_empty() {
            return None;
        }
        let mut kept: Vec<u8> = streams
            .iter()
            .filter(|stream| !withheld.contains(stream))
            .flat_map(|stream| stream.to_be_bytes())
            .collect();
        if kept.is_empty() {
            kept.extend_from_slice(&reserved.to_be_bytes());
        }
        self.withheld.insert(sequence, withheld);
        let mut parameter = parameter::OUTGOING_RESET.to_be_bytes().to_vec();
        let length = kept.len().saturating_add(16);
        parameter.extend_from_slice(&u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes());
        parameter.extend_from_slice(request.get(..12)?);
        parameter.extend_from_slice(&kept);
        Some(parameter)
    }
}
