//! Being reachable through a relay: a listener is a reservation that is kept.

use std::sync::Arc;

use peerloom_core::{
    Incoming, ListenError, Listener, ListenerEvent, Multiaddr, PeerId,
    runtime::{BoxFuture, Task, spawn},
};
use tokio::sync::{mpsc, watch};

use super::{Shared, keep::Keeper};
use crate::address::CircuitAddress;

/// Circuits from one relay that the node has not accepted yet; further ones are refused.
const BACKLOG: usize = 32;

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
    let Some(circuit) = CircuitAddress::parse(&address) else {
        return Err(ListenError::UnsupportedAddress { address, reason: "does not lead through one relay" });
    };
    if circuit.destination.is_some_and(|destination| destination != shared.keypair.peer_id()) {
        return Err(ListenError::UnsupportedAddress { address, reason: "leads to another peer" });
    }
    let (sender, incoming) = mpsc::channel(BACKLOG);
    let Some(place) = Place::take(&shared, circuit.relay, sender) else {
        let reason = format!("this node listens at the relay {} already", circuit.relay);
        return Err(ListenError::Io { address, reason });
    };
    // From before the reservation on, so that no loss of it goes unseen.
    let (keeper, addresses) = match Keeper::start(shared, circuit).await {
        Ok(started) => started,
        Err(error) => return Err(ListenError::Io { address, reason: error.to_string() }),
    };
    Ok(Box::new(RelayListener { incoming, addresses, _keeping: spawn(keeper.run()), _place: place }))
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
