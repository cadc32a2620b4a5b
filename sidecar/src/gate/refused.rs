//! A refused call: what the caller is told, what is remembered of it, what the operator reads.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use portcullis_client::explanation::{DecidingPolicy, Explanation};
use portcullis_policy::Verdict;
use portcullis_transport::Refusal;
use portcullis_transport::quic::CallUnread;

/// Refusals kept per connection, for the caller to ask about.
const KEPT: usize = 64;
/// Of a reason that is told to a caller, in bytes.
const MAX_REASON: usize = 512;

/// Why a call is refused.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) refusal: Refusal,
    /// One sentence that the caller may read.
    pub(crate) reason: String,
    /// What only the operator reads.
    pub(crate) detail: Option<String>,
    pub(crate) policies: Vec<DecidingPolicy>,
}

impl Refused {
    pub(crate) fn new(refusal: Refusal, reason: impl Into<String>) -> Self {
        Self { refusal, reason: reason.into(), detail: None, policies: Vec::new() }
    }

    /// Adds what only the operator reads.
    pub(crate) fn detailed(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    pub(crate) fn denied(verdict: &Verdict) -> Self {
        let policies = verdict
            .reasons()
            .iter()
            .map(|policy| DecidingPolicy { id: policy.id().to_owned(), advice: policy.advice().map(str::to_owned) });
        let errors: Vec<_> = verdict.errors().iter().map(ToString::to_string).collect();
        Self {
            refusal: Refusal::Denied,
            reason: verdict.summary(),
            detail: (!errors.is_empty()).then(|| errors.join("; ")),
            policies: policies.collect(),
        }
    }

    /// A call that could not be read; nothing where the caller gave it up itself.
    pub(crate) fn unread(error: &CallUnread) -> Option<Self> {
        error.refusal().map(|refusal| Self::new(refusal, error.to_string()))
    }

    fn explanation(&self) -> Explanation {
        let mut reason = self.reason.clone();
        if reason.len() > MAX_REASON {
            let end = (0..=MAX_REASON).rev().find(|end| reason.is_char_boundary(*end)).unwrap_or(0);
            reason.truncate(end);
        }
        Explanation { refusal: self.refusal.name().to_owned(), reason, policies: self.policies.clone() }
    }
}

/// The last refusals of one connection, by stream index.
#[derive(Debug, Default)]
pub(crate) struct Refusals {
    kept: Mutex<VecDeque<(u64, Explanation)>>,
}

impl Refusals {
    pub(crate) fn remember(&self, stream: u64, refused: &Refused) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() == KEPT {
            kept.pop_front();
        }
        kept.push_back((stream, refused.explanation()));
    }

    pub(crate) fn of(&self, stream: u64) -> Option<Explanation> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.iter().rev().find(|(index, _)| *index == stream).map(|(_, explanation)| explanation.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_refusals_are_kept_and_no_more() {
        let refusals = Refusals::default();
        for stream in 0..100 {
            refusals.remember(stream, &Refused::new(Refusal::TooMany, "é".repeat(400)));
        }
        assert!(refusals.of(35).is_none());
        let explanation = refusals.of(36).unwrap();
        assert_eq!(explanation.refusal, "too-many");
        assert!(explanation.reason.len() <= MAX_REASON);
        assert!(refusals.of(99).is_some());
    }
}
