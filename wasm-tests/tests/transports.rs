//! The page's transports against a real server, each in the same ways.

// Allowed in tests; clippy does not know those of wasm-bindgen.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice
)]
#![cfg(target_arch = "wasm32")]

// Each test file uses its own part of it.
#[allow(dead_code)]
mod common;

use std::time::Duration;

use bytes::Bytes;
use common::{ECHO, ECHO_DIGEST, Kind, Server, connect, connected, open, read_to_end, within};
use futures_util::future::{join, join_all};
use peerloom_core::{
    ConnectionError, DialError, HandshakeError, Keypair, Multiaddr, Multihash, Protocol, ProtocolName,
    StreamError, StreamExt as _,
    multihash::sha2_256,
    negotiate_outbound,
    runtime::{Instant, sleep, timeout},
};
use wasm_bindgen_test::{wasm_bindgen_test, wasm_bindgen_test_configure};

wasm_bindgen_test_configure!(run_in_browser);

/// Each of these for each transport. The first are about connections, so they hold between two pages too.
macro_rules! for_each_transport {
    ($($test:ident),* $(,)?; $($of_servers:ident),* $(,)?) => {
        mod webtransport {
            $(#[super::wasm_bindgen_test] async fn $test() { super::$test(super::Kind::WebTransport).await })*
            $(#[super::wasm_bindgen_test] async fn $of_servers() { super::$of_servers(super::Kind::WebTransport).await })*
        }
        mod webrtc_direct {
            $(#[super::wasm_bindgen_test] async fn $test() { super::$test(super::Kind::WebRtcDirect).await })*
            $(#[super::wasm_bindgen_test] async fn $of_servers() { super::$of_servers(super::Kind::WebRtcDirect).await })*
        }
        mod websocket {
            $(#[super::wasm_bindgen_test] async fn $test() { super::$test(super::Kind::WebSocket).await })*
            $(#[super::wasm_bindgen_test] async fn $of_servers() { super::$of_servers(super::Kind::WebSocket).await })*
        }
        mod webrtc {
            $(#[super::wasm_bindgen_test] async fn $test() { super::$test(super::Kind::WebRtc).await })*
        }
    };
}

for_each_transport!(
    what_is_sent_comes_back,
    a_mebibyte_has_the_same_hash_at_both_ends,
    remote_that_has_closed_its_half_still_reads,
    both_halves_work_side_by_side,
    reset_stream_leaves_the_connection_alone,
    dropped_stream_leaves_the_connection_alone,
    more_streams_at_once_than_the_server_allows,
    many_streams_one_after_the_other,
    protocol_that_nobody_handles_is_refused,
    closed_connection_opens_no_streams,
    streams_fail_when_the_connection_closes;
    server_is_the_peer_of_the_address,
    server_that_is_another_peer_is_refused,
    dials_that_are_dropped_leave_room_for_others,
    server_that_does_not_exist_is_unreachable,
    server_that_is_killed_ends_the_connection,
);

async fn what_is_sent_comes_back(kind: Kind) {
    let connection = connected(kind).await;
    let mut stream = open(&*connection, ECHO).await;
    for message in ["one", "two", "three"] {
        within(stream.write_all(message.into())).await.unwrap();
        assert_eq!(within(stream.read_chunk()).await.unwrap().as_deref(), Some(message.as_bytes()));
    }
    within(stream.close_write()).await.unwrap();
    assert_eq!(read_to_end(&mut stream).await, b"");
}

async fn a_mebibyte_has_the_same_hash_at_both_ends(kind: Kind) {
    let connection = connected(kind).await;
    let data = random(1 << 20);
    let (sent, back) = exchange(open(&*connection, ECHO_DIGEST).await, data.clone()).await;
    assert_eq!(sent, Ok(()));
    let (back, digest) = back.split_at(data.len());
    assert!(back == data, "what came back is not what was sent");
    assert_eq!(digest, sha2_256(&data));
}

async fn remote_that_has_closed_its_half_still_reads(kind: Kind) {
    let connection = connected(kind).await;
    let mut stream = open(&*connection, ECHO).await;
    within(stream.write_all(Bytes::from_static(b"before the end"))).await.unwrap();
    within(stream.close_write()).await.unwrap();
    // The echo reads our end, and only then sends its own.
    assert_eq!(read_to_end(&mut stream).await, b"before the end");
    assert!(matches!(
        within(stream.write_all(Bytes::from_static(b"after it"))).await,
        Err(StreamError::WriteClosed)
    ));
    within(stream.close_write()).await.unwrap();
}

async fn both_halves_work_side_by_side(kind: Kind) {
    let connection = connected(kind).await;
    // More than any buffer on the way holds, so that a side which does not read stops the other.
    let data = random(4 << 20);
    let (sent, back) = exchange(open(&*connection, ECHO).await, data.clone()).await;
    assert_eq!(sent, Ok(()));
    assert!(back == data, "what came back is not what was sent");
}

async fn reset_stream_leaves_the_connection_alone(kind: Kind) {
    let connection = connected(kind).await;
    let mut stream = open(&*connection, ECHO).await;
    within(stream.write_all(Bytes::from_static(b"x"))).await.unwrap();
    within(stream.read_chunk()).await.unwrap();
    peerloom_core::Stream::reset(&mut stream, 7);
    assert!(matches!(within(stream.read_chunk()).await, Err(StreamError::Reset { .. })));
    assert!(within(stream.write_all(Bytes::from_static(b"y"))).await.is_err());
    assert_echoes(&*connection).await;
}

async fn dropped_stream_leaves_the_connection_alone(kind: Kind) {
    let connection = connected(kind).await;
    for _ in 0..20 {
        let mut stream = open(&*connection, ECHO).await;
        within(stream.write_all(Bytes::from_static(b"x"))).await.unwrap();
    }
    drop(connection.open_stream());
    assert_echoes(&*connection).await;
}

async fn more_streams_at_once_than_the_server_allows(kind: Kind) {
    let connection = connected(kind).await;
    join_all((0..300u16).map(|number| {
        let connection = &connection;
        async move {
            let data = vec![number as u8; 2000];
            let (sent, back) = exchange(open(&**connection, ECHO).await, data.clone()).await;
            assert_eq!((sent, back), (Ok(()), data));
        }
    }))
    .await;
}

async fn many_streams_one_after_the_other(kind: Kind) {
    let connection = connected(kind).await;
    // More than a browser has data channels: those that are closed must make room.
    let count = if matches!(kind, Kind::WebRtcDirect | Kind::WebRtc) { 1500 } else { 300 };
    for _ in 0..count {
        assert_echoes(&*connection).await;
    }
}

async fn protocol_that_nobody_handles_is_refused(kind: Kind) {
    let connection = connected(kind).await;
    let nobody = ProtocolName::from_static("/nobody/1.0.0");
    let mut stream = open(&*connection, nobody.clone()).await;
    assert!(matches!(within(stream.read_chunk()).await, Err(StreamError::ProtocolNotSupported)));
    let stream = within(connection.open_stream()).await.unwrap();
    let stream = within(negotiate_outbound(stream, &[nobody, ECHO])).await.unwrap();
    assert_eq!(stream.protocol(), &ECHO);
}

async fn server_is_the_peer_of_the_address(kind: Kind) {
    let server = Server::shared().await;
    let connection = connect(kind, server.address(kind)).await;
    assert_eq!(Some(connection.remote_peer()), server.address(kind).peer_id());
    assert_eq!(connection.remote_address(), &server.address(kind).without_peer_id());
}

async fn server_that_is_another_peer_is_refused(kind: Kind) {
    let server = Server::shared().await;
    let somebody_else = Keypair::generate().peer_id();
    let address = server.address(kind).without_peer_id().with_peer_id(somebody_else);
    match within(kind.transport().dial(address)).await {
        Err(DialError::Handshake { source: HandshakeError::WrongPeer { expected, actual }, .. }) => {
            assert_eq!(expected, somebody_else);
            assert_eq!(Some(actual), server.address(kind).peer_id());
        }
        other => panic!("{:?}", other.err()),
    }
}

async fn dials_that_are_dropped_leave_room_for_others(kind: Kind) {
    let server = Server::shared().await;
    let transport = kind.transport();
    // At every stage, and more of them than Chromium has pending sessions.
    for after in 0..80 {
        let _ = timeout(Duration::from_millis(after % 20), transport.dial(server.address(kind))).await;
    }
    let connection = within(transport.dial(server.address(kind))).await.unwrap();
    assert_echoes(&*connection).await;
}

async fn server_that_does_not_exist_is_unreachable(kind: Kind) {
    let server = Server::shared().await;
    let address = with_port(&server.address(kind), 9);
    // Nobody answers there, and where no ICMP says so only the caller's deadline ends the dial.
    match timeout(Duration::from_secs(5), kind.transport().dial(address)).await {
        Ok(Err(DialError::Unreachable { .. })) | Err(_) => {}
        Ok(other) => panic!("{:?}", other.err()),
    }
}

async fn closed_connection_opens_no_streams(kind: Kind) {
    let connection = connected(kind).await;
    within(connection.close()).await;
    assert!(matches!(*within(connection.closed()).await, ConnectionError::ClosedLocally));
    assert!(within(connection.open_stream()).await.is_err());
    assert!(within(connection.accept_stream()).await.is_err());
}

async fn streams_fail_when_the_connection_closes(kind: Kind) {
    let connection = connected(kind).await;
    let mut stream = open(&*connection, ECHO).await;
    within(stream.write_all(Bytes::from_static(b"x"))).await.unwrap();
    within(stream.read_chunk()).await.unwrap();
    let (read, ()) = join(within(stream.read_chunk()), connection.close()).await;
    assert!(read.is_err(), "{read:?}");
    drop(connection);
    assert!(within(stream.write_all(Bytes::from_static(b"y"))).await.is_err());
}

async fn server_that_is_killed_ends_the_connection(kind: Kind) {
    let server = Server::start().await;
    let connection = connect(kind, server.address(kind)).await;
    let stream = open(&*connection, ECHO).await;
    let transfer = exchange(stream, random(64 << 20));
    let kill = async {
        sleep(Duration::from_millis(300)).await;
        server.kill().await;
    };
    // UDP tells nobody: browsers find out by silence, after half a minute or so.
    let started = Instant::now();
    let limit = Duration::from_secs(90);
    let ((sent, back), ()) = timeout(limit, join(transfer, kill)).await.expect("the transfer ends");
    assert!(sent.is_err() && back.len() < 64 << 20, "{sent:?}");
    let left = limit.saturating_sub(started.elapsed());
    let reason = timeout(left, connection.closed()).await.expect("the connection ends");
    assert!(!matches!(*reason, ConnectionError::ClosedLocally), "{reason}");
}

#[wasm_bindgen_test]
async fn certificate_that_the_address_does_not_name_is_refused() {
    let server = Server::shared().await;
    for kind in [Kind::WebTransport, Kind::WebRtcDirect] {
        let right = server.address(kind);
        let wrong = Protocol::Certhash(Multihash::sha2_256([7; 32]));
        let replaced = right.protocols().map(|protocol| match protocol {
            Protocol::Certhash(_) => wrong.clone(),
            other => other,
        });
        let address = Multiaddr::from_protocols(replaced);
        assert!(within(kind.transport().dial(address)).await.is_err());
    }
    // One that the server has never heard of, beside the right one: the browser connects, so the peer must know it.
    let right = server.address(Kind::WebTransport);
    let added = right.without_peer_id().with(Protocol::Certhash(Multihash::sha2_256([7; 32])));
    match within(Kind::WebTransport.transport().dial(added)).await {
        Err(DialError::Handshake { source: HandshakeError::Certificate(_), .. }) => {}
        other => panic!("{:?}", other.err()),
    }
}

#[wasm_bindgen_test]
async fn addresses_of_others_are_not_dialed() {
    let certhash = Protocol::Certhash(Multihash::sha2_256([7; 32])).to_string();
    let peer = Keypair::generate().peer_id();
    for (address, dialed_by) in [
        ("/ip4/127.0.0.1/tcp/1".to_owned(), None),
        ("/ip4/127.0.0.1/udp/1/quic-v1".to_owned(), None),
        ("/ip4/127.0.0.1/udp/1/quic-v1/webtransport".to_owned(), Some(Kind::WebTransport)),
        (format!("/dns/example.org/udp/1/quic-v1/webtransport{certhash}"), Some(Kind::WebTransport)),
        (
            format!("/ip6/::1/udp/1/quic-v1/webtransport{certhash}{certhash}/p2p/{peer}"),
            Some(Kind::WebTransport),
        ),
        (format!("/ip4/1.2.3.4/udp/1/quic-v1/webtransport/p2p/{peer}/p2p-circuit"), None),
        ("/ip4/127.0.0.1/udp/1/webrtc-direct".to_owned(), None),
        (format!("/ip4/127.0.0.1/udp/1/webrtc-direct{certhash}"), Some(Kind::WebRtcDirect)),
        ("/ip4/127.0.0.1/tcp/1/ws".to_owned(), Some(Kind::WebSocket)),
        ("/dns6/example.org/tcp/1/tls/ws".to_owned(), Some(Kind::WebSocket)),
        (format!("/ip4/1.2.3.4/tcp/1/tls/sni/example.org/ws/p2p/{peer}"), Some(Kind::WebSocket)),
        ("/dns4/example.org/tcp/1/wss".to_owned(), Some(Kind::WebSocket)),
        (format!("/dns4/example.org/tcp/1/wss/p2p/{peer}/p2p-circuit/p2p/{peer}"), None),
    ] {
        let parsed: Multiaddr = address.parse().unwrap();
        for kind in Kind::ALL {
            assert_eq!(kind.transport().can_dial(&parsed), dialed_by == Some(kind), "{address}");
            assert!(!kind.transport().can_listen(&parsed));
        }
    }
}

/// Writes `data` and closes, while reading up to the end or an error.
async fn exchange(
    mut stream: peerloom_core::NegotiatedStream,
    data: Vec<u8>,
) -> (Result<(), String>, Vec<u8>) {
    let mut rest = Bytes::from(data);
    let mut sent = None;
    let mut back = Vec::new();
    std::future::poll_fn(move |cx| {
        use peerloom_core::Stream as _;
        use std::task::Poll;
        while sent.is_none() {
            let closing = rest.is_empty();
            let step = if closing { stream.poll_close_write(cx) } else { stream.poll_write(cx, &mut rest) };
            match step {
                Poll::Ready(Ok(())) if !closing => {}
                Poll::Ready(outcome) => sent = Some(outcome.map_err(|error| error.to_string())),
                Poll::Pending => break,
            }
        }
        loop {
            match stream.poll_read(cx) {
                Poll::Ready(Ok(Some(chunk))) => back.extend_from_slice(&chunk),
                Poll::Ready(Ok(None)) if sent.is_none() => return Poll::Pending,
                Poll::Ready(end) => {
                    let failed = end.err().map(|error| Err(error.to_string()));
                    let sent = failed.or(sent.take()).unwrap_or(Ok(()));
                    return Poll::Ready((sent, std::mem::take(&mut back)));
                }
                Poll::Pending => return Poll::Pending,
            }
        }
    })
    .await
}

async fn assert_echoes(connection: &dyn peerloom_core::Connection) {
    let mut stream = open(connection, ECHO).await;
    within(stream.write_all(Bytes::from_static(b"hello"))).await.unwrap();
    within(stream.close_write()).await.unwrap();
    assert_eq!(read_to_end(&mut stream).await, b"hello");
}

fn with_port(address: &Multiaddr, port: u16) -> Multiaddr {
    Multiaddr::from_protocols(address.protocols().map(|protocol| match protocol {
        Protocol::Tcp(_) => Protocol::Tcp(port),
        Protocol::Udp(_) => Protocol::Udp(port),
        other => other,
    }))
}

fn random(length: usize) -> Vec<u8> {
    // getrandom takes at most 64 KiB at a time from some browsers; one block many times over is as good here.
    let mut block = [0; 4099];
    getrandom::fill(&mut block).unwrap();
    block.iter().copied().cycle().take(length).collect()
}
