//! The UDP sockets of connections: one that many sessions share, and the way out through one or two of them.

use std::{io, net::SocketAddr, sync::Arc};

use bytes::BytesMut;
use parking_lot::Mutex;
use peerloom_core::runtime::{Task, spawn};
use peerloom_socket::udp::{Datagram, DatagramSender, DatagramSocket, Transmit};
use tokio::sync::mpsc;

use crate::{
    demultiplexer::{Demultiplexer, Route, SessionId},
    driver::now,
    ice::token::SessionToken,
    limits,
    ufrag::{Credentials, IceCredentials},
};

pub(crate) type Sessions = Demultiplexer<mpsc::Sender<Datagram>>;

/// The way out: a socket for each IP version, or for one of them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Senders {
    v4: Option<DatagramSender>,
    v6: Option<DatagramSender>,
}

impl Senders {
    /// Through the socket that is bound to `bound`, too.
    pub(crate) fn add(&mut self, bound: SocketAddr, sender: DatagramSender) {
        let slot = if bound.is_ipv4() { &mut self.v4 } else { &mut self.v6 };
        *slot = Some(sender);
    }

    fn to(&self, destination: SocketAddr) -> Option<&DatagramSender> {
        if destination.is_ipv4() { self.v4.as_ref() } else { self.v6.as_ref() }
    }

    /// Sends now, or fails with [`WouldBlock`](io::ErrorKind::WouldBlock).
    pub(crate) fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        match self.to(transmit.destination) {
            Some(sender) => sender.try_send(transmit),
            None => Err(io::ErrorKind::NetworkUnreachable.into()),
        }
    }

    /// Waits for room in the buffer of the socket that leads to `destination`.
    pub(crate) async fn writable(&self, destination: SocketAddr) -> io::Result<()> {
        match self.to(destination) {
            Some(sender) => sender.writable().await,
            None => Ok(()),
        }
    }

    /// How many datagrams one transmit to `destination` may hold.
    pub(crate) fn max_segments(&self, destination: SocketAddr) -> usize {
        self.to(destination).map_or(1, DatagramSender::max_segments)
    }
}

/// A socket of many sessions, for as long as anybody needs it.
pub(crate) struct SharedSocket {
    pub(crate) bound: SocketAddr,
    sessions: Arc<Mutex<Sessions>>,
    sender: DatagramSender,
    _task: Task,
}

/// Somebody's first connectivity check, and what follows it.
pub(crate) struct Session {
    pub(crate) credentials: Credentials,
    pub(crate) from: SocketAddr,
    pub(crate) datagrams: mpsc::Receiver<Datagram>,
    pub(crate) registration: Registration,
}

/// A session's entry in the demultiplexer, gone when this is dropped.
pub(crate) struct Registration {
    id: SessionId,
    sessions: Arc<Mutex<Sessions>>,
}

impl Registration {
    /// The session's handshake is done and makes room for another.
    pub(crate) fn established(&self) {
        self.sessions.lock().established(self.id);
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.sessions.lock().remove(self.id);
    }
}

impl SharedSocket {
    /// Sorts what arrives on `socket`. Sessions that strangers begin go to `begun`; without it there are none.
    pub(crate) fn new(socket: DatagramSocket, begun: Option<mpsc::Sender<Session>>) -> io::Result<Self> {
        let bound = socket.local_address()?;
        let mut sessions = Sessions::new(now());
        if begun.is_none() {
            sessions.close();
        }
        let sessions = Arc::new(Mutex::new(sessions));
        let sender = socket.sender();
        let task = spawn(sort(socket, sender.clone(), sessions.clone(), begun));
        Ok(Self { bound, sessions, sender, _task: task })
    }

    pub(crate) fn sender(&self) -> DatagramSender {
        self.sender.clone()
    }

    /// A session that was agreed upon elsewhere, whose datagrams go to `sink`.
    pub(crate) fn register(
        &self,
        local: &IceCredentials,
        token: SessionToken,
        sink: mpsc::Sender<Datagram>,
    ) -> Registration {
        let id = self.sessions.lock().insert_negotiated(local, token, sink);
        Registration { id, sessions: self.sessions.clone() }
    }

    /// Takes no more sessions of strangers and ends those that are not established.
    pub(crate) fn close_to_strangers(&self) {
        self.sessions.lock().close();
    }

    /// How many sessions there are, their handshakes included.
    #[cfg(test)]
    pub(crate) fn sessions(&self) -> usize {
        self.sessions.lock().len()
    }
}

/// Hands each datagram to the session that it belongs to.
async fn sort(
    mut socket: DatagramSocket,
    sender: DatagramSender,
    sessions: Arc<Mutex<Sessions>>,
    begun: Option<mpsc::Sender<Session>>,
) {
    loop {
        let datagram = match socket.receive().await {
            Ok(datagram) => datagram,
            Err(error) => {
                tracing::warn!(%error, "WebRTC has lost a socket");
                return;
            }
        };
        let mut table = sessions.lock();
        match table.route(now(), datagram.source, &datagram.payload) {
            Route::Sessions(ids) => deliver(&table, &ids, datagram),
            Route::Answer(answer) => {
                drop(table);
                let (destination, src_ip) = (datagram.source, datagram.destination);
                let answer =
                    Transmit { destination, ecn: None, contents: &answer, segment_size: None, src_ip };
                // A full socket buffer loses it; dialers repeat themselves.
                let _ = sender.try_send(&answer);
            }
            Route::New(credentials, check) => {
                // A listener that is not polled begins nothing.
                let Some(Ok(permit)) = begun.as_ref().map(mpsc::Sender::try_reserve) else { continue };
                let (sink, datagrams) = mpsc::channel(limits::DATAGRAM_QUEUE);
                let from = datagram.source;
                let id = table.insert(&credentials, from, sink);
                // The session has to know where its dialer is; that it answers the check once more does no harm.
                let check = Datagram { payload: BytesMut::from(&*check), ..datagram.clone() };
                deliver(&table, &[id], check);
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
