//! A listener on a real socket, and what strangers and friends do to it.

use std::time::Duration;

use peerloom_core::{Protocol, StreamExt, Transport};
use tokio::net::UdpSocket;

use super::*;
use crate::{
    WebRtcDirectConfig, WebRtcDirectTransport, stun,
    ufrag::{Credentials, WireVersion},
};

struct Host {
    listener: WebRtcListener,
    address: Multiaddr,
    port: u16,
}

impl Host {
    fn new() -> Self {
        let config = WebRtcDirectConfig {
            handshake_step_timeout: Duration::from_millis(200),
            ..WebRtcDirectConfig::default()
        };
        let transport = WebRtcDirectTransport::new(Keypair::generate(), config).unwrap();
        let socket = DatagramSocket::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let port = socket.local_address().unwrap().port();
        let listener = transport.listener(to_multiaddr(([127, 0, 0, 1], port).into(), None), socket).unwrap();
        let address = listener.addresses().remove(0);
        Self { listener, address, port }
    }

    async fn incoming(&mut self) -> Incoming {
        match self.listener.next().await.unwrap() {
            ListenerEvent::Incoming(incoming) => incoming,
            other => panic!("{other:?}"),
        }
    }

    async fn connect(&mut self) -> (Box<dyn Connection>, Box<dyn Connection>) {
        let dialer = WebRtcDirectTransport::new(Keypair::generate(), WebRtcDirectConfig::default()).unwrap();
        let dial = dialer.dial(self.address.clone());
        let accept = async { self.incoming().await.handshake.await };
        let (dialed, accepted) = tokio::join!(dial, accept);
        (dialed.unwrap(), accepted.unwrap())
    }

    /// Waits until there are so many sessions.
    async fn sessions(&self, expected: usize) {
        for _ in 0..500 {
            if self.listener.sessions() == expected {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{} sessions, not {expected}", self.listener.sessions());
    }
}

fn check() -> Vec<u8> {
    let credentials = Credentials::generate(WireVersion::V2);
    let username = format!("{}:{}", credentials.server.as_str(), credentials.client_ufrag.as_str());
    stun::binding_request([1; 12], &username, 7, credentials.server.as_str())
}

#[tokio::test]
async fn connections_leave_no_session_behind_however_they_end() {
    let mut host = Host::new();
    for round in 0..8 {
        let (dialed, accepted) = host.connect().await;
        let mut stream = dialed.open_stream().await.unwrap();
        stream.write_all("hello".into()).await.unwrap();
        let _unread = accepted.accept_stream().await.unwrap();
        assert_eq!(host.listener.sessions(), 1);
        match round % 4 {
            0 => dialed.close().await,
            1 => accepted.close().await,
            2 => drop(dialed),
            _ => drop(accepted),
        }
        host.sessions(0).await;
    }
}

/// A client whose check was answered, and that begins a handshake.
async fn begin(port: u16) -> UdpSocket {
    let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    client.send_to(&check(), ("127.0.0.1", port)).await.unwrap();
    let mut answer = [0; 200];
    let length = client.recv(&mut answer).await.unwrap();
    assert!(stun::Message::parse(&answer[..length]).unwrap().class == stun::Class::Success);
    // No ClientHello, but what one begins with.
    client.send_to(&[22, 254, 253, 0, 0], ("127.0.0.1", port)).await.unwrap();
    client
}

#[tokio::test]
async fn check_alone_is_answered_and_begins_nothing() {
    let mut host = Host::new();
    for _ in 0..500 {
        let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        client.send_to(&check(), ("127.0.0.1", host.port)).await.unwrap();
        client.recv(&mut [0; 200]).await.unwrap();
    }
    assert_eq!(host.listener.sessions(), 0);
    host.connect().await;
}

#[tokio::test]
async fn client_that_says_nothing_more_is_given_up_at_its_step() {
    let mut host = Host::new();
    let client = begin(host.port).await;
    let incoming = host.incoming().await;
    assert!(
        incoming.remote_address.protocols().any(|p| p == Protocol::Udp(client.local_addr().unwrap().port()))
    );
    let error = incoming.handshake.await.err().unwrap();
    assert!(matches!(error, HandshakeError::TimedOut { step: "webrtc DTLS" }), "{error:?}");
    host.sessions(0).await;
}

#[tokio::test]
async fn flood_of_handshakes_is_bounded_and_dropped_ones_make_room() {
    let mut host = Host::new();
    let mut clients = Vec::new();
    for _ in 0..100 {
        clients.push(begin(host.port).await);
    }
    host.sessions(limits::MAX_PENDING_HANDSHAKES_PER_IP).await;
    // Those that wait in the socket take the place of what is dropped.
    while let Ok(incoming) = tokio::time::timeout(Duration::from_millis(200), host.incoming()).await {
        assert!(host.listener.sessions() <= limits::MAX_PENDING_HANDSHAKES_PER_IP);
        drop(incoming);
    }
    host.sessions(0).await;
    host.connect().await;
}

#[tokio::test]
async fn handshake_fails_when_the_listener_is_dropped() {
    let mut host = Host::new();
    let _client = begin(host.port).await;
    let incoming = host.incoming().await;
    drop(host);
    let error = incoming.handshake.await.err().unwrap();
    assert!(matches!(error, HandshakeError::Lost { .. }), "{error:?}");
}
