//! [`WebRtcListener`]: one UDP socket for all sessions, and the task that sorts what arrives on it.

use std::{net::SocketAddr, sync::Arc};

use parking_lot::Mutex;
use peerloom_core::{
    Connection, HandshakeError, Incoming, Keypair, ListenError, Listener, ListenerEvent, Multiaddr,
    Multihash,
    runtime::{BoxFuture, Task, spawn},
};
use peerloom_socket::{
    address::reachable,
    udp::{Datagram, DatagramSender, DatagramSocket},
};
use tokio::sync::mpsc;

use crate::{
    address::to_multiaddr,
    certificate::Certificate,
    connection::{Handshake, Side},
    demultiplexer::{Demultiplexer, Route, SessionId},
    driver::{Inbound, now},
    dtls::DtlsConfig,
    limits,
    peer_connection::{PeerConnection, Timeouts},
    state::Shared,
    ufrag::Credentials,
};

/// Sessions that wait for the listener to be polled. More are not begun; dialers repeat themselves.
const INCOMING_QUEUE: usize = limits::MAX_PENDING_HANDSHAKES;

type Sessions = Demultiplexer<mpsc::Sender<Datagram>>;

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
    bound: SocketAddr,
    certhash: Multihash,
    incoming: mpsc::Receiver<Session>,
    socket: Arc<ListenerSocket>,
    settings: Arc<Settings>,
}

/// The socket, for as long as the listener or a connection needs it.
pub(crate) struct ListenerSocket {
    sessions: Arc<Mutex<Sessions>>,
    sender: DatagramSender,
    _task: Task,
}

/// Somebody's first connectivity check, and what follows it.
struct Session {
    credentials: Credentials,
    from: SocketAddr,
    datagrams: mpsc::Receiver<Datagram>,
    registration: Registration,
}

/// A session's entry in the demultiplexer, gone when this is dropped.
struct Registration {
    id: SessionId,
    sessions: Arc<Mutex<Sessions>>,
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.sessions.lock().remove(self.id);
    }
}

impl WebRtcListener {
    pub(crate) fn new(
        address: Multiaddr,
        socket: DatagramSocket,
        settings: Arc<Settings>,
    ) -> Result<Self, ListenError> {
        let bound = socket
            .local_address()
            .map_err(|error| ListenError::Io { address: address.clone(), reason: error.to_string() })?;
        let sessions = Arc::new(Mutex::new(Demultiplexer::new(now())));
        let sender = socket.sender();
        let (begun, incoming) = mpsc::channel(INCOMING_QUEUE);
        let task = spawn(sort(socket, sessions.clone(), begun));
        let socket = Arc::new(ListenerSocket { sessions, sender, _task: task });
        Ok(Self { certhash: settings.certificate.hash(), address, bound, incoming, socket, settings })
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
        self.socket.sessions.lock().len()
    }
}

async fn accept(
    session: Session,
    settings: &Settings,
    socket: Arc<ListenerSocket>,
    remote_address: Multiaddr,
) -> Result<Box<dyn Connection>, HandshakeError> {
    let connection =
        PeerConnection::listener(session.credentials, settings.config.clone(), settings.timeouts, now());
    let shared = Shared::new(connection, socket.sender.clone(), settings.send_target);
    let handshake = Handshake {
        identity: &settings.identity,
        side: Side::Listener,
        fingerprint: settings.certificate.hash(),
        remote_address,
        timeout: settings.timeouts.step,
    };
    let id = session.registration.id;
    let sessions = socket.sessions.clone();
    let guard = (session.registration, socket);
    let connection = handshake.run(shared, Inbound::Queue(session.datagrams), guard).await?;
    sessions.lock().established(id);
    Ok(Box::new(connection))
}

/// Hands each datagram to the session that it belongs to.
async fn sort(mut socket: DatagramSocket, sessions: Arc<Mutex<Sessions>>, begun: mpsc::Sender<Session>) {
    loop {
        let datagram = match socket.receive().await {
            Ok(datagram) => datagram,
            Err(error) => {
                tracing::warn!(%error, "a WebRTC listener has lost its socket");
                return;
            }
        };
        let mut table = sessions.lock();
        match table.route(now(), datagram.source, &datagram.payload) {
            Route::Sessions(ids) => deliver(&table, &ids, datagram),
            Route::New(credentials) => {
                // A listener that is not polled begins nothing.
                let Ok(permit) = begun.try_reserve() else { continue };
                let (sink, datagrams) = mpsc::channel(limits::DATAGRAM_QUEUE);
                let from = datagram.source;
                let id = table.insert(&credentials, from, sink);
                deliver(&table, &[id], datagram);
                let registration = Registration { id, sessions: sessions.clone() };
                drop(table);
                permit.send(Session { credentials, from, datagrams, registration });
            }
            Route::Drop => {}
        }
    }
}

/// A full queue drops, as UDP may.
fn deliver(sessions: &Sessions, ids: &[SessionId], datagram: Datagram) {
    let Some((last, others)) = ids.split_last() else { return };
    for id in others {
        if let Some(sink) = sessions.sink(*id) {
            let _ = sink.try_send(datagram.clone());
        }
    }
    if let Some(sink) = sessions.sink(*last) {
        let _ = sink.try_send(datagram);
    }
}

impl Listener for WebRtcListener {
    fn addresses(&self) -> Vec<Multiaddr> {
        let reachable = reachable(self.bound).unwrap_or_else(|error| {
            tracing::warn!(%error, "cannot list the machine's interfaces");
            vec![self.bound]
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
        self.socket.sessions.lock().close();
    }
}

#[cfg(test)]
mod tests;
