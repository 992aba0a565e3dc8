//! One address of a peer: who named it, what became of it, and how long it is believed.

use std::{cmp::Reverse, time::Duration};

use peerloom_core::Multiaddr;

use super::moment::Moment;

/// How long an address is believed that the peer has told of, unsigned, and that nothing has confirmed since.
pub const ADDRESS_TTL: Duration = Duration::from_secs(60 * 60);
/// The same for what others tell of a peer.
const ROUTING_TTL: Duration = Duration::from_secs(30 * 60);
/// The same for addresses that the peer has signed.
const CERTIFIED_TTL: Duration = Duration::from_secs(24 * 60 * 60);
/// The same since a connection to the address was there.
const WORKED_TTL: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// The same for what the application has named. Nothing is believed for longer.
const APPLICATION_TTL: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// What a peer's addresses are believed for at least once its last connection is over: time to come back.
pub(super) const AFTER_CONNECTION: Duration = Duration::from_secs(30 * 60);
/// Failures shorten no address's life to less than this, so that a network that is away for a while does not cost all we know.
const LEAST_AFTER_FAILURE: Duration = Duration::from_secs(10 * 60);
/// The same where more speaks for the address.
const LEAST_AFTER_FAILURE_OF_GOOD: Duration = Duration::from_secs(2 * 60 * 60);
/// Failures in a row that count.
const MOST_FAILURES: u32 = 16;

/// Addresses that come back from storage although they should have expired are believed for so long: either the clock is wrong, or
/// an old address is better than none.
const REVIVED_TTL: Duration = Duration::from_secs(60 * 60);
/// How many times, if nothing confirms them in between.
const MOST_REVIVALS: u32 = 3;

/// Who named an address; the greater one is believed more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum PeerAddressSource {
    /// Somebody else: a directory, a relay, other peers.
    Routing,
    /// The peer itself, unsigned.
    Identify,
    /// Nobody but the connection that came of dialing it.
    Connection,
    /// The application.
    Application,
    /// The peer itself in its signed record.
    PeerRecord,
}

/// An address of a peer, and what speaks for it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct KnownAddress {
    /// The address, without `/p2p/…`.
    pub address: Multiaddr,
    /// Who named it; of several the one believed most.
    pub source: PeerAddressSource,
    /// Whether the peer has signed that it is there.
    pub certified: bool,
    /// How long ago there was a connection to it.
    pub last_success: Option<Duration>,
    /// How long ago a dial of it failed.
    pub last_failure: Option<Duration>,
    /// For how long it is believed if nothing confirms it. As long as the peer is connected, none of its addresses expires.
    pub expires_in: Duration,
}

/// An address as the store has it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct StoredAddress {
    pub(super) address: Multiaddr,
    pub(super) source: PeerAddressSource,
    pub(super) certified: bool,
    /// Named, by anyone.
    pub(super) seen: Moment,
    pub(super) success: Option<Moment>,
    pub(super) failure: Option<Moment>,
    /// Since the last success.
    pub(super) failures: u32,
    pub(super) expires: Moment,
    /// Since the last confirmation.
    pub(super) revivals: u32,
}

/// How useful an address is: what sorts first is tried first, and goes last.
type Rank = (bool, Reverse<Option<Moment>>, bool, Reverse<PeerAddressSource>, Reverse<Moment>);

impl StoredAddress {
    pub(super) fn new(address: Multiaddr, source: PeerAddressSource, now: Moment) -> Self {
        Self {
            address,
            source,
            certified: source == PeerAddressSource::PeerRecord,
            seen: now,
            success: None,
            failure: None,
            failures: 0,
            expires: now.after(source.ttl()),
            revivals: 0,
        }
    }

    /// Somebody has named it again.
    pub(super) fn named(&mut self, source: PeerAddressSource, now: Moment) {
        self.source = self.source.max(source);
        self.certified |= source == PeerAddressSource::PeerRecord;
        self.seen = now;
        self.revivals = 0;
        // What does not answer is not believed the longer for being named again and again.
        let ttl = source.ttl().checked_div(self.failures.saturating_add(1)).unwrap_or_default();
        self.expires = self.expires.max(now.after(ttl));
    }

    /// The peer's newer record does not have it.
    pub(super) fn uncertify(&mut self, now: Moment) {
        self.certified = false;
        self.source = PeerAddressSource::Identify;
        self.expires = self.expires.min(now.after(ADDRESS_TTL));
    }

    /// There is a connection to it, or was until now.
    pub(super) fn succeeded(&mut self, now: Moment) {
        self.seen = now;
        self.success = Some(now);
        self.failures = 0;
        self.revivals = 0;
        self.expires = self.expires.max(now.after(WORKED_TTL));
    }

    /// A dial of it failed. `online` is whether others succeed, so that the address is to blame.
    pub(super) fn failed(&mut self, online: bool, now: Moment) {
        self.failure = Some(now);
        if !online {
            return;
        }
        self.failures = self.failures.saturating_add(1).min(MOST_FAILURES);
        let is_good =
            self.certified || self.success.is_some() || self.source == PeerAddressSource::Application;
        let least = if is_good { LEAST_AFTER_FAILURE_OF_GOOD } else { LEAST_AFTER_FAILURE };
        let half = self.expires.since(now).checked_div(2).unwrap_or_default();
        self.expires = self.expires.min(now.after(half.max(least)));
    }

    pub(super) fn is_expired(&self, now: Moment) -> bool {
        self.expires <= now
    }

    /// Whether it has worked, and not failed since.
    fn works(&self) -> bool {
        self.success.is_some() && self.failure <= self.success
    }

    pub(super) fn rank(&self) -> Rank {
        let works = self.works();
        // A success that is history is worth no more than none.
        let success = self.success.filter(|_| works);
        (
            !works && self.failure.is_some(),
            Reverse(success),
            !self.certified,
            Reverse(self.source),
            Reverse(self.seen),
        )
    }

    pub(super) fn describe(&self, now: Moment) -> KnownAddress {
        KnownAddress {
            address: self.address.clone(),
            source: self.source,
            certified: self.certified,
            last_success: self.success.map(|success| now.since(success)),
            last_failure: self.failure.map(|failure| now.since(failure)),
            expires_in: self.expires.since(now),
        }
    }

    /// Sets when it expires, back from storage, where it was left with `ttl` to live. `away` is for how long; `None` if the clock
    /// makes no sense. Whether it is still to be believed.
    pub(super) fn revive(&mut self, ttl: Duration, away: Option<Duration>, now: Moment) -> bool {
        let ttl = ttl.min(APPLICATION_TTL);
        let left = away.and_then(|away| ttl.checked_sub(away)).filter(|left| !left.is_zero());
        if let Some(left) = left {
            self.expires = now.after(left);
            return true;
        }
        self.revivals = self.revivals.saturating_add(1);
        self.expires = now.after(ttl.min(REVIVED_TTL));
        self.revivals <= MOST_REVIVALS && !ttl.is_zero()
    }
}

impl PeerAddressSource {
    fn ttl(self) -> Duration {
        match self {
            Self::Routing => ROUTING_TTL,
            Self::Identify => ADDRESS_TTL,
            Self::Connection => WORKED_TTL,
            Self::Application => APPLICATION_TTL,
            Self::PeerRecord => CERTIFIED_TTL,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn address(source: PeerAddressSource) -> StoredAddress {
        StoredAddress::new("/ip4/1.2.3.4/tcp/1".parse().unwrap(), source, Moment::START)
    }

    fn hours(hours: u32) -> Moment {
        Moment::START.after(HOUR * hours)
    }

    #[test]
    fn what_is_signed_or_has_worked_is_believed_for_longer() {
        let ttls = [PeerAddressSource::Routing, PeerAddressSource::Identify, PeerAddressSource::PeerRecord]
            .map(|source| address(source).expires);
        assert!(ttls.is_sorted());
        let mut worked = address(PeerAddressSource::Routing);
        worked.succeeded(hours(0));
        assert!(
            worked.expires > ttls[2] && !worked.is_expired(hours(6 * 24)) && worked.is_expired(hours(7 * 24))
        );
    }

    #[test]
    fn failures_shorten_a_life_but_not_while_nothing_else_works_either() {
        let mut failing = address(PeerAddressSource::PeerRecord);
        failing.failed(false, hours(0));
        assert_eq!(failing.expires, hours(24));
        failing.failed(true, hours(0));
        assert_eq!(failing.expires, hours(12));
        for _ in 0..10 {
            failing.failed(true, hours(0));
        }
        assert_eq!(failing.expires, hours(2), "never to less");
        let mut hearsay = address(PeerAddressSource::Routing);
        (0..10).for_each(|_| hearsay.failed(true, hours(0)));
        assert_eq!(hearsay.expires, Moment::START.after(LEAST_AFTER_FAILURE));
        // Nor does a failure prolong it.
        hearsay.failed(true, Moment::START.after(LEAST_AFTER_FAILURE - Duration::from_secs(1)));
        assert_eq!(hearsay.expires, Moment::START.after(LEAST_AFTER_FAILURE));
    }

    #[test]
    fn what_fails_is_not_believed_the_longer_for_being_named_again() {
        let (mut failing, mut silent) =
            (address(PeerAddressSource::Identify), address(PeerAddressSource::Identify));
        (0..5).for_each(|_| failing.failed(true, hours(0)));
        for address in [&mut failing, &mut silent] {
            address.named(PeerAddressSource::Identify, hours(1));
        }
        assert!(failing.expires < hours(1).after(HOUR / 5) && silent.expires == hours(2));
    }

    #[test]
    fn who_names_an_address_later_never_makes_it_worth_less() {
        let mut certified = address(PeerAddressSource::PeerRecord);
        for source in
            [PeerAddressSource::Routing, PeerAddressSource::Identify, PeerAddressSource::Application]
        {
            certified.named(source, hours(1));
            assert!(certified.certified && certified.source == PeerAddressSource::PeerRecord);
        }
    }

    #[test]
    fn the_order_is_success_then_certificate_then_source_and_failures_come_last() {
        let mut long_ago = address(PeerAddressSource::Routing);
        long_ago.succeeded(hours(1));
        let mut of_late = address(PeerAddressSource::Identify);
        of_late.succeeded(hours(2));
        let mut was_good = address(PeerAddressSource::PeerRecord);
        was_good.succeeded(hours(1));
        was_good.failed(true, hours(2));
        let order = [
            of_late,
            long_ago,
            address(PeerAddressSource::PeerRecord),
            address(PeerAddressSource::Application),
            address(PeerAddressSource::Identify),
            address(PeerAddressSource::Routing),
            was_good,
        ];
        assert!(order.is_sorted_by_key(StoredAddress::rank));
    }

    #[test]
    fn time_away_counts_and_a_clock_that_jumps_neither_ends_nor_prolongs_everything() {
        let revived = |ttl, away| {
            let mut stored = address(PeerAddressSource::PeerRecord);
            stored.revive(ttl, away, hours(0)).then_some(stored.expires)
        };
        assert_eq!(revived(HOUR * 5, Some(HOUR)), Some(hours(4)));
        assert_eq!(revived(HOUR * 5, Some(HOUR * 100_000)), Some(hours(1)), "the clock is a century ahead");
        assert_eq!(revived(HOUR * 5, None), Some(hours(1)), "the clock is behind");
        assert_eq!(revived(Duration::MAX, Some(HOUR)), Some(Moment::START.after(APPLICATION_TTL - HOUR)));
        assert_eq!(revived(Duration::ZERO, Some(HOUR)), None);

        let mut unconfirmed = address(PeerAddressSource::PeerRecord);
        let lives = (0..10).take_while(|_| unconfirmed.revive(HOUR, None, hours(0))).count();
        assert_eq!(lives, MOST_REVIVALS as usize);
        unconfirmed.succeeded(hours(0));
        assert!(unconfirmed.revive(HOUR, None, hours(0)));
    }
}
