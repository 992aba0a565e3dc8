//! From an address with a name to the addresses that it stands for.

#![warn(clippy::arithmetic_side_effects)]

use std::{collections::HashSet, net::IpAddr, time::Duration};

use futures_util::{StreamExt as _, stream};
use peerloom_core::{Multiaddr, PeerId, Protocol, runtime::timeout};

use crate::resolver::{LookupError, Resolver};

/// How often a `/dnsaddr` may stand for another.
pub const MAX_RECURSION: usize = 4;
/// Addresses taken of all answers together.
pub const MAX_ADDRESSES: usize = 100;
/// Names that are asked for on the way to them.
pub const MAX_NAMES: usize = 100;
/// The whole resolution of an address ends after this.
pub const RESOLUTION_TIMEOUT: Duration = Duration::from_secs(10);

/// Questions asked at once.
const CONCURRENT_LOOKUPS: usize = 8;
/// How an entry of a `/dnsaddr` begins.
const DNSADDR: &str = "dnsaddr=";

/// Why an address could not be resolved.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ResolutionError {
    /// DNS gave no answer.
    #[error(transparent)]
    Lookup(#[from] LookupError),
    /// What there is are no addresses, or none of the peer asked for, or of another kind of IP.
    #[error("{name} stands for no such address")]
    Nothing {
        /// The name.
        name: String,
    },
    /// `/dnsaddr` that stand for each other, or too many of them.
    #[error("{name} is more than {MAX_RECURSION} names away")]
    TooDeep {
        /// The name.
        name: String,
    },
    /// It took too long.
    #[error("DNS took too long")]
    TimedOut,
}

/// An address that begins with a name.
pub(crate) enum Name {
    /// `/dns/…`, `/dns4/…` or `/dns6/…`.
    Host(HostName),
    /// `/dnsaddr/…`, all of them or those of one peer.
    Dnsaddr { name: String, peer: Option<PeerId> },
}

pub(crate) struct HostName {
    name: String,
    accepts: fn(&IpAddr) -> bool,
    rest: Multiaddr,
}

impl Name {
    pub(crate) fn parse(address: &Multiaddr) -> Option<Self> {
        let mut protocols = address.protocols();
        let (name, accepts): (_, fn(&IpAddr) -> bool) = match protocols.next()? {
            Protocol::Dns(name) => (name, |_| true),
            Protocol::Dns4(name) => (name, IpAddr::is_ipv4),
            Protocol::Dns6(name) => (name, IpAddr::is_ipv6),
            Protocol::Dnsaddr(name) => {
                // Nothing else can be said about an address that is not known yet.
                let peer = match (protocols.next(), protocols.next()) {
                    (None, _) => None,
                    (Some(Protocol::P2p(peer)), None) => Some(peer),
                    _ => return None,
                };
                return Some(Self::Dnsaddr { name: name.into_owned(), peer });
            }
            _ => return None,
        };
        let rest = Multiaddr::from_protocols(protocols);
        // The relay of a circuit is dialed by itself.
        if rest.is_relayed() {
            return None;
        }
        Some(Self::Host(HostName { name: name.into_owned(), accepts, rest }))
    }

    fn name(&self) -> &str {
        match self {
            Self::Host(host) => &host.name,
            Self::Dnsaddr { name, .. } => name,
        }
    }
}

impl HostName {
    /// The address with `ip` in place of the name, which stays where TLS needs it.
    pub(crate) fn with_ip(&self, ip: IpAddr) -> Multiaddr {
        let rest: Vec<_> = self.rest.protocols().collect();
        let sni = || Protocol::Sni(self.name.as_str().into());
        let mut protocols = vec![Protocol::from(ip)];
        for (index, protocol) in rest.iter().enumerate() {
            let next = rest.get(index.saturating_add(1));
            match (protocol, next) {
                (Protocol::Wss, _) => protocols.extend([Protocol::Tls, sni(), Protocol::Ws]),
                (Protocol::Tls, Some(Protocol::Ws)) => protocols.extend([Protocol::Tls, sni()]),
                _ => protocols.push(protocol.clone()),
            }
        }
        Multiaddr::from_protocols(protocols)
    }
}

/// The addresses without a name that `address` stands for: in the order of DNS's answers, at least one and at most
/// [`MAX_ADDRESSES`].
pub async fn resolve(
    resolver: &dyn Resolver,
    address: &Multiaddr,
) -> Result<Vec<Multiaddr>, ResolutionError> {
    let resolution = Resolution { resolver, asked: HashSet::new(), resolved: Vec::new(), error: None };
    match timeout(RESOLUTION_TIMEOUT, resolution.run(address)).await {
        Ok(outcome) => outcome,
        Err(_) => Err(ResolutionError::TimedOut),
    }
}

struct Resolution<'r> {
    resolver: &'r dyn Resolver,
    /// What is or was a question: names that stand for each other are asked for once.
    asked: HashSet<Multiaddr>,
    resolved: Vec<Multiaddr>,
    /// The first.
    error: Option<ResolutionError>,
}

impl Resolution<'_> {
    async fn run(mut self, address: &Multiaddr) -> Result<Vec<Multiaddr>, ResolutionError> {
        let mut level = Vec::new();
        self.sort(address.clone(), &mut level);
        // The addresses of the hosts are one step more than the names that lead to them.
        for depth in 0..=MAX_RECURSION.saturating_add(1) {
            let resolver = self.resolver;
            let mut answers = stream::iter(level)
                .map(|name| async move { step(resolver, &name, depth).await })
                .buffered(CONCURRENT_LOOKUPS);
            let mut next = Vec::new();
            while let Some(answer) = answers.next().await {
                match answer {
                    Ok(addresses) => addresses.into_iter().for_each(|address| self.sort(address, &mut next)),
                    Err(error) => drop(self.error.get_or_insert(error)),
                }
            }
            if next.is_empty() {
                break;
            }
            level = next;
        }
        match self.error {
            Some(error) if self.resolved.is_empty() => Err(error),
            None if self.resolved.is_empty() => Err(ResolutionError::Nothing { name: address.to_string() }),
            _ => Ok(self.resolved),
        }
    }

    /// Puts an address where it belongs, as long as there is room.
    fn sort(&mut self, address: Multiaddr, names: &mut Vec<Name>) {
        match Name::parse(&address) {
            Some(name) if self.asked.len() < MAX_NAMES && self.asked.insert(address.clone()) => {
                names.push(name);
            }
            None if self.resolved.len() < MAX_ADDRESSES && !self.resolved.contains(&address) => {
                self.resolved.push(address);
            }
            _ => {}
        }
    }
}

/// What a name stands for according to DNS.
async fn step(resolver: &dyn Resolver, name: &Name, depth: usize) -> Result<Vec<Multiaddr>, ResolutionError> {
    let found: Vec<Multiaddr> = match name {
        Name::Host(host) => {
            let ips = resolver.addresses(host.name.clone()).await?;
            let addresses =
                ips.into_iter().filter(host.accepts).take(MAX_ADDRESSES).map(|ip| host.with_ip(ip));
            // The name stays wherever it is needed, which in an address of nothing but `/wss` is sixty times.
            addresses.filter(|address| Multiaddr::from_bytes(address.as_bytes()).is_ok()).collect()
        }
        Name::Dnsaddr { name, .. } if depth > MAX_RECURSION => {
            return Err(ResolutionError::TooDeep { name: name.clone() });
        }
        Name::Dnsaddr { name, peer } => {
            let texts = resolver.texts(format!("_dnsaddr.{name}")).await?;
            let entries = texts.iter().filter_map(|text| text.strip_prefix(DNSADDR)?.parse().ok());
            entries.filter(|entry| belongs(entry, *peer)).take(MAX_ADDRESSES).collect()
        }
    };
    if found.is_empty() {
        return Err(ResolutionError::Nothing { name: name.name().to_owned() });
    }
    Ok(found)
}

fn belongs(entry: &Multiaddr, peer: Option<PeerId>) -> bool {
    peer.is_none() || entry.peer_id() == peer
}
