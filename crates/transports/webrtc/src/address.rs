//! `/<host>/udp/<port>/webrtc-direct`, and the certificate hashes that may follow (`webrtc/webrtc-direct.md`,
//! "Addressing").

use std::net::SocketAddr;

use peerloom_core::{Multiaddr, Multihash, PeerId, Protocol};
use peerloom_socket::address::{Endpoint, udp_multiaddr};

/// SHA-256, the only hash that everybody must understand and the one that the Noise prologue uses.
const SHA2_256: u64 = 0x12;

/// A WebRTC-direct address taken apart.
pub(crate) struct WebRtcAddress<'a> {
    pub(crate) endpoint: Endpoint<'a>,
    /// Those that we can compare.
    pub(crate) certhashes: Vec<Multihash>,
    pub(crate) peer: Option<PeerId>,
}

impl<'a> WebRtcAddress<'a> {
    /// `None` if `address` is not of this form.
    pub(crate) fn parse(address: &'a Multiaddr) -> Option<Self> {
        let endpoint = Endpoint::udp(address)?;
        let (first, hashes) = endpoint.rest.split_first()?;
        if *first != Protocol::WebRtcDirect {
            return None;
        }
        let certhashes: Vec<_> = hashes
            .iter()
            .map(|protocol| match protocol {
                Protocol::Certhash(hash) => Some(hash.clone()),
                _ => None,
            })
            .collect::<Option<_>>()?;
        let certhashes = certhashes.into_iter().filter(|hash| hash.code() == SHA2_256).collect();
        Some(Self { certhashes, peer: address.peer_id(), endpoint })
    }
}

/// The address of `socket`, with the hash that a dialer needs, or none where that is not known.
pub(crate) fn to_multiaddr(socket: SocketAddr, certhash: Option<&Multihash>) -> Multiaddr {
    let address = udp_multiaddr(socket).with(Protocol::WebRtcDirect);
    match certhash {
        Some(hash) => address.with(Protocol::Certhash(hash.clone())),
        None => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_with_and_without_hash_are_parsed_and_others_are_not_ours() {
        let hash = Multihash::sha2_256([7; 32]);
        let built = to_multiaddr("[2001:db8::1]:4001".parse().unwrap(), Some(&hash));
        assert!(built.to_string().starts_with("/ip6/2001:db8::1/udp/4001/webrtc-direct/certhash/uEi"));
        let parsed = WebRtcAddress::parse(&built).unwrap();
        assert_eq!(parsed.certhashes, [hash]);
        assert_eq!(parsed.endpoint.port, 4001);
        for text in ["/ip4/1.2.3.4/udp/1/webrtc-direct", "/dns4/example.org/udp/443/webrtc-direct"] {
            assert!(WebRtcAddress::parse(&text.parse().unwrap()).unwrap().certhashes.is_empty());
        }
        for text in
            ["/ip4/1.2.3.4/tcp/1", "/ip4/1.2.3.4/udp/1/quic-v1", "/ip4/1.2.3.4/udp/1/webrtc-direct/webrtc"]
        {
            assert!(WebRtcAddress::parse(&text.parse().unwrap()).is_none(), "{text}");
        }
    }
}
