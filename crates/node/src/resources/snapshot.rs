//! How it stands.

use super::{Amounts, Resource, ResourceLimits, ResourceScope, ScopeKind};

/// What every scope holds at one moment, and what was refused so far. See [`Node::resources`](crate::Node::resources).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ResourceSnapshot {
    /// Those that hold anything, in the order of their names.
    pub scopes: Vec<ScopeUsage>,
    /// What was refused since the node was made, dials and streams of its own included.
    pub refused: Vec<Refused>,
    /// What all scopes may hold.
    pub limits: ResourceLimits,
}

/// What one scope holds.
#[derive(Debug, Clone)]
pub struct ScopeUsage {
    /// The scope.
    pub scope: ResourceScope,
    /// What it holds.
    pub held: Amounts,
    /// What it may hold.
    pub limits: Amounts,
}

/// How often something was refused because of one resource in the scopes of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused {
    /// The kind of scope.
    pub kind: ScopeKind,
    /// The resource.
    pub resource: Resource,
    /// How often.
    pub times: u64,
}

/// What the scopes of one kind hold.
#[derive(Debug, Clone)]
pub struct KindUsage {
    /// The kind.
    pub kind: ScopeKind,
    /// How many of them hold anything.
    pub scopes: usize,
    /// Of each resource, what that scope holds which holds most of it.
    pub most: Amounts,
    /// What each may hold that has no limits of its own. For networks, what the smallest may: a single address.
    pub limits: Amounts,
}

impl ResourceSnapshot {
    /// What `scope` holds.
    pub fn held(&self, scope: &ResourceScope) -> Amounts {
        let found = self.scopes.iter().find(|usage| usage.scope == *scope);
        found.map_or(Amounts::NONE, |usage| usage.held)
    }

    /// How often something was refused for the lack of `resource` in a scope of this kind.
    pub fn times_refused(&self, kind: ScopeKind, resource: Resource) -> u64 {
        let found = self.refused.iter().find(|refused| (refused.kind, refused.resource) == (kind, resource));
        found.map_or(0, |refused| refused.times)
    }

    /// The same kind by kind, however many scopes there are: for metrics.
    pub fn kinds(&self) -> Vec<KindUsage> {
        let mut kinds: Vec<_> = ScopeKind::ALL.into_iter().map(|kind| self.empty(kind)).collect();
        for usage in &self.scopes {
            let Some(kind) = kinds.iter_mut().find(|kind| kind.kind == usage.scope.kind()) else { continue };
            kind.scopes = kind.scopes.saturating_add(1);
            for resource in Resource::ALL {
                let most = kind.most.of_mut(resource);
                *most = (*most).max(usage.held.of(resource));
            }
        }
        kinds
    }

    fn empty(&self, kind: ScopeKind) -> KindUsage {
        let limits = &self.limits;
        let of_network = limits.ip4.first().map(|limit| limit.limit);
        let connections = |connections| Amounts { connections, ..Amounts::UNLIMITED };
        let limits = match kind {
            ScopeKind::System => limits.system,
            ScopeKind::Transient => limits.transient,
            ScopeKind::AllowedSystem => limits.allowed_system,
            ScopeKind::AllowedTransient => limits.allowed_transient,
            ScopeKind::Network => connections(of_network.map_or(usize::MAX, |limit| limit.connections)),
            ScopeKind::TransientNetwork => {
                connections(of_network.map_or(usize::MAX, |limit| limit.handshakes))
            }
            ScopeKind::Peer => limits.peer,
            ScopeKind::Protocol => limits.protocol,
            ScopeKind::ProtocolPeer => limits.protocol_peer,
            ScopeKind::Connection => limits.connection,
        };
        KindUsage { kind, scopes: 0, most: Amounts::NONE, limits }
    }
}
