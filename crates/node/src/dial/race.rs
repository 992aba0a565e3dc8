//! When each address of a peer is dialed: best first, the others a little later, or as soon as one has failed
//! (RFC 8305 in spirit). It says when; its caller dials.
//!
//! However many addresses lead nowhere, every direct one is being dialed [`ATTEMPT_DELAY`] after the first, as far as the
//! budget goes and unless it shares a socket with another. So a dial takes at most that much longer than the best address
//! alone.

use std::time::Duration;

use peerloom_core::{Multiaddr, runtime::Instant};

use super::ranking::{
    Rank, insert_by_rank, is_page_to_page, is_private, is_web_transport, quic_of_web_transport, share_socket,
};

/// Within that time after the first address all are tried (RFC 8305, "Connection Attempt Delay").
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// What the best address has for itself. The others follow each other in what is left: the one that answers first has ended the
/// race before the next is through with its handshake.
pub(super) const FIRST_DELAY: Duration = Duration::from_millis(200);

/// What an address has for itself before another one at the same socket is tried, because what swallows the one is likely to
/// swallow the other.
const SAME_SOCKET_DELAY: Duration = Duration::from_secs(1);

/// The delay before a way through a relay: a direct connection that comes a moment later is worth the wait.
const RELAY_DELAY: Duration = Duration::from_millis(500);

/// The same after an address that takes several round trips over a relay before it can answer at all.
const PAGE_TO_PAGE_DELAY: Duration = Duration::from_secs(5);

/// Of the attempts for one peer, those over WebTransport. Chromium counts failed sessions for a while as pending ones and has
/// room for few.
const CONCURRENT_WEB_TRANSPORT: usize = 3;

/// How long an attempt may stay without an answer if others wait for its place.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// The dials of one peer's addresses, of which the first to succeed ends the rest.
#[derive(Debug)]
pub(super) struct Race {
    /// Addresses within private networks have a lane of their own: where they work they answer at once, and where they do
    /// not they hold up nothing.
    lanes: [Lane; 2],
    known: Vec<Multiaddr>,
    /// In the order of their start.
    running: Vec<(Attempt, Instant)>,
    limit: usize,
    at_once: usize,
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
    /// The one started last, and when.
    last: Option<(Multiaddr, Instant)>,
    /// When the first one of its kind, direct or not, was started.
    since: Option<Instant>,
    /// Whether the next need not wait, because one has failed.
    hurried: bool,
}

impl Race {
    /// A race over at most `limit` addresses, `at_once` of them at a time.
    pub(super) fn new(limit: usize, at_once: usize) -> Self {
        let (known, running) = (Vec::new(), Vec::new());
        Self { lanes: Default::default(), known, running, limit, at_once: at_once.max(1) }
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

    /// Whether nothing is left to be dialed, and nothing under way.
    pub(super) fn is_over(&self) -> bool {
        self.running.is_empty() && self.lanes.iter().all(|lane| lane.waiting.is_empty())
    }

    /// The address that is due, if one is.
    pub(super) fn next(&self, now: Instant) -> Option<&Multiaddr> {
        let (lane, at) = self.due(now)?;
        self.lanes.get(lane)?.waiting.get(at).map(|(address, _)| address)
    }

    /// Takes the address that is due.
    pub(super) fn start(&mut self, now: Instant) -> Option<Attempt> {
        let (index, at) = self.due(now)?;
        let attempt = Attempt { address: self.lanes.get_mut(index)?.start(at, now), lane: index };
        self.running.push((attempt.clone(), now));
        Some(attempt)
    }

    /// When to ask again, if no attempt fails before.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let starts = self.lanes.iter().filter_map(|lane| self.next_of(lane)?.1);
        let patience = self.impeding().and_then(|(_, started)| started.checked_add(PATIENCE));
        starts.chain(patience).min()
    }

    /// An attempt that is to be given up for another's sake. It is to be given back as failed.
    pub(super) fn overdue(&self, now: Instant) -> Option<&Attempt> {
        let (attempt, started) = self.impeding()?;
        (now.saturating_duration_since(*started) >= PATIENCE).then_some(attempt)
    }

    /// An attempt came to nothing, so that another need not wait for it.
    pub(super) fn failed(&mut self, attempt: &Attempt) {
        self.running.retain(|(other, _)| other != attempt);
        let is_last = !self.running.iter().any(|(other, _)| other.lane == attempt.lane);
        let Some(lane) = self.lanes.get_mut(attempt.lane) else { return };
        // But a relay is no better than a direct connection that may still come.
        let next_is_relayed = lane.waiting.first().is_some_and(|(address, _)| address.is_relayed());
        lane.hurried |= is_last || !next_is_relayed;
    }

    /// The lane, and the place in it, of the address that is due.
    fn due(&self, now: Instant) -> Option<(usize, usize)> {
        self.lanes.iter().enumerate().find_map(|(index, lane)| {
            let (at, due) = self.next_of(lane)?;
            due.is_none_or(|due| due <= now).then_some((index, at))
        })
    }

    /// The place of the lane's next address, and when it may be dialed; `None` is at once.
    fn next_of(&self, lane: &Lane) -> Option<(usize, Option<Instant>)> {
        if self.running.len() >= self.at_once {
            return None;
        }
        let has_all_web_transport = self.has_all_web_transport();
        let (mut fresh, mut delayed) = (Vec::new(), None);
        for (at, (address, _)) in lane.waiting.iter().enumerate() {
            if has_all_web_transport && is_web_transport(address) {
                continue;
            }
            match self.at_same_socket(address) {
                None => fresh.push((at, address)),
                Some(started) => {
                    let due = started.checked_add(SAME_SOCKET_DELAY)?;
                    if delayed.is_none_or(|(_, earliest)| due < earliest) {
                        delayed = Some((at, due));
                    }
                }
            }
        }
        let fresh = fresh.first().map(|(at, next)| {
            let alike = fresh.iter().filter(|(_, other)| other.is_relayed() == next.is_relayed()).count();
            (*at, lane.due(next, alike))
        });
        match (fresh, delayed) {
            (Some((_, Some(due))), Some((at, earlier))) if earlier < due => Some((at, Some(earlier))),
            (Some(fresh), _) => Some(fresh),
            (None, delayed) => delayed.map(|(at, due)| (at, Some(due))),
        }
    }

    /// When the last attempt at the same socket began, if one is under way.
    fn at_same_socket(&self, address: &Multiaddr) -> Option<Instant> {
        let mut latest_first = self.running.iter().rev();
        latest_first.find(|(attempt, _)| share_socket(&attempt.address, address)).map(|(_, started)| *started)
    }

    fn has_all_web_transport(&self) -> bool {
        self.running.iter().filter(|(attempt, _)| is_web_transport(&attempt.address)).count()
            >= CONCURRENT_WEB_TRANSPORT
    }

    /// The oldest attempt whose place another address waits for.
    fn impeding(&self) -> Option<&(Attempt, Instant)> {
        let mut waiting = self.lanes.iter().flat_map(|lane| &lane.waiting);
        if self.running.len() >= self.at_once {
            return waiting.next().and_then(|_| self.running.first());
        }
        let waits = self.has_all_web_transport() && waiting.any(|(address, _)| is_web_transport(address));
        self.running.iter().find(|(attempt, _)| waits && is_web_transport(&attempt.address))
    }
}

impl Lane {
    /// When `next`, the best of `alike` addresses that are waiting, may be dialed; `None` is at once.
    fn due(&self, next: &Multiaddr, alike: usize) -> Option<Instant> {
        let ((last, started), since) = (self.last.as_ref()?, self.since?);
        if self.hurried || last.is_relayed() && !next.is_relayed() {
            return None;
        }
        if is_page_to_page(last) {
            return started.checked_add(PAGE_TO_PAGE_DELAY);
        }
        if next.is_relayed() && !last.is_relayed() {
            return started.checked_add(RELAY_DELAY);
        }
        let first = since.checked_add(FIRST_DELAY)?;
        if *started == since {
            return Some(first);
        }
        let left = since.checked_add(ATTEMPT_DELAY)?.saturating_duration_since(*started);
        let step = left.checked_div(u32::try_from(alike).unwrap_or(u32::MAX))?;
        started.checked_add(step).max(Some(first))
    }

    fn start(&mut self, at: usize, now: Instant) -> Multiaddr {
        let (address, _) = self.waiting.remove(at);
        let is_of_kind =
            self.last.as_ref().is_some_and(|(last, _)| last.is_relayed() == address.is_relayed());
        if !is_of_kind {
            self.since = Some(now);
        }
        self.last = Some((address.clone(), now));
        self.hurried = false;
        address
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn race(addresses: &[&str]) -> Race {
        let mut race = Race::new(16, 8);
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
    const WS: &str = "/ip4/1.2.3.4/tcp/2/ws";
    const WEBRTC: &str = "/ip4/1.2.3.4/udp/2/webrtc-direct";
    const RELAYED: &str = "/ip4/5.6.7.8/tcp/1/p2p-circuit";

    #[test]
    fn the_best_address_has_a_start_and_all_follow_within_one_delay() {
        let mut race = race(&[WS, TCP, QUIC, WEBRTC]);
        let begin = Instant::now();
        let mut now = begin;
        let mut starts = Vec::new();
        while !race.lanes.iter().all(|lane| lane.waiting.is_empty()) {
            let attempts = texts(&started(&mut race, now));
            starts.extend(attempts.into_iter().map(|address| (address, (now - begin).as_millis())));
            now = race.deadline().unwrap_or(now);
        }
        let expected = [(QUIC, 0), (TCP, 200), (WS, 225), (WEBRTC, 250)];
        assert_eq!(starts, expected.map(|(address, at)| (address.to_owned(), at)));
        assert_eq!(race.deadline(), None);
    }

    #[test]
    fn where_there_is_one_other_address_it_need_not_be_put_off() {
        let mut race = race(&[TCP, QUIC]);
        let now = Instant::now();
        assert_eq!(texts(&started(&mut race, now)), [QUIC]);
        assert_eq!(race.deadline(), Some(now + FIRST_DELAY));
    }

    #[test]
    fn what_shares_a_socket_shares_its_fate_and_waits_for_longer() {
        let same_socket = ["/ip4/1.2.3.4/udp/1/webrtc-direct", "/ip4/1.2.3.4/tcp/1/ws"];
        let mut race = race(&[QUIC, TCP, same_socket[0], same_socket[1]]);
        let begin = Instant::now();
        let quic = started(&mut race, begin);
        assert_eq!(texts(&quic), [QUIC]);
        let later = begin + ATTEMPT_DELAY;
        let tcp = started(&mut race, later);
        assert_eq!(texts(&tcp), [TCP]);
        assert_eq!(race.deadline(), Some(begin + SAME_SOCKET_DELAY));
        assert_eq!(texts(&started(&mut race, begin + SAME_SOCKET_DELAY)), [same_socket[0]]);
        // Where the port says no, the other protocol may still be tried.
        race.failed(&tcp[0]);
        assert_eq!(texts(&started(&mut race, begin + SAME_SOCKET_DELAY)), [same_socket[1]]);
    }

    #[test]
    fn failures_on_the_way_do_not_put_off_the_rest() {
        let mut race = race(&[WS, TCP, QUIC]);
        let begin = Instant::now();
        let quic = started(&mut race, begin);
        let later = begin + ATTEMPT_DELAY / 2;
        race.failed(&quic[0]);
        assert_eq!(texts(&started(&mut race, later)), [TCP]);
        assert_eq!(race.deadline(), Some(begin + ATTEMPT_DELAY));
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
        assert_eq!(texts(&started(&mut race, now + FIRST_DELAY)), [QUIC]);
    }

    #[test]
    fn few_addresses_are_dialed_at_a_time_and_few_are_taken() {
        let mut race = Race::new(16, 8);
        for port in 1..100 {
            race.add(format!("/ip4/1.2.3.4/tcp/{port}").parse().unwrap(), false);
        }
        let mut now = Instant::now();
        let mut running = started(&mut race, now);
        for _ in 0..1000 {
            now += Duration::from_millis(1);
            running.extend(started(&mut race, now));
        }
        assert_eq!(running.len(), 8);
        let mut all = running.len();
        while let Some(attempt) = running.pop() {
            race.failed(&attempt);
            let more = started(&mut race, now);
            all += more.len();
            running.extend(more);
        }
        assert_eq!(all, 16);
        assert!(race.is_over());
    }

    #[test]
    fn attempts_without_an_answer_give_way_to_addresses_that_wait() {
        let mut race = Race::new(16, 2);
        for address in [QUIC, TCP, WS] {
            race.add(address.parse().unwrap(), false);
        }
        let begin = Instant::now();
        assert_eq!(texts(&started(&mut race, begin)), [QUIC]);
        assert_eq!(texts(&started(&mut race, begin + ATTEMPT_DELAY)), [TCP]);
        assert_eq!(race.deadline(), Some(begin + PATIENCE));
        assert_eq!(race.overdue(begin + PATIENCE / 2), None);
        let late = begin + PATIENCE;
        let quic = race.overdue(late).unwrap().clone();
        assert_eq!(quic.address.to_string(), QUIC);
        race.failed(&quic);
        assert_eq!(texts(&started(&mut race, late)), [WS]);
        // Nobody waits for their places.
        assert_eq!(race.overdue(late + PATIENCE), None);
    }

    #[test]
    fn few_sessions_of_web_transport_are_tried_at_a_time_and_hold_up_nothing_else() {
        let mut race = Race::new(16, 8);
        for host in 1..=5 {
            race.add(format!("/ip4/1.2.3.{host}/udp/1/quic-v1/webtransport").parse().unwrap(), false);
        }
        race.add(WS.parse().unwrap(), false);
        let begin = Instant::now();
        let mut attempts = started(&mut race, begin);
        for millis in 1..1000 {
            attempts.extend(started(&mut race, begin + Duration::from_millis(millis)));
        }
        let is_web_transport = |text: &&String| text.ends_with("webtransport");
        let running = texts(&attempts);
        assert_eq!(running.iter().filter(is_web_transport).count(), CONCURRENT_WEB_TRANSPORT);
        assert!(running.contains(&WS.to_owned()));
        let late = begin + PATIENCE + ATTEMPT_DELAY;
        let oldest = race.overdue(late).unwrap().clone();
        assert_eq!(oldest, attempts[0]);
        race.failed(&oldest);
        assert_eq!(texts(&started(&mut race, late)), ["/ip4/1.2.3.4/udp/1/quic-v1/webtransport"]);
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
