//! From a QUIC connection to an authenticated session, on both sides.

use peerloom_core::{
    Connection, HandshakeError, Keypair, Multiaddr, PeerId, StreamExt as _,
    runtime::{sleep, spawn, timeout},
};
use peerloom_upgrade::{
    Role,
    noise::{self, NoiseExtensions, RemoteIdentity},
};
use quinn::SendStream;

use super::{
    STEP,
    connection::WebTransportConnection,
    session::{RequestStream, Session, SessionError, read_varint},
    tls::{HashVerifier, ServedCertificates},
    unidirectional::UnidirectionalStreams,
};
use crate::{
    h3::{connect, error_code, frame, settings},
    limits::{HANDSHAKE_TIMEOUT, LINGER},
    stream::QuicStream,
    streams::Established,
};

/// The server's side, once quinn can send.
pub(super) async fn accept(
    connection: Established,
    identity: &Keypair,
    certificates: &ServedCertificates,
    remote_address: Multiaddr,
) -> Result<Box<dyn Connection>, HandshakeError> {
    let quic = connection.quic.clone();
    let fail = |error: SessionError| error.fail_handshake(&quic);
    let control = open_control_stream(&quic).await.map_err(fail)?;
    let (connect, request) = accept_request(&quic).await.map_err(fail)?;
    let session = Session::new(connection, connect, control);

    // libp2p webtransport spec, "Security Handshake": the first stream that the client opens.
    let (send, recv) = quic.accept_bi().await.map_err(|error| fail(error.into()))?;
    let Some((send, recv)) = session.admit(send, recv).await else {
        let reason = "one session per connection";
        return Err(fail(SessionError::violation(error_code::REQUEST_REJECTED, reason)));
    };
    let stream = QuicStream::inbound(session.streams.clone(), send, recv);
    let extensions =
        NoiseExtensions { webtransport_certhashes: certificates.confirmed(), ..NoiseExtensions::default() };
    let (remote, mut stream) = authenticate(stream, Role::Responder, identity, extensions).await?;

    // Until the client has ended this stream too: js-libp2p's dial fails if it is stopped before.
    let end = async move {
        let _ = timeout(HANDSHAKE_TIMEOUT, stream.read_chunk()).await;
        drop(stream);
    };
    let watch = session.clone().watch(request, UnidirectionalStreams::new(quic));
    let watch = spawn(async move { _ = tokio::join!(watch, end) });
    Ok(Box::new(WebTransportConnection::new(session, remote, remote_address, watch)))
}

/// What a dialer wants of the server.
pub(super) struct Expected<'a> {
    pub(super) authority: String,
    pub(super) peer: Option<PeerId>,
    pub(super) verifier: &'a HashVerifier,
}

/// The client's side, once QUIC's handshake is done.
pub(super) async fn connect(
    connection: Established,
    identity: &Keypair,
    expected: Expected<'_>,
    remote_address: Multiaddr,
) -> Result<Box<dyn Connection>, HandshakeError> {
    let quic = connection.quic.clone();
    let fail = |error: SessionError| error.fail_handshake(&quic);
    let mut streams = UnidirectionalStreams::new(quic.clone());
    let control = open_control_stream(&quic).await.map_err(fail)?;
    // RFC 9220, section 3: no such request before the server has said that it takes them.
    if !streams.settings().await.map_err(fail)?.webtransport {
        return Err(HandshakeError::NoCommonProtocol { step: STEP });
    }

    let (mut connect, response) = quic.open_bi().await.map_err(|error| fail(error.into()))?;
    connect
        .write_all(&connect::encode_request(&expected.authority))
        .await
        .map_err(|error| fail(error.into()))?;
    let mut request = RequestStream::new(response, None);
    let session = Session::new(connection, connect, control);
    let (send, recv) = quic.open_bi().await.map_err(|error| fail(error.into()))?;
    let stream = QuicStream::outbound(session.streams.clone(), send, recv);

    // The spec's SHOULD: Noise begins without waiting for the response, which saves a round trip.
    let response = async {
        let section = request.headers().await.map_err(fail)?;
        match connect::decode_response(&section) {
            Ok(Some(connect::OK)) => Ok(()),
            Ok(Some(status)) => Err(invalid(format!("the server answered with status {status}"))),
            Ok(None) | Err(_) => {
                Err(fail(SessionError::violation(error_code::MESSAGE_ERROR, "malformed response")))
            }
        }
    };
    let secured = authenticate(stream, Role::Initiator, identity, NoiseExtensions::default());
    let broken = async { Err(fail(streams.run().await)) };
    let both = async { tokio::try_join!(response, secured) };
    let ((), (remote, _)) = tokio::select! {
        done = both => done?,
        error = broken => error?,
    };

    expected
        .verifier
        .confirm(&remote.extensions.webtransport_certhashes)
        .map_err(|error| HandshakeError::Certificate(error.to_string()))?;
    match expected.peer {
        Some(peer) if peer != remote.peer_id => {
            return Err(HandshakeError::WrongPeer { expected: peer, actual: remote.peer_id });
        }
        _ => {}
    }
    let watch = spawn(session.clone().watch(request, streams));
    Ok(Box::new(WebTransportConnection::new(session, remote, remote_address, watch)))
}

async fn open_control_stream(quic: &quinn::Connection) -> Result<SendStream, SessionError> {
    let mut control = quic.open_uni().await?;
    control.write_all(&settings::encode_control_stream()).await?;
    Ok(control)
}

/// Waits for the request that opens the session, and answers it.
async fn accept_request(quic: &quinn::Connection) -> Result<(SendStream, RequestStream), SessionError> {
    let (mut send, mut recv) = quic.accept_bi().await?;
    let kind = read_varint(&mut recv).await?.ok_or(SessionError::Reset)?;
    if kind == frame::WEBTRANSPORT_STREAM {
        return Err(SessionError::violation(error_code::FRAME_UNEXPECTED, "stream without a session"));
    }
    let mut request = RequestStream::new(recv, Some(kind));
    let section = request.headers().await?;
    let status = connect::answer_request(&section)
        .map_err(|_| SessionError::violation(error_code::MESSAGE_ERROR, "malformed request"))?;
    send.write_all(&connect::encode_response(status)).await?;
    if status == connect::OK {
        return Ok((send, request));
    }
    // The answer shall arrive before the connection ends.
    let _ = send.finish();
    tokio::select! {
        _ = send.stopped() => {}
        () = sleep(LINGER) => {}
    }
    Err(SessionError::violation(error_code::NO_ERROR, "not a request for a libp2p session"))
}

/// Runs Noise on the session's first stream, then ends our half of that stream.
async fn authenticate(
    stream: QuicStream,
    role: Role,
    identity: &Keypair,
    extensions: NoiseExtensions,
) -> Result<(RemoteIdentity, QuicStream), HandshakeError> {
    let mut io = stream.into_io();
    // "The prologue is empty": the certificate hashes bind the handshake to the connection.
    let remote = noise::authenticate(&mut io, role, identity, &[], extensions).await?;
    let (mut stream, _unread) = io.into_parts();
    // Its last message may be on its way, so it is ended and not reset.
    let _ = stream.close_write().await;
    Ok((remote, stream))
}

fn invalid(reason: String) -> HandshakeError {
    HandshakeError::Invalid { step: STEP, reason }
}
