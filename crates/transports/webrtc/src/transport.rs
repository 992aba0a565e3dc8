//! [`WebRtcDirectTransport`]: dialing and listening.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use peerloom_core::{
    Connection, DialError, Keypair, ListenError, Listener, Multiaddr, Transport, runtime::BoxFuture,
};
use peerloom_socket::udp::DatagramSocket;

use crate::{
    address::WebRtcAddress,
    certificate::{Certificate, CertificateError},
    dialer::Dialer,
    limits,
    listener::{Settings, WebRtcListener},
    peer_connection::Timeouts,
    ufrag::WireVersion,
};

/// Binds a UDP port, or joins those who have it already.
pub type Bind = Arc<dyn Fn(SocketAddr) -> io::Result<DatagramSocket> + Send + Sync>;

/// What can be chosen about a [`WebRtcDirectTransport`].
#[derive(Clone)]
#[non_exhaustive]
pub struct WebRtcDirectConfig {
    /// The certificate of listeners, whose hash is in their addresses. A new one for each process if it is not set.
    pub certificate: Option<Arc<Certificate>>,
    /// The version that dials speak. Listeners take both. Version 1 unless told otherwise: every listener knows it, many know
    /// no other, and what is against it holds only in browsers.
    pub dial_version: WireVersion,
    /// Where listeners have their sockets from: ports of their own, unless told of others that QUIC may share.
    pub bind: Bind,
    /// Deadline of each step of a handshake: ICE, DTLS, SCTP, Noise.
    pub handshake_step_timeout: Duration,
    /// Silence after which a connection is over.
    pub idle_timeout: Duration,
    /// Bytes that a connection may have sent without an acknowledgement. More helps on long paths and harms on short ones.
    pub send_target: usize,
}

impl Default for WebRtcDirectConfig {
    fn default() -> Self {
        Self {
            certificate: None,
            dial_version: WireVersion::V1,
            bind: Arc::new(DatagramSocket::bind),
            handshake_step_timeout: limits::HANDSHAKE_STEP_TIMEOUT,
            idle_timeout: limits::IDLE_TIMEOUT,
            send_target: limits::SEND_TARGET,
        }
    }
}

/// WebRTC-direct, natively: how browsers dial servers that have no domain name and no certificate of an authority.
///
/// Dialing needs the listener's certificate hash in the address. The dialer shows another certificate each time, so that
/// its connections cannot be told to be of one peer by who looks at them on the way.
pub struct WebRtcDirectTransport {
    identity: Keypair,
    config: WebRtcDirectConfig,
    certificate: Arc<Certificate>,
}

impl WebRtcDirectTransport {
    /// A transport for the peer with this identity.
    pub fn new(identity: Keypair, config: WebRtcDirectConfig) -> Result<Self, CertificateError> {
        let certificate = match &config.certificate {
            Some(certificate) => certificate.clone(),
            None => Arc::new(Certificate::generate()?),
        };
        Ok(Self { identity, config, certificate })
    }

    /// Listens on a socket that is bound already, its own or one shared with QUIC.
    pub fn listen_on(&self, socket: DatagramSocket) -> Result<Box<dyn Listener>, ListenError> {
        let bound = socket.local_address().unwrap_or(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)));
        self.start(crate::address::to_multiaddr(bound, None), socket)
    }

    fn start(&self, address: Multiaddr, socket: DatagramSocket) -> Result<Box<dyn Listener>, ListenError> {
        Ok(Box::new(self.listener(address, socket)?))
    }

    pub(crate) fn listener(
        &self,
        address: Multiaddr,
        socket: DatagramSocket,
    ) -> Result<WebRtcListener, ListenError> {
        let config = self
            .certificate
            .dtls_config(false)
            .map_err(|error| ListenError::Io { address: address.clone(), reason: error.to_string() })?;
        let settings = Settings {
            identity: self.identity.clone(),
            certificate: self.certificate.clone(),
            config,
            timeouts: self.timeouts(),
            send_target: self.config.send_target,
        };
        WebRtcListener::new(address, socket, Arc::new(settings))
    }

    fn timeouts(&self) -> Timeouts {
        Timeouts { step: self.config.handshake_step_timeout, idle: self.config.idle_timeout }
    }
}

impl Transport for WebRtcDirectTransport {
    fn can_dial(&self, address: &Multiaddr) -> bool {
        WebRtcAddress::parse(address)
            .is_some_and(|address| !address.certhashes.is_empty() && address.endpoint.port != 0)
    }

    fn can_listen(&self, address: &Multiaddr) -> bool {
        WebRtcAddress::parse(address)
            .is_some_and(|address| address.certhashes.is_empty() && address.endpoint.socket_addr().is_some())
    }

    fn dial(&self, address: Multiaddr) -> BoxFuture<'static, Result<Box<dyn Connection>, DialError>> {
        let dialer = Dialer {
            identity: self.identity.clone(),
            timeouts: self.timeouts(),
            send_target: self.config.send_target,
            version: self.config.dial_version,
        };
        Box::pin(async move { dialer.dial(address).await })
    }

    fn listen(&self, address: Multiaddr) -> BoxFuture<'static, Result<Box<dyn Listener>, ListenError>> {
        let result = if self.can_listen(&address) {
            let bound = WebRtcAddress::parse(&address).and_then(|parsed| parsed.endpoint.socket_addr());
            let socket =
                bound.ok_or(io::ErrorKind::InvalidInput.into()).and_then(|bound| (self.config.bind)(bound));
            match socket {
                Ok(socket) => self.start(address, socket),
                Err(error) => Err(ListenError::Io { address, reason: error.to_string() }),
            }
        } else {
            let reason = "not /<ip>/udp/<port>/webrtc-direct";
            Err(ListenError::UnsupportedAddress { address, reason })
        };
        Box::pin(std::future::ready(result))
    }
}
