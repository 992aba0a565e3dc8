//! Which connections are to be closed: for want of use, and for want of room. No I/O: what there is comes in, what is to be closed
//! and when to look again go out.

#![warn(clippy::arithmetic_side_effects)]

use std::{collections::BTreeSet, time::Duration};

use peerloom_core::runtime::Instant;

use super::{
    ConnectionId,
    worth::{Candidate, Wanted},
};
use crate::limits::Limits;

/// Why a connection is closed that was good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Why {
    /// For want of room.
    Trimmed,
    /// For want of use.
    Unused,
    /// Another one does as well.
    Superfluous,
}

/// What a look at all connections has come to.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Tidied {
    /// To be closed, in this order.
    pub(crate) close: Vec<(ConnectionId, Why)>,
    /// When to look again, if nothing happens before.
    pub(crate) again: Option<Instant>,
}

/// Looks at all connections.
pub(crate) fn tidy(mut candidates: Vec<Candidate>, limits: &Limits, marks: Marks, now: Instant) -> Tidied {
    candidates.sort_by(Candidate::by_worth);
    let Marks { low, high } = marks;
    let mut tidied = Tidied::default();
    let mut left = candidates.len();
    for candidate in &candidates {
        let Some(idle) = candidate.idle_for(now) else { continue };
        let (why, after) = match candidate.wanted {
            _ if candidate.superfluous => (Why::Superfluous, limits.superfluous_idle),
            Wanted::ForStreams => (Why::Unused, limits.unused_idle),
            // There is room, so it is the remote's to close.
            Wanted::ByRemote if left <= low => continue,
            Wanted::ByRemote => (Why::Unused, limits.unused_idle),
            Wanted::ByApplication => continue,
        };
        if why == Why::Unused && candidate.is_tagged() {
            // Tags fade, and are taken away.
            tidied.look_after(now, limits.unused_idle);
        } else if idle >= after {
            tidied.close.push((candidate.id, why));
            left = left.saturating_sub(1);
        } else {
            tidied.look_after(now, after.saturating_sub(idle));
        }
    }
    if left > high {
        let closed: BTreeSet<ConnectionId> = tidied.close.iter().map(|(id, _)| *id).collect();
        let rest: Vec<_> =
            candidates.into_iter().filter(|candidate| !closed.contains(&candidate.id)).collect();
        let trimmed = least_worthy(&rest, low, limits.grace, now);
        left = left.saturating_sub(trimmed.len());
        tidied.close.extend(trimmed.into_iter().map(|id| (id, Why::Trimmed)));
        if left > low {
            // The young grow older, and what is in use now will not be for ever.
            tidied.look_after(now, limits.grace.max(SHORTEST));
        }
    }
    tidied
}

/// No two looks follow each other faster than that.
pub(crate) const SHORTEST: Duration = Duration::from_secs(1);

/// The water marks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Marks {
    pub(crate) low: usize,
    pub(crate) high: usize,
}

impl Marks {
    /// Those that are set, as far as they are clearly below the number of connections at which new ones are refused.
    pub(crate) fn of(limits: &Limits, most: usize) -> Self {
        let eighth = most.div_ceil(8);
        let high = limits.high_water.min(most.saturating_sub(eighth));
        Self { low: limits.low_water.min(high).min(most.saturating_sub(eighth.saturating_mul(2))), high }
    }
}

/// Those that have to go so that no more than `keep` are left, as far as they may. `sorted` by worth.
fn least_worthy(sorted: &[Candidate], keep: usize, grace: Duration, now: Instant) -> Vec<ConnectionId> {
    let surplus = sorted.len().saturating_sub(keep);
    let may_go = sorted.iter().filter(|candidate| candidate.may_be_trimmed(grace, now));
    may_go.take(surplus).map(|candidate| candidate.id).collect()
}

/// The same, for whoever asks.
pub(crate) fn to_trim(
    mut candidates: Vec<Candidate>,
    keep: usize,
    grace: Duration,
    now: Instant,
) -> Vec<ConnectionId> {
    candidates.sort_by(Candidate::by_worth);
    least_worthy(&candidates, keep, grace, now)
}

impl Tidied {
    fn look_after(&mut self, now: Instant, wait: Duration) {
        let at = now.checked_add(wait);
        self.again = match (self.again, at) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
    }
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::connections::usage::Use;

    const SECOND: Duration = Duration::from_secs(1);

    /// With marks.
    fn look(candidates: Vec<Candidate>, low: usize, high: usize, now: Instant) -> Tidied {
        tidy(candidates, &Limits::default(), Marks { low, high }, now)
    }

    /// Long idle, wanted by nobody else, and with nothing to be said for it.
    fn candidate(id: u64, now: Instant) -> Candidate {
        Candidate {
            id: ConnectionId(id),
            established: now.checked_sub(1000 * SECOND).unwrap_or(now),
            used: Use::Idle { since: now.checked_sub(900 * SECOND).unwrap_or(now), before: false },
            superfluous: false,
            protected: false,
            weight: 0,
            wanted: Wanted::ByRemote,
            path: 2,
            dialed: false,
        }
    }

    fn later() -> Instant {
        Instant::now().checked_add(10_000 * SECOND).unwrap()
    }

    fn closed(tidied: &Tidied) -> Vec<u64> {
        tidied.close.iter().map(|(id, _)| id.0).collect()
    }

    #[test]
    fn what_was_dialed_for_a_stream_closes_when_no_stream_and_no_tag_wants_it() {
        let (now, limits) = (later(), Limits::default());
        let for_streams = |id| Candidate { wanted: Wanted::ForStreams, ..candidate(id, now) };
        let idle_since = now - limits.unused_idle / 2;
        let candidates = vec![
            for_streams(1),
            Candidate { used: Use::Open, ..for_streams(2) },
            Candidate { weight: 1, ..for_streams(3) },
            Candidate { protected: true, ..for_streams(4) },
            Candidate { wanted: Wanted::ByApplication, ..candidate(5, now) },
            candidate(6, now),
            Candidate { used: Use::Idle { since: idle_since, before: true }, ..for_streams(7) },
        ];
        let tidied = look(candidates, 100, 200, now);
        assert_eq!(tidied.close, [(ConnectionId(1), Why::Unused)]);
        assert_eq!(tidied.again, Some(now + limits.unused_idle / 2));
    }

    #[test]
    fn what_a_remote_dialed_is_left_to_it_while_there_is_room() {
        let now = later();
        let candidates: Vec<_> = (0..10).map(|id| candidate(id, now)).collect();
        assert_eq!(look(candidates.clone(), 10, 20, now), Tidied::default());
        let tidied = look(candidates, 7, 20, now);
        assert_eq!(closed(&tidied), [0, 1, 2]);
        assert_eq!(tidied.again, None);
    }

    #[test]
    fn the_superfluous_go_soon_whoever_wants_the_peer() {
        let (now, limits) = (later(), Limits::default());
        let since = now - limits.superfluous_idle;
        let superfluous = Candidate {
            superfluous: true,
            protected: true,
            wanted: Wanted::ByApplication,
            used: Use::Idle { since, before: true },
            ..candidate(1, now)
        };
        let busy = Candidate { used: Use::Open, ..superfluous.clone() };
        assert_eq!(look(vec![superfluous], 100, 200, now).close, [(ConnectionId(1), Why::Superfluous)]);
        assert_eq!(look(vec![busy], 100, 200, now), Tidied::default());
    }

    #[test]
    fn the_least_worthy_go_first() {
        let now = later();
        let base = Candidate { wanted: Wanted::ByApplication, ..candidate(0, now) };
        let idle = |seconds: u32, before| Use::Idle { since: now - seconds * SECOND, before };
        // From the least worthy to the worthiest.
        let order = [
            Candidate { superfluous: true, weight: 9, ..base.clone() },
            Candidate { weight: -5, ..base.clone() },
            Candidate { wanted: Wanted::ForStreams, ..base.clone() },
            Candidate { wanted: Wanted::ByRemote, ..base.clone() },
            Candidate { path: 0, ..base.clone() },
            Candidate { path: 1, ..base.clone() },
            Candidate { used: idle(10, false), ..base.clone() },
            Candidate { used: idle(800, true), ..base.clone() },
            Candidate { used: idle(10, true), ..base.clone() },
            Candidate { used: idle(10, true), dialed: true, ..base.clone() },
            Candidate { weight: 1, ..base.clone() },
            Candidate { weight: 2, path: 0, ..base },
        ];
        let numbered = order.into_iter().zip(0..);
        let mut candidates: Vec<_> =
            numbered.map(|(candidate, id)| Candidate { id: ConnectionId(id), ..candidate }).collect();
        candidates.reverse();
        let trimmed: Vec<u64> = to_trim(candidates, 0, 20 * SECOND, now).iter().map(|id| id.0).collect();
        assert_eq!(trimmed, (0..12).collect::<Vec<_>>());
    }

    #[test]
    fn the_young_are_spared_and_looked_at_again() {
        let now = later();
        let young = |id| Candidate {
            established: now - SECOND,
            used: Use::Idle { since: now - SECOND, before: false },
            ..candidate(id, now)
        };
        let tidied = look((0..5).map(young).collect(), 2, 3, now);
        assert_eq!(tidied.close, []);
        assert!(tidied.again.is_some_and(|again| again <= now + Limits::default().grace));
    }

    fn any_candidate(now: Instant) -> impl Strategy<Value = Candidate> {
        let used = prop_oneof![
            Just(Use::Open),
            (0..2000_u32, any::<bool>())
                .prop_map(move |(ago, before)| Use::Idle { since: now - ago * SECOND, before }),
        ];
        let wanted =
            prop_oneof![Just(Wanted::ForStreams), Just(Wanted::ByRemote), Just(Wanted::ByApplication)];
        let flags = (any::<bool>(), prop::bool::weighted(0.2), any::<bool>());
        (0..2000_u32, used, wanted, flags, -3..4_i64, 0..3_u8).prop_map(
            move |(age, used, wanted, (superfluous, protected, dialed), weight, path)| Candidate {
                id: ConnectionId(0),
                established: now - age * SECOND,
                used,
                superfluous,
                protected,
                weight,
                wanted,
                path,
                dialed,
            },
        )
    }

    proptest! {
        #[test]
        fn nothing_in_use_or_protected_is_closed_and_trimming_ends_at_the_low_mark(
            (candidates, low, above) in {
                let now = later();
                (prop::collection::vec(any_candidate(now), 0..60), 0..40_usize, 0..20_usize)
            },
            shuffle: u64,
        ) {
            let latest = candidates.iter().flat_map(|candidate| match candidate.used {
                Use::Idle { since, .. } => vec![since, candidate.established],
                Use::Open => vec![candidate.established],
            });
            let now = latest.max().unwrap_or_else(later);
            let (limits, high) = (Limits::default(), low + above);
            let mut candidates = candidates;
            for (id, candidate) in (0..).zip(&mut candidates) {
                candidate.id = ConnectionId(id);
            }
            let tidied = look(candidates.clone(), low, high, now);

            let find = |id: ConnectionId| candidates.iter().find(|candidate| candidate.id == id).unwrap();
            for (id, why) in &tidied.close {
                let candidate = find(*id);
                prop_assert!(candidate.used != Use::Open);
                prop_assert!(!candidate.protected || candidate.superfluous);
                prop_assert!(*why == Why::Superfluous || candidate.wanted != Wanted::ByApplication || *why == Why::Trimmed);
            }
            let ids: BTreeSet<_> = tidied.close.iter().map(|(id, _)| *id).collect();
            prop_assert_eq!(ids.len(), tidied.close.len(), "none twice");

            let left = candidates.len() - ids.len();
            let could_go = candidates.iter()
                .filter(|candidate| !ids.contains(&candidate.id) && candidate.may_be_trimmed(limits.grace, now));
            prop_assert!(left <= high || could_go.count() == 0);
            if tidied.close.iter().any(|(_, why)| *why == Why::Trimmed) {
                prop_assert!(left >= low, "no more than necessary");
            }

            // The order in which connections are looked at is nothing.
            let turn = usize::try_from(shuffle).unwrap_or(0) % candidates.len().max(1);
            candidates.rotate_left(turn);
            candidates.reverse();
            prop_assert_eq!(look(candidates, low, high, now), tidied);
        }
    }
}
