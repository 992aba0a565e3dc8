//! How far an address reaches.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::multiaddr::{Multiaddr, Protocol};

/// From where an IP address can be reached at best. The nearer ones come first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// From this machine alone: loopback.
    Host,
    /// From some network: private and link-local addresses, those that carriers share, and all that the IANA has set aside
    /// for other uses than the public internet.
    Network,
    /// From the public internet, if nothing stands in between.
    Internet,
}

impl Scope {
    /// The scope of an IP address.
    pub fn of(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(ip) => Self::of_ip4(ip),
            IpAddr::V6(ip) => match ip.to_ipv4_mapped() {
                Some(ip) => Self::of_ip4(ip),
                None => Self::of_ip6(ip),
            },
        }
    }

    fn of_ip4(ip: Ipv4Addr) -> Self {
        let [first, second, third, _] = ip.octets();
        // IANA IPv4 Special-Purpose Address Registry; what is not globally reachable.
        let is_special = ip.is_private()
            || ip.is_link_local()
            || ip.is_documentation()
            || first == 0
            || (first == 100 && (64..128).contains(&second))
            || (first == 192 && second == 0 && third == 0)
            || (first == 192 && second == 88 && third == 99)
            || (first == 198 && (second == 18 || second == 19))
            // Multicast, and what is reserved.
            || first >= 224;
        match (ip.is_loopback(), is_special) {
            (true, _) => Self::Host,
            (false, true) => Self::Network,
            (false, false) => Self::Internet,
        }
    }

    fn of_ip6(ip: Ipv6Addr) -> Self {
        let [first, second, ..] = ip.segments();
        // Global unicast is 2000::/3. Out of it: 2001::/23, which has Teredo, and documentation; and 6to4, which, as all
        // that stands for an IPv4 address, may lead into any network.
        let is_special = first & 0xe000 != 0x2000
            || (first == 0x2001 && (second < 0x200 || second == 0xdb8))
            || first == 0x2002
            || first == 0x3fff;
        match (ip.is_loopback(), is_special) {
            (true, _) => Self::Host,
            (false, true) => Self::Network,
            (false, false) => Self::Internet,
        }
    }
}

impl Multiaddr {
    /// The scope of the IP address that it begins with, which in one through a relay is the relay's; `None` if it begins with
    /// something else, a name for example.
    pub fn scope(&self) -> Option<Scope> {
        match self.protocols().next()? {
            Protocol::Ip4(ip) => Some(Scope::of(ip.into())),
            Protocol::Ip6(ip) => Some(Scope::of(ip.into())),
            // Only link-local addresses have zones.
            Protocol::Ip6Zone(_) => Some(Scope::Network),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_the_internet_are_told_from_those_of_networks_and_hosts() {
        for (ip, scope) in [
            ("127.0.0.1", Scope::Host),
            ("::1", Scope::Host),
            ("::ffff:127.0.0.1", Scope::Host),
            ("10.1.2.3", Scope::Network),
            ("172.31.255.255", Scope::Network),
            ("192.168.1.1", Scope::Network),
            ("169.254.1.1", Scope::Network),
            ("100.64.0.1", Scope::Network),
            ("192.0.2.2", Scope::Network),
            ("198.19.0.1", Scope::Network),
            ("0.0.0.0", Scope::Network),
            ("255.255.255.255", Scope::Network),
            ("::", Scope::Network),
            ("fe80::1", Scope::Network),
            ("fd00::1", Scope::Network),
            ("ff02::1", Scope::Network),
            ("2001:db8::1", Scope::Network),
            ("2002:7f00:1::1", Scope::Network),
            ("64:ff9b::a00:1", Scope::Network),
            ("::ffff:10.0.0.1", Scope::Network),
            ("20.0.0.1", Scope::Internet),
            ("100.128.0.1", Scope::Internet),
            ("172.32.0.1", Scope::Internet),
            ("2606:4700::1", Scope::Internet),
            ("2001:4860:4860::8888", Scope::Internet),
        ] {
            assert_eq!(Scope::of(ip.parse().unwrap()), scope, "{ip}");
        }
    }

    #[test]
    fn a_multiaddr_has_the_scope_of_the_ip_that_it_begins_with() {
        let scope = |address: &str| address.parse::<Multiaddr>().unwrap().scope();
        assert_eq!(scope("/ip4/10.0.0.1/tcp/1"), Some(Scope::Network));
        assert_eq!(scope("/ip6zone/eth0/ip6/fe80::1/tcp/1"), Some(Scope::Network));
        assert_eq!(scope("/dns/localhost/tcp/1"), None);
        assert_eq!(scope("/memory/1"), None);
    }
}
