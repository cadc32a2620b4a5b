//! Registration entries: which node may ask for which SPIFFE ID.

use std::sync::Arc;

use portcullis_identity::component_id;

use super::Plan;
use crate::registry::Registry;
use crate::registry::bounds::{self, at_most};
use crate::registry::command::{Change, Holder, NewEntry, Present};
use crate::registry::record::{Entry, EntryId};
use crate::registry::refusal::Refusal;

impl Registry {
    pub(super) fn plan_entry(&self, new: NewEntry) -> Result<Plan, Refusal> {
        let NewEntry { node, holder, ttl } = new;
        let (spiffe_id, lattice, digest) = match holder {
            Holder::Component { target, digest } => {
                (component_id(&self.trust_domain, &target), Some(target.lattice), digest)
            }
            Holder::Workload { spiffe_id, lattice, digest } => (spiffe_id, lattice, digest),
        };
        let mut plan = Plan::default();
        self.put_entry(
            Entry { id: self.next_entry_id(), spiffe_id, node, digest, ttl, lattice },
            Present::Refuse,
            &mut plan,
        )?;
        Ok(plan)
    }

    /// Adds `entry` to `plan`. One that exists already, with the same node, ID and digest, is taken instead.
    pub(super) fn put_entry(&self, entry: Entry, present: Present, plan: &mut Plan) -> Result<(), Refusal> {
        self.check_assignable(&entry.spiffe_id)?;
        let same = |old: &&Arc<Entry>| old.spiffe_id == entry.spiffe_id && old.digest == entry.digest;
        if let Some(old) = self.entries_of(&entry.node).find(same) {
            plan.entry = Some(old.id.clone());
            let altered = Entry { id: old.id.clone(), ..entry.clone() };
            match present {
                _ if **old == altered => {}
                Present::Refuse => return Err(Refusal::EntryExists { id: old.id.clone() }),
                Present::Replace => plan.changes.push(Change::Entry(Arc::new(altered))),
            }
            return Ok(());
        }
        at_most("entries", self.entries.len().saturating_add(1), bounds::ENTRIES)?;
        plan.entry = Some(entry.id.clone());
        plan.changes.push(Change::Entry(Arc::new(entry)));
        Ok(())
    }

    pub(super) fn plan_entry_removal(&self, id: &EntryId) -> Result<Plan, Refusal> {
        let entry = self.entries.get(id).ok_or_else(|| Refusal::NoEntry(id.clone()))?;
        let others: Vec<_> = self.entries_of(&entry.node).filter(|other| other.id != *id).collect();
        let mut changes = self.withdrawn_addresses(&entry.node, |held| {
            others.iter().any(|other| other.spiffe_id == held.component.spiffe_id)
        });
        changes.push(Change::EntryRemoved(id.clone()));
        Ok(Plan { changes, ..Plan::default() })
    }

    /// One command makes at most one entry, so the epoch of its change names it.
    pub(super) fn next_entry_id(&self) -> EntryId {
        EntryId::made_at(self.next_version())
    }
}
