//! Connections: how they begin and end.

use std::{future::poll_fn, task::Poll, time::Duration};

use bytes::Bytes;
use peerloom_core::{
    ConnectionError, DialError, HandshakeError, Keypair, Protocol, StreamError, StreamExt as _,
};

use crate::{Subject, host::Host};

/// The addresses of a listener are complete: no port 0, no unspecified host, no peer id.
pub async fn listener_knows_where_it_is(subject: Subject) {
    let transport = (subject.transport)(Keypair::generate());
    let listener = transport.listen(subject.listen_on.clone()).await.unwrap();
    let addresses = listener.addresses();
    assert!(!addresses.is_empty());
    for address in addresses {
        assert!(transport.can_dial(&address), "{address}");
        for protocol in address.protocols() {
            let complete = match protocol {
                Protocol::Ip4(ip) => !ip.is_unspecified(),
                Protocol::Ip6(ip) => !ip.is_unspecified(),
                Protocol::Tcp(port) | Protocol::Udp(port) => port != 0,
                Protocol::Memory(number) => number != 0,
                Protocol::P2p(_) => false,
                _ => true,
            };
            assert!(complete, "{address}");
        }
    }
}

/// Each side knows the other's proven identity, its key and its address.
pub async fn both_sides_know_each_other(subject: Subject) {
    let mut host = Host::new(&subject).await;
    let (outbound, inbound) = host.connect().await;
    assert_eq!(outbound.remote_peer(), host.peer);
    assert_eq!(outbound.remote_public_key().peer_id(), host.peer);
    assert_eq!(*outbound.remote_address(), host.address);
    assert_eq!(inbound.remote_peer(), host.dialer_peer);
    assert_eq!(inbound.remote_public_key().peer_id(), host.dialer_peer);
    assert_eq!(inbound.remote_address().peer_id(), None);
}

/// A connection lives on when its listener is dropped.
pub async fn streams_outlive_the_listener(subject: Subject) {
    let mut host = Host::new(&subject).await;
    let (outbound, inbound) = host.connect().await;
    host.stop_listening();
    tokio::time::sleep(Duration::from_millis(50)).await;
    let mut stream = outbound.open_stream().await.unwrap();
    stream.write_all(Bytes::from_static(b"still here")).await.unwrap();
    let mut accepted = inbound.accept_stream().await.unwrap();
    assert_eq!(accepted.read_chunk().await.unwrap().unwrap(), "still here");
}

/// Closing sends what streams have taken, and the remote sees it as what it is.
pub async fn closing_sends_what_was_taken_and_is_seen(subject: Subject) {
    let mut host = Host::new(&subject).await;
    for listener_closes in [false, true] {
        let (outbound, inbound) = host.connect().await;
        let (closing, other) = if listener_closes { (inbound, outbound) } else { (outbound, inbound) };
        let sent = Bytes::from(vec![7; 50_000]);
        let mut stream = closing.open_stream().await.unwrap();
        stream.write_all(sent.clone()).await.unwrap();
        stream.close_write().await.unwrap();
        let reader = async {
            let mut accepted = other.accept_stream().await.unwrap();
            let mut received = Vec::new();
            while let Some(chunk) = accepted.read_chunk().await.unwrap() {
                received.extend_from_slice(&chunk);
            }
            // Dropped before the end, it would be reset.
            (received, accepted)
        };
        let ((), (received, _accepted)) = tokio::join!(closing.close(), reader);
        assert_eq!(received, sent);
        let reason = other.closed().await;
        assert!(matches!(*reason, ConnectionError::ClosedByRemote), "{reason:?}");
        assert!(matches!(*closing.closed().await, ConnectionError::ClosedLocally));
        assert!(closing.open_stream().await.is_err());
        assert!(other.accept_stream().await.is_err());
        assert!(matches!(stream.read_chunk().await, Err(StreamError::ConnectionLost(_))));
    }
}

/// A peer that drops its connection without closing it leaves nobody waiting.
pub async fn peer_that_vanishes_is_noticed(subject: Subject) {
    let mut host = Host::new(&subject).await;
    let (outbound, inbound) = host.connect().await;
    let mut stream = outbound.open_stream().await.unwrap();
    stream.write_all(Bytes::from_static(b"hello")).await.unwrap();
    let mut accepted = inbound.accept_stream().await.unwrap();
    accepted.read_chunk().await.unwrap();
    drop((accepted, inbound));
    while let Ok(chunk) = stream.read_chunk().await {
        assert!(chunk.is_some(), "the end of a stream that was never ended");
    }
    outbound.closed().await;
    assert!(outbound.open_stream().await.is_err());
}

/// A listener that is not the peer that the address names is found out.
pub async fn another_peer_id_than_expected_is_refused(subject: Subject) {
    let host = Host::new(&subject).await;
    let somebody = Keypair::generate().peer_id();
    match host.dial(somebody).await.map(|_| ()) {
        Err(DialError::Handshake { source: HandshakeError::WrongPeer { expected, actual }, .. }) => {
            assert_eq!((expected, actual), (somebody, host.peer));
        }
        other => panic!("{other:?}"),
    }
}

/// Dials that are dropped at any moment do no harm.
pub async fn dropped_dial_leaves_the_listener_working(subject: Subject) {
    let mut host = Host::new(&subject).await;
    for polls in 0..20 {
        let mut dial = Box::pin(host.dial(host.peer));
        for _ in 0..polls {
            let done = poll_fn(|cx| Poll::Ready(dial.as_mut().poll(cx).is_ready())).await;
            if done {
                break;
            }
            tokio::task::yield_now().await;
        }
    }
    let (outbound, inbound) = host.connect().await;
    let mut stream = outbound.open_stream().await.unwrap();
    stream.write_all(Bytes::from_static(b"hello")).await.unwrap();
    stream.close_write().await.unwrap();
    // Connections of dials that were dropped late may have been accepted before this one.
    let mut connection = inbound;
    loop {
        match connection.accept_stream().await {
            Ok(mut accepted) => {
                assert_eq!(accepted.read_chunk().await.unwrap().unwrap(), "hello");
                return;
            }
            Err(_) => connection = host.accept().await,
        }
    }
}

/// What the transport cannot dial it says so, and does not try.
pub async fn unsupported_addresses_are_refused(subject: Subject) {
    let transport = (subject.transport)(Keypair::generate());
    for address in
        ["/onion3/vww6ybal4bd7szmgncyruucpgfkqahzddi37ktceo3ah7ngmcopnpyyd:80", "/ip4/127.0.0.1", "/dns4/x"]
    {
        let address: peerloom_core::Multiaddr = address.parse().unwrap();
        assert!(!transport.can_dial(&address) && !transport.can_listen(&address), "{address}");
        let dialed = transport.dial(address.clone()).await.map(|_| ());
        assert!(matches!(dialed, Err(DialError::UnsupportedAddress { .. })), "{dialed:?}");
        assert!(transport.listen(address).await.is_err());
    }
}

/// Bytes that do not belong on the socket end nothing but themselves.
pub async fn garbage_is_survived(subject: Subject) {
    let mut host = Host::new(&subject).await;
    let Some(garbage) = &subject.garbage else { return };
    let samples: [&[u8]; 7] = [
        b"",
        b"\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"\x13/multistream/1.0.0\n\x07/noise\n\x00\x20",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        &[0xff; 1200],
        &[0; 1200],
    ];
    for sample in samples {
        garbage(host.address.clone(), sample.to_vec()).await;
    }
    let (outbound, inbound) = host.connect().await;
    let mut stream = outbound.open_stream().await.unwrap();
    stream.write_all(Bytes::from_static(b"hello")).await.unwrap();
    let mut accepted = inbound.accept_stream().await.unwrap();
    assert_eq!(accepted.read_chunk().await.unwrap().unwrap(), "hello");
}
