//! A store that was put back from a backup becomes a new incarnation, so that every node believes it again (D2).
//!
//! What a broker said once, nodes do not unlearn by hearing something older: a store that is merely put back is refused by all of them, and a
//! broker does not even start on it where its audit log shows that it is old. Restoring is an operator's word that the loss is
//! known. It begins an incarnation above all before, by the minute it is done in: also one that nobody remembers any more is below it. And it
//! reads in the audit log what happened since the backup: who joined is a node, who was shut out is not, what was revoked is revoked. The
//! rest is lost, and told by name.

mod aftermath;

use std::path::Path;
use std::time::SystemTime;

use portcullis_identity::{NodeName, TrustDomain};

pub use self::aftermath::Lost;
use self::aftermath::Told;
pub(crate) use self::aftermath::surely_stored;
use crate::audit::{self, Actor, AuditLog, Event, FolderError, Unaudited, VerifyError};
use crate::clock;
use crate::data_folder::{DataFolder, DataFolderError};
use crate::ledger;
use crate::registry::{Fate, Version};
use crate::store::{CommitError, OpenError, Store};

/// Why nothing was restored. The store is as it was.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The data folder, or a broker that runs on it.
    #[error(transparent)]
    DataFolder(#[from] DataFolderError),
    /// There is no store.
    #[error("there is no store in `{0}`: put the backup's `store.redb` there first")]
    NoStore(String),
    /// The store.
    #[error(transparent)]
    Store(#[from] OpenError),
    /// The audit log does not hang together, so what it tells is worth nothing.
    #[error("{0}; move the folder away to restore without it")]
    Altered(#[from] VerifyError),
    /// The audit log cannot be read.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// The audit log cannot be opened.
    #[error(transparent)]
    Audit(#[from] audit::OpenError),
    /// The audit log cannot be written.
    #[error(transparent)]
    Unaudited(#[from] Unaudited),
    /// The store cannot be written.
    #[error(transparent)]
    Commit(#[from] CommitError),
}

/// What came of it.
#[derive(Debug)]
pub struct Restored {
    /// The version from now on.
    pub version: Version,
    /// The version that the backup had.
    pub backup: Version,
    /// The last version that the audit log tells of.
    pub log: Option<Version>,
    /// Nodes that joined since, and are nodes again.
    pub readmitted: Vec<NodeName>,
    /// Nodes that were shut out since, and are again.
    pub shut_out: Vec<NodeName>,
    /// Revocations since, which are in force again.
    pub revocations: usize,
    /// What operators changed since, and must change again.
    pub lost: Vec<Lost>,
}

/// Makes the store in `data` a new incarnation.
///
/// # Errors
/// When a broker runs on it, or something cannot be read or written.
pub fn restore(data: &Path, trust_domain: &TrustDomain, uid: Option<u32>) -> Result<Restored, RestoreError> {
    let folder = DataFolder::open(data)?;
    if !folder.store().exists() {
        return Err(RestoreError::NoStore(data.display().to_string()));
    }
    let (store, registry) = Store::open(&folder.store(), trust_domain)?;
    let (now, backup) = (clock::now(), registry.version());
    let told = match audit::verify(&folder.audit(), None) {
        Ok(_) => Told::read(&folder.audit(), backup)?,
        Err(VerifyError::NoLog(_) | VerifyError::Folder(_)) => Told::default(),
        Err(error) => return Err(error.into()),
    };
    let log = told.latest;
    let incarnation = log.unwrap_or(backup).incarnation.max(backup.incarnation).saturating_add(1).max(minute(now));
    let version = Version { incarnation, epoch: backup.epoch }.next();
    let (aftermath, lost) = told.sort();
    let plan = registry.plan_restoration(&aftermath, incarnation, now);
    let beginning = Event::Begun { trust_domain: trust_domain.to_string(), version: backup.to_string() };
    let by = Actor::Operator { uid };
    let event = Event::Restored {
        by: by.clone(),
        version: version.to_string(),
        backup: backup.to_string(),
        log: log.map(|log| log.to_string()),
        lost: lost.len(),
    };
    let events = std::iter::once(event).chain(ledger::events(&plan.changes, version, &by)).collect::<Vec<_>>();
    AuditLog::open(&folder.audit(), beginning)?.record(&events)?;
    store.commit(&plan.changes, version)?;
    let fated = |wanted: fn(&Fate) -> bool| {
        aftermath.nodes.iter().filter(|(_, fate)| wanted(fate)).map(|(name, _)| name.clone()).collect()
    };
    Ok(Restored {
        version,
        backup,
        log,
        readmitted: fated(|fate| matches!(fate, Fate::Joined { .. })),
        shut_out: fated(|fate| matches!(fate, Fate::ShutOut(_) | Fate::Removed)),
        revocations: aftermath.revocations.len(),
        lost,
    })
}

/// Minutes since 1970: two restorations of one backup differ in it, even where each found the other gone.
fn minute(now: SystemTime) -> u64 {
    clock::unix_seconds(now) / 60
}
