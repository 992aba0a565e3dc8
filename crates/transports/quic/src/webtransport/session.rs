//! A WebTransport session on a QUIC connection, and the task that watches over it.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use peerloom_core::{CloseReason, ConnectionError, HandshakeError, runtime::timeout};
use quinn::{RecvStream, SendStream};

use super::{STEP, unidirectional::UnidirectionalStreams};
use crate::{
    h3::{
        capsule::{self, CapsuleReader},
        error_code,
        frame::{self, Splitter},
        varint,
    },
    limits::{CLOSE_TIMEOUT, LINGER},
    streams::{Established, Streams},
};

/// What a session and its task share, beside its streams.
pub(super) struct Session {
    pub(super) streams: Arc<Streams>,
    /// The id of the CONNECT request's stream.
    id: u64,
    /// Our side of the CONNECT stream, until the session is closed.
    connect: Mutex<Option<SendStream>>,
    /// Our control stream, which must stay open as long as the connection.
    _control: SendStream,
}

impl Session {
    /// The session that the CONNECT request on `connect` opened.
    pub(super) fn new(connection: Established, connect: SendStream, control: SendStream) -> Arc<Self> {
        let id = quinn::VarInt::from(connect.id()).into_inner();
        let mut header = BytesMut::new();
        varint::encode(frame::WEBTRANSPORT_STREAM, &mut header);
        varint::encode(id, &mut header);
        let Established { quic, port, window } = connection;
        let streams = Streams::new(quic, port, error_code::APPLICATION, header.freeze(), window);
        Arc::new(Self { streams, id, connect: Mutex::new(Some(connect)), _control: control })
    }

    pub(super) fn quic(&self) -> &quinn::Connection {
        &self.streams.quic
    }

    /// Reads the header of a bidirectional stream that the remote opened. `None` if the stream is not one of this
    /// session's, and has been refused.
    pub(super) async fn admit(
        &self,
        mut send: SendStream,
        mut recv: RecvStream,
    ) -> Option<(SendStream, RecvStream)> {
        let kind = read_varint(&mut recv).await.ok()??;
        if kind == frame::WEBTRANSPORT_STREAM && read_varint(&mut recv).await.ok()?? == self.id {
            return Some((send, recv));
        }
        // Another request, or a stream of a session that we do not have.
        let _ = send.reset(error_code::REQUEST_REJECTED.into());
        let _ = recv.stop(error_code::REQUEST_REJECTED.into());
        None
    }

    /// Closes the session in order. See [`peerloom_core::Connection::close`].
    pub(super) async fn close(self: Arc<Self>, code: u32) {
        self.streams.ends_with(ConnectionError::ClosedLocally);
        let connect = self.connect.lock().take();
        let graceful = async {
            let Some(mut connect) = connect else {
                // Somebody else is closing it.
                self.quic().closed().await;
                return;
            };
            self.streams.acknowledged().await;
            // Behind all that open streams have written.
            let _ = connect.set_priority(-1);
            if connect.write_all(&capsule::encode_close(code)).await.is_ok() && connect.finish().is_ok() {
                let _ = connect.stopped().await;
            }
        };
        let _ = timeout(CLOSE_TIMEOUT, graceful).await;
        self.quic().close(error_code::NO_ERROR.into(), b"");
    }

    /// Closes the session at once; bytes may be lost.
    pub(super) fn abandon(&self) {
        self.streams.ends_with(ConnectionError::ClosedLocally);
        self.quic().close(error_code::NO_ERROR.into(), b"");
    }

    /// Watches over the session until it ends. `connect` is the remote's side of the CONNECT stream.
    pub(super) async fn watch(self: Arc<Self>, connect: RequestStream, mut streams: UnidirectionalStreams) {
        let end = tokio::select! {
            end = connect.closed() => end,
            error = streams.run() => Err(error),
            () = self.streams.keep_flowing() => return,
        };
        match end {
            Ok(_) | Err(SessionError::Reset) => {
                let reason = end.ok().and_then(CloseReason::from_code);
                self.streams.ends_with(match reason {
                    Some(reason) => ConnectionError::ClosedFor { reason, by_remote: true },
                    None => ConnectionError::ClosedByRemote,
                });
                // webtransport draft, "Session Termination": upon the capsule, close our side too.
                if let Some(mut ours) = self.connect.lock().take() {
                    let _ = ours.finish();
                }
                let _ = timeout(LINGER, self.quic().closed()).await;
                self.quic().close(error_code::NO_ERROR.into(), b"");
            }
            Err(SessionError::Lost(error)) => drop(self.streams.over(error)),
            Err(SessionError::Violation { code, reason }) => {
                self.streams.ends_with(ConnectionError::Protocol(reason.to_owned()));
                self.quic().close(code.into(), reason.as_bytes());
            }
        }
    }
}

/// Why a session cannot go on, or not even begin.
#[derive(Debug)]
pub(super) enum SessionError {
    /// The remote broke HTTP/3.
    Violation {
        /// The code to close the connection with.
        code: u32,
        /// What it did.
        reason: &'static str,
    },
    /// The stream was reset, or ended early.
    Reset,
    /// The connection is lost.
    Lost(quinn::ConnectionError),
}

impl SessionError {
    pub(super) fn violation(code: u32, reason: &'static str) -> Self {
        Self::Violation { code, reason }
    }

    /// The error of a handshake on `connection`, which is closed as HTTP/3 wants it.
    pub(super) fn fail_handshake(self, connection: &quinn::Connection) -> HandshakeError {
        let lost = |reason: String| HandshakeError::Lost { step: STEP, reason };
        match self {
            Self::Violation { code, reason } => {
                connection.close(code.into(), reason.as_bytes());
                HandshakeError::Invalid { step: STEP, reason: reason.to_owned() }
            }
            Self::Reset => lost("the request was cancelled".to_owned()),
            Self::Lost(quinn::ConnectionError::TimedOut) => HandshakeError::TimedOut { step: STEP },
            Self::Lost(error) => lost(error.to_string()),
        }
    }
}

impl From<quinn::ConnectionError> for SessionError {
    fn from(error: quinn::ConnectionError) -> Self {
        Self::Lost(error)
    }
}

impl From<quinn::ReadError> for SessionError {
    fn from(error: quinn::ReadError) -> Self {
        match error {
            quinn::ReadError::ConnectionLost(error) => Self::Lost(error),
            _ => Self::Reset,
        }
    }
}

impl From<quinn::WriteError> for SessionError {
    fn from(error: quinn::WriteError) -> Self {
        match error {
            quinn::WriteError::ConnectionLost(error) => Self::Lost(error),
            _ => Self::Reset,
        }
    }
}

/// The remote's side of the stream of a CONNECT request: one HEADERS frame, then capsules.
pub(super) struct RequestStream {
    stream: RecvStream,
    frames: Splitter,
    /// Received behind the HEADERS frame.
    unread: Bytes,
}

impl RequestStream {
    /// `kind`: the frame type that the stream begins with, if it was read already.
    pub(super) fn new(stream: RecvStream, kind: Option<u64>) -> Self {
        let frames = kind.map_or_else(Splitter::default, Splitter::after_type);
        Self { stream, frames, unread: Bytes::new() }
    }

    /// The content of the HEADERS frame.
    pub(super) async fn headers(&mut self) -> Result<Bytes, SessionError> {
        use crate::h3::field_section::MAX_BYTES;
        let mut section = BytesMut::new();
        loop {
            while let Some(piece) = self.frames.next(&mut self.unread) {
                match piece.kind {
                    frame::HEADERS if section.len() as u64 + piece.to_come > MAX_BYTES as u64 => {
                        return Err(SessionError::violation(error_code::FRAME_ERROR, "headers too long"));
                    }
                    frame::HEADERS => section.extend_from_slice(&piece.bytes),
                    frame::DATA | frame::SETTINGS => {
                        return Err(SessionError::violation(error_code::FRAME_UNEXPECTED, "no headers"));
                    }
                    // RFC 9114, section 9: unknown frames MUST be ignored.
                    _ => continue,
                }
                if piece.to_come == 0 {
                    return Ok(section.freeze());
                }
            }
            match read_chunk(&mut self.stream).await? {
                Some(chunk) => self.unread = chunk,
                None => return Err(SessionError::Reset),
            }
        }
    }

    /// Waits until the remote closes the session, by a capsule or by ending the stream. The capsule's code.
    async fn closed(mut self) -> Result<u32, SessionError> {
        let mut capsules = CapsuleReader::new(self.frames);
        let mut chunk = self.unread;
        loop {
            match capsules.read(chunk) {
                Ok(None) => {}
                Ok(Some(closed)) => {
                    tracing::trace!(code = closed.code, "the remote closed the session");
                    return Ok(closed.code);
                }
                Err(_) => {
                    return Err(SessionError::violation(error_code::MESSAGE_ERROR, "malformed capsule"));
                }
            }
            match read_chunk(&mut self.stream).await? {
                Some(next) => chunk = next,
                None => return Ok(error_code::NO_ERROR),
            }
        }
    }
}

/// The next bytes of a stream; `None` at its end.
pub(super) async fn read_chunk(stream: &mut RecvStream) -> Result<Option<Bytes>, SessionError> {
    Ok(stream.read_chunk(usize::MAX, true).await?.map(|chunk| chunk.bytes))
}

/// The integer that a stream begins with; `None` if it ends first.
pub(super) async fn read_varint(stream: &mut RecvStream) -> Result<Option<u64>, SessionError> {
    let mut bytes = BytesMut::with_capacity(varint::MAX_BYTES);
    loop {
        // Not a byte more: what follows belongs to somebody else.
        let wanted = bytes.first().map_or(1, |first| varint::encoded_len(*first)).saturating_sub(bytes.len());
        match stream.read_chunk(wanted, true).await? {
            Some(chunk) => bytes.extend_from_slice(&chunk.bytes),
            None => return Ok(None),
        }
        if let Some(value) = varint::decode(&mut &*bytes) {
            return Ok(Some(value));
        }
    }
}
