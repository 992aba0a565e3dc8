//! The codec against the bytes of the proto, written out, and against bytes of any kind.

use peerloom_core::Keypair;
use proptest::prelude::*;

use super::*;

fn decode(bytes: &[u8]) -> Result<Request, RequestError> {
    Request::decode(Bytes::copy_from_slice(bytes))
}

fn encoded(message: impl Message) -> Vec<u8> {
    message.encode_to_vec()
}

fn of_kind(kind: i32) -> wire::Request {
    wire::Request { kind: Some(kind), ..wire::Request::default() }
}

fn some_peer() -> (PeerId, Bytes) {
    let peer = Keypair::from_seed([7; 32]).peer_id();
    (peer, peer.to_bytes().into())
}

fn bytes_of(address: &str) -> Bytes {
    Bytes::copy_from_slice(address.parse::<Multiaddr>().unwrap().as_bytes())
}

#[test]
fn requests_are_read_as_other_clients_write_them() {
    let (peer, id) = some_peer();
    // type = 0
    assert_eq!(decode(&[0x08, 0x00]).unwrap(), Request::Identify);
    // type = 7, disconnect { peer }
    let mut disconnect = vec![0x08, 0x07, 0x3a, id.len() as u8 + 2, 0x0a, id.len() as u8];
    disconnect.extend_from_slice(&id);
    assert_eq!(decode(&disconnect).unwrap(), Request::Disconnect { peer });
    // type = 2, streamOpen { peer, proto = "/a", timeout = 3 }
    let mut open = vec![0x08, 0x02, 0x1a, id.len() as u8 + 8, 0x0a, id.len() as u8];
    open.extend_from_slice(&id);
    open.extend_from_slice(b"\x12\x02/a\x18\x03");
    let protocols = vec!["/a".parse().unwrap()];
    let timeout = Duration::from_secs(3);
    assert_eq!(decode(&open).unwrap(), Request::OpenStream { peer, protocols, timeout });
    // type = 9, peerStore { type = 1, id }
    let mut protocols = vec![0x08, 0x09, 0x4a, id.len() as u8 + 4, 0x08, 0x01, 0x12, id.len() as u8];
    protocols.extend_from_slice(&id);
    assert_eq!(decode(&protocols).unwrap(), Request::PeerProtocols { peer });
}

#[test]
fn answers_are_written_as_other_clients_read_them() {
    let (peer, id) = some_peer();
    assert_eq!(Response::Done.encode(), &[2, 0x08, 0x00][..]);
    assert_eq!(Response::Error("no".into()).encode(), &b"\x08\x08\x01\x12\x04\x0a\x02no"[..]);
    let info = StreamInfo {
        peer,
        address: "/ip4/127.0.0.1/tcp/1".parse().unwrap(),
        protocol: "/a".parse().unwrap(),
    };
    let mut expected = vec![0x0a, id.len() as u8];
    expected.extend_from_slice(&id);
    expected.extend_from_slice(b"\x12\x08\x04\x7f\x00\x00\x01\x06\x00\x01\x1a\x02/a");
    expected.insert(0, expected.len() as u8);
    assert_eq!(info.encode(), expected);
}

#[test]
fn times_are_those_of_the_request_within_bounds() {
    for (asked, given) in [
        (None, DEFAULT_TIMEOUT),
        (Some(0), DEFAULT_TIMEOUT),
        (Some(-5), DEFAULT_TIMEOUT),
        (Some(7), Duration::from_secs(7)),
        (Some(i64::MAX), MAX_TIMEOUT),
    ] {
        assert_eq!(duration(asked), given);
    }
}

#[test]
fn what_does_not_speak_the_protocol_is_told_from_what_asks_for_something_else() {
    for foreign in [
        &b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"[..],
        b"OST / HTTP/1.1\r\n\r\n\x02\x08\x00",
        b"\x03\x01\x00\xc8\x01",
        b"",
        b"\xff",
    ] {
        assert!(decode(foreign).unwrap_err().is_foreign(), "{foreign:?}");
    }
    let unknown = decode(&encoded(of_kind(99))).unwrap_err();
    assert_eq!(unknown.to_string(), "unknown type of request: 99");
    assert!(!unknown.is_foreign());
}

#[test]
fn requests_without_what_they_need_name_it() {
    let (_, id) = some_peer();
    let error = |request: wire::Request| decode(&encoded(request)).unwrap_err().to_string();
    assert_eq!(error(of_kind(wire::request::CONNECT)), "connect is missing");
    assert_eq!(error(of_kind(wire::request::CONNMANAGER)), "connManager is missing");
    let mut open = of_kind(wire::request::STREAM_OPEN);
    open.stream_open = Some(wire::StreamOpen::default());
    assert_eq!(error(open.clone()), "peer is missing");
    open.stream_open = Some(wire::StreamOpen { peer: Some(id.clone()), ..Default::default() });
    assert_eq!(error(open.clone()), "proto is missing");
    let proto = vec!["/a".to_owned(); MAX_PROTOCOLS + 1];
    open.stream_open = Some(wire::StreamOpen { peer: Some(id.clone()), proto, timeout: None });
    assert_eq!(error(open.clone()), "65 protocols, more than the 64 that one request may have");
    open.stream_open =
        Some(wire::StreamOpen { peer: Some(id.clone()), proto: vec!["a".into()], timeout: None });
    assert_eq!(error(open), "protocol \"a\": a protocol name starts with a slash");
    let mut tag = of_kind(wire::request::CONNMANAGER);
    tag.conn_manager = Some(wire::ConnManager { kind: Some(0), peer: Some(id), ..Default::default() });
    assert_eq!(error(tag), "tag is missing");
}

#[test]
fn addresses_of_another_peer_and_handlers_elsewhere_are_refused() {
    let (peer, id) = some_peer();
    let mut connect = of_kind(wire::request::CONNECT);
    let other = Keypair::from_seed([8; 32]).peer_id();
    let address = format!("/ip4/127.0.0.1/tcp/1/p2p/{other}");
    connect.connect = Some(wire::Connect { peer: Some(id), addrs: vec![bytes_of(&address)], timeout: None });
    let error = decode(&encoded(connect)).unwrap_err();
    assert_eq!(error.to_string(), format!("{address} is not an address of {peer}"));

    let mut handler = of_kind(wire::request::STREAM_HANDLER);
    let addr = Some(bytes_of("/ip4/192.0.2.1/tcp/1"));
    handler.stream_handler = Some(wire::StreamHandler { addr, proto: vec!["/a".into()] });
    let error = decode(&encoded(handler)).unwrap_err();
    assert_eq!(error.to_string(), "handler: /ip4/192.0.2.1/tcp/1 is not on loopback");
}

proptest! {
    #[test]
    fn nothing_that_a_client_sends_panics(bytes: Vec<u8>) {
        let _ = decode(&bytes);
    }

    #[test]
    fn no_content_of_any_field_panics(
        kind in -1..11,
        inner in prop::option::of(-1..4),
        peer in prop::option::of(prop::collection::vec(any::<u8>(), 0..45)),
        addrs in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..20), 0..3),
        proto in prop::collection::vec("/?[a-z\n]{0,5}", 0..3),
        timeout: Option<i64>,
    ) {
        let peer = peer.map(Bytes::from);
        let addr = addrs.first().cloned().map(Bytes::from);
        let addrs = addrs.into_iter().map(Bytes::from).collect();
        let request = wire::Request {
            kind: Some(kind),
            connect: Some(wire::Connect { peer: peer.clone(), addrs, timeout }),
            stream_open: Some(wire::StreamOpen { peer: peer.clone(), proto: proto.clone(), timeout }),
            stream_handler: Some(wire::StreamHandler { addr, proto: proto.clone() }),
            dht: peer.clone(),
            conn_manager: Some(wire::ConnManager {
                kind: inner,
                peer: peer.clone(),
                tag: proto.first().cloned(),
                weight: timeout,
            }),
            disconnect: Some(wire::Disconnect { peer: peer.clone() }),
            pubsub: peer.clone(),
            peer_store: Some(wire::PeerStoreRequest { kind: inner, id: peer }),
        };
        // Every request gets an answer or an error that says something.
        if let Err(error) = decode(&encoded(request)) {
            prop_assert!(!error.to_string().is_empty());
            prop_assert!(!error.is_foreign());
        }
    }
}
