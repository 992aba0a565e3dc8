//! The control protocol's messages: bytes from a client to a [`Request`], a [`Response`] to bytes.

#![warn(clippy::arithmetic_side_effects)]

#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
#[cfg(test)]
mod tests;

use std::time::Duration;

use bytes::Bytes;
use peerloom_core::{
    Multiaddr, MultiaddrError, PeerId, PeerIdError, ProtocolName, ProtocolNameError, varint,
};
use prost::Message;

use super::{
    address::{AddressError, LocalAddress},
    wire,
};

/// The longest request, in bytes. Other daemons take 4 MiB; nothing that is asked for here comes near to this.
pub(super) const MAX_REQUEST_LENGTH: usize = 1 << 20;
/// Protocols in one request: as many as a listener lets a dialer propose for one stream.
pub(super) const MAX_PROTOCOLS: usize = 64;
/// The longest tag of a peer, in bytes.
pub(super) const MAX_TAG_LENGTH: usize = 128;
/// How long a request that waits for a remote may take if it does not say; as go-libp2p's daemon has it.
pub(super) const DEFAULT_TIMEOUT: Duration = Duration::from_secs(60);
/// A longer time is as long as this one.
pub(super) const MAX_TIMEOUT: Duration = Duration::from_secs(3600);

/// What a client wants.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Request {
    /// Who the node is, and where it listens.
    Identify,
    /// A connection to `peer`, which may be at `addresses`.
    Connect { peer: PeerId, addresses: Vec<Multiaddr>, timeout: Duration },
    /// A stream to `peer` for the first of `protocols` that it handles. There is at least one.
    OpenStream { peer: PeerId, protocols: Vec<ProtocolName>, timeout: Duration },
    /// Every stream that a remote opens for one of `protocols`, at `address`.
    HandleStreams { address: LocalAddress, protocols: Vec<ProtocolName> },
    /// Who the node is connected to.
    ListPeers,
    /// No connection to `peer`.
    Disconnect { peer: PeerId },
    /// `peer` to be worth `weight` more when connections are trimmed.
    TagPeer { peer: PeerId, tag: String, weight: i64 },
    /// The opposite.
    UntagPeer { peer: PeerId, tag: String },
    /// Fewer connections.
    TrimConnections,
    /// Which protocols `peer` handles, as far as it is known.
    PeerProtocols { peer: PeerId },
    /// Where `peer` is, as far as it is known.
    PeerAddresses { peer: PeerId },
    /// Something of a part that this build does not have.
    Unavailable { part: &'static str },
}

/// Why bytes are no request.
#[derive(Debug, thiserror::Error)]
pub(super) enum RequestError {
    /// They are not the protobuf message.
    #[error("not a request of the daemon's control protocol: {0}")]
    Protobuf(#[from] prost::DecodeError),
    /// What is wanted is not said.
    #[error("not a request of the daemon's control protocol: no type")]
    NoType,
    /// What is wanted is not in the protocol.
    #[error("unknown type of {what}: {number}")]
    UnknownType { what: &'static str, number: i32 },
    /// A field is missing that the type asks for.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// There are more protocols than [`MAX_PROTOCOLS`].
    #[error("{0} protocols, more than the {MAX_PROTOCOLS} that one request may have")]
    TooManyProtocols(usize),
    /// The tag is longer than [`MAX_TAG_LENGTH`].
    #[error("tag of {0} bytes, more than the {MAX_TAG_LENGTH} that are allowed")]
    TagTooLong(usize),
    /// The peer is none.
    #[error("peer: {0}")]
    Peer(#[from] PeerIdError),
    /// An address is none.
    #[error("address: {0}")]
    Address(#[from] MultiaddrError),
    /// An address belongs to another peer than the one to connect to.
    #[error("{address} is not an address of {peer}")]
    AddressOfAnother { address: Multiaddr, peer: PeerId },
    /// The handler's address is none that streams are given to.
    #[error("handler: {0}")]
    Handler(#[from] AddressError),
    /// The name of a protocol is none.
    #[error("protocol {name:?}: {source}")]
    Protocol { name: String, source: ProtocolNameError },
}

impl RequestError {
    /// Whether whoever sent this does not speak the control protocol at all. Reading on would be dangerous: a web page can make
    /// its browser send almost anything to a port of this machine, with an HTTP header before it.
    pub(super) fn is_foreign(&self) -> bool {
        matches!(self, Self::Protobuf(_) | Self::NoType)
    }
}

impl Request {
    /// Parses a message, without its length.
    pub(super) fn decode(message: Bytes) -> Result<Self, RequestError> {
        let wire = wire::Request::decode(message)?;
        Ok(match wire.kind.ok_or(RequestError::NoType)? {
            wire::request::IDENTIFY => Self::Identify,
            wire::request::CONNECT => connect(wire.connect.ok_or(RequestError::Missing("connect"))?)?,
            wire::request::STREAM_OPEN => {
                let open = wire.stream_open.ok_or(RequestError::Missing("streamOpen"))?;
                let (peer, protocols) = (peer(open.peer)?, protocols(open.proto)?);
                Self::OpenStream { peer, protocols, timeout: duration(open.timeout) }
            }
            wire::request::STREAM_HANDLER => {
                let handler = wire.stream_handler.ok_or(RequestError::Missing("streamHandler"))?;
                let address = handler.addr.ok_or(RequestError::Missing("addr"))?;
                let address = LocalAddress::try_from(&Multiaddr::from_bytes(&address)?)?;
                Self::HandleStreams { address, protocols: protocols(handler.proto)? }
            }
            wire::request::DHT => Self::Unavailable { part: "the DHT" },
            wire::request::LIST_PEERS => Self::ListPeers,
            wire::request::CONNMANAGER => {
                connection_manager(wire.conn_manager.ok_or(RequestError::Missing("connManager"))?)?
            }
            wire::request::DISCONNECT => {
                let disconnect = wire.disconnect.ok_or(RequestError::Missing("disconnect"))?;
                Self::Disconnect { peer: peer(disconnect.peer)? }
            }
            wire::request::PUBSUB => Self::Unavailable { part: "pubsub" },
            wire::request::PEERSTORE => {
                peer_store(wire.peer_store.ok_or(RequestError::Missing("peerStore"))?)?
            }
            number => return Err(RequestError::UnknownType { what: "request", number }),
        })
    }
}

fn connect(wire: wire::Connect) -> Result<Request, RequestError> {
    let peer = peer(wire.peer)?;
    let mut addresses = Vec::new();
    for bytes in &wire.addrs {
        let address = Multiaddr::from_bytes(bytes)?;
        if address.peer_id().is_some_and(|named| named != peer) {
            return Err(RequestError::AddressOfAnother { address, peer });
        }
        addresses.push(address);
    }
    Ok(Request::Connect { peer, addresses, timeout: duration(wire.timeout) })
}

fn connection_manager(wire: wire::ConnManager) -> Result<Request, RequestError> {
    let tag = |tag: Option<String>| match tag.unwrap_or_default() {
        tag if tag.is_empty() => Err(RequestError::Missing("tag")),
        tag if tag.len() > MAX_TAG_LENGTH => Err(RequestError::TagTooLong(tag.len())),
        tag => Ok(tag),
    };
    Ok(match wire.kind.unwrap_or_default() {
        wire::conn_manager::TAG_PEER => Request::TagPeer {
            peer: peer(wire.peer)?,
            tag: tag(wire.tag)?,
            weight: wire.weight.unwrap_or_default(),
        },
        wire::conn_manager::UNTAG_PEER => Request::UntagPeer { peer: peer(wire.peer)?, tag: tag(wire.tag)? },
        wire::conn_manager::TRIM => Request::TrimConnections,
        number => return Err(RequestError::UnknownType { what: "connManager request", number }),
    })
}

fn peer_store(wire: wire::PeerStoreRequest) -> Result<Request, RequestError> {
    Ok(match wire.kind.unwrap_or_default() {
        wire::peer_store::GET_PROTOCOLS => Request::PeerProtocols { peer: peer(wire.id)? },
        wire::peer_store::GET_PEER_INFO => Request::PeerAddresses { peer: peer(wire.id)? },
        number => return Err(RequestError::UnknownType { what: "peerStore request", number }),
    })
}

fn peer(bytes: Option<Bytes>) -> Result<PeerId, RequestError> {
    let bytes = bytes.filter(|bytes| !bytes.is_empty()).ok_or(RequestError::Missing("peer"))?;
    Ok(PeerId::from_bytes(&bytes)?)
}

fn protocols(names: Vec<String>) -> Result<Vec<ProtocolName>, RequestError> {
    match names.len() {
        0 => return Err(RequestError::Missing("proto")),
        count if count > MAX_PROTOCOLS => return Err(RequestError::TooManyProtocols(count)),
        _ => {}
    }
    let parse = |name: String| match name.parse() {
        Ok(protocol) => Ok(protocol),
        Err(source) => Err(RequestError::Protocol { name, source }),
    };
    names.into_iter().map(parse).collect()
}

/// Of a number of seconds.
fn duration(seconds: Option<i64>) -> Duration {
    match seconds.and_then(|seconds| u64::try_from(seconds).ok()) {
        None | Some(0) => DEFAULT_TIMEOUT,
        Some(seconds) => Duration::from_secs(seconds).min(MAX_TIMEOUT),
    }
}

/// What a client is answered.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Response {
    /// Done.
    Done,
    /// Not done, and why.
    Error(String),
    /// Who the node is.
    Identity(PeerInfo),
    /// The socket is the stream from here on.
    StreamOpened(StreamInfo),
    /// Connected peers.
    Peers(Vec<PeerInfo>),
    /// What the peer store knows of one.
    Peer(PeerInfo),
    /// What a peer handles.
    Protocols(Vec<ProtocolName>),
}

/// A peer and where it is.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct PeerInfo {
    pub(super) peer: PeerId,
    /// Without `/p2p/…`.
    pub(super) addresses: Vec<Multiaddr>,
}

/// What a stream is for, and where it leads.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct StreamInfo {
    pub(super) peer: PeerId,
    /// Without `/p2p/…`.
    pub(super) address: Multiaddr,
    pub(super) protocol: ProtocolName,
}

impl Response {
    /// The message, with its length before it.
    pub(super) fn encode(&self) -> Bytes {
        let mut wire = wire::Response { kind: Some(wire::response::OK), ..wire::Response::default() };
        match self {
            Self::Done => {}
            Self::Error(message) => {
                wire.kind = Some(wire::response::ERROR);
                wire.error = Some(wire::ErrorResponse { msg: Some(message.clone()) });
            }
            Self::Identity(info) => wire.identify = Some(info.to_wire()),
            Self::StreamOpened(info) => wire.stream_info = Some(info.to_wire()),
            Self::Peers(peers) => wire.peers = peers.iter().map(PeerInfo::to_wire).collect(),
            Self::Peer(info) => {
                wire.peer_store =
                    Some(wire::PeerStoreResponse { peer: Some(info.to_wire()), protos: Vec::new() });
            }
            Self::Protocols(protocols) => {
                let protos = protocols.iter().map(|protocol| protocol.as_str().to_owned()).collect();
                wire.peer_store = Some(wire::PeerStoreResponse { peer: None, protos });
            }
        }
        framed(&wire)
    }
}

impl StreamInfo {
    /// What a handler's client reads first: not a [`Response`], but with its length before it, too.
    pub(super) fn encode(&self) -> Bytes {
        framed(&self.to_wire())
    }

    fn to_wire(&self) -> wire::StreamInfo {
        wire::StreamInfo {
            peer: Some(self.peer.to_bytes().into()),
            addr: Some(Bytes::copy_from_slice(self.address.as_bytes())),
            proto: Some(self.protocol.as_str().to_owned()),
        }
    }
}

impl PeerInfo {
    fn to_wire(&self) -> wire::PeerInfo {
        let bytes = |address: &Multiaddr| Bytes::copy_from_slice(address.as_bytes());
        wire::PeerInfo {
            id: Some(self.peer.to_bytes().into()),
            addrs: self.addresses.iter().map(bytes).collect(),
        }
    }
}

fn framed(message: &impl Message) -> Bytes {
    let message = message.encode_to_vec();
    let mut framed = Vec::with_capacity(message.len().saturating_add(varint::MAX_BYTES));
    varint::encode_prefixed(&message, &mut framed);
    framed.into()
}
