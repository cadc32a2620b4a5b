//! The policy service as the rest of the broker sees it: numbers, and a desk to ask at.

use std::sync::OnceLock;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;

use super::desk::PolicyDesk;

/// What became of a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Allowed,
    Denied,
    /// Denied because it could not be read.
    Malformed,
    /// Neither: too many at once, or the disk.
    Undecided,
    /// There is no place for an answer.
    Dropped,
    /// Its answer was told otherwise later.
    Overridden,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(crate) struct Label {
    outcome: &'static str,
}

/// What hosts asked since the broker started.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    questions: Family<Label, Counter>,
    remembered: Gauge,
    /// Who knows what they were answered, if anybody does.
    pub(crate) desk: OnceLock<PolicyDesk>,
}

impl Outcome {
    const fn name(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Denied => "denied",
            Self::Malformed => "malformed",
            Self::Undecided => "undecided",
            Self::Dropped => "dropped",
            Self::Overridden => "overridden",
        }
    }
}

impl Counts {
    pub(super) fn note(&self, outcome: Outcome) {
        self.questions.get_or_create(&Label { outcome: outcome.name() }).inc();
    }

    pub(super) fn set_remembered(&self, answers: usize) {
        self.remembered.set(i64::try_from(answers).unwrap_or(i64::MAX));
    }

    /// How many questions became that.
    pub(crate) fn of(&self, outcome: Outcome) -> u64 {
        self.questions.get_or_create(&Label { outcome: outcome.name() }).get()
    }

    /// The counters, by what became of a question.
    pub(crate) fn questions(&self) -> Family<Label, Counter> {
        self.questions.clone()
    }

    /// How many answers can be told otherwise.
    pub(crate) fn remembered(&self) -> Gauge {
        self.remembered.clone()
    }
}
