//! WebRTC-direct on the UDP ports of QUIC.

use peerloom_core::{Connection, DialError, ListenError, Listener, Multiaddr, Transport, runtime::BoxFuture};
use peerloom_quic::UdpPorts;
use peerloom_socket::address::Endpoint;
use peerloom_webrtc::WebRtcDirectTransport;

/// A [`WebRtcDirectTransport`] that listens where QUIC may listen too.
pub(crate) struct SharedWebRtcDirect {
    pub(crate) transport: WebRtcDirectTransport,
    pub(crate) ports: UdpPorts,
}

impl Transport for SharedWebRtcDirect {
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
