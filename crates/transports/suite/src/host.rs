//! A listening host, and dialers of it.

use std::sync::Arc;

use peerloom_core::{
    Connection, DialError, Keypair, ListenerEvent, Multiaddr, PeerId, Transport,
    runtime::{Task, spawn},
};
use tokio::sync::mpsc;

use crate::Subject;

/// A host that accepts connections until it is dropped.
pub(crate) struct Host {
    pub(crate) peer: PeerId,
    /// Without a peer id.
    pub(crate) address: Multiaddr,
    connections: mpsc::Receiver<Arc<dyn Connection>>,
    listener: Task,
    dialer: Arc<dyn Transport>,
    pub(crate) dialer_peer: PeerId,
}

impl Host {
    pub(crate) async fn new(subject: &Subject) -> Self {
        let (keypair, dialer) = (Keypair::generate(), Keypair::generate());
        let (peer, dialer_peer) = (keypair.peer_id(), dialer.peer_id());
        let transport = (subject.transport)(keypair);
        assert!(transport.can_listen(&subject.listen_on));
        let mut listener = transport.listen(subject.listen_on.clone()).await.unwrap();
        let address = listener.addresses().into_iter().next().unwrap();
        let (accepted, connections) = mpsc::channel(1024);
        let listener = spawn(async move {
            let _transport = transport;
            let mut handshakes = Vec::new();
            while let Ok(event) = listener.next().await {
                let ListenerEvent::Incoming(incoming) = event else { continue };
                let accepted = accepted.clone();
                handshakes.retain(|handshake: &Task| !handshake.is_finished());
                handshakes.push(spawn(async move {
                    if let Ok(connection) = incoming.handshake.await {
                        let _ = accepted.send(connection.into()).await;
                    }
                }));
            }
        });
        let dialer = (subject.transport)(dialer);
        Self { peer, address, connections, listener, dialer, dialer_peer }
    }

    pub(crate) async fn dial(&self, expected: PeerId) -> Result<Arc<dyn Connection>, DialError> {
        let address = self.address.clone().with_peer_id(expected);
        assert!(self.dialer.can_dial(&address));
        self.dialer.dial(address).await.map(Into::into)
    }

    pub(crate) async fn accept(&mut self) -> Arc<dyn Connection> {
        self.connections.recv().await.unwrap()
    }

    /// The dialer's and the listener's side of a new connection.
    pub(crate) async fn connect(&mut self) -> (Arc<dyn Connection>, Arc<dyn Connection>) {
        let peer = self.peer;
        let (address, dialer) = (self.address.clone().with_peer_id(peer), self.dialer.clone());
        let (outbound, inbound) = tokio::join!(dialer.dial(address), self.accept());
        (outbound.unwrap().into(), inbound)
    }

    /// Closes the listening socket; the handshakes that it has accepted, and the connections, remain.
    pub(crate) fn stop_listening(&mut self) {
        // A finished task in its place: dropping the other one ends it.
        self.listener = spawn(async {});
    }
}
