//! The one writer: takes commands one after the other, stores what they change, applies it, and tells who waits for changes.
//!
//! Readers look at the registry under a lock that is held for an in-memory change and never across an await or a disk write.

use std::sync::{Arc, PoisonError, RwLock};

use portcullis_identity::Revoked;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::task::TaskTracker;

use crate::clock;
use crate::registry::{Change, Command, EntryId, Plan, Refusal, Registry, Taint, TrustChange, Version};
use crate::store::{CommitError, Store};

/// Commands that wait. One more waits with its caller.
const QUEUE: usize = 256;

/// What a command did.
#[derive(Debug, Clone)]
pub(crate) struct Outcome {
    /// The registry's version now; that from before where nothing had to change.
    pub version: Version,
    /// The entry that the command made or found.
    pub entry: Option<EntryId>,
}

/// Why a command did nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CommandError {
    /// The registry refuses it.
    #[error(transparent)]
    Refused(#[from] Refusal),
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
    commands: mpsc::Sender<(Command, Reply)>,
    registry: Arc<RwLock<Registry>>,
    versions: watch::Receiver<Version>,
}

impl Ledger {
    /// Starts the writer. It ends, and closes the store, when every handle is gone.
    #[must_use]
    pub(crate) fn start(store: Store, registry: Registry, tracker: &TaskTracker) -> Self {
        let (commands, mut queue) = mpsc::channel::<(Command, Reply)>(QUEUE);
        let (published, versions) = watch::channel(registry.version());
        let registry = Arc::new(RwLock::new(registry));
        let writer = Writer { store, registry: Arc::clone(&registry), published };
        // A thread of its own: commits wait for the disk.
        tracker.spawn_blocking(move || {
            while let Some((command, reply)) = queue.blocking_recv() {
                // Who asked may be gone; the change stays.
                let _ = reply.send(writer.execute(command));
            }
        });
        Self { commands, registry, versions }
    }

    /// Does `command`; when it returns, the change is on disk and visible to every reader.
    ///
    /// # Errors
    /// When the registry refuses, or the change cannot be stored.
    pub(crate) async fn execute(&self, command: Command) -> Result<Outcome, CommandError> {
        let (reply, outcome) = oneshot::channel();
        self.commands.send((command, reply)).await.map_err(|_| CommandError::Closed)?;
        outcome.await.map_err(|_| CommandError::Closed)?
    }

    /// Looks at the registry.
    pub(crate) fn read<T>(&self, look: impl FnOnce(&Registry) -> T) -> T {
        look(&self.registry.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Tells of every new version; a slow reader sees the latest only.
    #[must_use]
    pub(crate) fn versions(&self) -> watch::Receiver<Version> {
        self.versions.clone()
    }
}

struct Writer {
    store: Store,
    registry: Arc<RwLock<Registry>>,
    published: watch::Sender<Version>,
}

impl Writer {
    fn execute(&self, command: Command) -> Result<Outcome, CommandError> {
        // Nobody else writes, so what is planned on this state is applied to the same.
        let (plan, before) = {
            let registry = self.registry.read().unwrap_or_else(PoisonError::into_inner);
            (registry.plan(command, clock::now())?, registry.version())
        };
        let Plan { changes, entry, schema } = plan;
        if changes.is_empty() {
            return Ok(Outcome { version: before, entry });
        }
        let version = before.next();
        self.store.commit(&changes, version).inspect_err(|error| {
            tracing::error!(error = %error, "a change was not stored; the broker must be started again");
        })?;
        self.registry.write().unwrap_or_else(PoisonError::into_inner).apply(&changes, version, schema);
        self.published.send_replace(version);
        for change in &changes {
            log(change, version);
        }
        Ok(Outcome { version, entry })
    }
}

/// The audit trail: one line per record that changed.
fn log(change: &Change, version: Version) {
    let (kind, name) = match change {
        Change::Component(component) => ("component", component.target.to_string()),
        Change::ComponentRemoved(target) => ("component removed", target.to_string()),
        Change::Entry(entry) => ("entry", format!("{} for {} on {}", entry.id, entry.spiffe_id, entry.node)),
        Change::EntryRemoved(id) => ("entry removed", id.to_string()),
        Change::Node(node) => ("node", node.name.to_string()),
        Change::NodeRemoved(node) => ("node removed", node.to_string()),
        Change::Token(token) if token.redeemed_by.is_some() => ("join token redeemed", token.node.to_string()),
        Change::Token(token) => ("join token", token.node.to_string()),
        Change::TokenRemoved(_) => ("join token removed", String::new()),
        Change::Policies(document) => ("policy file", document.name.clone()),
        Change::PoliciesRemoved(name) => ("policy file removed", name.clone()),
        Change::Grant(target, id) => ("grant", format!("{id} on {target}")),
        Change::GrantRemoved(target, id) => ("grant removed", format!("{id} on {target}")),
        Change::Addresses(target, node, addresses) => {
            let addresses: Vec<_> = addresses.iter().map(ToString::to_string).collect();
            ("addresses", format!("{target} on {node}: [{}]", addresses.join(", ")))
        }
        Change::Trust(change) => trust_name(change),
    };
    tracing::info!(kind, name, version = %version, "registry changed");
}

fn revoked_name(revoked: &Revoked) -> String {
    match revoked {
        Revoked::Certificate(serial) => format!("certificate {serial}"),
        Revoked::Identity(id) => format!("everything issued so far for {id}"),
    }
}

fn trust_name(change: &TrustChange) -> (&'static str, String) {
    match change {
        TrustChange::Authority(record) => {
            let tainted = if record.taint == Taint::Tainted { ", tainted" } else { "" };
            ("authority", format!("{} {} {}{tainted}", record.kind().name(), record.id, record.stage.name()))
        }
        TrustChange::AuthorityRemoved(id) => ("authority removed", id.to_string()),
        TrustChange::BundleSequence(sequence) => ("bundle", sequence.to_string()),
        TrustChange::Revocation(revocation) => ("revocation", revoked_name(&revocation.revoked)),
        TrustChange::RevocationRemoved(revoked) => ("revocation removed", revoked_name(revoked)),
    }
}
