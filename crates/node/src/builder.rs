use std::sync::Arc;

use peerloom_core::{Keypair, Transport};

use crate::{
    gating::Gating,
    identify::{self, IdentifyConfig},
    limits::Limits,
    node::{Node, Shared},
    peer_store::{Keeper, PeerStorage},
    ping,
};

/// Puts a [`Node`] together.
#[must_use]
pub struct NodeBuilder {
    keypair: Keypair,
    transports: Vec<Arc<dyn Transport>>,
    limits: Limits,
    identify: Option<IdentifyConfig>,
    ping: bool,
    peer_storage: Option<Arc<dyn PeerStorage>>,
    gating: Gating,
}

impl NodeBuilder {
    pub(crate) fn new(keypair: Keypair) -> Self {
        Self {
            keypair,
            transports: Vec::new(),
            limits: Limits::default(),
            identify: Some(IdentifyConfig::default()),
            ping: true,
            peer_storage: None,
            gating: Gating::new(),
        }
    }

    /// Adds a way to reach peers. Where two can dial one address, the one added first does.
    pub fn transport(mut self, transport: impl Transport) -> Self {
        self.transports.push(Arc::new(transport));
        self
    }

    /// Replaces the default [`Limits`].
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Replaces what identify tells of this node; `None` leaves identify out.
    pub fn identify(mut self, config: impl Into<Option<IdentifyConfig>>) -> Self {
        self.identify = config.into();
        self
    }

    /// Whether other peers may ping this node. They may by default.
    pub fn answer_pings(mut self, answer: bool) -> Self {
        self.ping = answer;
        self
    }

    /// Keeps what is known of peers beyond the life of the node: their addresses, protocols, keys and metadata, but not their tags.
    /// What is there already is known from the beginning.
    ///
    /// Changes are written a second later, together; [`Node::close`] writes what is left.
    pub fn peer_storage(mut self, storage: impl PeerStorage) -> Self {
        self.peer_storage = Some(Arc::new(storage));
        self
    }

    /// What may pass: who is dialed and who comes in, and where. Everything does unless said otherwise.
    pub fn gating(mut self, gating: Gating) -> Self {
        self.gating = gating;
        self
    }

    /// Starts the node. It neither listens nor dials by itself.
    pub fn build(self) -> Node {
        let mut shared = Shared::new(self.keypair, self.transports, self.limits, self.gating);
        shared.keeper = self.peer_storage.and_then(|storage| Keeper::load(storage, &shared.peer_store));
        let shared = Arc::new(shared);
        shared.keep_peers();
        let node = Node::new(shared);
        // Both are written on the node's public calls, and a fresh node has no handlers yet: neither can be refused.
        if self.ping {
            let _ = ping::answer(&node);
        }
        if let Some(config) = self.identify {
            let _ = identify::start(&node, config);
        }
        node
    }
}
