//! What one port number carries, for an operator to open it in one firewall.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket},
};

use peerloom_core::{Multiaddr, Protocol};

/// Numbers tried before giving up: a number that is free for UDP over IPv4 is almost always free for the rest.
const ATTEMPTS: usize = 16;

/// Which services a port has.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Services {
    /// Then UDP is left out.
    pub(crate) private: bool,
    /// Whether there is a certificate for secure WebSocket.
    pub(crate) certificate: bool,
}

/// Everything that port `port` carries, on all addresses of the machine. 0 is for any that is free.
pub(crate) fn addresses(port: u16, services: Services) -> io::Result<Vec<Multiaddr>> {
    let rests = on_port(services);
    if rests.is_empty() {
        return Ok(Vec::new());
    }
    let ipv6 = has_ipv6();
    let port = match port {
        0 => free_port(ipv6)?,
        port => port,
    };
    let hosts = [Protocol::Ip4(Ipv4Addr::UNSPECIFIED), Protocol::Ip6(Ipv6Addr::UNSPECIFIED)];
    let hosts = hosts.into_iter().take(if ipv6 { 2 } else { 1 });
    let on_host = |host: Protocol<'static>| {
        let on_transport = move |(transport, rest): &(Transport, &[Protocol<'static>])| {
            let below = match transport {
                Transport::Tcp => Protocol::Tcp(port),
                Transport::Udp => Protocol::Udp(port),
            };
            Multiaddr::from_protocols([host.clone(), below].into_iter().chain(rest.iter().cloned()))
        };
        rests.iter().map(on_transport).collect::<Vec<_>>()
    };
    Ok(hosts.flat_map(on_host).collect())
}

#[derive(Clone, Copy)]
enum Transport {
    Tcp,
    Udp,
}

/// What stands behind host and port.
fn on_port(services: Services) -> Vec<(Transport, &'static [Protocol<'static>])> {
    let candidates: [(bool, Transport, &[Protocol<'static>]); 6] = [
        (cfg!(feature = "quic") && !services.private, Transport::Udp, &[Protocol::QuicV1]),
        (
            cfg!(feature = "quic") && !services.private,
            Transport::Udp,
            &[Protocol::QuicV1, Protocol::WebTransport],
        ),
        (cfg!(feature = "webrtc") && !services.private, Transport::Udp, &[Protocol::WebRtcDirect]),
        (cfg!(feature = "tcp"), Transport::Tcp, &[]),
        (cfg!(feature = "websocket"), Transport::Tcp, &[Protocol::Ws]),
        (cfg!(feature = "websocket") && services.certificate, Transport::Tcp, &[Protocol::Tls, Protocol::Ws]),
    ];
    let there = candidates.into_iter().filter(|(is_there, ..)| *is_there);
    there.map(|(_, transport, rest)| (transport, rest)).collect()
}

/// Whether the system has IPv6 at all.
fn has_ipv6() -> bool {
    UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).is_ok()
}

/// A number that is free for TCP and UDP at this moment.
fn free_port(ipv6: bool) -> io::Result<u16> {
    let mut outcome = Err(io::ErrorKind::AddrInUse.into());
    for _ in 0..ATTEMPTS {
        let udp = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        let port = udp.local_addr()?.port();
        // IPv6 sockets may want IPv4's numbers, too.
        drop(udp);
        outcome = is_free(port, ipv6).map(|()| port);
        if outcome.is_ok() {
            break;
        }
    }
    outcome
}

fn is_free(port: u16, ipv6: bool) -> io::Result<()> {
    let ip4 = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
    let ip6 = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
    for address in [Some(ip4), ipv6.then_some(ip6)].into_iter().flatten() {
        UdpSocket::bind(address)?;
        TcpListener::bind(address)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(services: Services) -> Vec<String> {
        addresses(4001, services).unwrap().iter().map(ToString::to_string).collect()
    }

    #[cfg(all(feature = "tcp", feature = "websocket", feature = "quic", feature = "webrtc"))]
    #[test]
    fn one_port_number_carries_every_transport() {
        let all = texts(Services { private: false, certificate: true });
        for rest in [
            "/udp/4001/quic-v1",
            "/udp/4001/quic-v1/webtransport",
            "/udp/4001/webrtc-direct",
            "/tcp/4001",
            "/tcp/4001/ws",
            "/tcp/4001/tls/ws",
        ] {
            assert!(all.contains(&format!("/ip4/0.0.0.0{rest}")), "{rest}: {all:?}");
            assert_eq!(all.contains(&format!("/ip6/::{rest}")), has_ipv6(), "{rest}: {all:?}");
        }
        let without = texts(Services { private: false, certificate: false });
        assert!(!without.iter().any(|address| address.contains("tls")), "{without:?}");
    }

    #[test]
    fn a_private_port_has_no_udp() {
        let private = texts(Services { private: true, certificate: false });
        assert!(!private.iter().any(|address| address.contains("udp")), "{private:?}");
    }

    #[test]
    fn any_port_is_the_same_number_for_all() {
        let found = addresses(0, Services { private: false, certificate: false }).unwrap();
        let mut numbers: Vec<u16> = found
            .iter()
            .flat_map(|address| address.protocols())
            .filter_map(|protocol| match protocol {
                Protocol::Tcp(port) | Protocol::Udp(port) => Some(port),
                _ => None,
            })
            .collect();
        numbers.dedup();
        assert!(numbers.len() <= 1 && !numbers.contains(&0), "{numbers:?}");
    }
}
