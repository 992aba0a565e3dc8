//! [`WebTransportConnection`]: an authenticated session as a libp2p connection.

use std::sync::Arc;

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use peerloom_core::{
    CloseReason, Connection, ConnectionError, Multiaddr, PeerId, PublicKey, Stream,
    runtime::{BoxFuture, Task},
};
use peerloom_upgrade::noise::RemoteIdentity;
use quinn::{RecvStream, SendStream};
use tokio::sync::Mutex;

use super::{address, session::Session};
use crate::stream::QuicStream;

/// A stream that the remote opened, once its header is there; nothing if it is none of ours.
type Admission = BoxFuture<'static, Option<(SendStream, RecvStream)>>;

/// An authenticated session.
pub(super) struct WebTransportConnection {
    session: Arc<Session>,
    remote: RemoteIdentity,
    remote_address: Multiaddr,
    /// Streams whose headers have not arrived. quinn bounds them.
    admitting: Mutex<FuturesUnordered<Admission>>,
    _watch: Task,
}

impl WebTransportConnection {
    pub(super) fn new(
        session: Arc<Session>,
        remote: RemoteIdentity,
        remote_address: Multiaddr,
        watch: Task,
    ) -> Self {
        Self { session, remote, remote_address, admitting: Mutex::default(), _watch: watch }
    }

    async fn accept(&self) -> Result<Box<dyn Stream>, Arc<ConnectionError>> {
        let mut admitting = self.admitting.lock().await;
        loop {
            tokio::select! {
                opened = self.session.quic().accept_bi() => {
                    let (send, recv) = opened.map_err(|error| self.session.streams.over(error))?;
                    let session = self.session.clone();
                    admitting.push(Box::pin(async move { session.admit(send, recv).await }));
                }
                Some(admitted) = admitting.next() => {
                    if let Some((send, recv)) = admitted {
                        return Ok(Box::new(QuicStream::inbound(self.session.streams.clone(), send, recv)));
                    }
                }
            }
        }
    }
}

impl Connection for WebTransportConnection {
    fn remote_peer(&self) -> PeerId {
        self.remote.peer_id
    }

    fn remote_public_key(&self) -> &PublicKey {
        &self.remote.public_key
    }

    fn remote_address(&self) -> &Multiaddr {
        &self.remote_address
    }

    fn local_address(&self) -> Option<Multiaddr> {
        Some(address::to_multiaddr(self.session.streams.local_socket(), &[]))
    }

    fn open_stream(&self) -> BoxFuture<'static, Result<Box<dyn Stream>, Arc<ConnectionError>>> {
        Box::pin(self.session.streams.clone().open())
    }

    fn accept_stream(&self) -> BoxFuture<'_, Result<Box<dyn Stream>, Arc<ConnectionError>>> {
        Box::pin(self.accept())
    }

    fn close(&self) -> BoxFuture<'static, ()> {
        Box::pin(self.session.clone().close(0))
    }

    fn close_for(&self, reason: CloseReason) -> BoxFuture<'static, ()> {
        Box::pin(self.session.clone().close(reason.code()))
    }

    fn closed(&self) -> BoxFuture<'static, Arc<ConnectionError>> {
        Box::pin(self.session.streams.clone().closed())
    }
}

impl Drop for WebTransportConnection {
    fn drop(&mut self) {
        self.session.abandon();
    }
}
