//! The section `[limits]`: what the node may spend, and how much of it on whom.

use std::collections::BTreeMap;

use anyhow::{Context, bail};
use peerloom_core::{PeerId, ProtocolName};
use peerloom_node::{
    IpNetwork, Limits, Rule,
    resources::{Amounts, Machine, NetworkLimit, PrefixLimit, Resource, ResourceLimits},
};
use serde::Deserialize;

/// The section as it is written. What it does not say follows from the machine.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FileLimits {
    memory: Option<usize>,
    descriptors: Option<usize>,
    high_water: Option<usize>,
    low_water: Option<usize>,
    #[serde(default)]
    allow: Vec<String>,
    #[serde(default)]
    system: FileAmounts,
    #[serde(default)]
    transient: FileAmounts,
    #[serde(default)]
    allowed_system: FileAmounts,
    #[serde(default)]
    allowed_transient: FileAmounts,
    #[serde(default)]
    peer: FileAmounts,
    #[serde(default)]
    protocol: FileAmounts,
    #[serde(default)]
    protocol_peer: FileAmounts,
    #[serde(default)]
    connection: FileAmounts,
    #[serde(default)]
    peers: BTreeMap<String, FileAmounts>,
    #[serde(default)]
    protocols: BTreeMap<String, FileAmounts>,
    ip4: Option<Vec<FilePrefixLimit>>,
    ip6: Option<Vec<FilePrefixLimit>>,
    #[serde(default)]
    networks: BTreeMap<String, FileNetworkLimit>,
}

/// By resource, so that the one that is wrong can be named.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileAmounts {
    connections: Option<Amount>,
    inbound_connections: Option<Amount>,
    outbound_connections: Option<Amount>,
    streams: Option<Amount>,
    inbound_streams: Option<Amount>,
    outbound_streams: Option<Amount>,
    memory: Option<Amount>,
    descriptors: Option<Amount>,
}

/// A number, or `"unlimited"`.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(untagged, expecting = "a number that is not negative, or \"unlimited\"")]
enum Amount {
    Number(usize),
    Word(Word),
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Word {
    Unlimited,
}

impl Amount {
    fn number(self) -> usize {
        match self {
            Self::Number(number) => number,
            Self::Word(Word::Unlimited) => usize::MAX,
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FilePrefixLimit {
    prefix: u8,
    connections: Amount,
    handshakes: Option<Amount>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileNetworkLimit {
    connections: Amount,
    handshakes: Option<Amount>,
}

impl FileLimits {
    /// The limits for this machine, with what is written in their place.
    pub(crate) fn limits(self, machine: &Machine) -> anyhow::Result<Limits> {
        let of_machine = ResourceLimits::for_machine(machine).system;
        for (key, written) in [("memory", self.memory), ("descriptors", self.descriptors)] {
            if written == Some(0) {
                bail!("limits.{key}: must be at least 1");
            }
        }
        let mut limits = Limits::with_resources(ResourceLimits::for_budget(
            self.memory.unwrap_or(of_machine.memory),
            self.descriptors.unwrap_or(of_machine.descriptors),
        ));
        for (key, written, mark) in [
            ("high_water", self.high_water, &mut limits.high_water),
            ("low_water", self.low_water, &mut limits.low_water),
        ] {
            match written {
                Some(0) => bail!("limits.{key}: must be at least 1"),
                Some(written) => *mark = written,
                None => {}
            }
        }
        if self.low_water.is_some_and(|low| low > limits.high_water) {
            bail!("limits.low_water: is above high_water, which is {}", limits.high_water);
        }
        let resources = &mut limits.resources;
        for (name, written, amounts) in [
            ("system", &self.system, &mut resources.system),
            ("transient", &self.transient, &mut resources.transient),
            ("allowed_system", &self.allowed_system, &mut resources.allowed_system),
            ("allowed_transient", &self.allowed_transient, &mut resources.allowed_transient),
            ("peer", &self.peer, &mut resources.peer),
            ("protocol", &self.protocol, &mut resources.protocol),
            ("protocol_peer", &self.protocol_peer, &mut resources.protocol_peer),
            ("connection", &self.connection, &mut resources.connection),
        ] {
            written.write_to(amounts);
            // A node on which nothing can happen is a slip. Single peers, protocols and directions may well be shut out.
            let totals = [Resource::Connections, Resource::Streams, Resource::Memory];
            if let Some(nothing) = totals.into_iter().find(|resource| amounts.of(*resource) == 0) {
                bail!("limits.{name}.{}: must be at least 1", nothing.name());
            }
        }
        for (peer, written) in &self.peers {
            let named: PeerId = peer.parse().with_context(|| format!("limits.peers: {peer}"))?;
            let mut amounts = resources.peer;
            written.write_to(&mut amounts);
            resources.peers.insert(named, amounts);
        }
        for (protocol, written) in &self.protocols {
            let named: ProtocolName =
                protocol.parse().with_context(|| format!("limits.protocols: {protocol}"))?;
            let mut amounts = resources.protocol;
            written.write_to(&mut amounts);
            resources.protocols.insert(named, amounts);
        }
        for (key, longest, written, prefixes) in
            [("ip4", 32, &self.ip4, &mut resources.ip4), ("ip6", 128, &self.ip6, &mut resources.ip6)]
        {
            let Some(written) = written else { continue };
            if let Some(wrong) = written.iter().find(|limit| limit.prefix > longest) {
                bail!("limits.{key}: prefix {} is longer than an address", wrong.prefix);
            }
            *prefixes = written.iter().map(FilePrefixLimit::limit).collect();
        }
        for (network, written) in &self.networks {
            let named = parse_network(network).with_context(|| format!("limits.networks: {network}"))?;
            resources.networks.insert(named, network_limit(written.connections, written.handshakes));
        }
        for allowed in &self.allow {
            match allowed.parse().with_context(|| format!("limits.allow: {allowed}"))? {
                Rule::Peer(peer) => _ = resources.allow.peers.insert(peer),
                Rule::Network(network) => resources.allow.networks.push(network),
                _ => bail!("limits.allow: {allowed}: neither a peer id nor a network"),
            }
        }
        Ok(limits)
    }
}

impl FileAmounts {
    fn write_to(&self, amounts: &mut Amounts) {
        for (resource, written) in [
            (Resource::Connections, self.connections),
            (Resource::InboundConnections, self.inbound_connections),
            (Resource::OutboundConnections, self.outbound_connections),
            (Resource::Streams, self.streams),
            (Resource::InboundStreams, self.inbound_streams),
            (Resource::OutboundStreams, self.outbound_streams),
            (Resource::Memory, self.memory),
            (Resource::Descriptors, self.descriptors),
        ] {
            if let Some(written) = written {
                *amounts.of_mut(resource) = written.number();
            }
        }
    }
}

impl FilePrefixLimit {
    fn limit(&self) -> PrefixLimit {
        PrefixLimit { prefix: self.prefix, limit: network_limit(self.connections, self.handshakes) }
    }
}

fn network_limit(connections: Amount, handshakes: Option<Amount>) -> NetworkLimit {
    let connections = connections.number();
    NetworkLimit { connections, handshakes: handshakes.map_or(connections, Amount::number) }
}

fn parse_network(text: &str) -> anyhow::Result<IpNetwork> {
    match text.parse()? {
        Rule::Network(network) => Ok(network),
        _ => bail!("not a network"),
    }
}

#[cfg(test)]
mod tests {
    use peerloom_node::resources::ResourceScope;

    use super::*;

    const MACHINE: Machine = Machine { memory: Some(8 << 30), descriptors: Some(4096) };
    const PEER: &str = "12D3KooWK99VoVxNE7XzyBwXEzW7xhK7Gpv85r9F3V3fyKSUKPH5";

    fn limits(text: &str) -> anyhow::Result<ResourceLimits> {
        let file: FileLimits = toml::from_str(text)?;
        Ok(file.limits(&MACHINE)?.resources)
    }

    #[test]
    fn without_a_word_the_limits_are_the_machines() {
        let limits = limits("").unwrap();
        assert_eq!((limits.system.memory, limits.system.descriptors), (1 << 30, 2048));
        assert_eq!(limits.system.connections, 4096);
        let large = Machine { memory: Some(64 << 30), descriptors: None };
        let limits = FileLimits::default().limits(&large).unwrap();
        assert_eq!(
            (limits.resources.system.connections, limits.high_water, limits.low_water),
            (32_768, 24_576, 20_480)
        );
    }

    #[test]
    fn what_is_written_takes_the_place_of_what_the_machine_has() {
        let text = format!(
            r#"
            memory = 536870912
            allow = ["192.0.2.0/24", "{PEER}"]
            system.connections = 100
            peer.inbound_streams = 7
            ip4 = [{{ prefix = 24, connections = 5 }}]
            [peers.{PEER}]
            connections = "unlimited"
            [protocols."/echo/1.0.0"]
            inbound_streams = 0
            [networks."198.51.100.7"]
            connections = 9
            handshakes = 3
            "#
        );
        let limits = limits(&text).unwrap();
        assert_eq!((limits.system.connections, limits.system.streams), (100, 2048 * 16));
        assert_eq!((limits.allow.networks.len(), limits.allow.peers.len()), (1, 1));
        let peer = limits.of(&ResourceScope::Peer(PEER.parse().unwrap()));
        assert_eq!((peer.connections, peer.inbound_streams), (usize::MAX, 7));
        let protocol = limits.of(&ResourceScope::Protocol(ProtocolName::from_static("/echo/1.0.0")));
        assert_eq!(protocol.inbound_streams, 0);
        assert_eq!(limits.ip4[0].limit, NetworkLimit { connections: 5, handshakes: 5 });
        let network = parse_network("198.51.100.7/32").unwrap();
        assert_eq!(limits.networks[&network], NetworkLimit { connections: 9, handshakes: 3 });
    }

    #[test]
    fn what_cannot_be_is_named_with_its_key() {
        for (text, named) in [
            ("memory = 0", "limits.memory: must be at least 1"),
            ("system.connections = 0", "limits.system.connections: must be at least 1"),
            ("connection.streams = 0", "limits.connection.streams: must be at least 1"),
            ("peers.nobody.streams = 1", "limits.peers: nobody"),
            ("protocols.echo.streams = 1", "limits.protocols: echo"),
            ("ip4 = [{ prefix = 33, connections = 1 }]", "limits.ip4: prefix 33"),
            ("networks.\"192.0.2.0/x\".connections = 1", "limits.networks: 192.0.2.0/x"),
            ("allow = [\"anybody\"]", "limits.allow: anybody"),
            ("allow = [\"*\"]", "limits.allow: *: neither"),
            ("peer.stream = 1", "stream"),
            ("peer.streams = -1", "not negative"),
            ("peer.streams = \"many\"", "\"unlimited\""),
        ] {
            let error = format!("{:#}", limits(text).unwrap_err());
            assert!(error.contains(named), "{text}: {error}");
        }
    }
}
