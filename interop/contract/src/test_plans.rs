//! The contract of libp2p/test-plans, `transport-interop`, as far as it is the same for every program: environment variables
//! in, the listener's address by way of Redis, one line of JSON out.

use std::env;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::json;

use self::redis::Redis;

mod redis;

const TIMEOUT: Duration = Duration::from_secs(180);
const REDIS: &str = "redis:6379";
const ANY_INTERFACE: &str = "0.0.0.0";

/// What the environment asks for.
#[derive(Debug, Clone)]
pub struct Test {
    pub transport: Transport,
    pub is_dialer: bool,
    /// Where the listener binds.
    pub ip: String,
    pub timeout: Duration,
    redis: String,
}

/// A transport, and what secures it if it does not do that itself. The muxer is always Yamux.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    Tcp(Security),
    WebSocket(Security),
    SecureWebSocket(Security),
    Quic,
    WebRtcDirect,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Security {
    Noise,
    Tls,
}

impl Test {
    pub fn from_environment() -> Result<Self> {
        let seconds = env::var("test_timeout_seconds").ok().and_then(|seconds| seconds.parse().ok());
        Ok(Self {
            transport: transport()?,
            is_dialer: env::var("is_dialer").is_ok_and(|is_dialer| is_dialer == "true"),
            ip: variable("ip", ANY_INTERFACE),
            timeout: seconds.map_or(TIMEOUT, Duration::from_secs),
            redis: variable("redis_addr", REDIS),
        })
    }

    /// Where the listener listens.
    pub fn listen_address(&self) -> String {
        let ip = &self.ip;
        match self.transport {
            Transport::Tcp(_) => format!("/ip4/{ip}/tcp/0"),
            Transport::WebSocket(_) => format!("/ip4/{ip}/tcp/0/ws"),
            Transport::SecureWebSocket(_) => format!("/ip4/{ip}/tcp/0/tls/ws"),
            Transport::Quic => format!("/ip4/{ip}/udp/0/quic-v1"),
            Transport::WebRtcDirect => format!("/ip4/{ip}/udp/0/webrtc-direct"),
        }
    }

    /// The listener's: tells it to the dialer.
    pub async fn publish(&self, address: &str) -> Result<()> {
        Redis::connect(&self.redis).await?.publish_address(address).await
    }

    /// The dialer's: waits for what the listener told.
    pub async fn listener(&self) -> Result<String> {
        Redis::connect(&self.redis).await?.wait_for_address().await
    }
}

/// The dialer's result, on standard output.
pub fn report(handshake_plus_one_round_trip: Duration, ping: Duration) {
    let milliseconds = |duration: Duration| duration.as_secs_f64() * 1e3;
    // The second is spelled as the contract spells it.
    println!(
        "{}",
        json!({
            "handshakePlusOneRTTMillis": milliseconds(handshake_plus_one_round_trip),
            "pingRTTMilllis": milliseconds(ping),
        })
    );
}

fn transport() -> Result<Transport> {
    let transport = env::var("transport").context("which transport?")?;
    match transport.as_str() {
        "tcp" => Ok(Transport::Tcp(security()?)),
        "ws" => Ok(Transport::WebSocket(security()?)),
        "wss" => Ok(Transport::SecureWebSocket(security()?)),
        "quic-v1" => Ok(Transport::Quic),
        "webrtc-direct" => Ok(Transport::WebRtcDirect),
        other => bail!("no transport {other:?}"),
    }
}

fn security() -> Result<Security> {
    let muxer = variable("muxer", "yamux");
    if muxer != "yamux" {
        bail!("no muxer {muxer:?}");
    }
    match env::var("security").context("which security?")?.as_str() {
        "noise" => Ok(Security::Noise),
        "tls" => Ok(Security::Tls),
        other => bail!("no security {other:?}"),
    }
}

fn variable(name: &str, otherwise: &str) -> String {
    env::var(name).ok().filter(|value| !value.is_empty()).unwrap_or_else(|| otherwise.to_owned())
}
