//! The node as a source of identities for the machine it runs on.
//!
//! Every entry that demands selectors, and every one that a set of files names, has its own key, made here, and an SVID that the node keeps
//! fresh. What workloads may have is published as one [`Snapshot`] after another.

mod tokens;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use portcullis_client::node::{ComponentDigest, Entry, Identity, Node, NodeState, SignError, Version};
use portcullis_identity::{Audience, SpiffeId, validate_jwt};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use crate::workload::{
    self, DomainBundle, Held, Identities, InvalidToken, Snapshot, Token, TokenClaims, TokenRefused, WantedToken,
};

use tokens::Tokens;

/// SVIDs that are asked for at a time.
const ASK_AT_A_TIME: usize = 16;
/// The first wait after the broker did not sign; doubles up to [`RETRY_CEILING`].
const RETRY_FLOOR: Duration = Duration::from_millis(500);
/// The longest wait before asking again.
const RETRY_CEILING: Duration = Duration::from_secs(30);
/// News that may wait to be published.
const NEWS_QUEUE: usize = 64;
/// Entries beyond these are not served: a node is one machine.
const MAX_ENTRIES: usize = 4096;
/// By how much the clock of another issuer may differ from ours when it says that a token began or ended.
const LEEWAY: Duration = Duration::from_secs(30);

/// A source of identities. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Supply {
    node: Node,
    snapshots: Arc<watch::Sender<Option<Arc<Snapshot>>>>,
    tokens: Arc<Tokens>,
}

/// An entry's identity came, or was renewed.
struct News {
    entry: String,
    identity: Arc<Identity>,
}

impl Supply {
    /// Takes the SVIDs of the node's entries until `stop`; of those without selectors only what `named` has.
    pub(crate) fn start(node: &Node, named: BTreeSet<SpiffeId>, tasks: &TaskTracker, stop: &CancellationToken) -> Self {
        let supply = Self { node: node.clone(), snapshots: Arc::new(watch::Sender::new(None)), tokens: Arc::default() };
        tasks.spawn(stop.clone().run_until_cancelled_owned(supply.clone().keep(named)));
        supply
    }

    /// What is handed out now.
    pub(crate) fn current(&self) -> Option<Arc<Snapshot>> {
        self.snapshots.borrow().clone()
    }

    async fn keep(self, named: BTreeSet<SpiffeId>) {
        let mut states = self.node.state();
        let (news, mut queue) = mpsc::channel(NEWS_QUEUE);
        let asking = Arc::new(Semaphore::new(ASK_AT_A_TIME));
        let mut followed: BTreeMap<String, AbortHandle> = BTreeMap::new();
        let mut held: BTreeMap<String, Arc<Identity>> = BTreeMap::new();
        let mut followers = JoinSet::new();
        loop {
            let state = states.borrow_and_update().clone();
            let entries = wanted(&state, &named);
            followed.retain(|id, follower| {
                let keep = entries.contains_key(id);
                if !keep {
                    follower.abort();
                }
                keep
            });
            held.retain(|id, _| entries.contains_key(id));
            for (id, entry) in &entries {
                if !followed.contains_key(id) {
                    let follower = follow(self.node.clone(), (*entry).clone(), Arc::clone(&asking), news.clone());
                    followed.insert(id.clone(), followers.spawn(follower));
                }
            }
            if state.version > Version::default() {
                self.snapshots.send_replace(Some(Arc::new(snapshot(&self.node, &state, &entries, &held))));
            }
            tokio::select! {
                changed = states.changed() => if changed.is_err() {
                    return;
                },
                Some(News { entry, identity }) = queue.recv() => {
                    held.insert(entry, identity);
                    while let Ok(News { entry, identity }) = queue.try_recv() {
                        held.insert(entry, identity);
                    }
                }
                // Only those whose entry is gone end.
                Some(_) = followers.join_next() => {}
            }
        }
    }
}

/// The entries whose SVIDs are handed out on this machine, by id.
fn wanted<'s>(state: &'s NodeState, named: &BTreeSet<SpiffeId>) -> BTreeMap<String, &'s Entry> {
    let here = |entry: &&Entry| !entry.selectors.is_empty() || named.contains(&entry.spiffe_id);
    let of_a_process = |entry: &&Entry| entry.digest == ComponentDigest::NotAComponent;
    let entries = state.entries.values().filter(of_a_process).filter(here);
    let wanted: BTreeMap<_, _> = entries.take(MAX_ENTRIES).map(|entry| (entry.id.clone(), entry)).collect();
    if wanted.len() == MAX_ENTRIES {
        warn!(limit = MAX_ENTRIES, "this node has more entries than it serves");
    }
    wanted
}

/// Asks for an entry's identity until it is there, and tells of it and of every renewal.
async fn follow(node: Node, entry: Entry, asking: Arc<Semaphore>, news: mpsc::Sender<News>) {
    let mut wait = RETRY_FLOOR;
    let identity = loop {
        let Ok(permit) = asking.acquire().await else { return };
        let answer = node.identity(&entry, "").await;
        drop(permit);
        match answer {
            Ok(identity) => break identity,
            Err(error) => {
                warn!(entry = %entry.id, id = %entry.spiffe_id, %error, "no svid yet for an entry");
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(RETRY_CEILING);
            }
        }
    };
    info!(entry = %entry.id, id = %entry.spiffe_id, "an identity is ready for its workloads");
    let mut renewals = identity.renewals();
    loop {
        renewals.mark_unchanged();
        let told = news.send(News { entry: entry.id.clone(), identity: Arc::clone(&identity) }).await;
        if told.is_err() || renewals.changed().await.is_err() {
            return;
        }
    }
}

fn snapshot(
    node: &Node,
    state: &NodeState,
    entries: &BTreeMap<String, &Entry>,
    identities: &BTreeMap<String, Arc<Identity>>,
) -> Snapshot {
    let held = entries.values().map(|entry| Held {
        entry: workload::Entry {
            id: entry.id.clone(),
            spiffe_id: entry.spiffe_id.clone(),
            selectors: entry.selectors.clone(),
            hint: entry.hint.clone(),
            federates_with: entry.federates_with.clone(),
            created_at: entry.created_at,
        },
        svid: identities.get(&entry.id).map(|identity| identity.svid()),
    });
    let bundles = state.bundles.iter().map(|(domain, bundle)| {
        let jwks = state.jwt_bundles.get(domain).map(portcullis_identity::JwtBundle::to_workload_jwks);
        let x509 = bundle.certificates().cloned().collect();
        (domain.clone(), DomainBundle { x509, jwks: jwks.unwrap_or_else(|| r#"{"keys":[]}"#.to_owned()) })
    });
    Snapshot::new(node.trust_domain().clone(), held.collect(), bundles.collect())
}

impl Identities for Supply {
    fn snapshots(&self) -> watch::Receiver<Option<Arc<Snapshot>>> {
        self.snapshots.subscribe()
    }

    async fn tokens(&self, wanted: Vec<WantedToken>) -> Result<Vec<Token>, TokenRefused> {
        self.tokens.of(&self.node, wanted).await
    }

    fn validate(&self, token: &str, audience: &str, now: SystemTime) -> Result<TokenClaims, InvalidToken> {
        let invalid = |error: &dyn std::fmt::Display| InvalidToken(error.to_string());
        let audience: Audience = audience.parse().map_err(|error| invalid(&error))?;
        let bundles = self.node.jwt_trust();
        let claims = validate_jwt(token, &audience, &bundles.load(), now, LEEWAY).map_err(|error| invalid(&error))?;
        Ok(TokenClaims { spiffe_id: claims.id().clone(), claims: claims.into_all() })
    }
}

impl From<SignError> for TokenRefused {
    fn from(error: SignError) -> Self {
        match error {
            SignError::Offline => Self::Unavailable,
            SignError::Refused(why) | SignError::Unusable(why) => Self::Refused(why),
        }
    }
}
