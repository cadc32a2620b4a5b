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
