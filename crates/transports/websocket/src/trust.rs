//! Whose certificates are accepted of a WebSocket that is dialed with TLS.

use std::{fmt, io, sync::Arc};

use rustls::{ClientConfig, pki_types::CertificateDer};
use rustls_platform_verifier::Verifier;
use tokio::sync::OnceCell;
use tokio_rustls::TlsConnector;

/// The certificate authorities that are trusted. Which certificate a peer shows says only that it has a name; who it is, is
/// for the handshake inside to prove.
#[derive(Clone)]
pub struct Trust {
    extra: Vec<CertificateDer<'static>>,
    /// Made with the first dial: reading the platform's certificates takes milliseconds.
    config: Arc<OnceCell<Arc<ClientConfig>>>,
}

impl Trust {
    /// Those that the platform trusts: what an operator has added or removed there counts here.
    pub fn platform() -> Self {
        Self::platform_and(Vec::new())
    }

    /// Those that the platform trusts, and these.
    pub fn platform_and(extra: Vec<CertificateDer<'static>>) -> Self {
        Self { extra, config: Arc::default() }
    }

    pub(crate) async fn connector(&self) -> io::Result<TlsConnector> {
        let config = self.config.get_or_try_init(async || {
            let extra = self.extra.clone();
            tokio::task::spawn_blocking(move || client_config(extra)).await?
        });
        Ok(TlsConnector::from(config.await?.clone()))
    }
}

fn client_config(extra: Vec<CertificateDer<'static>>) -> io::Result<Arc<ClientConfig>> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = Verifier::new_with_extra_roots(extra, provider.clone()).map_err(|error| {
        io::Error::other(format!("the platform's certificate authorities cannot be read: {error}"))
    })?;
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    // As browsers do for WebSocket: it is no protocol of HTTP/2's here.
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trust").field("extra", &self.extra.len()).finish_non_exhaustive()
    }
}
