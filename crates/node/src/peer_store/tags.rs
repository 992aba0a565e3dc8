//! What peers are worth to this node: tags with weights that may decay, and protection from being cut.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use parking_lot::RwLock;
use peerloom_core::{PeerId, runtime::Instant};

use super::PeerStore;

/// Peers that may have tags, or be protected, at one time.
pub const MAX_TAGGED_PEERS: usize = 8192;
/// Tags of one peer, and reasons to protect it.
pub const MAX_TAGS_PER_PEER: usize = 64;
/// Bytes of the name of a tag, or of a reason to protect.
pub const MAX_TAG_NAME_LENGTH: usize = 256;

/// One reason why connections to a peer are worth more than those to another, or less.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tag {
    /// How much. The weights of a peer's tags add up; a negative one is a reason to let the peer go first.
    pub weight: i64,
    /// The time in which the weight comes down to its half, evenly, and then to the half of that; once it is 0 the tag is gone.
    /// `None` if it stays until it is taken away.
    pub half_life: Option<Duration>,
}

impl Tag {
    /// A tag that stays until it is taken away.
    pub const fn new(weight: i64) -> Self {
        Self { weight, half_life: None }
    }

    /// A tag that fades away.
    pub const fn halving_every(weight: i64, half_life: Duration) -> Self {
        Self { weight, half_life: Some(half_life) }
    }

    /// What the weight has come down to.
    fn weight_after(&self, elapsed: Duration) -> i64 {
        let Some(half_life) = self.half_life else { return self.weight };
        let (elapsed, half_life) = (elapsed.as_nanos(), half_life.as_nanos().max(1));
        let halvings = u32::try_from(elapsed.wrapping_div(half_life)).unwrap_or(u32::MAX);
        let Some(divisor) = 2i64.checked_pow(halvings) else { return 0 };
        let weight = self.weight.wrapping_div(divisor);
        // Evenly from one halving to the next. In whole numbers, so that it is the same on every machine; a
        // thousandth of the half-life is precise enough.
        let thousandths = elapsed.wrapping_rem(half_life).saturating_mul(1000).wrapping_div(half_life);
        let lost =
            i128::from(weight).wrapping_mul(i128::try_from(thousandths).unwrap_or(0)).wrapping_div(2000);
        weight.wrapping_sub(i64::try_from(lost).unwrap_or(0))
    }
}

/// There is no room for another tag.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum TagError {
    /// [`MAX_TAGGED_PEERS`] is reached.
    #[error("no room for a tag of {peer}: {MAX_TAGGED_PEERS} peers have tags already")]
    TooManyPeers {
        /// The peer.
        peer: PeerId,
    },
    /// [`MAX_TAGS_PER_PEER`] is reached.
    #[error("{peer} has {MAX_TAGS_PER_PEER} tags already")]
    TooManyTags {
        /// The peer.
        peer: PeerId,
    },
    /// The name is longer than [`MAX_TAG_NAME_LENGTH`].
    #[error("the name of a tag of {peer} has {length} bytes; {MAX_TAG_NAME_LENGTH} are allowed")]
    NameTooLong {
        /// The peer.
        peer: PeerId,
        /// The name's length in bytes.
        length: usize,
    },
}

/// All tags. Apart from what else is known of peers, because that goes when room is needed and these stay.
#[derive(Debug, Default)]
pub(super) struct Tags(RwLock<BTreeMap<PeerId, TagsOfPeer>>);

#[derive(Debug, Default)]
struct TagsOfPeer {
    tags: BTreeMap<Box<str>, (Tag, Instant)>,
    protected: BTreeSet<Box<str>>,
}

impl PeerStore {
    /// Sets a tag of `peer`, in place of one of the same name. Where connections must go, those to the peers of least weight
    /// go first; and one to a peer whose weight is positive is kept when nothing else needs it.
    ///
    /// Tags are this node's own opinion: they stay when the peer is forgotten, until they fade or are taken away.
    pub fn tag(&self, peer: PeerId, name: &str, tag: Tag) -> Result<(), TagError> {
        let now = Instant::now();
        self.tags.change(peer, name, now, |of_peer| {
            if of_peer.tags.len() >= MAX_TAGS_PER_PEER && !of_peer.tags.contains_key(name) {
                return Err(TagError::TooManyTags { peer });
            }
            of_peer.tags.insert(name.into(), (tag, now));
            Ok(())
        })
    }

    /// Takes a tag away. Whether it was there.
    pub fn untag(&self, peer: PeerId, name: &str) -> bool {
        self.tags.take_away(peer, |of_peer| of_peer.tags.remove(name).is_some())
    }

    /// The sum of what the tags of `peer` weigh now; 0 without any.
    pub fn weight(&self, peer: PeerId) -> i64 {
        let now = Instant::now();
        self.tags.0.read().get(&peer).map_or(0, |of_peer| of_peer.weight(now))
    }

    /// The tags of `peer` in the order of their names, with what they weigh now.
    pub fn tags(&self, peer: PeerId) -> Vec<(String, Tag)> {
        let now = Instant::now();
        let tags = self.tags.0.read();
        let of_peer = tags.get(&peer).into_iter().flat_map(|of_peer| of_peer.fresh(now));
        of_peer.map(|(name, tag)| (name.to_owned(), tag)).collect()
    }

    /// Protects connections to `peer` from being closed for want of room or of use, until every such reason is taken away by
    /// [`unprotect`](Self::unprotect).
    pub fn protect(&self, peer: PeerId, reason: &str) -> Result<(), TagError> {
        self.tags.change(peer, reason, Instant::now(), |of_peer| {
            if of_peer.protected.len() >= MAX_TAGS_PER_PEER && !of_peer.protected.contains(reason) {
                return Err(TagError::TooManyTags { peer });
            }
            of_peer.protected.insert(reason.into());
            Ok(())
        })
    }

    /// Takes one reason to protect `peer` away. Whether others are left.
    pub fn unprotect(&self, peer: PeerId, reason: &str) -> bool {
        self.tags.take_away(peer, |of_peer| of_peer.protected.remove(reason));
        self.is_protected(peer)
    }

    /// Whether there is a reason to protect connections to `peer`.
    pub fn is_protected(&self, peer: PeerId) -> bool {
        self.tags.0.read().get(&peer).is_some_and(|of_peer| !of_peer.protected.is_empty())
    }
}

impl Tags {
    fn change(
        &self,
        peer: PeerId,
        name: &str,
        now: Instant,
        change: impl FnOnce(&mut TagsOfPeer) -> Result<(), TagError>,
    ) -> Result<(), TagError> {
        if name.len() > MAX_TAG_NAME_LENGTH {
            return Err(TagError::NameTooLong { peer, length: name.len() });
        }
        let mut tags = self.0.write();
        if !tags.contains_key(&peer) && tags.len() >= MAX_TAGGED_PEERS {
            tags.retain(|_, of_peer| of_peer.remove_faded(now));
            if tags.len() >= MAX_TAGGED_PEERS {
                return Err(TagError::TooManyPeers { peer });
            }
        }
        let of_peer = tags.entry(peer).or_default();
        of_peer.remove_faded(now);
        change(of_peer)
    }

    fn take_away(&self, peer: PeerId, change: impl FnOnce(&mut TagsOfPeer) -> bool) -> bool {
        let mut tags = self.0.write();
        let Some(of_peer) = tags.get_mut(&peer) else { return false };
        let changed = change(of_peer);
        if of_peer.is_empty() {
            tags.remove(&peer);
        }
        changed
    }
}

impl TagsOfPeer {
    fn is_empty(&self) -> bool {
        self.tags.is_empty() && self.protected.is_empty()
    }

    /// Whether anything is left.
    fn remove_faded(&mut self, now: Instant) -> bool {
        self.tags.retain(|_, (tag, set)| tag.half_life.is_none() || weight(tag, *set, now) != 0);
        !self.is_empty()
    }

    fn fresh(&self, now: Instant) -> impl Iterator<Item = (&str, Tag)> {
        let tags = self.tags.iter().map(move |(name, (tag, set))| {
            (&**name, Tag { weight: weight(tag, *set, now), half_life: tag.half_life })
        });
        tags.filter(|(_, tag)| tag.half_life.is_none() || tag.weight != 0)
    }

    fn weight(&self, now: Instant) -> i64 {
        // In a wider type, so that the order of the tags does not matter where the sum is at a bound.
        let sum = self.tags.values().map(|(tag, set)| i128::from(weight(tag, *set, now))).sum::<i128>();
        i64::try_from(sum.clamp(i128::from(i64::MIN), i128::from(i64::MAX))).unwrap_or(0)
    }
}

fn weight(tag: &Tag, set: Instant, now: Instant) -> i64 {
    tag.weight_after(now.saturating_duration_since(set))
}

#[cfg(test)]
mod tests {
    use peerloom_core::Keypair;
    use proptest::prelude::*;

    use super::*;
    use crate::event::EventSender;

    const MINUTE: Duration = Duration::from_secs(60);

    fn store() -> PeerStore {
        PeerStore::new(10, EventSender::new())
    }

    fn peer(seed: u16) -> PeerId {
        let mut bytes = [0; 32];
        bytes[..2].copy_from_slice(&seed.to_be_bytes());
        Keypair::from_seed(bytes).peer_id()
    }

    #[tokio::test(start_paused = true)]
    async fn weights_add_up_and_a_tag_of_the_same_name_is_replaced() {
        let (store, peer, other) = (store(), peer(1), peer(2));
        store.tag(peer, "a", Tag::new(1)).unwrap();
        store.tag(peer, "a", Tag::new(2)).unwrap();
        store.tag(peer, "b", Tag::new(i64::MAX)).unwrap();
        store.tag(peer, "c", Tag::new(-1)).unwrap();
        assert_eq!((store.weight(peer), store.weight(other)), (i64::MAX, 0));
        assert!(store.untag(peer, "b"));
        assert!(!store.untag(peer, "never there"));
        assert!(!store.untag(other, "a"));
        assert_eq!(store.weight(peer), 1);
        assert_eq!(store.tags(peer), [("a".to_owned(), Tag::new(2)), ("c".to_owned(), Tag::new(-1))]);
        store.untag(peer, "a");
        store.untag(peer, "c");
        assert!(store.tags.0.read().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_tag_with_a_half_life_fades_until_it_is_gone() {
        let (store, peer) = (store(), peer(1));
        store.tag(peer, "helpful", Tag::halving_every(100, MINUTE)).unwrap();
        store.tag(peer, "rude", Tag::halving_every(-8, MINUTE)).unwrap();
        tokio::time::advance(MINUTE / 2).await;
        assert_eq!(store.weight(peer), 75 - 6);
        tokio::time::advance(MINUTE / 2).await;
        assert_eq!(store.weight(peer), 50 - 4);
        // Set again, it has its whole weight again.
        store.tag(peer, "helpful", Tag::halving_every(100, MINUTE)).unwrap();
        tokio::time::advance(MINUTE * 2).await;
        assert_eq!(store.weight(peer), 25 - 1);
        tokio::time::advance(MINUTE * 60).await;
        assert_eq!((store.weight(peer), store.tags(peer)), (0, vec![]));
        store.tag(peer, "other", Tag::new(0)).unwrap();
        assert_eq!(store.tags.0.read()[&peer].tags.len(), 1, "what has faded takes no room");
    }

    #[test]
    fn a_peer_is_protected_until_the_last_reason_is_gone() {
        let (store, peer) = (store(), peer(1));
        store.protect(peer, "a").unwrap();
        store.protect(peer, "a").unwrap();
        store.protect(peer, "b").unwrap();
        assert!(store.unprotect(peer, "a"));
        assert!(store.is_protected(peer));
        assert!(!store.unprotect(peer, "b"));
        assert!(!store.unprotect(peer, "b"));
        assert!(!store.is_protected(peer));
        assert!(store.tags.0.read().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn tags_have_bounds_and_what_has_faded_makes_room() {
        let store = store();
        let fading = Tag::halving_every(1, MINUTE);
        for number in 0..MAX_TAGS_PER_PEER {
            store.tag(peer(0), &number.to_string(), fading).unwrap();
            store.protect(peer(0), &number.to_string()).unwrap();
        }
        let full = Err(TagError::TooManyTags { peer: peer(0) });
        assert_eq!(store.tag(peer(0), "more", fading), full);
        assert_eq!(store.protect(peer(0), "more"), full);
        assert_eq!(store.tag(peer(0), "0", fading), Ok(()));
        let long = "x".repeat(MAX_TAG_NAME_LENGTH + 1);
        let too_long = Err(TagError::NameTooLong { peer: peer(0), length: long.len() });
        assert_eq!(store.tag(peer(0), &long, fading), too_long);

        for seed in 1..MAX_TAGGED_PEERS {
            store.tag(peer(u16::try_from(seed).unwrap()), "a", fading).unwrap();
        }
        let more = peer(u16::MAX);
        assert_eq!(store.tag(more, "a", fading), Err(TagError::TooManyPeers { peer: more }));
        tokio::time::advance(MINUTE).await;
        assert_eq!(store.tag(more, "a", fading), Ok(()));
        assert_eq!(store.tags.0.read().len(), 2, "the protected one and the new one");
    }

    proptest! {
        #[test]
        fn a_weight_never_grows_by_waiting(weight: i64, half_life: u32, waits: [u32; 2]) {
            let tag = Tag::halving_every(weight, Duration::from_millis(half_life.into()));
            let waits = waits.map(|wait| Duration::from_millis(wait.into()));
            let earlier = tag.weight_after(*waits.iter().min().unwrap());
            let later = tag.weight_after(*waits.iter().max().unwrap());
            // Rounding may differ by one between two halvings.
            prop_assert!(later.unsigned_abs() <= earlier.unsigned_abs().saturating_add(1), "{earlier} {later}");
            prop_assert!(later == 0 || later.signum() == weight.signum());
        }
    }
}
