//! `/<host>/udp/<port>/quic-v1`.

use std::net::SocketAddr;

use peerloom_core::{Multiaddr, Protocol};
use peerloom_socket::address::{Endpoint, udp_multiaddr};

/// The host and port of a QUIC address; `None` if `address` is not of this form.
pub(super) fn parse(address: &Multiaddr) -> Option<Endpoint<'_>> {
    Endpoint::udp(address).filter(|endpoint| endpoint.rest == [Protocol::QuicV1])
}

/// The address of `socket`.
pub(super) fn to_multiaddr(socket: SocketAddr) -> Multiaddr {
    udp_multiaddr(socket).with(Protocol::QuicV1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_quic_are_ours_and_what_goes_over_it_is_not() {
        let socket = "[2001:db8::1]:4001".parse().unwrap();
        assert_eq!(parse(&to_multiaddr(socket)).and_then(|endpoint| endpoint.socket_addr()), Some(socket));
        let named: Multiaddr = "/dns/example.org/udp/443/quic-v1".parse().unwrap();
        assert_eq!(parse(&named).map(|endpoint| endpoint.port), Some(443));
        for other in [
            "/ip4/1.2.3.4/udp/4001/quic-v1/webtransport",
            "/ip4/1.2.3.4/udp/4001/quic",
            "/ip4/1.2.3.4/udp/4001",
            "/ip4/1.2.3.4/tcp/4001",
        ] {
            assert!(parse(&other.parse().unwrap()).is_none());
        }
    }
}
