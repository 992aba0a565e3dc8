//! What a client asks of a relay: a reservation, or a circuit.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use peerloom_core::{
    Circuit, CircuitLimits, EnvelopeError, Multiaddr, PeerId, SignedEnvelope, StreamError,
    framing::FramingError, multistream_select::NegotiationError, runtime::await_remote,
};
use peerloom_node::{ConnectError, ConnectionId, ConnectionInfo, Node, OpenStreamError};

use super::{Shared, circuit::CircuitStream};
use crate::{
    HOP,
    address::{CircuitAddress, through},
    exchange::Exchange,
    message::{HopMessage, MAX_ADDRESSES, MessageError, Reservation, Status},
    voucher::{Voucher, VoucherError},
};

/// Why a relay did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub(super) enum HopError {
    #[error("the relay {relay} cannot be reached: {source}")]
    Unreachable { relay: PeerId, source: Arc<ConnectError> },
    #[error("{relay} is not a relay")]
    NotARelay { relay: PeerId },
    #[error("the relay {relay} {status}")]
    Refused { relay: PeerId, status: Status },
    #[error("the relay {relay} did not answer within {} s", .after.as_secs())]
    TimedOut { relay: PeerId, connection: ConnectionId, after: Duration },
    #[error("the relay {relay} broke off: {reason}")]
    Lost { relay: PeerId, reason: String },
    #[error("the relay {relay} answered nonsense: {source}")]
    Message { relay: PeerId, source: MessageError },
    #[error("the relay {relay} answered out of order")]
    Unexpected { relay: PeerId },
    #[error("the relay {relay} gave a bad voucher: {source}")]
    Voucher { relay: PeerId, source: VoucherError },
    #[error("the node is closed")]
    NodeClosed,
}

/// A reservation, checked.
#[derive(Debug)]
pub(super) struct Reserved {
    /// The connection that it lives on.
    pub(super) connection: ConnectionId,
    /// When it ends, in seconds since 1970 by the relay's clock.
    pub(super) expires: u64,
    /// The addresses through the relay, up to the destination. Not empty.
    pub(super) addresses: Vec<Multiaddr>,
}

impl Shared {
    pub(super) fn node(&self) -> Result<Node, HopError> {
        self.node.upgrade().ok_or(HopError::NodeClosed)
    }

    /// Asks for a reservation, or for a longer one.
    pub(super) async fn reserve(&self, address: &CircuitAddress) -> Result<Reserved, HopError> {
        let relay = address.relay;
        let connection = self.relay_connection(address).await?;
        let asking = self.ask(&connection, &HopMessage::Reserve, self.config.reserve_timeout);
        let (exchange, reservation, _) = asking.await?;
        exchange.close().await;
        let Some(reservation) = reservation else { return Err(HopError::Unexpected { relay }) };
        self.check_voucher(relay, &reservation).await?;
        Ok(Reserved {
            connection: connection.id,
            expires: reservation.expires,
            addresses: addresses(address, &connection, reservation.addresses),
        })
    }

    /// Asks for a circuit to `destination`: the stream that is one.
    pub(super) async fn connect(
        &self,
        address: &CircuitAddress,
        destination: PeerId,
    ) -> Result<(CircuitStream, Arc<Circuit>), HopError> {
        let connection = self.relay_connection(address).await?;
        let request = HopMessage::Connect { destination };
        let (exchange, _, limits) = self.ask(&connection, &request, self.config.connect_timeout).await?;
        let circuit = Arc::new(Circuit::new(address.relay, limits));
        let (stream, unread) = exchange.into_circuit();
        Ok((CircuitStream::new(stream, unread, circuit.clone()), circuit))
    }

    /// The newest direct connection to the relay, or else a new one.
    async fn relay_connection(&self, address: &CircuitAddress) -> Result<ConnectionInfo, HopError> {
        let relay = address.relay;
        if let Some(existing) = self.direct_connection(relay)? {
            return Ok(existing);
        }
        // The node is not held while the relay takes its time.
        let dialing = self.node()?.dial_for_streams(address.relay_target());
        dialing.await.map_err(|source| HopError::Unreachable { relay, source })
    }

    pub(super) fn direct_connection(&self, relay: PeerId) -> Result<Option<ConnectionInfo>, HopError> {
        let direct = |connection: &ConnectionInfo| connection.peer == relay && connection.is_direct();
        let connections = self.node()?.connections();
        Ok(connections.into_iter().filter(direct).max_by_key(|connection| connection.id))
    }

    /// One request and the relay's answer, unless that is a refusal.
    async fn ask(
        &self,
        connection: &ConnectionInfo,
        request: &HopMessage,
        after: Duration,
    ) -> Result<(Exchange, Option<Reservation>, CircuitLimits), HopError> {
        let relay = connection.peer;
        let opening = self.node()?.open_stream(connection.id, &[HOP]);
        let asking = async {
            let stream = opening.await.map_err(|error| not_opened(relay, error))?;
            let mut exchange = Exchange::new(stream);
            let answer = async {
                exchange.write(&request.encode()).await?;
                exchange.read().await
            };
            match answer.await {
                Ok(answer) => Ok((exchange, answer)),
                Err(error) => Err(self.explain(connection, error).await),
            }
        };
        let timed_out = || HopError::TimedOut { relay, connection: connection.id, after };
        let (exchange, answer) = await_remote(after, asking).await.map_err(|_| timed_out())??;
        match parse(relay, &answer)? {
            HopMessage::Status { status: Status::Ok, reservation, limits } => {
                Ok((exchange, reservation, limits))
            }
            HopMessage::Status { status, .. } => Err(HopError::Refused { relay, status }),
            _ => Err(HopError::Unexpected { relay }),
        }
    }

    /// Who does not know the protocol may trip over the request that comes with its name, and reset the stream before the
    /// refusal is read. So then the name is tried alone.
    async fn explain(&self, connection: &ConnectionInfo, error: FramingError) -> HopError {
        let relay = connection.peer;
        let not_supported = match &error {
            FramingError::Stream(StreamError::ProtocolNotSupported) => true,
            FramingError::Stream(StreamError::Reset { .. }) => match self.node() {
                Ok(node) => {
                    let opening = node.open_stream(connection.id, &[HOP]);
                    drop(node);
                    let confirmed = async { opening.await.ok()?.confirm().await.err() };
                    matches!(confirmed.await, Some(NegotiationError::NoCommonProtocol))
                }
                Err(_) => false,
            },
            _ => false,
        };
        match not_supported {
            true => HopError::NotARelay { relay },
            false => HopError::Lost { relay, reason: error.to_string() },
        }
    }

    async fn check_voucher(&self, relay: PeerId, reservation: &Reservation) -> Result<(), HopError> {
        // The spec says that there should be one, and that it is advisory.
        if reservation.voucher.is_empty() {
            return Ok(());
        }
        let checking = async {
            let envelope = SignedEnvelope::decode_protobuf(&reservation.voucher)
                .map_err(|error: EnvelopeError| VoucherError::Envelope(error))?;
            let voucher = Voucher::open(&envelope).await?;
            voucher.check(relay, self.keypair.peer_id(), reservation.expires)
        };
        checking.await.map_err(|source| HopError::Voucher { relay, source })
    }
}

/// Where we are reached: where we have reached the relay ourselves, then where the relay says that it is.
fn addresses(asked: &CircuitAddress, connection: &ConnectionInfo, given: Vec<Multiaddr>) -> Vec<Multiaddr> {
    let own = |address: &Multiaddr| address.peer_id() == Some(asked.relay) && !address.is_relayed();
    let mut known = Vec::new();
    if asked.says_where() {
        known.push(asked.relay_address.clone());
    }
    known.extend(given.into_iter().filter(own));
    if known.is_empty() {
        known.push(connection.remote_address.clone());
    }
    let mut addresses: Vec<Multiaddr> = Vec::new();
    for address in known.iter().map(|address| through(asked.relay, address)) {
        if !addresses.contains(&address) && addresses.len() < MAX_ADDRESSES {
            addresses.push(address);
        }
    }
    addresses
}

fn parse(relay: PeerId, answer: &Bytes) -> Result<HopMessage, HopError> {
    HopMessage::decode(answer).map_err(|source| HopError::Message { relay, source })
}

fn not_opened(relay: PeerId, error: OpenStreamError) -> HopError {
    match error {
        OpenStreamError::Negotiation { source: NegotiationError::NoCommonProtocol, .. } => {
            HopError::NotARelay { relay }
        }
        other => HopError::Lost { relay, reason: other.to_string() },
    }
}
