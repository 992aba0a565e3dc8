//! libp2p-TLS: TLS 1.3 with self-signed certificates that carry the peer's identity key (libp2p tls spec). QUIC runs it
//! inside of its packets, TCP as `/tls/1.0.0`.
//!
//! A [`TlsIdentity`] makes rustls configurations; what a certificate must be is in [`PeerCertificate`].

mod certificate;
mod config;
mod handshake;
mod own_certificate;
mod verifier;

pub use certificate::{CertificateError, PeerCertificate};
pub use config::{KeyExchange, TlsIdentity, cryptography};
pub(crate) use handshake::{MUXER_ALPN, accept, connect};
pub use own_certificate::TlsIdentityError;
pub use verifier::{PeerVerifier, refusal, remote_public_key};

/// The protocol id by which two sides agree on TLS on a connection that does not say.
pub const PROTOCOL: &str = "/tls/1.0.0";

/// The application protocol of every libp2p connection; muxers may be offered beside it.
pub const ALPN: &[u8] = b"libp2p";

/// How errors name this handshake.
pub const STEP: &str = "tls";
