//! [`WebRtcListener`]: one UDP socket for all sessions.

use std::{sync::Arc, time::Duration};

use peerloom_core::{
    Connection, HandshakeError, Incoming, Keypair, ListenError, Listener, ListenerEvent, Multiaddr,
    Multihash, runtime::BoxFuture,
};
use peerloom_socket::{address::reachable, udp::DatagramSocket};
use tokio::sync::mpsc;

use crate::{
    address::to_multiaddr,
    certificate::Certificate,
    connection::{Handshake, Side},
    driver::{Inbound, now},
    dtls::DtlsConfig,
    limits,
    peer_connection::{PeerConnection, Timeouts},
    sockets::{Senders, Session, SharedSocket},
    state::Shared,
    ufrag::WireVersion,
};

/// Sessions that wait for the listener to be polled. More are not begun; dialers repeat themselves.
const INCOMING_QUEUE: usize = limits::MAX_PENDING_HANDSHAKES;

/// What all sessions of a listener have in common.
pub(crate) struct Settings {
    pub(crate) identity: Keypair,
    pub(crate) certificate: Arc<Certificate>,
    pub(crate) config: DtlsConfig,
    pub(crate) timeouts: Timeouts,
    pub(crate) send_target: usize,
}

/// A socket on which WebRTC-direct is accepted.
pub(crate) struct WebRtcListener {
    address: Multiaddr,
    certhash: Multihash,
    incoming: mpsc::Receiver<Session>,
    socket: Arc<SharedSocket>,
    settings: Arc<Settings>,
}

impl WebRtcListener {
    pub(crate) fn new(
        address: Multiaddr,
        socket: DatagramSocket,
        settings: Arc<Settings>,
    ) -> Result<Self, ListenError> {
        let (begun, incoming) = mpsc::channel(INCOMING_QUEUE);
        let socket = SharedSocket::new(socket, Some(begun))
            .map_err(|error| ListenError::Io { address: address.clone(), reason: error.to_string() })?;
        let socket = Arc::new(socket);
        Ok(Self { certhash: settings.certificate.hash(), address, incoming, socket, settings })
    }

    fn incoming(&self, session: Session) -> Incoming {
        let remote_address = to_multiaddr(session.from, None);
        let (settings, socket) = (self.settings.clone(), self.socket.clone());
        let address = remote_address.clone();
        let handshake = async move { accept(session, &settings, socket, address).await };
        Incoming { remote_address, handshake: Box::pin(handshake) }
    }

    /// How many sessions there are, their handshakes included.
    #[cfg(test)]
    pub(crate) fn sessions(&self) -> usize {
        self.socket.sessions()
    }
}

/// Between SCTP's handshake and our first message, for dialers of version 1. rust-libp2p is one, and loses what arrives before
/// it has opened the channel: without the pause half of its dials, and none of a hundred from 3 ms on. Pages speak version 2.
const PAUSE_FOR_V1: Duration = Duration::from_millis(5);

async fn accept(
    session: Session,
    settings: &Settings,
    socket: Arc<SharedSocket>,
    remote_address: Multiaddr,
) -> Result<Box<dyn Connection>, HandshakeError> {
    let pause = match session.credentials.version {
        WireVersion::V1 => PAUSE_FOR_V1,
        WireVersion::V2 => Duration::ZERO,
    };
    let connection =
        PeerConnection::listener(session.credentials, settings.config.clone(), settings.timeouts, now());
    let mut senders = Senders::default();
    senders.add(socket.bound, socket.sender());
    let shared = Shared::new(connection, senders, settings.send_target);
    let handshake = Handshake {
        identity: &settings.identity,
        side: Side::Listener { pause },
        fingerprint: settings.certificate.hash(),
        remote_address,
        timeout: settings.timeouts.step,
    };
    let registration = Arc::new(session.registration);
    let guard = (registration.clone(), socket);
    let connection = handshake.run(shared, Inbound::Queue(session.datagrams), guard).await?;
    registration.established();
    Ok(Box::new(connection))
}

impl Listener for WebRtcListener {
    fn addresses(&self) -> Vec<Multiaddr> {
        let reachable = reachable(self.socket.bound).unwrap_or_else(|error| {
            tracing::warn!(%error, "cannot list the machine's interfaces");
            vec![self.socket.bound]
        });
        reachable.into_iter().map(|address| to_multiaddr(address, Some(&self.certhash))).collect()
    }

    fn next(&mut self) -> BoxFuture<'_, Result<ListenerEvent, ListenError>> {
        Box::pin(async move {
            match self.incoming.recv().await {
                Some(session) => Ok(ListenerEvent::Incoming(self.incoming(session))),
                None => Err(ListenError::Io {
                    address: self.address.clone(),
                    reason: "the socket is gone".to_owned(),
                }),
            }
        })
    }
}

impl Drop for WebRtcListener {
    fn drop(&mut self) {
        // Established connections keep the socket; everybody else is sent away.
        self.socket.close_to_strangers();
    }
}

#[cfg(test)]
mod tests;
