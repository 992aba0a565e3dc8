//! A WebSocket as a byte pipe.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use futures_util::{Sink, Stream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Error, Message, protocol::WebSocketConfig},
};

/// The longest message that is accepted. Peers send a Noise frame, or what they have gathered of some, in each.
pub(crate) const MAX_MESSAGE_LENGTH: usize = 1024 * 1024;
/// The longest message that is sent: what all peers and browsers take without splitting it.
const MAX_SENT_LENGTH: usize = 64 * 1024;
/// One read of the socket fetches up to this.
const READ_BUFFER_LENGTH: usize = 128 * 1024;

pub(crate) fn config() -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER_LENGTH)
        // Gathered below, in the upgrade: a second buffer would only copy again.
        .write_buffer_size(0)
        .max_write_buffer_size(2 * MAX_SENT_LENGTH)
        .max_message_size(Some(MAX_MESSAGE_LENGTH))
        .max_frame_size(Some(MAX_MESSAGE_LENGTH))
}

/// The binary messages of a WebSocket, one after the other, as bytes.
pub(crate) struct MessagePipe<IO> {
    socket: WebSocketStream<IO>,
    unread: Bytes,
}

impl<IO> MessagePipe<IO> {
    pub(crate) fn new(socket: WebSocketStream<IO>) -> Self {
        Self { socket, unread: Bytes::new() }
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncRead for MessagePipe<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.unread.is_empty() {
            match ready!(Pin::new(&mut self.socket).poll_next(cx)) {
                Some(Ok(Message::Binary(bytes))) => self.unread = bytes,
                // websockets spec: text frames have no meaning here. Pings are answered by the library.
                Some(Ok(Message::Text(_))) => {
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, "a text message")));
                }
                Some(Ok(Message::Close(_))) | None => return Poll::Ready(Ok(())),
                Some(Ok(_)) => {}
                Some(Err(error)) => return Poll::Ready(into_io(error)),
            }
        }
        let take = self.unread.len().min(buffer.remaining());
        buffer.put_slice(self.unread.get(..take).unwrap_or_default());
        self.unread.advance(take);
        Poll::Ready(Ok(()))
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncWrite for MessagePipe<IO> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        ready!(Pin::new(&mut self.socket).poll_ready(cx)).map_err(write_error)?;
        let taken = data.get(..MAX_SENT_LENGTH).unwrap_or(data);
        let message = Message::Binary(Bytes::copy_from_slice(taken));
        let sent = Pin::new(&mut self.socket).start_send(message).map_err(write_error);
        Poll::Ready(sent.map(|()| taken.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx).map(|flushed| flushed.or_else(into_io))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_close(cx).map(|closed| closed.or_else(into_io))
    }
}

fn write_error(error: Error) -> io::Error {
    into_io(error).err().unwrap_or_else(|| io::ErrorKind::BrokenPipe.into())
}

/// The orderly end is no error: the pipe ends, and what that means is for the layer above to say.
fn into_io(error: Error) -> io::Result<()> {
    match error {
        Error::ConnectionClosed | Error::AlreadyClosed => Ok(()),
        Error::Io(error) => Err(error),
        other => Err(io::Error::other(other)),
    }
}
