//! The unidirectional streams of an HTTP/3 connection: the control stream with the remote's settings, QPACK's two, which
//! stay silent, and others, which are refused.

use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt as _, stream::FuturesUnordered};
use peerloom_core::runtime::BoxFuture;
use quinn::RecvStream;

use super::session::{SessionError, read_chunk, read_varint};
use crate::h3::{
    error_code,
    frame::{self, Splitter},
    settings::{self, Settings},
    stream_type,
};

/// The remote's unidirectional streams, read side by side. quinn bounds how many there are.
pub(super) struct UnidirectionalStreams {
    connection: quinn::Connection,
    reading: FuturesUnordered<BoxFuture<'static, Result<Read, SessionError>>>,
    control_seen: bool,
}

enum Read {
    /// The control stream began, and goes on.
    Settings(Settings, RecvStream),
    Refused,
}

impl UnidirectionalStreams {
    pub(super) fn new(connection: quinn::Connection) -> Self {
        Self { connection, reading: FuturesUnordered::new(), control_seen: false }
    }

    /// Waits for the remote's settings. They come once. Cancel-safe.
    pub(super) async fn settings(&mut self) -> Result<Settings, SessionError> {
        loop {
            tokio::select! {
                stream = self.connection.accept_uni() => self.reading.push(Box::pin(read(stream?))),
                Some(read) = self.reading.next() => match read? {
                    Read::Settings(..) if self.control_seen => {
                        return Err(SessionError::violation(error_code::STREAM_CREATION_ERROR, "two control streams"));
                    }
                    Read::Settings(settings, stream) => {
                        self.control_seen = true;
                        self.reading.push(Box::pin(discard(stream)));
                        return Ok(settings);
                    }
                    Read::Refused => {}
                },
            }
        }
    }

    /// Keeps the streams flowing until one of them ends the connection. Cancel-safe.
    pub(super) async fn run(&mut self) -> SessionError {
        loop {
            if let Err(error) = self.settings().await {
                return error;
            }
        }
    }
}

async fn read(mut stream: RecvStream) -> Result<Read, SessionError> {
    match read_varint(&mut stream).await {
        Ok(Some(stream_type::CONTROL)) => read_settings(stream).await.map_err(critical),
        Ok(Some(stream_type::QPACK_ENCODER | stream_type::QPACK_DECODER)) => discard(stream).await,
        // Ours to open, if at all.
        Ok(Some(stream_type::PUSH)) => {
            Err(SessionError::violation(error_code::STREAM_CREATION_ERROR, "push stream"))
        }
        Err(error @ (SessionError::Violation { .. } | SessionError::Lost(_))) => Err(error),
        _ => {
            // RFC 9114, section 6.2: streams of unknown types MUST NOT be an error.
            let _ = stream.stop(error_code::STREAM_CREATION_ERROR.into());
            Ok(Read::Refused)
        }
    }
}

async fn read_settings(mut stream: RecvStream) -> Result<Read, SessionError> {
    let mut splitter = Splitter::default();
    let mut content = BytesMut::new();
    while let Some(mut chunk) = read_chunk(&mut stream).await? {
        while let Some(piece) = splitter.next(&mut chunk) {
            // RFC 9114, section 6.2.1: the first frame MUST be SETTINGS.
            if piece.kind != frame::SETTINGS {
                return Err(SessionError::violation(error_code::MISSING_SETTINGS, "no SETTINGS"));
            }
            if piece.to_come > settings::MAX_BYTES as u64 || content.len() > settings::MAX_BYTES {
                return Err(SessionError::violation(error_code::SETTINGS_ERROR, "SETTINGS too long"));
            }
            content.extend_from_slice(&piece.bytes);
            if piece.to_come == 0 {
                let settings = Settings::decode(&content)
                    .map_err(|_| SessionError::violation(error_code::SETTINGS_ERROR, "malformed SETTINGS"))?;
                return Ok(Read::Settings(settings, stream));
            }
        }
    }
    Err(SessionError::Reset)
}

/// Reads a stream that must not end, for nothing in it concerns us.
async fn discard(mut stream: RecvStream) -> Result<Read, SessionError> {
    while let Some(Bytes { .. }) = read_chunk(&mut stream).await.map_err(critical)? {}
    Err(critical(SessionError::Reset))
}

/// RFC 9114, section 6.2.1 and RFC 9204, section 4.2: these streams MUST NOT be closed.
fn critical(error: SessionError) -> SessionError {
    match error {
        SessionError::Reset => {
            SessionError::violation(error_code::CLOSED_CRITICAL_STREAM, "a critical stream was closed")
        }
        other => other,
    }
}
