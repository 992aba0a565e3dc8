//! Which addresses a node has, and which of them it tells to whom.

#[cfg(not(target_arch = "wasm32"))]
use std::net::SocketAddr;
use std::{collections::BTreeMap, net::IpAddr};

#[cfg(not(target_arch = "wasm32"))]
use peerloom_core::runtime::Instant;
use peerloom_core::{Multiaddr, Protocol, Scope};

use super::socket::{Endpoint, LocalPort};
#[cfg(not(target_arch = "wasm32"))]
use super::{observed::Observations, socket::PortProtocol};
#[cfg(not(target_arch = "wasm32"))]
use crate::connections::ConnectionId;

/// Addresses of one node that are kept; further ones are not considered. Six transports on eight interfaces have 96.
pub const MAX_OWN_ADDRESSES: usize = 256;
/// Observers of one address from which on it is told to others without a test, as go-libp2p has it.
pub const OBSERVERS_TO_TELL: usize = 4;
/// Addresses that an application may add.
pub const MAX_EXTERNAL_ADDRESSES: usize = 64;

/// An address at which this node may be reached.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct OwnAddress {
    /// The address, without `/p2p/…`.
    pub address: Multiaddr,
    /// How it came to be known. Of several ways, the one that is trusted most.
    pub source: AddressSource,
    /// Whether others reach it.
    pub reachability: Reachability,
    /// Whether it is told to others.
    pub told: bool,
}

/// How an address of this node came to be known. Those that are trusted more come first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum AddressSource {
    /// The application has said so.
    Application,
    /// A listener has it.
    Listener,
    /// A router was asked to forward a port.
    PortMapping,
    /// Other peers see the node there.
    Observed {
        /// How many of them, where those of one network count as one. Few are not believed without a test.
        observers: usize,
    },
}

/// Whether others reach an address.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reachability {
    /// Nobody has tried, or those who have do not agree.
    #[default]
    Unknown,
    /// They do.
    Reachable,
    /// They do not.
    Unreachable,
}

/// All that is known of a node's own addresses.
#[derive(Debug, Default)]
pub(crate) struct OwnAddresses {
    /// Of all listeners.
    listening: Vec<Multiaddr>,
    /// By the application.
    external: Vec<Multiaddr>,
    #[cfg(not(target_arch = "wasm32"))]
    mappings: BTreeMap<LocalPort, Endpoint>,
    #[cfg(not(target_arch = "wasm32"))]
    pub(super) observations: Observations,
    /// Whether a task looks after them.
    #[cfg(not(target_arch = "wasm32"))]
    pub(super) expires: bool,
    verdicts: BTreeMap<Multiaddr, Reachability>,
    /// What follows from all of these.
    addresses: Vec<OwnAddress>,
}

impl OwnAddresses {
    /// What the listeners have. Whether what is told has changed.
    pub(crate) fn set_listening(&mut self, listening: Vec<Multiaddr>) -> bool {
        self.listening = listening;
        #[cfg(not(target_arch = "wasm32"))]
        {
            let ports: Vec<_> = self.with_ports().map(|(_, port)| port).collect();
            self.observations.keep_ports(|port| ports.contains(&port));
        }
        self.update()
    }

    /// The application's word. Whether what is told has changed.
    pub(super) fn add_external(&mut self, address: Multiaddr) -> bool {
        let is_new = !self.external.contains(&address) && self.external.len() < MAX_EXTERNAL_ADDRESSES;
        is_new && {
            self.external.push(address);
            self.update()
        }
    }

    pub(super) fn remove_external(&mut self, address: &Multiaddr) -> bool {
        self.external.retain(|known| known != address);
        self.update()
    }

    /// A router forwards `outside` to this port of ours, or no longer.
    #[cfg(not(target_arch = "wasm32"))]
    pub(super) fn set_mapping(
        &mut self,
        protocol: PortProtocol,
        inside: SocketAddr,
        outside: Option<SocketAddr>,
    ) -> bool {
        let local = Endpoint { protocol, socket: inside }.local_port();
        match outside {
            Some(socket) => self.mappings.insert(local, Endpoint { protocol, socket }),
            None => self.mappings.remove(&local),
        };
        self.update()
    }

    /// A remote at `observer` sees our end of a connection, which is `local`, as `seen`.
    #[cfg(not(target_arch = "wasm32"))]
    pub(super) fn observe(
        &mut self,
        connection: ConnectionId,
        (local, observer, seen): (&Multiaddr, &Multiaddr, &Multiaddr),
        now: Instant,
    ) -> bool {
        let endpoints = (Endpoint::of(local), Endpoint::of(observer), Endpoint::of(seen));
        let (Some(local), Some(observer), Some(seen)) = endpoints else { return false };
        let local = local.local_port();
        // Loopback is known; what a remote on loopback sees says nothing of the way to others.
        let is_news = Scope::of(seen.socket.ip()) != Scope::Host
            && Scope::of(observer.socket.ip()) != Scope::Host
            && !seen.socket.ip().is_unspecified()
            && seen.may_map(local)
            && self.with_ports().any(|(_, port)| port == local);
        is_news && {
            self.observations.add(connection, local, observer.socket.ip(), seen, now);
            self.update()
        }
    }

    /// Forgets observations that no longer count.
    #[cfg(not(target_arch = "wasm32"))]
    pub(super) fn expire(&mut self, now: Instant) -> bool {
        self.observations.expire(now);
        self.update()
    }

    /// Whether that is news, and whether what is told has changed.
    pub(super) fn set_reachability(
        &mut self,
        address: &Multiaddr,
        reachability: Reachability,
    ) -> (bool, bool) {
        let known = self.addresses.iter().find(|own| own.address == *address);
        if known.is_none_or(|own| own.reachability == reachability) {
            return (false, false);
        }
        self.verdicts.insert(address.clone(), reachability);
        (true, self.update())
    }

    pub(crate) fn all(&self) -> &[OwnAddress] {
        &self.addresses
    }

    /// What may be told to somebody, the best first.
    pub(crate) fn told(&self) -> impl Iterator<Item = &Multiaddr> {
        self.addresses.iter().filter(|own| own.told).map(|own| &own.address)
    }

    /// What is told to a remote at that address: nothing that only those reach who are nearer than it is.
    pub(crate) fn told_to(&self, remote: Option<&Multiaddr>) -> Vec<Multiaddr> {
        let distance = remote.and_then(|remote| self.distance(remote));
        let is_of_use = |address: &&Multiaddr| match (distance, address.scope()) {
            (Some(distance), Some(scope)) => scope >= distance,
            _ => true,
        };
        self.told().filter(is_of_use).cloned().collect()
    }

    /// The scope that an address must have at least for that remote to reach it.
    fn distance(&self, remote: &Multiaddr) -> Option<Scope> {
        let ip = first_ip(remote);
        let is_ours = ip.is_some() && self.listening.iter().any(|address| first_ip(address) == ip);
        match is_ours && !remote.is_relayed() {
            true => Some(Scope::Host),
            false => remote.scope(),
        }
    }

    /// Works out the addresses anew. Whether those that are told are others now, or in another order.
    fn update(&mut self) -> bool {
        let mut addresses = Vec::new();
        for listening in &self.listening {
            add(&mut addresses, listening.clone(), AddressSource::Listener);
        }
        for external in &self.external {
            // A bare port stands for all that listens on the port with that number.
            let endpoint = Endpoint::of(external);
            let is_bare = external.protocols().count() == 2;
            let mut expanded = false;
            for (listening, local) in self.with_ports() {
                if let Some(outside) = endpoint.filter(|outside| is_bare && outside.local_port() == local) {
                    add(&mut addresses, outside.instead_in(listening), AddressSource::Application);
                    expanded = true;
                }
            }
            let is_whole = !matches!(external.protocols().last(), Some(Protocol::Udp(_)));
            if !expanded && is_whole {
                add(&mut addresses, external.clone(), AddressSource::Application);
            }
        }
        #[cfg(not(target_arch = "wasm32"))]
        self.add_outside(&mut addresses);
        self.verdicts.retain(|address, _| addresses.iter().any(|own| own.address == *address));
        for own in &mut addresses {
            own.reachability = self.verdicts.get(&own.address).copied().unwrap_or_default();
            own.told = is_told(own);
        }
        // They are few, and a sort by insertion is the smallest in a page.
        let mut sorted = Vec::with_capacity(addresses.len());
        for own in addresses {
            let at = sorted.partition_point(|better| rank(better) <= rank(&own));
            sorted.insert(at, own);
        }
        let before = std::mem::replace(&mut self.addresses, sorted);
        !before.iter().filter(|own| own.told).map(|own| &own.address).eq(self.told())
    }

    /// What routers forward, and what others see.
    #[cfg(not(target_arch = "wasm32"))]
    fn add_outside(&self, addresses: &mut Vec<OwnAddress>) {
        for (listening, local) in self.with_ports() {
            if let Some(outside) = self.mappings.get(&local) {
                add(addresses, outside.instead_in(listening), AddressSource::PortMapping);
            }
        }
        for (listening, local) in self.with_ports() {
            for (seen, observers) in self.observations.of_port(local) {
                let source = AddressSource::Observed { observers };
                add(addresses, seen.instead_in(listening), source);
            }
        }
    }

    /// What listens on ports of this machine.
    fn with_ports(&self) -> impl Iterator<Item = (&Multiaddr, LocalPort)> {
        let ports = self.listening.iter().filter_map(|address| Some((address, Endpoint::of(address)?)));
        ports.map(|(address, endpoint)| (address, endpoint.local_port()))
    }
}

fn add(addresses: &mut Vec<OwnAddress>, address: Multiaddr, source: AddressSource) {
    let is_full = addresses.len() >= MAX_OWN_ADDRESSES;
    match addresses.iter_mut().find(|own| own.address == address) {
        Some(known) => known.source = known.source.min(source),
        None if is_full => {}
        None => {
            addresses.push(OwnAddress { address, source, reachability: Reachability::Unknown, told: false })
        }
    }
}

/// The application's word stands; otherwise what others cannot reach is not told, nor what few have seen.
fn is_told(own: &OwnAddress) -> bool {
    match (own.source, own.reachability) {
        (AddressSource::Application, _) | (_, Reachability::Reachable) => true,
        (_, Reachability::Unreachable) => false,
        (AddressSource::Observed { observers }, Reachability::Unknown) => observers >= OBSERVERS_TO_TELL,
        (AddressSource::Listener | AddressSource::PortMapping, Reachability::Unknown) => true,
    }
}

/// Lower first: those that were found reachable, and then those that can be reached from farther away.
fn rank(own: &OwnAddress) -> u8 {
    match (own.reachability, own.address.scope()) {
        (Reachability::Reachable, _) => 0,
        (_, None | Some(Scope::Internet)) => 1,
        (_, Some(Scope::Network)) => 2,
        (_, Some(Scope::Host)) => 3,
    }
}

fn first_ip(address: &Multiaddr) -> Option<IpAddr> {
    match address.protocols().next()? {
        Protocol::Ip4(ip) => Some(ip.into()),
        Protocol::Ip6(ip) => Some(ip.to_canonical()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(address: &str) -> Multiaddr {
        address.parse().unwrap()
    }

    fn own(listening: &[&str]) -> OwnAddresses {
        let mut own = OwnAddresses::default();
        own.set_listening(listening.iter().map(|address| parse(address)).collect());
        own
    }

    fn told(own: &OwnAddresses) -> Vec<String> {
        own.told().map(ToString::to_string).collect()
    }

    fn told_to(own: &OwnAddresses, remote: &str) -> Vec<String> {
        own.told_to(Some(&parse(remote))).iter().map(ToString::to_string).collect()
    }

    /// As seen by so many observers in networks of their own.
    fn observe(own: &mut OwnAddresses, local: &str, seen: &str, observers: u8) -> bool {
        let mut changed = false;
        for network in 0..observers {
            let observer = parse(&format!("/ip4/20.1.{network}.1/udp/4001/quic-v1"));
            let connection = ConnectionId::for_tests(network.into());
            let now = Instant::now();
            changed |= own.observe(connection, (&parse(local), &observer, &parse(seen)), now);
        }
        changed
    }

    const QUIC: &str = "/ip4/10.0.0.2/udp/4001/quic-v1";
    const WEB_TRANSPORT: &str = "/ip4/10.0.0.2/udp/4001/quic-v1/webtransport";
    const TCP: &str = "/ip4/10.0.0.2/tcp/4001";
    const DIALED_FROM: &str = "/ip4/0.0.0.0/udp/4001/quic-v1";
    const SEEN: &str = "/ip4/30.0.0.1/udp/6000/quic-v1";

    #[test]
    fn what_is_near_is_told_to_those_who_are_near() {
        let own = own(&[
            "/ip4/127.0.0.1/tcp/1",
            "/ip4/192.168.1.7/tcp/1",
            "/ip4/20.0.0.1/tcp/1",
            "/dns/example.org/tcp/1",
            "/memory/7",
        ]);
        let anywhere = ["/ip4/20.0.0.1/tcp/1", "/dns/example.org/tcp/1", "/memory/7"].map(str::to_owned);
        let in_network = [&anywhere[..], &["/ip4/192.168.1.7/tcp/1".to_owned()]].concat();
        let on_host = [&in_network[..], &["/ip4/127.0.0.1/tcp/1".to_owned()]].concat();
        assert_eq!(told(&own), on_host);
        assert_eq!(told_to(&own, "/ip4/20.0.0.9/tcp/1"), anywhere);
        assert_eq!(told_to(&own, "/ip4/20.0.0.9/tcp/1/p2p-circuit"), anywhere);
        assert_eq!(told_to(&own, "/ip4/192.168.1.9/udp/1/quic-v1"), in_network);
        assert_eq!(told_to(&own, "/ip4/127.0.0.1/udp/1/quic-v1"), on_host);
        // Who comes from one of our own addresses is on our machine.
        assert_eq!(told_to(&own, "/ip4/192.168.1.7/tcp/9"), on_host);
        assert_eq!(told_to(&own, "/memory/1"), on_host);
        assert_eq!(own.told_to(None).len(), 5);
    }

    #[test]
    fn enough_observers_make_an_address_of_each_transport_on_the_port() {
        let mut own = own(&[QUIC, WEB_TRANSPORT, TCP]);
        assert!(!observe(&mut own, DIALED_FROM, SEEN, 3));
        assert_eq!(told(&own), [QUIC, WEB_TRANSPORT, TCP]);
        let candidate = own.all().iter().find(|own| own.address == parse(SEEN)).unwrap();
        assert_eq!(candidate.source, AddressSource::Observed { observers: 3 });
        assert!(observe(&mut own, DIALED_FROM, SEEN, 4));
        let outside = [SEEN, "/ip4/30.0.0.1/udp/6000/quic-v1/webtransport"];
        assert_eq!(told(&own), [&outside[..], &[QUIC, WEB_TRANSPORT, TCP]].concat());
        assert_eq!(told_to(&own, "/ip4/20.0.0.9/tcp/1"), outside);
    }

    #[test]
    fn what_says_nothing_of_a_listening_port_is_not_counted() {
        let mut own = own(&[QUIC]);
        for (local, seen) in [
            ("/ip4/10.0.0.2/udp/50000/quic-v1", SEEN),
            (DIALED_FROM, "/ip4/30.0.0.1/tcp/6000"),
            (DIALED_FROM, "/ip6/2a00::1/udp/6000/quic-v1"),
            (DIALED_FROM, "/ip4/127.0.0.1/udp/6000/quic-v1"),
            (DIALED_FROM, "/ip4/0.0.0.0/udp/6000/quic-v1"),
            (DIALED_FROM, "/ip4/30.0.0.1/udp/6000/quic-v1/p2p-circuit"),
            (DIALED_FROM, "/dns/example.org/udp/6000/quic-v1"),
            ("/memory/1", SEEN),
        ] {
            assert!(!observe(&mut own, local, seen, 9), "{local} seen as {seen}");
        }
        assert_eq!(told(&own), [QUIC]);
        let (connection, now) = (ConnectionId::for_tests(1), Instant::now());
        let observers = ["/ip4/127.0.0.1/udp/1/quic-v1", "/ip4/20.0.0.1/tcp/1/p2p-circuit", "/memory/1"];
        for observer in observers.map(parse) {
            assert!(!own.observe(connection, (&parse(DIALED_FROM), &observer, &parse(SEEN)), now));
        }
        assert_eq!(own.observations.len(), 0);
    }

    #[test]
    fn a_symmetric_nat_has_no_address_that_is_told() {
        let mut own = own(&[QUIC]);
        for network in 0..20_u8 {
            let observer = parse(&format!("/ip4/20.1.{network}.1/udp/4001/quic-v1"));
            let seen = parse(&format!("/ip4/30.0.0.1/udp/{}/quic-v1", 6000 + u16::from(network)));
            let connection = ConnectionId::for_tests(network.into());
            own.observe(connection, (&parse(DIALED_FROM), &observer, &seen), Instant::now());
        }
        assert_eq!(own.all().len(), 1);
    }

    #[test]
    fn reachable_addresses_come_first_and_unreachable_ones_are_not_told() {
        let (one, other) = ("/ip4/20.0.0.1/tcp/1", "/ip4/20.0.0.1/udp/1/quic-v1");
        let mut own = own(&[one, other, TCP]);
        assert_eq!(own.set_reachability(&parse(other), Reachability::Reachable), (true, true));
        assert_eq!(told(&own), [other, one, TCP]);
        assert_eq!(own.set_reachability(&parse(one), Reachability::Unreachable), (true, true));
        assert_eq!(own.set_reachability(&parse(one), Reachability::Unreachable), (false, false));
        assert_eq!(told(&own), [other, TCP]);
        let nobodys = parse("/ip4/9.9.9.9/tcp/1");
        assert_eq!(own.set_reachability(&nobodys, Reachability::Reachable), (false, false));
        // A verdict goes with its address.
        own.set_listening(vec![parse(other)]);
        own.set_listening(vec![parse(one), parse(other)]);
        assert_eq!(told(&own), [other, one]);
    }

    #[test]
    fn an_observed_address_that_was_found_reachable_needs_fewer_observers() {
        let mut own = own(&[QUIC]);
        observe(&mut own, DIALED_FROM, SEEN, 2);
        assert_eq!(told(&own), [QUIC]);
        assert_eq!(own.set_reachability(&parse(SEEN), Reachability::Reachable), (true, true));
        assert_eq!(told(&own), [SEEN, QUIC]);
        own.observations.connection_closed(ConnectionId::for_tests(0), Instant::now());
        assert!(own.expire(Instant::now() + super::super::OBSERVATION_TTL));
        assert_eq!(told(&own), [QUIC]);
    }

    #[test]
    fn a_port_mapping_counts_for_all_that_listens_on_the_port() {
        let mut own = own(&[QUIC, WEB_TRANSPORT, TCP]);
        let (inside, outside) = ("0.0.0.0:4001".parse().unwrap(), Some("30.0.0.1:7000".parse().unwrap()));
        assert!(own.set_mapping(PortProtocol::Udp, inside, outside));
        let mapped = ["/ip4/30.0.0.1/udp/7000/quic-v1", "/ip4/30.0.0.1/udp/7000/quic-v1/webtransport"];
        assert_eq!(told(&own), [&mapped[..], &[QUIC, WEB_TRANSPORT, TCP]].concat());
        assert!(own.set_mapping(PortProtocol::Udp, inside, None));
        assert_eq!(told(&own), [QUIC, WEB_TRANSPORT, TCP]);
    }

    #[test]
    fn the_application_s_word_stands_and_its_bare_ports_are_for_every_transport() {
        let mut own = own(&[QUIC, WEB_TRANSPORT, TCP, "/ip4/10.0.0.2/tcp/4001/ws"]);
        assert!(own.add_external(parse("/ip4/30.0.0.1/udp/4001")));
        assert!(own.add_external(parse("/ip4/30.0.0.1/tcp/4001")));
        assert!(own.add_external(parse("/dns4/example.org/tcp/443/wss")));
        assert!(!own.add_external(parse("/ip4/30.0.0.1/udp/5555")), "nothing listens there");
        let outside = [
            "/ip4/30.0.0.1/udp/4001/quic-v1",
            "/ip4/30.0.0.1/udp/4001/quic-v1/webtransport",
            "/ip4/30.0.0.1/tcp/4001",
            "/ip4/30.0.0.1/tcp/4001/ws",
            "/dns4/example.org/tcp/443/wss",
        ];
        assert_eq!(told_to(&own, "/ip4/20.0.0.9/tcp/1"), outside);
        assert_eq!(own.set_reachability(&parse(outside[0]), Reachability::Unreachable), (true, false));
        assert!(own.remove_external(&parse("/ip4/30.0.0.1/udp/4001")));
        assert_eq!(told_to(&own, "/ip4/20.0.0.9/tcp/1"), &outside[2..]);
        for port in 0..200 {
            own.add_external(parse(&format!("/ip4/30.0.0.1/tcp/{port}/ws")));
        }
        assert!(own.all().len() <= MAX_EXTERNAL_ADDRESSES + 10);
    }

    proptest! {
        /// Whatever is observed and verified: told addresses follow, and there is no end of none.
        #[test]
        fn what_is_told_follows_from_what_is_known(
            observations in prop::collection::vec((0..8u8, 0..4u8, any::<bool>()), 0..60),
            verdicts in prop::collection::vec((any::<prop::sample::Index>(), 0..3u8), 0..20),
        ) {
            let mut own = own(&[QUIC, WEB_TRANSPORT, TCP]);
            for (network, port, tcp) in observations {
                let observer = parse(&format!("/ip4/20.1.{network}.1/udp/4001/quic-v1"));
                let service = if tcp { "tcp" } else { "udp" };
                let seen = parse(&format!("/ip4/30.0.0.1/{service}/600{port}"));
                let local = parse(if tcp { TCP } else { QUIC });
                let connection = ConnectionId::for_tests(network.into());
                let before = told(&own);
                let changed = own.observe(connection, (&local, &observer, &seen), Instant::now());
                prop_assert_eq!(changed, told(&own) != before);
            }
            for (which, verdict) in verdicts {
                let address = own.all()[which.index(own.all().len())].address.clone();
                let verdict = [Reachability::Unknown, Reachability::Reachable, Reachability::Unreachable]
                    [usize::from(verdict)];
                let before = told(&own);
                let (_, changed) = own.set_reachability(&address, verdict);
                prop_assert_eq!(changed, told(&own) != before);
            }
            prop_assert!(own.all().len() <= 3 + 3 * 3);
            prop_assert!(own.all().is_sorted_by_key(rank));
            for own in own.all() {
                prop_assert_eq!(own.told, is_told(own));
            }
        }
    }
}
