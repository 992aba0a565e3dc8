//! Peerloom as a subject of the bench: a node with one transport, as an application has it, but for identify, which would be
//! counted with the dials.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use parking_lot::Mutex;
use peerloom_core::{
    Connection as CoreConnection, DialError, Keypair, ListenError, Listener, Multiaddr, ProtocolName,
    StreamExt as _, Transport, multistream_select::NegotiatedStream, runtime::BoxFuture,
};
use peerloom_node::{ConnectionInfo, Direction, Limits, Node, NodeEvent, resources::ResourceLimits};
use peerloom_quic::{QuicConfig, QuicTransport};
use peerloom_tcp::TcpTransport;
use peerloom_webrtc::{WebRtcDirectConfig, WebRtcDirectTransport};
use peerloom_websocket::WebSocketTransport;
use workload::{Connection, PROTOCOL, Stream, Subject};

fn main() -> Result<()> {
    workload::main(Peerloom::new)
}

struct Peerloom {
    keypair: Keypair,
    transports: Vec<Shared>,
    /// How their addresses end, but for the port.
    kinds: Vec<&'static str>,
    /// Nodes without a connection, to be used again: a node has one connection to an address, and a row wants many.
    idle: Arc<Mutex<Vec<Node>>>,
    accepted: Arc<AtomicUsize>,
}

impl Peerloom {
    fn new(transport: &str) -> Result<Self> {
        let keypair = Keypair::generate();
        let identity = || keypair.clone();
        let quic = || QuicTransport::new(identity(), QuicConfig::default());
        let (transports, kinds): (Vec<Arc<dyn Transport>>, _) = match transport {
            "tcp" => (vec![Arc::new(TcpTransport::new(identity()))], vec!["tcp/PORT"]),
            "tls" => (vec![Arc::new(TcpTransport::new(identity()))], vec!["tcp/PORT/tls"]),
            "ws" => (vec![Arc::new(WebSocketTransport::new(identity()))], vec!["tcp/PORT/ws"]),
            "quic" => (vec![Arc::new(quic()?)], vec!["udp/PORT/quic-v1"]),
            "webrtc" => {
                let transport = WebRtcDirectTransport::new(identity(), WebRtcDirectConfig::default())?;
                (vec![Arc::new(transport)], vec!["udp/PORT/webrtc-direct"])
            }
            "all" => {
                let tcp = TcpTransport::new(identity());
                (vec![Arc::new(quic()?), Arc::new(tcp)], vec!["udp/PORT/quic-v1", "tcp/PORT"])
            }
            other => bail!("no transport {other}"),
        };
        let transports = transports.into_iter().map(Shared).collect();
        Ok(Self { keypair, transports, kinds, idle: Arc::default(), accepted: Arc::default() })
    }

    fn node(&self) -> Node {
        let mut limits = Limits::default();
        limits.resources = ResourceLimits::unlimited();
        let builder = Node::builder(self.keypair.clone()).limits(limits).identify(None);
        let with =
            self.transports.iter().fold(builder, |builder, transport| builder.transport(transport.clone()));
        with.build()
    }

    fn count_accepted(&self, node: &Node) {
        let (mut events, accepted) = (node.events(), self.accepted.clone());
        node.spawn(async move {
            while let Some(event) = events.next().await {
                if let NodeEvent::ConnectionEstablished { connection, .. } = event
                    && connection.direction == Direction::Inbound
                {
                    accepted.fetch_add(1, Relaxed);
                }
            }
        });
    }
}

impl Subject for Peerloom {
    type Connection = Dialed;

    async fn listen(&self, ip: &str) -> Result<String> {
        // Another identity than that of `dial`, which is made in a process of its own.
        let node = self.node();
        self.count_accepted(&node);
        node.handle(ProtocolName::from_static(PROTOCOL), |incoming| async move {
            if let Err(error) = workload::serve(Negotiated::new(incoming.stream)).await {
                eprintln!("peerloom: {error:#}");
            }
        })?;
        let (ip, port) = ip.split_once(':').unwrap_or((ip, "0"));
        let mut addresses = Vec::new();
        for kind in &self.kinds {
            let listen = format!("/ip4/{ip}/{}", kind.replace("PORT", port));
            addresses.extend(node.listen(listen.parse()?).await?);
        }
        // It serves for as long as the process lives.
        self.idle.lock().push(node);
        Ok(addresses.first().context("no address to listen on")?.to_string())
    }

    fn accepted(&self) -> usize {
        self.accepted.load(Relaxed)
    }

    async fn dial_any(&self, addresses: &[String]) -> Result<Dialed> {
        let addresses: Vec<Multiaddr> =
            addresses.iter().map(|text| text.parse()).collect::<Result<_, _>>()?;
        let node = self.node();
        let info = node.dial(addresses).await?;
        Ok(Dialed { node, info, idle: self.idle.clone() })
    }

    async fn dial(&self, address: &str, _number: usize) -> Result<Dialed> {
        let address: Multiaddr = address.parse()?;
        let node = self.idle.lock().pop();
        let node = node.unwrap_or_else(|| self.node());
        let info = node.dial(address).await?;
        Ok(Dialed { node, info, idle: self.idle.clone() })
    }
}

struct Dialed {
    node: Node,
    info: ConnectionInfo,
    idle: Arc<Mutex<Vec<Node>>>,
}

impl Connection for Dialed {
    type Stream = Negotiated;

    async fn open(&self) -> Result<Negotiated> {
        let opened = self.node.open_stream(&self.info, &[ProtocolName::from_static(PROTOCOL)]).await?;
        Ok(Negotiated::new(opened))
    }

    async fn close(self) -> Result<()> {
        self.node.disconnect(self.info.peer).await;
        self.idle.lock().push(self.node);
        Ok(())
    }
}

struct Negotiated {
    stream: NegotiatedStream,
    /// What was received last.
    chunk: Bytes,
}

impl Negotiated {
    fn new(stream: NegotiatedStream) -> Self {
        Self { stream, chunk: Bytes::new() }
    }
}

impl Stream for Negotiated {
    async fn send(&mut self, data: Bytes) -> Result<()> {
        Ok(self.stream.write_all(data).await?)
    }

    async fn finish(&mut self) -> Result<()> {
        Ok(self.stream.close_write().await?)
    }

    async fn receive(&mut self) -> Result<&[u8]> {
        self.chunk = self.stream.read_chunk().await?.unwrap_or_default();
        Ok(&self.chunk)
    }
}

/// One transport for several nodes, which are to dial from one socket.
#[derive(Clone)]
struct Shared(Arc<dyn Transport>);

impl Transport for Shared {
    fn can_dial(&self, address: &Multiaddr) -> bool {
        self.0.can_dial(address)
    }

    fn can_listen(&self, address: &Multiaddr) -> bool {
        self.0.can_listen(address)
    }

    fn dial(&self, address: Multiaddr) -> BoxFuture<'static, Result<Box<dyn CoreConnection>, DialError>> {
        self.0.dial(address)
    }

    fn listen(&self, address: Multiaddr) -> BoxFuture<'static, Result<Box<dyn Listener>, ListenError>> {
        self.0.listen(address)
    }
}
