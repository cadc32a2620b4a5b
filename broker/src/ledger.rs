//! The one writer: takes commands one after the other, stores what they change, applies it, and tells who waits for changes.
//!
//! Readers look at the registry under a lock that is held for an in-memory change and never across an await or a disk write.

mod current;
mod history;

use std::sync::{Arc, Mutex, PoisonError};

use portcullis_identity::Revoked;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::task::TaskTracker;

pub(crate) use self::current::{Current, Publisher};
use self::history::History;
use crate::audit::{Actor, AuditLog, Event, Unaudited, hex};
use crate::clock;
use crate::registry::{
    AuthorityRecord, Change, Command, EntryId, Node, Plan, Refusal, Registry, Standing, Taint, TrustChange, Version,
};
use crate::store::{CommitError, Copied, ReadError, Store};

/// Commands that wait. One more waits with its caller.
const QUEUE: usize = 256;

/// What a command did.
#[derive(Debug, Clone)]
pub(crate) struct Outcome {
    /// The registry's version now; that from before where nothing had to change.
    pub version: Version,
    /// The entries that the command made or found.
    pub entries: Vec<EntryId>,
}

/// Why a command did nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CommandError {
    /// The registry refuses it.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The change cannot be audited, and so was not made.
    #[error(transparent)]
    Unaudited(#[from] Unaudited),
    /// The change is not on disk.
    #[error(transparent)]
    Store(#[from] CommitError),
    /// The broker is shutting down.
    #[error("the broker is shutting down")]
    Closed,
}

type Reply = oneshot::Sender<Result<Outcome, CommandError>>;

/// A handle on registry and store. Clones share them.
#[derive(Debug, Clone)]
pub(crate) struct Ledger {
    commands: mpsc::Sender<(Actor, Command, Reply)>,
    current: Current,
    store: Arc<Store>,
    history: Arc<Mutex<History>>,
}

impl Ledger {
    /// Starts the writer. It ends, and closes the store, when every handle is gone.
    #[must_use]
    pub(crate) fn start(store: Store, registry: Registry, audit: AuditLog, tracker: &TaskTracker) -> Self {
        let (commands, mut queue) = mpsc::channel::<(Actor, Command, Reply)>(QUEUE);
        let (current, publisher) = Current::begin(registry);
        let (store, history) = (Arc::new(store), Arc::<Mutex<History>>::default());
        let writer = Writer { store: Arc::clone(&store), history: Arc::clone(&history), publisher, audit };
        // A thread of its own: commits wait for the disk.
        tracker.spawn_blocking(move || {
            while let Some((by, command, reply)) = queue.blocking_recv() {
                // Who asked may be gone; the change stays.
                let _ = reply.send(writer.execute(&by, command));
            }
        });
        Self { commands, current, store, history }
    }

    /// Does `command` at the word of `by`; when it returns, the change is audited, on disk and visible to every reader.
    ///
    /// # Errors
    /// When the registry refuses, or the change cannot be audited or stored.
    pub(crate) async fn execute(&self, by: Actor, command: Command) -> Result<Outcome, CommandError> {
        let (reply, outcome) = oneshot::channel();
        self.commands.send((by, command, reply)).await.map_err(|_| CommandError::Closed)?;
        outcome.await.map_err(|_| CommandError::Closed)?
    }

    /// Looks at the registry.
    pub(crate) fn read<T>(&self, look: impl FnOnce(&Registry) -> T) -> T {
        self.current.read(look)
    }

    /// Tells of every new version; a slow reader sees the latest only.
    #[must_use]
    pub(crate) fn versions(&self) -> watch::Receiver<Version> {
        self.current.versions()
    }

    /// The registry, for whoever only looks.
    pub(crate) fn current(&self) -> Current {
        self.current.clone()
    }

    /// Who copies the records. It does not keep the writer.
    pub(crate) fn copier(&self) -> Copier {
        Copier { store: Arc::clone(&self.store), history: Arc::clone(&self.history) }
    }
}

/// Copies the records for those that follow.
#[derive(Debug)]
pub(crate) struct Copier {
    store: Arc<Store>,
    history: Arc<Mutex<History>>,
}

impl Copier {
    /// The records as they lie in the store; for who has those of version `have`, only what changed since, where that is still known.
    ///
    /// To be called where the disk may be waited for.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub(crate) fn copy(&self, have: Option<Version>) -> Result<Copied, ReadError> {
        let known = have.and_then(|have| lock(&self.history).since(have));
        known.map_or_else(|| self.store.copy(), Ok)
    }
}

struct Writer {
    store: Arc<Store>,
    history: Arc<Mutex<History>>,
    publisher: Publisher,
    audit: AuditLog,
}

impl Writer {
    fn execute(&self, by: &Actor, command: Command) -> Result<Outcome, CommandError> {
        let name = command.name();
        // Nobody else writes, so what is planned on this state is applied to the same.
        let (plan, before) = self.publisher.read(|registry| (registry.plan(command, clock::now()), registry.version()));
        let plan = plan.inspect_err(|refusal| {
            let (by, command, reason) = (by.clone(), name.to_owned(), refusal.to_string());
            self.audit.note(Event::ChangeRefused { by, command, reason });
        })?;
        let Plan { changes, entries, further_epochs, schema } = plan;
        if changes.is_empty() {
            return Ok(Outcome { version: before, entries });
        }
        let version = before.next().skip(further_epochs);
        // Before the store: a change that is in force is always told of. What the store then refuses is told of too.
        self.audit.record_blocking(events(&changes, version, by))?;
        let rows = self.store.commit(&changes, version).inspect_err(|error| {
            tracing::error!(error = %error, "a change was not stored; the broker must be started again");
            self.audit.note(Event::NotStored { version: version.to_string(), reason: error.to_string() });
        })?;
        // First, so that whoever hears of the version finds it.
        lock(&self.history).push(before, version, rows);
        self.publisher.change(|registry| registry.apply(&changes, version, schema));
        for change in &changes {
            log(change, version);
        }
        Ok(Outcome { version, entries })
    }
}

/// A poisoned lock is taken over: every critical section here leaves its data whole.
fn lock(history: &Mutex<History>) -> std::sync::MutexGuard<'_, History> {
    history.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the log says of a change.
fn log(change: &Change, version: Version) {
    let (kind, name) = describe(change);
    tracing::info!(kind, name, version = %version, "registry changed");
}

/// What the audit log says of changes that are about to be made.
pub(crate) fn events(changes: &[Change], version: Version, by: &Actor) -> Vec<Event> {
    changes.iter().map(|change| event(change, version, by)).collect()
}

fn event(change: &Change, version: Version, by: &Actor) -> Event {
    if let Some((change, authority)) = authority_change(change) {
        return Event::AuthorityChanged { by: by.clone(), version: version.to_string(), change, authority };
    }
    let (kind, name) = describe(change);
    let sha256 = match change {
        Change::Policies(document) => Some(hex_sha256(document.text.as_bytes())),
        Change::Admissions(document) => Some(hex_sha256(document.text.as_bytes())),
        Change::Domain(domain) => domain.bundle.as_ref().map(|bundle| hex_sha256(&bundle.json)),
        Change::Component(_)
        | Change::ComponentRemoved(_)
        | Change::Entry(_)
        | Change::EntryRemoved(_)
        | Change::Template(_)
        | Change::TemplateRemoved(_)
        | Change::Node(_)
        | Change::NodeRemoved(_)
        | Change::Token(_)
        | Change::TokenRemoved(_)
        | Change::PoliciesRemoved(_)
        | Change::AdmissionsRemoved(_)
        | Change::Grant(..)
        | Change::GrantRemoved(..)
        | Change::Addresses(..)
        | Change::DomainRemoved(_)
        | Change::Trust(_) => None,
    };
    Event::Changed { by: by.clone(), version: version.to_string(), kind: kind.to_owned(), name, sha256 }
}

fn hex_sha256(bytes: &[u8]) -> String {
    hex(ring::digest::digest(&ring::digest::SHA256, bytes).as_ref())
}

/// The kind of a record, and its name.
fn describe(change: &Change) -> (&'static str, String) {
    match change {
        Change::Component(component) => ("component", component.target.to_string()),
        Change::ComponentRemoved(target) => ("component removed", target.to_string()),
        Change::Entry(entry) => ("entry", format!("{} for {} on {}", entry.id, entry.spiffe_id, entry.node)),
        Change::EntryRemoved(id) => ("entry removed", id.to_string()),
        Change::Template(template) => {
            ("template", format!("{} for {} on {}", template.id, template.pattern, template.node))
        }
        Change::TemplateRemoved(id) => ("template removed", id.to_string()),
        Change::Node(node) => (node_kind(node), node.name.to_string()),
        Change::NodeRemoved(node) => ("node removed", node.to_string()),
        Change::Token(token) if token.redeemed_by.is_some() => ("join token redeemed", token.node.to_string()),
        Change::Token(token) => ("join token", token.node.to_string()),
        Change::TokenRemoved(_) => ("join token removed", String::new()),
        Change::Policies(document) => ("policy file", document.name.clone()),
        Change::PoliciesRemoved(name) => ("policy file removed", name.clone()),
        Change::Admissions(document) => ("admission policy file", document.name.clone()),
        Change::AdmissionsRemoved(name) => ("admission policy file removed", name.clone()),
        Change::Grant(target, id) => ("grant", format!("{id} on {target}")),
        Change::GrantRemoved(target, id) => ("grant removed", format!("{id} on {target}")),
        Change::Domain(domain) => ("trust domain", domain.name.to_string()),
        Change::DomainRemoved(name) => ("trust domain removed", name.to_string()),
        Change::Addresses(target, node, addresses) => {
            let addresses: Vec<_> = addresses.iter().map(ToString::to_string).collect();
            ("addresses", format!("{target} on {node}: [{}]", addresses.join(", ")))
        }
        Change::Trust(change) => trust_name(change),
    }
}

/// What is new about a node: who restores an old store learns from it who is one.
fn node_kind(node: &Node) -> &'static str {
    match node.standing {
        Standing::Good if node.newest == node.since && node.spent.is_empty() => "node joined",
        Standing::Good => "node",
        Standing::Quarantined => "node quarantined",
        Standing::Barred => "node barred",
    }
}

fn revoked_name(revoked: &Revoked) -> String {
    match revoked {
        Revoked::Certificate(serial) => format!("certificate {serial}"),
        Revoked::Identity(id) => format!("everything issued so far for {id}"),
    }
}

/// What becomes of an authority, and of which.
fn authority_change(change: &Change) -> Option<(String, String)> {
    match change {
        Change::Trust(TrustChange::Authority(record)) => Some((becoming(record), record.id.to_string())),
        Change::Trust(TrustChange::AuthorityRemoved(id)) => Some(("removed".to_owned(), id.to_string())),
        Change::Component(_)
        | Change::ComponentRemoved(_)
        | Change::Entry(_)
        | Change::EntryRemoved(_)
        | Change::Template(_)
        | Change::TemplateRemoved(_)
        | Change::Node(_)
        | Change::NodeRemoved(_)
        | Change::Token(_)
        | Change::TokenRemoved(_)
        | Change::Policies(_)
        | Change::PoliciesRemoved(_)
        | Change::Admissions(_)
        | Change::AdmissionsRemoved(_)
        | Change::Grant(..)
        | Change::GrantRemoved(..)
        | Change::Addresses(..)
        | Change::Domain(_)
        | Change::DomainRemoved(_)
        | Change::Trust(
            TrustChange::BundleSequence(_) | TrustChange::Revocation(_) | TrustChange::RevocationRemoved(_),
        ) => None,
    }
}

fn becoming(record: &AuthorityRecord) -> String {
    let tainted = if record.taint == Taint::Tainted { ", tainted" } else { "" };
    format!("{} {}{tainted}", record.kind().name(), record.stage.name())
}

fn trust_name(change: &TrustChange) -> (&'static str, String) {
    match change {
        TrustChange::Authority(record) => ("authority", format!("{} {}", record.id, becoming(record))),
        TrustChange::AuthorityRemoved(id) => ("authority removed", id.to_string()),
        TrustChange::BundleSequence(sequence) => ("bundle", sequence.to_string()),
        TrustChange::Revocation(revocation) => ("revocation", revoked_name(&revocation.revoked)),
        TrustChange::RevocationRemoved(revoked) => ("revocation removed", revoked_name(revoked)),
    }
}
