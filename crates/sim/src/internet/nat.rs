//! Network address translation as RFC 3489 sorts it: which inside addresses share an outside one, and who may answer.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use super::{fabric::IpProtocol, host::HostId, random::Random};

/// The four kinds of RFC 3489, section 5. In the words of RFC 4787: mapping, then filtering.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Nat {
    /// Endpoint-independent, endpoint-independent: once a host has sent from a port, anybody may send there.
    FullCone,
    /// Endpoint-independent, address-dependent: hosts that it has sent to may, from any of their ports.
    RestrictedCone,
    /// Endpoint-independent, address- and port-dependent: only the very sockets that it has sent to may.
    PortRestrictedCone,
    /// Address- and port-dependent, twice: each destination sees another port, and is the only one that may use it.
    Symmetric,
}

/// Ports in use at one time; of those that nobody uses, the one unused for longest makes room.
pub const MAX_MAPPINGS: usize = 4096;
/// Remotes that one port remembers; the one unused for longest makes room.
pub const MAX_REMOTES: usize = 1024;
/// How long a mapping lasts after the last packet from inside, if no connection keeps it (RFC 4787, REQ-5: two minutes or more).
pub const MAPPING_LIFETIME: Duration = Duration::from_secs(120);

const FIRST_PORT: u16 = 1024;

#[derive(Debug)]
pub(crate) struct NatTable {
    kind: Nat,
    by_inside: BTreeMap<Inside, u16>,
    by_port: BTreeMap<(IpProtocol, u16), Mapping>,
}

/// What a mapping is made for; with the destination where that counts.
type Inside = (IpProtocol, SocketAddr, Option<SocketAddr>);

#[derive(Debug)]
struct Mapping {
    key: Inside,
    host: HostId,
    remotes: BTreeMap<SocketAddr, Use>,
}

#[derive(Debug, Clone, Copy)]
struct Use {
    last: Duration,
    /// Connections that keep it fresh: their keep-alives are not sent as packets.
    connections: u32,
}

impl Use {
    fn is_fresh(&self, now: Duration) -> bool {
        self.connections > 0 || now.saturating_sub(self.last) <= MAPPING_LIFETIME
    }
}

impl Mapping {
    fn is_fresh(&self, now: Duration) -> bool {
        self.remotes.values().any(|remote| remote.is_fresh(now))
    }

    fn last_used(&self) -> Option<(bool, Duration)> {
        self.remotes.values().map(|remote| (remote.connections > 0, remote.last)).max()
    }
}

impl NatTable {
    pub(crate) fn new(kind: Nat) -> Self {
        Self { kind, by_inside: BTreeMap::new(), by_port: BTreeMap::new() }
    }

    fn key(&self, protocol: IpProtocol, inside: SocketAddr, remote: SocketAddr) -> Inside {
        (protocol, inside, (self.kind == Nat::Symmetric).then_some(remote))
    }

    /// A packet goes out: the port that `remote` sees. `None` if all are in use.
    pub(crate) fn outbound(
        &mut self,
        now: Duration,
        (protocol, host): (IpProtocol, HostId),
        inside: SocketAddr,
        remote: SocketAddr,
        random: &mut Random,
    ) -> Option<u16> {
        let key = self.key(protocol, inside, remote);
        let known = self.by_inside.get(&key).copied();
        let fresh =
            |port: &u16| self.by_port.get(&(protocol, *port)).is_some_and(|entry| entry.is_fresh(now));
        let port = match known.filter(fresh) {
            Some(port) => port,
            None => {
                known.into_iter().for_each(|port| self.forget(protocol, port));
                self.make_room(now)?;
                let port = self.free_port(now, protocol, inside.port(), random)?;
                self.by_inside.insert(key, port);
                let mapping = Mapping { key, host, remotes: BTreeMap::new() };
                self.by_port.insert((protocol, port), mapping);
                port
            }
        };
        let remotes = &mut self.by_port.get_mut(&(protocol, port))?.remotes;
        if remotes.len() >= MAX_REMOTES && !remotes.contains_key(&remote) {
            let oldest = remotes.iter().min_by_key(|(_, usage)| (usage.connections > 0, usage.last));
            let oldest = oldest.map(|(remote, _)| *remote);
            oldest.map(|oldest| remotes.remove(&oldest));
        }
        remotes.entry(remote).or_insert(Use { last: now, connections: 0 }).last = now;
        Some(port)
    }

    /// A packet comes in: whom it is for, if it may pass.
    pub(crate) fn inbound(
        &self,
        now: Duration,
        protocol: IpProtocol,
        port: u16,
        remote: SocketAddr,
    ) -> Option<(HostId, SocketAddr)> {
        let mapping = self.by_port.get(&(protocol, port))?;
        let passes = match self.kind {
            Nat::FullCone => mapping.is_fresh(now),
            Nat::RestrictedCone => {
                let mut remotes = mapping.remotes.iter();
                remotes.any(|(known, usage)| known.ip() == remote.ip() && usage.is_fresh(now))
            }
            Nat::PortRestrictedCone | Nat::Symmetric => {
                mapping.remotes.get(&remote).is_some_and(|usage| usage.is_fresh(now))
            }
        };
        passes.then_some((mapping.host, mapping.key.1))
    }

    /// Whose the port is, may a packet pass or not.
    pub(crate) fn owner(&self, protocol: IpProtocol, port: u16) -> Option<HostId> {
        self.by_port.get(&(protocol, port)).map(|mapping| mapping.host)
    }

    /// A connection to `remote` keeps the mapping fresh from now on, or no longer. Whether there is one.
    pub(crate) fn keep(
        &mut self,
        now: Duration,
        protocol: IpProtocol,
        inside: SocketAddr,
        remote: SocketAddr,
        keep: bool,
    ) -> bool {
        let key = self.key(protocol, inside, remote);
        let Some(port) = self.by_inside.get(&key) else { return false };
        let mapping = self.by_port.get_mut(&(protocol, *port));
        let Some(usage) = mapping.and_then(|mapping| mapping.remotes.get_mut(&remote)) else { return false };
        if !usage.is_fresh(now) {
            return false;
        }
        usage.connections = match keep {
            true => usage.connections.saturating_add(1),
            false => usage.connections.saturating_sub(1),
        };
        usage.last = now;
        true
    }

    pub(crate) fn is_kept(
        &self,
        now: Duration,
        protocol: IpProtocol,
        inside: SocketAddr,
        remote: SocketAddr,
    ) -> bool {
        let port = self.by_inside.get(&self.key(protocol, inside, remote));
        let mapping = port.and_then(|port| self.by_port.get(&(protocol, *port)));
        mapping.and_then(|mapping| mapping.remotes.get(&remote)).is_some_and(|usage| usage.is_fresh(now))
    }

    /// Forgets everything, as a router does that was switched off and on.
    pub(crate) fn clear(&mut self) {
        self.by_inside.clear();
        self.by_port.clear();
    }

    fn forget(&mut self, protocol: IpProtocol, port: u16) {
        if let Some(mapping) = self.by_port.remove(&(protocol, port)) {
            self.by_inside.remove(&mapping.key);
        }
    }

    fn make_room(&mut self, now: Duration) -> Option<()> {
        if self.by_port.len() < MAX_MAPPINGS {
            return Some(());
        }
        let stale = self.by_port.iter().filter(|(_, mapping)| !mapping.is_fresh(now));
        let stale: Vec<_> = stale.map(|(port, _)| *port).collect();
        if stale.is_empty() {
            let oldest = self.by_port.iter().min_by_key(|(_, mapping)| mapping.last_used())?;
            let ((protocol, port), is_kept) = (*oldest.0, oldest.1.last_used()?.0);
            if is_kept {
                return None;
            }
            self.forget(protocol, port);
        }
        stale.into_iter().for_each(|(protocol, port)| self.forget(protocol, port));
        Some(())
    }

    /// The inside port where it is to be had, as most routers do; another for each destination of a symmetric one.
    fn free_port(
        &mut self,
        now: Duration,
        protocol: IpProtocol,
        wanted: u16,
        random: &mut Random,
    ) -> Option<u16> {
        let taken =
            |port: &u16| self.by_port.get(&(protocol, *port)).is_some_and(|entry| entry.is_fresh(now));
        let port = match Some(wanted).filter(|port| self.kind != Nat::Symmetric && !taken(port)) {
            Some(port) => port,
            None => {
                let ports = u64::from(u16::MAX - FIRST_PORT);
                let start = u16::try_from(random.below(ports)).unwrap_or_default();
                (0..u16::MAX - FIRST_PORT)
                    .map(|step| {
                        FIRST_PORT + (u32::from(start) + u32::from(step)).rem_euclid(ports as u32) as u16
                    })
                    .find(|port| !taken(port))?
            }
        };
        self.forget(protocol, port);
        Some(port)
    }
}

/// A router with an address of its own and a [`Nat`], in front of any number of hosts.
#[derive(Debug)]
pub(crate) struct RouterState {
    pub(crate) outside: IpAddr,
    pub(crate) table: NatTable,
    /// Whether hosts behind it reach each other at its outside address.
    pub(crate) hairpin: bool,
    /// How many private addresses are given away.
    pub(crate) assigned: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    const UDP: IpProtocol = IpProtocol::Udp;
    const HOST: HostId = HostId(0);

    fn socket(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn out(table: &mut NatTable, at: u64, inside: &str, remote: &str) -> u16 {
        let by = (UDP, HOST);
        let mut random = Random::new(at);
        table.outbound(Duration::from_secs(at), by, socket(inside), socket(remote), &mut random).unwrap()
    }

    fn passes(table: &NatTable, at: u64, port: u16, remote: &str) -> bool {
        let found = table.inbound(Duration::from_secs(at), UDP, port, socket(remote));
        found.is_some_and(|(host, inside)| (host, inside) == (HOST, socket("10.0.0.2:4001")))
    }

    #[test]
    fn the_four_kinds_let_in_whom_they_should() {
        for (kind, same_socket, same_host, anybody) in [
            (Nat::FullCone, true, true, true),
            (Nat::RestrictedCone, true, true, false),
            (Nat::PortRestrictedCone, true, false, false),
            (Nat::Symmetric, true, false, false),
        ] {
            let mut table = NatTable::new(kind);
            let port = out(&mut table, 0, "10.0.0.2:4001", "1.1.1.1:1000");
            assert_eq!(passes(&table, 1, port, "1.1.1.1:1000"), same_socket, "{kind:?}");
            assert_eq!(passes(&table, 1, port, "1.1.1.1:1001"), same_host, "{kind:?}");
            assert_eq!(passes(&table, 1, port, "2.2.2.2:1000"), anybody, "{kind:?}");
            assert!(!passes(&table, 1, port.wrapping_add(1), "1.1.1.1:1000"), "{kind:?}");
        }
    }

    #[test]
    fn only_a_symmetric_one_shows_each_destination_another_port() {
        for kind in [Nat::FullCone, Nat::RestrictedCone, Nat::PortRestrictedCone, Nat::Symmetric] {
            let mut table = NatTable::new(kind);
            let first = out(&mut table, 0, "10.0.0.2:4001", "1.1.1.1:1000");
            assert_eq!(out(&mut table, 0, "10.0.0.2:4001", "1.1.1.1:1000"), first);
            let second = out(&mut table, 0, "10.0.0.2:4001", "2.2.2.2:1000");
            assert_eq!(first != second, kind == Nat::Symmetric, "{kind:?}");
            let other = out(&mut table, 0, "10.0.0.3:4001", "1.1.1.1:1000");
            assert_ne!(first, other, "two hosts never share a port");
        }
    }

    #[test]
    fn a_mapping_expires_unless_it_is_used_or_kept() {
        let mut table = NatTable::new(Nat::PortRestrictedCone);
        let (inside, remote) = ("10.0.0.2:4001", "1.1.1.1:1000");
        let port = out(&mut table, 0, inside, remote);
        assert!(passes(&table, 120, port, remote) && !passes(&table, 121, port, remote));
        out(&mut table, 100, inside, remote);
        assert!(passes(&table, 220, port, remote) && !passes(&table, 221, port, remote));
        let at = Duration::from_secs(200);
        assert!(table.keep(at, UDP, socket(inside), socket(remote), true));
        assert!(passes(&table, 10_000, port, remote));
        assert!(table.keep(Duration::from_secs(10_000), UDP, socket(inside), socket(remote), false));
        assert!(passes(&table, 10_120, port, remote) && !passes(&table, 10_121, port, remote));
    }

    #[test]
    fn a_scan_from_inside_does_not_grow_the_table_without_bound() {
        let mut table = NatTable::new(Nat::Symmetric);
        for number in 0..5000_u32 {
            let remote = format!("1.1.{}.{}:1000", number / 256, number % 256);
            out(&mut table, 0, "10.0.0.2:4001", &remote);
        }
        assert_eq!(table.by_port.len(), MAX_MAPPINGS);
        assert_eq!(table.by_inside.len(), MAX_MAPPINGS);
        let mut table = NatTable::new(Nat::FullCone);
        for number in 0..5000_u32 {
            let remote = format!("1.1.{}.{}:1000", number / 256, number % 256);
            out(&mut table, 0, "10.0.0.2:4001", &remote);
        }
        assert_eq!(table.by_port.values().next().unwrap().remotes.len(), MAX_REMOTES);
    }
}
