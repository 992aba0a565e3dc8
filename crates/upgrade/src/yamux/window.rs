//! How many bytes of a stream may be under way: yamux spec, "Flow Control".

#![warn(clippy::arithmetic_side_effects)]

use std::time::Duration;

use peerloom_core::runtime::Instant;

use super::limits::{INITIAL_WINDOW, MAX_STREAM_WINDOW, MAX_WINDOW_GROWTH};

/// What the remote may still send on a stream.
///
/// `available` + what is unread + `consumed` = `limit`, always.
#[derive(Debug)]
pub(super) struct ReceiveWindow {
    limit: u32,
    available: u32,
    consumed: u32,
    updated_at: Option<Instant>,
}

/// The remote sent more than it was allowed to.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Exceeded;

impl ReceiveWindow {
    pub(super) fn new() -> Self {
        Self { limit: INITIAL_WINDOW, available: INITIAL_WINDOW, consumed: 0, updated_at: None }
    }

    /// The remote announces `length` bytes.
    pub(super) fn take(&mut self, length: u32) -> Result<(), Exceeded> {
        self.available = self.available.checked_sub(length).ok_or(Exceeded)?;
        Ok(())
    }

    /// The stream's owner has read `length` bytes.
    pub(super) fn consume(&mut self, length: usize) {
        self.consumed =
            self.consumed.saturating_add(u32::try_from(length).unwrap_or(u32::MAX)).min(self.limit);
    }

    /// Whether so much has been read that the remote should hear of it: every half window.
    pub(super) fn is_update_due(&self) -> bool {
        self.consumed >= self.limit / 2
    }

    /// Whether the remote can send nothing more.
    pub(super) fn is_exhausted(&self) -> bool {
        self.available == 0
    }

    /// By how much to enlarge the remote's window now. If half of it was used up within two round trips, it is what holds
    /// the stream back, so it doubles, as far as `growth` allows.
    pub(super) fn update(&mut self, now: Instant, round_trip: Option<Duration>, growth: &mut Growth) -> u32 {
        let since = self.updated_at.map(|updated_at| now.saturating_duration_since(updated_at));
        self.updated_at = Some(now);
        let mut delta = std::mem::take(&mut self.consumed);
        if let (Some(since), Some(round_trip)) = (since, round_trip)
            && since < round_trip.saturating_mul(2)
        {
            let more = growth.grant(self.limit.min(MAX_STREAM_WINDOW.saturating_sub(self.limit)));
            self.limit = self.limit.saturating_add(more);
            delta = delta.saturating_add(more);
        }
        self.available = self.available.saturating_add(delta);
        delta
    }

    /// How much more this window is than an initial one.
    pub(super) fn growth(&self) -> u32 {
        self.limit.saturating_sub(INITIAL_WINDOW)
    }

    #[cfg(test)]
    pub(super) fn limit(&self) -> u32 {
        self.limit
    }
}

/// What all receive windows of a session have grown by.
#[derive(Debug, Default)]
pub(super) struct Growth(u32);

impl Growth {
    fn grant(&mut self, wanted: u32) -> u32 {
        let granted = wanted.min(MAX_WINDOW_GROWTH.saturating_sub(self.0));
        self.0 = self.0.saturating_add(granted);
        granted
    }

    /// A stream is over whose window had grown by `growth`.
    pub(super) fn give_back(&mut self, growth: u32) {
        self.0 = self.0.saturating_sub(growth);
    }

    #[cfg(test)]
    pub(super) fn granted(&self) -> u32 {
        self.0
    }
}

/// What we may still send on a stream.
#[derive(Debug)]
pub(super) struct SendWindow(u32);

impl SendWindow {
    pub(super) fn new() -> Self {
        Self(INITIAL_WINDOW)
    }

    pub(super) fn available(&self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }

    /// The remote allows `delta` more. Beyond 32 bits the spec gives a window no meaning, and a wrapped one would stall or
    /// overrun the stream.
    pub(super) fn enlarge(&mut self, delta: u32) -> Result<(), Exceeded> {
        self.0 = self.0.checked_add(delta).ok_or(Exceeded)?;
        Ok(())
    }

    pub(super) fn take(&mut self, length: usize) {
        self.0 = self.0.saturating_sub(u32::try_from(length).unwrap_or(u32::MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn window_grows_only_while_it_is_used_up_within_two_round_trips() {
        let mut growth = Growth::default();
        let mut window = ReceiveWindow::new();
        let round_trip = Some(Duration::from_millis(50));
        let mut now = Instant::now();
        for expected in [256 * 1024, 512 * 1024, 1024 * 1024] {
            let used = window.limit() / 2;
            window.take(used).unwrap();
            window.consume(used as usize);
            assert!(window.is_update_due());
            window.update(now, round_trip, &mut growth);
            assert_eq!(window.limit(), expected);
            now += Duration::from_millis(40);
        }
        now += Duration::from_millis(70);
        window.take(512 * 1024).unwrap();
        window.consume(512 * 1024);
        assert_eq!(window.update(now, round_trip, &mut growth), 512 * 1024);
        assert_eq!(window.limit(), 1024 * 1024);
        assert_eq!(growth.granted(), window.growth());
    }

    #[test]
    fn windows_together_stay_within_their_bound() {
        let mut growth = Growth::default();
        let now = Instant::now();
        let mut windows: Vec<_> = (0..100).map(|_| ReceiveWindow::new()).collect();
        for _ in 0..20 {
            for window in &mut windows {
                window.update(now, Some(Duration::from_secs(1)), &mut growth);
                assert!(window.limit() <= MAX_STREAM_WINDOW);
            }
        }
        assert_eq!(growth.granted(), MAX_WINDOW_GROWTH);
        assert_eq!(windows.iter().map(ReceiveWindow::growth).sum::<u32>(), MAX_WINDOW_GROWTH);
    }

    #[test]
    fn more_than_the_window_is_refused() {
        let mut window = ReceiveWindow::new();
        window.take(INITIAL_WINDOW).unwrap();
        assert!(window.is_exhausted());
        assert_eq!(window.take(1), Err(Exceeded));
    }

    #[test]
    fn update_that_overflows_the_send_window_is_refused() {
        let mut window = SendWindow::new();
        assert_eq!(window.enlarge(u32::MAX), Err(Exceeded));
        assert_eq!(window.enlarge(u32::MAX - INITIAL_WINDOW), Ok(()));
        assert_eq!(window.enlarge(1), Err(Exceeded));
    }
}
