//! The node as a source of identities for the machine it runs on.
//!
//! Every entry that demands selectors, and every one that a set of files names, has its own key, made here, and an SVID that the node keeps
//! fresh. What workloads may have is published as one [`Snapshot`] after another.

mod fillings;
mod tokens;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use portcullis_client::node::{ComponentDigest, Entry, Identity, Node, NodeState, SignError, Version};
use portcullis_identity::{Audience, InvalidAudience, JwtBundles, JwtClaims, Revocations, SpiffeId, validate_jwt};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use crate::clock;
use crate::workload::{
    self, DomainBundle, Filling, Held, Identities, InvalidToken, Snapshot, Token, TokenClaims, TokenRefused,
    WantedToken,
};

use fillings::Fillings;
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
    fillings: Arc<Fillings>,
}

/// An entry's identity came, or was renewed.
struct News {
    entry: String,
    identity: Arc<Identity>,
}

impl Supply {
    /// Takes the SVIDs of the node's entries until `stop`; of those without selectors only what `named` has. No token for one of the
    /// audiences `logins`, or for a lattice of the trust domain as `nats init` names it, is handed out twice.
    pub(crate) fn start(
        node: &Node,
        named: BTreeSet<SpiffeId>,
        mut logins: BTreeSet<String>,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) -> Self {
        logins.insert(format!("spiffe://{}/nats", node.trust_domain()));
        let supply = Self {
            node: node.clone(),
            snapshots: Arc::new(watch::Sender::new(None)),
            tokens: Arc::new(Tokens::new(logins)),
            fillings: Arc::default(),
        };
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
                if !followed.contains_key(id) && !is_vouched_for(entry) {
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

/// Whether the entry is that of a component on a host: there are tokens of it, for which its host vouches, and no certificate.
fn is_vouched_for(entry: &Entry) -> bool {
    entry.selectors.iter().any(|selector| selector.starts_with(workload::COMPONENT))
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
    let templates = state.templates.values().map(|template| workload::Template {
        id: template.id.clone(),
        pattern: template.pattern.clone(),
        selectors: template.selectors.clone(),
    });
    let snapshot = Snapshot::new(node.trust_domain().clone(), held.collect(), bundles.collect());
    snapshot.with_templates(templates.collect())
}

impl Identities for Supply {
    fn snapshots(&self) -> watch::Receiver<Option<Arc<Snapshot>>> {
        self.snapshots.subscribe()
    }

    async fn fill(&self, filling: Filling) -> Result<(), TokenRefused> {
        self.fillings.fill(filling, clock::instant(), |template, values| self.node.fill(template, values)).await
    }

    async fn tokens(&self, wanted: Vec<WantedToken>) -> Result<Vec<Token>, TokenRefused> {
        self.tokens.of(&self.node, wanted).await
    }

    fn validate(&self, token: &str, audience: &str, now: SystemTime) -> Result<TokenClaims, InvalidToken> {
        let audience: Audience = audience.parse().map_err(|error: InvalidAudience| InvalidToken(error.to_string()))?;
        let (bundles, trust) = (self.node.jwt_trust(), self.node.trust());
        let claims = believed(token, &audience, (&bundles.load(), trust.load().revocations()), now)?;
        Ok(TokenClaims { spiffe_id: claims.id().clone(), claims: claims.into_all() })
    }
}

/// What a token says that is valid and was not revoked meanwhile.
fn believed(
    token: &str,
    audience: &Audience,
    (bundles, revocations): (&JwtBundles, &Revocations),
    now: SystemTime,
) -> Result<JwtClaims, InvalidToken> {
    let claims =
        validate_jwt(token, audience, bundles, now, LEEWAY).map_err(|error| InvalidToken(error.to_string()))?;
    if revocations.of_jwt(&claims) { Err(InvalidToken("it is revoked".to_owned())) } else { Ok(claims) }
}

impl From<SignError> for TokenRefused {
    fn from(error: SignError) -> Self {
        match error {
            SignError::Offline => Self::Unavailable,
            SignError::Refused(why) | SignError::Unusable(why) => Self::Refused(why),
        }
    }
}

#[cfg(test)]
mod tests {
    use portcullis_identity::{
        JwtBundle, JwtKey, Revocation, Revoked, UnsignedJwt, parse_spiffe_id, parse_trust_domain,
    };

    use super::*;
    use crate::clock;

    fn entry(id: &str, path: &str, selectors: &[&str]) -> Entry {
        let spiffe_id = parse_spiffe_id(&format!("spiffe://a.test{path}")).unwrap();
        let selectors = selectors.iter().map(|&selector| selector.to_owned()).collect();
        Entry { selectors, ..Entry::new(id.to_owned(), spiffe_id, ComponentDigest::NotAComponent) }
    }

    #[test]
    fn served_are_entries_with_selectors_and_those_that_files_name_and_no_components() {
        let component = Entry { digest: ComponentDigest::DangerAny, ..entry("e4", "/component/x/y", &["unix:uid:1"]) };
        let entries =
            [entry("e1", "/one", &["unix:uid:1"]), entry("e2", "/two", &[]), entry("e3", "/three", &[]), component];
        let entries = entries.into_iter().map(|entry| (entry.id.clone(), entry)).collect();
        let state = NodeState { entries, ..NodeState::default() };
        let named = BTreeSet::from([parse_spiffe_id("spiffe://a.test/three").unwrap()]);
        assert_eq!(wanted(&state, &named).into_keys().collect::<Vec<_>>(), ["e1", "e3"]);
        assert_eq!(wanted(&state, &BTreeSet::new()).into_keys().collect::<Vec<_>>(), ["e1"]);
    }

    #[test]
    fn no_more_entries_are_served_than_one_machine_has() {
        let entries = (0..=MAX_ENTRIES).map(|number| entry(&format!("e{number}"), "/x", &["unix:uid:1"]));
        let entries = entries.map(|entry| (entry.id.clone(), entry)).collect();
        let state = NodeState { entries, ..NodeState::default() };
        assert_eq!(wanted(&state, &BTreeSet::new()).len(), MAX_ENTRIES);
    }

    #[test]
    fn a_token_that_was_revoked_is_not_believed_and_one_issued_later_is() {
        let (now, key) = (clock::now(), JwtKey::generate().unwrap());
        let (id, audience) = (parse_spiffe_id("spiffe://a.test/web").unwrap(), ["db".parse::<Audience>().unwrap()]);
        let token = |issued_at: SystemTime| {
            let expires_at = issued_at + Duration::from_secs(300);
            let unsigned = UnsignedJwt { id: &id, audience: &audience, issued_at, expires_at, jti: None, issuer: None };
            unsigned.sign(&key).unwrap().token().to_owned()
        };
        let bundle = JwtBundle::new(parse_trust_domain("a.test").unwrap(), [key.authority(None)]).unwrap();
        let bundles = JwtBundles::new([bundle]);
        let until = now + Duration::from_secs(3600);
        let revocation = Revocation { revoked: Revoked::Identity(id.clone()), issued_until: now, until };
        let revoked = Revocations::new([revocation], now);
        let believe = |token: &str, revocations: &Revocations| {
            let at = now + Duration::from_secs(20);
            believed(token, &audience[0], (&bundles, revocations), at).map(|claims| claims.id().clone())
        };
        let (before, after) = (token(now - Duration::from_secs(10)), token(now + Duration::from_secs(10)));
        assert_eq!(believe(&before, &Revocations::default()).unwrap(), id);
        assert_eq!(believe(&before, &revoked), Err(InvalidToken("it is revoked".to_owned())));
        assert_eq!(believe(&after, &revoked).unwrap(), id);
    }
}
