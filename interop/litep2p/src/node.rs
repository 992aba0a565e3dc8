//! A node with every transport and protocol of the matrix.

use std::time::Duration;

use anyhow::{Result, bail};
use futures::Stream;
use litep2p::Litep2p;
use litep2p::config::ConfigBuilder;
use litep2p::protocol::libp2p::identify::{self, IdentifyEvent};
use litep2p::protocol::libp2p::ping::{self, PingEvent};
use litep2p::transport::{quic, tcp, websocket};

use crate::streams::{Streams, streams};
use crate::{ECHO, RESET};

/// Longer than any row takes: nothing is closed while a check is thinking.
const IDLE_TIMEOUT: Duration = Duration::from_secs(300);
const PING_INTERVAL: Duration = Duration::from_secs(1);

pub(crate) struct Node {
    pub(crate) litep2p: Litep2p,
    pub(crate) identities: Box<dyn Stream<Item = IdentifyEvent> + Send + Unpin>,
    pub(crate) pings: Box<dyn Stream<Item = PingEvent> + Send + Unpin>,
    pub(crate) echo: Streams,
    pub(crate) reset: Streams,
}

impl Node {
    /// Listens at `address`, if that is given.
    pub(crate) fn start(address: Option<&str>) -> Result<Self> {
        let (mut on_tcp, mut on_websocket, mut on_quic) = (vec![], vec![], vec![]);
        if let Some(address) = address {
            let listen = match address {
                _ if address.ends_with("/ws") => &mut on_websocket,
                _ if address.ends_with("/quic-v1") => &mut on_quic,
                _ if address.contains("/tcp/") => &mut on_tcp,
                _ => bail!("litep2p does not listen at {address}"),
            };
            listen.push(address.parse()?);
        }
        let (ping, pings) = ping::ConfigBuilder::new().with_ping_interval(PING_INTERVAL).build();
        let (identify, identities) = identify::Config::new("/peerloom-interop/1.0.0".to_owned(), None);
        let (echo_protocol, echo) = streams(ECHO);
        let (reset_protocol, reset) = streams(RESET);
        let config = ConfigBuilder::new()
            .with_tcp(tcp::config::Config { listen_addresses: on_tcp, ..Default::default() })
            .with_websocket(websocket::config::Config {
                listen_addresses: on_websocket,
                ..Default::default()
            })
            .with_quic(quic::config::Config { listen_addresses: on_quic, ..Default::default() })
            .with_libp2p_ping(ping)
            .with_libp2p_identify(identify)
            .with_user_protocol(echo_protocol)
            .with_user_protocol(reset_protocol)
            .with_keep_alive_timeout(IDLE_TIMEOUT)
            .build();
        Ok(Self { litep2p: Litep2p::new(config)?, identities, pings, echo, reset })
    }
}
