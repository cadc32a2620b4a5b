//! How often somebody may ask: a bucket of tokens per asker that fills with time.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, SystemTime};

/// How much at once, and how much over time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rate {
    /// So many at once.
    pub burst: u32,
    /// One more after each of these.
    pub every: Duration,
}

/// Buckets of tokens, at most a fixed number of them.
#[derive(Debug)]
pub(crate) struct Throttle<K> {
    rate: Rate,
    capacity: usize,
    buckets: HashMap<K, Bucket>,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    tokens: u32,
    filled_at: SystemTime,
}

/// Whether one may go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Admission {
    /// Yes; a token was taken.
    Admitted,
    /// Not now.
    Throttled,
}

impl<K: Hash + Eq> Throttle<K> {
    /// A throttle for at most `capacity` askers at a time.
    #[must_use]
    pub(crate) fn new(rate: Rate, capacity: usize) -> Self {
        Self { rate, capacity, buckets: HashMap::new() }
    }

    /// Takes a token for `asker`. Where all buckets are in use and none is full again, newcomers wait.
    pub(crate) fn admit(&mut self, asker: K, now: SystemTime) -> Admission {
        let rate = self.rate;
        if !self.buckets.contains_key(&asker) && self.buckets.len() >= self.capacity {
            self.buckets.retain(|_, bucket| bucket.fill(rate, now).tokens < rate.burst);
            if self.buckets.len() >= self.capacity {
                return Admission::Throttled;
            }
        }
        let bucket = self.buckets.entry(asker).or_insert(Bucket { tokens: rate.burst, filled_at: now });
        *bucket = bucket.fill(rate, now);
        match bucket.tokens.checked_sub(1) {
            Some(left) => {
                bucket.tokens = left;
                Admission::Admitted
            }
            None => Admission::Throttled,
        }
    }
}

impl Bucket {
    fn fill(self, rate: Rate, now: SystemTime) -> Self {
        // A clock that was set back fills nothing, and starts to count anew.
        let Ok(passed) = now.duration_since(self.filled_at) else {
            return Self { filled_at: now, ..self };
        };
        let gained = passed.as_nanos().checked_div(rate.every.as_nanos()).unwrap_or(u128::MAX);
        let gained = u32::try_from(gained).unwrap_or(u32::MAX);
        let tokens = self.tokens.saturating_add(gained).min(rate.burst);
        let counted = rate.every.checked_mul(gained).and_then(|counted| self.filled_at.checked_add(counted));
        Self {
            tokens,
            filled_at: counted.filter(|_| tokens < rate.burst).unwrap_or(if gained == 0 {
                self.filled_at
            } else {
                now
            }),
        }
    }
}

/// Whom an address belongs to: an IPv6 host owns a whole /64 and could use a new address each time.
#[must_use]
pub(crate) fn source(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V4(v4) => IpAddr::V4(v4),
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    const RATE: Rate = Rate { burst: 2, every: Duration::from_secs(1) };

    fn at(millis: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(1_000_000 + millis)
    }

    #[test]
    fn a_burst_passes_and_then_one_after_each_interval() {
        let mut throttle = Throttle::new(RATE, 8);
        let mut admit = |millis| throttle.admit("a", at(millis));
        assert_eq!(admit(0), Admission::Admitted);
        assert_eq!(admit(0), Admission::Admitted);
        assert_eq!(admit(0), Admission::Throttled);
        assert_eq!(admit(999), Admission::Throttled);
        assert_eq!(admit(1000), Admission::Admitted);
        assert_eq!(admit(1001), Admission::Throttled);
        // Part of an interval is not lost by asking in between.
        assert_eq!(admit(1999), Admission::Throttled);
        assert_eq!(admit(2000), Admission::Admitted);
        assert_eq!(admit(60_000), Admission::Admitted);
        assert_eq!(admit(60_000), Admission::Admitted);
        assert_eq!(admit(60_000), Admission::Throttled);
    }

    #[test]
    fn one_asker_does_not_use_up_another() {
        let mut throttle = Throttle::new(RATE, 8);
        for _ in 0..5 {
            throttle.admit("a", at(0));
        }
        assert_eq!(throttle.admit("b", at(0)), Admission::Admitted);
    }

    #[test]
    fn more_askers_than_buckets_wait_until_one_is_full_again() {
        let mut throttle = Throttle::new(RATE, 1);
        assert_eq!(throttle.admit("a", at(0)), Admission::Admitted);
        assert_eq!(throttle.admit("b", at(0)), Admission::Throttled);
        assert_eq!(throttle.admit("b", at(1000)), Admission::Admitted);
    }

    #[test]
    fn a_clock_set_back_neither_fills_nor_blocks_for_ever() {
        let mut throttle = Throttle::new(RATE, 8);
        throttle.admit("a", at(100_000));
        throttle.admit("a", at(100_000));
        assert_eq!(throttle.admit("a", at(0)), Admission::Throttled);
        assert_eq!(throttle.admit("a", at(1000)), Admission::Admitted);
    }

    #[test]
    fn an_ipv6_source_is_its_network() {
        let source_of = |ip: &str| source(ip.parse().unwrap());
        assert_eq!(source_of("2001:db8:1:2:3:4:5:6"), source_of("2001:db8:1:2::9"));
        assert_ne!(source_of("2001:db8:1:2::1"), source_of("2001:db8:1:3::1"));
        assert_eq!(source_of("::ffff:10.0.0.1"), source_of("10.0.0.1"));
    }
}
