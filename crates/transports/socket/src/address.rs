//! Between a multiaddr's first components and the operating system's socket addresses.

use std::{
    io,
    net::{IpAddr, SocketAddr},
};

use peerloom_core::{Multiaddr, Protocol};

/// The first two components of an address, `/<host>/tcp/<port>` or `/<host>/udp/<port>`, and what follows them.
#[derive(Debug, Clone, PartialEq)]
pub struct Endpoint<'a> {
    /// Where.
    pub host: Host,
    /// The port, 0 for any.
    pub port: u16,
    /// The components behind the port, without a final `/p2p/…`.
    pub rest: Vec<Protocol<'a>>,
}

/// A machine, by address or by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Host {
    /// `/ip4/…` or `/ip6/…`.
    Ip(IpAddr),
    /// `/dns/…`, `/dns4/…` or `/dns6/…`.
    Name {
        /// The name.
        name: String,
        /// Which of its addresses count.
        family: Family,
    },
}

/// Which of a name's addresses count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// All.
    Any,
    /// IPv4.
    Ip4,
    /// IPv6.
    Ip6,
}

/// Addresses tried of those that a name has; a name server may send any number.
#[cfg(feature = "resolve")]
const MAX_RESOLVED: usize = 8;

impl<'a> Endpoint<'a> {
    /// The endpoint, if the address begins with a host and a TCP port.
    pub fn tcp(address: &'a Multiaddr) -> Option<Self> {
        Self::parse(address, |protocol| match protocol {
            Protocol::Tcp(port) => Some(*port),
            _ => None,
        })
    }

    /// The endpoint, if the address begins with a host and a UDP port.
    pub fn udp(address: &'a Multiaddr) -> Option<Self> {
        Self::parse(address, |protocol| match protocol {
            Protocol::Udp(port) => Some(*port),
            _ => None,
        })
    }

    fn parse(address: &'a Multiaddr, port: impl FnOnce(&Protocol<'a>) -> Option<u16>) -> Option<Self> {
        let mut protocols = address.protocols();
        let host = match protocols.next()? {
            Protocol::Ip4(ip) => Host::Ip(ip.into()),
            Protocol::Ip6(ip) => Host::Ip(ip.into()),
            Protocol::Dns(name) => Host::Name { name: name.into_owned(), family: Family::Any },
            Protocol::Dns4(name) => Host::Name { name: name.into_owned(), family: Family::Ip4 },
            Protocol::Dns6(name) => Host::Name { name: name.into_owned(), family: Family::Ip6 },
            _ => return None,
        };
        let port = port(&protocols.next()?)?;
        let mut rest: Vec<_> = protocols.collect();
        if let Some(Protocol::P2p(_)) = rest.last() {
            rest.pop();
        }
        Some(Self { host, port, rest })
    }

    /// The socket address, if the host is one and not a name.
    pub fn socket_addr(&self) -> Option<SocketAddr> {
        match self.host {
            Host::Ip(ip) => Some(SocketAddr::new(ip, self.port)),
            Host::Name { .. } => None,
        }
    }

    /// The socket addresses to try, at most 8; asks the system's resolver for a name. Never empty.
    #[cfg(feature = "resolve")]
    pub async fn resolve(&self) -> io::Result<Vec<SocketAddr>> {
        let Host::Name { name, family } = &self.host else {
            return Ok(self.socket_addr().into_iter().collect());
        };
        let wanted = |address: &SocketAddr| match family {
            Family::Any => true,
            Family::Ip4 => address.is_ipv4(),
            Family::Ip6 => address.is_ipv6(),
        };
        let found = tokio::net::lookup_host((name.as_str(), self.port)).await?;
        let found: Vec<_> = found.filter(wanted).take(MAX_RESOLVED).collect();
        match found.is_empty() {
            true => Err(io::Error::new(io::ErrorKind::NotFound, "the name has no such address")),
            false => Ok(found),
        }
    }
}

/// `/ip4/…/tcp/…` or `/ip6/…/tcp/…`.
pub fn tcp_multiaddr(address: SocketAddr) -> Multiaddr {
    Multiaddr::from_protocols([address.ip().to_canonical().into(), Protocol::Tcp(address.port())])
}

/// `/ip4/…/udp/…` or `/ip6/…/udp/…`.
pub fn udp_multiaddr(address: SocketAddr) -> Multiaddr {
    Multiaddr::from_protocols([address.ip().to_canonical().into(), Protocol::Udp(address.port())])
}

/// Where a socket that is bound to `bound` can be reached: `bound` itself or, for an unspecified host, every address
/// of the machine's interfaces but IPv6's link-local ones, which mean nothing without a zone.
pub fn reachable(bound: SocketAddr) -> io::Result<Vec<SocketAddr>> {
    if !bound.ip().is_unspecified() {
        return Ok(vec![bound]);
    }
    let mut addresses: Vec<_> = if_addrs::get_if_addrs()?
        .into_iter()
        .map(|interface| interface.ip())
        .filter(|ip| match ip {
            IpAddr::V4(_) => bound.is_ipv4(),
            IpAddr::V6(ip) => bound.is_ipv6() && !ip.is_unicast_link_local(),
        })
        .map(|ip| SocketAddr::new(ip, bound.port()))
        .collect();
    addresses.sort_unstable_by_key(|address| (address.ip().is_loopback(), *address));
    addresses.dedup();
    Ok(addresses)
}

#[cfg(test)]
mod tests {
    use peerloom_core::Keypair;

    use super::*;

    #[test]
    fn host_port_and_the_rest_are_told_apart() {
        let address: Multiaddr = "/ip4/1.2.3.4/tcp/80/ws".parse().unwrap();
        let address = address.with_peer_id(Keypair::generate().peer_id());
        let endpoint = Endpoint::tcp(&address).unwrap();
        assert_eq!(endpoint.socket_addr(), Some("1.2.3.4:80".parse().unwrap()));
        assert_eq!(endpoint.rest, [Protocol::Ws]);
        assert_eq!(Endpoint::udp(&address), None);
    }

    #[test]
    fn a_name_keeps_its_family() {
        let address: Multiaddr = "/dns6/example.org/udp/80".parse().unwrap();
        let host = Endpoint::udp(&address).unwrap().host;
        assert_eq!(host, Host::Name { name: "example.org".to_owned(), family: Family::Ip6 });
    }

    #[test]
    fn an_unspecified_host_is_expanded_to_the_interfaces() {
        let addresses = reachable("0.0.0.0:7".parse().unwrap()).unwrap();
        assert!(addresses.contains(&"127.0.0.1:7".parse().unwrap()));
        assert!(addresses.iter().all(|address| !address.ip().is_unspecified() && address.is_ipv4()));
    }
}
