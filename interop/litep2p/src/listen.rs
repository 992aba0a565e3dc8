//! The listener: answers, and reports what it sees.

use anyhow::Result;
use futures::StreamExt as _;
use litep2p::protocol::libp2p::identify::IdentifyEvent;
use litep2p::substream::Substream;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::node::Node;

pub(crate) async fn run(address: &str) -> Result<()> {
    let mut node = Node::start(Some(address))?;
    let addresses: Vec<_> = node.litep2p.listen_addresses().map(ToString::to_string).collect();
    let peer = node.litep2p.local_peer_id().to_string();
    report(&json!({ "event": "listening", "peer": peer, "addresses": addresses }));
    let mut stdin = tokio::io::stdin();
    let mut nothing = [0; 1];
    loop {
        tokio::select! {
            // Nobody is left behind when the runner goes away.
            _ = stdin.read(&mut nothing) => return Ok(()),
            _ = node.litep2p.next_event() => {}
            _ = node.pings.next() => {}
            Some(IdentifyEvent::PeerIdentified { peer, supported_protocols, .. }) = node.identities.next() => {
                let protocols: Vec<_> = supported_protocols.iter().map(ToString::to_string).collect();
                report(&json!({ "event": "identified", "peer": peer.to_string(), "protocols": protocols }));
            }
            Some((peer, stream)) = node.echo.inbound.recv() => {
                tokio::spawn(async move {
                    let (bytes, end) = echo(stream).await;
                    report(&json!({ "event": "echo", "peer": peer.to_string(), "bytes": bytes, "end": end }));
                });
            }
            Some((_, mut stream)) = node.reset.inbound.recv() => {
                // Dropping a stream that is not closed resets it.
                tokio::spawn(async move { stream.read(&mut [0; 1]).await });
            }
        }
    }
}

/// How many bytes came, and how it ended.
async fn echo(mut stream: Substream) -> (usize, &'static str) {
    let mut bytes = 0;
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let received = match stream.read(&mut buffer).await {
            Ok(0) => return (bytes, if stream.shutdown().await.is_ok() { "closed" } else { "reset" }),
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

fn report(line: &Value) {
    println!("{line}");
}
