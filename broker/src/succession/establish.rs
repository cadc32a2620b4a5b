//! Keys and registry are brought together at start, before anything is served.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::SystemTime;

use super::Lifetimes;
use crate::audit::{Actor, Event, Unaudited, Unserved};
use crate::authority::{AuthorityError, KeyFolder};
use crate::ledger;
use crate::registry::{AuthorityKind, AuthorityRecord, AuthorityStep, Command, Refusal, Registry, Stage};
use crate::store::{CommitError, Store};

/// Brings keys and registry together at start, before anything is served: makes what is missing, and publishes what a crash kept from it.
///
/// # Errors
/// When the active authority's key is gone, or the disk refuses.
pub(crate) fn establish(
    keys: &KeyFolder,
    mut journal: Journal<'_>,
    lifetimes: Lifetimes,
    now: SystemTime,
) -> Result<(), EstablishError> {
    publish_left_over(keys, &mut journal, now)?;
    for kind in [AuthorityKind::X509, AuthorityKind::Jwt] {
        let usable = |record: &&Arc<AuthorityRecord>| keys.holds(record) && !record.is_over(now);
        if journal.registry.active(kind).filter(usable).is_some() {
            continue;
        }
        if journal.registry.prepared(kind).filter(usable).is_none() {
            let lost = journal.registry.active(kind).is_some_and(|record| !record.is_over(now));
            if lost && kind == AuthorityKind::X509 {
                return Err(EstablishError::Lost);
            }
            let new = match kind {
                AuthorityKind::X509 => keys.make_root(lifetimes.x509, now)?,
                AuthorityKind::Jwt => keys.make_jwt(lifetimes.jwt, now)?,
            };
            journal.commit(AuthorityStep::Publish(Box::new(new)), now)?;
        }
        // The very first is active at once.
        if let Some(next) = journal.registry.prepared(kind).map(|record| record.id.clone()) {
            tracing::warn!(kind = kind.name(), id = %next, "the active authority cannot sign any more; the prepared one takes its place");
            journal.commit(AuthorityStep::Activate(next), now)?;
        }
    }
    // Of a store that was put back both may be new to it, the one that signs and the one that comes next.
    publish_left_over(keys, &mut journal, now)?;
    for record in journal.registry.authorities().filter(|record| record.stage == Stage::Old) {
        keys.destroy(&record.id)?;
    }
    Ok(())
}

fn publish_left_over(keys: &KeyFolder, journal: &mut Journal<'_>, now: SystemTime) -> Result<(), EstablishError> {
    let known: BTreeSet<_> = journal.registry.authorities().map(|record| record.id.clone()).collect();
    for new in keys.unpublished(&known)? {
        match journal.commit(AuthorityStep::Publish(Box::new(new)), now) {
            Ok(()) => tracing::warn!("an authority whose publication was interrupted is published now"),
            Err(EstablishError::Refused(refusal)) => tracing::warn!(%refusal, "a CA key is not used"),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// What the ledger keeps in step later: the log, the store and the registry, before anything is served.
pub(crate) struct Journal<'a> {
    pub(crate) audit: &'a mut Unserved,
    pub(crate) store: &'a Store,
    pub(crate) registry: &'a mut Registry,
}

impl Journal<'_> {
    /// As the ledger does: on record, then on disk, then in force.
    fn commit(&mut self, step: AuthorityStep, now: SystemTime) -> Result<(), EstablishError> {
        let plan = self.registry.plan(Command::Authority(step), now)?;
        if plan.changes.is_empty() {
            return Ok(());
        }
        let version = self.registry.version().next();
        self.audit.record(&ledger::events(&plan.changes, version, &Actor::Broker))?;
        if let Err(error) = self.store.commit(&plan.changes, version) {
            let (version, reason) = (version.to_string(), error.to_string());
            // Where this fails too, the store's error is the one to be told.
            let _ = self.audit.record(&[Event::NotStored { version, reason }]);
            return Err(error.into());
        }
        self.registry.apply(&plan.changes, version, plan.schema);
        Ok(())
    }
}

/// Why keys and registry do not come together.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EstablishError {
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error(transparent)]
    Unaudited(#[from] Unaudited),
    #[error(transparent)]
    Store(#[from] CommitError),
    #[error("the key of the active authority is gone")]
    Lost,
}
