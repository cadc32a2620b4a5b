//! Virtual components: registering, altering, removing; grants on them and where they are served.

use std::sync::Arc;
use std::time::SystemTime;

use portcullis_identity::{NodeName, SpiffeId, Target, virtual_component_id};

use super::{Plan, check_workload};
use crate::registry::Registry;
use crate::registry::bounds::{self, at_most, no_larger};
use crate::registry::command::{Announcement, Change, GrantChange, GrantDirection, Present, Registration};
use crate::registry::held::Held;
use crate::registry::record::{Component, Digest, Entry};
use crate::registry::refusal::Refusal;
use crate::registry::terms::Terms;

impl Registry {
    pub(super) fn plan_registration(&self, registration: Registration, now: SystemTime) -> Result<Plan, Refusal> {
        let Registration { target, wit, interfaces, spiffe_id, upstream, addresses, node, ttl, present } = registration;
        at_most("WIT files", wit.len(), bounds::WIT_FILES)?;
        let bytes =
            wit.iter().map(|file| file.path.len().saturating_add(file.text.len())).fold(0, usize::saturating_add);
        no_larger("the WIT", bytes, bounds::WIT_BYTES)?;
        at_most("interfaces of one component", interfaces.len(), bounds::INTERFACES)?;
        let spiffe_id = spiffe_id.unwrap_or_else(|| virtual_component_id(&self.trust_domain, &target));
        at_most("addresses", addresses.len(), bounds::ADDRESSES)?;
        if addresses.is_empty() {
            self.check_assignable(&spiffe_id)?;
        } else {
            self.check_foreign(&spiffe_id, node.as_ref())?;
        }
        let component = Arc::new(Component::read(target, spiffe_id, upstream, wit, &interfaces)?.at(addresses));
        at_most("interfaces of one component", component.surface.interfaces.len(), bounds::INTERFACES)?;

        let mut plan = Plan::default();
        match self.component(&component.target) {
            Some(old) if **old == *component => {}
            Some(_) if present == Present::Refuse => return Err(Refusal::ComponentExists(component.target.clone())),
            old => {
                if old.is_none() {
                    at_most("virtual components", self.component_count().saturating_add(1), bounds::COMPONENTS)?;
                }
                // Who served the old SPIFFE ID does not serve the new one.
                let moved = self.held(&component.target).filter(|held| held.component.spiffe_id != component.spiffe_id);
                let nodes = moved.into_iter().flat_map(|held| held.addresses.keys());
                plan.changes
                    .extend(nodes.map(|node| Change::Addresses(component.target.clone(), node.clone(), Vec::new())));
                plan.changes.push(Change::Component(Arc::clone(&component)));
                plan.schema = self.schema_for(&component)?;
            }
        }
        if let Some(node) = node {
            let entry = Entry {
                id: self.next_entry_id(),
                spiffe_id: component.spiffe_id.clone(),
                node,
                digest: Digest::NotApplicable,
                lattice: Some(component.target.lattice.clone()),
                terms: Terms::new(ttl),
                created_at: now,
                template: None,
            };
            self.put_serving_entry(entry, present, &mut plan)?;
        }
        Ok(plan)
    }

    /// What is served elsewhere is served by nobody here.
    fn check_foreign(&self, spiffe_id: &SpiffeId, node: Option<&NodeName>) -> Result<(), Refusal> {
        if spiffe_id.is_member_of(&self.trust_domain) || node.is_some() {
            return Err(Refusal::Announced(spiffe_id.clone()));
        }
        check_workload(spiffe_id)
    }

    /// A new schema is needed, and the policies need checking, only where what policy can see of the component changes.
    fn schema_for(&self, component: &Component) -> Result<Option<Arc<portcullis_policy::Schema>>, Refusal> {
        match self.component(&component.target) {
            Some(old) if old.surface == component.surface => Ok(None),
            _ => Ok(Some(Arc::new(self.schema_with(Some(component), None)?))),
        }
    }

    pub(super) fn plan_component_removal(&self, target: &Target) -> Result<Plan, Refusal> {
        let held = self.held(target).ok_or_else(|| Refusal::NoComponent(target.clone()))?;
        let schema = self.schema_with(None, Some(&held.component))?;
        let mut changes = Vec::new();
        changes.extend(held.grants.iter().map(|id| Change::GrantRemoved(target.clone(), id.clone())));
        changes.extend(held.addresses.keys().map(|node| Change::Addresses(target.clone(), node.clone(), Vec::new())));
        let serves_others = self.serving.get(&held.component.spiffe_id).is_some_and(|targets| targets.len() > 1);
        if !serves_others {
            let of_component = self.entries.values().filter(|entry| entry.spiffe_id == held.component.spiffe_id);
            changes.extend(of_component.map(|entry| Change::EntryRemoved(entry.id.clone())));
        }
        changes.push(Change::ComponentRemoved(target.clone()));
        Ok(Plan { changes, schema: Some(Arc::new(schema)), ..Plan::default() })
    }

    pub(super) fn plan_grant(&self, change: GrantChange) -> Result<Plan, Refusal> {
        let GrantChange { target, spiffe_id, direction } = change;
        let held = self.held(&target).ok_or_else(|| Refusal::NoComponent(target.clone()))?;
        let granted = held.grants.contains(&spiffe_id);
        let changes = match direction {
            GrantDirection::Give if granted => Vec::new(),
            GrantDirection::Give => {
                // A caller may be of another trust domain, but never of a control plane.
                check_workload(&spiffe_id)?;
                at_most("grants on one component", held.grants.len().saturating_add(1), bounds::GRANTS)?;
                vec![Change::Grant(target, spiffe_id)]
            }
            GrantDirection::TakeBack if granted => vec![Change::GrantRemoved(target, spiffe_id)],
            GrantDirection::TakeBack => return Err(Refusal::NotGranted { target, spiffe_id }),
        };
        Ok(Plan { changes, ..Plan::default() })
    }

    pub(super) fn plan_announcement(&self, announcement: Announcement) -> Result<Plan, Refusal> {
        let Announcement { node, target, addresses } = announcement;
        at_most("addresses", addresses.len(), bounds::ADDRESSES)?;
        let held = self.held(&target).filter(|_| self.is_served_by(&target, &node));
        // Whether the component exists is no business of a node that does not serve it.
        let Some(held) = held else {
            return Err(Refusal::NotServed { node, target });
        };
        let known = held.addresses.get(&node).map(Vec::as_slice).unwrap_or_default();
        let changes = if known == addresses { Vec::new() } else { vec![Change::Addresses(target, node, addresses)] };
        Ok(Plan { changes, ..Plan::default() })
    }

    /// The announcements of `node` that hold no longer once `remains` is false of a component.
    pub(super) fn withdrawn_addresses(&self, node: &NodeName, remains: impl Fn(&Held) -> bool) -> Vec<Change> {
        self.components
            .values()
            .flat_map(|of_lattice| of_lattice.values())
            .filter(|held| held.addresses.contains_key(node) && !remains(held))
            .map(|held| Change::Addresses(held.component.target.clone(), node.clone(), Vec::new()))
            .collect()
    }
}
