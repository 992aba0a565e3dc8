//! Whom to ask about which address, when, and what to make of the answers.
//!
//! An address has a verdict once two networks more say the one than the other (three, if none of them speaks version 2). Each
//! network has one vote, its last. A verdict is checked again every hour, in turn by those who gave it; a contrary answer
//! leads to more questions. Where a transport's address was reached, others on the same port count as reached, too: what
//! servers fail to dial there they do not speak.

use std::{collections::BTreeMap, time::Duration};

use peerloom_core::{Multiaddr, PeerId, Protocol, runtime::Instant};
use peerloom_node::Reachability;

use crate::network::Network;

/// Addresses of this node that are tested; further ones stay unknown.
pub const MAX_TESTED_ADDRESSES: usize = 64;
/// Servers that may be asked; further ones are not.
pub const MAX_SERVERS: usize = 64;
/// Addresses in one request. Servers dial the first that they can, so most of them are for nothing.
const ADDRESSES_PER_REQUEST: usize = 10;
/// Networks whose vote about one address is kept; the oldest makes room. So few that new ones soon outweigh them.
const MAX_VOTES: usize = 4;
/// Who speaks version 1 only proves nothing.
const EXTRA_VOTES_OF_V1: usize = 1;

/// A peer that may be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// The peer.
    pub peer: PeerId,
    /// Where it is.
    pub address: Multiaddr,
    /// What it speaks.
    pub version: Version,
}

/// What a server speaks, the better one first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    /// `/libp2p/autonat/2/dial-request`
    V2,
    /// `/libp2p/autonat/1.0.0`
    V1,
}

/// A request to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// Of whom.
    pub server: PeerId,
    /// How.
    pub version: Version,
    /// About these addresses, the one that matters first.
    pub addresses: Vec<Multiaddr>,
    network: Network,
}

/// What came of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// This address was dialed, and reached or not.
    Dialed {
        /// The address.
        address: Multiaddr,
        /// Whether it was reached.
        reached: bool,
    },
    /// No address was dialed.
    Refused,
    /// Nothing of use.
    Failed,
}

/// When and how often to ask, and how many to believe.
#[derive(Debug, Clone)]
pub(crate) struct Schedule {
    /// Networks more that must say the one than the other.
    pub(crate) confidence: usize,
    /// How long a verdict holds before it is checked.
    pub(crate) recheck: Duration,
    /// Time between two requests to one server.
    pub(crate) server_interval: Duration,
    /// Until the same network is asked about the same address again, while there is no verdict.
    pub(crate) retry: Duration,
    /// From the moment at which an address is known until it is asked about; others may come together with it.
    pub(crate) delay: Duration,
}

/// The client's mind: who is asked what, and which addresses are reachable.
#[derive(Debug)]
pub struct Prober {
    schedule: Schedule,
    tested: BTreeMap<Multiaddr, Tested>,
    servers: BTreeMap<PeerId, Known>,
}

#[derive(Debug)]
struct Tested {
    votes: BTreeMap<Network, Vote>,
    /// Not before then.
    from: Instant,
    /// Networks that would not dial it, and until when they are not asked again.
    refused: BTreeMap<Network, Instant>,
    in_flight: bool,
    verdict: Reachability,
}

#[derive(Debug, Clone, Copy)]
struct Vote {
    reached: bool,
    at: Instant,
    version: Version,
}

impl Vote {
    fn agrees(&self, verdict: Reachability) -> bool {
        match verdict {
            Reachability::Reachable => self.reached,
            Reachability::Unreachable => !self.reached,
            Reachability::Unknown => false,
        }
    }
}

#[derive(Debug)]
struct Known {
    version: Version,
    network: Network,
    next: Instant,
    in_flight: bool,
}

impl Prober {
    pub(crate) fn new(schedule: Schedule) -> Self {
        Self { schedule, tested: BTreeMap::new(), servers: BTreeMap::new() }
    }

    /// These are the addresses to test now. What is known of others is forgotten.
    pub fn set_addresses(&mut self, addresses: impl IntoIterator<Item = Multiaddr>, now: Instant) {
        let mut before = std::mem::take(&mut self.tested);
        let from = now.checked_add(self.schedule.delay).unwrap_or(now);
        for address in addresses {
            if self.tested.len() >= MAX_TESTED_ADDRESSES {
                break;
            }
            let tested = before.remove(&address).unwrap_or_else(|| Tested::new(from));
            self.tested.insert(address, tested);
        }
    }

    /// A peer can be asked.
    pub fn add_server(&mut self, server: &Server, now: Instant) {
        let network = Network::of(&server.address, server.peer);
        if let Some(known) = self.servers.get_mut(&server.peer) {
            (known.version, known.network) = (server.version, network);
        } else if self.servers.len() < MAX_SERVERS {
            let known = Known { version: server.version, network, next: now, in_flight: false };
            self.servers.insert(server.peer, known);
        }
    }

    /// A peer can be asked no longer.
    pub fn remove_server(&mut self, peer: PeerId) {
        self.servers.remove(&peer);
    }

    /// The next request to make now; whoever asks for it makes it, and tells what came of it by [`done`](Self::done).
    pub fn next(&mut self, now: Instant) -> Option<Probe> {
        let (_, first, server) = self.due().find(|(at, _, _)| *at <= now)?;
        let first = first.clone();
        let Known { version, network, .. } = *self.servers.get(&server)?;
        let mut addresses = vec![first.clone()];
        // Whatever else there is to know: the server may be unable to dial the first.
        let others = self.tested.iter().filter(|(address, tested)| {
            **address != first
                && !tested.in_flight
                && self.asks(tested, network).is_some_and(|at| at <= now)
                && !self.is_reached_by_sibling(address)
        });
        addresses
            .extend(others.map(|(address, _)| address.clone()).take(ADDRESSES_PER_REQUEST.saturating_sub(1)));
        self.tested.get_mut(&first)?.in_flight = true;
        let known = self.servers.get_mut(&server)?;
        known.in_flight = true;
        known.next = now.checked_add(self.schedule.server_interval).unwrap_or(now);
        Some(Probe { server, version, addresses, network })
    }

    /// What came of a request. Returns the verdicts that are others now.
    pub fn done(&mut self, probe: &Probe, outcome: Outcome, now: Instant) -> Vec<(Multiaddr, Reachability)> {
        if let Some(server) = self.servers.get_mut(&probe.server) {
            server.in_flight = false;
        }
        let Some(first) = probe.addresses.first() else { return Vec::new() };
        if let Some(tested) = self.tested.get_mut(first) {
            tested.in_flight = false;
        }
        let again = now.checked_add(self.schedule.retry).unwrap_or(now);
        let dialed = match &outcome {
            Outcome::Dialed { address, .. } => probe.addresses.iter().find(|asked| *asked == address),
            Outcome::Refused | Outcome::Failed => None,
        };
        // The server has passed over those before the one that it has dialed.
        let passed = probe.addresses.iter().take_while(|address| Some(*address) != dialed);
        for address in passed.take(if outcome == Outcome::Failed { 1 } else { usize::MAX }) {
            if let Some(tested) = self.tested.get_mut(address) {
                if tested.refused.len() >= MAX_VOTES {
                    tested.refused.pop_first();
                }
                tested.refused.insert(probe.network, again);
            }
        }
        if let (Some(dialed), Outcome::Dialed { reached, .. }) = (dialed, outcome)
            && let Some(tested) = self.tested.get_mut(dialed)
        {
            tested.vote(probe.network, Vote { reached, at: now, version: probe.version });
        }
        self.judge(now)
    }

    /// When [`next`](Self::next) has something, unless something happens before.
    pub fn deadline(&self) -> Option<Instant> {
        self.due().map(|(at, _, _)| at).min()
    }

    /// For each address the server to ask next and when, those that are due first.
    fn due(&self) -> impl Iterator<Item = (Instant, &Multiaddr, PeerId)> {
        let mut due: Vec<_> = self
            .tested
            .iter()
            .filter(|(address, tested)| !tested.in_flight && !self.is_reached_by_sibling(address))
            .filter_map(|(address, tested)| {
                let asked = self.askable().filter_map(|(peer, known)| {
                    let at = self.asks(tested, known.network)?;
                    // Who has not voted yet, or whose vote is the oldest; and of these, who is free first.
                    let vote = tested.votes.get(&known.network).map(|vote| vote.at);
                    Some((at.max(known.next), vote, *peer))
                });
                let (at, _, peer) = asked.min()?;
                Some((at, rank(address), address, peer))
            })
            .collect();
        due.sort();
        due.into_iter().map(|(at, _, address, peer)| (at, address, peer))
    }

    /// Servers that are free: of version 2, if there is any.
    fn askable(&self) -> impl Iterator<Item = (&PeerId, &Known)> {
        let best = self.servers.values().map(|known| known.version).min();
        self.servers.iter().filter(move |(_, known)| !known.in_flight && Some(known.version) == best)
    }

    /// From when on that network is to be asked about that address; `None` if there is nothing to ask.
    fn asks(&self, tested: &Tested, network: Network) -> Option<Instant> {
        let mut from = tested.from;
        if let Some(refused) = tested.refused.get(&network) {
            from = from.max(*refused);
        }
        let newest = tested.votes.values().max_by_key(|vote| vote.at);
        let verdict = tested.verdict(&self.schedule);
        match newest.filter(|newest| newest.agrees(verdict)) {
            Some(newest) => Some(from.max(newest.at.checked_add(self.schedule.recheck)?)),
            None => match tested.votes.get(&network) {
                Some(own) => Some(from.max(own.at.checked_add(self.schedule.retry)?)),
                None => Some(from),
            },
        }
    }

    /// Whether another transport was reached on the same port.
    fn is_reached_by_sibling(&self, address: &Multiaddr) -> bool {
        let port: Vec<_> = address.protocols().take(2).collect();
        let is_sibling = |other: &Multiaddr| {
            other != address
                && rank(other) < rank(address)
                && other.protocols().take(2).eq(port.iter().cloned())
        };
        self.tested.iter().any(|(other, tested)| {
            is_sibling(other) && tested.verdict(&self.schedule) == Reachability::Reachable
        })
    }

    /// The verdicts that have changed.
    fn judge(&mut self, now: Instant) -> Vec<(Multiaddr, Reachability)> {
        let too_old = self.schedule.recheck.saturating_mul(4);
        for tested in self.tested.values_mut() {
            tested.votes.retain(|_, vote| now.saturating_duration_since(vote.at) < too_old);
        }
        let verdicts: Vec<_> = self
            .tested
            .iter()
            .map(|(address, tested)| match self.is_reached_by_sibling(address) {
                true => Reachability::Reachable,
                false => tested.verdict(&self.schedule),
            })
            .collect();
        let mut changed = Vec::new();
        for ((address, tested), verdict) in self.tested.iter_mut().zip(verdicts) {
            if std::mem::replace(&mut tested.verdict, verdict) != verdict {
                changed.push((address.clone(), verdict));
            }
        }
        changed
    }
}

impl Tested {
    fn new(from: Instant) -> Self {
        Self {
            votes: BTreeMap::new(),
            from,
            refused: BTreeMap::new(),
            in_flight: false,
            verdict: Reachability::Unknown,
        }
    }

    fn vote(&mut self, network: Network, vote: Vote) {
        if self.votes.len() >= MAX_VOTES && !self.votes.contains_key(&network) {
            let oldest = self.votes.iter().min_by_key(|(_, vote)| vote.at).map(|(network, _)| *network);
            oldest.map(|oldest| self.votes.remove(&oldest));
        }
        self.votes.insert(network, vote);
    }

    fn verdict(&self, schedule: &Schedule) -> Reachability {
        let reached = self.votes.values().filter(|vote| vote.reached).count();
        let missed = self.votes.len().saturating_sub(reached);
        let proved = self.votes.values().any(|vote| vote.version == Version::V2);
        let needed = schedule.confidence.saturating_add(if proved { 0 } else { EXTRA_VOTES_OF_V1 });
        match (reached.checked_sub(missed), missed.checked_sub(reached)) {
            (Some(more), _) if more >= needed => Reachability::Reachable,
            (_, Some(more)) if more >= needed => Reachability::Unreachable,
            _ => Reachability::Unknown,
        }
    }
}

/// What most servers speak comes first; the others on its port may depend on it.
fn rank(address: &Multiaddr) -> u8 {
    let rank = |protocol: Protocol<'_>| match protocol {
        Protocol::WebTransport => 1,
        Protocol::WebRtcDirect => 2,
        Protocol::Ws => 3,
        Protocol::Wss | Protocol::Tls => 4,
        _ => 0,
    };
    address.protocols().map(rank).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use peerloom_core::Keypair;
    use proptest::prelude::*;

    use super::*;

    const RECHECK: Duration = Duration::from_secs(3600);
    const RETRY: Duration = Duration::from_secs(600);
    const INTERVAL: Duration = Duration::from_secs(30);
    const DELAY: Duration = Duration::from_secs(2);

    fn prober() -> Prober {
        Prober::new(Schedule {
            confidence: 2,
            recheck: RECHECK,
            server_interval: INTERVAL,
            retry: RETRY,
            delay: DELAY,
        })
    }

    fn parse(address: &str) -> Multiaddr {
        address.parse().unwrap()
    }

    fn server_in(network: u8, number: u8, version: Version) -> Server {
        let peer = Keypair::from_seed([number; 32]).peer_id();
        Server { peer, address: parse(&format!("/ip4/30.0.{network}.{number}/tcp/1")), version }
    }

    fn server(number: u8) -> Server {
        server_in(number, number, Version::V2)
    }

    const QUIC: &str = "/ip4/20.0.0.1/udp/1/quic-v1";
    const WEB_TRANSPORT: &str = "/ip4/20.0.0.1/udp/1/quic-v1/webtransport";
    const TCP: &str = "/ip4/20.0.0.1/tcp/1";

    fn with(addresses: &[&str], servers: u8, now: Instant) -> Prober {
        let mut prober = prober();
        prober.set_addresses(addresses.iter().map(|address| parse(address)), now);
        for number in 1..=servers {
            prober.add_server(&server(number), now);
        }
        prober
    }

    fn dialed(address: &str, reached: bool) -> Outcome {
        Outcome::Dialed { address: parse(address), reached }
    }

    #[test]
    fn an_address_is_reachable_when_two_networks_say_so() {
        let start = Instant::now();
        let mut prober = with(&[QUIC], 3, start);
        assert_eq!((prober.next(start), prober.deadline()), (None, Some(start + DELAY)));
        let now = start + DELAY;
        let first = prober.next(now).unwrap();
        assert_eq!(first.addresses, [parse(QUIC)]);
        assert_eq!(prober.next(now), None, "one at a time about one address");
        assert_eq!(prober.done(&first, dialed(QUIC, true), now), []);
        let second = prober.next(now).unwrap();
        assert_ne!(first.server, second.server);
        assert_eq!(prober.done(&second, dialed(QUIC, true), now), [(parse(QUIC), Reachability::Reachable)]);
        assert_eq!((prober.next(now), prober.deadline()), (None, Some(now + RECHECK)));
    }

    #[test]
    fn an_address_that_becomes_unreachable_is_found_out() {
        let now = Instant::now() + DELAY;
        let mut prober = with(&[QUIC], 2, now - DELAY);
        for _ in 0..2 {
            let probe = prober.next(now).unwrap();
            prober.done(&probe, dialed(QUIC, true), now);
        }
        let later = now + RECHECK;
        let probe = prober.next(later).unwrap();
        assert_eq!(prober.done(&probe, dialed(QUIC, false), later), [(parse(QUIC), Reachability::Unknown)]);
        let other = prober.next(later).unwrap();
        assert_ne!(other.server, probe.server);
        let verdict = prober.done(&other, dialed(QUIC, false), later);
        assert_eq!(verdict, [(parse(QUIC), Reachability::Unreachable)]);
    }

    #[test]
    fn many_votes_of_before_do_not_hide_a_change() {
        let mut now = Instant::now() + DELAY;
        let mut prober = with(&[QUIC], 8, now - DELAY);
        for _ in 0..10 {
            now = now.max(prober.deadline().unwrap());
            let probe = prober.next(now).unwrap();
            prober.done(&probe, dialed(QUIC, true), now);
        }
        now = prober.deadline().unwrap();
        let changed = now;
        let mut verdicts = Vec::new();
        while verdicts.last() != Some(&(parse(QUIC), Reachability::Unreachable)) {
            now = now.max(prober.deadline().unwrap());
            let probe = prober.next(now).unwrap();
            verdicts.extend(prober.done(&probe, dialed(QUIC, false), now));
        }
        assert!(now - changed < RETRY, "{:?}", now - changed);
    }

    #[test]
    fn servers_of_one_network_have_one_vote_and_a_lone_one_is_not_asked_without_end() {
        let now = Instant::now() + DELAY;
        let mut prober = with(&[QUIC], 0, now - DELAY);
        for number in 1..=5 {
            prober.add_server(&server_in(7, number, Version::V2), now);
        }
        let probe = prober.next(now).unwrap();
        assert_eq!(prober.done(&probe, dialed(QUIC, false), now), []);
        assert_eq!((prober.next(now), prober.deadline()), (None, Some(now + RETRY)));
        let probe = prober.next(now + RETRY).unwrap();
        assert_eq!(prober.done(&probe, dialed(QUIC, false), now + RETRY), []);
    }

    #[test]
    fn what_is_reached_on_a_port_counts_for_its_other_transports() {
        let now = Instant::now() + DELAY;
        let mut prober = with(&[WEB_TRANSPORT, QUIC, TCP], 4, now - DELAY);
        let mut verdicts = Vec::new();
        let mut asked = 0;
        while let Some(probe) = prober.next(now) {
            let first = probe.addresses[0].to_string();
            assert_ne!(first, WEB_TRANSPORT, "what depends on another comes after it");
            verdicts.extend(prober.done(&probe, dialed(&first, first == QUIC), now));
            asked += 1;
        }
        verdicts.sort();
        let mut expected = [
            (parse(QUIC), Reachability::Reachable),
            (parse(WEB_TRANSPORT), Reachability::Reachable),
            (parse(TCP), Reachability::Unreachable),
        ];
        expected.sort();
        assert_eq!((verdicts, asked), (expected.to_vec(), 4));
    }

    #[test]
    fn a_server_that_cannot_dial_the_first_may_tell_of_the_next() {
        let now = Instant::now() + DELAY;
        let mut prober = with(&[QUIC, TCP], 1, now - DELAY);
        let probe = prober.next(now).unwrap();
        assert_eq!(probe.addresses.len(), 2);
        let second = probe.addresses[1].to_string();
        prober.done(&probe, dialed(&second, true), now);
        // It is left in peace about both of them.
        assert_eq!(prober.next(now + INTERVAL), None);
        let again = prober.next(now + RETRY).unwrap();
        assert_eq!(again.addresses.len(), 2);
        prober.done(&again, Outcome::Refused, now + RETRY);
        assert_eq!(prober.next(now + RETRY + INTERVAL), None);
        // What was not asked about does not count.
        let last = prober.next(now + RETRY * 2).unwrap();
        assert_eq!(prober.done(&last, dialed("/ip4/9.9.9.9/tcp/1", true), now + RETRY * 2), []);
    }

    #[test]
    fn version_1_is_asked_where_nobody_speaks_version_2_and_believed_later() {
        let now = Instant::now() + DELAY;
        let mut prober = with(&[TCP], 0, now - DELAY);
        for number in 1..=3 {
            prober.add_server(&server_in(number, number, Version::V1), now);
        }
        for round in 1..=3 {
            let probe = prober.next(now).unwrap();
            assert_eq!(probe.version, Version::V1);
            let verdicts = prober.done(&probe, dialed(TCP, true), now);
            assert_eq!(verdicts.len(), usize::from(round == 3));
        }
        prober.add_server(&server(9), now);
        prober.remove_server(server(1).peer);
        assert_eq!(prober.next(now + RECHECK).unwrap().version, Version::V2);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        /// Liars of one network, honest servers of others: whatever the order, the truth is found, and asking ends.
        #[test]
        fn liars_of_one_network_change_no_verdict(
            reachable: bool, liars in 1..20u8, honest in 3..8u8, order in 0..50_u8,
        ) {
            let mut now = Instant::now();
            let mut prober = with(&[TCP], 0, now);
            for number in 0..liars {
                prober.add_server(&server_in(200, 100 + number, Version::V2), now);
            }
            for number in 1..=honest {
                prober.add_server(&server_in(number, number + order, Version::V2), now);
            }
            let liars: Vec<_> = (0..liars).map(|number| server_in(200, 100 + number, Version::V2).peer).collect();
            let mut verdict = Reachability::Unknown;
            let mut asked = 0;
            let end = now + RECHECK / 2;
            while let Some(at) = prober.deadline().filter(|at| *at < end) {
                now = now.max(at);
                let Some(probe) = prober.next(now) else { prop_assert!(false, "nothing to do in time"); return Ok(()) };
                let lies = liars.contains(&probe.server);
                for (_, new) in prober.done(&probe, dialed(TCP, reachable != lies), now) {
                    verdict = new;
                }
                asked += 1;
                prop_assert!(asked < 100, "asks without end");
            }
            let truth = if reachable { Reachability::Reachable } else { Reachability::Unreachable };
            prop_assert_eq!(verdict, truth);
        }

        #[test]
        fn what_is_kept_is_bounded(addresses in 0..300u16, servers in 0..200u8) {
            let now = Instant::now();
            let mut prober = prober();
            prober.set_addresses((0..addresses).map(|port| parse(&format!("/ip4/20.0.0.1/tcp/{port}"))), now);
            for number in 0..servers {
                prober.add_server(&server(number), now);
            }
            prop_assert!(prober.tested.len() <= MAX_TESTED_ADDRESSES && prober.servers.len() <= MAX_SERVERS);
            if let Some(probe) = prober.next(now + DELAY) {
                prop_assert!(probe.addresses.len() <= ADDRESSES_PER_REQUEST);
            }
        }
    }
}
