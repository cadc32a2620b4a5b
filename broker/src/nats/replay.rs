//! Login tokens that were used already.

use std::collections::HashMap;
use std::time::SystemTime;

/// Tokens remembered at one time, 72 bytes each; they live minutes, and each had to be issued.
const MAX_REMEMBERED: usize = 131_072;

/// Remembers tokens as long as they would be accepted.
#[derive(Debug, Default)]
pub(super) struct UsedTokens(HashMap<[u8; 32], SystemTime>);

/// A token is not accepted although it is good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum NotFresh {
    #[error("its token was used before: each is good for one login")]
    Used,
    #[error("too many tokens are remembered: try again in a minute")]
    Crowded,
}

impl UsedTokens {
    /// Takes a token that is accepted until `until`.
    pub(super) fn take(&mut self, token: &str, until: SystemTime, now: SystemTime) -> Result<(), NotFresh> {
        if self.0.len() >= MAX_REMEMBERED {
            self.0.retain(|_, until| *until >= now);
        }
        // What is signed, and not the signature: of one ECDSA signature everybody can make a second.
        let signed = token.rsplit_once('.').map_or(token, |(signed, _)| signed);
        let mut hash = [0; 32];
        hash.copy_from_slice(ring::digest::digest(&ring::digest::SHA256, signed.as_bytes()).as_ref());
        if self.0.contains_key(&hash) {
            return Err(NotFresh::Used);
        }
        if self.0.len() >= MAX_REMEMBERED {
            return Err(NotFresh::Crowded);
        }
        self.0.insert(hash, until);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn a_token_is_good_once_whatever_its_signature_looks_like() {
        let mut used = UsedTokens::default();
        used.take("a.b.c", at(9), at(1)).unwrap();
        assert_eq!(used.take("a.b.c", at(9), at(2)), Err(NotFresh::Used));
        assert_eq!(used.take("a.b.d", at(9), at(2)), Err(NotFresh::Used));
        used.take("a.x.c", at(9), at(2)).unwrap();
    }

    #[test]
    fn a_flood_forgets_nothing_that_still_counts() {
        let mut used = UsedTokens::default();
        for number in 0..MAX_REMEMBERED {
            used.take(&number.to_string(), at(10), at(1)).unwrap();
        }
        assert_eq!(used.take("more", at(10), at(2)), Err(NotFresh::Crowded));
        assert_eq!(used.take("0", at(10), at(2)), Err(NotFresh::Used));
        used.take("more", at(20), at(11)).unwrap();
    }
}
