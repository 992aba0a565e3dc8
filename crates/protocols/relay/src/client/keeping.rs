//! When to ask a relay for a reservation again. No I/O: time and randomness come in, the next deadline goes out.

#![warn(clippy::arithmetic_side_effects)]

use std::time::Duration;

use peerloom_core::runtime::Instant;

/// The time by both clocks: the one that never jumps, and the one that goes on while the machine sleeps.
#[derive(Debug, Clone, Copy)]
pub(super) struct Now {
    pub(super) instant: Instant,
    /// Since 1970.
    pub(super) unix: Duration,
}

impl Now {
    pub(super) fn read() -> Self {
        let since_epoch = web_time::SystemTime::now().duration_since(web_time::SystemTime::UNIX_EPOCH);
        Self { instant: Instant::now(), unix: since_epoch.unwrap_or_default() }
    }
}

/// How long a reservation is taken to last whose end, by our clock, is past: one of the two clocks is wrong.
const ASSUMED_LIFETIME: Duration = Duration::from_secs(120);
/// A longer one is renewed as if it ended then.
const LONGEST_LIFETIME: Duration = Duration::from_secs(24 * 3600);
/// The clocks have parted by more than this: the machine was asleep.
const JUMP: Duration = Duration::from_secs(10);
/// Without anything else to do, the clocks are compared so often.
const TICK: Duration = Duration::from_secs(30);
/// A reservation is renewed this long before its end at the latest, if it lasts long enough.
const MARGIN: Duration = Duration::from_secs(30);

/// One reservation, from the first success on.
#[derive(Debug)]
pub(super) struct Keeping {
    first_retry: Duration,
    longest_retry: Duration,
    seen: Now,
    /// While there is a reservation: its end, by both clocks.
    ends: Option<Now>,
    /// When to ask next.
    ask_at: Instant,
    /// Attempts that failed since the last success.
    failures: u32,
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Ask for a reservation.
    Ask,
    /// The reservation has ended without a new one. It is asked for again at once.
    Expired,
    /// Come back at this time, or when something has happened.
    Wait(Instant),
}

impl Keeping {
    pub(super) fn new(now: Now, first_retry: Duration, longest_retry: Duration) -> Self {
        Self { first_retry, longest_retry, seen: now, ends: None, ask_at: now.instant, failures: 0 }
    }

    /// Whether there is a reservation.
    pub(super) fn is_reserved(&self) -> bool {
        self.ends.is_some()
    }

    pub(super) fn step(&mut self, now: Now) -> Step {
        let slept = self.has_slept(now);
        if let Some(ends) = self.ends {
            if now.instant >= ends.instant || slept && now.unix >= ends.unix {
                self.ends = None;
                self.ask_at = now.instant;
                return Step::Expired;
            }
            if slept {
                // It may still be good, or the connection may be long dead: the relay's answer tells.
                self.ask_at = now.instant;
            }
        } else if slept {
            self.failures = 0;
            self.ask_at = now.instant;
        }
        if now.instant >= self.ask_at {
            return Step::Ask;
        }
        let ends = self.ends.map_or(self.ask_at, |ends| ends.instant);
        Step::Wait(self.ask_at.min(ends).min(after(now.instant, TICK)))
    }

    /// A reservation was made, or made longer, that ends at `expires` (seconds since 1970). How long it lasts.
    pub(super) fn reserved(&mut self, now: Now, expires: u64, random: u64) -> Duration {
        let lifetime = match Duration::from_secs(expires).saturating_sub(now.unix) {
            Duration::ZERO => ASSUMED_LIFETIME,
            lifetime => lifetime.min(LONGEST_LIFETIME),
        };
        self.failures = 0;
        self.ends =
            Some(Now { instant: after(now.instant, lifetime), unix: now.unix.saturating_add(lifetime) });
        // Between 5/8 and 6/8 of it, so that the clients of a relay that has restarted do not stay in step.
        let eighth = lifetime.checked_div(8).unwrap_or_default();
        let wait = eighth.saturating_mul(5).saturating_add(part(eighth, random));
        self.ask_at = after(now.instant, wait.min(lifetime.saturating_sub(MARGIN.min(eighth))));
        lifetime
    }

    /// An attempt failed. When the next one comes.
    pub(super) fn failed(&mut self, now: Now, random: u64) -> Duration {
        let doubled = 2_u32.saturating_pow(self.failures.min(20));
        let longest = self.first_retry.saturating_mul(doubled).min(self.longest_retry);
        // Between half of it and all.
        let half = longest.checked_div(2).unwrap_or_default();
        let wait = half.saturating_add(part(half, random));
        self.failures = self.failures.saturating_add(1);
        self.ask_at = after(now.instant, wait);
        wait
    }

    /// The connection to the relay is gone, and the reservation with it. When it is asked for again: soon, but not by all
    /// clients of a relay that has restarted at one moment.
    pub(super) fn disconnected(&mut self, now: Now, random: u64) -> Duration {
        self.ends = None;
        let wait = part(self.first_retry, random);
        self.ask_at = after(now.instant, wait);
        wait
    }

    /// Ask at once, whatever has failed before.
    pub(super) fn check(&mut self, now: Now) {
        self.failures = 0;
        self.ask_at = now.instant;
    }

    fn has_slept(&mut self, now: Now) -> bool {
        let by_wall = now.unix.saturating_sub(self.seen.unix);
        let by_ticks = now.instant.saturating_duration_since(self.seen.instant);
        self.seen = now;
        by_wall > by_ticks.saturating_add(JUMP)
    }
}

/// A part of `whole`, as great as `random` says.
fn part(whole: Duration, random: u64) -> Duration {
    whole.mul_f64(random as f64 / u64::MAX as f64)
}

/// As far into the future as an [`Instant`] goes.
fn after(now: Instant, wait: Duration) -> Instant {
    now.checked_add(wait).unwrap_or(now)
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects)] // A test may panic.
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FIRST: Duration = Duration::from_secs(1);
    const LONGEST: Duration = Duration::from_secs(60);
    const HOUR: Duration = Duration::from_secs(3600);

    fn start() -> (Keeping, Now) {
        let now = Now { instant: Instant::now(), unix: Duration::from_secs(1_700_000_000) };
        (Keeping::new(now, FIRST, LONGEST), now)
    }

    fn later(now: Now, wait: Duration) -> Now {
        Now { instant: now.instant + wait, unix: now.unix + wait }
    }

    fn expires(now: Now, lifetime: Duration) -> u64 {
        (now.unix + lifetime).as_secs()
    }

    #[test]
    fn it_is_renewed_well_before_its_end_and_not_at_once() {
        for random in [0, u64::MAX / 3, u64::MAX] {
            let (mut keeping, now) = start();
            assert_eq!(keeping.step(now), Step::Ask);
            assert_eq!(keeping.reserved(now, expires(now, HOUR), random), HOUR);
            assert!(matches!(keeping.step(later(now, HOUR * 5 / 8 - FIRST)), Step::Wait(_)));
            assert_eq!(keeping.step(later(now, HOUR * 6 / 8)), Step::Ask);
        }
    }

    #[test]
    fn a_renewal_that_fails_is_tried_again_while_the_reservation_lasts() {
        let (mut keeping, now) = start();
        keeping.reserved(now, expires(now, HOUR), 0);
        let at = later(now, HOUR * 6 / 8);
        assert_eq!(keeping.step(at), Step::Ask);
        let retry = keeping.failed(at, u64::MAX);
        assert!(keeping.is_reserved() && retry <= FIRST);
        assert_eq!(keeping.step(later(at, retry)), Step::Ask);
        assert_eq!(keeping.step(later(now, HOUR)), Step::Expired);
        assert!(!keeping.is_reserved());
    }

    #[test]
    fn attempts_come_further_and_further_apart_up_to_a_bound() {
        let (mut keeping, now) = start();
        let waits: Vec<_> = (0..40).map(|_| keeping.failed(now, u64::MAX)).collect();
        assert_eq!(waits[..3], [FIRST, FIRST * 2, FIRST * 4]);
        assert_eq!(waits[39], LONGEST);
        let (mut keeping, now) = start();
        assert_eq!([(); 3].map(|()| keeping.failed(now, 0)), [FIRST / 2, FIRST, FIRST * 2]);
    }

    #[test]
    fn a_success_begins_the_back_off_anew() {
        let (mut keeping, now) = start();
        for _ in 0..10 {
            keeping.failed(now, 0);
        }
        keeping.reserved(now, expires(now, HOUR), 0);
        assert_eq!(keeping.failed(now, u64::MAX), FIRST);
    }

    #[test]
    fn a_lost_connection_loses_it_and_it_is_asked_for_soon() {
        let (mut keeping, now) = start();
        keeping.reserved(now, expires(now, HOUR), 0);
        let wait = keeping.disconnected(now, u64::MAX / 2);
        assert!(!keeping.is_reserved() && wait < FIRST);
        assert_eq!(keeping.step(later(now, wait)), Step::Ask);
    }

    #[test]
    fn sleep_that_the_tick_clock_does_not_count_is_noticed() {
        let (mut keeping, now) = start();
        keeping.reserved(now, expires(now, HOUR), 0);
        let woken = Now { instant: now.instant + FIRST, unix: now.unix + HOUR * 8 };
        assert_eq!(keeping.step(woken), Step::Expired);
        assert_eq!(keeping.step(woken), Step::Ask);
    }

    #[test]
    fn a_nap_that_is_shorter_than_the_reservation_has_it_checked() {
        let (mut keeping, now) = start();
        keeping.reserved(now, expires(now, HOUR), 0);
        let woken = Now { instant: now.instant + FIRST, unix: now.unix + HOUR / 4 };
        assert_eq!(keeping.step(woken), Step::Ask);
        assert!(keeping.is_reserved());
    }

    #[test]
    fn sleep_ends_the_wait_for_the_next_attempt() {
        let (mut keeping, now) = start();
        for _ in 0..10 {
            keeping.failed(now, 0);
        }
        let Step::Wait(until) = keeping.step(now) else { panic!("not yet") };
        assert!(until > now.instant);
        let woken = Now { instant: now.instant + FIRST, unix: now.unix + HOUR };
        assert_eq!(keeping.step(woken), Step::Ask);
    }

    #[test]
    fn a_clock_that_is_set_back_or_behind_changes_nothing() {
        let (mut keeping, now) = start();
        keeping.reserved(now, expires(now, HOUR), 0);
        let set_back = Now { instant: now.instant + FIRST, unix: now.unix - HOUR };
        assert!(matches!(keeping.step(set_back), Step::Wait(_)));
    }

    #[test]
    fn an_end_that_is_past_by_our_clock_gives_a_short_life_instead_of_none() {
        let (mut keeping, now) = start();
        assert_eq!(keeping.reserved(now, 0, 0), ASSUMED_LIFETIME);
        assert!(matches!(keeping.step(now), Step::Wait(_)));
        assert_eq!(keeping.reserved(now, u64::MAX, 0), LONGEST_LIFETIME);
    }

    #[test]
    fn another_network_has_it_checked_at_once() {
        let (mut keeping, now) = start();
        keeping.reserved(now, expires(now, HOUR), 0);
        keeping.check(now);
        assert_eq!(keeping.step(now), Step::Ask);
    }

    proptest! {
        #[test]
        fn whatever_happens_the_next_step_is_in_bounded_time(
            happenings in prop::collection::vec((0..5u8, any::<u64>(), 0..100_000u64), 1..40)
        ) {
            let (mut keeping, mut now) = start();
            for (happening, random, seconds) in happenings {
                now = later(now, Duration::from_secs(seconds));
                match happening {
                    0 => _ = keeping.reserved(now, random, random),
                    1 => prop_assert!(keeping.failed(now, random) <= LONGEST),
                    2 => prop_assert!(keeping.disconnected(now, random) <= FIRST),
                    3 => keeping.check(now),
                    _ => now.unix = Duration::from_secs(random % 4_000_000_000),
                }
                if let Step::Wait(until) = keeping.step(now) {
                    prop_assert!(until > now.instant && until <= now.instant + TICK);
                }
            }
        }
    }
}
