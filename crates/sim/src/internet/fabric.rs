//! The network below connections, without I/O: packets and a time in, deliveries and a next deadline out.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap},
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use super::{
    host::{HostId, RouterId},
    link::{Lane, LinkConfig},
    nat::RouterState,
    random::Random,
    trace::{Trace, TraceEvent, What},
};

/// What carries a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum IpProtocol {
    Tcp,
    Udp,
}

/// Where an address means something: behind a router, or everywhere.
type Realm = Option<RouterId>;

#[derive(Debug, Clone, Copy)]
enum Owner {
    Host(HostId),
    Router(RouterId),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Power {
    On,
    Asleep,
    Off,
}

#[derive(Debug)]
pub(crate) struct HostState {
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) router: Option<RouterId>,
    pub(crate) takes_udp: bool,
    pub(crate) power: Power,
    /// Raised by a crash and by waking up: what was meant for an earlier one is void.
    pub(crate) incarnation: u32,
    /// Raised by every sleep, so that an alarm wakes from its own only.
    pub(crate) sleeps: u32,
    pub(crate) next_port: u16,
}

/// A packet that a host sends, or several at once.
#[derive(Debug)]
pub(crate) struct Outgoing<P> {
    pub(crate) from: HostId,
    pub(crate) protocol: IpProtocol,
    pub(crate) source: SocketAddr,
    pub(crate) destination: SocketAddr,
    /// Bytes of payload.
    pub(crate) length: usize,
    pub(crate) payload: P,
}

/// What happens next.
#[derive(Debug)]
pub(crate) enum Output<P> {
    Delivered {
        to: HostId,
        /// At which of its own addresses.
        local: SocketAddr,
        /// Where it seems to come from.
        source: SocketAddr,
        payload: P,
    },
    /// The sender is told, so that it need not be sent acknowledgements to find out.
    Lost {
        payload: P,
        /// How many packets of those that were sent together.
        packets: usize,
    },
    Timer(P),
}

#[derive(Debug)]
struct Scheduled<P> {
    at: Duration,
    /// Events of one instant happen in the order in which they were scheduled.
    order: u64,
    item: Item<P>,
}

#[derive(Debug)]
enum Item<P> {
    Arrival { outgoing: Outgoing<P>, realm: Realm, lost: usize },
    Lost(P),
    Timer(P),
}

#[derive(Debug)]
pub(crate) struct Fabric<P> {
    pub(crate) hosts: Vec<HostState>,
    pub(crate) routers: Vec<RouterState>,
    pub(crate) random: Random,
    pub(crate) trace: Trace,
    pub(crate) default_link: LinkConfig,
    links: BTreeMap<(HostId, HostId), LinkConfig>,
    lanes: BTreeMap<(HostId, Option<HostId>), Lane>,
    partitions: Vec<(BTreeSet<HostId>, BTreeSet<HostId>)>,
    routes: BTreeMap<(Realm, IpAddr), Owner>,
    queue: BinaryHeap<Reverse<Scheduled<P>>>,
    next_order: u64,
}

impl<P> Fabric<P> {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            hosts: Vec::new(),
            routers: Vec::new(),
            random: Random::new(seed),
            trace: Trace::default(),
            default_link: LinkConfig::new(Duration::from_millis(20)),
            links: BTreeMap::new(),
            lanes: BTreeMap::new(),
            partitions: Vec::new(),
            routes: BTreeMap::new(),
            queue: BinaryHeap::new(),
            next_order: 0,
        }
    }

    pub(crate) fn host(&self, id: HostId) -> Option<&HostState> {
        self.hosts.get(id.0 as usize)
    }

    pub(crate) fn host_mut(&mut self, id: HostId) -> Option<&mut HostState> {
        self.hosts.get_mut(id.0 as usize)
    }

    pub(crate) fn router_mut(&mut self, id: RouterId) -> Option<&mut RouterState> {
        self.routers.get_mut(id.0 as usize)
    }

    pub(crate) fn is_on(&self, id: HostId) -> bool {
        self.host(id).is_some_and(|host| host.power == Power::On)
    }

    /// Whether the address is free where `router` is, and taken from now on if so.
    pub(crate) fn claim(&mut self, id: HostId, address: IpAddr) -> bool {
        let realm = self.realm(id, address);
        if self.routes.contains_key(&(realm, address)) {
            return false;
        }
        self.routes.insert((realm, address), Owner::Host(id));
        true
    }

    pub(crate) fn claim_outside(&mut self, id: RouterId, address: IpAddr) -> bool {
        if self.routes.contains_key(&(None, address)) {
            return false;
        }
        self.routes.insert((None, address), Owner::Router(id));
        true
    }

    pub(crate) fn is_free(&self, realm: Realm, address: IpAddr) -> bool {
        !self.routes.contains_key(&(realm, address))
    }

    /// Only IPv4 is translated.
    fn realm(&self, id: HostId, address: IpAddr) -> Realm {
        self.host(id).and_then(|host| host.router).filter(|_| address.is_ipv4())
    }

    pub(crate) fn set_link(&mut self, one: HostId, other: HostId, link: LinkConfig) {
        self.links.insert((one.min(other), one.max(other)), link);
    }

    pub(crate) fn link(&self, one: HostId, other: HostId) -> LinkConfig {
        if one == other {
            return LinkConfig::new(Duration::ZERO);
        }
        self.links.get(&(one.min(other), one.max(other))).copied().unwrap_or(self.default_link)
    }

    pub(crate) fn partition(&mut self, now: Duration, one: BTreeSet<HostId>, other: BTreeSet<HostId>) {
        self.note(now, What::Partitioned, one.first().copied().unwrap_or(HostId(0)));
        self.partitions.push((one, other));
    }

    pub(crate) fn heal(&mut self, now: Duration) {
        self.partitions.clear();
        self.note(now, What::Healed, HostId(0));
    }

    fn is_partitioned(&self, one: HostId, other: HostId) -> bool {
        let apart = |(left, right): &(BTreeSet<HostId>, BTreeSet<HostId>)| {
            left.contains(&one) && right.contains(&other) || left.contains(&other) && right.contains(&one)
        };
        self.partitions.iter().any(apart)
    }

    /// Whether a packet could get from one host to the other, NATs aside.
    pub(crate) fn is_connected(&self, protocol: IpProtocol, from: HostId, to: HostId) -> bool {
        self.is_on(from)
            && self.is_on(to)
            && !self.is_partitioned(from, to)
            && !self.link(from, to).is_dead()
            && [from, to].into_iter().all(|host| self.takes(host, protocol))
    }

    fn takes(&self, host: HostId, protocol: IpProtocol) -> bool {
        protocol == IpProtocol::Tcp || self.host(host).is_some_and(|host| host.takes_udp)
    }

    /// Which router translates what `from` sends from `source` to `destination`.
    pub(crate) fn translator(
        &self,
        from: HostId,
        source: SocketAddr,
        destination: SocketAddr,
    ) -> Option<RouterId> {
        if destination.ip().is_loopback() {
            return None;
        }
        let router = self.realm(from, source.ip())?;
        self.is_free(Some(router), destination.ip()).then_some(router)
    }

    pub(crate) fn note(&mut self, at: Duration, what: What, host: HostId) {
        self.trace.record(TraceEvent { at, what, host, to: None, length: 0 });
    }

    fn note_packet(&mut self, at: Duration, what: What, outgoing: &Outgoing<P>, to: Option<HostId>) {
        let length = u32::try_from(outgoing.length).unwrap_or(u32::MAX);
        self.trace.record(TraceEvent { at, what, host: outgoing.from, to, length });
    }

    pub(crate) fn send(&mut self, now: Duration, mut outgoing: Outgoing<P>) {
        let from = outgoing.from;
        if !self.is_on(from) {
            return self.schedule(now, Item::Lost(outgoing.payload));
        }
        if !self.takes(from, outgoing.protocol) {
            self.note_packet(now, What::Filtered, &outgoing, None);
            return self.schedule(now, Item::Lost(outgoing.payload));
        }
        let mut realm = self.realm(from, outgoing.source.ip());
        if let Some(router) = self.translator(from, outgoing.source, outgoing.destination) {
            let Some(source) = self.translate(now, router, &outgoing) else {
                self.note_packet(now, What::Filtered, &outgoing, None);
                return self.schedule(now, Item::Lost(outgoing.payload));
            };
            outgoing.source = source;
            realm = None;
        }
        let to = self.destination(from, realm, outgoing.protocol, outgoing.destination);
        self.note_packet(now, What::Sent, &outgoing, to);
        let link = to.map_or(self.default_link, |to| self.link(from, to));
        let lane = self.lanes.entry((from, to)).or_default();
        let passage = lane.pass(now, outgoing.length, &link, &mut self.random);
        self.schedule(passage.arrives, Item::Arrival { outgoing, realm, lost: passage.lost });
    }

    fn translate(&mut self, now: Duration, router: RouterId, outgoing: &Outgoing<P>) -> Option<SocketAddr> {
        let state = self.routers.get_mut(router.0 as usize)?;
        if outgoing.destination.ip() == state.outside && !state.hairpin {
            return None;
        }
        let by = (outgoing.protocol, outgoing.from);
        let (inside, remote) = (outgoing.source, outgoing.destination);
        let port = state.table.outbound(now, by, inside, remote, &mut self.random)?;
        Some(SocketAddr::new(state.outside, port))
    }

    /// Which host a packet is for, may it arrive there or not.
    fn destination(
        &self,
        from: HostId,
        realm: Realm,
        protocol: IpProtocol,
        destination: SocketAddr,
    ) -> Option<HostId> {
        if destination.ip().is_loopback() {
            return Some(from);
        }
        match self.routes.get(&(realm, destination.ip()))? {
            Owner::Host(host) => Some(*host),
            Owner::Router(router) => {
                self.routers.get(router.0 as usize)?.table.owner(protocol, destination.port())
            }
        }
    }

    pub(crate) fn timer(&mut self, at: Duration, payload: P) {
        self.schedule(at, Item::Timer(payload));
    }

    fn schedule(&mut self, at: Duration, item: Item<P>) {
        let order = self.next_order;
        self.next_order = order.wrapping_add(1);
        self.queue.push(Reverse(Scheduled { at, order, item }));
    }

    /// What is still to happen, in no order.
    pub(crate) fn scheduled(&self) -> impl Iterator<Item = &P> {
        self.queue.iter().map(|Reverse(scheduled)| match &scheduled.item {
            Item::Arrival { outgoing, .. } => &outgoing.payload,
            Item::Lost(payload) | Item::Timer(payload) => payload,
        })
    }

    pub(crate) fn next_deadline(&self) -> Option<Duration> {
        self.queue.peek().map(|Reverse(next)| next.at)
    }

    /// The next thing that has happened by `now`, and when.
    pub(crate) fn poll(&mut self, now: Duration) -> Option<(Duration, Output<P>)> {
        self.queue.peek().filter(|Reverse(next)| next.at <= now)?;
        let Reverse(Scheduled { at, item, .. }) = self.queue.pop()?;
        let output = match item {
            Item::Timer(payload) => Output::Timer(payload),
            Item::Lost(payload) => Output::Lost { payload, packets: usize::MAX },
            Item::Arrival { outgoing, realm, lost } => self.arrive(at, outgoing, realm, lost),
        };
        Some((at, output))
    }

    fn arrive(&mut self, now: Duration, outgoing: Outgoing<P>, realm: Realm, lost: usize) -> Output<P> {
        let from = outgoing.from;
        let fail = |fabric: &mut Self, what, outgoing: Outgoing<P>, to, packets| {
            fabric.note_packet(now, what, &outgoing, to);
            Output::Lost { payload: outgoing.payload, packets }
        };
        let found = match self.routes.get(&(realm, outgoing.destination.ip())) {
            _ if outgoing.destination.ip().is_loopback() => Some((from, outgoing.destination)),
            None => None,
            Some(Owner::Host(host)) => Some((*host, outgoing.destination)),
            Some(Owner::Router(router)) => {
                let table = self.routers.get(router.0 as usize).map(|router| &router.table);
                let port = outgoing.destination.port();
                let found =
                    table.and_then(|table| table.inbound(now, outgoing.protocol, port, outgoing.source));
                if found.is_none() {
                    return fail(self, What::Filtered, outgoing, None, usize::MAX);
                }
                found
            }
        };
        let Some((to, local)) = found else {
            return fail(self, What::Unroutable, outgoing, None, usize::MAX);
        };
        if !self.is_on(to) || self.is_partitioned(from, to) {
            return fail(self, What::Unroutable, outgoing, Some(to), usize::MAX);
        }
        if !self.takes(to, outgoing.protocol) {
            return fail(self, What::Filtered, outgoing, Some(to), usize::MAX);
        }
        if lost > 0 {
            return fail(self, What::Lost, outgoing, Some(to), lost);
        }
        self.note_packet(now, What::Arrived, &outgoing, Some(to));
        Output::Delivered { to, local, source: outgoing.source, payload: outgoing.payload }
    }
}

impl<P> PartialEq for Scheduled<P> {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.order) == (other.at, other.order)
    }
}

impl<P> Eq for Scheduled<P> {}

impl<P> PartialOrd for Scheduled<P> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<P> Ord for Scheduled<P> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}
