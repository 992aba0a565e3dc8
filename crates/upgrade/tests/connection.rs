//! Whole connections over a pipe in memory.

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
