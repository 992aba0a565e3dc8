//! Peers that the application wants a connection to at all times, and when they are dialed again. No I/O: time comes in, what is
//! to be dialed and the next deadline go out.

#![warn(clippy::arithmetic_side_effects)]

use std::{collections::BTreeMap, time::Duration};

use peerloom_core::{Multiaddr, PeerId, runtime::Instant};

/// Peers that may be kept at one time.
pub const MAX_KEPT_PEERS: usize = 256;
/// Addresses remembered of one.
const MAX_ADDRESSES: usize = 8;
/// The longest wait before the first attempt after a loss; each attempt that fails doubles it.
const FIRST_RETRY: Duration = Duration::from_secs(1);
/// It is never longer than that.
const LONGEST_RETRY: Duration = Duration::from_secs(120);
/// After a connection that lasted so long, waits are short again.
const STABLE: Duration = Duration::from_secs(60);
/// So often connections are checked; and, with nothing else to do, the time is looked at, to find out that this machine was asleep.
const TICK: Duration = Duration::from_secs(30);
/// A timer that is so late has slept with the machine. Browsers delay the timers of pages that nobody looks at by up to a
/// minute; that is no sleep.
const SLEPT: Duration = Duration::from_secs(75);

/// All kept peers.
#[derive(Debug)]
pub(crate) struct Keep {
    peers: BTreeMap<PeerId, Kept>,
    /// When [`step`](Self::step) was to be called again.
    expected: Option<Instant>,
    /// Somebody has told so since the last step.
    resumed: bool,
    /// When the connections were checked last, if there are any.
    checked: Option<Instant>,
    random: u64,
}

#[derive(Debug)]
struct Kept {
    /// Those that have worked, the last one first, and what whoever keeps it knows.
    addresses: Vec<Multiaddr>,
    /// Losses and failed attempts since there was a stable connection.
    failures: u32,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Connected { since: Instant },
    Dialing,
    Waiting { until: Instant },
}

/// What to do now.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Step {
    /// Peers to dial, with the addresses that are known of them beside those in the peer store.
    pub(crate) dial: Vec<(PeerId, Vec<Multiaddr>)>,
    /// By the time, this machine was asleep.
    pub(crate) slept: bool,
    /// Whether the connections that there are may be dead: this machine was asleep, or is in another network, or it is simply time to
    /// look.
    pub(crate) check: bool,
    /// When to come back, if nothing happens before.
    pub(crate) until: Option<Instant>,
}

impl Keep {
    /// `seed` is for the waits: nodes with different ones do not come back to a peer in step.
    pub(crate) fn new(seed: u64) -> Self {
        Self { peers: BTreeMap::new(), expected: None, resumed: false, checked: None, random: seed }
    }

    /// Whether there is room for it, or it is kept already.
    pub(crate) fn add(
        &mut self,
        peer: PeerId,
        mut addresses: Vec<Multiaddr>,
        is_connected: bool,
        now: Instant,
    ) -> bool {
        addresses.truncate(MAX_ADDRESSES);
        if let Some(kept) = self.peers.get_mut(&peer) {
            if !addresses.is_empty() {
                kept.addresses = addresses;
            }
            return true;
        }
        if self.peers.len() >= MAX_KEPT_PEERS {
            return false;
        }
        let state = match is_connected {
            true => State::Connected { since: now },
            false => State::Waiting { until: now },
        };
        self.peers.insert(peer, Kept { addresses, failures: 0, state });
        true
    }

    /// Whether it was kept.
    pub(crate) fn remove(&mut self, peer: PeerId) -> bool {
        self.peers.remove(&peer).is_some()
    }

    pub(crate) fn peers(&self) -> Vec<PeerId> {
        self.peers.keys().copied().collect()
    }

    /// There is a connection to the peer, at `address` if this node has dialed it.
    pub(crate) fn connected(&mut self, peer: PeerId, address: Option<&Multiaddr>, now: Instant) {
        let Some(kept) = self.peers.get_mut(&peer) else { return };
        if !matches!(kept.state, State::Connected { .. }) {
            kept.state = State::Connected { since: now };
        }
        if let Some(address) = address {
            let address = address.without_peer_id();
            kept.addresses.retain(|known| known.without_peer_id() != address);
            kept.addresses.insert(0, address);
            kept.addresses.truncate(MAX_ADDRESSES);
        }
    }

    /// The last connection to the peer is over. If it is kept, when it is dialed again.
    pub(crate) fn lost(&mut self, peer: PeerId, now: Instant) -> Option<Duration> {
        let kept = self.peers.get_mut(&peer)?;
        if let State::Connected { since } = kept.state
            && now.saturating_duration_since(since) >= STABLE
        {
            kept.failures = 0;
        }
        Some(kept.wait(now, &mut self.random))
    }

    /// An attempt to connect failed. When the next one comes; `None` if there is a connection all the same, or none is wanted.
    pub(crate) fn failed(&mut self, peer: PeerId, now: Instant) -> Option<Duration> {
        let kept = self.peers.get_mut(&peer).filter(|kept| kept.state == State::Dialing)?;
        Some(kept.wait(now, &mut self.random))
    }

    /// What has failed before the machine slept, or was in another network, means nothing now: everything is tried at once.
    pub(crate) fn resume(&mut self, now: Instant) {
        self.resumed = true;
        for kept in self.peers.values_mut() {
            kept.failures = 0;
            if let State::Waiting { until } = &mut kept.state {
                *until = now;
            }
        }
    }

    pub(crate) fn step(&mut self, now: Instant) -> Step {
        let late = self.expected.map(|expected| now.saturating_duration_since(expected));
        let slept = late.is_some_and(|late| late >= SLEPT);
        if slept {
            self.resume(now);
        }
        let mut dial = Vec::new();
        let is_connected = self.peers.values().any(|kept| matches!(kept.state, State::Connected { .. }));
        self.checked = is_connected.then(|| self.checked.unwrap_or(now));
        let due = self.checked.and_then(|checked| checked.checked_add(TICK));
        // A remote that was killed says no goodbye, and not every transport finds out by itself: to who comes back as WebRTC-direct,
        // a server that has started again answers as if it knew the connection.
        let check = std::mem::take(&mut self.resumed) || due.is_some_and(|due| due <= now);
        if check && is_connected {
            self.checked = Some(now);
        }
        let mut next = self.checked.unwrap_or(now).checked_add(TICK);
        for (peer, kept) in &mut self.peers {
            match kept.state {
                State::Waiting { until } if until <= now => {
                    kept.state = State::Dialing;
                    dial.push((*peer, kept.addresses.clone()));
                }
                State::Waiting { until } => next = next.map(|next| next.min(until)),
                State::Dialing | State::Connected { .. } => {}
            }
        }
        self.expected = next.filter(|_| !self.peers.is_empty());
        Step { dial, slept, check, until: self.expected }
    }
}

impl Kept {
    fn wait(&mut self, now: Instant, random: &mut u64) -> Duration {
        let doubled = 2_u32.saturating_pow(self.failures.min(20));
        let longest = FIRST_RETRY.saturating_mul(doubled).min(LONGEST_RETRY);
        self.failures = self.failures.saturating_add(1);
        // Between half of it and all, so that the peers of one that has restarted do not come all at once.
        let half = longest.checked_div(2).unwrap_or_default();
        let wait = half.saturating_add(half.mul_f64(unit(random)));
        self.state = State::Waiting { until: now.checked_add(wait).unwrap_or(now) };
        wait
    }
}

/// At least 0 and less than 1: SplitMix64 (Steele, Lea and Flood, 2014). Nobody gains by foreseeing it, and a simulation must.
fn unit(state: &mut u64) -> f64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut value = *state;
    value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (value >> 43) as f64 / f64::from(1_u32 << 21)
}

#[cfg(test)]
mod tests {
    use peerloom_core::Keypair;

    use super::*;

    fn peer(number: usize) -> PeerId {
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&number.to_be_bytes());
        Keypair::from_seed(seed).peer_id()
    }

    fn dialed(step: &Step) -> Vec<PeerId> {
        step.dial.iter().map(|(peer, _)| *peer).collect()
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_peer_is_dialed_at_once_and_then_at_growing_intervals() {
        let (mut keep, mut now) = (Keep::new(1), Instant::now());
        assert!(keep.add(peer(1), vec![], false, now));
        for attempt in 0..12 {
            assert_eq!(dialed(&keep.step(now)), [peer(1)], "{attempt}");
            let wait = keep.failed(peer(1), now).unwrap();
            let longest = (FIRST_RETRY * 2_u32.pow(attempt)).min(LONGEST_RETRY);
            assert!(wait >= longest / 2 && wait <= longest, "{attempt}: {wait:?}");
            let again = now + wait;
            while now < again {
                let step = keep.step(now);
                assert_eq!(dialed(&step), []);
                assert_eq!(step.until, Some(again.min(now + TICK)));
                now = step.until.unwrap();
            }
        }
    }

    #[test]
    fn waits_are_short_again_after_a_stable_connection_only() {
        let (mut keep, mut now) = (Keep::new(1), Instant::now());
        keep.add(peer(1), vec![], true, now);
        for lost in 0..5 {
            now += SECOND;
            let wait = keep.lost(peer(1), now).unwrap();
            assert!(wait >= FIRST_RETRY * 2_u32.pow(lost) / 2, "{lost}");
            now += wait;
            assert_eq!(dialed(&keep.step(now)), [peer(1)]);
            keep.connected(peer(1), None, now);
        }
        now += STABLE;
        assert!(keep.lost(peer(1), now).unwrap() <= FIRST_RETRY);
    }

    #[test]
    fn a_late_timer_is_a_sleep_and_a_resume_dials_at_once() {
        let (mut keep, mut now) = (Keep::new(1), Instant::now());
        keep.add(peer(1), vec![], false, now);
        keep.add(peer(2), vec![], true, now);
        for _ in 0..6 {
            keep.step(now);
            now += keep.failed(peer(1), now).unwrap();
        }
        keep.step(now);
        let wait = keep.failed(peer(1), now).unwrap();
        assert!(wait > TICK);
        let step = keep.step(now);
        // As late as a browser makes it, and no later.
        now = step.until.unwrap() + Duration::from_secs(60);
        let step = keep.step(now);
        assert!(!step.slept && step.check);
        keep.failed(peer(1), now);
        now = keep.step(now).until.unwrap() + SLEPT;
        let step = keep.step(now);
        assert!(step.slept && step.check);
        assert_eq!(dialed(&step), [peer(1)]);
        assert!(keep.failed(peer(1), now).unwrap() <= FIRST_RETRY);
        keep.resume(now);
        let step = keep.step(now);
        assert!(step.check && !step.slept);
        assert_eq!(dialed(&step), [peer(1)]);
    }

    #[test]
    fn connections_are_checked_from_time_to_time() {
        let (mut keep, mut now) = (Keep::new(1), Instant::now());
        keep.add(peer(1), vec![], true, now);
        assert_eq!(keep.step(now), Step { until: Some(now + TICK), ..Step::default() });
        for _ in 0..3 {
            // What happens in between does not put it off.
            let due = now + TICK;
            assert_eq!(keep.step(now + TICK / 2), Step { until: Some(due), ..Step::default() });
            now = due;
            assert_eq!(keep.step(now), Step { check: true, until: Some(now + TICK), ..Step::default() });
        }
    }

    #[test]
    fn the_address_that_worked_last_comes_first() {
        let (mut keep, now) = (Keep::new(1), Instant::now());
        let address = |port: usize| format!("/ip4/10.0.0.1/tcp/{port}").parse::<Multiaddr>().unwrap();
        keep.add(peer(1), vec![address(1).with_peer_id(peer(1)), address(2)], false, now);
        keep.connected(peer(1), Some(&address(2)), now);
        keep.connected(peer(1), Some(&address(1)), now);
        keep.lost(peer(1), now);
        let step = keep.step(now + FIRST_RETRY);
        assert_eq!(step.dial, [(peer(1), vec![address(1), address(2)])]);
        (3..30).for_each(|port| keep.connected(peer(1), Some(&address(port)), now));
        assert_eq!(keep.peers[&peer(1)].addresses.len(), MAX_ADDRESSES);
    }

    #[test]
    fn an_attempt_that_fails_beside_a_connection_is_nothing() {
        let (mut keep, now) = (Keep::new(1), Instant::now());
        keep.add(peer(1), vec![], false, now);
        keep.step(now);
        keep.connected(peer(1), None, now);
        assert_eq!(keep.failed(peer(1), now), None);
        assert!(keep.remove(peer(1)));
        assert_eq!(keep.lost(peer(1), now), None);
        assert_eq!(keep.step(now).until, None, "nobody to keep, nothing to do");
    }

    #[test]
    fn kept_peers_have_a_bound_and_nodes_do_not_wait_in_step() {
        let now = Instant::now();
        let mut keep = Keep::new(1);
        assert!((0..MAX_KEPT_PEERS).all(|number| keep.add(peer(number), vec![], true, now)));
        assert!(!keep.add(peer(MAX_KEPT_PEERS), vec![], true, now));
        assert!(keep.add(peer(0), vec![], true, now));
        let waits: std::collections::BTreeSet<_> = (0..100)
            .map(|seed| {
                let mut keep = Keep::new(seed);
                keep.add(peer(1), vec![], true, now);
                keep.lost(peer(1), now).unwrap()
            })
            .collect();
        assert!(waits.len() > 95);
    }
}
