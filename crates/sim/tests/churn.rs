//! Nodes that come and go for a simulated day.

// Allowed in tests; clippy takes only the functions marked as such for tests.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::time::Duration;

use futures_util::future::join_all;
use peerloom_core::Multiaddr;
use peerloom_node::Node;
use peerloom_sim::{Host, HostConfig, Internet, LinkConfig, Nat};
use tokio::time::sleep;

const HOSTS: usize = 50;
/// What a round takes, and how many of them are a day.
const ROUND: Duration = Duration::from_secs(600);
const ROUNDS: usize = 144;

async fn start(host: &Host) -> (Node, Multiaddr) {
    let (keypair, transport) = (host.keypair(), host.transport(host.keypair()));
    let starting = async {
        let node = Node::builder(keypair).transport(transport).build();
        let addresses = node.listen("/ip4/0.0.0.0/udp/4001/quic-v1".parse().unwrap()).await.unwrap();
        (node, addresses[0].clone())
    };
    host.run(starting).await.unwrap()
}

/// Any but a secure choice, the same each time.
fn choice(state: &mut u32, of: usize) -> usize {
    *state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
    (*state >> 8) as usize % of
}

fn tasks() -> usize {
    tokio::runtime::Handle::current().metrics().num_alive_tasks()
}

#[tokio::test(start_paused = true)]
async fn nothing_is_left_of_nodes_that_churned_for_a_day() {
    let internet = Internet::new(5);
    internet.default_link(LinkConfig::new(Duration::from_millis(30)).loss(0.01));
    let before = tasks();
    let config = |at: usize| match at % 5 {
        4 => HostConfig::new().behind(Nat::PortRestrictedCone),
        _ => HostConfig::new(),
    };
    let hosts: Vec<Host> = (0..HOSTS).map(|at| internet.host(config(at))).collect();
    let mut nodes = join_all(hosts.iter().map(start)).await;
    let (mut chance, mut most) = (1, 0);
    for round in 0..ROUNDS {
        let dials = (0..HOSTS).map(|at| {
            let address = nodes[choice(&mut chance, HOSTS)].1.clone();
            hosts[at].run(nodes[at].0.dial(address))
        });
        // Some fail, and some of those whose host sleeps never end.
        let dialing = tokio::time::timeout(ROUND / 2, join_all(dials));
        let _ = tokio::join!(dialing, sleep(ROUND / 2));
        most = most.max(internet.connections());
        for at in [(); 4].map(|()| choice(&mut chance, HOSTS)) {
            match choice(&mut chance, 3) {
                0 => {
                    hosts[at].crash();
                    hosts[at].restart();
                    nodes[at] = start(&hosts[at]).await;
                }
                1 => hosts[at].sleep(ROUND * choice(&mut chance, 4) as u32 / 2),
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
    hosts.iter().for_each(Host::wake);
    join_all(nodes.iter().map(|(node, _)| node.close())).await;
    drop(nodes);
    sleep(Duration::from_secs(120)).await;
    println!("{:?}, at most {most} connections, {} events", internet.now(), internet.trace().count());
    assert!(most > 4 * HOSTS && internet.now() > ROUND * ROUNDS as u32);
    assert_eq!((internet.connections(), tasks()), (0, before));
}
