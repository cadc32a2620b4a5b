//! Revocations: of one SVID, of one entry's SVIDs, of a node with everything it holds.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use portcullis_identity::{NodeName, Revocation, Revoked, node_id};

use super::Plan;
use crate::registry::Registry;
use crate::registry::bounds::{self, at_most};
use crate::registry::command::{Change, Revoke, TrustChange};
use crate::registry::node::REJOIN_GRACE;
use crate::registry::record::EntryId;
use crate::registry::refusal::Refusal;
use crate::ttl::Ttl;

/// Nothing that was issued so far lives longer: the longest lifetime, and as much as clocks may differ.
const LONGEST_LIFE: Duration = Duration::from_secs(Ttl::LONGEST.seconds() as u64 + 60);

/// How long a revocation is remembered. A certificate that expired may prove its node once more, within the time of grace; of an identity
/// the registry itself knows what is superseded.
pub(super) fn memory(revoked: &Revoked) -> Duration {
    match revoked {
        Revoked::Certificate(_) => LONGEST_LIFE + REJOIN_GRACE,
        Revoked::Identity(_) => LONGEST_LIFE,
    }
}

impl Registry {
    pub(super) fn plan_revocation(&self, revoke: Revoke, now: SystemTime) -> Result<Plan, Refusal> {
        let (revoked, mut changes) = match revoke {
            Revoke::Certificate(serial) => (vec![Revoked::Certificate(serial)], Vec::new()),
            Revoke::Entry(id) => (self.identities_behind(&id)?, Vec::new()),
            Revoke::Node(name) => (self.identities_of(&name)?, self.plan_node_removal(&name)?.changes),
        };
        let forgotten: Vec<_> = self.forgotten_revocations(now).collect();
        let kept = self.revocations.len().saturating_sub(forgotten.len());
        at_most("revocations", kept.saturating_add(revoked.len()), bounds::REVOCATIONS)?;
        changes.extend(forgotten.into_iter().map(Change::Trust));
        changes.extend(revoked.into_iter().map(|revoked| {
            let until = now.checked_add(memory(&revoked)).unwrap_or(now);
            Change::Trust(TrustChange::Revocation(Arc::new(Revocation { revoked, issued_until: now, until })))
        }));
        Ok(Plan { changes, ..Plan::default() })
    }

    /// The identity of an entry, or those of every entry that a template made.
    fn identities_behind(&self, id: &EntryId) -> Result<Vec<Revoked>, Refusal> {
        if let Some(template) = self.template(id) {
            return Ok(self.made_from(template).map(|entry| Revoked::Identity(entry.spiffe_id.clone())).collect());
        }
        let entry = self.entry(id).ok_or_else(|| Refusal::NoEntry(id.clone()))?;
        Ok(vec![Revoked::Identity(entry.spiffe_id.clone())])
    }

    /// The node's own identity, and those of its entries.
    fn identities_of(&self, name: &NodeName) -> Result<Vec<Revoked>, Refusal> {
        if self.node(name).is_none() {
            return Err(Refusal::NoNode(name.clone()));
        }
        let mut identities: BTreeSet<_> = self.entries_of(name).map(|entry| entry.spiffe_id.clone()).collect();
        identities.insert(node_id(&self.trust_domain, name));
        Ok(identities.into_iter().map(Revoked::Identity).collect())
    }

    /// Those of what is expired by now.
    pub(super) fn forgotten_revocations(&self, now: SystemTime) -> impl Iterator<Item = TrustChange> {
        let over = self.revocations.values().filter(move |revocation| revocation.until < now);
        over.map(|revocation| TrustChange::RevocationRemoved(revocation.revoked.clone()))
    }
}
