//! The listener behind a relay: answers, and reports what it sees.

use std::{
    collections::HashSet,
    io::{self, Read as _},
};

use anyhow::{Context as _, Result};
use peerloom_core::{
    Multiaddr, Protocol, ProtocolName, Stream as _, StreamExt as _, multistream_select::NegotiatedStream,
    runtime::spawn,
};
use peerloom_node::{IncomingStream, Node, NodeEvent};
use serde_json::{Value, json};

use crate::{
    ECHO, RESET,
    node::{self, Path},
};

pub(crate) async fn run(relay: Multiaddr, path: Path) -> Result<()> {
    let node = node::start(path)?;
    node.handle_on_limited(ProtocolName::from_static(ECHO), echo)?;
    node.handle(ProtocolName::from_static(RESET), reset)?;
    let events = spawn(report_peers(node.clone()));
    let mut addresses = node.listen(relay.with(Protocol::P2pCircuit)).await?;
    if path == Path::WebRtc {
        addresses.extend(node.listen("/webrtc".parse()?).await?);
    }
    let addresses: Vec<_> = addresses.iter().map(ToString::to_string).collect();
    report(&json!({ "event": "listening", "peer": node.peer_id().to_string(), "addresses": addresses }));
    // Nobody is left behind when the runner goes away.
    tokio::task::spawn_blocking(|| io::stdin().read(&mut [0; 1])).await??;
    drop(events);
    node.close().await;
    Ok(())
}

async fn report_peers(node: Node) {
    let mut events = node.events();
    let mut reported = HashSet::new();
    while let Some(event) = events.next().await {
        let NodeEvent::PeerUpdated { peer } = event else { continue };
        let details = node.peer_store().details(peer).unwrap_or_default();
        if !details.protocols.is_empty() && reported.insert(peer) {
            let protocols: Vec<&str> = details.protocols.iter().map(ProtocolName::as_str).collect();
            report(&json!({ "event": "identified", "peer": peer.to_string(), "protocols": protocols }));
        }
    }
}

async fn echo(incoming: IncomingStream) {
    let mut bytes = 0;
    let outcome = echo_all(incoming.stream, &mut bytes).await;
    let end = if outcome.is_ok() { "closed" } else { "reset" };
    let peer = incoming.connection.peer.to_string();
    report(&json!({ "event": "echo", "peer": peer, "bytes": bytes, "end": end }));
}

async fn echo_all(mut stream: NegotiatedStream, bytes: &mut usize) -> Result<()> {
    while let Some(chunk) = stream.read_chunk().await? {
        *bytes += chunk.len();
        stream.write_all(chunk).await?;
        stream.flush().await?;
    }
    stream.close_write().await.context("the other half cannot be closed")
}

async fn reset(mut incoming: IncomingStream) {
    let _ = incoming.stream.read_chunk().await;
    incoming.stream.reset(0);
}

fn report(line: &Value) {
    println!("{line}");
}
