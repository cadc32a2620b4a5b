//! What may be handed out at one moment, and to whom: plain values and plain functions.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::SystemTime;

use portcullis_api::workload::{JwtBundlesResponse, X509BundlesResponse, X509svid, X509svidResponse};
use portcullis_identity::{IdTemplate, SpiffeId, Svid, TrustDomain, UnfitValue};
use rustls::pki_types::CertificateDer;

use super::Selectors;

/// Demands the digest of an executable.
const DIGEST_SELECTOR: &str = "unix:sha256:";

/// A registration entry, as far as the Workload API is concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The broker's name for it.
    pub id: String,
    /// The identity it earns.
    pub spiffe_id: SpiffeId,
    /// What must be attested of a caller, all of it.
    pub selectors: BTreeSet<String>,
    /// Tells a workload with several identities which one this is.
    pub hint: String,
    /// Foreign trust domains whose bundles its holder sees.
    pub federates_with: BTreeSet<TrustDomain>,
    /// Seconds since 1970.
    pub created_at: u64,
}

/// An entry and its X.509-SVID, where there is one yet.
#[derive(Clone, Debug)]
pub struct Held {
    /// Which entry.
    pub entry: Entry,
    /// Its SVID.
    pub svid: Option<Arc<Svid>>,
}

/// The bundle of a trust domain, as it is handed out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DomainBundle {
    /// The X.509 authorities.
    pub x509: Vec<CertificateDer<'static>>,
    /// The JWT authorities, as a JWK set.
    pub jwks: String,
}

/// What may be handed out at one moment.
#[derive(Clone, Debug)]
pub struct Snapshot {
    own: TrustDomain,
    held: Vec<Held>,
    bundles: BTreeMap<TrustDomain, DomainBundle>,
    templates: Vec<Template>,
}

/// What makes an entry for each workload whose attributes fill in its SPIFFE ID.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    /// The broker's name for it.
    pub id: String,
    /// What the IDs look like.
    pub pattern: IdTemplate,
    /// What must be attested beside what is filled in.
    pub selectors: BTreeSet<String>,
}

/// An entry that is to be made for a caller.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Filling {
    /// By which template.
    pub template: String,
    /// What was attested of the caller, in the order of the template's variables.
    pub values: Vec<String>,
    /// What the entry's SPIFFE ID will be.
    pub spiffe_id: SpiffeId,
}

/// Why a caller gets nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NothingToGive {
    /// No entry is met.
    #[error("no identity is issued to the caller")]
    NotEntitled,
    /// There is an identity, and no SVID in force for it: the first is under way, or the last expired while the broker is away.
    #[error("the identity's svid is not there yet")]
    NoSvidYet,
}

impl Snapshot {
    /// Everything of trust domain `own`. The order that callers see is made here: oldest entry first, then by id.
    #[must_use]
    pub fn new(own: TrustDomain, mut held: Vec<Held>, bundles: BTreeMap<TrustDomain, DomainBundle>) -> Self {
        // Ids end in a number: the shorter is the smaller.
        let age = |held: &Held| (held.entry.created_at, held.entry.id.len(), held.entry.id.clone());
        held.sort_by_cached_key(age);
        Self { own, held, bundles, templates: Vec::new() }
    }

    /// The same with `templates`.
    #[must_use]
    pub fn with_templates(self, templates: Vec<Template>) -> Self {
        Self { templates, ..self }
    }

    /// The same with other entries.
    #[cfg(test)]
    pub(crate) fn with_held(self, held: Vec<Held>) -> Self {
        Self { held, ..self }
    }

    /// The entries that a caller of whom `selectors` are known has coming: it meets a template, and the entry is not there. A template whose
    /// values do not fit into an ID comes as an error, with its name.
    pub(crate) fn fillings(&self, selectors: &Selectors) -> Vec<Result<Filling, (&str, UnfitValue)>> {
        let met = self.templates.iter().filter(|template| selectors.include(&template.selectors));
        let filled = met.filter_map(|template| match template.pattern.fill_from(&selectors.iter()) {
            Ok(None) => None,
            Ok(Some((spiffe_id, _))) if self.entry_for(&spiffe_id, selectors).is_some() => None,
            Ok(Some((spiffe_id, values))) => Some(Ok(Filling { template: template.id.clone(), values, spiffe_id })),
            Err(unfit) => Some(Err((template.id.as_str(), unfit))),
        });
        filled.collect()
    }

    /// Whether what was to be made is there, with its SVID.
    pub(crate) fn has(&self, filling: &Filling, selectors: &Selectors) -> bool {
        self.entry_for(&filling.spiffe_id, selectors).is_some_and(|held| held.svid.is_some())
    }

    fn entry_for(&self, id: &SpiffeId, selectors: &Selectors) -> Option<&Held> {
        self.held.iter().find(|held| held.entry.spiffe_id == *id && selectors.meet(&held.entry.selectors))
    }

    /// The trust domain of its identities.
    #[must_use]
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.own
    }

    /// Every entry that workloads may be entitled to.
    #[must_use]
    pub fn held(&self) -> &[Held] {
        &self.held
    }

    /// The X.509 authorities of a trust domain; none where it is not known.
    pub(crate) fn x509_authorities(&self, domain: &TrustDomain) -> Vec<&[u8]> {
        self.bundles.get(domain).map(|bundle| bundle.x509.iter().map(AsRef::as_ref).collect()).unwrap_or_default()
    }

    /// Whether any entry demands the digest of an executable.
    pub(crate) fn demands_digest(&self) -> bool {
        self.held.iter().any(|held| held.entry.selectors.iter().any(|demand| demand.starts_with(DIGEST_SELECTOR)))
    }

    /// What a caller of whom `selectors` are known is entitled to.
    pub(crate) fn entitled(&self, selectors: &Selectors) -> Result<Entitled<'_>, NothingToGive> {
        let mut hints = BTreeSet::new();
        let met = self.held.iter().filter(|held| selectors.meet(&held.entry.selectors));
        // A hint names one identity: the older entry keeps it (Workload API §5.2.1).
        let held: Vec<_> =
            met.filter(|held| held.entry.hint.is_empty() || hints.insert(held.entry.hint.as_str())).collect();
        if held.is_empty() { Err(NothingToGive::NotEntitled) } else { Ok(Entitled { snapshot: self, held }) }
    }
}

/// What one caller is entitled to; never empty.
#[derive(Debug)]
pub(crate) struct Entitled<'s> {
    snapshot: &'s Snapshot,
    held: Vec<&'s Held>,
}

impl<'s> Entitled<'s> {
    pub(crate) fn entries(&self) -> impl Iterator<Item = &'s Entry> {
        self.held.iter().map(|held| &held.entry)
    }

    /// Whether the caller may know of a trust domain at all.
    pub(crate) fn may_see(&self, domain: &TrustDomain) -> bool {
        *domain == self.snapshot.own || self.held.iter().any(|held| held.entry.federates_with.contains(domain))
    }

    /// The whole set of X.509-SVIDs at `now`.
    pub(crate) fn x509_svids(&self, now: SystemTime) -> Result<X509svidResponse, NothingToGive> {
        let own = self.snapshot.bundles.get(&self.snapshot.own).filter(|bundle| !bundle.x509.is_empty());
        let bundle = concatenated(&own.ok_or(NothingToGive::NoSvidYet)?.x509);
        let svids: Vec<_> = self
            .held
            .iter()
            .filter_map(|held| held.svid.as_ref().map(|svid| (held, svid)))
            .filter(|(_, svid)| svid.not_after() > now)
            .map(|(held, svid)| X509svid {
                spiffe_id: svid.id().to_string(),
                x509_svid: concatenated(svid.chain()),
                x509_svid_key: svid.key().pkcs8().to_vec(),
                bundle: bundle.clone(),
                hint: held.entry.hint.clone(),
            })
            .collect();
        if svids.is_empty() {
            return Err(NothingToGive::NoSvidYet);
        }
        let federated_bundles =
            self.federated().map(|(domain, bundle)| (domain.id_string(), concatenated(&bundle.x509))).collect();
        Ok(X509svidResponse { svids, crl: Vec::new(), federated_bundles })
    }

    /// X.509 bundles: the own one always, foreign ones as entries say.
    pub(crate) fn x509_bundles(&self) -> X509BundlesResponse {
        let bundles = self.visible().map(|(domain, bundle)| (domain.id_string(), concatenated(&bundle.x509))).collect();
        X509BundlesResponse { crl: Vec::new(), bundles }
    }

    /// JWT bundles: the own one always, foreign ones as entries say.
    pub(crate) fn jwt_bundles(&self) -> JwtBundlesResponse {
        let bundles =
            self.visible().map(|(domain, bundle)| (domain.id_string(), bundle.jwks.clone().into_bytes())).collect();
        JwtBundlesResponse { bundles }
    }

    fn visible(&self) -> impl Iterator<Item = (&'s TrustDomain, &'s DomainBundle)> {
        self.snapshot.bundles.iter().filter(|(domain, _)| self.may_see(domain))
    }

    fn federated(&self) -> impl Iterator<Item = (&'s TrustDomain, &'s DomainBundle)> {
        self.visible().filter(|(domain, _)| **domain != self.snapshot.own)
    }
}

/// DER, one certificate after the other.
fn concatenated(certificates: &[CertificateDer<'static>]) -> Vec<u8> {
    certificates.iter().flat_map(|certificate| certificate.iter().copied()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::fixture::{Ca, entry, held};

    fn demanded(snapshot: &Snapshot, selectors: &[&str]) -> Result<Vec<String>, NothingToGive> {
        let selectors = selectors.iter().copied().collect();
        snapshot.entitled(&selectors).map(|entitled| entitled.entries().map(|entry| entry.id.clone()).collect())
    }

    fn snapshot(held: Vec<Held>) -> Snapshot {
        let bundle = |name: &str| {
            (Ca::domain(name), DomainBundle { x509: vec![name.as_bytes().to_vec().into()], jwks: "{}".to_owned() })
        };
        Snapshot::new(Ca::domain("a.test"), held, ["a.test", "b.test", "c.test"].map(bundle).into())
    }

    #[test]
    fn the_oldest_entry_comes_first_and_a_hint_is_the_older_one_s() {
        let mut entries: Vec<_> = [("e1", "", 30), ("e2", "web", 20), ("e3", "web", 10), ("e4", "", 10)]
            .map(|(id, hint, created_at)| Held {
                entry: Entry { hint: hint.to_owned(), created_at, ..entry(id, "/x", &["unix:uid:1"]) },
                svid: None,
            })
            .into();
        let expected = ["e3", "e4", "e1"];
        assert_eq!(demanded(&snapshot(entries.clone()), &["unix:uid:1"]).unwrap(), expected);
        entries.reverse();
        assert_eq!(demanded(&snapshot(entries), &["unix:uid:1"]).unwrap(), expected);
    }

    #[test]
    fn who_meets_no_entry_gets_nothing() {
        let snapshot = snapshot(vec![Held { entry: entry("e", "/x", &["unix:uid:1", "unix:gid:2"]), svid: None }]);
        assert_eq!(demanded(&snapshot, &["unix:uid:1"]), Err(NothingToGive::NotEntitled));
        assert!(demanded(&snapshot, &["unix:uid:1", "unix:gid:2", "unix:gid:3"]).is_ok());
    }

    #[test]
    fn foreign_bundles_are_seen_as_entries_say_and_the_own_one_always() {
        let ca = Ca::new("a.test");
        let mut first = held(&ca, "e1", "/one", &["unix:uid:1"]);
        let second = held(&ca, "e2", "/two", &["unix:uid:2"]);
        first.entry.federates_with.insert(Ca::domain("b.test"));
        let snapshot = snapshot(vec![first, second]);
        let one: Selectors = ["unix:uid:1"].into_iter().collect();
        let entitled = snapshot.entitled(&one).unwrap();
        let answer = entitled.x509_svids(crate::clock::now()).unwrap();
        assert_eq!(answer.federated_bundles.keys().collect::<Vec<_>>(), ["spiffe://b.test"]);
        assert_eq!(answer.svids.iter().map(|svid| svid.bundle.as_slice()).collect::<Vec<_>>(), [b"a.test"]);
        let both = ["spiffe://a.test", "spiffe://b.test"];
        assert_eq!(entitled.x509_bundles().bundles.keys().collect::<Vec<_>>(), both);
        assert_eq!(entitled.jwt_bundles().bundles.keys().collect::<Vec<_>>(), both);
        let two: Selectors = ["unix:uid:2"].into_iter().collect();
        let entitled = snapshot.entitled(&two).unwrap();
        assert!(entitled.x509_svids(crate::clock::now()).unwrap().federated_bundles.is_empty());
        assert_eq!(entitled.x509_bundles().bundles.keys().collect::<Vec<_>>(), ["spiffe://a.test"]);
    }

    #[test]
    fn an_svid_that_is_not_there_or_over_is_waited_for() {
        let ca = Ca::new("a.test");
        let there = held(&ca, "e1", "/one", &["unix:uid:1"]);
        let missing = Held { entry: entry("e2", "/two", &["unix:uid:1"]), svid: None };
        let one: Selectors = ["unix:uid:1"].into_iter().collect();
        let both = snapshot(vec![there.clone(), missing.clone()]);
        let now = crate::clock::now();
        assert_eq!(both.entitled(&one).unwrap().x509_svids(now).unwrap().svids.len(), 1);
        let over = there.svid.as_ref().unwrap().not_after();
        assert_eq!(both.entitled(&one).unwrap().x509_svids(over).unwrap_err(), NothingToGive::NoSvidYet);
        let none = snapshot(vec![missing]);
        assert_eq!(none.entitled(&one).unwrap().x509_svids(now).unwrap_err(), NothingToGive::NoSvidYet);
        // A domain whose authorities are gone vouches for nobody.
        let empty = Snapshot::new(Ca::domain("a.test"), vec![there], BTreeMap::new());
        assert_eq!(empty.entitled(&one).unwrap().x509_svids(now).unwrap_err(), NothingToGive::NoSvidYet);
    }
}
