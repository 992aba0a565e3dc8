use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use peerloom_core::Keypair;

use super::{
    Internet,
    fabric::HostState,
    nat::Nat,
    random::{Random, mix},
    transport::InternetTransport,
};

/// A host, by its number in the order in which they were made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostId(pub(crate) u32);

impl fmt::Display for HostId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "host {}", self.0)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct RouterId(pub(crate) u32);

/// What a host is to be.
#[derive(Debug, Clone, Default)]
pub struct HostConfig {
    pub(super) addresses: Vec<IpAddr>,
    pub(super) behind: Option<Behind>,
    pub(super) udp_blocked: bool,
}

/// What stands between a host and the rest.
#[derive(Debug, Clone)]
pub enum Behind {
    /// A router of its own.
    Own(Nat),
    /// One that it may share.
    Shared(Router),
}

impl From<Nat> for Behind {
    fn from(nat: Nat) -> Self {
        Self::Own(nat)
    }
}

impl From<&Router> for Behind {
    fn from(router: &Router) -> Self {
        Self::Shared(router.clone())
    }
}

impl HostConfig {
    /// A host with one public IPv4 address that the network chooses.
    pub fn new() -> Self {
        Self::default()
    }

    /// With this address; instead of the one that the network would choose, or one more. Behind a router an IPv4 address is
    /// private to those behind it; an IPv6 address is everybody's.
    pub fn address(mut self, address: impl Into<IpAddr>) -> Self {
        self.addresses.push(address.into());
        self
    }

    /// Behind a NAT: a [`Nat`] for a router of its own, or a [`Router`] to share.
    pub fn behind(mut self, behind: impl Into<Behind>) -> Self {
        self.behind = Some(behind.into());
        self
    }

    /// In a network that lets no UDP through, either way.
    pub fn without_udp(mut self) -> Self {
        self.udp_blocked = true;
        self
    }
}

/// A computer in an [`Internet`]. A handle; clones are the same host.
#[derive(Debug, Clone)]
pub struct Host {
    pub(super) internet: Internet,
    pub(super) id: HostId,
}

impl Host {
    /// Its number.
    pub fn id(&self) -> HostId {
        self.id
    }

    /// Its own addresses; behind a NAT, others see another one.
    pub fn addresses(&self) -> Vec<IpAddr> {
        let state = self.internet.lock();
        state.fabric.host(self.id).map(|host| host.addresses.clone()).unwrap_or_default()
    }

    /// The address that others see: its first one, or that of its router.
    pub fn public_address(&self) -> IpAddr {
        let state = self.internet.lock();
        let host = state.fabric.host(self.id);
        let router = host.and_then(|host| host.router).and_then(|id| state.fabric.routers.get(id.0 as usize));
        let own = host.and_then(|host| host.addresses.first().copied());
        router.map(|router| router.outside).or(own).unwrap_or(IpAddr::from([0, 0, 0, 0]))
    }

    /// An identity that depends on nothing but the network's seed and the host's number.
    pub fn keypair(&self) -> Keypair {
        let mut random = Random::new(mix(self.internet.seed() ^ mix(u64::from(self.id.0))));
        let mut seed = [0; 32];
        for chunk in seed.chunks_mut(8) {
            chunk.copy_from_slice(&random.next().to_le_bytes());
        }
        Keypair::from_seed(seed)
    }

    /// A way for a node on this host to reach others, with the identity that it proves to them.
    pub fn transport(&self, keypair: Keypair) -> InternetTransport {
        InternetTransport::new(self.clone(), keypair)
    }

    /// The host goes down at once: it says no goodbyes, and what it knew of its connections is lost. Transports that it
    /// had are of no more use, and what [runs](Self::run) on it ends.
    pub fn crash(&self) {
        self.internet.with(|state, now| state.crash(now, self.id));
    }

    /// A host that crashed is there again, with nothing that listens. New transports work.
    pub fn restart(&self) {
        self.internet.with(|state, now| state.restart(now, self.id));
    }

    /// Nothing reaches the host or leaves it until `duration` has passed, or [`wake`](Self::wake) is called, and what
    /// [runs](Self::run) on it stands still: its timers are late when it wakes. What is sent meanwhile, by what runs elsewhere,
    /// is sent afterwards.
    pub fn sleep(&self, duration: Duration) {
        self.internet.with(|state, now| state.sleep(now, self.id, duration));
    }

    /// From now on its network lets no UDP through, or does so again: a laptop that is carried from one to another.
    pub fn block_udp(&self, blocked: bool) {
        self.internet.with(|state, now| {
            if let Some(host) = state.fabric.host_mut(self.id) {
                host.takes_udp = !blocked;
            }
            state.assess_host(now, self.id);
        });
    }

    /// Ends its sleep.
    pub fn wake(&self) {
        self.internet.with(|state, now| state.wake(now, self.id));
    }
}

/// A router with a public address and a [`Nat`]. A handle; clones are the same router.
#[derive(Debug, Clone)]
pub struct Router {
    pub(super) internet: Internet,
    pub(super) id: RouterId,
}

impl Router {
    /// Its public address.
    pub fn address(&self) -> IpAddr {
        let state = self.internet.lock();
        let router = state.fabric.routers.get(self.id.0 as usize);
        router.map_or(IpAddr::from([0, 0, 0, 0]), |router| router.outside)
    }

    /// Lets the hosts behind it reach each other at its public address. By default they cannot.
    pub fn hairpin(self) -> Self {
        self.internet.with(|state, _| {
            if let Some(router) = state.fabric.router_mut(self.id) {
                router.hairpin = true;
            }
        });
        self
    }

    /// It is switched off and on: every mapping is gone, and with it every connection through one.
    pub fn reboot(&self) {
        self.internet.with(|state, now| {
            if let Some(router) = state.fabric.router_mut(self.id) {
                router.table.clear();
            }
            state.assess_all(now);
        });
    }
}

const FIRST_EPHEMERAL_PORT: u16 = 49_152;

impl HostState {
    /// A port that nobody has chosen.
    pub(super) fn assign_port(&mut self) -> u16 {
        let port = self.next_port.max(FIRST_EPHEMERAL_PORT);
        self.next_port = port.checked_add(1).unwrap_or(FIRST_EPHEMERAL_PORT);
        port
    }
}

/// The address with this number among those that start at `first`.
pub(super) fn nth_address(first: [u8; 4], number: u32) -> IpAddr {
    IpAddr::from(u32::from_be_bytes(first).wrapping_add(number).to_be_bytes())
}

/// For tests and tools that want sockets.
impl Host {
    /// Its first address with a port.
    pub fn socket(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.addresses().first().copied().unwrap_or(IpAddr::from([0, 0, 0, 0])), port)
    }
}
