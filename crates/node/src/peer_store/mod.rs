//! What is known of peers. Protocols do not ask each other: one writes here, another reads.

mod tags;

use std::{collections::BTreeMap, time::Duration};

use parking_lot::RwLock;
use peerloom_core::{Multiaddr, PeerId, ProtocolName, PublicKey, SignedEnvelope, runtime::Instant};
use tokio::sync::{Notify, futures::Notified};

use self::tags::Tags;
pub use self::tags::{MAX_TAG_NAME_LENGTH, MAX_TAGGED_PEERS, MAX_TAGS_PER_PEER, Tag, TagError};
use crate::event::{EventSender, NodeEvent};

/// Addresses kept for one peer; the one that was last seen earliest makes room.
pub const MAX_ADDRESSES_PER_PEER: usize = 32;
/// How long an address is believed without being confirmed.
pub const ADDRESS_TTL: Duration = Duration::from_secs(3600);

/// Facts about peers, bounded in number of peers and in what one peer can tell of itself.
#[derive(Debug)]
pub struct PeerStore {
    peers: RwLock<BTreeMap<PeerId, Entry>>,
    capacity: usize,
    events: EventSender,
    /// Tells dials under way.
    addresses_added: Notify,
    tags: Tags,
}

/// What identify told of a peer.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct PeerDetails {
    /// The peer's key, where it is not in the peer id itself.
    pub public_key: Option<PublicKey>,
    /// The protocols it handles.
    pub protocols: Vec<ProtocolName>,
    /// Its software, as it calls itself. At most [`MAX_VERSION_LENGTH`](crate::identify::MAX_VERSION_LENGTH) bytes.
    pub agent_version: Option<String>,
    /// Its network, as it calls it.
    pub protocol_version: Option<String>,
    /// Its signed peer record, already verified, to be passed on as it is.
    pub signed_record: Option<SignedEnvelope>,
    /// The sequence number of `signed_record`; an older one never replaces it.
    pub record_sequence: Option<u64>,
    /// Our own address as this peer sees it.
    pub observed_address: Option<Multiaddr>,
}

#[derive(Debug)]
struct Entry {
    touched: Instant,
    /// The one seen last is last.
    addresses: Vec<StoredAddress>,
    details: PeerDetails,
}

#[derive(Debug)]
struct StoredAddress {
    address: Multiaddr,
    seen: Instant,
}

impl PeerStore {
    pub(crate) fn new(capacity: usize, events: EventSender) -> Self {
        let peers = RwLock::new(BTreeMap::new());
        Self {
            peers,
            capacity: capacity.max(1),
            events,
            addresses_added: Notify::new(),
            tags: Tags::default(),
        }
    }

    /// Adds an address at which `peer` may be reached. A final `/p2p/…` is left off; one that names another peer makes
    /// the address not `peer`'s, and it is ignored.
    pub fn add_address(&self, peer: PeerId, address: &Multiaddr) {
        let address = match address.peer_id() {
            Some(named) if named != peer => return,
            Some(_) => address.without_peer_id(),
            None => address.clone(),
        };
        let now = Instant::now();
        self.with_entry(peer, now, |entry| entry.see(address, now));
        self.addresses_added.notify_waiters();
    }

    /// Forgets one address of `peer`.
    pub fn remove_address(&self, peer: PeerId, address: &Multiaddr) {
        if let Some(entry) = self.peers.write().get_mut(&peer) {
            entry.addresses.retain(|stored| stored.address != *address);
        }
    }

    /// Ready when an address of any peer has been added.
    pub(crate) fn new_addresses(&self) -> Notified<'_> {
        self.addresses_added.notified()
    }

    /// The addresses of `peer` that are believed now, last seen first, without `/p2p/…`.
    pub fn addresses(&self, peer: PeerId) -> Vec<Multiaddr> {
        let now = Instant::now();
        let peers = self.peers.read();
        let Some(entry) = peers.get(&peer) else { return Vec::new() };
        let fresh = entry.addresses.iter().rev().filter(|stored| stored.is_fresh(now));
        fresh.map(|stored| stored.address.clone()).collect()
    }

    /// What identify told of `peer`.
    pub fn details(&self, peer: PeerId) -> Option<PeerDetails> {
        self.peers.read().get(&peer).map(|entry| entry.details.clone())
    }

    /// Whether `peer` is known to handle `protocol`.
    pub fn supports(&self, peer: PeerId, protocol: &ProtocolName) -> bool {
        self.peers.read().get(&peer).is_some_and(|entry| entry.details.protocols.contains(protocol))
    }

    /// Changes what is known of `peer` in one step, and tells so by [`NodeEvent::PeerUpdated`].
    pub fn update(&self, peer: PeerId, change: impl FnOnce(&mut PeerDetails)) {
        self.with_entry(peer, Instant::now(), |entry| change(&mut entry.details));
        self.events.emit(NodeEvent::PeerUpdated { peer });
    }

    /// Forgets a peer.
    pub fn remove(&self, peer: PeerId) {
        self.peers.write().remove(&peer);
    }

    /// Every peer that something is known of.
    pub fn peers(&self) -> Vec<PeerId> {
        self.peers.read().keys().copied().collect()
    }

    fn with_entry(&self, peer: PeerId, now: Instant, change: impl FnOnce(&mut Entry)) {
        let mut peers = self.peers.write();
        if !peers.contains_key(&peer) && peers.len() >= self.capacity {
            let oldest = peers.iter().min_by_key(|(_, entry)| entry.touched).map(|(peer, _)| *peer);
            if let Some(oldest) = oldest {
                peers.remove(&oldest);
            }
        }
        let entry = peers.entry(peer).or_insert_with(|| Entry {
            touched: now,
            addresses: Vec::new(),
            details: PeerDetails::default(),
        });
        entry.touched = now;
        change(entry);
    }
}

impl Entry {
    fn see(&mut self, address: Multiaddr, now: Instant) {
        self.addresses.retain(|stored| stored.is_fresh(now) && stored.address != address);
        if self.addresses.len() >= MAX_ADDRESSES_PER_PEER {
            self.addresses.remove(0);
        }
        self.addresses.push(StoredAddress { address, seen: now });
    }
}

impl StoredAddress {
    fn is_fresh(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.seen) <= ADDRESS_TTL
    }
}

#[cfg(test)]
mod tests {
    use peerloom_core::Keypair;

    use super::*;

    fn address(port: u16) -> Multiaddr {
        format!("/ip4/10.0.0.1/tcp/{port}").parse().unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn addresses_expire_and_the_last_seen_comes_first() {
        let store = PeerStore::new(10, EventSender::new());
        let peer = Keypair::generate().peer_id();
        store.add_address(peer, &address(1));
        tokio::time::advance(ADDRESS_TTL / 2).await;
        store.add_address(peer, &address(2).with_peer_id(peer));
        assert_eq!(store.addresses(peer), [address(2), address(1)]);
        tokio::time::advance(ADDRESS_TTL * 2 / 3).await;
        assert_eq!(store.addresses(peer), [address(2)]);
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_that_names_another_peer_is_ignored() {
        let store = PeerStore::new(10, EventSender::new());
        let (peer, other) = (Keypair::generate().peer_id(), Keypair::generate().peer_id());
        store.add_address(peer, &address(1).with_peer_id(other));
        assert!(store.addresses(peer).is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_store_forgets_the_peer_that_was_untouched_for_longest() {
        let store = PeerStore::new(2, EventSender::new());
        let peers: Vec<_> = (0..3).map(|_| Keypair::generate().peer_id()).collect();
        for peer in &peers {
            store.add_address(*peer, &address(1));
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        assert!(store.addresses(peers[0]).is_empty());
        assert_eq!(store.peers().len(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_with_endless_addresses_keeps_only_the_newest() {
        let store = PeerStore::new(2, EventSender::new());
        let peer = Keypair::generate().peer_id();
        for port in 1..=200 {
            store.add_address(peer, &address(port));
            tokio::time::advance(Duration::from_millis(1)).await;
        }
        assert_eq!(store.addresses(peer).len(), MAX_ADDRESSES_PER_PEER);
        assert_eq!(store.addresses(peer)[0], address(200));
    }
}
