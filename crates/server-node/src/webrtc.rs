//! The section `[webrtc]` of the configuration, and what comes of it: pages reach this node without the relay, which only
//! brings them together.

use std::net::{Ipv4Addr, Ipv6Addr};

use anyhow::{Context, ensure};
use peerloom_core::{Multiaddr, Protocol};
use peerloom_node::Node;
use peerloom_webrtc::{WebRtcConfig, WebRtcFactory};
use peerloom_webrtc_signaling::SignalingConfig;
use serde::Deserialize;

/// As it is written.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FileWebRtc {
    port: Option<u16>,
    #[serde(default)]
    stun_servers: Vec<String>,
}

impl FileWebRtc {
    pub(crate) fn config(self) -> anyhow::Result<WebRtcConfig> {
        for server in &self.stun_servers {
            let host = server.strip_prefix("stun:").unwrap_or(server);
            let is_complete = host.rsplit_once(':').is_some_and(|(host, port)| {
                !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port != 0)
            });
            ensure!(is_complete, "webrtc.stun_servers: {server:?} is not <host>:<port>");
        }
        let mut config = WebRtcConfig::default();
        let port = self.port.unwrap_or(0);
        config.bind = vec![(Ipv4Addr::UNSPECIFIED, port).into(), (Ipv6Addr::UNSPECIFIED, port).into()];
        config.stun_servers = self.stun_servers;
        Ok(config)
    }
}

/// Lets `node` negotiate WebRTC connections through relays, if `upgrades` also in place of each relayed connection that it
/// dials.
pub(crate) fn start(node: &Node, config: WebRtcConfig, upgrades: bool) -> anyhow::Result<()> {
    let factory = WebRtcFactory::new(config).context("webrtc.port: no UDP socket")?;
    let mut signaling = SignalingConfig::default();
    signaling.upgrade_relayed = upgrades;
    peerloom_webrtc_signaling::start(node, factory, signaling)?;
    Ok(())
}

/// What to listen on besides, if one of `listen` is a place at a relay: without `/webrtc` behind it, all of a page's bytes
/// would go through there.
pub(crate) fn address_for(listen: &[Multiaddr]) -> Option<Multiaddr> {
    let webrtc = Multiaddr::from_protocols([Protocol::WebRtc]);
    let is_relayed =
        |address: &Multiaddr| address.protocols().any(|protocol| protocol == Protocol::P2pCircuit);
    (listen.iter().any(is_relayed) && !listen.contains(&webrtc)).then_some(webrtc)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> anyhow::Result<WebRtcConfig> {
        toml::from_str::<FileWebRtc>(text)?.config()
    }

    #[test]
    fn servers_and_port_are_those_of_the_file() {
        let config =
            config("port = 4003\nstun_servers = [\"stun:stun.example:3478\", \"192.0.2.1:3478\"]").unwrap();
        assert!(config.bind.iter().all(|address| address.port() == 4003) && config.bind.len() == 2);
        assert_eq!(config.stun_servers.len(), 2);
    }

    #[test]
    fn a_server_without_a_port_is_an_error_that_names_it() {
        for server in ["stun.example", "stun:stun.example", "stun.example:0", ":3478", ""] {
            let error = config(&format!("stun_servers = [{server:?}]")).unwrap_err().to_string();
            assert!(error.starts_with("webrtc.stun_servers: ") && error.contains(server), "{error}");
        }
    }

    #[test]
    fn webrtc_is_listened_on_where_there_is_a_relay() {
        let addresses =
            |texts: &[&str]| -> Vec<Multiaddr> { texts.iter().map(|text| text.parse().unwrap()).collect() };
        assert_eq!(address_for(&addresses(&["/ip4/0.0.0.0/tcp/4001"])), None);
        let relay =
            "/ip4/192.0.2.1/tcp/1/p2p/12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN/p2p-circuit";
        assert_eq!(address_for(&addresses(&[relay])).unwrap().to_string(), "/webrtc");
        assert_eq!(address_for(&addresses(&["/p2p-circuit"])).unwrap().to_string(), "/webrtc");
        assert_eq!(address_for(&addresses(&[relay, "/webrtc"])), None);
    }
}
