use std::time::Duration;

use super::random::Random;

/// What a packet carries beside its headers.
pub const PACKET_PAYLOAD: usize = 1200;
/// What a packet weighs on a link beside its payload: IP, UDP or TCP, and the encryption.
pub const PACKET_OVERHEAD: usize = 60;

/// How packets travel between two hosts, each way.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct LinkConfig {
    /// What every packet takes from one host to the other.
    pub latency: Duration,
    /// What a packet may take longer: evenly distributed from zero up to this. Packets keep their order.
    pub jitter: Duration,
    /// The share of packets that get lost, from 0 to 1.
    pub loss: f64,
    /// The share of packets that others overtake, from 0 to 1: they take up to twice the latency and the jitter.
    pub reordering: f64,
    /// Bytes per second, headers included: packets of a direction stand in line for it. Unlimited if `None`.
    pub bandwidth: Option<u64>,
}

impl LinkConfig {
    /// A link that loses and delays nothing but for its latency.
    pub const fn new(latency: Duration) -> Self {
        Self { latency, jitter: Duration::ZERO, loss: 0.0, reordering: 0.0, bandwidth: None }
    }

    /// With [`jitter`](Self::jitter).
    pub const fn jitter(mut self, jitter: Duration) -> Self {
        self.jitter = jitter;
        self
    }

    /// With [`loss`](Self::loss).
    pub const fn loss(mut self, share: f64) -> Self {
        self.loss = share;
        self
    }

    /// With [`reordering`](Self::reordering).
    pub const fn reordering(mut self, share: f64) -> Self {
        self.reordering = share;
        self
    }

    /// With [`bandwidth`](Self::bandwidth).
    pub const fn bandwidth(mut self, bytes_per_second: u64) -> Self {
        self.bandwidth = Some(bytes_per_second);
        self
    }

    /// Whether anything comes through at all.
    pub(crate) fn is_dead(&self) -> bool {
        self.loss >= 1.0
    }
}

/// One direction of a link: what has been sent on it decides when the next packet arrives.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Lane {
    /// When the last byte so far has left.
    free_at: Duration,
    /// When the last packet in order arrives.
    last_arrival: Duration,
}

/// What becomes of packets that were sent together.
pub(crate) struct Passage {
    pub(crate) arrives: Duration,
    /// How many of them are lost on the way.
    pub(crate) lost: usize,
}

impl Lane {
    /// Sends `length` bytes of payload in as many packets as they take.
    pub(crate) fn pass(
        &mut self,
        now: Duration,
        length: usize,
        link: &LinkConfig,
        random: &mut Random,
    ) -> Passage {
        let packets = length.div_ceil(PACKET_PAYLOAD).max(1);
        let mut left = now;
        if let Some(bandwidth) = link.bandwidth {
            let bytes = length.saturating_add(packets.saturating_mul(PACKET_OVERHEAD));
            left = self.free_at.max(now).saturating_add(transmission(bytes, bandwidth));
            self.free_at = left;
        }
        let lost = (0..packets).filter(|_| random.chance(link.loss)).count();
        let on_time = left.saturating_add(link.latency).saturating_add(random.duration(link.jitter));
        if random.chance(link.reordering) {
            let late = random.duration(link.latency.saturating_add(link.jitter));
            return Passage { arrives: on_time.saturating_add(late), lost };
        }
        self.last_arrival = self.last_arrival.max(on_time);
        Passage { arrives: self.last_arrival, lost }
    }
}

fn transmission(bytes: usize, bandwidth: u64) -> Duration {
    let nanos = (bytes as u128).saturating_mul(1_000_000_000) / u128::from(bandwidth.max(1));
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}
