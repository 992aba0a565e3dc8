//! The ports to be forwarded.

use std::{
    collections::BTreeSet,
    fmt,
    net::{Ipv4Addr, SocketAddr},
};

use peerloom_core::Protocol;
use peerloom_node::{AddressSource, OwnAddress, addresses::PortProtocol};

/// Ports that a router is asked for; a node listens on two.
pub(crate) const MAX_PORTS: usize = 8;

/// A port of this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Port {
    pub(crate) protocol: PortProtocol,
    pub(crate) inside: SocketAddr,
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let protocol = match self.protocol {
            PortProtocol::Tcp => "TCP",
            PortProtocol::Udp => "UDP",
        };
        write!(f, "{protocol} {}", self.inside)
    }
}

/// What is listened on at `client`, to which the router forwards.
pub(crate) fn ports(own: &[OwnAddress], client: Ipv4Addr) -> BTreeSet<Port> {
    let port = |own: &OwnAddress| {
        let mut protocols = own.address.protocols();
        let (Protocol::Ip4(ip), port) = (protocols.next()?, protocols.next()?) else { return None };
        let (protocol, port) = match port {
            Protocol::Tcp(port) => (PortProtocol::Tcp, port),
            Protocol::Udp(port) => (PortProtocol::Udp, port),
            _ => return None,
        };
        let is_direct = own.source == AddressSource::Listener && !own.address.is_relayed();
        (is_direct && ip == client).then_some(Port { protocol, inside: SocketAddr::new(ip.into(), port) })
    };
    own.iter()
        .filter_map(port)
        .take(MAX_PORTS * 4)
        .collect::<BTreeSet<_>>()
        .into_iter()
        .take(MAX_PORTS)
        .collect()
}
