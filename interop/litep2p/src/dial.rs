//! The dialer: makes the checks and tells what it found.

use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use futures::{Stream, StreamExt as _};
use interop_contract::pattern;
use litep2p::protocol::libp2p::identify::IdentifyEvent;
use litep2p::protocol::libp2p::ping::PingEvent;
use litep2p::substream::Substream;
use litep2p::{Litep2p, Litep2pEvent, PeerId};
use serde_json::{Map, Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, split};
use tokio::time::timeout;

use crate::node::Node;
use crate::streams::Streams;

const CHECKS: [&str; 7] = ["identify", "ping", "echo", "half-close", "reset", "remote reset", "still alive"];
const CHECK: Duration = Duration::from_secs(20);

pub(crate) async fn run(address: &str, without: &[&str]) -> Result<()> {
    let mut node = Node::start(None)?;
    let peer = node.litep2p.local_peer_id().to_string();
    let mut checks = Map::new();
    match timeout(CHECK, connect(&mut node.litep2p, address)).await.unwrap_or_else(|_| Err(late())) {
        Ok(remote) => {
            checks.insert("connect".to_owned(), json!({ "remote": remote.to_string(), "direct": true }));
            let Node { mut litep2p, mut identities, mut pings, echo: echoes, reset: resets } = node;
            tokio::spawn(async move { while litep2p.next_event().await.is_some() {} });
            for name in CHECKS.into_iter().filter(|name| !without.contains(name)) {
                let check = async {
                    match name {
                        "identify" => identify(&mut identities).await,
                        "echo" => echo(&echoes, remote).await,
                        "half-close" => half_close(&echoes, remote).await,
                        "reset" => reset(&echoes, remote).await,
                        "remote reset" => remote_reset(&resets, remote).await,
                        _ => ping(&mut pings).await,
                    }
                };
                let outcome = timeout(CHECK, check).await.unwrap_or_else(|_| Err(late()));
                let value = outcome.unwrap_or_else(|error| json!({ "error": format!("{error:#}") }));
                checks.insert(name.to_owned(), value);
            }
        }
        Err(error) => _ = checks.insert("connect".to_owned(), json!({ "error": format!("{error:#}") })),
    }
    println!("{}", json!({ "peer": peer, "checks": checks }));
    // The listener may not have asked yet who dials it; whoever started us says when all is done.
    tokio::io::stdin().read(&mut [0; 1]).await?;
    Ok(())
}

async fn connect(litep2p: &mut Litep2p, address: &str) -> Result<PeerId> {
    litep2p.dial_address(address.parse()?).await?;
    match litep2p.next_event().await.context("litep2p has ended")? {
        Litep2pEvent::ConnectionEstablished { peer, .. } => Ok(peer),
        other => bail!("{other:?}"),
    }
}

async fn identify(identities: &mut (impl Stream<Item = IdentifyEvent> + Unpin)) -> Result<Value> {
    let IdentifyEvent::PeerIdentified { supported_protocols, observed_address, listen_addresses, .. } =
        identities.next().await.context("litep2p has ended")?;
    let protocols: Vec<_> = supported_protocols.iter().map(ToString::to_string).collect();
    let addresses: Vec<_> = listen_addresses.iter().map(ToString::to_string).collect();
    let observed = observed_address.to_string();
    Ok(json!({ "protocols": protocols, "addresses": addresses, "observed": observed }))
}

/// The next round trip that litep2p measures; it does so every second.
async fn ping(pings: &mut (impl Stream<Item = PingEvent> + Unpin)) -> Result<Value> {
    let PingEvent::Ping { ping, .. } = pings.next().await.context("litep2p has ended")?;
    Ok(json!({ "ms": ping.as_secs_f64() * 1e3 }))
}

async fn echo(echoes: &Streams, remote: PeerId) -> Result<Value> {
    let (mut reader, mut writer) = split(echoes.open(remote).await?);
    let sent = pattern(1024 * 1024);
    let mut received = vec![0; sent.len()];
    let writing = async {
        writer.write_all(&sent).await?;
        writer.flush().await
    };
    tokio::try_join!(writing, reader.read_exact(&mut received))?;
    writer.shutdown().await?;
    Ok(json!({ "equal": sent == received, "end": ending(&mut reader.unsplit(writer)).await }))
}

async fn half_close(echoes: &Streams, remote: PeerId) -> Result<Value> {
    let mut stream = echoes.open(remote).await?;
    let sent = pattern(64 * 1024);
    stream.write_all(&sent).await?;
    stream.shutdown().await?;
    let mut received = vec![0; sent.len()];
    stream.read_exact(&mut received).await?;
    Ok(json!({ "equal": sent == received, "end": ending(&mut stream).await }))
}

async fn reset(echoes: &Streams, remote: PeerId) -> Result<Value> {
    let mut stream = echoes.open(remote).await?;
    stream.write_all(&pattern(1)).await?;
    stream.flush().await?;
    stream.read_exact(&mut [0; 1]).await?;
    // Dropping a stream that is not closed resets it.
    drop(stream);
    Ok(json!({}))
}

async fn remote_reset(resets: &Streams, remote: PeerId) -> Result<Value> {
    let mut stream = match resets.open(remote).await {
        Ok(stream) => stream,
        // Whatever else may be wrong, the next check shows.
        Err(_) => return Ok(json!({ "end": "unsupported" })),
    };
    let writing = async {
        stream.write_all(&pattern(1)).await?;
        stream.flush().await
    };
    // The reset may come as early as here.
    let end = if writing.await.is_err() { "reset".to_owned() } else { ending(&mut stream).await };
    Ok(json!({ "end": end }))
}

/// `closed`, `reset`, or how many bytes came instead.
async fn ending(stream: &mut Substream) -> String {
    match stream.read(&mut [0; 1]).await {
        Ok(0) => "closed".to_owned(),
        Ok(bytes) => format!("{bytes} more bytes"),
        Err(_) => "reset".to_owned(),
    }
}

fn late() -> anyhow::Error {
    anyhow!("no result after {} s", CHECK.as_secs())
}
