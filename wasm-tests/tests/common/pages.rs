//! Connections between two pages, which here are one.

use std::sync::Arc;

use bytes::Bytes;
use peerloom_core::{
    Connection, Keypair, Multiaddr, NegotiatedStream, StreamError, StreamExt as _,
    multihash::sha2_256,
    multistream_select::negotiate_inbound,
    runtime::{TaskSet, spawn},
};
use peerloom_node::Node;
use peerloom_relay::{ClientConfig, RelayClient};
use peerloom_wasm::transports::{BrowserPeerConnections, WebSocketTransport};
use peerloom_webrtc_signaling::{
    PeerConnection, PeerConnectionEvent, PeerConnectionFactory as _, SignalingConfig, SignalingRole,
};

use super::{ECHO, ECHO_DIGEST, Kind, Server, within};

/// A page's node, as far as other pages are concerned. It answers echoes.
pub(crate) struct Page {
    pub(crate) node: Node,
}

impl Page {
    pub(crate) fn new() -> Self {
        Self::with_ice_servers(Vec::new())
    }

    pub(crate) fn with_ice_servers(ice_servers: Vec<String>) -> Self {
        let identity = Keypair::generate();
        let node = Node::builder(identity.clone()).transport(WebSocketTransport::new(identity)).build();
        RelayClient::start(&node, ClientConfig::default()).unwrap();
        let peer_connections = BrowserPeerConnections::new(ice_servers);
        peerloom_webrtc_signaling::start(&node, peer_connections, SignalingConfig::default()).unwrap();
        for protocol in [ECHO, ECHO_DIGEST] {
            let handler = |incoming: peerloom_node::IncomingStream| async {
                let _ = echo(incoming.stream).await;
            };
            node.handle(protocol, handler).unwrap();
        }
        Self { node }
    }

    /// One that others reach through `server`.
    pub(crate) async fn listening(server: &Server) -> Self {
        let page = Self::new();
        let relayed = format!("{}/p2p-circuit", server.address(Kind::WebSocket));
        within(page.node.listen(relayed.parse().unwrap())).await.unwrap();
        within(page.node.listen("/webrtc".parse().unwrap())).await.unwrap();
        page
    }

    /// Where other pages dial it.
    pub(crate) fn address(&self) -> Multiaddr {
        self.address_with("/webrtc/")
    }

    /// Where others reach it through the server.
    pub(crate) fn relayed_address(&self) -> Multiaddr {
        self.address_with("/p2p-circuit/p2p/")
    }

    fn address_with(&self, part: &str) -> Multiaddr {
        let addresses = self.node.listen_addresses();
        addresses.into_iter().find(|address| address.to_string().contains(part)).unwrap()
    }

    pub(crate) fn relayed_connections(&self) -> usize {
        self.node.connections().iter().filter(|connection| !connection.is_direct()).count()
    }
}

/// The dialing end of a connection whose other end answers echoes until the connection is over.
pub(crate) async fn connected() -> Box<dyn Connection> {
    let (dialer, listener) = pair().await;
    let serving = spawn(serve(listener));
    // For as long as the page lives; it ends with the connection.
    std::mem::forget(serving);
    dialer
}

/// Both ends of a connection, by the dialer's and the listener's peer connections and nothing else.
pub(crate) async fn pair() -> (Box<dyn Connection>, Box<dyn Connection>) {
    let (dialer, mut listener) = dialed().await;
    while !matches!(listener.next().await, PeerConnectionEvent::Connected) {}
    (dialer, into_connection(listener))
}

/// The dialer's end of a connection, and a listener that has not looked yet whether there is one.
pub(crate) async fn dialed() -> (Box<dyn Connection>, Box<dyn PeerConnection>) {
    let factory = BrowserPeerConnections::new(Vec::new());
    let mut dialer = factory.create(SignalingRole::Offerer).unwrap();
    let mut listener = factory.create(SignalingRole::Answerer).unwrap();
    let offer = dialer.create_offer().await.unwrap();
    let answer = listener.accept_offer(offer).await.unwrap();
    dialer.accept_answer(answer).await.unwrap();
    // The dialer's candidates are enough: the listener's checks teach it the other way.
    loop {
        match dialer.next().await {
            PeerConnectionEvent::Candidate(candidate) => listener.add_candidate(candidate).await.unwrap(),
            PeerConnectionEvent::GatheringDone => {}
            PeerConnectionEvent::Connected => return (into_connection(dialer), listener),
            PeerConnectionEvent::Failed(reason) => panic!("{reason}"),
        }
    }
}

pub(crate) fn into_connection(end: Box<dyn PeerConnection>) -> Box<dyn Connection> {
    let address: Multiaddr = "/webrtc".parse().unwrap();
    end.into_connection(Keypair::generate().public().clone(), address)
}

async fn serve(connection: Box<dyn Connection>) {
    let tasks = Arc::new(TaskSet::default());
    while let Ok(stream) = connection.accept_stream().await {
        tasks.spawn(async {
            let supports = |name: &str| [ECHO, ECHO_DIGEST].into_iter().find(|known| known.as_str() == name);
            if let Ok(stream) = negotiate_inbound(stream, supports).await {
                let _ = echo(stream).await;
            }
        });
    }
}

/// Sends everything back and, if that is the protocol, its SHA-256.
pub(crate) async fn echo(mut stream: NegotiatedStream) -> Result<(), StreamError> {
    let mut all = Vec::new();
    while let Some(chunk) = stream.read_chunk().await? {
        if stream.protocol() == &ECHO_DIGEST {
            all.extend_from_slice(&chunk);
        }
        stream.write_all(chunk).await?;
    }
    if stream.protocol() == &ECHO_DIGEST {
        stream.write_all(Bytes::copy_from_slice(&sha2_256(&all))).await?;
    }
    stream.close_write().await
}
