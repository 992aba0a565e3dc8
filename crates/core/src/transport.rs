//! What a transport is to the rest of Peerloom. `node` sees only these traits; a transport sees no node.

use std::{fmt, sync::Arc};

use crate::{
    Multiaddr, PeerId, PublicKey,
    circuit::{Circuit, CircuitEnd},
    runtime::{BoxFuture, MaybeSend, MaybeSync},
    stream::Stream,
};

/// A way to reach peers and be reached: from an address to a secured, authenticated, multiplexed [`Connection`].
pub trait Transport: MaybeSend + MaybeSync + 'static {
    /// Whether [`dial`](Self::dial) can make something of this address.
    fn can_dial(&self, address: &Multiaddr) -> bool;

    /// Whether [`listen`](Self::listen) can make something of this address.
    fn can_listen(&self, address: &Multiaddr) -> bool;

    /// Connects to `address`. If it ends in `/p2p/<peer id>`, the remote must prove to be that peer
    /// ([`HandshakeError::WrongPeer`] otherwise). The dialer sets deadlines; dropping the future cancels the dial and
    /// leaves nothing behind.
    fn dial(&self, address: Multiaddr) -> BoxFuture<'static, Result<Box<dyn Connection>, DialError>>;

    /// Starts to listen. Port 0 and unspecified hosts are resolved in [`Listener::addresses`].
    fn listen(&self, address: Multiaddr) -> BoxFuture<'static, Result<Box<dyn Listener>, ListenError>>;

    /// Addresses at which this transport may reach a peer that has told none, best first: through relays, for example.
    fn routes(&self, peer: PeerId) -> Vec<Multiaddr> {
        let _ = peer;
        Vec::new()
    }
}

impl<T: Transport + ?Sized> Transport for Arc<T> {
    fn can_dial(&self, address: &Multiaddr) -> bool {
        (**self).can_dial(address)
    }
    fn can_listen(&self, address: &Multiaddr) -> bool {
        (**self).can_listen(address)
    }
    fn dial(&self, address: Multiaddr) -> BoxFuture<'static, Result<Box<dyn Connection>, DialError>> {
        (**self).dial(address)
    }
    fn listen(&self, address: Multiaddr) -> BoxFuture<'static, Result<Box<dyn Listener>, ListenError>> {
        (**self).listen(address)
    }
    fn routes(&self, peer: PeerId) -> Vec<Multiaddr> {
        (**self).routes(peer)
    }
}

/// A socket that accepts connections. Dropping it closes the socket and cancels handshakes that are under way;
/// established connections live on.
pub trait Listener: MaybeSend + 'static {
    /// The addresses to give to other peers, without `/p2p/…`; certificate hashes and real ports included. Unspecified
    /// hosts (0.0.0.0, ::) are expanded to the addresses of the machine's interfaces.
    fn addresses(&self) -> Vec<Multiaddr>;

    /// What happens next. Cancel-safe. An error is the end of the listener.
    fn next(&mut self) -> BoxFuture<'_, Result<ListenerEvent, ListenError>>;
}

/// What a [`Listener`] reports.
#[non_exhaustive]
pub enum ListenerEvent {
    /// Somebody dials us.
    Incoming(Incoming),
    /// [`Listener::addresses`] has changed, for example because a certificate was rotated.
    AddressesChanged,
}

/// A connection that has not proved anything yet. The caller decides how many of these it drives at once, and for how
/// long; dropping it refuses the dialer.
pub struct Incoming {
    /// Where it comes from.
    pub remote_address: Multiaddr,
    /// The handshakes up to a usable connection.
    pub handshake: BoxFuture<'static, Result<Box<dyn Connection>, HandshakeError>>,
}

impl fmt::Debug for Incoming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Incoming").field("remote_address", &self.remote_address).finish_non_exhaustive()
    }
}

impl fmt::Debug for ListenerEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Incoming(incoming) => f.debug_tuple("Incoming").field(incoming).finish(),
            Self::AddressesChanged => f.write_str("AddressesChanged"),
        }
    }
}

/// An authenticated connection to one peer that carries any number of streams.
///
/// Methods take `&self`: a connection is shared by everything that opens streams on it. Dropping the last handle closes it.
pub trait Connection: MaybeSend + MaybeSync + 'static {
    /// Who the remote has proved to be.
    fn remote_peer(&self) -> PeerId;

    /// The key with which it did.
    fn remote_public_key(&self) -> &PublicKey;

    /// Where the remote is: the address dialed, or the one it came from. Without `/p2p/…`.
    fn remote_address(&self) -> &Multiaddr;

    /// The address of this end's own socket, without `/p2p/…`, if the transport can tell: where it is a listener's as well, what
    /// the remote sees of it is where others reach us. The host may be unspecified.
    fn local_address(&self) -> Option<Multiaddr> {
        None
    }

    /// The way through a relay, if it takes one; otherwise the connection is direct.
    fn circuit(&self) -> Option<&Arc<Circuit>> {
        None
    }

    /// Opens a stream, waiting while the remote's stream limit is reached. Cancel-safe.
    fn open_stream(&self) -> BoxFuture<'static, Result<Box<dyn Stream>, Arc<ConnectionError>>>;

    /// The next stream that the remote opens. Cancel-safe; called by one task at a time. Streams not accepted are bounded by
    /// the transport's backlog, beyond which the remote waits or is reset.
    fn accept_stream(&self) -> BoxFuture<'_, Result<Box<dyn Stream>, Arc<ConnectionError>>>;

    /// Closes the connection: bytes that streams have taken are sent first, within a bound on time; open streams then
    /// fail. Ready when done. The remote sees [`ConnectionError::ClosedByRemote`].
    fn close(&self) -> BoxFuture<'static, ()>;

    /// The same, and tells the remote why, where the transport has a place for it. The remote sees
    /// [`ConnectionError::ClosedFor`] then.
    fn close_for(&self, reason: CloseReason) -> BoxFuture<'static, ()> {
        let _ = reason;
        self.close()
    }

    /// Ready when the connection is over, for whatever reason.
    fn closed(&self) -> BoxFuture<'static, Arc<ConnectionError>>;
}

/// Why a connection is over.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectionError {
    /// [`Connection::close`] was called here, or the last handle was dropped.
    #[error("closed by us")]
    ClosedLocally,
    /// The remote closed it in an orderly way.
    #[error("closed by the remote")]
    ClosedByRemote,
    /// One side closed it, and said why.
    #[error("closed by {}: {reason}", if *.by_remote { "the remote" } else { "us" })]
    ClosedFor {
        /// Why.
        reason: CloseReason,
        /// Whether it was the remote.
        by_remote: bool,
    },
    /// Nothing was heard from the remote for too long.
    #[error("the remote went silent")]
    TimedOut,
    /// A relay let the circuit under the connection carry no more.
    #[error("the relay {relay} ended the circuit: {limit} are used up")]
    CircuitEnded {
        /// The relay.
        relay: PeerId,
        /// The limit.
        limit: CircuitEnd,
    },
    /// The layer below failed.
    #[error("{0}")]
    Io(String),
    /// The remote broke a protocol that this connection is made of.
    #[error("protocol violation: {0}")]
    Protocol(String),
}

/// Why one side closes a connection that could go on, in the codes that libp2p's implementations share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum CloseReason {
    /// A limit on resources is reached.
    LimitExceeded,
    /// The remote asks for too much in too little time.
    RateLimited,
    /// Another connection between the two peers takes its place.
    Supplanted,
    /// It was worth less than others, or not used.
    GarbageCollected,
    /// The node ends.
    Shutdown,
    /// The peer is not allowed to connect.
    Gated,
}

impl CloseReason {
    const CODES: [(Self, u32, &'static str); 6] = [
        (Self::LimitExceeded, 0x1001, "a limit is reached"),
        (Self::RateLimited, 0x1002, "too much in too little time"),
        (Self::Supplanted, 0x1004, "another connection takes its place"),
        (Self::GarbageCollected, 0x1005, "it was not needed, or others were worth more"),
        (Self::Shutdown, 0x1006, "the node ends"),
        (Self::Gated, 0x1007, "the peer is not allowed to connect"),
    ];

    /// The number on the wire.
    pub fn code(self) -> u32 {
        Self::CODES.iter().find(|(reason, ..)| *reason == self).map_or(0, |(_, code, _)| *code)
    }

    /// What a number on the wire means, if it is known.
    pub fn from_code(code: u32) -> Option<Self> {
        Self::CODES.iter().find(|(_, known, _)| *known == code).map(|(reason, ..)| *reason)
    }
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = Self::CODES.iter().find(|(reason, ..)| reason == self).map_or("", |(.., text)| text);
        f.write_str(text)
    }
}

/// Why a connection could not be made secure and usable, on either side.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HandshakeError {
    /// The remote proved to be another peer than the address names.
    #[error("expected peer {expected}, but {actual} answered")]
    WrongPeer {
        /// The peer that the address names.
        expected: PeerId,
        /// The peer that answered.
        actual: PeerId,
    },
    /// The remote's certificate is not one of those that the address or the remote itself names.
    #[error("certificate mismatch: {0}")]
    Certificate(String),
    /// A signature, a MAC or a message was not as it must be.
    #[error("{step}: {reason}")]
    Invalid {
        /// The handshake, by its name in the specs: `noise`, `multistream-select`, `webrtc`, …
        step: &'static str,
        /// What was wrong.
        reason: String,
    },
    /// The remote went away.
    #[error("{step}: connection lost: {reason}")]
    Lost {
        /// The handshake that was under way.
        step: &'static str,
        /// The layer below in its own words.
        reason: String,
    },
    /// The two sides have no protocol in common.
    #[error("{step}: no common protocol")]
    NoCommonProtocol {
        /// The negotiation that failed.
        step: &'static str,
    },
    /// It took too long.
    #[error("{step}: timed out")]
    TimedOut {
        /// The handshake that was under way.
        step: &'static str,
    },
}

/// Why an address could not be dialed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DialError {
    /// This transport, or this build, cannot dial such an address.
    #[error("cannot dial {address}: {reason}")]
    UnsupportedAddress {
        /// The address.
        address: Multiaddr,
        /// What about it is unsupported.
        reason: &'static str,
    },
    /// The address is not to be dialed: the node's gate refused one that a name stands for.
    #[error("dial of {address} refused: {reason}")]
    Denied {
        /// The address.
        address: Multiaddr,
        /// Why not.
        reason: String,
    },
    /// Nobody answered there.
    #[error("cannot reach {address}: {reason}")]
    Unreachable {
        /// The address.
        address: Multiaddr,
        /// The layer below in its own words.
        reason: String,
    },
    /// Somebody answered, but no connection came of it.
    #[error("handshake with {address} failed: {source}")]
    Handshake {
        /// The address.
        address: Multiaddr,
        /// Why.
        source: HandshakeError,
    },
}

/// Why we cannot listen, or no longer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ListenError {
    /// This transport, or this build, cannot listen on such an address.
    #[error("cannot listen on {address}: {reason}")]
    UnsupportedAddress {
        /// The address.
        address: Multiaddr,
        /// What about it is unsupported.
        reason: &'static str,
    },
    /// The socket cannot be had, or is gone.
    #[error("cannot listen on {address}: {reason}")]
    Io {
        /// The address.
        address: Multiaddr,
        /// The operating system in its own words.
        reason: String,
    },
}
