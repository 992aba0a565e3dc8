//! What the suite of all transports does not ask of WebRTC-direct.

// The whole file is tests; clippy takes only the functions marked as such for those.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::time::Duration;

use peerloom_core::{
    Connection, DialError, HandshakeError, Keypair, ListenError, Listener, ListenerEvent, Multiaddr,
    Multihash, Protocol, StreamError, StreamExt, Transport,
};
use peerloom_webrtc::{Certificate, WebRtcDirectConfig, WebRtcDirectTransport, WireVersion};

const LISTEN: &str = "/ip4/127.0.0.1/udp/0/webrtc-direct";

fn transport(configure: impl FnOnce(&mut WebRtcDirectConfig)) -> WebRtcDirectTransport {
    let mut config = WebRtcDirectConfig::default();
    configure(&mut config);
    WebRtcDirectTransport::new(Keypair::generate(), config).unwrap()
}

async fn listen() -> (Box<dyn Listener>, Multiaddr) {
    let listener = transport(|_| {}).listen(LISTEN.parse().unwrap()).await.unwrap();
    let address = listener.addresses().remove(0);
    (listener, address)
}

async fn accept(listener: &mut Box<dyn Listener>) -> Result<Box<dyn Connection>, HandshakeError> {
    loop {
        if let ListenerEvent::Incoming(incoming) = listener.next().await.unwrap() {
            return incoming.handshake.await;
        }
    }
}

fn with_hash(address: &Multiaddr, hash: Option<Multihash>) -> Multiaddr {
    let without = address.protocols().filter(|protocol| !matches!(protocol, Protocol::Certhash(_)));
    Multiaddr::from_protocols(without.chain(hash.map(Protocol::Certhash)))
}

#[tokio::test]
async fn both_versions_are_accepted_on_one_socket_at_once() {
    let (mut listener, address) = listen().await;
    let [v1, v2] = [WireVersion::V1, WireVersion::V2].map(|version| transport(|c| c.dial_version = version));
    let (first, second, accepted) = tokio::join!(v1.dial(address.clone()), v2.dial(address), async {
        [accept(&mut listener).await.unwrap(), accept(&mut listener).await.unwrap()]
    });
    let (first, second) = (first.unwrap(), second.unwrap());
    let mut streams = Vec::new();
    for dialed in [&first, &second] {
        let mut stream = dialed.open_stream().await.unwrap();
        stream.write_all("hello".into()).await.unwrap();
        streams.push(stream);
    }
    for connection in &accepted {
        let mut stream = connection.accept_stream().await.unwrap();
        assert_eq!(stream.read_chunk().await.unwrap().unwrap(), "hello");
    }
}

#[tokio::test]
async fn wrong_certificate_hash_is_refused() {
    let (mut listener, address) = listen().await;
    let address = with_hash(&address, Some(Multihash::sha2_256([7; 32])));
    let dialer = transport(|_| {});
    let (dialed, accepted) = tokio::join!(dialer.dial(address), accept(&mut listener));
    assert!(matches!(
        dialed.err(),
        Some(DialError::Handshake { source: HandshakeError::Certificate(_), .. })
    ));
    assert!(matches!(accepted.err(), Some(HandshakeError::Lost { .. })));
}

#[tokio::test]
async fn address_without_a_hash_that_we_can_compare_is_not_dialed() {
    let (_listener, address) = listen().await;
    let dialer = transport(|_| {});
    // SHA-512, of which nobody says that the Noise prologue could carry it.
    let sha2_512 = Multihash::from_bytes(&[&[0x13, 64][..], &[7; 64]].concat()).unwrap();
    for hash in [None, Some(sha2_512)] {
        let address = with_hash(&address, hash);
        assert!(!dialer.can_dial(&address));
        assert!(matches!(dialer.dial(address).await.err(), Some(DialError::UnsupportedAddress { .. })));
    }
}

#[tokio::test]
async fn nobody_there_is_unreachable() {
    let (listener, address) = listen().await;
    drop(listener);
    let dialer = transport(|config| config.handshake_step_timeout = Duration::from_millis(300));
    let error = dialer.dial(address).await.err();
    assert!(matches!(error, Some(DialError::Unreachable { .. })), "{error:?}");
}

#[tokio::test]
async fn listener_that_takes_a_dial_and_does_nothing_more_is_given_up() {
    let (mut listener, address) = listen().await;
    let dialer = transport(|config| config.handshake_step_timeout = Duration::from_millis(500));
    let stuck = async {
        // Held and never polled: dropping it would refuse the dialer, and polling it could finish.
        let _held = listener.next().await.unwrap();
        std::future::pending::<()>().await;
    };
    let error = tokio::select! {
        dialed = dialer.dial(address) => dialed.err(),
        () = stuck => unreachable!(),
    };
    assert!(matches!(error, Some(DialError::Handshake { .. } | DialError::Unreachable { .. })), "{error:?}");
}

#[tokio::test]
async fn certificate_of_the_configuration_is_the_one_in_the_addresses() {
    let certificate = std::sync::Arc::new(Certificate::generate().unwrap());
    let configured = certificate.clone();
    let listening = transport(|config| config.certificate = Some(configured));
    for _ in 0..2 {
        let listener = listening.listen(LISTEN.parse().unwrap()).await.unwrap();
        let hash = listener.addresses()[0].protocols().find_map(|protocol| match protocol {
            Protocol::Certhash(hash) => Some(hash),
            _ => None,
        });
        assert_eq!(hash, Some(certificate.hash()));
    }
}

#[tokio::test]
async fn port_that_is_taken_is_an_error_that_names_the_address() {
    let (_listener, address) = listen().await;
    let error = transport(|_| {}).listen(with_hash(&address, None)).await.err().unwrap();
    assert!(matches!(error, ListenError::Io { .. }));
    assert!(error.to_string().contains("/webrtc-direct"), "{error}");
}

#[tokio::test]
async fn reset_code_reaches_the_remote() {
    let (mut listener, address) = listen().await;
    let dialer = transport(|_| {});
    let (dialed, accepted) = tokio::join!(dialer.dial(address), accept(&mut listener));
    let (dialed, accepted) = (dialed.unwrap(), accepted.unwrap());
    let mut opened = dialed.open_stream().await.unwrap();
    opened.write_all("hello".into()).await.unwrap();
    let mut stream = accepted.accept_stream().await.unwrap();
    opened.reset(42);
    let error = loop {
        if let Err(error) = stream.read_chunk().await {
            break error;
        }
    };
    assert!(matches!(error, StreamError::Reset { code: 42 }), "{error:?}");
}
