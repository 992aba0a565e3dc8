//! What became of addresses that were dialed: which of them, and which kinds, are not worth being first again for a while.
//!
//! Doubt never forbids a dial. It puts an address after those that nothing speaks against, so that a peer of which nothing else
//! is known is still tried when its user asks for it.

use std::{collections::BTreeMap, time::Duration};

use peerloom_core::{Multiaddr, Protocol, runtime::Instant};

use super::ranking::is_private;

/// Addresses whose failures are remembered; the one that failed first makes room.
const MAX_FAILED: usize = 1024;

/// How long an address is doubtful after its first failure; doubled with each further one.
const FIRST_BACK_OFF: Duration = Duration::from_secs(5);
const LONGEST_BACK_OFF: Duration = Duration::from_secs(300);

/// Hosts that a kind of address has to be silent at, and no success between them, until the network is taken for one that
/// swallows it: a single dead peer says nothing.
const SILENT_HOSTS: usize = 5;

/// How long such a kind is doubtful until an address of it is tried first again; doubled each time that it stays silent.
const FIRST_PROBE: Duration = Duration::from_secs(60);
const LONGEST_PROBE: Duration = Duration::from_secs(3600);

/// What became of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Connected,
    /// Somebody said no.
    Refused,
    /// Nobody said anything.
    Silent,
}

/// The failures of a node's dials.
#[derive(Debug, Default)]
pub(crate) struct History {
    failed: BTreeMap<Multiaddr, Failure>,
    udp: BlackHole,
    ip6: BlackHole,
}

#[derive(Debug, Clone, Copy)]
struct Failure {
    at: Instant,
    back_off: Duration,
}

impl History {
    pub(super) fn record(&mut self, address: &Multiaddr, outcome: Outcome, now: Instant) {
        for black_hole in self.kinds(address) {
            match outcome {
                Outcome::Connected => *black_hole = BlackHole::default(),
                Outcome::Silent => black_hole.silent(address, now),
                Outcome::Refused => {}
            }
        }
        if outcome == Outcome::Connected {
            self.failed.remove(address);
            return;
        }
        let back_off = match self.failed.get(address) {
            Some(failure) => failure.back_off.saturating_mul(2).min(LONGEST_BACK_OFF),
            None => FIRST_BACK_OFF,
        };
        if self.failed.len() >= MAX_FAILED && !self.failed.contains_key(address) {
            let oldest =
                self.failed.iter().min_by_key(|(_, failure)| failure.at).map(|(address, _)| address.clone());
            oldest.and_then(|oldest| self.failed.remove(&oldest));
        }
        self.failed.insert(address.clone(), Failure { at: now, back_off });
    }

    /// Whether others are to be tried before this one.
    pub(super) fn is_doubtful(&mut self, address: &Multiaddr, now: Instant) -> bool {
        let failed = self.failed.get(address);
        if failed.is_some_and(|failure| now.saturating_duration_since(failure.at) < failure.back_off) {
            return true;
        }
        self.kinds(address).any(|black_hole| black_hole.swallows(now))
    }

    /// What the address shares its fate with. Private networks and relays do not take part: they tell nothing of the way out.
    fn kinds(&mut self, address: &Multiaddr) -> impl Iterator<Item = &mut BlackHole> {
        let is_public = !is_private(address) && !address.is_relayed();
        let udp = is_public && address.protocols().any(|protocol| matches!(protocol, Protocol::Udp(_)));
        let ip6 =
            is_public && matches!(address.protocols().next(), Some(Protocol::Ip6(_) | Protocol::Dns6(_)));
        let udp = udp.then_some(&mut self.udp);
        udp.into_iter().chain(ip6.then_some(&mut self.ip6))
    }
}

/// A network that swallows what is sent to one kind of address.
#[derive(Debug, Default)]
struct BlackHole {
    /// Hosts that did not answer since the last one that did.
    silent: Vec<Multiaddr>,
    next_probe: Option<(Instant, Duration)>,
}

impl BlackHole {
    fn silent(&mut self, address: &Multiaddr, now: Instant) {
        let host = Multiaddr::from_protocols(address.protocols().take(1));
        if self.silent.len() < SILENT_HOSTS && !self.silent.contains(&host) {
            self.silent.push(host);
        }
        if self.silent.len() < SILENT_HOSTS {
            return;
        }
        let wait = match self.next_probe {
            None => FIRST_PROBE,
            // One of those that were on their way when the probe had not yet answered.
            Some((at, _)) if now < at => return,
            Some((_, wait)) => wait.saturating_mul(2).min(LONGEST_PROBE),
        };
        self.next_probe = now.checked_add(wait).map(|at| (at, wait));
    }

    fn swallows(&self, now: Instant) -> bool {
        self.next_probe.is_some_and(|(at, _)| now < at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quic(host: u8) -> Multiaddr {
        format!("/ip4/1.2.3.{host}/udp/1/quic-v1").parse().unwrap()
    }

    #[test]
    fn an_address_that_failed_is_doubtful_for_longer_each_time() {
        let mut history = History::default();
        let mut now = Instant::now();
        let address: Multiaddr = "/ip4/1.2.3.4/tcp/1".parse().unwrap();
        for seconds in [5, 10, 20, 40, 80, 160, 300, 300] {
            history.record(&address, Outcome::Refused, now);
            assert!(history.is_doubtful(&address, now + Duration::from_secs(seconds - 1)));
            now += Duration::from_secs(seconds);
            assert!(!history.is_doubtful(&address, now));
        }
        history.record(&address, Outcome::Connected, now);
        history.record(&address, Outcome::Refused, now);
        assert!(!history.is_doubtful(&address, now + FIRST_BACK_OFF));
    }

    #[test]
    fn a_network_that_swallows_udp_is_found_out_and_probed_again() {
        let mut history = History::default();
        let mut now = Instant::now();
        for host in 0..SILENT_HOSTS as u8 {
            assert!(!history.is_doubtful(&quic(100), now));
            history.record(&quic(host), Outcome::Silent, now);
        }
        assert!(history.is_doubtful(&quic(100), now));
        assert!(!history.is_doubtful(&"/ip4/1.2.3.4/tcp/1".parse().unwrap(), now));
        assert!(!history.is_doubtful(&"/ip4/192.168.0.1/udp/1/quic-v1".parse().unwrap(), now));
        now += FIRST_PROBE;
        assert!(!history.is_doubtful(&quic(100), now));
        history.record(&quic(100), Outcome::Silent, now);
        assert!(history.is_doubtful(&quic(101), now + FIRST_PROBE));
        now += FIRST_PROBE * 2;
        assert!(!history.is_doubtful(&quic(101), now));
        history.record(&quic(101), Outcome::Connected, now);
        history.record(&quic(102), Outcome::Silent, now);
        assert!(!history.is_doubtful(&quic(103), now));
    }

    #[test]
    fn one_dead_peer_is_no_black_hole() {
        let mut history = History::default();
        let now = Instant::now();
        for port in 1..100 {
            let address = format!("/ip4/1.2.3.4/udp/{port}/quic-v1").parse().unwrap();
            history.record(&address, Outcome::Silent, now);
        }
        assert!(!history.is_doubtful(&quic(1), now));
    }

    #[test]
    fn endless_failures_take_bounded_memory() {
        let mut history = History::default();
        let now = Instant::now();
        for port in 0..=u16::MAX / 8 {
            let address = format!("/ip4/1.2.3.4/tcp/{port}").parse().unwrap();
            history.record(&address, Outcome::Refused, now + Duration::from_millis(u64::from(port)));
        }
        assert_eq!(history.failed.len(), MAX_FAILED);
    }
}
