//! The relays as a transport of the node.

use std::sync::Arc;

use peerloom_core::{
    Connection, DialError, ListenError, Listener, Multiaddr, PeerId, Protocol, StreamExt, Transport,
    runtime::BoxFuture,
};

use super::{Shared, connection::CircuitConnection, listener};
use crate::{
    HOP,
    address::{CircuitAddress, through},
};

/// Ways named to whoever looks for one to a peer; two for each relay.
const MAX_ROUTES: usize = 8;

pub(super) struct RelayTransport(pub(super) Arc<Shared>);

impl Transport for RelayTransport {
    fn can_dial(&self, address: &Multiaddr) -> bool {
        CircuitAddress::parse(address).is_some()
    }

    fn can_listen(&self, address: &Multiaddr) -> bool {
        CircuitAddress::parse(address).is_some() || listener::is_any_relay(address)
    }

    fn dial(&self, address: Multiaddr) -> BoxFuture<'static, Result<Box<dyn Connection>, DialError>> {
        Box::pin(dial(self.0.clone(), address))
    }

    fn listen(&self, address: Multiaddr) -> BoxFuture<'static, Result<Box<dyn Listener>, ListenError>> {
        Box::pin(listener::listen(self.0.clone(), address))
    }

    /// Through every relay that we are connected to, and every peer that has not said yet what it is.
    fn routes(&self, peer: PeerId) -> Vec<Multiaddr> {
        let Some(node) = self.0.node.upgrade() else { return Vec::new() };
        let mut relays = Vec::new();
        let mut routes = Vec::new();
        for connection in node.connections() {
            let relay = connection.peer;
            // A relay that was dialed just now may not have been identified; asking it costs a stream.
            let known = node.peer_store().details(relay).unwrap_or_default().protocols;
            let may_relay = connection.is_direct() && (known.is_empty() || known.contains(&HOP));
            if may_relay && relay != peer && !relays.contains(&relay) && routes.len() < MAX_ROUTES {
                relays.push(relay);
                let circuit = through(relay, &connection.remote_address);
                // The node leaves out what it has no transport for.
                routes.push(circuit.with(Protocol::WebRtc).with_peer_id(peer));
                routes.push(circuit.with_peer_id(peer));
            }
        }
        routes
    }
}

async fn dial(shared: Arc<Shared>, address: Multiaddr) -> Result<Box<dyn Connection>, DialError> {
    let Some(circuit_address) = CircuitAddress::parse(&address) else {
        return Err(DialError::UnsupportedAddress { address, reason: "does not lead through one relay" });
    };
    let Some(destination) = circuit_address.destination else {
        return Err(DialError::UnsupportedAddress { address, reason: "names no peer after /p2p-circuit" });
    };
    if destination == circuit_address.relay || destination == shared.keypair.peer_id() {
        return Err(DialError::UnsupportedAddress { address, reason: "leads back to the relay or to us" });
    }
    let (stream, circuit) = match shared.connect(&circuit_address, destination).await {
        Ok(connected) => connected,
        Err(error) => return Err(DialError::Unreachable { address, reason: error.to_string() }),
    };
    match shared.secure_outbound(stream.into_io(), address.clone()).await {
        Ok(connection) => Ok(Box::new(CircuitConnection::new(connection, circuit))),
        Err(source) => Err(DialError::Handshake { address, source }),
    }
}
