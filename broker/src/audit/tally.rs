//! The audit log in numbers.

use std::sync::atomic::{AtomicBool, Ordering};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;

use super::event::Event;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(crate) struct Kind {
    what: &'static str,
}

/// What was written since the broker started, and whether more can be.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    events: Family<Kind, Counter>,
    broken: AtomicBool,
}

impl Tally {
    pub(super) fn written(&self, event: &Event) {
        self.events.get_or_create(&Kind { what: event.what() }).inc();
    }

    pub(super) fn set_broken(&self, broken: bool) {
        self.broken.store(broken, Ordering::Release);
    }

    /// Whether the last attempt to write failed: nothing is issued and nothing changes meanwhile.
    pub(crate) fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Acquire)
    }

    /// The counters, by the kind that stands in the log.
    pub(crate) fn events(&self) -> Family<Kind, Counter> {
        self.events.clone()
    }
}
