//! Peers that stall, or send one byte a second, at every stage: what they have is counted as a whole, and runs out.

// Allowed in tests; clippy takes only the functions marked as such for tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
// Tasks whose results are wanted.
#![allow(clippy::disallowed_methods)]

use std::time::Duration;

use bytes::Bytes;
use peerloom_core::{
    Connection, DialError, HandshakeError, Keypair, ListenError, Listener, ListenerEvent, Multiaddr,
    ProtocolName, Stream, StreamExt as _, Transport,
    multistream_select::{NegotiatedStream, negotiate_inbound},
    runtime::{BoxFuture, Task, spawn},
};
use peerloom_node::{Events, Limits, Node, NodeEvent, OpenStreamError, identify};
use peerloom_sim::{MemoryTransport, Network};
use peerloom_upgrade::Upgrader;
use tokio::{
    io::AsyncWriteExt as _,
    time::{Instant, sleep, timeout},
};

const LATENCY: Duration = Duration::from_millis(20);
const SECOND: Duration = Duration::from_secs(1);
const ECHO: ProtocolName = ProtocolName::from_static("/echo/1.0.0");
/// What a dialer sends first: its proposal and the first message of Noise.
const FIRST: &[u8] = b"\x13/multistream/1.0.0\n\x07/noise\n\x00\x20abcdefghijklmnopqrstuvwxyz012345";

struct Host {
    network: Network,
    node: Node,
    events: Events,
    number: u64,
}

impl Host {
    async fn new(limits: Limits) -> Self {
        let network = Network::new(LATENCY);
        let keypair = Keypair::generate();
        let node =
            Node::builder(keypair.clone()).transport(network.transport(keypair)).limits(limits).build();
        node.handle(ECHO, |incoming| echo(incoming.stream)).unwrap();
        node.listen("/memory/7".parse().unwrap()).await.unwrap();
        Self { events: node.events(), network, node, number: 7 }
    }

    fn address(&self) -> Multiaddr {
        "/memory/7".parse::<Multiaddr>().unwrap().with_peer_id(self.node.peer_id())
    }

    /// Somebody new gets in, and gets an echo, within this time.
    async fn assert_serves(&self, within: Duration) {
        let keypair = Keypair::generate();
        let mut limits = Limits::default();
        limits.dial_timeout = within;
        let client =
            Node::builder(keypair.clone()).transport(self.network.transport(keypair)).limits(limits).build();
        let asking = async {
            let connection = client.dial(self.address()).await.unwrap();
            let mut stream = client.open_stream(&connection, &[ECHO]).await.unwrap();
            stream.write_all(Bytes::from_static(b"hello")).await.unwrap();
            assert_eq!(stream.read_chunk().await.unwrap().unwrap(), "hello");
            client.close().await;
        };
        timeout(within, asking).await.unwrap_or_else(|_| panic!("not served within {within:?}"));
    }

    /// A connection to the node from somebody who has no node of its own.
    async fn connect(&self) -> Box<dyn Connection> {
        self.network.transport(Keypair::generate()).dial(self.address()).await.unwrap()
    }

    async fn incoming_failure(&mut self) -> HandshakeError {
        loop {
            if let NodeEvent::IncomingFailed { error, .. } = self.events.next().await.unwrap() {
                return std::sync::Arc::into_inner(error).expect("nobody else listens");
            }
        }
    }
}

async fn echo(mut stream: NegotiatedStream) {
    while let Ok(Some(chunk)) = stream.read_chunk().await {
        if stream.write_all(chunk).await.is_err() {
            return;
        }
    }
    let _ = stream.close_write().await;
}

/// Ready when the stream is over, after it has sent a byte of `bytes` each second and of what follows them.
async fn dribble(stream: &mut dyn Stream, bytes: &[u8]) -> Duration {
    let start = Instant::now();
    for byte in bytes.iter().chain(std::iter::repeat(&0)) {
        if stream.write_all(Bytes::copy_from_slice(&[*byte])).await.is_err() {
            break;
        }
        let next = Instant::now() + SECOND;
        if timeout(SECOND, stream.read_chunk()).await.is_ok_and(|read| read.is_err()) {
            break;
        }
        tokio::time::sleep_until(next).await;
    }
    start.elapsed()
}

fn assert_about(took: Duration, expected: Duration) {
    assert!(took >= expected && took <= expected + 3 * SECOND, "{took:?} instead of {expected:?}");
}

#[tokio::test(start_paused = true)]
async fn a_handshake_of_one_byte_a_second_ends_when_its_whole_time_is_up() {
    let mut host = Host::new(Limits::default()).await;
    let start = Instant::now();
    let mut pipe = host.network.connect(host.number).await.unwrap();
    let _dribbling = spawn(async move {
        for byte in FIRST.iter().cycle() {
            if pipe.write_u8(*byte).await.is_err() {
                return;
            }
            sleep(SECOND).await;
        }
    });
    host.assert_serves(SECOND).await;
    let error = host.incoming_failure().await;
    assert!(matches!(error, HandshakeError::TimedOut { .. }), "{error:?}");
    assert_about(start.elapsed(), Limits::default().handshake_timeout);
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_stalled_handshakes_keep_nobody_out() {
    let host = Host::new(Limits::default()).await;
    let mut stalled = Vec::new();
    for number in 0..10_000_usize {
        let network = host.network.clone();
        stalled.push(spawn(async move {
            let mut pipe = network.connect(7).await.unwrap();
            // Nothing at all, up to all of the first flight.
            let _ = pipe.write_all(&FIRST[..number % (FIRST.len() + 1)]).await;
            std::future::pending::<()>().await;
        }));
    }
    sleep(SECOND).await;
    // At most those that have a place, and ours.
    let most = Limits::default().resources.transient.inbound_connections + 16;
    assert!(host.node.running_tasks() <= most, "{}", host.node.running_tasks());
    // 10,000 are before it in the queue, of which 128 give way each second.
    let start = Instant::now();
    host.assert_serves(SECOND * (10_000 / 128 + 5)).await;
    println!("served after {:?} of simulated time", start.elapsed());
    drop(stalled);
    sleep(SECOND).await;
    host.assert_serves(SECOND).await;
}

#[tokio::test(start_paused = true)]
async fn a_handshake_has_its_whole_time_where_there_is_room_and_its_grace_where_there_is_none() {
    let mut limits = Limits::default();
    limits.resources.transient.inbound_connections = 3;
    let host = Host::new(limits).await;
    // With a round trip of 40 ms and two messages to go, this one is slow but honest.
    let slow = |network: Network, address: Multiaddr, pause: Duration| async move {
        let upgrader = Upgrader::new(Keypair::generate());
        let connect = || async {
            let pipe = network.connect(7).await?;
            sleep(pause).await;
            Ok(pipe)
        };
        upgrader.dial(address, connect).await.map(|_| ())
    };
    let alone = slow(host.network.clone(), host.address(), 5 * SECOND);
    alone.await.unwrap();

    // With three there is no room for a fourth: the oldest goes, but not before its grace.
    let mut dials = Vec::new();
    for _ in 0..3 {
        dials.push(tokio::spawn(slow(host.network.clone(), host.address(), 5 * SECOND)));
        sleep(SECOND / 10).await;
    }
    let mut outcomes = Vec::new();
    for dial in dials {
        outcomes.push(dial.await.unwrap().is_ok());
    }
    assert_eq!(outcomes, [false, true, true]);
    let mut quick = Vec::new();
    for _ in 0..20 {
        quick.push(tokio::spawn(slow(host.network.clone(), host.address(), SECOND / 2)));
    }
    for dial in quick {
        dial.await.unwrap().unwrap();
    }
}

/// Dials hosts that answer one byte a second.
struct SlowHosts {
    network: Network,
    keypair: Keypair,
}

impl Transport for SlowHosts {
    fn can_dial(&self, _: &Multiaddr) -> bool {
        true
    }
    fn can_listen(&self, _: &Multiaddr) -> bool {
        false
    }
    fn dial(&self, address: Multiaddr) -> BoxFuture<'static, Result<Box<dyn Connection>, DialError>> {
        let (ours, mut theirs) = self.network.pipes();
        let upgrader = Upgrader::new(self.keypair.clone());
        Box::pin(async move {
            let _answering = spawn(async move {
                for byte in FIRST.iter().cycle() {
                    if theirs.write_u8(*byte).await.is_err() {
                        return;
                    }
                    sleep(SECOND).await;
                }
            });
            let ours = std::sync::Mutex::new(Some(ours));
            let connect = || {
                let pipe = ours.lock().unwrap().take();
                async { pipe.ok_or_else(|| std::io::ErrorKind::ConnectionRefused.into()) }
            };
            upgrader.dial(address, connect).await
        })
    }
    fn listen(&self, address: Multiaddr) -> BoxFuture<'static, Result<Box<dyn Listener>, ListenError>> {
        let reason = "it only dials";
        Box::pin(async { Err(ListenError::UnsupportedAddress { address, reason }) })
    }
}

#[tokio::test(start_paused = true)]
async fn a_listener_that_answers_one_byte_a_second_ends_the_dial_when_its_whole_time_is_up() {
    let keypair = Keypair::generate();
    let hosts = SlowHosts { network: Network::new(LATENCY), keypair: keypair.clone() };
    let node = Node::builder(keypair).transport(hosts).build();
    let start = Instant::now();
    node.dial("/memory/1".parse::<Multiaddr>().unwrap()).await.unwrap_err();
    assert_about(start.elapsed(), Limits::default().dial_timeout);
}

#[tokio::test(start_paused = true)]
async fn a_protocol_named_one_byte_a_second_ends_the_stream_and_not_the_connection() {
    let host = Host::new(Limits::default()).await;
    let connection = host.connect().await;
    // As many as it may have, so that the next waits for one of them to go.
    let mut dribbling = Vec::new();
    for _ in 0..Limits::default().resources.connection.inbound_streams {
        let mut stream = connection.open_stream().await.unwrap();
        dribbling.push(tokio::spawn(async move {
            dribble(&mut *stream, b"\x13/multistream/1.0.0\n\x0c/echo/1.0.0\n").await
        }));
    }
    host.assert_serves(SECOND).await;
    for took in dribbling {
        assert_about(took.await.unwrap(), Limits::default().negotiation_timeout);
    }
    let mut stream = connection.open_stream().await.unwrap();
    stream.write_all(Bytes::from_static(b"\x13/multistream/1.0.0\n\x0c/echo/1.0.0\nhello")).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"hello") {
        answer.extend(stream.read_chunk().await.unwrap().unwrap());
    }
}

/// A peer without a node: each stream that is opened to it is handed to `serve`.
async fn stranger<F>(
    network: &Network,
    number: u64,
    serve: impl Fn(Box<dyn Stream>) -> F + Send + 'static,
) -> (Multiaddr, Task)
where
    F: Future<Output = ()> + Send + 'static,
{
    let keypair = Keypair::generate();
    let transport: MemoryTransport = network.transport(keypair.clone());
    let address: Multiaddr = format!("/memory/{number}").parse().unwrap();
    let mut listener = transport.listen(address.clone()).await.unwrap();
    let task = spawn(async move {
        let ListenerEvent::Incoming(incoming) = listener.next().await.unwrap() else { panic!() };
        let connection = incoming.handshake.await.unwrap();
        let mut serving = Vec::new();
        while let Ok(stream) = connection.accept_stream().await {
            serving.push(spawn(serve(stream)));
        }
    });
    (address.with_peer_id(keypair.peer_id()), task)
}

#[tokio::test(start_paused = true)]
async fn a_remote_that_agrees_to_a_protocol_one_byte_a_second_ends_the_opening_in_time() {
    let host = Host::new(Limits::default()).await;
    let (address, _stranger) = stranger(&host.network, 8, |mut stream| async move {
        dribble(&mut *stream, b"\x13/multistream/1.0.0\n\x03na\n").await;
    })
    .await;
    let connection = host.node.dial(address).await.unwrap();
    let start = Instant::now();
    let other = ProtocolName::from_static("/other/1.0.0");
    let error = host.node.open_stream(&connection, &[ECHO, other]).await.err().unwrap();
    assert!(matches!(error, OpenStreamError::TimedOut { .. }), "{error}");
    assert_about(start.elapsed(), Limits::default().negotiation_timeout);
    assert!(host.node.is_connected(connection.peer));
    host.assert_serves(SECOND).await;
}

/// After the 10 seconds of an exchange. Our half has ended by then, and Yamux has no words for "stop sending": the stream is
/// left to the remote for 30 seconds more, and then reset.
fn assert_given_up(took: Duration) {
    assert!((10 * SECOND..=45 * SECOND).contains(&took), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn identify_of_one_byte_a_second_is_given_up_and_the_connection_kept() {
    let host = Host::new(Limits::default()).await;
    let (told, mut taken) = tokio::sync::mpsc::channel(8);
    let (address, _stranger) = stranger(&host.network, 8, move |stream| {
        let told = told.clone();
        async move {
            let identify = ProtocolName::from_static(identify::PROTOCOL);
            let supports = |name: &str| (name == identify.as_str()).then(|| identify.clone());
            let Ok(mut stream) = negotiate_inbound(stream, supports).await else { return };
            // A message of 100 bytes.
            let took = dribble(&mut stream, &[100]).await;
            let _ = told.send(took).await;
        }
    })
    .await;
    let connection = host.node.dial(address).await.unwrap();
    host.assert_serves(SECOND).await;
    assert_given_up(taken.recv().await.unwrap());
    assert!(host.node.is_connected(connection.peer));

    // The other way round: who asks, and then sends what it has no reason to.
    let asking = host.connect().await;
    let stream = asking.open_stream().await.unwrap();
    let protocol = [ProtocolName::from_static(identify::PROTOCOL)];
    let mut stream = peerloom_core::multistream_select::negotiate_outbound(stream, &protocol).await.unwrap();
    let start = Instant::now();
    let over = async {
        // The answer comes at once; then it is waited for the end of ours.
        while stream.write_all(Bytes::from_static(&[0])).await.is_ok() {
            sleep(SECOND).await;
        }
    };
    timeout(60 * SECOND, over).await.unwrap();
    assert_given_up(start.elapsed());
    host.assert_serves(SECOND).await;
}
