//! `/webrtc-signaling/0.0.1`: two peers that only a relay can reach become direct WebRTC peers of each other. libp2p
//! spec, webrtc/webrtc.md.
//!
//! Over the relayed connection, which authenticates both sides, they exchange an SDP offer, an answer and ICE candidates as
//! these are found. [`start`] adds that to a node: it can dial `…/p2p-circuit/webrtc/p2p/<peer id>` and listen on `/webrtc`.

mod answer;
mod driver;
mod listener;
pub mod message;
mod peer_connection;
pub mod session;
mod sessions;
mod transport;
mod upgrade;

use std::sync::Arc;

use parking_lot::Mutex;
use peerloom_core::{Incoming, ProtocolName};
use peerloom_node::{HandleError, Node, WeakNode};
use tokio::sync::mpsc;

pub use peer_connection::{PeerConnection, PeerConnectionEvent, PeerConnectionFactory, SignalingRole};
pub use session::{Step, Timeouts};

/// The protocol's name.
pub const PROTOCOL: &str = "/webrtc-signaling/0.0.1";

/// What [`start`] can be told.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct SignalingConfig {
    /// How long each step may take.
    pub timeouts: Timeouts,
    /// Exchanges that other peers have begun, at one time. Further ones are refused.
    pub inbound_sessions: usize,
    /// The same for one peer.
    pub inbound_sessions_per_peer: usize,
    /// Whether relayed connections that this node has dialed are upgraded without being asked to.
    pub upgrade_relayed: bool,
}

impl Default for SignalingConfig {
    fn default() -> Self {
        Self {
            timeouts: Timeouts::default(),
            inbound_sessions: 64,
            inbound_sessions_per_peer: 4,
            upgrade_relayed: true,
        }
    }
}

/// The running protocol; it ends with its node.
#[derive(Clone)]
pub struct WebRtcSignaling(Arc<Shared>);

impl WebRtcSignaling {
    /// Direct connections that are being made at this moment.
    pub fn sessions(&self) -> usize {
        self.0.sessions.lock().len()
    }
}

impl std::fmt::Debug for WebRtcSignaling {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WebRtcSignaling").field("sessions", &self.sessions()).finish_non_exhaustive()
    }
}

/// Makes `node` a WebRTC peer: it dials `…/p2p-circuit/webrtc/p2p/<peer id>`, upgrades relayed connections that it has dialed,
/// and accepts those who dial it once it listens on `/webrtc`.
pub fn start(
    node: &Node,
    factory: impl PeerConnectionFactory,
    config: SignalingConfig,
) -> Result<WebRtcSignaling, HandleError> {
    let upgrades = config.upgrade_relayed;
    let shared = Arc::new(Shared {
        node: node.downgrade(),
        factory: Box::new(factory),
        config,
        sessions: Mutex::default(),
        incoming: Mutex::default(),
    });
    let answering = shared.clone();
    node.handle_on_limited(ProtocolName::from_static(PROTOCOL), move |incoming| {
        answering.clone().answer(incoming)
    })?;
    node.add_transport(transport::WebRtcTransport(shared.clone()));
    if upgrades {
        node.spawn(upgrade::upgrade_relayed(shared.clone(), node.events()));
    }
    Ok(WebRtcSignaling(shared))
}

/// What the protocol's parts have in common.
struct Shared {
    node: WeakNode,
    factory: Box<dyn PeerConnectionFactory>,
    config: SignalingConfig,
    sessions: Mutex<sessions::Sessions>,
    /// To the listener, if there is one.
    incoming: Mutex<Option<mpsc::Sender<Incoming>>>,
}
