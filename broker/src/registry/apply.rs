//! Makes the changes that were planned and stored.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use portcullis_identity::{NodeName, SpiffeId, Target};
use portcullis_policy::{Admissions, Schema};

use super::Registry;
use super::command::Change;
use super::held::{self, Held};
use super::record::{Component, EntryId, Version};

impl Registry {
    /// Makes the change that a plan described, after it was stored. `schema` is the plan's, where it made a new one.
    pub fn apply(&mut self, changes: &[Change], version: Version, schema: Option<Arc<Schema>>) {
        self.version = version;
        if let Some(schema) = schema {
            self.schema = schema;
        }
        let mut altered = BTreeSet::new();
        for change in changes {
            self.apply_one(change, &mut altered);
        }
        let of_hosts = |change: &Change| matches!(change, Change::Admissions(_) | Change::AdmissionsRemoved(_));
        if changes.iter().any(of_hosts) {
            let sets = self.admission_files.values().map(|document| &document.set);
            // Ids are unique, as the plan saw to; were one not, everything would be denied.
            self.admissions = Arc::new(Admissions::new(sets).unwrap_or_default());
        }
        for target in altered {
            self.marks.lattices.insert(target.lattice.clone(), version.epoch);
            if let Some(held) = self.held_mut(&target) {
                held.refresh();
            }
        }
    }

    #[expect(clippy::too_many_lines, reason = "an arm for each kind of change")]
    fn apply_one(&mut self, change: &Change, altered: &mut BTreeSet<Target>) {
        match change {
            Change::Component(component) => {
                self.put_component(component);
                altered.insert(component.target.clone());
            }
            Change::ComponentRemoved(target) => {
                self.remove_component(target);
                altered.insert(target.clone());
            }
            Change::Entry(entry) => {
                self.mark_node(&entry.node);
                self.mark_name(&entry.spiffe_id);
                self.entries_of.entry(entry.node.clone()).or_default().insert(entry.id.clone());
                self.entries_for.entry(entry.spiffe_id.clone()).or_default().insert(entry.id.clone());
                self.entries.insert(entry.id.clone(), Arc::clone(entry));
            }
            Change::EntryRemoved(id) => self.remove_entry(id),
            Change::Template(template) => {
                self.mark_node(&template.node);
                self.templates.insert(template.id.clone(), Arc::clone(template));
            }
            Change::TemplateRemoved(id) => {
                if let Some(template) = self.templates.remove(id) {
                    self.mark_node(&template.node);
                }
            }
            Change::Node(node) => {
                self.mark_node(&node.name);
                self.nodes.insert(node.name.clone(), Arc::clone(node));
            }
            Change::NodeRemoved(name) => {
                self.mark_node(name);
                self.nodes.remove(name);
            }
            Change::Token(token) => {
                self.tokens.insert(token.index, Arc::clone(token));
            }
            Change::TokenRemoved(index) => {
                self.tokens.remove(index);
            }
            Change::Policies(document) => {
                let sliced = self.each_held(|held| held.put_policies(document));
                altered.extend(sliced);
                self.policies.insert(document.name.clone(), Arc::clone(document));
            }
            Change::PoliciesRemoved(name) => {
                let sliced = self.each_held(|held| held.remove_policies(name));
                altered.extend(sliced);
                self.policies.remove(name);
            }
            Change::Admissions(document) => {
                self.admission_files.insert(document.name.clone(), Arc::clone(document));
            }
            Change::AdmissionsRemoved(name) => {
                self.admission_files.remove(name);
            }
            Change::Domain(domain) => {
                self.marks.domains.insert(domain.name.clone(), self.version.epoch);
                self.domains.insert(domain.name.clone(), Arc::clone(domain));
            }
            Change::DomainRemoved(name) => {
                self.marks.domains.insert(name.clone(), self.version.epoch);
                self.domains.remove(name);
            }
            Change::Grant(target, spiffe_id) => self.alter(target, altered, |held| {
                held.grants.insert(spiffe_id.clone());
            }),
            Change::GrantRemoved(target, spiffe_id) => self.alter(target, altered, |held| {
                held.grants.remove(spiffe_id);
            }),
            Change::Addresses(target, node, addresses) => self.alter(target, altered, |held| {
                if addresses.is_empty() {
                    held.addresses.remove(node);
                } else {
                    held.addresses.insert(node.clone(), addresses.clone());
                }
            }),
            Change::Trust(change) => self.apply_trust(change),
        }
    }

    fn put_component(&mut self, component: &Arc<Component>) {
        let target = &component.target;
        if let Some(old) = self.component(target).map(|component| component.spiffe_id.clone()) {
            self.no_longer_serving(&old, target);
        }
        self.serving.entry(component.spiffe_id.clone()).or_default().insert(target.clone());
        self.marks.serving = self.version.epoch;
        self.marks.names.insert(target.lattice.clone(), self.version.epoch);
        if let Some(held) = self.held_mut(target) {
            held.component = Arc::clone(component);
            return;
        }
        let mut held = Held::new(Arc::clone(component));
        for document in self.policies.values() {
            held.put_policies(document);
        }
        self.components.entry(target.lattice.clone()).or_default().insert(target.id.clone(), held);
    }

    fn remove_component(&mut self, target: &Target) {
        let Some(of_lattice) = self.components.get_mut(&target.lattice) else {
            return;
        };
        let Some(held) = of_lattice.remove(&target.id) else {
            return;
        };
        self.marks.names.insert(target.lattice.clone(), self.version.epoch);
        if of_lattice.is_empty() {
            self.components.remove(&target.lattice);
        }
        self.no_longer_serving(&held.component.spiffe_id, target);
    }

    fn no_longer_serving(&mut self, spiffe_id: &SpiffeId, target: &Target) {
        let Some(targets) = self.serving.get_mut(spiffe_id) else {
            return;
        };
        targets.remove(target);
        if targets.is_empty() {
            self.serving.remove(spiffe_id);
        }
    }

    fn remove_entry(&mut self, id: &EntryId) {
        let Some(entry) = self.entries.remove(id) else { return };
        self.mark_node(&entry.node);
        self.mark_name(&entry.spiffe_id);
        if let Some(ids) = self.entries_for.get_mut(&entry.spiffe_id) {
            ids.remove(id);
            if ids.is_empty() {
                self.entries_for.remove(&entry.spiffe_id);
            }
        }
        let Some(ids) = self.entries_of.get_mut(&entry.node) else {
            return;
        };
        ids.remove(id);
        if ids.is_empty() {
            self.entries_of.remove(&entry.node);
        }
    }

    fn mark_node(&mut self, node: &NodeName) {
        self.marks.nodes.insert(node.clone(), self.version.epoch);
    }

    fn alter(&mut self, target: &Target, altered: &mut BTreeSet<Target>, change: impl FnOnce(&mut Held)) {
        if let Some(held) = self.held_mut(target) {
            change(held);
            altered.insert(target.clone());
        }
    }

    /// The targets of those components that `change` altered.
    fn each_held(&mut self, change: impl Fn(&mut Held) -> held::Altered) -> Vec<Target> {
        let all = self.components.values_mut().flat_map(BTreeMap::values_mut);
        all.filter_map(|held| match change(held) {
            held::Altered::Yes => Some(held.component.target.clone()),
            held::Altered::No => None,
        })
        .collect()
    }
}
