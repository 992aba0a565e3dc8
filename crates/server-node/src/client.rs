//! What `peerloom ping` and `peerloom perf` have in common: a node with a fresh identity and one connection.

use std::path::Path;

use anyhow::Context;
use peerloom_core::{Keypair, Multiaddr};
use peerloom_node::{ConnectionInfo, Gating, Node};
use peerloom_relay::RelayClient;

use peerloom_webrtc::WebRtcConfig;

use crate::{
    network::{FileDns, FileTls, Network},
    run::{Storage, builder},
    webrtc,
};

pub(crate) async fn connect(
    address: &Multiaddr,
    private_network: Option<&Path>,
) -> anyhow::Result<(Node, ConnectionInfo)> {
    let network = Network::load(private_network, FileTls::default(), FileDns::default())?;
    let is_private = network.private.is_some();
    let relays = network.relay_client();
    let node = builder(Keypair::generate(), Storage::Memory, network, Gating::new())?.build();
    RelayClient::start(&node, relays)?;
    if !is_private {
        // What is measured is the way that the address names.
        webrtc::start(&node, WebRtcConfig::default(), false)?;
    }
    let connection = node.dial(address.clone()).await.map_err(anyhow::Error::from)?;
    Ok((node, connection))
}

/// What a measurement ended with, after the connection is closed in an orderly way.
pub(crate) async fn close<T>(
    node: Node,
    outcome: Result<T, impl Into<anyhow::Error>>,
    what: &'static str,
) -> anyhow::Result<T> {
    node.close().await;
    outcome.map_err(Into::into).context(what)
}
