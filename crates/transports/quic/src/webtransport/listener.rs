//! [`WebTransportListener`]: accepts sessions on one UDP port.

use std::sync::Arc;

use peerloom_core::{
    Connection, HandshakeError, Keypair, ListenError, Listener, ListenerEvent, Multiaddr,
    runtime::{BoxFuture, sleep},
};
use peerloom_socket::address::reachable;
use quinn::crypto::rustls::QuicServerConfig;
use tokio::sync::watch;

use super::{STEP, address, handshake, tls::ServedCertificates};
use crate::{
    limits::Settings,
    ports::{Port, Served, Service},
    receive_window::{ReceiveBudget, ReceiveWindow},
    streams::Established,
};

/// Accepts sessions on one UDP port.
pub(super) struct WebTransportListener {
    served: Served,
    address: Multiaddr,
    certificates: Arc<ServedCertificates>,
    rotations: watch::Receiver<()>,
}

impl WebTransportListener {
    pub(super) fn new(served: Served, address: Multiaddr, certificates: Arc<ServedCertificates>) -> Self {
        Self { served, address, rotations: certificates.rotations(), certificates }
    }
}

impl Listener for WebTransportListener {
    fn addresses(&self) -> Vec<Multiaddr> {
        let hashes = self.certificates.advertised();
        let reachable = reachable(self.served.port().bound()).unwrap_or_else(|error| {
            tracing::warn!(%error, "the machine's addresses cannot be listed");
            Vec::new()
        });
        reachable.into_iter().map(|socket| address::to_multiaddr(socket, &hashes)).collect()
    }

    fn next(&mut self) -> BoxFuture<'_, Result<ListenerEvent, ListenError>> {
        Box::pin(async move {
            loop {
                let rotation = sleep(self.certificates.rotate_if_due());
                tokio::select! {
                    incoming = self.served.accept() => {
                        let reason = "the socket failed".to_owned();
                        let failed = || ListenError::Io { address: self.address.clone(), reason };
                        return Ok(ListenerEvent::Incoming(incoming.ok_or_else(failed)?));
                    }
                    _ = self.rotations.changed() => return Ok(ListenerEvent::AddressesChanged),
                    () = rotation => {}
                }
            }
        })
    }
}

/// What takes the connections of browsers.
pub(super) struct Acceptor {
    pub(super) identity: Keypair,
    pub(super) certificates: Arc<ServedCertificates>,
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
            let remote_address = address::to_multiaddr(connecting.remote_address(), &[]);
            // Our settings go out before the client has finished its part of TLS, which saves it a round trip. Nothing is
            // accepted from it before that.
            let (quic, _) = connecting.into_0rtt().map_err(|_| HandshakeError::Lost {
                step: STEP,
                reason: "no keys to send with".to_owned(),
            })?;
            let connection = Established { quic, port, window: ReceiveWindow::new(self.budget.clone()) };
            handshake::accept(connection, &self.identity, &self.certificates, remote_address).await
        })
    }
}
