//! [`WebRtcFactory`]: connections that two peers negotiate over a relay, a page and a server most of all.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use peerloom_core::runtime::{self, Task};
use peerloom_socket::{address::reachable, udp::DatagramSocket};
use peerloom_webrtc_signaling::{PeerConnection as Negotiation, PeerConnectionFactory, SignalingRole};
use tokio::sync::{Semaphore, mpsc};

use crate::{
    certificate::Certificate,
    driver::{Driver, Inbound, now},
    ice::{
        agent::{Agent, LocalAddresses},
        token::SessionToken,
    },
    limits,
    negotiation::WebRtcNegotiation,
    peer_connection::{Configs, PeerConnection, Timeouts},
    sockets::{Registration, Senders, SharedSocket},
    state::Shared,
    ufrag::IceCredentials,
};

/// What can be chosen about a [`WebRtcFactory`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct WebRtcConfig {
    /// Where peers that dial us reach us: one address for each IP version. Any free port of all interfaces by default. The
    /// connections that we dial take a port of their own each, on the same addresses.
    pub bind: Vec<SocketAddr>,
    /// Servers that tell us where we are seen from outside, as `stun:host:port` or `host:port`. None by default, which does
    /// for peers that are behind no NAT, or in the same network.
    pub stun_servers: Vec<String>,
    /// Deadline of DTLS and of SCTP. That of ICE is [`limits::ICE_TIMEOUT`].
    pub handshake_step_timeout: Duration,
    /// Silence after which a connection is over.
    pub idle_timeout: Duration,
    /// Bytes that a connection may have sent without an acknowledgement. More helps on long paths and harms on short ones.
    pub send_target: usize,
}

impl Default for WebRtcConfig {
    fn default() -> Self {
        Self {
            bind: vec![(Ipv4Addr::UNSPECIFIED, 0).into(), (Ipv6Addr::UNSPECIFIED, 0).into()],
            stun_servers: Vec::new(),
            handshake_step_timeout: limits::HANDSHAKE_STEP_TIMEOUT,
            idle_timeout: limits::IDLE_TIMEOUT,
            send_target: limits::SEND_TARGET,
        }
    }
}

/// WebRTC connections of a node that is no browser (`/webrtc`).
///
/// All peers that dial us come to one port, which a firewall can let through. Those that we dial are dialed from ports of
/// their own: two peers that dial each other at once, or one another twice, would otherwise have two connections between the
/// same two addresses, and nothing in DTLS says which of them a datagram belongs to.
pub struct WebRtcFactory {
    config: WebRtcConfig,
    sockets: Vec<Arc<SharedSocket>>,
    negotiations: Arc<Semaphore>,
}

impl WebRtcFactory {
    /// Binds the sockets. An IP version that the machine does not have is left out, unless there would be none.
    pub fn new(config: WebRtcConfig) -> io::Result<Self> {
        let sockets = bind(&config.bind)?
            .into_iter()
            .map(|socket| SharedSocket::new(socket, None).map(Arc::new))
            .collect::<io::Result<_>>()?;
        Ok(Self { config, sockets, negotiations: Arc::new(Semaphore::new(limits::MAX_NEGOTIATIONS)) })
    }

    fn begin(&self, role: SignalingRole) -> Result<WebRtcNegotiation, String> {
        let permit = self.negotiations.clone().try_acquire_owned();
        let permit = permit.map_err(|_| "too many connections are being negotiated".to_owned())?;
        let (local, token) = (IceCredentials::generate(), SessionToken::generate());
        let ways = match role {
            SignalingRole::Offerer => self.own_sockets(),
            SignalingRole::Answerer => Ok(self.shared_sockets(&local, token)),
        };
        let ways = ways.map_err(|error| format!("no UDP socket: {error}"))?;
        let addresses = LocalAddresses {
            host: host_addresses(&ways.bound),
            expects_servers: !self.config.stun_servers.is_empty(),
        };
        let controlling = role == SignalingRole::Offerer;
        let agent = Agent::new(local, token, &addresses, controlling, now());

        // Another certificate each time: connections shall not tell who looks at them that they are of one peer.
        let certificate = Certificate::generate().map_err(|error| error.to_string())?;
        let config = |is_client| certificate.dtls_config(is_client).map_err(|error| error.to_string());
        let configs = Configs { client: config(true)?, server: config(false)? };
        let timeouts = Timeouts { step: self.config.handshake_step_timeout, idle: self.config.idle_timeout };
        let connection = PeerConnection::negotiated(agent, configs, timeouts, now());
        let shared = Shared::new(connection, ways.senders, self.config.send_target);
        let guard = (ways.registrations, self.sockets.clone());
        let driver = runtime::spawn(Driver::new(shared.clone(), ways.inbound, guard));
        let resolver = self.resolve_servers(&shared);
        Ok(WebRtcNegotiation::new(shared, certificate.hash(), driver, resolver, permit))
    }

    fn own_sockets(&self) -> io::Result<Ways> {
        let any_port: Vec<_> =
            self.sockets.iter().map(|socket| SocketAddr::new(socket.bound.ip(), 0)).collect();
        let sockets = bind(&any_port)?;
        let mut senders = Senders::default();
        let mut bound = Vec::new();
        for socket in &sockets {
            let address = socket.local_address()?;
            senders.add(address, socket.sender());
            bound.push(address);
        }
        Ok(Ways { bound, senders, inbound: Inbound::Sockets(sockets), registrations: Vec::new() })
    }

    fn shared_sockets(&self, local: &IceCredentials, token: SessionToken) -> Ways {
        let (sink, datagrams) = mpsc::channel(limits::DATAGRAM_QUEUE);
        let mut senders = Senders::default();
        self.sockets.iter().for_each(|socket| senders.add(socket.bound, socket.sender()));
        let register = |socket: &Arc<SharedSocket>| socket.register(local, token, sink.clone());
        Ways {
            bound: self.sockets.iter().map(|socket| socket.bound).collect(),
            senders,
            inbound: Inbound::Queue(datagrams),
            registrations: self.sockets.iter().map(register).collect(),
        }
    }

    /// Finds the STUN servers' addresses and sets the agent on them.
    fn resolve_servers(&self, shared: &Arc<Shared>) -> Option<Task> {
        let servers = self.config.stun_servers.clone();
        let shared = shared.clone();
        (!servers.is_empty()).then(|| {
            runtime::spawn(async move {
                let mut addresses: Vec<SocketAddr> = Vec::new();
                for server in servers {
                    let host = server.strip_prefix("stun:").unwrap_or(&server);
                    match tokio::net::lookup_host(host).await {
                        Ok(found) => addresses.extend(found),
                        Err(error) => tracing::debug!(%server, %error, "STUN server not found"),
                    }
                }
                shared.with(|state| {
                    if let Some(agent) = state.connection.agent() {
                        agent.ask_servers(now(), &addresses);
                    }
                });
                shared.driver.wake();
            })
        })
    }
}

impl PeerConnectionFactory for WebRtcFactory {
    fn create(&self, role: SignalingRole) -> Result<Box<dyn Negotiation>, String> {
        Ok(Box::new(self.begin(role)?))
    }
}

/// How a connection's datagrams come and go.
struct Ways {
    bound: Vec<SocketAddr>,
    senders: Senders,
    inbound: Inbound,
    registrations: Vec<Registration>,
}

/// At least one socket, of as many of `addresses` as the machine has.
fn bind(addresses: &[SocketAddr]) -> io::Result<Vec<DatagramSocket>> {
    let mut bound = Vec::new();
    let mut failed = io::Error::new(io::ErrorKind::InvalidInput, "no address to bind");
    for address in addresses {
        match DatagramSocket::bind(*address) {
            Ok(socket) => bound.push(socket),
            Err(error) => {
                tracing::debug!(%address, %error, "no UDP socket for WebRTC");
                failed = error;
            }
        }
    }
    if bound.is_empty() { Err(failed) } else { Ok(bound) }
}

/// Where sockets bound to these addresses can be reached, IPv6 first as RFC 8421 wants it; through the loopback interface
/// only if there is nothing else.
fn host_addresses(bound: &[SocketAddr]) -> Vec<SocketAddr> {
    let mut addresses: Vec<_> = bound
        .iter()
        .flat_map(|bound| {
            reachable(*bound).unwrap_or_else(|error| {
                tracing::warn!(%error, "cannot list the machine's interfaces");
                Vec::new()
            })
        })
        .collect();
    if addresses.iter().any(|address| !address.ip().is_loopback()) {
        addresses.retain(|address| !address.ip().is_loopback());
    }
    addresses.sort_by_key(SocketAddr::is_ipv4);
    addresses
}

#[cfg(test)]
mod tests;
