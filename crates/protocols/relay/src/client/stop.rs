//! `stop`: a relay announces that somebody wants to reach us through it.

use std::sync::Arc;

use peerloom_core::{
    Circuit, CircuitLimits, Connection, HandshakeError, Incoming, Multiaddr, PeerId, StreamExt,
    runtime::timeout,
};
use peerloom_node::IncomingStream;
use tokio::sync::mpsc::error::TrySendError;

use super::{Shared, circuit::CircuitStream, connection::CircuitConnection};
use crate::{
    address::through,
    exchange::Exchange,
    message::{Status, StopMessage},
};

/// How errors name this part of a handshake.
const STEP: &str = "circuit relay";

/// Hears the relay out, and hands the circuit to the listener that has the reservation.
pub(super) async fn answer(shared: Arc<Shared>, incoming: IncomingStream) {
    let IncomingStream { stream, connection } = incoming;
    let relay = connection.peer;
    let mut exchange = Exchange::new(stream);
    let request = match timeout(shared.config.stop_timeout, exchange.read()).await {
        Ok(Ok(request)) => request,
        // An oversized or broken frame, or silence: there is nobody to answer to.
        Ok(Err(error)) => return tracing::debug!(%relay, %error, "relay announced no circuit"),
        Err(_) => return tracing::debug!(%relay, "relay opened a stream and said nothing"),
    };
    let refusal = match StopMessage::decode(&request) {
        Err(_) => Status::MalformedMessage,
        Ok(StopMessage::Status(_)) => Status::UnexpectedMessage,
        Ok(StopMessage::Connect { source, limits }) => {
            // Only what we have asked for: a stranger that plays relay gets nowhere.
            let listener = shared.relays.lock().get(&relay).filter(|_| connection.is_direct()).cloned();
            match listener.map(|listener| listener.try_reserve_owned()) {
                None | Some(Err(TrySendError::Closed(_))) => Status::PermissionDenied,
                Some(Err(TrySendError::Full(_))) => Status::ResourceLimitExceeded,
                Some(Ok(place)) => {
                    let remote_address = through(relay, &connection.remote_address);
                    let address = remote_address.clone();
                    let handshake = accept(shared, exchange, relay, source, limits, address);
                    // It is the relay that says who comes; the handshake has to prove it.
                    let remote_address = remote_address.with_peer_id(source);
                    place.send(Incoming { remote_address, handshake: Box::pin(handshake) });
                    return;
                }
            }
        }
    };
    tracing::debug!(%relay, ?refusal, "circuit refused");
    exchange.finish(&StopMessage::Status(refusal).encode()).await;
}

/// Agrees to the circuit, and makes a connection of it.
async fn accept(
    shared: Arc<Shared>,
    mut exchange: Exchange,
    relay: PeerId,
    source: PeerId,
    limits: CircuitLimits,
    address: Multiaddr,
) -> Result<Box<dyn Connection>, HandshakeError> {
    let agreed = exchange.write(&StopMessage::Status(Status::Ok).encode()).await;
    agreed.map_err(|error| HandshakeError::Lost { step: STEP, reason: error.to_string() })?;
    let circuit = Arc::new(Circuit::new(relay, limits));
    let (stream, unread) = exchange.into_circuit();
    let io = CircuitStream::new(stream, unread, circuit.clone()).into_io();
    let connection = shared.secure_inbound(io, address).await?;
    // The relay knows with whom it speaks; if somebody else is at the other end, it has lied.
    let actual = connection.remote_peer();
    if actual != source {
        return Err(HandshakeError::WrongPeer { expected: source, actual });
    }
    Ok(Box::new(CircuitConnection::new(connection, circuit)))
}
