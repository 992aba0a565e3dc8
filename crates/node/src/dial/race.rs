//! When each address of a peer is dialed: best first, each a little after the one before, or as soon as that has failed
//! (RFC 8305 in spirit). It says when; its caller dials.

use std::time::Duration;

use peerloom_core::{Multiaddr, runtime::Instant};

use super::ranking::{Rank, insert_by_rank, is_page_to_page, is_private, quic_of_web_transport};

/// How long an address has before the next one is tried beside it (RFC 8305, "Connection Attempt Delay").
pub(super) const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// The same before a way through a relay: a direct connection that comes a moment later is worth the wait.
const RELAY_DELAY: Duration = Duration::from_millis(500);

/// The same after an address that takes several round trips over a relay before it can answer at all.
const PAGE_TO_PAGE_DELAY: Duration = Duration::from_secs(5);

/// Addresses of one peer dialed at a time: enough that silent ones do not hold up the rest, and no burst of packets for a peer
/// that names many.
const CONCURRENT_ATTEMPTS: usize = 4;

/// The dials of one peer's addresses, of which the first to succeed ends the rest.
#[derive(Debug)]
pub(super) struct Race {
    /// Addresses within private networks have a lane of their own: where they work they answer at once, and where they do
    /// not they hold up nothing.
    lanes: [Lane; 2],
    known: Vec<Multiaddr>,
    limit: usize,
}

/// An address to dial now; to be given back to [`Race::failed`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Attempt {
    pub(super) address: Multiaddr,
    lane: usize,
}

#[derive(Debug, Default)]
struct Lane {
    /// The best is first.
    waiting: Vec<(Multiaddr, Rank)>,
    running: usize,
    /// The one started last, and when, unless the next need not wait for it.
    last: Option<(Multiaddr, Instant)>,
}

impl Race {
    /// A race over at most `limit` addresses.
    pub(super) fn new(limit: usize) -> Self {
        Self { lanes: Default::default(), known: Vec::new(), limit }
    }

    /// Adds an address, also in the middle of the race. `doubtful` ones come last.
    pub(super) fn add(&mut self, address: Multiaddr, doubtful: bool) {
        if self.known.len() >= self.limit || self.known.contains(&address) {
            return;
        }
        if quic_of_web_transport(&address).is_some_and(|quic| self.known.contains(&quic)) {
            return;
        }
        for lane in &mut self.lanes {
            lane.waiting.retain(|(other, _)| quic_of_web_transport(other).as_ref() != Some(&address));
        }
        self.known.push(address.clone());
        let rank = Rank::of(&address, doubtful);
        let lane = usize::from(is_private(&address) && !address.is_relayed());
        if let Some(lane) = self.lanes.get_mut(lane) {
            insert_by_rank(&mut lane.waiting, (address, rank), |(_, rank)| *rank);
        }
    }

    pub(super) fn knows(&self, address: &Multiaddr) -> bool {
        self.known.contains(address)
    }

    /// The next address that is due.
    pub(super) fn start(&mut self, now: Instant) -> Option<Attempt> {
        if self.running() >= CONCURRENT_ATTEMPTS {
            return None;
        }
        let (index, lane) = self
            .lanes
            .iter_mut()
            .enumerate()
            .find(|(_, lane)| lane.due().is_some_and(|due| due <= Some(now)))?;
        let (address, _) = lane.waiting.remove(0);
        lane.running = lane.running.saturating_add(1);
        lane.last = Some((address.clone(), now));
        Some(Attempt { address, lane: index })
    }

    /// When to call [`start`](Self::start) again, if no attempt fails before.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match self.running() >= CONCURRENT_ATTEMPTS {
            true => None,
            false => self.lanes.iter().filter_map(Lane::due).flatten().min(),
        }
    }

    /// An attempt came to nothing, so that another need not wait for it.
    pub(super) fn failed(&mut self, attempt: &Attempt) {
        let Some(lane) = self.lanes.get_mut(attempt.lane) else { return };
        lane.running = lane.running.saturating_sub(1);
        // But a relay is no better than a direct connection that may still come.
        let next_is_relayed = lane.waiting.first().is_some_and(|(address, _)| address.is_relayed());
        if lane.running == 0 || !next_is_relayed {
            lane.last = None;
        }
    }

    pub(super) fn running(&self) -> usize {
        self.lanes.iter().map(|lane| lane.running).sum()
    }
}

impl Lane {
    /// When the next address may be dialed, if there is one; `Some(None)` is at once.
    fn due(&self) -> Option<Option<Instant>> {
        let (next, _) = self.waiting.first()?;
        let Some((last, started)) = &self.last else { return Some(None) };
        let delay = match (is_page_to_page(last), next.is_relayed() && !last.is_relayed()) {
            (true, _) => PAGE_TO_PAGE_DELAY,
            (false, true) => RELAY_DELAY,
            (false, false) => ATTEMPT_DELAY,
        };
        Some(started.checked_add(delay))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn race(addresses: &[&str]) -> Race {
        let mut race = Race::new(16);
        for address in addresses {
            race.add(address.parse().unwrap(), false);
        }
        race
    }

    /// What is started at `now`.
    fn started(race: &mut Race, now: Instant) -> Vec<Attempt> {
        std::iter::from_fn(|| race.start(now)).collect()
    }

    fn texts(attempts: &[Attempt]) -> Vec<String> {
        attempts.iter().map(|attempt| attempt.address.to_string()).collect()
    }

    const QUIC: &str = "/ip4/1.2.3.4/udp/1/quic-v1";
    const TCP: &str = "/ip4/1.2.3.4/tcp/1";
    const WS: &str = "/ip4/1.2.3.4/tcp/1/ws";
    const RELAYED: &str = "/ip4/5.6.7.8/tcp/1/p2p-circuit";

    #[test]
    fn each_address_waits_for_the_one_before() {
        let mut race = race(&[WS, TCP, QUIC]);
        let mut now = Instant::now();
        for expected in [QUIC, TCP, WS] {
            assert_eq!(texts(&started(&mut race, now)), [expected]);
            now = race.deadline().unwrap_or(now + ATTEMPT_DELAY);
        }
        assert!(started(&mut race, now).is_empty());
        assert_eq!(race.deadline(), None);
    }

    #[test]
    fn a_failure_brings_the_next_forward() {
        let mut race = race(&[TCP, QUIC]);
        let now = Instant::now();
        let first = started(&mut race, now);
        race.failed(&first[0]);
        assert_eq!(texts(&started(&mut race, now)), [TCP]);
    }

    #[test]
    fn a_relay_waits_for_direct_attempts_that_still_run() {
        let mut race = race(&[RELAYED, TCP, QUIC]);
        let now = Instant::now();
        let quic = started(&mut race, now);
        let later = now + ATTEMPT_DELAY;
        let tcp = started(&mut race, later);
        race.failed(&quic[0]);
        assert!(started(&mut race, later).is_empty());
        assert_eq!(race.deadline(), Some(later + RELAY_DELAY));
        race.failed(&tcp[0]);
        assert_eq!(texts(&started(&mut race, later)), [RELAYED]);
    }

    #[test]
    fn private_addresses_hold_up_nothing() {
        let mut race = race(&["/ip4/172.17.0.1/tcp/1", "/ip4/10.0.0.1/tcp/1", TCP]);
        let now = Instant::now();
        assert_eq!(texts(&started(&mut race, now)), [TCP, "/ip4/172.17.0.1/tcp/1"]);
        assert_eq!(texts(&started(&mut race, now + ATTEMPT_DELAY)), ["/ip4/10.0.0.1/tcp/1"]);
    }

    #[test]
    fn a_better_address_that_comes_late_is_next() {
        let mut race = race(&[TCP, WS]);
        let now = Instant::now();
        assert_eq!(texts(&started(&mut race, now)), [TCP]);
        race.add(QUIC.parse().unwrap(), false);
        assert_eq!(texts(&started(&mut race, now + ATTEMPT_DELAY)), [QUIC]);
    }

    #[test]
    fn few_addresses_are_dialed_at_a_time_and_few_are_taken() {
        let mut race = Race::new(16);
        for port in 1..100 {
            race.add(format!("/ip4/1.2.3.4/tcp/{port}").parse().unwrap(), false);
        }
        let mut now = Instant::now();
        let mut running = Vec::new();
        while running.len() < CONCURRENT_ATTEMPTS {
            running.extend(started(&mut race, now));
            now += ATTEMPT_DELAY;
        }
        assert!(started(&mut race, now).is_empty());
        assert_eq!(race.deadline(), None);
        let mut all = running.len();
        while let Some(attempt) = running.pop() {
            race.failed(&attempt);
            let more = started(&mut race, now);
            all += more.len();
            running.extend(more);
        }
        assert_eq!(all, 16);
    }

    #[test]
    fn web_transport_is_left_out_beside_quic_on_the_same_socket() {
        let web_transport =
            ["/ip4/1.2.3.4/udp/1/quic-v1/webtransport", "/ip4/1.2.3.4/udp/2/quic-v1/webtransport"];
        let mut race = race(&[web_transport[0], QUIC, web_transport[0], web_transport[1]]);
        let now = Instant::now();
        let mut all = started(&mut race, now);
        all.extend(started(&mut race, now + ATTEMPT_DELAY));
        assert_eq!(texts(&all), [QUIC, "/ip4/1.2.3.4/udp/2/quic-v1/webtransport"]);
    }
}
