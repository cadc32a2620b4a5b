use std::{
    hash::{BuildHasher, RandomState},
    net::IpAddr,
    time::{Duration, Instant},
};

/// How many rates are told apart. Addresses that fall together share one; the hash is keyed afresh in each process,
/// so that nobody can aim.
const SOURCES: usize = 4096;

/// What is known about the address of an attempt to connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Address {
    /// The datagram bears it; anybody could have written it there.
    Claimed,
    /// The client has answered from it.
    Proved,
}

/// How full the listener is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Crowd {
    /// Less than half of the places are taken.
    Sparse,
    /// At least half of them are.
    Dense,
}

/// What to do with an attempt, before anything is paid for a handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admission {
    /// Let it shake hands.
    Enter(Source),
    /// Have it prove its address first, which costs us no memory.
    Prove,
    /// Say nothing: it will ask again in a second, and by then others of this address are done.
    Defer,
    /// Turn it away.
    Refuse,
}

/// An address, as far as addresses are told apart, whose handshake is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Source {
    index: usize,
    address: Address,
}

/// The pace of every address that tries to connect, in memory that does not grow.
///
/// Claimed and proved attempts are counted apart: one who forges another's address only makes it prove itself.
#[derive(Debug)]
pub(super) struct Sources {
    table: Box<[Entry]>,
    keys: RandomState,
    pace: Pace,
    /// Handshakes at a time of one proved address.
    at_once: usize,
}

#[derive(Clone, Debug, Default)]
struct Entry {
    claimed: Due,
    proved: Due,
    under_way: usize,
}

/// The moment at which all attempts so far would be due if they had come evenly (GCRA).
#[derive(Clone, Debug, Default)]
struct Due(Option<Instant>);

#[derive(Clone, Copy, Debug)]
struct Pace {
    interval: Duration,
    ahead: Duration,
}

impl Sources {
    /// Each address may begin `per_second` handshakes per second, twice as many at once, and a proved one have
    /// `at_once` under way.
    pub(super) fn new(per_second: u32, at_once: usize) -> Self {
        let per_second = per_second.max(1);
        let interval = Duration::from_secs(1) / per_second;
        let pace = Pace { interval, ahead: interval * (2 * per_second - 1) };
        Self { table: vec![Entry::default(); SOURCES].into(), keys: RandomState::new(), pace, at_once: at_once.max(1) }
    }

    pub(super) fn admit(&mut self, ip: IpAddr, address: Address, crowd: Crowd, now: Instant) -> Admission {
        let (pace, at_once) = (self.pace, self.at_once);
        let source = Source { index: self.index(ip), address };
        let Some(entry) = self.table.get_mut(source.index) else {
            return Admission::Refuse;
        };
        match address {
            Address::Claimed => match crowd {
                Crowd::Sparse if entry.claimed.take(now, pace) => Admission::Enter(source),
                Crowd::Sparse | Crowd::Dense => Admission::Prove,
            },
            Address::Proved if entry.under_way >= at_once => Admission::Defer,
            Address::Proved if entry.proved.take(now, pace) => {
                entry.under_way += 1;
                Admission::Enter(source)
            }
            Address::Proved => Admission::Refuse,
        }
    }

    /// The handshake of `source` is over, one way or the other.
    pub(super) fn leave(&mut self, source: Source) {
        if source.address == Address::Proved
            && let Some(entry) = self.table.get_mut(source.index)
        {
            entry.under_way = entry.under_way.saturating_sub(1);
        }
    }

    fn index(&self, ip: IpAddr) -> usize {
        // The holder of an IPv6 address holds its whole /64.
        let network = match ip.to_canonical() {
            IpAddr::V4(ip) => u128::from(ip.to_bits()),
            IpAddr::V6(ip) => ip.to_bits() >> 64 << 64,
        };
        let hash = self.keys.hash_one(network) % (self.table.len() as u64);
        usize::try_from(hash).unwrap_or(0)
    }
}

impl Due {
    fn take(&mut self, now: Instant, pace: Pace) -> bool {
        let due = self.0.filter(|due| *due > now).unwrap_or(now);
        if due.saturating_duration_since(now) > pace.ahead {
            return false;
        }
        self.0 = Some(due + pace.interval);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: u32 = 10;
    const AT_ONCE: usize = 4;

    #[expect(clippy::disallowed_methods, reason = "any moment will do, and there is no other way to make one")]
    fn now() -> Instant {
        Instant::now()
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// A source whose neighbour in the table is somebody else: random keys may let two addresses fall together.
    fn apart(sources: &Sources, from: &str) -> IpAddr {
        let candidates = (1..=u8::MAX).map(|last| ip(&format!("192.0.2.{last}")));
        candidates.into_iter().find(|other| sources.index(*other) != sources.index(ip(from))).unwrap()
    }

    fn entered(sources: &mut Sources, address: Address, now: Instant) -> usize {
        let attempts = (0..1000).map(|_| sources.admit(ip("198.51.100.7"), address, Crowd::Sparse, now));
        let entered: Vec<_> = attempts.take_while(|admission| matches!(admission, Admission::Enter(_))).collect();
        for admission in &entered {
            if let Admission::Enter(source) = admission {
                sources.leave(*source);
            }
        }
        entered.len()
    }

    #[test]
    fn one_address_enters_at_its_rate_and_twice_as_often_at_once() {
        let start = now();
        let mut sources = Sources::new(RATE, usize::MAX);
        assert_eq!(entered(&mut sources, Address::Proved, start), 20);
        assert_eq!(entered(&mut sources, Address::Proved, start + Duration::from_millis(250)), 2);
        assert_eq!(entered(&mut sources, Address::Proved, start + Duration::from_secs(60)), 20);
    }

    #[test]
    fn a_forged_flood_makes_its_victim_prove_itself_and_no_more() {
        let now = now();
        let mut sources = Sources::new(RATE, AT_ONCE);
        let victim = ip("198.51.100.7");
        while sources.admit(victim, Address::Claimed, Crowd::Sparse, now) != Admission::Prove {}
        assert!(matches!(sources.admit(victim, Address::Proved, Crowd::Sparse, now), Admission::Enter(_)));
        let other = apart(&sources, "198.51.100.7");
        assert!(matches!(sources.admit(other, Address::Claimed, Crowd::Sparse, now), Admission::Enter(_)));
    }

    #[test]
    fn in_a_crowd_everybody_proves_his_address() {
        let now = now();
        let mut sources = Sources::new(RATE, AT_ONCE);
        assert_eq!(sources.admit(ip("192.0.2.1"), Address::Claimed, Crowd::Dense, now), Admission::Prove);
        assert!(matches!(sources.admit(ip("192.0.2.1"), Address::Proved, Crowd::Dense, now), Admission::Enter(_)));
    }

    #[test]
    fn one_address_has_few_handshakes_under_way() {
        let now = now();
        let mut sources = Sources::new(RATE, AT_ONCE);
        let mut admit = || sources.admit(ip("192.0.2.1"), Address::Proved, Crowd::Sparse, now);
        let inside: Vec<_> = (0..AT_ONCE).map(|_| admit()).collect();
        assert!(inside.iter().all(|admission| matches!(admission, Admission::Enter(_))));
        assert_eq!(admit(), Admission::Defer);
        let Admission::Enter(source) = inside[0] else { panic!() };
        sources.leave(source);
        assert!(matches!(sources.admit(ip("192.0.2.1"), Address::Proved, Crowd::Sparse, now), Admission::Enter(_)));
    }

    #[test]
    fn a_proved_address_over_its_rate_is_refused() {
        let now = now();
        let mut sources = Sources::new(RATE, usize::MAX);
        assert_eq!(entered(&mut sources, Address::Proved, now), 20);
        let verdict = sources.admit(ip("198.51.100.7"), Address::Proved, Crowd::Sparse, now);
        assert_eq!(verdict, Admission::Refuse);
    }

    #[test]
    fn a_v6_network_is_one_source_and_mapped_v4_is_v4() {
        let sources = Sources::new(RATE, AT_ONCE);
        assert_eq!(sources.index(ip("2001:db8::1")), sources.index(ip("2001:db8::ffff:1")));
        assert_eq!(sources.index(ip("::ffff:192.0.2.1")), sources.index(ip("192.0.2.1")));
    }
}
