//! The section `[port_mapping]` of the configuration: whether the router is asked to forward the node's ports.

use std::net::Ipv4Addr;

use peerloom_node::Node;
use peerloom_port_mapping::{Config, PortMapper};
use serde::Deserialize;

/// As it is written. Nobody is asked unless it says so.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct FilePortMapping {
    /// By PCP, or by NAT-PMP where the router does not know that.
    pcp: bool,
    /// By UPnP, where it knows neither.
    upnp: bool,
    /// The router, if it is not that of the default route.
    gateway: Option<Ipv4Addr>,
}

pub(crate) fn start(node: &Node, file: &FilePortMapping) -> Option<PortMapper> {
    let mut config = Config::default();
    (config.pcp, config.upnp, config.gateway) = (file.pcp, file.upnp, file.gateway);
    (file.pcp || file.upnp).then(|| PortMapper::start(node, config))
}
