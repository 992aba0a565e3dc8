//! Talks with others of its kind, and with the pages of a room of the demo (`cargo xtask demo`): it speaks their protocol.
//!
//! ```console
//! $ cargo run -p peerloom --example chat                      # listens, and prints its addresses
//! $ cargo run -p peerloom --example chat -- ADDRESS           # talks with whoever listens there
//! $ cargo run -p peerloom --example chat -- 'http://…/room.html#/ip4/…'              # joins a room of pages by its link
//! $ cargo run -p peerloom --example chat -- /ip4/192.0.2.7/…/p2p/RELAY/p2p-circuit   # is reached through that relay
//! ```
//!
//! An address that names a peer is dialed, any other is listened on. Every line typed goes to everyone who is connected.

use std::{collections::BTreeSet, io::BufRead as _, time::Duration};

use anyhow::{Context as _, Result, ensure};
use peerloom::{
    IncomingStream, Multiaddr, Node, NodeEvent, PeerId, ProtocolName, StreamExt as _, runtime::timeout,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    sync::mpsc,
};

/// One stream for each message, which is UTF-8 up to the end of the stream. Who has read it closes its half: so the sender
/// knows.
const CHAT: ProtocolName = ProtocolName::from_static("/peerloom-room/chat/1.0.0");
/// Of one message, in bytes.
const LONGEST: u64 = 16 * 1024;
/// For one message on its way.
const PATIENCE: Duration = Duration::from_secs(20);

#[tokio::main]
async fn main() -> Result<()> {
    // Pages show what stands in the brackets.
    let node = peerloom::builder().agent_version("peerloom-room (Rust)").start().await?;
    // Messages are short: they may come through a relay.
    node.handle_on_limited(CHAT, async |incoming| {
        let peer = incoming.connection.peer;
        match timeout(PATIENCE, receive(incoming)).await {
            Ok(Ok(text)) => println!("{}: {text}", name(peer)),
            Ok(Err(error)) => eprintln!("a message of {} did not arrive: {error}", name(peer)),
            Err(_) => eprintln!("a message of {} did not arrive in time", name(peer)),
        }
    })?;
    let mut events = node.events();

    let argument = std::env::args().nth(1);
    // The link to a room has the address behind its #.
    let address = argument.as_deref().map(|text| text.rsplit_once('#').map_or(text, |(_, address)| address));
    let address: Option<Multiaddr> = address.map(str::parse).transpose().context("not an address")?;
    match address {
        Some(address) if address.peer_id().is_some() => _ = node.dial(address).await?,
        Some(address) => listen(&node, address).await?,
        None => {
            for host in ["/ip4/0.0.0.0", "/ip6/::"] {
                listen(&node, format!("{host}/udp/0/quic-v1").parse()?).await?;
            }
        }
    }

    let mut lines = lines();
    loop {
        tokio::select! {
            line = lines.recv() => match line {
                Some(line) => say_to_all(&node, line.trim()).await,
                None => break,
            },
            event = events.next() => match event {
                Some(NodeEvent::ConnectionEstablished { connection, first: true }) => {
                    eprintln!("* {} has come", name(connection.peer));
                }
                Some(NodeEvent::ConnectionUpgraded { direct, .. }) => {
                    eprintln!("* {} is connected directly now", name(direct.peer));
                }
                Some(NodeEvent::ConnectionClosed { connection, last: true, .. }) => {
                    eprintln!("* {} has gone", name(connection.peer));
                }
                Some(_) => {}
                None => break,
            },
            interrupted = tokio::signal::ctrl_c() => {
                interrupted?;
                break;
            }
        }
    }
    node.close().await;
    Ok(())
}

async fn listen(node: &Node, address: Multiaddr) -> Result<()> {
    let is_relay = address.is_relayed();
    let mut reachable = node.listen(address).await?;
    if is_relay {
        // Pages come through the relay, and then directly.
        reachable = node.listen("/webrtc".parse()?).await?;
    }
    for address in reachable {
        println!("{address}");
    }
    Ok(())
}

async fn receive(incoming: IncomingStream) -> Result<String> {
    let mut stream = incoming.stream.into_io();
    let mut message = Vec::new();
    (&mut stream).take(LONGEST + 1).read_to_end(&mut message).await?;
    ensure!(message.len() as u64 <= LONGEST, "it is too long");
    stream.shutdown().await?;
    Ok(String::from_utf8_lossy(&message).into_owned())
}

async fn say_to_all(node: &Node, text: &str) {
    let peers: BTreeSet<PeerId> = node.connections().into_iter().map(|connection| connection.peer).collect();
    for peer in peers {
        // What is known of a peer that does not chat is that it handles other protocols: a relay, for example.
        let details = node.peer_store().details(peer).unwrap_or_default();
        if !details.protocols.is_empty() && !details.protocols.contains(&CHAT) {
            continue;
        }
        match timeout(PATIENCE, say(node, peer, text)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => eprintln!("not delivered to {}: {error}", name(peer)),
            Err(_) => eprintln!("not delivered to {} in time", name(peer)),
        }
    }
}

async fn say(node: &Node, peer: PeerId, text: &str) -> Result<()> {
    let mut stream = node.open_stream_on_limited(peer, &[CHAT]).await?.into_io();
    stream.write_all(text.as_bytes()).await?;
    stream.shutdown().await?;
    ensure!(stream.read(&mut [0; 1]).await? == 0, "something came instead of the end");
    Ok(())
}

/// As short as one can still tell peers apart.
fn name(peer: PeerId) -> String {
    let text = peer.to_string();
    format!("…{}", text.get(text.len().saturating_sub(4)..).unwrap_or(&text))
}

/// What is typed. A thread of its own reads it, because one that waits for a key cannot be interrupted.
fn lines() -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel(16);
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if !line.trim().is_empty() && sender.blocking_send(line).is_err() {
                break;
            }
        }
    });
    receiver
}
