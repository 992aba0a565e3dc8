//! [`WebTransportTransport`]: dials and listens.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use parking_lot::Mutex;
use peerloom_core::{
    Connection, DialError, HandshakeError, Keypair, ListenError, Listener, Multiaddr, Transport,
    runtime::BoxFuture,
};
use peerloom_upgrade::tls::KeyExchange;

use super::{
    STEP,
    address::WebTransportAddress,
    handshake::{self, Expected},
    listener::{Acceptor, WebTransportListener},
    tls::{self, HashVerifier, ServedCertificates},
};
use crate::{
    alpn::Alpn,
    certificate::{Certificates, MemoryStore},
    limits::{IDLE_TIMEOUT, MAX_UNIDIRECTIONAL_STREAMS, RECEIVE_BUDGET, Settings, transport_config},
    ports::UdpPorts,
    receive_window::{ReceiveBudget, ReceiveWindow},
    streams::Established,
};

/// How a [`WebTransportTransport`] behaves.
#[derive(Debug)]
#[non_exhaustive]
pub struct WebTransportConfig {
    /// The certificates to serve. Without any, ones that a restart forgets are made when the first listener starts.
    pub certificates: Option<Certificates>,
    /// How a common secret is found. Browsers that offer both ways get the one that comes first here.
    pub key_exchange: KeyExchange,
    /// Silence after which a connection is given up.
    pub idle_timeout: Duration,
    /// What all connections together may receive before it is read, in bytes, beyond 256 KiB for each.
    pub receive_budget: u64,
    /// The UDP ports to listen on and to dial from, those of other transports if they are to be shared with them.
    pub ports: UdpPorts,
}

impl Default for WebTransportConfig {
    fn default() -> Self {
        Self {
            certificates: None,
            key_exchange: KeyExchange::default(),
            idle_timeout: IDLE_TIMEOUT,
            receive_budget: RECEIVE_BUDGET,
            ports: UdpPorts::default(),
        }
    }
}

impl WebTransportConfig {
    /// Serves `certificates`.
    pub fn with_certificates(mut self, certificates: Certificates) -> Self {
        self.certificates = Some(certificates);
        self
    }

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

/// WebTransport for native nodes: a server for browsers, and a client for tests, for other servers and for tools.
#[derive(Clone)]
pub struct WebTransportTransport {
    shared: Arc<Shared>,
}

struct Shared {
    identity: Keypair,
    key_exchange: KeyExchange,
    settings: Settings,
    transport: Arc<quinn::TransportConfig>,
    budget: Arc<ReceiveBudget>,
    certificates: Mutex<Option<Arc<ServedCertificates>>>,
    ports: UdpPorts,
}

impl WebTransportTransport {
    /// A transport that proves to be `identity`.
    pub fn new(identity: Keypair, config: WebTransportConfig) -> Self {
        let certificates =
            config.certificates.map(|certificates| Arc::new(ServedCertificates::new(certificates)));
        let settings = Settings {
            idle_timeout: config.idle_timeout,
            unidirectional_streams: MAX_UNIDIRECTIONAL_STREAMS,
        };
        Self {
            shared: Arc::new(Shared {
                identity,
                key_exchange: config.key_exchange,
                settings,
                transport: transport_config(settings),
                budget: ReceiveBudget::new(config.receive_budget),
                certificates: Mutex::new(certificates),
                ports: config.ports,
            }),
        }
    }
}

impl Transport for WebTransportTransport {
    fn can_dial(&self, address: &Multiaddr) -> bool {
        WebTransportAddress::parse(address).is_some()
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

/// Where to listen: a socket address, and no certificate hashes.
fn listen_address(address: &Multiaddr) -> Option<SocketAddr> {
    let parsed = WebTransportAddress::parse(address)?;
    parsed.endpoint.socket_addr().filter(|_| parsed.certificate_hashes.is_empty())
}

impl Shared {
    fn listen(&self, address: Multiaddr) -> Result<WebTransportListener, ListenError> {
        let Some(socket) = listen_address(&address) else {
            let reason = "not /ip4/…/udp/…/quic-v1/webtransport or the same with ip6";
            return Err(ListenError::UnsupportedAddress { address, reason });
        };
        let failed = |reason: String| ListenError::Io { address: address.clone(), reason };
        let certificates = self.certificates().map_err(failed)?;
        let tls = tls::server_config(certificates.clone(), self.key_exchange).map_err(failed)?;
        let acceptor = Acceptor {
            identity: self.identity.clone(),
            certificates: certificates.clone(),
            budget: self.budget.clone(),
            tls: Arc::new(tls),
            settings: self.settings,
        };
        let served = self.ports.open(socket).and_then(|port| port.serve(Alpn::H3, Arc::new(acceptor)));
        let served = served.map_err(|error| failed(error.to_string()))?;
        Ok(WebTransportListener::new(served, address, certificates))
    }

    fn certificates(&self) -> Result<Arc<ServedCertificates>, String> {
        let mut certificates = self.certificates.lock();
        if let Some(certificates) = &*certificates {
            return Ok(certificates.clone());
        }
        let made = Certificates::load_or_create(MemoryStore, SystemTime::now())
            .map_err(|error| error.to_string())?;
        Ok(certificates.insert(Arc::new(ServedCertificates::new(made))).clone())
    }

    async fn dial(&self, address: Multiaddr) -> Result<Box<dyn Connection>, DialError> {
        let unsupported = |reason| DialError::UnsupportedAddress { address: address.clone(), reason };
        let parsed = WebTransportAddress::parse(&address)
            .ok_or_else(|| unsupported("not /…/udp/…/quic-v1/webtransport"))?;
        if parsed.certificate_hashes.is_empty() {
            return Err(unsupported("it has no /certhash, and certificates of an authority are not checked"));
        }
        let unreachable =
            |reason: String| DialError::Unreachable { address: address.without_peer_id(), reason };
        let sockets = parsed.endpoint.resolve().await.map_err(|error| unreachable(error.to_string()))?;
        let mut outcome = Err(unreachable("the name has no address".to_owned()));
        for socket in sockets {
            outcome = self.dial_socket(&address, &parsed, socket).await;
            if !matches!(outcome, Err(DialError::Unreachable { .. })) {
                break;
            }
        }
        outcome
    }

    async fn dial_socket(
        &self,
        address: &Multiaddr,
        parsed: &WebTransportAddress<'_>,
        socket: SocketAddr,
    ) -> Result<Box<dyn Connection>, DialError> {
        let unreachable =
            |reason: String| DialError::Unreachable { address: address.without_peer_id(), reason };
        let failed =
            |source: HandshakeError| DialError::Handshake { address: address.without_peer_id(), source };
        let verifier = Arc::new(HashVerifier::new(parsed.certificate_hashes.clone()));
        let tls = tls::client_config(verifier.clone(), self.key_exchange).map_err(unreachable)?;
        let mut config = quinn::ClientConfig::new(Arc::new(tls));
        config.transport_config(self.transport.clone());
        let port = self.ports.to_dial(socket.ip()).map_err(|error| unreachable(error.to_string()))?;
        let connecting = port
            .endpoint()
            .connect_with(config, socket, &parsed.server_name())
            .map_err(|error| unreachable(error.to_string()))?;
        let quic = match connecting.await {
            Ok(quic) => quic,
            Err(error) => {
                return Err(match (verifier.refusal(), error) {
                    (Some(refusal), _) => failed(HandshakeError::Certificate(refusal.to_string())),
                    (None, error @ quinn::ConnectionError::TransportError(_))
                    | (None, error @ quinn::ConnectionError::ConnectionClosed(_)) => {
                        failed(HandshakeError::Invalid { step: STEP, reason: error.to_string() })
                    }
                    (None, error) => unreachable(error.to_string()),
                });
            }
        };
        let expected = Expected { authority: parsed.authority(), peer: parsed.peer, verifier: &verifier };
        let connection = Established { quic, port, window: ReceiveWindow::new(self.budget.clone()) };
        handshake::connect(connection, &self.identity, expected, address.without_peer_id())
            .await
            .map_err(failed)
    }
}
