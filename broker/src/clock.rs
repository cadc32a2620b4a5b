//! The one place where the broker reads the wall clock; everything below the daemons' edge is told the time.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The time now.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "the daemon's edge: the clock is read here and passed on")]
pub fn now() -> SystemTime {
    SystemTime::now()
}

/// Whole seconds since 1970; a time before that is 0.
#[must_use]
pub fn unix_seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// The time `seconds` after 1970.
#[must_use]
pub fn from_unix_seconds(seconds: u64) -> SystemTime {
    UNIX_EPOCH.checked_add(Duration::from_secs(seconds)).unwrap_or(UNIX_EPOCH)
}

/// Returns once the wall clock shows `time`. Looks again every half minute, because a clock can be set and a machine can sleep.
pub async fn reached(time: SystemTime) {
    const LOOK_AGAIN: Duration = Duration::from_secs(30);
    while let Ok(left) = time.duration_since(now())
        && !left.is_zero()
    {
        tokio::time::sleep(left.min(LOOK_AGAIN)).await;
    }
}
