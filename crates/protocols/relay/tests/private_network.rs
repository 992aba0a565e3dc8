//! Circuits between the nodes of a private network, whose relay is one of them.

// Allowed in tests; clippy takes only the functions marked as such for tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use common::*;
use peerloom_core::Keypair;
use peerloom_node::Node;
use peerloom_relay::{ClientConfig, RelayClient, RelayConfig, serve};
use peerloom_upgrade::pnet::PreSharedKey;

/// A node whose connections have one key and whose circuits have another, or none.
fn member(world: &World, circuits: Option<[u8; 32]>) -> Node {
    let keypair = Keypair::generate();
    let transport = world.network.transport(keypair.clone());
    let transport = transport.with_private_network(PreSharedKey::from_bytes([1; 32]));
    let node = Node::builder(keypair).transport(transport).build();
    let mut config = ClientConfig::default();
    config.private_network = circuits.map(PreSharedKey::from_bytes);
    RelayClient::start(&node, config).unwrap();
    node
}

#[tokio::test(start_paused = true)]
async fn circuits_are_for_those_who_have_the_key() {
    let world = World::new();
    let relay = member(&world, Some([1; 32]));
    let server = serve(&relay, RelayConfig::new(unlimited())).unwrap();
    let address = relay.listen("/memory/0".parse().unwrap()).await.unwrap().remove(0);
    let relay = Relay { node: relay, server, address };

    let hidden = member(&world, Some([1; 32]));
    hidden.handle(ECHO, |incoming| echo(incoming.stream)).unwrap();
    let address = listen_at(&hidden, &relay).await;
    let client = member(&world, Some([1; 32]));
    let connection = client.dial(address.clone()).await.unwrap();
    let mut stream = client.open_stream(&connection, &[ECHO]).await.unwrap();
    assert_eq!(echoed(&mut stream, b"in private").await, b"in private");

    // The relay takes them for what they say they are; the destination does not.
    for other in [None, Some([2; 32])] {
        let outsider = member(&world, other);
        let error = outsider.dial(address.clone()).await.unwrap_err().to_string();
        assert!(error.contains("handshake"), "{error}");
        assert!(!outsider.is_connected(hidden.peer_id()));
    }
}
