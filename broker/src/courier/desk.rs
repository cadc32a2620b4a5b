//! Answers what a node asks on its stream: signatures, and announcements of where it serves.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use portcullis_api::v1::{self, watch_reply};
use portcullis_identity::{InvalidRequest, NodeName, Peer, RequestedKey};

use crate::audit::{Actor, Event, Pending};
use crate::authority::IssueError;
use crate::broker::{self, Broker};
use crate::clock;
use crate::ledger::CommandError;
use crate::registry::{Announcement, Command, Digest, Entry, EntryId};
use crate::throttle::{Admission, Rate, Throttle};
use crate::wire::{self, InvalidMessage};

/// Signatures for one node: a host may start a thousand components at once, and then renews one by one.
const SIGNATURES: Rate = Rate { burst: 2048, every: Duration::from_millis(20) };
/// Announcements of one node, each of which is written to disk.
const ANNOUNCEMENTS: Rate = Rate { burst: 256, every: Duration::from_millis(200) };
/// Keys remembered per stream, to see that none serves two identities.
const MAX_KEYS: usize = 8192;

/// What a node may have signed, and what it asked for so far.
pub(super) struct Desk {
    broker: Arc<Broker>,
    node: NodeName,
    peer: Option<Arc<Peer>>,
    signatures: Throttle<()>,
    announcements: Throttle<()>,
    /// For which entry a key was signed; the node's own identity is `None`.
    keys: HashMap<[u8; 32], Option<EntryId>>,
}

/// What a node is told, and when.
pub(super) enum Answer {
    /// At once.
    Now(watch_reply::Message),
    /// A signature, as soon as it is audited.
    Audited(Audited),
}

/// A signature that is not handed out before the audit log tells of it.
pub(super) struct Audited {
    request: u64,
    record: Pending,
    chain: Vec<Vec<u8>>,
}

impl Audited {
    /// The signature, or that there is none. To be asked until it answers, and then never again.
    pub(super) async fn message(&mut self) -> watch_reply::Message {
        let request = self.request;
        match self.record.on_disk().await {
            Ok(()) => watch_reply::Message::Signed(v1::Signed { request, chain: std::mem::take(&mut self.chain) }),
            Err(error) => {
                tracing::warn!(%error, "signature withheld");
                let reason = "the broker cannot write its audit log".to_owned();
                watch_reply::Message::SignRefused(v1::SignRefused { request, reason })
            }
        }
    }
}

/// Why nothing was signed.
#[derive(Debug, thiserror::Error)]
enum SignRefusal {
    #[error(transparent)]
    Message(#[from] InvalidMessage),
    #[error("the certificate request is refused: {0}")]
    Request(#[from] InvalidRequest),
    /// Whether the entry is another node's or nobody's is no business of this one.
    #[error("this node has no entry `{0}`")]
    NoEntry(EntryId),
    #[error("the entry is for another component digest than `{0}`")]
    Digest(String),
    #[error("the key serves another identity already: each identity has its own")]
    SharedKey,
    #[error("too many requests: wait a moment")]
    Throttled,
    #[error(transparent)]
    Issue(#[from] IssueError),
}

impl Desk {
    pub(super) fn new(broker: Arc<Broker>, node: NodeName, peer: Option<Arc<Peer>>) -> Self {
        Self {
            broker,
            node,
            peer,
            signatures: Throttle::new(SIGNATURES, 1),
            announcements: Throttle::new(ANNOUNCEMENTS, 1),
            keys: HashMap::new(),
        }
    }

    /// Signs, or says why not.
    pub(super) async fn sign(&mut self, message: &v1::Sign) -> Answer {
        let request = message.request;
        match self.try_sign(message) {
            Ok((chain, event)) => {
                let record = self.broker.audit.submit(event).await;
                Answer::Audited(Audited { request, record, chain })
            }
            Err(refusal) => {
                tracing::warn!(entry = message.entry, %refusal, "signature refused");
                let reason = refusal.to_string();
                let (node, entry) = (self.node.to_string(), message.entry.clone());
                self.broker.audit.note(Event::IssueRefused { node, entry, reason: reason.clone() });
                Answer::Now(watch_reply::Message::SignRefused(v1::SignRefused { request, reason }))
            }
        }
    }

    fn try_sign(&mut self, message: &v1::Sign) -> Result<(Vec<Vec<u8>>, Event), SignRefusal> {
        if self.signatures.admit((), clock::now()) == Admission::Throttled {
            return Err(SignRefusal::Throttled);
        }
        let v1::Sign { request: _, entry, csr, component_digest } = message;
        let entry: Option<EntryId> = wire::parse_optional(entry)?;
        let key = RequestedKey::parse(csr)?;
        self.check_key(&key, entry.as_ref())?;
        let (issued, event) = match &entry {
            None => {
                let issued = self.broker.issue_node(&self.node, &key)?;
                let event = self.broker.node_issued(&self.node, &key, &issued);
                (issued, event)
            }
            Some(id) => {
                let entry = self.entry(id)?;
                check_digest(&entry, component_digest)?;
                let issued = self.broker.authority.issue(&key, &entry.spiffe_id, entry.ttl, clock::now())?;
                let event = broker::x509_issued(&self.node, Some(id), &entry.spiffe_id, &key, &issued);
                (issued, event)
            }
        };
        if self.keys.len() >= MAX_KEYS {
            self.keys.clear();
        }
        self.keys.insert(key.sha256(), entry.clone());
        let subject = entry.as_ref().map_or("node", EntryId::as_str);
        tracing::info!(subject, not_after = clock::unix_seconds(issued.not_after), "issued");
        Ok((issued.chain.iter().map(|der| der.to_vec()).collect(), event))
    }

    fn entry(&self, id: &EntryId) -> Result<Arc<Entry>, SignRefusal> {
        let entry = self.broker.ledger.read(|registry| registry.entry(id).cloned());
        entry.filter(|entry| entry.node == self.node).ok_or_else(|| SignRefusal::NoEntry(id.clone()))
    }

    fn check_key(&self, key: &RequestedKey, entry: Option<&EntryId>) -> Result<(), SignRefusal> {
        let hash = key.sha256();
        let is_nodes = self.peer.as_ref().is_some_and(|peer| peer.leaf().public_key_sha256() == hash);
        let is_others = self.keys.get(&hash).is_some_and(|holder| holder.as_ref() != entry);
        if is_others || (is_nodes && entry.is_some()) { Err(SignRefusal::SharedKey) } else { Ok(()) }
    }

    /// Notes where the node serves a component; `None` where it is noted.
    pub(super) async fn announce(&mut self, message: v1::Announce) -> Option<watch_reply::Message> {
        let target = message.target.clone();
        let reason = self.try_announce(message).await.err()?;
        tracing::warn!(?target, reason, "announcement refused");
        Some(watch_reply::Message::AnnounceRefused(v1::AnnounceRefused { target, reason }))
    }

    async fn try_announce(&mut self, message: v1::Announce) -> Result<(), String> {
        if self.announcements.admit((), clock::now()) == Admission::Throttled {
            return Err(SignRefusal::Throttled.to_string());
        }
        let announcement = parse_announcement(self.node.clone(), message).map_err(|error| error.to_string())?;
        let by = Actor::Node { node: self.node.to_string() };
        match self.broker.ledger.execute(by, Command::Announce(announcement)).await {
            Ok(_) => Ok(()),
            Err(CommandError::Refused(refusal)) => Err(refusal.to_string()),
            // The reason is the operator's, and logged where it happened.
            Err(CommandError::Store(_) | CommandError::Unaudited(_)) => Err("the broker cannot store it".to_owned()),
            Err(CommandError::Closed) => Err("the broker is shutting down".to_owned()),
        }
    }
}

fn parse_announcement(node: NodeName, message: v1::Announce) -> Result<Announcement, InvalidMessage> {
    let v1::Announce { target, addresses } = message;
    let addresses = addresses.iter().map(|address| wire::parse(address)).collect::<Result<_, _>>()?;
    Ok(Announcement { node, target: wire::target(target)?, addresses })
}

/// The host says which file it runs; the entry says which it must be.
fn check_digest(entry: &Entry, said: &str) -> Result<(), SignRefusal> {
    match &entry.digest {
        Digest::DangerAny | Digest::NotApplicable => Ok(()),
        Digest::Exactly(digest) if digest.as_str() == said => Ok(()),
        Digest::Exactly(_) => Err(SignRefusal::Digest(said.chars().take(80).collect())),
    }
}
