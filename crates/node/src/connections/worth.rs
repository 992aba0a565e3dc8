//! What a connection is worth to this node, against others.

use std::{cmp::Ordering, time::Duration};

use peerloom_core::runtime::Instant;

use super::{ConnectionId, usage::Use};

/// Who wants a connection beside the streams on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Wanted {
    /// Nobody: it was dialed for the sake of a stream.
    ForStreams,
    /// The remote, which has dialed, and knows why.
    ByRemote,
    /// The application, which has dialed.
    ByApplication,
}

/// All that matters for whether a connection is kept.
#[derive(Debug, Clone)]
pub(crate) struct Candidate {
    pub(crate) id: ConnectionId,
    pub(crate) established: Instant,
    pub(crate) used: Use,
    /// Another connection to the same peer does all that this one could.
    pub(crate) superfluous: bool,
    pub(crate) protected: bool,
    /// Of the peer's tags.
    pub(crate) weight: i64,
    pub(crate) wanted: Wanted,
    /// Direct, through a relay, or through one that sets limits: higher is better.
    pub(crate) path: u8,
    pub(crate) dialed: bool,
}

impl Candidate {
    /// Less is the first to go: what another connection does as well, then what weighs least, is wanted least, takes the worse
    /// way, was never used, was dialed by the other side, and has been idle for longest. Never equal for two connections.
    pub(crate) fn by_worth(&self, other: &Self) -> Ordering {
        let key = |candidate: &Self| {
            let (since, before) = match candidate.used {
                Use::Open => (None, true),
                Use::Idle { since, before } => (Some(since), before),
            };
            // In use sorts behind every idleness.
            (
                !candidate.superfluous,
                candidate.weight,
                candidate.wanted,
                candidate.path,
                before,
                candidate.dialed,
                since.is_none(),
                since,
                candidate.id,
            )
        };
        key(self).cmp(&key(other))
    }

    pub(crate) fn idle_for(&self, now: Instant) -> Option<Duration> {
        match self.used {
            Use::Open => None,
            Use::Idle { since, .. } => Some(now.saturating_duration_since(since)),
        }
    }

    /// Whether it may be closed for want of room: neither in use, nor protected, nor so young that nobody has had the time to
    /// use it.
    pub(crate) fn may_be_trimmed(&self, grace: Duration, now: Instant) -> bool {
        let age = now.saturating_duration_since(self.established);
        self.used != Use::Open && age >= grace && (self.superfluous || !self.protected)
    }

    /// Whether a tag wants it, or protects it.
    pub(crate) fn is_tagged(&self) -> bool {
        self.protected || self.weight > 0
    }
}
