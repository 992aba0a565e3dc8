//! QUIC, WebTransport and WebRTC-direct on one UDP port.

// The whole file is tests; clippy takes only the functions marked as such for those.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use common::{Server, ask, echo, port};
use peerloom_core::{
    Keypair, ListenError, Transport,
    runtime::{Task, spawn, timeout},
};
use peerloom_quic::{QuicConfig, QuicTransport, UdpPorts, WebTransportConfig, WebTransportTransport};
use peerloom_webrtc::{WebRtcDirectConfig, WebRtcDirectTransport};

/// A host whose transports share their ports.
struct Host {
    ports: UdpPorts,
    quic: QuicTransport,
    web_transport: WebTransportTransport,
    web_rtc: WebRtcDirectTransport,
}

impl Host {
    fn new(identity: &Keypair) -> Self {
        let ports = UdpPorts::default();
        let quic = QuicConfig::default().with_ports(ports.clone());
        let web_transport = WebTransportConfig::default().with_ports(ports.clone());
        Self {
            quic: QuicTransport::new(identity.clone(), quic).unwrap(),
            web_transport: WebTransportTransport::new(identity.clone(), web_transport),
            web_rtc: WebRtcDirectTransport::new(identity.clone(), WebRtcDirectConfig::default()).unwrap(),
            ports,
        }
    }

    async fn quic(&self, bind: SocketAddr) -> Result<Server, ListenError> {
        let address = format!("/ip4/{}/udp/{}/quic-v1", bind.ip(), bind.port());
        Ok(Server::new(self.quic.listen(address.parse().unwrap()).await?))
    }

    async fn web_transport(&self, bind: SocketAddr) -> Result<Server, ListenError> {
        let address = format!("/ip4/{}/udp/{}/quic-v1/webtransport", bind.ip(), bind.port());
        Ok(Server::new(self.web_transport.listen(address.parse().unwrap()).await?))
    }

    fn web_rtc(&self, bind: SocketAddr) -> std::io::Result<Server> {
        Ok(Server::new(self.web_rtc.listen_on(self.ports.datagrams(bind)?).unwrap()))
    }
}

fn localhost(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// Echoes a stream of each of so many connections.
fn echo_all(server: Server) -> Task {
    spawn(async move {
        let (mut server, mut connections) = (server, Vec::new());
        while let Some(handshake) = server.handshakes.recv().await {
            let connection = handshake.unwrap();
            connections.push(spawn(async move {
                echo(&*connection).await;
                connection.closed().await;
            }));
        }
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_kinds_of_client_at_once_lose_nothing() {
    let identity = Keypair::generate();
    let host = Host::new(&identity);
    let quic = host.quic(localhost(0)).await.unwrap();
    let bind = localhost(port(&quic.address));
    let servers = [quic, host.web_transport(bind).await.unwrap(), host.web_rtc(bind).unwrap()];
    let addresses = servers.each_ref().map(|server| server.address.with_peer_id(identity.peer_id()));
    assert!(addresses.iter().all(|address| port(address) == bind.port()));
    let _echoing = servers.map(echo_all);

    let data = Bytes::from((0..1_000_000_u32).map(|n| (n ^ (n >> 8)) as u8).collect::<Vec<_>>());
    let mut clients = Vec::new();
    for number in 0..12 {
        for (kind, address) in addresses.iter().enumerate() {
            let client = Host::new(&Keypair::generate());
            let (address, data) = (address.clone(), data.slice(number * 1000..));
            clients.push(async move {
                let transport: Arc<dyn Transport> = match kind {
                    0 => Arc::new(client.quic),
                    1 => Arc::new(client.web_transport),
                    _ => Arc::new(client.web_rtc),
                };
                let connection = transport.dial(address).await.unwrap();
                ask(&*connection, data).await;
                connection.close().await;
            });
        }
    }
    timeout(Duration::from_secs(60), futures_util::future::join_all(clients)).await.unwrap();
}

#[tokio::test]
async fn each_kind_is_served_without_the_others_in_any_order() {
    let identity = Keypair::generate();
    let host = Host::new(&identity);
    // WebRTC alone first: nobody else receives for it.
    let mut web_rtc = host.web_rtc(localhost(0)).unwrap();
    let bind = localhost(port(&web_rtc.address));
    assert!(host.web_rtc(bind).is_err());
    let client = Host::new(&Keypair::generate());
    let dialed = client.web_rtc.dial(web_rtc.address.clone()).await.unwrap();
    let accepted = web_rtc.accept().await;
    tokio::join!(ask(&*dialed, Bytes::from_static(b"hello")), echo(&*accepted));

    let mut web_transport = host.web_transport(bind).await.unwrap();
    let dialed_web = client.web_transport.dial(web_transport.address.clone()).await.unwrap();
    let accepted_web = web_transport.accept().await;

    let quic = host.quic(bind).await.unwrap();
    assert!(matches!(host.quic(bind).await, Err(ListenError::Io { reason, .. }) if reason.contains("QUIC")));
    // The listeners of one port take turns.
    let dialed_quic = client.quic.dial(quic.address.clone()).await.unwrap();
    let mut quic = quic;
    let accepted_quic = tokio::select! {
        accepted = quic.accept() => accepted,
        accepted = web_transport.accept() => accepted,
    };
    drop((web_transport, web_rtc, quic));
    // Connections outlive the listeners.
    for (dialed, accepted) in
        [(&dialed, &accepted), (&dialed_web, &accepted_web), (&dialed_quic, &accepted_quic)]
    {
        tokio::join!(ask(&**dialed, Bytes::from_static(b"hello")), echo(&**accepted));
    }
    // What was given up can be had again as long as the port is open, once its sessions have let go of it.
    drop((dialed, accepted));
    let again = async {
        while host.web_rtc(bind).is_err() || host.web_transport(bind).await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(Duration::from_secs(20), again).await.unwrap();
}

#[tokio::test]
async fn ip4_and_ip6_have_the_same_port_number_each() {
    let host = Host::new(&Keypair::generate());
    let quic = host.quic(localhost(0)).await.unwrap();
    let address = format!("/ip6/::1/udp/{}/quic-v1", port(&quic.address));
    match host.quic.listen(address.parse().unwrap()).await {
        Ok(listener) => assert_eq!(listener.addresses()[0].to_string(), address),
        // A machine without IPv6, or with somebody else on that port.
        Err(ListenError::Io { .. }) => {}
        Err(error) => panic!("{error}"),
    }
}
