//! WebTransport (libp2p spec "WebTransport"): the browser's own QUIC streams, with a Noise handshake on the first one to
//! bind the session to the peer.

mod bindings;
mod connection;
mod stream;

use std::sync::Arc;

use bindings::WebTransport;
use js_sys::{Array, Object, Uint8Array};
use peerloom_core::{
    Connection, DialError, HandshakeError, Keypair, ListenError, Listener, Multiaddr, Multihash, Protocol,
    StreamExt, Transport, multihash, runtime::BoxFuture,
};
use peerloom_upgrade::{
    Role,
    noise::{self, NoiseExtensions},
};
use tokio::sync::Semaphore;
use wasm_bindgen::JsValue;
use wasm_bindgen_futures::JsFuture;

use crate::{
    js,
    transports::address::{cannot_listen, unsupported, url_host},
};
use connection::{Session, WebTransportConnection};
pub use stream::WebTransportStream;

/// Sessions that may be under way at once. Chromium keeps failed ones as pending for a while and refuses all dials of the
/// page at 64 of them ("Too many pending sessions"), so a burst of dials to dead addresses must not get there.
pub const MAX_PENDING_SESSIONS: usize = 8;

/// Dials `/ip4|ip6|dns*/…/udp/…/quic-v1/webtransport[/certhash/…]*`.
pub struct WebTransportTransport {
    identity: Keypair,
    pending: Arc<Semaphore>,
}

impl WebTransportTransport {
    /// A transport that proves to be `identity`.
    pub fn new(identity: Keypair) -> Self {
        Self { identity, pending: Arc::new(Semaphore::new(MAX_PENDING_SESSIONS)) }
    }
}

impl Transport for WebTransportTransport {
    fn can_dial(&self, address: &Multiaddr) -> bool {
        Target::parse(address).is_some()
    }

    fn can_listen(&self, _: &Multiaddr) -> bool {
        false
    }

    fn dial(&self, address: Multiaddr) -> BoxFuture<'static, Result<Box<dyn Connection>, DialError>> {
        let identity = self.identity.clone();
        let pending = self.pending.clone();
        Box::pin(async move {
            let Some(target) = Target::parse(&address) else {
                return Err(unsupported(address, "not a WebTransport address"));
            };
            if !js::has_global("WebTransport") {
                return Err(unsupported(address, "this browser has no WebTransport"));
            }
            if target.foreign_hashes {
                return Err(unsupported(address, "none of its certificate hashes is SHA-256"));
            }
            let _permit = pending.acquire().await;
            let session = open_session(&target)
                .await
                .map_err(|reason| DialError::Unreachable { address: address.clone(), reason })?;
            match authenticate(session, &identity, &address, target.certhashes).await {
                Ok(connection) => Ok(connection),
                Err(source) => Err(DialError::Handshake { address, source }),
            }
        })
    }

    fn listen(&self, address: Multiaddr) -> BoxFuture<'static, Result<Box<dyn Listener>, ListenError>> {
        cannot_listen(address)
    }
}

/// What a WebTransport address says.
struct Target {
    url: String,
    certhashes: Vec<Multihash>,
    /// There are hashes, but of algorithms that browsers do not know.
    foreign_hashes: bool,
}

impl Target {
    fn parse(address: &Multiaddr) -> Option<Self> {
        let mut protocols = address.protocols();
        let host = url_host(&protocols.next()?)?;
        let Protocol::Udp(port) = protocols.next()? else { return None };
        let Protocol::QuicV1 = protocols.next()? else { return None };
        let mut next = protocols.next()?;
        if let Protocol::Sni(_) = next {
            next = protocols.next()?;
        }
        let Protocol::WebTransport = next else { return None };
        let mut certhashes = Vec::new();
        let mut foreign = false;
        for protocol in protocols.by_ref() {
            match protocol {
                Protocol::Certhash(hash) if hash.code() == multihash::SHA2_256 => certhashes.push(hash),
                Protocol::Certhash(_) => foreign = true,
                Protocol::P2p(_) => break,
                _ => return None,
            }
        }
        // Something after the peer id makes it a relayed address.
        if protocols.next().is_some() {
            return None;
        }
        let url = ["https://", &host, ":", &port.to_string(), "/.well-known/libp2p-webtransport?type=noise"]
            .concat();
        Some(Self { url, foreign_hashes: foreign && certhashes.is_empty(), certhashes })
    }

    /// `WebTransportOptions`. Without hashes, the browser wants a certificate from an authority that it trusts.
    fn options(&self) -> Object {
        let options = Object::new();
        if !self.certhashes.is_empty() {
            let hashes = Array::new();
            for hash in &self.certhashes {
                let entry = Object::new();
                js::set_property(&entry, "algorithm", &JsValue::from_str("sha-256"));
                js::set_property(&entry, "value", &Uint8Array::from(hash.digest()));
                hashes.push(&entry);
            }
            js::set_property(&options, "serverCertificateHashes", &hashes);
        }
        options
    }
}

/// A session whose server has answered. Dropping this future, or the session, closes it.
async fn open_session(target: &Target) -> Result<Session, String> {
    let session =
        Session::new(WebTransport::new(&target.url, &target.options()).map_err(|e| js::describe(&e))?);
    match JsFuture::from(session.ready()).await {
        Ok(_) => Ok(session),
        // Browsers do not tell these apart, on purpose.
        Err(error) => {
            Err([&js::describe(&error), " (no answer, or a certificate that the address does not name)"]
                .concat())
        }
    }
}

/// Noise on the session's first stream ("Security Handshake" of the spec).
async fn authenticate(
    session: Session,
    identity: &Keypair,
    address: &Multiaddr,
    certhashes: Vec<Multihash>,
) -> Result<Box<dyn Connection>, HandshakeError> {
    let failed = |error: JsValue| lost(js::describe(&error));
    let promise = session.create_bidirectional_stream().map_err(failed)?;
    let stream = JsFuture::from(promise).await.map_err(failed)?;
    let closed = session.closed.clone();
    let mut io = WebTransportStream::new(&stream, closed).map_err(lost)?.into_io();
    let remote =
        noise::authenticate(&mut io, Role::Initiator, identity, b"", NoiseExtensions::default()).await?;
    if let Some(expected) = address.peer_id()
        && expected != remote.peer_id
    {
        return Err(HandshakeError::WrongPeer { expected, actual: remote.peer_id });
    }
    // The browser does not tell which certificate the server showed, so the server must know every hash that we would
    // have accepted.
    let known = &remote.extensions.webtransport_certhashes;
    if let Some(unknown) = certhashes.iter().find(|hash| !known.contains(hash)) {
        let unknown = Protocol::Certhash(unknown.clone());
        return Err(HandshakeError::Certificate(["the peer does not know ", &unknown.to_string()].concat()));
    }
    let (mut stream, _) = io.into_parts();
    stream.close_write().await.map_err(lost)?;
    Ok(Box::new(WebTransportConnection::new(session, remote, address.without_peer_id())))
}

fn lost(error: impl std::fmt::Display) -> HandshakeError {
    HandshakeError::Lost { step: "webtransport", reason: error.to_string() }
}
