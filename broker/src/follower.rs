//! A broker that follows another one: it answers the lattice's logins with a copy of the other's registry, and goes on when the other is
//! away.
//!
//! It has no authority and no store: it issues nothing and changes nothing. Its data folder holds its audit log.

mod pages;

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use portcullis_admin::{Admin, AdminAddress};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::pages::Pages;
use crate::audit::{AuditLog, Event, OpenError, Unaudited};
use crate::clock;
use crate::config::Config;
use crate::data_folder::{DataFolder, DataFolderError};
use crate::ledger::Current;
use crate::nats::{self, Age, Callout, CheckError, Followed, Ground};
use crate::registry::{Registry, Unrestorable};
use crate::trust::Trust;

/// How long tasks have to end.
const CLOSE: Duration = Duration::from_secs(1);
/// How often it is looked whether there is a copy.
const LOOK: Duration = Duration::from_millis(50);

/// Why a follower does not start.
#[derive(Debug, thiserror::Error)]
pub enum FollowError {
    /// There is nothing to follow.
    #[error("the settings have no `[nats]`: a broker is followed over the lattice's servers")]
    NoLattice,
    /// The data folder.
    #[error(transparent)]
    DataFolder(#[from] DataFolderError),
    /// It is that of another broker.
    #[error("the data folder `{}` holds a store: it is that of a broker which is followed; give this one a folder of its own", .0.display())]
    HoldsStore(PathBuf),
    /// The audit log.
    #[error(transparent)]
    Audit(#[from] OpenError),
    /// The audit log cannot be written.
    #[error(transparent)]
    Unaudited(#[from] Unaudited),
    /// The policy engine refuses an empty registry, which it does not.
    #[error(transparent)]
    Registry(#[from] Unrestorable),
    /// The lattice's servers.
    #[error(transparent)]
    Nats(#[from] CheckError),
    /// The admin address.
    #[error("cannot open the admin address `{address}`: {cause}")]
    Admin {
        /// Which.
        address: AdminAddress,
        /// Why.
        cause: io::Error,
    },
}

/// A follower that runs.
#[derive(Debug)]
pub struct Follower {
    admin: AdminAddress,
    age: Arc<Age>,
    audit: AuditLog,
    tracker: TaskTracker,
    stop: CancellationToken,
    _callout: Arc<Callout>,
    _folder: DataFolder,
}

impl Follower {
    /// Begins to follow the broker that answers the servers of `config.nats`. A copy is relied on for `max_age` without a word of that broker.
    ///
    /// To be called on a tokio runtime.
    ///
    /// # Errors
    /// When something is missing, damaged or in use, or the servers do not ask brokers.
    pub async fn start(config: Config, max_age: Duration) -> Result<Self, FollowError> {
        let settings = config.nats.ok_or(FollowError::NoLattice)?;
        nats::check_followed(&settings).await?;
        let folder = DataFolder::open(&config.data)?;
        if folder.store().exists() {
            return Err(FollowError::HoldsStore(config.data));
        }
        let registry = Registry::empty(config.trust_domain.clone())?;
        let (tracker, stop) = (TaskTracker::new(), CancellationToken::new());
        let audit = open_audit(&folder, &registry)?.serve(&tracker);
        let trust = Arc::new(Trust::new(&registry, clock::now()));
        let (current, publisher) = Current::begin(registry);
        let age = Arc::new(Age::new(max_age));
        let ground = Ground {
            trust_domain: config.trust_domain.clone(),
            registry: current,
            trust: Arc::clone(&trust),
            audit: audit.clone(),
            tracker: tracker.clone(),
            stop: stop.clone(),
            age: Some(Arc::clone(&age)),
        };
        let problem = Arc::<Mutex<Option<String>>>::default();
        let followed = Followed {
            trust_domain: config.trust_domain,
            publisher,
            trust: Arc::clone(&trust),
            age: Arc::clone(&age),
            problem: Arc::clone(&problem),
        };
        let callout = nats::serve_following(ground.clone(), followed, settings)?;
        let pages = Pages::new(ground, Arc::clone(&age), Arc::clone(&callout), problem);
        let admin =
            Admin::open(&config.admin).map_err(|cause| FollowError::Admin { address: config.admin.clone(), cause })?;
        let address = admin.address().clone();
        tracker.spawn(admin.serve(Arc::new(pages), stop.clone()));
        Ok(Self { admin: address, age, audit, tracker, stop, _callout: callout, _folder: folder })
    }

    /// Where `/live`, `/ready`, `/status` and `/metrics` are served.
    #[must_use]
    pub fn admin(&self) -> &AdminAddress {
        &self.admin
    }

    /// Until there is a copy of the other broker's registry.
    pub async fn has_copy(&self) {
        while self.age.get().is_none() {
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Ends it in order.
    pub async fn stop(self) {
        tracing::info!("shutting down");
        self.stop.cancel();
        if let Err(error @ Unaudited::Disk(_)) = self.audit.record(Event::Stopped).await {
            tracing::warn!(%error, "the audit log lacks the end of this run");
        }
        drop((self.audit, self._callout));
        self.tracker.close();
        if tokio::time::timeout(CLOSE, self.tracker.wait()).await.is_err() {
            tracing::warn!("tasks are still running; leaving them");
        }
        tracing::info!("stopped");
    }
}

fn open_audit(folder: &DataFolder, registry: &Registry) -> Result<crate::audit::Unserved, FollowError> {
    let version = registry.version().to_string();
    let beginning = Event::Begun { trust_domain: registry.trust_domain().to_string(), version: version.clone() };
    let mut audit = AuditLog::open(&folder.audit(), beginning)?;
    audit.record(&[Event::Started { software: env!("CARGO_PKG_VERSION").to_owned(), version }])?;
    Ok(audit)
}
