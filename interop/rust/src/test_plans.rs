//! The contract of libp2p/test-plans, `transport-interop`.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use futures::StreamExt as _;
use interop_contract::test_plans::{self, Security, Test, Transport};
use libp2p::core::{Transport as _, upgrade::Version};
use libp2p::multiaddr::Protocol;
use libp2p::swarm::{NetworkBehaviour, SwarmEvent};
use libp2p::{Multiaddr, Swarm, SwarmBuilder, identify, noise, ping, tcp, tls, yamux};
use libp2p_webrtc::tokio::{Certificate, Transport as WebRtc};
use libp2p_websocket::tls as websocket_tls;
use tokio::time::timeout;

/// Nothing is closed while it is thought about.
const IDLE_TIMEOUT: Duration = Duration::from_secs(300);

pub(crate) async fn run() -> Result<()> {
    let test = Test::from_environment()?;
    let outcome = timeout(test.timeout, async {
        let mut swarm = swarm(&test)?;
        if test.is_dialer { dial(&test, &mut swarm).await } else { listen(&test, &mut swarm).await }
    });
    outcome.await.unwrap_or_else(|_| Err(anyhow!("not done within {:?}", test.timeout)))
}

async fn listen(test: &Test, swarm: &mut Swarm<Behaviour>) -> Result<()> {
    swarm.listen_on(test.listen_address().parse()?)?;
    let peer = *swarm.local_peer_id();
    let mut published = false;
    loop {
        let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await else { continue };
        // Of 0.0.0.0, the one that others can reach.
        if !published && (!is_loopback(&address) || test.ip == "127.0.0.1") {
            test.publish(&address.with(Protocol::P2p(peer)).to_string()).await?;
            published = true;
        }
    }
}

async fn dial(test: &Test, swarm: &mut Swarm<Behaviour>) -> Result<()> {
    if test.transport == Transport::WebRtcDirect {
        // libp2p-webrtc dials from the sockets that it listens on, and from no others.
        swarm.listen_on(test.listen_address().parse()?)?;
        while !matches!(swarm.select_next_some().await, SwarmEvent::NewListenAddr { .. }) {}
    }
    let listener: Multiaddr = test.listener().await?.parse()?;
    let start = Instant::now();
    swarm.dial(listener)?;
    loop {
        match swarm.select_next_some().await {
            SwarmEvent::OutgoingConnectionError { error, .. } => return Err(error.into()),
            SwarmEvent::ConnectionClosed { cause, .. } => bail!("closed: {cause:?}"),
            SwarmEvent::Behaviour(BehaviourEvent::Ping(ping::Event { result, .. })) => {
                test_plans::report(start.elapsed(), result.context("ping")?);
                return Ok(());
            }
            _ => {}
        }
    }
}

#[derive(NetworkBehaviour)]
struct Behaviour {
    ping: ping::Behaviour,
    identify: identify::Behaviour,
}

/// The rest of a builder, whose type is another one for each transport.
macro_rules! finish {
    ($builder:expr) => {
        $builder
            .with_behaviour(|keypair| Behaviour {
                ping: ping::Behaviour::default(),
                identify: identify::Behaviour::new(identify::Config::new(
                    "/peerloom-interop/1.0.0".to_owned(),
                    keypair.public(),
                )),
            })?
            .with_swarm_config(|config| config.with_idle_connection_timeout(IDLE_TIMEOUT))
            .build()
    };
}

/// With the one transport of the test.
fn swarm(test: &Test) -> Result<Swarm<Behaviour>> {
    let builder = SwarmBuilder::with_new_identity().with_tokio();
    let muxer = yamux::Config::default;
    let websocket =
        || libp2p_websocket::Config::new(tcp::tokio::Transport::default()).upgrade(Version::V1Lazy);
    Ok(match test.transport {
        Transport::Tcp(Security::Noise) => {
            finish!(builder.with_tcp(tcp::Config::default(), noise::Config::new, muxer)?)
        }
        Transport::Tcp(Security::Tls) => {
            finish!(builder.with_tcp(tcp::Config::default(), tls::Config::new, muxer)?)
        }
        Transport::WebSocket(Security::Noise) => finish!(builder.with_other_transport(|keypair| {
            Ok(websocket().authenticate(noise::Config::new(keypair)?).multiplex(muxer()))
        })?),
        Transport::WebSocket(Security::Tls) => finish!(builder.with_other_transport(|keypair| {
            Ok(websocket().authenticate(tls::Config::new(keypair)?).multiplex(muxer()))
        })?),
        Transport::SecureWebSocket(security) => {
            // libp2p-websocket trusts the authorities that browsers trust, and no way leads around that.
            ensure!(
                !test.is_dialer,
                "rust-libp2p does not dial listeners that sign their certificates themselves"
            );
            let mut websocket = libp2p_websocket::Config::new(tcp::tokio::Transport::default());
            websocket.set_tls_config(self_signed()?);
            let websocket = websocket.upgrade(Version::V1Lazy);
            finish!(builder.with_other_transport(|keypair| Ok(match security {
                Security::Noise => {
                    websocket.authenticate(noise::Config::new(keypair)?).multiplex(muxer()).boxed()
                }
                Security::Tls => {
                    websocket.authenticate(tls::Config::new(keypair)?).multiplex(muxer()).boxed()
                }
            }))?)
        }
        Transport::Quic => finish!(builder.with_quic()),
        Transport::WebRtcDirect => finish!(builder.with_other_transport(|keypair| {
            Ok(WebRtc::new(keypair.clone(), Certificate::generate(&mut rand::rng())?))
        })?),
    })
}

fn self_signed() -> Result<websocket_tls::Config> {
    let signed = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()])?;
    let key = websocket_tls::PrivateKey::new(signed.signing_key.serialize_der());
    let certificate = websocket_tls::Certificate::new(signed.cert.der().to_vec());
    Ok(websocket_tls::Config::new(key, [certificate])?)
}

fn is_loopback(address: &Multiaddr) -> bool {
    address.iter().any(|part| matches!(part, Protocol::Ip4(ip) if ip.is_loopback()))
}
