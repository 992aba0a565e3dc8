//! What is counted, and amounts of it.

#![warn(clippy::arithmetic_side_effects)]

use std::fmt;

/// Something of which a node has only so much.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Resource {
    /// Connections, handshakes included, both directions together.
    Connections,
    /// Those that remotes have dialed.
    InboundConnections,
    /// Those that this node has dialed.
    OutboundConnections,
    /// Streams, negotiations included, both directions together.
    Streams,
    /// Those that remotes have opened.
    InboundStreams,
    /// Those that this node has opened.
    OutboundStreams,
    /// Bytes: what connections and streams take when they are idle, and what protocols have
    /// [reserved](crate::Node::reserve_memory).
    Memory,
    /// File descriptors of the process.
    Descriptors,
}

impl Resource {
    /// Each of them.
    pub const ALL: [Self; 8] = [
        Self::Connections,
        Self::InboundConnections,
        Self::OutboundConnections,
        Self::Streams,
        Self::InboundStreams,
        Self::OutboundStreams,
        Self::Memory,
        Self::Descriptors,
    ];

    /// Its name in configurations and metrics: `inbound_streams`, for example.
    pub fn name(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::InboundConnections => "inbound_connections",
            Self::OutboundConnections => "outbound_connections",
            Self::Streams => "streams",
            Self::InboundStreams => "inbound_streams",
            Self::OutboundStreams => "outbound_streams",
            Self::Memory => "memory",
            Self::Descriptors => "descriptors",
        }
    }
}

/// As in an error: `inbound streams`.
impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connections => "connections",
            Self::InboundConnections => "inbound connections",
            Self::OutboundConnections => "outbound connections",
            Self::Streams => "streams",
            Self::InboundStreams => "inbound streams",
            Self::OutboundStreams => "outbound streams",
            Self::Memory => "bytes of memory",
            Self::Descriptors => "file descriptors",
        })
    }
}

/// An amount of each resource: what a scope may hold at most, or what it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Amounts {
    /// [`Resource::Connections`].
    pub connections: usize,
    /// [`Resource::InboundConnections`].
    pub inbound_connections: usize,
    /// [`Resource::OutboundConnections`].
    pub outbound_connections: usize,
    /// [`Resource::Streams`].
    pub streams: usize,
    /// [`Resource::InboundStreams`].
    pub inbound_streams: usize,
    /// [`Resource::OutboundStreams`].
    pub outbound_streams: usize,
    /// [`Resource::Memory`], in bytes.
    pub memory: usize,
    /// [`Resource::Descriptors`].
    pub descriptors: usize,
}

impl Amounts {
    /// Nothing of anything.
    pub const NONE: Self = Self::all(0);
    /// As limits: as much as anybody likes.
    pub const UNLIMITED: Self = Self::all(usize::MAX);

    const fn all(amount: usize) -> Self {
        Self {
            connections: amount,
            inbound_connections: amount,
            outbound_connections: amount,
            streams: amount,
            inbound_streams: amount,
            outbound_streams: amount,
            memory: amount,
            descriptors: amount,
        }
    }

    /// How much of `resource`.
    pub fn of(&self, resource: Resource) -> usize {
        match resource {
            Resource::Connections => self.connections,
            Resource::InboundConnections => self.inbound_connections,
            Resource::OutboundConnections => self.outbound_connections,
            Resource::Streams => self.streams,
            Resource::InboundStreams => self.inbound_streams,
            Resource::OutboundStreams => self.outbound_streams,
            Resource::Memory => self.memory,
            Resource::Descriptors => self.descriptors,
        }
    }

    /// How much of `resource`, to be changed.
    pub fn of_mut(&mut self, resource: Resource) -> &mut usize {
        match resource {
            Resource::Connections => &mut self.connections,
            Resource::InboundConnections => &mut self.inbound_connections,
            Resource::OutboundConnections => &mut self.outbound_connections,
            Resource::Streams => &mut self.streams,
            Resource::InboundStreams => &mut self.inbound_streams,
            Resource::OutboundStreams => &mut self.outbound_streams,
            Resource::Memory => &mut self.memory,
            Resource::Descriptors => &mut self.descriptors,
        }
    }

    /// The first resource of which `more` is too much, if this is held already.
    pub(super) fn exceeds(&self, more: &Self, limits: &Self) -> Option<Resource> {
        let is_too_much = |resource: &Resource| {
            let more = more.of(*resource);
            more > 0 && self.of(*resource).saturating_add(more) > limits.of(*resource)
        };
        Resource::ALL.into_iter().find(is_too_much)
    }

    pub(super) fn add(&mut self, more: &Self) {
        for resource in Resource::ALL {
            let amount = self.of_mut(resource);
            *amount = amount.saturating_add(more.of(resource));
        }
    }

    pub(super) fn subtract(&mut self, less: &Self) {
        for resource in Resource::ALL {
            let amount = self.of_mut(resource);
            *amount = amount.saturating_sub(less.of(resource));
        }
    }
}
