//! Where this node can be reached: what its listeners have, what others see, what routers forward and what the
//! application says; and which of it is told to others.

#[cfg(not(target_arch = "wasm32"))]
mod observed;
mod own;
mod socket;

#[cfg(not(target_arch = "wasm32"))]
use std::sync::Arc;

use peerloom_core::Multiaddr;
#[cfg(not(target_arch = "wasm32"))]
use peerloom_core::runtime::{Instant, sleep_until};

#[cfg(not(target_arch = "wasm32"))]
pub use self::observed::{MAX_OBSERVATIONS, OBSERVATION_TTL, OBSERVERS_TO_TEST};
pub(crate) use self::own::OwnAddresses;
pub use self::{
    own::{
        AddressSource, MAX_EXTERNAL_ADDRESSES, MAX_OWN_ADDRESSES, OBSERVERS_TO_TELL, OwnAddress, Reachability,
    },
    socket::PortProtocol,
};
#[cfg(not(target_arch = "wasm32"))]
use crate::connections::{ConnectionId, ConnectionInfo};
use crate::{
    event::NodeEvent,
    node::{Node, Shared},
};

/// The node's own addresses.
impl Node {
    /// The addresses to give to other peers, with `/p2p/…`: those found reachable first, then those that can be reached from
    /// farther away. Left out is what was found unreachable, and what only few have observed.
    pub fn listen_addresses(&self) -> Vec<Multiaddr> {
        let own = self.shared().own_addresses.lock();
        own.told().map(|address| address.with_peer_id(self.peer_id())).collect()
    }

    /// Every address at which this node may be reached, and what is known of it; in the same order.
    pub fn own_addresses(&self) -> Vec<OwnAddress> {
        self.shared().own_addresses.lock().all().to_vec()
    }

    /// Tells others this address, too: that of a router which forwards a port, for example, or a name. It stays told, whatever
    /// others find out. `/ip4/…/udp/…` and `/ip4/…/tcp/…` stand for all transports that listen on the port with that number.
    ///
    /// At most [`MAX_EXTERNAL_ADDRESSES`] are kept.
    pub fn add_external_address(&self, address: &Multiaddr) {
        let mut own = self.shared().own_addresses.lock();
        if own.add_external(address.without_peer_id()) {
            self.shared().tell_own_addresses(&own);
        }
    }

    /// Tells it no longer, unless it is known in another way.
    pub fn remove_external_address(&self, address: &Multiaddr) {
        let mut own = self.shared().own_addresses.lock();
        if own.remove_external(&address.without_peer_id()) {
            self.shared().tell_own_addresses(&own);
        }
    }

    /// Whether others reach one of [`own_addresses`](Self::own_addresses), as a protocol has found out: AutoNAT, for example.
    /// Any other address is ignored.
    pub fn set_reachability(&self, address: &Multiaddr, reachability: Reachability) {
        let address = address.without_peer_id();
        let mut own = self.shared().own_addresses.lock();
        let (is_news, changed) = own.set_reachability(&address, reachability);
        if is_news {
            self.shared().events.emit(NodeEvent::ReachabilityChanged { address, reachability });
        }
        if changed {
            self.shared().tell_own_addresses(&own);
        }
    }

    /// To be called when an address of this machine has come or gone: what listens on all of them looks which ones these are, and
    /// what was connected is looked after as by [`resumed`](Self::resumed).
    pub fn network_changed(&self) {
        self.shared().network_changes.send_replace(());
        self.resumed();
    }
}

/// What only native nodes need.
#[cfg(not(target_arch = "wasm32"))]
impl Node {
    /// A router forwards `outside` to the port `inside` of this machine, or no longer if it is `None`. It is the address of
    /// whatever listens there.
    pub fn set_port_mapping(
        &self,
        protocol: PortProtocol,
        inside: std::net::SocketAddr,
        outside: Option<std::net::SocketAddr>,
    ) {
        let mut own = self.shared().own_addresses.lock();
        if own.set_mapping(protocol, inside, outside) {
            self.shared().tell_own_addresses(&own);
        }
    }
}

impl Shared {
    /// What the listeners have, now that one of them has changed.
    pub(crate) fn listen_addresses_changed(&self) {
        // Both are locked, so that an older list never replaces a newer one.
        let listeners = self.listeners.lock();
        let mut own = self.own_addresses.lock();
        if own.set_listening(listeners.addresses()) {
            self.tell_own_addresses(&own);
        }
    }

    /// Under the lock, so that the events are in the order of what they tell.
    fn tell_own_addresses(&self, own: &OwnAddresses) {
        self.events.emit(NodeEvent::ListenAddressesChanged { addresses: own.told().cloned().collect() });
    }
}

#[cfg(not(target_arch = "wasm32"))]
impl Shared {
    /// The remote of this connection sees us as `seen`.
    pub(crate) fn observed(self: &Arc<Self>, connection: &ConnectionInfo, seen: &Multiaddr) {
        let Some(local) = connection.local_address.as_ref().filter(|_| connection.is_direct()) else {
            return;
        };
        let mut own = self.own_addresses.lock();
        let changed = own.observe(connection.id, (local, &connection.remote_address, seen), Instant::now());
        let starts = !own.observations.is_empty() && !std::mem::replace(&mut own.expires, true);
        if changed {
            self.tell_own_addresses(&own);
        }
        drop(own);
        if starts {
            self.tasks.spawn(expire(self.clone()));
        }
        // What identify tells may come after the end of the connection.
        if self.connections.lock().by_id(connection.id).is_none() {
            self.observer_gone(connection.id);
        }
    }

    /// The connection is over.
    pub(crate) fn observer_gone(&self, connection: ConnectionId) {
        self.own_addresses.lock().observations.connection_closed(connection, Instant::now());
    }
}

/// Forgets observations in their time, as long as there are any.
#[cfg(not(target_arch = "wasm32"))]
async fn expire(shared: Arc<Shared>) {
    loop {
        let next = shared.own_addresses.lock().observations.next_expiry();
        // Those of connections that end meanwhile do not expire earlier than that.
        sleep_until(next.unwrap_or_else(|| Instant::now() + OBSERVATION_TTL)).await;
        let mut own = shared.own_addresses.lock();
        if own.expire(Instant::now()) {
            shared.tell_own_addresses(&own);
        }
        if own.observations.is_empty() {
            own.expires = false;
            return;
        }
    }
}
