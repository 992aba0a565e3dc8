//! Clients that do nothing wrong, and expect to be served.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use bytes::Bytes;
use peerloom_core::{
    Keypair, ProtocolName, StreamExt as _,
    runtime::{Task, spawn, timeout},
};
use peerloom_node::{ConnectionInfo, Limits, Node};
use peerloom_quic::{QuicConfig, QuicTransport, WebTransportConfig, WebTransportTransport};
use peerloom_tcp::TcpTransport;
use peerloom_webrtc::{WebRtcDirectConfig, WebRtcDirectTransport};
use peerloom_websocket::WebSocketTransport;

pub(crate) const ECHO: ProtocolName = ProtocolName::from_static("/echo/1.0.0");

/// An echo that takes longer counts as none. Generous, for a fault takes one of the machine's processors, too.
const ECHO_DEADLINE: Duration = Duration::from_secs(10);
/// What a new client has to connect and get an echo. Twice what our nodes give a dial, for slow machines.
const NEWCOMER_DEADLINE: Duration = Duration::from_secs(30);

/// A node with every transport, and a new identity.
pub(crate) fn node() -> Node {
    let keypair = Keypair::generate();
    let mut limits = Limits::default();
    limits.dial_timeout = NEWCOMER_DEADLINE;
    Node::builder(keypair.clone())
        .limits(limits)
        .transport(TcpTransport::new(keypair.clone()))
        .transport(WebSocketTransport::new(keypair.clone()))
        .transport(QuicTransport::new(keypair.clone(), QuicConfig::default()).unwrap())
        .transport(WebTransportTransport::new(keypair.clone(), WebTransportConfig::default()))
        .transport(WebRtcDirectTransport::new(keypair, WebRtcDirectConfig::default()).unwrap())
        .build()
}

pub(crate) async fn dial(node: &Node, address: &str) -> ConnectionInfo {
    node.dial(address.parse::<peerloom_core::Multiaddr>().unwrap())
        .await
        .unwrap_or_else(|error| panic!("{address}: {error}"))
}

/// A question and its answer on a stream of its own.
pub(crate) async fn echo(node: &Node, connection: &ConnectionInfo) -> Result<(), String> {
    let asking = async {
        let mut stream = node.open_stream(connection, &[ECHO]).await.map_err(|error| error.to_string())?;
        let question = Bytes::from_static(b"are you there?");
        stream.write_all(question.clone()).await.map_err(|error| error.to_string())?;
        stream.close_write().await.map_err(|error| error.to_string())?;
        let mut answer = Vec::new();
        while let Some(chunk) = stream.read_chunk().await.map_err(|error| error.to_string())? {
            answer.extend_from_slice(&chunk);
        }
        (answer == question).then_some(()).ok_or_else(|| format!("{answer:?}"))
    };
    let outcome = timeout(ECHO_DEADLINE, asking).await;
    outcome
        .unwrap_or_else(|_| Err("no echo in time".to_owned()))
        .map_err(|error| format!("{}: {error}", connection.remote_address))
}

/// A connection over each transport, with an echo on each again and again, until it is asked how that went.
pub(crate) struct Regulars {
    seen: Arc<Mutex<Seen>>,
    _echoing: Task,
}

#[derive(Debug, Default)]
struct Seen {
    echoes: usize,
    slowest: Duration,
    failure: Option<String>,
}

impl Regulars {
    pub(crate) async fn connect(addresses: &[String]) -> Self {
        let node = node();
        let mut connections = Vec::new();
        for address in addresses {
            connections.push(dial(&node, address).await);
        }
        let seen = Arc::new(Mutex::new(Seen::default()));
        let telling = seen.clone();
        let echoing = spawn(async move {
            loop {
                for connection in &connections {
                    let start = Instant::now();
                    let outcome = echo(&node, connection).await;
                    let mut seen = telling.lock().unwrap();
                    seen.echoes += 1;
                    seen.slowest = seen.slowest.max(start.elapsed());
                    if let Err(error) = outcome {
                        seen.failure.get_or_insert(error);
                        return;
                    }
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        });
        Self { seen, _echoing: echoing }
    }

    /// Waits for an echo more, and fails if one was lost or late.
    pub(crate) async fn assert_served(&self) {
        let before = self.seen.lock().unwrap().echoes;
        let is_over = |seen: &Seen| seen.echoes > before || seen.failure.is_some();
        while !is_over(&self.seen.lock().unwrap()) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let seen = std::mem::take(&mut *self.seen.lock().unwrap());
        println!("  {} echoes, the slowest in {:.1?}", seen.echoes, seen.slowest);
        assert!(seen.failure.is_none(), "{seen:?}");
    }
}

/// Somebody new over each transport gets in and gets an echo.
pub(crate) async fn assert_open_to_newcomers(addresses: &[String]) {
    for address in addresses {
        let start = Instant::now();
        let coming = async {
            let node = node();
            let connection = dial(&node, address).await;
            echo(&node, &connection).await.unwrap_or_else(|error| panic!("{error}"));
            node.close().await;
        };
        let came = timeout(NEWCOMER_DEADLINE, coming).await;
        let transport = address.split("/p2p/").next().unwrap().split("/certhash").next().unwrap();
        assert!(came.is_ok(), "{transport}: not let in");
        println!("  {transport}: let in within {:.2?}", start.elapsed());
    }
}
