//! [`Circuit`]: what a relay lets a connection carry, and how much of it is left.

use std::{
    fmt,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use crate::{PeerId, runtime::Instant};

/// What a relay lets one circuit carry (circuit relay v2, "Limit"). What is `None` is not limited.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CircuitLimits {
    /// Bytes in each direction.
    pub bytes: Option<u64>,
    /// Time from the circuit's beginning.
    pub duration: Option<Duration>,
}

/// A connection's way through a relay. The connection counts in it; everybody may read it.
#[derive(Debug)]
pub struct Circuit {
    relay: PeerId,
    limits: CircuitLimits,
    since: Instant,
    sent: AtomicU64,
    received: AtomicU64,
}

/// The limit that ended a circuit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum CircuitEnd {
    /// This many bytes, in one direction.
    Bytes(u64),
    /// This long.
    Duration(Duration),
}

impl fmt::Display for CircuitEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bytes(bytes) => write!(f, "its {bytes} bytes"),
            Self::Duration(duration) => write!(f, "its {} s", duration.as_secs()),
        }
    }
}

impl Circuit {
    /// A circuit that begins now.
    pub fn new(relay: PeerId, limits: CircuitLimits) -> Self {
        Self { relay, limits, since: Instant::now(), sent: AtomicU64::new(0), received: AtomicU64::new(0) }
    }

    /// The relay.
    pub fn relay(&self) -> PeerId {
        self.relay
    }

    /// What it allowed at the circuit's beginning.
    pub fn limits(&self) -> CircuitLimits {
        self.limits
    }

    /// Whether there is a limit on anything.
    pub fn is_limited(&self) -> bool {
        self.limits != CircuitLimits::default()
    }

    /// Bytes went towards the relay, encryption included.
    pub fn count_sent(&self, bytes: usize) {
        self.sent.fetch_add(u64::try_from(bytes).unwrap_or(u64::MAX), Relaxed);
    }

    /// Bytes came from the relay, encryption included.
    pub fn count_received(&self, bytes: usize) {
        self.received.fetch_add(u64::try_from(bytes).unwrap_or(u64::MAX), Relaxed);
    }

    /// Bytes that may still go in the direction that has carried more; `None` without a limit.
    pub fn bytes_left(&self) -> Option<u64> {
        Some(self.limits.bytes?.saturating_sub(self.sent.load(Relaxed).max(self.received.load(Relaxed))))
    }

    /// Bytes that went in both directions together, encryption included.
    pub fn bytes_carried(&self) -> u64 {
        self.sent.load(Relaxed).saturating_add(self.received.load(Relaxed))
    }

    /// Time that is left; `None` without a limit.
    pub fn time_left(&self) -> Option<Duration> {
        Some(self.limits.duration?.saturating_sub(self.since.elapsed()))
    }

    /// The limit that is used up, if one is.
    pub fn used_up(&self) -> Option<CircuitEnd> {
        if self.bytes_left() == Some(0) {
            return self.limits.bytes.map(CircuitEnd::Bytes);
        }
        if self.time_left() == Some(Duration::ZERO) {
            return self.limits.duration.map(CircuitEnd::Duration);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Keypair;

    fn circuit(limits: CircuitLimits) -> Circuit {
        Circuit::new(Keypair::generate().peer_id(), limits)
    }

    #[tokio::test(start_paused = true)]
    async fn the_direction_that_carried_more_uses_up_the_bytes() {
        let circuit = circuit(CircuitLimits { bytes: Some(100), duration: None });
        circuit.count_sent(40);
        circuit.count_received(99);
        assert_eq!((circuit.bytes_left(), circuit.time_left(), circuit.used_up()), (Some(1), None, None));
        circuit.count_received(2);
        assert_eq!((circuit.bytes_left(), circuit.used_up()), (Some(0), Some(CircuitEnd::Bytes(100))));
        assert_eq!(circuit.bytes_carried(), 141);
    }

    #[tokio::test(start_paused = true)]
    async fn time_runs_out() {
        let duration = Duration::from_secs(120);
        let circuit = circuit(CircuitLimits { bytes: None, duration: Some(duration) });
        tokio::time::advance(Duration::from_secs(90)).await;
        assert_eq!((circuit.time_left(), circuit.used_up()), (Some(Duration::from_secs(30)), None));
        tokio::time::advance(Duration::from_secs(90)).await;
        assert_eq!(
            (circuit.time_left(), circuit.used_up()),
            (Some(Duration::ZERO), Some(CircuitEnd::Duration(duration)))
        );
    }

    #[tokio::test(start_paused = true)]
    async fn without_limits_nothing_is_used_up() {
        let circuit = circuit(CircuitLimits::default());
        circuit.count_sent(usize::MAX);
        assert!(!circuit.is_limited());
        assert_eq!((circuit.bytes_left(), circuit.time_left(), circuit.used_up()), (None, None, None));
    }
}
