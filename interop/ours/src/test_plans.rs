//! Our program under the contract of libp2p/test-plans, `transport-interop`, and under its successor in
//! libp2p/unified-testing: environment variables in, the listener's address by way of Redis, one result on stdout.

use std::{
    net::{IpAddr, Ipv4Addr},
    str::FromStr,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use peerloom_core::{
    Keypair, Multiaddr, Protocol, ProtocolName, StreamExt as _,
    runtime::{Instant, timeout},
};
use peerloom_node::{ConnectionInfo, Node, ping};
use peerloom_quic::{QuicConfig, QuicTransport, WebTransportConfig, WebTransportTransport};
use peerloom_tcp::TcpTransport;
use peerloom_upgrade::Security;
use peerloom_webrtc::{WebRtcDirectConfig, WebRtcDirectTransport};
use peerloom_websocket::{CertificateFiles, Trust, WebSocketTransport};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use self::redis::Redis;

mod redis;

/// What the environment asks for.
#[derive(Debug, PartialEq, Eq)]
struct Test {
    transport: Transport,
    is_dialer: bool,
    /// Where the listener binds.
    ip: IpAddr,
    redis: String,
    /// Under which the listener leaves its address in Redis.
    key: String,
    timeout: Duration,
    format: Format,
}

/// A transport, and what secures it if it does not do that itself. The multiplexer is always Yamux.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::enum_variant_names, reason = "the names of the protocols")]
enum Transport {
    Tcp(Security),
    WebSocket { security: Security, tls: bool },
    Quic,
    WebTransport,
    WebRtcDirect,
}

/// How the dialer says what it measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    /// test-plans.
    Json,
    /// unified-testing.
    Yaml,
}

/// What the dialer measures.
struct Latency {
    handshake_plus_one_round_trip: Duration,
    ping: Duration,
}

pub(crate) async fn run() -> Result<()> {
    let test = Test::from(|name| std::env::var(name).ok())?;
    let (node, _certificate) = node(test.transport)?;
    let mut redis = Redis::connect(&test.redis, test.timeout).await?;
    if !test.is_dialer {
        let address = listen(&node, &test).await?;
        redis.push(&test.key, &address.to_string()).await?;
        tokio::time::sleep(test.timeout).await;
        bail!("nobody ended this listener within {} s", test.timeout.as_secs());
    }
    let address: Multiaddr = redis.pop(&test.key, test.timeout).await?.parse()?;
    eprintln!("dialing {address}");
    let latency = timeout(test.timeout, dial(&node, address)).await.context("no result in time")??;
    println!("{}", test.format.write(&latency));
    node.close().await;
    Ok(())
}

impl Test {
    fn from(variable: impl Fn(&str) -> Option<String>) -> Result<Self> {
        // Names differ between the two, apart from their case.
        let is_unified = variable("TRANSPORT").is_some();
        let get = |old: &str, new: &str| variable(if is_unified { new } else { old });
        let needed = |old: &str, new: &str| {
            get(old, new).with_context(|| format!("{} is not set", if is_unified { new } else { old }))
        };
        let transport = Transport::new(
            &needed("transport", "TRANSPORT")?,
            get("security", "SECURE_CHANNEL").as_deref(),
            get("muxer", "MUXER").as_deref(),
        )?;
        let (key, format) = match variable("TEST_KEY") {
            Some(test) if is_unified => (format!("{test}_listener_multiaddr"), Format::Yaml),
            None if is_unified => bail!("TEST_KEY is not set"),
            _ => ("listenerAddr".to_owned(), Format::Json),
        };
        Ok(Self {
            transport,
            is_dialer: parsed("is_dialer", needed("is_dialer", "IS_DIALER")?)?,
            ip: match get("ip", "LISTENER_IP") {
                Some(ip) => parsed("ip", ip)?,
                None => Ipv4Addr::UNSPECIFIED.into(),
            },
            redis: get("redis_addr", "REDIS_ADDR").unwrap_or_else(|| "redis:6379".to_owned()),
            key,
            timeout: Duration::from_secs(match get("test_timeout_seconds", "TEST_TIMEOUT_SECS") {
                Some(seconds) => parsed("test_timeout_seconds", seconds)?,
                None => 180,
            }),
            format,
        })
    }
}

fn parsed<T: FromStr<Err: Into<anyhow::Error>>>(name: &str, value: String) -> Result<T> {
    value.parse().map_err(Into::into).with_context(|| format!("{name} is {value:?}"))
}

impl Transport {
    fn new(name: &str, security: Option<&str>, muxer: Option<&str>) -> Result<Self> {
        let upgraded = || {
            ensure!(muxer == Some("yamux"), "muxer is {muxer:?}, and not yamux");
            match security {
                Some("noise") => Ok(Security::Noise),
                Some("tls") => Ok(Security::Tls),
                other => bail!("security is {other:?}, and neither noise nor tls"),
            }
        };
        Ok(match name {
            "tcp" => Self::Tcp(upgraded()?),
            "ws" => Self::WebSocket { security: upgraded()?, tls: false },
            "wss" => Self::WebSocket { security: upgraded()?, tls: true },
            "quic-v1" => Self::Quic,
            "webtransport" => Self::WebTransport,
            "webrtc-direct" => Self::WebRtcDirect,
            other => bail!("transport is {other:?}, which we have not"),
        })
    }

    fn listen_address(self, ip: IpAddr) -> Multiaddr {
        let ip = match ip {
            IpAddr::V4(ip) => Protocol::Ip4(ip),
            IpAddr::V6(ip) => Protocol::Ip6(ip),
        };
        let rest = match self {
            Self::Tcp(_) => vec![Protocol::Tcp(0)],
            Self::WebSocket { tls: false, .. } => vec![Protocol::Tcp(0), Protocol::Ws],
            Self::WebSocket { tls: true, .. } => vec![Protocol::Tcp(0), Protocol::Tls, Protocol::Ws],
            Self::Quic => vec![Protocol::Udp(0), Protocol::QuicV1],
            Self::WebTransport => vec![Protocol::Udp(0), Protocol::QuicV1, Protocol::WebTransport],
            Self::WebRtcDirect => vec![Protocol::Udp(0), Protocol::WebRtcDirect],
        };
        Multiaddr::from_protocols([ip].into_iter().chain(rest))
    }
}

/// A node that has this transport and no other; the certificate that it listens with is gone with the directory.
fn node(transport: Transport) -> Result<(Node, Option<TempDir>)> {
    let keypair = Keypair::generate();
    let builder = Node::builder(keypair.clone());
    let mut directory = None;
    let builder = match transport {
        Transport::Tcp(security) => builder.transport(TcpTransport::new(keypair).with_security(security)),
        Transport::WebSocket { security, tls } => {
            let mut websocket = WebSocketTransport::new(keypair).with_security(security);
            if tls {
                let (files, place) = self_signed()?;
                directory = Some(place);
                // The listeners of these tests sign their certificates themselves.
                websocket = websocket.with_certificate(files).with_trust(Trust::anyone());
            }
            builder.transport(websocket)
        }
        Transport::Quic => builder.transport(QuicTransport::new(keypair, QuicConfig::default())?),
        Transport::WebTransport => {
            builder.transport(WebTransportTransport::new(keypair, WebTransportConfig::default()))
        }
        Transport::WebRtcDirect => {
            builder.transport(WebRtcDirectTransport::new(keypair, WebRtcDirectConfig::default())?)
        }
    };
    Ok((builder.build(), directory))
}

fn self_signed() -> Result<(CertificateFiles, TempDir)> {
    let directory = tempfile::tempdir()?;
    let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
    let (chain, key) = (directory.path().join("chain.pem"), directory.path().join("key.pem"));
    std::fs::write(&chain, certified.cert.pem())?;
    std::fs::write(&key, certified.signing_key.serialize_pem())?;
    Ok((CertificateFiles::load(chain, key)?, directory))
}

/// Returns the address for others, which is not loopback if there is any other.
async fn listen(node: &Node, test: &Test) -> Result<Multiaddr> {
    let addresses = node.listen(test.transport.listen_address(test.ip)).await?;
    let elsewhere = addresses.iter().find(|address| !is_loopback(address));
    let address = elsewhere.or(addresses.first()).context("listens nowhere")?;
    eprintln!("listening on {address}");
    Ok(address.clone())
}

fn is_loopback(address: &Multiaddr) -> bool {
    match address.protocols().next() {
        Some(Protocol::Ip4(ip)) => ip.is_loopback(),
        Some(Protocol::Ip6(ip)) => ip.is_loopback(),
        _ => false,
    }
}

async fn dial(node: &Node, address: Multiaddr) -> Result<Latency> {
    let start = Instant::now();
    let connection = node.dial(address).await?;
    let ping = ping_once(node, &connection).await?;
    Ok(Latency { handshake_plus_one_round_trip: start.elapsed(), ping })
}

/// One round trip, that of the stream's negotiation included: our own pings have it behind them.
async fn ping_once(node: &Node, connection: &ConnectionInfo) -> Result<Duration> {
    let start = Instant::now();
    let protocol = ProtocolName::from_static(ping::PROTOCOL);
    let mut stream = node.open_stream(connection, &[protocol]).await?.into_io();
    let sent = Keypair::generate().seed();
    stream.write_all(&sent).await?;
    stream.flush().await?;
    let mut received = [0; ping::PAYLOAD_LENGTH];
    stream.read_exact(&mut received).await?;
    let round_trip = start.elapsed();
    ensure!(received == sent, "the ping came back changed");
    stream.shutdown().await?;
    Ok(round_trip)
}

impl Format {
    fn write(self, latency: &Latency) -> String {
        let [handshake, ping] =
            [latency.handshake_plus_one_round_trip, latency.ping].map(|time| time.as_secs_f64() * 1e3);
        match self {
            // The second name is spelled as the contract has it.
            Self::Json => {
                format!(r#"{{"handshakePlusOneRTTMillis":{handshake:.3},"pingRTTMilllis":{ping:.3}}}"#)
            }
            Self::Yaml => format!(
                "latency:\n  handshake_plus_one_rtt: {handshake:.3}\n  ping_rtt: {ping:.3}\n  unit: ms"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn test(variables: &[(&str, &str)]) -> Result<Test> {
        Test::from(|name| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn variables_of_test_plans_are_read_with_their_defaults() {
        let least = [("transport", "tcp"), ("security", "tls"), ("muxer", "yamux"), ("is_dialer", "false")];
        let expected = Test {
            transport: Transport::Tcp(Security::Tls),
            is_dialer: false,
            ip: Ipv4Addr::UNSPECIFIED.into(),
            redis: "redis:6379".to_owned(),
            key: "listenerAddr".to_owned(),
            timeout: Duration::from_secs(180),
            format: Format::Json,
        };
        assert_eq!(test(&least).unwrap(), expected);
        let all = [
            ("transport", "quic-v1"),
            ("is_dialer", "true"),
            ("ip", "10.0.0.1"),
            ("redis_addr", "localhost:1"),
            ("test_timeout_seconds", "7"),
        ];
        let expected = Test {
            transport: Transport::Quic,
            is_dialer: true,
            ip: Ipv4Addr::new(10, 0, 0, 1).into(),
            redis: "localhost:1".to_owned(),
            timeout: Duration::from_secs(7),
            ..expected
        };
        assert_eq!(test(&all).unwrap(), expected);
    }

    #[test]
    fn variables_of_unified_testing_are_read() {
        let all = [
            ("TRANSPORT", "wss"),
            ("SECURE_CHANNEL", "noise"),
            ("MUXER", "yamux"),
            ("IS_DIALER", "true"),
            ("TEST_KEY", "a5b50d5e"),
            ("REDIS_ADDR", "transport-redis:6379"),
            ("LISTENER_IP", "0.0.0.0"),
        ];
        let test = test(&all).unwrap();
        assert_eq!(test.transport, Transport::WebSocket { security: Security::Noise, tls: true });
        assert_eq!((test.key.as_str(), test.format), ("a5b50d5e_listener_multiaddr", Format::Yaml));
        assert_eq!((test.redis.as_str(), test.is_dialer), ("transport-redis:6379", true));
    }

    #[test]
    fn what_we_have_not_is_refused_by_name() {
        let mut variables =
            [("transport", "tcp"), ("security", "noise"), ("muxer", "mplex"), ("is_dialer", "true")];
        let error = |variables: &[_]| format!("{:#}", test(variables).unwrap_err());
        assert!(error(&variables).contains("mplex"));
        variables[2].1 = "yamux";
        variables[1].1 = "plaintext";
        assert!(error(&variables).contains("plaintext"));
        variables[0].1 = "carrier-pigeon";
        assert!(error(&variables).contains("carrier-pigeon"));
        assert!(error(&[("transport", "quic-v1"), ("is_dialer", "perhaps")]).contains("perhaps"));
        assert!(error(&[("TRANSPORT", "quic-v1"), ("IS_DIALER", "true")]).contains("TEST_KEY"));
    }
}
