//! What QUIC costs in round trips, on a clock that nothing but the latency of the way between two sockets moves.

// The whole file is tests; clippy takes only the functions marked as such for those.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use common::{Server, echo, port};
use peerloom_core::{
    Keypair, StreamExt as _, Transport as _,
    runtime::{Task, spawn},
};
use peerloom_quic::{QuicConfig, QuicTransport};
use peerloom_upgrade::tls::{ALPN, KeyExchange, PeerVerifier, TlsIdentity};
use quinn::crypto::rustls::QuicClientConfig;
use tokio::{
    net::UdpSocket,
    sync::mpsc,
    time::{Instant, sleep_until},
};

const LATENCY: Duration = Duration::from_millis(100);

fn localhost(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

fn transport(key_exchange: KeyExchange) -> QuicTransport {
    let config = QuicConfig::default().with_key_exchange(key_exchange);
    QuicTransport::new(Keypair::generate(), config).unwrap()
}

async fn serve() -> Server {
    let transport = transport(KeyExchange::Classical);
    Server::new(transport.listen("/ip4/127.0.0.1/udp/0/quic-v1".parse().unwrap()).await.unwrap())
}

/// A way to a server on which every datagram takes [`LATENCY`].
struct Way {
    address: SocketAddr,
    retries: Arc<AtomicUsize>,
    _task: Task,
}

impl Way {
    async fn to(server: SocketAddr) -> Self {
        let front = Arc::new(UdpSocket::bind(localhost(0)).await.unwrap());
        let back = Arc::new(UdpSocket::bind(localhost(0)).await.unwrap());
        let address = front.local_addr().unwrap();
        let retries = Arc::new(AtomicUsize::new(0));
        let counted = retries.clone();
        let task = spawn(async move {
            let (there, back_again) = (late(back.clone()), late(front.clone()));
            let mut client = None;
            let [mut asked, mut answered] = [[0; 2000]; 2];
            loop {
                tokio::select! {
                    Ok((length, from)) = front.recv_from(&mut asked) => {
                        client = Some(from);
                        there.0.send((Instant::now(), server, asked[..length].to_vec())).await.unwrap();
                    }
                    Ok((length, _)) = back.recv_from(&mut answered) => {
                        // RFC 9000, section 17.2.5: a long header of the type Retry.
                        if answered[0] & 0xf0 == 0xf0 {
                            counted.fetch_add(1, Ordering::Relaxed);
                        }
                        let datagram = answered[..length].to_vec();
                        back_again.0.send((Instant::now(), client.unwrap(), datagram)).await.unwrap();
                    }
                }
            }
        });
        Self { address, retries, _task: task }
    }

    fn multiaddr(&self) -> peerloom_core::Multiaddr {
        format!("/ip4/127.0.0.1/udp/{}/quic-v1", self.address.port()).parse().unwrap()
    }
}

type Late = mpsc::Sender<(Instant, SocketAddr, Vec<u8>)>;

/// Sends what it is given [`LATENCY`] later.
fn late(socket: Arc<UdpSocket>) -> (Late, Task) {
    let (sender, mut waiting): (Late, _) = mpsc::channel(1024);
    let task = spawn(async move {
        while let Some((since, to, datagram)) = waiting.recv().await {
            sleep_until(since + LATENCY).await;
            socket.send_to(&datagram, to).await.unwrap();
        }
    });
    (sender, task)
}

fn round_trips(since: Instant) -> u128 {
    let elapsed = since.elapsed().as_millis();
    let round_trip = 2 * LATENCY.as_millis();
    // Timers have a granularity of a millisecond, and acknowledgements are not waited for.
    assert!(elapsed % round_trip <= 40, "{elapsed} ms are no whole number of round trips");
    elapsed / round_trip
}

/// Who asks gets the first answer one round trip after the stream was opened, which itself waits for nothing.
async fn assert_stream_costs_one(
    connection: &dyn peerloom_core::Connection,
    accepted: &dyn peerloom_core::Connection,
) {
    let asking = async {
        let start = Instant::now();
        let mut stream = connection.open_stream().await.unwrap();
        stream.write_all(Bytes::from_static(b"ping")).await.unwrap();
        assert_eq!(round_trips(start), 0);
        assert_eq!(stream.read_chunk().await.unwrap().unwrap(), "ping");
        assert_eq!(round_trips(start), 1);
        stream.close_write().await.unwrap();
        assert_eq!(stream.read_chunk().await.unwrap(), None);
    };
    tokio::join!(asking, echo(accepted));
}

#[tokio::test(start_paused = true)]
async fn a_dial_costs_one_and_a_stream_one_more_for_the_first_answer() {
    for key_exchange in [KeyExchange::Classical, KeyExchange::PostQuantum] {
        let mut server = serve().await;
        let way = Way::to(localhost(port(&server.address))).await;
        let start = Instant::now();
        let connection = transport(key_exchange).dial(way.multiaddr()).await.unwrap();
        assert_eq!(round_trips(start), 1, "{key_exchange:?}");
        let accepted = server.accept().await;
        for _ in 0..3 {
            assert_stream_costs_one(&*connection, &*accepted).await;
        }
        assert_eq!(way.retries.load(Ordering::Relaxed), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn under_load_a_dialer_proves_its_address_for_one_more() {
    let mut server = serve().await;
    let address = localhost(port(&server.address));
    let way = Way::to(address).await;
    // Handshakes that begin and go no further.
    let identity = TlsIdentity::new(&Keypair::generate(), KeyExchange::Classical).unwrap();
    let tls = identity.client(&[ALPN], Arc::new(PeerVerifier::new(None)));
    let config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()));
    let mut endpoint = quinn_proto::Endpoint::new(Arc::default(), None, false, None);
    let socket = UdpSocket::bind(localhost(0)).await.unwrap();
    for _ in 0..100 {
        let now = Instant::now().into_std();
        let (_, mut connection) = endpoint.connect(now, config.clone(), address, "x").unwrap();
        let mut packet = Vec::new();
        let _ = connection.poll_transmit(now, 1, &mut packet).unwrap();
        socket.send_to(&packet, address).await.unwrap();
        tokio::task::yield_now().await;
    }
    let start = Instant::now();
    let connection = transport(KeyExchange::Classical).dial(way.multiaddr()).await.unwrap();
    assert_eq!(way.retries.load(Ordering::Relaxed), 1);
    assert_eq!(round_trips(start), 2);
    let accepted = server.accept().await;
    assert_stream_costs_one(&*connection, &*accepted).await;

    // Once they have timed out, it costs one again.
    tokio::time::sleep(Duration::from_secs(15)).await;
    let start = Instant::now();
    let _again = transport(KeyExchange::Classical).dial(way.multiaddr()).await.unwrap();
    assert_eq!(round_trips(start), 1);
    assert_eq!(way.retries.load(Ordering::Relaxed), 1);
}
