//! How one authority follows another, so that no call fails and a crash at any moment leaves a working broker.
//!
//! The order is the same everywhere. A key is on disk before it is published. It is published, durably and to every node, before it signs:
//! whoever sees the first certificate it signed knows it already. What is revoked is destroyed before it leaves the bundle, so that it
//! cannot come back. The registry is the journal: after a crash, what it says is true, and a key that it does not know has signed
//! nothing and is published again.

mod establish;
mod laggards;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use portcullis_identity::BACKDATED;
use tokio::sync::Mutex;

pub(crate) use self::establish::{EstablishError, Journal, establish};
use crate::audit::{Actor, Event};
use crate::authority::{AuthorityError, SigningRenewal};
use crate::broker::Broker;
use crate::clock;
use crate::ledger::CommandError;
use crate::registry::{
    AuthorityId, AuthorityKind, AuthorityRecord, AuthorityRefusal, AuthorityStep, Command, Material, NewAuthority,
    Registry, Stage,
};

/// How often we look what is due, at the least: clocks are set and machines sleep.
const LOOK: Duration = Duration::from_secs(3600);
/// And at the most.
const PAUSE: Duration = Duration::from_secs(1);
/// The wait after a step that failed.
const RETRY: Duration = Duration::from_secs(10);
/// How long after its taint an authority is not revoked: nodes replace certificates within 5 s, and a moment later their connections to those
/// whose certificates were replaced.
const REPLACEMENT: Duration = Duration::from_secs(10);

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
    /// Some nodes hold nothing else, or are away and may.
    #[error("these nodes still hold certificates that `{id}` signed, and would need new join tokens: {}; those connected replace them within seconds once it is tainted; revoke with --force to cut them off", nodes.join(", "))]
    Held {
        /// Which authority.
        id: AuthorityId,
        /// The nodes.
        nodes: Vec<String>,
    },
    /// Connections may stand on what it signed.
    #[error("`{id}` was tainted {} s ago, and connections are still being made anew: try again in {} s, or revoke with --force to cut them", age.as_secs(), REPLACEMENT.saturating_sub(*age).as_secs() + 1)]
    Recent {
        /// Which authority.
        id: AuthorityId,
        /// How long ago.
        age: Duration,
    },
    /// Some nodes would refuse what the new authority signs, ourselves first of all.
    #[error("these nodes have not applied the bundle with authority `{id}` yet: {}; activate with --force to leave them behind, those that are away for good", nodes.join(", "))]
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
    one_at_a_time: Mutex<Taints>,
}

/// When X.509 authorities were tainted since the broker started. After a restart the nodes have long gone on.
type Taints = BTreeMap<AuthorityId, SystemTime>;

impl Succession {
    pub(crate) fn new(lifetimes: Lifetimes) -> Self {
        Self { lifetimes, one_at_a_time: Mutex::default() }
    }
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

    /// Lets the prepared authority sign, once every node with a valid certificate trusts it. The key of the one before is destroyed: it never signs again.
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

    /// Has everything replaced that the authority signed; it is trusted meanwhile.
    pub(crate) async fn taint(&self, by: &Actor, id: &AuthorityId) -> Result<(), StepError> {
        let mut taints = self.succession.one_at_a_time.lock().await;
        self.step(by, AuthorityStep::Taint(id.clone())).await?;
        let kind =
            |registry: &Registry| registry.authorities().find(|record| record.id == *id).map(|record| record.kind());
        if self.ledger.read(kind) == Some(AuthorityKind::X509) {
            taints.entry(id.clone()).or_insert_with(clock::now);
        }
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
        let mut taints = self.succession.one_at_a_time.lock().await;
        // Refused before anything is destroyed; nothing else takes steps meanwhile.
        self.ledger
            .read(|registry| registry.plan(Command::Authority(AuthorityStep::Revoke(id.clone())), clock::now()))
            .map_err(|refusal| self.refuse(by, REVOKE, CommandError::from(refusal).into()))?;
        let nodes = self.holders(id);
        if laggards == Laggards::Wait && !nodes.is_empty() {
            return Err(self.refuse(by, REVOKE, StepError::Held { id: id.clone(), nodes }));
        }
        let age = taints.get(id).map(|tainted| clock::now().duration_since(*tainted).unwrap_or_default());
        if let Some(age) = age.filter(|age| laggards == Laggards::Wait && *age < REPLACEMENT) {
            return Err(self.refuse(by, REVOKE, StepError::Recent { id: id.clone(), age }));
        }
        self.authority.keys().destroy(id)?;
        self.step(by, AuthorityStep::Revoke(id.clone())).await?;
        taints.remove(id);
        tracing::warn!(%id, "authority revoked: nothing that it signed is accepted any more");
        Ok(())
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
