//! [`Stream`]: one ordered, reliable, bidirectional byte stream of a [`Connection`](crate::Connection).

use std::{
    any::Any,
    future::poll_fn,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::{
    runtime::{MaybeSend, MaybeSync},
    transport::ConnectionError,
};

/// A byte stream as a transport provides it, before any protocol is negotiated on it.
///
/// Bytes travel as [`Bytes`]: a chunk that the transport received or decrypted once is handed out as a slice of it.
///
/// The read and the write direction are independent: an implementation keeps the waker of the last `poll_read` apart
/// from that of the last `poll_write`, `poll_flush` or `poll_close_write`, because the halves may be polled by two tasks.
///
/// Dropping a stream whose write half was not closed resets that half; dropping it before the end of the read half tells
/// the remote to stop sending, where the transport can. Nothing stays behind.
pub trait Stream: MaybeSend + MaybeSync + 'static {
    /// The next chunk, never empty; `None` once the remote has closed its write half and all bytes were read.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, StreamError>>;

    /// Takes a non-empty prefix of `data`, advancing it, as far as flow control allows; pending if that is nothing.
    /// Ready at once for empty `data`. Taken bytes are sent without a flush being needed, but may be gathered first.
    fn poll_write(&mut self, cx: &mut Context<'_>, data: &mut Bytes) -> Poll<Result<(), StreamError>>;

    /// Ready once every byte taken has been handed to the layer below.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamError>>;

    /// Flushes and closes the write half; the remote reads the end. Ready once that is on its way. Idempotent.
    fn poll_close_write(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamError>>;

    /// Abandons both halves at once. `code` reaches the remote where the transport has a place for it (libp2p error codes,
    /// 0 = none). Never blocks; later polls fail with [`StreamError::Reset`].
    fn reset(&mut self, code: u32);

    /// For a caller that knows the concrete type: a page takes the browser's own stream out of it.
    fn into_any(self: Box<Self>) -> Box<dyn Any>;
}

/// Why a stream cannot go on.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum StreamError {
    /// The remote, or we, abandoned the stream, or the half of it that was used: writing fails so when the remote has
    /// stopped reading. `code` is 0 where the transport carries none.
    #[error("stream was reset (code {code})")]
    Reset {
        /// The libp2p error code that came with the reset.
        code: u32,
    },
    /// The holder has closed the write half itself.
    #[error("stream is closed for writing")]
    WriteClosed,
    /// The connection under the stream is over.
    #[error("connection lost: {0}")]
    ConnectionLost(#[from] Arc<ConnectionError>),
    /// The remote does not speak the protocol that we opened the stream for.
    #[error("the remote does not support the protocol")]
    ProtocolNotSupported,
    /// The remote broke the protocol that frames this stream.
    #[error("protocol violation: {0}")]
    Protocol(&'static str),
}

impl From<StreamError> for io::Error {
    fn from(error: StreamError) -> Self {
        let kind = match &error {
            StreamError::Reset { .. } => io::ErrorKind::ConnectionReset,
            StreamError::WriteClosed => io::ErrorKind::BrokenPipe,
            StreamError::ConnectionLost(_) => io::ErrorKind::ConnectionAborted,
            StreamError::ProtocolNotSupported => io::ErrorKind::Unsupported,
            StreamError::Protocol(_) => io::ErrorKind::InvalidData,
        };
        io::Error::new(kind, error)
    }
}

impl<S: Stream + ?Sized> Stream for Box<S> {
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, StreamError>> {
        (**self).poll_read(cx)
    }
    fn poll_write(&mut self, cx: &mut Context<'_>, data: &mut Bytes) -> Poll<Result<(), StreamError>> {
        (**self).poll_write(cx, data)
    }
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        (**self).poll_flush(cx)
    }
    fn poll_close_write(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        (**self).poll_close_write(cx)
    }
    fn reset(&mut self, code: u32) {
        (**self).reset(code);
    }
    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        // The box inside is the stream; the outer one is only a handle to it.
        (*self).into_any()
    }
}

/// [`Stream`]'s polls as futures.
pub trait StreamExt: Stream {
    /// The next chunk, never empty; `None` at the end. Cancel-safe.
    fn read_chunk(&mut self) -> impl Future<Output = Result<Option<Bytes>, StreamError>> + MaybeSend {
        poll_fn(|cx| self.poll_read(cx))
    }

    /// Hands all of `data` to the stream, waiting for flow control. Not cancel-safe: how much was taken is lost.
    fn write_all(&mut self, mut data: Bytes) -> impl Future<Output = Result<(), StreamError>> + MaybeSend {
        poll_fn(move |cx| {
            while data.has_remaining() {
                ready!(self.poll_write(cx, &mut data))?;
            }
            Poll::Ready(Ok(()))
        })
    }

    /// Waits until every byte written has been handed to the layer below. Cancel-safe.
    fn flush(&mut self) -> impl Future<Output = Result<(), StreamError>> + MaybeSend {
        poll_fn(|cx| self.poll_flush(cx))
    }

    /// Flushes and closes the write half. Cancel-safe.
    fn close_write(&mut self) -> impl Future<Output = Result<(), StreamError>> + MaybeSend {
        poll_fn(|cx| self.poll_close_write(cx))
    }

    /// The stream as tokio's `AsyncRead` and `AsyncWrite`, for code that wants those. Each write copies.
    fn into_io(self) -> StreamIo<Self>
    where
        Self: Sized,
    {
        StreamIo { stream: self, unread: Bytes::new() }
    }
}

impl<S: Stream + ?Sized> StreamExt for S {}

/// A [`Stream`] as tokio's `AsyncRead` and `AsyncWrite`.
#[derive(Debug)]
pub struct StreamIo<S> {
    stream: S,
    unread: Bytes,
}

impl<S> StreamIo<S> {
    /// The stream, and bytes that were received but not yet read out of it.
    pub fn into_parts(self) -> (S, Bytes) {
        (self.stream, self.unread)
    }
}

impl<S: Stream + Unpin> AsyncRead for StreamIo<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.unread.is_empty() {
            match ready!(self.stream.poll_read(cx))? {
                Some(chunk) => self.unread = chunk,
                None => return Poll::Ready(Ok(())),
            }
        }
        let take = self.unread.len().min(buffer.remaining());
        let chunk = self.unread.split_to(take);
        buffer.put_slice(&chunk);
        Poll::Ready(Ok(()))
    }
}

impl<S: Stream + Unpin> AsyncWrite for StreamIo<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        // A pending stream takes nothing, so copying more than one gather's worth per poll would be thrown away.
        const COPY: usize = 64 * 1024;
        let offered = data.len().min(COPY);
        let mut copy = Bytes::copy_from_slice(data.get(..offered).unwrap_or(data));
        ready!(self.stream.poll_write(cx, &mut copy))?;
        Poll::Ready(Ok(offered.saturating_sub(copy.len())))
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.poll_flush(cx).map_err(Into::into)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.poll_close_write(cx).map_err(Into::into)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::memory_stream::MemoryStream;

    #[tokio::test]
    async fn bytes_survive_the_io_adapter_in_reads_and_writes_of_any_size() {
        let (ours, theirs) = MemoryStream::pair(100);
        let (mut ours, mut theirs) = (ours.into_io(), theirs.into_io());
        let sent: Vec<u8> = (0..200_000u32).map(|n| n as u8).collect();
        let send = async {
            ours.write_all(&sent).await.unwrap();
            ours.shutdown().await.unwrap();
        };
        let receive = async {
            let mut received = Vec::new();
            let mut first = [0; 7];
            theirs.read_exact(&mut first).await.unwrap();
            received.extend_from_slice(&first);
            theirs.read_to_end(&mut received).await.unwrap();
            received
        };
        let ((), received) = tokio::join!(send, receive);
        assert_eq!(received, sent);
    }

    #[tokio::test]
    async fn what_the_io_adapter_has_not_handed_out_is_given_back() {
        let (mut ours, theirs) = MemoryStream::pair(100);
        ours.write_all("abcdef".into()).await.unwrap();
        let mut theirs = theirs.into_io();
        let mut first = [0; 2];
        theirs.read_exact(&mut first).await.unwrap();
        assert_eq!(theirs.into_parts().1, "cdef");
    }

    #[tokio::test]
    async fn reset_is_an_io_error_with_its_code() {
        let (mut ours, theirs) = MemoryStream::pair(100);
        ours.reset(5);
        let error = theirs.into_io().read_u8().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        let inner = error.get_ref().and_then(|error| error.downcast_ref::<StreamError>());
        assert!(matches!(inner, Some(StreamError::Reset { code: 5 })));
    }
}
