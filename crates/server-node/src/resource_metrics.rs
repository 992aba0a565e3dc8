//! What the node's [`resources`](peerloom_node::resources) look like on `/metrics`: one line for each kind of scope and resource,
//! however many peers there are.

use std::sync::atomic::Ordering::Relaxed;

use peerloom_node::{
    Node,
    resources::{Amounts, Resource, ScopeKind},
};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

pub(crate) struct ResourceMetrics {
    held: Family<OfResource, Gauge>,
    limits: Family<OfResource, Gauge>,
    refused: Family<OfResource, Counter<u64>>,
    scopes: Family<OfScope, Gauge>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfResource {
    scope: &'static str,
    resource: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfScope {
    scope: &'static str,
}

impl ResourceMetrics {
    pub(crate) fn new(registry: &mut Registry) -> Self {
        let metrics = Self {
            held: Family::default(),
            limits: Family::default(),
            refused: Family::default(),
            scopes: Family::default(),
        };
        let Self { held, limits, refused, scopes } = &metrics;
        registry.register(
            "resource_held",
            "What is held of a resource in the scope of this kind that holds most of it",
            held.clone(),
        );
        registry.register(
            "resource_limit",
            "What a scope of this kind may hold of a resource; none where there is no limit",
            limits.clone(),
        );
        registry.register(
            "resource_refused",
            "Connections, streams and memory refused for the lack of a resource in a scope of this kind",
            refused.clone(),
        );
        registry.register("resource_scopes", "Scopes of this kind that hold anything", scopes.clone());
        metrics
    }

    pub(crate) fn update(&self, node: &Node) {
        let snapshot = node.resources();
        for usage in snapshot.kinds() {
            let scope = usage.kind.name();
            set(&self.scopes.get_or_create(&OfScope { scope }), usage.scopes);
            for resource in Resource::ALL.into_iter().filter(|resource| counts(usage.kind, *resource)) {
                let label = OfResource { scope, resource: resource.name() };
                set(&self.held.get_or_create(&label), usage.most.of(resource));
                if usage.limits.of(resource) != Amounts::UNLIMITED.of(resource) {
                    set(&self.limits.get_or_create(&label), usage.limits.of(resource));
                }
                let refused = self.refused.get_or_create(&label);
                refused.inner().fetch_max(snapshot.times_refused(usage.kind, resource), Relaxed);
            }
        }
    }
}

/// Whether anything of `resource` is ever held in a scope of this kind.
fn counts(kind: ScopeKind, resource: Resource) -> bool {
    let is_of_connections = matches!(
        resource,
        Resource::Connections
            | Resource::InboundConnections
            | Resource::OutboundConnections
            | Resource::Descriptors
    );
    match kind {
        ScopeKind::Protocol | ScopeKind::ProtocolPeer => !is_of_connections,
        // There are no outbound connections in them.
        ScopeKind::Network | ScopeKind::TransientNetwork => resource == Resource::Connections,
        _ => true,
    }
}

fn set(gauge: &Gauge, value: usize) {
    gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
}
