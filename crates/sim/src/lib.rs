//! A network in memory: hosts are `/memory/N`, links have latency and bounded buffers, and time is tokio's, which a test
//! pauses. What runs over the links is real: Noise, Yamux and all above.
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
