//! The contract of libp2p/test-plans, `transport-interop`.

use std::net::{IpAddr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};
use futures::StreamExt as _;
use interop_contract::test_plans::{self, Security, Test, Transport};
use litep2p::config::ConfigBuilder;
use litep2p::protocol::libp2p::ping::{self, PingEvent};
use litep2p::transport::{quic, tcp, websocket};
use litep2p::{Litep2p, Litep2pEvent};
use tokio::time::timeout;

/// The first ping comes right after the handshake, or else one interval later.
const PING_INTERVAL: Duration = Duration::from_secs(1);

pub(crate) async fn run() -> Result<()> {
    let test = Test::from_environment()?;
    let (config, mut pings) = ping::ConfigBuilder::new().with_ping_interval(PING_INTERVAL).build();
    let mut node =
        Litep2p::new(with_transport(ConfigBuilder::new(), &test)?.with_libp2p_ping(config).build())?;
    let outcome = async {
        if !test.is_dialer {
            // Of 0.0.0.0, it lists what others can reach; over QUIC, it does not.
            let address = node.listen_addresses().next().context("it listens nowhere")?.to_string();
            test.publish(&address.replace("/ip4/0.0.0.0/", &format!("/ip4/{}/", own_address()?))).await?;
            while node.next_event().await.is_some() {}
            bail!("litep2p has ended");
        }
        let listener = test.listener().await?;
        let start = Instant::now();
        node.dial_address(listener.parse()?).await?;
        loop {
            tokio::select! {
                Some(PingEvent::Ping { ping, .. }) = pings.next() => {
                    test_plans::report(start.elapsed(), ping);
                    return Ok(());
                }
                event = node.next_event() => match event.context("litep2p has ended")? {
                    Litep2pEvent::ConnectionEstablished { .. } => {}
                    other => bail!("{other:?}"),
                }
            }
        }
    };
    timeout(test.timeout, outcome)
        .await
        .unwrap_or_else(|_| Err(anyhow!("not done within {:?}", test.timeout)))
}

/// Where packets to others come from. None is sent.
fn own_address() -> Result<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    // TEST-NET-1 (RFC 5737), which is nobody's.
    socket.connect("192.0.2.1:9")?;
    Ok(socket.local_addr()?.ip())
}

fn with_transport(config: ConfigBuilder, test: &Test) -> Result<ConfigBuilder> {
    let listen_addresses = if test.is_dialer { vec![] } else { vec![test.listen_address().parse()?] };
    Ok(match test.transport {
        Transport::Tcp(Security::Noise) => {
            config.with_tcp(tcp::config::Config { listen_addresses, ..Default::default() })
        }
        Transport::WebSocket(Security::Noise) => {
            config.with_websocket(websocket::config::Config { listen_addresses, ..Default::default() })
        }
        Transport::Quic => config.with_quic(quic::config::Config { listen_addresses, ..Default::default() }),
        other => bail!("litep2p has no {other:?}"),
    })
}
