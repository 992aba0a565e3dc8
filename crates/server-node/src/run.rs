//! `peerloom run`, and what every command that runs a node has of it.

use std::{convert::Infallible, io, path::PathBuf, sync::Arc, time::SystemTime};

use anyhow::Context;
use peerloom_core::{Keypair, Multiaddr};
use peerloom_dns::DnsTransport;
use peerloom_node::{Gating, Node, NodeBuilder, resources::Machine};
use peerloom_peer_storage::{PeerFile, PeerFileError};
use peerloom_port_mapping::PortMapper;
use peerloom_quic::{
    QuicConfig, QuicTransport, UdpPorts, WebTransportConfig, WebTransportTransport,
    certificate::{Certificates, DirectoryStore},
};
use peerloom_relay::{RelayClient, RelayConfig};
use peerloom_socket::{interfaces::InterfaceChanges, tcp::TcpPorts};
use peerloom_tcp::TcpTransport;
use peerloom_webrtc::{Certificate, WebRtcDirectConfig, WebRtcDirectTransport};
use peerloom_websocket::WebSocketTransport;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::{
    autonat, cli::RunArguments, config::Config, echo, gating, identity, liveness, network::Network,
    open_files, port_mapping, status::Status, webrtc,
};

/// What is known of peers, in the data directory.
const PEERS: &str = "peers.redb";

pub(crate) async fn run(arguments: RunArguments) -> anyhow::Result<()> {
    let mut running = Running::prepare(Config::load(arguments)?).await?;
    echo::serve(&running.node)?;
    peerloom_perf::serve(&running.node)?;
    running.listen().await?;
    println!("ready");
    running.until_terminated().await
}

/// A node as an operator runs it: what `run` and `daemon` have in common.
pub(crate) struct Running {
    pub(crate) node: Node,
    status: Status,
    terminate: Signal,
    /// Has the rules of the configuration file read again.
    hangup: Signal,
    file: Option<PathBuf>,
    /// What is not listened on yet.
    listen: Vec<Multiaddr>,
    port_mapper: Option<PortMapper>,
}

impl Running {
    /// A node with its status port. It does not listen yet.
    pub(crate) async fn prepare(config: Config) -> anyhow::Result<Self> {
        if let Err(error) = open_files::raise_limit() {
            tracing::warn!("as many connections as files may be open by default: {error}");
        }
        let limits = config.limits.limits(&Machine::measure())?;
        let keypair = identity::load_or_create(&config.data_dir)?;
        // Before anything is announced: whoever starts us may send SIGTERM as soon as it reads an address.
        let terminate = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;

        let hangup = signal(SignalKind::hangup()).context("cannot wait for SIGHUP")?;

        let is_private = config.network.private.is_some();
        let (relays, to_dial) = (config.network.relay_client(), config.network.to_dial());
        let gating = Gating::new();
        config.gating.apply(&gating);
        let peers = config.data_dir.join(PEERS);
        let node = builder(keypair, Storage::Directory(config.data_dir), config.network, gating.clone())?;
        let node = keep_peers(node, peers)?;
        let node = node.limits(limits).build();
        for address in &config.external_addresses {
            node.add_external_address(address);
        }
        RelayClient::start(&node, relays)?;
        let autonat = autonat::start(&node, &config.autonat, to_dial, gating)?;
        let port_mapper = port_mapping::start(&node, &config.port_mapping);
        if !is_private {
            webrtc::start(&node, config.webrtc, true)?;
        }
        let relay = match config.relay {
            Some(limits) => Some(peerloom_relay::serve(&node, RelayConfig::new(limits))?),
            None => None,
        };
        let status = Status::bind(config.status, &node, relay, autonat).await?;
        let webrtc = webrtc::address_for(&config.listen).filter(|_| !is_private);
        let listen = config.listen.into_iter().chain(webrtc).collect();
        Ok(Self { node, status, terminate, hangup, file: config.file, listen, port_mapper })
    }

    /// Listens, and prints who and where the node is.
    pub(crate) async fn listen(&mut self) -> anyhow::Result<()> {
        println!("peer {}", self.node.peer_id());
        println!("status http://{}", self.status.address());
        for address in self.listen.drain(..) {
            for reachable in self.node.listen(address).await? {
                println!("listen {reachable}");
            }
        }
        Ok(())
    }

    /// Serves the status port, and looks after the connections, until SIGTERM or Ctrl-C; then says goodbye to every peer.
    pub(crate) async fn until_terminated(mut self) -> anyhow::Result<()> {
        tokio::select! {
            outcome = self.status.serve() => outcome?,
            never = liveness::watch(&self.node) => match never {},
            never = gating::reload(self.file.as_deref(), &mut self.hangup, &self.node) => match never {},
            never = follow_interfaces(&self.node) => match never {},
            _ = self.terminate.recv() => {}
            interrupted = tokio::signal::ctrl_c() => interrupted.context("cannot wait for Ctrl-C")?,
        }
        tracing::info!("closing");
        if let Some(port_mapper) = self.port_mapper {
            port_mapper.close().await;
        }
        self.node.close().await;
        Ok(())
    }
}

/// Has `node` keep what it knows of peers in a file.
fn keep_peers(node: NodeBuilder, path: PathBuf) -> Result<NodeBuilder, PeerFileError> {
    match PeerFile::open(path) {
        Ok(file) => Ok(node.peer_storage(file)),
        // Two nodes of one data directory are unusual, but the second one works without.
        Err(error @ PeerFileError::InUse { .. }) => {
            tracing::warn!("{error}; what this one learns of peers is not kept");
            Ok(node)
        }
        Err(error) => Err(error),
    }
}

/// Tells the node when the machine has other addresses.
async fn follow_interfaces(node: &Node) -> Infallible {
    let following = async {
        let mut changes = InterfaceChanges::watch()?;
        loop {
            changes.next().await?;
            node.network_changed();
        }
    };
    let Err::<Infallible, io::Error>(error) = following.await;
    tracing::warn!(%error, "changes of the machine's addresses are not seen");
    std::future::pending().await
}

/// Where a node keeps its certificates.
pub(crate) enum Storage {
    /// In files, so that the addresses that contain their hashes survive a restart.
    Directory(PathBuf),
    /// Nowhere: a node that only dials.
    Memory,
}

/// A node with every native transport, and names in front of all of them; in a private network, with those that can be
/// private.
pub(crate) fn builder(
    keypair: Keypair,
    storage: Storage,
    network: Network,
    gating: Gating,
) -> anyhow::Result<NodeBuilder> {
    // What has the same port number shares it.
    let (udp, tcp) = (UdpPorts::default(), TcpPorts::default());
    let permit = {
        let gating = gating.clone();
        move |address| gating.permit_address(address)
    };
    let names = DnsTransport::new(network.resolver()?).with_gate(permit);
    let mut plain =
        TcpTransport::new(keypair.clone()).with_ports(tcp.clone()).with_key_exchange(network.key_exchange);
    let mut websocket = WebSocketTransport::new(keypair.clone()).with_ports(tcp);
    if let Some(certificate) = network.certificate {
        websocket = websocket.with_certificate(certificate);
    }
    if let Some(key) = network.private {
        plain = plain.with_private_network(key.clone());
        websocket = websocket.with_private_network(key);
        let transports = names.with_transport(plain).with_transport(websocket);
        return Ok(Node::builder(keypair).transport(transports).gating(gating));
    }
    let quic = QuicConfig::default().with_ports(udp.clone()).with_key_exchange(network.key_exchange);
    let mut web_transport =
        WebTransportConfig::default().with_ports(udp.clone()).with_key_exchange(network.key_exchange);
    let mut web_rtc = WebRtcDirectConfig::default();
    web_rtc.bind = Arc::new(move |address| udp.datagrams(address));
    if let Storage::Directory(directory) = storage {
        let certificates = Certificates::load_or_create(DirectoryStore::new(&directory), SystemTime::now())?;
        web_transport = web_transport.with_certificates(certificates);
        web_rtc.certificate = Some(Arc::new(Certificate::load_or_generate(&directory)?));
    }
    let quic = QuicTransport::new(keypair.clone(), quic)?;
    let web_rtc = WebRtcDirectTransport::new(keypair.clone(), web_rtc)?;
    let transports = names
        .with_transport(quic)
        .with_transport(WebTransportTransport::new(keypair.clone(), web_transport))
        .with_transport(plain)
        .with_transport(websocket)
        .with_transport(web_rtc);
    Ok(Node::builder(keypair).transport(transports).gating(gating))
}
