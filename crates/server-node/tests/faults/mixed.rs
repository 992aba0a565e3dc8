//! No fault at all: many honest clients of every kind at once.

use std::time::Duration;

use bytes::Bytes;
use peerloom_core::{StreamExt as _, runtime::timeout};

use crate::{
    honest::{ECHO, dial, node},
    usage::Victim,
};

/// Of each kind.
const CLIENTS: usize = 8;
const LENGTH: u32 = 1 << 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mixed_load_on_one_port_loses_nothing() {
    let mut victim = Victim::start("mixed load");
    let addresses = victim.addresses();
    victim.settle();
    let data = Bytes::from((0..LENGTH).map(|n| (n ^ (n >> 8) ^ (n >> 16)) as u8).collect::<Vec<_>>());
    let mut clients = Vec::new();
    for number in 0..CLIENTS {
        for address in &addresses {
            let (address, data) = (address.clone(), data.slice(number * 1000..));
            clients.push(tokio::spawn(async move {
                let node = node();
                let connection = dial(&node, &address).await;
                let stream = node.open_stream(&connection, &[ECHO]).await.unwrap();
                let (mut read, mut write) = tokio::io::split(stream.into_io());
                let sent = data.clone();
                let sending = async {
                    tokio::io::AsyncWriteExt::write_all(&mut write, &sent).await.unwrap();
                    tokio::io::AsyncWriteExt::shutdown(&mut write).await.unwrap();
                };
                let mut back = Vec::new();
                let receiving = tokio::io::AsyncReadExt::read_to_end(&mut read, &mut back);
                let ((), received) = tokio::join!(sending, receiving);
                received.unwrap_or_else(|error| panic!("{address}: {error}"));
                assert!(back == data, "{address}: {} of {} bytes came back", back.len(), data.len());
                node.close().await;
            }));
        }
    }
    let all = async {
        for client in clients {
            client.await.unwrap();
        }
    };
    timeout(Duration::from_secs(60), all).await.expect("not done in a minute");
    victim.assert_recovers(Duration::from_secs(10)).await;
}
