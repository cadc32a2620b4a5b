//! Signs for nodes: X.509-SVIDs and JWT-SVIDs of the entries whose parent they are, over their stream or by a single call.
//!
//! Whoever asks is bounded twice. Each node has a rate, whatever number of streams and connections it opens; and only some signatures are
//! made at one time, in the order in which they were asked for, so that threads are left for everything else.

mod key_use;
mod refusal;
mod vouching;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use portcullis_api::v1::{self, jwt_result};
use portcullis_identity::{Audience, NodeName, RequestedKey, SpiffeId, node_id};
use tokio::sync::{Semaphore, SemaphorePermit};

use self::key_use::{Holder, KeyUse};
pub(crate) use self::refusal::SignRefusal;
use crate::audit::{Event, Pending};
use crate::authority::{IssuedJwt, Subject};
use crate::broker::{Broker, x509_issued};
use crate::clock;
use crate::listener::Remote;
use crate::registry::{Digest, Entry, EntryId};
use crate::throttle::{Admission, Rate, Throttle};
use crate::wire;

/// X.509-SVIDs for one node: a host may start a thousand components at once, and then renews one by one.
const CERTIFICATES: Rate = Rate { burst: 2048, every: Duration::from_millis(2) };
/// JWT-SVIDs for one node: one per call that a workload makes, at worst.
const TOKENS: Rate = Rate { burst: 4096, every: Duration::from_millis(1) };
/// Nodes whose rates are counted at one time.
const MAX_NODES: usize = 16_384;
/// JWT-SVIDs in one request.
const MAX_BATCH: usize = 64;
/// Tokens signed before other tasks get their turn: a signature takes some 30 µs.
const TOKENS_PER_TURN: usize = 16;
/// How long a request waits for its turn.
const PATIENCE: Duration = Duration::from_secs(5);

/// What bounds the signing for all nodes, and what was signed so far.
#[derive(Debug)]
pub(crate) struct Signing {
    certificates: Mutex<Throttle<NodeName>>,
    tokens: Mutex<Throttle<NodeName>>,
    turns: Semaphore,
    keys: Mutex<KeyUse>,
}

impl Default for Signing {
    fn default() -> Self {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            certificates: Mutex::new(Throttle::new(CERTIFICATES, MAX_NODES)),
            tokens: Mutex::new(Throttle::new(TOKENS, MAX_NODES)),
            turns: Semaphore::new((threads / 2).max(1)),
            keys: Mutex::default(),
        }
    }
}

impl Signing {
    /// Waits for a turn to do costly cryptography.
    pub(crate) async fn turn(&self) -> Result<SemaphorePermit<'_>, SignRefusal> {
        let turn = tokio::time::timeout(PATIENCE, self.turns.acquire()).await;
        turn.map_err(|_| SignRefusal::Busy)?.map_err(|_| SignRefusal::Busy)
    }

    /// Whether `node` may have a template filled in now: it counts as a certificate, which it will ask for next.
    pub(crate) fn admit_filling(&self, node: &NodeName) -> Result<(), SignRefusal> {
        take(&self.certificates, node)
    }
}

impl Broker {
    /// Signs an X.509-SVID of one of the caller's entries, or its own.
    ///
    /// The chain must not be handed out before the record of it is on disk.
    pub(crate) async fn sign_x509(
        &self,
        remote: &Remote,
        message: &v1::Sign,
    ) -> Result<(Vec<Vec<u8>>, Pending), SignRefusal> {
        match self.try_sign_x509(remote, message).await {
            Ok((chain, event)) => Ok((chain, self.audit.submit(vec![event]).await)),
            Err(refusal) => {
                self.note_refusal(remote, &message.entry, &refusal);
                Err(refusal)
            }
        }
    }

    async fn try_sign_x509(&self, remote: &Remote, message: &v1::Sign) -> Result<(Vec<Vec<u8>>, Event), SignRefusal> {
        let node = self.admit(remote)?;
        take(&self.signing.certificates, &node)?;
        let v1::Sign { request: _, entry, csr, component_digest } = message;
        let entry: Option<EntryId> = wire::parse_optional(entry)?;
        let turn = self.signing.turn().await?;
        let key = RequestedKey::parse(csr)?;
        let holder = Holder { node: node.clone(), entry: entry.clone() };
        self.check_key(&key, &holder, remote)?;
        let (issued, id) = match &entry {
            None => {
                // Before the answer, so that a clock that was set back does not make the new certificate look old.
                self.sight(&node, remote).await;
                (self.issue_node(&node, &key)?, node_id(self.authority.trust_domain(), &node))
            }
            Some(id) => {
                let entry = self.entry(&node, id)?;
                check_digest(&entry, component_digest)?;
                vouching::judge_unvouched(&entry)?;
                let subject = Subject { id: &entry.spiffe_id, dns_names: entry.terms.dns_names.as_slice() };
                (self.authority.issue(&key, subject, entry.terms.ttl, clock::now())?, entry.spiffe_id.clone())
            }
        };
        let event = x509_issued(&node, entry.as_ref(), &id, &key, &issued);
        drop(turn);
        lock(&self.signing.keys).insert(key.sha256(), holder);
        // The audit log tells of each; this one would say the same again, thousands of times.
        tracing::debug!(%node, %id, not_after = clock::unix_seconds(issued.not_after), "issued");
        Ok((issued.chain.iter().map(|der| der.to_vec()).collect(), event))
    }

    /// Signs JWT-SVIDs of the caller's entries: one result each, in order.
    ///
    /// They must not be handed out before the records of them are on disk.
    pub(crate) async fn sign_jwts(
        &self,
        remote: &Remote,
        wanted: Vec<v1::WantedJwt>,
    ) -> Result<(Vec<v1::JwtResult>, Pending), SignRefusal> {
        match self.try_sign_jwts(remote, wanted).await {
            Ok((results, events)) => Ok((results, self.audit.submit(events).await)),
            Err(refusal) => {
                self.note_refusal(remote, "", &refusal);
                Err(refusal)
            }
        }
    }

    async fn try_sign_jwts(
        &self,
        remote: &Remote,
        wanted: Vec<v1::WantedJwt>,
    ) -> Result<(Vec<v1::JwtResult>, Vec<Event>), SignRefusal> {
        let node = self.admit(remote)?;
        if !(1..=MAX_BATCH).contains(&wanted.len()) {
            return Err(SignRefusal::Batch { wanted: wanted.len(), limit: MAX_BATCH });
        }
        let (mut results, mut events) = (Vec::with_capacity(wanted.len()), Vec::with_capacity(wanted.len()));
        let mut vouched = Vec::with_capacity(wanted.len());
        for wanted in &wanted {
            vouched.push(self.vouching(&node, wanted).await);
        }
        let mut turn = self.signing.turn().await?;
        for (position, (wanted, vouched)) in wanted.into_iter().zip(vouched).enumerate() {
            if position > 0 && position % TOKENS_PER_TURN == 0 {
                drop(turn);
                tokio::task::yield_now().await;
                turn = self.signing.turn().await?;
            }
            results.push(self.jwt_result(&node, wanted, vouched, &mut events));
        }
        drop(turn);
        tracing::debug!(%node, wanted = results.len(), signed = events.len(), "issued tokens");
        Ok((results, events))
    }

    fn jwt_result(
        &self,
        node: &NodeName,
        wanted: v1::WantedJwt,
        vouched: Result<Option<SpiffeId>, SignRefusal>,
        events: &mut Vec<Event>,
    ) -> v1::JwtResult {
        let v1::WantedJwt { entry, audience, vouched_by: _ } = wanted;
        match vouched.and_then(|vouched_by| self.jwt(node, &entry, audience, vouched_by)) {
            Ok((token, expires_at, event)) => {
                events.push(event);
                v1::JwtResult { result: Some(jwt_result::Result::Token(token)), expires_at }
            }
            Err(refusal) => {
                tracing::warn!(%node, entry, %refusal, "token refused");
                self.audit.note(Event::IssueRefused { node: node.to_string(), entry, reason: refusal.to_string() });
                v1::JwtResult { result: Some(jwt_result::Result::Refused(refusal.to_string())), expires_at: 0 }
            }
        }
    }

    fn jwt(
        &self,
        node: &NodeName,
        entry: &str,
        audience: Vec<String>,
        vouched_by: Option<SpiffeId>,
    ) -> Result<(String, u64, Event), SignRefusal> {
        take(&self.signing.tokens, node)?;
        let entry = self.entry(node, &wire::parse(entry)?)?;
        let audience = audience.into_iter().map(Audience::try_from).collect::<Result<Vec<_>, _>>()?;
        let IssuedJwt { svid, jti, kid } =
            self.authority.jwt_svid(&entry.spiffe_id, &audience, entry.terms.jwt_ttl, clock::now())?;
        let expires_at = clock::unix_seconds(svid.expires_at());
        let event = Event::JwtIssued {
            node: node.to_string(),
            entry: entry.id.to_string(),
            spiffe_id: entry.spiffe_id.to_string(),
            jti: jti.to_string(),
            kid: kid.as_str().to_owned(),
            audiences: audience.len(),
            expires_at,
            vouched_by: vouched_by.map(|host| host.to_string()),
        };
        Ok((svid.token().to_owned(), expires_at, event))
    }

    fn note_refusal(&self, remote: &Remote, entry: &str, refusal: &SignRefusal) {
        let peer = remote.peer.as_ref().map(|peer| peer.id().to_string());
        let node = peer.unwrap_or_else(|| remote.address.to_string());
        self.audit.note(Event::IssueRefused { node, entry: entry.to_owned(), reason: refusal.to_string() });
    }

    fn entry(&self, node: &NodeName, id: &EntryId) -> Result<Arc<Entry>, SignRefusal> {
        let entry = self.ledger.read(|registry| registry.entry(id).cloned());
        entry.filter(|entry| entry.node == *node).ok_or_else(|| SignRefusal::NoEntry(id.clone()))
    }

    fn check_key(&self, key: &RequestedKey, holder: &Holder, remote: &Remote) -> Result<(), SignRefusal> {
        let hash = key.sha256();
        let is_nodes = remote.peer.as_ref().is_some_and(|peer| peer.leaf().public_key_sha256() == hash);
        let is_others = lock(&self.signing.keys).holder(&hash).is_some_and(|known| known != holder);
        if is_others || (is_nodes && holder.entry.is_some()) { Err(SignRefusal::SharedKey) } else { Ok(()) }
    }
}

fn take(rates: &Mutex<Throttle<NodeName>>, node: &NodeName) -> Result<(), SignRefusal> {
    match lock(rates).admit(node.clone(), clock::now()) {
        Admission::Admitted => Ok(()),
        Admission::Throttled => Err(SignRefusal::Throttled),
    }
}

/// The host says which file it runs; the entry says which it must be.
fn check_digest(entry: &Entry, said: &str) -> Result<(), SignRefusal> {
    match &entry.digest {
        Digest::DangerAny | Digest::NotApplicable => Ok(()),
        Digest::Exactly(digest) if digest.as_str() == said => Ok(()),
        Digest::Exactly(_) => Err(SignRefusal::Digest(said.chars().take(80).collect())),
    }
}

/// A poisoned lock is taken over: every critical section here leaves its data whole.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
