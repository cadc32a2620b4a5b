//! The one place of this crate that asks what time it is.

use std::time::{Duration, Instant, SystemTime};

/// How often a sleeper looks at the wall clock.
const LOOK: Duration = Duration::from_secs(5);

/// The wall clock: certificates live by it.
#[expect(clippy::disallowed_methods, reason = "the crate's edge to the clock")]
pub(crate) fn now() -> SystemTime {
    SystemTime::now()
}

/// The monotonic clock: deadlines live by it.
#[expect(clippy::disallowed_methods, reason = "the crate's edge to the clock")]
pub(crate) fn instant() -> Instant {
    Instant::now()
}

/// Sleeps until the wall clock shows `at`, looking again every few seconds: a suspended or stepped machine must not oversleep.
pub(crate) async fn sleep_until(at: SystemTime) {
    while let Ok(left) = at.duration_since(now()) {
        tokio::time::sleep(left.min(LOOK)).await;
        if left.is_zero() {
            break;
        }
    }
}

/// As [`sleep_until`], but not longer than until the clock turns out to be set back to before `since`.
pub(crate) async fn sleep_until_or_set_back(at: SystemTime, since: SystemTime) {
    /// Clocks are slewed by less.
    const STEP: Duration = Duration::from_secs(1);
    let set_back = async {
        while clock_is_after(since, STEP) {
            tokio::time::sleep(LOOK).await;
        }
    };
    tokio::select! {
        () = sleep_until(at) => {}
        () = set_back => {}
    }
}

fn clock_is_after(since: SystemTime, step: Duration) -> bool {
    now().checked_add(step).is_none_or(|later| later >= since)
}

/// A number in `0..1` for jitter; its quality does not matter for security.
pub(crate) fn jitter() -> f64 {
    let random = ring::rand::SystemRandom::new();
    let mut bytes = [0_u8; 4];
    match ring::rand::SecureRandom::fill(&random, &mut bytes) {
        Ok(()) => f64::from(u32::from_le_bytes(bytes)) / (f64::from(u32::MAX) + 1.0),
        Err(_) => 0.5,
    }
}
