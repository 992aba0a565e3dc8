//! The socket that an address leads to.

use std::net::SocketAddr;

use peerloom_core::{Multiaddr, Protocol};

/// TCP and UDP have ports of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PortProtocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// `/ip4|ip6/…/tcp|udp/…`, with which an address begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Endpoint {
    pub(crate) protocol: PortProtocol,
    pub(crate) socket: SocketAddr,
}

/// A listening port of this machine. Whatever listens there, on whichever interface, is behind the same mapping of a NAT.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct LocalPort {
    protocol: PortProtocol,
    ip6: bool,
    port: u16,
}

impl Endpoint {
    /// `None` for addresses through relays, and for those that begin with anything else.
    pub(crate) fn of(address: &Multiaddr) -> Option<Self> {
        let mut protocols = address.protocols();
        let ip = match protocols.next()? {
            Protocol::Ip4(ip) => ip.into(),
            Protocol::Ip6(ip) => ip.into(),
            _ => return None,
        };
        let (protocol, port) = match protocols.next()? {
            Protocol::Tcp(port) => (PortProtocol::Tcp, port),
            Protocol::Udp(port) => (PortProtocol::Udp, port),
            _ => return None,
        };
        let socket = SocketAddr::new(ip, port);
        (!address.is_relayed()).then_some(Self { protocol, socket })
    }

    /// The same service as at `address`, but there.
    pub(crate) fn instead_in(self, address: &Multiaddr) -> Multiaddr {
        let port = self.socket.port();
        let port = match self.protocol {
            PortProtocol::Tcp => Protocol::Tcp(port),
            PortProtocol::Udp => Protocol::Udp(port),
        };
        let service = address.protocols().skip(2);
        Multiaddr::from_protocols([self.socket.ip().into(), port].into_iter().chain(service))
    }

    pub(crate) fn local_port(self) -> LocalPort {
        LocalPort { protocol: self.protocol, ip6: self.socket.is_ipv6(), port: self.socket.port() }
    }

    /// Whether a NAT may turn `local` into this.
    #[cfg(not(target_arch = "wasm32"))]
    pub(crate) fn may_map(self, local: LocalPort) -> bool {
        self.protocol == local.protocol && self.socket.is_ipv6() == local.ip6
    }
}
