//! What operators' tools read of the broker: `/live`, `/ready`, `/status` and `/metrics`.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::SystemTime;

use portcullis_admin::Observed;
use prometheus_client::encoding::text;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry as Metrics, Unit};

use crate::broker::Broker;
use crate::clock;

/// The pages, each made anew when it is asked for.
#[derive(Debug)]
pub(crate) struct Pages {
    broker: Arc<Broker>,
    metrics: Metrics,
    gauges: Gauges,
}

/// Set before each reading.
#[derive(Debug, Default)]
struct Gauges {
    nodes_connected: Gauge,
    nodes: Gauge,
    entries: Gauge,
    components: Gauge,
    policies: Gauge,
    trust_domains: Gauge,
    epoch: Gauge,
    ready: Gauge,
    audit_records: Gauge,
    root_expires_in: Gauge<f64, AtomicU64>,
    signing_expires_in: Gauge<f64, AtomicU64>,
    svid_expires_in: Gauge<f64, AtomicU64>,
}

impl Pages {
    pub(crate) fn new(broker: Arc<Broker>) -> Self {
        let (mut metrics, gauges) = (Metrics::with_prefix("portcullis_broker"), Gauges::default());
        metrics.register("events", "Records of the audit log since the start, by kind", broker.audit.tally().events());
        let questions = broker.admissions.questions();
        metrics.register("admission_questions", "What hosts asked since the start, by outcome", questions);
        let remembered = broker.admissions.remembered();
        metrics.register("admission_answers", "Answers to hosts that can be told otherwise", remembered);
        let plain = [
            ("nodes_connected", "Nodes that hold a stream", &gauges.nodes_connected),
            ("nodes", "Nodes that joined", &gauges.nodes),
            ("entries", "Registration entries", &gauges.entries),
            ("components", "Virtual components", &gauges.components),
            ("policies", "Policies", &gauges.policies),
            ("trust_domains", "Foreign trust domains", &gauges.trust_domains),
            ("epoch", "Epoch of the registry", &gauges.epoch),
            ("ready", "1 when it issues and changes", &gauges.ready),
            ("audit_records", "Records of the audit log since it began", &gauges.audit_records),
        ];
        for (name, help, gauge) in plain {
            metrics.register(name, help, gauge.clone());
        }
        let expiries = [
            ("root_expires_in", "Until the active root expires", &gauges.root_expires_in),
            ("signing_expires_in", "Until the signing certificate expires", &gauges.signing_expires_in),
            ("svid_expires_in", "Until the broker's own SVID expires", &gauges.svid_expires_in),
        ];
        for (name, help, gauge) in expiries {
            metrics.register_with_unit(name, help, Unit::Seconds, gauge.clone());
        }
        Self { broker, metrics, gauges }
    }

    fn read(&self) {
        let (broker, gauges) = (&self.broker, &self.gauges);
        let count = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        let number = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        let now = clock::now();
        let left = |until: SystemTime| until.duration_since(now).map_or(0.0, |left| left.as_secs_f64());
        gauges.nodes_connected.set(count(broker.presence.node_count()));
        broker.ledger.read(|registry| {
            gauges.nodes.set(count(registry.nodes().len()));
            gauges.entries.set(count(registry.entries().len()));
            gauges.components.set(count(registry.component_count()));
            gauges.policies.set(count(registry.policy_count()));
            gauges.trust_domains.set(count(registry.domains().count()));
            gauges.epoch.set(number(registry.version().epoch));
        });
        gauges.ready.set(i64::from(self.not_ready().is_none()));
        gauges.audit_records.set(number(broker.audit.head().borrow().records));
        gauges.root_expires_in.set(left(broker.authority.root_not_after()));
        gauges.signing_expires_in.set(left(broker.authority.signing_not_after()));
        gauges.svid_expires_in.set(left(broker.own.load().not_after()));
    }
}

impl Observed for Pages {
    fn not_ready(&self) -> Option<String> {
        if self.broker.stop.is_cancelled() {
            return Some("the broker is stopping".to_owned());
        }
        if self.broker.audit.tally().is_broken() {
            return Some("the audit log cannot be written: nothing is issued and nothing changes".to_owned());
        }
        let expired = self.broker.own.load().not_after() <= clock::now();
        expired.then(|| "the broker's own certificate has expired".to_owned())
    }

    fn metrics(&self) -> String {
        self.read();
        let mut page = String::new();
        // Writing into a string does not fail.
        let _ = text::encode(&mut page, &self.metrics);
        page
    }

    fn status(&self) -> Result<String, String> {
        let version = self.broker.ledger.read(crate::registry::Registry::version).to_string();
        let not_ready = self.not_ready();
        let status = serde_json::json!({
            "trust_domain": self.broker.authority.trust_domain().as_str(),
            "software": env!("CARGO_PKG_VERSION"),
            "version": version,
            "ready": not_ready.is_none(),
            "not_ready": not_ready,
            "nodes_connected": self.broker.presence.node_count(),
            "root_not_after": clock::unix_seconds(self.broker.authority.root_not_after()),
            "svid_not_after": clock::unix_seconds(self.broker.own.load().not_after()),
        });
        Ok(status.to_string())
    }
}
