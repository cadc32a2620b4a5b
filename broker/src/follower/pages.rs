//! What operators' tools read of a follower.

use std::sync::{Arc, Mutex, PoisonError};

use portcullis_admin::Observed;
use prometheus_client::encoding::text;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry as Metrics, Unit};
use std::sync::atomic::AtomicU64;

use crate::nats::{Age, Callout, Ground};
use crate::registry::Registry;

/// The pages, each made anew when it is asked for.
#[derive(Debug)]
pub(super) struct Pages {
    ground: Ground,
    age: Arc<Age>,
    callout: Arc<Callout>,
    problem: Arc<Mutex<Option<String>>>,
    metrics: Metrics,
    ready: Gauge,
    epoch: Gauge,
    sessions: Gauge,
    copy_age: Gauge<f64, AtomicU64>,
}

impl Pages {
    pub(super) fn new(
        ground: Ground,
        age: Arc<Age>,
        callout: Arc<Callout>,
        problem: Arc<Mutex<Option<String>>>,
    ) -> Self {
        let mut metrics = Metrics::with_prefix("portcullis_follower");
        let (ready, epoch, sessions) = (Gauge::default(), Gauge::default(), Gauge::default());
        let copy_age = Gauge::<f64, AtomicU64>::default();
        metrics.register("events", "Records of the audit log since the start, by kind", ground.audit.tally().events());
        metrics.register("ready", "1 when it answers logins", ready.clone());
        metrics.register("epoch", "Epoch of the registry's copy", epoch.clone());
        metrics.register("sessions", "Connections to the lattice's servers that are followed", sessions.clone());
        let help = "Since the copy was last known to be what the other broker has; -1 without one";
        metrics.register_with_unit("copy_age", help, Unit::Seconds, copy_age.clone());
        Self { ground, age, callout, problem, metrics, ready, epoch, sessions, copy_age }
    }

    fn problem(&self) -> Option<String> {
        self.problem.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Observed for Pages {
    fn not_ready(&self) -> Option<String> {
        if self.ground.stop.is_cancelled() {
            return Some("it is stopping".to_owned());
        }
        if self.ground.audit.tally().is_broken() {
            return Some("the audit log cannot be written: nobody is let in".to_owned());
        }
        let reason = || self.problem().unwrap_or_else(|| "no broker with a store was heard yet".to_owned());
        match self.age.get() {
            None => Some(format!("there is no copy of the registry: {}", reason())),
            Some(_) if self.age.is_behind() => {
                Some(format!("the broker that is followed has a newer registry: {}", reason()))
            }
            Some(age) if self.age.is_too_old() => {
                Some(format!("the copy of the registry is {} s old: {}", age.as_secs(), reason()))
            }
            Some(_) => None,
        }
    }

    fn metrics(&self) -> String {
        let number = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        self.ready.set(i64::from(self.not_ready().is_none()));
        self.epoch.set(number(self.ground.registry.read(Registry::version).epoch));
        self.sessions.set(i64::try_from(self.callout.state().0.len()).unwrap_or(i64::MAX));
        self.copy_age.set(self.age.get().map_or(-1.0, |age| age.as_secs_f64()));
        let mut page = String::new();
        // Writing into a string does not fail.
        let _ = text::encode(&mut page, &self.metrics);
        page
    }

    fn status(&self) -> Result<String, String> {
        let not_ready = self.not_ready();
        let connections = self.callout.ways().into_iter().map(|way| {
            serde_json::json!({ "name": way.name, "connected": way.problem.is_none(), "problem": way.problem.unwrap_or_default() })
        });
        let status = serde_json::json!({
            "trust_domain": self.ground.trust_domain.as_str(),
            "software": env!("CARGO_PKG_VERSION"),
            "follows": true,
            "version": self.age.get().map(|_| self.ground.registry.read(Registry::version).to_string()),
            "copy_age_seconds": self.age.get().map(|age| age.as_secs()),
            "problem": self.problem(),
            "ready": not_ready.is_none(),
            "not_ready": not_ready,
            "connections": connections.collect::<Vec<_>>(),
            "sessions": self.callout.state().0.len(),
        });
        Ok(status.to_string())
    }
}
