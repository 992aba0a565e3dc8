//! Nodes whose relayed connections and WebRTC connections are pipes in memory, with faults to choose.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use parking_lot::Mutex;
use peerloom_core::{
    Circuit, CircuitLimits, Connection, ConnectionError, DialError, HandshakeError, Incoming, Keypair,
    ListenError, Listener, ListenerEvent, Multiaddr, PeerId, Protocol, PublicKey, Stream, Transport,
    runtime::BoxFuture,
};
use peerloom_node::Node;
use peerloom_sim::{MemoryTransport, Network};
use peerloom_upgrade::{upgrade_inbound, upgrade_outbound};
use peerloom_webrtc_signaling::{
    PeerConnection, PeerConnectionEvent, PeerConnectionFactory, SignalingConfig, SignalingRole,
    WebRtcSignaling, start,
};
use tokio::io::DuplexStream;

/// What a peer connection does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Fault {
    #[default]
    None,
    /// There is no WebRTC here.
    CannotBeMade,
    /// Takes an offer and never makes an answer of it.
    NeverAnswers,
    /// Refuses every offer.
    RefusesOffer,
    /// ICE finds no way and does not give up.
    NeverConnects,
    /// ICE gives up.
    Fails,
}

/// The ether between peer connections: who has an offer's number reaches who made it.
#[derive(Clone, Default)]
pub(crate) struct Ether(Arc<Inner>);

#[derive(Default)]
struct Inner {
    next: AtomicU64,
    offered: Mutex<HashMap<String, DuplexStream>>,
}

pub(crate) struct Factory {
    pub(crate) ether: Ether,
    pub(crate) fault: Fault,
    pub(crate) created: Arc<AtomicUsize>,
}

impl PeerConnectionFactory for Factory {
    fn create(&self, _: SignalingRole) -> Result<Box<dyn PeerConnection>, String> {
        self.created.fetch_add(1, Relaxed);
        if self.fault == Fault::CannotBeMade {
            return Err("there is no WebRTC here".into());
        }
        Ok(Box::new(MemoryPeerConnection {
            ether: self.ether.clone(),
            fault: self.fault,
            unsent: vec![r#"{"candidate":"1"}"#.into(), r#"{"candidate":"2"}"#.into()],
            pipe: None,
            has_candidate: false,
            connecting: None,
            connection: None,
        }))
    }
}

struct MemoryPeerConnection {
    ether: Ether,
    fault: Fault,
    /// Our candidates.
    unsent: Vec<String>,
    pipe: Option<(DuplexStream, SignalingRole)>,
    has_candidate: bool,
    connecting: Option<BoxFuture<'static, Result<Box<dyn Connection>, HandshakeError>>>,
    connection: Option<Box<dyn Connection>>,
}

impl PeerConnection for MemoryPeerConnection {
    fn create_offer(&mut self) -> BoxFuture<'_, Result<String, String>> {
        Box::pin(async {
            let (ours, theirs) = tokio::io::duplex(1 << 16);
            let offer = self.ether.0.next.fetch_add(1, Relaxed).to_string();
            self.ether.0.offered.lock().insert(offer.clone(), theirs);
            self.pipe = Some((ours, SignalingRole::Offerer));
            Ok(offer)
        })
    }

    fn accept_offer(&mut self, offer: String) -> BoxFuture<'_, Result<String, String>> {
        Box::pin(async move {
            match self.fault {
                Fault::NeverAnswers => std::future::pending().await,
                Fault::RefusesOffer => return Err("not this one".into()),
                _ => {}
            }
            let pipe = self.ether.0.offered.lock().remove(&offer).ok_or("no such offer")?;
            self.pipe = Some((pipe, SignalingRole::Answerer));
            Ok(format!("answer to {offer}"))
        })
    }

    fn accept_answer(&mut self, answer: String) -> BoxFuture<'_, Result<(), String>> {
        let known = answer.starts_with("answer to ");
        Box::pin(async move { known.then_some(()).ok_or_else(|| "no such answer".into()) })
    }

    fn add_candidate(&mut self, candidate: String) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async move {
            if self.pipe.is_none() {
                return Err("too early".into());
            }
            // One is not enough, so that a lost one shows.
            self.has_candidate |= candidate.contains('2');
            Ok(())
        })
    }

    fn next(&mut self) -> BoxFuture<'_, PeerConnectionEvent> {
        Box::pin(async {
            if self.pipe.is_some() && !self.unsent.is_empty() {
                return PeerConnectionEvent::Candidate(self.unsent.remove(0));
            }
            if self.has_candidate && self.fault == Fault::Fails {
                self.has_candidate = false;
                return PeerConnectionEvent::Failed("no way found".into());
            }
            if self.has_candidate
                && self.fault != Fault::NeverConnects
                && let Some((pipe, role)) = self.pipe.take()
            {
                self.connecting = Some(Box::pin(async move {
                    let address: Multiaddr = "/memory/1".parse().unwrap();
                    match role {
                        SignalingRole::Offerer => upgrade_outbound(pipe, &Keypair::generate(), address).await,
                        SignalingRole::Answerer => upgrade_inbound(pipe, &Keypair::generate(), address).await,
                    }
                }));
            }
            let outcome = match &mut self.connecting {
                Some(connecting) => connecting.await,
                None => std::future::pending().await,
            };
            self.connecting = None;
            match outcome {
                Ok(connection) => self.connection = Some(connection),
                Err(error) => return PeerConnectionEvent::Failed(error.to_string()),
            }
            PeerConnectionEvent::Connected
        })
    }

    fn into_connection(self: Box<Self>, remote: PublicKey, address: Multiaddr) -> Box<dyn Connection> {
        let inner = self.connection.unwrap();
        Box::new(Renamed { inner, remote, address, circuit: None })
    }
}

/// A connection under another name.
struct Renamed {
    inner: Box<dyn Connection>,
    remote: PublicKey,
    address: Multiaddr,
    circuit: Option<Arc<Circuit>>,
}

impl Connection for Renamed {
    fn remote_peer(&self) -> PeerId {
        self.remote.peer_id()
    }
    fn remote_public_key(&self) -> &PublicKey {
        &self.remote
    }
    fn remote_address(&self) -> &Multiaddr {
        &self.address
    }
    fn circuit(&self) -> Option<&Arc<Circuit>> {
        self.circuit.as_ref()
    }
    fn open_stream(&self) -> BoxFuture<'static, Result<Box<dyn Stream>, Arc<ConnectionError>>> {
        self.inner.open_stream()
    }
    fn accept_stream(&self) -> BoxFuture<'_, Result<Box<dyn Stream>, Arc<ConnectionError>>> {
        self.inner.accept_stream()
    }
    fn close(&self) -> BoxFuture<'static, ()> {
        self.inner.close()
    }
    fn closed(&self) -> BoxFuture<'static, Arc<ConnectionError>> {
        self.inner.closed()
    }
}

/// Dials and listens on `/memory/N/p2p-circuit` as on `/memory/N`, and says that a relay is on the way.
struct Circuits {
    inner: MemoryTransport,
    relay: PeerId,
}

const LIMITS: CircuitLimits = CircuitLimits { bytes: Some(1 << 17), duration: None };

fn over_circuit(inner: Box<dyn Connection>, relay: PeerId) -> Box<dyn Connection> {
    let remote = inner.remote_public_key().clone();
    let address = inner.remote_address().with(Protocol::P2pCircuit);
    Box::new(Renamed { inner, remote, address, circuit: Some(Arc::new(Circuit::new(relay, LIMITS))) })
}

fn without_circuit(address: &Multiaddr) -> Multiaddr {
    Multiaddr::from_protocols(address.protocols().filter(|protocol| *protocol != Protocol::P2pCircuit))
}

impl Transport for Circuits {
    fn can_dial(&self, address: &Multiaddr) -> bool {
        address.without_peer_id().protocols().last() == Some(Protocol::P2pCircuit)
    }

    fn can_listen(&self, address: &Multiaddr) -> bool {
        self.can_dial(address)
    }

    fn dial(&self, address: Multiaddr) -> BoxFuture<'static, Result<Box<dyn Connection>, DialError>> {
        // A relay that takes the dial and never says anything.
        if address.to_string().starts_with("/memory/666/") {
            return Box::pin(std::future::pending());
        }
        let (dial, relay) = (self.inner.dial(without_circuit(&address)), self.relay);
        Box::pin(async move { Ok(over_circuit(dial.await?, relay)) })
    }

    fn listen(&self, address: Multiaddr) -> BoxFuture<'static, Result<Box<dyn Listener>, ListenError>> {
        let (listen, relay) = (self.inner.listen(without_circuit(&address)), self.relay);
        Box::pin(async move { Ok(Box::new(CircuitListener { inner: listen.await?, relay }) as _) })
    }
}

struct CircuitListener {
    inner: Box<dyn Listener>,
    relay: PeerId,
}

impl Listener for CircuitListener {
    fn addresses(&self) -> Vec<Multiaddr> {
        self.inner.addresses().into_iter().map(|address| address.with(Protocol::P2pCircuit)).collect()
    }

    fn next(&mut self) -> BoxFuture<'_, Result<ListenerEvent, ListenError>> {
        let relay = self.relay;
        Box::pin(async move {
            Ok(match self.inner.next().await? {
                ListenerEvent::Incoming(incoming) => {
                    let Incoming { remote_address, handshake } = incoming;
                    let handshake = Box::pin(async move { Ok(over_circuit(handshake.await?, relay)) });
                    ListenerEvent::Incoming(Incoming { remote_address, handshake })
                }
                other => other,
            })
        })
    }
}

/// Where the second node of [`World::pair`] can be reached through the relay.
pub(crate) const RELAYED: &str = "/memory/7/p2p-circuit";

pub(crate) struct World {
    pub(crate) network: Network,
    ether: Ether,
    relay: PeerId,
}

pub(crate) struct Page {
    pub(crate) node: Node,
    pub(crate) signaling: Option<WebRtcSignaling>,
    /// Peer connections made so far.
    pub(crate) created: Arc<AtomicUsize>,
}

impl World {
    pub(crate) fn new() -> Self {
        let network = Network::new(Duration::from_millis(20));
        Self { network, ether: Ether::default(), relay: Keypair::generate().peer_id() }
    }

    /// A node without WebRTC.
    pub(crate) fn plain(&self) -> Node {
        let keypair = Keypair::generate();
        let inner = self.network.transport(keypair.clone());
        let node = Node::builder(keypair).transport(inner.clone()).build();
        node.add_transport(Circuits { inner, relay: self.relay });
        node
    }

    pub(crate) fn page(&self, fault: Fault, config: SignalingConfig) -> Page {
        let node = self.plain();
        let created = Arc::<AtomicUsize>::default();
        let factory = Factory { ether: self.ether.clone(), fault, created: created.clone() };
        let signaling = start(&node, factory, config).unwrap();
        Page { node, signaling: Some(signaling), created }
    }

    /// Without upgrades that nobody asked for; the second one listens.
    pub(crate) async fn pair(&self, dialer: Fault, listener: Fault) -> (Page, Page) {
        let pages = [dialer, listener].map(|fault| {
            let mut config = SignalingConfig::default();
            config.upgrade_relayed = false;
            self.page(fault, config)
        });
        let [dialer, listener] = pages;
        listener.listen(RELAYED).await;
        (dialer, listener)
    }
}

impl Page {
    pub(crate) async fn listen(&self, relayed: &str) {
        self.node.listen(relayed.parse().unwrap()).await.unwrap();
        self.node.listen("/webrtc".parse().unwrap()).await.unwrap();
    }

    /// Where another page is to dial this one.
    pub(crate) fn webrtc_address(&self) -> Multiaddr {
        let addresses = self.node.listen_addresses();
        let mut webrtc = addresses.into_iter().filter(|address| address.to_string().contains("/webrtc/"));
        webrtc.next().unwrap()
    }

    pub(crate) fn relayed_address(&self) -> Multiaddr {
        RELAYED.parse::<Multiaddr>().unwrap().with_peer_id(self.node.peer_id())
    }

    pub(crate) fn created(&self) -> usize {
        self.created.load(Relaxed)
    }

    pub(crate) fn sessions(&self) -> usize {
        self.signaling.as_ref().unwrap().sessions()
    }
}
