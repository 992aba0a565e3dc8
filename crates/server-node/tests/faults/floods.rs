//! More than anybody has use for, and nothing that belongs here.

use std::{net::SocketAddr, time::Duration};

use aws_lc_rs::{hmac, rand};
use peerloom_core::runtime::{Task, spawn};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpStream, UdpSocket},
};

use crate::{
    honest::{Regulars, assert_open_to_newcomers},
    usage::Victim,
};

/// Sends what `datagram` makes to the server, some thousand a second, each from a source that was not seen before.
fn flood(server: SocketAddr, datagram: impl Fn(usize) -> Vec<u8> + Send + 'static) -> Task {
    spawn(async move {
        for number in 0_usize.. {
            let [high, low] = u16::try_from(number % 65_000).unwrap().to_be_bytes();
            // Of a thousand networks, as far as the server can tell.
            let source = SocketAddr::from(([127, 1 + high % 4, low, 1 + high / 4], 0));
            let socket = UdpSocket::bind(source).await.unwrap();
            let _ = socket.send_to(&datagram(number), server).await;
            if number % 50 == 0 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    })
}

async fn assert_survived(fault: &'static str, datagram: impl Fn(usize) -> Vec<u8> + Send + 'static) {
    let mut victim = Victim::start(fault);
    let addresses = victim.addresses();
    let regulars = Regulars::connect(&addresses).await;
    victim.settle();
    let flood = flood(([127, 0, 0, 1], victim.port).into(), datagram);
    tokio::time::sleep(Duration::from_secs(3)).await;
    victim.assert_holds("during", 64, 16);
    assert_open_to_newcomers(&addresses).await;
    victim.assert_holds("during, later", 64, 16);
    regulars.assert_served().await;
    drop(flood);
    assert_open_to_newcomers(&addresses).await;
    victim.assert_recovers(Duration::from_secs(15)).await;
    regulars.assert_served().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stun_from_ever_new_sources_leaves_room_for_others() {
    assert_survived("STUN flood", |number| {
        // What a browser's first check says, in either version, and one that proves nothing.
        let random = hex(&random(12));
        match number % 3 {
            0 => {
                let fragment = format!("libp2p+webrtc+v2/{random}");
                check(&format!("{fragment}:{}", hex(&self::random(4))), &fragment)
            }
            1 => {
                let fragment = format!("libp2p+webrtc+v1/{random}");
                check(&format!("{fragment}:{fragment}"), &fragment)
            }
            _ => check(&format!("libp2p+webrtc+v2/{random}:{random}"), "no idea"),
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_in_datagrams_is_survived() {
    // QUIC's long header with a version, an unknown version, version negotiation and a short header; DTLS; STUN.
    const BEGINNINGS: [&[u8]; 8] = [
        b"\xc3\x00\x00\x00\x01\x08",
        b"\xc3\xfa\xce\xb0\x0c\x08",
        b"\x80\x00\x00\x00\x00\x08",
        b"\x41",
        b"\x16\xfe\xfd\x00\x00",
        b"\x17\xfe\xfd\x00\x01",
        b"\x00\x01\x00\x40\x21\x12\xa4\x42",
        b"",
    ];
    assert_survived("garbage in datagrams", |number| {
        let rest = random(number * 37 % 1400);
        [BEGINNINGS[number % BEGINNINGS.len()], &rest].concat()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_in_sockets_is_survived() {
    const BEGINNINGS: [&[u8]; 8] = [
        b"",
        b"\x13/multistream/1.0.0\n",
        b"\x13/multistream/1.0.0\n\x07/noise\n\x00\x20",
        b"\x13/multistream/1.0.0\n\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
        b"\x00\x20",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET / HTTP/1.1\r\n",
        b"GET /\x00",
    ];
    let mut victim = Victim::start("garbage in sockets");
    let addresses = victim.addresses();
    let regulars = Regulars::connect(&addresses).await;
    victim.settle();
    let port = victim.port;
    let dialer = |number: usize| async move {
        for round in number.. {
            let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)).await else { continue };
            let garbage = [BEGINNINGS[round % BEGINNINGS.len()], &random(round * 53 % 20_000)].concat();
            let _ = stream.write_all(&garbage).await;
            let _ = stream.shutdown().await;
            // Up to the server's end; it must come.
            let mut answer = Vec::new();
            let end = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut answer)).await;
            assert!(end.is_ok(), "{:?}", BEGINNINGS[round % BEGINNINGS.len()]);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let flood: Vec<Task> = (0..64).map(|number| spawn(dialer(number))).collect();
    tokio::time::sleep(Duration::from_secs(3)).await;
    victim.assert_holds("during", 64, 160);
    assert_open_to_newcomers(&addresses).await;
    victim.assert_holds("during, later", 64, 160);
    regulars.assert_served().await;
    assert!(flood.iter().all(|task| !task.is_finished()), "a dialer was left without an end");
    drop(flood);
    victim.assert_recovers(Duration::from_secs(15)).await;
    regulars.assert_served().await;
}

fn random(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    rand::fill(&mut bytes).unwrap();
    bytes
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A connectivity check (RFC 8489, RFC 8445) with this user name, authenticated with this password.
fn check(username: &str, password: &str) -> Vec<u8> {
    const USERNAME: u16 = 0x0006;
    const MESSAGE_INTEGRITY: u16 = 0x0008;
    const PRIORITY: u16 = 0x0024;
    const ICE_CONTROLLING: u16 = 0x802a;
    let mut message = [&b"\x00\x01\x00\x00\x21\x12\xa4\x42"[..], &random(12)].concat();
    let attribute = |message: &mut Vec<u8>, kind: u16, value: &[u8]| {
        message.extend(kind.to_be_bytes());
        message.extend(u16::try_from(value.len()).unwrap().to_be_bytes());
        message.extend(value);
        message.resize(message.len().next_multiple_of(4), 0);
    };
    attribute(&mut message, USERNAME, username.as_bytes());
    attribute(&mut message, ICE_CONTROLLING, &random(8));
    attribute(&mut message, PRIORITY, &[110, 0, 255, 255]);
    // Signed as if the message ended with the signature, of 4 + 20 bytes; the fingerprint may be left out.
    let length = u16::try_from(message.len() - 20 + 24).unwrap();
    message[2..4].copy_from_slice(&length.to_be_bytes());
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, password.as_bytes());
    let tag = hmac::sign(&key, &message);
    attribute(&mut message, MESSAGE_INTEGRITY, tag.as_ref());
    message
}
