//! What the broker takes back: authorities whose SVIDs are to be replaced at once, and SVIDs that are refused although they are not expired.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use portcullis_api::v1::{self, revocation::What};
use portcullis_identity::{Revocation, Revocations, Revoked, SerialNumber, TrustDomain, parse_spiffe_id};

use super::InvalidState;

/// Taints and revocations in force, and what else comes with a bundle.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Withdrawal {
    terms: BTreeMap<String, Terms>,
    revocations: BTreeMap<Revoked, Revocation>,
}

/// What a bundle's message says beside the authorities.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Terms {
    sequence: u64,
    refresh_hint_seconds: u32,
    tainted: Vec<[u8; 32]>,
}

impl Withdrawal {
    /// The SHA-256 of the public keys of tainted authorities: SVIDs that one of them signed are to be replaced at once.
    #[must_use]
    pub fn tainted(&self, trust_domain: &TrustDomain) -> &[[u8; 32]] {
        self.terms.get(trust_domain.as_str()).map_or(&[], |terms| terms.tainted.as_slice())
    }

    /// Those of all trust domains.
    pub fn all_tainted(&self) -> impl Iterator<Item = [u8; 32]> {
        self.terms.values().flat_map(|terms| terms.tainted.iter().copied())
    }

    /// The number of a trust domain's bundle, which grows with each change; 0 where it is not known.
    #[must_use]
    pub fn sequence(&self, trust_domain: &TrustDomain) -> u64 {
        self.terms.get(trust_domain.as_str()).map_or(0, |terms| terms.sequence)
    }

    /// The revocations that are not over at `now`.
    #[must_use]
    pub fn revocations(&self, now: SystemTime) -> Revocations {
        Revocations::new(self.revocations.values().cloned(), now)
    }

    pub(super) fn note_bundle(&mut self, bundle: &v1::Bundle) -> Result<(), InvalidState> {
        let tainted = bundle.tainted.iter().map(|key| key.as_slice().try_into());
        let terms = Terms {
            sequence: bundle.sequence,
            refresh_hint_seconds: bundle.refresh_hint_seconds,
            tainted: tainted.collect::<Result<_, _>>().map_err(|_| bad("bundle.tainted", "a hash has 32 bytes"))?,
        };
        self.terms.insert(bundle.trust_domain.clone(), terms);
        Ok(())
    }

    pub(super) fn forget_bundle(&mut self, trust_domain: &str) {
        self.terms.remove(trust_domain);
    }

    pub(super) fn note_revocations(&mut self, messages: Vec<v1::Revocation>) -> Result<(), InvalidState> {
        for message in messages {
            let revocation = parse(message)?;
            self.revocations.insert(revocation.revoked.clone(), revocation);
        }
        Ok(())
    }

    /// What was revoked stays so until it is over, whatever a broker with a store out of a backup has forgotten.
    pub(super) fn keep_revocations(&mut self, before: &Self, now: SystemTime) {
        for (revoked, revocation) in before.revocations.iter().filter(|(_, revocation)| revocation.until > now) {
            self.revocations.entry(revoked.clone()).or_insert_with(|| revocation.clone());
        }
    }

    /// Adds to a bundle's message what was noted of it.
    pub(super) fn annotate(&self, mut bundle: v1::Bundle) -> v1::Bundle {
        if let Some(Terms { sequence, refresh_hint_seconds, tainted }) = self.terms.get(&bundle.trust_domain) {
            bundle.sequence = *sequence;
            bundle.refresh_hint_seconds = *refresh_hint_seconds;
            bundle.tainted = tainted.iter().map(|key| key.to_vec()).collect();
        }
        bundle
    }

    pub(super) fn revocation_messages(&self) -> Vec<v1::Revocation> {
        let seconds = |at: SystemTime| at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let message = |revocation: &Revocation| v1::Revocation {
            what: Some(match &revocation.revoked {
                Revoked::Certificate(serial) => What::Serial(serial.as_bytes().to_vec()),
                Revoked::Identity(id) => What::SpiffeId(id.to_string()),
            }),
            issued_until: seconds(revocation.issued_until),
            until: seconds(revocation.until),
        };
        self.revocations.values().map(message).collect()
    }
}

fn parse(message: v1::Revocation) -> Result<Revocation, InvalidState> {
    let v1::Revocation { what, issued_until, until } = message;
    let at = |seconds| {
        UNIX_EPOCH.checked_add(Duration::from_secs(seconds)).ok_or_else(|| bad("revocation", "a time that cannot be"))
    };
    let revoked = match what.ok_or(InvalidState::Missing("revocation.what"))? {
        What::Serial(serial) => {
            Revoked::Certificate(SerialNumber::new(&serial).map_err(|error| bad("revocation.serial", error))?)
        }
        What::SpiffeId(id) => {
            Revoked::Identity(parse_spiffe_id(&id).map_err(|error| bad("revocation.spiffe_id", error))?)
        }
    };
    Ok(Revocation { revoked, issued_until: at(issued_until)?, until: at(until)? })
}

#[expect(clippy::needless_pass_by_value, reason = "it is what `map_err` passes")]
fn bad(field: &'static str, cause: impl ToString) -> InvalidState {
    InvalidState::Field { field, cause: cause.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn revocation(what: Option<What>) -> v1::Revocation {
        v1::Revocation { what, issued_until: 100, until: 200 }
    }

    #[test]
    fn what_was_noted_survives_the_cache() {
        let mut withdrawal = Withdrawal::default();
        let bundle = v1::Bundle {
            trust_domain: "a.test".to_owned(),
            sequence: 7,
            refresh_hint_seconds: 300,
            tainted: vec![vec![1; 32]],
            ..v1::Bundle::default()
        };
        withdrawal.note_bundle(&bundle).unwrap();
        let revocations = vec![
            revocation(Some(What::Serial(vec![1, 2]))),
            revocation(Some(What::SpiffeId("spiffe://a.test/x".to_owned()))),
        ];
        withdrawal.note_revocations(revocations.clone()).unwrap();
        assert_eq!(withdrawal.revocation_messages(), revocations);
        let plain = v1::Bundle { trust_domain: "a.test".to_owned(), ..v1::Bundle::default() };
        assert_eq!(withdrawal.annotate(plain), bundle);
        let trust_domain = TrustDomain::new("a.test").unwrap();
        assert_eq!((withdrawal.tainted(&trust_domain), withdrawal.sequence(&trust_domain)), (&[[1; 32]][..], 7));
        assert!(!withdrawal.revocations(UNIX_EPOCH + Duration::from_secs(200)).is_empty());
        assert!(withdrawal.revocations(UNIX_EPOCH + Duration::from_secs(201)).is_empty());
    }

    #[test]
    fn nonsense_is_not_believed() {
        let mut withdrawal = Withdrawal::default();
        for what in [None, Some(What::Serial(Vec::new())), Some(What::SpiffeId("spiffe://A".to_owned()))] {
            withdrawal.note_revocations(vec![revocation(what)]).unwrap_err();
        }
        let bundle = v1::Bundle { tainted: vec![vec![1; 31]], ..v1::Bundle::default() };
        withdrawal.note_bundle(&bundle).unwrap_err();
    }
}
