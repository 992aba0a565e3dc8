//! [`WebTransportListener`]: accepts sessions on one UDP port.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use peerloom_core::{
    Connection, HandshakeError, Incoming, Keypair, ListenError, Listener, ListenerEvent, Multiaddr,
    runtime::{BoxFuture, sleep, timeout},
};
use peerloom_socket::address::reachable;
use tokio::sync::watch;

use super::{
    STEP, address, endpoint, handshake,
    limits::{HANDSHAKE_TIMEOUT, MAX_HANDSHAKES, RETRY_FROM},
    receive_window::{ReceiveBudget, ReceiveWindow},
    tls::ServedCertificates,
};

/// Accepts sessions on one UDP port.
pub(super) struct WebTransportListener {
    endpoint: quinn::Endpoint,
    bound: SocketAddr,
    address: Multiaddr,
    identity: Keypair,
    certificates: Arc<ServedCertificates>,
    rotations: watch::Receiver<()>,
    budget: Arc<ReceiveBudget>,
    handshakes: Arc<AtomicUsize>,
    /// Dropped with the listener, which ends the handshakes that watch it.
    alive: watch::Sender<()>,
}

impl WebTransportListener {
    /// Listens on `bind`.
    pub(super) fn bind(
        bind: SocketAddr,
        address: Multiaddr,
        config: quinn::ServerConfig,
        identity: Keypair,
        certificates: Arc<ServedCertificates>,
        budget: Arc<ReceiveBudget>,
    ) -> io::Result<Self> {
        let endpoint = endpoint(bind, Some(config))?;
        Ok(Self {
            bound: endpoint.local_addr()?,
            endpoint,
            address,
            identity,
            rotations: certificates.rotations(),
            certificates,
            budget,
            handshakes: Arc::default(),
            alive: watch::Sender::new(()),
        })
    }

    /// What to do about somebody who dials; `None` if that is done.
    fn admit(&self, incoming: quinn::Incoming) -> Option<Incoming> {
        let handshakes = self.handshakes.load(Ordering::Relaxed);
        if handshakes >= MAX_HANDSHAKES {
            incoming.refuse();
            return None;
        }
        // Under load an address is believed only when proved, or a forger could fill our tables with other people's.
        if handshakes >= RETRY_FROM && !incoming.remote_address_validated() && incoming.may_retry() {
            let _ = incoming.retry();
            return None;
        }
        let remote_address = address::to_multiaddr(incoming.remote_address(), &[]);
        let handshake = self.handshake(incoming, remote_address.clone());
        Some(Incoming { remote_address, handshake })
    }

    fn handshake(
        &self,
        incoming: quinn::Incoming,
        remote_address: Multiaddr,
    ) -> BoxFuture<'static, Result<Box<dyn Connection>, HandshakeError>> {
        let under_way = UnderWay::new(self.handshakes.clone());
        let identity = self.identity.clone();
        let certificates = self.certificates.clone();
        let window = ReceiveWindow::new(self.budget.clone());
        let mut alive = self.alive.subscribe();
        Box::pin(async move {
            let _under_way = under_way;
            let session = async {
                let quic = begin(incoming).await?;
                handshake::accept(quic, &identity, &certificates, window, remote_address).await
            };
            tokio::select! {
                biased;
                _ = alive.changed() => Err(lost("the listener was closed".to_owned())),
                done = timeout(HANDSHAKE_TIMEOUT, session) => {
                    done.unwrap_or(Err(HandshakeError::TimedOut { step: STEP }))
                }
            }
        })
    }
}

/// Begins the handshake of QUIC, as far as we need it to send.
async fn begin(incoming: quinn::Incoming) -> Result<quinn::Connection, HandshakeError> {
    let mut connecting = incoming.accept().map_err(|error| lost(error.to_string()))?;
    // The whole ClientHello must be there: opening a stream before the client's transport parameters are known would
    // wait for ever, because nothing wakes it.
    connecting.handshake_data().await.map_err(|error| lost(error.to_string()))?;
    // Our settings go out before the client has finished its part of TLS, which saves it a round trip. Nothing is
    // accepted from it before that.
    let (quic, _) = connecting.into_0rtt().map_err(|_| lost("no keys to send with".to_owned()))?;
    Ok(quic)
}

fn lost(reason: String) -> HandshakeError {
    HandshakeError::Lost { step: STEP, reason }
}

impl Listener for WebTransportListener {
    fn addresses(&self) -> Vec<Multiaddr> {
        let hashes = self.certificates.advertised();
        let reachable = reachable(self.bound).unwrap_or_else(|error| {
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
                    incoming = self.endpoint.accept() => {
                        let Some(incoming) = incoming else {
                            let reason = "the socket failed".to_owned();
                            return Err(ListenError::Io { address: self.address.clone(), reason });
                        };
                        if let Some(incoming) = self.admit(incoming) {
                            return Ok(ListenerEvent::Incoming(incoming));
                        }
                    }
                    _ = self.rotations.changed() => return Ok(ListenerEvent::AddressesChanged),
                    () = rotation => {}
                }
            }
        })
    }
}

impl Drop for WebTransportListener {
    fn drop(&mut self) {
        // The endpoint lives on as long as its connections do. Nobody else shall get in.
        self.endpoint.set_server_config(None);
    }
}

/// Counts a handshake as long as it is under way.
struct UnderWay(Arc<AtomicUsize>);

impl UnderWay {
    fn new(count: Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
