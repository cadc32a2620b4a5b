//! When a bundle is fetched next.

use std::time::Duration;

/// Where a publisher does not say (Federation §4.1).
const DEFAULT: Duration = Duration::from_secs(300);

/// How often a bundle is fetched at all, whatever its publisher wishes, and how long that may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Not more often: an endpoint that is wrong or down is left in peace.
    pub floor: Duration,
    /// Not less often: an authority that was revoked is trusted so much longer.
    pub ceiling: Duration,
    /// For one fetch, redirections included; a bundle has a few kilobytes.
    pub timeout: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { floor: Duration::from_secs(60), ceiling: Duration::from_secs(3600), timeout: Duration::from_secs(15) }
    }
}

/// The wait before the next fetch, after one that succeeded and after one that failed alike (Federation §6.2). `jitter` is between 0 and 1:
/// those who began at the same time must not come at the same time for ever.
pub(super) fn wait(hint_seconds: Option<u32>, bounds: Bounds, jitter: f64) -> Duration {
    /// The most that is taken off the wait.
    const SPREAD: f64 = 0.1;
    let wished = hint_seconds.map_or(DEFAULT, |seconds| Duration::from_secs(seconds.into()));
    let wait = wished.min(bounds.ceiling).mul_f64(1.0 - SPREAD * jitter.clamp(0.0, 1.0));
    wait.max(bounds.floor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_publisher_s_wish_is_obeyed_within_bounds() {
        let wait = |hint| wait(hint, Bounds::default(), 0.0).as_secs();
        assert_eq!(wait(Some(600)), 600);
        assert_eq!(wait(None), 300);
        assert_eq!(wait(Some(0)), 60);
        assert_eq!(wait(Some(1)), 60);
        assert_eq!(wait(Some(u32::MAX)), 3600);
    }

    #[test]
    fn waits_differ_and_never_fall_below_the_floor() {
        assert_eq!(wait(Some(1000), Bounds::default(), 1.0), Duration::from_secs(900));
        assert_eq!(wait(Some(60), Bounds::default(), 1.0), Duration::from_secs(60));
    }
}
