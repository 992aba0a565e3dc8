use std::rc::Rc;

use js_sys::{Array, Function, Object, Promise};
use peerloom_core::{
    Keypair, Multiaddr, PeerId, Protocol, ProtocolName,
    runtime::{Task, spawn},
};
use peerloom_node::{
    ConnectionInfo, Direction, IncomingStream, Node, NodeEvent, identify::IdentifyConfig, ping::ping,
};
use wasm_bindgen::{
    JsCast,
    prelude::{JsValue, wasm_bindgen},
};
use wasm_bindgen_futures::JsFuture;
use web_sys::AbortSignal;

use crate::{
    abort::abortable,
    error::{coded, error, invalid},
    js::{self, promise},
    stream::WasmStream,
    transports::{WebRtcDirectTransport, WebSocketTransport, WebTransportTransport},
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
    /// A node with the identity that `seed` (32 bytes) makes. `on_event` is called with each event.
    #[wasm_bindgen(constructor)]
    pub fn new(
        seed: &[u8],
        agent: Option<String>,
        #[wasm_bindgen(unchecked_param_type = "(event: CoreEvent) => void")] on_event: Function,
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
        let node = builder.build();
        let mut events = node.events();
        let events = spawn(async move {
            while let Some(event) = events.next().await {
                if let Some(event) = describe_event(event) {
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

    /// Connects to a multiaddr or, at the addresses known, to a peer id.
    #[wasm_bindgen(unchecked_return_type = "Promise<CoreConnection>")]
    pub fn dial(&self, target: String, signal: Option<AbortSignal>) -> Promise {
        let node = self.node.clone();
        let dial = async move {
            let dialed = if target.starts_with('/') {
                node.dial(target.parse::<Multiaddr>().map_err(invalid)?).await
            } else {
                node.dial(target.parse::<PeerId>().map_err(invalid)?).await
            };
            dialed.map(|info| describe_connection(&info).into()).map_err(|error| coded(&*error))
        };
        promise(abortable(signal, Box::pin(dial)))
    }

    /// Opens a stream for the first of `protocols` that the peer handles, on the connection named or on the peer's newest.
    #[wasm_bindgen(
        js_name = openStream,
        unchecked_return_type = "Promise<{ stream: WasmStream, connection: CoreConnection }>"
    )]
    pub fn open_stream(
        &self,
        peer: String,
        connection: Option<f64>,
        protocols: Vec<String>,
        signal: Option<AbortSignal>,
    ) -> Promise {
        let node = self.node.clone();
        let open = async move {
            let info = self::connection(&node, &peer, connection)?;
            let protocols: Vec<_> = protocols.iter().map(|name| protocol(name)).collect::<Result<_, _>>()?;
            let stream = node.open_stream(&info, &protocols).await.map_err(|error| coded(&error))?;
            let opened = Object::new();
            js::set_property(&opened, "stream", &WasmStream::new(stream, is_native(&info)).into());
            js::set_property(&opened, "connection", &describe_connection(&info));
            Ok(opened.into())
        };
        promise(abortable(signal, Box::pin(open)))
    }

    /// Gives every stream that a remote opens for `name` to `handler`, as stream and connection. It returns a promise, which
    /// tells when it is done with the stream.
    pub fn handle(
        &self,
        name: &str,
        #[wasm_bindgen(
            unchecked_param_type = "(stream: WasmStream, connection: CoreConnection) => Promise<void>"
        )]
        handler: Function,
    ) -> Result<(), JsValue> {
        let handler = Rc::new(handler);
        let handled = self.node.handle(protocol(name)?, move |incoming: IncomingStream| {
            let handler = handler.clone();
            async move {
                let IncomingStream { stream, connection, .. } = incoming;
                let stream = WasmStream::new(stream, is_native(&connection)).into();
                let done = handler.call2(&JsValue::UNDEFINED, &stream, &describe_connection(&connection));
                if let Ok(done) = done.and_then(|done| done.dyn_into::<Promise>()) {
                    let _ = JsFuture::from(done).await;
                }
            }
        });
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
            let info = self::connection(&node, &peer, connection)?;
            let time = ping(&node, &info).await.map_err(|error| coded(&error))?;
            Ok((time.as_secs_f64() * 1e3).into())
        };
        promise(abortable(signal, Box::pin(ping)))
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
        let strings = |values: &mut dyn Iterator<Item = String>| values.map(JsValue::from).collect::<Array>();
        let addresses = strings(&mut store.addresses(peer).iter().map(Multiaddr::to_string));
        js::set_property(&details, "addresses", &addresses);
        let known = store.details(peer).unwrap_or_default();
        let protocols = strings(&mut known.protocols.iter().map(ToString::to_string));
        js::set_property(&details, "protocols", &protocols);
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

    /// Closes the connection named, or all to the peer.
    #[wasm_bindgen(unchecked_return_type = "Promise<void>")]
    pub fn disconnect(&self, peer: String, connection: Option<f64>) -> Promise {
        let node = self.node.clone();
        promise(Box::pin(async move {
            match connection {
                Some(_) => {
                    // One that is over is as closed as it can be.
                    if let Ok(info) = self::connection(&node, &peer, connection) {
                        node.close_connection(info.id).await;
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

fn protocol(name: &str) -> Result<ProtocolName, JsValue> {
    name.parse().map_err(invalid)
}

/// The connection to `peer` that is named, or the newest.
fn connection(node: &Node, peer: &str, id: Option<f64>) -> Result<ConnectionInfo, JsValue> {
    let peer: PeerId = peer.parse().map_err(invalid)?;
    let connections = node.connections().into_iter().filter(|info| info.peer == peer);
    match id {
        Some(id) => connections
            .into_iter()
            .find(|info| info.id.as_u64() as f64 == id)
            .ok_or_else(|| error("ERR_CONNECTION_CLOSED", "the connection is over")),
        None => connections
            .max_by_key(|info| info.id)
            .ok_or_else(|| error("ERR_NOT_CONNECTED", &["not connected to ", &peer.to_string()].concat())),
    }
}

/// Whether streams of this connection are a browser's own all the way down.
fn is_native(info: &ConnectionInfo) -> bool {
    transport(&info.remote_address) == "webtransport"
}

fn transport(address: &Multiaddr) -> &'static str {
    for protocol in address.protocols() {
        match protocol {
            Protocol::WebTransport => return "webtransport",
            Protocol::WebRtcDirect => return "webrtc-direct",
            Protocol::Ws | Protocol::Wss => return "websocket",
            _ => {}
        }
    }
    "unknown"
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
    connection
}

/// What the page hears of an event: a `CoreEvent`.
fn describe_event(event: NodeEvent) -> Option<JsValue> {
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
        NodeEvent::PeerUpdated { peer } => {
            js::set_property(&described, "peer", &JsValue::from(peer.to_string()));
            "peer:identify"
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
  transport: 'webtransport' | 'webrtc-direct' | 'websocket' | 'unknown'
  direction: 'inbound' | 'outbound'
}

export type CoreEvent =
  | { kind: 'connection:open'; connection: CoreConnection; first: boolean }
  | { kind: 'connection:close'; connection: CoreConnection; reason: Error; last: boolean }
  | { kind: 'peer:identify'; peer: string }

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
