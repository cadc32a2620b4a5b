//! What the services of the lattice stand on.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use portcullis_identity::TrustDomain;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::brokers;
use crate::audit::AuditLog;
use crate::broker::Broker;
use crate::ledger::Current;
use crate::trust::Trust;

/// How often the age of a copy is looked at.
const LOOK: Duration = Duration::from_millis(50);

/// The registry and whom it trusts: a broker's own, or a copy of those of the broker that this one follows.
#[derive(Debug, Clone)]
pub(crate) struct Ground {
    pub(crate) trust_domain: TrustDomain,
    pub(crate) registry: Current,
    pub(crate) trust: Arc<Trust>,
    pub(crate) audit: AuditLog,
    pub(crate) tracker: TaskTracker,
    pub(crate) stop: CancellationToken,
    /// Of a copy: whether it may still be relied on.
    pub(crate) age: Option<Arc<Age>>,
}

/// How old a copy is: who follows and hears nothing does not learn of what is revoked.
#[derive(Debug)]
pub(crate) struct Age {
    most: Duration,
    /// When it was last known to be what the other broker has.
    confirmed: Mutex<Option<Instant>>,
    /// When it was last known not to be.
    behind: Mutex<Option<Instant>>,
}

impl Ground {
    pub(super) fn of(broker: &Broker) -> Self {
        Self {
            trust_domain: broker.authority.trust_domain().clone(),
            registry: broker.ledger.current(),
            trust: Arc::clone(&broker.trust),
            audit: broker.audit.clone(),
            tracker: broker.tracker.clone(),
            stop: broker.stop.clone(),
            age: None,
        }
    }

    /// Whether nothing may be decided by it any more.
    pub(super) fn is_too_old(&self) -> bool {
        self.age.as_deref().is_some_and(Age::is_too_old)
    }

    /// Until it may be relied on.
    pub(super) async fn becomes_good(&self) {
        self.until(|age| !age.is_too_old()).await;
    }

    /// Until it may not be relied on any more; of a broker's own registry never.
    pub(super) async fn becomes_too_old(&self) {
        if self.age.is_none() {
            return std::future::pending().await;
        }
        self.until(Age::is_too_old).await;
    }

    async fn until(&self, what: impl Fn(&Age) -> bool) {
        while self.age.as_ref().is_some_and(|age| !what(age)) {
            tokio::time::sleep(LOOK).await;
        }
    }
}

impl Age {
    /// Of a copy that is relied on for `most` without a word of the other broker.
    pub(crate) const fn new(most: Duration) -> Self {
        Self { most, confirmed: Mutex::new(None), behind: Mutex::new(None) }
    }

    /// It was what the other broker had `then`.
    pub(crate) fn confirm(&self, then: Instant) {
        *lock(&self.confirmed) = Some(then);
        *lock(&self.behind) = None;
    }

    /// The other broker has another one, which cannot be taken.
    pub(crate) fn fall_behind(&self) {
        *lock(&self.behind) = Some(Instant::now());
    }

    /// How long ago it was what the other broker had; `None`: there is none yet.
    pub(crate) fn get(&self) -> Option<Duration> {
        lock(&self.confirmed).map(|at| at.elapsed())
    }

    /// Whether it tells of everything that was registered before `then`.
    pub(super) fn is_of_after(&self, then: Instant) -> bool {
        lock(&self.confirmed).is_some_and(|at| at > then)
    }

    /// Whether it is known to be behind a broker that is there, and can answer itself.
    pub(crate) fn is_behind(&self) -> bool {
        lock(&self.behind).is_some_and(|at| at.elapsed() < brokers::SILENCE)
    }

    /// Whether it may not be relied on.
    pub(crate) fn is_too_old(&self) -> bool {
        self.is_behind() || self.get().is_none_or(|age| age > self.most)
    }
}

fn lock(moment: &Mutex<Option<Instant>>) -> std::sync::MutexGuard<'_, Option<Instant>> {
    moment.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_counts_while_it_is_young_and_not_behind() {
        let age = Age::new(Duration::from_secs(60));
        assert!(age.is_too_old() && age.get().is_none() && !age.is_of_after(Instant::now()));
        let before = Instant::now();
        age.confirm(Instant::now());
        assert!(!age.is_too_old() && age.is_of_after(before.checked_sub(Duration::from_secs(1)).unwrap()));
        // What comes now it need not know.
        assert!(!age.is_of_after(Instant::now()));
        age.fall_behind();
        assert!(age.is_too_old());
        age.confirm(Instant::now());
        assert!(!age.is_too_old());
        let none = Age::new(Duration::ZERO);
        none.confirm(Instant::now());
        assert!(none.is_too_old());
    }
}
