//! A swarm with every transport and protocol of the matrix.

use std::error::Error;
use std::time::Duration;
use std::{env, fs};

use anyhow::Result;
use libp2p::core::{Transport as _, muxing::StreamMuxerBox, transport::Boxed, upgrade::Version};
use libp2p::identity::Keypair;
use libp2p::pnet::{PnetConfig, PreSharedKey};
use libp2p::swarm::NetworkBehaviour;
use libp2p::swarm::behaviour::toggle::Toggle;
use libp2p::{PeerId, Swarm, SwarmBuilder, identify, noise, ping, relay, tcp, tls, yamux};
use libp2p_webrtc::tokio::{Certificate, Transport as WebRtc};

/// Longer than any row takes: nothing is closed while a check is thinking.
const IDLE_TIMEOUT: Duration = Duration::from_secs(300);
const PING_INTERVAL: Duration = Duration::from_secs(1);

/// What a circuit may carry and how long it may last, as js/contract.mjs has it.
const CIRCUIT_BYTES: u64 = 1024 * 1024;
const CIRCUIT_DURATION: Duration = Duration::from_secs(120);

#[derive(NetworkBehaviour)]
pub(crate) struct Behaviour {
    pub(crate) identify: identify::Behaviour,
    pub(crate) ping: ping::Behaviour,
    pub(crate) stream: libp2p_stream::Behaviour,
    pub(crate) relay_client: relay::client::Behaviour,
    relay: Toggle<relay::Behaviour>,
}

/// Whether a swarm relays for others.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Relaying {
    On,
    Off,
}

pub(crate) fn new(relaying: Relaying) -> Result<Swarm<Behaviour>> {
    let swarm = SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_quic()
        .with_other_transport(plain_tcp)?
        .with_other_transport(|keypair| {
            let secure = noise::Config::new(keypair)?;
            let plain = libp2p_websocket::Config::new(tcp::tokio::Transport::default());
            Ok(plain.upgrade(Version::V1Lazy).authenticate(secure).multiplex(yamux::Config::default()))
        })?
        .with_other_transport(|keypair| {
            Ok(WebRtc::new(keypair.clone(), Certificate::generate(&mut rand::rng())?))
        })?
        .with_relay_client(noise::Config::new, yamux::Config::default)?
        .with_behaviour(|keypair, relay_client| Behaviour {
            identify: identify::Behaviour::new(identify::Config::new(
                "/peerloom-interop/1.0.0".to_owned(),
                keypair.public(),
            )),
            ping: ping::Behaviour::new(ping::Config::new().with_interval(PING_INTERVAL)),
            stream: libp2p_stream::Behaviour::new(),
            relay_client,
            relay: (relaying == Relaying::On).then(|| relay(keypair.public().to_peer_id())).into(),
        })?
        .with_swarm_config(|config| config.with_idle_connection_timeout(IDLE_TIMEOUT))
        .build();
    Ok(swarm)
}

/// TCP, protected as the variables `security` and `swarm_key` say.
fn plain_tcp(keypair: &Keypair) -> Result<Boxed<(PeerId, StreamMuxerBox)>, Box<dyn Error + Send + Sync>> {
    let tcp = tcp::tokio::Transport::new(tcp::Config::default().nodelay(true));
    if let Ok(path) = env::var("swarm_key") {
        let key: PreSharedKey = fs::read_to_string(path)?.parse()?;
        let private = tcp.and_then(move |socket, _| PnetConfig::new(key).handshake(socket));
        let secure = noise::Config::new(keypair)?;
        return Ok(private
            .upgrade(Version::V1Lazy)
            .authenticate(secure)
            .multiplex(yamux::Config::default())
            .map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer)))
            .boxed());
    }
    let tcp = tcp.upgrade(Version::V1Lazy);
    Ok(if env::var("security").is_ok_and(|security| security == "tls") {
        tcp.authenticate(tls::Config::new(keypair)?)
            .multiplex(yamux::Config::default())
            .map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer)))
            .boxed()
    } else {
        tcp.authenticate(noise::Config::new(keypair)?)
            .multiplex(yamux::Config::default())
            .map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer)))
            .boxed()
    })
}

fn relay(peer: PeerId) -> relay::Behaviour {
    let config = relay::Config {
        max_circuit_bytes: CIRCUIT_BYTES,
        max_circuit_duration: CIRCUIT_DURATION,
        ..relay::Config::default()
    };
    relay::Behaviour::new(peer, config)
}
