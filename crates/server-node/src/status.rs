//! The status port: `/health` for whoever supervises the node, `/metrics` for Prometheus.

use std::{
    net::SocketAddr,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use anyhow::Context;
use axum::{Json, Router, extract::State, http::header, response::IntoResponse, routing::get};
use peerloom_autonat::AutonatServer;
use peerloom_node::{Direction, Node, NodeEvent, Reachability};
use peerloom_relay::RelayServer;
use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};
use tokio::net::TcpListener;

use crate::resource_metrics::ResourceMetrics;

pub(crate) struct Status {
    listener: TcpListener,
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    node: Node,
    metrics: Metrics,
}

impl Status {
    pub(crate) async fn bind(
        address: SocketAddr,
        node: &Node,
        relay: Option<RelayServer>,
        autonat: Option<AutonatServer>,
    ) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(address).await.with_context(|| format!("status {address}"))?;
        let address = listener.local_addr().with_context(|| format!("status {address}"))?;
        Ok(Self {
            listener,
            address,
            shared: Arc::new(Shared { node: node.clone(), metrics: Metrics::new(node, relay, autonat) }),
        })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until the future is dropped.
    pub(crate) async fn serve(self) -> anyhow::Result<()> {
        let router = Router::new()
            .route("/health", get(health))
            .route("/metrics", get(metrics))
            .with_state(self.shared);
        axum::serve(self.listener, router).await.context("status port")
    }
}

async fn health(State(shared): State<Arc<Shared>>) -> impl IntoResponse {
    let node = &shared.node;
    let addresses: Vec<_> = node.listen_addresses().iter().map(ToString::to_string).collect();
    Json(serde_json::json!({
        "status": "ok",
        "version": env!("CARGO_PKG_VERSION"),
        "peer": node.peer_id().to_string(),
        "addresses": addresses,
        "connections": node.connections().len(),
    }))
}

async fn metrics(State(shared): State<Arc<Shared>>) -> impl IntoResponse {
    (
        [(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")],
        shared.metrics.text(&shared.node),
    )
}

struct Metrics {
    registry: Registry,
    connections: Gauge,
    tasks: Gauge,
    resident_memory: Gauge,
    open_files: Gauge,
    resources: ResourceMetrics,
    kept_peers: Gauge,
    trimmed: Counter<u64>,
    unused: Counter<u64>,
    superfluous: Counter<u64>,
    relay: Option<RelayMetrics>,
    autonat: Option<AutonatMetrics>,
    own_addresses: Family<ByReachability, Gauge>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByDirection {
    direction: DirectionLabel,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelValue)]
#[allow(non_camel_case_types)] // The variants' names are the label's values.
enum DirectionLabel {
    inbound,
    outbound,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByReachability {
    reachability: ReachabilityLabel,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelValue)]
#[allow(non_camel_case_types)] // The variants' names are the label's values.
enum ReachabilityLabel {
    reachable,
    unknown,
    unreachable,
}

impl Metrics {
    fn new(node: &Node, relay: Option<RelayServer>, autonat: Option<AutonatServer>) -> Self {
        let mut registry = Registry::with_prefix("peerloom");
        let connections = Gauge::<i64>::default();
        let tasks = Gauge::<i64>::default();
        let resident_memory = Gauge::<i64>::default();
        let open_files = Gauge::<i64>::default();
        let kept_peers = Gauge::<i64>::default();
        let [trimmed, unused, superfluous] = [(); 3].map(|()| Counter::<u64>::default());
        let established = Family::<ByDirection, Counter>::default();
        let closed = Counter::<u64>::default();
        let incoming_failed = Counter::<u64>::default();
        let dials_failed = Counter::<u64>::default();
        let events_missed = Counter::<u64>::default();
        registry.register("connections", "Established connections", connections.clone());
        registry.register("tasks", "Handshakes, stream handlers and protocol tasks", tasks.clone());
        registry.register("resident_memory_bytes", "Resident memory of the process", resident_memory.clone());
        registry.register("open_files", "Open file descriptors of the process", open_files.clone());
        registry.register(
            "kept_peers",
            "Peers that are reconnected whenever they are lost",
            kept_peers.clone(),
        );
        registry.register("connections_trimmed", "Connections closed to make room", trimmed.clone());
        registry.register(
            "connections_unused",
            "Connections closed because nobody needed them",
            unused.clone(),
        );
        registry.register(
            "connections_superfluous",
            "Connections closed because another to the same peer did as well",
            superfluous.clone(),
        );
        registry.register("connections_established", "Connections that became usable", established.clone());
        registry.register("connections_closed", "Connections that ended", closed.clone());
        registry.register(
            "incoming_failed",
            "Inbound connections that failed before they were usable",
            incoming_failed.clone(),
        );
        registry.register("dials_failed", "Dials by this node that failed", dials_failed.clone());
        registry.register(
            "events_missed",
            "Events that these counters were too slow for",
            events_missed.clone(),
        );

        let resources = ResourceMetrics::new(&mut registry);
        let relay = relay.map(|server| RelayMetrics::new(server, &mut registry));
        let autonat = autonat.map(|server| AutonatMetrics::new(server, &mut registry));
        let own_addresses = Family::<ByReachability, Gauge>::default();
        registry.register(
            "own_addresses",
            "Addresses of this node, by whether others reach them",
            own_addresses.clone(),
        );
        let mut events = node.events();
        node.spawn(async move {
            while let Some(event) = events.next().await {
                match event {
                    NodeEvent::ConnectionEstablished { connection, .. } => {
                        let direction = match connection.direction {
                            Direction::Inbound => DirectionLabel::inbound,
                            Direction::Outbound => DirectionLabel::outbound,
                        };
                        established.get_or_create(&ByDirection { direction }).inc();
                    }
                    NodeEvent::ConnectionClosed { .. } => _ = closed.inc(),
                    NodeEvent::IncomingFailed { .. } => _ = incoming_failed.inc(),
                    NodeEvent::DialFailed { .. } => _ = dials_failed.inc(),
                    NodeEvent::Lagged { missed } => _ = events_missed.inc_by(missed),
                    _ => {}
                }
            }
        });
        Self {
            registry,
            connections,
            tasks,
            resident_memory,
            open_files,
            resources,
            kept_peers,
            trimmed,
            unused,
            superfluous,
            relay,
            autonat,
            own_addresses,
        }
    }

    fn text(&self, node: &Node) -> String {
        set(&self.connections, node.connections().len());
        set(&self.tasks, node.running_tasks());
        set(&self.resident_memory, resident_memory().unwrap_or_default());
        set(&self.open_files, std::fs::read_dir("/proc/self/fd").map(Iterator::count).unwrap_or_default());
        self.resources.update(node);
        set(&self.kept_peers, node.kept().len());
        let closed = node.closed_counts();
        for (counter, count) in [
            (&self.trimmed, closed.trimmed),
            (&self.unused, closed.unused),
            (&self.superfluous, closed.superfluous),
        ] {
            counter.inc_by(count.saturating_sub(counter.get()));
        }
        if let Some(relay) = &self.relay {
            relay.update();
        }
        if let Some(autonat) = &self.autonat {
            autonat.update();
        }
        let own = node.own_addresses();
        for (label, reachability) in [
            (ReachabilityLabel::reachable, Reachability::Reachable),
            (ReachabilityLabel::unknown, Reachability::Unknown),
            (ReachabilityLabel::unreachable, Reachability::Unreachable),
        ] {
            let count = own.iter().filter(|own| own.reachability == reachability).count();
            set(&self.own_addresses.get_or_create(&ByReachability { reachability: label }), count);
        }
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}

/// What the relay is doing, where this node is one.
struct RelayMetrics {
    server: RelayServer,
    reservations: Gauge,
    circuits: Gauge,
    reservations_made: Counter<u64>,
    circuits_opened: Counter<u64>,
    refused: Counter<u64>,
    bytes: Counter<u64>,
}

impl RelayMetrics {
    fn new(server: RelayServer, registry: &mut Registry) -> Self {
        let metrics = Self {
            server,
            reservations: Gauge::default(),
            circuits: Gauge::default(),
            reservations_made: Counter::default(),
            circuits_opened: Counter::default(),
            refused: Counter::default(),
            bytes: Counter::default(),
        };
        let Self { reservations, circuits, reservations_made, circuits_opened, refused, bytes, .. } =
            &metrics;
        registry.register("relay_reservations", "Peers reachable through this relay", reservations.clone());
        registry.register("relay_circuits", "Connections relayed now", circuits.clone());
        registry.register(
            "relay_reservations_made",
            "Reservations made or renewed",
            reservations_made.clone(),
        );
        registry.register("relay_circuits_opened", "Connections relayed so far", circuits_opened.clone());
        registry.register("relay_refused", "Requests to the relay that were refused", refused.clone());
        registry.register("relay_bytes", "Bytes relayed, both directions together", bytes.clone());
        metrics
    }

    fn update(&self) {
        let stats = self.server.stats();
        set(&self.reservations, stats.reservations);
        set(&self.circuits, stats.circuits);
        for (counter, now) in [
            (&self.reservations_made, stats.reservations_made),
            (&self.circuits_opened, stats.circuits_opened),
            (&self.refused, stats.refused),
            (&self.bytes, stats.bytes),
        ] {
            counter.inner().fetch_max(now, Relaxed);
        }
    }
}

/// What AutoNAT has done for others, where this node is a server of it.
struct AutonatMetrics {
    server: AutonatServer,
    requests: Counter<u64>,
    turned_away: Counter<u64>,
    dials: Counter<u64>,
}

impl AutonatMetrics {
    fn new(server: AutonatServer, registry: &mut Registry) -> Self {
        let metrics = Self {
            server,
            requests: Counter::default(),
            turned_away: Counter::default(),
            dials: Counter::default(),
        };
        registry.register(
            "autonat_requests",
            "Requests to dial a client's address",
            metrics.requests.clone(),
        );
        registry.register(
            "autonat_turned_away",
            "Of these, those that were not served",
            metrics.turned_away.clone(),
        );
        registry.register("autonat_dials", "Addresses dialed for clients", metrics.dials.clone());
        metrics
    }

    fn update(&self) {
        let stats = self.server.stats();
        for (counter, now) in [
            (&self.requests, stats.requests),
            (&self.turned_away, stats.rejected.saturating_add(stats.refused)),
            (&self.dials, stats.reached.saturating_add(stats.not_reached)),
        ] {
            counter.inner().fetch_max(now, Relaxed);
        }
    }
}

fn set(gauge: &Gauge, value: usize) {
    gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
}

/// Bytes, from the line `VmRSS: 1234 kB` of proc(5).
fn resident_memory() -> Option<usize> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    line.split_whitespace().nth(1)?.parse::<usize>().ok()?.checked_mul(1024)
}
