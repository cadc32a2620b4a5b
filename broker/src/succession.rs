//! How one authority follows another, so that no call fails and a crash at any moment leaves a working broker.
//!
//! The order is the same everywhere. A key is on disk before it is published. It is published, durably and to every node, before it signs:
//! whoever sees the first certificate it signed knows it already. What is revoked is destroyed before it leaves the bundle, so that it
//! cannot come back. The registry is the journal: after a crash, what it says is true, and a key that it does not know has signed
//! nothing and is published again.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use portcullis_identity::{BACKDATED, Peer, SigningPath};
use tokio::sync::Mutex;

use crate::audit::{Actor, Event, Unaudited, Unserved};
use crate::authority::{AuthorityError, KeyFolder, SigningRenewal};
use crate::broker::Broker;
use crate::clock;
use crate::ledger::{self, CommandError};
use crate::registry::{
    AuthorityId, AuthorityKind, AuthorityRecord, AuthorityRefusal, AuthorityStep, Command, Material, NewAuthority,
    Refusal, Registry, Stage, Version,
};
use crate::store::{CommitError, Store};

/// How often we look what is due, at the least: clocks are set and machines sleep.
const LOOK: Duration = Duration::from_secs(3600);
/// And at the most.
const PAUSE: Duration = Duration::from_secs(1);
/// The wait after a step that failed.
const RETRY: Duration = Duration::from_secs(10);
/// How long an activation waits for nodes that have not applied the bundle yet.
const NODE_PATIENCE: Duration = Duration::from_secs(5);
/// How often it looks.
const NODE_LOOK: Duration = Duration::from_millis(50);

/// How long authorities live. The next is prepared at half of it, and activated when a sixth is left.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lifetimes {
    pub(crate) x509: Duration,
    pub(crate) jwt: Duration,
}

/// Why a step was not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StepError {
    /// Keys on disk.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// The registry or the store.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// Some connected nodes hold nothing else.
    #[error("these nodes still hold certificates that `{id}` signed, and would need new join tokens: {}; they replace them within seconds once it is tainted; revoke with --force to cut them off", nodes.join(", "))]
    Held {
        /// Which authority.
        id: AuthorityId,
        /// The nodes.
        nodes: Vec<String>,
    },
    /// Some connected nodes would refuse what the new authority signs.
    #[error("these nodes have not applied the bundle with authority `{id}` yet: {}; activate with --force to leave them behind", nodes.join(", "))]
    Behind {
        /// Which authority.
        id: AuthorityId,
        /// The nodes.
        nodes: Vec<String>,
    },
}

/// Whether a step waits for nodes that are not ready for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Laggards {
    /// It does, and is refused where one does not come.
    Wait,
    /// It does not.
    LeaveBehind,
}

/// Takes the steps, one after the other.
#[derive(Debug)]
pub(crate) struct Succession {
    lifetimes: Lifetimes,
    one_at_a_time: Mutex<()>,
}

impl Succession {
    pub(crate) fn new(lifetimes: Lifetimes) -> Self {
        Self { lifetimes, one_at_a_time: Mutex::default() }
    }
}

/// Brings keys and registry together at start, before anything is served: makes what is missing, and publishes what a crash kept from it.
///
/// # Errors
/// When the active authority's key is gone, or the disk refuses.
pub(crate) fn establish(
    keys: &KeyFolder,
    mut journal: Journal<'_>,
    lifetimes: Lifetimes,
    now: SystemTime,
) -> Result<(), EstablishError> {
    publish_left_over(keys, &mut journal, now)?;
    for kind in [AuthorityKind::X509, AuthorityKind::Jwt] {
        let usable = |record: &&Arc<AuthorityRecord>| keys.holds(record) && !record.is_over(now);
        if journal.registry.active(kind).filter(usable).is_some() {
            continue;
        }
        if journal.registry.prepared(kind).filter(usable).is_none() {
            let lost = journal.registry.active(kind).is_some_and(|record| !record.is_over(now));
            if lost && kind == AuthorityKind::X509 {
                return Err(EstablishError::Lost);
            }
            let new = match kind {
                AuthorityKind::X509 => keys.make_root(lifetimes.x509, now)?,
                AuthorityKind::Jwt => keys.make_jwt(lifetimes.jwt, now)?,
            };
            journal.commit(AuthorityStep::Publish(Box::new(new)), now)?;
        }
        // The very first is active at once.
        if let Some(next) = journal.registry.prepared(kind).map(|record| record.id.clone()) {
            tracing::warn!(kind = kind.name(), id = %next, "the active authority cannot sign any more; the prepared one takes its place");
            journal.commit(AuthorityStep::Activate(next), now)?;
        }
    }
    // Of a store that was put back both may be new to it, the one that signs and the one that comes next.
    publish_left_over(keys, &mut journal, now)?;
    for record in journal.registry.authorities().filter(|record| record.stage == Stage::Old) {
        keys.destroy(&record.id)?;
    }
    Ok(())
}

fn publish_left_over(keys: &KeyFolder, journal: &mut Journal<'_>, now: SystemTime) -> Result<(), EstablishError> {
    let known: BTreeSet<_> = journal.registry.authorities().map(|record| record.id.clone()).collect();
    for new in keys.unpublished(&known)? {
        match journal.commit(AuthorityStep::Publish(Box::new(new)), now) {
            Ok(()) => tracing::warn!("an authority whose publication was interrupted is published now"),
            Err(EstablishError::Refused(refusal)) => tracing::warn!(%refusal, "a CA key is not used"),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// What the ledger keeps in step later: the log, the store and the registry, before anything is served.
pub(crate) struct Journal<'a> {
    pub(crate) audit: &'a mut Unserved,
    pub(crate) store: &'a Store,
    pub(crate) registry: &'a mut Registry,
}

impl Journal<'_> {
    /// As the ledger does: on record, then on disk, then in force.
    fn commit(&mut self, step: AuthorityStep, now: SystemTime) -> Result<(), EstablishError> {
        let plan = self.registry.plan(Command::Authority(step), now)?;
        if plan.changes.is_empty() {
            return Ok(());
        }
        let version = self.registry.version().next();
        self.audit.record(&ledger::events(&plan.changes, version, &Actor::Broker))?;
        if let Err(error) = self.store.commit(&plan.changes, version) {
            let (version, reason) = (version.to_string(), error.to_string());
            // Where this fails too, the store's error is the one to be told.
            let _ = self.audit.record(&[Event::NotStored { version, reason }]);
            return Err(error.into());
        }
        self.registry.apply(&plan.changes, version, plan.schema);
        Ok(())
    }
}

/// Why keys and registry do not come together.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EstablishError {
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error(transparent)]
    Unaudited(#[from] Unaudited),
    #[error(transparent)]
    Store(#[from] CommitError),
    #[error("the key of the active authority is gone")]
    Lost,
}

impl Broker {
    /// Makes a key and publishes it: from now on nodes trust what it will sign.
    pub(crate) async fn prepare(&self, by: &Actor, kind: AuthorityKind) -> Result<AuthorityId, StepError> {
        let _turn = self.succession.one_at_a_time.lock().await;
        self.make(by, kind).await
    }

    async fn make(&self, by: &Actor, kind: AuthorityKind) -> Result<AuthorityId, StepError> {
        // Asked first, so that no key is made in vain.
        if let Some(waiting) = self.ledger.read(|registry| registry.prepared(kind).map(|record| record.id.clone())) {
            let refusal = AuthorityRefusal::Waiting { id: waiting, kind: kind.name() };
            return Err(self.refuse(by, "publish authority", CommandError::Refused(refusal.into()).into()));
        }
        let Lifetimes { x509, jwt } = self.succession.lifetimes;
        let new = match kind {
            AuthorityKind::X509 => self.authority.keys().make_root(x509, clock::now())?,
            AuthorityKind::Jwt => self.authority.keys().make_jwt(jwt, clock::now())?,
        };
        self.publish(by, new).await
    }

    /// Takes over the answer of an upstream authority, and publishes it.
    pub(crate) async fn install(&self, by: &Actor, chain: &[u8]) -> Result<AuthorityId, StepError> {
        let _turn = self.succession.one_at_a_time.lock().await;
        let new = self
            .authority
            .keys()
            .install(chain, clock::now())
            .map_err(|error| self.refuse(by, "install authority", error.into()))?;
        let id = self.publish(by, new).await?;
        self.authority.keys().answered()?;
        Ok(id)
    }

    async fn publish(&self, by: &Actor, new: NewAuthority) -> Result<AuthorityId, StepError> {
        let id = AuthorityId::of_key(&new.material.public_key_sha256());
        let published = self.step(by, AuthorityStep::Publish(Box::new(new))).await;
        if let Err(StepError::Command(CommandError::Refused(_))) = &published {
            self.authority.keys().destroy(&id)?;
        }
        published?;
        tracing::info!(%id, "authority prepared");
        Ok(id)
    }

    /// Lets the prepared authority sign, once every connected node trusts it. The key of the one before is destroyed: it never signs again.
    pub(crate) async fn activate(&self, by: &Actor, id: &AuthorityId, laggards: Laggards) -> Result<(), StepError> {
        let _turn = self.succession.one_at_a_time.lock().await;
        self.put_to_work(by, id, laggards).await
    }

    async fn put_to_work(&self, by: &Actor, id: &AuthorityId, laggards: Laggards) -> Result<(), StepError> {
        let found = |registry: &Registry| registry.authorities().find(|record| record.id == *id).cloned();
        if let Some(record) = self.ledger.read(found)
            && laggards == Laggards::Wait
        {
            self.await_nodes(&record).await.map_err(|behind| self.refuse(by, "activate authority", behind))?;
        }
        self.step(by, AuthorityStep::Activate(id.clone())).await?;
        self.renew_own_svid();
        let old = |registry: &Registry| -> Vec<_> {
            let old = registry.authorities().filter(|record| record.stage == Stage::Old);
            old.map(|record| record.id.clone()).collect()
        };
        for retired in self.ledger.read(old) {
            self.authority.keys().destroy(&retired)?;
        }
        tracing::info!(%id, "authority active");
        Ok(())
    }

    /// Waits until every connected node has said that it applied the version in which the authority was published.
    async fn await_nodes(&self, record: &AuthorityRecord) -> Result<(), StepError> {
        let deadline = tokio::time::sleep(NODE_PATIENCE);
        tokio::pin!(deadline);
        loop {
            let nodes = self.behind(record.published);
            if nodes.is_empty() {
                return Ok(());
            }
            tokio::select! {
                () = tokio::time::sleep(NODE_LOOK) => {}
                () = &mut deadline => return Err(StepError::Behind { id: record.id.clone(), nodes }),
            }
        }
    }

    fn behind(&self, version: Version) -> Vec<String> {
        let late =
            |connection: &crate::presence::Connection| connection.applied.is_none_or(|applied| applied < version);
        let nodes: BTreeSet<_> = self
            .presence
            .connections()
            .into_iter()
            .filter(|connection| late(connection) && !connection.kill.is_cancelled())
            .map(|connection| connection.node.to_string())
            .collect();
        nodes.into_iter().collect()
    }

    /// Has everything replaced that the authority signed; it is trusted meanwhile.
    pub(crate) async fn taint(&self, by: &Actor, id: &AuthorityId) -> Result<(), StepError> {
        let _turn = self.succession.one_at_a_time.lock().await;
        self.step(by, AuthorityStep::Taint(id.clone())).await?;
        tracing::warn!(%id, "authority tainted: nodes replace what it signed");
        Ok(())
    }

    /// Withdraws the authority: nothing that it signed is accepted any more.
    pub(crate) async fn revoke_authority(
        &self,
        by: &Actor,
        id: &AuthorityId,
        laggards: Laggards,
    ) -> Result<(), StepError> {
        const REVOKE: &str = "revoke authority";
        let _turn = self.succession.one_at_a_time.lock().await;
        // Refused before anything is destroyed; nothing else takes steps meanwhile.
        self.ledger
            .read(|registry| registry.plan(Command::Authority(AuthorityStep::Revoke(id.clone())), clock::now()))
            .map_err(|refusal| self.refuse(by, REVOKE, CommandError::from(refusal).into()))?;
        let nodes = self.holders(id);
        if laggards == Laggards::Wait && !nodes.is_empty() {
            return Err(self.refuse(by, REVOKE, StepError::Held { id: id.clone(), nodes }));
        }
        self.authority.keys().destroy(id)?;
        self.step(by, AuthorityStep::Revoke(id.clone())).await?;
        tracing::warn!(%id, "authority revoked: nothing that it signed is accepted any more");
        Ok(())
    }

    /// The connected nodes whose own certificate the authority signed.
    fn holders(&self, id: &AuthorityId) -> Vec<String> {
        let record = self.ledger.read(|registry| registry.authorities().find(|record| record.id == *id).cloned());
        let Some(key) = record.map(|record| record.material.public_key_sha256()) else { return Vec::new() };
        let trust = self.trust.source().load_full();
        let held =
            |peer: &Peer| SigningPath::of_peer(peer, &trust, clock::now()).is_ok_and(|path| path.goes_through(&[key]));
        let connections = self.presence.connections().into_iter();
        let holders: BTreeSet<_> = connections
            .filter(|connection| !connection.kill.is_cancelled() && connection.peer.as_deref().is_some_and(held))
            .map(|connection| connection.node.to_string())
            .collect();
        holders.into_iter().collect()
    }

    /// Takes a step, durably, and lets signing, our own listener and the published bundle follow.
    async fn step(&self, by: &Actor, step: AuthorityStep) -> Result<(), StepError> {
        self.ledger.execute(by.clone(), Command::Authority(step)).await?;
        let now = clock::now();
        self.authority.follow(&self.ledger.read(Registry::roster), now)?;
        self.refresh_trust(now);
        self.publish_roots();
        Ok(())
    }

    /// Tells of a step that is refused before the ledger is asked, as the ledger tells of those that it refuses.
    fn refuse(&self, by: &Actor, command: &str, error: StepError) -> StepError {
        let (by, command, reason) = (by.clone(), command.to_owned(), error.to_string());
        self.audit.note(Event::ChangeRefused { by, command, reason });
        error
    }

    /// Does what is due by time, until the broker stops.
    pub(crate) async fn keep_succession(self: Arc<Self>) {
        loop {
            let wait = match self.take_due_steps().await {
                Ok(()) => self.next_look(),
                Err(error) => {
                    tracing::error!(%error, "an authority did not take the step that is due");
                    RETRY
                }
            };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.stop.cancelled() => return,
            }
        }
    }

    async fn take_due_steps(&self) -> Result<(), StepError> {
        let _turn = self.succession.one_at_a_time.lock().await;
        let now = clock::now();
        let renewal = self.authority.renew_signing(&self.ledger.read(Registry::roster), now)?;
        if renewal == SigningRenewal::Renewed {
            tracing::info!("a new signing certificate is in use");
        }
        for kind in [AuthorityKind::X509, AuthorityKind::Jwt] {
            let (active, prepared) =
                self.ledger.read(|registry| (registry.active(kind).cloned(), registry.prepared(kind).cloned()));
            let Some(active) = active else { continue };
            match (&active.material, prepared) {
                (Material::Upstream { .. }, None) if due(&active).activate <= now => {
                    tracing::error!(id = %active.id, "the upstream authority's certificate ends soon: `ca csr` and `ca install` another");
                }
                (Material::Root(_) | Material::Jwt(_), None) if due(&active).prepare <= now => {
                    self.make(&Actor::Broker, kind).await?;
                }
                (_, Some(next)) if due(&active).activate <= now => {
                    // Waiting any longer would leave everybody behind.
                    let behind = self.behind(next.published);
                    if !behind.is_empty() {
                        tracing::warn!(id = %next.id, ?behind, "some nodes do not know the next authority yet");
                    }
                    self.put_to_work(&Actor::Broker, &next.id, Laggards::LeaveBehind).await?;
                }
                (Material::Root(_) | Material::Upstream { .. } | Material::Jwt(_), _) => {}
            }
        }
        let over = |registry: &Registry| -> Vec<_> {
            let over = registry.authorities().filter(|record| record.is_over(now) && record.stage != Stage::Active);
            over.map(|record| record.id.clone()).collect()
        };
        for expired in self.ledger.read(over) {
            self.authority.keys().destroy(&expired)?;
        }
        self.step(&Actor::Broker, AuthorityStep::Prune).await
    }

    fn next_look(&self) -> Duration {
        let now = clock::now();
        let moments = self.ledger.read(|registry| {
            let moments = registry.authorities().flat_map(|record| {
                let Due { prepare, activate } = due(record);
                [prepare, activate, record.not_after]
            });
            moments.filter(|moment| *moment > now).min()
        });
        let next = moments.and_then(|moment| moment.duration_since(now).ok()).unwrap_or(LOOK);
        next.clamp(PAUSE, LOOK)
    }

    /// Replaces the broker's own certificate, as when another authority signs from now on.
    pub(crate) fn renew_own_svid(&self) {
        match self.authority.own_svid(self.ttls.node, clock::now()) {
            Ok(svid) => {
                self.own.store(svid);
                tracing::info!("the broker's own certificate was renewed");
            }
            Err(error) => tracing::error!(%error, "the broker's own certificate was not renewed"),
        }
    }
}

/// When an active authority's successor has to take its steps.
struct Due {
    prepare: SystemTime,
    activate: SystemTime,
}

fn due(active: &AuthorityRecord) -> Due {
    // It was made that long after it became valid.
    let made = active.not_before.checked_add(BACKDATED).unwrap_or(active.not_before);
    let life = active.not_after.duration_since(made).unwrap_or_default();
    let after = |part: Duration| made.checked_add(part).unwrap_or(active.not_after);
    Due { prepare: after(life / 2), activate: after(life.saturating_sub(life / 6)) }
}
