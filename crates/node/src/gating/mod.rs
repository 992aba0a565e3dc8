//! Who may connect to this node and to whom it may: rules that can change at any time, and a gate that an application
//! writes.

mod rule;
mod rules;

use std::{
    fmt,
    future::{Future, ready},
    sync::Arc,
    time::Duration,
};

use parking_lot::RwLock;
use peerloom_core::{
    Connection, Multiaddr, PeerId,
    runtime::{BoxFuture, MaybeSend, MaybeSync, timeout},
};

pub use self::rule::{IpNetwork, Rule, RuleError};
use self::rules::Rules;
use crate::connections::{ConnectionInfo, Direction};

/// What a gate has to answer, unless [`Gating::patience`] says otherwise.
pub const GATE_PATIENCE: Duration = Duration::from_secs(10);

/// What wants to pass.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Passage {
    /// This node is about to dial a peer; its addresses follow one by one. Not asked for dials of addresses without `/p2p/…`.
    Peer {
        /// The peer.
        peer: PeerId,
    },
    /// This node is about to dial an address. Those that a name stands for follow by themselves.
    Address {
        /// The address.
        address: Multiaddr,
    },
    /// Somebody dials this node, and has proved nothing yet.
    Incoming {
        /// Where it comes from. It ends in `/p2p/…` only if a relay says who that is.
        remote_address: Multiaddr,
    },
    /// A peer has proved who it is.
    Connection {
        /// The peer.
        peer: PeerId,
        /// The address dialed, or the one that the peer came from.
        remote_address: Multiaddr,
        /// Who dialed.
        direction: Direction,
    },
}

impl Passage {
    pub(crate) fn of(connection: &dyn Connection, direction: Direction) -> Self {
        let remote_address = connection.remote_address().clone();
        Self::Connection { peer: connection.remote_peer(), remote_address, direction }
    }

    /// The peer, as far as it is known.
    pub fn peer(&self) -> Option<PeerId> {
        match self {
            Self::Peer { peer } | Self::Connection { peer, .. } => Some(*peer),
            Self::Address { address } => address.peer_id(),
            Self::Incoming { remote_address } => remote_address.peer_id(),
        }
    }

    /// The address, unless it is about no particular one.
    pub fn address(&self) -> Option<&Multiaddr> {
        match self {
            Self::Peer { .. } => None,
            Self::Address { address } => Some(address),
            Self::Incoming { remote_address } | Self::Connection { remote_address, .. } => {
                Some(remote_address)
            }
        }
    }
}

impl From<&ConnectionInfo> for Passage {
    fn from(connection: &ConnectionInfo) -> Self {
        Self::Connection {
            peer: connection.peer,
            remote_address: connection.remote_address.clone(),
            direction: connection.direction,
        }
    }
}

impl fmt::Display for Passage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Peer { peer } => write!(f, "dial of {peer}"),
            Self::Address { address } => write!(f, "dial of {address}"),
            Self::Incoming { remote_address } => write!(f, "connection from {remote_address}"),
            Self::Connection { peer, remote_address, direction } => {
                let preposition = match direction {
                    Direction::Inbound => "from",
                    Direction::Outbound => "to",
                };
                write!(f, "connection {preposition} {peer} at {remote_address}")
            }
        }
    }
}

/// Why something may not pass.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// A rule denies it.
    #[error("the rule {0} denies it")]
    Rule(Rule),
    /// The gate said no, in its own words.
    #[error("{0}")]
    Gate(String),
    /// The gate did not answer, which is no.
    #[error("the gate gave no answer within {} ms", .after.as_millis())]
    NoAnswer {
        /// What it had.
        after: Duration,
    },
}

impl From<&str> for Refusal {
    fn from(reason: &str) -> Self {
        Self::Gate(reason.to_owned())
    }
}

impl From<String> for Refusal {
    fn from(reason: String) -> Self {
        Self::Gate(reason)
    }
}

/// What did not pass, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{passage} refused: {reason}")]
#[non_exhaustive]
pub struct Denied {
    /// What wanted to pass.
    pub passage: Passage,
    /// Why it may not.
    #[source]
    pub reason: Refusal,
}

impl Denied {
    /// That `passage` may not happen.
    pub fn new(passage: Passage, reason: Refusal) -> Self {
        Self { passage, reason }
    }
}

/// Decides what may pass, taking its time for it if it needs some: to ask a database or a person, for example.
///
/// Any function from a [`Passage`] to a future is one. The future is dropped with the dial or the connection that it is about,
/// and what it does not answer within [`Gating::patience`] may not pass.
pub trait Gate: MaybeSend + MaybeSync + 'static {
    /// Whether `passage` may happen.
    fn permit(&self, passage: Passage) -> BoxFuture<'static, Result<(), Refusal>>;
}

impl<F, Fut> Gate for F
where
    F: Fn(Passage) -> Fut + MaybeSend + MaybeSync + 'static,
    Fut: Future<Output = Result<(), Refusal>> + MaybeSend + 'static,
{
    fn permit(&self, passage: Passage) -> BoxFuture<'static, Result<(), Refusal>> {
        Box::pin(self(passage))
    }
}

/// What may pass in a node: [`Rule`]s first, then a [`Gate`] if there is one. A handle; clones are the same.
///
/// Rules ask *who* and *where*, each by itself, and both must pass. Of the rules that fit the most specific one decides: a peer
/// before all peers; an address before the network it is in, and a smaller network before a larger one. What no rule fits
/// passes.
///
/// An address through a relay is that of the relay, and everybody named in it must pass.
///
/// ```
/// use peerloom_node::{Gating, Passage, Refusal};
///
/// # fn main() -> Result<(), peerloom_node::RuleError> {
/// // Nobody but two machines of a network,
/// let gating = Gating::new();
/// gating.deny("192.0.2.0/24".parse()?);
/// gating.allow("192.0.2.8/31".parse()?);
/// // and for the rest, somebody who is asked each time.
/// let gating = gating.with_gate(|passage: Passage| async move {
///     match passage {
///         Passage::Incoming { .. } => Err(Refusal::from("we are closed")),
///         _ => Ok(()),
///     }
/// });
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Gating {
    rules: Arc<RwLock<Rules>>,
    gate: Option<Arc<dyn Gate>>,
    patience: Duration,
}

impl Default for Gating {
    fn default() -> Self {
        Self { rules: Arc::default(), gate: None, patience: GATE_PATIENCE }
    }
}

impl Gating {
    /// Lets everything pass.
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks `gate` about whatever passes the rules.
    pub fn with_gate(mut self, gate: impl Gate) -> Self {
        self.gate = Some(Arc::new(gate));
        self
    }

    /// What the gate has to answer, instead of [`GATE_PATIENCE`]. What comes in waits as one of the
    /// [handshakes](crate::resources::ResourceLimits::transient) meanwhile, and makes room as they do.
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Lets what `rule` fits pass no longer. Connections that there are stay until
    /// [`Node::close_denied`](crate::Node::close_denied).
    pub fn deny(&self, rule: Rule) {
        self.rules.write().insert(rule, false);
    }

    /// Lets what `rule` fits pass, whatever wider rules say.
    pub fn allow(&self, rule: Rule) {
        self.rules.write().insert(rule, true);
    }

    /// Takes a rule back. Whether there was one.
    pub fn forget(&self, rule: &Rule) -> bool {
        self.rules.write().remove(rule)
    }

    /// Puts other rules in the place of all that there are, at once.
    pub fn replace(&self, denied: impl IntoIterator<Item = Rule>, allowed: impl IntoIterator<Item = Rule>) {
        let mut rules = Rules::default();
        denied.into_iter().for_each(|rule| rules.insert(rule, false));
        allowed.into_iter().for_each(|rule| rules.insert(rule, true));
        *self.rules.write() = rules;
    }

    /// The rules, and whether each allows.
    pub fn rules(&self) -> Vec<(Rule, bool)> {
        self.rules.read().list()
    }

    /// What the rules alone say.
    pub fn check_rules(&self, passage: &Passage) -> Result<(), Denied> {
        let rules = self.rules.read();
        match rules.denying(passage) {
            Some(rule) => Err(Denied::new(passage.clone(), Refusal::Rule(rule))),
            None => Ok(()),
        }
    }

    /// What the rules say, then the gate.
    pub fn check(&self, passage: Passage) -> BoxFuture<'static, Result<(), Denied>> {
        if let Err(denied) = self.check_rules(&passage) {
            return Box::pin(ready(Err(denied)));
        }
        let Some(gate) = &self.gate else { return Box::pin(ready(Ok(()))) };
        let (answer, after) = (gate.permit(passage.clone()), self.patience);
        Box::pin(async move {
            let answer = timeout(after, answer).await.unwrap_or(Err(Refusal::NoAnswer { after }));
            answer.map_err(|reason| Denied::new(passage, reason))
        })
    }

    /// Whether an address may be dialed, for a transport that finds addresses by itself: one that resolves names. The error is
    /// the reason in words.
    pub fn permit_address(&self, address: Multiaddr) -> BoxFuture<'static, Result<(), String>> {
        let checking = self.check(Passage::Address { address });
        Box::pin(async move { checking.await.map_err(|denied| denied.reason.to_string()) })
    }
}

impl fmt::Debug for Gating {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gating")
            .field("rules", &self.rules())
            .field("gate", &self.gate.is_some())
            .finish_non_exhaustive()
    }
}
