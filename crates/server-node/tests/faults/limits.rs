//! Who wants more than a share of the server: what one address, one peer or one protocol gets is bounded, and the server says
//! on its status port by what.

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use peerloom_core::{
    Keypair, Multiaddr, StreamExt as _,
    runtime::{Task, spawn, timeout},
};
use peerloom_upgrade::Upgrader;
use tokio::net::TcpSocket;

use crate::{
    honest::{ECHO, Regulars, assert_open_to_newcomers, dial, node},
    usage::{Victim, alone, sockets},
};

const DIALERS: usize = 10_000;
const ATTACKER: [u8; 4] = [127, 0, 2, 9];
const CONNECTIONS: usize = 64;
const STREAMS: usize = 128;
/// Dialers of TCP that have not said anything yet, of two listeners, and a few.
const NEWCOMERS: usize = 2 * 256 + 32;

/// Loopback is not limited by itself, for who is on the machine needs no connections to harm it.
fn limits() -> String {
    format!(
        "[limits]\npeer.inbound_streams = {STREAMS}\n\
         networks.\"127.0.2.0/24\" = {{ connections = {CONNECTIONS}, handshakes = 16 }}\n"
    )
}

/// Connections from one address, each as another peer. Who is refused or cut off comes back.
fn dialers(port: u16, peer: &str, count: usize) -> Vec<Task> {
    let address: Multiaddr = format!("/ip4/127.0.0.1/tcp/{port}/p2p/{peer}").parse().unwrap();
    let dialer = |_| {
        let address = address.clone();
        spawn(async move {
            loop {
                let connect = || async {
                    let socket = TcpSocket::new_v4()?;
                    socket.bind(SocketAddr::from((ATTACKER, 0)))?;
                    socket.connect(([127, 0, 0, 1], port).into()).await
                };
                if let Ok(connection) =
                    Upgrader::new(Keypair::generate()).dial(address.clone(), connect).await
                {
                    connection.closed().await;
                }
                // Two thousand dials a second: more would be a test of the machine.
                tokio::time::sleep(Duration::from_secs(5)).await;
            }
        })
    };
    (0..count).map(dialer).collect()
}

/// A figure of the status port.
fn metric(victim: &Victim, line: &str) -> usize {
    let metrics = victim.server.status_page("/metrics");
    let found = metrics.lines().find_map(|other| other.strip_prefix(line));
    found.unwrap_or_else(|| panic!("no {line} in {metrics}")).trim().parse().unwrap()
}

fn print_metrics(victim: &Victim, lines: &[&str]) {
    for line in lines {
        println!("  {line} {}", metric(victim, line));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_address_that_connects_ten_thousand_times_gets_its_share_and_no_more() {
    const HELD: &str = "peerloom_resource_held{scope=\"network\",resource=\"connections\"}";
    const REFUSED: &str = "peerloom_resource_refused_total{scope=\"network\",resource=\"connections\"}";
    const MEMORY: &str = "peerloom_resource_held{scope=\"system\",resource=\"memory\"}";
    const DESCRIPTORS: &str = "peerloom_resource_held{scope=\"system\",resource=\"descriptors\"}";
    let _alone = alone().await;
    let mut victim = Victim::start_with("one address, 10,000 connections", &limits());
    let addresses = victim.addresses();
    let regulars = Regulars::connect(&addresses).await;
    victim.settle();
    let attack = dialers(victim.port, &victim.server.peer, sockets(DIALERS));
    tokio::time::sleep(Duration::from_secs(3)).await;
    for when in ["during", "during, later"] {
        victim.assert_holds(when, 64, CONNECTIONS + NEWCOMERS);
        print_metrics(&victim, &[HELD, REFUSED, MEMORY, DESCRIPTORS]);
        assert_open_to_newcomers(&addresses).await;
        regulars.assert_served().await;
    }
    assert!(metric(&victim, REFUSED) > 0);
    // The regulars are five of them, and newcomers have gone.
    assert!(metric(&victim, HELD) <= CONNECTIONS + 5 + 5);
    drop(attack);
    victim.assert_recovers(Duration::from_secs(30)).await;
    print_metrics(&victim, &[HELD, MEMORY, DESCRIPTORS]);
    regulars.assert_served().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_peer_that_opens_streams_without_end_gets_its_share_and_no_more() {
    const HELD: &str = "peerloom_resource_held{scope=\"peer\",resource=\"inbound_streams\"}";
    const LIMIT: &str = "peerloom_resource_limit{scope=\"peer\",resource=\"inbound_streams\"}";
    const REFUSED: &str = "peerloom_resource_refused_total{scope=\"peer\",resource=\"inbound_streams\"}";
    let mut victim = Victim::start_with("streams without end", &limits());
    let addresses = victim.addresses();
    let regulars = Regulars::connect(&addresses).await;
    victim.settle();
    let client = node();
    let mut kept = Vec::new();
    let mut refused = 0;
    for address in &addresses {
        let connection = dial(&client, address).await;
        for _ in 0..STREAMS {
            let asking = async {
                let mut stream = client.open_stream(&connection, &[ECHO]).await.ok()?;
                stream.write_all(Bytes::from_static(b"?")).await.ok()?;
                stream.read_chunk().await.ok()??;
                Some(stream)
            };
            match timeout(Duration::from_secs(10), asking).await {
                Ok(Some(stream)) => kept.push(stream),
                _ => refused += 1,
            }
        }
    }
    println!("  {} streams were had, {refused} refused", kept.len());
    victim.assert_holds("during", 64, 8);
    print_metrics(&victim, &[HELD, LIMIT, REFUSED]);
    assert!(kept.len() <= STREAMS && refused > 0);
    assert!(metric(&victim, HELD) <= STREAMS && metric(&victim, REFUSED) >= refused);
    assert_open_to_newcomers(&addresses).await;
    regulars.assert_served().await;
    drop(kept);
    client.close().await;
    victim.assert_recovers(Duration::from_secs(10)).await;
    regulars.assert_served().await;
}
