//! Which peer makes room for another.

use peerloom_core::PeerId;

use super::{PeerStore, Peers, moment::Moment, record::Record};

/// Of the places of a store, those that peers have for themselves of which there is only hearsay: one in so many. So a flood
/// of them does not cost us the peers that we have been connected to, nor do those take the room of all newcomers.
const SHARE_OF_HEARSAY: usize = 4;
/// Bytes that a peer may take on average.
const BYTES_PER_PEER: usize = 8 * 1024;
/// Bytes that a store may take however few its peers are.
const LEAST_BYTES: usize = 256 * 1024;

impl PeerStore {
    /// Makes a record for `peer` if there is none and there can be one.
    pub(super) fn enter(&self, peers: &mut Peers, peer: PeerId, now: Moment) -> bool {
        if peers.records.contains_key(&peer) {
            return true;
        }
        if self.capacity == 0 {
            return false;
        }
        if peers.records.len() >= self.capacity {
            let Some(least) = self.least_useful(peers, peer) else { return false };
            peers.remove(least);
        }
        peers.records.insert(peer, Record::new(now));
        true
    }

    /// Counts what `peer` takes now, and holds the whole to its bound.
    pub(super) fn settle(&self, peers: &mut Peers, peer: PeerId) {
        let Some(record) = peers.records.get_mut(&peer) else { return };
        let size = record.size();
        peers.bytes = peers.bytes.saturating_sub(record.counted).saturating_add(size);
        record.counted = size;
        while peers.bytes > self.byte_capacity() {
            let Some(least) = self.least_useful(peers, peer) else { return };
            peers.remove(least);
        }
    }

    pub(super) fn byte_capacity(&self) -> usize {
        self.capacity.saturating_mul(BYTES_PER_PEER).max(LEAST_BYTES)
    }

    /// The peer that is to go for `newcomer`: last of all those that are protected, tagged or connected. `None` if that would be the
    /// newcomer itself.
    fn least_useful(&self, peers: &Peers, newcomer: PeerId) -> Option<PeerId> {
        let others = || peers.records.iter().filter(move |(peer, _)| **peer != newcomer);
        let is_free = |peer: PeerId| !peers.is_connected(peer);
        let of_hearsay = others().filter(|(peer, record)| is_free(**peer) && !record.is_proved()).count();
        let hearsay_goes = of_hearsay > self.capacity.checked_div(SHARE_OF_HEARSAY).unwrap_or_default();
        let mut least = None;
        for (peer, record) in others().filter(|(peer, _)| is_free(**peer)) {
            let rank = (record.is_proved() == hearsay_goes, record.touched);
            // Tags are looked at last, because that is dearest.
            if least.is_none_or(|(least, _)| rank < least) && !self.is_valued(*peer) {
                least = Some((rank, *peer));
            }
        }
        if let Some((_, least)) = least {
            return Some(least);
        }
        let worth = |peer: PeerId| (self.is_protected(peer), peers.is_connected(peer), self.weight(peer));
        let mut least: Option<(_, Moment, PeerId)> = None;
        for (peer, record) in others() {
            let worth = worth(*peer);
            if least.as_ref().is_none_or(|(least, touched, _)| (&worth, &record.touched) < (least, touched)) {
                least = Some((worth, record.touched, *peer));
            }
        }
        least.filter(|(least, ..)| *least <= worth(newcomer)).map(|(.., peer)| peer)
    }

    fn is_valued(&self, peer: PeerId) -> bool {
        self.is_protected(peer) || self.weight(peer) > 0
    }
}

impl Peers {
    /// Forgets a peer for want of room or of use.
    pub(super) fn remove(&mut self, peer: PeerId) {
        let Some(record) = self.records.remove(&peer) else { return };
        self.bytes = self.bytes.saturating_sub(record.counted);
        if let Some(unsaved) = &mut self.unsaved {
            unsaved.removed(peer, record.stamp);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use peerloom_core::{Keypair, Multiaddr};
    use proptest::prelude::*;

    use super::*;
    use crate::{
        event::EventSender,
        peer_store::{PeerAddressSource, Tag},
    };

    fn store(capacity: usize) -> PeerStore {
        PeerStore::new(capacity, EventSender::new())
    }

    fn peer(number: u16) -> PeerId {
        let mut seed = [0; 32];
        seed[..2].copy_from_slice(&number.to_be_bytes());
        Keypair::from_seed(seed).peer_id()
    }

    fn address(port: u16) -> Multiaddr {
        format!("/ip4/10.0.0.1/tcp/{port}").parse().unwrap()
    }

    async fn later() {
        tokio::time::advance(Duration::from_millis(10)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn hearsay_does_not_push_out_peers_that_we_have_been_connected_to() {
        let store = store(40);
        for number in 0..40 {
            store.dial_succeeded(peer(number), &address(1));
            later().await;
        }
        for number in 100..300 {
            store.add_address_from(peer(number), &address(1), PeerAddressSource::Routing);
            later().await;
        }
        let known = |numbers: std::ops::Range<u16>| {
            numbers.filter(|number| !store.addresses(peer(*number)).is_empty()).count()
        };
        assert_eq!((known(0..40), known(100..289), known(289..300)), (29, 0, 11));
        // Nor the other way round: there are always some places for newcomers.
        for number in 400..500 {
            store.dial_succeeded(peer(number), &address(1));
        }
        assert_eq!(known(289..300), 10);
    }

    #[tokio::test(start_paused = true)]
    async fn connected_tagged_and_protected_peers_go_last() {
        let store = store(4);
        store.connected(peer(1));
        store.tag(peer(2), "friend", Tag::new(1)).unwrap();
        store.protect(peer(3), "ours").unwrap();
        for number in 1..=3 {
            store.add_address(peer(number), &address(1));
            later().await;
        }
        for number in 10..100 {
            store.add_address(peer(number), &address(1));
            later().await;
        }
        for number in [1, 2, 3, 99] {
            assert!(!store.addresses(peer(number)).is_empty(), "{number}");
        }
        // Nobody is left to go but those: a stranger finds no room, and a friend takes that of the one worth less.
        store.protect(peer(99), "ours").unwrap();
        store.add_address(peer(100), &address(1));
        assert!(store.addresses(peer(100)).is_empty());
        store.tag(peer(101), "friend", Tag::new(2)).unwrap();
        store.add_address(peer(101), &address(1));
        assert!(!store.addresses(peer(101)).is_empty() && store.addresses(peer(2)).is_empty());
        assert_eq!(store.peers().len(), 4);
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_of_one_and_of_none_work() {
        let one = store(1);
        for number in 0..10 {
            one.connected(peer(number));
            one.add_address(peer(number), &address(1));
            one.update(peer(number), |details| details.agent_version = Some("x".into()));
            one.disconnected(peer(number), None);
            assert_eq!(one.peers(), [peer(number)]);
        }
        let none = store(0);
        none.connected(peer(1));
        none.add_address(peer(1), &address(1));
        none.dial_succeeded(peer(1), &address(1));
        none.update(peer(1), |details| details.agent_version = Some("x".into()));
        assert!(none.set_metadata(peer(1), "name", "value").is_err());
        assert!(
            none.peers().is_empty() && none.details(peer(1)).is_none() && none.addresses(peer(1)).is_empty()
        );
    }

    #[tokio::test(start_paused = true)]
    async fn peers_that_tell_as_much_as_they_may_take_bounded_memory() {
        let store = store(64);
        for number in 0..200 {
            let long = format!("/dns4/{}", "x".repeat(250)).repeat(7);
            for port in 0..40 {
                store.add_address(peer(number), &format!("{long}/tcp/{port}").parse().unwrap());
            }
            let protocols = (0..256).map(|n| format!("/{n}/{}", "x".repeat(240)).parse().unwrap()).collect();
            store.update(peer(number), |details| details.protocols = protocols);
            let peers = store.inner.read();
            assert!(peers.bytes <= store.byte_capacity(), "{}", peers.bytes);
            assert_eq!(peers.bytes, peers.records.values().map(Record::size).sum::<usize>());
            assert!(peers.records.contains_key(&peer(number)));
        }
        assert!(store.peers().len() > 5);
    }

    proptest! {
        #[test]
        fn whatever_happens_the_store_is_bounded_and_the_useful_stay(
            capacity in 0..12_usize,
            steps in prop::collection::vec((0..40_u16, 0..7_u8), 0..200),
        ) {
            let store = store(capacity);
            let mut connected = std::collections::BTreeSet::new();
            for (number, step) in steps {
                let peer = peer(number);
                let was_known: Vec<_> =
                    connected.iter().copied().filter(|peer| store.details(*peer).is_some()).collect();
                match step {
                    0 => {
                        store.connected(peer);
                        connected.insert(peer);
                    }
                    1 => {
                        store.disconnected(peer, None);
                        connected.remove(&peer);
                    }
                    2 => store.dial_succeeded(peer, &address(1)),
                    3 => store.dial_failed(peer, &address(1)),
                    4 => drop(store.set_metadata(peer, "name", "value")),
                    5 => store.update(peer, |details| details.agent_version = Some("x".into())),
                    _ => store.add_address_from(peer, &address(number), PeerAddressSource::Routing),
                }
                prop_assert!(store.peers().len() <= capacity);
                // A connected peer goes for nobody but another connected one.
                if !connected.contains(&peer) {
                    prop_assert!(was_known.iter().all(|known| *known == peer || store.details(*known).is_some()));
                }
                let peers = store.inner.read();
                prop_assert_eq!(peers.bytes, peers.records.values().map(Record::size).sum::<usize>());
            }
        }
    }
}
