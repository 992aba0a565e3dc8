//! A node with every transport, behind a relay or not.

use anyhow::Result;
use peerloom_core::{Keypair, Multiaddr, Protocol};
use peerloom_node::Node;
use peerloom_quic::{QuicConfig, QuicTransport, WebTransportConfig, WebTransportTransport};
use peerloom_relay::{ClientConfig, RelayClient};
use peerloom_tcp::TcpTransport;
use peerloom_upgrade::pnet::PreSharedKey;
use peerloom_webrtc::{WebRtcConfig, WebRtcDirectConfig, WebRtcDirectTransport, WebRtcFactory};
use peerloom_webrtc_signaling::SignalingConfig;
use peerloom_websocket::WebSocketTransport;

/// What becomes of connections through a relay.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Path {
    /// They stay what they are.
    Relayed,
    /// They become direct ones.
    WebRtc,
}

impl Path {
    /// What a dial of `address` asks for.
    pub(crate) fn of(address: &Multiaddr) -> Self {
        if address.protocols().any(|protocol| protocol == Protocol::WebRtc) {
            Self::WebRtc
        } else {
            Self::Relayed
        }
    }
}

/// In the private network of the key file that the variable `swarm_key` names, if it does: that is by TCP alone.
pub(crate) fn start(path: Path) -> Result<Node> {
    let keypair = Keypair::generate();
    if let Ok(file) = std::env::var("swarm_key") {
        let key = PreSharedKey::from_key_file(&std::fs::read(file)?)?;
        let tcp = TcpTransport::new(keypair.clone()).with_private_network(key);
        return Ok(Node::builder(keypair).transport(tcp).build());
    }
    let node = Node::builder(keypair.clone())
        .transport(TcpTransport::new(keypair.clone()))
        .transport(WebSocketTransport::new(keypair.clone()))
        .transport(QuicTransport::new(keypair.clone(), QuicConfig::default())?)
        .transport(WebTransportTransport::new(keypair.clone(), WebTransportConfig::default()))
        .transport(WebRtcDirectTransport::new(keypair, WebRtcDirectConfig::default())?)
        .build();
    RelayClient::start(&node, ClientConfig::default())?;
    if path == Path::WebRtc {
        let factory = WebRtcFactory::new(WebRtcConfig::default())?;
        peerloom_webrtc_signaling::start(&node, factory, SignalingConfig::default())?;
    }
    Ok(node)
}
