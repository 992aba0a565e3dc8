//! rustls, configured: TLS 1.3 alone, our certificate, the remote's verified.

use std::{fmt, sync::Arc};

use peerloom_core::Keypair;
use rustls::{
    ClientConfig, ServerConfig,
    crypto::{CryptoProvider, aws_lc_rs},
    sign::SingleCertAndKey,
};

use super::{
    own_certificate::{self, TlsIdentityError},
    verifier::PeerVerifier,
};

/// How two sides come to a common secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum KeyExchange {
    /// X25519 first. Post-quantum only for a remote that insists on it.
    #[default]
    Classical,
    /// X25519 combined with ML-KEM-768 first: who records a connection cannot read it with a quantum computer later. Takes
    /// a kilobyte more each way, which makes QUIC's first flight two packets, and twice the time of the key exchange.
    PostQuantum,
}

/// Our identity as TLS shows it: a certificate, the same for all connections of a process.
#[derive(Clone)]
pub struct TlsIdentity {
    client: ClientConfig,
    server: ServerConfig,
}

impl TlsIdentity {
    /// Makes a certificate for `identity`.
    pub fn new(identity: &Keypair, key_exchange: KeyExchange) -> Result<Self, TlsIdentityError> {
        let failed = |error: rustls::Error| TlsIdentityError(error.to_string());
        let resolver = Arc::new(SingleCertAndKey::from(own_certificate::generate(identity)?));
        let provider = Arc::new(cryptography(key_exchange));
        let anybody = Arc::new(PeerVerifier::new(None));

        let mut client = ClientConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(failed)?
            .dangerous()
            .with_custom_certificate_verifier(anybody.clone())
            .with_client_cert_resolver(resolver.clone());
        // libp2p tls spec, "Future Extensibility": clients MUST NOT send any server name.
        client.enable_sni = false;
        // A resumed session would not show a certificate.
        client.resumption = rustls::client::Resumption::disabled();

        let mut server = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(failed)?
            .with_client_cert_verifier(anybody)
            .with_cert_resolver(resolver);
        server.send_tls13_tickets = 0;
        server.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
        Ok(Self { client, server })
    }

    /// For one dial: offers `alpn`, in this order, and accepts whom `verifier` does.
    pub fn client(&self, alpn: &[&[u8]], verifier: Arc<PeerVerifier>) -> ClientConfig {
        let mut config = self.client.clone();
        config.alpn_protocols = owned(alpn);
        config.dangerous().set_certificate_verifier(verifier);
        config
    }

    /// For any number of connections: takes the first of `alpn` that the client offers, and any client that proves to be
    /// a peer.
    pub fn server(&self, alpn: &[&[u8]]) -> ServerConfig {
        let mut config = self.server.clone();
        config.alpn_protocols = owned(alpn);
        config
    }
}

impl fmt::Debug for TlsIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsIdentity").finish_non_exhaustive()
    }
}

fn owned(alpn: &[&[u8]]) -> Vec<Vec<u8>> {
    alpn.iter().map(|protocol| protocol.to_vec()).collect()
}

/// What TLS 1.3 is made of here, the preferred first. A server follows the client's order of ciphers, for the weaker of
/// the two processors is mostly the client's.
pub fn cryptography(key_exchange: KeyExchange) -> CryptoProvider {
    use aws_lc_rs::{cipher_suite as suite, kx_group as group};
    let (aes_128, aes_256) = (suite::TLS13_AES_128_GCM_SHA256, suite::TLS13_AES_256_GCM_SHA384);
    let chacha20 = suite::TLS13_CHACHA20_POLY1305_SHA256;
    let cipher_suites =
        if has_aes() { vec![aes_128, aes_256, chacha20] } else { vec![chacha20, aes_128, aes_256] };
    let kx_groups = match key_exchange {
        KeyExchange::Classical => vec![group::X25519, group::SECP256R1, group::X25519MLKEM768],
        KeyExchange::PostQuantum => vec![group::X25519MLKEM768, group::X25519, group::SECP256R1],
    };
    CryptoProvider { cipher_suites, kx_groups, ..aws_lc_rs::default_provider() }
}

/// Whether the processor has instructions for AES-GCM, without which ChaCha20 is faster and its timing tells nothing.
fn has_aes() -> bool {
    #[cfg(target_arch = "x86_64")]
    let has = std::arch::is_x86_feature_detected!("aes") && std::arch::is_x86_feature_detected!("pclmulqdq");
    #[cfg(target_arch = "aarch64")]
    let has = std::arch::is_aarch64_feature_detected!("aes");
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let has = false;
    has
}
