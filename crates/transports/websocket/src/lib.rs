//! libp2p over WebSocket, native: `/ip4/…/tcp/…/ws` and `/dns…/tcp/…/ws`, and inside of TLS `…/tls/ws`, which is also
//! written `…/wss` or, with the name that the certificate is for, `…/tls/sni/…/ws`. libp2p spec, websockets/README.md.
//!
//! A WebSocket is taken as a byte pipe: binary messages whose boundaries mean nothing. Noise runs inside, TLS or not: the
//! TLS of a WebSocket proves who has a name, and not which peer that is.

mod address;
mod certificate;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod listener;
mod pipe;
mod trust;

use std::{io, net::SocketAddr, sync::Arc};

use peerloom_core::{
    Connection, DialError, Keypair, ListenError, Listener, Multiaddr, Transport, runtime::BoxFuture,
};
use peerloom_socket::{
    address::Host,
    tcp::{self, TcpPorts},
};
use peerloom_upgrade::{Security, Upgrader, pnet::PreSharedKey};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::client_async_with_config;

use crate::{
    address::WebSocketAddress,
    listener::WebSocketListener,
    pipe::{MessagePipe, config},
};
pub use crate::{
    certificate::{CertificateFileError, CertificateFiles},
    trust::Trust,
};

/// The WebSocket transport of a node.
#[derive(Debug, Clone)]
pub struct WebSocketTransport {
    upgrader: Upgrader,
    ports: TcpPorts,
    certificate: Option<Arc<CertificateFiles>>,
    trust: Trust,
}

impl WebSocketTransport {
    /// A transport whose connections prove this identity. It listens without TLS, and dials with and without.
    pub fn new(keypair: Keypair) -> Self {
        Self {
            upgrader: Upgrader::new(keypair),
            ports: TcpPorts::default(),
            certificate: None,
            trust: Trust::platform(),
        }
    }

    /// Shares its listening ports with the transports that have clones of `ports`: TCP.
    pub fn with_ports(mut self, ports: TcpPorts) -> Self {
        self.ports = ports;
        self
    }

    /// Speaks this security protocol and no other inside. By default, listeners take both, and dialers prefer Noise.
    pub fn with_security(mut self, security: Security) -> Self {
        self.upgrader = self.upgrader.with_security(security);
        self
    }

    /// Talks only to nodes that have the same key.
    pub fn with_private_network(mut self, key: PreSharedKey) -> Self {
        self.upgrader = self.upgrader.with_private_network(key);
        self
    }

    /// Listens on `…/tls/ws` with this certificate.
    pub fn with_certificate(mut self, certificate: CertificateFiles) -> Self {
        self.certificate = Some(Arc::new(certificate));
        self
    }

    /// Which certificates are accepted of those who are dialed; by default the platform's authorities'.
    pub fn with_trust(mut self, trust: Trust) -> Self {
        self.trust = trust;
        self
    }
}

impl Transport for WebSocketTransport {
    fn can_dial(&self, address: &Multiaddr) -> bool {
        WebSocketAddress::parse(address).is_some()
    }

    fn can_listen(&self, address: &Multiaddr) -> bool {
        WebSocketAddress::parse(address).is_some_and(|parsed| {
            matches!(parsed.endpoint.host, Host::Ip(_)) && (!parsed.is_tls() || self.certificate.is_some())
        })
    }

    fn dial(&self, address: Multiaddr) -> BoxFuture<'static, Result<Box<dyn Connection>, DialError>> {
        let Self { upgrader, trust, .. } = self.clone();
        Box::pin(async move {
            let Some(parsed) = WebSocketAddress::parse(&address) else {
                return Err(DialError::UnsupportedAddress { address, reason: "not /<host>/tcp/<port>/ws" });
            };
            upgrader.dial(address.clone(), || connect(&parsed, &trust)).await
        })
    }

    fn listen(&self, address: Multiaddr) -> BoxFuture<'static, Result<Box<dyn Listener>, ListenError>> {
        let Self { upgrader, ports, certificate, .. } = self.clone();
        Box::pin(async move {
            let bind = WebSocketAddress::parse(&address)
                .and_then(|parsed| Some((parsed.endpoint.socket_addr()?, parsed.is_tls(), parsed.name())));
            let Some((bind, is_tls, name)) = bind else {
                return Err(ListenError::UnsupportedAddress { address, reason: "not /<ip>/tcp/<port>/ws" });
            };
            let certificate = match certificate {
                Some(certificate) if is_tls => Some(certificate),
                None if is_tls => {
                    let reason = "there is no certificate for TLS";
                    return Err(ListenError::UnsupportedAddress { address, reason });
                }
                _ => None,
            };
            match WebSocketListener::bind(&ports, bind, name, upgrader, certificate) {
                Ok(listener) => Ok(Box::new(listener) as Box<dyn Listener>),
                Err(error) => Err(ListenError::Io { address, reason: error.to_string() }),
            }
        })
    }
}

/// A pipe to whoever is there, TLS or not.
async fn connect(address: &WebSocketAddress<'_>, trust: &Trust) -> io::Result<Box<dyn Pipe>> {
    let tcp = tcp::connect(&address.endpoint).await?;
    let Some(server_name) = address.server_name()? else {
        return Ok(Box::new(upgrade_to_websocket(address, tcp).await?));
    };
    let tls = trust.connector().await?.connect(server_name, tcp).await?;
    Ok(Box::new(upgrade_to_websocket(address, tls).await?))
}

async fn upgrade_to_websocket<IO>(address: &WebSocketAddress<'_>, io: IO) -> io::Result<MessagePipe<IO>>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let authority = match &address.endpoint.host {
        Host::Ip(ip) => match address.sni() {
            Some(name) => format!("{name}:{}", address.endpoint.port),
            None => SocketAddr::new(*ip, address.endpoint.port).to_string(),
        },
        Host::Name { name, .. } => format!("{name}:{}", address.endpoint.port),
    };
    // The scheme is for the library, which would otherwise want to do TLS itself.
    let request = format!("ws://{authority}/");
    let (socket, _response) =
        client_async_with_config(request, io, Some(config())).await.map_err(io::Error::other)?;
    Ok(MessagePipe::new(socket))
}

/// The pipes under a WebSocket, as one type.
pub(crate) trait Pipe: AsyncRead + AsyncWrite + Send + Unpin {}
impl<IO: AsyncRead + AsyncWrite + Send + Unpin> Pipe for IO {}
