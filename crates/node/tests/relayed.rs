//! What a node does with connections through relays. The circuits here are marked as such by the test; real relays are tested in
//! the relay protocol's own crate.

// Allowed in tests; clippy takes only the functions marked as such for tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use peerloom_core::{
    Circuit, CircuitLimits, Connection, ConnectionError, DialError, Keypair, ListenError, Listener,
    Multiaddr, PeerId, Protocol, ProtocolName, PublicKey, Stream, StreamError, StreamExt, Transport,
    runtime::BoxFuture,
};
use peerloom_node::{IncomingStream, Node, NodeEvent, OpenStreamError, ping};
use peerloom_sim::{MemoryTransport, Network};

const ECHO: ProtocolName = ProtocolName::from_static("/echo/1.0.0");
const LIMITS: CircuitLimits = CircuitLimits { bytes: Some(1 << 17), duration: None };

/// Dials `/memory/N/p2p-circuit` as `/memory/N`, and says that a relay was on the way.
struct Circuits(MemoryTransport, CircuitLimits);

impl Transport for Circuits {
    fn can_dial(&self, address: &Multiaddr) -> bool {
        address.is_relayed()
    }

    fn can_listen(&self, _: &Multiaddr) -> bool {
        false
    }

    fn dial(&self, address: Multiaddr) -> BoxFuture<'static, Result<Box<dyn Connection>, DialError>> {
        let direct = address.protocols().filter(|protocol| *protocol != Protocol::P2pCircuit);
        let dial = self.0.dial(Multiaddr::from_protocols(direct));
        let circuit = Arc::new(Circuit::new(Keypair::generate().peer_id(), self.1));
        Box::pin(async move {
            let address = address.without_peer_id();
            Ok(Box::new(OverCircuit { inner: dial.await?, circuit, address }) as Box<dyn Connection>)
        })
    }

    fn listen(&self, address: Multiaddr) -> BoxFuture<'static, Result<Box<dyn Listener>, ListenError>> {
        Box::pin(async { Err(ListenError::UnsupportedAddress { address, reason: "only dials" }) })
    }

    fn routes(&self, _: PeerId) -> Vec<Multiaddr> {
        vec!["/memory/7/p2p-circuit".parse().unwrap()]
    }
}

struct OverCircuit {
    inner: Box<dyn Connection>,
    circuit: Arc<Circuit>,
    address: Multiaddr,
}

impl Connection for OverCircuit {
    fn remote_peer(&self) -> PeerId {
        self.inner.remote_peer()
    }
    fn remote_public_key(&self) -> &PublicKey {
        self.inner.remote_public_key()
    }
    fn remote_address(&self) -> &Multiaddr {
        &self.address
    }
    fn circuit(&self) -> Option<&Arc<Circuit>> {
        Some(&self.circuit)
    }
    fn open_stream(&self) -> BoxFuture<'static, Result<Box<dyn Stream>, Arc<ConnectionError>>> {
        self.inner.open_stream()
    }
    fn accept_stream(&self) -> BoxFuture<'_, Result<Box<dyn Stream>, Arc<ConnectionError>>> {
        self.inner.accept_stream()
    }
    fn close(&self) -> BoxFuture<'static, ()> {
        self.inner.close()
    }
    fn closed(&self) -> BoxFuture<'static, Arc<ConnectionError>> {
        self.inner.closed()
    }
}

fn node(network: &Network, limits: CircuitLimits) -> Node {
    let keypair = Keypair::generate();
    let transport = network.transport(keypair.clone());
    let node = Node::builder(keypair).transport(transport.clone()).build();
    node.add_transport(Circuits(transport, limits));
    node
}

async fn echo(incoming: IncomingStream) {
    let mut stream = incoming.stream;
    while let Ok(Some(chunk)) = stream.read_chunk().await {
        if stream.write_all(chunk).await.is_err() {
            return;
        }
    }
    let _ = stream.close_write().await;
}

/// A client and a server at `/memory/7`.
async fn pair(limits: CircuitLimits) -> (Node, Node) {
    let network = Network::new(Duration::from_millis(20));
    let server = node(&network, limits);
    server.handle(ECHO, echo).unwrap();
    server.listen("/memory/7".parse().unwrap()).await.unwrap();
    (node(&network, limits), server)
}

fn relayed() -> Multiaddr {
    "/memory/7/p2p-circuit".parse().unwrap()
}

fn direct() -> Multiaddr {
    "/memory/7".parse().unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_protocol_runs_on_a_limited_connection_only_if_it_opted_in() {
    let (client, server) = pair(LIMITS).await;
    let connection = client.dial(relayed()).await.unwrap();
    assert!(connection.is_limited() && !connection.is_direct());
    let refused = client.open_stream(server.peer_id(), &[ECHO]).await.map(|_| ());
    assert!(matches!(refused, Err(OpenStreamError::Limited { .. })), "{refused:?}");
    ping::ping(&client, server.peer_id()).await.unwrap();

    // The other side decides for itself: to it, this one is direct.
    let mut stream = client.open_stream_on_limited(server.peer_id(), &[ECHO]).await.unwrap();
    stream.write_all(Bytes::from_static(b"x")).await.unwrap();
    assert_eq!(stream.read_chunk().await.unwrap().as_deref(), Some(&b"x"[..]));
}

#[tokio::test(start_paused = true)]
async fn a_remote_cannot_use_a_protocol_on_a_limited_connection_that_has_not_opted_in() {
    let (client, server) = pair(LIMITS).await;
    client.handle(ECHO, echo).unwrap();
    client.dial(relayed()).await.unwrap();
    // Answered, so the server has the connection too.
    ping::ping(&client, server.peer_id()).await.unwrap();
    let mut stream = server.open_stream(client.peer_id(), &[ECHO]).await.unwrap();
    let refused = stream.read_chunk().await;
    assert!(matches!(refused, Err(StreamError::ProtocolNotSupported)), "{refused:?}");
}

#[tokio::test(start_paused = true)]
async fn an_unlimited_relay_carries_every_protocol() {
    let (client, server) = pair(CircuitLimits::default()).await;
    let connection = client.dial(relayed()).await.unwrap();
    assert!(!connection.is_limited() && !connection.is_direct());
    client.open_stream(server.peer_id(), &[ECHO]).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn streams_take_the_direct_connection_and_the_relayed_one_is_closed_once_idle() {
    let (client, server) = pair(LIMITS).await;
    let mut events = client.events();
    let first = client.dial(relayed()).await.unwrap();
    let mut held = client.open_stream_on_limited(server.peer_id(), &[ECHO]).await.unwrap();
    let second = client.dial(direct()).await.unwrap();
    assert_ne!(first.id, second.id);
    let opened = client.open_stream_and_tell(server.peer_id(), &[ECHO], false).await.unwrap();
    assert_eq!(opened.connection.id, second.id);

    // A stream that is open keeps the relayed connection, and works.
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(client.connections().len(), 2);
    held.write_all(Bytes::from_static(b"x")).await.unwrap();
    held.read_chunk().await.unwrap();
    drop(held);
    tokio::time::sleep(Duration::from_secs(20)).await;
    let left: Vec<_> = client.connections().into_iter().map(|info| info.id).collect();
    assert_eq!(left, [second.id]);

    let mut upgraded = None;
    let mut closed = None;
    while closed.is_none() {
        match events.next().await.unwrap() {
            NodeEvent::ConnectionUpgraded { relayed, direct } => upgraded = Some((relayed.id, direct.id)),
            NodeEvent::ConnectionClosed { connection, last, .. } => closed = Some((connection.id, last)),
            _ => {}
        }
    }
    assert_eq!((upgraded, closed), (Some((first.id, second.id)), Some((first.id, false))));
}

#[tokio::test(start_paused = true)]
async fn a_relayed_connection_without_a_direct_one_stays() {
    let (client, _server) = pair(LIMITS).await;
    client.dial(relayed()).await.unwrap();
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(client.connections().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_stream_waits_for_the_direct_connection_that_is_being_made() {
    let (client, server) = pair(LIMITS).await;
    client.dial(relayed()).await.unwrap();
    let expected = client.expect_direct(server.peer_id());
    let opening = client.open_stream_and_tell(server.peer_id(), &[ECHO], false);
    let (opened, ()) = tokio::join!(opening, async {
        tokio::time::sleep(Duration::from_secs(3)).await;
        client.dial(direct()).await.unwrap();
    });
    assert!(opened.unwrap().connection.is_direct());
    drop(expected);
}

#[tokio::test(start_paused = true)]
async fn a_stream_stops_waiting_when_the_direct_connection_failed() {
    let (client, server) = pair(LIMITS).await;
    client.dial(relayed()).await.unwrap();
    let expected = client.expect_direct(server.peer_id());
    let opening = client.open_stream(server.peer_id(), &[ECHO]);
    let (opened, ()) = tokio::join!(opening, async {
        tokio::time::sleep(Duration::from_secs(3)).await;
        drop(expected);
    });
    assert!(matches!(opened.map(|_| ()), Err(OpenStreamError::Limited { .. })));
}

#[tokio::test(start_paused = true)]
async fn a_peer_of_which_no_address_is_known_is_dialed_through_a_relay() {
    let (client, server) = pair(LIMITS).await;
    let connection = client.dial(server.peer_id()).await.unwrap();
    assert_eq!((connection.remote_address.clone(), connection.peer), (relayed(), server.peer_id()));
}
