//! How much may be under way: CUBIC (RFC 9438), with a larger share of paths that lose some packets whatever is sent.
//!
//! CUBIC's window follows that of Reno wherever Reno's is larger: on short paths, and on those that lose so much that
//! windows stay small. There RFC 9438 has it grow by half a packet per round trip, which with its milder decrease makes it
//! Reno's equal. quic-go and Chromium let it grow by a whole packet, and so does this: a third more throughput at one packet
//! lost of a thousand, and the same as that of the peers with which such a path is shared.

#![warn(clippy::arithmetic_side_effects)]

use std::{
    any::Any,
    sync::Arc,
    time::{Duration, Instant},
};

use quinn::congestion::{Controller, ControllerFactory, ControllerMetrics};
use quinn_proto::RttEstimator;

/// By how much the window shrinks when something is lost: RFC 9438, section 4.6.
const BETA: f64 = 0.7;
/// How fast the window grows towards where it was, and beyond, in packets per second cubed: section 5.
const C: f64 = 0.4;
/// By how much the window grows per round trip at most, as a factor: section 4.2.
const MOST_PER_ROUND_TRIP: f64 = 1.5;
/// RFC 9002, section 7.2: packets at first, and packets that may always be under way.
const INITIAL_PACKETS: u16 = 10;
const MIN_PACKETS: u16 = 2;

/// Makes a [`Congestion`] for each path.
#[derive(Debug, Default)]
pub(crate) struct CongestionControl;

impl ControllerFactory for CongestionControl {
    fn build(self: Arc<Self>, _now: Instant, mtu: u16) -> Box<dyn Controller> {
        Box::new(Congestion::new(mtu))
    }
}

/// The state of one path. Windows are in bytes; as numbers with a fraction, because most acknowledgements are worth less
/// than a byte.
#[derive(Debug, Clone)]
struct Congestion {
    packet: f64,
    initial_window: f64,
    window: f64,
    /// Below it the window doubles each round trip.
    slow_start_threshold: f64,
    /// What was sent before that is lost for the same reason as what started this recovery.
    recovery_started: Option<Instant>,
    /// The window at the last loss, or less if it was smaller than that at the one before it.
    before_loss: f64,
    growth: Option<Growth>,
}

/// Since the first acknowledgement after a loss, or after a time without anything to send.
#[derive(Debug, Clone)]
struct Growth {
    since: Instant,
    /// Until the window is where it was before the loss, in seconds: RFC 9438's K.
    back_after: f64,
    /// Where it is then.
    plateau: f64,
    /// What Reno's window would be.
    reno: f64,
}

impl Congestion {
    fn new(mtu: u16) -> Self {
        let packet = f64::from(mtu);
        let window = packet * f64::from(INITIAL_PACKETS);
        Self {
            packet,
            initial_window: window,
            window,
            slow_start_threshold: f64::INFINITY,
            recovery_started: None,
            before_loss: window,
            growth: None,
        }
    }

    fn smallest(&self) -> f64 {
        self.packet * f64::from(MIN_PACKETS)
    }

    fn acknowledge(
        &mut self,
        now: Instant,
        sent: Instant,
        bytes: u64,
        app_limited: bool,
        round_trip: Duration,
    ) {
        if self.recovery_started.is_some_and(|started| sent <= started) {
            return;
        }
        if app_limited {
            // RFC 9438, section 5.8: time in which the window was not used is no reason for it to grow.
            self.growth = None;
        } else {
            self.grow(now, bytes as f64, round_trip);
        }
    }

    /// `bytes` were acknowledged while there was more to send than the window lets out.
    fn grow(&mut self, now: Instant, bytes: f64, round_trip: Duration) {
        if self.window < self.slow_start_threshold {
            self.window += bytes;
            return;
        }
        let (window, packet, before_loss) = (self.window, self.packet, self.before_loss);
        let growth = self.growth.get_or_insert_with(|| Growth {
            since: now,
            back_after: ((before_loss - window).max(0.0) / packet / C).cbrt(),
            plateau: before_loss.max(window),
            reno: window,
        });
        growth.reno += packet * bytes / window;
        let elapsed = now.saturating_duration_since(growth.since);
        if growth.at(elapsed, packet) < growth.reno {
            self.window = window.max(growth.reno);
        } else {
            let target = growth.at(elapsed.saturating_add(round_trip), packet);
            let target = target.clamp(window, window * MOST_PER_ROUND_TRIP);
            self.window += (target - window) * bytes / window;
        }
    }
}

impl Growth {
    /// RFC 9438, figure 1.
    fn at(&self, elapsed: Duration, packet: f64) -> f64 {
        self.plateau + C * (elapsed.as_secs_f64() - self.back_after).powi(3) * packet
    }
}

impl Controller for Congestion {
    fn on_ack(&mut self, now: Instant, sent: Instant, bytes: u64, app_limited: bool, rtt: &RttEstimator) {
        self.acknowledge(now, sent, bytes, app_limited, rtt.get());
    }

    fn on_congestion_event(&mut self, now: Instant, sent: Instant, persistent: bool, _lost: u64) {
        if self.recovery_started.is_some_and(|started| sent <= started) {
            return;
        }
        self.recovery_started = Some(now);
        self.growth = None;
        // Section 4.7: who is still losing ground makes room for others sooner.
        let losing_ground = self.window < self.before_loss;
        self.before_loss = if losing_ground { self.window * (1.0 + BETA) / 2.0 } else { self.window };
        self.slow_start_threshold = (self.window * BETA).max(self.smallest());
        self.window = self.slow_start_threshold;
        if persistent {
            // RFC 9002, section 7.6.2.
            self.window = self.smallest();
            self.recovery_started = None;
        }
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.packet = f64::from(new_mtu);
        self.window = self.window.max(self.smallest());
    }

    fn window(&self) -> u64 {
        self.window as u64
    }

    fn metrics(&self) -> ControllerMetrics {
        let mut metrics = ControllerMetrics::default();
        metrics.congestion_window = self.window();
        metrics.ssthresh = Some(self.slow_start_threshold as u64);
        metrics
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(self.clone())
    }

    fn initial_window(&self) -> u64 {
        self.initial_window as u64
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects)]
mod tests {
    use super::*;

    const MTU: u16 = 1452;
    const ROUND_TRIP: Duration = Duration::from_millis(60);

    /// A path, and the time there.
    struct Path {
        now: Instant,
        congestion: Congestion,
    }

    impl Path {
        fn new() -> Self {
            #[allow(clippy::disallowed_methods, reason = "quinn's clock; no time passes in these tests")]
            let now = std::time::Instant::now();
            Self { now, congestion: Congestion::new(MTU) }
        }

        fn packets(&self) -> u64 {
            self.congestion.window() / u64::from(MTU)
        }

        /// Sends a window of packets, of which those in `lost` are lost, and receives the acknowledgements of the others.
        fn round_trip(&mut self, mut lost: impl FnMut() -> bool) -> u64 {
            let (sent, packets) = (self.now + Duration::from_millis(1), self.packets());
            self.now = sent + ROUND_TRIP;
            let mut delivered = 0;
            for _ in 0..packets {
                if lost() {
                    self.congestion.on_congestion_event(self.now, sent, false, MTU.into());
                } else {
                    delivered += 1;
                    self.congestion.acknowledge(self.now, sent, MTU.into(), false, ROUND_TRIP);
                }
            }
            delivered
        }

        fn lossless(&mut self) {
            self.round_trip(|| false);
        }

        fn lose_one(&mut self) {
            let mut first = true;
            self.round_trip(|| std::mem::replace(&mut first, false));
        }
    }

    #[test]
    fn the_window_doubles_each_round_trip_until_something_is_lost() {
        let mut path = Path::new();
        assert_eq!(path.packets(), 10);
        for expected in [20, 40, 80] {
            path.lossless();
            assert_eq!(path.packets(), expected);
        }
        path.lose_one();
        assert_eq!(path.packets(), 56);
    }

    #[test]
    fn losses_of_one_round_trip_count_once() {
        let mut path = Path::new();
        path.lossless();
        let mut odd = false;
        path.round_trip(|| {
            odd = !odd;
            odd
        });
        assert_eq!(path.packets(), 14);
    }

    #[test]
    fn a_small_window_grows_by_a_packet_each_round_trip_and_a_large_one_faster() {
        let mut path = Path::new();
        path.lossless();
        path.lose_one();
        let small = path.packets();
        (0..10).for_each(|_| path.lossless());
        assert!((small + 9..=small + 11).contains(&path.packets()), "{small} {}", path.packets());

        let mut path = Path::new();
        (0..9).for_each(|_| path.lossless());
        path.lose_one();
        let (large, before) = (path.packets(), path.packets() * 10 / 7);
        (0..40).for_each(|_| path.lossless());
        assert!(path.packets() > large + 400, "{large} {}", path.packets());
        // It stays a while where it was before the loss.
        assert!(path.packets() < before + 100, "{before} {}", path.packets());
    }

    #[test]
    fn the_window_grows_by_half_per_round_trip_at_most() {
        let mut path = Path::new();
        (0..3).for_each(|_| path.lossless());
        path.lose_one();
        path.lossless();
        let window = path.packets();
        path.now += Duration::from_secs(10 * 24 * 60 * 60);
        path.lossless();
        assert!(path.packets() <= window * 8 / 5, "{window} {}", path.packets());
    }

    #[test]
    fn what_is_not_used_does_not_grow() {
        let mut path = Path::new();
        path.lossless();
        path.lose_one();
        let window = path.congestion.window();
        for _ in 0..100 {
            path.now += ROUND_TRIP;
            path.congestion.acknowledge(path.now, path.now, MTU.into(), true, ROUND_TRIP);
        }
        assert_eq!(path.congestion.window(), window);
    }

    #[test]
    fn a_path_that_delivers_nothing_is_left_two_packets() {
        let mut path = Path::new();
        path.lossless();
        let sent = path.now;
        path.now += ROUND_TRIP * 10;
        path.congestion.on_congestion_event(path.now, sent, true, 1);
        assert_eq!(path.packets(), 2);
        path.congestion.on_mtu_update(9000);
        assert_eq!(path.congestion.window(), 18_000);
    }

    /// One packet of a thousand, by a generator that is the same each time. Reno would have 39 packets under way on
    /// average, and so would CUBIC as it stands.
    #[test]
    fn a_path_that_loses_one_in_a_thousand_carries_more_than_fifty_packets_per_round_trip() {
        let mut path = Path::new();
        let mut state = 1_u64;
        let mut lost = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33).is_multiple_of(1000)
        };
        const ROUND_TRIPS: u64 = 20_000;
        let delivered: u64 = (0..ROUND_TRIPS).map(|_| path.round_trip(&mut lost)).sum();
        let average = delivered / ROUND_TRIPS;
        assert!((47..60).contains(&average), "{average}");
    }
}
