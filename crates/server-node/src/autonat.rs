//! The section `[autonat]` of the configuration: whether this node finds out who reaches it, and helps others to.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use peerloom_autonat::{AutonatClient, AutonatServer, ClientConfig, ServerConfig};
use peerloom_core::Keypair;
use peerloom_node::{Gating, Node};
use serde::Deserialize;

use crate::{
    network::Network,
    run::{Storage, builder},
};

/// As it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct FileAutonat {
    /// Asks other nodes which of its addresses they reach.
    pub(crate) client: bool,
    /// Answers others.
    pub(crate) server: bool,
    /// Asks and answers about private addresses, too.
    pub(crate) private_addresses: bool,
}

impl Default for FileAutonat {
    fn default() -> Self {
        Self { client: true, server: true, private_addresses: false }
    }
}

/// Starts what is switched on. `dials` is the network that the node is in, and who may not be dialed
/// there may not be dialed for others either.
pub(crate) fn start(
    node: &Node,
    config: &FileAutonat,
    dials: Network,
    gating: Gating,
) -> anyhow::Result<Option<AutonatServer>> {
    if config.client {
        let mut client = ClientConfig::default();
        client.private = config.private_addresses;
        AutonatClient::start(node, client)?;
    }
    if !config.server {
        return Ok(None);
    }
    // Its sockets are its own, and bound when it dials for the first time.
    let dialer = builder(Keypair::generate(), Storage::Memory, dials, gating)?
        .identify(None)
        .answer_pings(false)
        .build();
    let mut server = ServerConfig::default();
    server.private = config.private_addresses;
    server.ip4 = config.private_addresses || has_way_to(Ipv4Addr::new(1, 1, 1, 1).into());
    server.ip6 =
        config.private_addresses || has_way_to(Ipv6Addr::new(0x2606, 0x4700, 0, 0, 0, 0, 0, 1).into());
    Ok(Some(peerloom_autonat::serve(node, dialer, server)?))
}

/// Whether the machine has a route there. Nothing is sent.
fn has_way_to(ip: IpAddr) -> bool {
    let any: IpAddr = if ip.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    UdpSocket::bind((any, 0)).is_ok_and(|socket| socket.connect(SocketAddr::new(ip, 443)).is_ok())
}
