//! A node as the broker keeps it: which of its certificates still count, and which it used up.
//!
//! Time orders the certificates of a node by their `notBefore`. Two moments are kept. Before [`Node::since`] nothing counts any more: the node
//! joined anew then, and who held it before is nobody. Before [`Node::newest`] lies what the node itself left behind by renewing: such a
//! certificate still opens a connection until it expires (a command may have read it from the cache a moment ago), but it does not come
//! back to life by [rejoining](super::Rejoining).

use std::time::{Duration, SystemTime};

use portcullis_identity::{Leaf, NodeName};

use crate::clock::{from_unix_seconds, unix_seconds};
use crate::ttl::BACKDATED;

/// Certificates that are remembered as used up. Of a node that needs more within the time of grace the oldest is forgotten: it is refused
/// as superseded then, and its second use is not told from an attempt with an old one.
const MAX_SPENT: usize = 32;

/// A node that joined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Its name.
    pub name: NodeName,
    /// When it redeemed its latest token.
    pub joined_at: SystemTime,
    /// SHA-256 of the SubjectPublicKeyInfo it joined with.
    pub key_sha256: [u8; 32],
    /// Whether it may ask for anything.
    pub standing: Standing,
    /// `notBefore` of the first certificate that counts.
    pub since: SystemTime,
    /// `notBefore` of the newest certificate that it proved to hold.
    pub newest: SystemTime,
    /// The expired certificates by which it rejoined.
    pub spent: Vec<Spent>,
}

/// Whether a node may ask for anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It may.
    Good,
    /// Two holders used one certificate of it, and nobody can tell which of them is the node: neither may, until it joins with a new token.
    Quarantined,
}

/// An expired certificate by which a node rejoined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spent {
    /// Its serial number.
    pub serial: Vec<u8>,
    /// SHA-256 of the key that was certified for it.
    pub key_sha256: [u8; 32],
    /// From when on it would be refused for its age alone.
    pub until: SystemTime,
}

impl Node {
    /// A node that joins `now`.
    #[must_use]
    pub fn joined(name: NodeName, key_sha256: [u8; 32], now: SystemTime) -> Self {
        let since = issued_at(now);
        Self { name, joined_at: now, key_sha256, standing: Standing::Good, since, newest: since, spent: Vec::new() }
    }

    /// Whether `leaf` is from before the node joined anew.
    #[must_use]
    pub fn is_superseded(&self, leaf: &Leaf) -> bool {
        leaf.not_before() < self.since
    }

    /// The node after it proved at `now` to hold a certificate that begins at `not_before`.
    #[must_use]
    pub fn sighted(&self, not_before: SystemTime, now: SystemTime) -> Self {
        let issued = issued_at(now);
        // The clock was set back: what is issued now must not look older than what was issued before.
        let (since, newest) =
            if issued < self.since { (issued, issued) } else { (self.since, self.newest.max(not_before)) };
        Self { since, newest, ..self.clone() }
    }

    /// The node after it used up a certificate.
    #[must_use]
    pub fn rejoined(&self, spent: Spent, now: SystemTime) -> Self {
        let mut kept: Vec<_> = self.spent.iter().filter(|old| old.until > now).cloned().collect();
        let surplus = kept.len().saturating_add(1).saturating_sub(MAX_SPENT);
        kept.drain(..surplus);
        kept.push(spent);
        Self { spent: kept, ..self.clone() }
    }
}

/// `notBefore` of a certificate that is issued at `now`: whole seconds, backdated.
fn issued_at(now: SystemTime) -> SystemTime {
    let now = from_unix_seconds(unix_seconds(now));
    now.checked_sub(BACKDATED).unwrap_or(now)
}

/// How long after its end a certificate still lets its node back in (D4).
pub const REJOIN_GRACE: Duration = Duration::from_secs(30 * 24 * 3600);

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> SystemTime {
        from_unix_seconds(1_800_000_000 + seconds)
    }

    fn node() -> Node {
        Node::joined("n".parse().unwrap(), [1; 32], at(0))
    }

    #[test]
    fn the_newest_certificate_is_remembered() {
        let later = node().sighted(at(90), at(100));
        assert_eq!((later.newest, later.since), (at(90), node().since));
        assert_eq!(later.sighted(at(50), at(100)), later);
    }

    #[test]
    fn a_clock_set_back_does_not_lock_the_node_out() {
        let before = node().sighted(at(3600), at(3600));
        let after = before.sighted(at(3600), from_unix_seconds(1_799_990_000));
        assert_eq!((after.since, after.newest), (from_unix_seconds(1_799_989_990), from_unix_seconds(1_799_989_990)));
    }

    #[test]
    fn used_certificates_are_remembered_until_they_are_too_old_and_only_so_many() {
        let spent = |number: u8, until| Spent { serial: vec![number], key_sha256: [number; 32], until: at(until) };
        let mut node = node().rejoined(spent(0, 10), at(0)).rejoined(spent(1, 99), at(5));
        assert_eq!(node.spent.len(), 2);
        node = node.rejoined(spent(2, 99), at(20));
        assert_eq!(node.spent.iter().map(|spent| spent.serial[0]).collect::<Vec<_>>(), [1, 2]);
        for number in 0..100 {
            node = node.rejoined(spent(number, 99), at(20));
        }
        assert_eq!((node.spent.len(), node.spent[31].serial[0]), (MAX_SPENT, 99));
    }
}
