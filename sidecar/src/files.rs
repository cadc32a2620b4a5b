//! Identities as files, for services that cannot speak the Workload API: `nats-server`, Postgres, nginx.
//!
//! Certificate, key and bundle are one set: whoever reads the folder sees the set before or the set after, never parts of both (`folder`).
//! Then the service is told, by a signal or a command. What fails is tried again.

mod folder;
mod notice;
mod owner;
mod pem;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use portcullis_identity::SpiffeId;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

pub use notice::{Notice, NoticeError, Signal};
pub use owner::{InvalidOwner, Owner};

use folder::Folder;
use pem::FileSet;

use crate::clock;
use crate::workload::{Identities, Snapshot};

/// The first wait after a set that could not be written or told; doubles up to [`RETRY_CEILING`].
const RETRY_FLOOR: Duration = Duration::from_millis(500);
/// The longest wait between two attempts.
const RETRY_CEILING: Duration = Duration::from_secs(60);
/// How often an unchanged set is looked at again: an SVID that expired without a successor is worth a warning.
const LOOK: Duration = Duration::from_secs(30);

/// One `[[files]]` table: which identity goes where, and who is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilesConfig {
    /// The identity; an entry of this node must earn it.
    pub spiffe_id: SpiffeId,
    /// The folder, which this program keeps to itself but for the names below.
    pub folder: PathBuf,
    /// File names in it.
    pub names: FileNames,
    /// Whose files they are; nothing: this process's own user.
    pub owner: Option<Owner>,
    /// Their mode.
    pub mode: u32,
    /// Whether the bundle holds the authorities of the foreign trust domains that the entry federates with, too.
    pub bundle: BundleScope,
    /// Who is told after a change.
    pub notice: Option<Notice>,
}

/// File names of a set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileNames {
    /// The chain, PEM, leaf first.
    pub certificate: String,
    /// The private key, PEM (PKCS#8).
    pub key: String,
    /// The authorities, PEM.
    pub bundle: String,
}

impl Default for FileNames {
    fn default() -> Self {
        Self { certificate: "svid.pem".to_owned(), key: "svid_key.pem".to_owned(), bundle: "bundle.pem".to_owned() }
    }
}

/// Whose authorities the bundle file holds. A service that reads it trusts every name they sign: the standard's tie between an authority and
/// its trust domain is lost in a PEM file, so that the own domain alone is the default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BundleScope {
    /// The identity's own trust domain.
    Own,
    /// And those the entry federates with.
    DangerFederated,
}

/// How a set of files is, for the operator's eyes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FilesStatus {
    /// The folder.
    pub folder: String,
    /// The identity.
    pub spiffe_id: String,
    /// End of the SVID in the files, seconds since 1970; nothing where there is none.
    pub not_after: Option<u64>,
    /// What keeps the files from being written or the service from being told.
    pub error: Option<String>,
}

/// The sets that a process keeps.
#[derive(Clone, Debug, Default)]
pub struct Files(Arc<Mutex<Vec<FilesStatus>>>);

/// Why a set is not in force.
#[derive(Debug, thiserror::Error)]
enum SetError {
    #[error("no entry of this node earns `{0}`, or its svid has not come yet")]
    NoIdentity(SpiffeId),
    #[error("the bundle of the own trust domain is empty")]
    NoBundle,
    #[error(transparent)]
    Folder(#[from] folder::FolderError),
    #[error(transparent)]
    Notice(#[from] NoticeError),
    #[error("the work was given up: {0}")]
    Lost(String),
}

impl Files {
    /// Keeps every set at what `identities` last said, until `stop`.
    pub fn keep<I: Identities + Clone>(
        configs: Vec<FilesConfig>,
        identities: &I,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) -> Self {
        let status = configs.iter().map(|config| FilesStatus {
            folder: config.folder.display().to_string(),
            spiffe_id: config.spiffe_id.to_string(),
            ..FilesStatus::default()
        });
        let files = Self(Arc::new(Mutex::new(status.collect())));
        for (index, config) in configs.into_iter().enumerate() {
            let keeper = Keeper { config: Arc::new(config), index, files: files.clone(), written: None, told: None };
            tasks.spawn(stop.clone().run_until_cancelled_owned(keeper.keep(identities.clone())));
        }
        files
    }

    /// How each set is.
    #[must_use]
    pub fn status(&self) -> Vec<FilesStatus> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn report(&self, index: usize, change: impl FnOnce(&mut FilesStatus)) {
        if let Some(status) = self.0.lock().unwrap_or_else(PoisonError::into_inner).get_mut(index) {
            change(status);
        }
    }
}

/// Keeps one set.
struct Keeper {
    config: Arc<FilesConfig>,
    index: usize,
    files: Files,
    /// What this run wrote last.
    written: Option<Arc<FileSet>>,
    /// What the service was last told of.
    told: Option<Arc<FileSet>>,
}

impl Keeper {
    async fn keep<I: Identities>(mut self, identities: I) {
        let mut snapshots = identities.snapshots();
        let mut wait = RETRY_FLOOR;
        loop {
            let snapshot = snapshots.borrow_and_update().clone();
            let pause = match self.put_in_force(snapshot.as_deref()).await {
                Ok(()) => {
                    wait = RETRY_FLOOR;
                    self.files.report(self.index, |status| status.error = None);
                    LOOK
                }
                Err(error) => {
                    let pause = wait;
                    wait = (wait * 2).min(RETRY_CEILING);
                    let folder = self.config.folder.display();
                    warn!(%folder, id = %self.config.spiffe_id, %error, "a service's files are not in force");
                    self.files.report(self.index, |status| status.error = Some(error.to_string()));
                    pause
                }
            };
            tokio::select! {
                changed = snapshots.changed() => if changed.is_err() {
                    return;
                },
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    async fn put_in_force(&mut self, snapshot: Option<&Snapshot>) -> Result<(), SetError> {
        let set = Arc::new(self.wanted(snapshot)?);
        if self.written.as_deref() != Some(&*set) {
            let (config, fresh) = (Arc::clone(&self.config), Arc::clone(&set));
            let written = tokio::task::spawn_blocking(move || Folder::new(&config).replace(&fresh));
            let changed = written.await.map_err(|error| SetError::Lost(error.to_string()))??;
            info!(folder = %self.config.folder.display(), id = %self.config.spiffe_id, changed, "a service's files are in force");
            let not_after = set.not_after.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
            self.files.report(self.index, |status| status.not_after = Some(not_after));
            self.written = Some(Arc::clone(&set));
            if Folder::new(&self.config).is_told() {
                // An earlier run wrote the same files and told the service then.
                self.told = Some(Arc::clone(&set));
            }
        }
        if let Some(notice) = &self.config.notice
            && self.told.as_deref() != Some(&*set)
        {
            notice.give().await?;
            Folder::new(&self.config).remember_told()?;
        }
        self.told = Some(set);
        Ok(())
    }

    fn wanted(&self, snapshot: Option<&Snapshot>) -> Result<FileSet, SetError> {
        let no_identity = || SetError::NoIdentity(self.config.spiffe_id.clone());
        let snapshot = snapshot.ok_or_else(no_identity)?;
        let held = snapshot.held().iter().find(|held| held.entry.spiffe_id == self.config.spiffe_id);
        let held = held.ok_or_else(no_identity)?;
        let svid = held.svid.as_ref().filter(|svid| svid.not_after() > clock::now()).ok_or_else(no_identity)?;
        let mut authorities = snapshot.x509_authorities(snapshot.trust_domain());
        if authorities.is_empty() {
            return Err(SetError::NoBundle);
        }
        if self.config.bundle == BundleScope::DangerFederated {
            authorities.extend(held.entry.federates_with.iter().flat_map(|domain| snapshot.x509_authorities(domain)));
        }
        Ok(FileSet::new(svid, &authorities))
    }
}

#[cfg(test)]
mod tests;
