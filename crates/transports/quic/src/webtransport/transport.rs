//! [`WebTransportTransport`]: dials and listens.

use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::{Duration, SystemTime},
};

use parking_lot::Mutex;
use peerloom_core::{
    Connection, DialError, HandshakeError, Keypair, ListenError, Listener, Multiaddr, Transport,
    runtime::BoxFuture,
};

use super::{
    STEP,
    address::WebTransportAddress,
    endpoint,
    handshake::{self, Expected},
    limits::{self, transport_config},
    listener::WebTransportListener,
    receive_window::{ReceiveBudget, ReceiveWindow},
    tls::{self, HashVerifier, ServedCertificates},
};
use crate::certificate::{Certificates, MemoryStore};

/// How a [`WebTransportTransport`] behaves.
#[derive(Debug)]
#[non_exhaustive]
pub struct WebTransportConfig {
    /// The certificates to serve. Without any, ones that a restart forgets are made when the first listener starts.
    pub certificates: Option<Certificates>,
    /// Silence after which a connection is given up.
    pub idle_timeout: Duration,
    /// What all connections together may receive before it is read, in bytes, beyond 256 KiB for each.
    pub receive_budget: u64,
}

impl Default for WebTransportConfig {
    fn default() -> Self {
        Self { certificates: None, idle_timeout: Duration::from_secs(30), receive_budget: 512 * 1024 * 1024 }
    }
}

impl WebTransportConfig {
    /// Serves `certificates`.
    pub fn with_certificates(mut self, certificates: Certificates) -> Self {
        self.certificates = Some(certificates);
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
    transport: Arc<quinn::TransportConfig>,
    budget: Arc<ReceiveBudget>,
    certificates: Mutex<Option<Arc<ServedCertificates>>>,
    dialer_ip4: Mutex<Option<quinn::Endpoint>>,
    dialer_ip6: Mutex<Option<quinn::Endpoint>>,
}

impl WebTransportTransport {
    /// A transport that proves to be `identity`.
    pub fn new(identity: Keypair, config: WebTransportConfig) -> Self {
        let certificates =
            config.certificates.map(|certificates| Arc::new(ServedCertificates::new(certificates)));
        Self {
            shared: Arc::new(Shared {
                identity,
                transport: transport_config(config.idle_timeout),
                budget: ReceiveBudget::new(config.receive_budget),
                certificates: Mutex::new(certificates),
                dialer_ip4: Mutex::default(),
                dialer_ip6: Mutex::default(),
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
        let tls = tls::server_config(certificates.clone()).map_err(failed)?;
        let mut config = quinn::ServerConfig::with_crypto(Arc::new(tls));
        config.transport_config(self.transport.clone());
        limits::limit_incoming(&mut config);
        let identity = self.identity.clone();
        WebTransportListener::bind(
            socket,
            address.clone(),
            config,
            identity,
            certificates,
            self.budget.clone(),
        )
        .map_err(|error| failed(error.to_string()))
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
        let tls = tls::client_config(verifier.clone()).map_err(unreachable)?;
        let mut config = quinn::ClientConfig::new(Arc::new(tls));
        config.transport_config(self.transport.clone());
        let endpoint = self.dialer(socket).map_err(|error| unreachable(error.to_string()))?;
        let connecting = endpoint
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
        let window = ReceiveWindow::new(self.budget.clone());
        handshake::connect(quic, &self.identity, expected, window, address.without_peer_id())
            .await
            .map_err(failed)
    }

    /// The endpoint to dial `remote` from. One per address family serves all dials.
    fn dialer(&self, remote: SocketAddr) -> std::io::Result<quinn::Endpoint> {
        let (dialer, unspecified) = match remote {
            SocketAddr::V4(_) => (&self.dialer_ip4, SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0))),
            SocketAddr::V6(_) => (&self.dialer_ip6, SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0))),
        };
        let mut dialer = dialer.lock();
        if let Some(endpoint) = &*dialer {
            return Ok(endpoint.clone());
        }
        Ok(dialer.insert(endpoint(unspecified, None)?).clone())
    }
}
