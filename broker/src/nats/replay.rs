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

/// A token is not accepted although it is good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum NotFresh {
    #[error("its token was used before: each is good for one login")]
    Used,
    #[error("too many tokens are remembered: try again in a minute")]
    Crowded,
}

impl UsedTokens {
    /// Takes a token of `id` that is accepted until `until`.
    pub(super) fn take(
        &mut self,
        id: &SpiffeId,
        token: &str,
        until: SystemTime,
        now: SystemTime,
    ) -> Result<(), NotFresh> {
        // What is signed, and not the signature: of one ECDSA signature everybody can make a second.
        let signed = token.rsplit_once('.').map_or(token, |(signed, _)| signed);
        let mut hash = [0; 32];
        hash.copy_from_slice(ring::digest::digest(&ring::digest::SHA256, signed.as_bytes()).as_ref());
        if self.of.get(id).is_some_and(|used| used.contains_key(&hash)) {
            return Err(NotFresh::Used);
        }
        if self.is_full_for(id) {
            self.forget_expired(now);
        }
        if self.is_full_for(id) {
            return Err(NotFresh::Crowded);
        }
        self.of.entry(id.clone()).or_default().insert(hash, until);
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

    #[test]
    fn a_token_is_good_once_whatever_its_signature_looks_like() {
        let mut used = UsedTokens::default();
        let host = id("host");
        used.take(&host, "a.b.c", at(9), at(1)).unwrap();
        assert_eq!(used.take(&host, "a.b.c", at(9), at(2)), Err(NotFresh::Used));
        assert_eq!(used.take(&host, "a.b.d", at(9), at(2)), Err(NotFresh::Used));
        used.take(&host, "a.x.c", at(9), at(2)).unwrap();
    }

    #[test]
    fn a_flood_forgets_nothing_that_still_counts_and_takes_nobody_else_s_place() {
        let mut used = UsedTokens::default();
        let (flood, other) = (id("flood"), id("other"));
        for number in 0..MAX_OF_ONE {
            used.take(&flood, &number.to_string(), at(10), at(1)).unwrap();
        }
        assert_eq!(used.take(&flood, "more", at(10), at(2)), Err(NotFresh::Crowded));
        assert_eq!(used.take(&flood, "0", at(10), at(2)), Err(NotFresh::Used));
        used.take(&other, "more", at(10), at(2)).unwrap();
        used.take(&flood, "more", at(20), at(11)).unwrap();
        for name in 0..MAX_REMEMBERED / MAX_OF_ONE {
            for number in 0..MAX_OF_ONE {
                let _ = used.take(&id(&name.to_string()), &number.to_string(), at(30), at(12));
            }
        }
        assert_eq!(used.take(&id("last"), "0", at(30), at(12)), Err(NotFresh::Crowded));
        used.take(&id("last"), "0", at(40), at(31)).unwrap();
    }
}
