//! Where a client is, as far as limits are concerned.

use std::{
    net::{IpAddr, Ipv6Addr},
    sync::Arc,
};

use peerloom_core::{Multiaddr, Protocol};

/// Looks up the number of the autonomous system that an address is of.
pub type AutonomousSystem = Arc<dyn Fn(IpAddr) -> Option<u32> + Send + Sync>;

/// The bits of an IPv6 address that a single machine cannot choose.
const NETWORK_BITS: u32 = 64;

/// The IPv4 address, or the IPv6 network of /64, that a multiaddr begins with. One machine has as many IPv6 addresses in its
/// network as it likes, so they count as one.
pub fn ip_network(address: &Multiaddr) -> Option<IpAddr> {
    match address.protocols().find(|protocol| !matches!(protocol, Protocol::Ip6Zone(_)))? {
        Protocol::Ip4(ip) => Some(ip.into()),
        Protocol::Ip6(ip) => Some(match ip.to_ipv4_mapped() {
            Some(ip) => ip.into(),
            None => {
                let network = ip.to_bits() & (u128::MAX << NETWORK_BITS);
                Ipv6Addr::from_bits(network).into()
            }
        }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(address: &str) -> Option<String> {
        ip_network(&address.parse().unwrap()).map(|ip| ip.to_string())
    }

    #[test]
    fn addresses_of_one_machine_are_one_network() {
        assert_eq!(network("/ip4/1.2.3.4/tcp/1"), Some("1.2.3.4".to_owned()));
        assert_eq!(network("/ip6/2001:db8:1:2:3:4:5:6/udp/1/quic-v1"), Some("2001:db8:1:2::".to_owned()));
        assert_eq!(network("/ip6/::ffff:1.2.3.4/tcp/1"), Some("1.2.3.4".to_owned()));
        assert_eq!(network("/ip6zone/eth0/ip6/fe80::1/tcp/1"), Some("fe80::".to_owned()));
        assert_eq!(network("/memory/7"), None);
    }
}
