//! The relay: reservations and circuits for peers that cannot be dialed.

mod forward;
mod hop;
mod limits;
mod origin;
mod state;

use std::{
    fmt,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use parking_lot::Mutex;
use peerloom_core::{
    Multiaddr, PeerId,
    runtime::{Instant, sleep},
};
use peerloom_node::{ConnectionInfo, Events, HandleError, Node, NodeEvent, WeakNode};

pub use self::limits::RelayLimits;
pub use self::origin::{AutonomousSystem, ip_network};
use self::state::RelayState;
use crate::HOP;

/// Reservations that have ended are thrown away so often, if nothing else makes it happen.
const SWEEP: Duration = Duration::from_secs(60);

/// How a node relays.
#[derive(Clone)]
#[non_exhaustive]
pub struct RelayConfig {
    /// What strangers may use of it.
    pub limits: RelayLimits,
    /// The machine or the network that an address belongs to, for the limit per IP. [`ip_network`] unless replaced.
    pub origin: fn(&Multiaddr) -> Option<IpAddr>,
    /// The number of the autonomous system that an address is of, for the limit per ASN. `None` where it is not known.
    pub asn: Option<AutonomousSystem>,
}

impl Default for RelayConfig {
    fn default() -> Self {
        Self { limits: RelayLimits::default(), origin: ip_network, asn: None }
    }
}

impl RelayConfig {
    /// Relays within these limits.
    pub fn new(limits: RelayLimits) -> Self {
        Self { limits, ..Self::default() }
    }
}

impl fmt::Debug for RelayConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RelayConfig").field("limits", &self.limits).finish_non_exhaustive()
    }
}

/// Makes `node` a relay for everybody, within the limits, for as long as it lives.
pub fn serve(node: &Node, config: RelayConfig) -> Result<RelayServer, HandleError> {
    let server = Arc::new(Server {
        node: node.downgrade(),
        state: Mutex::new(RelayState::new(config.limits.clone())),
        config,
        counters: Counters::default(),
    });
    // From before the first reservation on, so that none outlives its connection.
    let events = node.events();
    let answering = server.clone();
    // On limited connections too, where the answer is always no: to be told so is better than to find no relay.
    node.handle_on_limited(HOP, move |incoming| hop::answer(answering.clone(), incoming))?;
    node.spawn(server.clone().watch(events));
    Ok(RelayServer(server))
}

/// A relay that runs in a node. A handle; the relay itself ends with the node.
#[derive(Clone)]
pub struct RelayServer(Arc<Server>);

/// What a relay is doing and has done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RelayStats {
    /// Reservations that hold now.
    pub reservations: usize,
    /// Circuits that are open now, or being opened.
    pub circuits: usize,
    /// Reservations made or renewed so far.
    pub reservations_made: u64,
    /// Circuits opened so far.
    pub circuits_opened: u64,
    /// Requests refused so far, of either kind.
    pub refused: u64,
    /// Bytes carried so far, both directions together.
    pub bytes: u64,
}

impl RelayServer {
    /// What the relay is doing and has done.
    pub fn stats(&self) -> RelayStats {
        let (reservations, circuits) = {
            let state = self.0.state.lock();
            (state.reservations(), state.circuits())
        };
        let counters = &self.0.counters;
        RelayStats {
            reservations,
            circuits,
            reservations_made: counters.reservations.load(Relaxed),
            circuits_opened: counters.circuits.load(Relaxed),
            refused: counters.refused.load(Relaxed),
            bytes: counters.bytes.load(Relaxed),
        }
    }
}

impl fmt::Debug for RelayServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RelayServer").field(&self.stats()).finish()
    }
}

struct Server {
    node: WeakNode,
    config: RelayConfig,
    state: Mutex<RelayState>,
    counters: Counters,
}

#[derive(Default)]
struct Counters {
    reservations: AtomicU64,
    circuits: AtomicU64,
    refused: AtomicU64,
    bytes: AtomicU64,
}

impl Server {
    /// Ends reservations with their connections and with their time.
    async fn watch(self: Arc<Self>, mut events: Events) {
        loop {
            tokio::select! {
                event = events.next() => match event {
                    Some(NodeEvent::ConnectionClosed { connection, .. }) => self.left(connection.peer),
                    Some(NodeEvent::Lagged { .. }) => {
                        let reserved = self.state.lock().reserved_peers();
                        reserved.into_iter().for_each(|peer| self.left(peer));
                    }
                    Some(_) => {}
                    None => return,
                },
                () = sleep(SWEEP) => {}
            }
            self.state.lock().sweep(Instant::now());
        }
    }

    /// Ends the reservation of a peer that has no direct connection to us any more.
    fn left(&self, peer: PeerId) {
        if self.direct_connection(peer).is_none() {
            self.state.lock().disconnected(peer);
        }
    }

    fn direct_connection(&self, peer: PeerId) -> Option<ConnectionInfo> {
        let direct = |connection: &ConnectionInfo| connection.peer == peer && connection.is_direct();
        let connections = self.node.upgrade()?.connections();
        connections.into_iter().filter(direct).max_by_key(|connection| connection.id)
    }
}
