//! Whole connections over a pipe in memory.

// Allowed in tests; clippy takes only the functions marked as such for tests.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use peerloom_core::{
    Connection, ConnectionError, HandshakeError, Keypair, Multiaddr, StreamError, StreamExt as _,
};
use peerloom_upgrade::{upgrade_inbound, upgrade_outbound};

const PIPE: usize = 64 * 1024;

fn address() -> Multiaddr {
    "/memory/1".parse().unwrap()
}

async fn connect(pipe: usize) -> (Arc<dyn Connection>, Arc<dyn Connection>) {
    let (dialer, listener) = (Keypair::generate(), Keypair::generate());
    let (ours, theirs) = tokio::io::duplex(pipe);
    let remote = address().with_peer_id(listener.peer_id());
    let (outbound, inbound) =
        tokio::join!(upgrade_outbound(ours, &dialer, remote), upgrade_inbound(theirs, &listener, address()));
    let (outbound, inbound): (Arc<dyn Connection>, Arc<dyn Connection>) =
        (outbound.unwrap().into(), inbound.unwrap().into());
    assert_eq!(outbound.remote_peer(), listener.peer_id());
    assert_eq!(inbound.remote_peer(), dialer.peer_id());
    (outbound, inbound)
}

#[tokio::test(start_paused = true)]
async fn bytes_travel_both_ways() {
    let (dialer, listener) = connect(PIPE).await;
    let mut stream = dialer.open_stream().await.unwrap();
    stream.write_all(Bytes::from_static(b"hello")).await.unwrap();
    stream.close_write().await.unwrap();
    let mut accepted = listener.accept_stream().await.unwrap();
    assert_eq!(accepted.read_chunk().await.unwrap().unwrap(), "hello");
    assert_eq!(accepted.read_chunk().await.unwrap(), None);
    accepted.write_all(Bytes::from_static(b"goodbye")).await.unwrap();
    accepted.close_write().await.unwrap();
    assert_eq!(stream.read_chunk().await.unwrap().unwrap(), "goodbye");
    assert_eq!(stream.read_chunk().await.unwrap(), None);
}

#[tokio::test(start_paused = true)]
async fn remote_that_is_another_peer_is_refused_and_does_not_learn_who_we_are() {
    let (dialer, listener, other) = (Keypair::generate(), Keypair::generate(), Keypair::generate());
    let (ours, theirs) = tokio::io::duplex(PIPE);
    let remote = address().with_peer_id(other.peer_id());
    let (outbound, inbound) =
        tokio::join!(upgrade_outbound(ours, &dialer, remote), upgrade_inbound(theirs, &listener, address()));
    let Err(HandshakeError::WrongPeer { expected, actual }) = outbound.map(|_| ()) else {
        panic!("wrong peer")
    };
    assert_eq!((expected, actual), (other.peer_id(), listener.peer_id()));
    assert!(matches!(inbound.map(|_| ()), Err(HandshakeError::Lost { step: "noise", .. })));
}

#[tokio::test(start_paused = true)]
async fn closing_is_seen_as_closed_by_the_remote_after_all_bytes() {
    let (dialer, listener) = connect(PIPE).await;
    let mut stream = dialer.open_stream().await.unwrap();
    let sent = Bytes::from(vec![7; 200_000]);
    stream.write_all(sent.clone()).await.unwrap();
    let reader = async {
        let mut accepted = listener.accept_stream().await.unwrap();
        let mut received = Vec::new();
        loop {
            match accepted.read_chunk().await {
                Ok(Some(chunk)) => received.extend_from_slice(&chunk),
                Ok(None) => panic!("the stream was not finished"),
                Err(StreamError::ConnectionLost(reason)) => break (received, reason),
                Err(error) => panic!("{error}"),
            }
        }
    };
    let ((), (received, reason)) = tokio::join!(dialer.close(), reader);
    assert_eq!(received, sent);
    assert!(matches!(*reason, ConnectionError::ClosedByRemote));
    assert!(matches!(*listener.closed().await, ConnectionError::ClosedByRemote));
    assert!(matches!(*dialer.closed().await, ConnectionError::ClosedLocally));
    assert!(
        matches!(dialer.open_stream().await.map(|_| ()).map_err(|e| e.to_string()), Err(e) if e == "closed by us")
    );
}

#[tokio::test(start_paused = true)]
async fn dropping_the_connection_tells_the_remote() {
    let (dialer, listener) = connect(PIPE).await;
    drop(dialer);
    assert!(matches!(*listener.closed().await, ConnectionError::ClosedByRemote));
}

#[tokio::test(start_paused = true)]
async fn silent_remote_is_given_up() {
    let (dialer, listener) = (Keypair::generate(), Keypair::generate());
    let (ours, mut near) = tokio::io::duplex(PIPE);
    let (mut far, theirs) = tokio::io::duplex(PIPE);
    let relay = tokio::io::copy_bidirectional(&mut near, &mut far);
    let handshakes = async {
        tokio::join!(
            upgrade_outbound(ours, &dialer, address()),
            upgrade_inbound(theirs, &listener, address())
        )
    };
    let (outbound, _inbound) = tokio::select! {
        _ = relay => panic!("the relay ended"),
        connections = handshakes => connections,
    };
    // From here on nothing is relayed.
    let begin = tokio::time::Instant::now();
    assert!(matches!(*outbound.unwrap().closed().await, ConnectionError::TimedOut));
    assert!(begin.elapsed() <= Duration::from_secs(61), "{:?}", begin.elapsed());
}

/// A remote that is made by hand: knows nothing of early muxer negotiation, as rust-libp2p, and breaks what it likes.
mod handmade {
    use peerloom_upgrade::{
        Role,
        noise::{CipherState, Handshake, NoiseExtensions, Randomness},
        yamux::{Flags, GoAwayCode, Header, StreamId},
    };
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

    use super::*;

    struct Remote {
        io: DuplexStream,
        sealing: CipherState,
        opening: CipherState,
        plaintext: Vec<u8>,
    }

    const HEADER: &[u8] = b"\x13/multistream/1.0.0\n";
    const NOISE: &[u8] = b"\x07/noise\n";
    const YAMUX: &[u8] = b"\x0d/yamux/1.0.0\n";
    const SYN: Flags = Flags { open: true, acknowledge: false, finish: false, reset: false };

    async fn expect(io: &mut DuplexStream, expected: &[u8]) {
        let mut actual = vec![0; expected.len()];
        io.read_exact(&mut actual).await.unwrap();
        assert_eq!(actual, expected);
    }

    impl Remote {
        async fn new(mut io: DuplexStream, role: Role, extensions: NoiseExtensions) -> Self {
            let randomness = Randomness { static_key: [5; 32], ephemeral_key: [6; 32] };
            let identity = Keypair::from_seed([3; 32]);
            let mut handshake = Handshake::new(role, &identity, b"", &extensions, randomness).unwrap();
            if role == Role::Responder {
                expect(&mut io, HEADER).await;
                expect(&mut io, NOISE).await;
            }
            io.write_all(HEADER).await.unwrap();
            io.write_all(NOISE).await.unwrap();
            if role == Role::Initiator {
                expect(&mut io, HEADER).await;
                expect(&mut io, NOISE).await;
            }
            loop {
                if let Some(message) = handshake.next_message().unwrap() {
                    io.write_all(&message).await.unwrap();
                }
                if let Ok((sealing, opening)) = handshake.ciphers() {
                    return Self { io, sealing, opening, plaintext: Vec::new() };
                }
                let mut message = vec![0; usize::from(io.read_u16().await.unwrap())];
                io.read_exact(&mut message).await.unwrap();
                handshake.receive(&message).unwrap();
            }
        }

        async fn send(&mut self, plaintext: &[u8]) {
            let mut message = [plaintext, &[0; 16]].concat();
            self.sealing.seal_in_place(b"", &mut message).unwrap();
            self.io.write_u16(message.len() as u16).await.unwrap();
            self.io.write_all(&message).await.unwrap();
        }

        async fn receive(&mut self, count: usize) -> Vec<u8> {
            while self.plaintext.len() < count {
                let mut message = vec![0; usize::from(self.io.read_u16().await.unwrap())];
                self.io.read_exact(&mut message).await.unwrap();
                self.plaintext.extend(self.opening.open(b"", &message).unwrap());
            }
            self.plaintext.drain(..count).collect()
        }

        async fn header(&mut self) -> Header {
            Header::decode(&self.receive(12).await.try_into().unwrap()).unwrap()
        }
    }

    fn id(number: u32) -> StreamId {
        StreamId::new(number).unwrap()
    }

    fn data(number: u32, flags: Flags, content: &[u8]) -> Vec<u8> {
        let header = Header::Data { id: id(number), flags, length: content.len() as u32 };
        [&header.encode()[..], content].concat()
    }

    #[tokio::test(start_paused = true)]
    async fn dialer_without_early_negotiation_sends_its_first_stream_along() {
        let (ours, theirs) = tokio::io::duplex(PIPE);
        let identity = Keypair::generate();
        let remote = async {
            let mut remote = Remote::new(theirs, Role::Initiator, NoiseExtensions::default()).await;
            remote.send(&[HEADER, YAMUX, &data(1, SYN, b"early")].concat()).await;
            assert_eq!(remote.receive(HEADER.len() + YAMUX.len()).await, [HEADER, YAMUX].concat());
            remote
        };
        let (connection, _remote) = tokio::join!(upgrade_inbound(ours, &identity, address()), remote);
        let connection = connection.unwrap();
        assert_eq!(connection.remote_peer(), Keypair::from_seed([3; 32]).peer_id());
        let mut stream = connection.accept_stream().await.unwrap();
        assert_eq!(stream.read_chunk().await.unwrap().unwrap(), "early");
    }

    #[tokio::test(start_paused = true)]
    async fn listener_without_early_negotiation_is_not_waited_for() {
        let (ours, theirs) = tokio::io::duplex(PIPE);
        let identity = Keypair::generate();
        let remote = Remote::new(theirs, Role::Responder, NoiseExtensions::default());
        let (connection, mut remote) = tokio::join!(upgrade_outbound(ours, &identity, address()), remote);
        let connection = connection.unwrap();
        let mut stream = connection.open_stream().await.unwrap();
        stream.write_all(Bytes::from_static(b"eager")).await.unwrap();
        let frame = data(1, SYN, b"eager");
        let expected = [HEADER, YAMUX, &frame].concat();
        assert_eq!(remote.receive(expected.len()).await, expected);
        remote.send(HEADER).await;
        remote.send(&[YAMUX, &data(2, SYN, b"early")].concat()).await;
        let mut stream = connection.accept_stream().await.unwrap();
        assert_eq!(stream.read_chunk().await.unwrap().unwrap(), "early");
    }

    #[tokio::test(start_paused = true)]
    async fn listener_without_yamux_ends_the_connection() {
        let (ours, theirs) = tokio::io::duplex(PIPE);
        let identity = Keypair::generate();
        let remote = Remote::new(theirs, Role::Responder, NoiseExtensions::default());
        let (connection, mut remote) = tokio::join!(upgrade_outbound(ours, &identity, address()), remote);
        remote.send(&[HEADER, b"\x03na\n"].concat()).await;
        let reason = connection.unwrap().closed().await;
        assert!(
            matches!(&*reason, ConnectionError::Protocol(reason) if reason.starts_with("no muxer")),
            "{reason}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn remote_with_other_muxers_only_is_refused() {
        let (ours, theirs) = tokio::io::duplex(PIPE);
        let identity = Keypair::generate();
        let mplex =
            NoiseExtensions { stream_muxers: vec!["/mplex/6.7.0".parse().unwrap()], ..Default::default() };
        let remote = Remote::new(theirs, Role::Initiator, mplex);
        let (connection, _remote) = tokio::join!(upgrade_inbound(ours, &identity, address()), remote);
        assert!(matches!(connection.map(|_| ()), Err(HandshakeError::NoCommonProtocol { .. })));
    }

    fn early() -> NoiseExtensions {
        NoiseExtensions { stream_muxers: vec!["/yamux/1.0.0".parse().unwrap()], ..Default::default() }
    }

    /// A connection of ours to a remote by hand.
    async fn connected() -> (Box<dyn Connection>, Remote) {
        let (ours, theirs) = tokio::io::duplex(PIPE);
        let identity = Keypair::generate();
        let remote = Remote::new(theirs, Role::Initiator, early());
        let (connection, remote) = tokio::join!(upgrade_inbound(ours, &identity, address()), remote);
        (connection.unwrap(), remote)
    }

    #[tokio::test(start_paused = true)]
    async fn remote_that_breaks_yamux_is_told_and_cut_off() {
        let (connection, mut remote) = connected().await;
        remote.send(&data(1, SYN, b"fine")).await;
        let mut stream = connection.accept_stream().await.unwrap();
        remote.send(&data(2, SYN, b"wrong side")).await;
        assert!(
            matches!(&*connection.closed().await, ConnectionError::Protocol(reason) if reason.contains("wrong side"))
        );
        assert_eq!(remote.header().await, Header::GoAway(GoAwayCode::ProtocolError));
        assert_eq!(stream.read_chunk().await.unwrap().unwrap(), "fine");
        assert!(matches!(stream.read_chunk().await, Err(StreamError::ConnectionLost(_))));
    }

    #[tokio::test(start_paused = true)]
    async fn remote_that_breaks_noise_is_cut_off() {
        for garbage in [&[0, 4, 1, 2, 3, 4][..], &[0, 17, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]]
        {
            let (connection, mut remote) = connected().await;
            remote.io.write_all(garbage).await.unwrap();
            assert!(
                matches!(&*connection.closed().await, ConnectionError::Protocol(reason) if reason.starts_with("noise"))
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn remote_that_vanishes_is_an_error_of_the_pipe() {
        let (connection, remote) = connected().await;
        let mut stream = connection.open_stream().await.unwrap();
        drop(remote);
        assert!(matches!(stream.read_chunk().await, Err(StreamError::ConnectionLost(_))));
        assert!(matches!(*connection.closed().await, ConnectionError::Io(_)));
        assert!(connection.open_stream().await.is_err());
        assert!(connection.accept_stream().await.is_err());
    }

    /// The remote takes nothing at all: neither a writer, nor closing, nor memory may hang on that.
    #[tokio::test(start_paused = true)]
    async fn remote_that_reads_nothing_holds_up_its_writer_and_not_the_closing() {
        let (connection, _remote) = connected().await;
        let mut stream = connection.open_stream().await.unwrap();
        let mut taken = 0;
        let write = async {
            loop {
                stream.write_all(Bytes::from(vec![0; 1000])).await.unwrap();
                taken += 1000;
            }
        };
        assert!(tokio::time::timeout(Duration::from_secs(10), write).await.is_err());
        assert!(taken < 1_000_000, "{taken}");
        let begin = tokio::time::Instant::now();
        connection.close().await;
        assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", begin.elapsed());
    }
}
