//! How often a peer may push.

use std::{collections::HashMap, time::Duration};

use parking_lot::Mutex;
use peerloom_core::{PeerId, runtime::Instant};

/// Pushes that may come at once.
const BURST: u32 = 8;
/// The time after which one more is allowed.
const INTERVAL: Duration = Duration::from_secs(5);

/// A token bucket for each connected peer.
#[derive(Debug, Default)]
pub(super) struct PushLimit(Mutex<HashMap<PeerId, Bucket>>);

#[derive(Debug)]
struct Bucket {
    tokens: u32,
    refilled: Instant,
}

impl PushLimit {
    pub(super) fn allow(&self, peer: PeerId) -> bool {
        let now = Instant::now();
        let mut buckets = self.0.lock();
        let bucket = buckets.entry(peer).or_insert(Bucket { tokens: BURST, refilled: now });
        while bucket.tokens < BURST && now.saturating_duration_since(bucket.refilled) >= INTERVAL {
            bucket.tokens = bucket.tokens.saturating_add(1);
            bucket.refilled += INTERVAL;
        }
        if bucket.tokens == BURST {
            bucket.refilled = now;
        }
        let allowed = bucket.tokens > 0;
        bucket.tokens = bucket.tokens.saturating_sub(1);
        allowed
    }

    /// For a peer that has gone.
    pub(super) fn forget(&self, peer: PeerId) {
        self.0.lock().remove(&peer);
    }
}

#[cfg(test)]
mod tests {
    use peerloom_core::Keypair;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_pushes_without_end_is_held_to_the_rate() {
        let limit = PushLimit::default();
        let peer = Keypair::generate().peer_id();
        assert_eq!((0..100).filter(|_| limit.allow(peer)).count(), BURST as usize);
        tokio::time::advance(INTERVAL * 2).await;
        assert_eq!((0..100).filter(|_| limit.allow(peer)).count(), 2);
    }
}
