//! The listener: answers, and reports what it sees.

use anyhow::{Context as _, Result};
use futures::{AsyncReadExt as _, AsyncWriteExt as _, StreamExt as _};
use libp2p::swarm::SwarmEvent;
use libp2p::{Multiaddr, Stream, identify};
use serde_json::{Value, json};
use tokio::io::AsyncReadExt as _;

use crate::swarm::{self, BehaviourEvent, Relaying};
use crate::{ECHO, RESET};

pub(crate) async fn run(address: Multiaddr, relaying: Relaying) -> Result<()> {
    let mut swarm = swarm::new(relaying)?;
    let mut control = swarm.behaviour().stream.new_control();
    let mut echoes = control.accept(ECHO).context("echo is free")?;
    let mut resets = control.accept(RESET).context("reset is free")?;
    tokio::spawn(async move {
        while let Some((peer, stream)) = echoes.next().await {
            tokio::spawn(async move {
                let (bytes, end) = echo(stream).await;
                report(&json!({ "event": "echo", "peer": peer.to_string(), "bytes": bytes, "end": end }));
            });
        }
    });
    tokio::spawn(async move {
        while let Some((_, stream)) = resets.next().await {
            tokio::spawn(reset(stream));
        }
    });

    swarm.listen_on(address)?;
    let peer = *swarm.local_peer_id();
    let mut stdin = tokio::io::stdin();
    let mut nothing = [0; 1];
    loop {
        tokio::select! {
            // Nobody is left behind when the runner goes away.
            _ = stdin.read(&mut nothing) => return Ok(()),
            event = swarm.select_next_some() => match event {
                SwarmEvent::NewListenAddr { address, .. } => {
                    // A relay tells others only what it is sure of.
                    swarm.add_external_address(address.clone());
                    let address = address.with_p2p(peer).unwrap_or_else(|address| address);
                    let peer = peer.to_string();
                    report(&json!({ "event": "listening", "peer": peer, "addresses": [address] }));
                }
                SwarmEvent::Behaviour(BehaviourEvent::Identify(identify::Event::Received { peer_id, info, .. })) => {
                    let protocols: Vec<_> = info.protocols.iter().map(AsRef::as_ref).collect::<Vec<&str>>();
                    let peer = peer_id.to_string();
                    report(&json!({ "event": "identified", "peer": peer, "protocols": protocols }));
                }
                _ => {}
            },
        }
    }
}

/// How many bytes came, and how it ended.
async fn echo(mut stream: Stream) -> (usize, &'static str) {
    let mut bytes = 0;
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let received = match stream.read(&mut buffer).await {
            Ok(0) => return (bytes, if stream.close().await.is_ok() { "closed" } else { "reset" }),
            Ok(received) => received,
            Err(_) => return (bytes, "reset"),
        };
        bytes += received;
        let echoed = async {
            stream.write_all(&buffer[..received]).await?;
            stream.flush().await
        };
        if echoed.await.is_err() {
            return (bytes, "reset");
        }
    }
}

async fn reset(mut stream: Stream) {
    let _ = stream.read(&mut [0; 1]).await;
    // Dropping a stream that is not closed resets it.
    drop(stream);
}

fn report(line: &Value) {
    println!("{line}");
}
