//! The client: dialing through relays, and being reachable through them.

mod circuit;
mod connection;
mod hop;
mod keep;
mod keeping;
mod listener;
mod secure;
mod stop;
mod transport;

use std::{collections::HashMap, fmt, sync::Arc, time::Duration};

use parking_lot::Mutex;
use peerloom_core::{Incoming, Keypair, PeerId};
use peerloom_node::{HandleError, Node, WeakNode};
use tokio::sync::{mpsc, watch};

use crate::STOP;
use transport::RelayTransport;

/// How the client deals with its relays.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ClientConfig {
    /// What a relay has to answer a request for a reservation.
    pub reserve_timeout: Duration,
    /// What a relay and the destination have together to make a circuit.
    pub connect_timeout: Duration,
    /// What a relay has to say who wants to reach us, after it has opened a stream.
    pub stop_timeout: Duration,
    /// After the first failure to reserve, the next attempt comes within this time; after each further one the time doubles.
    pub first_retry: Duration,
    /// Attempts are never further apart than this.
    pub longest_retry: Duration,
    /// The key of the private network that this node is in. Circuits are then for those who have it, too.
    #[cfg(not(target_arch = "wasm32"))]
    pub private_network: Option<peerloom_upgrade::pnet::PreSharedKey>,
}

impl Default for ClientConfig {
    fn default() -> Self {
        Self {
            reserve_timeout: Duration::from_secs(5),
            connect_timeout: Duration::from_secs(12),
            stop_timeout: Duration::from_secs(10),
            first_retry: Duration::from_secs(1),
            longest_retry: Duration::from_secs(60),
            #[cfg(not(target_arch = "wasm32"))]
            private_network: None,
        }
    }
}

/// The client side of circuit relay v2 in a node. A handle; the client itself ends with the node.
#[derive(Clone)]
pub struct RelayClient(Arc<Shared>);

impl RelayClient {
    /// From now on the node dials `…/p2p/<relay>/p2p-circuit/p2p/<destination>`, and listens on `…/p2p/<relay>/p2p-circuit`:
    /// it reserves a place there, and keeps it for as long as it lives. `/p2p-circuit` alone is the first relay among those it
    /// is connected to that has a place.
    pub fn start(node: &Node, config: ClientConfig) -> Result<Self, HandleError> {
        let shared = Arc::new(Shared {
            node: node.downgrade(),
            keypair: node.keypair().clone(),
            config,
            relays: Mutex::default(),
            network: watch::Sender::new(()),
        });
        let stopping = shared.clone();
        node.handle(STOP, move |incoming| stop::answer(stopping.clone(), incoming))?;
        node.add_transport(RelayTransport(shared.clone()));
        Ok(Self(shared))
    }

    /// The machine has another network now: every reservation is checked at once, and those lost are re-made without waiting.
    pub fn network_changed(&self) {
        self.0.network.send_replace(());
    }

    /// The relays at which this node has a reservation, or tries to have one.
    pub fn relays(&self) -> Vec<PeerId> {
        self.0.relays.lock().keys().copied().collect()
    }
}

impl fmt::Debug for RelayClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RelayClient").field("relays", &self.relays()).finish_non_exhaustive()
    }
}

/// What the transport, the listeners and the handler have in common.
struct Shared {
    node: WeakNode,
    keypair: Keypair,
    config: ClientConfig,
    /// Where the circuits from a relay go: there is an entry for each relay that we listen at.
    relays: Mutex<HashMap<PeerId, mpsc::Sender<Incoming>>>,
    /// Marked as changed when the network is another one.
    network: watch::Sender<()>,
}
