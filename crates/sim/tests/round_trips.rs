//! What a dial costs, in round trips on a clock that nothing but the latency of the network moves.
//!
//! The libp2p roadmap's two optimisations are that both sides name their muxers in the security handshake, and that an
//! address names the security protocol. A dialer that waits for every answer saves a round trip with each; ours waits for
//! none of these, and is left with the one that proves who the remote is.

// Allowed in tests; clippy takes only the functions marked as such for tests.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::time::Duration;

use peerloom_core::{
    Connection, Keypair, ListenerEvent, Multiaddr, StreamExt as _, Transport,
    multistream_select::dial_pipe,
    runtime::{Task, spawn},
};
use peerloom_sim::{Network, Pipe};
use peerloom_upgrade::{
    Role, Upgrader,
    noise::{Handshake, NoiseExtensions, Randomness},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::Instant,
};

const LATENCY: Duration = Duration::from_millis(500);
/// Sent in clear by a dialer that waits, before and inside of Noise.
const HEADER_AND_YAMUX: &[u8] = b"\x13/multistream/1.0.0\n\x0d/yamux/1.0.0\n";

fn round_trips(since: Instant) -> u128 {
    let elapsed = since.elapsed().as_millis();
    // Timers have a granularity of a millisecond, and there are a few of them.
    let (count, rest) = ((elapsed + 10) / 1000, (elapsed + 10) % 1000);
    assert!(rest <= 20, "{elapsed} ms are no whole number of round trips");
    count
}

/// A dialer that waits for each answer before it goes on, until it could open a stream.
async fn patient_dial(named_security: bool, early_muxer: bool) -> u128 {
    let (mut pipe, theirs) = Network::new(LATENCY).pipes();
    let address: Multiaddr = "/memory/1".parse().unwrap();
    let listener = Upgrader::new(Keypair::generate());
    let _accepting = spawn(async move {
        let _connection = listener.accept(theirs, address).await.unwrap();
        std::future::pending::<()>().await;
    });
    let start = Instant::now();
    if !named_security {
        dial_pipe(&mut pipe, &["/noise".parse().unwrap()]).await.unwrap();
    }
    let stream_muxers = if early_muxer { vec!["/yamux/1.0.0".parse().unwrap()] } else { Vec::new() };
    let extensions = NoiseExtensions { stream_muxers, ..NoiseExtensions::default() };
    let randomness = Randomness { static_key: [1; 32], ephemeral_key: [2; 32] };
    let mut handshake =
        Handshake::new(Role::Initiator, &Keypair::generate(), b"", &extensions, randomness).unwrap();
    pipe.write_all(&handshake.next_message().unwrap().unwrap()).await.unwrap();
    let answer = frame(&mut pipe).await;
    let claim = handshake.receive(&answer).unwrap().unwrap();
    claim.verify().await.unwrap();
    pipe.write_all(&handshake.next_message().unwrap().unwrap()).await.unwrap();
    let (mut sealing, mut opening) = handshake.ciphers().unwrap();
    if !early_muxer {
        let mut sealed = [HEADER_AND_YAMUX, &[0; 16]].concat();
        sealing.seal_in_place(b"", &mut sealed).unwrap();
        pipe.write_u16(sealed.len() as u16).await.unwrap();
        pipe.write_all(&sealed).await.unwrap();
        let mut answer = Vec::new();
        while answer.len() < HEADER_AND_YAMUX.len() {
            answer.extend(opening.open(b"", &frame(&mut pipe).await).unwrap());
        }
        assert_eq!(answer, HEADER_AND_YAMUX);
    }
    round_trips(start)
}

async fn frame(pipe: &mut Pipe) -> Vec<u8> {
    let mut frame = vec![0; usize::from(pipe.read_u16().await.unwrap())];
    pipe.read_exact(&mut frame).await.unwrap();
    frame
}

/// A listening host, and a connection to `/memory/7<named>` with what it cost after the link itself, which takes one.
async fn our_dial(named: &str) -> (u128, Box<dyn Connection>, Task) {
    let network = Network::new(LATENCY);
    let server = network.transport(Keypair::generate());
    let mut listener = server.listen("/memory/7".parse().unwrap()).await.unwrap();
    let host = spawn(async move {
        let Ok(ListenerEvent::Incoming(incoming)) = listener.next().await else { panic!("no dialer") };
        let connection = incoming.handshake.await.unwrap();
        let mut stream = connection.accept_stream().await.unwrap().into_io();
        let byte = stream.read_u8().await.unwrap();
        stream.write_u8(byte).await.unwrap();
        stream.flush().await.unwrap();
        std::future::pending::<()>().await;
    });
    let start = Instant::now();
    let address: Multiaddr = format!("/memory/7{named}").parse().unwrap();
    let connection = network.transport(Keypair::generate()).dial(address).await.unwrap();
    (round_trips(start) - 1, connection, host)
}

#[tokio::test(start_paused = true)]
async fn a_patient_dialer_saves_one_with_each_optimisation() {
    assert_eq!(patient_dial(false, false).await, 3);
    assert_eq!(patient_dial(false, true).await, 2);
    assert_eq!(patient_dial(true, false).await, 2);
    assert_eq!(patient_dial(true, true).await, 1);
}

#[tokio::test(start_paused = true)]
async fn ours_takes_one_whatever_the_address_says_and_one_more_for_the_first_answer() {
    for named in ["", "/noise", "/tls"] {
        let (cost, connection, _host) = our_dial(named).await;
        assert_eq!(cost, 1, "{named}");
        let start = Instant::now();
        let mut stream = connection.open_stream().await.unwrap().into_io();
        stream.write_u8(7).await.unwrap();
        stream.flush().await.unwrap();
        assert_eq!(stream.read_u8().await.unwrap(), 7);
        assert_eq!(round_trips(start), 1, "{named}");
    }
}
