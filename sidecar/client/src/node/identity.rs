//! An identity this node holds for one of its entries, kept fresh at half-life.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::{ArcSwap, ArcSwapOption};
use portcullis_identity::{
    PrivateKey, RenewalSchedule, SpiffeId, Svid, SvidSlot, TrustBundles, TrustSource, key_request,
};
use rustls::pki_types::CertificateDer;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::{Shared, SignError};
use crate::clock;

/// The first wait after a failed renewal; doubles up to [`RETRY_CEILING`].
const RETRY_FLOOR: Duration = Duration::from_millis(200);
/// The longest wait between two attempts to renew.
const RETRY_CEILING: Duration = Duration::from_secs(30);

/// An SVID that renews itself while the node lives.
#[derive(Debug)]
pub struct Identity {
    entry: String,
    digest: String,
    slot: Arc<SvidSlot>,
    trust: TrustSource,
    renewals: watch::Sender<u64>,
    /// Something stands differently in the next certificate.
    due: Notify,
    /// The entry is gone.
    forgotten: CancellationToken,
    /// Why it may not be used any more although it is not expired: who gave it took it back.
    lost: ArcSwapOption<String>,
}

impl Identity {
    pub(crate) fn new(entry: String, digest: String, svid: impl Into<Arc<Svid>>, trust: TrustBundles) -> Arc<Self> {
        Arc::new(Self {
            entry,
            digest,
            slot: SvidSlot::new(svid),
            trust: Arc::new(ArcSwap::from_pointee(trust)),
            renewals: watch::Sender::new(0),
            due: Notify::new(),
            forgotten: CancellationToken::new(),
            lost: ArcSwapOption::empty(),
        })
    }

    /// Where TLS takes the certificate from.
    #[must_use]
    pub fn slot(&self) -> &Arc<SvidSlot> {
        &self.slot
    }

    /// Whom the holder trusts: its own trust domain, and those that its entry federates with.
    #[must_use]
    pub fn trust(&self) -> TrustSource {
        Arc::clone(&self.trust)
    }

    pub(crate) fn see(&self, trust: TrustBundles) {
        self.trust.store(Arc::new(trust));
    }

    /// The SVID in force.
    #[must_use]
    pub fn svid(&self) -> Arc<Svid> {
        self.slot.load()
    }

    /// The SPIFFE ID.
    #[must_use]
    pub fn id(&self) -> SpiffeId {
        self.slot.load().id().clone()
    }

    /// Counts renewals: connections made before the last one should be made anew.
    #[must_use]
    pub fn renewals(&self) -> watch::Receiver<u64> {
        self.renewals.subscribe()
    }

    /// Why it may not be used, where it may not: who gave it took it back before its time.
    #[must_use]
    pub fn lost(&self) -> Option<Arc<String>> {
        self.lost.load_full()
    }

    /// Lets it be used no more, or again.
    pub(crate) fn set_lost(&self, why: Option<String>) {
        self.lost.store(why.map(Arc::new));
    }

    pub(super) fn entry(&self) -> &str {
        &self.entry
    }

    pub(super) fn digest(&self) -> &str {
        &self.digest
    }

    /// Renews without waiting for half-life.
    pub(super) fn renew_now(&self) {
        self.due.notify_one();
    }

    /// Renews no more; what was issued lives on until it expires.
    pub(super) fn forget(&self) {
        self.forgotten.cancel();
    }

    /// Puts an SVID in force that did not come by renewal.
    pub(crate) fn replace(&self, svid: Arc<Svid>) {
        self.slot.store(svid);
        self.renewals.send_modify(|count| *count += 1);
    }

    /// Renews until the entry is gone: at half-life, when it is due, or as soon as the SVID is withdrawn; then until it works.
    ///
    /// Life begins at `since`, when the SVID came: `notBefore` is backdated, by more than half of the shortest lifetimes.
    pub(super) async fn keep_fresh(self: Arc<Self>, shared: Arc<Shared>, since: SystemTime) {
        self.forgotten.run_until_cancelled(self.renew_for_ever(&shared, since)).await;
    }

    async fn renew_for_ever(&self, shared: &Shared, mut since: SystemTime) {
        loop {
            let svid = self.svid();
            let schedule = RenewalSchedule::new(since.max(svid.not_before()), svid.not_after(), clock::jitter());
            tokio::select! {
                // What was issued by a clock that was ahead is not valid yet, for hours perhaps.
                () = clock::sleep_until_or_set_back(schedule.renew_at(), since) => {}
                () = self.due.notified() => {}
                () = shared.withdrawn(&svid) => {
                    info!(entry = %self.entry, id = %svid.id(), "an svid is withdrawn before its time");
                }
            }
            self.renew_until_done(shared, &svid).await;
            since = clock::now();
            // A clock far ahead of the broker's makes every certificate look old.
            tokio::time::sleep(RETRY_FLOOR).await;
        }
    }

    async fn renew_until_done(&self, shared: &Shared, old: &Arc<Svid>) {
        let not_after = old.not_after();
        let mut wait = RETRY_FLOOR;
        // By rejoining, a node's own identity is replaced from elsewhere.
        while Arc::ptr_eq(old, &self.svid()) {
            match self.renew(shared).await {
                Ok(()) => return,
                Err(error) => {
                    let left = not_after.duration_since(clock::now()).unwrap_or_default();
                    warn!(entry = %self.entry, %error, seconds_left = left.as_secs(), "cannot renew an svid");
                    // A broker that is back must not be waited for: the connection's return ends the pause.
                    let mut connected = shared.connectivity.subscribe();
                    connected.mark_unchanged();
                    let back = async {
                        let connected = connected.wait_for(|state| matches!(state, super::Connectivity::Connected));
                        drop(connected.await);
                        tokio::time::sleep(RETRY_FLOOR).await;
                    };
                    tokio::select! {
                        () = tokio::time::sleep(wait) => {}
                        () = back, if !matches!(error, SignError::Refused(_)) => {}
                    }
                    wait = (wait * 2).min(RETRY_CEILING);
                }
            }
        }
    }

    async fn renew(&self, shared: &Shared) -> Result<(), SignError> {
        let svid = shared.signed(&self.entry, &self.digest).await?;
        let not_after = svid.not_after();
        self.replace(svid);
        info!(entry = %self.entry, id = %self.id(), valid_seconds = not_after.duration_since(clock::now()).unwrap_or_default().as_secs(), "renewed an svid");
        if let Err(error) = shared.store_identities().await {
            warn!(%error, "cannot write the identity cache");
        }
        Ok(())
    }
}

impl Shared {
    /// A new key and the broker's certificate for it.
    pub(super) async fn signed(&self, entry: &str, digest: &str) -> Result<Arc<Svid>, SignError> {
        let key = PrivateKey::generate().map_err(|error| SignError::Unusable(error.to_string()))?;
        let csr = key_request(&key).map_err(|error| SignError::Unusable(error.to_string()))?;
        let chain = self.sign(entry, digest, csr).await?;
        debug!(entry, certificates = chain.len(), "the broker signed");
        svid(chain, key)
    }
}

pub(super) fn svid(chain: Vec<Vec<u8>>, key: PrivateKey) -> Result<Arc<Svid>, SignError> {
    let chain = chain.into_iter().map(CertificateDer::from).collect();
    Svid::new(chain, key).map(Arc::new).map_err(|error| SignError::Unusable(error.to_string()))
}
