//! Registration entries: which node may ask for which SPIFFE ID, and on which terms.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use portcullis_identity::{NodeName, SpiffeId, component_id};

use super::Plan;
use crate::registry::Registry;
use crate::registry::bounds::{self, at_most};
use crate::registry::command::{Amendment, Change, Holder, NewEntry, Present};
use crate::registry::record::{Entry, EntryId};
use crate::registry::refusal::Refusal;
use crate::registry::template::Template;
use crate::registry::terms::Terms;

impl Registry {
    pub(super) fn plan_entry(&self, new: NewEntry, now: SystemTime) -> Result<Plan, Refusal> {
        let NewEntry { node, holder, terms } = new;
        let Holder::Template { pattern, lattice } = holder else {
            return self.plan_entries(vec![NewEntry { node, holder, terms }], now);
        };
        self.check_terms(&terms)?;
        let id = self.next_entry_id();
        self.plan_template(Template { id, pattern, node, lattice, terms, created_at: now })
    }

    /// Each new entry is named by an epoch of its own; the change has the last of them.
    pub(super) fn plan_entries(&self, wanted: Vec<NewEntry>, now: SystemTime) -> Result<Plan, Refusal> {
        at_most("entries in one request", wanted.len(), bounds::ENTRIES_AT_ONCE)?;
        let mut plan = Plan::default();
        let mut made: BTreeMap<(NodeName, SpiffeId), Vec<Arc<Entry>>> = BTreeMap::new();
        let mut version = self.next_version();
        for new in wanted {
            let entry = self.new_entry(new, EntryId::made_at(version), now)?;
            let same = (entry.node.clone(), entry.spiffe_id.clone());
            let known = self
                .alike(&entry)
                .or_else(|| made.get(&same).into_iter().flatten().find(|other| other.names_as(&entry)));
            match known {
                Some(old) if old.says_as(&entry) => plan.entries.push(old.id.clone()),
                Some(old) => return Err(Refusal::EntryExists { id: old.id.clone() }),
                None => {
                    self.add_entry(entry, &mut plan)?;
                    if let Some(Change::Entry(entry)) = plan.changes.last() {
                        made.entry(same).or_default().push(Arc::clone(entry));
                    }
                    version = version.next();
                }
            }
        }
        plan.further_epochs = u64::try_from(plan.changes.len()).unwrap_or(u64::MAX).saturating_sub(1);
        Ok(plan)
    }

    fn new_entry(&self, new: NewEntry, id: EntryId, now: SystemTime) -> Result<Entry, Refusal> {
        let NewEntry { node, holder, terms } = new;
        let (spiffe_id, lattice, digest) = match holder {
            Holder::Component { target, digest } => {
                (component_id(&self.trust_domain, &target), Some(target.lattice), digest)
            }
            Holder::Workload { spiffe_id, lattice, digest } => (spiffe_id, lattice, digest),
            Holder::Template { pattern, .. } => return Err(Refusal::TemplateAmongEntries(pattern)),
        };
        self.check_terms(&terms)?;
        Ok(Entry { id, spiffe_id, node, digest, lattice, terms, created_at: now, template: None })
    }

    /// Adds to `plan` the entry by which a node serves a component.
    ///
    /// One that is there already is taken; a registration may alter its lifetime, and leaves alone what it does not speak of.
    pub(super) fn put_serving_entry(&self, entry: Entry, present: Present, plan: &mut Plan) -> Result<(), Refusal> {
        let Some(old) = self.alike(&entry) else {
            return self.add_entry(entry, plan);
        };
        plan.entries.push(old.id.clone());
        let terms = Terms { ttl: entry.terms.ttl, ..old.terms.clone() };
        let altered = Entry { lattice: entry.lattice, terms, ..Entry::clone(old) };
        match present {
            _ if **old == altered => {}
            Present::Refuse => return Err(Refusal::EntryExists { id: old.id.clone() }),
            Present::Replace => plan.changes.push(Change::Entry(Arc::new(altered))),
        }
        Ok(())
    }

    /// What an operator says of an entry anew. One that says what it said before changes nothing.
    pub(super) fn plan_amendment(&self, amendment: Amendment) -> Result<Plan, Refusal> {
        if self.template(&amendment.id).is_some() {
            return Err(Refusal::IsTemplate(amendment.id));
        }
        let Amendment { id, selectors, ttl, jwt_ttl, hint, dns_names, federates_with, admin } = amendment;
        let entry = self.entries.get(&id).ok_or_else(|| Refusal::NoEntry(id.clone()))?;
        let old = entry.terms.clone();
        let terms = Terms {
            selectors: selectors.unwrap_or(old.selectors),
            ttl: ttl.unwrap_or(old.ttl),
            jwt_ttl: jwt_ttl.unwrap_or(old.jwt_ttl),
            hint: hint.unwrap_or(old.hint),
            dns_names: dns_names.unwrap_or(old.dns_names),
            federates_with: federates_with.unwrap_or(old.federates_with),
            admin: admin.unwrap_or(old.admin),
        };
        self.check_terms(&terms)?;
        let altered = Entry { terms, ..Entry::clone(entry) };
        if let Some(other) = self.alike(&altered).filter(|other| other.id != id) {
            return Err(Refusal::EntryExists { id: other.id.clone() });
        }
        let changes = if altered == **entry { Vec::new() } else { vec![Change::Entry(Arc::new(altered))] };
        Ok(Plan { changes, entries: vec![id], ..Plan::default() })
    }

    pub(super) fn plan_entry_removal(&self, id: &EntryId) -> Result<Plan, Refusal> {
        if let Some(template) = self.template(id) {
            return Ok(self.plan_template_removal(template));
        }
        let entry = self.entries.get(id).ok_or_else(|| Refusal::NoEntry(id.clone()))?;
        let others: Vec<_> = self.entries_of(&entry.node).filter(|other| other.id != *id).collect();
        let mut changes = self.withdrawn_addresses(&entry.node, |held| {
            others.iter().any(|other| other.spiffe_id == held.component.spiffe_id)
        });
        changes.push(Change::EntryRemoved(id.clone()));
        Ok(Plan { changes, ..Plan::default() })
    }

    /// The name of the one entry that a command makes.
    pub(super) fn next_entry_id(&self) -> EntryId {
        EntryId::made_at(self.next_version())
    }

    /// The entry that names the same holder: two of them would be one rule written twice.
    pub(super) fn alike(&self, entry: &Entry) -> Option<&Arc<Entry>> {
        self.entries_of(&entry.node).find(|old| old.names_as(entry))
    }

    pub(super) fn add_entry(&self, entry: Entry, plan: &mut Plan) -> Result<(), Refusal> {
        self.check_assignable(&entry.spiffe_id)?;
        let made = plan.changes.iter().filter(|change| matches!(change, Change::Entry(_))).count();
        at_most("entries", self.entries.len().saturating_add(made).saturating_add(1), bounds::ENTRIES)?;
        plan.entries.push(entry.id.clone());
        plan.changes.push(Change::Entry(Arc::new(entry)));
        Ok(())
    }

    fn check_terms(&self, terms: &Terms) -> Result<(), Refusal> {
        if terms.federates_with.contains(&self.trust_domain) {
            return Err(Refusal::OwnTrustDomain(self.trust_domain.clone()));
        }
        Ok(())
    }
}
