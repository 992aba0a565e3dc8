//! Pages that become peers of each other, under a paused clock.

// Allowed in tests; clippy takes only the functions marked as such for tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::arithmetic_side_effects)]

mod common;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use common::{Fault, Page, World};
use peerloom_core::{
    Multiaddr, ProtocolName, StreamExt,
    framing::{self, MessageStream},
    runtime::{Instant, sleep, timeout},
};
use peerloom_node::{ConnectError, IncomingStream, Node, NodeEvent};
use peerloom_webrtc_signaling::{
    PROTOCOL, SignalingConfig, Step, Timeouts,
    message::{MAX_MESSAGE_LENGTH, Message},
};

const ECHO: ProtocolName = ProtocolName::from_static("/echo/1.0.0");
const SIGNALING: ProtocolName = ProtocolName::from_static(PROTOCOL);

async fn echo(incoming: IncomingStream) {
    let mut stream = incoming.stream;
    while let Ok(Some(chunk)) = stream.read_chunk().await {
        if stream.write_all(chunk).await.is_err() {
            return;
        }
    }
    let _ = stream.close_write().await;
}

async fn assert_echoes(client: &Node, server: &Node) {
    let mut stream = client.open_stream(server.peer_id(), &[ECHO]).await.unwrap();
    stream.write_all(Bytes::from_static(b"hello")).await.unwrap();
    assert_eq!(stream.read_chunk().await.unwrap().as_deref(), Some(&b"hello"[..]));
}

fn direct_connections(node: &Node) -> usize {
    node.connections().iter().filter(|connection| connection.is_direct()).count()
}

fn relayed_connections(node: &Node) -> usize {
    node.connections().iter().filter(|connection| !connection.is_direct()).count()
}

#[tokio::test(start_paused = true)]
async fn a_page_dials_another_and_both_have_a_direct_connection() {
    let (dialer, listener) = World::new().pair(Fault::None, Fault::None).await;
    listener.node.handle(ECHO, echo).unwrap();
    let connection = dialer.node.dial(listener.webrtc_address()).await.unwrap();
    assert!(connection.is_direct());
    assert_eq!(connection.peer, listener.node.peer_id());
    assert_eq!(connection.remote_address.to_string(), "/memory/7/p2p-circuit/webrtc");
    assert_echoes(&dialer.node, &listener.node).await;
    let inbound = listener.node.connections();
    let inbound = inbound.iter().find(|connection| connection.is_direct()).unwrap();
    assert_eq!(inbound.peer, dialer.node.peer_id());
    assert!(inbound.remote_address.to_string().ends_with("/p2p-circuit/webrtc"));
    assert_eq!((dialer.sessions(), listener.sessions()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn the_signaling_stream_ends_so_that_the_relayed_connection_becomes_idle() {
    let (dialer, listener) = World::new().pair(Fault::None, Fault::None).await;
    dialer.node.dial(listener.webrtc_address()).await.unwrap();
    sleep(Duration::from_secs(8)).await;
    for page in [&dialer, &listener] {
        assert_eq!((direct_connections(&page.node), relayed_connections(&page.node)), (1, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn streams_wait_for_the_direct_connection_on_both_sides() {
    let (dialer, listener) = World::new().pair(Fault::None, Fault::None).await;
    for page in [&dialer, &listener] {
        page.node.handle(ECHO, echo).unwrap();
    }
    dialer.node.dial(listener.relayed_address()).await.unwrap();
    let dial = dialer.node.dial(listener.webrtc_address());
    let outbound = async {
        sleep(Duration::from_millis(1)).await;
        assert_eq!(direct_connections(&dialer.node), 0);
        assert_echoes(&dialer.node, &listener.node).await;
    };
    let inbound = async {
        while listener.sessions() == 0 {
            sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(direct_connections(&listener.node), 0);
        assert_echoes(&listener.node, &dialer.node).await;
    };
    let (dialed, (), ()) = tokio::join!(dial, outbound, inbound);
    dialed.unwrap();
}

#[tokio::test(start_paused = true)]
async fn pages_that_dial_each_other_at_once_both_get_a_connection() {
    let world = World::new();
    let (one, other) = world.pair(Fault::None, Fault::None).await;
    one.listen("/memory/8/p2p-circuit").await;
    for page in [&one, &other] {
        page.node.handle(ECHO, echo).unwrap();
    }
    let (there, back) =
        tokio::join!(one.node.dial(other.webrtc_address()), other.node.dial(one.webrtc_address()));
    assert!(there.unwrap().is_direct() && back.unwrap().is_direct());
    assert_echoes(&one.node, &other.node).await;
    assert_echoes(&other.node, &one.node).await;
    sleep(Duration::from_secs(20)).await;
    assert_eq!((relayed_connections(&one.node), relayed_connections(&other.node)), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_relayed_connection_that_was_dialed_is_upgraded_unasked() {
    let world = World::new();
    let dialer = world.page(Fault::None, SignalingConfig::default());
    let listener = world.page(Fault::None, SignalingConfig::default());
    listener.listen(common::RELAYED).await;
    let mut events = dialer.node.events();
    let connection = dialer.node.dial(listener.relayed_address()).await.unwrap();
    assert!(connection.is_limited());
    let upgraded = async {
        loop {
            if let Some(NodeEvent::ConnectionUpgraded { relayed, direct }) = events.next().await {
                return (relayed, direct);
            }
        }
    };
    let (relayed, direct) = timeout(Duration::from_secs(5), upgraded).await.unwrap();
    assert_eq!(relayed.id, connection.id);
    assert!(direct.is_direct());
    // Nothing is tried once more, by neither side.
    sleep(Duration::from_secs(300)).await;
    assert_eq!((dialer.created(), listener.created()), (1, 1));
    assert_eq!(direct_connections(&dialer.node), 1);
}

#[tokio::test(start_paused = true)]
async fn a_relayed_connection_that_cannot_be_upgraded_stays_and_nothing_loops() {
    let world = World::new();
    let dialer = world.page(Fault::NeverConnects, SignalingConfig::default());
    let listener = world.page(Fault::None, SignalingConfig::default());
    listener.listen(common::RELAYED).await;
    let connection = dialer.node.dial(listener.relayed_address()).await.unwrap();
    sleep(Duration::from_secs(3600)).await;
    assert_eq!(dialer.created(), 3);
    let left: Vec<_> = dialer.node.connections().iter().map(|connection| connection.id).collect();
    assert_eq!(left, [connection.id]);
    assert_eq!((dialer.sessions(), listener.sessions()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_relayed_connection_to_a_peer_without_webrtc_is_left_alone() {
    let world = World::new();
    let dialer = world.page(Fault::None, SignalingConfig::default());
    let plain = world.plain();
    plain.listen(common::RELAYED.parse().unwrap()).await.unwrap();
    dialer.node.dial(common::RELAYED.parse::<Multiaddr>().unwrap()).await.unwrap();
    sleep(Duration::from_secs(300)).await;
    assert_eq!((dialer.created(), relayed_connections(&dialer.node)), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn addresses_follow_those_at_relays() {
    let world = World::new();
    let page = world.page(Fault::None, SignalingConfig::default());
    page.node.listen("/webrtc".parse().unwrap()).await.unwrap();
    assert_eq!(page.node.listen_addresses(), []);
    page.listen_relayed("/memory/7/p2p-circuit").await;
    page.listen_relayed("/memory/8/p2p-circuit").await;
    page.listen_relayed("/memory/9").await;
    let peer = page.node.peer_id();
    let expected = ["/memory/7/p2p-circuit/webrtc", "/memory/8/p2p-circuit/webrtc"]
        .map(|address| address.parse::<Multiaddr>().unwrap().with_peer_id(peer));
    let webrtc = |address: &Multiaddr| address.to_string().contains("webrtc");
    let found: Vec<_> = page.node.listen_addresses().into_iter().filter(webrtc).collect();
    assert_eq!(found, expected);
    page.node.listen("/webrtc".parse().unwrap()).await.unwrap_err();
}

impl Page {
    async fn listen_relayed(&self, address: &str) {
        self.node.listen(address.parse().unwrap()).await.unwrap();
        sleep(Duration::from_millis(1)).await;
    }
}

/// The error of a dial to `listener`, and how long it took.
async fn failure(dialer: &Page, address: Multiaddr) -> (Arc<ConnectError>, Duration) {
    let start = Instant::now();
    let error = dialer.node.dial(address).await.unwrap_err();
    (error, start.elapsed())
}

/// Less than a node gives a dial, so that the error is ours.
fn assert_within_deadline(elapsed: Duration) {
    assert!(elapsed <= Timeouts::default().total, "{elapsed:?}");
}

fn assert_step(error: &ConnectError, step: Step, reason: &str) {
    let text = error.to_string();
    assert!(text.contains(step.name()) && text.contains(reason), "{text}");
}

#[tokio::test(start_paused = true)]
async fn each_step_that_hangs_ends_at_its_deadline_with_an_error_that_names_it() {
    let cases = [
        (Fault::None, Fault::NeverAnswers, Step::OfferAndAnswer),
        (Fault::NeverConnects, Fault::None, Step::Connecting),
        (Fault::None, Fault::NeverConnects, Step::Connecting),
    ];
    for (dialer, listener, step) in cases {
        let (dialer, listener) = World::new().pair(dialer, listener).await;
        let (error, elapsed) = failure(&dialer, listener.webrtc_address()).await;
        assert_step(&error, step, "timed out");
        assert_within_deadline(elapsed);
        sleep(Duration::from_secs(20)).await;
        assert_eq!((dialer.sessions(), listener.sessions()), (0, 0));
        assert_eq!((direct_connections(&dialer.node), direct_connections(&listener.node)), (0, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn a_relay_that_says_nothing_is_given_up() {
    let (dialer, listener) = World::new().pair(Fault::None, Fault::None).await;
    let address: Multiaddr = "/memory/666/p2p-circuit/webrtc".parse().unwrap();
    let (error, elapsed) = failure(&dialer, address.with_peer_id(listener.node.peer_id())).await;
    assert_step(&error, Step::RelayedConnection, "timed out");
    assert_within_deadline(elapsed);
}

#[tokio::test(start_paused = true)]
async fn a_relay_that_is_not_there_is_told() {
    let (dialer, listener) = World::new().pair(Fault::None, Fault::None).await;
    let address: Multiaddr = "/memory/9/p2p-circuit/webrtc".parse().unwrap();
    let (error, elapsed) = failure(&dialer, address.with_peer_id(listener.node.peer_id())).await;
    assert_step(&error, Step::RelayedConnection, "nobody listens there");
    assert!(elapsed < Duration::from_secs(1), "{elapsed:?}");
}

#[tokio::test(start_paused = true)]
async fn failures_are_told_at_once() {
    let cases = [
        (Fault::CannotBeMade, Fault::None, Step::OfferAndAnswer, "there is no WebRTC here"),
        (Fault::None, Fault::CannotBeMade, Step::OfferAndAnswer, "reset"),
        (Fault::None, Fault::RefusesOffer, Step::OfferAndAnswer, "reset"),
        (Fault::Fails, Fault::None, Step::Connecting, "no way found"),
        (Fault::None, Fault::Fails, Step::Connecting, "reset"),
    ];
    for (dialer, listener, step, reason) in cases {
        let (dialer, listener) = World::new().pair(dialer, listener).await;
        let (error, elapsed) = failure(&dialer, listener.webrtc_address()).await;
        assert_step(&error, step, reason);
        assert!(elapsed < Duration::from_secs(1), "{elapsed:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_page_that_does_not_listen_refuses() {
    let (dialer, _) = World::new().pair(Fault::None, Fault::None).await;
    let world = World::new();
    let silent = world.page(Fault::None, SignalingConfig::default());
    silent.node.listen(common::RELAYED.parse().unwrap()).await.unwrap();
    let dialer = Page { node: world.page(Fault::None, SignalingConfig::default()).node, ..dialer };
    let address = silent.relayed_address().without_peer_id().to_string() + "/webrtc";
    let address = address.parse::<Multiaddr>().unwrap().with_peer_id(silent.node.peer_id());
    let (error, elapsed) = failure(&dialer, address).await;
    assert_step(&error, Step::OfferAndAnswer, "reset");
    assert!(elapsed < Duration::from_secs(1), "{elapsed:?}");
}

/// A listener whose every signaling stream gets this treatment instead of an answer, and what the dialer makes of it.
async fn treated<F>(
    treatment: impl Fn(MessageStream<Box<dyn peerloom_core::Stream>>) -> F + Send + Sync + 'static,
) -> (Arc<ConnectError>, Duration)
where
    F: Future<Output = ()> + Send + 'static,
{
    let world = World::new();
    let (dialer, _other) = {
        let mut config = SignalingConfig::default();
        config.upgrade_relayed = false;
        (world.page(Fault::None, config), ())
    };
    let foreign = world.plain();
    let treatment = Arc::new(treatment);
    foreign
        .handle_on_limited(SIGNALING, move |incoming| {
            let stream: Box<dyn peerloom_core::Stream> = Box::new(incoming.stream);
            let treatment = treatment.clone();
            async move {
                let mut stream = MessageStream::new(stream, MAX_MESSAGE_LENGTH);
                stream.read().await.unwrap().unwrap();
                treatment(stream).await;
            }
        })
        .unwrap();
    foreign.listen(common::RELAYED.parse().unwrap()).await.unwrap();
    let address: Multiaddr = [common::RELAYED, "/webrtc"].concat().parse().unwrap();
    let failed = failure(&dialer, address.with_peer_id(foreign.peer_id())).await;
    assert_eq!((dialer.sessions(), direct_connections(&dialer.node)), (0, 0));
    failed
}
