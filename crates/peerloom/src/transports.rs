//! The transports that are compiled in, and what can be chosen about them.

#[cfg(any(feature = "quic", feature = "webrtc"))]
use std::time::Duration;
use std::{path::Path, sync::Arc};

use peerloom_core::{Keypair, Transport};
use peerloom_node::{Gating, Node};

use crate::{Builder, StartError};

/// What can be chosen about the transports, as far as they are compiled in.
#[derive(Default)]
pub(crate) struct Options {
    #[cfg(feature = "dns")]
    name_servers: Vec<std::net::SocketAddr>,
    /// In place of name servers.
    #[cfg(feature = "dns")]
    names: Option<peerloom_dns::DnsTransport>,
    #[cfg(any(feature = "tcp", feature = "websocket"))]
    private_network: Option<peerloom_upgrade::pnet::PreSharedKey>,
    #[cfg(feature = "websocket")]
    certificate: Option<peerloom_websocket::CertificateFiles>,
    #[cfg(feature = "websocket")]
    trust: Option<peerloom_websocket::Trust>,
    #[cfg(any(feature = "quic", feature = "tcp"))]
    key_exchange: peerloom_upgrade::tls::KeyExchange,
    #[cfg(any(feature = "quic", feature = "webrtc"))]
    idle_timeout: Option<Duration>,
    /// `None` for the default.
    #[cfg(feature = "autonat")]
    autonat: Option<Option<peerloom_autonat::ClientConfig>>,
    #[cfg(feature = "autonat")]
    serve_autonat: Option<peerloom_autonat::ServerConfig>,
    #[cfg(feature = "webrtc")]
    pub(crate) webrtc: peerloom_webrtc::WebRtcConfig,
    /// `None` for the default.
    #[cfg(feature = "webrtc")]
    pub(crate) upgrade_relayed: Option<bool>,
}

impl Options {
    /// A node in the same network with an identity and sockets of its own, to dial from.
    #[cfg(feature = "autonat")]
    fn dialer(&self, gating: &peerloom_node::Gating) -> Result<Node, StartError> {
        let mut options = Self {
            #[cfg(any(feature = "tcp", feature = "websocket"))]
            private_network: self.private_network.clone(),
            #[cfg(any(feature = "quic", feature = "tcp"))]
            key_exchange: self.key_exchange,
            #[cfg(feature = "dns")]
            name_servers: self.name_servers.clone(),
            ..Self::default()
        };
        let keypair = Keypair::generate();
        let transports = options.transports(&keypair, None, gating)?;
        let node = Node::builder(keypair).gating(gating.clone()).identify(None).answer_pings(false);
        Ok(transports.into_iter().fold(node, |node, transport| node.transport(transport)).build())
    }

    pub(crate) fn is_private(&self) -> bool {
        #[cfg(any(feature = "tcp", feature = "websocket"))]
        return self.private_network.is_some();
        #[cfg(not(any(feature = "tcp", feature = "websocket")))]
        false
    }

    /// In a private network, circuits are as private as connections.
    #[cfg(feature = "relay-client")]
    fn relay_client(&self) -> peerloom_relay::ClientConfig {
        #[cfg_attr(not(any(feature = "tcp", feature = "websocket")), expect(unused_mut))]
        let mut config = peerloom_relay::ClientConfig::default();
        #[cfg(any(feature = "tcp", feature = "websocket"))]
        {
            config.private_network = self.private_network.clone();
        }
        config
    }

    /// For secure WebSocket.
    pub(crate) fn has_certificate(&self) -> bool {
        #[cfg(feature = "websocket")]
        return self.certificate.is_some();
        #[cfg(not(feature = "websocket"))]
        false
    }
}

/// Which addresses others reach: the feature `autonat`.
#[cfg(feature = "autonat")]
impl Builder {
    /// How peers are asked which of the node's addresses they reach; `None` if they are not. They are by default.
    pub fn autonat(mut self, config: impl Into<Option<peerloom_autonat::ClientConfig>>) -> Self {
        self.options.autonat = Some(config.into());
        self
    }

    /// Dials others back who want to know the same, from sockets of its own.
    pub fn serve_autonat(mut self, config: peerloom_autonat::ServerConfig) -> Self {
        self.options.serve_autonat = Some(config);
        self
    }
}

/// Names in addresses: the feature `dns`.
#[cfg(feature = "dns")]
impl Builder {
    /// Asks these name servers instead of the system's.
    pub fn name_servers(mut self, servers: impl IntoIterator<Item = std::net::SocketAddr>) -> Self {
        self.options.name_servers = servers.into_iter().collect();
        self
    }

    /// Asks `resolver` for names, instead of the system's name servers.
    pub fn resolver(mut self, resolver: impl peerloom_dns::Resolver) -> Self {
        self.options.names = Some(peerloom_dns::DnsTransport::new(resolver));
        self
    }
}

/// Private networks: the features `tcp` and `websocket`.
#[cfg(any(feature = "tcp", feature = "websocket"))]
impl Builder {
    /// Talks only to nodes that have the same key, and only by TCP and WebSocket: no other transport can be private. One
    /// that you [add yourself](Self::transport) had better be private as well.
    pub fn private_network(mut self, key: crate::PreSharedKey) -> Self {
        self.options.private_network = Some(key);
        self
    }
}

/// Secure WebSocket: the feature `websocket`.
#[cfg(feature = "websocket")]
impl Builder {
    /// Listens on `…/tls/ws` with this certificate, and with [`port`](Self::port) there, too.
    pub fn certificate(mut self, certificate: peerloom_websocket::CertificateFiles) -> Self {
        self.options.certificate = Some(certificate);
        self
    }

    /// Which certificates are accepted of those who are dialed by `…/tls/ws`; by default the platform's authorities'.
    pub fn trust(mut self, trust: peerloom_websocket::Trust) -> Self {
        self.options.trust = Some(trust);
        self
    }
}

/// TLS 1.3: the features `quic` and `tcp`.
#[cfg(any(feature = "quic", feature = "tcp"))]
impl Builder {
    /// How QUIC, WebTransport and TLS on TCP find a common secret: X25519 unless said otherwise.
    pub fn key_exchange(mut self, key_exchange: crate::KeyExchange) -> Self {
        self.options.key_exchange = key_exchange;
        self
    }
}

/// Connections over UDP: the features `quic` and `webrtc`.
#[cfg(any(feature = "quic", feature = "webrtc"))]
impl Builder {
    /// Gives connections over QUIC, WebTransport and WebRTC up after so long a silence.
    pub fn idle_timeout(mut self, idle_timeout: Duration) -> Self {
        self.options.idle_timeout = Some(idle_timeout);
        self
    }
}

/// WebRTC: the feature `webrtc`.
#[cfg(feature = "webrtc")]
impl Builder {
    /// Servers, `host:port`, that tell a node behind a NAT where it is seen from outside. None if it is not said, which does
    /// for nodes that are behind no NAT, or in one network with their peers.
    pub fn stun_servers(mut self, servers: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.options.webrtc.stun_servers = servers.into_iter().map(Into::into).collect();
        self
    }

    /// The UDP port to which peers come whose connection a relay has arranged, for a firewall to let through; any if it is
    /// not said. Those who dial an address of [WebRTC-direct](Self::port) come to that address's port.
    pub fn webrtc_port(mut self, port: u16) -> Self {
        self.options.webrtc.bind.iter_mut().for_each(|address| address.set_port(port));
        self
    }

    /// Whether connections through relays that this node has dialed become direct ones without being asked to. They do by
    /// default.
    pub fn upgrade_relayed(mut self, upgrade: bool) -> Self {
        self.options.upgrade_relayed = Some(upgrade);
        self
    }
}

/// A node with its transports and protocols. It does not listen yet.
pub(crate) fn build(mut builder: Builder) -> Result<Node, StartError> {
    let keypair = builder.take_identity()?;
    let mut options = builder.options;
    #[cfg(feature = "autonat")]
    let dialer = options.serve_autonat.is_some().then(|| options.dialer(&builder.gating)).transpose()?;
    let data_dir = builder.data_dir.as_deref();
    let transports = options.transports(&keypair, data_dir, &builder.gating)?;
    let transports = builder.own_transports.into_iter().chain(transports);
    let node = Node::builder(keypair)
        .limits(builder.limits)
        .gating(builder.gating)
        .identify(builder.identify)
        .answer_pings(builder.answer_pings);
    #[cfg(feature = "peer-storage")]
    let node = match data_dir {
        Some(directory) => crate::peers::keep(node, directory)?,
        None => node,
    };
    let node = transports.fold(node, |node, transport| node.transport(transport)).build();
    #[cfg(any(feature = "tcp", feature = "websocket", feature = "quic", feature = "webrtc"))]
    crate::interfaces::follow(&node);
    #[cfg(feature = "autonat")]
    {
        if let Some(config) = options.autonat.take().unwrap_or_else(|| Some(Default::default())) {
            peerloom_autonat::AutonatClient::start(&node, config)?;
        }
        if let Some((dialer, config)) = dialer.zip(options.serve_autonat.take()) {
            peerloom_autonat::serve(&node, dialer, config)?;
        }
    }
    #[cfg(feature = "relay-client")]
    peerloom_relay::RelayClient::start(&node, options.relay_client())?;
    #[cfg(all(feature = "webrtc", feature = "relay-client"))]
    if !options.is_private() {
        crate::webrtc::negotiate(&node, options.webrtc_config(), options.upgrade_relayed)?;
    }
    Ok(node)
}

/// Without the features there is less to do than this says.
#[allow(unused_mut, unused_variables, clippy::unnecessary_wraps)]
impl Options {
    /// The best first, and names in front of all of them.
    fn transports(
        &mut self,
        identity: &Keypair,
        data_dir: Option<&Path>,
        gating: &Gating,
    ) -> Result<Vec<Arc<dyn Transport>>, StartError> {
        let mut transports: Vec<Arc<dyn Transport>> = Vec::new();
        // What has the same port number shares it.
        #[cfg(feature = "quic")]
        let udp = peerloom_quic::UdpPorts::default();
        #[cfg(feature = "quic")]
        if !self.is_private() {
            transports.push(Arc::new(self.quic(identity, &udp)?));
            transports.push(Arc::new(self.web_transport(identity, data_dir, &udp)?));
        }
        #[cfg(any(feature = "tcp", feature = "websocket"))]
        let tcp = peerloom_socket::tcp::TcpPorts::default();
        #[cfg(feature = "tcp")]
        transports.push(Arc::new(self.tcp(identity, &tcp)));
        #[cfg(feature = "websocket")]
        transports.push(Arc::new(self.websocket(identity, &tcp)));
        #[cfg(feature = "webrtc")]
        if !self.is_private() {
            let mut config = self.webrtc_direct(data_dir)?;
            #[cfg(feature = "quic")]
            {
                config.bind = Arc::new(move |address| udp.datagrams(address));
            }
            transports.push(Arc::new(peerloom_webrtc::WebRtcDirectTransport::new(identity.clone(), config)?));
        }
        #[cfg(feature = "dns")]
        {
            let gating = gating.clone();
            let permit = move |address| gating.permit_address(address);
            let names = self.names()?.with_gate(permit);
            let names = transports.into_iter().fold(names, peerloom_dns::DnsTransport::with_transport);
            transports = vec![Arc::new(names)];
        }
        Ok(transports)
    }
}

#[cfg(feature = "quic")]
impl Options {
    fn quic(
        &self,
        identity: &Keypair,
        ports: &peerloom_quic::UdpPorts,
    ) -> Result<peerloom_quic::QuicTransport, StartError> {
        let mut config = peerloom_quic::QuicConfig::default()
            .with_key_exchange(self.key_exchange)
            .with_ports(ports.clone());
        if let Some(idle_timeout) = self.idle_timeout {
            config = config.with_idle_timeout(idle_timeout);
        }
        Ok(peerloom_quic::QuicTransport::new(identity.clone(), config)?)
    }

    fn web_transport(
        &self,
        identity: &Keypair,
        data_dir: Option<&Path>,
        ports: &peerloom_quic::UdpPorts,
    ) -> Result<peerloom_quic::WebTransportTransport, StartError> {
        use peerloom_quic::certificate::{Certificates, DirectoryStore};

        let mut config = peerloom_quic::WebTransportConfig::default()
            .with_key_exchange(self.key_exchange)
            .with_ports(ports.clone());
        if let Some(directory) = data_dir {
            let now = std::time::SystemTime::now();
            let certificates = Certificates::load_or_create(DirectoryStore::new(directory), now)?;
            config = config.with_certificates(certificates);
        }
        if let Some(idle_timeout) = self.idle_timeout {
            config = config.with_idle_timeout(idle_timeout);
        }
        Ok(peerloom_quic::WebTransportTransport::new(identity.clone(), config))
    }
}

#[cfg(feature = "tcp")]
impl Options {
    fn tcp(&self, identity: &Keypair, ports: &peerloom_socket::tcp::TcpPorts) -> peerloom_tcp::TcpTransport {
        let transport = peerloom_tcp::TcpTransport::new(identity.clone())
            .with_key_exchange(self.key_exchange)
            .with_ports(ports.clone());
        match &self.private_network {
            Some(key) => transport.with_private_network(key.clone()),
            None => transport,
        }
    }
}

#[cfg(feature = "websocket")]
impl Options {
    fn websocket(
        &mut self,
        identity: &Keypair,
        ports: &peerloom_socket::tcp::TcpPorts,
    ) -> peerloom_websocket::WebSocketTransport {
        let transport = peerloom_websocket::WebSocketTransport::new(identity.clone());
        let mut transport = transport.with_ports(ports.clone());
        if let Some(certificate) = self.certificate.take() {
            transport = transport.with_certificate(certificate);
        }
        if let Some(trust) = self.trust.take() {
            transport = transport.with_trust(trust);
        }
        match &self.private_network {
            Some(key) => transport.with_private_network(key.clone()),
            None => transport,
        }
    }
}

#[cfg(feature = "webrtc")]
impl Options {
    fn webrtc_direct(
        &self,
        data_dir: Option<&Path>,
    ) -> Result<peerloom_webrtc::WebRtcDirectConfig, StartError> {
        use peerloom_webrtc::{Certificate, WebRtcDirectConfig};

        let mut config = WebRtcDirectConfig::default();
        if let Some(directory) = data_dir {
            config.certificate = Some(Arc::new(Certificate::load_or_generate(directory)?));
        }
        if let Some(idle_timeout) = self.idle_timeout {
            config.idle_timeout = idle_timeout;
        }
        Ok(config)
    }

    #[cfg(feature = "relay-client")]
    fn webrtc_config(&self) -> peerloom_webrtc::WebRtcConfig {
        let mut config = self.webrtc.clone();
        if let Some(idle_timeout) = self.idle_timeout {
            config.idle_timeout = idle_timeout;
        }
        config
    }
}

#[cfg(feature = "dns")]
impl Options {
    fn names(&mut self) -> Result<peerloom_dns::DnsTransport, StartError> {
        use peerloom_dns::{DnsTransport, SystemResolver};

        if let Some(names) = self.names.take() {
            return Ok(names);
        }
        if !self.name_servers.is_empty() {
            return Ok(DnsTransport::new(SystemResolver::with_name_servers(&self.name_servers)?));
        }
        Ok(DnsTransport::new(match SystemResolver::from_system() {
            Ok(resolver) => resolver,
            Err(error) => {
                // A machine without a configuration of DNS still has a hosts file.
                tracing::warn!(%error, "no name servers: only the names in the hosts file are known");
                SystemResolver::with_name_servers(&[])?
            }
        }))
    }
}
