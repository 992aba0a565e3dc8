//! Which addresses of a peer are worth a dial, and in which order.

use std::net::{Ipv4Addr, Ipv6Addr};

use peerloom_core::{Multiaddr, Protocol};

/// Where an address comes in the order: lower first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank {
    /// It has failed of late, or is of a kind that does.
    doubtful: bool,
    /// Direct, then direct by the introduction of a relay, then through a relay.
    relayed: u8,
    /// Fewer round trips before streams first: UDP before TCP.
    transport: u8,
    /// IPv6 before IPv4.
    ip4: bool,
}

impl Rank {
    pub(super) fn of(address: &Multiaddr, doubtful: bool) -> Self {
        let mut rank = Self { doubtful, relayed: 0, transport: 5, ip4: false };
        for protocol in address.protocols() {
            match protocol {
                Protocol::P2pCircuit => rank.relayed = 2,
                Protocol::WebRtc => rank.relayed = 1,
                Protocol::Ip4(_) | Protocol::Dns4(_) => rank.ip4 = true,
                Protocol::QuicV1 => rank.transport = 0,
                Protocol::WebTransport => rank.transport = 1,
                Protocol::Tcp(_) => rank.transport = rank.transport.min(2),
                Protocol::Ws | Protocol::Wss => rank.transport = 3,
                Protocol::WebRtcDirect => rank.transport = 4,
                _ => {}
            }
        }
        rank
    }
}

/// Adds to `sorted`, after what is as good. They are few, and a general sort is many times the code in a page.
pub(super) fn insert_by_rank<T>(sorted: &mut Vec<T>, new: T, rank: impl Fn(&T) -> Rank) {
    let at = sorted.partition_point(|better| rank(better) <= rank(&new));
    sorted.insert(at, new);
}

/// Whether the relay in the address only introduces the two peers to each other.
pub(super) fn is_page_to_page(address: &Multiaddr) -> bool {
    address.protocols().any(|protocol| protocol == Protocol::WebRtc)
}

/// Whether the address, if it answers at all, does so in this host or its network.
pub(super) fn is_private(address: &Multiaddr) -> bool {
    match address.protocols().next() {
        Some(Protocol::Ip4(ip)) => is_private_ip4(ip),
        Some(Protocol::Ip6(ip)) => match ip.to_ipv4_mapped() {
            Some(ip) => is_private_ip4(ip),
            None => is_private_ip6(ip),
        },
        Some(Protocol::Ip6Zone(_)) => true,
        _ => false,
    }
}

fn is_private_ip4(ip: Ipv4Addr) -> bool {
    let [first, second, ..] = ip.octets();
    // RFC 6598, "Shared Address Space".
    let is_shared = first == 100 && (64..128).contains(&second);
    ip.is_private() || ip.is_loopback() || ip.is_link_local() || is_shared
}

fn is_private_ip6(ip: Ipv6Addr) -> bool {
    ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local()
}

/// The QUIC address whose socket a WebTransport address shares: what the one cannot reach, the other cannot either.
pub(super) fn quic_of_web_transport(address: &Multiaddr) -> Option<Multiaddr> {
    let mut protocols = address.protocols();
    let socket: Vec<_> =
        protocols.by_ref().take_while(|protocol| *protocol != Protocol::WebTransport).collect();
    is_web_transport(address).then(|| Multiaddr::from_protocols(socket))
}

/// Whether a dial opens a session of WebTransport, not a circuit over one.
pub(super) fn is_web_transport(address: &Multiaddr) -> bool {
    address.protocols().any(|protocol| protocol == Protocol::WebTransport) && !address.is_relayed()
}

/// Whether packets to both go to one port of one host.
pub(super) fn share_socket(one: &Multiaddr, other: &Multiaddr) -> bool {
    !one.is_relayed() && !other.is_relayed() && one.protocols().take(2).eq(other.protocols().take(2))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(address: &str) -> Multiaddr {
        address.parse().unwrap()
    }

    #[test]
    fn addresses_that_need_fewest_round_trips_come_first() {
        let expected = [
            "/ip6/::1/udp/1/quic-v1",
            "/ip4/1.2.3.4/udp/1/quic-v1",
            "/ip4/1.2.3.4/udp/1/quic-v1/webtransport",
            "/ip6/::1/tcp/1",
            "/ip4/1.2.3.4/tcp/1",
            "/ip4/1.2.3.4/tcp/1/ws",
            "/ip4/1.2.3.4/udp/1/webrtc-direct",
            "/ip4/1.2.3.4/tcp/1/ws/p2p-circuit/webrtc",
            "/ip4/1.2.3.4/udp/1/quic-v1/p2p-circuit",
        ]
        .map(parse);
        let mut sorted = Vec::new();
        for address in expected.iter().rev() {
            insert_by_rank(&mut sorted, address.clone(), |address| Rank::of(address, false));
        }
        assert_eq!(sorted, expected);
    }

    #[test]
    fn doubtful_addresses_come_last() {
        let quic = Rank::of(&parse("/ip6/::1/udp/1/quic-v1"), true);
        let relayed = Rank::of(&parse("/ip4/1.2.3.4/udp/1/quic-v1/p2p-circuit"), false);
        assert!(relayed < quic);
    }

    #[test]
    fn private_networks_are_told_from_the_internet() {
        for private in [
            "/ip4/10.1.2.3/tcp/1",
            "/ip4/127.0.0.1/tcp/1",
            "/ip4/169.254.1.1/tcp/1",
            "/ip4/100.64.0.1/tcp/1",
            "/ip6/::1/tcp/1",
            "/ip6/fd00::1/udp/1/quic-v1",
            "/ip6/fe80::1/udp/1/quic-v1",
            "/ip6/::ffff:192.168.1.1/tcp/1",
        ] {
            assert!(is_private(&parse(private)), "{private}");
        }
        for public in ["/ip4/1.2.3.4/tcp/1", "/ip6/2001:db8::1/tcp/1", "/dns4/example.com/tcp/1"] {
            assert!(!is_private(&parse(public)), "{public}");
        }
    }

    #[test]
    fn web_transport_shares_the_socket_of_quic() {
        let quic = parse("/ip4/1.2.3.4/udp/1/quic-v1");
        assert_eq!(
            quic_of_web_transport(&parse("/ip4/1.2.3.4/udp/1/quic-v1/webtransport")),
            Some(quic.clone())
        );
        assert_eq!(quic_of_web_transport(&quic), None);
    }
}
