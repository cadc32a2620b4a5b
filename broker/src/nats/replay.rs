//! Login tokens that were used already.

use std::collections::HashMap;
use std::time::SystemTime;

use portcullis_identity::SpiffeId;

/// Tokens remembered at one time, some 120 bytes each; they live minutes, and each had to be issued.
const MAX_REMEMBERED: usize = 131_072;
/// Of them of one identity: nobody takes the others' places.
const MAX_OF_ONE: usize = 1024;

/// Remembers tokens as long as they would be accepted.
#[derive(Debug, Default)]
pub(super) struct UsedTokens {
    of: HashMap<SpiffeId, HashMap<[u8; 32], SystemTime>>,
    count: usize,
}

/// A token that somebody logs in with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct UsedToken {
    pub(super) id: SpiffeId,
    /// SHA-256 of what is signed, and not of the signature: of one ECDSA signature everybody can make a second.
    pub(super) hash: [u8; 32],
    /// Until when it would be accepted.
    pub(super) until: SystemTime,
}

impl UsedToken {
    pub(super) fn new(id: SpiffeId, token: &str, until: SystemTime) -> Self {
        let signed = token.rsplit_once('.').map_or(token, |(signed, _)| signed);
        let mut hash = [0; 32];
        hash.copy_from_slice(ring::digest::digest(&ring::digest::SHA256, signed.as_bytes()).as_ref());
        Self { id, hash, until }
    }
}

/// A token is not accepted although it is good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum NotFresh {
    #[error("its token was used before: each is good for one login")]
    Used,
    #[error("too many tokens are remembered: try again in a minute")]
    Crowded,
    #[error("another broker does not say whether its token was used there: try again with another one")]
    Unsure,
}

impl UsedTokens {
    /// Takes a token.
    pub(super) fn take(&mut self, token: &UsedToken, now: SystemTime) -> Result<(), NotFresh> {
        let UsedToken { id, hash, until } = token;
        if self.of.get(id).is_some_and(|used| used.contains_key(hash)) {
            return Err(NotFresh::Used);
        }
        if self.is_full_for(id) {
            self.forget_expired(now);
        }
        if self.is_full_for(id) {
            return Err(NotFresh::Crowded);
        }
        self.of.entry(id.clone()).or_default().insert(*hash, *until);
        self.count = self.count.saturating_add(1);
        Ok(())
    }

    fn is_full_for(&self, id: &SpiffeId) -> bool {
        self.count >= MAX_REMEMBERED || self.of.get(id).is_some_and(|used| used.len() >= MAX_OF_ONE)
    }

    fn forget_expired(&mut self, now: SystemTime) {
        self.of.retain(|_, used| {
            used.retain(|_, until| *until >= now);
            !used.is_empty()
        });
        self.count = self.of.values().map(HashMap::len).sum();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use portcullis_identity::parse_spiffe_id;

    use super::*;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn id(name: &str) -> SpiffeId {
        parse_spiffe_id(&format!("spiffe://acme.test/{name}")).unwrap()
    }

    fn take(used: &mut UsedTokens, (id, token): (&SpiffeId, &str), until: u64, now: u64) -> Result<(), NotFresh> {
        used.take(&UsedToken::new(id.clone(), token, at(until)), at(now))
    }

    #[test]
    fn a_token_is_good_once_whatever_its_signature_looks_like() {
        let mut used = UsedTokens::default();
        let host = id("host");
        take(&mut used, (&host, "a.b.c"), 9, 1).unwrap();
        assert_eq!(take(&mut used, (&host, "a.b.c"), 9, 2), Err(NotFresh::Used));
        assert_eq!(take(&mut used, (&host, "a.b.d"), 9, 2), Err(NotFresh::Used));
        take(&mut used, (&host, "a.x.c"), 9, 2).unwrap();
    }

    #[test]
    fn a_flood_forgets_nothing_that_still_counts_and_takes_nobody_else_s_place() {
        let mut used = UsedTokens::default();
        let (flood, other) = (id("flood"), id("other"));
        for number in 0..MAX_OF_ONE {
            take(&mut used, (&flood, &number.to_string()), 10, 1).unwrap();
        }
        assert_eq!(take(&mut used, (&flood, "more"), 10, 2), Err(NotFresh::Crowded));
        assert_eq!(take(&mut used, (&flood, "0"), 10, 2), Err(NotFresh::Used));
        take(&mut used, (&other, "more"), 10, 2).unwrap();
        take(&mut used, (&flood, "more"), 20, 11).unwrap();
        for name in 0..MAX_REMEMBERED / MAX_OF_ONE {
            for number in 0..MAX_OF_ONE {
                let _ = take(&mut used, (&id(&name.to_string()), &number.to_string()), 30, 12);
            }
        }
        assert_eq!(take(&mut used, (&id("last"), "0"), 30, 12), Err(NotFresh::Crowded));
        take(&mut used, (&id("last"), "0"), 40, 31).unwrap();
    }
}
