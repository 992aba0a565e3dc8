//! [`QuicTransport`]: dials and listens.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use peerloom_core::{
    Connection, DialError, HandshakeError, Keypair, ListenError, Listener, Multiaddr, Transport,
    runtime::BoxFuture,
};
use peerloom_upgrade::tls::{KeyExchange, PeerVerifier, TlsIdentity, TlsIdentityError};
use quinn::crypto::rustls::{NoInitialCipherSuite, QuicClientConfig, QuicServerConfig};

use super::{
    address,
    connection::QuicConnection,
    listener::{Acceptor, QuicListener},
};
use crate::{
    alpn::Alpn,
    limits::{IDLE_TIMEOUT, RECEIVE_BUDGET, Settings, transport_config},
    ports::{UdpPorts, handshake_error},
    receive_window::{ReceiveBudget, ReceiveWindow},
    streams::Established,
};

/// How a [`QuicTransport`] behaves.
#[derive(Debug)]
#[non_exhaustive]
pub struct QuicConfig {
    /// How a common secret is found.
    pub key_exchange: KeyExchange,
    /// Silence after which a connection is given up.
    pub idle_timeout: Duration,
    /// What all connections together may receive before it is read, in bytes, beyond 256 KiB for each.
    pub receive_budget: u64,
    /// The UDP ports to listen on and to dial from, those of other transports if they are to be shared with them.
    pub ports: UdpPorts,
}

impl Default for QuicConfig {
    fn default() -> Self {
        Self {
            key_exchange: KeyExchange::default(),
            idle_timeout: IDLE_TIMEOUT,
            receive_budget: RECEIVE_BUDGET,
            ports: UdpPorts::default(),
        }
    }
}

impl QuicConfig {
    /// Finds a common secret in this way.
    pub fn with_key_exchange(mut self, key_exchange: KeyExchange) -> Self {
        self.key_exchange = key_exchange;
        self
    }

    /// Shares UDP ports with the other transports that have `ports`.
    pub fn with_ports(mut self, ports: UdpPorts) -> Self {
        self.ports = ports;
        self
    }

    /// Gives connections up after so long a silence.
    pub fn with_idle_timeout(mut self, idle_timeout: Duration) -> Self {
        self.idle_timeout = idle_timeout;
        self
    }
}

/// QUIC: for all peers that are not pages.
#[derive(Clone)]
pub struct QuicTransport {
    shared: Arc<Shared>,
}

struct Shared {
    tls: TlsIdentity,
    settings: Settings,
    transport: Arc<quinn::TransportConfig>,
    budget: Arc<ReceiveBudget>,
    ports: UdpPorts,
}

impl QuicTransport {
    /// A transport that proves to be `identity`.
    pub fn new(identity: Keypair, config: QuicConfig) -> Result<Self, TlsIdentityError> {
        let tls = TlsIdentity::new(&identity, config.key_exchange)?;
        let settings = Settings { idle_timeout: config.idle_timeout, unidirectional_streams: 0 };
        Ok(Self {
            shared: Arc::new(Shared {
                tls,
                settings,
                transport: transport_config(settings),
                budget: ReceiveBudget::new(config.receive_budget),
                ports: config.ports,
            }),
        })
    }
}

impl Transport for QuicTransport {
    fn can_dial(&self, address: &Multiaddr) -> bool {
        address::parse(address).is_some()
    }

    fn can_listen(&self, address: &Multiaddr) -> bool {
        listen_address(address).is_some()
    }

    fn dial(&self, address: Multiaddr) -> BoxFuture<'static, Result<Box<dyn Connection>, DialError>> {
        let shared = self.shared.clone();
        Box::pin(async move { shared.dial(address).await })
    }

    fn listen(&self, address: Multiaddr) -> BoxFuture<'static, Result<Box<dyn Listener>, ListenError>> {
        let shared = self.shared.clone();
        Box::pin(async move { Ok(Box::new(shared.listen(address)?) as Box<dyn Listener>) })
    }
}

fn listen_address(address: &Multiaddr) -> Option<SocketAddr> {
    address::parse(address)?.socket_addr()
}

impl Shared {
    fn listen(&self, address: Multiaddr) -> Result<QuicListener, ListenError> {
        let Some(socket) = listen_address(&address) else {
            let reason = "not /ip4/…/udp/…/quic-v1 or the same with ip6";
            return Err(ListenError::UnsupportedAddress { address, reason });
        };
        let failed = |reason: String| ListenError::Io { address: address.clone(), reason };
        let tls = QuicServerConfig::try_from(self.tls.server(&[Alpn::Libp2p.name()]))
            .map_err(|error| failed(error.to_string()))?;
        let acceptor = Acceptor { budget: self.budget.clone(), tls: Arc::new(tls), settings: self.settings };
        let served = self.ports.open(socket).and_then(|port| port.serve(Alpn::Libp2p, Arc::new(acceptor)));
        let served = served.map_err(|error| failed(error.to_string()))?;
        Ok(QuicListener { served, address })
    }

    async fn dial(&self, address: Multiaddr) -> Result<Box<dyn Connection>, DialError> {
        let Some(endpoint) = address::parse(&address) else {
            let reason = "not /…/udp/…/quic-v1";
            return Err(DialError::UnsupportedAddress { address, reason });
        };
        let unreachable =
            |reason: String| DialError::Unreachable { address: address.without_peer_id(), reason };
        let sockets = endpoint.resolve().await.map_err(|error| unreachable(error.to_string()))?;
        let mut outcome = Err(unreachable("the name has no address".to_owned()));
        for socket in sockets {
            outcome = self.dial_socket(&address, socket).await;
            if !matches!(outcome, Err(DialError::Unreachable { .. })) {
                break;
            }
        }
        outcome
    }

    async fn dial_socket(
        &self,
        address: &Multiaddr,
        socket: SocketAddr,
    ) -> Result<Box<dyn Connection>, DialError> {
        let remote = address.without_peer_id();
        let unreachable = |reason: String| DialError::Unreachable { address: remote.clone(), reason };
        let failed = |source: HandshakeError| DialError::Handshake { address: remote.clone(), source };
        let verifier = Arc::new(PeerVerifier::new(address.peer_id()));
        let tls = self.tls.client(&[Alpn::Libp2p.name()], verifier.clone());
        let tls = QuicClientConfig::try_from(tls)
            .map_err(|error: NoInitialCipherSuite| unreachable(error.to_string()))?;
        let mut config = quinn::ClientConfig::new(Arc::new(tls));
        config.transport_config(self.transport.clone());

        let port = self.ports.to_dial(socket.ip()).map_err(|error| unreachable(error.to_string()))?;
        let connecting = port
            .endpoint()
            // The name is not sent: TLS has no use for it here.
            .connect_with(config, socket, "libp2p")
            .map_err(|error| unreachable(error.to_string()))?;
        match connecting.await {
            Ok(quic) => {
                let connection = Established { quic, port, window: ReceiveWindow::new(self.budget.clone()) };
                let connection = QuicConnection::new(connection, remote.clone()).map_err(failed)?;
                Ok(Box::new(connection))
            }
            Err(error) => Err(match (verifier.refusal(), handshake_error(error)) {
                (Some(refusal), _) => failed(refusal.clone().into()),
                (None, HandshakeError::TimedOut { .. }) => unreachable("nobody answers".to_owned()),
                (None, HandshakeError::Lost { reason, .. }) => unreachable(reason),
                (None, error) => failed(error),
            }),
        }
    }
}
