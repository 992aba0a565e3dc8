//! ICE (RFC 8445): the one pair of WebRTC-direct ([`direct`]), and the full [`agent`] of connections that two peers
//! negotiate.

#![cfg_attr(not(test), warn(clippy::arithmetic_side_effects))]

use std::{
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use crate::stun::Message;

pub(crate) mod agent;
pub(crate) mod candidate;
pub(crate) mod direct;
mod gathering;
mod pair;
pub(crate) mod token;

/// Between which addresses a datagram goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Path {
    /// Ours; `None` lets the kernel choose by its routes.
    pub(crate) local: Option<IpAddr>,
    pub(crate) remote: SocketAddr,
}

impl Path {
    /// To `remote`, from whichever of our addresses the kernel chooses.
    pub(crate) fn to(remote: SocketAddr) -> Self {
        Self { local: None, remote }
    }
}

/// The ICE half of a connection.
#[derive(Debug)]
pub(crate) enum Ice {
    Direct(direct::DirectAgent),
    Full(Box<agent::Agent>),
}

impl Ice {
    /// Takes a STUN message. Returns whether it proves that the remote is there.
    pub(crate) fn handle_message(&mut self, now: Instant, path: Path, message: &Message<'_>) -> bool {
        match self {
            Self::Direct(agent) => agent.handle_message(now, path, message),
            Self::Full(agent) => agent.handle_message(now, path, message),
        }
    }

    /// Whether there is a way to the remote.
    pub(crate) fn is_connected(&self) -> bool {
        match self {
            Self::Direct(agent) => agent.is_connected(),
            Self::Full(agent) => agent.selected().is_some(),
        }
    }

    /// Where to send what is not STUN.
    pub(crate) fn path(&self) -> Option<Path> {
        match self {
            Self::Direct(agent) => agent.path(),
            Self::Full(agent) => agent.selected(),
        }
    }

    /// Whether a datagram from there belongs to this session.
    pub(crate) fn knows(&self, from: SocketAddr) -> bool {
        match self {
            Self::Direct(agent) => agent.knows(from),
            Self::Full(agent) => agent.knows(from),
        }
    }

    /// Whether the remote has not answered for so long that nothing more may be sent to it (RFC 7675).
    pub(crate) fn has_lost_consent(&self) -> bool {
        match self {
            // The connection's own deadline is not much longer, and an agent that is lite asks for none.
            Self::Direct(_) => false,
            Self::Full(agent) => agent.has_lost_consent(),
        }
    }

    pub(crate) fn poll_transmit(&mut self) -> Option<(Path, Vec<u8>)> {
        match self {
            Self::Direct(agent) => agent.poll_transmit(),
            Self::Full(agent) => agent.poll_transmit(),
        }
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        match self {
            Self::Direct(agent) => agent.poll_timeout(),
            Self::Full(agent) => agent.poll_timeout(),
        }
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        match self {
            Self::Direct(agent) => agent.handle_timeout(now),
            Self::Full(agent) => agent.handle_timeout(now),
        }
    }
}

fn later(now: Instant, interval: Duration) -> Instant {
    now.checked_add(interval).unwrap_or(now)
}
