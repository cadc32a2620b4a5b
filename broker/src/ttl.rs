//! How long SVIDs live.

use std::fmt;
use std::time::Duration;

/// A peer whose clock is this far behind still accepts a certificate made now.
pub const BACKDATED: Duration = Duration::from_secs(10);

/// The lifetime of an X.509-SVID: 5 seconds to 24 hours, in whole seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ttl(u32);

/// The lifetime is outside of what the broker issues.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a lifetime of {0} seconds is not between 5 seconds and 24 hours")]
pub struct InvalidTtl(u64);

impl Ttl {
    /// Seconds; below this a renewal at half-life has no time to happen.
    const MIN: u32 = 5;
    /// Seconds; an identity that lives longer cannot be withdrawn in a day.
    const MAX: u32 = 24 * 3600;
    /// One hour.
    pub const DEFAULT: Self = Self(3600);

    /// The lifetime in seconds.
    #[must_use]
    pub const fn seconds(self) -> u32 {
        self.0
    }

    /// The lifetime as a duration.
    #[must_use]
    pub const fn duration(self) -> Duration {
        Duration::from_secs(self.0 as u64)
    }
}

impl TryFrom<u64> for Ttl {
    type Error = InvalidTtl;

    fn try_from(seconds: u64) -> Result<Self, InvalidTtl> {
        u32::try_from(seconds)
            .ok()
            .filter(|seconds| (Self::MIN..=Self::MAX).contains(seconds))
            .map(Self)
            .ok_or(InvalidTtl(seconds))
    }
}

impl fmt::Display for Ttl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} s", self.0)
    }
}

/// The lifetime of a JWT-SVID: 5 seconds to one hour, in whole seconds.
///
/// A token is spent by whoever holds it and cannot be taken back, so its longest life is far shorter than a certificate's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct JwtTtl(u32);

/// The lifetime is outside of what the broker issues.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a JWT-SVID's lifetime of {0} seconds is not between 5 seconds and 1 hour")]
pub struct InvalidJwtTtl(u64);

impl JwtTtl {
    /// Seconds; a token needs some to reach its audience.
    const MIN: u32 = 5;
    /// Seconds.
    const MAX: u32 = 3600;
    /// Five minutes.
    pub const DEFAULT: Self = Self(300);

    /// The lifetime in seconds.
    #[must_use]
    pub const fn seconds(self) -> u32 {
        self.0
    }

    /// The lifetime as a duration.
    #[must_use]
    pub const fn duration(self) -> Duration {
        Duration::from_secs(self.0 as u64)
    }
}

impl TryFrom<u64> for JwtTtl {
    type Error = InvalidJwtTtl;

    fn try_from(seconds: u64) -> Result<Self, InvalidJwtTtl> {
        u32::try_from(seconds)
            .ok()
            .filter(|seconds| (Self::MIN..=Self::MAX).contains(seconds))
            .map(Self)
            .ok_or(InvalidJwtTtl(seconds))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lifetime_lies_between_five_seconds_and_a_day() {
        assert_eq!(Ttl::try_from(4), Err(InvalidTtl(4)));
        assert_eq!(Ttl::try_from(5).unwrap().seconds(), 5);
        assert_eq!(Ttl::try_from(86_400).unwrap().duration(), Duration::from_secs(86_400));
        assert_eq!(Ttl::try_from(86_401), Err(InvalidTtl(86_401)));
        assert_eq!(Ttl::try_from(u64::MAX), Err(InvalidTtl(u64::MAX)));
    }

    #[test]
    fn a_token_lives_an_hour_at_most() {
        assert_eq!(JwtTtl::try_from(4), Err(InvalidJwtTtl(4)));
        assert_eq!(JwtTtl::try_from(5).unwrap().seconds(), 5);
        assert_eq!(JwtTtl::try_from(3600).unwrap().duration(), Duration::from_secs(3600));
        assert_eq!(JwtTtl::try_from(3601), Err(InvalidJwtTtl(3601)));
        assert_eq!(JwtTtl::DEFAULT.seconds(), 300);
    }
}
