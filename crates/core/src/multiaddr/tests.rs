use std::borrow::Cow;

use proptest::{prelude::*, sample::select};

use super::*;
use crate::{multihash::Multihash, varint::VarintError};

const PEER: &str = "12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA";
const HASH: &str = "uEiAkH5a4DPGKUuOBjYw0CgwjvcJCJMD2K_1aluKR_tpevQ";

/// Addresses as peers advertise them today.
fn advertised() -> Vec<String> {
    [
        "/ip4/192.0.2.1/tcp/4001",
        "/ip6/2001:db8::1/udp/4001/quic-v1",
        "/ip6/fe80::1/ip6zone/eth0/tcp/4001",
        "/ip4/198.51.100.0/ipcidr/24",
        "/ip4/192.0.2.1/udp/4001/quic-v1/webtransport/certhash/HASH/certhash/HASH/p2p/PEER",
        "/ip4/192.0.2.1/udp/4001/webrtc-direct/certhash/HASH",
        "/ip4/192.0.2.1/udp/4001/quic-v1/p2p/PEER/p2p-circuit/webrtc/p2p/PEER",
        "/dnsaddr/bootstrap.libp2p.io/p2p/PEER",
        "/dns4/relay.example.org/tcp/443/wss",
        "/dns6/relay.example.org/tcp/443/tls/ws/http-path/a%2Fb%20c",
        "/dns/relay.example.org/tcp/443/tls/sni/other.example.org/ws",
        "/dns/example.org/tcp/443/https",
        "/ip4/192.0.2.1/tcp/80/http",
        "/ip4/192.0.2.1/udp/4001/quic",
        "/ip4/192.0.2.1/tcp/4001/noise",
        "/ip4/192.0.2.1/tcp/4001/plaintextv2",
        "/ip4/192.0.2.1/tcp/4001/ws/p2p-webrtc-star",
        "/ip4/192.0.2.1/tcp/4001/ws/p2p-websocket-star",
        "/ip4/192.0.2.1/tcp/4001/ws/p2p-stardust",
        "/ip4/192.0.2.1/tcp/4001/http/p2p-webrtc-direct",
        "/ip4/192.0.2.1/udp/1234/utp",
        "/ip4/192.0.2.1/udp/1234/udt",
        "/ip4/192.0.2.1/sctp/1234",
        "/ip4/192.0.2.1/dccp/1234",
        "/memory/18446744073709551615",
        "/unix/run/peer.socket",
        "/unix/%2Frun%2Fpeer.socket/tls",
        "/unix/%2F%252Frun",
        "/onion/timaq4ygg2iegci7:80/http",
        "/onion3/vww6ybal4bd7szmgncyruucpgfkqahzddi37ktceo3ah7ngmcopnpyyd:1234",
        "/garlic32/566niximlxdzpanmn4qouucvua3k7neniwss47li5r6ugoertzuq",
        "/thread/bafkwfcy3l745x57c7vy3z2ss6ndokatjllz5iftciq4kpr4ez2pqg3i",
        "/ip4/192.0.2.1/tcp/1/unknown-4096/uAAEC",
        "/unknown-4096/u",
    ]
    .map(|text| text.replace("HASH", HASH).replace("PEER", PEER))
    .to_vec()
}

#[test]
fn advertised_addresses_survive_text_and_bytes() {
    for text in advertised() {
        let address: Multiaddr = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(address.to_string(), text);
        assert_eq!(Multiaddr::from_bytes(address.as_bytes()).as_ref(), Ok(&address), "{text}");
        assert_eq!(Multiaddr::from_protocols(address.protocols()), address, "{text}");
    }
}

#[test]
fn binary_forms_are_those_of_other_implementations() {
    // Vectors of go-multiaddr's tests.
    for (text, hex) in [
        ("/ip4/1.2.3.4", "0401020304"),
        ("/ip4/0.0.0.0", "0400000000"),
        ("/ip6/2001:8a0:7ac5:4201:3ac9:86ff:fe31:7095", "29200108a07ac542013ac986fffe317095"),
        ("/tcp/0", "060000"),
        ("/tcp/1234", "0604d2"),
        ("/sctp/1234", "840104d2"),
        ("/udp/1234/udt", "910204d2ad02"),
        ("/udp/1234/utp", "910204d2ae02"),
        ("/tcp/1234/http", "0604d2e003"),
        ("/tcp/1234/tls/http", "0604d2c003e003"),
        ("/tcp/1234/https", "0604d2bb03"),
        ("/ip4/127.0.0.1/udp/1234/quic-v1", "047f000001910204d2cd03"),
        ("/onion/aaimaq4ygg2iegci:80", "bc030010c0439831b48218480050"),
        ("/unix/a/b/c/d/e", "90030a2f612f622f632f642f65"),
        ("/sni/example.com", "c1030b6578616d706c652e636f6d"),
        (
            "/p2p/QmcgpsyWgH8Y8ajJz1Cu72KnS5uo2Aa2LpzU7kinSupNKC",
            "a503221220d52ebb89d85b02a284948203a62ff28389c57c9f42beec4ec20db76a68911c0b",
        ),
        ("/memory/1", "89060000000000000001"),
        ("/http-path/foo", "e10303666f6f"),
        ("/webrtc-direct", "9802"),
        ("/webrtc", "9902"),
        ("/p2p-circuit", "a202"),
    ] {
        let address: Multiaddr = text.parse().unwrap();
        assert_eq!(data_encoding::HEXLOWER.encode(address.as_bytes()), hex, "{text}");
    }
}

#[test]
fn other_spellings_are_understood() {
    for (text, canonical) in [
        (format!("/ipfs/{PEER}"), format!("/p2p/{PEER}")),
        ("/ip4/192.0.2.1/tcp/1/".into(), "/ip4/192.0.2.1/tcp/1".into()),
        ("/ip6/2001:DB8:0:0::1".into(), "/ip6/2001:db8::1".into()),
        (
            "/p2p/bafzbeie5745rpv2m6tjyuugywy4d5ewrqgqqhfnf445he3omzpjbx5xqxe".into(),
            "/p2p/QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N".into(),
        ),
        ("/http-path/a%2fb".into(), "/http-path/a%2Fb".into()),
        ("/unix/%2frun".into(), "/unix/run".into()),
    ] {
        assert_eq!(text.parse::<Multiaddr>().unwrap().to_string(), canonical);
    }
}

#[test]
fn text_that_is_no_address_is_refused_with_the_reason() {
    use MultiaddrError as E;
    let refused = |text: &str| text.parse::<Multiaddr>().unwrap_err();
    for text in ["", "/", "///", "ip4/1.2.3.4"] {
        assert_eq!(refused(text), E::NoSlash, "{text}");
    }
    for (text, name) in [("/ip5/1", "ip5"), ("//ip4/1.2.3.4", ""), ("/unknown-6/uAAE", "unknown-6")] {
        assert_eq!(refused(text), E::UnknownProtocol(name.into()), "{text}");
    }
    assert_eq!(refused("/ip4"), E::NoValue { protocol: "ip4" });
    assert_eq!(refused("/ip4/1.2.3.4/tcp/"), E::NoValue { protocol: "tcp" });
    for (protocol, value) in [
        ("ip4", "1.2.3"),
        ("ip4", "1.2.3.4.5"),
        ("ip6", "1.2.3.4"),
        ("tcp", "65536"),
        ("tcp", "+1"),
        ("tcp", "01"),
        ("tcp", "x"),
        ("ipcidr", "256"),
        ("p2p", "Qm"),
        ("p2p", "bafybeigdyrzt5sfp7udm7hu76uh7y26nf3efuylqabf3oclgtqy55fbzdi"),
        ("certhash", "uEiAA"),
        ("certhash", HASH.strip_prefix('u').unwrap()),
        ("onion", "timaq4ygg2iegci7:0"),
        ("onion", "timaq4ygg2iegci7"),
        ("onion3", "timaq4ygg2iegci7:80"),
        ("garlic32", "566n"),
        ("garlic64", "AAAA"),
        ("memory", "18446744073709551616"),
        ("http-path", "%2"),
        ("http-path", "%zz"),
        ("http-path", "%FF"),
        ("dns", "a\nb"),
    ] {
        let text = format!("/{protocol}/{value}");
        assert_eq!(refused(&text), E::Value { protocol }, "{text}");
    }
}

#[test]
fn bytes_that_are_no_address_are_refused_with_the_reason() {
    use MultiaddrError as E;
    let refused = |bytes: &[u8]| Multiaddr::from_bytes(bytes).unwrap_err();
    assert_eq!(refused(&[]), E::Empty);
    assert_eq!(refused(&[4, 1, 2, 3]), E::Varint(VarintError::Truncated));
    assert_eq!(refused(&[0x84, 0x00]), E::Varint(VarintError::NotMinimal));
    // Values that are shorter than their length says, or than it should be.
    assert_eq!(refused(&[53, 4, b'a']), E::Varint(VarintError::Truncated));
    assert_eq!(
        refused(&[53, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]),
        E::Varint(VarintError::Truncated)
    );
    assert_eq!(refused(&[53, 0]), E::Value { protocol: "dns" });
    assert_eq!(refused(&[53, 3, b'a', b'/', b'b']), E::Value { protocol: "dns" });
    assert_eq!(refused(&[53, 1, 0xff]), E::Value { protocol: "dns" });
    assert_eq!(refused(&[0xa5, 0x03, 1, 0]), E::Value { protocol: "p2p" });
    assert_eq!(refused(&[0xd2, 0x03, 1, 0]), E::Value { protocol: "certhash" });
}

#[test]
fn address_of_ten_thousand_components_is_refused_at_once() {
    use MultiaddrError as E;
    for component in ["/ws", "/p2p-circuit", "/ip4/1.2.3.4"] {
        let text = component.repeat(10_000);
        assert_eq!(text.parse::<Multiaddr>(), Err(E::TooLong(text.len())));
        let bytes = component.parse::<Multiaddr>().unwrap().as_bytes().repeat(10_000);
        assert_eq!(Multiaddr::from_bytes(&bytes), Err(E::TooLong(bytes.len())));
    }
    let ws = "/ws".parse::<Multiaddr>().unwrap();
    for (count, result) in [(MAX_COMPONENTS, Ok(())), (MAX_COMPONENTS + 1, Err(E::TooManyComponents))] {
        assert_eq!("/ws".repeat(count).parse::<Multiaddr>().map(|_| ()), result);
        assert_eq!(Multiaddr::from_bytes(&ws.as_bytes().repeat(count)).map(|_| ()), result);
    }
}

#[test]
fn unknown_protocol_keeps_all_that_follows_it() {
    // The code 0x1000, then what might be a length and a value, or might not.
    let bytes = [4, 192, 0, 2, 1, 0x80, 0x20, 3, 1, 2, 3];
    let address = Multiaddr::from_bytes(&bytes).unwrap();
    assert_eq!(address.as_bytes(), bytes);
    let unknown = Protocol::Unknown { code: 0x1000, data: Cow::Borrowed(&[3, 1, 2, 3]) };
    assert_eq!(address.protocols().last(), Some(unknown));
    assert_eq!(address.to_string(), "/ip4/192.0.2.1/unknown-4096/uAwECAw");
    assert_eq!(address.to_string().parse(), Ok(address));
}

#[test]
fn final_peer_id_is_read_added_replaced_and_removed() {
    let peer: PeerId = PEER.parse().unwrap();
    let other: PeerId = "QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N".parse().unwrap();
    let relay: Multiaddr = format!("/ip4/192.0.2.1/tcp/1/p2p/{PEER}/p2p-circuit").parse().unwrap();
    assert_eq!(relay.peer_id(), None);
    assert!(relay.is_relayed());
    let destination = relay.with_peer_id(other);
    assert_eq!(destination.to_string(), format!("{relay}/p2p/{other}"));
    assert_eq!(destination.peer_id(), Some(other));
    assert_eq!(destination.with_peer_id(peer).peer_id(), Some(peer));
    assert_eq!(destination.without_peer_id(), relay);
    assert_eq!(relay.without_peer_id(), relay);
    let alone = Multiaddr::empty().with_peer_id(peer);
    assert_eq!(alone.peer_id(), Some(peer));
    assert!(alone.without_peer_id().is_empty());
    assert_eq!(alone.without_peer_id().to_string(), "/");
}

#[test]
fn components_put_together_in_a_wrong_way_do_no_harm() {
    let address = Multiaddr::empty().with(Protocol::Dns("a/b".into())).with(Protocol::Tcp(1));
    assert_eq!(address.protocols().count(), 1);
    assert!(matches!(address.protocols().last(), Some(Protocol::Unknown { .. })));
    assert_eq!(address.peer_id(), None);
    assert_eq!(Multiaddr::from_bytes(address.as_bytes()), Err(MultiaddrError::Value { protocol: "dns" }));
    let long = Multiaddr::from_protocols(std::iter::repeat_n(Protocol::Ws, 100));
    assert_eq!(long.protocols().count(), 100);
}

fn component() -> impl Strategy<Value = Protocol<'static>> {
    let text = || "[^/\\p{Cc}]{1,20}".prop_map(Cow::<str>::Owned);
    let bytes = |range| prop::collection::vec(any::<u8>(), range).prop_map(Cow::<[u8]>::Owned);
    let plain = select(vec![
        Protocol::Udt,
        Protocol::Utp,
        Protocol::Tls,
        Protocol::Noise,
        Protocol::PlaintextV2,
        Protocol::Quic,
        Protocol::QuicV1,
        Protocol::WebTransport,
        Protocol::Http,
        Protocol::Https,
        Protocol::Ws,
        Protocol::Wss,
        Protocol::P2pWebSocketStar,
        Protocol::P2pWebRtcStar,
        Protocol::P2pWebRtcDirect,
        Protocol::P2pStardust,
        Protocol::WebRtcDirect,
        Protocol::WebRtc,
        Protocol::P2pCircuit,
    ]);
    let hosts = prop_oneof![
        any::<[u8; 4]>().prop_map(|ip| Protocol::Ip4(ip.into())),
        any::<[u8; 16]>().prop_map(|ip| Protocol::Ip6(ip.into())),
        any::<u8>().prop_map(Protocol::IpCidr),
        text().prop_map(Protocol::Ip6Zone),
        text().prop_map(Protocol::Dns),
        text().prop_map(Protocol::Dns4),
        text().prop_map(Protocol::Dns6),
        text().prop_map(Protocol::Dnsaddr),
        text().prop_map(Protocol::Sni),
    ];
    let values = prop_oneof![
        any::<u16>().prop_map(Protocol::Tcp),
        any::<u16>().prop_map(Protocol::Udp),
        any::<u16>().prop_map(Protocol::Dccp),
        any::<u16>().prop_map(Protocol::Sctp),
        any::<u64>().prop_map(Protocol::Memory),
        any::<[u8; 32]>().prop_map(|seed| Protocol::P2p(crate::Keypair::from_seed(seed).peer_id())),
        any::<[u8; 32]>().prop_map(|digest| Protocol::Certhash(Multihash::sha2_256(digest))),
        "(/[^/\\p{Cc}]{1,9}){1,3}".prop_map(|path| Protocol::Unix(path.into())),
        "[^\\p{Cc}]{1,20}".prop_map(|path| Protocol::HttpPath(path.into())),
        (any::<[u8; 10]>(), 1..=u16::MAX).prop_map(|(service, port)| Protocol::Onion(service, port)),
        (prop::collection::vec(any::<u8>(), 35), 1..=u16::MAX)
            .prop_map(|(service, port)| Protocol::Onion3(service.try_into().unwrap(), port)),
        bytes(386..400).prop_map(Protocol::Garlic64),
        bytes(32..33).prop_map(Protocol::Garlic32),
        bytes(35..60).prop_map(Protocol::Garlic32),
        bytes(1..40).prop_map(Protocol::Thread),
    ];
    prop_oneof![plain, hosts, values]
}

fn unknown() -> impl Strategy<Value = Protocol<'static>> {
    (10_000u64..7_000_000, prop::collection::vec(any::<u8>(), 0..40))
        .prop_map(|(code, data)| Protocol::Unknown { code, data: data.into() })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn any_components_survive_text_and_bytes(
        mut components in prop::collection::vec(component(), 1..5),
        last in prop::option::of(unknown()),
    ) {
        components.extend(last);
        let address = Multiaddr::from_protocols(components.iter().cloned());
        prop_assert_eq!(address.protocols().collect::<Vec<_>>(), components);
        prop_assert_eq!(Multiaddr::from_bytes(address.as_bytes()), Ok(address.clone()));
        prop_assert_eq!(address.to_string().parse(), Ok(address));
    }

    #[test]
    fn bytes_that_are_taken_survive_text(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        if let Ok(address) = Multiaddr::from_bytes(&bytes) {
            prop_assert_eq!(address.as_bytes(), &bytes[..]);
            prop_assert_eq!(address.to_string().parse(), Ok(address));
        }
    }

    #[test]
    fn damaged_addresses_never_panic(text in select(advertised()), at: prop::sample::Index, byte: u8) {
        let mut bytes = text.parse::<Multiaddr>().unwrap().to_bytes();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if let Ok(address) = Multiaddr::from_bytes(&bytes) {
            prop_assert_eq!(address.to_string().parse(), Ok(address));
        }
    }

    #[test]
    fn text_that_is_taken_survives_bytes(
        text in "(/(ip4|ip6|tcp|dns|unix|p2p|certhash|ws|memory|http-path|unknown-9999|%2F|1.2.3.4|::1|80|uAAA|é)){0,6}/?"
    ) {
        if let Ok(address) = text.parse::<Multiaddr>() {
            prop_assert_eq!(Multiaddr::from_bytes(address.as_bytes()), Ok(address.clone()));
            prop_assert_eq!(address.to_string().parse(), Ok(address));
        }
    }

    #[test]
    fn no_text_panics(text: String) {
        let _ = text.parse::<Multiaddr>();
        let _ = format!("/{text}").parse::<Multiaddr>();
    }
}
