//! What one node may see of the registry, and what changed between two such views.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use portcullis_identity::{Lattice, NodeName, Revocation, SpiffeId, Target, TrustDomain};

use super::authority::OwnBundle;
use super::foreign::HeldBundle;
use super::record::{Entry, EntryId, PeerRecord, Served, Version};
use super::template::Template;
use super::{Registry, Revoking};

/// The part of the registry that a node may see: its entries, the components in their lattices, the components it serves.
///
/// It shares its records with the registry, so keeping one costs little, and comparing two is comparing pointers.
#[derive(Debug, Clone)]
pub struct NodeView {
    /// The registry's version when the view was taken.
    pub version: Version,
    /// Whose view it is.
    pub node: NodeName,
    /// What it may ask SVIDs for.
    pub entries: BTreeMap<EntryId, Arc<Entry>>,
    /// What it makes entries of.
    pub templates: BTreeMap<EntryId, Arc<Template>>,
    /// What is in its lattices.
    pub components: BTreeMap<Target, Arc<PeerRecord>>,
    /// What it serves: components whose SPIFFE ID is that of one of its entries.
    pub served: BTreeMap<Target, Arc<Served>>,
    /// What it trusts.
    pub bundle: Arc<OwnBundle>,
    /// What it refuses all the same.
    pub revocations: Revoking,
    /// The foreign trust domains that its entries federate with, as far as there are bundles of them.
    pub bundles: BTreeMap<TrustDomain, Arc<HeldBundle>>,
    lattices: BTreeSet<Lattice>,
    domains: BTreeSet<TrustDomain>,
}

/// What a node has to alter to get from one view to a later one.
#[derive(Debug)]
pub struct ViewChange {
    /// The later view's.
    pub version: Version,
    /// New or altered.
    pub entries: Vec<Arc<Entry>>,
    /// Gone.
    pub entries_removed: Vec<EntryId>,
    /// New.
    pub templates: Vec<Arc<Template>>,
    /// Gone.
    pub templates_removed: Vec<EntryId>,
    /// New or altered.
    pub components: Vec<Arc<PeerRecord>>,
    /// Gone, or no longer to be seen.
    pub components_removed: Vec<Target>,
    /// New or altered.
    pub served: Vec<Arc<Served>>,
    /// Gone, or served no longer.
    pub served_removed: Vec<Target>,
    /// Where it is another one.
    pub bundle: Option<Arc<OwnBundle>>,
    /// New or extended.
    pub revocations: Vec<Arc<Revocation>>,
    /// New or altered.
    pub bundles: Vec<Arc<HeldBundle>>,
    /// Trusted no more, or no longer to be seen.
    pub bundles_removed: Vec<TrustDomain>,
}

impl Registry {
    /// What `node` may see now.
    #[must_use]
    pub fn view(&self, node: &NodeName) -> NodeView {
        let entries: BTreeMap<_, _> =
            self.entries_of(node).map(|entry| (entry.id.clone(), Arc::clone(entry))).collect();
        let mut lattices: BTreeSet<Lattice> = entries.values().filter_map(|entry| entry.lattice.clone()).collect();
        let ids: BTreeSet<&SpiffeId> = entries.values().map(|entry| &entry.spiffe_id).collect();
        let mut served = BTreeMap::new();
        for target in ids.into_iter().filter_map(|id| self.serving.get(id)).flatten() {
            if let Some(held) = self.held(target) {
                lattices.insert(target.lattice.clone());
                served.insert(target.clone(), Arc::clone(&held.served));
            }
        }
        let components = lattices
            .iter()
            .filter_map(|lattice| self.components.get(lattice))
            .flat_map(BTreeMap::values)
            .map(|held| (held.record.target.clone(), Arc::clone(&held.record)))
            .collect();
        let domains = self.seen_by(node);
        let bundle_of = |name: &TrustDomain| Some((name.clone(), Arc::clone(self.domain(name)?.bundle.as_ref()?)));
        let bundles = domains.iter().filter_map(bundle_of).collect();
        NodeView {
            version: self.version,
            node: node.clone(),
            entries,
            templates: self.templates_of(node).map(|template| (template.id.clone(), Arc::clone(template))).collect(),
            components,
            served,
            bundle: Arc::clone(&self.bundle),
            revocations: Arc::clone(&self.revocations),
            bundles,
            lattices,
            domains,
        }
    }

    /// Whether something that `view` shows may have changed since it was taken. A `false` is certain, a `true` is not.
    #[must_use]
    pub fn may_have_changed(&self, view: &NodeView) -> bool {
        let later = |epoch: Option<&u64>| epoch.is_some_and(|epoch| *epoch > view.version.epoch);
        self.marks.all > view.version.epoch
            || later(self.marks.nodes.get(&view.node))
            || view.domains.iter().any(|domain| later(self.marks.domains.get(domain)))
            || view.lattices.iter().any(|lattice| later(self.marks.lattices.get(lattice)))
            // A component registered for an entry that served none so far lies in a lattice the view does not know of.
            || self.marks.serving > view.version.epoch
                && view.entries.values().any(|entry| self.serves_unseen(&entry.spiffe_id, view))
    }

    /// Whether `node` serves `target`.
    #[must_use]
    pub fn is_served_by(&self, target: &Target, node: &NodeName) -> bool {
        self.component(target)
            .is_some_and(|component| self.entries_of(node).any(|entry| entry.spiffe_id == component.spiffe_id))
    }

    /// Whether `node` may look into `lattice`.
    #[must_use]
    pub fn may_see(&self, node: &NodeName, lattice: &Lattice) -> bool {
        self.entries_of(node).any(|entry| {
            entry.lattice.as_ref() == Some(lattice)
                || self.serving.get(&entry.spiffe_id).into_iter().flatten().any(|target| target.lattice == *lattice)
        })
    }

    fn serves_unseen(&self, id: &SpiffeId, view: &NodeView) -> bool {
        self.serving.get(id).into_iter().flatten().any(|target| !view.served.contains_key(target))
    }
}

impl NodeView {
    /// What changed from this view to `later`; `None` where nothing did.
    #[must_use]
    pub fn change_to(&self, later: &Self) -> Option<ViewChange> {
        let (entries, entries_removed) = difference(&self.entries, &later.entries);
        let (templates, templates_removed) = difference(&self.templates, &later.templates);
        let (components, components_removed) = difference(&self.components, &later.components);
        let (served, served_removed) = difference(&self.served, &later.served);
        let bundle = (self.bundle != later.bundle).then(|| Arc::clone(&later.bundle));
        let (revocations, _) = difference(&self.revocations, &later.revocations);
        let (bundles, bundles_removed) = difference(&self.bundles, &later.bundles);
        let nothing = bundle.is_none()
            && revocations.is_empty()
            && entries.is_empty()
            && entries_removed.is_empty()
            && templates.is_empty()
            && templates_removed.is_empty()
            && components.is_empty()
            && components_removed.is_empty()
            && served.is_empty()
            && served_removed.is_empty()
            && bundles.is_empty()
            && bundles_removed.is_empty();
        (!nothing).then_some(ViewChange {
            version: later.version,
            entries,
            entries_removed,
            templates,
            templates_removed,
            components,
            components_removed,
            served,
            served_removed,
            bundle,
            revocations,
            bundles,
            bundles_removed,
        })
    }
}

/// What is new or altered, and what is gone.
fn difference<K: Ord + Clone, V>(old: &BTreeMap<K, Arc<V>>, new: &BTreeMap<K, Arc<V>>) -> (Vec<Arc<V>>, Vec<K>) {
    let altered = |(key, value): &(&K, &Arc<V>)| !old.get(*key).is_some_and(|old| Arc::ptr_eq(old, value));
    let put = new.iter().filter(altered).map(|(_, value)| Arc::clone(value)).collect();
    let removed = old.keys().filter(|key| !new.contains_key(*key)).cloned().collect();
    (put, removed)
}
