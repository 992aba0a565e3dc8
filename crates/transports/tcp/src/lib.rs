//! libp2p over TCP: `/ip4/…/tcp/…` and `/dns…/tcp/…`, secured and multiplexed by `peerloom-upgrade`.
//!
//! An address may name its security protocol, `/ip4/…/tcp/…/noise` or `…/tls`: then it is not negotiated. Every listener
//! takes all three kinds of dialer; which address it listens on only says what it tells to others.

use std::sync::Arc;

use peerloom_core::{
    Connection, DialError, Keypair, ListenError, Listener, ListenerEvent, Multiaddr, Protocol, Transport,
    runtime::BoxFuture,
};
use peerloom_socket::{
    address::{Endpoint, Host},
    tcp::{self, Inbound, PortListener, Service, TcpPorts},
};
use peerloom_upgrade::{Security, Upgrader, pnet::PreSharedKey, tls::KeyExchange};

/// The TCP transport of a node.
#[derive(Debug, Clone)]
pub struct TcpTransport {
    upgrader: Upgrader,
    ports: TcpPorts,
}

impl TcpTransport {
    /// A transport whose connections prove this identity.
    pub fn new(keypair: Keypair) -> Self {
        Self { upgrader: Upgrader::new(keypair), ports: TcpPorts::default() }
    }

    /// Shares its listening ports with the transports that have clones of `ports`: WebSocket.
    pub fn with_ports(mut self, ports: TcpPorts) -> Self {
        self.ports = ports;
        self
    }

    /// Speaks this security protocol and no other. By default, listeners take both, and dialers prefer Noise.
    pub fn with_security(mut self, security: Security) -> Self {
        self.upgrader = self.upgrader.with_security(security);
        self
    }

    /// Finds a common secret in this way where TLS is spoken. Noise has one way only.
    pub fn with_key_exchange(mut self, key_exchange: KeyExchange) -> Self {
        self.upgrader = self.upgrader.with_key_exchange(key_exchange);
        self
    }

    /// Talks only to nodes that have the same key.
    pub fn with_private_network(mut self, key: PreSharedKey) -> Self {
        self.upgrader = self.upgrader.with_private_network(key);
        self
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
        let upgrader = self.upgrader.clone();
        Box::pin(async move {
            let Some(endpoint) = parse(&address) else {
                return Err(DialError::UnsupportedAddress { address, reason: "not /<host>/tcp/<port>" });
            };
            upgrader.dial(address.clone(), || tcp::connect(&endpoint)).await
        })
    }

    fn listen(&self, address: Multiaddr) -> BoxFuture<'static, Result<Box<dyn Listener>, ListenError>> {
        let Self { upgrader, ports } = self.clone();
        Box::pin(async move {
            let bind = parse(&address).and_then(|endpoint| Some((endpoint.socket_addr()?, endpoint.rest)));
            let Some((bind, rest)) = bind else {
                return Err(ListenError::UnsupportedAddress { address, reason: "not /<ip>/tcp/<port>" });
            };
            let name = Multiaddr::from_protocols(rest);
            let serve = Arc::new(move |Inbound { stream, remote }: Inbound| {
                let upgrader = upgrader.clone();
                Box::pin(async move { upgrader.accept(stream, remote).await }) as BoxFuture<'static, _>
            });
            let listened = ports
                .listen(bind, Service::Libp2p, name, serve)
                .and_then(|port| port.addresses().map(|_| TcpListener { port }));
            match listened {
                Ok(listener) => Ok(Box::new(listener) as Box<dyn Listener>),
                Err(error) => Err(ListenError::Io { address, reason: error.to_string() }),
            }
        })
    }
}

fn parse(address: &Multiaddr) -> Option<Endpoint<'_>> {
    Endpoint::tcp(address)
        .filter(|endpoint| matches!(endpoint.rest.as_slice(), [] | [Protocol::Noise] | [Protocol::Tls]))
}

struct TcpListener {
    port: PortListener,
}

impl Listener for TcpListener {
    fn addresses(&self) -> Vec<Multiaddr> {
        self.port.addresses().unwrap_or_else(|error| {
            tracing::warn!(%error, "the machine's addresses cannot be listed");
            Vec::new()
        })
    }

    fn next(&mut self) -> BoxFuture<'_, Result<ListenerEvent, ListenError>> {
        Box::pin(async move { Ok(ListenerEvent::Incoming(self.port.accept().await)) })
    }
}
