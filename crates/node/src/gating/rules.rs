//! All rules of a node, and which of them decides.

use std::{collections::BTreeMap, net::IpAddr};

use peerloom_core::{Multiaddr, PeerId, Protocol};

use super::{IpNetwork, Passage, Rule};

/// Whether each rule allows, in one map because a page downloads the code of each.
#[derive(Default)]
pub(super) struct Rules {
    by_rule: BTreeMap<Rule, bool>,
    /// The prefixes of the networks, longest first.
    prefixes: Vec<u8>,
    /// Most components that the address of a rule has.
    components: usize,
}

impl Rules {
    pub(super) fn insert(&mut self, rule: Rule, allows: bool) {
        let rule = canonical_rule(rule);
        match &rule {
            Rule::Network(network) => {
                let prefix = network.prefix();
                let at = self.prefixes.partition_point(|other| *other > prefix);
                if self.prefixes.get(at) != Some(&prefix) {
                    self.prefixes.insert(at, prefix);
                }
            }
            Rule::Address(address) => self.components = self.components.max(address.protocols().count()),
            Rule::EveryPeer | Rule::Peer(_) => {}
        }
        self.by_rule.insert(rule, allows);
    }

    pub(super) fn remove(&mut self, rule: &Rule) -> bool {
        self.by_rule.remove(&canonical_rule(rule.clone())).is_some()
    }

    pub(super) fn list(&self) -> Vec<(Rule, bool)> {
        self.by_rule.iter().map(|(rule, allows)| (rule.clone(), *allows)).collect()
    }

    /// The rule that does not let `passage` happen.
    pub(super) fn denying(&self, passage: &Passage) -> Option<Rule> {
        if self.by_rule.is_empty() {
            return None;
        }
        let on_the_way = passage.address().into_iter().flat_map(Multiaddr::protocols);
        let peers = on_the_way.filter_map(|protocol| match protocol {
            Protocol::P2p(peer) => Some(peer),
            _ => None,
        });
        let who = passage.peer().into_iter().chain(peers).find_map(|peer| denied(self.of_peer(peer)));
        who.or_else(|| denied(self.of_address(passage.address()?)))
    }

    fn of_peer(&self, peer: PeerId) -> Option<(&Rule, bool)> {
        self.verdict(&Rule::Peer(peer)).or_else(|| self.verdict(&Rule::EveryPeer))
    }

    fn of_address(&self, address: &Multiaddr) -> Option<(&Rule, bool)> {
        let address = canonical(address);
        // The longest beginning first.
        let beginnings = (1..=self.components.min(address.protocols().count())).rev();
        let mut beginnings = beginnings
            .map(|length| Rule::Address(Multiaddr::from_protocols(address.protocols().take(length))));
        if let Some(found) = beginnings.find_map(|beginning| self.verdict(&beginning)) {
            return Some(found);
        }
        let ip = ip(&address)?;
        let networks = self.prefixes.iter().filter_map(|prefix| IpNetwork::around(ip, *prefix));
        networks.map(Rule::Network).find_map(|network| self.verdict(&network))
    }

    fn verdict(&self, rule: &Rule) -> Option<(&Rule, bool)> {
        self.by_rule.get_key_value(rule).map(|(rule, allows)| (rule, *allows))
    }
}

fn denied(verdict: Option<(&Rule, bool)>) -> Option<Rule> {
    verdict.and_then(|(rule, allows)| (!allows).then(|| rule.clone()))
}

/// The same for every way to write an address. Only addresses of rules and of passages meet, both through here.
fn canonical(address: &Multiaddr) -> Multiaddr {
    let protocols = address.protocols().filter_map(|protocol| match protocol {
        // It tells which interface to take, not who is there.
        Protocol::Ip6Zone(_) => None,
        Protocol::Ip6(ip) => Some(ip.to_ipv4_mapped().map_or(Protocol::Ip6(ip), Protocol::Ip4)),
        Protocol::Dns(name) => Some(Protocol::Dns(canonical_name(&name).into())),
        Protocol::Dns4(name) => Some(Protocol::Dns4(canonical_name(&name).into())),
        Protocol::Dns6(name) => Some(Protocol::Dns6(canonical_name(&name).into())),
        Protocol::Dnsaddr(name) => Some(Protocol::Dnsaddr(canonical_name(&name).into())),
        other => Some(other),
    });
    Multiaddr::from_protocols(protocols)
}

fn canonical_name(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

fn canonical_rule(rule: Rule) -> Rule {
    match rule {
        Rule::Address(address) => Rule::Address(canonical(&address)),
        other => other,
    }
}

fn ip(address: &Multiaddr) -> Option<IpAddr> {
    match address.protocols().next()? {
        Protocol::Ip4(ip) => Some(ip.into()),
        Protocol::Ip6(ip) => Some(ip.into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use peerloom_core::Keypair;

    use super::*;
    use crate::connections::Direction;

    fn peer(seed: u8) -> PeerId {
        Keypair::from_seed([seed; 32]).peer_id()
    }

    fn rules(denied: &[&str], allowed: &[&str]) -> Rules {
        let mut rules = Rules::default();
        denied.iter().for_each(|rule| rules.insert(rule.parse().unwrap(), false));
        allowed.iter().for_each(|rule| rules.insert(rule.parse().unwrap(), true));
        rules
    }

    fn dial(address: &str) -> Passage {
        Passage::Address { address: address.parse().unwrap() }
    }

    #[test]
    fn without_rules_everything_passes() {
        assert_eq!(Rules::default().denying(&dial("/ip4/1.2.3.4/tcp/1")), None);
    }

    #[test]
    fn the_smallest_network_decides() {
        let rules = rules(&["10.0.0.0/8", "10.1.2.3"], &["10.1.0.0/16"]);
        for (address, denying) in [
            ("/ip4/10.0.0.1/tcp/1", Some("10.0.0.0/8")),
            ("/ip4/10.1.0.1/tcp/1", None),
            ("/ip4/10.1.2.3/tcp/1", Some("10.1.2.3/32")),
            ("/ip6/::ffff:10.1.2.3/tcp/1", Some("10.1.2.3/32")),
            ("/ip4/11.0.0.1/tcp/1", None),
            ("/ip6/a00::1/tcp/1", None),
            ("/dns4/example.com/tcp/1", None),
        ] {
            let found = rules.denying(&dial(address)).map(|rule| rule.to_string());
            assert_eq!(found.as_deref(), denying, "{address}");
        }
    }

    #[test]
    fn an_address_decides_before_its_network() {
        let denied = ["10.0.0.0/8", "/dns4/Example.COM", "/ip4/10.0.0.1/tcp/1/ws"];
        let rules = rules(&denied, &["/ip4/10.0.0.1/tcp/1"]);
        for (address, passes) in [
            ("/ip4/10.0.0.1/tcp/1", true),
            ("/ip4/10.0.0.1/tcp/1/ws", false),
            ("/ip4/10.0.0.1/tcp/2", false),
            ("/ip6/::ffff:10.0.0.1/tcp/1", true),
            ("/dns4/example.com./tcp/443/tls/ws", false),
            ("/dns6/example.com/tcp/443/tls/ws", true),
        ] {
            assert_eq!(rules.denying(&dial(address)).is_none(), passes, "{address}");
        }
    }

    #[test]
    fn who_and_where_must_both_pass() {
        let rules = rules(&["*", "10.0.0.0/8"], &[&peer(1).to_string()]);
        let connection = |seed, address: &str| Passage::Connection {
            peer: peer(seed),
            remote_address: address.parse().unwrap(),
            direction: Direction::Inbound,
        };
        assert_eq!(rules.denying(&connection(1, "/ip4/1.2.3.4/tcp/1")), None);
        assert_eq!(rules.denying(&connection(2, "/ip4/1.2.3.4/tcp/1")), Some(Rule::EveryPeer));
        assert!(rules.denying(&connection(1, "/ip4/10.2.3.4/tcp/1")).is_some());
        // Who comes in is not known yet.
        let incoming = Passage::Incoming { remote_address: "/ip4/1.2.3.4/tcp/1".parse().unwrap() };
        assert_eq!(rules.denying(&incoming), None);
    }

    #[test]
    fn everybody_on_the_way_must_pass() {
        let (relay, destination) = (peer(1), peer(2));
        let through = dial(&format!("/ip4/1.2.3.4/tcp/1/p2p/{relay}/p2p-circuit/p2p/{destination}"));
        for denied in [relay.to_string(), destination.to_string(), "1.2.3.4".to_owned()] {
            assert!(rules(&[&denied], &[]).denying(&through).is_some(), "{denied}");
        }
        assert_eq!(rules(&[&peer(3).to_string()], &[]).denying(&through), None);
    }

    #[test]
    fn a_rule_is_replaced_and_taken_back() {
        let mut rules = rules(&["10.0.0.0/8", "/dns4/a.example"], &[]);
        rules.insert("10.0.0.0/8".parse().unwrap(), true);
        assert_eq!(rules.denying(&dial("/ip4/10.0.0.1/tcp/1")), None);
        assert!(rules.remove(&"/dns4/A.example".parse().unwrap()));
        assert!(!rules.remove(&"/dns4/A.example".parse().unwrap()));
        assert_eq!(rules.denying(&dial("/dns4/a.example/tcp/1")), None);
        assert_eq!(rules.list(), [("10.0.0.0/8".parse().unwrap(), true)]);
    }
}
