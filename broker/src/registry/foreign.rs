//! Foreign trust domains: from where their bundles come, and what is believed of a bundle that came (SPIFFE Federation §4 to §7).
//!
//! A foreign root vouches for its own trust domain alone: a bundle is held under the name that an operator gave, never under one that the
//! document or its URL suggests, and no key is held for two trust domains.

mod endpoint;
mod receipt;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::SystemTime;

use portcullis_identity::{BundleDocument, InvalidDocument, NodeName, ParsedDocument, TrustDomain};

pub use self::endpoint::{Endpoint, EndpointUrl, InvalidUrl, Profile};
pub use self::receipt::{BundleRefusal, Notice};

use super::Registry;
use super::bounds::{self, at_most};
use super::command::Change;
use super::plan::Plan;
use super::record::Entry;
use super::refusal::Refusal;

/// A foreign trust domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForeignDomain {
    /// Its name, by the operator's word.
    pub name: TrustDomain,
    /// From where its bundle comes; `None`: from a file, by hand.
    pub endpoint: Option<Endpoint>,
    /// What is trusted of it; `None` until there is one.
    pub bundle: Option<Arc<HeldBundle>>,
}

/// A bundle that is believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldBundle {
    /// The document.
    pub document: BundleDocument,
    /// As it came, to be read again by a version that may know more of it.
    pub json: Box<[u8]>,
    /// When it came.
    pub received_at: SystemTime,
}

/// A foreign trust domain to be trusted.
#[derive(Debug, Clone)]
pub struct NewDomain {
    /// Its name.
    pub name: TrustDomain,
    /// From where its bundle comes.
    pub endpoint: Option<Endpoint>,
    /// What is trusted at first.
    pub bundle: Option<Arc<HeldBundle>>,
}

/// A bundle that came for a foreign trust domain.
#[derive(Debug, Clone)]
pub struct Receipt {
    /// Whose.
    pub name: TrustDomain,
    /// From where it came: a relationship that was made anew meanwhile believes nothing of the old one's.
    pub endpoint: Option<Endpoint>,
    /// What came.
    pub bundle: Arc<HeldBundle>,
}

impl HeldBundle {
    /// Reads the document of `name`.
    ///
    /// # Errors
    /// When it is no bundle document. What it says is judged by the registry.
    pub fn read(
        json: &[u8],
        name: &TrustDomain,
        received_at: SystemTime,
    ) -> Result<(Self, Vec<String>), InvalidDocument> {
        let ParsedDocument { document, ignored } = BundleDocument::parse(json, name)?;
        let ignored = ignored.iter().map(ToString::to_string).collect();
        Ok((Self { document, json: json.into(), received_at }, ignored))
    }

    /// SHA-256 of each key that it trusts to sign X.509-SVIDs.
    pub fn x509_keys(&self) -> impl Iterator<Item = [u8; 32]> {
        self.document.x509().authorities().iter().map(portcullis_identity::Authority::public_key_sha256)
    }
}

impl Registry {
    /// A foreign trust domain.
    #[must_use]
    pub fn domain(&self, name: &TrustDomain) -> Option<&Arc<ForeignDomain>> {
        self.domains.get(name)
    }

    /// Every foreign trust domain.
    pub fn domains(&self) -> impl ExactSizeIterator<Item = &Arc<ForeignDomain>> {
        self.domains.values()
    }

    /// The foreign trust domains whose members a workload of `node` may meet at all: those that its entries federate with.
    #[must_use]
    pub fn seen_by(&self, node: &NodeName) -> BTreeSet<TrustDomain> {
        self.entries_of(node).flat_map(|entry| federates_with(entry)).cloned().collect()
    }

    pub(super) fn plan_domain(&self, new: NewDomain) -> Result<Plan, Refusal> {
        let NewDomain { name, endpoint, bundle } = new;
        if name == self.trust_domain {
            return Err(Refusal::OwnDomain(name));
        }
        if self.domains.contains_key(&name) {
            return Err(Refusal::DomainExists(name));
        }
        at_most("foreign trust domains", self.domains.len().saturating_add(1), bounds::DOMAINS)?;
        self.check_endpoint(&name, endpoint.as_ref(), bundle.as_deref())?;
        if let Some(bundle) = &bundle {
            self.check_bundle(&name, None, bundle)?;
        }
        Ok(Plan::of(vec![Change::Domain(Arc::new(ForeignDomain { name, endpoint, bundle }))]))
    }

    pub(super) fn plan_domain_removal(&self, name: TrustDomain) -> Result<Plan, Refusal> {
        if !self.domains.contains_key(&name) {
            return Err(Refusal::NoDomain(name));
        }
        Ok(Plan::of(vec![Change::DomainRemoved(name)]))
    }

    pub(super) fn plan_receipt(&self, receipt: Receipt) -> Result<Plan, Refusal> {
        let Receipt { name, endpoint, bundle } = receipt;
        let known = self.domains.get(&name).filter(|known| known.endpoint == endpoint);
        let known = known.ok_or_else(|| Refusal::NoDomain(name.clone()))?;
        self.check_bundle(&name, known.bundle.as_deref(), &bundle)?;
        if known.bundle.as_ref().is_some_and(|held| held.document == bundle.document) {
            return Ok(Plan::default());
        }
        Ok(Plan::of(vec![Change::Domain(Arc::new(ForeignDomain { name, endpoint, bundle: Some(bundle) }))]))
    }

    /// An endpoint that proves itself by SPIFFE must be provable from the first fetch on (Federation §5.2.2.2).
    fn check_endpoint(
        &self,
        name: &TrustDomain,
        endpoint: Option<&Endpoint>,
        bundle: Option<&HeldBundle>,
    ) -> Result<(), Refusal> {
        let Some(endpoint) = endpoint else {
            return if bundle.is_some() { Ok(()) } else { Err(Refusal::NoBundle(name.clone())) };
        };
        match &endpoint.profile {
            Profile::HttpsWeb => Ok(()),
            Profile::HttpsSpiffe(id) => {
                let of_endpoint = id.trust_domain();
                let provable = *of_endpoint == self.trust_domain
                    || if of_endpoint == name { bundle.is_some() } else { self.domains.contains_key(of_endpoint) };
                if provable { Ok(()) } else { Err(Refusal::NoSeed(id.clone())) }
            }
        }
    }

    fn check_bundle(
        &self,
        name: &TrustDomain,
        held: Option<&HeldBundle>,
        offered: &HeldBundle,
    ) -> Result<(), BundleRefusal> {
        receipt::judge(held, offered)?;
        for key in offered.x509_keys() {
            let others = self.domains.values().filter(|other| other.name != *name);
            let shared = others.filter_map(|other| Some((&other.name, other.bundle.as_ref()?)));
            if let Some((other, _)) = shared.into_iter().find(|(_, bundle)| bundle.x509_keys().any(|held| held == key))
            {
                return Err(BundleRefusal::SharedAuthority { other: other.clone() });
            }
        }
        Ok(())
    }
}

/// The foreign trust domains that the holder of an entry may meet.
fn federates_with(entry: &Entry) -> impl Iterator<Item = &TrustDomain> {
    entry.terms.federates_with.iter()
}

#[cfg(test)]
mod tests;
