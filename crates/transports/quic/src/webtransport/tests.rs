//! Remotes that break the rules, made of quinn and our own encoders.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use peerloom_core::{
    Connection, ConnectionError, HandshakeError, Keypair, Listener, ListenerEvent, Multiaddr, StreamExt as _,
    Transport as _,
    runtime::{spawn, timeout},
};

use super::{
    address::WebTransportAddress,
    handshake::{self, Expected},
    tls::{self, HashVerifier},
    transport::{WebTransportConfig, WebTransportTransport},
};
use crate::{
    certificate::{CertificateStore as _, Certificates, DirectoryStore},
    h3::{connect, error_code, field_section, frame, settings, varint},
    limits::{self, MAX_UNIDIRECTIONAL_STREAMS, Settings, transport_config},
    ports::UdpPorts,
    receive_window::{ReceiveBudget, ReceiveWindow},
    stream::QuicStream,
    streams::Established,
};

const LISTEN: &str = "/ip4/127.0.0.1/udp/0/quic-v1/webtransport";

async fn listener() -> Box<dyn Listener> {
    let transport = WebTransportTransport::new(Keypair::generate(), WebTransportConfig::default());
    transport.listen(LISTEN.parse().unwrap()).await.unwrap()
}

/// A QUIC connection to `address` on which nothing was said yet.
async fn raw(address: &Multiaddr) -> (quinn::Connection, Arc<HashVerifier>) {
    let parsed = WebTransportAddress::parse(address).unwrap();
    let verifier = Arc::new(HashVerifier::new(parsed.certificate_hashes.clone()));
    let mut config =
        quinn::ClientConfig::new(Arc::new(tls::client_config(verifier.clone(), Default::default()).unwrap()));
    config.transport_config(transport_config(Settings {
        idle_timeout: Duration::from_secs(60),
        unidirectional_streams: MAX_UNIDIRECTIONAL_STREAMS,
    }));
    let socket = parsed.endpoint.socket_addr().unwrap();
    let dialer = UdpPorts::default().to_dial(socket.ip()).unwrap();
    (dialer.endpoint().connect_with(config, socket, "127.0.0.1").unwrap().await.unwrap(), verifier)
}

fn established(quic: &quinn::Connection) -> Established {
    Established {
        quic: quic.clone(),
        port: UdpPorts::default().to_dial(quic.remote_address().ip()).unwrap(),
        window: ReceiveWindow::new(ReceiveBudget::new(0)),
    }
}

type Handshake = Result<Box<dyn Connection>, HandshakeError>;

/// Runs `client` against a listener's handshake.
async fn against<F: Future>(client: impl FnOnce(Multiaddr) -> F) -> (F::Output, Handshake) {
    let mut listener = listener().await;
    let address = listener.addresses().remove(0);
    let server = async {
        let ListenerEvent::Incoming(incoming) = listener.next().await.unwrap() else { panic!() };
        incoming.handshake.await
    };
    tokio::join!(client(address), server)
}

async fn control_stream(quic: &quinn::Connection) -> quinn::SendStream {
    let mut control = quic.open_uni().await.unwrap();
    control.write_all(&settings::encode_control_stream()).await.unwrap();
    control
}

/// Sends `frames` where a request is expected and says with which code the connection was closed.
async fn request(address: Multiaddr, frames: Vec<u8>) -> (Vec<u8>, u64) {
    let (quic, _) = raw(&address).await;
    let _control = control_stream(&quic).await;
    let (mut send, mut recv) = quic.open_bi().await.unwrap();
    send.write_all(&frames).await.unwrap();
    let answer = recv.read_to_end(1000).await.unwrap_or_default();
    match quic.closed().await {
        quinn::ConnectionError::ApplicationClosed(close) => (answer, close.error_code.into_inner()),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_request_for_another_path_is_answered_with_404() {
    let mut section = Vec::new();
    field_section::encode_prefix(&mut section);
    for (name, value) in [
        (":method", "CONNECT"),
        (":scheme", "https"),
        (":authority", "127.0.0.1"),
        (":path", "/elsewhere"),
        (":protocol", "webtransport"),
    ] {
        field_section::encode_literal(name, value, &mut section);
    }
    let mut frames = Vec::new();
    // An unknown frame first, which must be ignored.
    frame::encode(0x21, &[1, 2, 3], &mut frames);
    frame::encode(frame::HEADERS, &section, &mut frames);
    let ((answer, code), handshake) = against(|address| request(address, frames)).await;
    assert_eq!(connect::decode_response(&answer[2..]), Ok(Some(connect::NOT_FOUND)));
    assert_eq!(code, error_code::NO_ERROR.into());
    assert!(matches!(handshake, Err(HandshakeError::Invalid { step: "webtransport", .. })));
}

#[tokio::test]
async fn what_is_not_a_request_ends_the_connection() {
    let mut long = Vec::new();
    varint::encode(frame::HEADERS, &mut long);
    varint::encode(1 << 40, &mut long);
    let mut dynamic = Vec::new();
    frame::encode(frame::HEADERS, &[1, 0, 0x80], &mut dynamic);
    let mut data = Vec::new();
    frame::encode(frame::DATA, b"hello", &mut data);
    let mut stream = Vec::new();
    varint::encode(frame::WEBTRANSPORT_STREAM, &mut stream);
    varint::encode(0, &mut stream);
    for (frames, expected) in [
        (long, error_code::FRAME_ERROR),
        (dynamic, error_code::MESSAGE_ERROR),
        (data, error_code::FRAME_UNEXPECTED),
        (stream, error_code::FRAME_UNEXPECTED),
    ] {
        let ((_, code), handshake) = against(|address| request(address, frames)).await;
        assert_eq!(code, expected.into());
        assert!(matches!(handshake, Err(HandshakeError::Invalid { .. })));
    }
}

#[tokio::test]
async fn a_connection_that_never_opens_a_session_is_closed() {
    let (closed, handshake) = against(|address| async move {
        let (quic, _) = raw(&address).await;
        let _control = control_stream(&quic).await;
        // QUIC is done with real time; the rest is waiting.
        tokio::time::pause();
        let start = tokio::time::Instant::now();
        quic.closed().await;
        start.elapsed()
    })
    .await;
    assert!(matches!(handshake, Err(HandshakeError::TimedOut { .. })));
    assert!(closed <= limits::HANDSHAKE_TIMEOUT + Duration::from_secs(1), "{closed:?}");
}

#[tokio::test]
async fn garbage_in_place_of_noise_is_refused() {
    let (_, handshake) = against(|address| async move {
        let (quic, _) = raw(&address).await;
        let _control = control_stream(&quic).await;
        let (mut send, _recv) = quic.open_bi().await.unwrap();
        send.write_all(&connect::encode_request("127.0.0.1")).await.unwrap();
        let (mut noise, _reading) = quic.open_bi().await.unwrap();
        noise.write_all(&[0x40, 0x41, 0, 0, 3, 1, 2, 3]).await.unwrap();
        quic.closed().await
    })
    .await;
    assert!(matches!(handshake, Err(HandshakeError::Invalid { step: "noise", .. })), "{:?}", handshake.err());
}

/// An established session, with the QUIC connection of its client.
async fn session() -> (quinn::Connection, Box<dyn Connection>, Box<dyn Connection>) {
    let (client, server) = against(|address| async move {
        let (quic, verifier) = raw(&address).await;
        let expected = Expected { authority: "127.0.0.1".to_owned(), peer: None, verifier: &verifier };
        let identity = Keypair::generate();
        let connection = handshake::connect(established(&quic), &identity, expected, address.clone());
        (quic, connection.await.unwrap())
    })
    .await;
    (client.0, client.1, server.unwrap())
}

#[tokio::test]
async fn other_streams_than_those_of_the_session_are_refused_and_it_goes_on() {
    let (quic, client, server) = session().await;
    let other_session = {
        let mut header = Vec::new();
        varint::encode(frame::WEBTRANSPORT_STREAM, &mut header);
        varint::encode(400, &mut header);
        header
    };
    let accepting = server.accept_stream();
    let breaking = async {
        for first in [connect::encode_request("127.0.0.1"), other_session] {
            let (mut send, mut recv) = quic.open_bi().await.unwrap();
            send.write_all(&first).await.unwrap();
            assert!(matches!(
                recv.read_to_end(10).await,
                Err(quinn::ReadToEndError::Read(quinn::ReadError::Reset(code)))
                    if code == error_code::REQUEST_REJECTED.into()
            ));
        }
        // A unidirectional stream of the session, and one of an unknown type. More than may be open at a time.
        for i in 0..50u8 {
            let mut uni = quic.open_uni().await.unwrap();
            let _ = uni.write_all(if i % 2 == 0 { &[0x40, 0x54, 0] } else { &[0x21, 0, 0] }).await;
            assert_eq!(uni.stopped().await.unwrap(), Some(error_code::STREAM_CREATION_ERROR.into()));
        }
        // Datagrams come to nothing.
        for _ in 0..100 {
            quic.send_datagram(Bytes::from_static(&[0; 1000])).unwrap();
        }
        let mut stream = client.open_stream().await.unwrap();
        stream.write_all(Bytes::from_static(b"x")).await.unwrap();
        stream
    };
    let (accepted, _stream) = tokio::join!(accepting, breaking);
    assert_eq!(accepted.unwrap().read_chunk().await.unwrap().unwrap(), "x");
}

#[tokio::test]
async fn a_second_control_stream_and_closed_critical_streams_end_the_connection() {
    let violations: [&[u8]; 4] = [&[0, 4, 0], &[0, 0x21, 0], &[1], &[2]];
    for (violation, code) in violations.into_iter().zip([
        error_code::STREAM_CREATION_ERROR,
        error_code::MISSING_SETTINGS,
        error_code::STREAM_CREATION_ERROR,
        error_code::CLOSED_CRITICAL_STREAM,
    ]) {
        let (quic, _client, server) = session().await;
        let mut uni = quic.open_uni().await.unwrap();
        uni.write_all(violation).await.unwrap();
        uni.finish().unwrap();
        assert!(matches!(*server.closed().await, ConnectionError::Protocol(_)));
        match quic.closed().await {
            quinn::ConnectionError::ApplicationClosed(close) => assert_eq!(close.error_code, code.into()),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_session_whose_remote_only_ends_the_request_is_closed_in_order() {
    for frames in [vec![], vec![0, 8, 0x68, 0x43, 4, 0, 0, 0, 9], vec![0x21, 1, 0]] {
        let (client, server) = against(|address| async move {
            let (quic, verifier) = raw(&address).await;
            let control = control_stream(&quic).await;
            let (mut send, recv) = quic.open_bi().await.unwrap();
            send.write_all(&connect::encode_request("127.0.0.1")).await.unwrap();
            let session =
                super::session::Session::new(established(&quic), quic.open_uni().await.unwrap(), control);
            let (noise_send, noise_recv) = quic.open_bi().await.unwrap();
            let mut stream = QuicStream::inbound(session.streams.clone(), noise_send, noise_recv);
            stream.write_all(Bytes::from_static(&[0x40, 0x41, 0])).await.unwrap();
            let identity = Keypair::generate();
            let mut noise = stream.into_io();
            peerloom_upgrade::noise::authenticate(
                &mut noise,
                peerloom_upgrade::Role::Initiator,
                &identity,
                &[],
                peerloom_upgrade::noise::NoiseExtensions::default(),
            )
            .await
            .unwrap();
            (quic, send, recv, verifier, (session, noise))
        })
        .await;
        let (quic, mut send, mut recv, _verifier, _noise) = client;
        let server = server.unwrap();
        send.write_all(&frames).await.unwrap();
        send.finish().unwrap();
        let response = recv.read_to_end(1000).await.unwrap();
        assert_eq!(connect::decode_response(&response[2..]), Ok(Some(connect::OK)));
        assert!(matches!(*server.closed().await, ConnectionError::ClosedByRemote));
        assert!(matches!(quic.closed().await, quinn::ConnectionError::ApplicationClosed(_)));
    }
}

#[tokio::test]
async fn a_rotation_changes_the_addresses_and_the_old_ones_still_work() {
    let directory = std::env::temp_dir().join(format!("peerloom-rotation-{}", std::process::id()));
    let store = DirectoryStore::new(&directory);
    // Made so long ago that the next one is due in a second.
    let age = {
        let now = SystemTime::now();
        let fresh = Certificates::load_or_create(crate::certificate::MemoryStore, now).unwrap();
        fresh.rotate_at().duration_since(now).unwrap() - Duration::from_secs(1)
    };
    Certificates::load_or_create(store.clone(), SystemTime::now() - age).unwrap();
    let certificates = Certificates::load_or_create(store.clone(), SystemTime::now()).unwrap();
    let identity = Keypair::generate();
    let transport = WebTransportTransport::new(
        identity.clone(),
        WebTransportConfig::default().with_certificates(certificates),
    );
    let mut listener = transport.listen(LISTEN.parse().unwrap()).await.unwrap();
    let mut second = transport.listen(LISTEN.parse().unwrap()).await.unwrap();
    let old = listener.addresses().remove(0);
    let stored = store.load().unwrap();
    for listener in [&mut listener, &mut second] {
        let event = timeout(Duration::from_secs(10), listener.next()).await.unwrap().unwrap();
        assert!(matches!(event, ListenerEvent::AddressesChanged));
    }
    assert_ne!(listener.addresses()[0], old);
    assert_ne!(store.load().unwrap(), stored);

    let dial = transport.dial(old.with_peer_id(identity.peer_id()));
    let accept = async {
        let ListenerEvent::Incoming(incoming) = listener.next().await.unwrap() else { panic!() };
        incoming.handshake.await.unwrap()
    };
    let (dialed, _accepted) = tokio::join!(dial, accept);
    dialed.unwrap();
    std::fs::remove_dir_all(directory).unwrap();
}

#[tokio::test]
async fn under_load_an_honest_dialer_proves_its_address_and_gets_in() {
    let mut listener = listener().await;
    let address = listener.addresses().remove(0);
    // Handshakes that nobody drives.
    let mut waiting = Vec::new();
    let mut dials = Vec::new();
    while waiting.len() < limits::RETRY_FROM {
        let address = address.clone();
        dials.push(spawn(async move { drop(raw(&address).await) }));
        let ListenerEvent::Incoming(incoming) = listener.next().await.unwrap() else { panic!() };
        waiting.push(incoming);
    }
    let server = async {
        let ListenerEvent::Incoming(incoming) = listener.next().await.unwrap() else { panic!() };
        incoming.handshake.await.err()
    };
    let client = async { drop(raw(&address).await) };
    let (_, ended) = timeout(Duration::from_secs(10), async { tokio::join!(client, server) }).await.unwrap();
    assert!(matches!(ended, Some(HandshakeError::Lost { .. })), "{ended:?}");
}
