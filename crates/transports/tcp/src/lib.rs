//! libp2p over TCP: `/ip4/…/tcp/…` and `/dns…/tcp/…`, secured and multiplexed by `peerloom-upgrade`.

use std::{io, net::SocketAddr};

use peerloom_core::{
    Connection, DialError, Incoming, Keypair, ListenError, Listener, ListenerEvent, Multiaddr, Transport,
    runtime::BoxFuture,
};
use peerloom_socket::{
    address::{Endpoint, Host, tcp_multiaddr},
    tcp::{self, Acceptor},
};
use peerloom_upgrade::{upgrade_inbound, upgrade_outbound};

/// The TCP transport of a node.
#[derive(Debug, Clone)]
pub struct TcpTransport {
    keypair: Keypair,
}

impl TcpTransport {
    /// A transport whose connections prove this identity.
    pub fn new(keypair: Keypair) -> Self {
        Self { keypair }
    }
}

impl Transport for TcpTransport {
    fn can_dial(&self, address: &Multiaddr) -> bool {
        parse(address).is_some()
    }

    fn can_listen(&self, address: &Multiaddr) -> bool {
        parse(address).is_some_and(|endpoint| matches!(endpoint.host, Host::Ip(_)))
    }

    fn dial(&self, address: Multiaddr) -> BoxFuture<'static, Result<Box<dyn Connection>, DialError>> {
        let keypair = self.keypair.clone();
        Box::pin(async move {
            let Some(endpoint) = parse(&address) else {
                return Err(DialError::UnsupportedAddress { address, reason: "not /<host>/tcp/<port>" });
            };
            let stream = match tcp::connect(&endpoint).await {
                Ok(stream) => stream,
                Err(error) => return Err(DialError::Unreachable { address, reason: error.to_string() }),
            };
            match upgrade_outbound(stream, &keypair, address.clone()).await {
                Ok(connection) => Ok(connection),
                Err(source) => Err(DialError::Handshake { address, source }),
            }
        })
    }

    fn listen(&self, address: Multiaddr) -> BoxFuture<'static, Result<Box<dyn Listener>, ListenError>> {
        let keypair = self.keypair.clone();
        Box::pin(async move {
            let Some(bind) = parse(&address).and_then(|endpoint| endpoint.socket_addr()) else {
                return Err(ListenError::UnsupportedAddress { address, reason: "not /<ip>/tcp/<port>" });
            };
            match TcpListener::bind(bind, keypair) {
                Ok(listener) => Ok(Box::new(listener) as Box<dyn Listener>),
                Err(error) => Err(ListenError::Io { address, reason: error.to_string() }),
            }
        })
    }
}

fn parse(address: &Multiaddr) -> Option<Endpoint<'_>> {
    Endpoint::tcp(address).filter(|endpoint| endpoint.rest.is_empty())
}

struct TcpListener {
    acceptor: Acceptor,
    keypair: Keypair,
    addresses: Vec<Multiaddr>,
}

impl TcpListener {
    fn bind(bind: SocketAddr, keypair: Keypair) -> io::Result<Self> {
        let acceptor = Acceptor::bind(bind)?;
        let addresses = acceptor.addresses()?.into_iter().map(tcp_multiaddr).collect();
        Ok(Self { acceptor, keypair, addresses })
    }
}

impl Listener for TcpListener {
    fn addresses(&self) -> Vec<Multiaddr> {
        self.addresses.clone()
    }

    fn next(&mut self) -> BoxFuture<'_, Result<ListenerEvent, ListenError>> {
        Box::pin(async move {
            let (stream, remote) = self.acceptor.accept().await;
            let remote_address = tcp_multiaddr(remote);
            let (keypair, address) = (self.keypair.clone(), remote_address.clone());
            let handshake = Box::pin(async move { upgrade_inbound(stream, &keypair, address).await });
            Ok(ListenerEvent::Incoming(Incoming { remote_address, handshake }))
        })
    }
}
