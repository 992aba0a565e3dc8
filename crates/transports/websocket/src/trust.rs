//! Whose certificates are accepted of a WebSocket that is dialed with TLS.

use std::{fmt, io, sync::Arc};

use rustls::{
    ClientConfig, DigitallySignedStruct, Error, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use rustls_platform_verifier::Verifier;
use tokio::sync::OnceCell;
use tokio_rustls::TlsConnector;

/// The certificate authorities that are trusted. Which certificate a peer shows says only that it has a name; who it is, is
/// for the handshake inside to prove.
#[derive(Clone)]
pub struct Trust {
    whom: Whom,
    /// Made with the first dial: reading the platform's certificates takes milliseconds.
    config: Arc<OnceCell<Arc<ClientConfig>>>,
}

#[derive(Clone)]
enum Whom {
    Platform { extra: Vec<CertificateDer<'static>> },
    Anyone,
}

impl Trust {
    /// Those that the platform trusts: what an operator has added or removed there counts here.
    pub fn platform() -> Self {
        Self::platform_and(Vec::new())
    }

    /// Those that the platform trusts, and these.
    pub fn platform_and(extra: Vec<CertificateDer<'static>>) -> Self {
        Self { whom: Whom::Platform { extra }, config: Arc::default() }
    }

    /// Any certificate, be it self-signed, expired or for another name: TLS hides what it carries from those who only
    /// listen, and proves nothing. That is enough where the dialed address names the peer, since the handshake inside proves
    /// that one; an address without `/p2p` could lead to anybody.
    pub fn anyone() -> Self {
        Self { whom: Whom::Anyone, config: Arc::default() }
    }

    pub(crate) async fn connector(&self) -> io::Result<TlsConnector> {
        let config = self.config.get_or_try_init(async || {
            let whom = self.whom.clone();
            tokio::task::spawn_blocking(move || client_config(whom)).await?
        });
        Ok(TlsConnector::from(config.await?.clone()))
    }
}

fn client_config(whom: Whom) -> io::Result<Arc<ClientConfig>> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier: Arc<dyn ServerCertVerifier> = match whom {
        Whom::Anyone => Arc::new(AnyCertificate { provider: provider.clone() }),
        Whom::Platform { extra } => {
            Arc::new(Verifier::new_with_extra_roots(extra, provider.clone()).map_err(|error| {
                io::Error::other(format!("the platform's certificate authorities cannot be read: {error}"))
            })?)
        }
    };
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    // As browsers do for WebSocket: it is no protocol of HTTP/2's here.
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// Verifies that the server has the key of its certificate, and no more.
#[derive(Debug)]
struct AnyCertificate {
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _certificate: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Trust");
        match &self.whom {
            Whom::Platform { extra } => debug.field("extra", &extra.len()),
            Whom::Anyone => debug.field("anyone", &true),
        };
        debug.finish_non_exhaustive()
    }
}
