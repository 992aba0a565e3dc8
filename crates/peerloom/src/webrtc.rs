//! WebRTC connections that a relay arranges.

use std::sync::Mutex;

use peerloom_node::{HandleError, Node};
use peerloom_webrtc::{WebRtcConfig, WebRtcFactory};
use peerloom_webrtc_signaling::{PeerConnection, PeerConnectionFactory, SignalingConfig, SignalingRole};

/// Lets `node` negotiate WebRTC connections through relays; if `upgrades`, also in place of each relayed connection that
/// it dials.
pub(crate) fn negotiate(
    node: &Node,
    config: WebRtcConfig,
    upgrades: Option<bool>,
) -> Result<(), HandleError> {
    let mut signaling = SignalingConfig::default();
    signaling.upgrade_relayed = upgrades.unwrap_or(signaling.upgrade_relayed);
    let factory = OnDemand { config, factory: Mutex::default() };
    peerloom_webrtc_signaling::start(node, factory, signaling)?;
    Ok(())
}

/// Binds its sockets for the first connection: most nodes never negotiate one.
struct OnDemand {
    config: WebRtcConfig,
    factory: Mutex<Option<WebRtcFactory>>,
}

impl PeerConnectionFactory for OnDemand {
    fn create(&self, role: SignalingRole) -> Result<Box<dyn PeerConnection>, String> {
        let mut factory = self.factory.lock().map_err(|_| "WebRTC is out of order".to_owned())?;
        match &mut *factory {
            Some(factory) => factory.create(role),
            none => {
                let started = WebRtcFactory::new(self.config.clone());
                let started = started.map_err(|error| format!("no UDP socket for WebRTC: {error}"))?;
                none.insert(started).create(role)
            }
        }
    }
}
