//! Who is talked to and how: the private network, the certificate for secure WebSocket, the name servers.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail, ensure};
use peerloom_core::{Multiaddr, Protocol};
use peerloom_dns::SystemResolver;
use peerloom_relay::ClientConfig;
use peerloom_upgrade::{pnet::PreSharedKey, tls::KeyExchange};
use peerloom_websocket::CertificateFiles;
use serde::Deserialize;

/// As libp2p's pnet spec has it, "Safeguard": with this set to 1, a node without a key is an error.
const FORCE_PRIVATE: &str = "LIBP2P_FORCE_PNET";
/// Far more than any key file has; a larger file is none.
const MAX_KEY_FILE_LENGTH: u64 = 4096;

/// What the transports of a node have in common.
#[derive(Debug, Default)]
pub(crate) struct Network {
    /// Then nothing is spoken but TCP and WebSocket, for no other transport can be private.
    pub(crate) private: Option<PreSharedKey>,
    /// For `/tls/ws`.
    pub(crate) certificate: Option<CertificateFiles>,
    /// Of QUIC, of WebTransport, and of TLS on TCP.
    pub(crate) key_exchange: KeyExchange,
    /// Instead of the system's.
    pub(crate) name_servers: Vec<SocketAddr>,
}

/// The section `[tls]`, as it is written.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FileTls {
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
    #[serde(default)]
    key_exchange: FileKeyExchange,
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum FileKeyExchange {
    #[default]
    Classical,
    PostQuantum,
}

/// The section `[dns]`, as it is written.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FileDns {
    #[serde(default)]
    servers: Vec<SocketAddr>,
}

impl Network {
    pub(crate) fn load(private: Option<&Path>, tls: FileTls, dns: FileDns) -> anyhow::Result<Self> {
        let key_exchange = match tls.key_exchange {
            FileKeyExchange::Classical => KeyExchange::Classical,
            FileKeyExchange::PostQuantum => KeyExchange::PostQuantum,
        };
        let certificate = match (tls.certificate, tls.key) {
            (Some(certificate), Some(key)) => Some(CertificateFiles::load(certificate, key).context("tls")?),
            (None, None) => None,
            (Some(_), None) => bail!("tls.key: missing, but there is a tls.certificate"),
            (None, Some(_)) => bail!("tls.certificate: missing, but there is a tls.key"),
        };
        let private = private.map(read_key).transpose()?;
        let forced = std::env::var_os(FORCE_PRIVATE).is_some_and(|value| value == "1");
        ensure!(private.is_some() || !forced, "private_network: not given, but {FORCE_PRIVATE} is 1");
        Ok(Self { private, certificate, key_exchange, name_servers: dns.servers })
    }

    /// The same for a node that only dials.
    pub(crate) fn to_dial(&self) -> Self {
        let (private, name_servers) = (self.private.clone(), self.name_servers.clone());
        Self { private, certificate: None, key_exchange: self.key_exchange, name_servers }
    }

    /// Who answers for names. A machine without a configuration of DNS still has a hosts file.
    pub(crate) fn resolver(&self) -> anyhow::Result<SystemResolver> {
        if !self.name_servers.is_empty() {
            return SystemResolver::with_name_servers(&self.name_servers).context("dns.servers");
        }
        match SystemResolver::from_system() {
            Ok(resolver) => Ok(resolver),
            Err(error) => {
                tracing::warn!(%error, "no name servers: only the names in the hosts file are known");
                Ok(SystemResolver::with_name_servers(&[])?)
            }
        }
    }

    /// How relays are dealt with: in a private network, circuits are as private as connections.
    pub(crate) fn relay_client(&self) -> ClientConfig {
        let mut config = ClientConfig::default();
        config.private_network = self.private.clone();
        config
    }

    /// Whether the address is as private as the network.
    pub(crate) fn may_listen(&self, address: &Multiaddr) -> bool {
        let mut protocols = address.protocols();
        let is_public = protocols.any(|protocol| matches!(protocol, Protocol::Udp(_) | Protocol::WebRtc));
        self.private.is_none() || !is_public
    }
}

fn read_key(path: &Path) -> anyhow::Result<PreSharedKey> {
    let named = || format!("private_network {}", path.display());
    let length = std::fs::metadata(path).with_context(named)?.len();
    ensure!(length <= MAX_KEY_FILE_LENGTH, "{}: too large to be a key", named());
    let content = std::fs::read(path).with_context(named)?;
    PreSharedKey::from_key_file(&content).with_context(named)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(private: Option<&Path>, tls: &str) -> anyhow::Result<Network> {
        Network::load(private, toml::from_str(tls).unwrap(), FileDns::default())
    }

    #[test]
    fn files_that_are_no_keys_and_halves_of_certificates_are_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("swarm.key");
        let error = |outcome: anyhow::Result<Network>| format!("{:#}", outcome.unwrap_err());
        assert!(error(load(Some(&path), "")).contains("swarm.key"));
        std::fs::write(&path, "/key/swarm/psk/1.0.0/\n/base16/\nabcd").unwrap();
        assert!(error(load(Some(&path), "")).ends_with("swarm.key: key of 2 bytes, not 32"));
        std::fs::write(&path, PreSharedKey::from_bytes([1; 32]).to_key_file().as_bytes()).unwrap();
        assert!(load(Some(&path), "").unwrap().private.is_some());
        assert!(error(load(None, "key = \"k\"")).starts_with("tls.certificate: missing"));
        assert!(error(load(None, "certificate = \"absent\"\nkey = \"k\"")).contains("absent"));
        assert_eq!(load(None, "").unwrap().key_exchange, KeyExchange::Classical);
        let chosen = load(None, "key_exchange = \"post-quantum\"").unwrap().key_exchange;
        assert_eq!(chosen, KeyExchange::PostQuantum);
    }

    #[test]
    fn a_private_node_does_not_listen_where_anybody_can_come() {
        let private = Network { private: Some(PreSharedKey::from_bytes([1; 32])), ..Network::default() };
        assert!(!private.may_listen(&"/ip4/0.0.0.0/udp/1/quic-v1".parse().unwrap()));
        assert!(private.may_listen(&"/ip4/0.0.0.0/tcp/1/tls/ws".parse().unwrap()));
        assert!(Network::default().may_listen(&"/ip4/0.0.0.0/udp/1/quic-v1".parse().unwrap()));
    }
}
