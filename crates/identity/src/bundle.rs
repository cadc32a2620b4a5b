//! Bundles: which authorities may sign for which trust domain.

use std::{collections::HashMap, fmt, sync::Arc, time::SystemTime};

use arc_swap::ArcSwap;
use rustls::pki_types::{CertificateDer, TrustAnchor};
use spiffe::TrustDomain;
use thiserror::Error;

use crate::{Authority, InvalidAuthority, InvalidCertificate, Revocations};

/// Why a bundle is refused: one authority in it is.
#[derive(Clone, Debug, Error, PartialEq)]
#[error("authority {index} of trust domain `{trust_domain}` is refused: {reason}")]
pub struct InvalidBundle {
    /// The bundle's trust domain.
    pub trust_domain: TrustDomain,
    /// Which authority, counted from 0.
    pub index: usize,
    /// Why.
    pub reason: InvalidAuthority,
}

/// The X.509 authorities of one trust domain.
///
/// A bundle may be empty: its trust domain is known, and nobody in it is trusted.
#[derive(Clone, PartialEq, Eq)]
pub struct Bundle {
    trust_domain: TrustDomain,
    authorities: Vec<Authority>,
    /// One per authority, in the same order.
    anchors: Vec<TrustAnchor<'static>>,
}

impl Bundle {
    /// A bundle of these certificates. A certificate that is given twice counts once.
    ///
    /// # Errors
    /// [`InvalidBundle`] names the first certificate that is not an authority's.
    pub fn new(
        trust_domain: TrustDomain,
        certificates: impl IntoIterator<Item = CertificateDer<'static>>,
    ) -> Result<Self, InvalidBundle> {
        let mut bundle = Self::empty(trust_domain);
        for (index, der) in certificates.into_iter().enumerate() {
            bundle.insert(&der).map_err(|reason| InvalidBundle {
                trust_domain: bundle.trust_domain.clone(),
                index,
                reason,
            })?;
        }
        Ok(bundle)
    }

    pub(crate) fn empty(trust_domain: TrustDomain) -> Self {
        Self { trust_domain, authorities: Vec::new(), anchors: Vec::new() }
    }

    pub(crate) fn insert(&mut self, der: &CertificateDer<'static>) -> Result<(), InvalidAuthority> {
        let (authority, anchor) = trusted(der, &self.trust_domain)?;
        if !self.authorities.contains(&authority) {
            self.authorities.push(authority);
            self.anchors.push(anchor);
        }
        Ok(())
    }

    /// A bundle of all authorities of `parts`. Those of another trust domain are left out: bundles of two are never one (SPIFFE Federation
    /// §4.2).
    #[must_use]
    pub fn merged<'a>(trust_domain: TrustDomain, parts: impl IntoIterator<Item = &'a Self>) -> Self {
        let mut merged = Self::empty(trust_domain);
        for part in parts.into_iter().filter(|part| part.trust_domain == merged.trust_domain) {
            for (authority, anchor) in part.authorities.iter().zip(&part.anchors) {
                if !merged.authorities.contains(authority) {
                    merged.authorities.push(authority.clone());
                    merged.anchors.push(anchor.clone());
                }
            }
        }
        merged
    }

    /// Whose authorities these are.
    #[must_use]
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// The authorities, in the order in which they were given.
    #[must_use]
    pub fn authorities(&self) -> &[Authority] {
        &self.authorities
    }

    /// The authorities' certificates.
    pub fn certificates(&self) -> impl Iterator<Item = &CertificateDer<'static>> {
        self.authorities.iter().map(Authority::der)
    }

    pub(crate) fn anchors(&self) -> &[TrustAnchor<'static>] {
        &self.anchors
    }

    /// The authority behind an element of [`Self::anchors`].
    pub(crate) fn authority_of(&self, anchor: &TrustAnchor<'_>) -> Option<&Authority> {
        self.anchors
            .iter()
            .zip(&self.authorities)
            .find(|(candidate, _)| std::ptr::eq(*candidate, anchor))
            .map(|(_, authority)| authority)
    }

    fn without_expired(self, now: SystemTime) -> Self {
        let Self { trust_domain, authorities, anchors } = self;
        let (authorities, anchors) =
            authorities.into_iter().zip(anchors).filter(|(authority, _)| now <= authority.not_after()).unzip();
        Self { trust_domain, authorities, anchors }
    }
}

impl fmt::Debug for Bundle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bundle")
            .field("trust_domain", &self.trust_domain)
            .field("authorities", &self.authorities.len())
            .finish_non_exhaustive()
    }
}

fn trusted(
    der: &CertificateDer<'static>,
    trust_domain: &TrustDomain,
) -> Result<(Authority, TrustAnchor<'static>), InvalidAuthority> {
    let authority = Authority::parse(der, trust_domain)?;
    let anchor = webpki::anchor_from_trusted_cert(der).map_err(|_parse| InvalidCertificate::Malformed)?;
    Ok((authority, anchor.to_owned()))
}

/// Whom a daemon trusts at one moment: bundles by trust domain, and what is revoked although a bundle would vouch for it.
#[derive(Clone, Debug, Default)]
pub struct TrustBundles {
    bundles: HashMap<TrustDomain, Bundle>,
    revocations: Revocations,
    tainted: Vec<[u8; 32]>,
}

/// Where verifiers read the bundles at each handshake; whoever receives new bundles stores them here.
pub type TrustSource = Arc<ArcSwap<TrustBundles>>;

impl TrustBundles {
    /// The bundles without the authorities that expired before `now`.
    ///
    /// Of two bundles for one trust domain the first counts: put the own one first, and no federated bundle can take
    /// its place.
    #[must_use]
    pub fn new(bundles: impl IntoIterator<Item = Bundle>, now: SystemTime) -> Self {
        let mut kept = HashMap::new();
        for bundle in bundles {
            kept.entry(bundle.trust_domain.clone()).or_insert_with(|| bundle.without_expired(now));
        }
        Self { bundles: kept, revocations: Revocations::default(), tainted: Vec::new() }
    }

    /// The same bundles with these revocations.
    #[must_use]
    pub fn with_revocations(self, revocations: Revocations) -> Self {
        Self { revocations, ..self }
    }

    /// The same bundles; these authorities in them, named by the SHA-256 of their public keys, are about to be withdrawn.
    #[must_use]
    pub fn with_tainted(self, tainted: impl IntoIterator<Item = [u8; 32]>) -> Self {
        Self { tainted: tainted.into_iter().collect(), ..self }
    }

    /// The authorities that are trusted still, and about to be withdrawn.
    #[must_use]
    pub fn tainted(&self) -> &[[u8; 32]] {
        &self.tainted
    }

    /// What somebody sees who may see these trust domains alone.
    #[must_use]
    pub fn within(&self, sees: impl Fn(&TrustDomain) -> bool) -> Self {
        let Self { bundles, revocations, tainted } = self;
        let seen = bundles.iter().filter(|(name, _)| sees(name)).map(|(name, bundle)| (name.clone(), bundle.clone()));
        Self { bundles: seen.collect(), revocations: revocations.clone(), tainted: tainted.clone() }
    }

    /// What is revoked.
    #[must_use]
    pub fn revocations(&self) -> &Revocations {
        &self.revocations
    }

    /// The bundle of a trust domain.
    #[must_use]
    pub fn get(&self, trust_domain: &TrustDomain) -> Option<&Bundle> {
        self.bundles.get(trust_domain)
    }

    /// All bundles, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &Bundle> {
        self.bundles.values()
    }

    /// These bundles as a source for verifiers.
    #[must_use]
    pub fn into_source(self) -> TrustSource {
        Arc::new(ArcSwap::from_pointee(self))
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, IsCa, KeyUsagePurpose};

    use super::*;
    use crate::test_ca::{HOUR, NOW, TestCa, date, extension, system, td, uri};

    fn refused(ca: &TestCa) -> InvalidAuthority {
        Bundle::new(td("a.test"), [ca.certificate().clone()]).unwrap_err().reason
    }

    #[test]
    fn an_authority_may_carry_the_id_of_its_trust_domain_or_none() {
        for ca in [TestCa::root("a.test"), TestCa::root_with("a.test", |params| params.subject_alt_names.clear())] {
            let bundle = Bundle::new(td("a.test"), [ca.certificate().clone()]).unwrap();
            assert_eq!(bundle.certificates().collect::<Vec<_>>(), [ca.certificate()]);
        }
    }

    #[test]
    fn what_may_not_sign_is_no_authority() {
        let leaf = TestCa::root_with("a.test", |params| params.is_ca = IsCa::ExplicitNoCa);
        assert_eq!(refused(&leaf), InvalidAuthority::NotAuthority);
        let silent = TestCa::root_with("a.test", |params| params.is_ca = IsCa::NoCa);
        assert_eq!(refused(&silent), InvalidAuthority::NotAuthority);
        let usage = TestCa::root_with("a.test", |params| params.key_usages = vec![KeyUsagePurpose::CrlSign]);
        assert_eq!(refused(&usage), InvalidAuthority::KeyUsage);
        let no_usage = TestCa::root_with("a.test", |params| params.key_usages.clear());
        assert_eq!(refused(&no_usage), InvalidAuthority::KeyUsage);
        let path = TestCa::root_with("a.test", |params| params.subject_alt_names = vec![uri("spiffe://a.test/x")]);
        assert!(matches!(refused(&path), InvalidAuthority::Path { .. }));
        let two = TestCa::root_with("a.test", |params| params.subject_alt_names.push(uri("spiffe://b.test")));
        assert_eq!(refused(&two), InvalidCertificate::UriNames { count: 2 }.into());
        assert_eq!(
            refused(&TestCa::root("b.test")),
            InvalidAuthority::OtherTrustDomain { expected: td("a.test"), found: td("b.test") }
        );
    }

    /// X509-SVID §4.3 asks it of SVIDs; a root without a SPIFFE ID is none.
    #[test]
    fn key_usage_is_critical_on_an_authority_with_an_id() {
        // keyCertSign is bit 5.
        let not_critical = extension(15, false, &[0x03, 0x02, 0x02, 0x04]);
        let svid = TestCa::root_with("a.test", |params| {
            params.key_usages.clear();
            params.custom_extensions.push(not_critical.clone());
        });
        assert_eq!(refused(&svid), InvalidAuthority::KeyUsage);
        let plain = TestCa::root_with("a.test", |params| {
            params.key_usages.clear();
            params.subject_alt_names.clear();
            params.custom_extensions.push(not_critical);
        });
        assert_eq!(Bundle::new(td("a.test"), [plain.certificate().clone()]).unwrap().authorities().len(), 1);
    }

    #[test]
    fn bundles_of_one_trust_domain_are_merged_and_no_others() {
        let (old, new, other) = (TestCa::root("a.test"), TestCa::root("a.test"), TestCa::root("b.test"));
        let parts = [old.bundle(), new.bundle(), other.bundle(), old.bundle()];
        let merged = Bundle::merged(td("a.test"), &parts);
        assert_eq!(merged.certificates().collect::<Vec<_>>(), [old.certificate(), new.certificate()]);
        assert!(Bundle::merged(td("c.test"), &parts).authorities().is_empty());
    }

    #[test]
    fn the_error_says_which_authority() {
        let good = TestCa::root("a.test").certificate().clone();
        let error = Bundle::new(td("a.test"), [good, CertificateDer::from(vec![1, 2])]).unwrap_err();
        assert_eq!(error.to_string(), "authority 1 of trust domain `a.test` is refused: not a certificate in DER");
    }

    #[test]
    fn a_certificate_given_twice_counts_once() {
        let der = TestCa::root("a.test").certificate().clone();
        assert_eq!(Bundle::new(td("a.test"), [der.clone(), der]).unwrap().authorities().len(), 1);
    }

    #[test]
    fn expired_authorities_are_dropped_and_their_trust_domain_stays_known() {
        let old = TestCa::root_with("a.test", |params| params.not_after = date(NOW - HOUR));
        let young = TestCa::root("a.test");
        let bundle = Bundle::new(td("a.test"), [old.certificate().clone(), young.certificate().clone()]).unwrap();
        let trust = TrustBundles::new([bundle], system(NOW));
        let kept = trust.get(&td("a.test")).unwrap();
        assert_eq!(kept.certificates().collect::<Vec<_>>(), [young.certificate()]);
        assert_eq!(kept.anchors().len(), 1);

        let trust = TrustBundles::new([old.bundle()], system(NOW));
        assert_eq!(trust.get(&td("a.test")).unwrap().authorities().len(), 0);
        assert_eq!(trust.iter().count(), 1);
    }

    #[test]
    fn an_authority_is_valid_to_the_last_second() {
        let ca = TestCa::root_with("a.test", |params| params.not_after = date(NOW));
        let count =
            |seconds| TrustBundles::new([ca.bundle()], system(seconds)).get(&td("a.test")).unwrap().authorities().len();
        assert_eq!([count(NOW), count(NOW + 1)], [1, 0]);
    }

    #[test]
    fn a_second_bundle_does_not_replace_the_first() {
        let (own, forged) = (TestCa::root("a.test"), TestCa::root("a.test"));
        let trust = TrustBundles::new([own.bundle(), forged.bundle()], system(NOW));
        assert_eq!(trust.get(&td("a.test")).unwrap().certificates().collect::<Vec<_>>(), [own.certificate()]);
    }

    #[test]
    fn the_hash_is_that_of_the_public_key() {
        let ca = TestCa::root_with("a.test", |params| params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0)));
        let bundle = ca.bundle();
        let authority = &bundle.authorities()[0];
        let spki = webpki::spki_for_anchor(&bundle.anchors()[0]);
        assert_eq!(authority.public_key_sha256(), crate::request::sha256(&spki));
        assert!(authority.allows_intermediates(0) && !authority.allows_intermediates(1));
    }

    #[test]
    fn who_may_not_see_a_trust_domain_has_no_bundle_of_it() {
        let (a, b) = (TestCa::root("a.test"), TestCa::root("b.test"));
        let trust = TrustBundles::new([a.bundle(), b.bundle()], system(NOW)).with_tainted([[1; 32]]);
        let seen = trust.within(|name| *name == td("a.test"));
        assert!(seen.get(&td("a.test")).is_some() && seen.get(&td("b.test")).is_none());
        assert_eq!((seen.tainted(), trust.iter().count()), (&[[1; 32]][..], 2));
    }
}
