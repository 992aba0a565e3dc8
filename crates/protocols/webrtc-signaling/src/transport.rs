//! The side that dials, and the [`Transport`] over both.

use std::sync::Arc;

use futures_util::future::try_join;
use peerloom_core::{
    Connection, DialError, HandshakeError, ListenError, Listener, Multiaddr, PeerId, Protocol, ProtocolName,
    PublicKey, Transport,
    framing::MessageStream,
    runtime::{BoxFuture, Instant},
};
use peerloom_node::ConnectionInfo;

use crate::{
    PROTOCOL, Shared,
    driver::{self, SignalingStream, within},
    listener,
    message::MAX_MESSAGE_LENGTH,
    peer_connection::SignalingRole,
    session::{Session, Step},
};

/// Dials `…/p2p-circuit/webrtc/p2p/<peer id>`, listens on `/webrtc`.
pub(crate) struct WebRtcTransport(pub(crate) Arc<Shared>);

impl Transport for WebRtcTransport {
    fn can_dial(&self, address: &Multiaddr) -> bool {
        Target::parse(address).is_some()
    }

    fn can_listen(&self, address: &Multiaddr) -> bool {
        listener::is_webrtc(address)
    }

    fn dial(&self, address: Multiaddr) -> BoxFuture<'static, Result<Box<dyn Connection>, DialError>> {
        let shared = self.0.clone();
        Box::pin(async move {
            let Some(target) = Target::parse(&address) else {
                return Err(DialError::UnsupportedAddress {
                    address, reason: "not …/webrtc/p2p/<peer id>"
                });
            };
            let outcome = shared.dial(&target, address.without_peer_id()).await;
            outcome.map_err(|source| DialError::Handshake { address, source })
        })
    }

    fn listen(&self, address: Multiaddr) -> BoxFuture<'static, Result<Box<dyn Listener>, ListenError>> {
        let listener = self.0.listen(address);
        Box::pin(async { Ok(Box::new(listener?) as Box<dyn Listener>) })
    }
}

/// What a page-to-page address says.
struct Target {
    peer: PeerId,
    relay: Option<PeerId>,
    /// The address of the remote at the relay, with `/p2p/…`.
    relayed: Multiaddr,
}

impl Target {
    fn parse(address: &Multiaddr) -> Option<Self> {
        let peer = address.peer_id()?;
        let mut protocols: Vec<_> = address.protocols().collect();
        protocols.pop();
        let (Protocol::WebRtc, Protocol::P2pCircuit) = (protocols.pop()?, protocols.last()?) else {
            return None;
        };
        let relay = match protocols.iter().nth_back(1) {
            Some(Protocol::P2p(relay)) => Some(*relay),
            _ => None,
        };
        Some(Self { peer, relay, relayed: Multiaddr::from_protocols(protocols).with_peer_id(peer) })
    }

    /// Whether the remote is reached through the relay that the address names.
    fn is_way(&self, connection: &ConnectionInfo) -> bool {
        connection.peer == self.peer
            && connection.circuit.as_ref().is_some_and(|circuit| {
                circuit.used_up().is_none() && self.relay.is_none_or(|relay| relay == circuit.relay())
            })
    }
}

impl Shared {
    async fn dial(
        self: Arc<Self>,
        target: &Target,
        address: Multiaddr,
    ) -> Result<Box<dyn Connection>, HandshakeError> {
        let timeouts = &self.config.timeouts;
        let end = Instant::now() + timeouts.total;
        let _slot = self.outbound_slot(target.peer);
        let (expected, events) = {
            let node = self.node.upgrade().ok_or_else(node_closed)?;
            (node.expect_direct(target.peer), node.events())
        };
        let step = Step::OfferAndAnswer;
        let mut pc = self
            .factory
            .create(SignalingRole::Offerer)
            .map_err(|reason| HandshakeError::Lost { step: step.name(), reason })?;
        // The browser makes its offer while the relay is on its way.
        let (offer, (mut stream, remote)) =
            try_join(within(step, end, pc.create_offer()), self.open_signaling(target, end)).await?;
        let session = Session::offerer(offer, timeouts, Instant::now(), end);
        driver::run(session, &mut *pc, &mut stream).await?;
        if let Some(node) = self.node.upgrade() {
            node.spawn(driver::finish(stream, expected, events, target.peer));
        }
        Ok(pc.into_connection(remote, address))
    }

    async fn open_signaling(
        &self,
        target: &Target,
        end: Instant,
    ) -> Result<(SignalingStream, PublicKey), HandshakeError> {
        let timeouts = &self.config.timeouts;
        let deadline = end.min(Instant::now() + timeouts.relayed_connection);
        let relayed = within(Step::RelayedConnection, deadline, self.relayed_connection(target)).await?;
        let deadline = end.min(Instant::now() + timeouts.signaling_stream);
        let opening = {
            let node = self.node.upgrade().ok_or_else(node_closed)?;
            node.open_stream_on_limited(&relayed, &[ProtocolName::from_static(PROTOCOL)])
        };
        let opening = async { opening.await.map_err(|error| error.to_string()) };
        let stream = within(Step::SignalingStream, deadline, opening).await?;
        Ok((MessageStream::new(stream, MAX_MESSAGE_LENGTH), relayed.public_key))
    }

    /// One that there is already, or a new one.
    async fn relayed_connection(&self, target: &Target) -> Result<ConnectionInfo, String> {
        let dial = {
            let node = self.node.upgrade().ok_or("the node is closed")?;
            let ways = node.connections().into_iter().filter(|connection| target.is_way(connection));
            if let Some(newest) = ways.max_by_key(|connection| connection.id) {
                return Ok(newest);
            }
            node.dial_for_streams(target.relayed.clone())
        };
        dial.await.map_err(|error| error.to_string())
    }
}

fn node_closed() -> HandshakeError {
    HandshakeError::Lost { step: Step::RelayedConnection.name(), reason: "the node is closed".to_owned() }
}
