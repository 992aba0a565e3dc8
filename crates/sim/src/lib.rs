//! Networks in memory, on tokio's clock: what takes hours there is tested in milliseconds, and the same each time.
//!
//! [`Internet`] has hosts with addresses, links with latency, jitter, loss, reordering and bandwidth, routers with the four
//! classic kinds of NAT, partitions, and hosts that crash and sleep. A node on it is the real one, over a [`Transport`] that
//! dials and listens on addresses as real ones look; so an application tests its own protocol on it, with as many nodes as it
//! likes. All that happens by chance comes from one seed, and a run with the same seed is the same run, event for event:
//! [`Internet::trace`] is for comparing them.
//!
//! ```
//! use std::time::Duration;
//!
//! use peerloom_node::{Node, ping};
//! use peerloom_sim::{HostConfig, Internet, LinkConfig, Nat};
//!
//! #[tokio::main(flavor = "current_thread", start_paused = true)]
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let internet = Internet::new(42);
//!     internet.default_link(LinkConfig::new(Duration::from_millis(25)).loss(0.01));
//!     let hosts = [internet.host(HostConfig::new()), internet.host(HostConfig::new().behind(Nat::Symmetric))];
//!     let [server, client] = hosts.each_ref().map(|host| {
//!         let keypair = host.keypair();
//!         Node::builder(keypair.clone()).transport(host.transport(keypair)).build()
//!     });
//!     let addresses = server.listen("/ip4/0.0.0.0/udp/4001/quic-v1".parse()?).await?;
//!     client.dial(addresses[0].clone()).await?;
//!     assert!(ping::ping(&client, server.peer_id()).await? >= Duration::from_millis(50));
//!
//!     internet.partition([&hosts[0]], [&hosts[1]]);
//!     tokio::time::sleep(Duration::from_secs(60)).await; // No time at all.
//!     assert!(!client.is_connected(server.peer_id()));
//!     Ok(())
//! }
//! ```
//!
//! # Testing a protocol of your own
//! It runs as it does in an application, on nodes; the test decides what becomes of the network meanwhile. Here a note has to
//! arrive although the host that it is for is down for a minute, and nothing may be left in the end:
//!
//! ```
//! use std::time::Duration;
//!
//! use bytes::Bytes;
//! use peerloom_core::{Multiaddr, ProtocolName, StreamExt};
//! use peerloom_node::Node;
//! use peerloom_sim::{Host, HostConfig, InUse, Internet};
//! use tokio::{sync::mpsc, time::sleep};
//!
//! const NOTE: ProtocolName = ProtocolName::from_static("/note/1.0.0");
//!
//! /// Takes notes; the application's own code.
//! fn take(node: &Node, notes: mpsc::Sender<Bytes>) {
//!     let taking = node.handle(NOTE, move |mut incoming| {
//!         let notes = notes.clone();
//!         async move {
//!             if let Ok(Some(note)) = incoming.stream.read_chunk().await {
//!                 let _ = notes.send(note).await;
//!                 let _ = incoming.stream.close_write().await; // Taken.
//!             }
//!         }
//!     });
//!     assert!(taking.is_ok());
//! }
//!
//! /// Tries until the note is taken, and says how many attempts that took.
//! async fn deliver(node: &Node, to: &Multiaddr, note: &'static [u8]) -> usize {
//!     let attempt = async || {
//!         let connection = node.dial(to.clone()).await.ok()?;
//!         let mut stream = node.open_stream(&connection, &[NOTE]).await.ok()?;
//!         stream.write_all(Bytes::from_static(note)).await.ok()?;
//!         stream.read_chunk().await.ok()
//!     };
//!     let mut attempts = 1;
//!     while attempt().await.is_none() {
//!         attempts += 1;
//!         sleep(Duration::from_secs(10)).await;
//!     }
//!     attempts
//! }
//!
//! async fn start(host: &Host) -> Node {
//!     let keypair = host.keypair();
//!     let node = Node::builder(keypair.clone()).transport(host.transport(keypair)).build();
//!     node.listen("/ip4/0.0.0.0/tcp/4001".parse().unwrap()).await.unwrap();
//!     node
//! }
//!
//! #[tokio::main(flavor = "current_thread", start_paused = true)]
//! async fn main() {
//!     let internet = Internet::new(42);
//!     let [reader, writer] = [(); 2].map(|()| internet.host(HostConfig::new()));
//!     let address = start(&reader).await.listen_addresses().remove(0);
//!     reader.crash();
//!
//!     let sender = start(&writer).await;
//!     let (notes, mut taken) = mpsc::channel(8);
//!     let comes_back = async {
//!         sleep(Duration::from_secs(60)).await;
//!         reader.restart();
//!         let node = start(&reader).await;
//!         take(&node, notes);
//!         node
//!     };
//!     let (attempts, receiver) = tokio::join!(deliver(&sender, &address, b"hello"), comes_back);
//!     assert!(attempts > 1);
//!     assert_eq!(taken.recv().await.unwrap(), "hello");
//!
//!     sender.close().await;
//!     receiver.close().await;
//!     sleep(Duration::from_secs(60)).await;
//!     assert_eq!(internet.in_use(), InUse::default());
//! }
//! ```
//!
//! [`Host::run`] ties nodes to their hosts, [`Host::sleep`] and [`Host::block_udp`] are a laptop's day, [`Internet::partition`]
//! and [`Internet::link`] a network's bad one. `crates/sim/tests` has more: a thousand nodes that churn for a day (`churn.rs`),
//! and dials that meet dead addresses (`dialing.rs`).
//!
//! # What is simulated
//! Packets of up to [`PACKET_PAYLOAD`] bytes take their way through NATs and links one by one, handshakes take the round trips
//! of the transport that the address names, and a listener's port is also the port that its host dials from, so that holes
//! are punched as in reality (where two TCP dials meet, they become one connection). A stream over a link that loses packets
//! is late: what is lost is sent again after 9/8 of a round trip, and twice as long after each further loss. A connection is
//! reset by a host that has forgotten it, and times out when nothing comes through any more. There is no congestion control
//! beside the window of a stream, acknowledgements and keep-alives take no bandwidth, and a connection's streams are in one
//! order. Time goes in steps of a millisecond, as tokio's timers do.
//!
//! What a host does while it sleeps or after it has crashed is its node's code, which knows nothing of it: run that by
//! [`Host::run`], and it stands still or ends with its host.
//!
//! Tests need a runtime with one thread and a paused clock, as above, and nodes whose keys are told: [`Host::keypair`].
//! Whatever has a clock or a source of randomness of its own makes runs differ: `std::time`, maps with random hashers whose
//! order matters, `tokio::select!` without `biased`.
//!
//! # Links without an internet
//! [`Network`] is a smaller thing: hosts are `/memory/N`, links have latency and bounded buffers. What runs over the links is
//! real: Noise, Yamux and all above.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() {
//! use std::time::Duration;
//!
//! use peerloom_core::{Keypair, Transport};
//! use peerloom_sim::Network;
//!
//! let network = Network::new(Duration::from_millis(20));
//! let server = network.transport(Keypair::generate());
//! let listener = server.listen("/memory/7".parse().unwrap()).await.unwrap();
//! assert_eq!(listener.addresses(), ["/memory/7".parse().unwrap()]);
//! # }
//! ```
//!
//! [`Transport`]: peerloom_core::Transport

mod internet;
mod link;
mod transport;

use std::{collections::HashMap, io, sync::Arc, time::Duration};

use parking_lot::Mutex;
use peerloom_core::{Keypair, runtime::sleep};
use tokio::sync::mpsc;

pub use crate::{internet::*, link::Pipe, transport::MemoryTransport};

/// A network whose hosts reach each other with the same latency. A handle; clones are the same network.
#[derive(Debug, Clone)]
pub struct Network(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    latency: Duration,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// The next number for whoever has none: a listener on `/memory/0`, a dialer.
    next: u64,
    listeners: HashMap<u64, mpsc::Sender<Dialed>>,
    /// Raised by [`Network::cut`]: links made under an earlier number carry nothing any more.
    cable: Arc<link::Cable>,
}

/// One end of a new link, and the number of the dialer.
#[derive(Debug)]
struct Dialed {
    pipe: Pipe,
    from: u64,
}

/// Numbers below this are for tests to choose.
const FIRST_ASSIGNED: u64 = 1 << 32;

impl Network {
    /// A network in which a byte takes `latency` from one host to another.
    pub fn new(latency: Duration) -> Self {
        let state = State {
            next: FIRST_ASSIGNED,
            listeners: HashMap::new(),
            cable: Arc::new(link::Cable::default()),
        };
        Self(Arc::new(Shared { latency, state: Mutex::new(state) }))
    }

    /// A host's transport.
    pub fn transport(&self, keypair: Keypair) -> MemoryTransport {
        MemoryTransport::new(self.clone(), keypair)
    }

    /// From now on every existing link loses what is sent on it, in silence, as if a cable was cut. New links work.
    pub fn cut(&self) {
        let mut state = self.0.state.lock();
        state.cable.cut();
        state.cable = Arc::new(link::Cable::default());
    }

    fn assign(&self) -> u64 {
        let mut state = self.0.state.lock();
        state.next = state.next.wrapping_add(1);
        state.next
    }

    /// A new link to the host that listens on `number`, for a test that plays a dialer by hand.
    pub async fn connect(&self, number: u64) -> io::Result<Pipe> {
        // As TCP does: there and back before the first byte.
        sleep(self.0.latency * 2).await;
        let listener = self.0.state.lock().listeners.get(&number).cloned();
        let (ours, theirs) = self.pipes();
        let dialed = Dialed { pipe: theirs, from: self.assign() };
        match listener {
            Some(listener) if listener.send(dialed).await.is_ok() => Ok(ours),
            _ => Err(io::Error::new(io::ErrorKind::ConnectionRefused, "nobody listens there")),
        }
    }

    /// The two ends of a link of its own, for a test that plays a host by hand.
    pub fn pipes(&self) -> (Pipe, Pipe) {
        link::pipes(self.0.latency, self.0.state.lock().cable.clone())
    }
}
