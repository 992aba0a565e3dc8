//! A pair of addresses and what was sent to find out whether it works (RFC 8445 section 6.1.2).

use std::time::{Duration, Instant};

use super::{Path, later, token::SessionToken};
use crate::stun::TransactionId;

/// The first wait for an answer; it doubles up to [`SLOWEST_CHECK`].
const FIRST_CHECK_INTERVAL: Duration = Duration::from_millis(200);
const SLOWEST_CHECK: Duration = Duration::from_millis(1600);

#[derive(Debug)]
pub(super) struct Pair {
    pub(super) path: Path,
    pub(super) priority: u32,
    pub(super) state: PairState,
    /// What was sent and not answered.
    pub(super) check: Option<Check>,
    /// Checks sent before the first answer.
    pub(super) checks: u8,
    /// Whether anything authentic has come from there.
    pub(super) is_heard: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PairState {
    Waiting,
    InProgress,
    Succeeded,
    Failed,
}

#[derive(Debug)]
pub(super) struct Check {
    pub(super) transaction_id: TransactionId,
    pub(super) purpose: Purpose,
    /// Our role in it.
    pub(super) controlling: bool,
    pub(super) tries: u8,
    pub(super) interval: Duration,
    /// When it is repeated.
    pub(super) due: Option<Instant>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    Connectivity,
    Nomination,
    Consent,
}

impl Pair {
    pub(super) fn new(path: Path, priority: u32) -> Self {
        Self { path, priority, state: PairState::Waiting, check: None, checks: 0, is_heard: false }
    }

    /// Whether the answer that came on `path` is that to the check under way. RFC 8445 section 7.2.5.2.1: it comes from
    /// where the check went, to where it came from.
    pub(super) fn is_answered_by(&self, path: Path, transaction_id: TransactionId) -> bool {
        self.path.remote == path.remote
            && self.path.local.is_none_or(|local| path.local.is_none_or(|to| to == local))
            && self.check.as_ref().is_some_and(|check| check.transaction_id == transaction_id)
    }

    /// Whether a check for this purpose is under way.
    pub(super) fn is_checked_for(&self, purpose: Purpose) -> bool {
        self.check.as_ref().is_some_and(|check| check.purpose == purpose)
    }

    /// When something is to be sent again.
    pub(super) fn due(&self) -> Option<Instant> {
        self.check.as_ref()?.due
    }
}

impl Check {
    pub(super) fn new(token: SessionToken, purpose: Purpose, now: Instant) -> Self {
        Self {
            transaction_id: token.transaction_id(),
            purpose,
            controlling: false,
            tries: 0,
            interval: FIRST_CHECK_INTERVAL,
            due: Some(now),
        }
    }

    /// It was sent.
    pub(super) fn sent(&mut self, now: Instant, controlling: bool) {
        self.controlling = controlling;
        self.tries = self.tries.saturating_add(1);
        // RFC 7675 section 5.1: each question for consent is a transaction of its own and not repeated.
        self.due = (self.purpose != Purpose::Consent).then(|| later(now, self.interval));
        self.interval = self.interval.saturating_mul(2).min(SLOWEST_CHECK);
    }
}
