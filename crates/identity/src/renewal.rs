//! When to ask for the next certificate.

use std::time::{Duration, SystemTime};

/// Renewal begins at this part of the lifetime at the earliest.
const EARLIEST: f64 = 0.45;
/// The width of the span over which renewals are spread: half-life, plus or minus 10 % of the half.
const SPREAD: f64 = 0.10;

/// When one SVID is to be renewed, and when it ends.
///
/// The jitter is drawn once per SVID, so that asking again gives the same answer and nodes that joined together do
/// not renew together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RenewalSchedule {
    renew_at: SystemTime,
    expires_at: SystemTime,
}

impl RenewalSchedule {
    /// A schedule for a certificate that is valid from `not_before` to `not_after`.
    ///
    /// `jitter` in 0..1 places the renewal within its span; a number outside is brought inside, and what is not a
    /// number counts as the middle. A certificate that is never valid is to be renewed at once.
    #[must_use]
    pub fn new(not_before: SystemTime, not_after: SystemTime, jitter: f64) -> Self {
        let jitter = if jitter.is_nan() { 0.5 } else { jitter.clamp(0.0, 1.0) };
        let lifetime = not_after.duration_since(not_before).unwrap_or(Duration::ZERO);
        Self { renew_at: not_before + lifetime.mul_f64(EARLIEST + SPREAD * jitter), expires_at: not_after }
    }

    /// When to ask for the next certificate.
    #[must_use]
    pub fn renew_at(&self) -> SystemTime {
        self.renew_at
    }

    /// The certificate's `notAfter`: from then on every peer refuses it.
    #[must_use]
    pub fn expires_at(&self) -> SystemTime {
        self.expires_at
    }

    /// How long to wait from `now` until the renewal; zero once it is due.
    #[must_use]
    pub fn wait(&self, now: SystemTime) -> Duration {
        self.renew_at.duration_since(now).unwrap_or(Duration::ZERO)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn seconds(count: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(count)
    }

    proptest! {
        #[test]
        fn renewal_lies_around_half_life(start in 0..4_000_000_000_u64, life in 1..100_000_000_u64, jitter in 0.0..1.0) {
            let schedule = RenewalSchedule::new(seconds(start), seconds(start + life), jitter);
            let part = schedule.renew_at().duration_since(seconds(start)).unwrap().as_secs_f64() / life as f64;
            prop_assert!((0.45 - 1e-6..=0.55 + 1e-6).contains(&part), "renewed after {part} of its life");
            prop_assert_eq!(schedule.expires_at(), seconds(start + life));
        }
    }

    #[test]
    fn a_jitter_out_of_range_stays_within_the_span() {
        let at = |jitter| RenewalSchedule::new(seconds(0), seconds(100), jitter).renew_at();
        assert_eq!([at(-7.0), at(f64::NAN), at(f64::INFINITY)], [seconds(45), seconds(50), seconds(55)]);
    }

    #[test]
    fn a_certificate_that_is_never_valid_is_renewed_at_once() {
        let schedule = RenewalSchedule::new(seconds(100), seconds(50), 0.9);
        assert_eq!((schedule.renew_at(), schedule.wait(seconds(100))), (seconds(100), Duration::ZERO));
    }

    #[test]
    fn the_wait_ends_when_renewal_is_due() {
        let schedule = RenewalSchedule::new(seconds(0), seconds(100), 0.5);
        assert_eq!(schedule.wait(seconds(20)), Duration::from_secs(30));
        assert_eq!(schedule.wait(seconds(50)), Duration::ZERO);
        assert_eq!(schedule.wait(seconds(500)), Duration::ZERO);
    }
}
