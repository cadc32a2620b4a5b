//! Whom the broker itself accepts: what it tells its nodes to accept, and at once when that changes.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use portcullis_identity::{Revocations, TrustBundles, TrustSource};
use tokio::sync::watch;

use crate::atomic_file::{self, Existing};
use crate::broker::Broker;
use crate::clock;
use crate::registry::{OwnBundle, Registry, Revoking};

/// What verifiers of the node listener read, and who waits for another one.
#[derive(Debug)]
pub(crate) struct Trust {
    source: TrustSource,
    changes: watch::Sender<u64>,
    /// What `source` was made of.
    basis: Mutex<(Arc<OwnBundle>, Revoking)>,
    /// The public roots, PEM, for tools that verify chains.
    file: PathBuf,
}

impl Trust {
    /// The trust that `registry` describes.
    pub(crate) fn new(registry: &Registry, file: PathBuf, now: SystemTime) -> Self {
        let basis = basis(registry);
        Self {
            source: bundles(&basis, now).into_source(),
            changes: watch::Sender::new(0),
            basis: Mutex::new(basis),
            file,
        }
    }

    /// What verifiers read at each handshake.
    pub(crate) fn source(&self) -> TrustSource {
        Arc::clone(&self.source)
    }

    /// Tells of every change: whoever was accepted before is to be judged anew.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }
}

impl Broker {
    /// Accepts from now on whom the registry says.
    pub(crate) fn refresh_trust(&self, now: SystemTime) {
        let later = self.ledger.read(basis);
        let mut known = self.trust.basis.lock().unwrap_or_else(PoisonError::into_inner);
        let (bundle, revocations) = &*known;
        if Arc::ptr_eq(bundle, &later.0) && Arc::ptr_eq(revocations, &later.1) {
            return;
        }
        self.trust.source.store(Arc::new(bundles(&later, now)));
        *known = later;
        drop(known);
        self.trust.changes.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Writes the public roots where tools look for them.
    pub(crate) fn publish_roots(&self) {
        let text = self.authority.bundle_pem();
        if let Err(error) = atomic_file::write(&self.trust.file, text.as_bytes(), 0o644, Existing::Replace) {
            tracing::error!(file = %self.trust.file.display(), %error, "the public roots were not written");
        }
    }

    /// Follows the registry until the broker stops.
    pub(crate) async fn keep_trust(self: Arc<Self>) {
        let mut versions = self.ledger.versions();
        loop {
            tokio::select! {
                changed = versions.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    versions.mark_unchanged();
                    self.refresh_trust(clock::now());
                }
                () = self.stop.cancelled() => return,
            }
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
