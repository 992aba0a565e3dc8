//! `hop`: what clients ask of the relay.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use bytes::Bytes;
use peerloom_core::{
    CircuitLimits, Multiaddr, PeerId,
    framing::FramingError,
    multistream_select::NegotiatedStream,
    runtime::{Instant, timeout},
};
use peerloom_node::{ConnectionInfo, IncomingStream, Node, Passage, Tag};

use super::{Server, forward::forward, state::Origin};
use crate::{
    STOP,
    exchange::Exchange,
    message::{HopMessage, MAX_ADDRESSES, MAX_MESSAGE_LENGTH, Reservation, Status, StopMessage},
    voucher::Voucher,
};

/// Bytes of a STATUS message that are left to what is not an address: the voucher, above all.
const WITHOUT_ADDRESSES: usize = 1024;

/// A peer with a reservation has this tag, with this weight.
const TAG: &str = "relay-reservation";
const RESERVATION_WEIGHT: i64 = 16;

/// Hears the client out, and does what it asks; a circuit lasts as long as this does.
pub(super) async fn answer(server: Arc<Server>, incoming: IncomingStream) {
    let IncomingStream { stream, connection } = incoming;
    let peer = connection.peer;
    let mut exchange = Exchange::new(stream);
    let request = match timeout(server.config.limits.request_timeout, exchange.read()).await {
        Ok(Ok(request)) => HopMessage::decode(&request).map_err(|error| error.to_string()),
        Ok(Err(error @ (FramingError::TooLong { .. } | FramingError::Length(_)))) => Err(error.to_string()),
        Ok(Err(error)) => return tracing::debug!(%peer, %error, "relay client asked for nothing"),
        Err(_) => return tracing::debug!(%peer, "relay client said nothing"),
    };
    let refusal = match request {
        Ok(_) if !connection.is_direct() => Status::PermissionDenied,
        // Denied since it has connected.
        Ok(_) if !server.permits(&Passage::from(&connection)) => Status::PermissionDenied,
        Ok(HopMessage::Reserve) => match server.reserve(&connection) {
            Ok(granted) => return exchange.finish(&granted.encode()).await,
            Err(status) => status,
        },
        Ok(HopMessage::Connect { destination }) => {
            return server.connect(exchange, peer, destination).await;
        }
        Ok(HopMessage::Status { .. }) => Status::UnexpectedMessage,
        Err(error) => {
            tracing::debug!(%peer, %error, "relay client sent nonsense");
            Status::MalformedMessage
        }
    };
    server.refuse(exchange, peer, refusal).await;
}

impl Server {
    async fn refuse(&self, exchange: Exchange, peer: PeerId, status: Status) {
        tracing::debug!(%peer, ?status, "relay client refused");
        self.counters.refused.fetch_add(1, Relaxed);
        let answer = HopMessage::Status { status, reservation: None, limits: CircuitLimits::default() };
        exchange.finish(&answer.encode()).await;
    }

    /// The answer that grants a reservation.
    fn reserve(&self, connection: &ConnectionInfo) -> Result<HopMessage, Status> {
        let peer = connection.peer;
        let node = self.node.upgrade().ok_or(Status::ReservationRefused)?;
        let ip = (self.config.origin)(&connection.remote_address);
        let asn = self.config.asn.as_ref().zip(ip).and_then(|(lookup, ip)| lookup(ip));
        self.state.lock().reserve(Instant::now(), peer, Origin { ip, asn })?;
        // Nothing goes over the connection until somebody wants to reach the peer: that it is needed shows by the tag only, which
        // fades when the reservation is not renewed. Without a tag the peer is relayed all the same.
        let half_life = self.config.limits.reservation_ttl.checked_div(4).unwrap_or_default();
        let tag = Tag::halving_every(RESERVATION_WEIGHT, half_life);
        if let Err(error) = node.peer_store().tag(peer, TAG, tag) {
            tracing::debug!(%error, "a reservation is made without a tag");
        }
        // If the connection has ended meanwhile, nobody else takes the reservation away again.
        self.left(peer);
        self.counters.reservations.fetch_add(1, Relaxed);
        let expires = since_epoch().saturating_add(self.config.limits.reservation_ttl).as_secs();
        Ok(HopMessage::Status {
            status: Status::Ok,
            reservation: Some(Reservation {
                expires,
                addresses: own_addresses(&node),
                voucher: Voucher::seal(node.keypair(), peer, expires).encode_protobuf().into(),
            }),
            limits: self.config.limits.of_circuit(),
        })
    }

    async fn connect(self: Arc<Self>, mut exchange: Exchange, source: PeerId, destination: PeerId) {
        if !self.permits(&Passage::Peer { peer: destination }) {
            return self.refuse(exchange, source, Status::PermissionDenied).await;
        }
        let _place = match Place::take(&self, source, destination) {
            Ok(place) => place,
            Err(status) => return self.refuse(exchange, source, status).await,
        };
        let limits = self.config.limits.of_circuit();
        let patience = self.config.limits.connect_timeout;
        let (to_destination, unread) = match timeout(patience, self.announce(source, destination)).await {
            Ok(Ok(accepted)) => accepted,
            Ok(Err(reason)) => {
                tracing::debug!(%destination, reason, "circuit was not accepted");
                return self.refuse(exchange, source, Status::ConnectionFailed).await;
            }
            Err(_) => {
                tracing::debug!(%destination, "circuit was not accepted in time");
                return self.refuse(exchange, source, Status::ConnectionFailed).await;
            }
        };
        let agreed = HopMessage::Status { status: Status::Ok, reservation: None, limits };
        if !matches!(timeout(patience, exchange.write(&agreed.encode())).await, Ok(Ok(()))) {
            return tracing::debug!(%source, "source of a circuit has gone");
        }
        self.counters.circuits.fetch_add(1, Relaxed);
        let from_source = exchange.into_circuit();
        let count = |bytes| _ = self.counters.bytes.fetch_add(bytes, Relaxed);
        let end = forward(from_source, (to_destination, unread), limits, count).await;
        tracing::debug!(%source, %destination, %end, "circuit is over");
    }

    /// What the rules of this node say.
    fn permits(&self, passage: &Passage) -> bool {
        self.node.upgrade().is_some_and(|node| node.gating().check_rules(passage).is_ok())
    }

    /// Tells the destination of the circuit, and waits until it accepts.
    async fn announce(
        &self,
        source: PeerId,
        destination: PeerId,
    ) -> Result<(NegotiatedStream, Bytes), &'static str> {
        let connection = self.direct_connection(destination).ok_or("it is not connected")?;
        // The node is not held while the destination takes its time.
        let opening = self.node.upgrade().ok_or("the node is closed")?.open_stream(connection.id, &[STOP]);
        let mut exchange = Exchange::new(opening.await.map_err(|_| "no stream to it")?);
        let request = StopMessage::Connect { source, limits: self.config.limits.of_circuit() };
        exchange.write(&request.encode()).await.map_err(|_| "it broke the stream")?;
        let answer = exchange.read().await.map_err(|_| "it did not answer")?;
        match StopMessage::decode(&answer) {
            Ok(StopMessage::Status(Status::Ok)) => Ok(exchange.into_circuit()),
            Ok(StopMessage::Status(_)) => Err("it refused"),
            _ => Err("it answered nonsense"),
        }
    }
}

/// A circuit's place in the relay's state.
struct Place<'a> {
    server: &'a Server,
    source: PeerId,
    destination: PeerId,
}

impl<'a> Place<'a> {
    fn take(server: &'a Server, source: PeerId, destination: PeerId) -> Result<Self, Status> {
        server.state.lock().open(Instant::now(), source, destination)?;
        Ok(Self { server, source, destination })
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.server.state.lock().close(self.source, self.destination);
    }
}

/// Where this relay is reached itself, as many as fit.
fn own_addresses(node: &Node) -> Vec<Multiaddr> {
    let mut room = MAX_MESSAGE_LENGTH.saturating_sub(WITHOUT_ADDRESSES);
    let mut addresses = node.listen_addresses();
    addresses.retain(|address| {
        // With its field number and its length.
        let length = address.as_bytes().len().saturating_add(4);
        let fits = !address.is_relayed() && length <= room;
        if fits {
            room = room.saturating_sub(length);
        }
        fits
    });
    addresses.truncate(MAX_ADDRESSES);
    addresses
}

fn since_epoch() -> Duration {
    web_time::SystemTime::now().duration_since(web_time::SystemTime::UNIX_EPOCH).unwrap_or_default()
}
