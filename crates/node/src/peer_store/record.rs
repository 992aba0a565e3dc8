//! Everything that is known of one peer, and the bounds of it.

use std::{cmp::Reverse, collections::BTreeMap};

use bytes::Bytes;
use peerloom_core::{Multiaddr, PeerId, ProtocolName, PublicKey, SignedEnvelope};

use super::{
    address::{AFTER_CONNECTION, PeerAddressSource, StoredAddress},
    moment::Moment,
};
use crate::identify::{MAX_PROTOCOLS, MAX_VERSION_LENGTH};

/// Addresses kept for one peer; the least useful makes room.
pub const MAX_ADDRESSES_PER_PEER: usize = 32;
/// Of them, those that the peer has signed. So there is always room for one that works, and for one that it has not signed yet.
const MAX_CERTIFIED: usize = 24;
/// Bytes kept of the names of one peer's protocols, all together.
const MAX_PROTOCOL_BYTES: usize = 16 * 1024;
/// Bytes of a signed record that is kept to be passed on. Its addresses are kept also if it is longer.
const MAX_SIGNED_RECORD_BYTES: usize = 8 * 1024;
/// Metadata that may be attached to one peer.
pub const MAX_METADATA_PER_PEER: usize = 16;
/// Bytes of the name of a piece of metadata.
pub const MAX_METADATA_NAME_LENGTH: usize = 64;
/// Bytes of a piece of metadata.
pub const MAX_METADATA_LENGTH: usize = 1024;

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
    /// The sequence number of its newest signed record; an older one never replaces it.
    pub record_sequence: Option<u64>,
    /// Our own address as this peer sees it.
    pub observed_address: Option<Multiaddr>,
}

/// Metadata that cannot be attached to a peer.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum MetadataError {
    /// The name is longer than [`MAX_METADATA_NAME_LENGTH`].
    #[error("the name of metadata of {peer} has {length} bytes; {MAX_METADATA_NAME_LENGTH} are allowed")]
    NameTooLong {
        /// The peer.
        peer: PeerId,
        /// The name's length in bytes.
        length: usize,
    },
    /// The value is longer than [`MAX_METADATA_LENGTH`].
    #[error("metadata of {peer} has {length} bytes; {MAX_METADATA_LENGTH} are allowed")]
    TooLong {
        /// The peer.
        peer: PeerId,
        /// Its length in bytes.
        length: usize,
    },
    /// [`MAX_METADATA_PER_PEER`] is reached.
    #[error("{peer} has {MAX_METADATA_PER_PEER} pieces of metadata already")]
    TooMany {
        /// The peer.
        peer: PeerId,
    },
    /// The store is full of peers that are worth more.
    #[error("no room for {peer}")]
    NoRoom {
        /// The peer.
        peer: PeerId,
    },
}

/// One peer.
#[derive(Debug, Clone)]
pub(super) struct Record {
    /// When anything was last learnt of it.
    pub(super) touched: Moment,
    /// In no order.
    pub(super) addresses: Vec<StoredAddress>,
    pub(super) details: PeerDetails,
    pub(super) metadata: BTreeMap<Box<str>, Bytes>,
    /// Whether its protocols have been told of since it came.
    pub(super) introduced: bool,
    /// Which version of it storage has.
    pub(super) stamp: Option<u64>,
    /// What [`size`](Self::size) was when it was last counted.
    pub(super) counted: usize,
}

impl Record {
    pub(super) fn new(now: Moment) -> Self {
        Self {
            touched: now,
            addresses: Vec::new(),
            details: PeerDetails::default(),
            metadata: BTreeMap::new(),
            introduced: false,
            stamp: None,
            counted: 0,
        }
    }

    pub(super) fn address(&mut self, address: &Multiaddr) -> Option<&mut StoredAddress> {
        self.addresses.iter_mut().find(|stored| stored.address == *address)
    }

    /// Adds an address or confirms it. Whether it is a new one.
    pub(super) fn name(&mut self, address: Multiaddr, source: PeerAddressSource, now: Moment) -> bool {
        if let Some(known) = self.address(&address) {
            let was_certified = known.certified;
            known.named(source, now);
            if !was_certified && source == PeerAddressSource::PeerRecord {
                self.bound_certified();
            }
            return false;
        }
        self.insert(StoredAddress::new(address, source, now))
    }

    /// There is a connection to the address, or was until now.
    pub(super) fn succeeded(&mut self, address: &Multiaddr, now: Moment) {
        if let Some(known) = self.address(address) {
            return known.succeeded(now);
        }
        let mut stored = StoredAddress::new(address.clone(), PeerAddressSource::Connection, now);
        stored.succeeded(now);
        self.insert(stored);
    }

    /// Whether there was room for it.
    fn insert(&mut self, address: StoredAddress) -> bool {
        let inserted = address.address.clone();
        self.addresses.push(address);
        self.bound_certified();
        if self.addresses.len() > MAX_ADDRESSES_PER_PEER {
            self.remove_least_useful(|stored| !stored.certified);
        }
        self.address(&inserted).is_some()
    }

    fn bound_certified(&mut self) {
        if self.addresses.iter().filter(|stored| stored.certified).count() > MAX_CERTIFIED {
            self.remove_least_useful(|stored| stored.certified);
        }
    }

    fn remove_least_useful(&mut self, may_go: impl Fn(&StoredAddress) -> bool) {
        let addresses = self.addresses.iter().enumerate().filter(|(_, stored)| may_go(stored));
        // Of equals, the one that came first.
        let least = addresses.max_by_key(|(at, stored)| (stored.rank(), Reverse(*at))).map(|(at, _)| at);
        if let Some(least) = least {
            self.addresses.remove(least);
        }
    }

    /// Takes over what the peer has signed. Certified addresses that are not in it are so no longer, and go if they never worked.
    pub(super) fn certify(&mut self, addresses: impl Iterator<Item = Multiaddr>, now: Moment) -> bool {
        let mut certified: Vec<_> = addresses.collect();
        certified.truncate(MAX_CERTIFIED);
        self.addresses.retain_mut(|stored| {
            if stored.certified && !certified.contains(&stored.address) {
                stored.uncertify(now);
                return stored.success.is_some();
            }
            true
        });
        let mut is_new = false;
        for address in certified {
            is_new |= self.name(address, PeerAddressSource::PeerRecord, now);
        }
        is_new
    }

    /// Whether the peer itself has signed for an address that is still believed.
    pub(super) fn is_certified(&self) -> bool {
        self.addresses.iter().any(|stored| stored.certified)
    }

    pub(super) fn forget_expired(&mut self, now: Moment) {
        self.addresses.retain(|stored| !stored.is_expired(now));
    }

    /// Those that are believed, the most useful first. While the peer is connected none of them expires.
    pub(super) fn ranked(&self, connected: bool, now: Moment) -> Vec<&StoredAddress> {
        let mut ranked = Vec::with_capacity(self.addresses.len());
        for address in self.addresses.iter().filter(|stored| connected || !stored.is_expired(now)) {
            let rank = address.rank();
            // They are few, and a general sort is much code for a page.
            let at = ranked.partition_point(|better: &&StoredAddress| better.rank() <= rank);
            ranked.insert(at, address);
        }
        ranked
    }

    /// The last connection is over.
    pub(super) fn left(&mut self, now: Moment) {
        for address in &mut self.addresses {
            address.expires = address.expires.max(now.after(AFTER_CONNECTION));
        }
    }

    /// Whether there is more to it than hearsay: it was dialed with success, or the application has something to say of it.
    pub(super) fn is_proved(&self) -> bool {
        !self.metadata.is_empty() || self.addresses.iter().any(|stored| stored.success.is_some())
    }

    /// Whether it would be of use another time. Nobody needs to know of pages that came and cannot be dialed.
    pub(super) fn is_worth_keeping(&self) -> bool {
        !self.metadata.is_empty() || !self.addresses.is_empty()
    }

    /// Holds what a protocol has written of the peer to its bounds.
    pub(super) fn bound_details(&mut self) {
        let details = &mut self.details;
        let mut bytes = 0_usize;
        let fits = move |protocol: &&ProtocolName| {
            bytes = bytes.saturating_add(protocol.as_str().len());
            bytes <= MAX_PROTOCOL_BYTES
        };
        let fitting = details.protocols.iter().take_while(fits).count();
        details.protocols.truncate(fitting.min(MAX_PROTOCOLS));
        for version in [&mut details.agent_version, &mut details.protocol_version].into_iter().flatten() {
            version.truncate(version.floor_char_boundary(MAX_VERSION_LENGTH));
        }
        if signed_record_bytes(details) > MAX_SIGNED_RECORD_BYTES {
            details.signed_record = None;
        }
    }

    /// The memory it takes, roughly.
    pub(super) fn size(&self) -> usize {
        let addresses = self
            .addresses
            .iter()
            .map(|stored| stored.address.as_bytes().len().saturating_add(size_of::<StoredAddress>()));
        let details = &self.details;
        let names = details.protocols.iter().map(|protocol| protocol.as_str().len().saturating_add(32));
        let metadata = self.metadata.iter().map(|(name, value)| name.len().saturating_add(value.len()));
        let versions = [&details.agent_version, &details.protocol_version].into_iter().flatten();
        let all = addresses.chain(names).chain(metadata).chain(versions.map(String::len));
        let fixed = size_of::<Self>().saturating_add(signed_record_bytes(details));
        all.fold(fixed, usize::saturating_add)
    }
}

fn signed_record_bytes(details: &PeerDetails) -> usize {
    details.signed_record.as_ref().map_or(0, |record| record.encode_protobuf().len())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn address(port: u16) -> Multiaddr {
        format!("/ip4/10.0.0.1/tcp/{port}").parse().unwrap()
    }

    fn at(seconds: u64) -> Moment {
        Moment::START.after(Duration::from_secs(seconds))
    }

    fn is_known(record: &mut Record, port: u16) -> bool {
        record.address(&address(port)).is_some()
    }

    #[test]
    fn hearsay_never_replaces_what_the_peer_has_signed() {
        let mut record = Record::new(at(0));
        record.certify((1..=100).map(address), at(0));
        assert_eq!(record.addresses.len(), MAX_CERTIFIED);
        for port in 1000..2000 {
            record.name(address(port), PeerAddressSource::Application, at(1));
        }
        assert_eq!(record.addresses.len(), MAX_ADDRESSES_PER_PEER);
        assert_eq!(record.addresses.iter().filter(|stored| stored.certified).count(), MAX_CERTIFIED);
    }

    #[test]
    fn there_is_room_for_an_address_that_works_beside_those_that_are_signed() {
        let mut record = Record::new(at(0));
        record.certify((1..=100).map(address), at(0));
        for port in 1000..1100 {
            record.name(address(port), PeerAddressSource::Routing, at(1));
        }
        record.succeeded(&address(2000), at(2));
        for port in 1000..1100 {
            record.name(address(port), PeerAddressSource::Application, at(3));
        }
        assert!(is_known(&mut record, 2000));
        assert_eq!(record.ranked(false, at(3))[0].address, address(2000));
    }

    #[test]
    fn a_newer_record_replaces_the_older_one_but_for_what_has_worked() {
        let mut record = Record::new(at(0));
        record.certify([1, 2, 3].map(address).into_iter(), at(0));
        record.address(&address(2)).unwrap().succeeded(at(1));
        record.certify([3, 4].map(address).into_iter(), at(2));
        assert!(!is_known(&mut record, 1));
        assert!(!record.address(&address(2)).unwrap().certified);
        assert!(
            record.address(&address(3)).unwrap().certified && record.address(&address(4)).unwrap().certified
        );
    }

    #[test]
    fn what_a_protocol_writes_is_held_to_its_bounds() {
        let mut record = Record::new(at(0));
        let name = |n| format!("/{n}/{}", "x".repeat(200)).parse().unwrap();
        record.details.protocols = (0..1000).map(name).collect();
        record.details.agent_version = Some("ö".repeat(10_000));
        let keypair = peerloom_core::Keypair::generate();
        let addresses: Vec<_> = (0..=u16::MAX).map(address).take(1000).collect();
        record.details.signed_record = Some(peerloom_core::PeerRecord::seal(&keypair, 1, &addresses));
        record.bound_details();
        assert!(record.details.protocols.len() < 1000 && record.size() < 2 * MAX_PROTOCOL_BYTES);
        assert_eq!(record.details.agent_version.unwrap().len(), MAX_VERSION_LENGTH);
        assert!(record.details.signed_record.is_none());
    }

    #[derive(Debug, Clone)]
    enum Step {
        Name(u16, PeerAddressSource),
        Certify(Vec<u16>),
        Succeed(u16),
        Fail(u16),
        Wait(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        use PeerAddressSource::{Application, Connection, Identify, Routing};
        let source = prop::sample::select(vec![Routing, Identify, Connection, Application]);
        prop_oneof![
            4 => (0..60_u16, source).prop_map(|(port, source)| Step::Name(port, source)),
            1 => prop::collection::vec(0..60_u16, 0..40).prop_map(Step::Certify),
            2 => (0..60_u16).prop_map(Step::Succeed),
            2 => (0..60_u16).prop_map(Step::Fail),
            1 => (0..100_000_u64).prop_map(Step::Wait),
        ]
    }

    proptest! {
        #[test]
        fn whatever_happens_bounds_hold_and_the_best_stays(steps in prop::collection::vec(step(), 0..200)) {
            let mut record = Record::new(at(0));
            let mut now = at(0);
            for step in steps {
                now = now.after(Duration::from_millis(1));
                let certified = record.addresses.iter().filter(|stored| stored.certified).count();
                let best = record.ranked(false, now).first().map(|best| (*best).clone());
                match step {
                    Step::Wait(seconds) => {
                        now = now.after(Duration::from_secs(seconds));
                        record.forget_expired(now);
                    }
                    Step::Name(port, source) => {
                        record.name(address(port), source, now);
                        let left = record.addresses.iter().filter(|stored| stored.certified).count();
                        prop_assert_eq!(left, certified, "nothing unsigned replaces what is signed");
                        if let Some(best) = best {
                            prop_assert!(record.address(&best.address).is_some(), "the best was replaced");
                        }
                    }
                    Step::Certify(ports) => {
                        record.certify(ports.iter().copied().map(address), now);
                        let named = |stored: &StoredAddress| {
                            ports.iter().any(|port| address(*port) == stored.address)
                        };
                        prop_assert!(record.addresses.iter().all(|stored| !stored.certified || named(stored)));
                        if let Some(best) = best.filter(|best| best.success.is_some() && !best.certified) {
                            prop_assert!(record.address(&best.address).is_some(), "what works was replaced");
                        }
                    }
                    Step::Succeed(port) => {
                        record.succeeded(&address(port), now);
                        prop_assert_eq!(&record.ranked(false, now)[0].address, &address(port));
                    }
                    Step::Fail(port) => {
                        if let Some(stored) = record.address(&address(port)) {
                            let before = stored.expires;
                            stored.failed(true, now);
                            prop_assert!(stored.expires <= before);
                        }
                    }
                }
                prop_assert!(record.addresses.len() <= MAX_ADDRESSES_PER_PEER);
                prop_assert!(record.addresses.iter().filter(|stored| stored.certified).count() <= MAX_CERTIFIED);
                let unique: std::collections::BTreeSet<_> =
                    record.addresses.iter().map(|stored| &stored.address).collect();
                prop_assert_eq!(unique.len(), record.addresses.len());
            }
        }
    }
}
