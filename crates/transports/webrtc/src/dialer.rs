//! Dialing a listener.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use peerloom_core::{Connection, DialError, HandshakeError, Keypair, Multiaddr};
use peerloom_socket::udp::DatagramSocket;

use crate::{
    address::WebRtcAddress,
    certificate::Certificate,
    connection::{Handshake, Side},
    driver::{Inbound, now},
    peer_connection::{ICE, PeerConnection, Timeouts},
    sockets::Senders,
    state::Shared,
    ufrag::{Credentials, WireVersion},
};

/// What all dials of a transport have in common.
pub(crate) struct Dialer {
    pub(crate) identity: Keypair,
    pub(crate) timeouts: Timeouts,
    pub(crate) send_target: usize,
    pub(crate) version: WireVersion,
}

impl Dialer {
    pub(crate) async fn dial(&self, address: Multiaddr) -> Result<Box<dyn Connection>, DialError> {
        let unsupported = |reason| DialError::UnsupportedAddress { address: address.clone(), reason };
        let parsed =
            WebRtcAddress::parse(&address).ok_or_else(|| unsupported("not a WebRTC-direct address"))?;
        if parsed.certhashes.is_empty() {
            return Err(unsupported("no SHA-256 certificate hash"));
        }
        let unreachable = |reason: String| DialError::Unreachable { address: address.clone(), reason };
        let resolved = parsed.endpoint.resolve().await.map_err(|error| unreachable(error.to_string()))?;
        let remote = resolved.first().ok_or_else(|| unreachable("the name has no address".to_owned()))?;

        let certificate = Certificate::generate().map_err(|error| unreachable(error.to_string()))?;
        let config = certificate.dtls_config(true).map_err(|error| unreachable(error.to_string()))?;
        let any: SocketAddr = match remote {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let socket = DatagramSocket::bind(any).map_err(|error| unreachable(error.to_string()))?;
        let mut senders = Senders::default();
        senders.add(any, socket.sender());
        let credentials = Credentials::generate(self.version);
        let connection =
            PeerConnection::dialer(credentials, *remote, parsed.certhashes, config, self.timeouts, now());
        let shared = Shared::new(connection, senders, self.send_target);
        let handshake = Handshake {
            identity: &self.identity,
            side: Side::Dialer { expected: parsed.peer },
            fingerprint: certificate.hash(),
            remote_address: address.without_peer_id(),
            timeout: self.timeouts.step,
        };
        match handshake.run(shared, Inbound::Sockets(vec![socket]), ()).await {
            Ok(connection) => Ok(Box::new(connection)),
            // Not even a connectivity check was answered: nobody is there, or nobody who knows this version.
            Err(HandshakeError::TimedOut { step: ICE }) => Err(unreachable("no answer".to_owned())),
            Err(source) => Err(DialError::Handshake { address, source }),
        }
    }
}
