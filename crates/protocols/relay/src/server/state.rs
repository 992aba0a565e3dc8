//! Who has a reservation and how many circuits: the relay's decisions, without I/O. Time comes in as an argument.

#![warn(clippy::arithmetic_side_effects)]

use std::{collections::HashMap, hash::Hash, net::IpAddr};

use peerloom_core::{PeerId, runtime::Instant};

use super::limits::RelayLimits;
use crate::message::Status;

#[derive(Debug)]
pub(super) struct RelayState {
    limits: RelayLimits,
    reservations: HashMap<PeerId, Held>,
    by_ip: Tally<IpAddr>,
    by_asn: Tally<u32>,
    /// A circuit counts for both of its ends.
    circuits_of: Tally<PeerId>,
    circuits: usize,
}

#[derive(Debug)]
struct Held {
    ends: Instant,
    origin: Origin,
}

/// Where a client is, as far as it is known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Origin {
    pub(super) ip: Option<IpAddr>,
    pub(super) asn: Option<u32>,
}

impl RelayState {
    pub(super) fn new(limits: RelayLimits) -> Self {
        Self {
            limits,
            reservations: HashMap::new(),
            by_ip: Tally::default(),
            by_asn: Tally::default(),
            circuits_of: Tally::default(),
            circuits: 0,
        }
    }

    /// Reserves a place for `peer`, or renews its reservation. One that cannot be renewed holds to its end.
    pub(super) fn reserve(&mut self, now: Instant, peer: PeerId, origin: Origin) -> Result<(), Status> {
        if self.reservations.len() >= self.limits.reservations {
            self.sweep(now);
        }
        let before = self.reservations.remove(&peer);
        if let Some(before) = &before {
            self.uncount(before.origin);
        }
        let RelayLimits { reservations, reservations_per_ip, reservations_per_asn, .. } = self.limits;
        let refused = self.reservations.len() >= reservations
            || origin.ip.is_some_and(|ip| self.by_ip.count(&ip) >= reservations_per_ip)
            || origin.asn.is_some_and(|asn| self.by_asn.count(&asn) >= reservations_per_asn);
        let held = match refused {
            // The end of time is never.
            false => Some(Held { ends: now.checked_add(self.limits.reservation_ttl).unwrap_or(now), origin }),
            true => before,
        };
        if let Some(held) = held {
            self.count(held.origin);
            self.reservations.insert(peer, held);
        }
        if refused { Err(Status::ReservationRefused) } else { Ok(()) }
    }

    /// `peer` has no connection to us any more: "If the peer disconnects, the reservation is no longer valid."
    pub(super) fn disconnected(&mut self, peer: PeerId) {
        if let Some(held) = self.reservations.remove(&peer) {
            self.uncount(held.origin);
        }
    }

    /// Takes a place for a circuit, to be given back by [`close`](Self::close).
    pub(super) fn open(&mut self, now: Instant, source: PeerId, destination: PeerId) -> Result<(), Status> {
        if source == destination {
            return Err(Status::PermissionDenied);
        }
        if self.reservations.get(&destination).is_none_or(|held| held.ends <= now) {
            return Err(Status::NoReservation);
        }
        let full = [source, destination]
            .iter()
            .any(|peer| self.circuits_of.count(peer) >= self.limits.circuits_per_peer);
        if full || self.circuits >= self.limits.circuits {
            return Err(Status::ResourceLimitExceeded);
        }
        self.circuits = self.circuits.saturating_add(1);
        self.circuits_of.add(source);
        self.circuits_of.add(destination);
        Ok(())
    }

    /// Gives the place of a circuit back.
    pub(super) fn close(&mut self, source: PeerId, destination: PeerId) {
        self.circuits = self.circuits.saturating_sub(1);
        self.circuits_of.remove(&source);
        self.circuits_of.remove(&destination);
    }

    /// Throws away reservations that have ended.
    pub(super) fn sweep(&mut self, now: Instant) {
        let ended: Vec<_> = self.reservations.extract_if(|_, held| held.ends <= now).collect();
        for (_, held) in ended {
            self.uncount(held.origin);
        }
    }

    pub(super) fn reserved_peers(&self) -> Vec<PeerId> {
        self.reservations.keys().copied().collect()
    }

    pub(super) fn reservations(&self) -> usize {
        self.reservations.len()
    }

    pub(super) fn circuits(&self) -> usize {
        self.circuits
    }

    fn count(&mut self, origin: Origin) {
        origin.ip.into_iter().for_each(|ip| self.by_ip.add(ip));
        origin.asn.into_iter().for_each(|asn| self.by_asn.add(asn));
    }

    fn uncount(&mut self, origin: Origin) {
        origin.ip.into_iter().for_each(|ip| self.by_ip.remove(&ip));
        origin.asn.into_iter().for_each(|asn| self.by_asn.remove(&asn));
    }
}

/// How many there are of each; no entry for none, so that it is no larger than what it counts.
#[derive(Debug)]
struct Tally<K>(HashMap<K, usize>);

impl<K> Default for Tally<K> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: Eq + Hash> Tally<K> {
    fn count(&self, key: &K) -> usize {
        self.0.get(key).copied().unwrap_or(0)
    }

    fn add(&mut self, key: K) {
        let count = self.0.entry(key).or_default();
        *count = count.saturating_add(1);
    }

    fn remove(&mut self, key: &K) {
        if let Some(count) = self.0.get_mut(key) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.0.remove(key);
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects)] // A test may panic.
mod tests {
    use std::{net::Ipv4Addr, time::Duration};

    use peerloom_core::Keypair;
    use proptest::prelude::*;

    use super::*;

    fn peer(seed: u8) -> PeerId {
        Keypair::from_seed([seed; 32]).peer_id()
    }

    fn at(ip: u8, asn: u32) -> Origin {
        Origin { ip: Some(Ipv4Addr::new(10, 0, 0, ip).into()), asn: Some(asn) }
    }

    fn small() -> RelayLimits {
        RelayLimits {
            reservations: 4,
            reservations_per_ip: 2,
            reservations_per_asn: 3,
            circuits: 3,
            circuits_per_peer: 2,
            ..RelayLimits::default()
        }
    }

    #[test]
    fn places_are_bounded_in_all_per_ip_and_per_asn() {
        let (mut state, now) = (RelayState::new(small()), Instant::now());
        assert_eq!(state.reserve(now, peer(1), at(1, 1)), Ok(()));
        assert_eq!(state.reserve(now, peer(2), at(1, 1)), Ok(()));
        assert_eq!(state.reserve(now, peer(3), at(1, 2)), Err(Status::ReservationRefused), "third of the IP");
        assert_eq!(state.reserve(now, peer(3), at(2, 1)), Ok(()));
        assert_eq!(
            state.reserve(now, peer(4), at(3, 1)),
            Err(Status::ReservationRefused),
            "fourth of the ASN"
        );
        assert_eq!(state.reserve(now, peer(4), Origin::default()), Ok(()));
        assert_eq!(state.reserve(now, peer(5), at(4, 4)), Err(Status::ReservationRefused), "fifth in all");
        assert_eq!(state.reservations(), 4);
    }

    #[test]
    fn a_renewal_takes_no_second_place() {
        let (mut state, now) = (RelayState::new(small()), Instant::now());
        for _ in 0..100 {
            assert_eq!(state.reserve(now, peer(1), at(1, 1)), Ok(()));
        }
        assert_eq!(state.reservations(), 1);
        state.disconnected(peer(1));
        assert_eq!((state.reservations(), state.by_ip.0.len(), state.by_asn.0.len()), (0, 0, 0));
    }

    #[test]
    fn a_renewal_that_is_refused_leaves_the_reservation_to_its_end() {
        let (mut state, now) = (RelayState::new(small()), Instant::now());
        for seed in 1..=2 {
            state.reserve(now, peer(seed), at(1, 1)).unwrap();
        }
        state.reserve(now, peer(3), at(2, 2)).unwrap();
        // The peer has moved to where there is no place.
        assert_eq!(state.reserve(now, peer(3), at(1, 2)), Err(Status::ReservationRefused));
        assert_eq!(state.open(now, peer(9), peer(3)), Ok(()));
    }

    #[test]
    fn a_reservation_ends_with_its_time() {
        let (mut state, now) = (RelayState::new(small()), Instant::now());
        for seed in 1..=4 {
            state.reserve(now, peer(seed), Origin::default()).unwrap();
        }
        let end = now + small().reservation_ttl;
        assert_eq!(state.open(end - Duration::from_secs(1), peer(9), peer(1)), Ok(()));
        assert_eq!(state.open(end, peer(9), peer(1)), Err(Status::NoReservation));
        // The places are free without anybody having swept.
        assert_eq!(state.reserve(end, peer(5), Origin::default()), Ok(()));
        assert_eq!(state.reservations(), 1);
    }

    #[test]
    fn circuits_are_bounded_in_all_and_for_both_ends() {
        let (mut state, now) = (RelayState::new(small()), Instant::now());
        for seed in 1..=3 {
            state.reserve(now, peer(seed), Origin::default()).unwrap();
        }
        assert_eq!(state.open(now, peer(9), peer(8)), Err(Status::NoReservation));
        assert_eq!(state.open(now, peer(1), peer(1)), Err(Status::PermissionDenied));
        assert_eq!(state.open(now, peer(9), peer(1)), Ok(()));
        assert_eq!(state.open(now, peer(9), peer(2)), Ok(()));
        assert_eq!(
            state.open(now, peer(9), peer(3)),
            Err(Status::ResourceLimitExceeded),
            "third of the source"
        );
        assert_eq!(state.open(now, peer(8), peer(1)), Ok(()));
        assert_eq!(state.open(now, peer(7), peer(2)), Err(Status::ResourceLimitExceeded), "fourth in all");
        state.close(peer(9), peer(2));
        assert_eq!(state.open(now, peer(7), peer(1)), Err(Status::ResourceLimitExceeded), "third to it");
        state.close(peer(9), peer(1));
        state.close(peer(8), peer(1));
        assert_eq!((state.circuits(), state.circuits_of.0.len()), (0, 0));
    }

    proptest! {
        #[test]
        fn no_sequence_of_requests_passes_a_limit_or_leaves_anything_behind(
            requests in prop::collection::vec((0..4u8, 0..10u8, 0..10u8, 0..5u8), 0..200)
        ) {
            let (mut state, mut now) = (RelayState::new(small()), Instant::now());
            let mut open = Vec::new();
            for (kind, one, other, ip) in requests {
                match kind {
                    0 => _ = state.reserve(now, peer(one), at(ip, (ip / 2).into())),
                    1 => state.disconnected(peer(one)),
                    2 if state.open(now, peer(one), peer(other)).is_ok() => open.push((one, other)),
                    _ => now += Duration::from_secs(u64::from(ip) * 400),
                }
                prop_assert!(state.reservations() <= 4 && state.circuits() <= 3);
                prop_assert!(state.by_ip.0.values().all(|count| (1..=2).contains(count)));
                prop_assert!(state.by_asn.0.values().all(|count| (1..=3).contains(count)));
                prop_assert!(state.circuits_of.0.values().all(|count| (1..=2).contains(count)));
            }
            for (one, other) in open {
                state.close(peer(one), peer(other));
            }
            state.sweep(now + small().reservation_ttl);
            let left = (state.reservations(), state.by_ip.0.len(), state.by_asn.0.len(), state.circuits_of.0.len());
            prop_assert_eq!(left, (0, 0, 0, 0));
        }
    }
}
