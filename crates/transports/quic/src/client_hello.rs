//! The application protocols that a TLS client offers, read before TLS itself begins: which of our configurations serves
//! it depends on them. RFC 8446, section 4.1.2; RFC 7301.

#![warn(clippy::arithmetic_side_effects)]

/// The handshake type of a ClientHello.
const CLIENT_HELLO: u8 = 1;

/// The extension `application_layer_protocol_negotiation`.
const ALPN: u16 = 16;

/// What the first bytes of a handshake are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Beginning<'a> {
    /// A ClientHello that is not all there yet, or may be one.
    Incomplete,
    /// The whole body of a ClientHello.
    ClientHello(&'a [u8]),
    /// Nothing that a handshake begins with.
    Other,
}

/// Looks at what a client has sent so far.
pub(crate) fn beginning(bytes: &[u8]) -> Beginning<'_> {
    match bytes {
        [] => Beginning::Incomplete,
        [CLIENT_HELLO, a, b, c, rest @ ..] => {
            let length = u32::from_be_bytes([0, *a, *b, *c]);
            let body = usize::try_from(length).ok().and_then(|length| rest.get(..length));
            body.map_or(Beginning::Incomplete, Beginning::ClientHello)
        }
        [CLIENT_HELLO, ..] => Beginning::Incomplete,
        _ => Beginning::Other,
    }
}

/// The protocols that the ClientHello with this body offers, in the client's order; none if it is malformed, for TLS to
/// complain of.
pub(crate) fn offered_protocols(body: &[u8]) -> Vec<&[u8]> {
    protocols(body).unwrap_or_default()
}

fn protocols(body: &[u8]) -> Option<Vec<&[u8]>> {
    // legacy_version and random; session id, cipher suites, compression methods.
    let rest = body.get(2_usize.saturating_add(32)..)?;
    let (_, rest) = vector8(rest)?;
    let (_, rest) = vector16(rest)?;
    let (_, rest) = vector8(rest)?;
    let (mut extensions, _) = vector16(rest)?;
    while !extensions.is_empty() {
        let (kind, rest) = extensions.split_first_chunk()?;
        let (content, rest) = vector16(rest)?;
        if u16::from_be_bytes(*kind) == ALPN {
            let (mut names, _) = vector16(content)?;
            let mut offered = Vec::new();
            while !names.is_empty() {
                let (name, rest) = vector8(names)?;
                offered.push(name);
                names = rest;
            }
            return Some(offered);
        }
        extensions = rest;
    }
    None
}

/// A vector with a length of one byte, and what follows it.
fn vector8(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first()?;
    rest.split_at_checked(usize::from(*length))
}

/// A vector with a length of two bytes, and what follows it.
fn vector16(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk()?;
    rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;

    /// What rustls sends first for these protocols.
    fn client_hello(protocols: &[&[u8]]) -> Vec<u8> {
        let identity = peerloom_core::Keypair::from_seed([1; 32]);
        let tls = peerloom_upgrade::tls::TlsIdentity::new(&identity, Default::default()).unwrap();
        let verifier = Arc::new(peerloom_upgrade::tls::PeerVerifier::new(None));
        let config = Arc::new(tls.client(protocols, verifier));
        let name = "libp2p".try_into().unwrap();
        let mut client =
            rustls::quic::ClientConnection::new(config, rustls::quic::Version::V1, name, vec![1, 2]).unwrap();
        let mut hello = Vec::new();
        client.write_hs(&mut hello);
        hello
    }

    fn body(hello: &[u8]) -> &[u8] {
        match beginning(hello) {
            Beginning::ClientHello(body) => body,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn protocols_are_read_in_the_clients_order() {
        let hello = client_hello(&[b"h3", b"libp2p"]);
        assert_eq!(offered_protocols(body(&hello)), [&b"h3"[..], b"libp2p"]);
        assert!(offered_protocols(body(&client_hello(&[]))).is_empty());
    }

    #[test]
    fn an_incomplete_hello_is_waited_for() {
        let hello = client_hello(&[b"libp2p"]);
        for length in 0..hello.len() {
            assert_eq!(beginning(&hello[..length]), Beginning::Incomplete);
        }
        assert_eq!(beginning(&[2, 0, 0, 0]), Beginning::Other);
    }

    proptest! {
        #[test]
        fn garbage_offers_nothing_or_something_of_it(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            for name in offered_protocols(&bytes) {
                prop_assert!(name.len() < bytes.len());
            }
        }

        #[test]
        fn a_damaged_hello_does_no_harm(position: prop::sample::Index, byte: u8) {
            let mut hello = client_hello(&[b"libp2p"]);
            let position = position.index(hello.len());
            hello[position] = byte;
            if let Beginning::ClientHello(body) = beginning(&hello) {
                offered_protocols(body);
            }
        }
    }
}
