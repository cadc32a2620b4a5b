//! The life of an authority: published, activated, tainted, revoked; and forgotten once expired.

use std::sync::Arc;
use std::time::SystemTime;

use portcullis_identity::{Revocation, Revoked};

use super::Plan;
use crate::registry::Registry;
use crate::registry::authority::{AuthorityId, AuthorityKind, AuthorityRecord, Material, NewAuthority, Stage, Taint};
use crate::registry::bounds::{self, at_most};
use crate::registry::command::{AuthorityStep, Change, TrustChange};
use crate::registry::refusal::{AuthorityRefusal, Refusal};

impl Registry {
    pub(super) fn plan_authority(&self, step: AuthorityStep, now: SystemTime) -> Result<Plan, Refusal> {
        let mut changes = match step {
            AuthorityStep::Publish(new) => self.publish(*new)?,
            AuthorityStep::Activate(id) => self.activate(&id, now)?,
            AuthorityStep::Taint(id) => self.taint(&id)?,
            AuthorityStep::Revoke(id) => self.withdraw(&id, now)?,
            AuthorityStep::Prune => self.prune(now),
        };
        if changes
            .iter()
            .any(|change| !matches!(change, TrustChange::Revocation(_) | TrustChange::RevocationRemoved(_)))
        {
            changes.push(TrustChange::BundleSequence(self.next_sequence()));
        }
        Ok(Plan { changes: changes.into_iter().map(Change::Trust).collect(), ..Plan::default() })
    }

    /// Greater than any before, also after a restore, which begins a new incarnation with an old count.
    fn next_sequence(&self) -> u64 {
        let first_of_incarnation = self.version.incarnation << 32;
        self.bundle.sequence.max(first_of_incarnation).saturating_add(1)
    }

    /// The first of its kind is active at once: nobody trusts another one, and somebody has to sign.
    fn publish(&self, new: NewAuthority) -> Result<Vec<TrustChange>, Refusal> {
        let NewAuthority { material, not_before, not_after } = new;
        let id = AuthorityId::of_key(&material.public_key_sha256());
        if self.authorities.contains_key(&id) {
            return Err(AuthorityRefusal::Exists(id).into());
        }
        let kind = material.kind();
        let of_kind = || self.authorities.values().filter(|record| record.kind() == kind);
        if let Some(waiting) = of_kind().find(|record| record.stage == Stage::Prepared) {
            return Err(AuthorityRefusal::Waiting { id: waiting.id.clone(), kind: kind.name() }.into());
        }
        at_most("authorities of one kind", of_kind().count().saturating_add(1), bounds::AUTHORITIES)?;
        let stage = if of_kind().any(|record| record.stage == Stage::Active) { Stage::Prepared } else { Stage::Active };
        let published = self.next_version();
        let record = AuthorityRecord { id, material, stage, taint: Taint::None, not_before, not_after, published };
        Ok(vec![TrustChange::Authority(Arc::new(record))])
    }

    fn activate(&self, id: &AuthorityId, now: SystemTime) -> Result<Vec<TrustChange>, Refusal> {
        let record = self.known(id)?;
        if record.stage != Stage::Prepared || record.taint == Taint::Tainted {
            return Err(AuthorityRefusal::NotPrepared { id: id.clone(), stage: record.stage.name() }.into());
        }
        if record.is_over(now) {
            return Err(AuthorityRefusal::Expired(id.clone()).into());
        }
        let mut changes = vec![staged(record, Stage::Active)];
        let active = self.active(record.kind());
        changes.extend(active.map(|active| staged(active, Stage::Old)));
        Ok(changes)
    }

    fn taint(&self, id: &AuthorityId) -> Result<Vec<TrustChange>, Refusal> {
        let record = self.known(id)?;
        if record.stage == Stage::Active {
            return Err(AuthorityRefusal::Active(id.clone()).into());
        }
        if record.taint == Taint::Tainted {
            return Ok(Vec::new());
        }
        let record = AuthorityRecord { taint: Taint::Tainted, ..AuthorityRecord::clone(record) };
        Ok(vec![TrustChange::Authority(Arc::new(record))])
    }

    fn withdraw(&self, id: &AuthorityId, now: SystemTime) -> Result<Vec<TrustChange>, Refusal> {
        let record = self.known(id)?;
        match (record.stage, record.taint) {
            (Stage::Active, _) => return Err(AuthorityRefusal::Active(id.clone()).into()),
            (Stage::Old, Taint::None) => return Err(AuthorityRefusal::NotTainted(id.clone()).into()),
            // It signed nothing.
            (Stage::Prepared, _) | (Stage::Old, Taint::Tainted) => {}
        }
        let mut changes = vec![TrustChange::AuthorityRemoved(id.clone())];
        if let Some(serial) = record.material.revocable() {
            let revocation =
                Revocation { revoked: Revoked::Certificate(serial), issued_until: now, until: record.not_after };
            changes.push(TrustChange::Revocation(Arc::new(revocation)));
        }
        Ok(changes)
    }

    /// Expired authorities that do not sign, and revocations of what is expired.
    fn prune(&self, now: SystemTime) -> Vec<TrustChange> {
        let over = self.authorities.values().filter(|record| record.is_over(now) && record.stage != Stage::Active);
        let mut changes: Vec<_> = over.map(|record| TrustChange::AuthorityRemoved(record.id.clone())).collect();
        changes.extend(self.forgotten_revocations(now));
        changes
    }

    fn known(&self, id: &AuthorityId) -> Result<&Arc<AuthorityRecord>, Refusal> {
        self.authorities.get(id).ok_or_else(|| AuthorityRefusal::Unknown(id.clone()).into())
    }

    /// The authority of `kind` that signs.
    #[must_use]
    pub fn active(&self, kind: AuthorityKind) -> Option<&Arc<AuthorityRecord>> {
        self.authorities.values().find(|record| record.stage == Stage::Active && record.kind() == kind)
    }

    /// The authority of `kind` that will sign next.
    #[must_use]
    pub fn prepared(&self, kind: AuthorityKind) -> Option<&Arc<AuthorityRecord>> {
        self.authorities
            .values()
            .find(|record| record.stage == Stage::Prepared && record.taint == Taint::None && record.kind() == kind)
    }

    /// Whether the root is one that another authority stands below, too.
    #[must_use]
    pub fn shares_root(&self, record: &AuthorityRecord) -> bool {
        let root = |record: &AuthorityRecord| match &record.material {
            Material::Root(root) | Material::Upstream { root, .. } => Some(root.clone()),
            Material::Jwt(_) => None,
        };
        self.authorities.values().any(|other| other.id != record.id && root(other) == root(record))
    }
}

fn staged(record: &AuthorityRecord, stage: Stage) -> TrustChange {
    TrustChange::Authority(Arc::new(AuthorityRecord { stage, ..record.clone() }))
}
