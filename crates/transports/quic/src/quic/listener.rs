//! [`QuicListener`]: accepts connections on one UDP port.

use std::sync::Arc;

use peerloom_core::{
    Connection, HandshakeError, ListenError, Listener, ListenerEvent, Multiaddr, runtime::BoxFuture,
};
use peerloom_socket::address::reachable;
use quinn::crypto::rustls::QuicServerConfig;

use super::{address, connection::QuicConnection};
use crate::{
    limits::Settings,
    ports::{Port, Served, Service, handshake_error},
    receive_window::{ReceiveBudget, ReceiveWindow},
    streams::Established,
};

/// Accepts connections on one UDP port.
pub(super) struct QuicListener {
    pub(super) served: Served,
    pub(super) address: Multiaddr,
}

impl Listener for QuicListener {
    fn addresses(&self) -> Vec<Multiaddr> {
        let reachable = reachable(self.served.port().bound()).unwrap_or_else(|error| {
            tracing::warn!(%error, "the machine's addresses cannot be listed");
            Vec::new()
        });
        reachable.into_iter().map(address::to_multiaddr).collect()
    }

    fn next(&mut self) -> BoxFuture<'_, Result<ListenerEvent, ListenError>> {
        Box::pin(async move {
            match self.served.accept().await {
                Some(incoming) => Ok(ListenerEvent::Incoming(incoming)),
                None => Err(ListenError::Io {
                    address: self.address.clone(),
                    reason: "the socket failed".to_owned(),
                }),
            }
        })
    }
}

/// What takes the connections of libp2p's own.
pub(super) struct Acceptor {
    pub(super) budget: Arc<ReceiveBudget>,
    pub(super) tls: Arc<QuicServerConfig>,
    pub(super) settings: Settings,
}

impl Service for Acceptor {
    fn tls(&self) -> Arc<QuicServerConfig> {
        self.tls.clone()
    }

    fn settings(&self) -> Settings {
        self.settings
    }

    fn accept(
        self: Arc<Self>,
        connecting: quinn::Connecting,
        port: Arc<Port>,
    ) -> BoxFuture<'static, Result<Box<dyn Connection>, HandshakeError>> {
        Box::pin(async move {
            let remote_address = address::to_multiaddr(connecting.remote_address());
            // Until the client's certificate is verified: it says nothing before that.
            let quic = connecting.await.map_err(handshake_error)?;
            let connection = Established { quic, port, window: ReceiveWindow::new(self.budget.clone()) };
            Ok(Box::new(QuicConnection::new(connection, remote_address)?) as Box<dyn Connection>)
        })
    }
}
