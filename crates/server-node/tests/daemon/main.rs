//! `peerloom daemon` as a program in another language meets it: real processes, and sockets with bytes on them.

// Allowed in tests; clippy takes only the functions marked as such for tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod client;
#[path = "../common/mod.rs"]
mod common;
mod endings;
mod socket;

use std::{io::Write, net::TcpListener};

use client::*;
use tempfile::tempdir;

/// Two daemons of which the first is connected to the second.
fn connected(options: &[&str]) -> ([common::Server; 2], [tempfile::TempDir; 2]) {
    let directories = [tempdir().unwrap(), tempdir().unwrap()];
    let servers = [0, 1].map(|at: usize| daemon(directories[at].path(), options));
    let mut control = Socket::control(&servers[0]);
    control.done(&connect(&peer_id(&servers[1]), &servers[1].addresses, 0));
    (servers, directories)
}

#[test]
fn programs_on_two_daemons_talk_to_each_other() {
    let ([ours, theirs], [_first, directory]) = connected(&[]);
    let mut control = Socket::control(&ours);
    let identity = control.done(&request(IDENTIFY)).message(4);
    assert_eq!(identity.bytes(1), peer_id(&ours));
    let listening: Vec<_> = identity.addresses(2);
    assert_eq!(listening.len(), 2);
    assert!(listening.iter().all(|address| !address.contains("/p2p/")), "{listening:?}");

    let peers = control.done(&request(LIST_PEERS)).all(6);
    let [peer] = &peers[..] else { panic!("{peers:?}") };
    let peer = Message::parse(peer);
    assert_eq!((peer.bytes(1), peer.addresses(2).len()), (peer_id(&theirs), 1));

    let taker = Taker::unix(directory.path(), "taker");
    Socket::control(&theirs).done(&handle(&taker.address(), &["/chat/1", "/chat/2"]));
    let opened = control.done(&open(&peer_id(&theirs), &["/chat/3", "/chat/2"])).message(3);
    assert_eq!((opened.bytes(1), opened.text(3)), (peer_id(&theirs), "/chat/2".to_owned()));
    assert!(theirs.addresses.iter().any(|address| address.starts_with(&opened.addresses(2)[0])));
    let (mut taken, info) = taker.take();
    assert_eq!((info.bytes(1), info.text(3)), (peer_id(&ours), "/chat/2".to_owned()));
    assert!(info.addresses(2)[0].starts_with("/ip4/127.0.0.1/"));

    control.write_all(b"hello").unwrap();
    assert_eq!(taken.read_some(5), b"hello");
    taken.write_all(b"good day").unwrap();
    assert_eq!(control.read_some(8), b"good day");
    // A half that is closed leaves the other one open.
    control.shutdown();
    assert_eq!(taken.read_all(), b"");
    taken.write_all(b"and good bye").unwrap();
    taken.shutdown();
    assert_eq!(control.read_all(), b"and good bye");

    let mut control = Socket::control(&ours);
    control.done(&disconnect(&peer_id(&theirs)));
    assert!(control.done(&request(LIST_PEERS)).all(6).is_empty());
    // A peer whose address is known is dialed for a stream.
    control.done(&open(&peer_id(&theirs), &["/chat/1"]));
}

#[test]
fn the_peer_store_tells_what_identify_has_told() {
    let ([ours, theirs], [_first, directory]) = connected(&[]);
    let taker = Taker::unix(directory.path(), "taker");
    Socket::control(&theirs).done(&handle(&taker.address(), &["/told/by/push"]));
    let mut control = Socket::control(&ours);
    // Identify takes the time that it takes.
    loop {
        let protocols = control.done(&peer_store(1, &peer_id(&theirs))).message(8).all(2);
        if protocols.contains(&b"/told/by/push".to_vec()) {
            assert!(protocols.contains(&b"/ipfs/ping/1.0.0".to_vec()));
            break;
        }
    }
    let info = control.done(&peer_store(2, &peer_id(&theirs))).message(8).message(1);
    assert_eq!(info.bytes(1), peer_id(&theirs));
    assert!(theirs.addresses.iter().any(|address| address.starts_with(&info.addresses(2)[0])));
    // The name of a stranger.
    let stranger = [&[0x12, 0x20][..], &[7; 32]].concat();
    assert!(control.refused(&peer_store(1, &stranger)).starts_with("nothing is known of Qm"));
}

#[test]
fn a_daemon_that_is_started_again_finds_its_peers_by_their_ids() {
    let ([ours, theirs], [directory, _second]) = connected(&[]);
    let peer = peer_id(&theirs);
    assert!(ours.terminate().success());
    let ours = daemon(directory.path(), &[]);
    let mut control = Socket::control(&ours);
    assert!(!control.done(&peer_store(2, &peer)).message(8).message(1).addresses(2).is_empty());
    control.done(&connect(&peer, &[], 0));
    drop(control);
    assert!(ours.terminate().success());

    // Damage to the identity would be an error; what is known of peers can be found out anew.
    std::fs::write(directory.path().join("peers.redb"), b"damaged").unwrap();
    let ours = daemon(directory.path(), &[]);
    assert!(Socket::control(&ours).refused(&connect(&peer, &[], 0)).contains("no address"));
    assert_eq!(std::fs::read(directory.path().join("peers.redb.damaged")).unwrap(), b"damaged");
}

#[test]
fn requests_that_cannot_be_met_are_answered_and_the_connection_goes_on() {
    let ([ours, theirs], _directories) = connected(&[]);
    let mut control = Socket::control(&ours);
    let (us, them) = (peer_id(&ours), peer_id(&theirs));
    let [stranger, other] = [7, 8].map(|byte| [&[0x12, 0x20][..], &[byte; 32]].concat());
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let nowhere = format!("/ip4/127.0.0.1/tcp/{}", closed.port());
    for (asked, says) in [
        (request(77), "unknown type of request: 77"),
        (request(CONNECT), "connect is missing"),
        ([request(DISCONNECT), field(7, &field(1, b"no peer"))].concat(), "peer: "),
        (request(DHT), "the DHT is not available in this build"),
        ([request(PUBSUB), field(8, &number(1, 3))].concat(), "pubsub is not available in this build"),
        (connect(&stranger, &[], 0), "Qm"),
        (connect(&other, &[nowhere], 0), "cannot be reached"),
        (connect(&stranger, &["/ip4/127.0.0.1/udp/1".to_owned()], 0), "Qm"),
        (connect(&us, &ours.addresses, 0), "is this node itself"),
        (open(&stranger, &["/chat/1"]), "Qm"),
        (open(&them, &["/chat/1"]), "/chat/1: no protocol in common"),
        (open(&them, &["/chat/1", "/chat/2"]), "no protocol in common"),
        (open(&them, &["chat"]), "a protocol name starts with a slash"),
        (open(&them, &[]), "proto is missing"),
        (handle("/ip4/192.0.2.1/tcp/1", &["/chat/1"]), "not on loopback"),
        (handle("/ip4/127.0.0.1/udp/1/quic-v1", &["/chat/1"]), "neither /unix/<path> nor"),
        (handle("/unix/taker", &["/ipfs/ping/1.0.0"]), "has a handler already"),
        (peer_store(5, &them), "unknown type of peerStore request: 5"),
        (tag(9, &them, "a", 1), "unknown type of connManager request: 9"),
        (tag(0, &them, "", 1), "tag is missing"),
    ] {
        let error = control.refused(&asked);
        assert!(error.contains(says), "{says:?} is not in {error:?}");
    }
    control.done(&request(IDENTIFY));
}

#[test]
fn a_connection_that_takes_too_long_ends_within_the_time_of_the_request() {
    let directory = tempdir().unwrap();
    let daemon = daemon(directory.path(), &[]);
    // Accepts, and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("/ip4/127.0.0.1/tcp/{}", silent.local_addr().unwrap().port());
    let stranger = [&[0x12, 0x20][..], &[7; 32]].concat();
    let error = Socket::control(&daemon).refused(&connect(&stranger, &[address], 1));
    assert!(error.contains("in time"), "{error}");
}

#[test]
fn several_requests_at_once_are_answered_in_their_order_and_the_rest_is_the_streams() {
    let ([ours, theirs], [_first, directory]) = connected(&[]);
    let taker = Taker::unix(directory.path(), "taker");
    Socket::control(&theirs).done(&handle(&taker.address(), &["/chat/1"]));
    let mut control = Socket::control(&ours);
    let requests = [request(IDENTIFY), request(DHT), open(&peer_id(&theirs), &["/chat/1"])];
    let mut together: Vec<u8> = requests.iter().flat_map(|request| framed(request)).collect();
    together.extend_from_slice(b"the first words");
    control.write_all(&together).unwrap();
    assert_eq!(control.message().message(4).bytes(1), peer_id(&ours));
    assert_eq!(control.message().number(1), 1);
    assert_eq!(control.message().message(3).text(3), "/chat/1");
    let (mut taken, _) = taker.take();
    assert_eq!(taken.read_some(15), b"the first words");
}

#[test]
fn the_client_that_asked_last_for_a_protocol_has_it() {
    let ([ours, theirs], [_first, directory]) = connected(&[]);
    let [first, second] = ["first", "second"].map(|name| Taker::unix(directory.path(), name));
    let third = Taker::tcp();
    // Each by a client of its own.
    Socket::control(&theirs).done(&handle(&first.address(), &["/a", "/b"]));
    Socket::control(&theirs).done(&handle(&second.address(), &["/b"]));
    Socket::control(&theirs).done(&handle(&third.address(), &["/c"]));
    let mut streams = Vec::new();
    for (protocol, taker) in [("/b", &second), ("/a", &first), ("/c", &third)] {
        let mut control = Socket::control(&ours);
        control.done(&open(&peer_id(&theirs), &[protocol]));
        let (taken, info) = taker.take();
        assert_eq!(info.text(3), protocol);
        streams.push((control, taken));
    }
    // They do not get in each other's way.
    for (at, (control, taken)) in streams.iter_mut().enumerate() {
        control.write_all(&[at as u8]).unwrap();
        assert_eq!(taken.read_some(1), [at as u8]);
    }
}

#[test]
fn clients_handle_so_many_protocols_and_no_more() {
    let directory = tempdir().unwrap();
    let daemon = daemon(directory.path(), &[]);
    let mut control = Socket::control(&daemon);
    let names: Vec<String> = (0..96).map(|number| format!("/{number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let (most, rest) = names.split_at(60);
    control.done(&handle("/unix/taker", most));
    // All or nothing.
    let too_many = [rest, &["/one", "/more"]].concat();
    assert_eq!(control.refused(&handle("/unix/taker", &too_many)), "clients handle 96 protocols already");
    control.done(&handle("/unix/taker", rest));
    // One that is handled already takes no further place.
    control.done(&handle("/unix/other", &most[..3]));
    control.refused(&handle("/unix/taker", &["/more"]));
}

#[test]
fn peers_are_tagged_and_young_connections_are_not_trimmed() {
    let ([ours, theirs], _directories) = connected(&["--trim-to", "0"]);
    let mut control = Socket::control(&ours);
    control.done(&tag(0, &peer_id(&theirs), "friend", 10));
    control.done(&tag(1, &peer_id(&theirs), "friend", 0));
    control.done(&[request(CONNMANAGER), field(6, &number(1, 2))].concat());
    assert_eq!(control.done(&request(LIST_PEERS)).all(6).len(), 1);
}
