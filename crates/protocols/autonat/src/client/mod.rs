//! The side that asks.

pub(crate) mod prober;
pub(crate) mod request;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream::FuturesUnordered};
use parking_lot::Mutex;
use peerloom_core::{
    Multiaddr, PeerId, Scope,
    framing::{FramingError, MessageStream},
    multistream_select::NegotiatedStream,
    runtime::{BoxFuture, Instant, sleep_until, timeout},
};
use peerloom_node::{
    ConnectionId, ConnectionInfo, Direction, HandleError, IncomingStream, Node, NodeEvent, OpenStreamError,
    WeakNode,
};
use tokio::sync::oneshot;

use self::{
    prober::{Outcome, Probe, Prober, Schedule, Server, Version},
    request::{Request, RequestError, Step, is_consistent},
};
use crate::{
    DIAL_BACK, DIAL_REQUEST, V1,
    message::{
        DialBack, DialStatus, MAX_DATA_LENGTH, MAX_DIAL_BACK_LENGTH, MAX_MESSAGE_LENGTH, Message,
        MessageError, encode_dial_back_response,
    },
    v1,
};

/// What a server has for one request: its dial, and what it waits for.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// What a server has to send the nonce, once it has dialed, and we for an answer.
const DIAL_BACK_TIMEOUT: Duration = Duration::from_secs(5);
/// Requests under way at one time.
const CONCURRENT_REQUESTS: usize = 3;
/// Requests whose nonce is waited for at one time, those of [`AutonatClient::ask`] included.
const MAX_NONCES: usize = 64;

/// How an [`AutonatClient`] behaves.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ClientConfig {
    /// Networks more that must say that an address is reachable than say that it is not, or the other way round, before it
    /// counts as such.
    pub confidence: usize,
    /// How long a verdict holds before it is checked again.
    pub recheck: Duration,
    /// Time between two requests to one server.
    pub server_interval: Duration,
    /// Asks about private addresses, and servers at such, too: for tests, and networks without an internet.
    pub private: bool,
}

impl Default for ClientConfig {
    fn default() -> Self {
        Self {
            confidence: 2,
            recheck: Duration::from_secs(60 * 60),
            server_interval: Duration::from_secs(30),
            private: false,
        }
    }
}

/// The least time before the same network is asked about the same address again, while there is no verdict.
const RETRY: Duration = Duration::from_secs(10 * 60);
/// Addresses come several at a time: of all interfaces, or of all transports.
const NEW_ADDRESS_DELAY: Duration = Duration::from_secs(2);

/// What a server has found out.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Answer {
    /// It has reached this address, and proved it.
    Reached(Multiaddr),
    /// It says that it could not reach this address.
    NotReached(Multiaddr),
    /// It dials none of the addresses.
    Refused,
}

/// Why a server was asked in vain.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AskError {
    /// No stream for it.
    #[error(transparent)]
    Open(#[from] OpenStreamError),
    /// A message was too long or cut short, or the stream broke.
    #[error("AutoNAT: {0}")]
    Framing(#[from] FramingError),
    /// What came was no message of the protocol.
    #[error("AutoNAT: {0}")]
    Message(#[from] MessageError),
    /// The message did not belong there.
    #[error("AutoNAT: {0}")]
    Request(#[from] RequestError),
    /// The server says that it has reached an address, and the nonce has not come in there.
    #[error("AutoNAT: {server} claims to have dialed {address}, but nothing came")]
    NotProved {
        /// The server.
        server: PeerId,
        /// The address.
        address: Multiaddr,
    },
    /// The server says that it has reached an address, but could not send the nonce.
    #[error("AutoNAT: {server} could not send its message to {address}")]
    NotDelivered {
        /// The server.
        server: PeerId,
        /// The address.
        address: Multiaddr,
    },
    /// A server of version 1 does not serve the request.
    #[error("AutoNAT: the server answers {0:?}")]
    V1(v1::Status),
    /// It took longer than 30 s.
    #[error("AutoNAT: timed out")]
    TimedOut,
    /// More than 64 requests are under way.
    #[error("AutoNAT: too many requests at one time")]
    TooMany,
    /// The operating system gave no random bytes.
    #[error("AutoNAT: no randomness: {0}")]
    Randomness(getrandom::Error),
    /// The node is closed.
    #[error("AutoNAT: the node is closed")]
    NodeClosed,
}

/// Finds out which of a node's addresses others reach. A handle; the client lives as long as the node.
#[derive(Clone)]
pub struct AutonatClient(Arc<Shared>);

struct Shared {
    node: WeakNode,
    config: ClientConfig,
    nonces: Mutex<BTreeMap<u64, oneshot::Sender<ConnectionInfo>>>,
}

impl AutonatClient {
    /// From now on, the node asks the servers that it is connected to about its addresses.
    pub fn start(node: &Node, config: ClientConfig) -> Result<Self, HandleError> {
        let shared = Arc::new(Shared { node: node.downgrade(), config, nonces: Mutex::default() });
        let dialed_back = shared.clone();
        node.handle(DIAL_BACK, move |incoming| {
            let shared = dialed_back.clone();
            async move {
                let peer = incoming.connection.peer;
                let hearing = timeout(DIAL_BACK_TIMEOUT, shared.dialed_back(incoming)).await;
                if let Err(error) = hearing.unwrap_or(Err(AskError::TimedOut)) {
                    tracing::debug!(%peer, %error, "a dial-back was of no use");
                }
            }
        })?;
        node.spawn(shared.clone().run(node));
        Ok(Self(shared))
    }

    /// Asks one server, to which there is a connection, about these addresses; it dials the first that it is willing to.
    /// What comes of it is not added to what the node knows.
    pub async fn ask(&self, server: PeerId, addresses: Vec<Multiaddr>) -> Result<Answer, AskError> {
        let asking = self.0.ask(server, addresses);
        timeout(REQUEST_TIMEOUT, asking).await.unwrap_or(Err(AskError::TimedOut))
    }

    /// The same of a server of version 1, which proves nothing.
    pub async fn ask_v1(&self, server: PeerId, addresses: Vec<Multiaddr>) -> Result<Answer, AskError> {
        let asking = self.0.ask_v1(server, addresses);
        timeout(REQUEST_TIMEOUT, asking).await.unwrap_or(Err(AskError::TimedOut))
    }
}

impl Shared {
    /// Asks in time, as long as the node lives.
    fn run(self: Arc<Self>, node: &Node) -> impl Future<Output = ()> + use<> {
        let mut events = node.events();
        let mut prober = Prober::new(Schedule {
            confidence: self.config.confidence.max(1),
            recheck: self.config.recheck,
            server_interval: self.config.server_interval,
            retry: RETRY.min(self.config.recheck),
            delay: NEW_ADDRESS_DELAY,
        });
        self.look_at_all(node, &mut prober);
        async move {
            let mut under_way = FuturesUnordered::<BoxFuture<'static, (Probe, Outcome)>>::new();
            loop {
                while under_way.len() < CONCURRENT_REQUESTS {
                    let Some(probe) = prober.next(Instant::now()) else { break };
                    under_way.push(Box::pin(self.clone().make(probe)));
                }
                let next = prober.deadline().filter(|_| under_way.len() < CONCURRENT_REQUESTS);
                let due = async {
                    match next {
                        Some(next) => sleep_until(next).await,
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    biased;
                    event = events.next() => match event {
                        Some(event) => self.learn(&event, &mut prober),
                        None => return,
                    },
                    Some((probe, outcome)) = under_way.next() => self.conclude(&mut prober, &probe, outcome),
                    () = due => {}
                }
            }
        }
    }

    fn learn(&self, event: &NodeEvent, prober: &mut Prober) {
        let Some(node) = self.node.upgrade() else { return };
        match event {
            NodeEvent::ConnectionClosed { connection, last: true, .. } => {
                prober.remove_server(connection.peer)
            }
            NodeEvent::ConnectionClosed { connection, .. } => {
                self.look_at_peer(&node, connection.peer, prober)
            }
            // Identify, which tells what a peer speaks, and where it sees us.
            NodeEvent::PeerUpdated { peer } => {
                self.look_at_peer(&node, *peer, prober);
                self.look_at_addresses(&node, prober);
            }
            NodeEvent::ListenAddressesChanged { .. } => self.look_at_addresses(&node, prober),
            NodeEvent::Lagged { .. } => self.look_at_all(&node, prober),
            _ => {}
        }
    }

    fn look_at_all(&self, node: &Node, prober: &mut Prober) {
        self.look_at_addresses(node, prober);
        for connection in node.connections() {
            self.look_at_peer(node, connection.peer, prober);
        }
    }

    fn look_at_addresses(&self, node: &Node, prober: &mut Prober) {
        let own = node.own_addresses().into_iter().map(|own| own.address);
        let is_tested = |address: &Multiaddr| !address.is_relayed() && self.is_public(address);
        prober.set_addresses(own.filter(is_tested), Instant::now());
    }

    fn look_at_peer(&self, node: &Node, peer: PeerId, prober: &mut Prober) {
        let speaks = |protocol| node.peer_store().supports(peer, protocol);
        let version = match (speaks(&DIAL_REQUEST), speaks(&V1)) {
            (true, _) => Some(Version::V2),
            (false, true) => Some(Version::V1),
            (false, false) => None,
        };
        let connections = node.connections().into_iter().filter(|connection| connection.peer == peer);
        let direct =
            connections.filter(ConnectionInfo::is_direct).map(|connection| connection.remote_address);
        // What reaches us from a network of our own, or from this machine, says nothing of the internet.
        let address = direct.into_iter().find(|address| self.is_public(address));
        match version.zip(address) {
            Some((version, address)) => prober.add_server(&Server { peer, address, version }, Instant::now()),
            None => prober.remove_server(peer),
        }
    }

    fn is_public(&self, address: &Multiaddr) -> bool {
        self.config.private || address.scope().is_none_or(|scope| scope == Scope::Internet)
    }

    async fn make(self: Arc<Self>, probe: Probe) -> (Probe, Outcome) {
        let asking = async {
            match probe.version {
                Version::V2 => self.ask(probe.server, probe.addresses.clone()).await,
                // One at a time, so that a failure is about this one.
                Version::V1 => {
                    self.ask_v1(probe.server, probe.addresses.iter().take(1).cloned().collect()).await
                }
            }
        };
        let answer = timeout(REQUEST_TIMEOUT, asking).await.unwrap_or(Err(AskError::TimedOut));
        let outcome = match answer {
            Ok(Answer::Reached(address)) => Outcome::Dialed { address, reached: true },
            Ok(Answer::NotReached(address)) => Outcome::Dialed { address, reached: false },
            Ok(Answer::Refused) => Outcome::Refused,
            Err(error) => {
                tracing::debug!(server = %probe.server, %error, "asked in vain whether we can be reached");
                Outcome::Failed
            }
        };
        (probe, outcome)
    }

    fn conclude(&self, prober: &mut Prober, probe: &Probe, outcome: Outcome) {
        tracing::debug!(server = %probe.server, ?outcome, "asked whether we can be reached");
        let verdicts = prober.done(probe, outcome, Instant::now());
        let Some(node) = self.node.upgrade() else { return };
        for (address, reachability) in verdicts {
            node.set_reachability(&address, reachability);
        }
    }

    async fn ask(&self, server: PeerId, addresses: Vec<Multiaddr>) -> Result<Answer, AskError> {
        let mut nonce = [0; 8];
        getrandom::fill(&mut nonce).map_err(AskError::Randomness)?;
        let nonce = u64::from_ne_bytes(nonce);
        let waiting = self.expect(nonce)?;
        let asked_at = Instant::now();
        let opening = self.node.upgrade().ok_or(AskError::NodeClosed)?.open_stream_and_tell(
            server,
            &[DIAL_REQUEST],
            false,
        );
        let opened = opening.await?;
        let asked_on = opened.connection.id;
        let mut request = Request::new(addresses, nonce);
        let mut stream = MessageStream::new(opened.stream, MAX_MESSAGE_LENGTH);
        stream.write(&request.message().encode()).await?;
        stream.flush().await?;
        let (address, status) = loop {
            let message = stream.read().await?.ok_or(FramingError::UnexpectedEnd)?;
            match request.received(Message::decode(message)?)? {
                Step::SendData(bytes) => send_data(&mut stream, bytes).await?,
                Step::Refused => return Ok(Answer::Refused),
                Step::Dialed { address, status } => break (address, status),
            }
        };
        // autonat-v2 spec: the client MUST close the stream after receiving the response.
        let _ = stream.close_write().await;
        if status == DialStatus::DialError {
            return Ok(Answer::NotReached(address));
        }
        let came = timeout(DIAL_BACK_TIMEOUT, waiting.came).await.ok().and_then(Result::ok);
        let proves = |came: &ConnectionInfo| is_proof(came, &address, asked_on, asked_at);
        match (came.filter(proves), status) {
            // The server may not have heard that its message has arrived.
            (Some(_), _) => Ok(Answer::Reached(address)),
            (None, DialStatus::Ok) => Err(AskError::NotProved { server, address }),
            (None, _) => Err(AskError::NotDelivered { server, address }),
        }
    }

    async fn ask_v1(&self, server: PeerId, addresses: Vec<Multiaddr>) -> Result<Answer, AskError> {
        let node = self.node.upgrade().ok_or(AskError::NodeClosed)?;
        let message = v1::encode_dial(node.peer_id(), &addresses);
        let opening = node.open_stream(server, &[V1]);
        drop(node);
        let mut stream = MessageStream::new(opening.await?, v1::MAX_MESSAGE_LENGTH);
        stream.write(&message).await?;
        stream.flush().await?;
        let response = stream.read().await?.ok_or(FramingError::UnexpectedEnd)?;
        let _ = stream.close_write().await;
        let response = v1::Response::decode(&response)?;
        let first = addresses.into_iter().next();
        match (response.status, response.address.or(first.clone()), first) {
            (v1::Status::Ok, Some(address), _) => Ok(Answer::Reached(address)),
            (v1::Status::DialError, _, Some(first)) => Ok(Answer::NotReached(first)),
            (v1::Status::DialRefused, ..) => Ok(Answer::Refused),
            (status, ..) => Err(AskError::V1(status)),
        }
    }

    /// Somebody sends a nonce.
    async fn dialed_back(&self, incoming: IncomingStream) -> Result<(), AskError> {
        let mut stream = MessageStream::new(incoming.stream, MAX_DIAL_BACK_LENGTH);
        let message = stream.read().await?.ok_or(FramingError::UnexpectedEnd)?;
        let DialBack { nonce } = DialBack::decode(&message)?;
        let Some(waiting) = self.nonces.lock().remove(&nonce) else {
            // Dropping the stream resets it: who sends what was not asked for gets no answer.
            tracing::debug!(peer = %incoming.connection.peer, "a dial-back with a nonce of nobody's");
            return Ok(());
        };
        let _ = waiting.send(incoming.connection);
        stream.write(&encode_dial_back_response()).await?;
        stream.close_write().await?;
        // The server's end; dropping the stream earlier may take our answer with it.
        while stream.read().await?.is_some() {}
        Ok(())
    }

    fn expect(&self, nonce: u64) -> Result<Waiting<'_>, AskError> {
        let (sender, came) = oneshot::channel();
        let mut nonces = self.nonces.lock();
        if nonces.len() >= MAX_NONCES {
            return Err(AskError::TooMany);
        }
        nonces.insert(nonce, sender);
        Ok(Waiting { came, _nonce: Nonce { shared: self, nonce } })
    }
}

/// Whether a nonce that came on this connection shows that the address can be dialed: it is a new one to us, by the address's
/// transport. The server may have taken another identity for it.
fn is_proof(came: &ConnectionInfo, address: &Multiaddr, asked_on: ConnectionId, asked_at: Instant) -> bool {
    let is_new = came.direction == Direction::Inbound && came.id != asked_on && came.established >= asked_at;
    // Without knowing where it came in, the nonce has to do.
    let by_transport = came.local_address.as_ref().is_none_or(|local| is_consistent(local, address));
    is_new && came.is_direct() && by_transport
}

async fn send_data(stream: &mut MessageStream<NegotiatedStream>, bytes: u64) -> Result<(), FramingError> {
    let mut left = usize::try_from(bytes).unwrap_or(usize::MAX);
    while left > 0 {
        let data = Bytes::from_static(&[0; MAX_DATA_LENGTH]).slice(..left.min(MAX_DATA_LENGTH));
        left = left.saturating_sub(data.len());
        stream.write(&Message::DialDataResponse { data }.encode()).await?;
    }
    stream.flush().await
}

/// A nonce that is waited for.
struct Waiting<'a> {
    came: oneshot::Receiver<ConnectionInfo>,
    _nonce: Nonce<'a>,
}

struct Nonce<'a> {
    shared: &'a Shared,
    nonce: u64,
}

impl Drop for Nonce<'_> {
    fn drop(&mut self) {
        self.shared.nonces.lock().remove(&self.nonce);
    }
}
