//! Templates, and the entries that they make.

use std::sync::Arc;
use std::time::SystemTime;

use super::Plan;
use crate::registry::Registry;
use crate::registry::bounds::{self, at_most};
use crate::registry::command::Change;
use crate::registry::record::{Digest, Entry};
use crate::registry::refusal::Refusal;
use crate::registry::selector::Selectors;
use crate::registry::template::{Filling, Template};
use crate::registry::terms::Terms;

impl Registry {
    pub(super) fn plan_template(&self, template: Template) -> Result<Plan, Refusal> {
        if *template.pattern.trust_domain() != self.trust_domain {
            return Err(Refusal::ForeignTemplate(template.pattern));
        }
        if let Some(old) = self.templates_of(&template.node).find(|old| old.says_as(&template)) {
            return Ok(Plan { entries: vec![old.id.clone()], ..Plan::default() });
        }
        at_most("templates", self.templates_of(&template.node).count().saturating_add(1), bounds::TEMPLATES)?;
        let entries = vec![template.id.clone()];
        Ok(Plan { changes: vec![Change::Template(Arc::new(template))], entries, ..Plan::default() })
    }

    /// The template, and whatever it made.
    pub(super) fn plan_template_removal(&self, template: &Template) -> Plan {
        let made = self.made_from(template).map(|entry| Change::EntryRemoved(entry.id.clone()));
        Plan::of(std::iter::once(Change::TemplateRemoved(template.id.clone())).chain(made).collect())
    }

    /// The entry for one workload that the template's node attested: found, or made.
    ///
    /// The node says values, never an ID: which ID they make is decided here, and demands of the holder that it has them.
    pub(super) fn plan_filling(&self, filling: &Filling, now: SystemTime) -> Result<Plan, Refusal> {
        let Filling { node, template, values } = filling;
        let found = self.template(template).filter(|template| template.node == *node);
        let template = found.ok_or_else(|| Refusal::NoEntry(template.clone()))?;
        let spiffe_id = template.pattern.fill(values)?;
        let attested = template.pattern.attributes().zip(values).map(|(attribute, value)| attribute.selector(value));
        let demanded = template.terms.selectors.iter().map(ToString::to_string).chain(attested);
        let selectors = Selectors::try_from(demanded.collect::<Vec<_>>())?;
        let entry = Entry {
            id: self.next_entry_id(),
            spiffe_id,
            node: node.clone(),
            digest: Digest::NotApplicable,
            lattice: template.lattice.clone(),
            terms: Terms { selectors, ..template.terms.clone() },
            created_at: now,
            template: Some(template.id.clone()),
        };
        if let Some(old) = self.alike(&entry) {
            return Ok(Plan { entries: vec![old.id.clone()], ..Plan::default() });
        }
        at_most("identities of one template", self.made_from(template).count().saturating_add(1), bounds::FILLED)?;
        let mut plan = Plan::default();
        self.add_entry(entry, &mut plan)?;
        Ok(plan)
    }
}
