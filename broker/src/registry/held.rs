//! A component with everything that hangs on it, and what nodes see of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use portcullis_identity::{NodeName, SpiffeId};
use portcullis_policy::PolicyText;

use super::address::Address;
use super::record::{Component, PeerRecord, PolicyDocument, Served};

/// Whether something became different.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Altered {
    Yes,
    No,
}

/// A registered component in memory. `record` and `served` follow from the rest: [`Held::refresh`].
#[derive(Debug)]
pub(super) struct Held {
    pub(super) component: Arc<Component>,
    pub(super) grants: BTreeSet<SpiffeId>,
    pub(super) addresses: BTreeMap<NodeName, Vec<Address>>,
    /// Of each policy file, what could match this component.
    slices: BTreeMap<String, Vec<PolicyText>>,
    pub(super) record: Arc<PeerRecord>,
    pub(super) served: Arc<Served>,
}

impl Held {
    pub(super) fn new(component: Arc<Component>) -> Self {
        let record = Arc::new(record(&component, &BTreeMap::new()));
        let served = Arc::new(Served {
            record: Arc::clone(&record),
            component: Arc::clone(&component),
            policies: Vec::new(),
            grants: Vec::new(),
        });
        Self { component, grants: BTreeSet::new(), addresses: BTreeMap::new(), slices: BTreeMap::new(), record, served }
    }

    /// Takes over what `document` has for this component.
    pub(super) fn put_policies(&mut self, document: &PolicyDocument) -> Altered {
        let surface = &self.component.surface;
        let slice = document.set.for_component(&surface.lattice, &surface.id).policies().to_vec();
        let old = if slice.is_empty() {
            self.slices.remove(&document.name)
        } else {
            self.slices.insert(document.name.clone(), slice.clone())
        };
        if old.unwrap_or_default() == slice { Altered::No } else { Altered::Yes }
    }

    pub(super) fn remove_policies(&mut self, name: &str) -> Altered {
        if self.slices.remove(name).is_some() { Altered::Yes } else { Altered::No }
    }

    /// Makes what nodes see anew. An unchanged record keeps its identity, so that it is not shipped again.
    pub(super) fn refresh(&mut self) {
        let record = record(&self.component, &self.addresses);
        if record != *self.record {
            self.record = Arc::new(record);
        }
        self.served = Arc::new(Served {
            record: Arc::clone(&self.record),
            component: Arc::clone(&self.component),
            policies: self.slices.values().flatten().cloned().collect(),
            grants: self.grants.iter().cloned().collect(),
        });
    }
}

fn record(component: &Component, addresses: &BTreeMap<NodeName, Vec<Address>>) -> PeerRecord {
    let distinct: BTreeSet<_> = addresses.values().flatten().chain(&component.addresses).cloned().collect();
    PeerRecord {
        target: component.target.clone(),
        spiffe_id: component.spiffe_id.clone(),
        interfaces: component.interface_names().map(str::to_owned).collect(),
        addresses: distinct.into_iter().collect(),
    }
}
