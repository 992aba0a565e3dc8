//! WebTransport, native against native.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use peerloom_core::{
    Connection, ConnectionError, DialError, HandshakeError, Keypair, Listener, ListenerEvent, Multiaddr,
    Multihash, Protocol, StreamError, StreamExt as _, Transport as _,
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
