//! Connections through a relay: who uses them, and when they are no longer needed.

use std::{
    any::Any,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use peerloom_core::{
    Circuit, Connection, ConnectionError, Multiaddr, PeerId, PublicKey, Stream, StreamError,
    runtime::{BoxFuture, sleep},
};

use crate::{connections::ConnectionId, node::Shared};

/// A relayed connection that counts its streams.
pub(crate) struct RelayedConnection {
    inner: Box<dyn Connection>,
    streams: Arc<StreamCount>,
}

#[derive(Default)]
pub(crate) struct StreamCount {
    open: AtomicUsize,
    /// Wraps.
    opened: AtomicUsize,
}

impl RelayedConnection {
    pub(crate) fn new(inner: Box<dyn Connection>) -> (Self, Arc<StreamCount>) {
        let streams = Arc::<StreamCount>::default();
        (Self { inner, streams: streams.clone() }, streams)
    }
}

impl Connection for RelayedConnection {
    fn remote_peer(&self) -> PeerId {
        self.inner.remote_peer()
    }

    fn remote_public_key(&self) -> &PublicKey {
        self.inner.remote_public_key()
    }

    fn remote_address(&self) -> &Multiaddr {
        self.inner.remote_address()
    }

    fn circuit(&self) -> Option<&Arc<Circuit>> {
        self.inner.circuit()
    }

    fn open_stream(&self) -> BoxFuture<'static, Result<Box<dyn Stream>, Arc<ConnectionError>>> {
        let opening = self.inner.open_stream();
        // Counted from the wish on, so that the connection is not closed under it.
        let counted = Counted::new(&self.streams);
        Box::pin(async move { Ok(Box::new(CountedStream { inner: opening.await?, _counted: counted }) as _) })
    }

    fn accept_stream(&self) -> BoxFuture<'_, Result<Box<dyn Stream>, Arc<ConnectionError>>> {
        Box::pin(async {
            let inner = self.inner.accept_stream().await?;
            Ok(Box::new(CountedStream { inner, _counted: Counted::new(&self.streams) }) as _)
        })
    }

    fn close(&self) -> BoxFuture<'static, ()> {
        self.inner.close()
    }

    fn closed(&self) -> BoxFuture<'static, Arc<ConnectionError>> {
        self.inner.closed()
    }
}

/// One of the open streams, for as long as it lives.
struct Counted(Arc<StreamCount>);

impl Counted {
    fn new(streams: &Arc<StreamCount>) -> Self {
        streams.open.fetch_add(1, Relaxed);
        streams.opened.fetch_add(1, Relaxed);
        Self(streams.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Relaxed);
    }
}

struct CountedStream {
    inner: Box<dyn Stream>,
    _counted: Counted,
}

impl Stream for CountedStream {
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, StreamError>> {
        self.inner.poll_read(cx)
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, data: &mut Bytes) -> Poll<Result<(), StreamError>> {
        self.inner.poll_write(cx, data)
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        self.inner.poll_flush(cx)
    }

    fn poll_close_write(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        self.inner.poll_close_write(cx)
    }

    fn reset(&mut self, code: u32) {
        self.inner.reset(code);
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self.inner.into_any()
    }
}

impl Shared {
    /// Ready when the relayed connection `id` has had no stream for [`Limits::relayed_idle`](crate::Limits::relayed_idle) while
    /// there was a direct connection to the same peer.
    pub(crate) async fn relayed_is_idle(&self, id: ConnectionId, peer: PeerId, streams: &StreamCount) {
        let mut changes = self.connection_changes.subscribe();
        loop {
            let direct = changes.wait_for(|_| self.connections.lock().is_direct(peer)).await.is_ok();
            let opened = streams.opened.load(Relaxed);
            sleep(self.limits.relayed_idle).await;
            let idle = streams.open.load(Relaxed) == 0 && streams.opened.load(Relaxed) == opened;
            if direct && idle && self.connections.lock().is_direct(peer) {
                tracing::debug!(%id, %peer, "closing the relayed connection beside a direct one");
                return;
            }
        }
    }

    /// Whether somebody works on a direct connection to `peer`.
    pub(crate) fn expects_direct(&self, peer: PeerId) -> bool {
        self.expected_direct.lock().contains_key(&peer)
    }

    pub(crate) fn expect_direct(self: &Arc<Self>, peer: PeerId) -> ExpectDirect {
        let mut expected = self.expected_direct.lock();
        let guards = expected.entry(peer).or_default();
        *guards = guards.saturating_add(1);
        drop(expected);
        ExpectDirect { shared: self.clone(), peer }
    }
}

/// As long as it lives, streams that may not use a limited connection to the peer wait for a direct one. Whoever holds it is
/// making that one, and sets the deadline.
#[must_use = "streams wait only as long as this lives"]
pub struct ExpectDirect {
    shared: Arc<Shared>,
    peer: PeerId,
}

impl Drop for ExpectDirect {
    fn drop(&mut self) {
        let mut expected = self.shared.expected_direct.lock();
        if let Some(guards) = expected.get_mut(&self.peer) {
            *guards = guards.saturating_sub(1);
            if *guards == 0 {
                expected.remove(&self.peer);
            }
        }
        drop(expected);
        self.shared.connection_changes.send_replace(());
    }
}
