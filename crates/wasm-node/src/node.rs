use std::{rc::Rc, time::Duration};

use js_sys::{Array, Function, Object, Promise};
use peerloom_core::{
    Keypair, Multiaddr, Protocol, ProtocolName,
    runtime::{Task, spawn},
};
use peerloom_node::{
    ConnectionId, ConnectionInfo, DialTarget, Direction, Gating, IncomingStream, Node, NodeEvent,
    OpenedStream, StreamTarget, identify::IdentifyConfig, ping::ping,
};
use peerloom_relay::{ClientConfig, RelayClient};
use peerloom_webrtc_signaling::{self as webrtc_signaling, SignalingConfig};
use wasm_bindgen::{
    JsCast,
    prelude::{JsValue, wasm_bindgen},
};
use wasm_bindgen_futures::JsFuture;
use web_sys::AbortSignal;

use crate::{
    abort::abortable,
    error::{coded, error, invalid},
    gate::{PageGate, describe_denied},
    js::{self, promise},
    peer_storage::PagePeerStorage,
    stream::WasmStream,
    transports::{BrowserPeerConnections, WebRtcDirectTransport, WebSocketTransport, WebTransportTransport},
};

/// A node with the browser's transports.
#[wasm_bindgen]
pub struct WasmNode {
    node: Node,
    /// Ends with the node.
    _events: Task,
}

#[wasm_bindgen]
impl WasmNode {
    /// A node with the identity that `seed` (32 bytes) makes. `on_event` is called with each event. `ice_servers`
    /// (`stun:<host>:<port>`) tell what the page looks like from outside. `peer_storage` is where what is known of peers is kept.
    /// `gate` is asked who may connect, and has `gate_patience` milliseconds for it.
    #[wasm_bindgen(constructor)]
    pub fn new(
        seed: &[u8],
        agent: Option<String>,
        ice_servers: Vec<String>,
        #[wasm_bindgen(unchecked_param_type = "CorePeerStorage | undefined")] peer_storage: JsValue,
        #[wasm_bindgen(unchecked_param_type = "(event: CoreEvent) => void")] on_event: Function,
        #[wasm_bindgen(
            unchecked_param_type = "((passage: CorePassage, signal: AbortSignal) => Promise<void>) | undefined"
        )]
        gate: Option<Function>,
        gate_patience: Option<f64>,
    ) -> Result<WasmNode, JsValue> {
        let seed = seed.try_into().map_err(|_| invalid("an identity has 32 bytes"))?;
        let identity = Keypair::from_seed(seed);
        let mut builder = Node::builder(identity.clone())
            .transport(WebTransportTransport::new(identity.clone()))
            .transport(WebRtcDirectTransport::new(identity.clone()))
            .transport(WebSocketTransport::new(identity));
        if let Some(agent) = agent {
            builder = builder.identify(IdentifyConfig { agent_version: agent, ..IdentifyConfig::default() });
        }
        if let Some(gate) = gate {
            let mut gating = Gating::new().with_gate(PageGate(gate));
            if let Some(milliseconds) = gate_patience {
                let patience = Duration::try_from_secs_f64(milliseconds / 1e3);
                gating = gating.patience(patience.map_err(|_| invalid("a timeout is a positive number"))?);
            }
            builder = builder.gating(gating);
        }
        if let Some(storage) = PagePeerStorage::new(&peer_storage) {
            builder = builder.peer_storage(storage);
        }
        let node = builder.build();
        RelayClient::start(&node, ClientConfig::default()).map_err(|error| coded(&error))?;
        if js::has_global("RTCPeerConnection") {
            let browser = BrowserPeerConnections::new(ice_servers);
            webrtc_signaling::start(&node, browser, SignalingConfig::default())
                .map_err(|error| coded(&error))?;
            let listener = node.listen(Multiaddr::from_protocols([Protocol::WebRtc]));
            // Only the end of the node can keep it from listening.
            node.spawn(async { _ = listener.await });
        }
        let mut events = node.events();
        let weak = node.downgrade();
        let events = spawn(async move {
            while let Some(event) = events.next().await {
                let Some(node) = weak.upgrade() else { return };
                if let Some(event) = describe_event(event, &node) {
                    // An exception in the page's listener is not ours to handle: the browser has reported it.
                    let _ = on_event.call1(&JsValue::UNDEFINED, &event);
                }
            }
        });
        Ok(Self { node, _events: events })
    }

    /// Who this node is.
    #[wasm_bindgen(getter, js_name = peerId)]
    pub fn peer_id(&self) -> String {
        self.node.peer_id().to_string()
    }

    /// Connects to a multiaddr, to one peer at whichever of several, or, at the addresses known, to a peer id.
    #[wasm_bindgen(unchecked_return_type = "Promise<CoreConnection>")]
    pub fn dial(&self, targets: Vec<String>, signal: Option<AbortSignal>) -> Promise {
        let node = self.node.clone();
        let dial = async move {
            let dialed = node.dial(dial_target(&targets)?).await;
            dialed.map(|info| describe_connection(&info).into()).map_err(|error| coded(&*error))
        };
        promise(abortable(signal, Box::pin(dial)))
    }

    /// Keeps a connection to a peer, given as for [`dial`](Self::dial). Its peer id.
    pub fn keep(&self, targets: Vec<String>) -> Result<String, JsValue> {
        let kept = self.node.keep(dial_target(&targets)?);
        kept.map(|peer| peer.to_string()).map_err(|error| coded(&error))
    }

    /// Keeps a peer no longer. Whether it was kept.
    pub fn unkeep(&self, peer: &str) -> Result<bool, JsValue> {
        Ok(self.node.unkeep(peer.parse().map_err(invalid)?))
    }

    /// The peers that are kept.
    #[wasm_bindgen(unchecked_return_type = "string[]")]
    pub fn kept(&self) -> Array {
        strings(&self.node.kept())
    }

    /// The page is shown again, was frozen, or has another network.
    pub fn resumed(&self) {
        self.node.resumed();
    }

    /// Opens a stream for the first of `protocols` that the peer handles, on the connection named or on the peer's
    /// best. `on_limited` is whether a connection that a relay limits will do.
    #[wasm_bindgen(
        js_name = openStream,
        unchecked_return_type = "Promise<{ stream: WasmStream, connection: CoreConnection }>"
    )]
    pub fn open_stream(
        &self,
        peer: String,
        connection: Option<f64>,
        protocols: Vec<String>,
        on_limited: bool,
        signal: Option<AbortSignal>,
    ) -> Promise {
        let node = self.node.clone();
        let open = async move {
            let target = stream_target(&node, &peer, connection)?;
            let protocols: Vec<_> = protocols.iter().map(|name| protocol(name)).collect::<Result<_, _>>()?;
            let opening = node.open_stream_and_tell(target, &protocols, on_limited);
            let OpenedStream { stream, connection, .. } = opening.await.map_err(|error| coded(&error))?;
            let opened = Object::new();
            js::set_property(&opened, "stream", &WasmStream::new(stream, is_native(&connection)).into());
            js::set_property(&opened, "connection", &describe_connection(&connection));
            Ok(opened.into())
        };
        promise(abortable(signal, Box::pin(open)))
    }

    /// Gives every stream that a remote opens for `name` to `handler`, as stream and connection. It returns a promise, which
    /// tells when it is done with the stream. `on_limited` is whether streams may come over connections that a relay limits.
    pub fn handle(
        &self,
        name: &str,
        on_limited: bool,
        #[wasm_bindgen(
            unchecked_param_type = "(stream: WasmStream, connection: CoreConnection) => Promise<void>"
        )]
        handler: Function,
    ) -> Result<(), JsValue> {
        let handler = Rc::new(handler);
        let handler = move |incoming: IncomingStream| {
            let handler = handler.clone();
            async move {
                let IncomingStream { stream, connection, .. } = incoming;
                let stream = WasmStream::new(stream, is_native(&connection)).into();
                let done = handler.call2(&JsValue::UNDEFINED, &stream, &describe_connection(&connection));
                if let Ok(done) = done.and_then(|done| done.dyn_into::<Promise>()) {
                    let _ = JsFuture::from(done).await;
                }
            }
        };
        let handled = match on_limited {
            true => self.node.handle_on_limited(protocol(name)?, handler),
            false => self.node.handle(protocol(name)?, handler),
        };
        handled.map_err(|error| coded(&error))
    }

    /// Handles `name` no longer. Whether there was a handler.
    pub fn unhandle(&self, name: &str) -> Result<bool, JsValue> {
        Ok(self.node.unhandle(&protocol(name)?))
    }

    /// The round-trip time to a peer, in milliseconds.
    #[wasm_bindgen(unchecked_return_type = "Promise<number>")]
    pub fn ping(&self, peer: String, connection: Option<f64>, signal: Option<AbortSignal>) -> Promise {
        let node = self.node.clone();
        let ping = async move {
            let target = stream_target(&node, &peer, connection)?;
            let time = ping(&node, target).await.map_err(|error| coded(&error))?;
            Ok((time.as_secs_f64() * 1e3).into())
        };
        promise(abortable(signal, Box::pin(ping)))
    }

    /// Makes the node reachable at an address: through a relay, for example. Resolves to the addresses to give to others.
    #[wasm_bindgen(unchecked_return_type = "Promise<string[]>")]
    pub fn listen(&self, address: String, signal: Option<AbortSignal>) -> Promise {
        let node = self.node.clone();
        let listen = async move {
            let address = address.parse::<Multiaddr>().map_err(invalid)?;
            let circuits = node.listen(address).await.map_err(|error| coded(&error))?;
            Ok(strings(&with_page_to_page(&node, circuits)).into())
        };
        promise(abortable(signal, Box::pin(listen)))
    }

    /// The addresses at which others reach the node.
    #[wasm_bindgen(unchecked_return_type = "string[]")]
    pub fn addresses(&self) -> Array {
        strings(&self.node.listen_addresses())
    }

    /// What is left of a relayed connection: `{ relay, bytes, milliseconds }`, of which what is not limited is undefined.
    /// Undefined if the connection is direct or over.
    #[wasm_bindgen(unchecked_return_type = "CoreCircuit | undefined")]
    pub fn circuit(&self, connection: f64) -> JsValue {
        let connections = self.node.connections();
        let info = connections.iter().find(|info| info.id.as_u64() as f64 == connection);
        let Some(circuit) = info.and_then(|info| info.circuit.as_ref()) else { return JsValue::UNDEFINED };
        let described = Object::new();
        js::set_property(&described, "relay", &JsValue::from(circuit.relay().to_string()));
        let bytes = circuit.bytes_left().map(|bytes| bytes as f64);
        js::set_property(&described, "bytes", &bytes.into());
        let milliseconds = circuit.time_left().map(|left| left.as_secs_f64() * 1e3);
        js::set_property(&described, "milliseconds", &milliseconds.into());
        described.into()
    }

    /// Every established connection.
    pub fn connections(&self) -> Array {
        self.node.connections().iter().map(describe_connection).collect()
    }

    /// What is known of a peer: `{ addresses, protocols, agentVersion, protocolVersion, observedAddress }`.
    #[wasm_bindgen(js_name = peerDetails, unchecked_return_type = "CorePeerDetails")]
    pub fn peer_details(&self, peer: &str) -> Result<Object, JsValue> {
        let peer = peer.parse().map_err(invalid)?;
        let store = self.node.peer_store();
        let details = Object::new();
        js::set_property(&details, "addresses", &strings(&store.addresses(peer)));
        let known = store.details(peer).unwrap_or_default();
        js::set_property(&details, "protocols", &strings(&known.protocols));
        for (name, value) in [
            ("agentVersion", known.agent_version),
            ("protocolVersion", known.protocol_version),
            ("observedAddress", known.observed_address.map(|address| address.to_string())),
        ] {
            js::set_property(&details, name, &value.map_or(JsValue::UNDEFINED, JsValue::from));
        }
        Ok(details)
    }

    /// Adds an address at which a peer may be reached.
    #[wasm_bindgen(js_name = addAddress)]
    pub fn add_address(&self, peer: &str, address: &str) -> Result<(), JsValue> {
        let peer = peer.parse().map_err(invalid)?;
        self.node.peer_store().add_address(peer, &address.parse().map_err(invalid)?);
        Ok(())
    }

    /// Lets what a rule fits pass no longer, or pass again. Connections that there are stay.
    pub fn rule(&self, rule: &str, allow: bool) -> Result<(), JsValue> {
        let rule = rule.parse().map_err(invalid)?;
        match allow {
            true => self.node.gating().allow(rule),
            false => self.node.gating().deny(rule),
        }
        Ok(())
    }

    /// Closes the connections that the rules do not let pass.
    #[wasm_bindgen(js_name = closeDenied, unchecked_return_type = "Promise<void>")]
    pub fn close_denied(&self) -> Promise {
        let node = self.node.clone();
        promise(Box::pin(async move {
            node.close_denied().await;
            Ok(JsValue::UNDEFINED)
        }))
    }

    /// A piece of metadata of a peer, as the page has set it.
    pub fn metadata(&self, peer: &str, name: &str) -> Result<Option<Vec<u8>>, JsValue> {
        let value = self.node.peer_store().metadata(peer.parse().map_err(invalid)?, name);
        Ok(value.map(|value| value.to_vec()))
    }

    /// Sets a piece of metadata of a peer, or takes it away.
    #[wasm_bindgen(js_name = setMetadata)]
    pub fn set_metadata(&self, peer: &str, name: &str, value: Option<Vec<u8>>) -> Result<(), JsValue> {
        let (store, peer) = (self.node.peer_store(), peer.parse().map_err(invalid)?);
        match value {
            Some(value) => store.set_metadata(peer, name, value).map_err(invalid),
            None => {
                store.remove_metadata(peer, name);
                Ok(())
            }
        }
    }

    /// Forgets what is known of a peer.
    pub fn forget(&self, peer: &str) -> Result<(), JsValue> {
        self.node.peer_store().remove(peer.parse().map_err(invalid)?);
        Ok(())
    }

    /// Closes the connection named, or all to the peer.
    #[wasm_bindgen(unchecked_return_type = "Promise<void>")]
    pub fn disconnect(&self, peer: String, connection: Option<f64>) -> Promise {
        let node = self.node.clone();
        promise(Box::pin(async move {
            match connection {
                Some(id) => {
                    // One that is over is as closed as it can be.
                    if let Ok(id) = self::connection(&node, id) {
                        node.close_connection(id).await;
                    }
                }
                None => node.disconnect(peer.parse().map_err(invalid)?).await,
            }
            Ok(JsValue::UNDEFINED)
        }))
    }

    /// Ends the node: every peer is told goodbye.
    #[wasm_bindgen(unchecked_return_type = "Promise<void>")]
    pub fn close(&self) -> Promise {
        let node = self.node.clone();
        promise(Box::pin(async move {
            node.close().await;
            Ok(JsValue::UNDEFINED)
        }))
    }
}

fn strings(values: &[impl ToString]) -> Array {
    values.iter().map(|value| JsValue::from(value.to_string())).collect()
}

fn dial_target(targets: &[String]) -> Result<DialTarget, JsValue> {
    Ok(match targets {
        [peer] if !peer.starts_with('/') => DialTarget::Peer(peer.parse().map_err(invalid)?),
        [address] => DialTarget::Address(address.parse().map_err(invalid)?),
        addresses => {
            let parsed = addresses.iter().map(|address| address.parse().map_err(invalid));
            DialTarget::Addresses(parsed.collect::<Result<_, _>>()?)
        }
    })
}

fn protocol(name: &str) -> Result<ProtocolName, JsValue> {
    name.parse().map_err(invalid)
}

/// Relayed addresses, each behind the one at which the relay only introduces the dialer.
fn with_page_to_page(node: &Node, circuits: Vec<Multiaddr>) -> Vec<Multiaddr> {
    if !js::has_global("RTCPeerConnection") {
        return circuits;
    }
    let page_to_page =
        |circuit: &Multiaddr| circuit.without_peer_id().with(Protocol::WebRtc).with_peer_id(node.peer_id());
    circuits.into_iter().flat_map(|circuit| [page_to_page(&circuit), circuit]).collect()
}

/// The connection that is named, or the peer's best.
fn stream_target(node: &Node, peer: &str, connection: Option<f64>) -> Result<StreamTarget, JsValue> {
    match connection {
        Some(id) => Ok(self::connection(node, id)?.into()),
        None => Ok(StreamTarget::Peer(peer.parse().map_err(invalid)?)),
    }
}

fn connection(node: &Node, id: f64) -> Result<ConnectionId, JsValue> {
    let mut ids = node.connections().into_iter().map(|info| info.id);
    ids.find(|known| known.as_u64() as f64 == id)
        .ok_or_else(|| error("ERR_CONNECTION_CLOSED", "the connection is over"))
}

/// Whether streams of this connection are a browser's own all the way down.
fn is_native(info: &ConnectionInfo) -> bool {
    transport(&info.remote_address) == "webtransport"
}

fn transport(address: &Multiaddr) -> &'static str {
    let mut name = "unknown";
    for protocol in address.protocols() {
        // What comes last decides: behind a relay's address, how the relay is used.
        name = match protocol {
            Protocol::WebTransport => "webtransport",
            Protocol::WebRtcDirect => "webrtc-direct",
            Protocol::Ws | Protocol::Wss => "websocket",
            Protocol::P2pCircuit => "circuit",
            Protocol::WebRtc => "webrtc",
            _ => name,
        }
    }
    name
}

fn describe_connection(info: &ConnectionInfo) -> Object {
    let connection = Object::new();
    js::set_property(&connection, "id", &JsValue::from(info.id.as_u64() as f64));
    let direction = match info.direction {
        Direction::Inbound => "inbound",
        Direction::Outbound => "outbound",
    };
    for (name, value) in [
        ("peer", info.peer.to_string().as_str()),
        ("address", info.remote_address.to_string().as_str()),
        ("transport", transport(&info.remote_address)),
        ("direction", direction),
    ] {
        js::set_property(&connection, name, &JsValue::from_str(value));
    }
    js::set_property(&connection, "direct", &info.is_direct().into());
    js::set_property(&connection, "limited", &info.is_limited().into());
    connection
}

/// What the page hears of an event of `node`: a `CoreEvent`.
fn describe_event(event: NodeEvent, node: &Node) -> Option<JsValue> {
    let this = node.peer_id();
    let described = Object::new();
    let kind = match event {
        NodeEvent::ConnectionEstablished { connection, first } => {
            js::set_property(&described, "connection", &describe_connection(&connection));
            js::set_property(&described, "first", &first.into());
            "connection:open"
        }
        NodeEvent::ConnectionClosed { connection, reason, last } => {
            js::set_property(&described, "connection", &describe_connection(&connection));
            js::set_property(&described, "reason", &coded(&*reason));
            js::set_property(&described, "last", &last.into());
            "connection:close"
        }
        NodeEvent::ConnectionUpgraded { relayed, direct } => {
            js::set_property(&described, "connection", &describe_connection(&direct));
            js::set_property(&described, "relayed", &describe_connection(&relayed));
            "connection:upgraded"
        }
        NodeEvent::KeptPeerLost { peer, reason, retry_in } => {
            js::set_property(&described, "peer", &JsValue::from(peer.to_string()));
            js::set_property(&described, "reason", &coded(&reason));
            js::set_property(&described, "retryIn", &JsValue::from(retry_in.as_secs_f64() * 1e3));
            "peer:lost"
        }
        NodeEvent::RelayReserved { relay, expires_in, addresses, renewed } => {
            js::set_property(&described, "relay", &JsValue::from(relay.to_string()));
            js::set_property(&described, "expiresIn", &JsValue::from(expires_in.as_secs_f64() * 1e3));
            js::set_property(&described, "addresses", &strings(&addresses));
            js::set_property(&described, "renewed", &renewed.into());
            "relay:reserved"
        }
        NodeEvent::RelayLost { relay, reason, retry_in } => {
            js::set_property(&described, "relay", &JsValue::from(relay.to_string()));
            js::set_property(&described, "reason", &JsValue::from(reason));
            let retry_in = retry_in.map(|wait| wait.as_secs_f64() * 1e3);
            js::set_property(&described, "retryIn", &retry_in.into());
            "relay:lost"
        }
        NodeEvent::IncomingDenied { denied } => {
            describe_denied(&described, &denied);
            "connection:denied"
        }
        NodeEvent::ListenAddressesChanged { addresses } => {
            let addresses: Vec<_> = addresses.into_iter().map(|address| address.with_peer_id(this)).collect();
            js::set_property(&described, "addresses", &strings(&addresses));
            "addresses:change"
        }
        NodeEvent::PeerUpdated { peer } => {
            js::set_property(&described, "peer", &JsValue::from(peer.to_string()));
            "peer:identify"
        }
        NodeEvent::PeerProtocolsChanged { peer, added, removed } => {
            js::set_property(&described, "peer", &JsValue::from(peer.to_string()));
            js::set_property(&described, "added", &strings(&added));
            js::set_property(&described, "removed", &strings(&removed));
            "peer:protocols"
        }
        NodeEvent::Lagged { .. } => {
            let connections: Array = node.connections().iter().map(describe_connection).collect();
            js::set_property(&described, "connections", &connections);
            "lagged"
        }
        _ => return None,
    };
    js::set_property(&described, "kind", &JsValue::from_str(kind));
    Some(described.into())
}

// What the objects made here look like to TypeScript.
#[wasm_bindgen(typescript_custom_section)]
const TYPES: &str = r#"
export interface CoreConnection {
  id: number
  peer: string
  address: string
  transport: 'webtransport' | 'webrtc-direct' | 'websocket' | 'webrtc' | 'circuit' | 'unknown'
  direction: 'inbound' | 'outbound'
  direct: boolean
  limited: boolean
}

export type CoreEvent =
  | { kind: 'connection:open'; connection: CoreConnection; first: boolean }
  | { kind: 'connection:close'; connection: CoreConnection; reason: Error; last: boolean }
  | { kind: 'connection:upgraded'; connection: CoreConnection; relayed: CoreConnection }
  | { kind: 'peer:lost'; peer: string; reason: Error; retryIn: number }
  | { kind: 'relay:reserved'; relay: string; expiresIn: number; addresses: string[]; renewed: boolean }
  | { kind: 'relay:lost'; relay: string; reason: string; retryIn: number | undefined }
  | { kind: 'connection:denied'; peer: string | undefined; address: string; reason: Error }
  | { kind: 'addresses:change'; addresses: string[] }
  | { kind: 'peer:identify'; peer: string }
  | { kind: 'peer:protocols'; peer: string; added: string[]; removed: string[] }
  | { kind: 'lagged'; connections: CoreConnection[] }

export interface CoreStoredPeer {
  peer: string
  record: Uint8Array<ArrayBuffer>
}

/** Without a record, the peer is to be removed: in this version, if there is a stamp. */
export interface CorePeerChange {
  peer: string
  record: Uint8Array<ArrayBuffer> | undefined
  stamp: number | undefined
}

export interface CorePeerStorage {
  peers: CoreStoredPeer[]
  write: (changes: CorePeerChange[]) => Promise<void>
}

export interface CoreCircuit {
  relay: string
  bytes: number | undefined
  milliseconds: number | undefined
}

export interface CorePeerDetails {
  addresses: string[]
  protocols: string[]
  agentVersion: string | undefined
  protocolVersion: string | undefined
  observedAddress: string | undefined
}

export interface CoreNativeStreams {
  readable: ReadableStream<Uint8Array<ArrayBuffer>>
  writable: WritableStream<Uint8Array>
  unread?: Uint8Array<ArrayBuffer>
}
"#;
