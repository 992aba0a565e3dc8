//! Listeners: from a socket's dialers to connections of the node.

use std::{collections::BTreeMap, sync::Arc};

use peerloom_core::{
    HandshakeError, Incoming, ListenError, Listener, ListenerEvent, Multiaddr, Protocol,
    runtime::{Task, spawn, timeout},
};

use crate::{
    connections::Direction, dial::ConnectError, event::NodeEvent, gating::Passage, handshakes::Place,
    node::Shared, resources::ConnectionResources,
};

#[derive(Default)]
pub(crate) struct Listeners {
    next_id: u64,
    by_id: BTreeMap<u64, Entry>,
    closed: bool,
}

struct Entry {
    addresses: Vec<Multiaddr>,
    /// Owns the listener, and ends with the entry.
    _accepting: Task,
}

impl Listeners {
    pub(crate) fn addresses(&self) -> Vec<Multiaddr> {
        self.by_id.values().flat_map(|entry| entry.addresses.iter().cloned()).collect()
    }

    /// The address at which `remote` has come in, as far as the listener knows: on which of the machine's interfaces it may not.
    fn local_address(&self, listener: u64, remote: &Multiaddr) -> Option<Multiaddr> {
        let is_ip6 = |address: &Multiaddr| matches!(address.protocols().next(), Some(Protocol::Ip6(_)));
        let addresses = &self.by_id.get(&listener)?.addresses;
        addresses.iter().find(|address| is_ip6(address) == is_ip6(remote)).cloned()
    }

    /// Closes every listener and takes no more.
    pub(crate) fn close(&mut self) {
        self.closed = true;
        self.by_id.clear();
    }
}

impl Shared {
    pub(crate) async fn listen(self: &Arc<Self>, address: Multiaddr) -> Result<Vec<Multiaddr>, ListenError> {
        let Some(transport) = self.transport(|transport| transport.can_listen(&address)) else {
            return Err(ListenError::UnsupportedAddress { address, reason: "no transport listens on it" });
        };
        let listener = transport.listen(address.clone()).await?;
        let addresses = listener.addresses();
        {
            let mut listeners = self.listeners.lock();
            if listeners.closed {
                return Err(ListenError::Io { address, reason: "the node is closed".to_owned() });
            }
            let id = listeners.next_id;
            listeners.next_id = id.wrapping_add(1);
            let accepting = spawn(accept(self.clone(), id, listener));
            listeners.by_id.insert(id, Entry { addresses: addresses.clone(), _accepting: accepting });
        }
        self.listen_addresses_changed();
        Ok(addresses.into_iter().map(|address| address.with_peer_id(self.peer_id())).collect())
    }
}

async fn accept(shared: Arc<Shared>, id: u64, mut listener: Box<dyn Listener>) {
    let mut network_changes = shared.network_changes.subscribe();
    let error = loop {
        // Without a place no dialer is taken from the socket: strangers wait there, not in our memory.
        let place = shared.handshakes.place().await;
        let event = tokio::select! {
            biased;
            event = listener.next() => event,
            Ok(()) = network_changes.changed() => Ok(ListenerEvent::AddressesChanged),
        };
        match event {
            Ok(ListenerEvent::Incoming(incoming)) => {
                let remote_address = incoming.remote_address.clone();
                if let Err(denied) = shared.gating.check_rules(&Passage::Incoming { remote_address }) {
                    shared.events.emit(NodeEvent::IncomingDenied { denied });
                    continue;
                }
                match shared.resources.incoming(&incoming.remote_address) {
                    Ok(resources) => {
                        shared.tasks.spawn(admit(shared.clone(), id, incoming, place, resources))
                    }
                    // Nothing was done for them yet, and dropping them refuses them.
                    Err(full) => shared.resources.tell(&full),
                }
            }
            Ok(ListenerEvent::AddressesChanged) => {
                let addresses = listener.addresses();
                if let Some(entry) = shared.listeners.lock().by_id.get_mut(&id) {
                    entry.addresses = addresses;
                }
                shared.listen_addresses_changed();
            }
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    let entry = shared.listeners.lock().by_id.remove(&id);
    shared.events.emit(NodeEvent::ListenerFailed { error: Arc::new(error) });
    shared.listen_addresses_changed();
    // Last, because it is this very task.
    drop(entry);
}

async fn admit(
    shared: Arc<Shared>,
    listener: u64,
    incoming: Incoming,
    _place: Place,
    resources: ConnectionResources,
) {
    let Incoming { remote_address, handshake } = incoming;
    let from = remote_address.clone();
    let passing = {
        let shared = shared.clone();
        async move {
            shared.gating.check(Passage::Incoming { remote_address: from }).await?;
            let limit = shared.limits.handshake_timeout;
            let connection = match timeout(limit, handshake).await.unwrap_or(Err(TIMED_OUT)) {
                Ok(connection) => connection,
                Err(error) => return Ok(Err(error)),
            };
            shared.gating.check(Passage::of(&*connection, Direction::Inbound)).await?;
            Ok(Ok(connection))
        }
    };
    let adopted = match shared.handshakes.begin(passing).await.unwrap_or(Ok(Err(TIMED_OUT))) {
        Ok(Ok(connection)) => {
            let local = shared.listeners.lock().local_address(listener, &remote_address);
            shared.adopt(connection, Direction::Inbound, local, resources).map(|_| ())
        }
        Ok(Err(error)) => {
            shared.events.emit(NodeEvent::IncomingFailed { remote_address, error: Arc::new(error) });
            return;
        }
        Err(denied) => Err(ConnectError::Denied(denied)),
    };
    match adopted {
        Ok(()) => {}
        Err(ConnectError::Denied(denied)) => shared.events.emit(NodeEvent::IncomingDenied { denied }),
        Err(ConnectError::LimitExceeded(full)) => shared.resources.tell(&full),
        Err(refusal) => tracing::debug!(%remote_address, %refusal, "inbound connection refused"),
    }
}

const TIMED_OUT: HandshakeError = HandshakeError::TimedOut { step: "inbound handshake" };
