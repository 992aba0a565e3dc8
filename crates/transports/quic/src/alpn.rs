//! One endpoint for two kinds of client: libp2p's QUIC, which must show a certificate, and browsers, which refuse to be
//! asked for one. The application protocol in the ClientHello tells them apart, so it is read before rustls begins.

use std::{any::Any, fmt, sync::Arc};

use quinn::crypto::{
    self, ExportKeyingMaterialError, KeyPair, Keys, PacketKey, ServerConfig, Session, UnsupportedVersion,
    rustls::QuicServerConfig,
};
use quinn_proto::{
    ConnectionId, Side, TransportError, TransportErrorCode, transport_parameters::TransportParameters,
};

use crate::{
    client_hello::{Beginning, beginning, offered_protocols},
    limits::MAX_CLIENT_HELLO,
};

/// An application protocol that this crate serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Alpn {
    /// QUIC with libp2p's streams.
    Libp2p,
    /// HTTP/3, for WebTransport.
    H3,
}

impl Alpn {
    /// Its name on the wire.
    pub(crate) fn name(self) -> &'static [u8] {
        match self {
            Self::Libp2p => peerloom_upgrade::tls::ALPN,
            Self::H3 => b"h3",
        }
    }

    /// The one of that name.
    pub(crate) fn parse(name: &[u8]) -> Option<Self> {
        [Self::Libp2p, Self::H3].into_iter().find(|alpn| alpn.name() == name)
    }
}

/// The TLS of a server that serves both.
pub(crate) struct TlsByAlpn {
    pub(crate) libp2p: Arc<QuicServerConfig>,
    pub(crate) h3: Arc<QuicServerConfig>,
}

impl ServerConfig for TlsByAlpn {
    fn initial_keys(&self, version: u32, dst_cid: &ConnectionId) -> Result<Keys, UnsupportedVersion> {
        // Neither these nor the tag depend on anything that the two differ in.
        self.libp2p.initial_keys(version, dst_cid)
    }

    fn retry_tag(&self, version: u32, orig_dst_cid: &ConnectionId, packet: &[u8]) -> [u8; 16] {
        self.libp2p.retry_tag(version, orig_dst_cid, packet)
    }

    fn start_session(self: Arc<Self>, version: u32, params: &TransportParameters) -> Box<dyn Session> {
        let session = self.libp2p.clone().start_session(version, params);
        let waiting = Waiting { config: self, version, parameters: *params, received: Vec::new() };
        Box::new(SessionByAlpn { session, waiting: Some(waiting) })
    }
}

impl fmt::Debug for TlsByAlpn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsByAlpn").finish_non_exhaustive()
    }
}

/// A TLS session that becomes the right one once the ClientHello is there. Until then it is one that has received
/// nothing.
struct SessionByAlpn {
    session: Box<dyn Session>,
    waiting: Option<Waiting>,
}

struct Waiting {
    config: Arc<TlsByAlpn>,
    version: u32,
    parameters: TransportParameters,
    received: Vec<u8>,
}

impl Waiting {
    /// The other session, if the client asks for it.
    fn session(&self, hello: &[u8]) -> Option<Box<dyn Session>> {
        match offered_protocols(hello).into_iter().find_map(Alpn::parse)? {
            Alpn::Libp2p => None,
            Alpn::H3 => Some(self.config.h3.clone().start_session(self.version, &self.parameters)),
        }
    }
}

impl Session for SessionByAlpn {
    fn read_handshake(&mut self, bytes: &[u8]) -> Result<bool, TransportError> {
        let Some(waiting) = &mut self.waiting else { return self.session.read_handshake(bytes) };
        if waiting.received.len().saturating_add(bytes.len()) > MAX_CLIENT_HELLO {
            return Err(TransportError {
                code: TransportErrorCode::CRYPTO_BUFFER_EXCEEDED,
                frame: None,
                reason: "the ClientHello is too long".to_owned(),
            });
        }
        waiting.received.extend_from_slice(bytes);
        match beginning(&waiting.received) {
            Beginning::Incomplete => return Ok(false),
            Beginning::ClientHello(hello) => {
                if let Some(session) = waiting.session(hello) {
                    self.session = session;
                }
            }
            // TLS has the words for what is wrong with it.
            Beginning::Other => {}
        }
        let received = self.waiting.take().map(|waiting| waiting.received).unwrap_or_default();
        self.session.read_handshake(&received)
    }

    fn initial_keys(&self, dst_cid: &ConnectionId, side: Side) -> Keys {
        self.session.initial_keys(dst_cid, side)
    }

    fn handshake_data(&self) -> Option<Box<dyn Any>> {
        self.session.handshake_data()
    }

    fn peer_identity(&self) -> Option<Box<dyn Any>> {
        self.session.peer_identity()
    }

    fn early_crypto(&self) -> Option<(Box<dyn crypto::HeaderKey>, Box<dyn PacketKey>)> {
        self.session.early_crypto()
    }

    fn early_data_accepted(&self) -> Option<bool> {
        self.session.early_data_accepted()
    }

    fn is_handshaking(&self) -> bool {
        self.session.is_handshaking()
    }

    fn transport_parameters(&self) -> Result<Option<TransportParameters>, TransportError> {
        self.session.transport_parameters()
    }

    fn write_handshake(&mut self, buffer: &mut Vec<u8>) -> Option<Keys> {
        self.session.write_handshake(buffer)
    }

    fn next_1rtt_keys(&mut self) -> Option<KeyPair<Box<dyn PacketKey>>> {
        self.session.next_1rtt_keys()
    }

    fn is_valid_retry(&self, orig_dst_cid: &ConnectionId, header: &[u8], payload: &[u8]) -> bool {
        self.session.is_valid_retry(orig_dst_cid, header, payload)
    }

    fn export_keying_material(
        &self,
        output: &mut [u8],
        label: &[u8],
        context: &[u8],
    ) -> Result<(), ExportKeyingMaterialError> {
        self.session.export_keying_material(output, label, context)
    }
}
