//! The suite of all transports, on connections that two factories have negotiated. What a relay does is done in memory.

// The whole file is tests; clippy takes only the functions marked as such for those.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::{
    collections::HashMap,
    sync::{
        Arc, LazyLock, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use peerloom_core::{
    Connection, DialError, HandshakeError, Incoming, Keypair, ListenError, Listener, ListenerEvent,
    Multiaddr, Protocol, PublicKey, Transport, runtime::BoxFuture,
};
use peerloom_transport_suite::Subject;
use peerloom_webrtc::{WebRtcConfig, WebRtcFactory};
use peerloom_webrtc_signaling::{PeerConnection, PeerConnectionEvent, PeerConnectionFactory, SignalingRole};
use tokio::sync::{mpsc, oneshot};

peerloom_transport_suite::suite!(subject);

async fn subject() -> Subject {
    Subject::new(Negotiating::new, "/memory/0/webrtc")
}

/// Who listens, by number.
static LISTENERS: LazyLock<Mutex<HashMap<u64, Callee>>> = LazyLock::new(Mutex::default);
static NEXT: AtomicU64 = AtomicU64::new(1);

/// Who it is, and where to call.
type Callee = (PublicKey, mpsc::Sender<Call>);

/// What a relayed connection brings: who it is, an offer, and where the answer goes.
struct Call {
    from: PublicKey,
    offer: String,
    answer: oneshot::Sender<String>,
}

struct Negotiating {
    identity: Keypair,
    factory: Arc<WebRtcFactory>,
}

impl Negotiating {
    fn new(identity: Keypair) -> Self {
        let mut config = WebRtcConfig::default();
        config.bind = vec!["127.0.0.1:0".parse().unwrap()];
        Self { identity, factory: Arc::new(WebRtcFactory::new(config).unwrap()) }
    }
}

fn number(address: &Multiaddr) -> Option<u64> {
    let protocols: Vec<_> = address.without_peer_id().protocols().map(|p| format!("{p:?}")).collect();
    let first = address.protocols().next();
    match first {
        Some(Protocol::Memory(number)) if protocols.len() == 2 => Some(number),
        _ => None,
    }
}

async fn connected(end: &mut Box<dyn PeerConnection>) -> Result<(), HandshakeError> {
    loop {
        match end.next().await {
            PeerConnectionEvent::Connected => return Ok(()),
            PeerConnectionEvent::Failed(reason) => {
                return Err(HandshakeError::Lost { step: "webrtc", reason });
            }
            _ => {}
        }
    }
}

async fn dial(
    identity: Keypair,
    factory: Arc<WebRtcFactory>,
    address: Multiaddr,
) -> Result<Box<dyn Connection>, DialError> {
    let unsupported = DialError::UnsupportedAddress { address: address.clone(), reason: "not in memory" };
    let number = number(&address).ok_or(unsupported)?;
    let unreachable =
        |reason: &str| DialError::Unreachable { address: address.clone(), reason: reason.to_owned() };
    let listener = LISTENERS.lock().unwrap().get(&number).cloned();
    let (remote, calls) = listener.ok_or_else(|| unreachable("nobody"))?;
    let failed = |source| DialError::Handshake { address: address.clone(), source };
    if let Some(expected) = address.peer_id().filter(|expected| *expected != remote.peer_id()) {
        return Err(failed(HandshakeError::WrongPeer { expected, actual: remote.peer_id() }));
    }
    let mut end = factory.create(SignalingRole::Offerer).unwrap();
    let offer = end.create_offer().await.unwrap();
    let (answer, answered) = oneshot::channel();
    let call = Call { from: identity.public().clone(), offer, answer };
    calls.send(call).await.map_err(|_| unreachable("gone"))?;
    let answer = answered.await.map_err(|_| unreachable("no answer"))?;
    end.accept_answer(answer).await.unwrap();
    connected(&mut end).await.map_err(failed)?;
    Ok(end.into_connection(remote, address.without_peer_id()))
}

impl Transport for Negotiating {
    fn can_dial(&self, address: &Multiaddr) -> bool {
        number(address).is_some()
    }

    fn can_listen(&self, address: &Multiaddr) -> bool {
        number(address).is_some()
    }

    fn dial(&self, address: Multiaddr) -> BoxFuture<'static, Result<Box<dyn Connection>, DialError>> {
        Box::pin(dial(self.identity.clone(), self.factory.clone(), address))
    }

    fn listen(&self, address: Multiaddr) -> BoxFuture<'static, Result<Box<dyn Listener>, ListenError>> {
        let result = if number(&address).is_some() {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let (sender, calls) = mpsc::channel(64);
            LISTENERS.lock().unwrap().insert(number, (self.identity.public().clone(), sender));
            Ok(Box::new(Answering { number, calls, factory: self.factory.clone() }) as Box<dyn Listener>)
        } else {
            Err(ListenError::UnsupportedAddress { address, reason: "not in memory" })
        };
        Box::pin(std::future::ready(result))
    }
}

struct Answering {
    number: u64,
    calls: mpsc::Receiver<Call>,
    factory: Arc<WebRtcFactory>,
}

impl Listener for Answering {
    fn addresses(&self) -> Vec<Multiaddr> {
        vec![Multiaddr::from_protocols([Protocol::Memory(self.number), Protocol::WebRtc])]
    }

    fn next(&mut self) -> BoxFuture<'_, Result<ListenerEvent, ListenError>> {
        Box::pin(async {
            let call = self.calls.recv().await.unwrap();
            let remote_address: Multiaddr = "/webrtc".parse().unwrap();
            let (factory, address) = (self.factory.clone(), remote_address.clone());
            let handshake = Box::pin(async move {
                let mut end = factory.create(SignalingRole::Answerer).unwrap();
                let answer = end.accept_offer(call.offer).await.unwrap();
                let _ = call.answer.send(answer);
                connected(&mut end).await?;
                Ok(end.into_connection(call.from, address))
            });
            Ok(ListenerEvent::Incoming(Incoming { remote_address, handshake }))
        })
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        LISTENERS.lock().unwrap().remove(&self.number);
    }
}
