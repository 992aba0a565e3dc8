//! The side that is dialed.

use std::{future::ready, sync::Arc};

use peerloom_core::{
    Connection, HandshakeError, Incoming, Protocol, framing::MessageStream, runtime::Instant,
};
use peerloom_node::IncomingStream;

use crate::{
    Shared, driver,
    message::MAX_MESSAGE_LENGTH,
    peer_connection::SignalingRole,
    session::{Session, Step},
};

impl Shared {
    /// Serves one signaling stream that a remote has opened. To return early resets it.
    pub(crate) async fn answer(self: Arc<Self>, incoming: IncomingStream) {
        let peer = incoming.connection.peer;
        let Some(listener) = self.incoming.lock().clone() else {
            tracing::debug!(%peer, "WebRTC signaling refused: not listening on /webrtc");
            return;
        };
        let Some(_slot) = self.inbound_slot(peer) else {
            tracing::debug!(%peer, "WebRTC signaling refused: too many at one time");
            return;
        };
        let remote_address = incoming.connection.remote_address.with(Protocol::WebRtc);
        let handshake = Box::pin(ready(self.negotiate_answer(incoming).await));
        // The listener may have been closed in the meantime.
        let _ = listener.send(Incoming { remote_address, handshake }).await;
    }

    async fn negotiate_answer(
        &self,
        incoming: IncomingStream,
    ) -> Result<Box<dyn Connection>, HandshakeError> {
        let IncomingStream { stream, connection } = incoming;
        let step = Step::OfferAndAnswer.name();
        let lost = |reason| HandshakeError::Lost { step, reason };
        let (expected, events) = {
            let node = self.node.upgrade().ok_or_else(|| lost("the node is closed".to_owned()))?;
            (node.expect_direct(connection.peer), node.events())
        };
        let mut pc = self.factory.create(SignalingRole::Answerer).map_err(lost)?;
        let timeouts = &self.config.timeouts;
        let now = Instant::now();
        let session = Session::answerer(timeouts, now, now + timeouts.total);
        let mut stream = MessageStream::new(stream, MAX_MESSAGE_LENGTH);
        driver::run(session, &mut *pc, &mut stream).await?;
        if let Some(node) = self.node.upgrade() {
            node.spawn(driver::finish(stream, expected, events, connection.peer));
        }
        let address = connection.remote_address.with(Protocol::WebRtc);
        Ok(pc.into_connection(connection.public_key, address))
    }
}
