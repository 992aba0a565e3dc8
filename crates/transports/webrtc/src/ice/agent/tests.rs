//! Two agents and what is between them: addresses, NATs, and nothing else.

use std::collections::{BTreeMap, HashMap};

use proptest::prelude::*;

use super::*;

const DELAY: Duration = Duration::from_millis(15);

/// An agent at `inside`, seen from elsewhere at `outside` if there is a NAT.
struct Host {
    agent: Agent,
    inside: SocketAddr,
    outside: SocketAddr,
    /// Where the NAT has seen datagrams go. Only from there it lets any in.
    sent_to: Vec<SocketAddr>,
}

impl Host {
    fn new(inside: &str, outside: &str, controlling: bool, now: Instant) -> Self {
        let inside = address(inside);
        let addresses = LocalAddresses { host: vec![inside], expects_servers: false };
        let agent =
            Agent::new(IceCredentials::generate(), SessionToken::generate(), &addresses, controlling, now);
        Self { agent, inside, outside: address(outside), sent_to: Vec::new() }
    }

    fn is_reached_at(&self, to: SocketAddr, from: SocketAddr) -> bool {
        to == self.inside && self.inside == self.outside
            || to == self.outside && self.inside != self.outside && self.sent_to.contains(&from)
    }
}

struct Network {
    hosts: [Host; 2],
    now: Instant,
    flying: BTreeMap<(Instant, usize), (SocketAddr, SocketAddr, Vec<u8>)>,
    sent: usize,
    /// Datagrams by where they went.
    to: HashMap<SocketAddr, usize>,
    loses: Box<dyn Fn(usize) -> bool>,
}

impl Network {
    /// Neither is behind a NAT, the first one controls.
    fn open() -> Self {
        let now = crate::test_now();
        Self::of(
            Host::new("192.0.2.1:1000", "192.0.2.1:1000", true, now),
            Host::new("192.0.2.2:2000", "192.0.2.2:2000", false, now),
            now,
        )
    }

    fn of(first: Host, second: Host, now: Instant) -> Self {
        Self {
            hosts: [first, second],
            now,
            flying: BTreeMap::new(),
            sent: 0,
            to: HashMap::new(),
            loses: Box::new(|_| false),
        }
    }

    /// Tells the host with this number who the other one is.
    fn introduce(&mut self, to: usize) {
        let other = self.hosts[1 - to].agent.local_credentials().clone();
        self.hosts[to].agent.set_remote(self.now, other, false);
    }

    fn introduce_both(&mut self) {
        self.introduce(0);
        self.introduce(1);
    }

    /// Tells the host with this number an address of the other one, or of somebody else.
    fn name(&mut self, to: usize, at: &str) {
        self.hosts[to].agent.add_remote_candidate(candidate(at));
    }

    fn collect(&mut self) {
        for host in &mut self.hosts {
            while let Some((path, datagram)) = host.agent.poll_transmit() {
                host.sent_to.push(path.remote);
                *self.to.entry(path.remote).or_default() += 1;
                self.sent += 1;
                if !(self.loses)(self.sent) {
                    let entry = (host.outside, path.remote, datagram);
                    self.flying.insert((self.now + DELAY, self.sent), entry);
                }
            }
        }
    }

    fn run(&mut self, duration: Duration) {
        let end = self.now + duration;
        loop {
            self.collect();
            let arrival = self.flying.keys().next().map(|(at, _)| *at);
            let timers = self.hosts.iter().filter_map(|host| host.agent.poll_timeout());
            let Some(next) = timers.chain(arrival).min().filter(|next| *next <= end) else {
                self.now = end;
                return;
            };
            assert!(self.sent < 100_000, "the agents do not come to rest");
            self.now = self.now.max(next);
            while let Some(entry) = self.flying.first_entry().filter(|entry| entry.key().0 <= self.now) {
                let (from, to, datagram) = entry.remove();
                let now = self.now;
                if let Some(host) = self.hosts.iter_mut().find(|host| host.is_reached_at(to, from)) {
                    let path = Path { local: Some(host.inside.ip()), remote: from };
                    host.agent.handle_message(now, path, &Message::parse(&datagram).unwrap());
                }
            }
            let now = self.now;
            self.hosts.iter_mut().for_each(|host| host.agent.handle_timeout(now));
        }
    }

    fn remotes(&self) -> [Option<SocketAddr>; 2] {
        [0, 1].map(|index| self.hosts[index].agent.selected().map(|path| path.remote))
    }

    fn assert_connected(&self) {
        assert_eq!(self.remotes(), [Some(self.hosts[1].outside), Some(self.hosts[0].outside)]);
    }

    fn assert_nominated(&self) {
        self.assert_connected();
        assert!(self.hosts.iter().all(|host| host.agent.nominated.is_some()));
        assert_ne!(self.hosts[0].agent.controlling, self.hosts[1].agent.controlling);
    }
}

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn candidate(at: &str) -> Candidate {
    Candidate::local(address(at), Kind::Host, 0, None)
}

#[test]
fn candidates_told_both_ways_connect_within_a_round_trip() {
    let mut network = Network::open();
    network.introduce_both();
    network.name(0, "192.0.2.2:2000");
    network.name(1, "192.0.2.1:1000");
    network.run(DELAY * 2);
    network.assert_connected();
    network.run(Duration::from_secs(1));
    network.assert_nominated();
}

#[test]
fn one_side_that_knows_no_candidates_learns_them_from_checks() {
    // A browser tells names only that cannot be resolved here.
    for knows in [0, 1] {
        let mut network = Network::open();
        network.introduce_both();
        network.name(knows, if knows == 0 { "192.0.2.2:2000" } else { "192.0.2.1:1000" });
        network.run(Duration::from_secs(1));
        network.assert_nominated();
    }
}

#[test]
fn two_agents_behind_nats_reach_each_other() {
    let now = crate::test_now();
    let mut network = Network::of(
        Host::new("10.0.0.1:1000", "203.0.113.1:1111", true, now),
        Host::new("10.0.0.1:1000", "203.0.113.2:2222", false, now),
        now,
    );
    network.introduce_both();
    // Addresses that lead nowhere come with those that do.
    for (to, reflexive) in [(0, "203.0.113.2:2222"), (1, "203.0.113.1:1111")] {
        network.name(to, "10.0.0.1:1000");
        network.name(to, reflexive);
    }
    network.run(Duration::from_secs(2));
    network.assert_nominated();
}

#[test]
fn checks_that_come_before_the_description_are_answered_and_not_forgotten() {
    let mut network = Network::open();
    network.introduce(1);
    network.name(1, "192.0.2.1:1000");
    network.run(DELAY * 3);
    assert!(network.hosts[0].agent.knows(address("192.0.2.2:2000")));
    assert_eq!(network.remotes(), [None, Some(address("192.0.2.1:1000"))]);
    network.introduce(0);
    network.run(Duration::from_millis(100));
    network.assert_connected();
}

#[test]
fn role_conflicts_are_settled() {
    for controlling in [true, false] {
        for first_wins in [true, false] {
            let mut network = Network::open();
            for (host, tie_breaker) in [(0, 1 + u64::from(first_wins)), (1, 2 - u64::from(first_wins))] {
                network.hosts[host].agent.controlling = controlling;
                network.hosts[host].agent.tie_breaker = tie_breaker;
            }
            network.introduce_both();
            network.name(0, "192.0.2.2:2000");
            network.name(1, "192.0.2.1:1000");
            network.run(Duration::from_secs(2));
            network.assert_nominated();
        }
    }
}

#[test]
fn refusal_of_a_role_that_was_given_up_meanwhile_is_not_taken_for_one_of_the_new() {
    // Their checks cross, a little later than each other's.
    for controlling in [true, false] {
        for late in 0..20 {
            let mut network = Network::open();
            for (host, tie_breaker) in [(0, 2), (1, 1)] {
                network.hosts[host].agent.controlling = controlling;
                network.hosts[host].agent.tie_breaker = tie_breaker;
            }
            network.introduce(0);
            network.name(0, "192.0.2.2:2000");
            network.run(Duration::from_millis(late));
            network.introduce(1);
            network.name(1, "192.0.2.1:1000");
            network.run(Duration::from_secs(2));
            network.assert_nominated();
        }
    }
}

#[test]
fn half_of_all_datagrams_may_be_lost() {
    let mut network = Network::open();
    network.loses = Box::new(|n| n % 4 < 2);
    network.introduce_both();
    network.name(0, "192.0.2.2:2000");
    network.name(1, "192.0.2.1:1000");
    network.run(Duration::from_secs(5));
    network.assert_nominated();
}

#[test]
fn better_candidate_than_one_that_works_is_waited_for_and_not_for_long() {
    let mut network = Network::open();
    network.introduce_both();
    let mut poor = candidate("192.0.2.2:2000");
    poor.priority = 1;
    network.hosts[0].agent.add_remote_candidate(poor);
    network.name(0, "198.51.100.1:1");
    network.run(Duration::from_millis(100));
    network.assert_connected();
    assert_eq!(network.hosts[0].agent.nominated, None, "the other one may still answer");
    network.run(Duration::from_millis(200));
    network.assert_nominated();
}

#[test]
fn remote_that_stops_answering_loses_consent() {
    let mut network = Network::open();
    network.introduce_both();
    network.name(0, "192.0.2.2:2000");
    network.run(Duration::from_secs(600));
    network.assert_nominated();
    assert!(network.hosts.iter().all(|host| !host.agent.has_lost_consent()), "idle is not gone");
    network.loses = Box::new(|_| true);
    network.run(Duration::from_secs(31));
    assert!(network.hosts.iter().all(|host| host.agent.has_lost_consent()));
}

#[test]
fn who_does_not_know_the_password_is_neither_answered_nor_checked() {
    let mut network = Network::open();
    let stranger = IceCredentials::generate();
    for to in [0, 1] {
        let mut wrong = network.hosts[1 - to].agent.local_credentials().clone();
        wrong.password = stranger.password.clone();
        let now = network.now;
        network.hosts[to].agent.set_remote(now, wrong, false);
    }
    network.name(0, "192.0.2.2:2000");
    network.run(Duration::from_secs(20));
    assert_eq!(network.remotes(), [None, None]);
    assert_eq!(network.hosts[1].sent_to.len(), 0);

    // Another session's ufrag.
    let mut network = Network::open();
    let now = network.now;
    network.hosts[1].agent.set_remote(now, stranger, false);
    network.introduce(0);
    network.name(0, "192.0.2.2:2000");
    network.run(Duration::from_secs(20));
    assert_eq!(network.hosts[1].sent_to.len(), 0);
}

#[test]
fn flood_of_candidates_makes_no_flood_of_checks() {
    let mut network = Network::open();
    network.introduce_both();
    for n in 0..1000u16 {
        network.name(0, &format!("198.51.100.{}:{}", n % 200, n + 1));
    }
    let begun = network.now;
    network.run(Duration::from_secs(1));
    assert!(network.sent <= 51, "{} datagrams in a second", network.sent);
    network.run(Duration::from_secs(60));
    assert_eq!(network.to.len(), limits::MAX_REMOTE_CANDIDATES);
    assert!(network.to.values().all(|sent| *sent == usize::from(limits::MAX_CHECKS_PER_PAIR)));
    assert!(network.hosts[0].agent.poll_timeout().is_none(), "it has come to rest after {begun:?}");
}

#[test]
fn flood_of_authentic_checks_from_everywhere_is_bounded() {
    let mut network = Network::open();
    network.introduce_both();
    let host = &network.hosts[0].agent;
    let username = format!("{}:{}", host.local.ufrag.as_str(), network.hosts[1].agent.local.ufrag.as_str());
    let password = host.local.password.as_str().to_owned();
    let check = stun::connectivity_check([1; 12], &username, AgentRole::Controlled(1), false, 1, &password);
    let check = Message::parse(&check).unwrap();
    let now = network.now;
    for port in 1..1000 {
        let path = Path::to(([198, 51, 100, 1], port).into());
        network.hosts[0].agent.handle_message(now, path, &check);
    }
    network.run(Duration::from_secs(60));
    assert_eq!(network.to.len(), limits::MAX_PAIRS);
    let most = 1 + usize::from(limits::MAX_CHECKS_PER_PAIR);
    assert!(network.to.values().all(|sent| *sent <= most), "{:?}", network.to);
}

#[test]
fn addresses_that_make_no_sense_are_not_checked() {
    let mut network = Network::open();
    network.introduce_both();
    for text in [
        "0.0.0.0:1",
        "255.255.255.255:1",
        "224.0.0.1:1",
        "192.0.2.9:0",
        // We have neither loopback nor IPv6.
        "127.0.0.1:1",
        "[2001:db8::1]:1",
        "[::1]:1",
        "[fe80::1]:1",
        "[ff02::1]:1",
    ] {
        network.name(0, text);
    }
    network.run(Duration::from_secs(20));
    assert_eq!(network.sent, 0);
}

#[test]
fn stun_server_tells_a_candidate_and_silent_ones_end_the_gathering() {
    let now = crate::test_now();
    let server = address("198.51.100.7:3478");
    let silent = address("198.51.100.8:3478");
    let addresses = LocalAddresses { host: vec![address("10.0.0.1:1000")], expects_servers: true };
    let token = SessionToken::generate();
    let mut agent = Agent::new(IceCredentials::generate(), token, &addresses, true, now);
    assert!(agent.poll_gathered().is_none() && !agent.is_gathering_done());
    agent.ask_servers(now, &[server, silent, address("[2001:db8::1]:3478")]);
    agent.handle_timeout(now);
    let asked: Vec<_> = std::iter::from_fn(|| agent.poll_transmit()).collect();
    assert_eq!(asked.len(), 2, "none by IPv6, which we do not have");
    let (path, query) = &asked[0];
    let query = Message::parse(query).unwrap();
    assert_eq!((path.remote, SessionToken::of(query.transaction_id)), (server, token));
    // As servers answer: without MESSAGE-INTEGRITY.
    let answer = unauthenticated_success(query.transaction_id, address("203.0.113.1:1111"));
    let answer = Message::parse(&answer).unwrap();
    agent.handle_message(now, Path::to(silent), &answer);
    assert!(agent.poll_gathered().is_none(), "from elsewhere");
    agent.handle_message(now, *path, &answer);
    let Some(Gathered::Candidate(found)) = agent.poll_gathered() else { panic!() };
    assert_eq!((found.address, found.kind), (address("203.0.113.1:1111"), Kind::ServerReflexive));
    agent.handle_message(now, *path, &answer);
    assert!(agent.poll_gathered().is_none(), "said already");
    let mut later = now;
    while let Some(due) = agent.poll_timeout() {
        later = due;
        agent.handle_timeout(due);
    }
    assert_eq!(agent.poll_gathered(), Some(Gathered::Done));
    assert!(later - now < Duration::from_secs(5));
}

fn unauthenticated_success(transaction_id: [u8; 12], mapped: SocketAddr) -> Vec<u8> {
    let mut answer = stun::binding_success(transaction_id, mapped, "x");
    // Up to MESSAGE-INTEGRITY and FINGERPRINT.
    answer.truncate(answer.len() - 24 - 8);
    let length = (answer.len() - 20) as u16;
    answer[2..4].copy_from_slice(&length.to_be_bytes());
    answer
}

proptest! {
    // Fewer than the checks that a pair gets, for they may all be lost, and as long as these take.
    #[test]
    fn any_loss_that_ends_is_survived(
        lost in proptest::collection::vec(any::<bool>(), 0..=usize::from(limits::MAX_CHECKS_PER_PAIR))
    ) {
        let mut network = Network::open();
        network.loses = Box::new(move |n| lost.get(n).copied().unwrap_or(false));
        network.introduce_both();
        network.name(0, "192.0.2.2:2000");
        network.name(1, "192.0.2.1:1000");
        network.run(limits::ICE_TIMEOUT);
        network.assert_nominated();
    }

    #[test]
    fn any_conflict_of_roles_is_settled(roles in any::<[bool; 2]>(), tie_breakers in any::<[u64; 2]>(), late in 0u64..500) {
        let mut network = Network::open();
        for index in [0, 1] {
            network.hosts[index].agent.controlling = roles[index];
            network.hosts[index].agent.tie_breaker = tie_breakers[index];
        }
        network.introduce(0);
        network.name(0, "192.0.2.2:2000");
        network.run(Duration::from_millis(late));
        network.introduce(1);
        network.name(1, "192.0.2.1:1000");
        network.run(Duration::from_secs(10));
        network.assert_nominated();
    }
}
