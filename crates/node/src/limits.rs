use std::time::Duration;

use crate::resources::ResourceLimits;

/// Everything of a node that strangers could make grow, bounded in one place.
///
/// Past a limit a remote is refused or waits; nothing is allocated for it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Limits {
    /// Connections, streams, memory and file descriptors: of all of the node, and of each IP address, peer, protocol and
    /// connection.
    pub resources: ResourceLimits,
    /// What a stranger has for all handshakes of one connection.
    pub handshake_timeout: Duration,
    /// What it has once there is no room for another; then the oldest handshake gives way. Some round trips: shorter keeps
    /// distant dialers out under an attack, longer keeps everybody waiting.
    pub handshake_grace: Duration,
    /// Addresses dialed at one time, over all dials. Further attempts wait.
    pub concurrent_dials: usize,
    /// Of these, for one peer. Further addresses of it wait; those that had 5 s and said nothing give way.
    pub dials_per_peer: usize,
    /// What one address has to become a connection.
    pub dial_timeout: Duration,
    /// Addresses tried for one peer.
    pub addresses_per_dial: usize,
    /// What a remote has to name the protocol of a stream that it opened, and to answer for one that we opened.
    pub negotiation_timeout: Duration,
    /// Protocols that this node handles.
    pub protocols: usize,
    /// Peers in the [`PeerStore`](crate::PeerStore); the least useful makes room, and what they may take in memory is in proportion.
    pub stored_peers: usize,
    /// With more connections than this, or than seven eighths of those of the system (`resources`), the least worthy are closed
    /// until there are no more than `low_water`. Never one with
    /// streams on it, nor one to a peer that is [protected](crate::PeerStore::protect) or [kept](crate::Node::keep).
    pub high_water: usize,
    /// With no more connections than this, or than three quarters of those of the system, those that others have dialed are theirs to close.
    pub low_water: usize,
    /// A younger connection is not closed for want of room: nobody has had the time to use it.
    pub grace: Duration,
    /// How long a connection stays that no stream and no tag wants, if it was dialed for the sake of a stream; or if somebody
    /// else dialed it, and there are more than `low_water`.
    pub unused_idle: Duration,
    /// How long a connection stays without streams beside another one to the same peer that does as well: a direct one beside one
    /// through a relay, or one of two that the peers dialed at the same time.
    pub superfluous_idle: Duration,
    /// How long [`Node::close`](crate::Node::close) waits for connections to say goodbye.
    pub close_timeout: Duration,
}

impl Limits {
    /// The default, but with these limits on resources, and water marks in proportion: at three quarters and at five eighths of
    /// the connections.
    pub fn with_resources(resources: ResourceLimits) -> Self {
        let eighth = resources.system.connections / 8;
        let (high_water, low_water) = (eighth.saturating_mul(6), eighth.saturating_mul(5));
        Self { resources, high_water, low_water, ..Self::default() }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            resources: ResourceLimits::default(),
            handshake_timeout: Duration::from_secs(10),
            handshake_grace: Duration::from_secs(1),
            concurrent_dials: 32,
            dials_per_peer: 8,
            dial_timeout: Duration::from_secs(15),
            addresses_per_dial: 16,
            negotiation_timeout: Duration::from_secs(10),
            protocols: 128,
            stored_peers: 4096,
            high_water: 3072,
            low_water: 2560,
            grace: Duration::from_secs(20),
            unused_idle: Duration::from_secs(30),
            superfluous_idle: Duration::from_secs(5),
            close_timeout: Duration::from_secs(3),
        }
    }
}
