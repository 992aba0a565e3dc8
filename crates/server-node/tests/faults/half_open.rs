//! Ten thousand who begin to connect and leave it at that.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use peerloom_core::{
    Keypair,
    runtime::{Task, spawn},
};
use peerloom_upgrade::tls::{ALPN, KeyExchange, PeerVerifier, TlsIdentity};
use quinn::crypto::rustls::QuicClientConfig;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpSocket,
};

use crate::{
    honest::{Regulars, assert_open_to_newcomers},
    usage::{Victim, alone, sockets},
};

const DIALERS: usize = 10_000;
/// Of TCP: those that each of two listeners hears out, those whose handshakes are under way, and a few.
const DESCRIPTORS: usize = 2 * 256 + 128 + 16;

/// Dialers of TCP from a hundred addresses, of which the nth sends `first(n)` and then nothing. They come back when they are
/// turned away.
fn dialers(port: u16, count: usize, first: impl Fn(usize) -> Vec<u8>) -> Vec<Task> {
    let dialer = |number: usize| {
        let first = first(number);
        async move {
            let source = SocketAddr::from(([127, 0, 1, (number % 100) as u8], 0));
            loop {
                let socket = TcpSocket::new_v4().unwrap();
                socket.bind(source).unwrap();
                if let Ok(mut stream) = socket.connect(([127, 0, 0, 1], port).into()).await
                    && stream.write_all(&first).await.is_ok()
                {
                    let mut ignored = [0; 1024];
                    while stream.read(&mut ignored).await.is_ok_and(|length| length > 0) {}
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    };
    (0..count).map(|number| spawn(dialer(number))).collect()
}

async fn assert_survived(fault: &'static str, first: impl Fn(usize) -> Vec<u8>) {
    let _alone = alone().await;
    let mut victim = Victim::start(fault);
    let addresses = victim.addresses();
    let regulars = Regulars::connect(&addresses).await;
    victim.settle();
    let dialers = dialers(victim.port, sockets(DIALERS), first);
    tokio::time::sleep(Duration::from_secs(2)).await;
    victim.assert_holds("during", 64, DESCRIPTORS);
    assert_open_to_newcomers(&addresses).await;
    victim.assert_holds("during, later", 64, DESCRIPTORS);
    regulars.assert_served().await;
    drop(dialers);
    victim.assert_recovers(Duration::from_secs(30)).await;
    assert_open_to_newcomers(&addresses).await;
    regulars.assert_served().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dialers_that_never_send_leave_room_for_others() {
    assert_survived("silent TCP", |_| Vec::new()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dialers_that_stall_in_any_handshake_leave_room_for_others() {
    let noise = [b"\x13/multistream/1.0.0\n\x07/noise\n\x00\x20".as_slice(), &[7; 32]].concat();
    let websocket = b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    let hello = client_hello();
    let halves =
        [noise, hello.clone(), websocket.to_vec(), b"GE".to_vec(), hello[..hello.len() / 2].to_vec()];
    assert_survived("stalled handshakes", move |number| halves[number % halves.len()].clone()).await;
}

/// What a dialer of `/tls` sends first.
fn client_hello() -> Vec<u8> {
    let identity = TlsIdentity::new(&Keypair::generate(), KeyExchange::PostQuantum).unwrap();
    let config = identity.client(&[b"/yamux/1.0.0", ALPN], Arc::new(PeerVerifier::new(None)));
    let name = "libp2p".try_into().unwrap();
    let mut client = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
    let mut hello = Vec::new();
    client.write_tls(&mut hello).unwrap();
    hello
}

/// The first packets of QUIC clients that never send another.
fn initials(server: SocketAddr, count: usize) -> Vec<Vec<u8>> {
    let identity = TlsIdentity::new(&Keypair::generate(), KeyExchange::Classical).unwrap();
    let tls = identity.client(&[ALPN], Arc::new(PeerVerifier::new(None)));
    let config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()));
    let mut endpoint = quinn_proto::Endpoint::new(Arc::default(), None, false, None);
    let now = std::time::Instant::now();
    let initial = |_| {
        let (_, mut connection) = endpoint.connect(now, config.clone(), server, "x").unwrap();
        let mut packet = Vec::new();
        let _ = connection.poll_transmit(now, 1, &mut packet).unwrap();
        packet
    };
    (0..count).map(initial).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn quic_clients_that_never_answer_leave_room_for_others() {
    let mut victim = Victim::start("half-open QUIC");
    let addresses = victim.addresses();
    let regulars = Regulars::connect(&addresses).await;
    let server = SocketAddr::from(([127, 0, 0, 1], victim.port));
    let initials = initials(server, DIALERS);
    victim.settle();
    let flood = spawn(async move {
        for (number, packet) in initials.iter().cycle().enumerate() {
            // Each from a port of its own, which nobody listens on when the answer comes.
            let source = SocketAddr::from(([127, 0, 1, (number % 100) as u8], 0));
            let socket = tokio::net::UdpSocket::bind(source).await.unwrap();
            let _ = socket.send_to(packet, server).await;
            // 4,000 a second.
            if number % 40 == 0 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    });
    tokio::time::sleep(Duration::from_secs(3)).await;
    victim.assert_holds("during", 64, 16);
    assert_open_to_newcomers(&addresses).await;
    victim.assert_holds("during, later", 64, 16);
    regulars.assert_served().await;
    drop(flood);
    victim.assert_recovers(Duration::from_secs(15)).await;
    assert_open_to_newcomers(&addresses).await;
    regulars.assert_served().await;
}
