//! JWT bundles: which keys may sign JWT-SVIDs of which trust domain (JWT-SVID §6).

use std::{
    collections::HashMap,
    time::{Duration, SystemTime},
};

use spiffe::TrustDomain;
use thiserror::Error;

use super::{JwtAuthority, KeyId};

/// The most JWT authorities of one trust domain: as many as a bundle document has keys.
pub const MAX_JWT_AUTHORITIES: usize = 512;

/// Why keys are no bundle.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum InvalidJwtBundle {
    /// Two different keys have one name.
    #[error("trust domain `{trust_domain}` has two keys `{kid}`")]
    KeyIdTwice {
        /// The bundle's trust domain.
        trust_domain: TrustDomain,
        /// The name.
        kid: KeyId,
    },
    /// There are more than [`MAX_JWT_AUTHORITIES`].
    #[error("trust domain `{trust_domain}` has more than {MAX_JWT_AUTHORITIES} JWT authorities")]
    TooMany {
        /// The bundle's trust domain.
        trust_domain: TrustDomain,
    },
}

/// The JWT authorities of one trust domain. No X.509 authority is among them: that is [`Bundle`](crate::Bundle).
///
/// A bundle may be empty: its trust domain is known, and no token of it is valid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JwtBundle {
    trust_domain: TrustDomain,
    authorities: Vec<JwtAuthority>,
}

impl JwtBundle {
    /// A bundle of these keys. A key that is given twice counts once.
    ///
    /// # Errors
    /// [`InvalidJwtBundle`] if two keys have one name, or there are too many.
    pub fn new(
        trust_domain: TrustDomain,
        authorities: impl IntoIterator<Item = JwtAuthority>,
    ) -> Result<Self, InvalidJwtBundle> {
        let mut bundle = Self::empty(trust_domain);
        for authority in authorities {
            bundle.insert(authority)?;
        }
        Ok(bundle)
    }

    pub(crate) fn empty(trust_domain: TrustDomain) -> Self {
        Self { trust_domain, authorities: Vec::new() }
    }

    pub(crate) fn insert(&mut self, authority: JwtAuthority) -> Result<(), InvalidJwtBundle> {
        match self.authority(authority.kid()) {
            Some(known) if *known == authority => return Ok(()),
            Some(_) => {
                let (trust_domain, kid) = (self.trust_domain.clone(), authority.kid().clone());
                return Err(InvalidJwtBundle::KeyIdTwice { trust_domain, kid });
            }
            None => {}
        }
        if self.authorities.len() >= MAX_JWT_AUTHORITIES {
            return Err(InvalidJwtBundle::TooMany { trust_domain: self.trust_domain.clone() });
        }
        self.authorities.push(authority);
        Ok(())
    }

    /// Whose authorities these are.
    #[must_use]
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// The authorities, in the order in which they were given.
    #[must_use]
    pub fn authorities(&self) -> &[JwtAuthority] {
        &self.authorities
    }

    /// The authority of this name, whether it still counts or not.
    #[must_use]
    pub fn authority(&self, kid: &KeyId) -> Option<&JwtAuthority> {
        self.authorities.iter().find(|authority| authority.kid() == kid)
    }

    /// The authority of this name, unless it ended more than `leeway` before `now`.
    pub(super) fn authority_at(&self, kid: &KeyId, now: SystemTime, leeway: Duration) -> Option<&JwtAuthority> {
        let ended = |end: SystemTime| now.duration_since(end).is_ok_and(|since| since >= leeway);
        self.authority(kid).filter(|authority| !authority.not_after().is_some_and(ended))
    }
}

/// The JWT bundles that a daemon holds at one moment, by trust domain.
#[derive(Clone, Debug, Default)]
pub struct JwtBundles {
    bundles: HashMap<TrustDomain, JwtBundle>,
}

impl JwtBundles {
    /// These bundles.
    ///
    /// Of two bundles for one trust domain the first counts: put the own one first, and no federated bundle can take
    /// its place.
    #[must_use]
    pub fn new(bundles: impl IntoIterator<Item = JwtBundle>) -> Self {
        let mut kept = HashMap::new();
        for bundle in bundles {
            kept.entry(bundle.trust_domain.clone()).or_insert(bundle);
        }
        Self { bundles: kept }
    }

    /// The bundle of a trust domain.
    #[must_use]
    pub fn get(&self, trust_domain: &TrustDomain) -> Option<&JwtBundle> {
        self.bundles.get(trust_domain)
    }

    /// All bundles, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &JwtBundle> {
        self.bundles.values()
    }
}
