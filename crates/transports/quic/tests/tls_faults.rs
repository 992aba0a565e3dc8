//! Certificates with one thing wrong with each, shown by dialers and by listeners.

// The whole file is tests; clippy takes only the functions marked as such for those.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::{net::Ipv4Addr, sync::Arc, time::Duration};

use common::{Server, port};
use peerloom_core::{DialError, HandshakeError, Keypair, Transport as _, runtime::timeout};
use peerloom_quic::{QuicConfig, QuicTransport};
use peerloom_transport_suite::certificates::{FAULTS, certified};
use peerloom_upgrade::tls::{ALPN, KeyExchange, PeerVerifier, TlsIdentity};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::sign::{CertifiedKey, SingleCertAndKey};

fn identity() -> TlsIdentity {
    TlsIdentity::new(&Keypair::generate(), KeyExchange::Classical).unwrap()
}

/// What a listener makes of a dialer that shows this.
async fn listener_says(shown: Arc<dyn rustls::client::ResolvesClientCert>) -> Option<HandshakeError> {
    let transport = QuicTransport::new(Keypair::generate(), QuicConfig::default()).unwrap();
    let listener = transport.listen("/ip4/127.0.0.1/udp/0/quic-v1".parse().unwrap()).await.unwrap();
    let mut server = Server::new(listener);
    let mut tls = identity().client(&[ALPN], Arc::new(PeerVerifier::new(None)));
    tls.client_auth_cert_resolver = shown;
    let config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()));
    let endpoint = quinn::Endpoint::client((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let address = (Ipv4Addr::LOCALHOST, port(&server.address)).into();
    // The client is done before the server has seen its certificate; then it is told.
    let told = async {
        match endpoint.connect_with(config, address, "x").unwrap().await {
            Ok(connection) => connection.closed().await,
            Err(error) => error,
        }
    };
    let (handshake, told) = tokio::join!(server.handshakes.recv(), timeout(Duration::from_secs(10), told));
    let refusal = handshake.unwrap().err();
    if refusal.is_some() {
        assert!(matches!(told, Ok(quinn::ConnectionError::ConnectionClosed(_))), "{told:?}");
    }
    refusal
}

/// What a dialer makes of a listener that shows this.
async fn dialer_says(shown: Arc<SingleCertAndKey>) -> Option<DialError> {
    let mut tls = identity().server(&[ALPN]);
    tls.cert_resolver = shown;
    let config = quinn::ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls).unwrap()));
    let endpoint = quinn::Endpoint::server(config, (Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let address = format!("/ip4/127.0.0.1/udp/{}/quic-v1", endpoint.local_addr().unwrap().port());
    let transport = QuicTransport::new(Keypair::generate(), QuicConfig::default()).unwrap();
    let accept = async { endpoint.accept().await.unwrap().await };
    let (dialed, _accepted) = tokio::join!(transport.dial(address.parse().unwrap()), accept);
    dialed.err()
}

#[tokio::test]
async fn a_dialer_with_a_faulty_certificate_is_refused_and_told() {
    for (fault, words) in FAULTS {
        match listener_says(certified(fault)).await {
            Some(HandshakeError::Invalid { reason, .. }) => {
                assert!(reason.contains(words), "{fault:?}: {reason}")
            }
            other => panic!("{fault:?}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn a_listener_with_a_faulty_certificate_is_refused() {
    for (fault, words) in FAULTS {
        match dialer_says(certified(fault)).await {
            Some(DialError::Handshake {
                source: HandshakeError::Invalid { step: "tls", reason }, ..
            }) => {
                assert!(reason.contains(words), "{fault:?}: {reason}");
            }
            other => panic!("{fault:?}: {other:?}"),
        }
    }
}

#[derive(Debug)]
struct NoCertificate;

impl rustls::client::ResolvesClientCert for NoCertificate {
    fn resolve(&self, _: &[&[u8]], _: &[rustls::SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        None
    }
    fn has_certs(&self) -> bool {
        false
    }
}

#[tokio::test]
async fn a_dialer_without_a_certificate_is_refused_and_told() {
    match listener_says(Arc::new(NoCertificate)).await {
        Some(HandshakeError::Invalid { reason, .. }) => {
            assert!(reason.contains("no certificates"), "{reason}")
        }
        other => panic!("{other:?}"),
    }
}
