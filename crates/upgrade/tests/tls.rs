//! The handshake with honest, broken and hostile remotes, in memory.

// Allowed in tests; clippy takes only the functions marked as such for tests.
#![cfg(not(target_arch = "wasm32"))]
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::sync::Arc;

use peerloom_core::{HandshakeError, Keypair, PeerId};
use peerloom_upgrade::tls::{
    ALPN, CertificateError, KeyExchange, PeerVerifier, TlsIdentity, refusal, remote_public_key,
};
use rustls::{
    AlertDescription, ClientConfig, ClientConnection, CommonState, Error, ServerConfig, ServerConnection,
};

fn identity(keypair: &Keypair) -> TlsIdentity {
    TlsIdentity::new(keypair, KeyExchange::default()).unwrap()
}

fn client(keypair: &Keypair, expected: Option<PeerId>) -> ClientConfig {
    identity(keypair).client(&[ALPN], Arc::new(PeerVerifier::new(expected)))
}

/// Lets the two speak until both have nothing more to say, or one fails.
fn run(
    client: ClientConfig,
    server: ServerConfig,
) -> (Result<ClientConnection, Error>, Result<ServerConnection, Error>) {
    let mut client = ClientConnection::new(Arc::new(client), "peer.invalid".try_into().unwrap()).unwrap();
    let mut server = ServerConnection::new(Arc::new(server)).unwrap();
    let (mut client_outcome, mut server_outcome) = (Ok(()), Ok(()));
    loop {
        let (mut to_server, mut to_client) = (Vec::new(), Vec::new());
        while client.wants_write() {
            client.write_tls(&mut to_server).unwrap();
        }
        while server.wants_write() {
            server.write_tls(&mut to_client).unwrap();
        }
        if to_server.is_empty() && to_client.is_empty() {
            return (client_outcome.map(|()| client), server_outcome.map(|()| server));
        }
        let mut to_server = to_server.as_slice();
        while !to_server.is_empty() {
            server.read_tls(&mut to_server).unwrap();
            server_outcome = server_outcome.and(server.process_new_packets().map(|_| ()));
        }
        let mut to_client = to_client.as_slice();
        while !to_client.is_empty() {
            client.read_tls(&mut to_client).unwrap();
            client_outcome = client_outcome.and(client.process_new_packets().map(|_| ()));
        }
    }
}

fn peer(connection: &CommonState) -> PeerId {
    remote_public_key(connection.peer_certificates().unwrap_or_default()).unwrap().peer_id()
}

#[test]
fn both_sides_know_each_other() {
    let (dialer, listener) = (Keypair::generate(), Keypair::generate());
    for expected in [None, Some(listener.peer_id())] {
        let (client, server) = run(client(&dialer, expected), identity(&listener).server(&[ALPN]));
        let (client, server) = (client.unwrap(), server.unwrap());
        assert_eq!((peer(&client), peer(&server)), (listener.peer_id(), dialer.peer_id()));
        assert_eq!(client.alpn_protocol(), Some(ALPN));
        assert_eq!(client.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_3));
        assert_eq!(server.server_name(), None);
    }
}

#[test]
fn the_server_takes_the_first_of_its_protocols_that_the_client_offers() {
    let (dialer, listener) = (Keypair::generate(), Keypair::generate());
    let verifier = Arc::new(PeerVerifier::new(None));
    let client = identity(&dialer).client(&[b"/other/1.0.0", b"/yamux/1.0.0", ALPN], verifier);
    let (client, _) = run(client, identity(&listener).server(&[b"/yamux/1.0.0", ALPN]));
    assert_eq!(client.unwrap().alpn_protocol(), Some(&b"/yamux/1.0.0"[..]));
}

#[test]
fn sides_without_a_common_protocol_part() {
    let dialer = client(&Keypair::generate(), None);
    let (client, server) = run(dialer, identity(&Keypair::generate()).server(&[b"h3"]));
    assert!(matches!(client, Err(Error::AlertReceived(AlertDescription::NoApplicationProtocol))));
    assert!(matches!(server, Err(Error::NoApplicationProtocol)));
}

#[test]
fn another_peer_than_expected_is_refused_by_name() {
    let listener = Keypair::generate();
    let somebody = Keypair::generate().peer_id();
    let verifier = Arc::new(PeerVerifier::new(Some(somebody)));
    let config = identity(&Keypair::generate()).client(&[ALPN], verifier.clone());
    let (client, server) = run(config, identity(&listener).server(&[ALPN]));
    let wrong = CertificateError::WrongPeer { expected: somebody, actual: listener.peer_id() };
    assert_eq!(refusal(&client.unwrap_err()), Some(&wrong));
    assert_eq!(verifier.refusal(), Some(&wrong));
    assert!(matches!(HandshakeError::from(wrong), HandshakeError::WrongPeer { .. }));
    assert!(matches!(server, Err(Error::AlertReceived(_))));
}

#[derive(Debug)]
struct NoCertificate;

impl rustls::client::ResolvesClientCert for NoCertificate {
    fn resolve(
        &self,
        _issuers: &[&[u8]],
        _schemes: &[rustls::SignatureScheme],
    ) -> Option<Arc<rustls::sign::CertifiedKey>> {
        None
    }
    fn has_certs(&self) -> bool {
        false
    }
}

#[test]
fn client_that_shows_no_certificate_is_refused() {
    let keypair = Keypair::generate();
    let mut config = client(&keypair, None);
    config.client_auth_cert_resolver = Arc::new(NoCertificate);
    let (_, server) = run(config, identity(&keypair).server(&[ALPN]));
    assert!(matches!(server, Err(Error::NoCertificatesPresented)));
}

/// A certificate chain for any purpose.
fn resolver(certificates: usize) -> Arc<rustls::sign::SingleCertAndKey> {
    let key = rcgen::KeyPair::generate().unwrap();
    let der = rcgen::CertificateParams::default().self_signed(&key).unwrap().der().clone();
    let private = rustls::pki_types::PrivateKeyDer::Pkcs8(key.serialize_der().into());
    let signer = rustls::crypto::aws_lc_rs::sign::any_ecdsa_type(&private).unwrap();
    let certified = rustls::sign::CertifiedKey::new(vec![der; certificates], signer);
    Arc::new(certified.into())
}

#[test]
fn certificates_without_the_extension_are_refused_on_both_sides() {
    let keypair = Keypair::generate();
    let mut dialer = client(&keypair, None);
    dialer.client_auth_cert_resolver = resolver(1);
    let (_, server) = run(dialer, identity(&keypair).server(&[ALPN]));
    assert_eq!(refusal(&server.unwrap_err()), Some(&CertificateError::NoExtension));

    let mut listener = identity(&keypair).server(&[ALPN]);
    listener.cert_resolver = resolver(1);
    let (client, _) = run(client(&keypair, None), listener);
    assert_eq!(refusal(&client.unwrap_err()), Some(&CertificateError::NoExtension));
}

#[test]
fn chains_are_refused_on_both_sides() {
    let keypair = Keypair::generate();
    let mut dialer = client(&keypair, None);
    dialer.client_auth_cert_resolver = resolver(2);
    let (_, server) = run(dialer, identity(&keypair).server(&[ALPN]));
    assert_eq!(refusal(&server.unwrap_err()), Some(&CertificateError::Count(2)));

    let mut listener = identity(&keypair).server(&[ALPN]);
    listener.cert_resolver = resolver(3);
    let (client, _) = run(client(&keypair, None), listener);
    assert_eq!(refusal(&client.unwrap_err()), Some(&CertificateError::Count(3)));
}

#[test]
fn tls_1_2_is_refused() {
    let keypair = Keypair::generate();
    let mut old =
        ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS12])
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(PeerVerifier::new(None)))
            .with_no_client_auth();
    old.alpn_protocols = vec![ALPN.to_vec()];
    let (client, server) = run(old, identity(&keypair).server(&[ALPN]));
    assert!(matches!(client, Err(Error::AlertReceived(AlertDescription::ProtocolVersion))));
    assert!(matches!(server, Err(Error::PeerIncompatible(_))));
}

#[test]
fn aes_is_preferred_where_the_processor_has_instructions_for_it_and_chacha_elsewhere() {
    #[cfg(target_arch = "x86_64")]
    let has_aes = std::is_x86_feature_detected!("aes") && std::is_x86_feature_detected!("pclmulqdq");
    #[cfg(target_arch = "aarch64")]
    let has_aes = std::arch::is_aarch64_feature_detected!("aes");
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let has_aes = false;
    let expected = match has_aes {
        true => rustls::CipherSuite::TLS13_AES_128_GCM_SHA256,
        false => rustls::CipherSuite::TLS13_CHACHA20_POLY1305_SHA256,
    };
    let keypair = Keypair::generate();
    let dialer = identity(&keypair).client(&[ALPN], Arc::new(PeerVerifier::new(None)));
    let (client, _) = run(dialer, identity(&keypair).server(&[ALPN]));
    assert_eq!(client.unwrap().negotiated_cipher_suite().unwrap().suite(), expected);
}

#[test]
fn post_quantum_key_exchange_is_an_option_of_the_dialer() {
    let keypair = Keypair::generate();
    for (key_exchange, group) in [
        (KeyExchange::Classical, rustls::NamedGroup::X25519),
        (KeyExchange::PostQuantum, rustls::NamedGroup::X25519MLKEM768),
    ] {
        let dialer = TlsIdentity::new(&keypair, key_exchange).unwrap();
        let dialer = dialer.client(&[ALPN], Arc::new(PeerVerifier::new(None)));
        // Both in one round trip.
        let (client, _) = run(dialer, TlsIdentity::new(&keypair, key_exchange).unwrap().server(&[ALPN]));
        let client = client.unwrap();
        assert_eq!(client.negotiated_key_exchange_group().unwrap().name(), group);
        assert_eq!(client.handshake_kind(), Some(rustls::HandshakeKind::Full));
    }
}
