//! What a node runs with: the configuration file, under the command line, over the defaults.

use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    num::NonZeroU16,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use peerloom_core::Multiaddr;
use peerloom_relay::RelayLimits;
use peerloom_webrtc::WebRtcConfig;
use serde::Deserialize;

use crate::{
    autonat::FileAutonat,
    cli::RunArguments,
    gating::{FileGating, Rules},
    limits::FileLimits,
    network::{FileDns, FileTls, Network},
    port_mapping::FilePortMapping,
    relay::FileRelay,
    webrtc::FileWebRtc,
};

#[derive(Debug)]
pub(crate) struct Config {
    pub(crate) listen: Vec<Multiaddr>,
    pub(crate) data_dir: PathBuf,
    pub(crate) status: SocketAddr,
    /// They depend on what the machine grants the process once it has asked.
    pub(crate) limits: FileLimits,
    /// There if this node is a relay.
    pub(crate) relay: Option<RelayLimits>,
    pub(crate) webrtc: WebRtcConfig,
    pub(crate) network: Network,
    pub(crate) gating: Rules,
    /// What this was read from, to be read again.
    pub(crate) file: Option<PathBuf>,
    pub(crate) autonat: FileAutonat,
    pub(crate) port_mapping: FilePortMapping,
    /// Where else the node is reached, as the operator knows.
    pub(crate) external_addresses: Vec<Multiaddr>,
}

/// The file, as it is written. An unknown key is an error: a misspelt one must not pass for a default.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    listen: Option<Vec<String>>,
    port: Option<NonZeroU16>,
    data_dir: Option<PathBuf>,
    status: Option<SocketAddr>,
    #[serde(default)]
    external_addresses: Vec<String>,
    private_network: Option<PathBuf>,
    #[serde(default)]
    tls: FileTls,
    #[serde(default)]
    dns: FileDns,
    #[serde(default)]
    limits: FileLimits,
    #[serde(default)]
    relay: FileRelay,
    #[serde(default)]
    webrtc: FileWebRtc,
    #[serde(default)]
    gating: FileGating,
    #[serde(default)]
    autonat: FileAutonat,
    #[serde(default)]
    port_mapping: FilePortMapping,
}

/// What a port number carries: of TCP and of UDP, over IPv4 and IPv6.
const ON_ONE_PORT: [&str; 5] = [
    "/tcp/{port}",
    "/tcp/{port}/ws",
    "/udp/{port}/quic-v1",
    "/udp/{port}/quic-v1/webtransport",
    "/udp/{port}/webrtc-direct",
];

const DEFAULT_PORT: u16 = 4001;
const DEFAULT_STATUS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9464);

impl Config {
    pub(crate) fn load(arguments: RunArguments) -> anyhow::Result<Self> {
        let file = match &arguments.config {
            Some(path) => File::read(path)?,
            None => File::default(),
        };
        if file.listen.is_some() && file.port.is_some() {
            bail!("port: says the same as listen; leave one of them out");
        }
        let private = arguments.private_network.or(file.private_network);
        let network = Network::load(private.as_deref(), file.tls, file.dns)?;
        let listen = match (arguments.listen, arguments.port, file.listen) {
            (given, None, _) if !given.is_empty() => given,
            (_, None, Some(written)) => parse_all("listen", &written)?,
            (_, given, _) => {
                let port = given.or(file.port).map_or(DEFAULT_PORT, NonZeroU16::get);
                let mut carried =
                    parse_all("port", &on_one_port(port, has_ipv6(), network.certificate.is_some()))?;
                carried.retain(|address| network.may_listen(address));
                carried
            }
        };
        if let Some(address) = listen.iter().find(|address| !network.may_listen(address)) {
            bail!("listen: {address}: a private network has TCP and WebSocket only");
        }
        Ok(Self {
            listen,
            data_dir: data_dir(arguments.data_dir.or(file.data_dir))?,
            status: arguments.status.or(file.status).unwrap_or(DEFAULT_STATUS),
            limits: file.limits,
            relay: file.relay.limits(arguments.relay)?,
            webrtc: file.webrtc.config()?,
            network,
            gating: file.gating.rules()?,
            file: arguments.config,
            autonat: file.autonat,
            port_mapping: file.port_mapping,
            external_addresses: parse_all("external_addresses", &file.external_addresses)?,
        })
    }
}

/// The section `[gating]` of a file.
pub(crate) fn read_rules(file: &Path) -> anyhow::Result<Rules> {
    File::read(file)?.gating.rules()
}

/// The directory given, or `peerloom` in the user's data directory (XDG Base Directory Specification).
pub(crate) fn data_dir(given: Option<PathBuf>) -> anyhow::Result<PathBuf> {
    if let Some(given) = given {
        return Ok(given);
    }
    let absolute = |variable| std::env::var_os(variable).map(PathBuf::from).filter(|path| path.is_absolute());
    let base = absolute("XDG_DATA_HOME").or_else(|| Some(absolute("HOME")?.join(".local/share")));
    Ok(base
        .context("data_dir: not given, and neither XDG_DATA_HOME nor HOME says where it could be")?
        .join("peerloom"))
}

impl File {
    fn read(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| format!("config {}", path.display()))?;
        Self::parse(&text).with_context(|| format!("config {}", path.display()))
    }

    fn parse(text: &str) -> anyhow::Result<Self> {
        toml::from_str(text).map_err(|error| {
            // toml's own message draws the line over several lines; an operator greps for one.
            let line =
                error.span().map(|span| text.bytes().take(span.start).filter(|byte| *byte == b'\n').count());
            let message = error.message().replace('\n', " ");
            match line {
                Some(before) => {
                    let written = text.lines().nth(before).unwrap_or_default().trim();
                    anyhow::anyhow!("line {}: `{written}`: {message}", before.saturating_add(1))
                }
                None => anyhow::anyhow!(message),
            }
        })
    }
}

/// Everything that one port number carries, on all of the machine's addresses.
fn on_one_port(port: u16, ipv6: bool, tls: bool) -> Vec<String> {
    let hosts: &[&str] = if ipv6 { &["/ip4/0.0.0.0", "/ip6/::"] } else { &["/ip4/0.0.0.0"] };
    let address = |host: &&str, rest: &str| format!("{host}{}", rest.replace("{port}", &port.to_string()));
    let rests = ON_ONE_PORT.iter().chain(tls.then_some(&"/tcp/{port}/tls/ws"));
    rests.flat_map(|rest| hosts.iter().map(move |host| address(host, rest))).collect()
}

/// Whether the system has IPv6 at all.
fn has_ipv6() -> bool {
    std::net::UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).is_ok()
}

fn parse_all(key: &str, addresses: &[impl AsRef<str>]) -> anyhow::Result<Vec<Multiaddr>> {
    let parse = |text: &str| text.parse().map_err(|error| anyhow::anyhow!("{key}: {text}: {error}"));
    addresses.iter().map(|text| parse(text.as_ref())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_key_is_named_in_one_line() {
        let error = File::parse("listne = []").unwrap_err().to_string();
        assert!(error.contains("listne") && !error.contains('\n'), "{error}");
    }

    #[test]
    fn a_value_of_the_wrong_type_is_named_with_its_line() {
        let error =
            File::parse("data_dir = \"d\"\n[limits]\nconnections = \"many\"").unwrap_err().to_string();
        assert!(error.contains("line 3") && error.contains("connections"), "{error}");
    }

    #[test]
    fn one_port_number_carries_every_transport_over_both_ip_versions() {
        let addresses = parse_all("port", &on_one_port(4001, true, false)).unwrap();
        assert_eq!(addresses.len(), 2 * ON_ONE_PORT.len());
        for wanted in ["/ip6/::/udp/4001/webrtc-direct", "/ip4/0.0.0.0/tcp/4001/ws"] {
            assert!(addresses.contains(&wanted.parse().unwrap()), "{wanted}");
        }
        assert!(on_one_port(7, false, true).contains(&"/ip4/0.0.0.0/tcp/7/tls/ws".to_owned()));
        assert!(on_one_port(7, false, false).iter().all(|address| address.starts_with("/ip4/0.0.0.0/")));
    }

    #[test]
    fn autonat_is_on_unless_it_is_switched_off() {
        let file = File::parse("external_addresses = [\"/dns4/a.example/tcp/1\"]\n[autonat]\nserver = false")
            .unwrap();
        assert!(file.autonat.client && !file.autonat.server && !file.autonat.private_addresses);
        assert!(File::parse("").unwrap().autonat.server);
        assert!(File::parse("[autonat]\nsrever = true").is_err());
    }

    #[test]
    fn an_address_that_is_none_is_named_with_its_key() {
        let error = parse_all("listen", &["/ip4/1.2.3/tcp/1"]).unwrap_err().to_string();
        assert!(error.starts_with("listen: /ip4/1.2.3/tcp/1"), "{error}");
    }
}
