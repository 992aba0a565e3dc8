use peerloom_core::{ListenError, Multiaddr};
use peerloom_node::HandleError;

use crate::identity::IdentityError;

/// Why a node did not start. What had been opened by then is closed again.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// It cannot listen on one of the addresses.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// There is no transport that listens on a port: none of the features is on, or none that is private.
    #[error("no transport is there to listen on port {port}")]
    NothingOnPort {
        /// The port.
        port: u16,
    },
    /// No number was found that is free for TCP and UDP, over IPv4 and IPv6.
    #[error("no port number is free: {0}")]
    NoFreePort(std::io::Error),
    /// A protocol cannot be handled: twice the same, or more than [`Limits::protocols`](crate::Limits::protocols).
    #[error(transparent)]
    Handle(#[from] HandleError),
    /// The data directory has no identity, and none can be put there.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// Everybody could come in at this address, and the node is one of a private network.
    #[error("cannot listen on {address}: a private network has TCP and WebSocket only")]
    NotPrivate {
        /// The address.
        address: Multiaddr,
    },
    /// The environment variable `LIBP2P_FORCE_PNET` is 1, and the node has no key of a private network.
    #[error("no private network's key is given, but {} is 1", crate::builder::FORCE_PRIVATE)]
    PrivateNetworkForced,
    /// What is known of peers cannot be kept in the data directory.
    #[cfg(feature = "peer-storage")]
    #[error(transparent)]
    Peers(#[from] peerloom_peer_storage::PeerFileError),
    /// There are no certificates for WebTransport to serve.
    #[cfg(feature = "quic")]
    #[error(transparent)]
    WebTransportCertificates(#[from] peerloom_quic::certificate::CertificateError),
    /// There is no certificate to show with QUIC.
    #[cfg(feature = "quic")]
    #[error(transparent)]
    QuicCertificate(#[from] peerloom_upgrade::tls::TlsIdentityError),
    /// There is no certificate for WebRTC.
    #[cfg(feature = "webrtc")]
    #[error(transparent)]
    WebRtcCertificate(#[from] peerloom_webrtc::CertificateError),
    /// Nobody can be asked for names.
    #[cfg(feature = "dns")]
    #[error(transparent)]
    Dns(#[from] peerloom_dns::SystemResolverError),
}
