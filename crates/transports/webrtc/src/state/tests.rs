//! Two ends of a connection whose datagrams arrive at once, and a clock that is set by hand.

use std::{net::SocketAddr, time::Duration};

use super::*;
use crate::{
    certificate::Certificate,
    peer_connection::Timeouts,
    ufrag::{Credentials, WireVersion},
};

const CLIENT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1)), 1000);
const SERVER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2)), 2000);

struct Pair {
    client: State,
    server: State,
    now: Instant,
}

impl Pair {
    fn connected() -> Self {
        let now = crate::test_now();
        let timeouts = Timeouts { step: Duration::from_secs(10), idle: Duration::from_secs(40) };
        let certificate = Certificate::generate().unwrap();
        let credentials = Credentials::generate(WireVersion::V2);
        let certhashes = vec![certificate.hash()];
        let config = Certificate::generate().unwrap().dtls_config(true).unwrap();
        let client = PeerConnection::dialer(credentials.clone(), SERVER, certhashes, config, timeouts, now);
        let config = certificate.dtls_config(false).unwrap();
        let server = PeerConnection::listener(credentials, config, timeouts, now);
        // Far more than a connection should have in flight, so that only the receiver's bounds count.
        let state = |connection| State::new(connection, 64 * 1024 * 1024);
        let mut pair = Self { client: state(client), server: state(server), now };
        pair.settle();
        assert!(pair.client.take_handshake().is_some() && pair.server.take_handshake().is_some());
        pair
    }

    /// Delivers until nobody has anything to say.
    fn settle(&mut self) {
        let now = self.now;
        loop {
            self.client.handle_timeout(now);
            self.server.handle_timeout(now);
            let mut quiet = true;
            while let Some((_, datagram)) = self.client.connection.poll_transmit(now) {
                self.server.connection.handle_datagram(now, crate::ice::Path::to(CLIENT), &datagram);
                self.server.react(now);
                quiet = false;
            }
            while let Some((_, datagram)) = self.server.connection.poll_transmit(now) {
                self.client.connection.handle_datagram(now, crate::ice::Path::to(SERVER), &datagram);
                self.client.react(now);
                quiet = false;
            }
            if quiet {
                return;
            }
        }
    }

    fn pass(&mut self, duration: Duration) {
        let end = self.now + duration;
        while self.now < end {
            self.now += Duration::from_millis(100);
            self.settle();
        }
    }

    /// A stream that the client opens, with something on it, as both ends know it.
    fn open(&mut self) -> (StreamKey, StreamKey) {
        let opened = self.client.open(self.now).unwrap();
        self.write(opened, 5);
        self.settle();
        let accepted = self.server.accept().unwrap();
        assert_eq!(self.read_all(accepted), 5);
        (opened, accepted)
    }

    fn write(&mut self, key: StreamKey, length: usize) {
        let mut data = Bytes::from(vec![7; length]);
        while !data.is_empty() {
            assert!(self.client.write(self.now, key, &mut data, Waker::noop()).is_ready());
        }
    }

    fn read_all(&mut self, key: StreamKey) -> usize {
        let mut length = 0;
        while let Poll::Ready(Ok(Some(chunk))) = self.server.read(self.now, key, Waker::noop()) {
            length += chunk.len();
            self.settle();
        }
        length
    }
}

#[test]
fn stream_that_nobody_reads_holds_up_the_others_for_a_while_only() {
    let mut pair = Pair::connected();
    let (stalled, unread) = pair.open();
    let (other, accepted) = pair.open();
    pair.write(stalled, 4 * 1024 * 1024);
    pair.write(other, 100_000);
    pair.pass(Duration::from_secs(5));
    assert_eq!(pair.read_all(accepted), 0);
    pair.pass(limits::STALLED_STREAM_TIMEOUT * 2);
    assert_eq!(pair.read_all(accepted), 100_000);
    let read = pair.server.read(pair.now, unread, Waker::noop());
    assert!(matches!(read, Poll::Ready(Err(StreamError::Reset { .. }))), "{read:?}");
    assert!(pair.client.check_write(stalled).is_err());
}

#[test]
fn stream_that_is_read_slowly_is_left_alone() {
    let mut pair = Pair::connected();
    let (opened, accepted) = pair.open();
    pair.write(opened, 4 * 1024 * 1024);
    for _ in 0..20 {
        pair.pass(Duration::from_secs(10));
        let read = pair.server.read(pair.now, accepted, Waker::noop());
        assert!(matches!(read, Poll::Ready(Ok(Some(_)))), "{read:?}");
    }
    assert!(pair.client.check_write(opened).is_ok());
}

#[test]
fn unread_bytes_are_bounded_whatever_the_number_of_streams() {
    let mut pair = Pair::connected();
    let streams: Vec<_> = (0..100).map(|_| pair.open()).collect();
    for (opened, _) in &streams {
        pair.write(*opened, 300_000);
    }
    pair.pass(Duration::from_secs(5));
    let (above, below) = (pair.server.unread, pair.server.connection.unread());
    assert!(above <= limits::CONNECTION_RECEIVE_BUFFER + limits::MAX_RECEIVED_MESSAGE, "{above}");
    assert!(below <= limits::SCTP_RECEIVE_WINDOW, "{below}");
    let mut received = 0;
    for _ in 0..100 {
        received += streams.iter().map(|(_, accepted)| pair.read_all(*accepted)).sum::<usize>();
        pair.pass(Duration::from_millis(100));
    }
    assert_eq!(received, 100 * 300_000);
}

#[test]
fn dropped_streams_leave_nothing_behind() {
    let mut pair = Pair::connected();
    for round in 0..30 {
        let (opened, accepted) = pair.open();
        pair.write(opened, 50_000);
        match round % 3 {
            0 => pair.client.finish(pair.now, opened).unwrap(),
            1 => pair.server.reset(pair.now, accepted, 7),
            _ => {}
        }
        pair.settle();
        pair.client.drop_stream(pair.now, opened);
        pair.settle();
        pair.server.drop_stream(pair.now, accepted);
        pair.settle();
    }
    pair.pass(limits::FIN_ACK_TIMEOUT * 2);
    for state in [&pair.client, &pair.server] {
        // The handshake's, which nobody has dropped.
        assert_eq!((state.streams.len(), state.by_channel.len()), (1, 1));
        assert_eq!((state.unread, state.lingering.len(), state.blocked.len()), (0, 0, 0));
        assert_eq!((state.connection.unread(), state.connection.outstanding()), (0, 0));
    }
}

#[test]
fn streams_that_are_not_accepted_are_bounded() {
    let mut pair = Pair::connected();
    let mut opened = Vec::new();
    for _ in 0..limits::MAX_INBOUND_STREAMS {
        let Some(key) = pair.client.open(pair.now) else { break };
        opened.push(key);
        if opened.len() % 100 == 0 {
            pair.settle();
        }
    }
    pair.settle();
    assert!(pair.server.to_accept.len() <= limits::ACCEPT_BACKLOG);
    opened.into_iter().for_each(|key| pair.client.drop_stream(pair.now, key));
    pair.settle();
    while let Some(key) = pair.server.accept() {
        pair.server.drop_stream(pair.now, key);
    }
    pair.pass(limits::FIN_ACK_TIMEOUT * 2);
    assert_eq!(pair.server.streams.len(), 1);
}

#[test]
fn close_waits_for_what_was_written_and_not_for_ever() {
    let mut pair = Pair::connected();
    let (opened, accepted) = pair.open();
    pair.write(opened, 100_000);
    pair.client.close_soon(pair.now);
    pair.settle();
    assert_eq!(pair.client.end_reason(), Some(End::ClosedLocally));
    assert_eq!(pair.server.end_reason(), Some(End::ClosedByRemote));
    assert_eq!(pair.read_all(accepted), 100_000, "what has arrived can be read");

    let mut pair = Pair::connected();
    let (opened, _) = pair.open();
    pair.write(opened, 4 * 1024 * 1024);
    pair.client.close_soon(pair.now);
    pair.settle();
    assert_eq!(pair.client.end_reason(), None);
    assert!(pair.client.check_write(opened).is_err());
    pair.pass(limits::CLOSE_TIMEOUT * 2);
    assert_eq!(pair.server.end_reason(), Some(End::ClosedByRemote));
}
