//! rust-libp2p as a subject of the bench: a swarm with one transport and nothing but streams, built as its examples do.

use std::collections::HashMap;
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
    kind: &'static str,
}

enum Request {
    Listen(Multiaddr, oneshot::Sender<Result<Multiaddr>>),
    Dial(Multiaddr, oneshot::Sender<Result<ConnectionId>>),
    Close(ConnectionId, oneshot::Sender<Result<()>>),
}

impl RustLibp2p {
    fn new(transport: &str) -> Result<Self> {
        let (swarm, kind) = swarm(transport)?;
        let (requests, receiver) = mpsc::channel(REQUESTS);
        let (control, peer) = (swarm.behaviour().new_control(), *swarm.local_peer_id());
        tokio::spawn(drive(swarm, receiver));
        Ok(Self { requests, control, peer, kind })
    }
}

fn swarm(transport: &str) -> Result<(Swarm<Behaviour>, &'static str)> {
    let builder = SwarmBuilder::with_new_identity().with_tokio();
    let (plain, muxer) = (tcp::Config::default(), yamux::Config::default);
    let idle = |config: libp2p::swarm::Config| config.with_idle_connection_timeout(IDLE_TIMEOUT);
    let behaviour = |_: &Keypair| Behaviour::new();
    Ok(match transport {
        "tcp" => {
            let builder = builder.with_tcp(plain, noise::Config::new, muxer)?;
            (builder.with_behaviour(behaviour)?.with_swarm_config(idle).build(), "tcp/0")
        }
        "tls" => {
            let builder = builder.with_tcp(plain, tls::Config::new, muxer)?;
            (builder.with_behaviour(behaviour)?.with_swarm_config(idle).build(), "tcp/0")
        }
        "quic" => {
            let builder = builder.with_quic();
            (builder.with_behaviour(behaviour)?.with_swarm_config(idle).build(), "udp/0/quic-v1")
        }
        "ws" => {
            let builder = builder.with_other_transport(|keypair| {
                let plain = libp2p_websocket::Config::new(tcp::tokio::Transport::default());
                let secured = plain.upgrade(Version::V1Lazy).authenticate(noise::Config::new(keypair)?);
                Ok(secured.multiplex(yamux::Config::default()))
            })?;
            (builder.with_behaviour(behaviour)?.with_swarm_config(idle).build(), "tcp/0/ws")
        }
        other => bail!("no transport {other}"),
    })
}

async fn drive(mut swarm: Swarm<Behaviour>, mut requests: mpsc::Receiver<Request>) {
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
                Some(Request::Dial(address, answer)) => {
                    let peer = address.iter().find_map(|part| match part {
                        Protocol::P2p(peer) => Some(peer),
                        _ => None,
                    });
                    // It would not dial twice whom it knows.
                    let options = DialOpts::peer_id(peer.unwrap_or_else(PeerId::random))
                        .condition(PeerCondition::Always)
                        .addresses(vec![address])
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
                SwarmEvent::ConnectionEstablished { connection_id, .. } => {
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
        let (answer, address) = oneshot::channel();
        let listen = format!("/ip4/{ip}/{}", self.kind).parse()?;
        self.requests.send(Request::Listen(listen, answer)).await?;
        Ok(address.await??.with(Protocol::P2p(self.peer)).to_string())
    }

    async fn dial(&self, address: &str, _number: usize) -> Result<Dialed> {
        let address: Multiaddr = address.parse()?;
        let Some(Protocol::P2p(peer)) = address.iter().last() else { bail!("{address} names nobody") };
        let (answer, id) = oneshot::channel();
        self.requests.send(Request::Dial(address, answer)).await?;
        let (requests, control) = (self.requests.clone(), self.control.clone());
        Ok(Dialed { id: id.await.context("the swarm is gone")??, peer, requests, control })
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
