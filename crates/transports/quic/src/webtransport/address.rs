//! `/<host>/udp/<port>/quic-v1/webtransport`, and the certificate hashes that may follow.

use peerloom_core::{Multiaddr, Multihash, PeerId, Protocol};
use peerloom_socket::address::{Endpoint, Host, udp_multiaddr};

/// A WebTransport address taken apart.
pub(super) struct WebTransportAddress<'a> {
    pub(super) endpoint: Endpoint<'a>,
    pub(super) certificate_hashes: Vec<Multihash>,
    pub(super) peer: Option<PeerId>,
}

impl<'a> WebTransportAddress<'a> {
    /// `None` if `address` is not of this form.
    pub(super) fn parse(address: &'a Multiaddr) -> Option<Self> {
        let endpoint = Endpoint::udp(address)?;
        let mut rest = endpoint.rest.iter();
        if rest.next() != Some(&Protocol::QuicV1) || rest.next() != Some(&Protocol::WebTransport) {
            return None;
        }
        let certificate_hashes = rest
            .map(|protocol| match protocol {
                Protocol::Certhash(hash) => Some(hash.clone()),
                _ => None,
            })
            .collect::<Option<_>>()?;
        Some(Self { certificate_hashes, peer: address.peer_id(), endpoint })
    }

    /// The host as TLS and HTTP name it.
    pub(super) fn server_name(&self) -> String {
        match &self.endpoint.host {
            Host::Ip(ip) => ip.to_string(),
            Host::Name { name, .. } => name.clone(),
        }
    }

    /// Host and port as a URL has them.
    pub(super) fn authority(&self) -> String {
        let port = self.endpoint.port;
        match &self.endpoint.host {
            Host::Ip(std::net::IpAddr::V6(ip)) => format!("[{ip}]:{port}"),
            Host::Ip(ip) => format!("{ip}:{port}"),
            Host::Name { name, .. } => format!("{name}:{port}"),
        }
    }
}

/// The address of `socket`, with the hashes that a dialer needs, or none where that is not known.
pub(super) fn to_multiaddr(socket: std::net::SocketAddr, hashes: &[Multihash]) -> Multiaddr {
    let base = udp_multiaddr(socket).with(Protocol::QuicV1).with(Protocol::WebTransport);
    hashes.iter().fold(base, |address, hash| address.with(Protocol::Certhash(hash.clone())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Option<(String, usize)> {
        let address: Multiaddr = text.parse().unwrap();
        WebTransportAddress::parse(&address)
            .map(|parsed| (parsed.authority(), parsed.certificate_hashes.len()))
    }

    #[test]
    fn addresses_with_and_without_hashes_are_parsed_and_others_are_not_ours() {
        let hashes = [Multihash::sha2_256([1; 32]), Multihash::sha2_256([2; 32])];
        let built = to_multiaddr("[2001:db8::1]:4001".parse().unwrap(), &hashes);
        assert_eq!(parse(&built.to_string()), Some(("[2001:db8::1]:4001".to_owned(), 2)));
        assert_eq!(
            parse("/dns4/example.org/udp/443/quic-v1/webtransport"),
            Some(("example.org:443".to_owned(), 0))
        );
        for other in
            ["/ip4/1.2.3.4/udp/4001/quic-v1", "/ip4/1.2.3.4/tcp/4001", "/ip4/1.2.3.4/udp/1/webrtc-direct"]
        {
            assert_eq!(parse(other), None);
        }
    }
}
