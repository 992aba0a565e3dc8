//! Makes the checks and tells what it found.

use std::{
    io::{self, Read as _},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use peerloom_core::{
    Multiaddr, ProtocolName, Stream as _, StreamError, StreamExt as _, multistream_select::NegotiatedStream,
    runtime::timeout,
};
use peerloom_node::{ConnectionInfo, Events, Node, NodeEvent, OpenStreamError, ping};
use serde_json::{Map, Value, json};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, split};

use crate::{
    ECHO, RESET,
    node::{self, Path},
};

const CHECKS: [&str; 8] =
    ["identify", "ping", "echo", "half-close", "reset", "remote reset", "still alive", "over limit"];
const CHECK: Duration = Duration::from_secs(20);
/// More than any relay counts as within its limit.
const OVER_LIMIT_BYTES: usize = 4 * 1024 * 1024;

pub(crate) async fn run(address: Multiaddr, without: &[&str]) -> Result<()> {
    let node = node::start(Path::of(&address))?;
    let mut events = node.events();
    let mut checks = Map::new();
    match within_deadline(async { Ok(node.dial(address).await?) }).await {
        Ok(connection) => {
            checks.insert("connect".to_owned(), connected(&connection));
            examine(&node, &connection, &mut events, without, &mut checks).await;
        }
        Err(error) => _ = checks.insert("connect".to_owned(), json!({ "error": format!("{error:#}") })),
    }
    println!("{}", json!({ "peer": node.peer_id().to_string(), "checks": checks }));
    // The listener may not have asked yet who dials it; whoever started us says when all is done.
    tokio::task::spawn_blocking(|| io::stdin().read(&mut [0; 1])).await??;
    node.close().await;
    Ok(())
}

fn connected(connection: &ConnectionInfo) -> Value {
    let limits = connection.circuit.as_ref().filter(|circuit| circuit.is_limited());
    let limits = limits.map(|circuit| {
        json!({ "bytes": circuit.bytes_left(), "seconds": circuit.time_left().map(|left| left.as_secs()) })
    });
    json!({ "remote": connection.peer.to_string(), "direct": connection.is_direct(), "limits": limits })
}

async fn examine(
    node: &Node,
    connection: &ConnectionInfo,
    events: &mut Events,
    without: &[&str],
    checks: &mut Map<String, Value>,
) {
    // The last of them ends a connection that has a limit, and no other.
    let possible = |name: &&str| *name != "over limit" || connection.is_limited();
    for name in CHECKS.into_iter().filter(|name| !without.contains(name)).filter(possible) {
        let check = async {
            match name {
                "identify" => identify(node, connection, events).await,
                "echo" => echo(node, connection).await,
                "half-close" => half_close(node, connection).await,
                "reset" => reset(node, connection).await,
                "remote reset" => remote_reset(node, connection).await,
                "over limit" => over_limit(node, connection, events).await,
                _ => ping(node, connection).await,
            }
        };
        let outcome = within_deadline(check).await;
        let value = outcome.unwrap_or_else(|error| json!({ "error": format!("{error:#}") }));
        checks.insert(name.to_owned(), value);
    }
}

/// A node asks by itself whom it is connected to.
async fn identify(node: &Node, connection: &ConnectionInfo, events: &mut Events) -> Result<Value> {
    let peer = connection.peer;
    let details = loop {
        let details = node.peer_store().details(peer).unwrap_or_default();
        if !details.protocols.is_empty() {
            break details;
        }
        match events.next().await.context("the node has ended")? {
            NodeEvent::ConnectionClosed { connection, reason, .. } if connection.peer == peer => {
                bail!("{reason}")
            }
            _ => {}
        }
    };
    let protocols: Vec<&str> = details.protocols.iter().map(ProtocolName::as_str).collect();
    let addresses: Vec<_> = node.peer_store().addresses(peer).iter().map(ToString::to_string).collect();
    let observed = details.observed_address.map(|address| address.to_string());
    Ok(json!({ "protocols": protocols, "addresses": addresses, "observed": observed }))
}

async fn ping(node: &Node, connection: &ConnectionInfo) -> Result<Value> {
    Ok(json!({ "ms": ping::ping(node, connection).await?.as_secs_f64() * 1e3 }))
}

async fn echo(node: &Node, connection: &ConnectionInfo) -> Result<Value> {
    let (mut reader, mut writer) = split(open(node, connection, ECHO).await?.into_io());
    // With the handshakes and what comes back, within the limit of relays that count both directions together.
    let sent = pattern(if connection.is_limited() { 128 * 1024 } else { 1024 * 1024 });
    let mut received = vec![0; sent.len()];
    let writing = async {
        writer.write_all(&sent).await?;
        writer.flush().await
    };
    tokio::try_join!(writing, reader.read_exact(&mut received))?;
    writer.shutdown().await?;
    Ok(json!({ "equal": sent == received, "end": ending(&mut reader).await? }))
}

async fn half_close(node: &Node, connection: &ConnectionInfo) -> Result<Value> {
    let mut stream = open(node, connection, ECHO).await?.into_io();
    let sent = pattern(if connection.is_limited() { 32 * 1024 } else { 64 * 1024 });
    stream.write_all(&sent).await?;
    stream.shutdown().await?;
    let mut received = vec![0; sent.len()];
    stream.read_exact(&mut received).await?;
    Ok(json!({ "equal": sent == received, "end": ending(&mut stream).await? }))
}

async fn reset(node: &Node, connection: &ConnectionInfo) -> Result<Value> {
    let mut stream = open(node, connection, ECHO).await?;
    stream.write_all(Bytes::from(pattern(1))).await?;
    stream.read_chunk().await?.context("the stream ended early")?;
    stream.reset(0);
    Ok(json!({}))
}

async fn remote_reset(node: &Node, connection: &ConnectionInfo) -> Result<Value> {
    let opened = node.open_stream(connection, &[ProtocolName::from_static(RESET)]).await;
    if matches!(opened, Err(OpenStreamError::Limited { .. })) {
        return Ok(json!({ "end": "limited" }));
    }
    let mut stream = opened?;
    let exchange = async {
        stream.write_all(Bytes::from(pattern(1))).await?;
        // The reset may come as early as here.
        stream.flush().await?;
        stream.read_chunk().await
    };
    // With lazy negotiation, that the listener does not support the protocol shows on reading.
    let end = match exchange.await {
        Ok(None) => "closed".to_owned(),
        Ok(Some(chunk)) => format!("{} more bytes", chunk.len()),
        Err(StreamError::Reset { .. }) => "reset".to_owned(),
        Err(StreamError::ProtocolNotSupported) => "unsupported".to_owned(),
        Err(error) => return Err(error.into()),
    };
    Ok(json!({ "end": end }))
}

/// Sends until the relay has had enough, and tells how that shows.
async fn over_limit(node: &Node, connection: &ConnectionInfo, events: &mut Events) -> Result<Value> {
    let (mut reader, mut writer) = split(open(node, connection, ECHO).await?.into_io());
    let sent = pattern(OVER_LIMIT_BYTES);
    let mut received = vec![0; sent.len()];
    let writing = async {
        writer.write_all(&sent).await?;
        writer.flush().await
    };
    if tokio::try_join!(writing, reader.read_exact(&mut received)).is_ok() {
        return Ok(json!({ "ended": null }));
    }
    loop {
        match events.next().await.context("the node has ended")? {
            NodeEvent::ConnectionClosed { connection: closed, reason, .. } if closed.id == connection.id => {
                return Ok(json!({ "ended": reason.to_string() }));
            }
            _ => {}
        }
    }
}

async fn open(node: &Node, connection: &ConnectionInfo, protocol: &'static str) -> Result<NegotiatedStream> {
    Ok(node.open_stream_on_limited(connection, &[ProtocolName::from_static(protocol)]).await?)
}

/// `closed`, `reset`, or how many bytes came instead.
async fn ending(reader: &mut (impl AsyncRead + Unpin)) -> Result<String> {
    match reader.read(&mut [0; 1]).await {
        Ok(0) => Ok("closed".to_owned()),
        Ok(bytes) => Ok(format!("{bytes} more bytes")),
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok("reset".to_owned()),
        Err(error) => Err(error.into()),
    }
}

async fn within_deadline<T>(check: impl Future<Output = Result<T>>) -> Result<T> {
    match timeout(CHECK, check).await {
        Ok(outcome) => outcome,
        Err(_) => bail!("no result after {} s", CHECK.as_secs()),
    }
}

/// Bytes of which no two stretches are alike, so that a lost, doubled or swapped chunk shows.
fn pattern(length: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_u32;
    let next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let [first, ..] = state.to_be_bytes();
        first
    };
    std::iter::repeat_with(next).take(length).collect()
}
