//! Under which short names identities call where the address carries the caller (D7): one token of a subject, and the identity it stands
//! for in a lattice.
//!
//! Nothing is registered for it. The identity that serves the virtual component `LATTICE/ID` is `ID` there, and so is who has an entry for
//! `/component/LATTICE/ID` or `/virtual/LATTICE/ID`. Where that makes two of one name, the name is nobody's: a callee must never take one
//! caller for another. Every other identity has no name, and calls over QUIC alone.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use portcullis_identity::{ComponentId, Lattice, SpiffeId, Target, component_id, lattice_name, virtual_component_id};
use portcullis_policy::{Engine, Principal, Transport};

use super::Registry;
use super::explanation::engine;
use super::record::Served;

impl Registry {
    /// Whose name `name` is.
    #[must_use]
    pub fn caller(&self, name: &Target) -> Option<SpiffeId> {
        let serving = self.component(name).map(|component| component.spiffe_id.clone());
        let derived = [component_id(&self.trust_domain, name), virtual_component_id(&self.trust_domain, name)];
        let registered = derived.into_iter().filter(|id| self.entries_for.contains_key(id));
        let holders: BTreeSet<SpiffeId> = serving.into_iter().chain(registered).collect();
        if holders.len() == 1 { holders.into_iter().next() } else { None }
    }

    /// The names of `id`, in all lattices.
    #[must_use]
    pub fn names_of(&self, id: &SpiffeId) -> BTreeSet<Target> {
        let serving = self.serving.get(id).into_iter().flatten().cloned();
        let own = id.is_member_of(&self.trust_domain);
        let derived = own.then(|| lattice_name(id)).flatten().filter(|_| self.entries_for.contains_key(id));
        serving.chain(derived).filter(|name| self.caller(name).as_ref() == Some(id)).collect()
    }

    /// Every name in `lattice`, and whose it is.
    #[must_use]
    pub fn callers_in(&self, lattice: &Lattice) -> BTreeMap<ComponentId, SpiffeId> {
        let serving = self.components.get(lattice).into_iter().flat_map(BTreeMap::keys).cloned();
        let derived = self.entries_for.keys().filter(|id| id.is_member_of(&self.trust_domain)).filter_map(lattice_name);
        let derived = derived.filter(|name| name.lattice == *lattice).map(|name| name.id);
        let names: BTreeSet<ComponentId> = serving.chain(derived).collect();
        names
            .into_iter()
            .filter_map(|id| {
                let name = Target { lattice: lattice.clone(), id };
                self.caller(&name).map(|holder| (name.id, holder))
            })
            .collect()
    }

    /// Whether a name in `lattice` may be another's, or nobody's, since `epoch`. A `false` is certain.
    #[must_use]
    pub fn names_may_have_changed(&self, lattice: &Lattice, epoch: u64) -> bool {
        self.marks.names.get(lattice).is_some_and(|at| *at > epoch)
    }

    /// The default ID whose name in a lattice may be another's from now on.
    pub(super) fn mark_name(&mut self, id: &SpiffeId) {
        if let Some(name) = lattice_name(id) {
            self.marks.names.insert(name.lattice, self.version.epoch);
        }
    }

    /// The virtual components that `id` serves, as their sidecar sees them.
    pub fn served_by(&self, id: &SpiffeId) -> impl Iterator<Item = &Arc<Served>> {
        self.serving.get(id).into_iter().flatten().filter_map(|target| self.served(target))
    }

    /// The virtual components of `lattice`, as their sidecars see them.
    pub fn served_in(&self, lattice: &Lattice) -> impl Iterator<Item = &Arc<Served>> {
        self.components.get(lattice).into_iter().flat_map(BTreeMap::values).map(|held| &held.served)
    }
}

/// Which callers the policies of one virtual component could allow something.
#[derive(Debug)]
pub struct Prospects {
    /// `None` where the policies cannot be decided with: then they deny.
    engine: Option<Engine>,
    /// Some function's policies read its parameters, which nobody knows before the call.
    open: bool,
}

impl Prospects {
    /// The prospects with what the component's sidecar decides with.
    #[must_use]
    pub fn of(served: &Served) -> Self {
        let engine = if served.policies.is_empty() { None } else { engine(served).ok() };
        let functions = served.component.surface.interfaces.iter().flat_map(|interface| {
            interface.functions.iter().map(|function| (interface.name.as_str(), function.name.as_str()))
        });
        let reads = |engine: &Engine, (instance, function): (&str, &str)| {
            engine.action(instance, function).is_some_and(|action| engine.reads_params(action))
        };
        let open = engine.as_ref().is_some_and(|engine| functions.into_iter().any(|function| reads(engine, function)));
        Self { engine, open }
    }

    /// Whether `caller` could be allowed a function over NATS. A `false` is certain.
    #[must_use]
    pub fn could_allow(&self, caller: &SpiffeId) -> bool {
        let may = |engine: &Engine| {
            let principal = Principal::workload(&caller.to_string(), caller.trust_domain_name(), caller.path());
            engine.may_call_any(&principal, Transport::Nats)
        };
        self.engine.as_ref().is_some_and(|engine| self.open || may(engine))
    }
}
