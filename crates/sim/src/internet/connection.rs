//! Connections and streams as the rest of Peerloom knows them.

use std::{
    any::Any,
    future::poll_fn,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use peerloom_core::{
    CloseReason, Connection, ConnectionError, Multiaddr, PeerId, PublicKey, Stream, StreamError,
    StreamExt as _, StreamIo,
    runtime::{BoxFuture, timeout},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{Internet, flow::EndRef};

/// How long a goodbye is waited for.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(3);

/// A hold on one end of a connection.
pub(super) struct Handle {
    pub(super) internet: Internet,
    pub(super) at: EndRef,
}

impl Handle {
    /// Takes over a hold that there is.
    pub(super) fn new(internet: Internet, at: EndRef) -> Self {
        Self { internet, at }
    }
}

impl Clone for Handle {
    fn clone(&self) -> Self {
        self.internet.with(|state, _| state.hold(self.at));
        Self { internet: self.internet.clone(), at: self.at }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.internet.with(|state, _| state.release(self.at));
    }
}

/// A connection whose ends are believed to be who they say.
pub(super) struct InternetConnection {
    pub(super) handle: Handle,
    pub(super) remote_key: PublicKey,
    pub(super) remote_address: Multiaddr,
}

impl InternetConnection {
    async fn open(handle: Handle) -> Result<InternetStream, Arc<ConnectionError>> {
        let at = handle.at;
        let id = poll_fn(|cx| handle.internet.with(|state, _| state.poll_open(at, cx))).await?;
        Ok(InternetStream { internet: handle.internet.clone(), at, id })
    }

    async fn accept(handle: &Handle) -> Result<InternetStream, Arc<ConnectionError>> {
        let at = handle.at;
        let id = poll_fn(|cx| handle.internet.with(|state, _| state.poll_accept(at, cx))).await?;
        Ok(InternetStream { internet: handle.internet.clone(), at, id })
    }
}

impl Connection for InternetConnection {
    fn remote_peer(&self) -> PeerId {
        self.remote_key.peer_id()
    }

    fn remote_public_key(&self) -> &PublicKey {
        &self.remote_key
    }

    fn remote_address(&self) -> &Multiaddr {
        &self.remote_address
    }

    fn local_address(&self) -> Option<Multiaddr> {
        let local = self.handle.internet.with(|state, _| state.local_endpoint(self.handle.at))?;
        Some(local.to_multiaddr())
    }

    fn open_stream(&self) -> BoxFuture<'static, Result<Box<dyn Stream>, Arc<ConnectionError>>> {
        let handle = self.handle.clone();
        Box::pin(async move { Ok(Box::new(Self::open(handle).await?) as _) })
    }

    fn accept_stream(&self) -> BoxFuture<'_, Result<Box<dyn Stream>, Arc<ConnectionError>>> {
        Box::pin(async move { Ok(Box::new(Self::accept(&self.handle).await?) as _) })
    }

    fn close(&self) -> BoxFuture<'static, ()> {
        self.close_with(None)
    }

    fn close_for(&self, reason: CloseReason) -> BoxFuture<'static, ()> {
        self.close_with(Some(reason))
    }

    fn closed(&self) -> BoxFuture<'static, Arc<ConnectionError>> {
        let handle = self.handle.clone();
        Box::pin(async move {
            poll_fn(|cx| handle.internet.with(|state, _| state.poll_over(handle.at, cx))).await
        })
    }
}

impl InternetConnection {
    fn close_with(&self, reason: Option<CloseReason>) -> BoxFuture<'static, ()> {
        let handle = self.handle.clone();
        handle.internet.with(|state, now| state.close(now, handle.at, reason));
        Box::pin(async move {
            let goodbye = poll_fn(|cx| handle.internet.with(|state, _| state.poll_goodbye(handle.at, cx)));
            let _ = timeout(CLOSE_TIMEOUT, goodbye).await;
        })
    }
}

impl Drop for InternetConnection {
    fn drop(&mut self) {
        self.handle.internet.with(|state, now| state.close(now, self.handle.at, None));
    }
}

struct InternetStream {
    internet: Internet,
    at: EndRef,
    id: u64,
}

impl Stream for InternetStream {
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, StreamError>> {
        self.internet.with(|state, now| state.poll_read(now, self.at, self.id, cx))
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, data: &mut Bytes) -> Poll<Result<(), StreamError>> {
        self.internet.with(|state, now| state.poll_write(now, self.at, self.id, data, cx))
    }

    fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        Poll::Ready(self.internet.with(|state, _| state.flush(self.at, self.id)))
    }

    fn poll_close_write(&mut self, _: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        Poll::Ready(self.internet.with(|state, now| state.close_write(now, self.at, self.id)))
    }

    fn reset(&mut self, code: u32) {
        self.internet.with(|state, now| state.reset_stream(now, self.at, self.id, code));
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

impl Drop for InternetStream {
    fn drop(&mut self) {
        self.internet.with(|state, now| state.drop_stream(now, self.at, self.id));
    }
}

/// A connection with one stream, for the real upgrade to run on.
pub(super) struct RawPipe {
    stream: StreamIo<InternetStream>,
    _connection: InternetConnection,
}

impl RawPipe {
    pub(super) async fn dialed(connection: InternetConnection) -> io::Result<Self> {
        let opening = InternetConnection::open(connection.handle.clone());
        let stream = opening.await.map_err(io::Error::other)?.into_io();
        Ok(Self { stream, _connection: connection })
    }

    pub(super) async fn accepted(connection: InternetConnection) -> Result<Self, Arc<ConnectionError>> {
        let stream = InternetConnection::accept(&connection.handle).await?.into_io();
        Ok(Self { stream, _connection: connection })
    }
}

impl AsyncRead for RawPipe {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for RawPipe {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, data)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
