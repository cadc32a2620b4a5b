//! What the tasks of a node share, and what they do with it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use portcullis_api::v1;
use portcullis_identity::{
    Authority, JwtBundles, PrivateKey, RefusalReason, SigningPath, Svid, Target, TrustBundles, TrustDomain, TrustSource,
};
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tonic::transport::Channel;
use tracing::{error, warn};

use super::audit::AuditHead;
use super::cache::{Cache, CacheError, CachedSvid, Identities};
use super::state::{NodeState, Version};
use super::{
    Connectivity, Entry, Identity, NodeKind, Request, SIGN_DEADLINE, SignError, StartError, blocking, lock, seconds,
};
use crate::clock;

/// What the tasks of a node share.
pub(super) struct Shared {
    pub(super) kind: NodeKind,
    pub(super) broker: String,
    /// Of the cache: which token the node joined with.
    token: Vec<u8>,
    pub(super) trust_domain: TrustDomain,
    pub(super) trust: TrustSource,
    pub(super) jwt_trust: Arc<ArcSwap<JwtBundles>>,
    /// Of the cache: the key of a rejoin whose answer did not come yet.
    pub(super) next_key: Mutex<Option<Arc<PrivateKey>>>,
    pub(super) own: Arc<Identity>,
    pub(super) identities: Mutex<BTreeMap<String, Arc<Identity>>>,
    pub(super) cached: Mutex<Vec<CachedSvid>>,
    pub(super) announced: Mutex<BTreeMap<Target, Vec<String>>>,
    /// Names of callers that the broker is to tell of, now and on every new stream.
    pub(super) met: Mutex<BTreeSet<Target>>,
    pub(super) state: watch::Sender<Arc<NodeState>>,
    pub(super) connectivity: watch::Sender<Connectivity>,
    pub(super) client: Mutex<Option<v1::node_client::NodeClient<Channel>>>,
    /// When the broker last confirmed the state, in seconds since 1970.
    pub(super) confirmed: AtomicU64,
    pub(super) requests: mpsc::Sender<Request>,
    pub(super) cache: Arc<Cache>,
    pub(super) state_changed: Notify,
    pub(super) audit: Mutex<Option<AuditHead>>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("kind", &self.kind).field("broker", &self.broker).finish_non_exhaustive()
    }
}

pub(super) fn shared(
    kind: NodeKind,
    cache: Arc<Cache>,
    identities: Identities,
    requests: mpsc::Sender<Request>,
) -> Result<Shared, StartError> {
    let Identities { broker, token, bundles, mut svids, next_key } = identities;
    let unusable = |what: &'static str, cause: String| StartError::Unusable { what, cause };
    let position = svids.iter().position(|svid| svid.entry.is_empty()).ok_or(StartError::NoToken)?;
    let own = svids.swap_remove(position).svid;
    let trust_domain =
        TrustDomain::new(own.id().trust_domain_name()).map_err(|error| unusable("identity", error.to_string()))?;
    let (state, confirmed) = cached_state(&cache, bundles)?;
    let audit = cache.audit_head()?;
    let trust = state.trust(state.bundles.values().cloned().collect(), clock::now());
    let own = Identity::new(String::new(), String::new(), own, trust.within(|name| *name == trust_domain));
    Ok(Shared {
        kind,
        broker,
        token,
        trust_domain,
        trust: Arc::new(ArcSwap::from_pointee(trust)),
        jwt_trust: Arc::new(ArcSwap::from_pointee(JwtBundles::new(state.jwt_bundles.values().cloned()))),
        next_key: Mutex::new(next_key),
        own,
        identities: Mutex::default(),
        cached: Mutex::new(svids),
        announced: Mutex::default(),
        met: Mutex::new(state.callers.keys().cloned().collect()),
        state: watch::Sender::new(Arc::new(state)),
        connectivity: watch::Sender::new(Connectivity::Disconnected("not connected yet".to_owned())),
        client: Mutex::default(),
        confirmed: AtomicU64::new(confirmed),
        requests,
        cache,
        state_changed: Notify::new(),
        audit: Mutex::new(audit),
    })
}

/// The last state, or a first one that holds nothing but the bundles of the join reply.
fn cached_state(cache: &Cache, bundles: Vec<v1::Bundle>) -> Result<(NodeState, u64), StartError> {
    let (message, confirmed) = match cache.state()? {
        Some(message) => {
            let confirmed = message.now_seconds;
            (message, confirmed)
        }
        None => {
            let version = Some(v1::Version::default());
            (v1::State { version, bundles, ..v1::State::default() }, seconds(clock::now()))
        }
    };
    let state = NodeState::from_message(message, Version::default())
        .map_err(|error| StartError::Unusable { what: "state", cause: error.to_string() })?;
    Ok((state, confirmed))
}

/// Over which time the replacements of many SVIDs are spread that are due at the same moment.
#[derive(Clone, Copy, Debug)]
struct Spread(Duration);

impl Spread {
    /// What is tainted is trusted still.
    const TAINTED: Self = Self(Duration::from_secs(5));
    /// What is revoked is refused by everybody.
    const REFUSED: Self = Self(Duration::from_millis(200));

    /// When the one is due that drew `jitter`, a number in `0..1`.
    fn drawn(self, jitter: f64) -> Duration {
        self.0.mul_f64(jitter)
    }
}

impl Shared {
    pub(super) async fn sign(&self, entry: &str, digest: &str, csr: Vec<u8>) -> Result<Vec<Vec<u8>>, SignError> {
        let (entry, digest) = (entry.to_owned(), digest.to_owned());
        let request = |reply| Request::Sign { entry: entry.clone(), digest: digest.clone(), csr: csr.clone(), reply };
        self.ask(request).await
    }

    /// Signs at most 64 tokens.
    pub(super) async fn sign_jwts(&self, wanted: Vec<v1::WantedJwt>) -> Result<Vec<v1::JwtResult>, SignError> {
        self.ask(|reply| Request::SignJwts { wanted: wanted.clone(), reply }).await
    }

    /// Asks until there is an answer: a stream that ends, because the node's own certificate was renewed for instance, takes with it what was
    /// asked on it.
    async fn ask<T>(&self, request: impl Fn(oneshot::Sender<Result<T, SignError>>) -> Request) -> Result<T, SignError> {
        let asked = async {
            loop {
                let (reply, answer) = oneshot::channel();
                self.requests.send(request(reply)).await.map_err(|_| SignError::Offline)?;
                if let Ok(answer) = answer.await {
                    return answer;
                }
            }
        };
        tokio::time::timeout(SIGN_DEADLINE, asked).await.map_err(|_| SignError::Offline)?
    }

    /// A cached SVID of the entry that is still in the first three quarters of its life and for the same file.
    pub(super) fn take_cached(&self, entry: &Entry, digest: &str) -> Option<Arc<Svid>> {
        let now = clock::now();
        let mut cached = lock(&self.cached);
        let good = |svid: &CachedSvid| {
            svid.entry == entry.id
                && svid.digest == digest
                && svid.svid.id() == &entry.spiffe_id
                && svid.svid.not_after() > now
        };
        let position = cached.iter().position(good)?;
        Some(cached.swap_remove(position).svid)
    }

    pub(super) async fn store_identities(&self) -> Result<(), CacheError> {
        let identities = self.identities();
        let cache = Arc::clone(&self.cache);
        blocking(move || cache.store_identities(&identities)).await
    }

    fn identities(&self) -> Identities {
        let own = std::iter::once(Arc::clone(&self.own));
        let held: Vec<_> = own.chain(lock(&self.identities).values().cloned()).collect();
        let held = held.iter().map(|identity| CachedSvid {
            entry: identity.entry().to_owned(),
            digest: identity.digest().to_owned(),
            svid: identity.svid(),
        });
        // What an earlier run cached and nobody asked for yet stays on disk.
        let svids = held.chain(lock(&self.cached).iter().cloned()).collect();
        let bundles = self.state.borrow().to_message().bundles;
        let token = self.token.clone();
        Identities { broker: self.broker.clone(), token, bundles, svids, next_key: lock(&self.next_key).clone() }
    }

    /// Puts a state into force: trust first, so that nobody sees a component before its issuer is trusted.
    pub(super) fn enforce(&self, state: NodeState) {
        let now = clock::now();
        let retrusted = !self.state.borrow().trusts_as(&state);
        if retrusted {
            self.trust.store(Arc::new(state.trust(self.own_first(&state.bundles), now)));
            self.jwt_trust.store(Arc::new(JwtBundles::new(self.own_first(&state.jwt_bundles))));
        }
        self.confirm(now);
        self.show(&state, retrusted);
        let state = Arc::new(state);
        let before = self.state.send_replace(Arc::clone(&state));
        self.follow(&before, &state);
        self.state_changed.notify_one();
    }

    /// Shows every holder of an identity what it may see of the trust in force, where that is something else now.
    fn show(&self, state: &NodeState, retrusted: bool) {
        let trust = self.trust.load();
        if retrusted {
            self.own.see(trust.within(|name| *name == self.trust_domain));
        }
        let before = Arc::clone(&self.state.borrow());
        for (id, identity) in lock(&self.identities).iter() {
            let Some(entry) = state.entries.get(id) else { continue };
            let same = before.entries.get(id).is_some_and(|old| old.federates_with == entry.federates_with);
            if retrusted || !same {
                identity.see(self.seen_by(entry, &trust));
            }
        }
    }

    /// From now on the identity of `entry` is held, and shown what it may see.
    pub(super) fn hold(&self, entry: &Entry, digest: &str, svid: Arc<Svid>) -> Arc<Identity> {
        let mut identities = lock(&self.identities);
        let trust = self.trust.load();
        // The caller's may be an older one.
        let state = self.state.borrow();
        let entry = state.entries.get(&entry.id).unwrap_or(entry);
        let identity = Identity::new(entry.id.clone(), digest.to_owned(), svid, self.seen_by(entry, &trust));
        identities.insert(entry.id.clone(), Arc::clone(&identity));
        identity
    }

    /// What the holder of `entry` sees of `trust`.
    pub(super) fn seen_by(&self, entry: &Entry, trust: &TrustBundles) -> TrustBundles {
        trust.within(|name| *name == self.trust_domain || entry.federates_with.contains(name))
    }

    /// Returns once `svid` is to be replaced before its time: it is revoked, or an authority on its path is tainted or gone.
    pub(super) async fn withdrawn(&self, svid: &Svid) {
        let mut state = self.state.subscribe();
        loop {
            let spread = self.replacement_spread(svid, &state.borrow_and_update());
            if let Some(spread) = spread {
                tokio::time::sleep(spread.drawn(clock::jitter())).await;
                return;
            }
            if state.changed().await.is_err() {
                // The node has stopped.
                std::future::pending::<()>().await;
            }
        }
    }

    /// Within which time `svid` is to be replaced, if it is: nodes that hear of it at the same moment do not ask at the same moment.
    fn replacement_spread(&self, svid: &Svid, state: &NodeState) -> Option<Spread> {
        let trust = self.trust.load();
        let intermediates = svid.chain().iter().skip(1);
        let revoked = trust.revocations().of_leaf(svid.leaf())
            || intermediates
                .filter_map(|der| Authority::parse(der, svid.id().trust_domain()).ok())
                .any(|authority| trust.revocations().of_serial(authority.serial()));
        if revoked {
            return Some(Spread::REFUSED);
        }
        match SigningPath::of(svid, &trust, clock::now()) {
            Ok(path) => path.goes_through(state.withdrawal.tainted(&self.trust_domain)).then_some(Spread::TAINTED),
            Err(refused) => matches!(refused.reason(), RefusalReason::UnknownIssuer { .. }).then_some(Spread::REFUSED),
        }
    }

    /// Remembers how far the broker's audit log has grown, on disk: it is a witness only if it outlives the broker's own memory.
    pub(super) async fn remember(&self, told: AuditHead) {
        let remembered = {
            let mut audit = lock(&self.audit);
            let remembered = match audit.as_ref() {
                Some(before) => before.then(told),
                None => told,
            };
            if audit.as_ref() == Some(&remembered) {
                return;
            }
            audit.insert(remembered).clone()
        };
        if let Some(contradiction) = &remembered.contradiction {
            error!(
                contradiction,
                "ALARM: the broker's audit log is not the one it was; `audit.json` in the state folder is the witness"
            );
        }
        let cache = Arc::clone(&self.cache);
        if let Err(error) = blocking(move || cache.store_audit_head(&remembered)).await {
            warn!(%error, "cannot write the audit head");
        }
    }

    /// Stops renewing what is no longer granted, and renews at once what a certificate would say differently now. Anything else about an
    /// entry may change without a signature.
    fn follow(&self, before: &NodeState, after: &NodeState) {
        lock(&self.identities).retain(|entry, identity| match (before.entries.get(entry), after.entries.get(entry)) {
            (Some(_), None) => {
                identity.forget();
                false
            }
            (Some(old), Some(new)) => {
                if !old.certifies_as(new) {
                    identity.renew_now();
                }
                // Once more, for who began to hold it in between.
                if old.federates_with != new.federates_with {
                    identity.see(self.seen_by(new, &self.trust.load()));
                }
                true
            }
            (None, _) => true,
        });
    }

    fn own_first<T: Clone>(&self, bundles: &BTreeMap<TrustDomain, T>) -> Vec<T> {
        let own = bundles.get(&self.trust_domain);
        let others = bundles.iter().filter(|(name, _)| **name != self.trust_domain).map(|(_, bundle)| bundle);
        own.into_iter().chain(others).cloned().collect()
    }

    pub(super) fn confirm(&self, now: SystemTime) {
        self.confirmed.store(seconds(now), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_thousand_svids_of_a_tainted_authority_are_not_asked_for_at_one_moment() {
        const SVIDS: usize = 5000;
        let mut windows = [0_usize; 50];
        for _ in 0..SVIDS {
            let at = Spread::TAINTED.drawn(clock::jitter());
            assert!(at < Duration::from_secs(5));
            windows[usize::try_from(at.as_millis()).unwrap() / 100] += 1;
        }
        // A hundred in each tenth of a second, and by chance never the double of it.
        assert!(windows.iter().all(|asked| (30..200).contains(asked)), "{windows:?}");
    }
}
