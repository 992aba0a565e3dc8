//! TLS 1.3 as WebTransport needs it: the server shows whichever certificate is current, the client accepts those whose
//! hashes it was given.

use std::{
    fmt,
    sync::{Arc, OnceLock},
    time::{Duration, SystemTime},
};

use parking_lot::RwLock;
use peerloom_core::Multihash;
use peerloom_upgrade::tls::{KeyExchange, cryptography};
use quinn::crypto::rustls::{NoInitialCipherSuite, QuicClientConfig, QuicServerConfig};
use rustls::{
    CertificateError, DigitallySignedStruct, Error, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, WebPkiSupportedAlgorithms},
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use tokio::sync::watch;

use crate::{
    alpn::Alpn,
    certificate::{Certificate, Certificates, UnacceptableCertificate},
};

/// The wall clock is looked at at least this often, for it may jump and machines may sleep.
const CLOCK_CHECK: Duration = Duration::from_secs(60 * 60);

/// The certificates of a transport, for all of its listeners at once.
pub(super) struct ServedCertificates {
    certificates: RwLock<Certificates>,
    rotations: watch::Sender<()>,
}

impl ServedCertificates {
    pub(super) fn new(certificates: Certificates) -> Self {
        Self { certificates: RwLock::new(certificates), rotations: watch::Sender::new(()) }
    }

    pub(super) fn advertised(&self) -> [Multihash; 2] {
        self.certificates.read().advertised()
    }

    pub(super) fn confirmed(&self) -> Vec<Multihash> {
        self.certificates.read().confirmed()
    }

    /// Tells of rotations from now on.
    pub(super) fn rotations(&self) -> watch::Receiver<()> {
        self.rotations.subscribe()
    }

    /// Rotates if it is time, then says how long to wait before asking again.
    pub(super) fn rotate_if_due(&self) -> Duration {
        let now = SystemTime::now();
        let due =
            |certificates: &Certificates| certificates.rotate_at().duration_since(now).unwrap_or_default();
        let wait = due(&self.certificates.read());
        if !wait.is_zero() {
            return wait.min(CLOCK_CHECK);
        }
        let mut certificates = self.certificates.write();
        let before = certificates.advertised();
        if let Err(error) = certificates.rotate(now) {
            tracing::error!(%error, "WebTransport certificates were rotated but not kept; a restart will forget them");
        }
        let wait = due(&certificates).clamp(Duration::from_secs(1), CLOCK_CHECK);
        if before != certificates.advertised() {
            drop(certificates);
            self.rotations.send_replace(());
        }
        wait
    }
}

impl ResolvesServerCert for ServedCertificates {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let certificates = self.certificates.read();
        // The next one is advertised already, so serving it does not depend on anybody having called rotate.
        let due = certificates.rotate_at() <= SystemTime::now();
        Some(if due { certificates.next() } else { certificates.current() }.tls())
    }
}

impl fmt::Debug for ServedCertificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServedCertificates").finish_non_exhaustive()
    }
}

/// quinn's server side. A client certificate is not asked for: browsers refuse to be asked.
pub(super) fn server_config(
    certificates: Arc<ServedCertificates>,
    key_exchange: KeyExchange,
) -> Result<QuicServerConfig, String> {
    let mut config = rustls::ServerConfig::builder_with_provider(provider(key_exchange))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| error.to_string())?
        .with_no_client_auth()
        .with_cert_resolver(certificates);
    config.alpn_protocols = vec![Alpn::H3.name().to_vec()];
    // Tickets would let a client skip the certificate, and cost memory per connection.
    config.send_tls13_tickets = 0;
    config.try_into().map_err(|error: NoInitialCipherSuite| error.to_string())
}

/// quinn's client side for one dial, which accepts what `verifier` does.
pub(super) fn client_config(
    verifier: Arc<HashVerifier>,
    key_exchange: KeyExchange,
) -> Result<QuicClientConfig, String> {
    let mut config = rustls::ClientConfig::builder_with_provider(provider(key_exchange))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| error.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    config.alpn_protocols = vec![Alpn::H3.name().to_vec()];
    config.resumption = rustls::client::Resumption::disabled();
    config.try_into().map_err(|error: NoInitialCipherSuite| error.to_string())
}

fn provider(key_exchange: KeyExchange) -> Arc<CryptoProvider> {
    Arc::new(cryptography(key_exchange))
}

/// Accepts a certificate by its hash, as browsers do with `serverCertificateHashes`.
#[derive(Debug)]
pub(super) struct HashVerifier {
    hashes: Vec<Multihash>,
    algorithms: WebPkiSupportedAlgorithms,
    refusal: OnceLock<UnacceptableCertificate>,
    accepted: OnceLock<Multihash>,
}

impl HashVerifier {
    pub(super) fn new(hashes: Vec<Multihash>) -> Self {
        let algorithms = provider(KeyExchange::default()).signature_verification_algorithms;
        Self { hashes, algorithms, refusal: OnceLock::new(), accepted: OnceLock::new() }
    }

    /// Why the server's certificate was refused, if it was.
    pub(super) fn refusal(&self) -> Option<&UnacceptableCertificate> {
        self.refusal.get()
    }

    /// Checks that the server vouches for every hash that we were willing to accept. libp2p webtransport spec,
    /// "Security Handshake": the client MUST verify this.
    pub(super) fn confirm(&self, confirmed: &[Multihash]) -> Result<(), UnconfirmedCertificate> {
        match self.hashes.iter().chain(self.accepted.get()).all(|hash| confirmed.contains(hash)) {
            true => Ok(()),
            false => Err(UnconfirmedCertificate),
        }
    }
}

/// The server does not vouch for a certificate that we would have accepted: somebody else may be in between.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the remote does not confirm every certificate hash of the address")]
pub(super) struct UnconfirmedCertificate;

impl ServerCertVerifier for HashVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(now.as_secs());
        let certificate = Certificate::parse(end_entity.clone().into_owned()).and_then(|certificate| {
            certificate.accept(&self.hashes, now)?;
            Ok(certificate)
        });
        match certificate {
            Ok(certificate) => {
                let _ = self.accepted.set(certificate.hash());
                Ok(ServerCertVerified::assertion())
            }
            Err(refusal) => {
                let _ = self.refusal.set(refusal);
                Err(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure))
            }
        }
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        // QUIC is TLS 1.3 only: RFC 9001, section 4.2.
        Err(Error::General("TLS 1.2 in QUIC".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}
