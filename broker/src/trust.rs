//! Whom the broker itself accepts: what it tells its nodes to accept, and at once when that changes.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use portcullis_identity::{Revocations, TrustBundles, TrustSource};
use tokio::sync::watch;

use crate::atomic_file::{self, Existing};
use crate::broker::Broker;
use crate::clock;
use crate::registry::{OwnBundle, Registry, Revoking};

/// What verifiers of logins and of the node listener read, and who waits for another one.
#[derive(Debug)]
pub(crate) struct Trust {
    source: TrustSource,
    changes: watch::Sender<u64>,
    /// What `source` was made of.
    basis: Mutex<(Arc<OwnBundle>, Revoking)>,
}

impl Trust {
    /// The trust that `registry` describes.
    pub(crate) fn new(registry: &Registry, now: SystemTime) -> Self {
        let basis = basis(registry);
        Self { source: bundles(&basis, now).into_source(), changes: watch::Sender::new(0), basis: Mutex::new(basis) }
    }

    /// What verifiers read at each handshake.
    pub(crate) fn source(&self) -> TrustSource {
        Arc::clone(&self.source)
    }

    /// Tells of every change: whoever was accepted before is to be judged anew.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Accepts from now on whom the registry says.
    pub(crate) fn refresh(&self, registry: &Registry, now: SystemTime) {
        let later = basis(registry);
        let mut known = self.basis.lock().unwrap_or_else(PoisonError::into_inner);
        let (bundle, revocations) = &*known;
        if Arc::ptr_eq(bundle, &later.0) && Arc::ptr_eq(revocations, &later.1) {
            return;
        }
        self.source.store(Arc::new(bundles(&later, now)));
        *known = later;
        drop(known);
        self.changes.send_modify(|count| *count = count.wrapping_add(1));
    }
}

impl Broker {
    /// Accepts from now on whom the registry says.
    pub(crate) fn refresh_trust(&self, now: SystemTime) {
        self.ledger.read(|registry| self.trust.refresh(registry, now));
    }

    /// Follows the registry until the broker stops.
    pub(crate) async fn keep_trust(self: Arc<Self>) {
        let mut versions = self.ledger.versions();
        while self.stop.run_until_cancelled(versions.changed()).await.is_some_and(|changed| changed.is_ok()) {
            versions.mark_unchanged();
            self.refresh_trust(clock::now());
        }
    }

    /// Writes the public roots where tools look for them.
    pub(crate) fn publish_roots(&self) {
        let text = self.authority.bundle_pem();
        if let Err(error) = atomic_file::write(&self.roots_file, text.as_bytes(), 0o644, Existing::Replace) {
            tracing::error!(file = %self.roots_file.display(), %error, "the public roots were not written");
        }
    }
}

fn basis(registry: &Registry) -> (Arc<OwnBundle>, Revoking) {
    (Arc::clone(registry.bundle()), Arc::clone(registry.revocations()))
}

fn bundles((bundle, revocations): &(Arc<OwnBundle>, Revoking), now: SystemTime) -> TrustBundles {
    let revocations = revocations.values().map(|revocation| revocation.as_ref().clone());
    TrustBundles::new([bundle.x509.clone()], now).with_revocations(Revocations::new(revocations, now))
}
