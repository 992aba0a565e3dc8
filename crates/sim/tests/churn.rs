//! A thousand nodes that come and go for a simulated day.

// Allowed in tests; clippy takes only the functions marked as such for tests.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use peerloom_core::{Multiaddr, ProtocolName, StreamExt as _};
use peerloom_node::Node;
use peerloom_sim::{Host, HostConfig, InUse, Internet, LinkConfig, Nat};
use tokio::time::sleep;

const HOSTS: usize = 1000;
/// What a round takes, and how many of them are a day.
const ROUND: Duration = Duration::from_secs(600);
const ROUNDS: usize = 144;
/// In each round: nodes that dial somebody, and nodes that something happens to.
const CONTACTS: usize = 40;
const INCIDENTS: usize = 8;

const ECHO: ProtocolName = ProtocolName::from_static("/echo/1.0.0");
/// Is accepted, and never read.
const DEAF: ProtocolName = ProtocolName::from_static("/deaf/1.0.0");

async fn start(host: &Host) -> (Node, Vec<Multiaddr>) {
    let (keypair, transport) = (host.keypair(), host.transport(host.keypair()));
    let starting = async {
        let node = Node::builder(keypair).transport(transport).build();
        let echo = node.handle(ECHO, |mut incoming| async move {
            while let Ok(Some(chunk)) = incoming.stream.read_chunk().await {
                if incoming.stream.write_all(chunk).await.is_err() {
                    return;
                }
            }
            let _ = incoming.stream.close_write().await;
        });
        let deaf = node.handle(DEAF, |incoming| async move {
            let _unread = incoming;
            std::future::pending().await
        });
        assert!(echo.is_ok() && deaf.is_ok());
        let mut addresses = Vec::new();
        for listen in ["/ip4/0.0.0.0/udp/4001/quic-v1", "/ip4/0.0.0.0/tcp/4001"] {
            addresses.extend(node.listen(listen.parse().unwrap()).await.unwrap());
        }
        (node, addresses)
    };
    host.run(starting).await.unwrap()
}

/// Connects and has something echoed, or writes into a stream that nobody reads and leaves it open.
async fn contact(node: Node, addresses: Vec<Multiaddr>, is_deaf: bool) -> Option<()> {
    let connection = node.dial(addresses).await.ok()?;
    let protocol = if is_deaf { DEAF } else { ECHO };
    let mut stream = node.open_stream(&connection, &[protocol]).await.ok()?;
    stream.write_all(Bytes::from_static(&[7; 2000])).await.ok()?;
    if is_deaf {
        node.spawn(async move {
            let _open = stream;
            std::future::pending().await
        });
        return Some(());
    }
    stream.close_write().await.ok()?;
    let mut received = 0;
    while let Some(chunk) = stream.read_chunk().await.ok()? {
        received += chunk.len();
    }
    (received == 2000).then_some(())
}

/// Any but a secure choice, the same each time.
fn choice(state: &mut u32, of: usize) -> usize {
    *state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
    (*state >> 8) as usize % of
}

fn tasks() -> usize {
    tokio::runtime::Handle::current().metrics().num_alive_tasks()
}

/// Kilobytes that this process has in memory.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok()).unwrap_or(0)
}

/// A day, and what came of it: the digest of its trace and how many contacts succeeded. Nothing is left of it.
async fn day(seed: u64) -> (u64, usize) {
    let (real, before) = (std::time::SystemTime::now(), tasks());
    let internet = Internet::new(seed);
    internet.default_link(LinkConfig::new(Duration::from_millis(30)).loss(0.01));
    let config = |at: usize| match at % 5 {
        3 => HostConfig::new().without_udp(),
        4 => HostConfig::new().behind(Nat::PortRestrictedCone),
        _ => HostConfig::new(),
    };
    let hosts: Vec<Host> = (0..HOSTS).map(|at| internet.host(config(at))).collect();
    let mut nodes = join_all(hosts.iter().map(start)).await;
    let (mut chance, mut succeeded, mut most) = (1, 0, InUse::default());
    for round in 0..ROUNDS {
        let contacts = (0..CONTACTS).map(|number| {
            let (at, to) = (choice(&mut chance, HOSTS), choice(&mut chance, HOSTS));
            let contact = contact(nodes[at].0.clone(), nodes[to].1.clone(), number % 8 == 0);
            hosts[at].run(tokio::time::timeout(ROUND / 2, contact))
        });
        // Those whose host sleeps never end.
        let (outcomes, ()) = tokio::join!(
            join_all(contacts.map(|contact| tokio::time::timeout(ROUND / 2, contact))),
            sleep(ROUND / 2)
        );
        succeeded += outcomes.iter().filter(|outcome| matches!(outcome, Ok(Ok(Ok(Some(())))))).count();
        let now = internet.in_use();
        if now.connections > most.connections {
            most = now;
        }
        for at in [(); INCIDENTS].map(|()| choice(&mut chance, HOSTS)) {
            match choice(&mut chance, 3) {
                0 => {
                    hosts[at].crash();
                    hosts[at].restart();
                    nodes[at] = start(&hosts[at]).await;
                }
                1 => hosts[at].sleep(ROUND * choice(&mut chance, 8) as u32 / 2),
                _ => {
                    hosts[at].wake();
                    nodes[at].0.close().await;
                    // Its listener ends when its task is next scheduled.
                    sleep(Duration::from_millis(1)).await;
                    nodes[at] = start(&hosts[at]).await;
                }
            }
        }
        match round {
            50 => internet.partition(&hosts[..HOSTS / 2], &hosts[HOSTS / 2..]),
            52 => internet.heal(),
            _ => {}
        }
        sleep(ROUND / 2).await;
    }
    assert!(internet.now() >= ROUND * ROUNDS as u32);
    assert!(succeeded > ROUNDS * CONTACTS / 2 && most.connections > 0 && most.bytes > 0, "{most:?}");

    hosts.iter().for_each(Host::wake);
    join_all(nodes.iter().map(|(node, _)| node.close())).await;
    drop(nodes);
    // Longer than a goodbye lingers, or a host sleeps.
    sleep(ROUND * 10).await;
    assert_eq!(internet.in_use(), InUse::default());
    let trace = internet.trace();
    println!(
        "{:?} in {:?}: {} of {} contacts, {} events, at most {most:?}; {} KiB resident",
        internet.now(),
        real.elapsed().unwrap(),
        succeeded,
        ROUNDS * CONTACTS,
        trace.count(),
        resident(),
    );
    // The network ends with the last connection, stream, listener or transport that somebody still holds.
    drop((hosts, internet));
    sleep(Duration::from_millis(1)).await;
    assert_eq!(tasks(), before);
    (trace.digest(), succeeded)
}

/// In a thread of its own, whose maps are seeded anew, and a runtime of its own.
fn run(seed: u64) -> std::thread::JoinHandle<(u64, usize)> {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    std::thread::spawn(move || runtime().unwrap().block_on(day(seed)))
}

#[test]
fn nothing_is_left_of_a_thousand_nodes_that_churned_for_a_day_and_the_same_seed_is_the_same_day() {
    let days = [run(5), run(5)].map(|day| day.join().unwrap());
    assert_eq!(days[0], days[1]);
}
