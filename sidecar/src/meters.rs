//! What Prometheus reads: counters and gauges, looked up once per function and then only counted.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use portcullis_transport::Refusal;
use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

/// Upper bounds of the latency histogram, in seconds: 100 µs to 10 s.
const LATENCY: [f64; 12] = [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 10.0];

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct FunctionLabels {
    instance: String,
    function: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct RefusalLabels {
    refusal: &'static str,
}

/// Every metric of a sidecar.
#[derive(Debug)]
pub(crate) struct Meters {
    registry: Registry,
    answered: Family<FunctionLabels, Counter>,
    latency: Family<FunctionLabels, Histogram, fn() -> Histogram>,
    refused: Family<RefusalLabels, Counter>,
    /// Handshakes that were refused.
    pub(crate) handshakes_refused: Counter,
    /// Set before each reading.
    pub(crate) calls_underway: Gauge,
    pub(crate) connections: Gauge,
    pub(crate) epoch: Gauge,
    pub(crate) ready: Gauge,
    pub(crate) broker_connected: Gauge,
    pub(crate) svid_expires_in: Gauge<f64, AtomicU64>,
    pub(crate) state_age: Gauge<f64, AtomicU64>,
}

/// The counters of one function.
#[derive(Clone, Debug)]
pub(crate) struct FunctionMeter {
    answered: Counter,
    latency: Histogram,
}

impl FunctionMeter {
    pub(crate) fn answered(&self, after: Duration) {
        self.answered.inc();
        self.latency.observe(after.as_secs_f64());
    }
}

impl Meters {
    pub(crate) fn new() -> Arc<Self> {
        let latency: fn() -> Histogram = || Histogram::new(LATENCY);
        let mut meters = Self {
            registry: Registry::with_prefix("portcullis"),
            answered: Family::default(),
            latency: Family::new_with_constructor(latency),
            refused: Family::default(),
            handshakes_refused: Counter::default(),
            calls_underway: Gauge::default(),
            connections: Gauge::default(),
            epoch: Gauge::default(),
            ready: Gauge::default(),
            broker_connected: Gauge::default(),
            svid_expires_in: Gauge::default(),
            state_age: Gauge::default(),
        };
        let registry = &mut meters.registry;
        registry.register("calls_answered", "Calls that got an answer", meters.answered.clone());
        registry.register_with_unit("call", "Time from header to answer", Unit::Seconds, meters.latency.clone());
        registry.register("calls_refused", "Calls that were refused, by reason", meters.refused.clone());
        let refused = meters.handshakes_refused.clone();
        registry.register("handshakes_refused", "Connections refused in the handshake", refused);
        registry.register("calls_underway", "Calls under way", meters.calls_underway.clone());
        registry.register("connections", "Connections of callers", meters.connections.clone());
        registry.register("policy_epoch", "Epoch of the policies in force", meters.epoch.clone());
        registry.register("ready", "1 when calls are served", meters.ready.clone());
        registry.register("broker_connected", "1 when the broker is heard", meters.broker_connected.clone());
        let expires = meters.svid_expires_in.clone();
        registry.register_with_unit("svid_expires_in", "Until the SVID in force expires", Unit::Seconds, expires);
        let age = meters.state_age.clone();
        registry.register_with_unit("state_age", "Since the broker last confirmed the policies", Unit::Seconds, age);
        for refusal in Refusal::ALL {
            drop(meters.refused.get_or_create(&RefusalLabels { refusal: refusal.name() }));
        }
        Arc::new(meters)
    }

    pub(crate) fn function(&self, instance: &str, function: &str) -> FunctionMeter {
        let labels = FunctionLabels { instance: instance.to_owned(), function: function.to_owned() };
        FunctionMeter {
            answered: self.answered.get_or_create_owned(&labels),
            latency: self.latency.get_or_create_owned(&labels),
        }
    }

    pub(crate) fn refused(&self, refusal: Refusal) {
        self.refused.get_or_create(&RefusalLabels { refusal: refusal.name() }).inc();
    }

    /// Every refusal's name and count.
    pub(crate) fn refusals(&self) -> Vec<(&'static str, u64)> {
        let count = |refusal: Refusal| {
            let name = refusal.name();
            (name, self.refused.get_or_create(&RefusalLabels { refusal: name }).get())
        };
        Refusal::ALL.into_iter().map(count).collect()
    }

    /// The text format of Prometheus.
    pub(crate) fn text(&self) -> String {
        let mut out = String::new();
        match text::encode(&mut out, &self.registry) {
            Ok(()) => out,
            Err(error) => format!("# cannot encode: {error}\n"),
        }
    }
}
