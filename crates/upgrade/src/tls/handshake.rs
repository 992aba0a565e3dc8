//! TLS on a byte pipe: the handshake, and which muxer comes after it.

use std::{
    io,
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use bytes::BytesMut;
use peerloom_core::{HandshakeError, PeerId, Prefixed, PublicKey};
use rustls::{CommonState, ServerConfig, pki_types::ServerName};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::{ALPN, CertificateError, PeerVerifier, STEP, TlsIdentity, refusal, remote_public_key};
use crate::{
    noise::{NoiseExtensions, RemoteIdentity},
    protection::Protection,
    upgrade::{Negotiable, Pipe, Secured, into_unread},
};

const YAMUX: &[u8] = b"/yamux/1.0.0";

/// connections/inlined-muxer-negotiation.md, "Multiplexer Negotiation over TLS": the muxers, then `libp2p`.
pub(crate) const MUXER_ALPN: [&[u8]; 2] = [YAMUX, ALPN];

/// As the client. If `expected` is another peer than the one that answers, that one does not learn who we are.
pub(crate) async fn connect(
    io: Box<dyn Pipe>,
    identity: &TlsIdentity,
    expected: Option<PeerId>,
) -> Result<Secured, HandshakeError> {
    let verifier = Arc::new(PeerVerifier::new(expected));
    let config = identity.client(&MUXER_ALPN, verifier);
    // rustls wants a name. It is not sent, and the certificate is not compared with it.
    let nobody = ServerName::from(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    let stream = TlsConnector::from(Arc::new(config)).connect(nobody, io).await.map_err(failed)?;
    let (remote, muxer_agreed) = agreed(stream.get_ref().1)?;
    Ok(secured(Box::new(stream), remote, muxer_agreed))
}

/// As the server.
pub(crate) async fn accept(io: Negotiable, config: Arc<ServerConfig>) -> Result<Secured, HandshakeError> {
    let (unread, io) = into_unread(io);
    let io = Prefixed::new(unread.freeze(), io);
    let stream = TlsAcceptor::from(config).accept(io).await.map_err(failed)?;
    let (remote, muxer_agreed) = agreed(stream.get_ref().1)?;
    Ok(secured(Box::new(stream), remote, muxer_agreed))
}

fn secured(io: Box<dyn Pipe>, remote: RemoteIdentity, muxer_agreed: bool) -> Secured {
    Secured { io, input: BytesMut::new(), protection: Protection::Pipe, remote, muxer_agreed }
}

/// Who the remote is, and whether the muxer is settled. rustls ends the handshake where both sides name protocols and none
/// in common; libp2p tls spec, "ALPN": a remote that names none has none in common either.
fn agreed(session: &CommonState) -> Result<(RemoteIdentity, bool), HandshakeError> {
    let muxer_agreed = match session.alpn_protocol() {
        Some(protocol) => protocol == YAMUX,
        None => return Err(HandshakeError::NoCommonProtocol { step: STEP }),
    };
    let public_key: PublicKey = remote_public_key(session.peer_certificates().unwrap_or_default())?;
    let extensions = NoiseExtensions::default();
    Ok((RemoteIdentity { peer_id: public_key.peer_id(), public_key, extensions }, muxer_agreed))
}

/// What tokio-rustls reports, in our words.
fn failed(error: io::Error) -> HandshakeError {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match inner {
        Some(error) => match refusal(error) {
            Some(refusal) => CertificateError::clone(refusal).into(),
            None if is_alpn_refusal(error) => HandshakeError::NoCommonProtocol { step: STEP },
            None => HandshakeError::Invalid { step: STEP, reason: error.to_string() },
        },
        None => HandshakeError::Lost { step: STEP, reason: error.to_string() },
    }
}

fn is_alpn_refusal(error: &rustls::Error) -> bool {
    use rustls::{AlertDescription, Error};
    matches!(
        error,
        Error::NoApplicationProtocol | Error::AlertReceived(AlertDescription::NoApplicationProtocol)
    )
}
