//! Points in time that can lie before the process began.

use std::time::Duration;

use peerloom_core::runtime::Instant;

/// Milliseconds since the store was made, less than none for what was before it. An `Instant` cannot be that: in a page the
/// earliest one is that of its navigation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Moment(i64);

impl Moment {
    #[cfg(test)]
    pub(super) const START: Self = Self(0);

    /// The present, in a store that was made at `epoch`.
    pub(super) fn now(epoch: Instant) -> Self {
        Self(millis(Instant::now().saturating_duration_since(epoch)))
    }

    pub(super) fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(millis(duration)))
    }

    pub(super) fn before(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(millis(duration)))
    }

    /// The time from `earlier` to this, none if that is later.
    pub(super) fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
