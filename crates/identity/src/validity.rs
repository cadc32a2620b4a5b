//! Conversions between the three clocks' types: X.509, `std` and rustls.

use std::time::{Duration, SystemTime};

use rustls::pki_types::UnixTime;
use x509_parser::{certificate::Validity, time::ASN1Time};

/// The span in which a certificate is valid, both ends included (RFC 5280 §4.1.2.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ValidityPeriod {
    pub(crate) not_before: SystemTime,
    pub(crate) not_after: SystemTime,
}

impl ValidityPeriod {
    /// `None` where a date lies outside what this machine's clock can express.
    pub(crate) fn of(validity: &Validity) -> Option<Self> {
        Some(Self { not_before: system_time(validity.not_before)?, not_after: system_time(validity.not_after)? })
    }

    pub(crate) fn contains(&self, now: UnixTime) -> bool {
        from_unix(now).is_some_and(|now| self.not_before <= now && now <= self.not_after)
    }
}

fn system_time(time: ASN1Time) -> Option<SystemTime> {
    let seconds = time.timestamp();
    let distance = Duration::from_secs(seconds.unsigned_abs());
    if seconds < 0 {
        SystemTime::UNIX_EPOCH.checked_sub(distance)
    } else {
        SystemTime::UNIX_EPOCH.checked_add(distance)
    }
}

fn from_unix(time: UnixTime) -> Option<SystemTime> {
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(time.as_secs()))
}
