//! Peers that stop reading: whoever writes to them waits, and nothing piles up.

use std::{
    process::{Child, Command, Stdio},
    time::Duration,
};

use bytes::Bytes;
use peerloom_core::{
    StreamExt as _,
    runtime::{spawn, timeout},
};

use crate::{
    common::PEERLOOM,
    honest::{ECHO, Regulars, assert_open_to_newcomers, dial, node},
    usage::Victim,
};

/// Streams of each connection that are not read.
const STREAMS: usize = 8;
/// How much one writer must never get rid of: far more than all windows together.
const ENDLESS: usize = 256 << 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_that_are_not_read_hold_up_their_writers_and_nobody_else() {
    let mut victim = Victim::start("unread streams");
    let addresses = victim.addresses();
    let regulars = Regulars::connect(&addresses).await;
    victim.settle();
    let client = node();
    let mut writers = Vec::new();
    for address in &addresses {
        let connection = dial(&client, address).await;
        for _ in 0..STREAMS {
            let mut stream = client.open_stream(&connection, &[ECHO]).await.unwrap();
            // What the echo sends back is never read, so that it stops reading, so that we cannot write.
            writers.push(tokio::spawn(async move {
                let chunk = Bytes::from(vec![0; 64 * 1024]);
                let mut written = 0;
                while written < ENDLESS {
                    match timeout(Duration::from_secs(2), stream.write_all(chunk.clone())).await {
                        Ok(Ok(())) => written += chunk.len(),
                        _ => break,
                    }
                }
                (written, stream)
            }));
        }
    }
    let mut held = Vec::new();
    for (number, writer) in writers.into_iter().enumerate() {
        let (written, stream) = writer.await.unwrap();
        assert!(written < ENDLESS, "{}: nothing holds up the writer", addresses[number / STREAMS]);
        held.push((written, stream));
    }
    for (address, held) in addresses.iter().zip(held.chunks(STREAMS)) {
        let total: usize = held.iter().map(|(written, _)| written).sum();
        let transport = address.split("/p2p/").next().unwrap().split("/certhash").next().unwrap();
        println!("  {transport}: held up after {:.1} MiB", total as f64 / f64::from(1 << 20));
    }
    victim.assert_holds("during", 128, 4);
    let during = victim.usage();
    assert_open_to_newcomers(&addresses).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    victim.assert_holds("during, later", 128, 4);
    assert!(victim.usage().memory < during.memory + 8 * 1024, "it grows");
    regulars.assert_served().await;
    drop(held);
    client.close().await;
    victim.assert_recovers(Duration::from_secs(10)).await;
    regulars.assert_served().await;
}

/// A process that can be stopped in the middle of what it does, its sockets open and nobody at home.
struct Frozen(Child);

impl Frozen {
    fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([name, &self.0.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_that_freeze_in_mid_transfer_hold_up_their_writers_and_nobody_else() {
    let mut victim = Victim::start("frozen processes");
    let addresses = victim.addresses();
    let regulars = Regulars::connect(&addresses).await;
    victim.settle();
    let mut frozen = Vec::new();
    for address in &addresses {
        let download = Command::new(PEERLOOM)
            .args(["perf", address, "--download", "100000", "--upload", "0", "--json"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let process = Frozen(download.unwrap());
        tokio::time::sleep(Duration::from_millis(500)).await;
        process.signal("-STOP");
        frozen.push(process);
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    victim.assert_holds("during", 128, 16);
    let during = victim.usage();
    assert_open_to_newcomers(&addresses).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    victim.assert_holds("during, later", 128, 16);
    assert!(victim.usage().memory < during.memory + 8 * 1024, "it grows");
    regulars.assert_served().await;
    // They did freeze in the middle, and are there until they are killed.
    for process in &mut frozen {
        assert!(process.0.try_wait().unwrap().is_none(), "a download was over before it was stopped");
    }
    let gone = spawn(async move { drop(frozen) });
    victim.assert_recovers(Duration::from_secs(10)).await;
    drop(gone);
    regulars.assert_served().await;
}
