//! The dialer: makes the checks and tells what it found.

use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use futures::{AsyncReadExt as _, AsyncWriteExt as _, StreamExt as _};
use interop_contract::pattern;
use libp2p::multiaddr::Protocol;
use libp2p::swarm::SwarmEvent;
use libp2p::{Multiaddr, PeerId, Stream, Swarm, identify, relay};
use libp2p_stream::{Control, OpenStreamError};
use serde_json::{Map, Value, json};
use tokio::io::AsyncReadExt as _;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::swarm::{self, Behaviour, BehaviourEvent, Relaying};
use crate::{ECHO, RESET};

const CHECKS: [&str; 8] =
    ["identify", "ping", "echo", "half-close", "reset", "remote reset", "still alive", "over limit"];
const CHECK: Duration = Duration::from_secs(20);
/// More than any relay counts as within its limit.
const OVER_LIMIT_BYTES: usize = 4 * 1024 * 1024;

pub(crate) async fn run(address: Multiaddr, without: &[&str]) -> Result<()> {
    let mut swarm = swarm::new(Relaying::Off)?;
    let peer = swarm.local_peer_id().to_string();
    let mut checks = Map::new();
    let mut driver = None;
    match timeout(CHECK, connect(&mut swarm, address)).await.unwrap_or_else(|_| Err(late())) {
        Ok(connected) => {
            checks.insert("connect".to_owned(), connected.json());
            driver = Some(examine(swarm, connected, without, &mut checks).await);
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

/// A connection to whom the address names.
struct Connected {
    remote: PeerId,
    direct: bool,
    /// What the relay told that it lets the connection carry.
    limits: Option<Limits>,
}

#[derive(Clone, Copy)]
struct Limits {
    bytes: Option<u64>,
    duration: Option<Duration>,
}

impl Connected {
    fn json(&self) -> Value {
        let limits = self.limits.map(|Limits { bytes, duration }| {
            json!({ "bytes": bytes, "seconds": duration.map(|duration| duration.as_secs()) })
        });
        json!({ "remote": self.remote.to_string(), "direct": self.direct, "limits": limits })
    }

    /// With the handshakes and what comes back, within the limit of relays that count both directions together.
    fn echo_bytes(&self) -> usize {
        if self.direct { 1024 * 1024 } else { 128 * 1024 }
    }

    fn half_close_bytes(&self) -> usize {
        if self.direct { 64 * 1024 } else { 32 * 1024 }
    }
}

async fn connect(swarm: &mut Swarm<Behaviour>, address: Multiaddr) -> Result<Connected> {
    if address.iter().any(|part| part == Protocol::WebRTCDirect) {
        // libp2p-webrtc dials from the sockets that it listens on, and from no others.
        swarm.listen_on("/ip4/127.0.0.1/udp/0/webrtc-direct".parse()?)?;
        while !matches!(swarm.select_next_some().await, SwarmEvent::NewListenAddr { .. }) {}
    }
    let Some(Protocol::P2p(target)) = address.iter().last() else { bail!("{address} names nobody") };
    let relayed = address.iter().any(|part| part == Protocol::P2pCircuit);
    swarm.dial(address)?;
    let (mut connected, mut circuit) = (false, None);
    loop {
        match swarm.select_next_some().await {
            // On the way there, the relay's comes first.
            SwarmEvent::ConnectionEstablished { peer_id, .. } if peer_id == target => connected = true,
            SwarmEvent::Behaviour(BehaviourEvent::RelayClient(
                relay::client::Event::OutboundCircuitEstablished { limit, .. },
            )) => circuit = Some(limit),
            SwarmEvent::OutgoingConnectionError { error, .. } => return Err(error.into()),
            _ => {}
        }
        if connected && (circuit.is_some() || !relayed) {
            let limit = circuit.flatten();
            let limits =
                limit.map(|limit| Limits { bytes: limit.data_in_bytes(), duration: limit.duration() });
            return Ok(Connected { remote: target, direct: !relayed, limits });
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
    connected: Connected,
    without: &[&str],
    checks: &mut Map<String, Value>,
) -> JoinHandle<()> {
    let remote = connected.remote;
    let mut control = swarm.behaviour().stream.new_control();
    let (seen, mut news) = watch::channel(Seen::default());
    let driver = tokio::spawn(async move {
        loop {
            let event = swarm.select_next_some().await;
            seen.send_modify(|seen| note(seen, event, remote));
        }
    });

    // The last of them ends a connection that has a limit, and no other.
    let possible = |name: &&str| *name != "over limit" || connected.limits.is_some();
    for name in CHECKS.into_iter().filter(|name| !without.contains(name)).filter(possible) {
        let check = async {
            match name {
                "identify" => identify(&mut news).await,
                "echo" => echo(&mut control, remote, connected.echo_bytes()).await,
                "half-close" => half_close(&mut control, remote, connected.half_close_bytes()).await,
                "reset" => reset(&mut control, remote).await,
                "remote reset" => remote_reset(&mut control, remote).await,
                "over limit" => over_limit(&mut control, remote).await,
                _ => ping(&mut news).await,
            }
        };
        let outcome = timeout(CHECK, check).await.unwrap_or_else(|_| Err(late()));
        let value = outcome.unwrap_or_else(|error| json!({ "error": format!("{error:#}") }));
        checks.insert(name.to_owned(), value);
    }
    driver
}

fn note(seen: &mut Seen, event: SwarmEvent<BehaviourEvent>, remote: PeerId) {
    match event {
        SwarmEvent::Behaviour(BehaviourEvent::Identify(identify::Event::Received {
            peer_id, info, ..
        })) => {
            if peer_id == remote {
                seen.identified = Some(info);
            }
        }
        SwarmEvent::Behaviour(BehaviourEvent::Identify(identify::Event::Sent { peer_id, .. })) => {
            seen.asked |= peer_id == remote;
        }
        SwarmEvent::Behaviour(BehaviourEvent::Ping(event)) => {
            if event.peer == remote {
                seen.pings.push(event.result.map_err(|failure| failure.to_string()));
            }
        }
        SwarmEvent::ConnectionClosed { peer_id, cause, .. } => {
            if peer_id == remote {
                seen.closed = Some(format!("{cause:?}"));
            }
        }
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

async fn echo(control: &mut Control, remote: PeerId, bytes: usize) -> Result<Value> {
    let (mut reader, mut writer) = control.open_stream(remote, ECHO).await?.split();
    let sent = pattern(bytes);
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

async fn half_close(control: &mut Control, remote: PeerId, bytes: usize) -> Result<Value> {
    let mut stream = control.open_stream(remote, ECHO).await?;
    let sent = pattern(bytes);
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

/// Sends until the relay has had enough, and tells how that shows.
async fn over_limit(control: &mut Control, remote: PeerId) -> Result<Value> {
    let (mut reader, mut writer) = control.open_stream(remote, ECHO).await?.split();
    let sent = pattern(OVER_LIMIT_BYTES);
    let mut received = vec![0; sent.len()];
    let writing = async {
        writer.write_all(&sent).await?;
        writer.flush().await
    };
    let outcome = futures::try_join!(writing, reader.read_exact(&mut received));
    Ok(json!({ "ended": outcome.err().map(|error| error.to_string()) }))
}

/// `closed`, `reset`, or how many bytes came instead.
async fn ending(stream: &mut Stream) -> String {
    match stream.read(&mut [0; 1]).await {
        Ok(0) => "closed".to_owned(),
        Ok(bytes) => format!("{bytes} more bytes"),
        Err(_) => "reset".to_owned(),
    }
}

fn late() -> anyhow::Error {
    anyhow!("no result after {} s", CHECK.as_secs())
}
