//! UDP ports, each bound once for everything that listens there: QUIC and WebTransport, told apart by the application
//! protocol of TLS, and WebRTC, whose datagrams the socket sorts out.

use std::{
    fmt, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{
        Arc, Weak,
        atomic::{AtomicUsize, Ordering},
    },
};

use parking_lot::Mutex;
use peerloom_core::{
    Connection, HandshakeError, Incoming, Protocol,
    runtime::{BoxFuture, timeout},
};
use peerloom_socket::{
    address::udp_multiaddr,
    udp::{DatagramSocket, UdpSocket},
};
use quinn::crypto::rustls::{HandshakeData, QuicServerConfig};
use tokio::sync::watch;

use crate::{
    STEP,
    alpn::{Alpn, TlsByAlpn},
    limits::{
        HANDSHAKE_TIMEOUT, MAX_HANDSHAKES, RETRY_FROM, Settings, endpoint_config, limit_incoming,
        transport_config,
    },
};

/// The UDP ports of a host, for its transports to share: those with a clone of the same `UdpPorts` may listen on the same
/// address. A port is closed when the last listener and the last connection on it are gone.
#[derive(Clone, Default)]
pub struct UdpPorts(Arc<Mutex<OpenPorts>>);

#[derive(Default)]
struct OpenPorts {
    bound: Vec<Weak<Port>>,
    /// To dial from where nobody listens.
    unbound_ip4: Option<Arc<Port>>,
    unbound_ip6: Option<Arc<Port>>,
}

impl UdpPorts {
    /// What arrives at `address` and is not QUIC: the socket for WebRTC to listen on. Fails if somebody has it already.
    pub fn datagrams(&self, address: SocketAddr) -> io::Result<DatagramSocket> {
        let port = self.open(address)?;
        port.socket.datagrams(port.clone()).ok_or_else(|| taken("WebRTC"))
    }

    /// The port with this address, bound now if it was not.
    pub(crate) fn open(&self, address: SocketAddr) -> io::Result<Arc<Port>> {
        let mut ports = self.0.lock();
        ports.bound.retain(|port| port.strong_count() > 0);
        if let Some(open) = ports.bound().find(|port| port.bound == address) {
            return Ok(open);
        }
        let port = Port::bind(address)?;
        ports.bound.push(Arc::downgrade(&port));
        Ok(port)
    }

    /// The port to dial `remote` from: one that is listened on, so that the NATs before us let its answers in, or one per
    /// address family for all dials.
    pub(crate) fn to_dial(&self, remote: IpAddr) -> io::Result<Arc<Port>> {
        let mut ports = self.0.lock();
        if let Some(port) = ports.bound().find(|port| reaches(port.bound.ip(), remote)) {
            return Ok(port);
        }
        let (unbound, any): (_, IpAddr) = match remote {
            IpAddr::V4(_) => (&mut ports.unbound_ip4, Ipv4Addr::UNSPECIFIED.into()),
            IpAddr::V6(_) => (&mut ports.unbound_ip6, Ipv6Addr::UNSPECIFIED.into()),
        };
        match unbound {
            Some(port) => Ok(port.clone()),
            None => Ok(unbound.insert(Port::bind((any, 0).into())?).clone()),
        }
    }
}

impl OpenPorts {
    fn bound(&self) -> impl Iterator<Item = Arc<Port>> {
        self.bound.iter().filter_map(Weak::upgrade)
    }
}

impl fmt::Debug for UdpPorts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.lock().bound().map(|port| port.bound)).finish()
    }
}

/// Whether a socket that is bound to `bound` can send to `remote`.
fn reaches(bound: IpAddr, remote: IpAddr) -> bool {
    bound.is_ipv4() == remote.is_ipv4()
        && (bound.is_unspecified() || bound.is_loopback() == remote.is_loopback())
}

fn taken(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::AddrInUse, format!("{what} is listened for on this port already"))
}

/// Somebody who takes the connections with one application protocol.
pub(crate) trait Service: Send + Sync + 'static {
    /// How TLS is spoken to its clients.
    fn tls(&self) -> Arc<QuicServerConfig>;

    /// What its connections want. On a shared port all get the same: the shorter time-out and the larger limit.
    fn settings(&self) -> Settings;

    /// From the ClientHello, which has arrived, to a usable connection.
    fn accept(
        self: Arc<Self>,
        connecting: quinn::Connecting,
        port: Arc<Port>,
    ) -> BoxFuture<'static, Result<Box<dyn Connection>, HandshakeError>>;
}

/// One UDP port with its QUIC endpoint.
pub(crate) struct Port {
    endpoint: quinn::Endpoint,
    socket: Arc<UdpSocket>,
    bound: SocketAddr,
    services: Mutex<Services>,
    handshakes: AtomicUsize,
}

#[derive(Default)]
struct Services {
    libp2p: Option<Entry>,
    h3: Option<Entry>,
}

#[derive(Clone)]
struct Entry {
    service: Arc<dyn Service>,
    /// Its sender is dropped with the listener.
    alive: watch::Receiver<()>,
}

impl Port {
    fn bind(address: SocketAddr) -> io::Result<Arc<Self>> {
        let socket = Arc::new(UdpSocket::bind(address)?);
        let runtime = Arc::new(quinn::TokioRuntime);
        let endpoint =
            quinn::Endpoint::new_with_abstract_socket(endpoint_config(), None, socket.clone(), runtime)?;
        let bound = socket.local_address()?;
        Ok(Arc::new(Self {
            endpoint,
            socket,
            bound,
            services: Mutex::default(),
            handshakes: AtomicUsize::new(0),
        }))
    }

    /// To dial from.
    pub(crate) fn endpoint(&self) -> &quinn::Endpoint {
        &self.endpoint
    }

    /// Where the port is.
    pub(crate) fn bound(&self) -> SocketAddr {
        self.bound
    }

    /// Lets `service` have the connections with `alpn`, as long as what is returned lives. Fails if somebody has them.
    pub(crate) fn serve(self: &Arc<Self>, alpn: Alpn, service: Arc<dyn Service>) -> io::Result<Served> {
        let (sender, alive) = watch::channel(());
        let mut services = self.services.lock();
        let entry = services.of(alpn);
        if entry.is_some() {
            return Err(taken(match alpn {
                Alpn::Libp2p => "QUIC",
                Alpn::H3 => "WebTransport",
            }));
        }
        *entry = Some(Entry { service, alive });
        self.endpoint.set_server_config(services.server_config());
        Ok(Served { port: self.clone(), alpn, _alive: sender })
    }

    /// What to do about somebody who dials; `None` if that is done.
    fn admit(self: &Arc<Self>, incoming: quinn::Incoming) -> Option<Incoming> {
        let handshakes = self.handshakes.load(Ordering::Relaxed);
        if handshakes >= MAX_HANDSHAKES {
            incoming.refuse();
            return None;
        }
        // Under load an address is believed only when proved, or a forger could fill our tables with other people's.
        if handshakes >= RETRY_FROM && !incoming.remote_address_validated() && incoming.may_retry() {
            let _ = incoming.retry();
            return None;
        }
        let remote_address = udp_multiaddr(incoming.remote_address()).with(Protocol::QuicV1);
        let under_way = UnderWay::new(self.clone());
        let handshake = Box::pin(async move {
            let done = timeout(HANDSHAKE_TIMEOUT, under_way.0.handshake(incoming)).await;
            done.unwrap_or(Err(HandshakeError::TimedOut { step: STEP }))
        });
        Some(Incoming { remote_address, handshake })
    }

    async fn handshake(
        self: &Arc<Self>,
        incoming: quinn::Incoming,
    ) -> Result<Box<dyn Connection>, HandshakeError> {
        let mut connecting = incoming.accept().map_err(handshake_error)?;
        let data = connecting.handshake_data().await.map_err(handshake_error)?;
        let protocol = data.downcast::<HandshakeData>().ok().and_then(|data| data.protocol);
        let alpn = protocol.and_then(|name| Alpn::parse(&name));
        let entry = alpn.and_then(|alpn| self.services.lock().of(alpn).clone());
        let gone = || HandshakeError::Lost { step: STEP, reason: "the listener was closed".to_owned() };
        let Entry { service, mut alive } = entry.ok_or_else(gone)?;
        tokio::select! {
            biased;
            _ = alive.changed() => Err(gone()),
            done = service.accept(connecting, self.clone()) => done,
        }
    }
}

impl Services {
    fn of(&mut self, alpn: Alpn) -> &mut Option<Entry> {
        match alpn {
            Alpn::Libp2p => &mut self.libp2p,
            Alpn::H3 => &mut self.h3,
        }
    }

    /// quinn's settings of a server for all of them; `None` if there are none.
    fn server_config(&self) -> Option<quinn::ServerConfig> {
        let [libp2p, h3] = [&self.libp2p, &self.h3].map(|entry| entry.as_ref().map(|entry| &entry.service));
        let crypto: Arc<dyn quinn::crypto::ServerConfig> = match (libp2p, h3) {
            (Some(libp2p), Some(h3)) => Arc::new(TlsByAlpn { libp2p: libp2p.tls(), h3: h3.tls() }),
            (Some(service), None) | (None, Some(service)) => service.tls(),
            (None, None) => return None,
        };
        let settings = libp2p.into_iter().chain(h3).map(|service| service.settings());
        let shared = settings.reduce(|one, other| Settings {
            idle_timeout: one.idle_timeout.min(other.idle_timeout),
            unidirectional_streams: one.unidirectional_streams.max(other.unidirectional_streams),
        })?;
        let mut config = quinn::ServerConfig::with_crypto(crypto);
        config.transport_config(transport_config(shared));
        limit_incoming(&mut config);
        Some(config)
    }
}

/// The right to the connections with one application protocol at a port. Dropping it ends their handshakes.
pub(crate) struct Served {
    port: Arc<Port>,
    alpn: Alpn,
    _alive: watch::Sender<()>,
}

impl Served {
    pub(crate) fn port(&self) -> &Port {
        &self.port
    }

    /// Somebody who dials this port, with whichever protocol; that comes out in the handshake. Listeners on one port take
    /// turns. `None` if the socket failed. Cancel-safe.
    pub(crate) async fn accept(&self) -> Option<Incoming> {
        loop {
            let incoming = self.port.endpoint.accept().await?;
            if let Some(incoming) = self.port.admit(incoming) {
                return Some(incoming);
            }
        }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let mut services = self.port.services.lock();
        *services.of(self.alpn) = None;
        // The endpoint lives on as long as its connections do. Nobody else shall get in.
        self.port.endpoint.set_server_config(services.server_config());
    }
}

/// Counts a handshake as long as it is under way.
struct UnderWay(Arc<Port>);

impl UnderWay {
    fn new(port: Arc<Port>) -> Self {
        port.handshakes.fetch_add(1, Ordering::Relaxed);
        Self(port)
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.handshakes.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Why QUIC's own handshake failed.
pub(crate) fn handshake_error(error: quinn::ConnectionError) -> HandshakeError {
    use quinn::ConnectionError as Quic;
    // RFC 8446, section 6: the alert for ALPN.
    let no_protocol = quinn::TransportErrorCode::crypto(120);
    let invalid = |reason: String| HandshakeError::Invalid { step: STEP, reason };
    match error {
        Quic::TransportError(error) if error.code == no_protocol => {
            HandshakeError::NoCommonProtocol { step: STEP }
        }
        Quic::ConnectionClosed(close) if close.error_code == no_protocol => {
            HandshakeError::NoCommonProtocol { step: STEP }
        }
        Quic::TransportError(error) => invalid(error.to_string()),
        Quic::ConnectionClosed(close) => invalid(format!("the remote refused: {close}")),
        Quic::TimedOut => HandshakeError::TimedOut { step: STEP },
        other => HandshakeError::Lost { step: STEP, reason: other.to_string() },
    }
}

#[cfg(test)]
mod tests;
