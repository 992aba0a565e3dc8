//! Whose word counts as one.

use std::net::{IpAddr, Ipv6Addr};

use peerloom_core::{Multiaddr, PeerId, Protocol};

/// Those who may be one and the same: an IPv4 network of /24 or an IPv6 network of /48, as for observed addresses; where there
/// are no IP addresses, a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Network {
    Ip(IpAddr),
    Peer(PeerId),
}

impl Network {
    pub(crate) fn of(address: &Multiaddr, peer: PeerId) -> Self {
        match ip(address) {
            Some(IpAddr::V4(ip)) => {
                let [a, b, c, _] = ip.octets();
                Self::Ip([a, b, c, 0].into())
            }
            Some(IpAddr::V6(ip)) => Self::Ip(Ipv6Addr::from_bits(ip.to_bits() & (u128::MAX << 80)).into()),
            None => Self::Peer(peer),
        }
    }
}

/// The IP address that an address begins with.
pub(crate) fn ip(address: &Multiaddr) -> Option<IpAddr> {
    match address.protocols().next()? {
        Protocol::Ip4(ip) => Some(ip.into()),
        Protocol::Ip6(ip) => Some(ip.to_canonical()),
        _ => None,
    }
}
