//! What a node spends on remotes, and how much of it on whom: limits as scopes.
//!
//! Connections, streams, memory and file descriptors are counted in [`ResourceScope`]s: all of the node, each IP address, peer,
//! protocol and connection. What something costs is reserved before it is made, in each scope that it counts in or in
//! none, and what holds the reservation is what it was made for: it ends with it, whatever happens.
//!
//! ```
//! use peerloom_core::Keypair;
//! use peerloom_node::{Limits, Node, resources::ResourceLimits};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! let mut limits = Limits::default();
//! limits.resources = ResourceLimits::for_budget(256 << 20, 1000);
//! limits.resources.peer.inbound_streams = 32;
//! let node = Node::builder(Keypair::generate()).limits(limits).build();
//! assert_eq!(node.resources().held(&peerloom_node::resources::ResourceScope::System).connections, 0);
//! # }
//! ```

mod accounts;
mod amounts;
mod connection;
mod limits;
#[cfg(not(target_arch = "wasm32"))]
mod machine;
mod memory;
mod refusals;
mod reservation;
mod scope;
mod snapshot;
mod stream;

use std::sync::Arc;

use parking_lot::Mutex;

pub(crate) use self::connection::ConnectionResources;
#[cfg(not(target_arch = "wasm32"))]
pub use self::machine::Machine;
use self::{accounts::Accounts, refusals::Refusals};
pub use self::{
    amounts::{Amounts, Resource},
    limits::{AllowList, NetworkLimit, PrefixLimit, ResourceLimits},
    memory::MemoryReservation,
    scope::{LimitExceeded, ResourceScope, ScopeKind},
    snapshot::{KindUsage, Refused, ResourceSnapshot, ScopeUsage},
};
use crate::event::EventSender;

/// The code with which a stream is reset for which there is no room: what go-libp2p calls `StreamResourceLimitExceeded`.
pub(crate) const RESET_CODE: u32 = 0x1002;

/// The books of a node, and who is told of refusals. A handle; clones are the same.
#[derive(Clone)]
pub(crate) struct Resources(Arc<Shared>);

struct Shared {
    accounts: Mutex<Accounts>,
    refusals: Refusals,
}

impl Resources {
    pub(crate) fn new(limits: ResourceLimits, events: EventSender) -> Self {
        Self(Arc::new(Shared {
            accounts: Mutex::new(Accounts::new(limits)),
            refusals: Refusals::new(events),
        }))
    }

    /// What `scope` may hold.
    pub(crate) fn limit(&self, scope: &ResourceScope) -> Amounts {
        self.0.accounts.lock().limit(scope)
    }

    /// Tells of a remote that was refused something. Not more often than is good.
    pub(crate) fn tell(&self, refused: &LimitExceeded) {
        self.0.refusals.tell(refused);
    }

    pub(crate) fn snapshot(&self) -> ResourceSnapshot {
        let accounts = self.0.accounts.lock();
        ResourceSnapshot {
            scopes: accounts.usage(),
            refused: accounts.refused(),
            limits: accounts.limits().clone(),
        }
    }
}
