//! A thousand whole nodes in one thread.

// Allowed in tests; clippy takes only the functions marked as such for tests.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::time::Duration;

use peerloom_node::{Node, ping};
use peerloom_sim::{Host, HostConfig, Internet, LinkConfig};

const NODES: usize = 1000;

fn node(host: &Host) -> Node {
    let keypair = host.keypair();
    Node::builder(keypair.clone()).transport(host.transport(keypair)).build()
}

/// Kilobytes that this process has in memory.
fn resident() -> Option<usize> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix(" kB")?.parse().ok()
}

#[tokio::test(start_paused = true)]
async fn a_thousand_nodes_ping_each_other_around_a_ring() {
    let (real, before) = (std::time::SystemTime::now(), resident().unwrap_or(0));
    let internet = Internet::new(7);
    internet.default_link(LinkConfig::new(Duration::from_millis(20)));
    let mut nodes = Vec::new();
    for _ in 0..NODES {
        let node = node(&internet.host(HostConfig::new()));
        let address = node.listen("/ip4/0.0.0.0/udp/4001/quic-v1".parse().unwrap()).await.unwrap().remove(0);
        nodes.push((node, address));
    }
    let pings = (0..NODES).map(|at| {
        let (node, next) = (nodes[at].0.clone(), nodes[(at + 1) % NODES].1.clone());
        async move {
            let connection = node.dial(next).await.unwrap();
            ping::ping(&node, &connection).await.unwrap()
        }
    });
    let round_trips = futures_util::future::join_all(pings).await;
    assert!(round_trips.iter().all(|round_trip| *round_trip == Duration::from_millis(40)), "{round_trips:?}");
    assert_eq!(internet.connections(), NODES);
    let grown = resident().unwrap_or(0).saturating_sub(before);
    println!(
        "{NODES} nodes, {} packets and events in {:?} of simulated and {:?} of real time, {} KiB a node",
        internet.trace().count(),
        internet.now(),
        real.elapsed().unwrap(),
        grown / NODES,
    );
    for (node, _) in &nodes {
        node.close().await;
    }
    drop(nodes);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(internet.connections(), 0);
}
