//! What the address of a WebSocket says.

use std::io;

use peerloom_core::{Multiaddr, Protocol};
use peerloom_socket::address::{Endpoint, Host};
use rustls::pki_types::ServerName;

/// `/<host>/tcp/<port>/ws`, `…/wss`, `…/tls/ws` or `…/tls/sni/<name>/ws`, and possibly the security protocol inside.
#[derive(Debug)]
pub(crate) struct WebSocketAddress<'a> {
    pub(crate) endpoint: Endpoint<'a>,
    tls: Tls,
}

#[derive(Debug)]
enum Tls {
    Without,
    With { sni: Option<String> },
}

impl<'a> WebSocketAddress<'a> {
    pub(crate) fn parse(address: &'a Multiaddr) -> Option<Self> {
        let endpoint = Endpoint::tcp(address)?;
        let carrier = match endpoint.rest.as_slice() {
            [carrier @ .., Protocol::Noise] => carrier,
            carrier => carrier,
        };
        let tls = match carrier {
            [Protocol::Ws] => Tls::Without,
            [Protocol::Wss] | [Protocol::Tls, Protocol::Ws] => Tls::With { sni: None },
            [Protocol::Tls, Protocol::Sni(name), Protocol::Ws] => Tls::With { sni: Some(name.to_string()) },
            _ => return None,
        };
        Some(Self { endpoint, tls })
    }

    pub(crate) fn is_tls(&self) -> bool {
        matches!(self.tls, Tls::With { .. })
    }

    /// The components behind the port.
    pub(crate) fn name(&self) -> Multiaddr {
        Multiaddr::from_protocols(self.endpoint.rest.iter().cloned())
    }

    /// The name that the address gives apart from its host.
    pub(crate) fn sni(&self) -> Option<&str> {
        match &self.tls {
            Tls::With { sni } => sni.as_deref(),
            Tls::Without => None,
        }
    }

    /// Whom the certificate must be for, if there is TLS: `/sni`, otherwise the host.
    pub(crate) fn server_name(&self) -> io::Result<Option<ServerName<'static>>> {
        let name = match (&self.tls, &self.endpoint.host) {
            (Tls::Without, _) => return Ok(None),
            (Tls::With { sni: Some(name) }, _) | (_, Host::Name { name, .. }) => name,
            (_, Host::Ip(ip)) => return Ok(Some(ServerName::from(*ip))),
        };
        match ServerName::try_from(name.clone()) {
            Ok(name) => Ok(Some(name)),
            Err(error) => Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{name}: {error}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server_name(address: &str) -> Option<String> {
        let address = address.parse().unwrap();
        let parsed = WebSocketAddress::parse(&address)?;
        Some(match parsed.server_name().unwrap() {
            Some(name) => name.to_str().into_owned(),
            None => "no TLS".to_owned(),
        })
    }

    #[test]
    fn every_way_to_write_it_is_understood() {
        for (address, expected) in [
            ("/ip4/127.0.0.1/tcp/80/ws", Some("no TLS")),
            ("/dns4/example.org/tcp/80/ws/noise", Some("no TLS")),
            ("/dns/example.org/tcp/443/wss", Some("example.org")),
            ("/dns6/example.org/tcp/443/tls/ws", Some("example.org")),
            ("/ip4/127.0.0.1/tcp/443/tls/ws", Some("127.0.0.1")),
            ("/ip6/::1/tcp/443/tls/sni/example.org/ws/noise", Some("example.org")),
            ("/dns4/example.net/tcp/443/tls/sni/example.org/ws", Some("example.org")),
            ("/ip4/127.0.0.1/tcp/80", None),
            ("/ip4/127.0.0.1/tcp/80/tls", None),
            ("/ip4/127.0.0.1/tcp/80/ws/ws", None),
            ("/ip4/127.0.0.1/tcp/80/sni/example.org/ws", None),
            ("/ip4/127.0.0.1/udp/80/ws", None),
        ] {
            assert_eq!(server_name(address).as_deref(), expected, "{address}");
        }
    }
}
