//! Being reachable through a relay: a listener is a reservation that is kept.

use std::{sync::Arc, time::Duration};

use peerloom_core::{
    Incoming, ListenError, Listener, ListenerEvent, Multiaddr, PeerId, Protocol,
    runtime::{BoxFuture, Task, spawn, timeout},
};
use peerloom_node::Direction;
use tokio::sync::{mpsc, watch};

use super::{Shared, keep::Keeper};
use crate::{HOP, address::CircuitAddress};

/// Circuits from one relay that the node has not accepted yet; further ones are refused.
const BACKLOG: usize = 32;
/// How long a peer that we are connected to has to turn out to be a relay, if none is known.
const IDENTIFY_TIMEOUT: Duration = Duration::from_secs(3);

struct RelayListener {
    incoming: mpsc::Receiver<Incoming>,
    /// Empty while there is no reservation.
    addresses: watch::Receiver<Vec<Multiaddr>>,
    _keeping: Task,
    _place: Place,
}

/// Reserves a place at the relay, and keeps it until the listener is dropped.
pub(super) async fn listen(
    shared: Arc<Shared>,
    address: Multiaddr,
) -> Result<Box<dyn Listener>, ListenError> {
    if is_any_relay(&address) {
        return listen_at_any(shared, address).await;
    }
    let Some(circuit) = CircuitAddress::parse(&address) else {
        return Err(ListenError::UnsupportedAddress { address, reason: "does not lead through one relay" });
    };
    if circuit.destination.is_some_and(|destination| destination != shared.keypair.peer_id()) {
        return Err(ListenError::UnsupportedAddress { address, reason: "leads to another peer" });
    }
    listen_at(shared, circuit).await.map_err(|reason| ListenError::Io { address, reason })
}

/// `/p2p-circuit` alone.
pub(super) fn is_any_relay(address: &Multiaddr) -> bool {
    let mut protocols = address.protocols();
    (protocols.next(), protocols.next()) == (Some(Protocol::P2pCircuit), None)
}

async fn listen_at(shared: Arc<Shared>, circuit: CircuitAddress) -> Result<Box<dyn Listener>, String> {
    let (sender, incoming) = mpsc::channel(BACKLOG);
    let place = Place::take(&shared, circuit.relay, sender)
        .ok_or_else(|| format!("this node listens at the relay {} already", circuit.relay))?;
    let (keeper, addresses) = Keeper::start(shared, circuit).await.map_err(|error| error.to_string())?;
    Ok(Box::new(RelayListener { incoming, addresses, _keeping: spawn(keeper.run()), _place: place }))
}

/// At the first relay that we are connected to, do not listen at yet, and that has a place.
async fn listen_at_any(shared: Arc<Shared>, address: Multiaddr) -> Result<Box<dyn Listener>, ListenError> {
    let mut reason = "this node is connected to no further relay".to_owned();
    for relay in connected_relays(&shared).await {
        match listen_at(shared.clone(), relay).await {
            Ok(listener) => return Ok(listener),
            Err(refusal) => reason = refusal,
        }
    }
    Err(ListenError::Io { address, reason })
}

/// Waits a moment for peers that have not said yet what they are.
async fn connected_relays(shared: &Shared) -> Vec<CircuitAddress> {
    let find = || {
        let Some(node) = shared.node.upgrade() else { return Vec::new() };
        let mut relays: Vec<CircuitAddress> = Vec::new();
        for connection in node.connections() {
            let relay = connection.peer;
            let is_relay = connection.is_direct() && node.peer_store().supports(relay, &HOP);
            let is_new =
                relays.iter().all(|found| found.relay != relay) && !shared.relays.lock().contains_key(&relay);
            if is_relay && is_new {
                relays.push(match connection.direction {
                    Direction::Outbound => CircuitAddress::at(relay, &connection.remote_address),
                    // Where an inbound connection comes from, nobody listens.
                    Direction::Inbound => CircuitAddress::at(relay, &Multiaddr::empty()),
                });
            }
        }
        relays
    };
    let Some(mut events) = shared.node.upgrade().map(|node| node.events()) else { return Vec::new() };
    let waiting = async {
        loop {
            let relays = find();
            if !relays.is_empty() || events.next().await.is_none() {
                return relays;
            }
        }
    };
    timeout(IDENTIFY_TIMEOUT, waiting).await.unwrap_or_default()
}

impl Listener for RelayListener {
    fn addresses(&self) -> Vec<Multiaddr> {
        self.addresses.borrow().clone()
    }

    fn next(&mut self) -> BoxFuture<'_, Result<ListenerEvent, ListenError>> {
        Box::pin(async move {
            tokio::select! {
                Some(incoming) = self.incoming.recv() => Ok(ListenerEvent::Incoming(incoming)),
                Ok(()) = self.addresses.changed() => Ok(ListenerEvent::AddressesChanged),
                // The keeper ends only with the node.
                else => std::future::pending().await,
            }
        })
    }
}

/// One relay's entry in the table of those whose circuits we take.
struct Place {
    shared: Arc<Shared>,
    relay: PeerId,
}

impl Place {
    fn take(shared: &Arc<Shared>, relay: PeerId, incoming: mpsc::Sender<Incoming>) -> Option<Self> {
        let mut relays = shared.relays.lock();
        if relays.contains_key(&relay) {
            return None;
        }
        relays.insert(relay, incoming);
        Some(Self { shared: shared.clone(), relay })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.shared.relays.lock().remove(&self.relay);
    }
}
