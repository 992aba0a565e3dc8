//! Pages that find each other through a server and become peers of each other. Here they are one page.

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
use common::{
    ECHO, ECHO_DIGEST, Kind, Server,
    pages::{self, Page},
    read_to_end, within,
};
use futures_util::future::join;
use peerloom_core::{
    Keypair, Multiaddr, StreamExt as _,
    multihash::sha2_256,
    runtime::{Instant, sleep, timeout},
};
use peerloom_node::{Node, NodeEvent};
use peerloom_wasm::transports::BrowserPeerConnections;
use peerloom_webrtc_signaling::{PeerConnectionEvent, PeerConnectionFactory as _, SignalingRole};
use wasm_bindgen_test::{console_log, wasm_bindgen_test, wasm_bindgen_test_configure};

wasm_bindgen_test_configure!(run_in_browser);

/// In each of which a dial must succeed.
const DIALS: usize = 50;

#[wasm_bindgen_test]
async fn a_page_dials_another_directly() {
    let server = Server::shared().await;
    let (dialer, listener) = (Page::new(), Page::listening(&server).await);
    let connection = within(dialer.node.dial(listener.address())).await.unwrap();
    assert!(connection.is_direct());
    assert_eq!(connection.peer, listener.node.peer_id());
    assert!(connection.remote_address.to_string().ends_with("/p2p-circuit/webrtc"));
    assert_echoes(&dialer.node, &listener.node).await;
    assert_echoes(&listener.node, &dialer.node).await;
    let data = vec![7; 1 << 20];
    let mut stream = within(dialer.node.open_stream(listener.node.peer_id(), &[ECHO_DIGEST])).await.unwrap();
    for chunk in data.chunks(1 << 14) {
        within(stream.write_all(Bytes::copy_from_slice(chunk))).await.unwrap();
    }
    within(stream.close_write()).await.unwrap();
    let back = read_to_end(&mut stream).await;
    assert!(back.starts_with(&data) && back.ends_with(&sha2_256(&data)));
}

#[wasm_bindgen_test]
async fn the_relayed_connection_goes_when_the_direct_one_has_come() {
    let server = Server::shared().await;
    let (dialer, listener) = (Page::new(), Page::listening(&server).await);
    within(dialer.node.dial(listener.address())).await.unwrap();
    let gone = async {
        while [&dialer, &listener].iter().any(|page| page.relayed_connections() > 0) {
            sleep(Duration::from_millis(100)).await;
        }
    };
    within(gone).await;
    assert_echoes(&dialer.node, &listener.node).await;
}

#[wasm_bindgen_test]
async fn a_relayed_connection_is_upgraded_by_itself() {
    let server = Server::shared().await;
    let (dialer, listener) = (Page::new(), Page::listening(&server).await);
    let mut events = dialer.node.events();
    let relayed = within(dialer.node.dial(listener.relayed_address())).await.unwrap();
    assert!(!relayed.is_direct());
    let upgraded = async {
        loop {
            if let Some(NodeEvent::ConnectionUpgraded { direct, .. }) = events.next().await {
                return direct;
            }
        }
    };
    assert!(within(upgraded).await.is_direct());
    assert_echoes(&dialer.node, &listener.node).await;
}

#[wasm_bindgen_test]
async fn pages_that_dial_each_other_at_once_are_both_served() {
    let server = Server::shared().await;
    let (one, other) = (Page::listening(&server).await, Page::listening(&server).await);
    for _ in 0..10 {
        let both = join(one.node.dial(other.address()), other.node.dial(one.address()));
        let (there, back) = within(both).await;
        assert!(there.unwrap().is_direct() && back.unwrap().is_direct());
        assert_echoes(&one.node, &other.node).await;
        assert_echoes(&other.node, &one.node).await;
        within(join(one.node.disconnect(other.node.peer_id()), other.node.disconnect(one.node.peer_id())))
            .await;
    }
}

#[wasm_bindgen_test]
async fn no_dial_of_many_in_a_row_fails() {
    let server = Server::shared().await;
    let listener = Page::listening(&server).await;
    let mut times = Vec::new();
    for _ in 0..DIALS {
        let dialer = Page::new();
        within(dialer.node.dial(server.address(Kind::WebSocket))).await.unwrap();
        let started = Instant::now();
        within(dialer.node.dial(listener.address())).await.unwrap();
        times.push(started.elapsed());
        assert_echoes(&dialer.node, &listener.node).await;
        within(dialer.node.close()).await;
    }
    times.sort();
    console_log!("dial to direct connection: median {:?}, worst {:?}", times[DIALS / 2], times[DIALS - 1]);
}

#[wasm_bindgen_test]
async fn a_stream_that_is_opened_before_the_other_page_looks_is_not_lost() {
    let (dialer, mut listener) = within(pages::dialed()).await;
    let mut stream = within(dialer.open_stream()).await.unwrap();
    within(stream.write_all(Bytes::from_static(b"early"))).await.unwrap();
    sleep(Duration::from_millis(500)).await;
    while !matches!(within(listener.next()).await, PeerConnectionEvent::Connected) {}
    let listener = pages::into_connection(listener);
    // And the channel that was there before it is not taken for a stream.
    let mut accepted = within(listener.accept_stream()).await.unwrap();
    assert_eq!(within(accepted.read_chunk()).await.unwrap().as_deref(), Some(&b"early"[..]));
    assert!(timeout(Duration::from_millis(500), listener.accept_stream()).await.is_err());
}

#[wasm_bindgen_test]
async fn a_description_of_anything_but_data_is_refused() {
    let factory = BrowserPeerConnections::new(Vec::new());
    let offer = within(factory.create(SignalingRole::Offerer).unwrap().create_offer()).await.unwrap();
    let audio = "m=audio 9 UDP/TLS/RTP/SAVPF 111\r\nc=IN IP4 0.0.0.0\r\na=mid:1\r\n";
    for wrong in
        [offer.clone() + audio, "nonsense".to_owned(), String::new(), offer[..offer.len() / 2].to_owned()]
    {
        let mut listener = factory.create(SignalingRole::Answerer).unwrap();
        within(listener.accept_offer(wrong)).await.unwrap_err();
    }
    let mut listener = factory.create(SignalingRole::Answerer).unwrap();
    within(listener.accept_offer(offer)).await.unwrap();
    // To browsers an array is a candidate without properties; but none of these may throw.
    for wrong in ["", "{", "7", "[]", r#"{"candidate":"nonsense","sdpMid":"0"}"#, r#"{"candidate":5}"#] {
        let outcome = within(listener.add_candidate(wrong.to_owned())).await;
        assert!(outcome.is_err() || wrong == "[]", "{wrong}");
    }
}

#[wasm_bindgen_test]
async fn a_close_is_noticed_by_the_other_page() {
    let server = Server::shared().await;
    let (dialer, listener) = (Page::new(), Page::listening(&server).await);
    for closing in [&dialer, &listener] {
        let other = if std::ptr::eq(closing, &dialer) { &listener } else { &dialer };
        let direct = within(dialer.node.dial(listener.address())).await.unwrap();
        assert_echoes(&dialer.node, &listener.node).await;
        let mut events = other.node.events();
        let closed = async {
            loop {
                if let Some(NodeEvent::ConnectionClosed { connection, reason, .. }) = events.next().await
                    && connection.remote_address.to_string().ends_with("/webrtc")
                {
                    return reason;
                }
            }
        };
        let (reason, ()) = within(join(closed, closing.node.disconnect(other.node.peer_id()))).await;
        assert!(matches!(*reason, peerloom_core::ConnectionError::ClosedByRemote), "{direct:?}: {reason}");
        other.node.disconnect(closing.node.peer_id()).await;
    }
}

#[wasm_bindgen_test]
async fn a_page_that_goes_away_in_the_middle_fails_the_dial_and_nothing_else() {
    let server = Server::shared().await;
    for after in [0, 20, 50, 100, 200] {
        let (dialer, listener) = (Page::new(), Page::listening(&server).await);
        let address = listener.address();
        let leave = async {
            sleep(Duration::from_millis(after)).await;
            drop(listener);
        };
        // Whether it came to a connection or not: there is an outcome within the deadlines.
        let (outcome, ()) = within(join(dialer.node.dial(address), leave)).await;
        if let Err(error) = outcome {
            assert!(error.to_string().contains("WebRTC, step"), "{error}");
        }
    }
}

#[wasm_bindgen_test]
async fn the_direct_connection_outlives_the_relay() {
    let server = Server::start().await;
    let (dialer, listener) = (Page::new(), Page::listening(&server).await);
    let (address, relayed) = (listener.address(), listener.relayed_address());
    within(dialer.node.dial(address.clone())).await.unwrap();
    server.kill().await;
    sleep(Duration::from_secs(1)).await;
    assert_echoes(&dialer.node, &listener.node).await;
    // Without the relay nobody else finds the way, and is told so.
    let late = Page::new();
    let error = within(late.node.dial(address)).await.unwrap_err().to_string();
    assert!(error.contains("relayed connection"), "{error}");
    within(late.node.dial(relayed)).await.unwrap_err();
}

#[wasm_bindgen_test]
async fn a_page_that_is_not_there_is_told_at_once() {
    let server = Server::shared().await;
    let dialer = Page::new();
    let nobody = Keypair::generate().peer_id();
    let address = format!("{}/p2p-circuit/webrtc/p2p/{nobody}", server.address(Kind::WebSocket));
    let started = Instant::now();
    let dialed = dialer.node.dial(address.parse::<Multiaddr>().unwrap());
    let error = within(dialed).await.unwrap_err().to_string();
    assert!(error.contains("relayed connection"), "{error}");
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
}

#[wasm_bindgen_test]
async fn a_stun_server_that_does_not_answer_costs_nothing() {
    let server = Server::shared().await;
    let listener = Page::listening(&server).await;
    let dialer = Page::with_ice_servers(vec!["stun:192.0.2.1:3478".to_owned()]);
    let dial = timeout(Duration::from_secs(5), dialer.node.dial(listener.address()));
    assert!(dial.await.unwrap().unwrap().is_direct());
    let wrong = Page::with_ice_servers(vec!["not a server".to_owned()]);
    let error = within(wrong.node.dial(listener.address())).await.unwrap_err();
    assert!(error.to_string().contains("offer and answer"), "{error}");
}

async fn assert_echoes(client: &Node, server: &Node) {
    let mut stream = within(client.open_stream(server.peer_id(), &[ECHO])).await.unwrap();
    within(stream.write_all(Bytes::from_static(b"hello"))).await.unwrap();
    within(stream.close_write()).await.unwrap();
    assert_eq!(read_to_end(&mut stream).await, b"hello");
}
