//! WebRTC beside the other transports: WebRTC-direct on the UDP ports of QUIC, and connections that a relay arranges.

#[cfg(feature = "quic")]
use peerloom_core::{Connection, DialError, ListenError, Listener, Multiaddr, Transport, runtime::BoxFuture};
#[cfg(feature = "quic")]
use peerloom_webrtc::WebRtcDirectTransport;

/// A [`WebRtcDirectTransport`] that listens where QUIC may listen, too.
#[cfg(feature = "quic")]
pub(crate) struct OnSharedPorts {
    pub(crate) transport: WebRtcDirectTransport,
    pub(crate) ports: peerloom_quic::UdpPorts,
}

#[cfg(feature = "quic")]
impl Transport for OnSharedPorts {
    fn can_dial(&self, address: &Multiaddr) -> bool {
        self.transport.can_dial(address)
    }

    fn can_listen(&self, address: &Multiaddr) -> bool {
        self.transport.can_listen(address)
    }

    fn dial(&self, address: Multiaddr) -> BoxFuture<'static, Result<Box<dyn Connection>, DialError>> {
        self.transport.dial(address)
    }

    fn listen(&self, address: Multiaddr) -> BoxFuture<'static, Result<Box<dyn Listener>, ListenError>> {
        use peerloom_socket::address::Endpoint;

        let bind = Endpoint::udp(&address).and_then(|endpoint| endpoint.socket_addr());
        let Some(bind) = bind.filter(|_| self.can_listen(&address)) else {
            // Which says why not.
            return self.transport.listen(address);
        };
        let listener = match self.ports.datagrams(bind) {
            Ok(socket) => self.transport.listen_on(socket),
            Err(error) => Err(ListenError::Io { address, reason: error.to_string() }),
        };
        Box::pin(std::future::ready(listener))
    }
}

#[cfg(feature = "relay-client")]
mod negotiated {
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
}

#[cfg(feature = "relay-client")]
pub(crate) use negotiated::negotiate;
