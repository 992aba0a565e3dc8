//! Servers to dial, and nodes to dial them with.

pub(crate) mod pages;

use std::time::Duration;

use js_sys::{Array, Reflect};
use peerloom_core::{
    Connection, Keypair, Multiaddr, NegotiatedStream, Protocol, ProtocolName, Stream, StreamExt as _,
    Transport, negotiate_outbound,
    runtime::{Elapsed, timeout},
};
use peerloom_wasm::transports::{WebRtcDirectTransport, WebSocketTransport, WebTransportTransport};
use wasm_bindgen::{JsCast as _, JsValue};
use wasm_bindgen_futures::JsFuture;
use web_sys::{RequestInit, Response};

/// Where `cargo xtask test` answers. It starts the servers, because a page cannot.
const SERVERS: &str = "http://127.0.0.1:18733";

/// What no single step of a test may take.
pub(crate) const LIMIT: Duration = Duration::from_secs(20);

/// Sends everything back.
pub(crate) const ECHO: ProtocolName = ProtocolName::from_static("/echo/1.0.0");
/// Sends everything back, and then its SHA-256.
pub(crate) const ECHO_DIGEST: ProtocolName = ProtocolName::from_static("/peerloom/echo-digest/1.0.0");

#[derive(Clone, Copy, PartialEq, Eq)]
#[allow(clippy::enum_variant_names)] // They are the transports' names.
pub(crate) enum Kind {
    WebTransport,
    WebRtcDirect,
    WebSocket,
    /// Between two pages; here they are one.
    WebRtc,
}

impl Kind {
    /// Those that dial servers.
    pub(crate) const ALL: [Self; 3] = [Self::WebTransport, Self::WebRtcDirect, Self::WebSocket];

    pub(crate) fn transport(self) -> Box<dyn Transport> {
        let identity = Keypair::generate();
        match self {
            Self::WebTransport => Box::new(WebTransportTransport::new(identity)),
            Self::WebRtcDirect => Box::new(WebRtcDirectTransport::new(identity)),
            Self::WebSocket => Box::new(WebSocketTransport::new(identity)),
            Self::WebRtc => unreachable!("pages are dialed through a node"),
        }
    }
}

/// A `peerloom` process.
pub(crate) struct Server {
    addresses: Vec<Multiaddr>,
    id: Option<f64>,
}

impl Server {
    /// The one that all tests share.
    pub(crate) async fn shared() -> Self {
        Self::parse(&fetch("GET", "/peerloom.json").await)
    }

    /// One for the caller alone, to be killed.
    pub(crate) async fn start() -> Self {
        Self::parse(&fetch("POST", "/servers").await)
    }

    /// Ends it as a crash would.
    pub(crate) async fn kill(self) {
        let id = self.id.expect("started for this test");
        fetch("POST", &format!("/servers/{id}/kill")).await;
    }

    fn parse(description: &JsValue) -> Self {
        let addresses: Array = property(description, "addresses").unchecked_into();
        let addresses = addresses.iter().map(|address| address.as_string().unwrap().parse().unwrap());
        Self { addresses: addresses.collect(), id: property(description, "id").as_f64() }
    }

    /// An address of the server, with its peer id. Not of loopback, which Firefox does not dial over WebRTC.
    pub(crate) fn address(&self, kind: Kind) -> Multiaddr {
        let suits = |address: &&Multiaddr| {
            let mut protocols = address.protocols();
            let reachable = matches!(protocols.next(), Some(Protocol::Ip4(ip)) if !ip.is_loopback());
            let speaks = protocols.any(|protocol| match kind {
                Kind::WebTransport => matches!(protocol, Protocol::WebTransport),
                Kind::WebRtcDirect => matches!(protocol, Protocol::WebRtcDirect),
                Kind::WebSocket | Kind::WebRtc => matches!(protocol, Protocol::Ws),
            });
            reachable && speaks
        };
        self.addresses
            .iter()
            .find(suits)
            .cloned()
            .expect("the server listens on an interface that is not loopback")
    }
}

async fn fetch(method: &str, path: &str) -> JsValue {
    let options = RequestInit::new();
    options.set_method(method);
    let window = web_sys::window().expect("tests run in a window");
    let request = window.fetch_with_str_and_init(&format!("{SERVERS}{path}"), &options);
    let response: Response =
        JsFuture::from(request).await.expect("cargo xtask test runs servers").unchecked_into();
    assert!(response.ok(), "{method} {path}");
    JsFuture::from(response.json().unwrap()).await.unwrap()
}

fn property(object: &JsValue, name: &str) -> JsValue {
    Reflect::get(object, &JsValue::from_str(name)).unwrap()
}

/// Dials, and fails the test if that fails.
pub(crate) async fn connect(kind: Kind, address: Multiaddr) -> Box<dyn Connection> {
    within(kind.transport().dial(address)).await.unwrap()
}

/// A connection to somebody who answers [`ECHO`] and [`ECHO_DIGEST`].
pub(crate) async fn connected(kind: Kind) -> Box<dyn Connection> {
    match kind {
        Kind::WebRtc => within(pages::connected()).await,
        _ => connect(kind, Server::shared().await.address(kind)).await,
    }
}

/// Opens a stream for a protocol that the server handles.
pub(crate) async fn open(connection: &dyn Connection, protocol: ProtocolName) -> NegotiatedStream {
    let stream = within(connection.open_stream()).await.unwrap();
    negotiate_outbound(stream, &[protocol]).await.unwrap()
}

/// Everything up to the end.
pub(crate) async fn read_to_end(stream: &mut impl Stream) -> Vec<u8> {
    let mut all = Vec::new();
    while let Some(chunk) = within(stream.read_chunk()).await.unwrap() {
        all.extend_from_slice(&chunk);
    }
    all
}

/// The future's output, unless it takes too long.
pub(crate) async fn within<F: Future>(future: F) -> F::Output {
    match timeout(LIMIT, future).await {
        Ok(output) => output,
        Err(Elapsed) => panic!("took longer than {LIMIT:?}"),
    }
}
