//! A host's way to others, as nodes know it.

use std::{fmt, future::poll_fn, io, sync::Arc, task::Context};

use peerloom_core::{
    Connection, ConnectionError, DialError, HandshakeError, Incoming, Keypair, ListenError, Listener,
    ListenerEvent, Multiaddr, PublicKey, Transport, runtime::BoxFuture,
};
use peerloom_upgrade::Upgrader;

use super::{
    Host, Internet,
    address::Endpoint,
    connection::{Handle, InternetConnection, RawPipe},
    flow::EndRef,
    listener::ListenerId,
};

/// A [`Transport`] for `/ip4|ip6/…/tcp/…` with and without `/ws` and `/tls/ws`, and `/ip4|ip6/…/udp/…` with `/quic-v1`,
/// `/quic-v1/webtransport` and `/webrtc-direct`.
///
/// All of them are the same underneath and differ in the packets that carry them and in the round trips of a handshake. Who
/// the remote says to be is believed, which makes a connection cheap; see [`secured`](Self::secured).
#[derive(Clone)]
pub struct InternetTransport {
    host: Host,
    /// That of the host when this was made; it is of no use to a later one.
    incarnation: u32,
    keypair: Keypair,
    secured: bool,
}

impl fmt::Debug for InternetTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InternetTransport").field("host", &self.host.id).finish_non_exhaustive()
    }
}

impl InternetTransport {
    pub(super) fn new(host: Host, keypair: Keypair) -> Self {
        let incarnation = host.internet.lock().incarnation(host.id);
        Self { host, incarnation, keypair, secured: false }
    }

    /// Runs the real Noise and Yamux over whatever the address names, as TCP has them. Both ends must, or nobody answers.
    pub fn secured(mut self) -> Self {
        self.secured = true;
        self
    }

    fn public_key(&self) -> PublicKey {
        self.keypair.public().clone()
    }

    /// A connection of which neither end has proved anything.
    async fn connect(self, endpoint: Endpoint, address: Multiaddr) -> Result<InternetConnection, String> {
        let internet = self.host.internet.clone();
        let at = internet.with(|state, now| {
            if state.incarnation(self.host.id) != self.incarnation {
                return Err("the host has crashed");
            }
            state.dial(now, self.host.id, endpoint, self.secured, self.public_key())
        });
        let mut dialing = Unfinished { internet: internet.clone(), at: Some(at?) };
        let established = poll_fn(|cx| dialing.poll(cx)).await;
        let (at, remote_key) = established.map_err(|error| error.to_string())?;
        dialing.at = None;
        Ok(InternetConnection { handle: Handle::new(internet, at), remote_key, remote_address: address })
    }
}

impl Transport for InternetTransport {
    fn can_dial(&self, address: &Multiaddr) -> bool {
        Endpoint::parse(address).is_some()
    }

    fn can_listen(&self, address: &Multiaddr) -> bool {
        Endpoint::parse(address).is_some()
    }

    fn dial(&self, address: Multiaddr) -> BoxFuture<'static, Result<Box<dyn Connection>, DialError>> {
        let this = self.clone();
        Box::pin(async move {
            let Some(endpoint) = Endpoint::parse(&address) else {
                return Err(DialError::UnsupportedAddress { address, reason: "no address of this network" });
            };
            let remote_address = address.without_peer_id();
            if this.secured {
                let upgrader = Upgrader::new(this.keypair.clone());
                let connect = || {
                    let connecting = this.clone().connect(endpoint, remote_address.clone());
                    async { RawPipe::dialed(connecting.await.map_err(io::Error::other)?).await }
                };
                return upgrader.dial(address.clone(), connect).await;
            }
            let expected = address.peer_id();
            let connecting = this.connect(endpoint, remote_address).await;
            let connection =
                connecting.map_err(|reason| DialError::Unreachable { address: address.clone(), reason })?;
            let actual = connection.remote_peer();
            match expected.filter(|expected| *expected != actual) {
                None => Ok(Box::new(connection) as _),
                Some(expected) => {
                    let source = HandshakeError::WrongPeer { expected, actual };
                    Err(DialError::Handshake { address, source })
                }
            }
        })
    }

    fn listen(&self, address: Multiaddr) -> BoxFuture<'static, Result<Box<dyn Listener>, ListenError>> {
        let this = self.clone();
        Box::pin(async move {
            let Some(endpoint) = Endpoint::parse(&address) else {
                return Err(ListenError::UnsupportedAddress {
                    address,
                    reason: "no address of this network",
                });
            };
            let internet = this.host.internet.clone();
            let listening = internet.with(|state, _| {
                if state.incarnation(this.host.id) != this.incarnation {
                    return Err("the host has crashed");
                }
                state.listen(this.host.id, endpoint, this.secured, this.public_key())
            });
            let (id, endpoints) = listening
                .map_err(|reason| ListenError::Io { address: address.clone(), reason: reason.to_owned() })?;
            let addresses = endpoints.into_iter().map(Endpoint::to_multiaddr).collect();
            let upgrader = this.secured.then(|| Upgrader::new(this.keypair.clone()));
            Ok(Box::new(InternetListener { internet, id, address, addresses, upgrader }) as _)
        })
    }
}

/// A dial or a handshake; dropping it cancels it.
struct Unfinished {
    internet: Internet,
    at: Option<EndRef>,
}

impl Unfinished {
    fn poll(
        &mut self,
        cx: &Context<'_>,
    ) -> std::task::Poll<Result<(EndRef, PublicKey), Arc<ConnectionError>>> {
        let Some(at) = &mut self.at else {
            return std::task::Poll::Ready(Err(Arc::new(ConnectionError::ClosedLocally)));
        };
        let established = self.internet.with(|state, _| state.poll_established(at, cx));
        established.map_ok(|key| (*at, key))
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Some(at) = self.at {
            self.internet.with(|state, now| state.cancel(now, at));
        }
    }
}

struct InternetListener {
    internet: Internet,
    id: ListenerId,
    address: Multiaddr,
    addresses: Vec<Multiaddr>,
    upgrader: Option<Upgrader>,
}

impl Listener for InternetListener {
    fn addresses(&self) -> Vec<Multiaddr> {
        self.addresses.clone()
    }

    fn next(&mut self) -> BoxFuture<'_, Result<ListenerEvent, ListenError>> {
        Box::pin(async move {
            let next = poll_fn(|cx| self.internet.with(|state, _| state.poll_incoming(self.id, cx))).await;
            let Some(at) = next else {
                let reason = "the host has crashed".to_owned();
                return Err(ListenError::Io { address: self.address.clone(), reason });
            };
            let incoming = Unfinished { internet: self.internet.clone(), at: Some(at) };
            let remote = self.internet.with(|state, _| state.remote_endpoint(at));
            let remote_address = remote.map_or_else(|| self.address.clone(), Endpoint::to_multiaddr);
            let handshake = shake_hands(incoming, remote_address.clone(), self.upgrader.clone());
            Ok(ListenerEvent::Incoming(Incoming { remote_address, handshake: Box::pin(handshake) }))
        })
    }
}

async fn shake_hands(
    mut incoming: Unfinished,
    remote_address: Multiaddr,
    upgrader: Option<Upgrader>,
) -> Result<Box<dyn Connection>, HandshakeError> {
    let lost = |error: Arc<ConnectionError>| HandshakeError::Lost { step: "dial", reason: error.to_string() };
    let internet = incoming.internet.clone();
    if let Some(at) = incoming.at {
        internet.with(|state, now| state.drive(now, at));
    }
    let (at, remote_key) = poll_fn(|cx| incoming.poll(cx)).await.map_err(lost)?;
    incoming.at = None;
    let handle = Handle::new(internet, at);
    let connection = InternetConnection { handle, remote_key, remote_address: remote_address.clone() };
    match upgrader {
        None => Ok(Box::new(connection)),
        Some(upgrader) => {
            let pipe = RawPipe::accepted(connection).await.map_err(lost)?;
            upgrader.accept(pipe, remote_address).await
        }
    }
}

impl Drop for InternetListener {
    fn drop(&mut self) {
        self.internet.with(|state, now| state.unlisten(now, self.id));
    }
}
