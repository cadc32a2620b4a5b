//! What an entry says beside who holds it: all that an operator may alter later.

use std::fmt;
use std::str::FromStr;

use portcullis_identity::{TrustDomain, parse_trust_domain};

use super::selector::Selectors;
use crate::dns_name::DnsNames;
use crate::ttl::{JwtTtl, Ttl};

/// SPIFFE Workload API §8: hints should not be longer.
const MAX_HINT_BYTES: usize = 1024;
/// Foreign trust domains that one workload sees.
const MAX_FEDERATED: usize = 64;

/// The terms of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    /// What must be attested of the holder.
    pub selectors: Selectors,
    /// Lifetime of its X.509-SVIDs.
    pub ttl: Ttl,
    /// Lifetime of its JWT-SVIDs.
    pub jwt_ttl: JwtTtl,
    /// Tells a workload with several identities which one this is.
    pub hint: Hint,
    /// Further names in its X.509-SVIDs.
    pub dns_names: DnsNames,
    /// Foreign trust domains whose bundles the holder sees.
    pub federates_with: FederatedDomains,
    /// Whether the holder may administer the trust domain. It says so to services; the broker itself serves operators on its socket alone.
    pub admin: bool,
}

impl Terms {
    /// The terms of an entry that says nothing but how long its X.509-SVIDs live.
    #[must_use]
    pub fn new(ttl: Ttl) -> Self {
        Self {
            selectors: Selectors::default(),
            ttl,
            jwt_ttl: JwtTtl::DEFAULT,
            hint: Hint::default(),
            dns_names: DnsNames::default(),
            federates_with: FederatedDomains::default(),
            admin: false,
        }
    }
}

/// A short text for the workload: at most 1024 bytes, without control characters; empty for none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hint(Box<str>);

/// Not a hint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidHint {
    /// Longer than the Workload API allows.
    #[error("a hint of {0} bytes is longer than {MAX_HINT_BYTES}")]
    TooLong(usize),
    /// It would break a log or a terminal.
    #[error("a hint has no control characters")]
    Control,
}

impl Hint {
    /// The hint as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Hint {
    type Err = InvalidHint;

    fn from_str(text: &str) -> Result<Self, InvalidHint> {
        if text.len() > MAX_HINT_BYTES {
            return Err(InvalidHint::TooLong(text.len()));
        }
        if text.contains(char::is_control) {
            return Err(InvalidHint::Control);
        }
        Ok(Self(text.into()))
    }
}

impl fmt::Display for Hint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Foreign trust domains, in canonical order. Their bundles need not be known yet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FederatedDomains(Box<[TrustDomain]>);

/// Not a list of foreign trust domains.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum InvalidFederation {
    /// One of them is not a trust domain.
    #[error(transparent)]
    Name(#[from] Box<portcullis_identity::InvalidSpiffeId>),
    /// More than anybody is told about.
    #[error("{0} federated trust domains on one entry are more than {MAX_FEDERATED}")]
    TooMany(usize),
}

impl FederatedDomains {
    /// In canonical order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &TrustDomain> {
        self.0.iter()
    }

    /// Whether `trust_domain` is one of them.
    #[must_use]
    pub fn contains(&self, trust_domain: &TrustDomain) -> bool {
        self.0.contains(trust_domain)
    }
}

impl TryFrom<Vec<String>> for FederatedDomains {
    type Error = InvalidFederation;

    /// One that is given twice counts once.
    fn try_from(texts: Vec<String>) -> Result<Self, InvalidFederation> {
        if texts.len() > MAX_FEDERATED {
            return Err(InvalidFederation::TooMany(texts.len()));
        }
        let mut domains =
            texts.iter().map(|text| parse_trust_domain(text)).collect::<Result<Vec<_>, _>>().map_err(Box::new)?;
        domains.sort();
        domains.dedup();
        Ok(Self(domains.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hint_has_at_most_1024_bytes_and_no_control_characters() {
        assert_eq!("a".repeat(1024).parse::<Hint>().unwrap().as_str().len(), 1024);
        assert_eq!("a".repeat(1025).parse::<Hint>(), Err(InvalidHint::TooLong(1025)));
        assert_eq!("a\nb".parse::<Hint>(), Err(InvalidHint::Control));
        assert_eq!("".parse::<Hint>().unwrap(), Hint::default());
    }

    #[test]
    fn federated_domains_are_names_in_order() {
        let of = |texts: &[&str]| FederatedDomains::try_from(texts.iter().map(|t| (*t).to_owned()).collect::<Vec<_>>());
        assert_eq!(of(&["b.test", "a.test", "b.test"]), of(&["a.test", "b.test"]));
        for text in ["", "A.test", "spiffe://a.test", "a.test/x"] {
            assert!(matches!(of(&[text]), Err(InvalidFederation::Name(_))), "{text}");
        }
        let many: Vec<_> = (0..65).map(|number| format!("t{number}.test")).collect();
        assert_eq!(FederatedDomains::try_from(many), Err(InvalidFederation::TooMany(65)));
    }
}
