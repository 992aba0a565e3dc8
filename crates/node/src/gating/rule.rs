//! One rule, and how it is written.

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr},
    str::FromStr,
};

use peerloom_core::{Multiaddr, PeerId, Protocol};

/// What a verdict is about.
///
/// As text: a peer id, an IP address, a network (`192.0.2.0/24`, `2001:db8::/32`), the beginning of a multiaddr
/// (`/ip4/192.0.2.1/udp/4001`, `/dns4/example.com`), or `*` for every peer.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// Every peer that no rule names.
    EveryPeer,
    /// This peer, wherever it is; and every way through it, if it is a relay.
    Peer(PeerId),
    /// Every IP address in this network.
    Network(IpNetwork),
    /// Every address that begins so.
    Address(Multiaddr),
}

/// Why text is not a [`Rule`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RuleError {
    /// It is nothing that a rule could be about.
    #[error("neither a peer id, an IP address, a network nor a multiaddr: {0}")]
    Malformed(String),
    /// The prefix is longer than an address of this family.
    #[error("{0} has too long a prefix")]
    Prefix(String),
    /// The address goes on behind the prefix: a slip of the pen, most likely.
    #[error("{written} is not a network; {network} is the one it is in")]
    HostBits {
        /// What was written.
        written: String,
        /// The network.
        network: IpNetwork,
    },
    /// The multiaddr ends in a peer.
    #[error("{0} ends in a peer: make a rule for the address or for the peer")]
    PeerAtEnd(Multiaddr),
}

impl From<PeerId> for Rule {
    fn from(peer: PeerId) -> Self {
        Self::Peer(peer)
    }
}

impl From<IpNetwork> for Rule {
    fn from(network: IpNetwork) -> Self {
        Self::Network(network)
    }
}

impl FromStr for Rule {
    type Err = RuleError;

    fn from_str(text: &str) -> Result<Self, RuleError> {
        if text == "*" {
            return Ok(Self::EveryPeer);
        }
        let malformed = || RuleError::Malformed(text.to_owned());
        let (ip, prefix) = if text.starts_with('/') {
            let address: Multiaddr = text.parse().map_err(|_| malformed())?;
            match network(&address) {
                Some(network) => network,
                None => return of_address(address),
            }
        } else if let Some((ip, prefix)) = text.split_once('/') {
            (ip.parse().map_err(|_| malformed())?, Some(prefix.parse().map_err(|_| malformed())?))
        } else if let Ok(ip) = text.parse::<IpAddr>() {
            (ip, None)
        } else {
            return text.parse().map(Self::Peer).map_err(|_| malformed());
        };
        let Some(prefix) = prefix else { return Ok(Self::Network(ip.into())) };
        let network = IpNetwork::new(ip, prefix).ok_or_else(|| RuleError::Prefix(text.to_owned()))?;
        match network.bits == mapped(ip) {
            true => Ok(Self::Network(network)),
            false => Err(RuleError::HostBits { written: text.to_owned(), network }),
        }
    }
}

/// The address and the prefix of a multiaddr that is nothing else: `/ip4/192.0.2.0/ipcidr/24`.
fn network(address: &Multiaddr) -> Option<(IpAddr, Option<u8>)> {
    let mut protocols = address.protocols().filter(|protocol| !matches!(protocol, Protocol::Ip6Zone(_)));
    let ip = match protocols.next()? {
        Protocol::Ip4(ip) => IpAddr::V4(ip),
        Protocol::Ip6(ip) => IpAddr::V6(ip),
        _ => return None,
    };
    match (protocols.next(), protocols.next()) {
        (None, _) => Some((ip, None)),
        (Some(Protocol::IpCidr(prefix)), None) => Some((ip, Some(prefix))),
        _ => None,
    }
}

/// A multiaddr that is nothing but a peer is the rule for that.
fn of_address(address: Multiaddr) -> Result<Rule, RuleError> {
    match address.peer_id() {
        Some(peer) if address.without_peer_id().is_empty() => Ok(Rule::Peer(peer)),
        Some(_) => Err(RuleError::PeerAtEnd(address)),
        None => Ok(Rule::Address(address)),
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::EveryPeer => f.write_str("*"),
            Self::Peer(peer) => peer.fmt(f),
            Self::Network(network) => network.fmt(f),
            Self::Address(address) => address.fmt(f),
        }
    }
}

/// The bits in front of an IPv4 address that make it an IPv6 one (RFC 4291, "IPv4-Mapped IPv6 Address").
const MAPPED: u8 = 96;

/// IP addresses that begin with the same bits. IPv4-mapped IPv6 addresses are IPv4 addresses, and in no network of IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IpNetwork {
    /// Of IPv6 after mapping; 0 behind the prefix.
    bits: u128,
    /// The same way.
    prefix: u8,
}

impl IpNetwork {
    /// The network of addresses that have the first `prefix` bits in common with `ip`. `None` if an address has not so many.
    pub fn new(ip: IpAddr, prefix: u8) -> Option<Self> {
        let (before, most) = match ip {
            IpAddr::V4(_) => (MAPPED, 32),
            IpAddr::V6(_) => (0, 128),
        };
        (prefix <= most).then(|| Self::masked(mapped(ip), before.saturating_add(prefix)))
    }

    fn masked(bits: u128, prefix: u8) -> Self {
        let behind = 128u32.saturating_sub(prefix.into());
        Self { bits: bits & u128::MAX.checked_shl(behind).unwrap_or(0), prefix }
    }

    /// Whether `ip` is in it.
    pub fn contains(&self, ip: IpAddr) -> bool {
        Self::around(ip, self.prefix) == Some(*self)
    }

    /// The network of this prefix, as [`prefix`](Self::prefix) counts, that `ip` is in.
    pub(super) fn around(ip: IpAddr, prefix: u8) -> Option<Self> {
        let bits = mapped(ip);
        let is_ip4 = Ipv6Addr::from_bits(bits).to_ipv4_mapped().is_some();
        (!is_ip4 || prefix >= MAPPED).then(|| Self::masked(bits, prefix))
    }

    /// How many bits are the same, of 128.
    pub(crate) fn prefix(&self) -> u8 {
        self.prefix
    }

    /// Its first address, and how many bits of it are the same: as it is written.
    pub(crate) fn parts(&self) -> (IpAddr, u8) {
        let ip6 = Ipv6Addr::from_bits(self.bits);
        match ip6.to_ipv4_mapped().filter(|_| self.prefix >= MAPPED) {
            Some(ip4) => (ip4.into(), self.prefix.saturating_sub(MAPPED)),
            None => (ip6.into(), self.prefix),
        }
    }
}

/// The network that is nothing but this address.
impl From<IpAddr> for IpNetwork {
    fn from(ip: IpAddr) -> Self {
        Self::masked(mapped(ip), 128)
    }
}

impl fmt::Display for IpNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (ip, prefix) = self.parts();
        write!(f, "{ip}/{prefix}")
    }
}

fn mapped(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().to_bits(),
        IpAddr::V6(ip) => ip.to_bits(),
    }
}

#[cfg(test)]
mod tests {
    use peerloom_core::Keypair;

    use super::*;

    fn parse(text: &str) -> Result<Rule, RuleError> {
        text.parse()
    }

    #[test]
    fn every_kind_of_rule_is_written_as_it_is_read() {
        let peer = Keypair::from_seed([1; 32]).peer_id().to_string();
        for text in
            ["*", &peer, "192.0.2.0/24", "2001:db8::/32", "0.0.0.0/0", "::/0", "/ip4/192.0.2.1/udp/4001"]
        {
            assert_eq!(parse(text).unwrap().to_string(), text);
        }
        for (text, same) in [
            (format!("/p2p/{peer}"), peer.as_str()),
            ("192.0.2.1".to_owned(), "192.0.2.1/32"),
            ("/ip4/192.0.2.1".to_owned(), "192.0.2.1/32"),
            ("/ip4/192.0.2.0/ipcidr/24".to_owned(), "192.0.2.0/24"),
            ("/ip6zone/eth0/ip6/fe80::".to_owned(), "fe80::/128"),
            ("::ffff:192.0.2.0/120".to_owned(), "192.0.2.0/24"),
            ("::1".to_owned(), "::1/128"),
        ] {
            assert_eq!(parse(&text).unwrap().to_string(), same);
        }
    }

    #[test]
    fn what_is_no_rule_is_refused_with_what_is_wrong_about_it() {
        let peer = Keypair::from_seed([1; 32]).peer_id();
        for (text, part) in [
            ("", "neither"),
            ("192.0.2", "neither"),
            ("192.0.2.0/x", "neither"),
            ("192.0.2.0/33", "too long a prefix"),
            ("::/129", "too long a prefix"),
            ("192.0.2.1/24", "192.0.2.0/24 is the one it is in"),
            ("/ip4/192.0.2.1/ipcidr/24", "192.0.2.0/24 is the one it is in"),
            ("/nothing/1", "neither"),
            (&format!("/ip4/192.0.2.1/tcp/1/p2p/{peer}"), "ends in a peer"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn a_network_has_its_addresses_in_either_family() {
        let network = |text: &str| match parse(text).unwrap() {
            Rule::Network(network) => network,
            other => panic!("{other}"),
        };
        for (text, inside, outside) in [
            ("192.0.2.0/24", "192.0.2.255", "192.0.3.0"),
            ("192.0.2.0/24", "::ffff:192.0.2.1", "::192.0.2.1"),
            ("0.0.0.0/0", "255.255.255.255", "::1"),
            ("::/0", "2001:db8::1", "1.2.3.4"),
            ("::/0", "::1", "::ffff:1.2.3.4"),
            ("2001:db8::/33", "2001:db8:7fff::1", "2001:db8:8000::1"),
        ] {
            assert!(network(text).contains(inside.parse().unwrap()), "{text} has {inside}");
            assert!(!network(text).contains(outside.parse().unwrap()), "{text} has not {outside}");
        }
    }
}
