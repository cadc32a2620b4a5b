//! What a command would change, decided on the registry as it is: nothing here alters anything.

mod authority;
mod component;
mod entry;
mod node;
mod policy;
mod restoration;
mod revocation;
mod template;

use std::sync::Arc;
use std::time::SystemTime;

use portcullis_identity::SpiffeId;
use portcullis_policy::{PolicyFile, PolicySet, Schema};

use super::Registry;
use super::command::{Change, Command};
use super::record::{Component, EntryId, Version};
use super::refusal::Refusal;

pub use self::policy::PolicyCheck;
pub use self::restoration::{Aftermath, Fate};

/// A change that may be made.
#[derive(Debug, Default)]
pub struct Plan {
    /// The records to put and to remove, in this order. None: everything is as asked for already.
    pub changes: Vec<Change>,
    /// The entries that the command made or found, in the order in which it named them.
    pub entries: Vec<EntryId>,
    /// Epochs beyond the first that names of new entries use up.
    pub further_epochs: u64,
    /// The schema, where the change makes a new one.
    pub schema: Option<Arc<Schema>>,
}

impl Plan {
    /// Nothing but these changes.
    pub(super) fn of(changes: Vec<Change>) -> Self {
        Self { changes, ..Self::default() }
    }
}

impl Registry {
    /// Says what `command` would change at `now`.
    ///
    /// # Errors
    /// When the command must not be done; nothing changes then.
    pub fn plan(&self, command: Command, now: SystemTime) -> Result<Plan, Refusal> {
        match command {
            Command::RegisterComponent(registration) => self.plan_registration(*registration, now),
            Command::RemoveComponent(target) => self.plan_component_removal(&target),
            Command::CreateEntry(entry) => self.plan_entry(*entry, now),
            Command::CreateEntries(entries) => self.plan_entries(entries, now),
            Command::AmendEntry(amendment) => self.plan_amendment(*amendment),
            Command::RemoveEntry(id) => self.plan_entry_removal(&id),
            Command::Fill(filling) => self.plan_filling(&filling, now),
            Command::CreateToken(token) => self.plan_token(token, now),
            Command::Redeem(redemption) => self.plan_redemption(&redemption, now),
            Command::JoinByCertificate(join) => self.plan_certificate_join(join, now),
            Command::Sight(sighting) => self.plan_sighting(&sighting, now),
            Command::Rejoin(rejoining) => self.plan_rejoining(*rejoining, now),
            Command::RemoveNode(name) => self.plan_node_removal(&name),
            Command::PutPolicies(files) => self.plan_policies(&files),
            Command::PutAdmissions(files) => self.plan_admissions(&files),
            Command::RemovePolicies(name) => self.plan_policy_removal(name),
            Command::ChangeGrant(change) => self.plan_grant(change),
            Command::Announce(announcement) => self.plan_announcement(announcement),
            Command::Authority(step) => self.plan_authority(step, now),
            Command::Revoke(revoke) => self.plan_revocation(revoke, now),
            Command::AddDomain(domain) => self.plan_domain(domain),
            Command::RemoveDomain(name) => self.plan_domain_removal(name),
            Command::Receive(receipt) => self.plan_receipt(receipt),
        }
    }

    /// The version that the next change will have, or the first of those that it will use up.
    pub(super) fn next_version(&self) -> Version {
        self.version.next()
    }

    /// Whether an entry or a component may have `id`: a workload of this trust domain, outside of the reserved paths (D1).
    pub(super) fn check_assignable(&self, id: &SpiffeId) -> Result<(), Refusal> {
        if !id.is_member_of(&self.trust_domain) {
            return Err(Refusal::ForeignId(id.clone()));
        }
        check_workload(id)
    }

    /// The schema with `put` registered and `removed` not, and proof that the policies in force fit it.
    fn schema_with(&self, put: Option<&Component>, removed: Option<&Component>) -> Result<Schema, Refusal> {
        let leaves = |component: &&Arc<Component>| {
            put.is_none_or(|put| put.target != component.target)
                && removed.is_none_or(|removed| removed.target != component.target)
        };
        let mut surfaces: Vec<_> = self
            .components
            .values()
            .flat_map(|of_lattice| of_lattice.values())
            .map(|held| &held.component)
            .filter(leaves)
            .map(|component| component.surface.clone())
            .collect();
        surfaces.extend(put.map(|component| component.surface.clone()));
        let schema = Schema::new(&surfaces)?;
        if removed.is_none() && schema.text() == self.schema.text() {
            // The same functions with the same parameters, and no name less: what is valid stays valid.
            return Ok(schema);
        }
        let files: Vec<_> =
            self.policies.values().map(|document| policy_file(&document.name, &document.text)).collect();
        PolicySet::parse(&files, &schema).map_err(Refusal::Breaks)?;
        Ok(schema)
    }
}

/// A SPIFFE ID that can call or be called: it has a path, and not one of the control plane's.
pub(super) fn check_workload(id: &SpiffeId) -> Result<(), Refusal> {
    if id.path().is_empty() {
        return Err(Refusal::NoPath(id.clone()));
    }
    if portcullis_identity::is_reserved(id) {
        return Err(Refusal::ReservedId(id.clone()));
    }
    Ok(())
}

fn policy_file(name: &str, text: &str) -> PolicyFile {
    PolicyFile { name: name.to_owned(), text: text.to_owned() }
}
