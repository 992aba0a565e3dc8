//! What limits are about: [`ResourceScope`].

use std::fmt;

use peerloom_core::{PeerId, ProtocolName};

use super::Resource;
use crate::{connections::ConnectionId, gating::IpNetwork};

/// Whose use of resources is counted, and limited.
///
/// What a remote costs counts in several scopes at once, and is refused if it is too much for any of them: a connection in
/// those of the system and of its IP address, and, while it is being made, in the transient one; then in that of its peer. A
/// stream in those of the system, its connection and its peer; at first in the transient one, and as soon as its protocol is
/// known, in the two of that.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum ResourceScope {
    /// All of the node.
    System,
    /// What has not proved anything yet: connections before the end of the handshakes, streams without a protocol.
    Transient,
    /// The place of [`System`](Self::System) for those on the [allow list](super::AllowList) when there was no room.
    AllowedSystem,
    /// The place of [`Transient`](Self::Transient) for them.
    AllowedTransient,
    /// Those who dial from one IP address, or from one network. Not those who come through a relay.
    Network(IpNetwork),
    /// The same before the end of the handshakes.
    TransientNetwork(IpNetwork),
    /// One peer.
    Peer(PeerId),
    /// One protocol.
    Protocol(ProtocolName),
    /// One protocol with one peer.
    ProtocolPeer(ProtocolName, PeerId),
    /// One connection.
    Connection(ConnectionId),
}

impl ResourceScope {
    /// What kind of scope it is.
    pub fn kind(&self) -> ScopeKind {
        match self {
            Self::System => ScopeKind::System,
            Self::Transient => ScopeKind::Transient,
            Self::AllowedSystem => ScopeKind::AllowedSystem,
            Self::AllowedTransient => ScopeKind::AllowedTransient,
            Self::Network(_) => ScopeKind::Network,
            Self::TransientNetwork(_) => ScopeKind::TransientNetwork,
            Self::Peer(_) => ScopeKind::Peer,
            Self::Protocol(_) => ScopeKind::Protocol,
            Self::ProtocolPeer(..) => ScopeKind::ProtocolPeer,
            Self::Connection(_) => ScopeKind::Connection,
        }
    }
}

impl fmt::Display for ResourceScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::System => f.write_str("the node"),
            Self::Transient => f.write_str("unfinished handshakes"),
            Self::AllowedSystem => f.write_str("the node's allow list"),
            Self::AllowedTransient => f.write_str("unfinished handshakes of the allow list"),
            Self::Network(network) => write!(f, "IP {network}"),
            Self::TransientNetwork(network) => write!(f, "unfinished handshakes of IP {network}"),
            Self::Peer(peer) => write!(f, "peer {peer}"),
            Self::Protocol(protocol) => write!(f, "protocol {protocol}"),
            Self::ProtocolPeer(protocol, peer) => write!(f, "protocol {protocol} with peer {peer}"),
            Self::Connection(id) => write!(f, "connection {id}"),
        }
    }
}

/// The kinds of [`ResourceScope`]s.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ScopeKind {
    /// [`ResourceScope::System`].
    System,
    /// [`ResourceScope::Transient`].
    Transient,
    /// [`ResourceScope::AllowedSystem`].
    AllowedSystem,
    /// [`ResourceScope::AllowedTransient`].
    AllowedTransient,
    /// [`ResourceScope::Network`].
    Network,
    /// [`ResourceScope::TransientNetwork`].
    TransientNetwork,
    /// [`ResourceScope::Peer`].
    Peer,
    /// [`ResourceScope::Protocol`].
    Protocol,
    /// [`ResourceScope::ProtocolPeer`].
    ProtocolPeer,
    /// [`ResourceScope::Connection`].
    Connection,
}

impl ScopeKind {
    /// Each of them.
    pub const ALL: [Self; 10] = [
        Self::System,
        Self::Transient,
        Self::AllowedSystem,
        Self::AllowedTransient,
        Self::Network,
        Self::TransientNetwork,
        Self::Peer,
        Self::Protocol,
        Self::ProtocolPeer,
        Self::Connection,
    ];

    /// Its name in configurations and metrics: `protocol_peer`, for example.
    pub fn name(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::Transient => "transient",
            Self::AllowedSystem => "allowed_system",
            Self::AllowedTransient => "allowed_transient",
            Self::Network => "network",
            Self::TransientNetwork => "transient_network",
            Self::Peer => "peer",
            Self::Protocol => "protocol",
            Self::ProtocolPeer => "protocol_peer",
            Self::Connection => "connection",
        }
    }
}

/// A limit on resources was reached: `peer 12D3…: 64 of 64 inbound streams`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LimitExceeded {
    /// Whose limit.
    pub scope: ResourceScope,
    /// On what.
    pub resource: Resource,
    /// What the scope holds.
    pub current: usize,
    /// What it may hold.
    pub limit: usize,
    /// What was wanted beside that.
    pub wanted: usize,
}

impl fmt::Display for LimitExceeded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { scope, resource, current, limit, wanted } = self;
        write!(f, "{scope}: {current} of {limit} {resource}")?;
        match wanted {
            1 => Ok(()),
            wanted => write!(f, ", and {wanted} more wanted"),
        }
    }
}

impl std::error::Error for LimitExceeded {}
