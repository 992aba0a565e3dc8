//! What rustls asks us about the remote's certificate.

use std::{
    fmt,
    sync::{Arc, OnceLock},
};

use peerloom_core::{PeerId, PublicKey};
use rustls::{
    DigitallySignedStruct, DistinguishedName, Error, OtherError, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{WebPkiSupportedAlgorithms, verify_tls13_signature_with_raw_key},
    pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime},
    server::danger::{ClientCertVerified, ClientCertVerifier},
};

use super::certificate::{CertificateError, PeerCertificate};

/// Accepts exactly the certificates of the libp2p tls spec: of any peer, or of one. For one handshake.
#[derive(Debug)]
pub struct PeerVerifier {
    expected: Option<PeerId>,
    algorithms: WebPkiSupportedAlgorithms,
    refusal: OnceLock<CertificateError>,
}

impl PeerVerifier {
    /// Accepts the certificate of `expected`, or of anybody.
    pub fn new(expected: Option<PeerId>) -> Self {
        let algorithms = rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms;
        Self { expected, algorithms, refusal: OnceLock::new() }
    }

    /// Why the remote's certificate was refused, if it was; for callers that get no [`rustls::Error`] to ask
    /// [`refusal`](self::refusal) about.
    pub fn refusal(&self) -> Option<&CertificateError> {
        self.refusal.get()
    }

    fn verify(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Error> {
        check(end_entity, intermediates, now, self.expected).map_err(|refusal| {
            let _ = self.refusal.set(refusal.clone());
            into_rustls(refusal)
        })
    }

    fn verify_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        // rustls would parse the certificate again, and refuse the libp2p extension where it is critical.
        let certificate = PeerCertificate::parse(certificate).map_err(into_rustls)?;
        let key = SubjectPublicKeyInfoDer::from(certificate.spki());
        verify_tls13_signature_with_raw_key(message, &key, signature, &self.algorithms)
    }
}

fn check(
    end_entity: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    now: UnixTime,
    expected: Option<PeerId>,
) -> Result<(), CertificateError> {
    if !intermediates.is_empty() {
        return Err(CertificateError::Count(intermediates.len().saturating_add(1)));
    }
    let certificate = PeerCertificate::parse(end_entity)?;
    certificate.verify(now)?;
    let actual = certificate.public_key().peer_id();
    match expected {
        Some(expected) if expected != actual => Err(CertificateError::WrongPeer { expected, actual }),
        _ => Ok(()),
    }
}

/// The identity key in the certificate of a remote whose handshake is done, from what rustls or quinn keeps of it. The
/// verifier has checked it, so that is not done again.
pub fn remote_public_key(certificates: &[CertificateDer<'_>]) -> Result<PublicKey, CertificateError> {
    match certificates {
        [certificate] => Ok(PeerCertificate::parse(certificate)?.public_key().clone()),
        other => Err(CertificateError::Count(other.len())),
    }
}

/// Our reason in an error of rustls, if it has one.
pub fn refusal(error: &Error) -> Option<&CertificateError> {
    match error {
        Error::InvalidCertificate(rustls::CertificateError::Other(OtherError(ours))) => {
            ours.downcast_ref().map(|Refusal(refusal)| refusal)
        }
        _ => None,
    }
}

fn into_rustls(refusal: CertificateError) -> Error {
    Error::InvalidCertificate(rustls::CertificateError::Other(OtherError(Arc::new(Refusal(refusal)))))
}

/// A refusal in words even where rustls asks for its `Debug`, which is all that quinn hands on.
#[derive(thiserror::Error)]
#[error("{0}")]
struct Refusal(CertificateError);

impl fmt::Debug for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// TLS 1.2 is never negotiated. libp2p tls spec, "Handshake Protocol": endpoints MUST NOT negotiate lower versions.
fn tls12() -> Error {
    Error::General("TLS 1.2 in libp2p".to_owned())
}

impl ServerCertVerifier for PeerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.verify(end_entity, intermediates, now)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verify_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

impl ClientCertVerifier for PeerVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.verify(end_entity, intermediates, now)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verify_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
