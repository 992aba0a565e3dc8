//! rust-libp2p as a subject of the bench: a swarm with one transport and nothing but streams, built as its examples do.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use bytes::Bytes;
use futures::{AsyncReadExt as _, AsyncWriteExt as _, StreamExt as _};
use libp2p::core::{Transport as _, upgrade::Version};
use libp2p::identity::Keypair;
use libp2p::multiaddr::Protocol;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{ConnectionId, SwarmEvent};
use libp2p::{Multiaddr, PeerId, StreamProtocol, Swarm, SwarmBuilder, noise, tcp, tls, yamux};
use libp2p_stream::{Behaviour, Control};
use tokio::sync::{mpsc, oneshot};
use workload::{CHUNK_LENGTH, Connection, PROTOCOL, Stream, Subject};

/// Longer than any row takes.
const IDLE_TIMEOUT: Duration = Duration::from_secs(3600);
/// Requests that wait for the swarm.
const REQUESTS: usize = 64;

fn main() -> Result<()> {
    workload::main(RustLibp2p::new)
}

/// A swarm runs in a task; this is how to ask it for something.
struct RustLibp2p {
    requests: mpsc::Sender<Request>,
    control: Control,
    peer: PeerId,
    /// How addresses end, but for the port.
    kinds: Vec<&'static str>,
    accepted: Arc<AtomicUsize>,
}

enum Request {
    Listen(Multiaddr, oneshot::Sender<Result<Multiaddr>>),
    Dial(Vec<Multiaddr>, oneshot::Sender<Result<ConnectionId>>),
    Close(ConnectionId, oneshot::Sender<Result<()>>),
}

impl RustLibp2p {
    fn new(transport: &str) -> Result<Self> {
        let (swarm, kinds) = swarm(transport)?;
        let (requests, receiver) = mpsc::channel(REQUESTS);
        let (control, peer) = (swarm.behaviour().new_control(), *swarm.local_peer_id());
        let accepted = Arc::default();
        tokio::spawn(drive(swarm, receiver, Arc::clone(&accepted)));
        Ok(Self { requests, control, peer, kinds, accepted })
    }
}

fn swarm(transport: &str) -> Result<(Swarm<Behaviour>, Vec<&'static str>)> {
    let builder = SwarmBuilder::with_new_identity().with_tokio();
    let (plain, muxer) = (tcp::Config::default(), yamux::Config::default);
    let idle = |config: libp2p::swarm::Config| config.with_idle_connection_timeout(IDLE_TIMEOUT);
    let behaviour = |_: &Keypair| Behaviour::new();
    Ok(match transport {
        "tcp" => {
            let builder = builder.with_tcp(plain, noise::Config::new, muxer)?;
            (builder.with_behaviour(behaviour)?.with_swarm_config(idle).build(), vec!["tcp/PORT"])
        }
        "tls" => {
            let builder = builder.with_tcp(plain, tls::Config::new, muxer)?;
            (builder.with_behaviour(behaviour)?.with_swarm_config(idle).build(), vec!["tcp/PORT"])
        }
        "quic" => {
            let builder = builder.with_quic();
            (builder.with_behaviour(behaviour)?.with_swarm_config(idle).build(), vec!["udp/PORT/quic-v1"])
        }
        "ws" => {
            let builder = builder.with_other_transport(|keypair| {
                let plain = libp2p_websocket::Config::new(tcp::tokio::Transport::default());
                let secured = plain.upgrade(Version::V1Lazy).authenticate(noise::Config::new(keypair)?);
                Ok(secured.multiplex(yamux::Config::default()))
            })?;
            (builder.with_behaviour(behaviour)?.with_swarm_config(idle).build(), vec!["tcp/PORT/ws"])
        }
        "all" | "all-smart" => {
            let builder = builder.with_tcp(plain, noise::Config::new, muxer)?.with_quic();
            let config = |config| match transport {
                "all-smart" => idle(config).with_smart_dial(),
                _ => idle(config),
            };
            let swarm = builder.with_behaviour(behaviour)?.with_swarm_config(config).build();
            (swarm, vec!["udp/PORT/quic-v1", "tcp/PORT"])
        }
        other => bail!("no transport {other}"),
    })
}

async fn drive(
    mut swarm: Swarm<Behaviour>,
    mut requests: mpsc::Receiver<Request>,
    accepted: Arc<AtomicUsize>,
) {
    let mut listening = None;
    let mut dialing = HashMap::new();
    let mut closing = HashMap::new();
    loop {
        tokio::select! {
            request = requests.recv() => match request {
                None => return,
                Some(Request::Listen(address, answer)) => match swarm.listen_on(address) {
                    Ok(_) => listening = Some(answer),
                    Err(error) => _ = answer.send(Err(error.into())),
                },
                Some(Request::Dial(addresses, answer)) => {
                    let peer = addresses.iter().flatten().find_map(|part| match part {
                        Protocol::P2p(peer) => Some(peer),
                        _ => None,
                    });
                    // It would not dial twice whom it knows.
                    let options = DialOpts::peer_id(peer.unwrap_or_else(PeerId::random))
                        .condition(PeerCondition::Always)
                        .addresses(addresses)
                        .build();
                    let id = options.connection_id();
                    match swarm.dial(options) {
                        Ok(()) => _ = dialing.insert(id, answer),
                        Err(error) => _ = answer.send(Err(error.into())),
                    }
                }
                Some(Request::Close(id, answer)) => {
                    closing.insert(id, answer);
                    swarm.close_connection(id);
                }
            },
            event = swarm.select_next_some() => match event {
                SwarmEvent::NewListenAddr { address, .. } => {
                    if let Some(answer) = listening.take() {
                        let _ = answer.send(Ok(address));
                    }
                }
                SwarmEvent::ConnectionEstablished { connection_id, endpoint, .. } => {
                    accepted.fetch_add(usize::from(endpoint.is_listener()), Relaxed);
                    if let Some(answer) = dialing.remove(&connection_id) {
                        let _ = answer.send(Ok(connection_id));
                    }
                }
                SwarmEvent::OutgoingConnectionError { connection_id, error, .. } => {
                    if let Some(answer) = dialing.remove(&connection_id) {
                        let _ = answer.send(Err(error.into()));
                    }
                }
                SwarmEvent::ConnectionClosed { connection_id, .. } => {
                    if let Some(answer) = closing.remove(&connection_id) {
                        let _ = answer.send(Ok(()));
                    }
                }
                _ => {}
            },
        }
    }
}

impl Subject for RustLibp2p {
    type Connection = Dialed;

    async fn listen(&self, ip: &str) -> Result<String> {
        let mut incoming = self.control.clone().accept(StreamProtocol::new(PROTOCOL))?;
        tokio::spawn(async move {
            while let Some((_, stream)) = incoming.next().await {
                tokio::spawn(async move {
                    if let Err(error) = workload::serve(Negotiated::new(stream)).await {
                        eprintln!("rust-libp2p: {error:#}");
                    }
                });
            }
        });
        let (ip, port) = ip.split_once(':').unwrap_or((ip, "0"));
        let mut told = None;
        for kind in &self.kinds {
            let (answer, address) = oneshot::channel();
            let listen = format!("/ip4/{ip}/{}", kind.replace("PORT", port)).parse()?;
            self.requests.send(Request::Listen(listen, answer)).await?;
            told = Some(address.await??);
        }
        let told = told.context("no address to listen on")?;
        Ok(told.with(Protocol::P2p(self.peer)).to_string())
    }

    fn accepted(&self) -> usize {
        self.accepted.load(Relaxed)
    }

    async fn dial_any(&self, addresses: &[String]) -> Result<Dialed> {
        let addresses: Vec<Multiaddr> =
            addresses.iter().map(|text| text.parse()).collect::<Result<_, _>>()?;
        let last = addresses.first().and_then(|address| address.iter().last());
        let Some(Protocol::P2p(peer)) = last else { bail!("{addresses:?} name nobody") };
        let (answer, id) = oneshot::channel();
        self.requests.send(Request::Dial(addresses, answer)).await?;
        let (requests, control) = (self.requests.clone(), self.control.clone());
        Ok(Dialed { id: id.await.context("the swarm is gone")??, peer, requests, control })
    }

    async fn dial(&self, address: &str, _number: usize) -> Result<Dialed> {
        self.dial_any(&[address.to_owned()]).await
    }
}

struct Dialed {
    id: ConnectionId,
    peer: PeerId,
    requests: mpsc::Sender<Request>,
    control: Control,
}

impl Connection for Dialed {
    type Stream = Negotiated;

    async fn open(&self) -> Result<Negotiated> {
        let opened = self.control.clone().open_stream(self.peer, StreamProtocol::new(PROTOCOL)).await;
        Ok(Negotiated::new(opened.map_err(|error| anyhow!("{error}"))?))
    }

    async fn close(self) -> Result<()> {
        let (answer, closed) = oneshot::channel();
        self.requests.send(Request::Close(self.id, answer)).await?;
        closed.await?
    }
}

struct Negotiated {
    stream: libp2p::Stream,
    buffer: Vec<u8>,
}

impl Negotiated {
    fn new(stream: libp2p::Stream) -> Self {
        Self { stream, buffer: vec![0; CHUNK_LENGTH] }
    }
}

impl Stream for Negotiated {
    async fn send(&mut self, data: Bytes) -> Result<()> {
        Ok(self.stream.write_all(&data).await?)
    }

    async fn finish(&mut self) -> Result<()> {
        Ok(self.stream.close().await?)
    }

    async fn receive(&mut self) -> Result<&[u8]> {
        let count = self.stream.read(&mut self.buffer).await?;
        self.buffer.get(..count).context("more than the buffer holds")
    }
}
