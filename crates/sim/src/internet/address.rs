use std::net::{IpAddr, SocketAddr};

use peerloom_core::{Multiaddr, Protocol};

use super::fabric::IpProtocol;

/// What is spoken at a port, as an address names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Service {
    Tcp,
    Ws,
    Wss,
    QuicV1,
    WebTransport,
    WebRtcDirect,
}

/// Where a multiaddr leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Endpoint {
    pub(crate) socket: SocketAddr,
    pub(crate) service: Service,
}

impl Service {
    pub(crate) fn protocol(self) -> IpProtocol {
        match self {
            Self::Tcp | Self::Ws | Self::Wss => IpProtocol::Tcp,
            Self::QuicV1 | Self::WebTransport | Self::WebRtcDirect => IpProtocol::Udp,
        }
    }

    /// Until the dialer can open a stream: that of the TCP connection, and those of TLS 1.3, HTTP, Noise, ICE, DTLS and SCTP.
    pub(crate) fn round_trips(self) -> u8 {
        match self {
            Self::QuicV1 => 1,
            Self::Tcp => 2,
            Self::Ws | Self::WebTransport => 3,
            Self::Wss => 4,
            Self::WebRtcDirect => 6,
        }
    }
}

impl Endpoint {
    /// Whatever follows the service, such as hashes of certificates, is of no importance here.
    pub(crate) fn parse(address: &Multiaddr) -> Option<Self> {
        let address = address.without_peer_id();
        let mut protocols = address.protocols();
        let ip = match protocols.next()? {
            Protocol::Ip4(ip) => IpAddr::V4(ip),
            Protocol::Ip6(ip) => IpAddr::V6(ip),
            _ => return None,
        };
        let first = protocols.next()?;
        let rest: Vec<Protocol<'_>> = protocols
            .filter(|protocol| !matches!(protocol, Protocol::Certhash(_) | Protocol::Sni(_)))
            .collect();
        let (port, service) = match (first, rest.as_slice()) {
            (Protocol::Tcp(port), [] | [Protocol::Noise] | [Protocol::Tls]) => (port, Service::Tcp),
            (Protocol::Tcp(port), [Protocol::Ws]) => (port, Service::Ws),
            (Protocol::Tcp(port), [Protocol::Wss] | [Protocol::Tls, Protocol::Ws]) => (port, Service::Wss),
            (Protocol::Udp(port), [Protocol::QuicV1]) => (port, Service::QuicV1),
            (Protocol::Udp(port), [Protocol::QuicV1, Protocol::WebTransport]) => {
                (port, Service::WebTransport)
            }
            (Protocol::Udp(port), [Protocol::WebRtcDirect]) => (port, Service::WebRtcDirect),
            _ => return None,
        };
        Some(Self { socket: SocketAddr::new(ip, port), service })
    }

    pub(crate) fn to_multiaddr(self) -> Multiaddr {
        let ip = match self.socket.ip() {
            IpAddr::V4(ip) => Protocol::Ip4(ip),
            IpAddr::V6(ip) => Protocol::Ip6(ip),
        };
        let port = self.socket.port();
        let rest: &[Protocol<'static>] = match self.service {
            Service::Tcp => &[Protocol::Tcp(port)],
            Service::Ws => &[Protocol::Tcp(port), Protocol::Ws],
            Service::Wss => &[Protocol::Tcp(port), Protocol::Tls, Protocol::Ws],
            Service::QuicV1 => &[Protocol::Udp(port), Protocol::QuicV1],
            Service::WebTransport => &[Protocol::Udp(port), Protocol::QuicV1, Protocol::WebTransport],
            Service::WebRtcDirect => &[Protocol::Udp(port), Protocol::WebRtcDirect],
        };
        Multiaddr::from_protocols(std::iter::once(ip).chain(rest.iter().cloned()))
    }
}
