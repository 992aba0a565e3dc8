//! Where others see us: counted by observers that do not belong together, so that one liar, however many names it has,
//! is one.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv6Addr},
    time::Duration,
};

use peerloom_core::runtime::Instant;

use super::socket::{Endpoint, LocalPort};
use crate::connections::ConnectionId;

/// Observers of one address from which on it is worth a test whether it can be reached.
pub const OBSERVERS_TO_TEST: usize = 2;
/// How long an observation counts after the end of its connection.
pub const OBSERVATION_TTL: Duration = Duration::from_secs(30 * 60);
/// Observations kept. The one that ended first makes room.
pub const MAX_OBSERVATIONS: usize = 1024;
/// Addresses that one port is believed to have outside at one time; those that most see.
const ADDRESSES_PER_PORT: usize = 3;

/// What observers said last.
#[derive(Debug, Default)]
pub(super) struct Observations(BTreeMap<(LocalPort, Observer), Observation>);

/// Those who may be one and the same: an IPv4 network of /24, or an IPv6 network of /48.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Observer(IpAddr);

#[derive(Debug)]
struct Observation {
    seen: Endpoint,
    connection: ConnectionId,
    /// Once the connection is over.
    expires: Option<Instant>,
}

impl Observer {
    fn of(ip: IpAddr) -> Self {
        Self(match ip.to_canonical() {
            IpAddr::V4(ip) => {
                let [a, b, c, _] = ip.octets();
                [a, b, c, 0].into()
            }
            IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() & (u128::MAX << 80)).into(),
        })
    }
}

impl Observations {
    /// An observer sees our `local` port as `seen`, on this connection. What those around it have said before is forgotten.
    pub(super) fn add(
        &mut self,
        connection: ConnectionId,
        local: LocalPort,
        observer: IpAddr,
        seen: Endpoint,
        now: Instant,
    ) {
        self.expire(now);
        let key = (local, Observer::of(observer));
        if self.0.len() >= MAX_OBSERVATIONS && !self.0.contains_key(&key) {
            let age = |observation: &Observation| {
                (observation.expires.is_none(), observation.expires, observation.connection)
            };
            let oldest = self.0.iter().min_by_key(|(_, observation)| age(observation)).map(|(key, _)| *key);
            oldest.map(|oldest| self.0.remove(&oldest));
        }
        self.0.insert(key, Observation { seen, connection, expires: None });
    }

    /// The connection is over: what was observed on it counts for a while yet.
    pub(super) fn connection_closed(&mut self, connection: ConnectionId, now: Instant) {
        for observation in self.0.values_mut().filter(|observation| observation.connection == connection) {
            observation.expires = observation.expires.or_else(|| now.checked_add(OBSERVATION_TTL));
        }
    }

    /// Forgets what no longer counts.
    pub(super) fn expire(&mut self, now: Instant) {
        self.0.retain(|_, observation| observation.expires.is_none_or(|expires| expires > now));
    }

    /// When [`expire`](Self::expire) has something to do.
    pub(super) fn next_expiry(&self) -> Option<Instant> {
        self.0.values().filter_map(|observation| observation.expires).min()
    }

    /// Where `local` is seen, and by how many; at least [`OBSERVERS_TO_TEST`]. What most see comes first.
    pub(super) fn of_port(&self, local: LocalPort) -> Vec<(Endpoint, usize)> {
        let mut counts = BTreeMap::<Endpoint, usize>::new();
        for (_, observation) in self.0.iter().filter(|((port, _), _)| *port == local) {
            let count = counts.entry(observation.seen).or_default();
            *count = count.saturating_add(1);
        }
        let mut seen: Vec<_> =
            counts.into_iter().filter(|(_, observers)| *observers >= OBSERVERS_TO_TEST).collect();
        seen.sort_by_key(|(_, observers)| std::cmp::Reverse(*observers));
        seen.truncate(ADDRESSES_PER_PORT);
        seen
    }

    /// Forgets what was observed of ports on which nobody listens any more.
    pub(super) fn keep_ports(&mut self, listening: impl Fn(LocalPort) -> bool) {
        self.0.retain(|(local, _), _| listening(*local));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

#[cfg(test)]
mod tests {
    use peerloom_core::Multiaddr;
    use proptest::prelude::*;

    use super::*;

    fn endpoint(address: &str) -> Endpoint {
        Endpoint::of(&address.parse::<Multiaddr>().unwrap()).unwrap()
    }

    fn local() -> LocalPort {
        endpoint("/ip4/10.0.0.2/udp/4001").local_port()
    }

    fn ip(network: u8, host: u8) -> IpAddr {
        [20, 0, network, host].into()
    }

    fn connection(number: u64) -> ConnectionId {
        ConnectionId::for_tests(number)
    }

    const SEEN: &str = "/ip4/30.0.0.1/udp/6000";

    #[test]
    fn observers_of_one_network_count_as_one() {
        let (mut observations, now) = (Observations::default(), Instant::now());
        for host in 0..=255 {
            observations.add(connection(host.into()), local(), ip(1, host), endpoint(SEEN), now);
        }
        assert_eq!(observations.of_port(local()), []);
        assert_eq!(observations.len(), 1);
        observations.add(connection(300), local(), ip(2, 1), endpoint(SEEN), now);
        assert_eq!(observations.of_port(local()), [(endpoint(SEEN), 2)]);
        let same = ["2a00:1:2:3::1", "2a00:1:2:4::1"].map(|ip| Observer::of(ip.parse().unwrap()));
        assert_eq!(same[0], same[1]);
        assert_ne!(same[0], Observer::of("2a00:1:3::1".parse().unwrap()));
        assert_eq!(Observer::of("::ffff:20.0.1.7".parse().unwrap()), Observer::of(ip(1, 9)));
    }

    #[test]
    fn an_observer_that_sees_another_address_sees_the_first_no_longer() {
        let (mut observations, now) = (Observations::default(), Instant::now());
        for network in 1..=4 {
            observations.add(connection(network.into()), local(), ip(network, 1), endpoint(SEEN), now);
        }
        observations.add(connection(9), local(), ip(4, 2), endpoint("/ip4/30.0.0.2/udp/7"), now);
        assert_eq!(observations.of_port(local()), [(endpoint(SEEN), 3)]);
        assert_eq!(observations.of_port(endpoint("/ip4/10.0.0.2/tcp/4001").local_port()), []);
    }

    #[test]
    fn observations_outlive_their_connection_by_a_time() {
        let (mut observations, now) = (Observations::default(), Instant::now());
        for network in 1..=2 {
            observations.add(connection(network.into()), local(), ip(network, 1), endpoint(SEEN), now);
        }
        assert_eq!(observations.next_expiry(), None);
        observations.connection_closed(connection(2), now);
        observations.connection_closed(connection(7), now);
        let end = observations.next_expiry().unwrap();
        assert_eq!(end, now + OBSERVATION_TTL);
        observations.expire(end - Duration::from_millis(1));
        assert_eq!(observations.of_port(local()).len(), 1);
        observations.expire(end);
        assert_eq!((observations.of_port(local()).len(), observations.next_expiry()), (0, None));
    }

    #[derive(Debug, Clone)]
    enum Step {
        Add { connection: u64, network: u8, host: u8, seen: u16 },
        Close(u64),
        Wait(u64),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            4 => (0..50u64, 0..6u8, any::<u8>(), 1..5u16).prop_map(|(connection, network, host, seen)| {
                Step::Add { connection, network, host, seen }
            }),
            2 => (0..50u64).prop_map(Step::Close),
            1 => (1..4000u64).prop_map(Step::Wait),
        ];
        prop::collection::vec(step, 0..200)
    }

    proptest! {
        #[test]
        fn there_are_never_more_votes_than_networks_that_vote(steps in steps()) {
            let (mut observations, mut now) = (Observations::default(), Instant::now());
            for step in steps {
                match step {
                    Step::Add { connection: number, network, host, seen } => {
                        let seen = endpoint(&format!("/ip4/30.0.0.1/udp/{seen}"));
                        observations.add(connection(number), local(), ip(network, host), seen, now);
                    }
                    Step::Close(number) => observations.connection_closed(connection(number), now),
                    Step::Wait(seconds) => now += Duration::from_secs(seconds),
                }
                observations.expire(now);
                let seen = observations.of_port(local());
                prop_assert!(seen.iter().map(|(_, observers)| observers).sum::<usize>() <= 6);
                prop_assert!(seen.iter().all(|(_, observers)| *observers >= OBSERVERS_TO_TEST));
                prop_assert!(observations.next_expiry().is_none_or(|next| next > now));
            }
        }
    }

    #[test]
    fn what_is_kept_is_bounded_and_open_connections_stay() {
        let (mut observations, now) = (Observations::default(), Instant::now());
        let observer = |number: u32| IpAddr::from((number << 8).to_be_bytes());
        for number in 0..MAX_OBSERVATIONS as u32 {
            observations.add(connection(number.into()), local(), observer(number), endpoint(SEEN), now);
        }
        observations.connection_closed(connection(5), now);
        observations.add(connection(5000), local(), observer(5000), endpoint("/ip4/1.2.3.4/udp/5"), now);
        assert_eq!(observations.len(), MAX_OBSERVATIONS);
        assert_eq!(observations.of_port(local()), [(endpoint(SEEN), MAX_OBSERVATIONS - 1)]);
        assert_eq!(observations.next_expiry(), None);
    }
}
