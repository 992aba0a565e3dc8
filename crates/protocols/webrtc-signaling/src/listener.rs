//! `/webrtc`: this node can be reached through every relay that has a place for it.

use std::sync::Arc;

use peerloom_core::{
    Incoming, ListenError, Listener, ListenerEvent, Multiaddr, Protocol, runtime::BoxFuture,
};
use peerloom_node::{Events, NodeEvent};
use tokio::sync::mpsc;

use crate::Shared;

/// Connections that the node has not taken yet. Their sessions wait.
const BACKLOG: usize = 8;

/// Whether this is what there is to listen on.
pub(crate) fn is_webrtc(address: &Multiaddr) -> bool {
    let address = address.without_peer_id();
    let mut protocols = address.protocols();
    protocols.next() == Some(Protocol::WebRtc) && protocols.next().is_none()
}

pub(crate) struct WebRtcListener {
    shared: Arc<Shared>,
    address: Multiaddr,
    addresses: Vec<Multiaddr>,
    events: Events,
    incoming: mpsc::Receiver<Incoming>,
}

impl Shared {
    pub(crate) fn listen(self: &Arc<Self>, address: Multiaddr) -> Result<WebRtcListener, ListenError> {
        let failed = |reason: &str| ListenError::Io { address: address.clone(), reason: reason.to_owned() };
        let node = self.node.upgrade().ok_or_else(|| failed("the node is closed"))?;
        let mut slot = self.incoming.lock();
        if slot.is_some() {
            return Err(failed("listening already"));
        }
        let (sender, incoming) = mpsc::channel(BACKLOG);
        *slot = Some(sender);
        drop(slot);
        // From before the addresses are read, so that no change is missed.
        let events = node.events();
        let addresses = webrtc_addresses(node.listen_addresses());
        Ok(WebRtcListener { shared: self.clone(), address, addresses, events, incoming })
    }
}

impl Listener for WebRtcListener {
    fn addresses(&self) -> Vec<Multiaddr> {
        self.addresses.clone()
    }

    fn next(&mut self) -> BoxFuture<'_, Result<ListenerEvent, ListenError>> {
        Box::pin(async move {
            loop {
                let event = tokio::select! {
                    Some(incoming) = self.incoming.recv() => return Ok(ListenerEvent::Incoming(incoming)),
                    event = self.events.next() => event,
                };
                let current = match event {
                    Some(NodeEvent::ListenAddressesChanged { addresses }) => addresses,
                    Some(NodeEvent::Lagged { .. }) => match self.shared.node.upgrade() {
                        Some(node) => node.listen_addresses(),
                        None => continue,
                    },
                    Some(_) => continue,
                    None => {
                        let reason = "the node is closed".to_owned();
                        return Err(ListenError::Io { address: self.address.clone(), reason });
                    }
                };
                let addresses = webrtc_addresses(current);
                // Our own change is told as one of the node.
                if addresses != self.addresses {
                    self.addresses = addresses;
                    return Ok(ListenerEvent::AddressesChanged);
                }
            }
        })
    }
}

impl Drop for WebRtcListener {
    fn drop(&mut self) {
        *self.shared.incoming.lock() = None;
    }
}

/// Those of a node's addresses that are at relays, as the addresses of a page that speaks WebRTC.
fn webrtc_addresses(addresses: Vec<Multiaddr>) -> Vec<Multiaddr> {
    let addresses = addresses.into_iter().map(|address| address.without_peer_id());
    let relayed = addresses.filter(|address| address.protocols().last() == Some(Protocol::P2pCircuit));
    relayed.map(|address| address.with(Protocol::WebRtc)).collect()
}
