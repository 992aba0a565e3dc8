use peerloom_core::{
    Connection, DialError, Incoming, Keypair, ListenError, Listener, ListenerEvent, Multiaddr, Protocol,
    Transport, runtime::BoxFuture,
};
use peerloom_upgrade::{Upgrader, pnet::PreSharedKey};
use tokio::sync::mpsc;

use crate::{Dialed, Network};

/// Dialers that a listener has not accepted yet; further ones wait.
const BACKLOG: usize = 128;

/// A host's way into a [`Network`].
#[derive(Debug, Clone)]
pub struct MemoryTransport {
    network: Network,
    upgrader: Upgrader,
}

impl MemoryTransport {
    pub(crate) fn new(network: Network, keypair: Keypair) -> Self {
        Self { network, upgrader: Upgrader::new(keypair) }
    }

    /// Talks only to hosts that have the same key.
    pub fn with_private_network(mut self, key: PreSharedKey) -> Self {
        self.upgrader = self.upgrader.with_private_network(key);
        self
    }
}

impl Transport for MemoryTransport {
    fn can_dial(&self, address: &Multiaddr) -> bool {
        number(address).is_some()
    }

    fn can_listen(&self, address: &Multiaddr) -> bool {
        number(address).is_some()
    }

    fn dial(&self, address: Multiaddr) -> BoxFuture<'static, Result<Box<dyn Connection>, DialError>> {
        let Self { network, upgrader } = self.clone();
        Box::pin(async move {
            let Some(number) = number(&address) else {
                return Err(DialError::UnsupportedAddress { address, reason: "not /memory/<number>" });
            };
            upgrader.dial(address, || network.connect(number)).await
        })
    }

    fn listen(&self, address: Multiaddr) -> BoxFuture<'static, Result<Box<dyn Listener>, ListenError>> {
        let Self { network, upgrader } = self.clone();
        Box::pin(async move {
            let number = match number(&address) {
                None => {
                    return Err(ListenError::UnsupportedAddress { address, reason: "not /memory/<number>" });
                }
                Some(0) => network.assign(),
                Some(number) => number,
            };
            let (sender, dialed) = mpsc::channel(BACKLOG);
            let mut state = network.0.state.lock();
            if state.listeners.contains_key(&number) {
                return Err(ListenError::Io { address, reason: "somebody listens there already".to_owned() });
            }
            state.listeners.insert(number, sender);
            drop(state);
            Ok(Box::new(MemoryListener { network, upgrader, number, dialed }) as Box<dyn Listener>)
        })
    }
}

/// The number in `/memory/<number>`, which may name its security protocol.
fn number(address: &Multiaddr) -> Option<u64> {
    let address = address.without_peer_id();
    let mut protocols = address.protocols();
    match (protocols.next()?, protocols.next(), protocols.next()) {
        (Protocol::Memory(number), None | Some(Protocol::Noise | Protocol::Tls), None) => Some(number),
        _ => None,
    }
}

struct MemoryListener {
    network: Network,
    upgrader: Upgrader,
    number: u64,
    dialed: mpsc::Receiver<Dialed>,
}

impl Listener for MemoryListener {
    fn addresses(&self) -> Vec<Multiaddr> {
        vec![Multiaddr::from_protocols([Protocol::Memory(self.number)])]
    }

    fn next(&mut self) -> BoxFuture<'_, Result<ListenerEvent, ListenError>> {
        Box::pin(async move {
            let Some(Dialed { pipe, from }) = self.dialed.recv().await else {
                // The network holds the sending end for as long as this listener lives.
                return std::future::pending().await;
            };
            let remote_address = Multiaddr::from_protocols([Protocol::Memory(from)]);
            let (upgrader, address) = (self.upgrader.clone(), remote_address.clone());
            let handshake = Box::pin(async move { upgrader.accept(pipe, address).await });
            Ok(ListenerEvent::Incoming(Incoming { remote_address, handshake }))
        })
    }
}

impl Drop for MemoryListener {
    fn drop(&mut self) {
        self.network.0.state.lock().listeners.remove(&self.number);
    }
}
