//! The one place of this crate that asks what time it is.

use std::time::{Instant, SystemTime};

/// The wall clock: certificates live by it.
#[expect(clippy::disallowed_methods, reason = "the crate's edge to the clock")]
pub(crate) fn now() -> SystemTime {
    SystemTime::now()
}

/// The monotonic clock: deadlines and durations live by it.
#[expect(clippy::disallowed_methods, reason = "the crate's edge to the clock")]
pub(crate) fn instant() -> Instant {
    Instant::now()
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
