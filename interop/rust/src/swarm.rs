//! A swarm with every transport and protocol of the matrix.

use std::time::Duration;

use anyhow::Result;
use libp2p::core::{Transport as _, upgrade::Version};
use libp2p::swarm::NetworkBehaviour;
use libp2p::{Swarm, SwarmBuilder, identify, noise, ping, tcp, yamux};
use libp2p_webrtc::tokio::{Certificate, Transport as WebRtc};

/// Longer than any row takes: nothing is closed while a check is thinking.
const IDLE_TIMEOUT: Duration = Duration::from_secs(300);
const PING_INTERVAL: Duration = Duration::from_secs(1);

#[derive(NetworkBehaviour)]
pub(crate) struct Behaviour {
    pub(crate) identify: identify::Behaviour,
    pub(crate) ping: ping::Behaviour,
    pub(crate) stream: libp2p_stream::Behaviour,
}

pub(crate) fn new() -> Result<Swarm<Behaviour>> {
    let swarm = SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_tcp(tcp::Config::default(), noise::Config::new, yamux::Config::default)?
        .with_other_transport(|keypair| {
            let secure = noise::Config::new(keypair)?;
            let plain = libp2p_websocket::Config::new(tcp::tokio::Transport::default());
            Ok(plain.upgrade(Version::V1Lazy).authenticate(secure).multiplex(yamux::Config::default()))
        })?
        .with_other_transport(|keypair| {
            Ok(WebRtc::new(keypair.clone(), Certificate::generate(&mut rand::rng())?))
        })?
        .with_behaviour(|keypair| Behaviour {
            identify: identify::Behaviour::new(identify::Config::new(
                "/peerloom-interop/1.0.0".to_owned(),
                keypair.public(),
            )),
            ping: ping::Behaviour::new(ping::Config::new().with_interval(PING_INTERVAL)),
            stream: libp2p_stream::Behaviour::new(),
        })?
        .with_swarm_config(|config| config.with_idle_connection_timeout(IDLE_TIMEOUT))
        .build();
    Ok(swarm)
}
