use std::{fmt, path::PathBuf, sync::Arc};

use peerloom_core::{
    Keypair, Multiaddr, Protocol, ProtocolName, Transport,
    runtime::{MaybeSend, MaybeSync},
};
#[cfg(not(target_arch = "wasm32"))]
use peerloom_node::resources::{Machine, ResourceLimits};
use peerloom_node::{Gating, HandleError, IncomingStream, Limits, Node, identify::IdentifyConfig};

use crate::{
    error::StartError,
    identity,
    port::{self, Services},
    transports,
};

/// As libp2p's pnet spec has it, "Safeguard": with this set to 1, a node without a private network's key is an error.
pub(crate) const FORCE_PRIVATE: &str = "LIBP2P_FORCE_PNET";

/// Puts a [`Node`] together. [`builder`](crate::builder) makes one.
///
/// Whatever is not said is as in [`start`](crate::start).
#[must_use = "nothing happens before `start`"]
pub struct Builder {
    pub(crate) identity: Option<Keypair>,
    pub(crate) data_dir: Option<PathBuf>,
    listen: Vec<Multiaddr>,
    external: Vec<Multiaddr>,
    port: Option<u16>,
    handlers: Vec<Setup>,
    pub(crate) own_transports: Vec<Arc<dyn Transport>>,
    pub(crate) limits: Limits,
    pub(crate) identify: Option<IdentifyConfig>,
    pub(crate) answer_pings: bool,
    pub(crate) gating: Gating,
    pub(crate) options: transports::Options,
}

/// What is done with the node before it listens.
#[cfg(not(target_arch = "wasm32"))]
type Setup = Box<dyn FnOnce(&Node) -> Result<(), HandleError> + Send>;
#[cfg(target_arch = "wasm32")]
type Setup = Box<dyn FnOnce(&Node) -> Result<(), HandleError>>;

impl Default for Builder {
    fn default() -> Self {
        Self {
            identity: None,
            data_dir: None,
            listen: Vec::new(),
            external: Vec::new(),
            port: None,
            handlers: Vec::new(),
            own_transports: Vec::new(),
            limits: limits_of_machine(),
            identify: Some(IdentifyConfig::default()),
            answer_pings: true,
            gating: Gating::new(),
            options: transports::Options::default(),
        }
    }
}

/// Who the node is, where it listens and what it handles.
impl Builder {
    /// The node's identity. Without one, that of the [data directory](Self::data_dir), or else a new one each time.
    pub fn identity(mut self, keypair: Keypair) -> Self {
        self.identity = Some(keypair);
        self
    }

    /// Keeps the identity and the certificates whose hashes are in the node's addresses in this directory, so that the
    /// addresses survive a restart, and what is known of peers, with the feature `peer-storage`, so that they are found again by their
    /// ids. It is made if it is not there.
    ///
    /// [`Node::close`] writes what was learnt last; without it, the last second may be lost.
    pub fn data_dir(mut self, directory: impl Into<PathBuf>) -> Self {
        self.data_dir = Some(directory.into());
        self
    }

    /// Listens on one port number, on all addresses of the machine and with every transport: UDP for QUIC, WebTransport and
    /// WebRTC, TCP for plain TCP and WebSocket. 0 is any number that is free for all of them.
    pub fn port(mut self, port: u16) -> Self {
        self.port = Some(port);
        self
    }

    /// Listens on this address; may be said again. One that ends in `/p2p/<relay>/p2p-circuit` reserves a place at that
    /// relay, and lets those who come through it connect directly, over WebRTC.
    pub fn listen(mut self, address: Multiaddr) -> Self {
        self.listen.push(address);
        self
    }

    /// Tells others this address, too, that of a router which forwards a port, for example: see
    /// [`Node::add_external_address`]. May be said again.
    pub fn external_address(mut self, address: Multiaddr) -> Self {
        self.external.push(address);
        self
    }

    /// Gives every stream that a remote opens for `protocol` to `handler`, as [`Node::handle`] does, from before the node
    /// listens: nobody comes too early to be served.
    pub fn handle<F, Fut>(mut self, protocol: ProtocolName, handler: F) -> Self
    where
        F: Fn(IncomingStream) -> Fut + MaybeSend + MaybeSync + 'static,
        Fut: Future<Output = ()> + MaybeSend + 'static,
    {
        self.handlers.push(Box::new(move |node| node.handle(protocol, handler)));
        self
    }

    /// Replaces the default [`Limits`]: how many connections, streams and handshakes there may be, and how long each step
    /// may take. By default the node has an eighth of the machine's memory, and half of the file descriptors that the process
    /// may have.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// What may pass: which peers, networks and addresses are dialed and come in. Everything does unless said otherwise.
    ///
    /// Addresses that names stand for are asked about as well, so that nobody's name leads into your own network.
    ///
    /// ```
    /// use peerloom::Gating;
    ///
    /// # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let gating = Gating::new();
    /// gating.deny("10.0.0.0/8".parse()?);
    /// let node = peerloom::builder().gating(gating).start().await?;
    /// let error = node.dial("/ip4/10.1.2.3/tcp/4001".parse::<peerloom::Multiaddr>()?).await.unwrap_err();
    /// assert_eq!(error.to_string(), "dial of /ip4/10.1.2.3/tcp/4001 refused: the rule 10.0.0.0/8 denies it");
    /// # Ok(()) }
    /// ```
    pub fn gating(mut self, gating: Gating) -> Self {
        self.gating = gating;
        self
    }

    /// What the node calls its software, by identify. `peerloom/<version>` if it is not said.
    pub fn agent_version(mut self, agent_version: impl Into<String>) -> Self {
        self.identify.get_or_insert_default().agent_version = agent_version.into();
        self
    }

    /// Replaces what identify tells of this node; `None` leaves identify out.
    pub fn identify(mut self, config: impl Into<Option<IdentifyConfig>>) -> Self {
        self.identify = config.into();
        self
    }

    /// Whether other peers may ping this node. They may by default.
    pub fn answer_pings(mut self, answer: bool) -> Self {
        self.answer_pings = answer;
        self
    }

    /// Adds a way of your own to reach peers. Where it and another can dial one address, yours does.
    pub fn transport(mut self, transport: impl Transport) -> Self {
        self.own_transports.push(Arc::new(transport));
        self
    }
}

impl Builder {
    /// Starts the node. It listens when this returns.
    pub async fn start(mut self) -> Result<Node, StartError> {
        let is_private = self.options.is_private();
        if !is_private && std::env::var_os(FORCE_PRIVATE).is_some_and(|value| value == "1") {
            return Err(StartError::PrivateNetworkForced);
        }
        let listen = self.addresses()?;
        let handlers = std::mem::take(&mut self.handlers);
        let external = std::mem::take(&mut self.external);
        let node = transports::build(self)?;
        external.iter().for_each(|address| node.add_external_address(address));
        for handle in handlers {
            handle(&node)?;
        }
        for address in listen {
            node.listen(address).await?;
        }
        Ok(node)
    }

    fn addresses(&self) -> Result<Vec<Multiaddr>, StartError> {
        let mut addresses = self.listen.clone();
        let is_private = self.options.is_private();
        if is_private && let Some(address) = addresses.iter().find(|address| is_public(address)) {
            return Err(StartError::NotPrivate { address: address.clone() });
        }
        if let Some(port) = self.port {
            let services = Services { private: is_private, certificate: self.options.has_certificate() };
            let on_port = port::addresses(port, services).map_err(StartError::NoFreePort)?;
            if on_port.is_empty() {
                return Err(StartError::NothingOnPort { port });
            }
            addresses.extend(on_port);
        }
        // Without it, all bytes of the pages that come through the relay would stay on that way.
        let webrtc = Multiaddr::from_protocols([Protocol::WebRtc]);
        let negotiates = cfg!(all(feature = "webrtc", feature = "relay-client")) && !is_private;
        if negotiates && addresses.iter().any(is_at_relay) && !addresses.contains(&webrtc) {
            addresses.push(webrtc);
        }
        Ok(addresses)
    }

    /// The identity that was given, that is kept, or a new one.
    pub(crate) fn take_identity(&mut self) -> Result<Keypair, StartError> {
        Ok(match (self.identity.take(), &self.data_dir) {
            (Some(given), _) => given,
            (None, Some(directory)) => identity::load_or_create(directory)?,
            (None, None) => Keypair::generate(),
        })
    }
}

fn limits_of_machine() -> Limits {
    #[cfg(not(target_arch = "wasm32"))]
    return Limits::with_resources(ResourceLimits::for_machine(&Machine::measure()));
    #[cfg(target_arch = "wasm32")]
    Limits::default()
}

/// Whether strangers could come in there: no transport on UDP can be private.
fn is_public(address: &Multiaddr) -> bool {
    address.protocols().any(|protocol| matches!(protocol, Protocol::Udp(_) | Protocol::WebRtc))
}

fn is_at_relay(address: &Multiaddr) -> bool {
    address.protocols().any(|protocol| protocol == Protocol::P2pCircuit)
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("data_dir", &self.data_dir)
            .field("listen", &self.listen)
            .field("port", &self.port)
            .finish_non_exhaustive()
    }
}
