//! Nodes on the simulated internet that find out who reaches them.

// Allowed in tests; clippy takes only the functions marked as such for tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::time::Duration;

use peerloom_autonat::{
    Answer, AskError, AutonatClient, AutonatServer, ClientConfig, DIAL_BACK, DIAL_REQUEST, RequestError,
    ServerConfig, V1,
    message::{DialBack, DialResponse, DialStatus, Message, ResponseStatus},
    serve,
};
use peerloom_core::{Multiaddr, PeerRecord, StreamExt as _, framing};
use peerloom_node::{Node, Reachability};
use peerloom_sim::{Host, HostConfig, Internet, Nat};
use tokio::time::{Instant, sleep};

const QUIC: &str = "/ip4/0.0.0.0/udp/4001/quic-v1";
const TCP: &str = "/ip4/0.0.0.0/tcp/4001";
/// More than any exchange takes.
const A_WHILE: Duration = Duration::from_secs(20);
const HOUR: Duration = Duration::from_secs(3600);

fn node(host: &Host) -> Node {
    let keypair = host.keypair();
    Node::builder(keypair.clone()).transport(host.transport(keypair)).build()
}

async fn listening(host: &Host) -> Node {
    let node = node(host);
    for address in [QUIC, TCP] {
        node.listen(address.parse().unwrap()).await.unwrap();
    }
    node
}

struct Served {
    node: Node,
    server: AutonatServer,
    /// Where it dials from.
    dialer: Host,
}

/// A server on two hosts: what it dials from shares no port with what it listens on.
async fn server(internet: &Internet, network: u8) -> Served {
    server_with(internet, network, ServerConfig::default()).await
}

async fn server_with(internet: &Internet, network: u8, config: ServerConfig) -> Served {
    let node = listening(&internet.host(HostConfig::new().address([30, 0, network, 1]))).await;
    let host = internet.host(HostConfig::new().address([30, 0, network, 2]));
    let keypair = host.keypair();
    let dialer = Node::builder(keypair.clone()).transport(host.transport(keypair)).identify(None).build();
    let server = serve(&node, dialer, config).unwrap();
    Served { node, server, dialer: host }
}

async fn servers(internet: &Internet, count: u8) -> Vec<Served> {
    let mut servers = Vec::new();
    for network in 0..count {
        servers.push(server(internet, network).await);
    }
    servers
}

async fn client(host: &Host, servers: &[Served]) -> (Node, AutonatClient) {
    let node = listening(host).await;
    let client = AutonatClient::start(&node, ClientConfig::default()).unwrap();
    for server in servers {
        node.dial(server.node.listen_addresses().remove(0)).await.unwrap();
    }
    (node, client)
}

fn reachability(node: &Node) -> Vec<(String, Reachability)> {
    let known = node.own_addresses().into_iter().map(|own| (own.address.to_string(), own.reachability));
    let mut known: Vec<_> = known.collect();
    known.sort();
    known
}

/// How long it takes.
async fn until(what: &str, holds: impl Fn() -> bool) -> Duration {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < 3 * HOUR, "{what}");
        sleep(Duration::from_secs(1)).await;
    }
    start.elapsed()
}

/// The addresses that a peer is told now.
async fn told(to: &Node, by: &Node) -> Vec<Multiaddr> {
    let record = to.peer_store().details(by.peer_id()).unwrap().signed_record.unwrap();
    PeerRecord::open(&record).await.unwrap().addresses
}

#[tokio::test(start_paused = true)]
async fn a_public_host_finds_out_that_it_is_reachable() {
    let internet = Internet::new(11);
    let servers = servers(&internet, 3).await;
    let host = internet.host(HostConfig::new());
    let (node, _client) = client(&host, &servers).await;
    sleep(HOUR / 2).await;
    let ip = host.public_address();
    let expected = [
        (format!("/ip4/{ip}/tcp/4001"), Reachability::Reachable),
        (format!("/ip4/{ip}/udp/4001/quic-v1"), Reachability::Reachable),
    ];
    assert_eq!(reachability(&node), expected);
    // Nothing is left of the dials, and nobody is asked more than need be.
    assert_eq!(internet.connections(), 3);
    let requests = servers.iter().map(|served| served.server.stats().requests).sum::<u64>();
    assert_eq!(requests, 4);
    assert_eq!(servers.iter().map(|served| served.server.stats().reached).sum::<u64>(), 4);
}

/// What a host behind that NAT finds out about itself, all of it over QUIC: the address that others see, if they agree on one,
/// and the verdict on it.
async fn behind(nat: Nat) -> (Vec<(Multiaddr, Reachability)>, Vec<Multiaddr>) {
    let internet = Internet::new(11);
    let servers = servers(&internet, 5).await;
    let host = internet.host(HostConfig::new().behind(nat));
    let node = node(&host);
    node.listen(QUIC.parse().unwrap()).await.unwrap();
    let _client = AutonatClient::start(&node, ClientConfig::default()).unwrap();
    for server in &servers {
        node.dial(server.node.listen_addresses().remove(0)).await.unwrap();
    }
    sleep(HOUR / 2).await;
    let own = node.own_addresses().into_iter().map(|own| (own.address, own.reachability)).collect();
    (own, told(&servers[0].node, &node).await)
}

#[tokio::test(start_paused = true)]
async fn a_host_behind_a_full_cone_is_reachable_where_others_see_it() {
    let (own, told) = behind(Nat::FullCone).await;
    assert_eq!(own.len(), 2);
    assert_eq!((own[0].1, own[1].1), (Reachability::Reachable, Reachability::Unknown));
    assert_eq!(told, [own[0].0.clone()]);
}

#[tokio::test(start_paused = true)]
async fn a_host_behind_a_nat_that_filters_finds_out_that_it_is_unreachable_and_tells_nothing() {
    for nat in [Nat::RestrictedCone, Nat::PortRestrictedCone] {
        let (own, told) = behind(nat).await;
        let verdicts: Vec<_> = own.iter().map(|(_, reachability)| *reachability).collect();
        // The private address is not asked about.
        assert_eq!(verdicts, [Reachability::Unreachable, Reachability::Unknown], "{nat:?}");
        assert_eq!(told, [], "{nat:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_host_behind_a_symmetric_nat_has_nothing_to_ask_about_or_to_tell() {
    let (own, told) = behind(Nat::Symmetric).await;
    assert_eq!((own.len(), own[0].1), (1, Reachability::Unknown));
    assert_eq!(told, []);
}

#[tokio::test(start_paused = true)]
async fn an_address_that_becomes_unreachable_is_withdrawn_and_comes_back() {
    let internet = Internet::new(11);
    let servers = servers(&internet, 4).await;
    let host = internet.host(HostConfig::new());
    let (node, _client) = client(&host, &servers).await;
    sleep(A_WHILE).await;
    assert_eq!(told(&servers[0].node, &node).await.len(), 2);
    let reaches = |verdict: Reachability| reachability(&node).iter().all(|(_, reached)| *reached == verdict);
    until("it is reachable", || reaches(Reachability::Reachable)).await;

    // Some firewall: what is connected stays so, but nobody else comes in.
    internet.partition(servers.iter().map(|served| &served.dialer), [&host]);
    let took = until("it has become unreachable", || reaches(Reachability::Unreachable)).await;
    assert!(took < HOUR + HOUR / 4, "{took:?}");
    assert_eq!(node.listen_addresses(), []);
    sleep(A_WHILE).await;
    assert_eq!(told(&servers[0].node, &node).await, [], "withdrawn");

    internet.heal();
    until("it has become reachable", || reaches(Reachability::Reachable)).await;
    sleep(A_WHILE).await;
    assert_eq!((node.listen_addresses().len(), told(&servers[0].node, &node).await.len()), (2, 2));
}

/// A node that answers requests of version 2 with this message, whatever is asked.
async fn liar(internet: &Internet, network: u8, message: Message) -> Node {
    let node = listening(&internet.host(HostConfig::new().address([40, 0, network, 1]))).await;
    node.handle(DIAL_REQUEST, move |mut incoming| {
        let answer = framing::encode(&message.encode(), 8192).unwrap();
        async move {
            let _ = incoming.stream.write_all(answer).await;
            let _ = incoming.stream.close_write().await;
            while let Ok(Some(_)) = incoming.stream.read_chunk().await {}
        }
    })
    .unwrap();
    node
}

fn dialed(status: DialStatus) -> Message {
    Message::DialResponse(DialResponse { status: ResponseStatus::Ok, index: 0, dial: status })
}

#[tokio::test(start_paused = true)]
async fn liars_are_not_believed_that_they_have_dialed_and_those_of_one_network_count_as_one() {
    let internet = Internet::new(11);
    let host = internet.host(HostConfig::new());
    let (node, client) = client(&host, &[]).await;
    let address = node.listen_addresses()[0].without_peer_id();
    let flatterer = liar(&internet, 1, dialed(DialStatus::Ok)).await;
    node.dial(flatterer.listen_addresses().remove(0)).await.unwrap();
    let answer = client.ask(flatterer.peer_id(), vec![address.clone()]).await;
    assert!(matches!(answer, Err(AskError::NotProved { .. })), "{answer:?}");

    // The slanderers are the more, but in one network.
    let mut slanderers = Vec::new();
    for number in 1..=5 {
        let host = internet.host(HostConfig::new().address([50, 0, 0, number]));
        let slanderer = listening(&host).await;
        slanderer
            .handle(DIAL_REQUEST, |mut incoming| async move {
                let lie = dialed(DialStatus::DialError).encode();
                let _ = incoming.stream.write_all(framing::encode(&lie, 8192).unwrap()).await;
                let _ = incoming.stream.close_write().await;
                while let Ok(Some(_)) = incoming.stream.read_chunk().await {}
            })
            .unwrap();
        node.dial(slanderer.listen_addresses().remove(0)).await.unwrap();
        slanderers.push(slanderer);
    }
    sleep(HOUR / 2).await;
    assert!(reachability(&node).iter().all(|(_, verdict)| *verdict == Reachability::Unknown));
    assert_eq!(node.listen_addresses().len(), 2);
    let servers = servers(&internet, 3).await;
    for server in &servers {
        node.dial(server.node.listen_addresses().remove(0)).await.unwrap();
    }
    sleep(HOUR / 2).await;
    assert!(reachability(&node).iter().all(|(_, verdict)| *verdict == Reachability::Reachable));
}

#[tokio::test(start_paused = true)]
async fn an_address_elsewhere_costs_data_and_private_ones_and_names_are_refused() {
    let internet = Internet::new(11);
    let server = server(&internet, 1).await;
    // Its connection comes from the first of its addresses.
    let host = internet.host(HostConfig::new().address([20, 0, 5, 1]).address([20, 0, 6, 1]));
    let (node, client) = client(&host, std::slice::from_ref(&server)).await;
    let parse = |address: &str| address.parse::<Multiaddr>().unwrap();
    let ask = |addresses: &[&str]| {
        client.ask(server.node.peer_id(), addresses.iter().map(|address| parse(address)).collect())
    };
    let there = "/ip4/20.0.6.1/tcp/4001";
    assert_eq!(ask(&[there]).await.unwrap(), Answer::Reached(parse(there)));
    let here = "/ip4/20.0.5.1/udp/4001/quic-v1";
    assert_eq!(ask(&[here]).await.unwrap(), Answer::Reached(parse(here)));
    let nowhere = "/ip4/20.0.5.1/tcp/9";
    assert_eq!(ask(&[nowhere, here]).await.unwrap(), Answer::NotReached(parse(nowhere)), "only the first");
    for refused in ["/ip4/10.0.0.1/tcp/4001", "/ip4/127.0.0.1/tcp/4001", "/dns4/example.org/tcp/4001"] {
        assert_eq!(ask(&[refused]).await.unwrap(), Answer::Refused, "{refused}");
        assert_eq!(
            ask(&[refused, here]).await.unwrap(),
            Answer::Reached(parse(here)),
            "the first that may be"
        );
    }
    assert_eq!(node.connections().len(), 1);
    assert_eq!(internet.connections(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_server_does_not_do_more_than_it_said_for_one_peer() {
    let internet = Internet::new(11);
    let server = server(&internet, 1).await;
    let host = internet.host(HostConfig::new());
    let (node, client) = client(&host, std::slice::from_ref(&server)).await;
    let address = node.listen_addresses()[0].without_peer_id();
    let mut served = 0;
    for _ in 0..30 {
        match client.ask(server.node.peer_id(), vec![address.clone()]).await {
            Ok(answer) => {
                assert_eq!(answer, Answer::Reached(address.clone()));
                served += 1;
            }
            Err(AskError::Request(RequestError::NotServed(status))) => {
                assert_eq!(status, ResponseStatus::RequestRejected);
            }
            Err(error) => panic!("{error}"),
        }
    }
    // The client asks by itself, too.
    let rejected = server.server.stats().rejected;
    assert!((10..=12).contains(&served) && rejected >= 18, "{served} served, {rejected} rejected");
    sleep(Duration::from_secs(60)).await;
    client.ask(server.node.peer_id(), vec![address]).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn clients_that_are_silent_or_that_do_not_pay_hold_no_place() {
    let internet = Internet::new(11);
    let server = server(&internet, 1).await;
    let client = node(&internet.host(HostConfig::new()));
    client.dial(server.node.listen_addresses().remove(0)).await.unwrap();
    let open = || client.open_stream(server.node.peer_id(), &[DIAL_REQUEST]);
    let request = |address: &str| {
        let message = Message::DialRequest { addresses: vec![Some(address.parse().unwrap())], nonce: 1 };
        framing::encode(&message.encode(), 8192).unwrap()
    };
    // Two that say nothing: the place of a third is taken, until they are given up.
    let mut silent = Vec::new();
    for _ in 0..2 {
        let mut stream = open().await.unwrap();
        stream.flush().await.unwrap();
        silent.push(stream);
    }
    sleep(Duration::from_secs(1)).await;
    let mut third = open().await.unwrap();
    third.write_all(request("/ip4/20.9.9.9/tcp/1")).await.unwrap();
    third.read_chunk().await.unwrap();
    assert_eq!(server.server.stats().rejected, 1);
    sleep(A_WHILE).await;
    assert!(silent[0].read_chunk().await.is_err(), "reset");
    // One that does not pay, and nobody is dialed.
    let mut cheat = open().await.unwrap();
    cheat.write_all(request("/ip4/20.9.9.9/tcp/1")).await.unwrap();
    let wanted = cheat.read_chunk().await.unwrap().unwrap();
    let Ok(Message::DialDataRequest { index: 0, bytes: 30_000..=100_000 }) =
        Message::decode(wanted.slice(1..))
    else {
        panic!("{wanted:?}")
    };
    let cent = Message::DialDataResponse { data: vec![0; 10].into() };
    cheat.write_all(framing::encode(&cent.encode(), 8192).unwrap()).await.unwrap();
    assert!(cheat.read_chunk().await.is_err(), "reset");
    let stats = server.server.stats();
    assert_eq!((stats.requests, stats.reached, stats.not_reached), (4, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_server_of_version_1_is_asked_where_there_is_no_other() {
    let internet = Internet::new(11);
    let mut old = Vec::new();
    for network in 0..3 {
        let node = listening(&internet.host(HostConfig::new().address([30, 0, network, 1]))).await;
        node.handle(V1, |mut incoming| async move {
            // DIAL_RESPONSE with E_DIAL_ERROR.
            let answer = framing::encode(&[0x08, 1, 0x1a, 2, 0x08, 100], 64).unwrap();
            let _ = incoming.stream.write_all(answer).await;
            let _ = incoming.stream.close_write().await;
            while let Ok(Some(_)) = incoming.stream.read_chunk().await {}
        })
        .unwrap();
        old.push(node);
    }
    let host = internet.host(HostConfig::new());
    let (node, _client) = client(&host, &[]).await;
    for server in &old {
        node.dial(server.listen_addresses().remove(0)).await.unwrap();
    }
    sleep(HOUR / 2).await;
    assert!(reachability(&node).iter().all(|(_, verdict)| *verdict == Reachability::Unreachable));
    assert_eq!(node.listen_addresses(), []);
}

#[tokio::test(start_paused = true)]
async fn a_nonce_of_nobody_s_is_not_answered() {
    let internet = Internet::new(11);
    let (node, _client) = client(&internet.host(HostConfig::new()), &[]).await;
    let stranger = self::node(&internet.host(HostConfig::new()));
    stranger.dial(node.listen_addresses().remove(0)).await.unwrap();
    let mut stream = stranger.open_stream(node.peer_id(), &[DIAL_BACK]).await.unwrap();
    let message = framing::encode(&DialBack { nonce: 5 }.encode(), 64).unwrap();
    stream.write_all(message).await.unwrap();
    assert!(stream.read_chunk().await.is_err());
}
