//! Dialer and listener over real sockets.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use peerloom_core::{
    Connection, ConnectionError, DialError, HandshakeError, Keypair, Listener, ListenerEvent, Multiaddr,
    Multihash, Protocol, StreamError, StreamExt, Transport,
};
use peerloom_webrtc::{WebRtcDirectConfig, WebRtcDirectTransport, WireVersion};

fn transport(identity: &Keypair, configure: impl FnOnce(&mut WebRtcDirectConfig)) -> WebRtcDirectTransport {
    let mut config = WebRtcDirectConfig::default();
    configure(&mut config);
    WebRtcDirectTransport::new(identity.clone(), config).unwrap()
}

async fn listen(identity: &Keypair) -> (Box<dyn Listener>, Multiaddr) {
    let listener = transport(identity, |_| {})
        .listen("/ip4/127.0.0.1/udp/0/webrtc-direct".parse().unwrap())
        .await
        .unwrap();
    let address = listener.addresses().remove(0).with_peer_id(identity.peer_id());
    (listener, address)
}

async fn accept(listener: &mut Box<dyn Listener>) -> Result<Box<dyn Connection>, HandshakeError> {
    loop {
        if let ListenerEvent::Incoming(incoming) = listener.next().await.unwrap() {
            return incoming.handshake.await;
        }
    }
}

struct Pair {
    dialer: Box<dyn Connection>,
    listener: Box<dyn Connection>,
    _socket: Box<dyn Listener>,
}

async fn connect(version: WireVersion) -> Pair {
    let (server, client) = (Keypair::generate(), Keypair::generate());
    let (mut socket, address) = listen(&server).await;
    let dialing = transport(&client, |config| config.dial_version = version);
    let (dialed, accepted) = tokio::join!(dialing.dial(address.clone()), accept(&mut socket));
    let (dialer, listener) = (dialed.unwrap(), accepted.unwrap());
    assert_eq!(dialer.remote_peer(), server.peer_id());
    assert_eq!(listener.remote_peer(), client.peer_id());
    assert_eq!(dialer.remote_address(), &address.without_peer_id());
    Pair { dialer, listener, _socket: socket }
}

#[tokio::test]
async fn both_versions_connect_and_echo() {
    for version in [WireVersion::V1, WireVersion::V2] {
        let pair = connect(version).await;
        let echo = async {
            let mut stream = pair.listener.accept_stream().await.unwrap();
            while let Some(chunk) = stream.read_chunk().await.unwrap() {
                stream.write_all(chunk).await.unwrap();
            }
            stream.close_write().await.unwrap();
        };
        let send = async {
            let mut stream = pair.dialer.open_stream().await.unwrap();
            let sent = Bytes::from((0..100_000u32).map(|n| n as u8).collect::<Vec<_>>());
            stream.write_all(sent.clone()).await.unwrap();
            stream.close_write().await.unwrap();
            let mut received = Vec::new();
            while let Some(chunk) = stream.read_chunk().await.unwrap() {
                received.extend_from_slice(&chunk);
            }
            assert_eq!(received, sent);
        };
        tokio::join!(echo, send);
    }
}
