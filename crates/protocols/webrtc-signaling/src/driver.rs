//! Runs a [`Session`] between a signaling stream and a peer connection.

use std::time::Duration;

use futures_util::future::join;
use peerloom_core::{
    HandshakeError, PeerId, StreamExt,
    framing::{FramingError, MessageStream},
    multistream_select::NegotiatedStream,
    runtime::{BoxFuture, Instant, sleep_until, timeout},
};
use peerloom_node::{Events, ExpectDirect, NodeEvent};

use crate::{
    peer_connection::PeerConnection,
    session::{Action, Session, Step},
};

/// How long the remote has to end the signaling stream once both are connected, and the node to take the connection.
const FINISH_TIMEOUT: Duration = Duration::from_secs(5);

pub(crate) type SignalingStream = MessageStream<NegotiatedStream>;

/// Ready when the peer connection is connected. Boxed, so that a page has it once and not once for each side.
pub(crate) fn run<'a>(
    session: Session,
    pc: &'a mut dyn PeerConnection,
    stream: &'a mut SignalingStream,
) -> BoxFuture<'a, Result<(), HandshakeError>> {
    Box::pin(exchange(session, pc, stream))
}

async fn exchange(
    mut session: Session,
    pc: &mut dyn PeerConnection,
    stream: &mut SignalingStream,
) -> Result<(), HandshakeError> {
    loop {
        while let Some(action) = session.next_action() {
            match timeout(time_left(session.deadline()), perform(action, pc, stream)).await {
                Ok(Ok(None)) => {}
                Ok(Ok(Some(answer))) => session.answered(answer, Instant::now()),
                Ok(Err(reason)) => return Err(session.lost(reason)),
                Err(_) => return Err(session.timed_out()),
            }
        }
        if session.is_connected() {
            return Ok(());
        }
        tokio::select! {
            // A remote that is connected goes away from the stream: what the peer connection says comes first.
            biased;
            event = pc.next() => session.peer_connection(event)?,
            message = stream.read(), if session.is_reading() => match message {
                Ok(Some(message)) => session.received(&message, Instant::now())?,
                Ok(None) => session.remote_closed()?,
                Err(FramingError::Stream(error)) => return Err(session.lost(error.to_string())),
                Err(error) => return Err(session.invalid(error.to_string())),
            },
            () = sleep_until(session.deadline()) => return Err(session.timed_out()),
        }
    }
}

/// The answer, if that was asked for. Errors are for people.
async fn perform(
    action: Action,
    pc: &mut dyn PeerConnection,
    stream: &mut SignalingStream,
) -> Result<Option<String>, String> {
    match action {
        Action::Send(message) => match stream.write(&message.encode()).await {
            Ok(()) => Ok(None),
            Err(error) => Err(error.to_string()),
        },
        Action::AcceptOffer(offer) => pc.accept_offer(offer).await.map(Some),
        Action::AcceptAnswer(answer) => pc.accept_answer(answer).await.map(|()| None),
        Action::AddCandidate(candidate) => {
            // One that we cannot use is no reason not to try the others.
            if let Err(error) = pc.add_candidate(candidate).await {
                tracing::debug!(%error, "a candidate of the remote is of no use");
            }
            Ok(None)
        }
    }
}

/// Ends the stream in an orderly way, and lets streams to the peer wait until the node has the new connection.
pub(crate) async fn finish(
    stream: SignalingStream,
    expected: ExpectDirect,
    mut events: Events,
    peer: PeerId,
) {
    let adopted = async move {
        while let Some(event) = events.next().await {
            if let NodeEvent::ConnectionEstablished { connection, .. } = event
                && connection.peer == peer
                && connection.is_direct()
            {
                break;
            }
        }
        drop(expected);
    };
    let closed = async move {
        let mut stream = stream.into_parts().0;
        if stream.close_write().await.is_ok() {
            while let Ok(Some(_)) = stream.read_chunk().await {}
        }
    };
    let _ = timeout(FINISH_TIMEOUT, join(adopted, closed)).await;
}

/// Gives `work` until `deadline`.
pub(crate) async fn within<T>(
    step: Step,
    deadline: Instant,
    work: impl Future<Output = Result<T, String>>,
) -> Result<T, HandshakeError> {
    match timeout(time_left(deadline), work).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(reason)) => Err(HandshakeError::Lost { step: step.name(), reason }),
        Err(_) => Err(HandshakeError::TimedOut { step: step.name() }),
    }
}

fn time_left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}
