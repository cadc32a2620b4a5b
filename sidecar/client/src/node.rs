//! A node: one sidecar or host process that joined the broker.
//!
//! It holds one `Watch` stream, keeps what the broker pushes on disk, and renews its identities at half-life. With the broker away it
//! serves on what it holds and looks for the broker's return.

mod audit;
mod cache;
mod callers;
mod certificate;
mod certificate_files;
mod fill;
mod identity;
mod join;
mod jwt;
mod rejoin;
mod seal_key;
mod session;
mod shared;
mod state;

use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use portcullis_api::v1;
use portcullis_identity::{
    Bundle, JoinToken, JwtBundles, SealKey, SpiffeId, Svid, Target, TrustBundles, TrustDomain, TrustSource,
};
use portcullis_value::WitSource;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

pub use audit::AuditHead;
pub use cache::{Access, CacheError};
pub use callers::MeetError;
pub use certificate::JoinCertificate;
pub use certificate_files::{CertificateFiles, CertificateFilesError, CertificateSettings, IncompleteSettings};
pub use identity::Identity;
pub use join::JoinError;
pub use jwt::{Jwt, WantedJwt};
pub use seal_key::{SealKeyError, read_seal_key};
pub use state::{
    ComponentDigest, Entry, InvalidState, NodeState, PeerRecord, ServedComponent, Template, UpstreamKind, Version,
    Withdrawal,
};

use crate::clock;
use cache::Cache;
use shared::{Shared, shared};

/// How long one signing request may take, the wait for the broker included.
const SIGN_DEADLINE: Duration = Duration::from_secs(10);
/// Requests to the broker that may wait for the stream.
const REQUEST_QUEUE: usize = 64;
/// How long the state file waits for more changes after it was written.
const STATE_WRITE_PAUSE: Duration = Duration::from_millis(200);

/// What kind of process the node is, for the operator's eyes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeKind {
    /// Serves virtual components. Says itself which version it enforces ([`Node::applied`]).
    Sidecar,
    /// Runs wasm components.
    Host,
    /// A command that ends soon; borrows the cache of a sidecar or host.
    Shell,
}

/// How a node starts.
#[derive(Debug)]
pub struct NodeConfig {
    /// Folder of the on-disk cache, mode 0700.
    pub state_dir: PathBuf,
    /// What the process is.
    pub kind: NodeKind,
    /// Needed once, where the cache holds no identity.
    pub join_token: Option<JoinToken>,
    /// `host:port` of the broker where it is not that of the token any more.
    pub broker: Option<String>,
    /// Seals the identity file of the cache; without it the keys lie there plain, for the owner alone.
    pub seal_key: Option<SealKey>,
}

/// Why a node does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The on-disk cache is unusable.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// There is no identity and no way to one.
    #[error(
        "this node has no identity yet: a join token is needed, or a certificate (hint: portcullis-broker token create --node NAME)"
    )]
    NoToken,
    /// The identity ran out, and a command that only borrows it does not renew it.
    #[error("the node's certificate expired: its sidecar or host must run and reach the broker first")]
    Expired,
    /// The broker does not let it join.
    #[error(transparent)]
    Join(#[from] JoinError),
    /// The cache holds something that cannot be used.
    #[error("the cached {what} cannot be used: {cause}")]
    Unusable {
        /// Which part.
        what: &'static str,
        /// Why.
        cause: String,
    },
}

/// Why the broker's signature was not had.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    /// There is no connection to the broker within the deadline.
    #[error("the broker cannot be reached")]
    Offline,
    /// The broker says no.
    #[error("the broker refuses: {0}")]
    Refused(String),
    /// What came back, or the key made for it, is of no use.
    #[error("the svid cannot be used: {0}")]
    Unusable(String),
}

/// Why a component's WIT was not had.
#[derive(Debug, thiserror::Error)]
pub enum DescribeError {
    /// There is no connection to the broker.
    #[error("the broker cannot be reached")]
    Offline,
    /// The broker says no.
    #[error("the broker does not describe `{target}`: {reason}")]
    Refused {
        /// What was asked for.
        target: String,
        /// Its answer.
        reason: String,
    },
    /// The answer does not parse.
    #[error(transparent)]
    Invalid(#[from] InvalidState),
}

/// Whether the node hears the broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Connectivity {
    /// The stream is up.
    Connected,
    /// It is not; why.
    Disconnected(String),
}

/// A joined node. Clones share it; it ends with the token given at start.
#[derive(Clone, Debug)]
pub struct Node {
    shared: Arc<Shared>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// What others ask of the task that holds the stream.
#[derive(Debug)]
pub(super) enum Request {
    Sign { entry: String, digest: String, csr: Vec<u8>, reply: oneshot::Sender<Result<Vec<Vec<u8>>, SignError>> },
    SignJwts { wanted: Vec<v1::WantedJwt>, reply: oneshot::Sender<Result<Vec<v1::JwtResult>, SignError>> },
    Announce(Target),
    Meet(Target),
    Applied(Version),
}

impl Node {
    /// Resumes from the cache, or joins with the token; then keeps the stream to the broker up until `stop`.
    ///
    /// With a cached identity this does not wait for the broker.
    ///
    /// # Errors
    /// When there is no usable identity and no way to join, or when the cache cannot be used.
    pub async fn start(
        mut config: NodeConfig,
        tasks: &TaskTracker,
        stop: CancellationToken,
    ) -> Result<Self, StartError> {
        let access = match config.kind {
            NodeKind::Sidecar | NodeKind::Host => Access::Own,
            NodeKind::Shell => Access::Borrow,
        };
        let cache = Arc::new(Cache::open(&config.state_dir, access, config.seal_key.take())?);
        let identities = join::resume_or_join(&cache, &config).await?;
        Self::serve(config.kind, (cache, identities), tasks, stop)
    }

    fn serve(
        kind: NodeKind,
        (cache, identities): (Arc<Cache>, cache::Identities),
        tasks: &TaskTracker,
        stop: CancellationToken,
    ) -> Result<Self, StartError> {
        let (requests, queue) = mpsc::channel(REQUEST_QUEUE);
        let shared = Arc::new(shared(kind, cache, identities, requests)?);
        let node = Self { shared: Arc::clone(&shared), tasks: tasks.clone(), stop: stop.clone() };
        tasks.spawn(session::keep_connected(Arc::clone(&shared), queue, stop.clone()));
        tasks.spawn(write_state(Arc::clone(&shared), stop.clone()));
        if kind != NodeKind::Shell {
            let since = shared.own.svid().not_before();
            let fresh = Arc::clone(&shared.own).keep_fresh(shared, since);
            tasks.spawn(stop.run_until_cancelled_owned(fresh));
        }
        Ok(node)
    }

    /// The trust domain of the broker.
    #[must_use]
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.shared.trust_domain
    }

    /// The node's own SPIFFE ID.
    #[must_use]
    pub fn id(&self) -> SpiffeId {
        self.shared.own.id()
    }

    /// The node's own SVID.
    #[must_use]
    pub fn svid(&self) -> Arc<Svid> {
        self.shared.own.svid()
    }

    /// Whether the keys in the on-disk cache are encrypted.
    #[must_use]
    pub fn is_sealed(&self) -> bool {
        self.shared.cache.is_sealed()
    }

    /// `host:port` of the broker.
    #[must_use]
    pub fn broker(&self) -> &str {
        &self.shared.broker
    }

    /// The bundles in force, for verifiers.
    #[must_use]
    pub fn trust(&self) -> TrustSource {
        Arc::clone(&self.shared.trust)
    }

    /// Whom to trust where `bundles` come from elsewhere: what the broker revoked is refused all the same.
    pub(crate) fn trust_in(&self, bundles: Vec<Bundle>) -> TrustBundles {
        self.shared.state.borrow().trust(bundles, clock::now())
    }

    /// The JWT bundles in force. They are another type than [`Node::trust`]: no key of one kind vouches for the other.
    #[must_use]
    pub fn jwt_trust(&self) -> Arc<ArcSwap<JwtBundles>> {
        Arc::clone(&self.shared.jwt_trust)
    }

    /// What the broker has told, and every change of it.
    #[must_use]
    pub fn state(&self) -> watch::Receiver<Arc<NodeState>> {
        self.shared.state.subscribe()
    }

    /// Whether the broker is heard, and every change of it.
    #[must_use]
    pub fn connectivity(&self) -> watch::Receiver<Connectivity> {
        self.shared.connectivity.subscribe()
    }

    /// How far the broker's audit log had grown when it last said so.
    #[must_use]
    pub fn audit_head(&self) -> Option<AuditHead> {
        lock(&self.shared.audit).clone()
    }

    /// How long ago the broker last confirmed the state; zero while connected.
    #[must_use]
    pub fn state_age(&self) -> Duration {
        if *self.shared.connectivity.borrow() == Connectivity::Connected {
            return Duration::ZERO;
        }
        let confirmed = UNIX_EPOCH + Duration::from_secs(self.shared.confirmed.load(Ordering::Relaxed));
        clock::now().duration_since(confirmed).unwrap_or_default()
    }

    /// The identity of an entry: from the cache where it is still good, else from the broker; from then on it renews itself.
    ///
    /// `digest` is that of the component file for entries that name a wasm component, else empty.
    ///
    /// # Errors
    /// When nothing usable is cached and the broker does not sign.
    pub async fn identity(&self, entry: &Entry, digest: &str) -> Result<Arc<Identity>, SignError> {
        if let Some(identity) = lock(&self.shared.identities).get(&entry.id) {
            return Ok(Arc::clone(identity));
        }
        let (svid, since) = match self.shared.take_cached(entry, digest) {
            Some(svid) => {
                let since = svid.not_before();
                (svid, since)
            }
            None => (self.shared.signed(&entry.id, digest).await?, clock::now()),
        };
        if svid.id() != &entry.spiffe_id {
            return Err(SignError::Unusable(format!("it is for `{}`, not for `{}`", svid.id(), entry.spiffe_id)));
        }
        let identity = self.shared.hold(entry, digest, svid);
        if let Err(error) = self.shared.store_identities().await {
            warn!(%error, "cannot write the identity cache");
        }
        let fresh = Arc::clone(&identity).keep_fresh(Arc::clone(&self.shared), since);
        self.tasks.spawn(self.stop.clone().run_until_cancelled_owned(fresh));
        Ok(identity)
    }

    /// Renews the identity of an entry no more; what was issued lives on until it expires. The node does so itself when an entry is removed.
    pub fn forget(&self, entry: &str) {
        if let Some(identity) = lock(&self.shared.identities).remove(entry) {
            identity.forget();
        }
    }

    /// Tells the broker where this node serves a virtual component, now and after every reconnect.
    pub async fn announce(&self, target: Target, addresses: Vec<String>) {
        lock(&self.shared.announced).insert(target.clone(), addresses);
        // A full queue or a stopped node loses nothing: every new stream announces everything again.
        let _ = self.shared.requests.send(Request::Announce(target)).await;
    }

    /// Tells the broker that the node now enforces `version`.
    pub fn applied(&self, version: Version) {
        // Only for the operator's eyes: a full queue may drop it, the next one says more.
        let _ = self.shared.requests.try_send(Request::Applied(version));
    }

    /// The WIT of a virtual component, and its record.
    ///
    /// # Errors
    /// When the broker cannot be asked or does not know the component in a lattice of this node.
    pub async fn describe(&self, target: &Target) -> Result<(PeerRecord, Vec<WitSource>), DescribeError> {
        let client = lock(&self.shared.client).clone();
        let mut client = client.ok_or(DescribeError::Offline)?;
        let request = v1::DescribeRequest { target: Some(state::target_message(target)) };
        let reply = client.describe(request).await.map_err(|status| DescribeError::Refused {
            target: target.to_string(),
            reason: status.message().to_owned(),
        })?;
        let v1::DescribeReply { record, wit } = reply.into_inner();
        let record = PeerRecord::from_message(record.ok_or(InvalidState::Missing("record"))?)?;
        Ok((record, state::wit_sources(wit)))
    }
}

/// Writes the state file some time after each change, and once more at the end.
async fn write_state(shared: Arc<Shared>, stop: CancellationToken) {
    loop {
        let stopped = tokio::select! {
            () = shared.state_changed.notified() => false,
            () = stop.cancelled() => true,
        };
        let mut message = shared.state.borrow().to_message();
        message.now_seconds = shared.confirmed.load(Ordering::Relaxed);
        let cache = Arc::clone(&shared.cache);
        if let Err(error) = blocking(move || cache.store_state(&message)).await {
            warn!(%error, "cannot write the state cache");
        }
        if stopped {
            info!("node stopped");
            return;
        }
        tokio::select! {
            () = tokio::time::sleep(STATE_WRITE_PAUSE) => {}
            () = stop.cancelled() => {}
        }
    }
}

/// Runs file work off the runtime's threads.
async fn blocking(work: impl FnOnce() -> Result<(), CacheError> + Send + 'static) -> Result<(), CacheError> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| {
        Err(CacheError::Io { action: "write", path: "cache".to_owned(), cause: std::io::Error::other(error) })
    })
}

fn seconds(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// A poisoned lock is taken over: every critical section here leaves its data whole.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
