//! [`QuicConnection`]: an authenticated QUIC connection as a libp2p connection.

use std::{sync::Arc, time::Duration};

use peerloom_core::{
    CloseReason, Connection, ConnectionError, HandshakeError, Multiaddr, PeerId, PublicKey, Stream,
    runtime::{BoxFuture, Task, sleep, spawn, timeout},
};
use peerloom_upgrade::tls::remote_public_key;
use rustls::pki_types::CertificateDer;

use super::address;
use crate::{
    limits::{CLOSE_TIMEOUT, GOODBYE_TIMEOUT},
    stream::QuicStream,
    streams::{ErrorCodes, Established, Streams},
};

/// libp2p's error codes are QUIC's.
const CODES: ErrorCodes =
    ErrorCodes { to_wire: |code| code as u64, from_wire: |code| u32::try_from(code).unwrap_or(0) };

/// An authenticated QUIC connection.
pub(super) struct QuicConnection {
    streams: Arc<Streams>,
    public_key: PublicKey,
    peer: PeerId,
    remote_address: Multiaddr,
    _keep_flowing: Task,
}

impl QuicConnection {
    /// The connection of a remote whose certificate TLS has accepted.
    pub(super) fn new(connection: Established, remote_address: Multiaddr) -> Result<Self, HandshakeError> {
        let identity = connection.quic.peer_identity();
        let certificates = identity.and_then(|any| any.downcast::<Vec<CertificateDer<'static>>>().ok());
        let public_key = remote_public_key(&certificates.unwrap_or_default())?;
        let Established { quic, port, window } = connection;
        let streams = Streams::new(quic, port, CODES, bytes::Bytes::new(), window);
        let flowing = streams.clone();
        Ok(Self {
            peer: public_key.peer_id(),
            public_key,
            remote_address,
            _keep_flowing: spawn(async move { flowing.keep_flowing().await }),
            streams,
        })
    }
}

impl Connection for QuicConnection {
    fn remote_peer(&self) -> PeerId {
        self.peer
    }

    fn remote_public_key(&self) -> &PublicKey {
        &self.public_key
    }

    fn remote_address(&self) -> &Multiaddr {
        &self.remote_address
    }

    fn local_address(&self) -> Option<Multiaddr> {
        Some(address::to_multiaddr(self.streams.local_socket()))
    }

    fn open_stream(&self) -> BoxFuture<'static, Result<Box<dyn Stream>, Arc<ConnectionError>>> {
        Box::pin(self.streams.clone().open())
    }

    fn accept_stream(&self) -> BoxFuture<'_, Result<Box<dyn Stream>, Arc<ConnectionError>>> {
        Box::pin(async move {
            let opened = self.streams.quic.accept_bi().await;
            let (send, recv) = opened.map_err(|error| self.streams.over(error))?;
            Ok(Box::new(QuicStream::inbound(self.streams.clone(), send, recv)) as Box<dyn Stream>)
        })
    }

    fn close(&self) -> BoxFuture<'static, ()> {
        self.close_with(0)
    }

    fn close_for(&self, reason: CloseReason) -> BoxFuture<'static, ()> {
        self.close_with(reason.code())
    }

    fn closed(&self) -> BoxFuture<'static, Arc<ConnectionError>> {
        Box::pin(self.streams.clone().closed())
    }
}

impl QuicConnection {
    fn close_with(&self, code: u32) -> BoxFuture<'static, ()> {
        let streams = self.streams.clone();
        Box::pin(async move {
            streams.ends_with(ConnectionError::ClosedLocally);
            let sent = async {
                streams.acknowledged().await;
                all_sent(&streams).await;
            };
            let _ = timeout(CLOSE_TIMEOUT, sent).await;
            if streams.quic.close_reason().is_some() {
                return;
            }
            streams.quic.close(code.into(), b"");
            let _ = timeout(GOODBYE_TIMEOUT, goodbye_sent(&streams)).await;
        })
    }
}

impl Drop for QuicConnection {
    fn drop(&mut self) {
        self.streams.ends_with(ConnectionError::ClosedLocally);
        self.streams.quic.close(0_u32.into(), b"");
    }
}

/// Waits until the end that was just told is on its way. A task of quinn's sends it, which a process that ends now would take
/// along; and the remote would wait for us until its idle timeout.
async fn goodbye_sent(streams: &Streams) {
    let sent = || streams.quic.stats().udp_tx.datagrams;
    let before = sent();
    while sent() == before {
        sleep(Duration::from_millis(1)).await;
    }
}

/// Waits until what the streams that are still open have taken is on its way, or held up by the remote. quinn does not
/// tell; but as long as there is something to send and the congestion window is what holds it up, each round trip brings
/// acknowledgements that let another frame out.
async fn all_sent(streams: &Streams) {
    let sent = || streams.quic.stats().frame_tx.stream;
    let mut before = sent();
    while streams.any_held() {
        sleep(streams.quic.rtt().saturating_mul(2).max(Duration::from_millis(5))).await;
        match sent() {
            now if now == before => return,
            now => before = now,
        }
    }
}
