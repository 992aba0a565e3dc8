//! WebTransport, native against native: what the suite of all transports does not ask.

// The whole file is tests; clippy takes only the functions marked as such for those.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::time::Duration;

use bytes::Bytes;
use peerloom_core::{
    Connection, ConnectionError, DialError, HandshakeError, Keypair, ListenError, Listener, ListenerEvent,
    Multiaddr, Multihash, Protocol, StreamError, StreamExt as _, Transport as _,
    runtime::{Task, spawn, timeout},
};
use peerloom_quic::{WebTransportConfig, WebTransportTransport};
use tokio::sync::mpsc;

type BoxConnection = Box<dyn Connection>;

/// A listener that drives every handshake.
struct Server {
    address: Multiaddr,
    handshakes: mpsc::Receiver<Result<BoxConnection, HandshakeError>>,
    _task: Task,
}

async fn listen(transport: &WebTransportTransport) -> Box<dyn Listener> {
    transport.listen("/ip4/127.0.0.1/udp/0/quic-v1/webtransport".parse().unwrap()).await.unwrap()
}

async fn serve_with(identity: &Keypair, config: WebTransportConfig) -> Server {
    let mut listener = listen(&WebTransportTransport::new(identity.clone(), config)).await;
    let address = listener.addresses().remove(0);
    let (results, handshakes) = mpsc::channel(64);
    let task = spawn(async move {
        let mut running = Vec::new();
        while let Ok(event) = listener.next().await {
            if let ListenerEvent::Incoming(incoming) = event {
                let results = results.clone();
                running.push(spawn(async move {
                    let _ = results.send(incoming.handshake.await).await;
                }));
            }
        }
    });
    Server { address, handshakes, _task: task }
}

async fn serve(identity: &Keypair) -> Server {
    serve_with(identity, WebTransportConfig::default()).await
}

fn dialer() -> WebTransportTransport {
    WebTransportTransport::new(Keypair::generate(), WebTransportConfig::default())
}

async fn pair() -> (BoxConnection, BoxConnection) {
    let identity = Keypair::generate();
    let mut server = serve(&identity).await;
    let client = dialer().dial(server.address.with_peer_id(identity.peer_id())).await.unwrap();
    let accepted = server.handshakes.recv().await.unwrap().unwrap();
    (client, accepted)
}

async fn read_to_end(stream: &mut (impl peerloom_core::Stream + ?Sized)) -> Result<Vec<u8>, StreamError> {
    let mut all = Vec::new();
    while let Some(chunk) = stream.read_chunk().await? {
        assert!(!chunk.is_empty());
        all.extend_from_slice(&chunk);
    }
    Ok(all)
}

#[tokio::test]
async fn both_sides_know_each_other_and_exchange_streams() {
    let identity = Keypair::generate();
    let dialing = Keypair::generate();
    let mut server = serve(&identity).await;
    let transport = WebTransportTransport::new(dialing.clone(), WebTransportConfig::default());
    let client = transport.dial(server.address.with_peer_id(identity.peer_id())).await.unwrap();
    let accepted = server.handshakes.recv().await.unwrap().unwrap();
    assert_eq!(client.remote_peer(), identity.peer_id());
    assert_eq!(accepted.remote_peer(), dialing.peer_id());
    assert_eq!(*client.remote_address(), server.address);

    for (opener, acceptor) in [(&client, &accepted), (&accepted, &client)] {
        let mut ours = opener.open_stream().await.unwrap();
        ours.write_all(Bytes::from_static(b"question")).await.unwrap();
        ours.close_write().await.unwrap();
        let mut theirs = acceptor.accept_stream().await.unwrap();
        assert_eq!(read_to_end(&mut theirs).await.unwrap(), b"question");
        theirs.write_all(Bytes::from_static(b"answer")).await.unwrap();
        theirs.close_write().await.unwrap();
        assert_eq!(read_to_end(&mut ours).await.unwrap(), b"answer");
    }
}

/// `address` with other certificate hashes.
fn with_hashes(address: &Multiaddr, hashes: &[Multihash]) -> Multiaddr {
    let base = Multiaddr::from_protocols(
        address.protocols().filter(|protocol| !matches!(protocol, Protocol::Certhash(_))),
    );
    hashes.iter().fold(base, |address, hash| address.with(Protocol::Certhash(hash.clone())))
}

fn hashes(address: &Multiaddr) -> Vec<Multihash> {
    address
        .protocols()
        .filter_map(|protocol| match protocol {
            Protocol::Certhash(hash) => Some(hash),
            _ => None,
        })
        .collect()
}

async fn dial_error(address: Multiaddr) -> DialError {
    match dialer().dial(address).await {
        Ok(connection) => panic!("connected to {}", connection.remote_peer()),
        Err(error) => error,
    }
}

#[tokio::test]
async fn a_certificate_that_the_address_does_not_name_is_refused() {
    let mut server = serve(&Keypair::generate()).await;
    // That of another certificate, and that of the next one, which is not served yet.
    for hash in [Multihash::sha2_256([7; 32]), hashes(&server.address)[1].clone()] {
        let error = dial_error(with_hashes(&server.address, &[hash])).await;
        assert!(
            matches!(error, DialError::Handshake { source: HandshakeError::Certificate(_), .. }),
            "{error}"
        );
        assert!(server.handshakes.recv().await.unwrap().is_err());
    }
}

#[tokio::test]
async fn a_certificate_hash_that_the_server_does_not_confirm_is_refused() {
    let server = serve(&Keypair::generate()).await;
    let mut more = hashes(&server.address);
    assert_eq!(more.len(), 2);
    more.push(Multihash::sha2_256([7; 32]));
    let error = dial_error(with_hashes(&server.address, &more)).await;
    assert!(matches!(error, DialError::Handshake { source: HandshakeError::Certificate(_), .. }), "{error}");
}

#[tokio::test]
async fn addresses_that_cannot_be_dialed_or_listened_on_say_why() {
    let error = dial_error("/ip4/127.0.0.1/udp/9/quic-v1/webtransport".parse().unwrap()).await;
    assert!(matches!(error, DialError::UnsupportedAddress { reason, .. } if reason.contains("/certhash")));
    let error = dial_error("/ip4/127.0.0.1/tcp/9".parse().unwrap()).await;
    assert!(matches!(error, DialError::UnsupportedAddress { .. }));

    let transport = dialer();
    for address in ["/ip4/127.0.0.1/tcp/0", "/dns4/localhost/udp/0/quic-v1/webtransport"] {
        let address: Multiaddr = address.parse().unwrap();
        assert!(!transport.can_listen(&address));
        assert!(matches!(transport.listen(address).await, Err(ListenError::UnsupportedAddress { .. })));
    }
    let taken = listen(&transport).await.addresses().remove(0);
    let listener = listen(&transport).await;
    assert_ne!(listener.addresses()[0], taken);
    let taken = with_hashes(&listener.addresses()[0], &[]);
    assert!(matches!(transport.listen(taken).await, Err(ListenError::Io { .. })));
}

#[tokio::test]
async fn an_unspecified_host_is_advertised_as_the_machines_addresses() {
    let listener = dialer().listen("/ip4/0.0.0.0/udp/0/quic-v1/webtransport".parse().unwrap()).await.unwrap();
    let addresses = listener.addresses();
    assert!(!addresses.is_empty());
    for address in addresses {
        assert!(!address.to_string().starts_with("/ip4/0.0.0.0"));
        assert_eq!(hashes(&address).len(), 2);
        assert!(dialer().can_dial(&address));
    }
}

#[tokio::test]
async fn a_close_delivers_what_was_written_before_it_and_is_seen_as_orderly() {
    let (client, server) = pair().await;
    let mut finished = client.open_stream().await.unwrap();
    let mut unfinished = client.open_stream().await.unwrap();
    // More than the windows at first allow, so that the close has to wait for the reader.
    let data = Bytes::from(vec![7; 1_000_000]);
    let reading = async {
        let mut finished = server.accept_stream().await.unwrap();
        let mut unfinished = server.accept_stream().await.unwrap();
        let all = read_to_end(&mut finished).await.unwrap();
        assert_eq!(unfinished.read_chunk().await.unwrap().unwrap(), "begun");
        (all, unfinished.read_chunk().await.unwrap_err())
    };
    let closing = async {
        unfinished.write_all(Bytes::from_static(b"begun")).await.unwrap();
        finished.write_all(data.clone()).await.unwrap();
        finished.close_write().await.unwrap();
        client.close().await;
    };
    let ((all, error), ()) = tokio::join!(reading, closing);
    assert_eq!(all.len(), data.len());
    assert!(
        matches!(&error, StreamError::ConnectionLost(over) if matches!(**over, ConnectionError::ClosedByRemote))
    );
    assert!(matches!(*server.closed().await, ConnectionError::ClosedByRemote));
    assert!(matches!(*client.closed().await, ConnectionError::ClosedLocally));
    assert!(matches!(*client.open_stream().await.map(|_| ()).unwrap_err(), ConnectionError::ClosedLocally));
    assert!(matches!(*server.open_stream().await.map(|_| ()).unwrap_err(), ConnectionError::ClosedByRemote));
    assert!(matches!(
        *server.accept_stream().await.map(|_| ()).unwrap_err(),
        ConnectionError::ClosedByRemote
    ));
}

#[tokio::test]
async fn dropping_the_last_handle_closes_the_connection() {
    let (client, server) = pair().await;
    let stream = client.open_stream().await.unwrap();
    drop(client);
    assert!(matches!(*server.closed().await, ConnectionError::ClosedByRemote));
    drop(stream);
}

#[tokio::test]
async fn resets_carry_their_code_both_ways() {
    let (client, server) = pair().await;
    let mut ours = client.open_stream().await.unwrap();
    ours.write_all(Bytes::from_static(b"x")).await.unwrap();
    let mut theirs = server.accept_stream().await.unwrap();
    assert_eq!(theirs.read_chunk().await.unwrap().unwrap(), "x");
    theirs.reset(0x1001);
    assert!(matches!(ours.read_chunk().await, Err(StreamError::Reset { code: 0x1001 })));
    let write = async {
        loop {
            ours.write_all(Bytes::from_static(b"more")).await?;
            tokio::task::yield_now().await;
        }
    };
    let result: Result<(), StreamError> = timeout(Duration::from_secs(10), write).await.unwrap();
    assert!(matches!(result, Err(StreamError::Reset { code: 0x1001 })));
    assert!(matches!(theirs.read_chunk().await, Err(StreamError::Reset { code: 0x1001 })));
    assert!(matches!(theirs.write_all("x".into()).await, Err(StreamError::Reset { code: 0x1001 })));
}

#[tokio::test]
async fn a_stream_dropped_before_its_end_is_reset_and_not_ended() {
    let (client, server) = pair().await;
    let mut ours = client.open_stream().await.unwrap();
    ours.write_all(Bytes::from_static(b"half a mess")).await.unwrap();
    let mut theirs = server.accept_stream().await.unwrap();
    assert_eq!(theirs.read_chunk().await.unwrap().unwrap(), "half a mess");
    drop(ours);
    assert!(matches!(theirs.read_chunk().await, Err(StreamError::Reset { code: 0 })));
    let write = async {
        while theirs.write_all(Bytes::from_static(b"more")).await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    timeout(Duration::from_secs(10), write).await.unwrap();
}

#[tokio::test]
async fn a_stream_that_nobody_reads_holds_up_its_writer_but_no_other_stream() {
    let (client, server) = pair().await;
    let mut stuck = client.open_stream().await.unwrap();
    let filling = async {
        let mut written = 0usize;
        let chunk = Bytes::from(vec![1; 64 * 1024]);
        while let Ok(Ok(())) = timeout(Duration::from_millis(1500), stuck.write_all(chunk.clone())).await {
            written += chunk.len();
        }
        written
    };
    let others = async {
        let _unread = server.accept_stream().await.unwrap();
        for _ in 0..8 {
            let mut stream = server.accept_stream().await.unwrap();
            assert_eq!(read_to_end(&mut stream).await.unwrap().len(), 300_000);
        }
    };
    let writing = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        for _ in 0..8 {
            let mut stream = client.open_stream().await.unwrap();
            stream.write_all(Bytes::from(vec![2; 300_000])).await.unwrap();
            stream.close_write().await.unwrap();
        }
    };
    // The server side of `stuck` is alive until the others are done.
    let all = async { tokio::join!(others, writing) };
    let (written, _) = timeout(Duration::from_secs(20), async { tokio::join!(filling, all) }).await.unwrap();
    // Our send window, what the remote lets one stream hold, and not much else.
    assert!(written < 16 * 1024 * 1024, "{written}");
}

#[tokio::test]
async fn a_server_that_vanishes_in_mid_transfer_is_noticed_after_the_idle_timeout() {
    // In a runtime of its own: dropping that takes away socket, tasks and all, without a word to the client.
    let (addresses, address) = std::sync::mpsc::sync_channel(1);
    let (kill, killed) = tokio::sync::oneshot::channel::<()>();
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let identity = Keypair::generate();
            let mut server = serve(&identity).await;
            addresses.send(server.address.with_peer_id(identity.peer_id())).unwrap();
            let connection = server.handshakes.recv().await.unwrap().unwrap();
            let mut stream = connection.accept_stream().await.unwrap();
            let endless = async { while stream.write_all(Bytes::from(vec![0; 10_000])).await.is_ok() {} };
            tokio::select! { () = endless => {}, _ = killed => {} }
            // Its destructor would close the connection in order.
            std::mem::forget(connection);
            std::mem::forget(stream);
        });
        runtime.shutdown_background();
    });
    let config = WebTransportConfig::default().with_idle_timeout(Duration::from_millis(500));
    let client = WebTransportTransport::new(Keypair::generate(), config);
    let connection = client.dial(address.recv().unwrap()).await.unwrap();
    let mut stream = connection.open_stream().await.unwrap();
    stream.write_all(Bytes::from_static(b"go")).await.unwrap();
    let mut received = 0;
    while received < 1_000_000 {
        received += stream.read_chunk().await.unwrap().unwrap().len();
    }
    kill.send(()).unwrap();
    thread.join().unwrap();
    let error = loop {
        match timeout(Duration::from_secs(10), stream.read_chunk()).await.unwrap() {
            Ok(chunk) => assert!(chunk.is_some()),
            Err(error) => break error,
        }
    };
    assert!(
        matches!(&error, StreamError::ConnectionLost(over) if matches!(**over, ConnectionError::TimedOut)),
        "{error}"
    );
    assert!(matches!(*connection.closed().await, ConnectionError::TimedOut));
}

#[tokio::test]
async fn a_dropped_listener_refuses_new_dials_and_keeps_its_connections() {
    let identity = Keypair::generate();
    let mut listener =
        listen(&WebTransportTransport::new(identity.clone(), WebTransportConfig::default())).await;
    let address = listener.addresses().remove(0);
    let transport = dialer();
    let (client, server) = tokio::join!(transport.dial(address.clone()), async {
        let ListenerEvent::Incoming(incoming) = listener.next().await.unwrap() else { panic!() };
        incoming.handshake.await.unwrap()
    });
    let client = client.unwrap();
    // One whose handshake is under way ends with the listener.
    let late = spawn({
        let (transport, address) = (transport.clone(), address.clone());
        async move {
            let _ = transport.dial(address).await;
        }
    });
    let ListenerEvent::Incoming(incoming) = listener.next().await.unwrap() else { panic!() };
    drop(listener);
    assert!(matches!(incoming.handshake.await, Err(HandshakeError::Lost { .. })));
    drop(late);

    let mut stream = client.open_stream().await.unwrap();
    stream.write_all(Bytes::from_static(b"still here")).await.unwrap();
    stream.close_write().await.unwrap();
    let mut stream = server.accept_stream().await.unwrap();
    assert_eq!(read_to_end(&mut stream).await.unwrap(), b"still here");
    let config = WebTransportConfig::default().with_idle_timeout(Duration::from_millis(300));
    let dial = WebTransportTransport::new(Keypair::generate(), config).dial(address);
    assert!(matches!(dial.await, Err(DialError::Unreachable { .. })));
}

/// Firefox loses an answer that it has not read yet when it is told to stop sending the question.
#[tokio::test]
async fn remote_that_was_answered_is_not_told_to_stop_at_once() {
    let (client, server) = pair().await;
    let mut asking = client.open_stream().await.unwrap();
    asking.write_all(Bytes::from_static(b"question")).await.unwrap();
    let mut answering = server.accept_stream().await.unwrap();
    answering.read_chunk().await.unwrap();
    answering.write_all(Bytes::from_static(b"answer")).await.unwrap();
    answering.close_write().await.unwrap();
    drop(answering);
    assert_eq!(asking.read_chunk().await.unwrap().unwrap(), "answer");
    assert_eq!(asking.read_chunk().await.unwrap(), None);
    asking.write_all(Bytes::from_static(b"thank you")).await.unwrap();
    asking.close_write().await.unwrap();
}
