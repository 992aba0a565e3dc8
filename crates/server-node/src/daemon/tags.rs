//! What peers are worth to clients, and the trimming of connections to those that are worth least.

use std::{collections::HashMap, time::Duration};

use peerloom_core::{PeerId, runtime::Instant};
use peerloom_node::{ConnectionId, ConnectionInfo};

/// Peers with tags.
const MAX_TAGGED_PEERS: usize = 4096;
/// Tags of one peer.
const MAX_TAGS: usize = 64;
/// A younger connection is not trimmed: nobody has had the time to tag its peer. As in go-libp2p's daemon.
const GRACE: Duration = Duration::from_secs(20);

/// There is no room for another tag.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(super) enum TagError {
    #[error("{MAX_TAGGED_PEERS} peers have tags already")]
    TooManyPeers,
    #[error("{0} has {MAX_TAGS} tags already")]
    TooManyTags(PeerId),
}

/// The tags of all peers. A peer's weight is the sum of those of its tags, and 0 without any.
#[derive(Debug, Default)]
pub(super) struct Tags(HashMap<PeerId, HashMap<String, i64>>);

impl Tags {
    /// Sets a tag of `peer`, in place of one of the same name.
    pub(super) fn tag(&mut self, peer: PeerId, tag: String, weight: i64) -> Result<(), TagError> {
        let known = self.0.get(&peer);
        if known.is_none() && self.0.len() >= MAX_TAGGED_PEERS {
            return Err(TagError::TooManyPeers);
        }
        if known.is_some_and(|tags| tags.len() >= MAX_TAGS && !tags.contains_key(&tag)) {
            return Err(TagError::TooManyTags(peer));
        }
        self.0.entry(peer).or_default().insert(tag, weight);
        Ok(())
    }

    /// Takes a tag away, if it is there.
    pub(super) fn untag(&mut self, peer: PeerId, tag: &str) {
        if let Some(tags) = self.0.get_mut(&peer) {
            tags.remove(tag);
            if tags.is_empty() {
                self.0.remove(&peer);
            }
        }
    }

    /// The connections to close so that no more than `keep` are left: those to the peers of least weight, the oldest first.
    /// Connections within [`GRACE`] stay.
    pub(super) fn to_trim(
        &self,
        mut connections: Vec<ConnectionInfo>,
        keep: usize,
        now: Instant,
    ) -> Vec<ConnectionId> {
        let surplus = connections.len().saturating_sub(keep);
        connections.retain(|connection| now.saturating_duration_since(connection.established) >= GRACE);
        connections.sort_by_key(|connection| (self.weight(connection.peer), connection.id));
        connections.iter().take(surplus).map(|connection| connection.id).collect()
    }

    fn weight(&self, peer: PeerId) -> i64 {
        let weights = self.0.get(&peer).into_iter().flat_map(HashMap::values);
        weights.fold(0, |sum, weight| sum.saturating_add(*weight))
    }
}

#[cfg(test)]
mod tests {
    use peerloom_core::Keypair;
    use peerloom_node::Node;
    use peerloom_sim::Network;

    use super::*;

    fn peers<const N: usize>() -> [PeerId; N] {
        [(); N].map(|()| Keypair::generate().peer_id())
    }

    /// A node with a connection to each of some others, which are returned in the order of the connections' age.
    async fn connected(count: usize) -> (Node, Vec<Node>) {
        let network = Network::new(Duration::from_millis(1));
        let node =
            |keypair: Keypair| Node::builder(keypair.clone()).transport(network.transport(keypair)).build();
        let hub = node(Keypair::generate());
        let mut others = Vec::new();
        for _ in 0..count {
            let other = node(Keypair::generate());
            let address = other.listen("/memory/0".parse().unwrap()).await.unwrap().remove(0);
            hub.dial(address).await.unwrap();
            others.push(other);
        }
        (hub, others)
    }

    #[tokio::test(start_paused = true)]
    async fn those_that_are_worth_least_are_trimmed_and_the_oldest_of_equals() {
        let (hub, others) = connected(4).await;
        let mut tags = Tags::default();
        tags.tag(others[0].peer_id(), "friend".into(), 5).unwrap();
        tags.tag(others[1].peer_id(), "friend".into(), 5).unwrap();
        tags.tag(others[1].peer_id(), "rude".into(), -7).unwrap();
        let trimmed = |keep| {
            let trimmed = tags.to_trim(hub.connections(), keep, Instant::now());
            let connections = hub.connections();
            let peer = |id| connections.iter().find(|connection| connection.id == id).unwrap().peer;
            trimmed.into_iter().map(peer).collect::<Vec<_>>()
        };
        assert_eq!(trimmed(0), [], "within the time of grace");
        tokio::time::advance(GRACE).await;
        assert_eq!(trimmed(4), []);
        let [friend, rude, older, younger] = [0, 1, 2, 3].map(|at| others[at].peer_id());
        assert_eq!(trimmed(2), [rude, older]);
        assert_eq!(trimmed(0), [rude, older, younger, friend]);
    }

    #[test]
    fn a_tag_is_set_anew_and_taken_away() {
        let [peer, other] = peers();
        let mut tags = Tags::default();
        tags.tag(peer, "a".into(), 1).unwrap();
        tags.tag(peer, "a".into(), 2).unwrap();
        tags.tag(peer, "b".into(), i64::MAX).unwrap();
        assert_eq!(tags.weight(peer), i64::MAX);
        tags.untag(peer, "b");
        tags.untag(peer, "never there");
        tags.untag(other, "a");
        assert_eq!((tags.weight(peer), tags.weight(other)), (2, 0));
        tags.untag(peer, "a");
        assert!(tags.0.is_empty());
    }

    #[test]
    fn tags_have_bounds() {
        let [peer] = peers();
        let mut tags = Tags::default();
        for number in 0..MAX_TAGS {
            tags.tag(peer, number.to_string(), 1).unwrap();
        }
        assert_eq!(tags.tag(peer, "more".into(), 1), Err(TagError::TooManyTags(peer)));
        assert_eq!(tags.tag(peer, "0".into(), 2), Ok(()));
    }
}
