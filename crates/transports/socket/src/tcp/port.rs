//! One listening TCP port for several services, told apart by the first bytes that a dialer sends.

use std::{
    collections::HashMap,
    fmt, io,
    net::SocketAddr,
    sync::{Arc, Weak},
};

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use peerloom_core::{Connection, HandshakeError, Incoming, Multiaddr, Prefixed, runtime::BoxFuture};
use tokio::{io::AsyncReadExt as _, net::TcpStream};

use super::{Acceptor, newcomers::Newcomers};
use crate::address::tcp_multiaddr;

/// How errors name what is done here.
const STEP: &str = "tcp";
/// What is read at once of a dialer's first bytes, at most.
const FIRST_READ: usize = 4 * 1024;
/// The longest ClientHello that is waited for, in bytes: post-quantum keys make one of two kilobytes.
const MAX_CLIENT_HELLO: usize = 16 * 1024;
/// By which a TLS client says that it speaks libp2p inside.
const LIBP2P_ALPN: &[u8] = b"libp2p";

/// What a dialer wants of a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    /// libp2p on TCP itself: multistream-select, Noise, libp2p-TLS, or the random bytes of a private network.
    Libp2p,
    /// `GET …`: WebSocket.
    Http,
    /// TLS without libp2p's application protocol: WebSocket inside of it.
    Https,
}

/// Makes a connection of a socket whose dialer wants this service.
pub type Serve = Arc<dyn Fn(Inbound) -> Handshake + Send + Sync>;
type Handshake = BoxFuture<'static, Result<Box<dyn Connection>, HandshakeError>>;

/// A socket that was accepted.
#[derive(Debug)]
pub struct Inbound {
    /// The socket; nothing of it has been used up.
    pub stream: Prefixed<TcpStream>,
    /// Whose it is: `/ip4/…/tcp/…` or `/ip6/…/tcp/…`.
    pub remote: Multiaddr,
}

/// The listening ports of a process. Transports that are given clones of one value share those with the same address and
/// port; otherwise the second of them would find it in use.
#[derive(Debug, Clone, Default)]
pub struct TcpPorts(Arc<Mutex<HashMap<SocketAddr, Weak<Port>>>>);

#[derive(Debug)]
struct Port {
    acceptor: Acceptor,
    services: Arc<Services>,
}

#[derive(Default)]
struct Services(Mutex<Vec<Entry>>);

struct Entry {
    service: Service,
    name: Multiaddr,
    serve: Serve,
}

impl TcpPorts {
    /// Serves `service` on `address`, which may be open for others already. `name` is the part of the multiaddr behind the
    /// port, and empty for [`Service::Libp2p`] as such; one name is listened on once.
    pub fn listen(
        &self,
        address: SocketAddr,
        service: Service,
        name: Multiaddr,
        serve: Serve,
    ) -> io::Result<PortListener> {
        let mut ports = self.0.lock();
        ports.retain(|_, port| port.strong_count() > 0);
        let port = match ports.get(&address).and_then(Weak::upgrade) {
            Some(port) => port,
            None => {
                let acceptor = Acceptor::bind(address)?;
                let bound = acceptor.bound;
                let port = Arc::new(Port { acceptor, services: Arc::default() });
                ports.insert(bound, Arc::downgrade(&port));
                port
            }
        };
        drop(ports);
        let mut services = port.services.0.lock();
        if services.iter().any(|entry| entry.name == name) {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        services.push(Entry { service, name: name.clone(), serve });
        drop(services);
        Ok(PortListener { port, name, newcomers: Newcomers::default() })
    }
}

/// A service of a port. Dropping it ends the service; the port is closed with the last.
pub struct PortListener {
    port: Arc<Port>,
    name: Multiaddr,
    newcomers: Newcomers,
}

impl PortListener {
    /// Where the service can be reached, its name included. See [`reachable`](crate::address::reachable).
    pub fn addresses(&self) -> io::Result<Vec<Multiaddr>> {
        let reachable = self.port.acceptor.addresses()?.into_iter();
        Ok(reachable.map(|address| join(&tcp_multiaddr(address), &self.name)).collect())
    }

    /// The next dialer of the port that says what it wants, whichever service that is. Cancel-safe.
    pub async fn accept(&mut self) -> Incoming {
        let (remote, heard) = loop {
            tokio::select! {
                (stream, remote) = self.port.acceptor.accept() => self.newcomers.admit(stream, remote),
                heard = self.newcomers.heard() => break heard,
            }
        };
        let remote_address = tcp_multiaddr(remote);
        // Not the port itself: a handshake must not keep it open.
        let (services, remote) = (self.port.services.clone(), remote_address.clone());
        let handshake = Box::pin(async move {
            let (service, stream) = heard?;
            services.find(service)?(Inbound { stream, remote }).await
        });
        Incoming { remote_address, handshake }
    }
}

impl Drop for PortListener {
    fn drop(&mut self) {
        self.port.services.0.lock().retain(|entry| entry.name != self.name);
    }
}

impl fmt::Debug for PortListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PortListener")
            .field("port", &self.port)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl Services {
    fn find(&self, service: Service) -> Result<Serve, HandshakeError> {
        let services = self.0.lock();
        let found = services.iter().find(|entry| entry.service == service);
        found.map(|entry| entry.serve.clone()).ok_or_else(|| HandshakeError::Invalid {
            step: STEP,
            reason: format!("the dialer wants {service}, which this port does not serve"),
        })
    }
}

impl fmt::Debug for Services {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.lock().iter().map(|entry| entry.service)).finish()
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Libp2p => "libp2p over TCP",
            Self::Http => "WebSocket",
            Self::Https => "WebSocket over TLS",
        })
    }
}

/// `base` with the components of `rest` behind it.
pub fn join(base: &Multiaddr, rest: &Multiaddr) -> Multiaddr {
    rest.protocols().fold(base.clone(), |address, protocol| address.with(protocol))
}

/// Reads as much as tells what the dialer wants.
pub(super) async fn classify(
    mut stream: TcpStream,
) -> Result<(Service, Prefixed<TcpStream>), HandshakeError> {
    let lost = |reason: String| HandshakeError::Lost { step: STEP, reason };
    // Whoever says nothing costs no buffer.
    stream.readable().await.map_err(|error| lost(error.to_string()))?;
    let mut first = BytesMut::with_capacity(FIRST_READ);
    let service = loop {
        match stream.read_buf(&mut first).await {
            Ok(0) => return Err(lost("the dialer said nothing, or too little".to_owned())),
            Ok(_) => {}
            Err(error) => return Err(lost(error.to_string())),
        }
        if let Some(service) = service(&first) {
            break service;
        }
    };
    // A buffer of its size: what the first message was read into would otherwise live as long as what is left of it.
    Ok((service, Prefixed::new(Bytes::copy_from_slice(&first), stream)))
}

/// `None` while there are too few bytes to know. What is nothing else is libp2p's, whose handshake says what is wrong.
fn service(first: &[u8]) -> Option<Service> {
    const GET: &[u8] = b"GET ";
    if first.starts_with(GET) {
        return Some(Service::Http);
    }
    if GET.starts_with(first) {
        return None;
    }
    // RFC 8446, section 5.1 and 4: a handshake record of at most 2^14 bytes with a ClientHello. All of it is looked at,
    // because a private network's dialer begins with random bytes.
    let is_client_hello = [
        |byte| byte == 0x16,
        |byte| byte == 3,
        |byte| (1..=4).contains(&byte),
        |byte: u8| byte <= 0x40,
        |_| true,
        |byte| byte == 1,
    ];
    if !first.iter().zip(is_client_hello).all(|(byte, is)| is(*byte)) {
        return Some(Service::Libp2p);
    }
    if first.len() < is_client_hello.len() {
        return None;
    }
    let mut acceptor = rustls::server::Acceptor::default();
    let mut rest = first;
    while !rest.is_empty() {
        if !acceptor.read_tls(&mut rest).is_ok_and(|read| read > 0) {
            return Some(Service::Libp2p);
        }
        match acceptor.accept() {
            Ok(Some(hello)) => {
                let mut offered = hello.client_hello().alpn().into_iter().flatten();
                let libp2p = offered.any(|protocol| protocol == LIBP2P_ALPN);
                return Some(if libp2p { Service::Libp2p } else { Service::Https });
            }
            Ok(None) if first.len() < MAX_CLIENT_HELLO => {}
            Ok(None) | Err(_) => return Some(Service::Libp2p),
        }
    }
    None
}

#[cfg(any(test, fuzzing))]
pub mod fuzzing;
#[cfg(test)]
mod tests;
