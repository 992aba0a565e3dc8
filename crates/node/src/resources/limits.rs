//! What each scope may hold, and how much of that suits a machine.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use peerloom_core::{PeerId, ProtocolName};

use super::{Amounts, ResourceScope};
use crate::gating::IpNetwork;

/// The limits of all scopes.
///
/// The default suits any machine that can spare 1 GiB ([`ResourceLimits::for_budget`]), and a page can have a sixteenth of
/// that. The crate `peerloom` and the server ask the machine.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ResourceLimits {
    /// All of the node.
    pub system: Amounts,
    /// Connections whose handshakes are not over, and streams that have not named their protocol. Dialers beyond
    /// [`inbound_connections`](Amounts::inbound_connections) wait in the socket's backlog until one of those has had its
    /// [time](crate::Limits::handshake_grace).
    pub transient: Amounts,
    /// What those on the [allow list](Self::allow) may have beside [`system`](Self::system), once that is full.
    pub allowed_system: Amounts,
    /// What they may have beside [`transient`](Self::transient).
    pub allowed_transient: Amounts,
    /// Each peer. For one more than [`connections`](Amounts::connections), its oldest connection is closed.
    pub peer: Amounts,
    /// Each protocol.
    pub protocol: Amounts,
    /// Each protocol with each peer.
    pub protocol_peer: Amounts,
    /// Each connection. Streams that the remote opens beyond [`inbound_streams`](Amounts::inbound_streams) wait until one of
    /// those is over.
    pub connection: Amounts,
    /// Peers with limits other than [`peer`](Self::peer).
    pub peers: BTreeMap<PeerId, Amounts>,
    /// Protocols with limits other than [`protocol`](Self::protocol).
    pub protocols: BTreeMap<ProtocolName, Amounts>,
    /// Those who dial from one IPv4 network.
    pub ip4: Vec<PrefixLimit>,
    /// Those who dial from one IPv6 network.
    pub ip6: Vec<PrefixLimit>,
    /// Networks with limits other than those of [`ip4`](Self::ip4) and [`ip6`](Self::ip6): loopback by default, which has
    /// none. Of several the smallest counts, and counts as a whole.
    pub networks: BTreeMap<IpNetwork, NetworkLimit>,
    /// Who gets in when there is no more room.
    pub allow: AllowList,
}

/// A limit on all networks of one size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PrefixLimit {
    /// How many bits the addresses of a network have in common.
    pub prefix: u8,
    /// What each may have.
    pub limit: NetworkLimit,
}

/// What those who dial from one network may have. What this node dials itself does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NetworkLimit {
    /// Connections, handshakes included.
    pub connections: usize,
    /// Handshakes.
    pub handshakes: usize,
}

impl NetworkLimit {
    /// As many as the node can have.
    pub const UNLIMITED: Self = Self { connections: usize::MAX, handshakes: usize::MAX };
}

/// Who gets in when there is no more room: then what they take counts in scopes of their own, as do streams on their connections.
/// The limits of IP networks, of the system and on unfinished handshakes do not keep them out; all others hold for them, too.
///
/// A peer can be told from others only after a handshake. While there are peers on the list, others may begin handshakes in its
/// scope as well; they are refused at their end.
#[derive(Debug, Clone, Default)]
pub struct AllowList {
    /// Whoever dials from there, and is dialed there.
    pub networks: Vec<IpNetwork>,
    /// These, wherever they are.
    pub peers: BTreeSet<PeerId>,
}

impl AllowList {
    pub(super) fn has_ip(&self, ip: Option<IpAddr>) -> bool {
        ip.is_some_and(|ip| self.networks.iter().any(|network| network.contains(ip)))
    }
}

const MIB: usize = 1 << 20;

/// What a node may use of a machine about which nothing is known.
#[cfg(not(target_arch = "wasm32"))]
const DEFAULT_MEMORY: usize = 1024 * MIB;
/// What a page may use.
#[cfg(target_arch = "wasm32")]
const DEFAULT_MEMORY: usize = 64 * MIB;
/// For each of them there may be a connection. What idle connections have been seen to take is a seventh of it at most
/// (docs/benchmarks.md); the rest is for their streams.
const MEMORY_PER_CONNECTION: usize = 256 << 10;
/// On average.
const STREAMS_PER_CONNECTION: usize = 16;
/// That a remote may have open on one.
const STREAMS_OF_CONNECTION: usize = 256;

impl Default for ResourceLimits {
    fn default() -> Self {
        Self::for_budget(DEFAULT_MEMORY, usize::MAX)
    }
}

impl ResourceLimits {
    /// The limits of a node that may use so many bytes of memory and so many file descriptors.
    ///
    /// With 1 GiB these are 4,096 connections with 16 streams on average, and for one IP address a sixteenth of them; with other
    /// amounts they are in proportion. Of unfinished handshakes there are 128 at most, which one
    /// address may have as long as nobody else wants them.
    pub fn for_budget(memory: usize, descriptors: usize) -> Self {
        let connections = (memory / MEMORY_PER_CONNECTION).clamp(128, 1 << 20);
        let streams = connections.saturating_mul(STREAMS_PER_CONNECTION);
        // They take time rather than memory, and each has its second only.
        let handshakes = (connections / 8).clamp(32, 128);
        let part = |of: usize, divisor: usize| match of {
            usize::MAX => usize::MAX,
            of => of.checked_div(divisor).unwrap_or(of),
        };
        let network = |divisor: usize| NetworkLimit {
            connections: part(connections, divisor).max(16),
            // All of them: whoever shares an address with one that stalls waits until the oldest gives way, and is not refused.
            handshakes,
        };
        // Beyond those of one connection, streams wait instead of being reset; so two must fit everywhere else.
        let least = STREAMS_OF_CONNECTION.saturating_mul(2);
        let mut limits = Self::unlimited();
        limits.system = Amounts {
            connections,
            // Some are left for those that the node dials itself, and so for streams.
            inbound_connections: connections.saturating_sub(connections / 8),
            outbound_connections: connections,
            streams,
            inbound_streams: streams.saturating_sub(streams / 8),
            outbound_streams: streams,
            memory,
            descriptors,
        };
        limits.transient = Amounts {
            inbound_connections: handshakes,
            outbound_connections: handshakes.saturating_mul(4),
            inbound_streams: connections.max(least),
            outbound_streams: connections.max(least),
            memory: part(memory, 8),
            descriptors: part(descriptors, 4),
            ..Amounts::UNLIMITED
        };
        limits.allowed_system = Amounts {
            connections: connections / 8,
            streams: streams / 8,
            memory: part(memory, 8),
            descriptors: part(descriptors, 8),
            ..Amounts::UNLIMITED
        };
        limits.allowed_transient = Amounts {
            connections: handshakes,
            streams: connections / 8,
            memory: part(memory, 32),
            descriptors: part(descriptors, 16),
            ..Amounts::UNLIMITED
        };
        limits.peer = Amounts {
            connections: 8,
            inbound_streams: (connections / 4).clamp(least, 4096),
            outbound_streams: connections.clamp(1024, 16_384),
            memory: part(memory, 8),
            ..Amounts::UNLIMITED
        };
        limits.protocol =
            Amounts { inbound_streams: streams / 2, memory: part(memory, 2), ..Amounts::UNLIMITED };
        limits.protocol_peer = Amounts {
            inbound_streams: (connections / 8).clamp(least, 2048),
            memory: part(memory, 16),
            ..Amounts::UNLIMITED
        };
        limits.connection = Amounts { inbound_streams: STREAMS_OF_CONNECTION, ..Amounts::UNLIMITED };
        limits.ip4 = vec![PrefixLimit { prefix: 32, limit: network(16) }];
        // What one customer of a provider has at least, and what one may have.
        limits.ip6 = vec![
            PrefixLimit { prefix: 64, limit: network(16) },
            PrefixLimit { prefix: 48, limit: network(8) },
        ];
        limits
    }

    /// The limits of this machine: an eighth of its memory, or of what the process may have of it, and half of its file
    /// descriptors. The [default](Self::default) for what it does not tell.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn for_machine(machine: &super::Machine) -> Self {
        let memory = machine.memory.map_or(DEFAULT_MEMORY, |memory| memory / 8);
        Self::for_budget(memory, machine.descriptors.map_or(usize::MAX, |descriptors| descriptors / 2))
    }

    /// No limits at all.
    pub fn unlimited() -> Self {
        let loopback = [
            IpNetwork::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8),
            IpNetwork::new(IpAddr::V6(Ipv6Addr::LOCALHOST), 128),
        ];
        Self {
            system: Amounts::UNLIMITED,
            transient: Amounts::UNLIMITED,
            allowed_system: Amounts::UNLIMITED,
            allowed_transient: Amounts::UNLIMITED,
            peer: Amounts::UNLIMITED,
            protocol: Amounts::UNLIMITED,
            protocol_peer: Amounts::UNLIMITED,
            connection: Amounts::UNLIMITED,
            peers: BTreeMap::new(),
            protocols: BTreeMap::new(),
            ip4: Vec::new(),
            ip6: Vec::new(),
            networks: loopback
                .into_iter()
                .flatten()
                .map(|network| (network, NetworkLimit::UNLIMITED))
                .collect(),
            allow: AllowList::default(),
        }
    }

    /// What `scope` may hold.
    pub fn of(&self, scope: &ResourceScope) -> Amounts {
        match scope {
            ResourceScope::System => self.system,
            ResourceScope::Transient => self.transient,
            ResourceScope::AllowedSystem => self.allowed_system,
            ResourceScope::AllowedTransient => self.allowed_transient,
            ResourceScope::Network(network) => {
                Amounts { connections: self.of_network(network).connections, ..Amounts::UNLIMITED }
            }
            ResourceScope::TransientNetwork(network) => {
                Amounts { connections: self.of_network(network).handshakes, ..Amounts::UNLIMITED }
            }
            ResourceScope::Peer(peer) => self.peers.get(peer).copied().unwrap_or(self.peer),
            ResourceScope::Protocol(protocol) => {
                self.protocols.get(protocol).copied().unwrap_or(self.protocol)
            }
            ResourceScope::ProtocolPeer(..) => self.protocol_peer,
            ResourceScope::Connection(_) => self.connection,
        }
    }

    fn of_network(&self, network: &IpNetwork) -> NetworkLimit {
        let general = || {
            let (ip, prefix) = network.parts();
            let limits = if ip.is_ipv4() { &self.ip4 } else { &self.ip6 };
            limits.iter().find(|limit| limit.prefix == prefix).map(|limit| limit.limit)
        };
        self.networks.get(network).copied().or_else(general).unwrap_or(NetworkLimit::UNLIMITED)
    }

    /// The networks in which somebody who dials from `ip` counts.
    pub(super) fn networks_of(&self, ip: IpAddr) -> Vec<IpNetwork> {
        let ip = ip.to_canonical();
        let special = self.networks.keys().filter(|network| network.contains(ip));
        if let Some(smallest) = special.max_by_key(|network| network.prefix()) {
            return vec![*smallest];
        }
        let limits = if ip.is_ipv4() { &self.ip4 } else { &self.ip6 };
        limits.iter().filter_map(|limit| IpNetwork::new(ip, limit.prefix)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(text: &str) -> IpNetwork {
        let (ip, prefix) = text.split_once('/').unwrap();
        IpNetwork::new(ip.parse().unwrap(), prefix.parse().unwrap()).unwrap()
    }

    #[test]
    fn limits_grow_with_the_machine_and_have_a_floor() {
        let small = ResourceLimits::for_budget(MIB, 64);
        assert_eq!((small.system.connections, small.transient.inbound_connections), (128, 32));
        assert_eq!((small.system.memory, small.system.descriptors), (MIB, 64));
        assert_eq!((small.peer.inbound_streams, small.transient.inbound_streams), (512, 512));
        let gibibyte = ResourceLimits::for_budget(1024 * MIB, usize::MAX);
        assert_eq!((gibibyte.system.connections, gibibyte.transient.inbound_connections), (4096, 128));
        assert_eq!((gibibyte.system.streams, gibibyte.transient.descriptors), (65_536, usize::MAX));
        let large = ResourceLimits::for_budget(16 * 1024 * MIB, 1 << 20);
        assert_eq!((large.system.connections, large.ip4[0].limit.connections), (65_536, 4096));
    }

    #[test]
    fn an_address_counts_in_the_networks_around_it() {
        let mut limits = ResourceLimits::default();
        let of = |limits: &ResourceLimits, ip: &str| limits.networks_of(ip.parse().unwrap());
        assert_eq!(of(&limits, "192.0.2.7"), [network("192.0.2.7/32")]);
        assert_eq!(of(&limits, "::ffff:192.0.2.7"), [network("192.0.2.7/32")]);
        assert_eq!(
            of(&limits, "2001:db8:1:2:3::4"),
            [network("2001:db8:1:2::/64"), network("2001:db8:1::/48")]
        );
        assert_eq!(of(&limits, "127.0.0.1"), [network("127.0.0.0/8")]);
        // A proxy, say, behind which many are.
        limits.networks.insert(network("192.0.2.0/24"), NetworkLimit { connections: 9, handshakes: 8 });
        limits.networks.insert(network("192.0.2.7/32"), NetworkLimit { connections: 7, handshakes: 6 });
        assert_eq!(of(&limits, "192.0.2.8"), [network("192.0.2.0/24")]);
        assert_eq!(of(&limits, "192.0.2.7"), [network("192.0.2.7/32")]);
        let limit = |scope| limits.of(&scope).connections;
        assert_eq!(limit(ResourceScope::Network(network("192.0.2.0/24"))), 9);
        assert_eq!(limit(ResourceScope::TransientNetwork(network("192.0.2.7/32"))), 6);
        assert_eq!(limit(ResourceScope::Network(network("198.51.100.1/32"))), 256);
        assert_eq!(limit(ResourceScope::Network(network("127.0.0.0/8"))), usize::MAX);
    }
}
