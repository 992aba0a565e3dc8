//! WebRTC-direct (libp2p spec "WebRTC Direct"): the browser's RTCPeerConnection to a server that it cannot exchange session
//! descriptions with. Both descriptions are made here, from the address.
//!
//! A server tells the two wire versions apart by the ICE user name fragment that we make up for it. A dialer cannot ask
//! which ones the server knows: one that does not know a version stays silent. So version 2 goes first, and version 1
//! follows when no connectivity check was answered for a while; the first to connect wins. Version 1 needs a description
//! that is changed behind the browser's back, which Chromium is about to forbid.

use std::{cell::RefCell, collections::VecDeque, future::poll_fn, net::SocketAddr, rc::Rc, time::Duration};

use futures_util::future::{Either, select};
use peerloom_core::{
    Connection, DialError, HandshakeError, Keypair, ListenError, Listener, Multiaddr, Multihash, Protocol,
    StreamError, StreamExt, Transport, multihash,
    runtime::{BoxFuture, sleep},
};
use peerloom_upgrade::{
    Role,
    noise::{self, NoiseExtensions},
};
use wasm_bindgen::JsValue;
use wasm_bindgen_futures::JsFuture;
use web_sys::{RtcDataChannelInit, RtcSdpType, RtcSessionDescriptionInit};

use crate::{
    js, sdp,
    transports::{
        address::{cannot_listen, unsupported},
        webrtc::{
            channel::{Channel, DataChannelStream},
            connection::{PeerConnection, WebRtcConnection},
        },
    },
};

/// How long version 2 has for itself. A server that knows it answers the first connectivity check within one round trip.
pub const V1_DELAY: Duration = Duration::from_secs(1);

/// How many servers that only knew version 1 are remembered, so that the delay is not paid at each dial.
const REMEMBERED_V1_SERVERS: usize = 32;

/// Dials `/ip4|ip6/…/udp/…/webrtc-direct/certhash/…`.
pub struct WebRtcDirectTransport {
    identity: Keypair,
    v1_servers: Rc<RefCell<VecDeque<SocketAddr>>>,
}

impl WebRtcDirectTransport {
    /// A transport that proves to be `identity`.
    pub fn new(identity: Keypair) -> Self {
        Self { identity, v1_servers: Rc::default() }
    }
}

impl Transport for WebRtcDirectTransport {
    fn can_dial(&self, address: &Multiaddr) -> bool {
        Target::parse(address).is_some()
    }

    fn can_listen(&self, _: &Multiaddr) -> bool {
        false
    }

    fn dial(&self, address: Multiaddr) -> BoxFuture<'static, Result<Box<dyn Connection>, DialError>> {
        let identity = self.identity.clone();
        let v1_servers = self.v1_servers.clone();
        Box::pin(async move {
            let Some(target) = Target::parse(&address) else {
                return Err(unsupported(address, "not a WebRTC-direct address"));
            };
            if !js::has_global("RTCPeerConnection") {
                return Err(unsupported(address, "there is no WebRTC here (workers have none)"));
            }
            match target.dial(&identity, &v1_servers).await {
                Ok(connection) => Ok(Box::new(connection) as Box<dyn Connection>),
                Err(Failure::NoAnswer(reason)) => Err(DialError::Unreachable { address, reason }),
                Err(Failure::Handshake(source)) => Err(DialError::Handshake { address, source }),
            }
        })
    }

    fn listen(&self, address: Multiaddr) -> BoxFuture<'static, Result<Box<dyn Listener>, ListenError>> {
        cannot_listen(address)
    }
}

/// What a WebRTC-direct address says.
struct Target {
    address: Multiaddr,
    server: SocketAddr,
    certhash: Multihash,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Version {
    V1,
    V2,
}

/// Why an attempt came to nothing.
enum Failure {
    /// The server did not answer, or the browser refused to ask.
    NoAnswer(String),
    /// It answered, but did not prove to be whom we wanted.
    Handshake(HandshakeError),
}

impl Target {
    fn parse(address: &Multiaddr) -> Option<Self> {
        let mut protocols = address.protocols();
        let ip = match protocols.next()? {
            Protocol::Ip4(ip) => ip.into(),
            Protocol::Ip6(ip) => ip.into(),
            _ => return None,
        };
        let Protocol::Udp(port) = protocols.next()? else { return None };
        let Protocol::WebRtcDirect = protocols.next()? else { return None };
        // A connection has one certificate, so one hash; the spec wants the browser to know its algorithm.
        let Protocol::Certhash(certhash) = protocols.next()? else { return None };
        if certhash.code() != multihash::SHA2_256 {
            return None;
        }
        match protocols.next() {
            None => {}
            // Something after the peer id makes it a relayed address.
            Some(Protocol::P2p(_)) if protocols.next().is_none() => {}
            Some(_) => return None,
        }
        Some(Self { address: address.clone(), server: SocketAddr::new(ip, port), certhash })
    }

    async fn dial(
        &self,
        identity: &Keypair,
        v1_servers: &RefCell<VecDeque<SocketAddr>>,
    ) -> Result<WebRtcConnection, Failure> {
        let known_v1 = v1_servers.borrow().contains(&self.server);
        let v2 = Attempt::new(Version::V2).map_err(Failure::NoAnswer)?;
        let v2_answered = v2.connection.answered();
        let v2 = Box::pin(v2.run(self, identity));
        let head_start = Box::pin(async {
            if known_v1 {
                return;
            }
            // A server that answered a check of version 2 knows it; what is left is its handshake.
            if let Either::Left(_) = select(v2_answered, sleep(V1_DELAY)).await {
                std::future::pending::<()>().await;
            }
        });
        let v2 = match select(v2, head_start).await {
            Either::Left((Err(Failure::NoAnswer(_)), _)) => None,
            Either::Left((outcome, _)) => return outcome,
            Either::Right((_, v2)) => Some(v2),
        };
        let v1 = Attempt::new(Version::V1).map_err(Failure::NoAnswer)?;
        let v1 = Box::pin(v1.run(self, identity));
        let (outcome, winner) = match v2 {
            None => (v1.await, Version::V1),
            Some(v2) => match select(v1, v2).await {
                Either::Left((Err(Failure::NoAnswer(_)), v2)) => (v2.await, Version::V2),
                Either::Right((Err(Failure::NoAnswer(_)), v1)) => (v1.await, Version::V1),
                Either::Left((outcome, _)) => (outcome, Version::V1),
                Either::Right((outcome, _)) => (outcome, Version::V2),
            },
        };
        if outcome.is_ok() {
            let mut servers = v1_servers.borrow_mut();
            servers.retain(|server| *server != self.server);
            if winner == Version::V1 {
                servers.truncate(REMEMBERED_V1_SERVERS.saturating_sub(1));
                servers.push_front(self.server);
            }
        }
        outcome
    }
}

/// One try to connect, with one browser object. Dropping it closes that.
struct Attempt {
    version: Version,
    connection: PeerConnection,
    handshake: Rc<Channel>,
}

impl Attempt {
    fn new(version: Version) -> Result<Self, String> {
        let described = |error: JsValue| js::describe(&error);
        // No ICE servers: the remote is at the address, and learns ours from the checks.
        let connection = PeerConnection::new(&[]).map_err(described)?;
        let options = RtcDataChannelInit::new();
        options.set_negotiated(true);
        options.set_id(0);
        let handshake = connection.create_channel("", &options).map_err(described)?;
        let handshake = connection.adopt(handshake);
        Ok(Self { version, connection, handshake })
    }

    async fn run(self, target: &Target, identity: &Keypair) -> Result<WebRtcConnection, Failure> {
        let certificate = self.describe(target).await.map_err(Failure::NoAnswer)?;
        let mut io = self.handshake_stream().await.map_err(Failure::NoAnswer)?.into_io();
        let prologue = [b"libp2p-webrtc-noise:", certificate.as_bytes(), target.certhash.as_bytes()].concat();
        let extensions = NoiseExtensions { webrtc_joined_lengths: true, ..NoiseExtensions::default() };
        // The server speaks first: of DTLS's two sides it is the one that can.
        let remote = noise::authenticate(&mut io, Role::Responder, identity, &prologue, extensions)
            .await
            .map_err(Failure::Handshake)?;
        if let Some(expected) = target.address.peer_id()
            && expected != remote.peer_id
        {
            return Err(Failure::Handshake(HandshakeError::WrongPeer { expected, actual: remote.peer_id }));
        }
        // The spec has the channel closed now, but then the browser gives its id, 0, to the next stream, and rust-libp2p
        // takes a stream of that id for the one that was closed. So it stays, idle, for as long as the connection.
        io.into_parts().0.leave_open();
        let joins_lengths = remote.extensions.webrtc_joined_lengths;
        let address = target.address.without_peer_id();
        Ok(self.connection.into_connection(remote.public_key, address, joins_lengths))
    }

    /// The stream for the handshake, once ICE, DTLS and SCTP are through.
    async fn handshake_stream(&self) -> Result<DataChannelStream, String> {
        match poll_fn(|cx| self.handshake.poll_open(cx)).await {
            Ok(()) => {
                self.connection.watch_sctp();
                Ok(DataChannelStream::new(self.handshake.clone()))
            }
            Err(StreamError::ConnectionLost(reason)) => Err(reason.to_string()),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Gives the browser both descriptions, upon which it connects. The hash of the browser's certificate.
    async fn describe(&self, target: &Target) -> Result<Multihash, String> {
        let described = |error: JsValue| js::describe(&error);
        let pc = self.connection.pc();
        let offer = JsFuture::from(pc.create_offer()).await.map_err(described)?;
        let offer = js::property(&offer, "sdp").as_string().unwrap_or_default();
        let credentials;
        let local = match self.version {
            Version::V1 => {
                credentials = [V1_PREFIX, &random_credentials()].concat();
                sdp::with_ice_credentials(&offer, &credentials)
            }
            Version::V2 => {
                let password =
                    sdp::attribute(&offer, "ice-pwd").ok_or("the browser's offer has no ice-pwd")?;
                credentials = [V2_PREFIX, password].concat();
                offer
            }
        };
        let fingerprint =
            sdp::sha256_fingerprint(&local).ok_or("the browser's offer has no SHA-256 fingerprint")?;
        let local_description = RtcSessionDescriptionInit::new(RtcSdpType::Offer);
        local_description.set_sdp(&local);
        JsFuture::from(pc.set_local_description(&local_description)).await.map_err(described)?;
        let remote_description = RtcSessionDescriptionInit::new(RtcSdpType::Answer);
        remote_description.set_sdp(&sdp::server_answer(
            target.server,
            &credentials,
            target.certhash.digest(),
        ));
        JsFuture::from(pc.set_remote_description(&remote_description)).await.map_err(described)?;
        Ok(Multihash::sha2_256(fingerprint))
    }
}

const V1_PREFIX: &str = "libp2p+webrtc+v1/";
const V2_PREFIX: &str = "libp2p+webrtc+v2/";

/// 32 ice-chars (RFC 8839).
fn random_credentials() -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut bytes = [0u8; 32];
    // Fails nowhere that has WebRTC; and the credentials protect nothing that DTLS and Noise do not.
    let _ = getrandom::fill(&mut bytes);
    bytes
        .iter()
        .filter_map(|byte| ALPHABET.get(usize::from(byte & 63)))
        .map(|byte| char::from(*byte))
        .collect()
}
