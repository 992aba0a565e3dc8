//! [`WebRtcConnection`]: an authenticated connection, and the Noise handshake that makes it one.

use std::{sync::Arc, time::Duration};

use peerloom_core::{
    Connection, ConnectionError, HandshakeError, Keypair, Multiaddr, Multihash, PeerId, PublicKey, Stream,
    StreamExt,
    runtime::{self, BoxFuture, Task},
};
use peerloom_socket::udp::Transmit;
use peerloom_upgrade::{
    Role,
    noise::{self, NoiseExtensions, RemoteIdentity},
};

use crate::{
    driver::{Driver, Inbound, now},
    peer_connection::End,
    state::{Shared, State},
    stream::WebRtcStream,
};

/// What the Noise handshake's prologue begins with (`webrtc/webrtc-direct.md`, "Connection Security").
const PROLOGUE: &[u8] = b"libp2p-webrtc-noise:";

const NOISE_STEP: &str = "webrtc noise";

/// An authenticated connection.
pub(crate) struct WebRtcConnection {
    shared: Arc<Shared>,
    remote: RemoteIdentity,
    remote_address: Multiaddr,
    _driver: Task,
}

/// Which side of a handshake we are on.
pub(crate) enum Side {
    /// Which waits so long before it speaks.
    Listener {
        pause: Duration,
    },
    Dialer {
        expected: Option<PeerId>,
    },
}

/// What a handshake needs besides the connection.
pub(crate) struct Handshake<'a> {
    pub(crate) identity: &'a Keypair,
    pub(crate) side: Side,
    /// The hash of our own certificate.
    pub(crate) fingerprint: Multihash,
    pub(crate) remote_address: Multiaddr,
    /// For the Noise handshake.
    pub(crate) timeout: Duration,
}

impl Handshake<'_> {
    /// Drives `shared` to an authenticated connection. Dropping the future drops the connection.
    pub(crate) async fn run<G: Send + Unpin + 'static>(
        self,
        shared: Arc<Shared>,
        inbound: Inbound,
        guard: G,
    ) -> Result<WebRtcConnection, HandshakeError> {
        let driver = runtime::spawn(Driver::new(shared.clone(), inbound, guard));
        let mut closer = CloseOnDrop::new(shared.clone());
        let connected = shared.wait(|state| match state.take_handshake() {
            Some(key) => Some(Ok((key, state.connection.remote_fingerprint()))),
            None => state.end_reason().map(|end| Err(handshake_error(end))),
        });
        let (key, remote_fingerprint) = connected.await?;
        let mut io = WebRtcStream::new(shared.clone(), key).into_io();
        let remote_fingerprint = remote_fingerprint.ok_or_else(|| HandshakeError::Invalid {
            step: NOISE_STEP,
            reason: "the remote has no certificate".to_owned(),
        })?;
        let (role, prologue) = match self.side {
            // "B starts the handshake": the listener can send first.
            Side::Listener { pause } => {
                if !pause.is_zero() {
                    runtime::sleep(pause).await;
                }
                (Role::Initiator, prologue(&remote_fingerprint, &self.fingerprint))
            }
            Side::Dialer { .. } => (Role::Responder, prologue(&self.fingerprint, &remote_fingerprint)),
        };
        let extensions = NoiseExtensions { webrtc_joined_lengths: true, ..NoiseExtensions::default() };
        let authenticated = noise::authenticate(&mut io, role, self.identity, &prologue, extensions);
        let remote = runtime::timeout(self.timeout, authenticated)
            .await
            .map_err(|_| HandshakeError::TimedOut { step: NOISE_STEP })??;
        if let Side::Dialer { expected: Some(expected) } = self.side
            && expected != remote.peer_id
        {
            return Err(HandshakeError::WrongPeer { expected, actual: remote.peer_id });
        }
        // "On success of the authentication handshake, the used datachannel is closed."
        let (mut stream, _) = io.into_parts();
        let _ = stream.close_write().await;
        drop(stream);
        closer.disarm();
        if remote.extensions.webrtc_joined_lengths {
            shared.with(State::join_lengths);
        }
        Ok(WebRtcConnection { shared, remote, remote_address: self.remote_address, _driver: driver })
    }
}

fn prologue(client: &Multihash, server: &Multihash) -> Vec<u8> {
    [PROLOGUE, client.as_bytes(), server.as_bytes()].concat()
}

/// A connection whose remote is known otherwise than by a handshake.
pub(crate) fn authenticated(
    shared: Arc<Shared>,
    remote: PublicKey,
    remote_address: Multiaddr,
    driver: Task,
) -> WebRtcConnection {
    let remote = RemoteIdentity {
        peer_id: remote.peer_id(),
        public_key: remote,
        extensions: NoiseExtensions::default(),
    };
    // go-libp2p, which does not read such messages, has no connections of this kind.
    shared.with(State::join_lengths);
    WebRtcConnection { shared, remote, remote_address, _driver: driver }
}

fn handshake_error(end: End) -> HandshakeError {
    match end {
        End::HandshakeTimedOut(step) => HandshakeError::TimedOut { step: step.name() },
        End::HandshakeFailed { step, reason } => HandshakeError::Lost { step: step.name(), reason },
        End::WrongCertificate(reason) => HandshakeError::Certificate(reason),
        end => HandshakeError::Lost { step: "webrtc", reason: end.to_string() },
    }
}

/// Tells the remote that the connection is over, at once and as far as the kernel takes it.
pub(crate) struct CloseOnDrop(Option<Arc<Shared>>);

impl CloseOnDrop {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self(Some(shared))
    }

    /// Somebody else does it from now on.
    pub(crate) fn disarm(&mut self) {
        self.0 = None;
    }
}

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        if let Some(shared) = &self.0 {
            close_at_once(shared);
        }
    }
}

fn close_at_once(shared: &Shared) {
    let now = now();
    let last_words: Vec<_> = shared.with(|state| {
        state.close_now(now);
        std::iter::from_fn(|| state.connection.poll_transmit(now)).collect()
    });
    for (path, contents) in last_words {
        let (destination, src_ip) = (path.remote, path.local);
        let transmit = Transmit { destination, ecn: None, contents: &contents, segment_size: None, src_ip };
        let _ = shared.senders.try_send(&transmit);
    }
}

impl Connection for WebRtcConnection {
    fn remote_peer(&self) -> PeerId {
        self.remote.peer_id
    }

    fn remote_public_key(&self) -> &PublicKey {
        &self.remote.public_key
    }

    fn remote_address(&self) -> &Multiaddr {
        &self.remote_address
    }

    fn open_stream(&self) -> BoxFuture<'static, Result<Box<dyn Stream>, Arc<ConnectionError>>> {
        let shared = self.shared.clone();
        Box::pin(async move {
            let opened = shared.wait(|state| match check_open(state) {
                Ok(()) => state.open(now()).map(Ok),
                Err(error) => Some(Err(error)),
            });
            let key = opened.await?;
            shared.driver.wake();
            Ok(Box::new(WebRtcStream::new(shared, key)) as Box<dyn Stream>)
        })
    }

    fn accept_stream(&self) -> BoxFuture<'_, Result<Box<dyn Stream>, Arc<ConnectionError>>> {
        Box::pin(async {
            let accepted = self.shared.wait(|state| match state.accept() {
                Some(key) => Some(Ok(key)),
                None => state.error().map(Err),
            });
            let key = accepted.await?;
            Ok(Box::new(WebRtcStream::new(self.shared.clone(), key)) as Box<dyn Stream>)
        })
    }

    fn close(&self) -> BoxFuture<'static, ()> {
        let shared = self.shared.clone();
        shared.with(|state| state.close_soon(now()));
        shared.driver.wake();
        Box::pin(async move {
            shared.wait(|state| state.error()).await;
        })
    }

    fn closed(&self) -> BoxFuture<'static, Arc<ConnectionError>> {
        let shared = self.shared.clone();
        Box::pin(async move { shared.wait(|state| state.error()).await })
    }
}

fn check_open(state: &State) -> Result<(), Arc<ConnectionError>> {
    match state.error() {
        Some(error) => Err(error),
        None if state.is_closing() => Err(Arc::new(ConnectionError::ClosedLocally)),
        None => Ok(()),
    }
}

impl Drop for WebRtcConnection {
    fn drop(&mut self) {
        close_at_once(&self.shared);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prologue_is_that_of_the_specs_test_vector() {
        let hex = |text: &str| -> [u8; 32] {
            data_encoding::HEXLOWER.decode(text.as_bytes()).unwrap().try_into().unwrap()
        };
        let client =
            Multihash::sha2_256(hex("3e79af40d6059617a0d83b83a52ce73b0c1f37a72c6043ad2969e2351bdca870"));
        let server =
            Multihash::sha2_256(hex("30fc9f469c207419dfdd0aab5f27a86c973c94e40548db9375cca2e915973b99"));
        let text: String = prologue(&client, &server).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(
            text,
            "6c69627032702d7765627274632d6e6f6973653a12203e79af40d6059617a0d83b83a52ce73b0c1f37a72c6043ad2969e2351bdc\
             a870122030fc9f469c207419dfdd0aab5f27a86c973c94e40548db9375cca2e915973b99"
        );
    }
}
