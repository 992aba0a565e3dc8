//! What is known of peers. Protocols do not ask each other: one writes here, another reads.

mod address;
mod eviction;
mod moment;
mod persistence;
mod record;
mod stored;
mod tags;
mod unsaved;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use bytes::Bytes;
use parking_lot::RwLock;
use peerloom_core::{
    Multiaddr, PeerId, PeerRecord, PeerRecordError, ProtocolName, SignedEnvelope, runtime::Instant,
};
use tokio::sync::{Notify, futures::Notified};

pub(crate) use self::persistence::Keeper;
pub use self::{
    address::{ADDRESS_TTL, KnownAddress, PeerAddressSource},
    persistence::{PeerChange, PeerStorage, PeerStorageError, StoredPeer},
    record::{
        MAX_ADDRESSES_PER_PEER, MAX_METADATA_LENGTH, MAX_METADATA_NAME_LENGTH, MAX_METADATA_PER_PEER,
        MetadataError, PeerDetails,
    },
    stored::MAX_STORED_BYTES,
    tags::{MAX_TAG_NAME_LENGTH, MAX_TAGGED_PEERS, MAX_TAGS_PER_PEER, Tag, TagError},
};
use self::{moment::Moment, record::Record, tags::Tags, unsaved::Unsaved};
use crate::event::{EventSender, NodeEvent};

/// Facts about peers, bounded in number of peers, in what one peer can tell of itself, and in memory over all.
///
/// Where there is no room, the least useful goes: of a peer's addresses, those that failed, then what others say before what the
/// peer says before what it has signed before what has worked; of peers, those of which there is only hearsay, and that nothing
/// was heard of for longest. Peers that are connected, tagged or protected go last.
#[derive(Debug)]
pub struct PeerStore {
    inner: RwLock<Peers>,
    capacity: usize,
    epoch: Instant,
    events: EventSender,
    /// Tells dials under way.
    addresses_added: Notify,
    /// Tells who writes them.
    unsaved_changes: Notify,
    tags: Tags,
}

#[derive(Debug, Default)]
struct Peers {
    records: BTreeMap<PeerId, Record>,
    /// What all records take.
    bytes: usize,
    connected: BTreeSet<PeerId>,
    /// When a dial was last successful.
    last_success: Option<Moment>,
    /// There if there is storage.
    unsaved: Option<Unsaved>,
}

impl PeerStore {
    pub(crate) fn new(capacity: usize, events: EventSender) -> Self {
        Self {
            inner: RwLock::default(),
            capacity,
            epoch: Instant::now(),
            events,
            addresses_added: Notify::new(),
            unsaved_changes: Notify::new(),
            tags: Tags::default(),
        }
    }

    /// Adds an address at which the application knows `peer` to be. A final `/p2p/…` is left off; one that names another peer makes
    /// the address not `peer`'s, and it is ignored.
    pub fn add_address(&self, peer: PeerId, address: &Multiaddr) {
        self.add_address_from(peer, address, PeerAddressSource::Application);
    }

    /// The same for an address that came from elsewhere. It is believed for as long as its source deserves, and longer once it has
    /// worked. What [`PeerAddressSource::PeerRecord`] is comes with its signature: see [`add_signed_record`](Self::add_signed_record).
    pub fn add_address_from(&self, peer: PeerId, address: &Multiaddr, source: PeerAddressSource) {
        let Some(address) = of_peer(peer, address) else { return };
        let source = source.min(PeerAddressSource::Application);
        self.change(peer, |record, now| {
            record.forget_expired(now);
            record.name(address, source, now)
        });
        self.addresses_added.notify_waiters();
    }

    /// Takes over the addresses that `peer` has signed, whoever has passed them on. Whether they are newer than, or the same as, those
    /// that are known; others are left aside.
    ///
    /// They are believed for longer than unsigned ones, which never replace them.
    pub async fn add_signed_record(&self, envelope: SignedEnvelope) -> Result<bool, PeerRecordError> {
        let record = PeerRecord::open(&envelope).await?;
        Ok(self.certify(envelope, &record))
    }

    /// The same, once the signature has been verified.
    pub(crate) fn certify(&self, envelope: SignedEnvelope, signed: &PeerRecord) -> bool {
        let peer = signed.peer_id;
        // In one step with the sequence number, or two records could end up with each other's addresses.
        let is_newest = self.change(peer, |record, now| {
            if record.details.record_sequence.is_some_and(|known| signed.sequence < known) {
                return false;
            }
            record.details.record_sequence = Some(signed.sequence);
            record.details.signed_record = Some(envelope);
            record.forget_expired(now);
            record.certify(signed.addresses.iter().filter_map(|address| of_peer(peer, address)), now);
            record.bound_details();
            true
        });
        self.addresses_added.notify_waiters();
        is_newest.unwrap_or(false)
    }

    /// Where `peer` says, unsigned, that it is: nowhere else. Nothing, if it has signed something else that is still believed.
    pub(crate) fn set_told_addresses(&self, peer: PeerId, addresses: &[Multiaddr]) {
        let addresses: Vec<_> = addresses.iter().filter_map(|address| of_peer(peer, address)).collect();
        self.change(peer, |record, now| {
            record.forget_expired(now);
            if record.is_certified() {
                return;
            }
            record.addresses.retain(|known| {
                known.source != PeerAddressSource::Identify
                    || known.success.is_some()
                    || addresses.contains(&known.address)
            });
            for address in addresses {
                record.name(address, PeerAddressSource::Identify, now);
            }
        });
        self.addresses_added.notify_waiters();
    }

    /// Forgets one address of `peer`.
    pub fn remove_address(&self, peer: PeerId, address: &Multiaddr) {
        let address = address.without_peer_id();
        if self.knows(peer) {
            self.change(peer, |record, _| record.addresses.retain(|known| known.address != address));
        }
    }

    /// Ready when an address of any peer has been added.
    pub(crate) fn new_addresses(&self) -> Notified<'_> {
        self.addresses_added.notified()
    }

    /// The addresses of `peer` that are believed now, without `/p2p/…`: the one that worked last first, those that failed last.
    pub fn addresses(&self, peer: PeerId) -> Vec<Multiaddr> {
        let now = self.now();
        let peers = self.inner.read();
        let Some(record) = peers.records.get(&peer) else { return Vec::new() };
        let ranked = record.ranked(peers.is_connected(peer), now);
        ranked.into_iter().map(|known| known.address.clone()).collect()
    }

    /// The same addresses, with what speaks for each.
    pub fn known_addresses(&self, peer: PeerId) -> Vec<KnownAddress> {
        let now = self.now();
        let peers = self.inner.read();
        let Some(record) = peers.records.get(&peer) else { return Vec::new() };
        let ranked = record.ranked(peers.is_connected(peer), now);
        ranked.into_iter().map(|known| known.describe(now)).collect()
    }

    /// What identify told of `peer`.
    pub fn details(&self, peer: PeerId) -> Option<PeerDetails> {
        self.inner.read().records.get(&peer).map(|record| record.details.clone())
    }

    /// Whether `peer` is known to handle `protocol`.
    pub fn supports(&self, peer: PeerId, protocol: &ProtocolName) -> bool {
        let peers = self.inner.read();
        peers.records.get(&peer).is_some_and(|record| record.details.protocols.contains(protocol))
    }

    /// Every peer that is known to handle `protocol`, connected or not.
    pub fn supporting(&self, protocol: &ProtocolName) -> Vec<PeerId> {
        let peers = self.inner.read();
        let supporting =
            peers.records.iter().filter(|(_, record)| record.details.protocols.contains(protocol));
        supporting.map(|(peer, _)| *peer).collect()
    }

    /// Changes what is known of `peer` in one step, and tells so by [`NodeEvent::PeerUpdated`], and by
    /// [`NodeEvent::PeerProtocolsChanged`] if that is the case. What is beyond the bounds is cut off.
    pub fn update(&self, peer: PeerId, change: impl FnOnce(&mut PeerDetails)) {
        self.change(peer, |record, _| {
            let before = match record.introduced {
                true => record.details.protocols.clone(),
                false => Vec::new(),
            };
            change(&mut record.details);
            record.bound_details();
            record.introduced = true;
            // Told of under the lock, so that the order of events is that of the changes.
            self.events.emit(NodeEvent::PeerUpdated { peer });
            self.tell_of_protocols(peer, &before, &record.details.protocols);
        });
    }

    fn tell_of_protocols(&self, peer: PeerId, before: &[ProtocolName], after: &[ProtocolName]) {
        let missing = |of: &[ProtocolName], from: &[ProtocolName]| -> Vec<_> {
            of.iter().filter(|protocol| !from.contains(protocol)).cloned().collect()
        };
        let (added, removed) = (missing(after, before), missing(before, after));
        if !added.is_empty() || !removed.is_empty() {
            self.events.emit(NodeEvent::PeerProtocolsChanged { peer, added, removed });
        }
    }

    /// Attaches a piece of metadata to `peer`, in place of one of the same name: whatever the application wants to find again. It stays
    /// until it is taken away, or the peer is forgotten for want of room; peers that have some go late.
    pub fn set_metadata(
        &self,
        peer: PeerId,
        name: &str,
        value: impl Into<Bytes>,
    ) -> Result<(), MetadataError> {
        let value = value.into();
        if name.len() > MAX_METADATA_NAME_LENGTH {
            return Err(MetadataError::NameTooLong { peer, length: name.len() });
        }
        if value.len() > MAX_METADATA_LENGTH {
            return Err(MetadataError::TooLong { peer, length: value.len() });
        }
        let set = self.change(peer, |record, _| {
            if record.metadata.len() >= MAX_METADATA_PER_PEER && !record.metadata.contains_key(name) {
                return Err(MetadataError::TooMany { peer });
            }
            record.metadata.insert(name.into(), value);
            Ok(())
        });
        set.unwrap_or(Err(MetadataError::NoRoom { peer }))
    }

    /// A piece of metadata of `peer`.
    pub fn metadata(&self, peer: PeerId, name: &str) -> Option<Bytes> {
        self.inner.read().records.get(&peer)?.metadata.get(name).cloned()
    }

    /// Takes a piece of metadata away. Whether it was there.
    pub fn remove_metadata(&self, peer: PeerId, name: &str) -> bool {
        self.metadata(peer, name).is_some()
            && self.change(peer, |record, _| record.metadata.remove(name).is_some()).unwrap_or(false)
    }

    /// Forgets a peer, but for its [tags](Self::tag).
    pub fn remove(&self, peer: PeerId) {
        let mut peers = self.inner.write();
        peers.remove(peer);
        if let Some(unsaved) = &mut peers.unsaved {
            unsaved.forgotten(peer);
        }
        drop(peers);
        self.unsaved_changes.notify_one();
    }

    /// Every peer that something is known of.
    pub fn peers(&self) -> Vec<PeerId> {
        self.inner.read().records.keys().copied().collect()
    }
}

/// What the node itself knows.
impl PeerStore {
    pub(crate) fn capacity(&self) -> usize {
        self.capacity
    }

    /// A dial of `address` brought a connection to `peer`.
    pub(crate) fn dial_succeeded(&self, peer: PeerId, address: &Multiaddr) {
        let Some(address) = of_peer(peer, address) else { return };
        self.inner.write().last_success = Some(self.now());
        self.change(peer, |record, now| record.succeeded(&address, now));
        self.addresses_added.notify_waiters();
    }

    /// A dial of `address`, said to be `peer`'s, brought nothing.
    pub(crate) fn dial_failed(&self, peer: PeerId, address: &Multiaddr) {
        let (address, now) = (address.without_peer_id(), self.now());
        let mut peers = self.inner.write();
        let online = peers.is_online(now);
        let known = peers.records.get_mut(&peer).and_then(|record| record.address(&address));
        if let Some(known) = known {
            known.failed(online, now);
            peers.changed(peer);
            drop(peers);
            self.unsaved_changes.notify_one();
        }
    }

    /// The first connection to `peer` is there.
    pub(crate) fn connected(&self, peer: PeerId) {
        let mut peers = self.inner.write();
        peers.connected.insert(peer);
        if let Some(record) = peers.records.get_mut(&peer) {
            record.introduced = false;
        }
    }

    /// The last connection to `peer` is over; `dialed` is its address, if it was we who dialed.
    pub(crate) fn disconnected(&self, peer: PeerId, dialed: Option<&Multiaddr>) {
        self.inner.write().connected.remove(&peer);
        if !self.knows(peer) {
            return;
        }
        self.change(peer, |record, now| {
            if let Some(address) = dialed {
                record.succeeded(address, now);
            }
            record.left(now);
        });
    }

    /// Whether `peer`, which is connected, has told who it is since it came.
    pub(crate) fn is_introduced(&self, peer: PeerId) -> bool {
        self.inner.read().records.get(&peer).is_some_and(|record| record.introduced)
    }

    fn now(&self) -> Moment {
        Moment::now(self.epoch)
    }

    fn knows(&self, peer: PeerId) -> bool {
        self.inner.read().records.contains_key(&peer)
    }

    /// Changes a peer's record, made if need be. `None` if there is no room for it.
    fn change<T>(&self, peer: PeerId, change: impl FnOnce(&mut Record, Moment) -> T) -> Option<T> {
        let now = self.now();
        let mut peers = self.inner.write();
        if !self.enter(&mut peers, peer, now) {
            return None;
        }
        let record = peers.records.get_mut(&peer)?;
        record.touched = now;
        let changed = change(record, now);
        self.settle(&mut peers, peer);
        peers.changed(peer);
        drop(peers);
        self.unsaved_changes.notify_one();
        Some(changed)
    }
}

impl Peers {
    fn is_connected(&self, peer: PeerId) -> bool {
        self.connected.contains(&peer)
    }

    /// Whether something answers, so that who does not is to blame.
    fn is_online(&self, now: Moment) -> bool {
        let dialed = self.last_success.is_some_and(|success| now.since(success) < SIGN_OF_LIFE);
        dialed || !self.connected.is_empty()
    }

    fn changed(&mut self, peer: PeerId) {
        if let Some(unsaved) = &mut self.unsaved {
            unsaved.changed(peer);
        }
    }
}

/// A dial that was successful within this time says that there is a network.
const SIGN_OF_LIFE: Duration = Duration::from_secs(60);

/// The address without its final `/p2p/…`, unless that names another peer.
fn of_peer(peer: PeerId, address: &Multiaddr) -> Option<Multiaddr> {
    match address.peer_id() {
        Some(named) if named != peer => None,
        Some(_) => Some(address.without_peer_id()),
        None => Some(address.clone()),
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use peerloom_core::Keypair;

    use super::*;
    use crate::event::Events;

    fn store() -> PeerStore {
        PeerStore::new(10, EventSender::new())
    }

    fn address(port: u16) -> Multiaddr {
        format!("/ip4/10.0.0.1/tcp/{port}").parse().unwrap()
    }

    fn addresses(ports: impl IntoIterator<Item = u16>) -> Vec<Multiaddr> {
        ports.into_iter().map(address).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn addresses_expire_and_the_last_seen_comes_first() {
        let store = store();
        let peer = Keypair::generate().peer_id();
        store.add_address_from(peer, &address(1), PeerAddressSource::Identify);
        tokio::time::advance(ADDRESS_TTL / 2).await;
        store.add_address_from(peer, &address(2).with_peer_id(peer), PeerAddressSource::Identify);
        assert_eq!(store.addresses(peer), [address(2), address(1)]);
        tokio::time::advance(ADDRESS_TTL * 2 / 3).await;
        assert_eq!(store.addresses(peer), [address(2)]);
    }

    #[tokio::test(start_paused = true)]
    async fn no_address_of_a_connected_peer_expires_nor_at_once_when_it_goes() {
        let store = store();
        let peer = Keypair::generate().peer_id();
        store.connected(peer);
        store.set_told_addresses(peer, &addresses([1, 2]));
        tokio::time::advance(ADDRESS_TTL * 1000).await;
        assert_eq!(store.addresses(peer).len(), 2);
        store.disconnected(peer, Some(&address(1)));
        assert_eq!(store.addresses(peer), addresses([1, 2]));
        tokio::time::advance(ADDRESS_TTL).await;
        assert_eq!(store.addresses(peer), addresses([1]));
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_that_names_another_peer_is_ignored() {
        let store = store();
        let (peer, other) = (Keypair::generate().peer_id(), Keypair::generate().peer_id());
        store.add_address(peer, &address(1).with_peer_id(other));
        store.set_told_addresses(peer, &[address(1).with_peer_id(other)]);
        assert!(store.addresses(peer).is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_with_endless_addresses_keeps_only_the_newest() {
        let store = store();
        let peer = Keypair::generate().peer_id();
        for port in 1..=200 {
            store.add_address(peer, &address(port));
            tokio::time::advance(Duration::from_millis(1)).await;
        }
        assert_eq!(store.addresses(peer).len(), MAX_ADDRESSES_PER_PEER);
        assert_eq!(store.addresses(peer)[0], address(200));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_known_of_an_address_can_be_asked() {
        let store = store();
        let peer = Keypair::generate().peer_id();
        store.dial_succeeded(peer, &address(1));
        store.add_address_from(peer, &address(2), PeerAddressSource::PeerRecord);
        tokio::time::advance(Duration::from_secs(10)).await;
        store.dial_failed(peer, &address(2));
        store.dial_failed(peer, &address(3));
        let [works, fails] = store.known_addresses(peer).try_into().unwrap();
        assert_eq!((works.address, works.source), (address(1), PeerAddressSource::Connection));
        assert_eq!((works.last_success, works.last_failure), (Some(Duration::from_secs(10)), None));
        assert_eq!((fails.address, fails.last_failure), (address(2), Some(Duration::ZERO)));
        // Only with a signature is an address the peer's own.
        assert_eq!((fails.source, fails.certified), (PeerAddressSource::Application, false));
        assert!(fails.expires_in < works.expires_in * 3);
    }

    #[tokio::test(start_paused = true)]
    async fn the_newest_record_counts_and_nothing_unsigned_beside_it() {
        let store = store();
        let keypair = Keypair::generate();
        let peer = keypair.peer_id();
        let seal = |sequence, ports| PeerRecord::seal(&keypair, sequence, &addresses(ports));
        store.set_told_addresses(peer, &addresses([9]));
        assert!(store.add_signed_record(seal(5, 1..3)).await.unwrap());
        assert!(!store.add_signed_record(seal(4, 3..5)).await.unwrap(), "an older one");
        store.set_told_addresses(peer, &addresses([7, 8]));
        assert_eq!(store.addresses(peer), addresses([1, 2, 9]));
        assert_eq!(store.details(peer).unwrap().record_sequence, Some(5));
        // The same one again confirms it.
        tokio::time::advance(Duration::from_secs(20 * 3600)).await;
        assert!(store.add_signed_record(seal(5, 1..3)).await.unwrap());
        tokio::time::advance(Duration::from_secs(20 * 3600)).await;
        assert_eq!(store.addresses(peer).len(), 2);
        // When it is no longer believed, what the peer says unsigned is better than nothing.
        tokio::time::advance(Duration::from_secs(20 * 3600)).await;
        store.set_told_addresses(peer, &addresses([7]));
        assert_eq!(store.addresses(peer), addresses([7]));
    }

    #[tokio::test(start_paused = true)]
    async fn a_record_that_somebody_else_signed_is_refused() {
        let store = store();
        let (alice, mallory) = (Keypair::from_seed([1; 32]), Keypair::from_seed([2; 32]));
        let mut forged = PeerRecord::seal(&mallory, 9, &addresses([1])).encode_protobuf();
        let (from, to) = (mallory.public().encode_protobuf(), alice.public().encode_protobuf());
        let at = forged.windows(from.len()).position(|window| window == from).unwrap();
        forged[at..at + to.len()].copy_from_slice(&to);
        let envelope = SignedEnvelope::decode_protobuf(&forged).unwrap();
        assert!(store.add_signed_record(envelope).await.is_err());
        assert!(store.peers().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_moves_is_not_looked_for_where_it_was() {
        let store = store();
        let peer = Keypair::generate().peer_id();
        store.set_told_addresses(peer, &addresses([1, 2, 3]));
        store.dial_succeeded(peer, &address(2));
        store.set_told_addresses(peer, &addresses([3, 4]));
        assert_eq!(store.addresses(peer), addresses([2, 3, 4]));
    }

    #[tokio::test(start_paused = true)]
    async fn metadata_has_bounds_and_goes_with_the_peer() {
        let store = store();
        let peer = Keypair::generate().peer_id();
        for number in 0..MAX_METADATA_PER_PEER {
            store.set_metadata(peer, &number.to_string(), vec![7; MAX_METADATA_LENGTH]).unwrap();
        }
        assert_eq!(store.set_metadata(peer, "more", "x"), Err(MetadataError::TooMany { peer }));
        assert_eq!(store.set_metadata(peer, "0", "again"), Ok(()));
        let long = "x".repeat(MAX_METADATA_NAME_LENGTH + 1);
        let too_long = MetadataError::NameTooLong { peer, length: long.len() };
        assert_eq!(store.set_metadata(peer, &long, ""), Err(too_long));
        let length = MAX_METADATA_LENGTH + 1;
        let too_long = MetadataError::TooLong { peer, length };
        assert_eq!(store.set_metadata(peer, "0", vec![0; length]), Err(too_long));
        assert_eq!(store.metadata(peer, "0").unwrap(), "again");
        assert!(store.remove_metadata(peer, "0") && !store.remove_metadata(peer, "0"));
        store.remove(peer);
        assert_eq!(store.metadata(peer, "1"), None);
        assert!(!store.remove_metadata(peer, "1") && store.peers().is_empty());
    }

    /// The changes of protocols that are told of, as numbers of added and removed ones.
    fn told(events: &mut Events) -> Vec<(usize, usize)> {
        let all = std::iter::from_fn(|| events.next().now_or_never().flatten());
        all.filter_map(|event| match event {
            NodeEvent::PeerProtocolsChanged { added, removed, .. } => Some((added.len(), removed.len())),
            _ => None,
        })
        .collect()
    }

    #[test]
    fn changes_of_protocols_are_told_of_and_all_of_them_when_a_peer_comes() {
        let store = store();
        let mut events = store.events.subscribe();
        let peer = Keypair::generate().peer_id();
        let set = |names: &[&'static str]| {
            let names = names.iter().map(|name| ProtocolName::from_static(name)).collect();
            store.update(peer, |details| details.protocols = names);
        };
        store.connected(peer);
        set(&["/a", "/b"]);
        set(&["/a", "/b"]);
        set(&["/b", "/c"]);
        assert_eq!(told(&mut events), [(2, 0), (1, 1)]);
        assert!(store.is_introduced(peer));
        store.disconnected(peer, None);
        store.connected(peer);
        assert!(!store.is_introduced(peer));
        set(&["/b", "/c"]);
        assert_eq!(told(&mut events), [(2, 0)]);
        assert_eq!(store.supporting(&ProtocolName::from_static("/c")), [peer]);
        assert!(store.supporting(&ProtocolName::from_static("/a")).is_empty());
    }
}
