//! Pages that become peers of each other, under a paused clock.

// Allowed in tests; clippy takes only the functions marked as such for tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use common::{Fault, Page, World};
use peerloom_core::{
    Multiaddr, ProtocolName, StreamExt,
    framing::MessageStream,
    multistream_select::NegotiatedStream,
    runtime::{Instant, sleep, timeout},
};
use peerloom_node::{ConnectError, IncomingStream, Node, NodeEvent};
use peerloom_webrtc_signaling::{
    PROTOCOL, SignalingConfig, Step, Timeouts,
    message::{MAX_MESSAGE_LENGTH, Message},
    session::MAX_CANDIDATES,
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
        // Or the other side was the first to give up.
        assert_step(&error, step, "");
        assert!(elapsed > Duration::from_secs(5), "{elapsed:?}");
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
    ];
    for (dialer, listener, step, reason) in cases {
        let (dialer, listener) = World::new().pair(dialer, listener).await;
        let (error, elapsed) = failure(&dialer, listener.webrtc_address()).await;
        assert_step(&error, step, reason);
        assert!(elapsed < Duration::from_secs(1), "{elapsed:?}");
    }
    // The reset may overtake the answer.
    let (dialer, listener) = World::new().pair(Fault::None, Fault::Fails).await;
    let (error, elapsed) = failure(&dialer, listener.webrtc_address()).await;
    assert!(error.to_string().contains("reset"), "{error}");
    assert!(elapsed < Duration::from_secs(1), "{elapsed:?}");
}

#[tokio::test(start_paused = true)]
async fn a_page_that_does_not_listen_refuses() {
    let world = World::new();
    let [dialer, silent] = [(); 2].map(|()| world.page(Fault::None, unasked(false)));
    silent.node.listen(common::RELAYED.parse().unwrap()).await.unwrap();
    let (error, elapsed) = failure(&dialer, webrtc_at(&silent.node)).await;
    assert_step(&error, Step::OfferAndAnswer, "reset");
    assert!(elapsed < Duration::from_secs(1), "{elapsed:?}");
}

#[tokio::test(start_paused = true)]
async fn a_peer_without_the_protocol_is_given_up_at_once() {
    let world = World::new();
    let (dialer, plain) = (world.page(Fault::None, unasked(false)), world.plain());
    plain.listen(common::RELAYED.parse().unwrap()).await.unwrap();
    let (error, elapsed) = failure(&dialer, webrtc_at(&plain)).await;
    assert_step(&error, Step::OfferAndAnswer, "");
    assert!(elapsed < Duration::from_secs(1), "{elapsed:?}");
}

fn unasked(upgrade: bool) -> SignalingConfig {
    let mut config = SignalingConfig::default();
    config.upgrade_relayed = upgrade;
    config
}

fn webrtc_at(node: &Node) -> Multiaddr {
    [common::RELAYED, "/webrtc"].concat().parse::<Multiaddr>().unwrap().with_peer_id(node.peer_id())
}

type Signaling = MessageStream<NegotiatedStream>;

/// What a dial makes of a remote that takes the offer and then does this.
async fn after_the_offer<F>(remote: impl Fn(Signaling) -> F + Send + Sync + 'static) -> (String, Duration)
where
    F: Future<Output = ()> + Send + 'static,
{
    let world = World::new();
    let (dialer, foreign) = (world.page(Fault::None, unasked(false)), world.plain());
    let remote = Arc::new(remote);
    let handler = move |incoming: IncomingStream| {
        let remote = remote.clone();
        async move {
            let mut stream = MessageStream::new(incoming.stream, 1 << 20);
            let offer = Message::decode(&stream.read().await.unwrap().unwrap()).unwrap();
            assert!(matches!(offer, Message::Offer(_)));
            remote(stream).await;
        }
    };
    foreign.handle_on_limited(SIGNALING, handler).unwrap();
    foreign.listen(common::RELAYED.parse().unwrap()).await.unwrap();
    let (error, elapsed) = failure(&dialer, webrtc_at(&foreign)).await;
    assert_eq!((dialer.sessions(), direct_connections(&dialer.node)), (0, 0));
    assert_eq!(relayed_connections(&dialer.node), 1);
    (error.to_string(), elapsed)
}

async fn hold<T>(held: T) {
    let _held = held;
    std::future::pending().await
}

#[tokio::test(start_paused = true)]
async fn a_remote_that_sends_what_it_must_not_is_refused() {
    let answer = || Message::Answer("answer to 0".into());
    let cases: Vec<(Vec<Vec<u8>>, &str)> = vec![
        (vec![b"\xff\xff".to_vec()], "not a signaling message"),
        (vec![b"\x08\x09\x12\x00".to_vec()], "unknown type 9"),
        (vec![Message::Offer("0".into()).encode()], "unexpected offer"),
        (vec![answer().encode(), answer().encode()], "unexpected answer"),
        (vec![Message::Answer("nonsense".into()).encode()], "no such answer"),
        (vec![Message::Answer("a".repeat(MAX_MESSAGE_LENGTH)).encode()], "more than the"),
        (vec![Message::Candidate("{}".into()).encode(); MAX_CANDIDATES + 1], "too many candidates"),
    ];
    for (messages, reason) in cases {
        let (error, elapsed) = after_the_offer(move |mut stream: Signaling| {
            let messages = messages.clone();
            async move {
                for message in messages {
                    let _ = stream.write(&message).await;
                }
                hold(stream).await;
            }
        })
        .await;
        assert!(error.contains(reason), "{error}");
        assert!(elapsed < Duration::from_secs(1), "{reason}: {elapsed:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_remote_that_goes_away_is_noticed_at_once() {
    let (error, elapsed) = after_the_offer(|stream: Signaling| async move { drop(stream) }).await;
    assert!(error.contains(Step::OfferAndAnswer.name()) && elapsed < Duration::from_secs(1), "{error}");
    let ends = |mut stream: Signaling| async move {
        stream.close_write().await.unwrap();
        hold(stream).await;
    };
    let (error, elapsed) = after_the_offer(ends).await;
    assert!(error.contains("ended the exchange") && elapsed < Duration::from_secs(1), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_remote_that_says_nothing_or_only_candidates_is_given_up() {
    let (error, elapsed) = after_the_offer(hold).await;
    assert!(error.contains(Step::OfferAndAnswer.name()) && error.contains("timed out"), "{error}");
    assert_within_deadline(elapsed);
    let trickles = |mut stream: Signaling| async move {
        loop {
            sleep(Duration::from_millis(500)).await;
            if stream.write(&Message::Candidate("{}".into()).encode()).await.is_err() {
                return;
            }
        }
    };
    let (error, elapsed) = after_the_offer(trickles).await;
    assert!(error.contains(Step::OfferAndAnswer.name()) && error.contains("timed out"), "{error}");
    assert_within_deadline(elapsed);
}

#[tokio::test(start_paused = true)]
async fn candidates_and_end_before_the_answer_do_no_harm() {
    let answers = |mut stream: Signaling| async move {
        let messages = [
            Message::Candidate(r#"{"candidate":"2"}"#.into()),
            Message::EndOfCandidates,
            Message::Answer("answer to 0".into()),
        ];
        for message in messages {
            stream.write(&message.encode()).await.unwrap();
        }
        stream.close_write().await.unwrap();
        hold(stream).await;
    };
    // Nobody is at the other end of this peer connection; but it was reached.
    let (error, elapsed) = after_the_offer(answers).await;
    assert!(error.contains(Step::Connecting.name()) && error.contains("timed out"), "{error}");
    assert_within_deadline(elapsed);
}

#[tokio::test(start_paused = true)]
async fn a_page_that_reloads_in_the_middle_leaves_nothing_behind() {
    // Either side, in each step.
    for (dialer, listener) in [(Fault::None, Fault::NeverAnswers), (Fault::None, Fault::NeverConnects)] {
        for dialer_reloads in [true, false] {
            let (dialer, listener) = World::new().pair(dialer, listener).await;
            let mut dial = Box::pin(dialer.node.dial(listener.webrtc_address()));
            let running = async {
                while listener.sessions() == 0 {
                    sleep(Duration::from_millis(1)).await;
                }
                sleep(Duration::from_millis(500)).await;
            };
            tokio::select! {
                _ = &mut dial => panic!("nothing could come of it"),
                () = running => {}
            }
            let start = Instant::now();
            if dialer_reloads {
                drop(dial);
                dialer.node.close().await;
                while listener.sessions() > 0 {
                    sleep(Duration::from_millis(1)).await;
                }
            } else {
                listener.node.close().await;
                let error = dial.await.unwrap_err();
                assert!(error.to_string().contains("WebRTC, step"), "{error}");
            }
            // A peer connection that is at work is not disturbed before its deadline.
            assert_within_deadline(start.elapsed());
            let left = if dialer_reloads { &listener } else { &dialer };
            assert_eq!((left.sessions(), left.node.connections().len()), (0, 0));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_relay_that_goes_silent_in_the_middle_does_not_hang_anybody() {
    let world = World::new();
    let (dialer, listener) = world.pair(Fault::None, Fault::NeverAnswers).await;
    let dial = failure(&dialer, listener.webrtc_address());
    let cut = async {
        while listener.sessions() == 0 {
            sleep(Duration::from_millis(1)).await;
        }
        world.network.cut();
    };
    let ((error, elapsed), ()) = tokio::join!(dial, cut);
    assert!(error.to_string().contains(Step::OfferAndAnswer.name()), "{error}");
    assert_within_deadline(elapsed);
    sleep(Timeouts::default().total).await;
    assert_eq!((dialer.sessions(), listener.sessions()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn sessions_that_others_begin_are_bounded_per_peer_and_in_total() {
    let world = World::new();
    let mut config = unasked(false);
    config.inbound_sessions = 6;
    config.inbound_sessions_per_peer = 4;
    let listener = world.page(Fault::None, config);
    listener.listen(common::RELAYED).await;
    let strangers = [world.plain(), world.plain()];
    let mut streams = Vec::new();
    for stranger in &strangers {
        stranger.dial(listener.relayed_address()).await.unwrap();
        for _ in 0..5 {
            let stream =
                stranger.open_stream_on_limited(listener.node.peer_id(), &[SIGNALING]).await.unwrap();
            let mut stream = MessageStream::new(stream, MAX_MESSAGE_LENGTH);
            stream.write(&Message::EndOfCandidates.encode()).await.unwrap();
            streams.push(stream);
            sleep(Duration::from_millis(100)).await;
        }
    }
    assert_eq!((listener.sessions(), listener.created()), (6, 6));
    for refused in [4, 7, 8, 9] {
        let outcome = timeout(Duration::from_millis(100), streams[refused].read()).await;
        assert!(outcome.unwrap().is_err());
    }
    // Those that say nothing more lose their place.
    sleep(Duration::from_secs(10)).await;
    assert_eq!(listener.sessions(), 0);
}

#[tokio::test(start_paused = true)]
async fn inbound_failures_are_events() {
    let world = World::new();
    let (_, listener) = world.pair(Fault::None, Fault::None).await;
    let stranger = world.plain();
    stranger.dial(listener.relayed_address()).await.unwrap();
    let mut events = listener.node.events();
    let stream = stranger.open_stream_on_limited(listener.node.peer_id(), &[SIGNALING]).await.unwrap();
    let mut stream = MessageStream::new(stream, MAX_MESSAGE_LENGTH);
    stream.write(&Message::Answer("unasked".into()).encode()).await.unwrap();
    let error = loop {
        if let Some(NodeEvent::IncomingFailed { error, .. }) = events.next().await {
            break error.to_string();
        }
    };
    assert!(error.contains(Step::OfferAndAnswer.name()) && error.contains("unexpected answer"), "{error}");
    stream.read().await.unwrap_err();
}
