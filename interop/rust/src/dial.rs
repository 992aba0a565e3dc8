//! The dialer: makes the checks and tells what it found.

use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use futures::{AsyncReadExt as _, AsyncWriteExt as _, StreamExt as _};
use libp2p::multiaddr::Protocol;
use libp2p::swarm::SwarmEvent;
use libp2p::{Multiaddr, PeerId, Stream, Swarm, identify};
use libp2p_stream::{Control, OpenStreamError};
use serde_json::{Map, Value, json};
use tokio::io::AsyncReadExt as _;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::swarm::{self, Behaviour, BehaviourEvent};
use crate::{ECHO, RESET};

const CHECKS: [&str; 7] = ["identify", "ping", "echo", "half-close", "reset", "remote reset", "still alive"];
const CHECK: Duration = Duration::from_secs(20);
const ECHO_BYTES: usize = 1024 * 1024;
const HALF_CLOSE_BYTES: usize = 64 * 1024;

pub(crate) async fn run(address: Multiaddr, without: &[&str]) -> Result<()> {
    let mut swarm = swarm::new()?;
    let peer = swarm.local_peer_id().to_string();
    let mut checks = Map::new();
    let mut driver = None;
    match timeout(CHECK, connect(&mut swarm, address)).await.unwrap_or_else(|_| Err(late())) {
        Ok(remote) => {
            checks.insert("connect".to_owned(), json!({ "remote": remote.to_string() }));
            driver = Some(examine(swarm, remote, without, &mut checks).await);
        }
        Err(error) => {
            checks.insert("connect".to_owned(), json!({ "error": format!("{error:#}") }));
        }
    }
    println!("{}", json!({ "peer": peer, "checks": checks }));
    // The listener may not have asked yet who dials it; whoever started us says when all is done.
    tokio::io::stdin().read(&mut [0; 1]).await?;
    drop(driver);
    Ok(())
}

async fn connect(swarm: &mut Swarm<Behaviour>, address: Multiaddr) -> Result<PeerId> {
    if address.iter().any(|part| part == Protocol::WebRTCDirect) {
        // libp2p-webrtc dials from the sockets that it listens on, and from no others.
        swarm.listen_on("/ip4/127.0.0.1/udp/0/webrtc-direct".parse()?)?;
        while !matches!(swarm.select_next_some().await, SwarmEvent::NewListenAddr { .. }) {}
    }
    swarm.dial(address)?;
    loop {
        match swarm.select_next_some().await {
            SwarmEvent::ConnectionEstablished { peer_id, .. } => return Ok(peer_id),
            SwarmEvent::OutgoingConnectionError { error, .. } => return Err(error.into()),
            _ => {}
        }
    }
}

/// What the swarm's events have told so far.
#[derive(Default)]
struct Seen {
    identified: Option<identify::Info>,
    asked: bool,
    pings: Vec<Result<Duration, String>>,
    closed: Option<String>,
}

async fn examine(
    mut swarm: Swarm<Behaviour>,
    remote: PeerId,
    without: &[&str],
    checks: &mut Map<String, Value>,
) -> JoinHandle<()> {
    let mut control = swarm.behaviour().stream.new_control();
    let (seen, mut news) = watch::channel(Seen::default());
    let driver = tokio::spawn(async move {
        loop {
            let event = swarm.select_next_some().await;
            seen.send_modify(|seen| note(seen, event));
        }
    });

    for name in CHECKS.into_iter().filter(|name| !without.contains(name)) {
        let check = async {
            match name {
                "identify" => identify(&mut news).await,
                "echo" => echo(&mut control, remote).await,
                "half-close" => half_close(&mut control, remote).await,
                "reset" => reset(&mut control, remote).await,
                "remote reset" => remote_reset(&mut control, remote).await,
                _ => ping(&mut news).await,
            }
        };
        let outcome = timeout(CHECK, check).await.unwrap_or_else(|_| Err(late()));
        let value = outcome.unwrap_or_else(|error| json!({ "error": format!("{error:#}") }));
        checks.insert(name.to_owned(), value);
    }
    driver
}

fn note(seen: &mut Seen, event: SwarmEvent<BehaviourEvent>) {
    match event {
        SwarmEvent::Behaviour(BehaviourEvent::Identify(identify::Event::Received { info, .. })) => {
            seen.identified = Some(info);
        }
        SwarmEvent::Behaviour(BehaviourEvent::Identify(identify::Event::Sent { .. })) => seen.asked = true,
        SwarmEvent::Behaviour(BehaviourEvent::Ping(event)) => {
            seen.pings.push(event.result.map_err(|failure| failure.to_string()));
        }
        SwarmEvent::ConnectionClosed { cause, .. } => seen.closed = Some(format!("{cause:?}")),
        _ => {}
    }
}

async fn identify(news: &mut watch::Receiver<Seen>) -> Result<Value> {
    let seen =
        news.wait_for(|seen| seen.closed.is_some() || (seen.identified.is_some() && seen.asked)).await?;
    let info = seen.identified.as_ref().with_context(|| format!("connection closed: {:?}", seen.closed))?;
    let addresses: Vec<_> = info.listen_addrs.iter().map(ToString::to_string).collect();
    let protocols: Vec<&str> = info.protocols.iter().map(AsRef::as_ref).collect();
    let observed = info.observed_addr.to_string();
    Ok(json!({ "protocols": protocols, "addresses": addresses, "observed": observed, "asked": seen.asked }))
}

/// The next round trip that the swarm measures; it does so every second.
async fn ping(news: &mut watch::Receiver<Seen>) -> Result<Value> {
    let before = news.borrow().pings.len();
    let seen = news.wait_for(|seen| seen.closed.is_some() || seen.pings.len() > before).await?;
    if let Some(cause) = &seen.closed {
        bail!("connection closed: {cause}");
    }
    let round_trip = seen.pings.last().context("there is one more than before")?;
    let round_trip = round_trip.as_ref().map_err(|failure| anyhow!("{failure}"))?;
    Ok(json!({ "ms": round_trip.as_secs_f64() * 1e3 }))
}

async fn echo(control: &mut Control, remote: PeerId) -> Result<Value> {
    let (mut reader, mut writer) = control.open_stream(remote, ECHO).await?.split();
    let sent = pattern(ECHO_BYTES);
    let mut received = vec![0; sent.len()];
    let writing = async {
        writer.write_all(&sent).await?;
        writer.flush().await
    };
    futures::try_join!(writing, reader.read_exact(&mut received))?;
    writer.close().await?;
    let mut stream = reader.reunite(writer).map_err(|_| anyhow!("two halves of one stream"))?;
    Ok(json!({ "equal": sent == received, "end": ending(&mut stream).await }))
}

async fn half_close(control: &mut Control, remote: PeerId) -> Result<Value> {
    let mut stream = control.open_stream(remote, ECHO).await?;
    let sent = pattern(HALF_CLOSE_BYTES);
    stream.write_all(&sent).await?;
    stream.close().await?;
    let mut received = vec![0; sent.len()];
    stream.read_exact(&mut received).await?;
    Ok(json!({ "equal": sent == received, "end": ending(&mut stream).await }))
}

async fn reset(control: &mut Control, remote: PeerId) -> Result<Value> {
    let mut stream = control.open_stream(remote, ECHO).await?;
    stream.write_all(&pattern(1)).await?;
    stream.flush().await?;
    stream.read_exact(&mut [0; 1]).await?;
    // Dropping a stream that is not closed resets it.
    drop(stream);
    Ok(json!({}))
}

async fn remote_reset(control: &mut Control, remote: PeerId) -> Result<Value> {
    let mut stream = match control.open_stream(remote, RESET).await {
        Ok(stream) => stream,
        Err(OpenStreamError::UnsupportedProtocol(_)) => return Ok(json!({ "end": "unsupported" })),
        Err(error) => return Err(error.into()),
    };
    let writing = async {
        stream.write_all(&pattern(1)).await?;
        // The reset may come as early as here.
        stream.flush().await
    };
    let end = if writing.await.is_err() { "reset".to_owned() } else { ending(&mut stream).await };
    ensure!(end != "1 more bytes", "the listener echoes instead");
    Ok(json!({ "end": end }))
}

/// `closed`, `reset`, or how many bytes came instead.
async fn ending(stream: &mut Stream) -> String {
    match stream.read(&mut [0; 1]).await {
        Ok(0) => "closed".to_owned(),
        Ok(bytes) => format!("{bytes} more bytes"),
        Err(_) => "reset".to_owned(),
    }
}

/// Bytes of which no two stretches are alike, so that a lost, doubled or swapped chunk shows.
fn pattern(length: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_u32;
    let next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    };
    std::iter::repeat_with(next).take(length).collect()
}

fn late() -> anyhow::Error {
    anyhow!("no result after {} s", CHECK.as_secs())
}
