//! How fast one connection moves one stream over loopback TCP, and what that costs. Prints a table; asserts nothing.
//!
//! `cargo bench -p peerloom-upgrade --bench throughput`

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::disallowed_methods)] // Nothing here meets a stranger.

use std::{sync::Arc, time::Instant};

use bytes::Bytes;
use peerloom_core::{Connection, Keypair, StreamExt as _};
use peerloom_upgrade::{upgrade_inbound, upgrade_outbound};
use tokio::net::{TcpListener, TcpStream};

const TOTAL: usize = 2 << 30;
const RUNS: usize = 5;

#[tokio::main(worker_threads = 2)]
async fn main() {
    println!("{:<28} {:>8} {:>14}", "one stream, one direction", "Gbit/s", "CPU s per GB");
    for chunk in [16 * 1024, 64 * 1024, 256 * 1024] {
        let mut results = Vec::new();
        for _ in 0..RUNS {
            results.push(measure(chunk).await);
        }
        results.sort_by(|a, b| a.0.total_cmp(&b.0));
        let (rate, cpu) = results[RUNS / 2];
        println!("writes of {:>4} KiB            {rate:>8.2} {cpu:>14.2}", chunk / 1024);
    }
    let begin = Instant::now();
    const DIALS: u32 = 500;
    for _ in 0..DIALS {
        connect().await;
    }
    println!(
        "handshake over TCP           {:>8.0} µs",
        begin.elapsed().as_micros() as f64 / f64::from(DIALS)
    );
}

async fn connect() -> (Arc<dyn Connection>, Arc<dyn Connection>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let dialer = async { TcpStream::connect(address).await.unwrap() };
    let (ours, theirs) = tokio::join!(dialer, listener.accept());
    let theirs = theirs.unwrap().0;
    ours.set_nodelay(true).unwrap();
    theirs.set_nodelay(true).unwrap();
    let (ours_key, theirs_key) = (Keypair::generate(), Keypair::generate());
    let anywhere = || "/memory/1".parse().unwrap();
    let (ours, theirs) = tokio::join!(
        upgrade_outbound(ours, &ours_key, anywhere()),
        upgrade_inbound(theirs, &theirs_key, anywhere())
    );
    (ours.unwrap().into(), theirs.unwrap().into())
}

/// Gbit/s, and seconds of all CPUs for each 10^9 bytes.
async fn measure(chunk: usize) -> (f64, f64) {
    let (ours, theirs) = connect().await;
    let cpu = cpu_seconds();
    let begin = Instant::now();
    let mut sending = ours.open_stream().await.unwrap();
    let sender = tokio::spawn(async move {
        let data = Bytes::from(vec![7; chunk]);
        for _ in 0..TOTAL / chunk {
            sending.write_all(data.clone()).await.unwrap();
        }
        sending.close_write().await.unwrap();
        sending
    });
    let mut receiving = theirs.accept_stream().await.unwrap();
    let mut received = 0;
    while let Some(chunk) = receiving.read_chunk().await.unwrap() {
        received += chunk.len();
    }
    let elapsed = begin.elapsed().as_secs_f64();
    assert_eq!(received, TOTAL);
    sender.await.unwrap();
    (TOTAL as f64 * 8.0 / elapsed / 1e9, (cpu_seconds() - cpu) / (TOTAL as f64 / 1e9))
}

/// User and system time of this process, from /proc.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<_> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |index: usize| fields.get(index).and_then(|field| field.parse::<f64>().ok()).unwrap_or(0.0);
    (ticks(11) + ticks(12)) / 100.0
}
