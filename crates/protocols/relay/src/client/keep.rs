//! The task that keeps one reservation.

use std::{sync::Arc, time::Duration};

use peerloom_core::{
    Multiaddr,
    runtime::{await_remote, sleep_until},
};
use peerloom_node::{ConnectionId, Events, NodeEvent, ping};
use tokio::sync::watch;

use super::{
    Shared,
    hop::{HopError, Reserved},
    keeping::{Keeping, Now, Step},
};
use crate::address::CircuitAddress;

/// What a relay that has not answered has to answer a ping, before the connection to it is given up.
const PING_TIMEOUT: Duration = Duration::from_secs(5);

/// Why the connection to a relay is not to be closed.
const PROTECTION: &str = "relay";

pub(super) struct Keeper {
    shared: Arc<Shared>,
    address: CircuitAddress,
    events: Events,
    network: watch::Receiver<()>,
    keeping: Keeping,
    /// The connection on which the last reservation was made.
    connection: ConnectionId,
    addresses: watch::Sender<Vec<Multiaddr>>,
}

impl Keeper {
    /// Makes the first reservation. The receiver tells the addresses through the relay; none while there is no reservation.
    pub(super) async fn start(
        shared: Arc<Shared>,
        address: CircuitAddress,
    ) -> Result<(Self, watch::Receiver<Vec<Multiaddr>>), HopError> {
        // From before the reservation on, so that no end of its connection goes unseen.
        let events = shared.node()?.events();
        let network = shared.network.subscribe();
        let reserved = match shared.reserve(&address).await {
            Err(HopError::TimedOut { connection, .. }) if shared.give_up_if_dead(connection).await => {
                shared.reserve(&address).await?
            }
            outcome => outcome?,
        };
        let (sender, addresses) = watch::channel(Vec::new());
        let config = &shared.config;
        let keeping = Keeping::new(Now::read(), config.first_retry, config.longest_retry);
        let connection = reserved.connection;
        let mut keeper = Self { shared, address, events, network, keeping, connection, addresses: sender };
        keeper.tell_reserved(reserved);
        let mut addresses = addresses;
        addresses.mark_unchanged();
        Ok((keeper, addresses))
    }

    /// Until the node is closed.
    pub(super) async fn run(mut self) {
        while self.shared.node.upgrade().is_some() {
            match self.keeping.step(Now::read()) {
                Step::Ask => self.ask().await,
                Step::Expired => self.tell_lost("it has ended".to_owned(), Duration::ZERO),
                Step::Wait(until) => {
                    tokio::select! {
                        () = sleep_until(until) => {}
                        Ok(()) = self.network.changed() => self.keeping.check(Now::read()),
                        event = self.events.next() => match event {
                            Some(event) => self.hear(&event),
                            None => return,
                        },
                    }
                }
            }
        }
    }

    async fn ask(&mut self) {
        match self.shared.reserve(&self.address).await {
            Ok(reserved) => self.tell_reserved(reserved),
            Err(error) => {
                let retry_in = self.keeping.failed(Now::read(), random());
                if self.keeping.is_reserved() {
                    tracing::debug!(relay = %self.address.relay, %error, "reservation was not renewed");
                } else {
                    self.tell_lost(error.to_string(), retry_in);
                }
                if let HopError::TimedOut { connection, .. } = error {
                    // With the end of a dead connection the next attempt dials.
                    self.shared.give_up_if_dead(connection).await;
                }
            }
        }
    }

    fn hear(&mut self, event: &NodeEvent) {
        let gone = match event {
            NodeEvent::Resumed => {
                self.keeping.check(Now::read());
                false
            }
            NodeEvent::ConnectionClosed { connection, .. } => connection.id == self.connection,
            NodeEvent::Lagged { .. } => true,
            _ => false,
        };
        if !gone || !self.keeping.is_reserved() {
            return;
        }
        match self.shared.direct_connection(self.address.relay) {
            // On any connection the relay can reach us, but it may have forgotten us with the one that is gone.
            Ok(Some(other)) if other.id != self.connection => self.keeping.check(Now::read()),
            Ok(Some(_)) => {}
            Ok(None) => {
                let retry_in = self.keeping.disconnected(Now::read(), random());
                self.tell_lost("the connection to the relay is over".to_owned(), retry_in);
            }
            Err(_) => {}
        }
    }

    fn tell_reserved(&mut self, reserved: Reserved) {
        self.protect();
        let renewed = self.keeping.is_reserved();
        let expires_in = self.keeping.reserved(Now::read(), reserved.expires, random());
        self.connection = reserved.connection;
        let own = self.shared.keypair.peer_id();
        self.tell(NodeEvent::RelayReserved {
            relay: self.address.relay,
            expires_in,
            addresses: reserved.addresses.iter().map(|address| address.with_peer_id(own)).collect(),
            renewed,
        });
        self.publish(reserved.addresses);
    }

    fn tell_lost(&self, reason: String, retry_in: Duration) {
        self.unprotect();
        self.publish(Vec::new());
        self.tell(NodeEvent::RelayLost { relay: self.address.relay, reason, retry_in: Some(retry_in) });
    }

    /// Nothing goes over the connection to the relay until somebody wants to reach this node.
    fn protect(&self) {
        if let Some(node) = self.shared.node.upgrade()
            && let Err(error) = node.peer_store().protect(self.address.relay, PROTECTION)
        {
            tracing::debug!(%error, "the connection to the relay is not protected");
        }
    }

    fn unprotect(&self) {
        if let Some(node) = self.shared.node.upgrade() {
            node.peer_store().unprotect(self.address.relay, PROTECTION);
        }
    }

    fn publish(&self, addresses: Vec<Multiaddr>) {
        self.addresses.send_if_modified(|known| {
            let changed = *known != addresses;
            *known = addresses;
            changed
        });
    }

    fn tell(&self, event: NodeEvent) {
        if let Some(node) = self.shared.node.upgrade() {
            node.emit(event);
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.unprotect();
    }
}

impl Shared {
    /// Closes a connection on which nothing is answered: it hides that the relay is reached on another, after a change of
    /// networks, for example. Whether it was dead.
    async fn give_up_if_dead(&self, connection: ConnectionId) -> bool {
        let Ok(node) = self.node() else { return false };
        // That the relay does not know ping, or that the connection has just failed, is an answer too.
        let dead = await_remote(PING_TIMEOUT, ping::ping(&node, connection)).await.is_err();
        if dead {
            node.close_connection(connection).await;
        }
        dead
    }
}

/// Without randomness from the system, all clients of a relay come at one moment; that is no reason not to come.
fn random() -> u64 {
    getrandom::u64().unwrap_or(u64::MAX / 2)
}
