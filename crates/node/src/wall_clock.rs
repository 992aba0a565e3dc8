//! The time of day, for what outlives the process. It may be wrong, and it may jump.

/// Milliseconds since 1970.
pub(crate) fn unix_millis() -> u64 {
    let since_epoch = web_time::SystemTime::now().duration_since(web_time::SystemTime::UNIX_EPOCH);
    since_epoch.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
