//! Whose the names are under which others call over NATS.
//!
//! A node does not hold all names of its lattice. It tells the broker of those it met, and the broker tells whose they are, now and whenever
//! that changes. What it was told outlives the broker's absence, and the node's own.

use std::collections::BTreeMap;
use std::time::Duration;

use portcullis_api::v1;
use portcullis_identity::{SpiffeId, Target};

use super::state::{InvalidState, NodeState, parse_id, parse_target, parse_version, target_message};
use super::{Node, Request, lock};

/// The most names that a node meets: as many as one stream to the broker takes.
const MOST: usize = 4096;
/// How long the broker's answer may take.
const DEADLINE: Duration = Duration::from_secs(2);

/// Why it is not known whose a name is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MeetError {
    /// The broker did not answer in time.
    #[error("the broker does not say whose that name is")]
    Offline,
    /// The node met too many names.
    #[error("callers of more than {MOST} names")]
    TooMany,
}

impl Node {
    /// Whose name `name` is, as far as that was asked before: the inner `None` is nobody.
    #[must_use]
    pub fn caller(&self, name: &Target) -> Option<Option<SpiffeId>> {
        self.shared.state.borrow().callers.get(name).cloned()
    }

    /// Whether `name` is known to be that of `id`.
    #[must_use]
    pub fn is_caller(&self, name: &Target, id: &SpiffeId) -> bool {
        self.shared.state.borrow().callers.get(name).is_some_and(|holder| holder.as_ref() == Some(id))
    }

    /// Whose name `name` is; asks the broker for one that is new.
    ///
    /// # Errors
    /// [`MeetError`]
    pub async fn meet(&self, name: &Target) -> Result<Option<SpiffeId>, MeetError> {
        {
            let mut met = lock(&self.shared.met);
            if met.len() >= MOST && !met.contains(name) {
                return Err(MeetError::TooMany);
            }
            met.insert(name.clone());
        }
        let mut state = self.shared.state.subscribe();
        let answer = async {
            // A stream that ends before it was asked loses nothing: every new stream asks for all names.
            let _ = self.shared.requests.send(Request::Meet(name.clone())).await;
            let told = state.wait_for(|state| state.callers.contains_key(name)).await;
            told.ok().and_then(|state| state.callers.get(name).cloned())
        };
        let answer = tokio::time::timeout(DEADLINE, answer).await;
        answer.ok().flatten().ok_or(MeetError::Offline)
    }
}

impl NodeState {
    /// Keeps whose names were, until the broker says it anew.
    pub(super) fn keep_callers(&mut self, before: &Self) {
        self.callers.clone_from(&before.callers);
    }

    /// The state after the broker said whose names are.
    pub(super) fn told(&self, message: v1::Callers) -> Result<Self, InvalidState> {
        let v1::Callers { version, callers } = message;
        let offered = parse_version(version)?;
        if offered < self.version {
            return Err(InvalidState::Older { offered, known: self.version });
        }
        let mut state = self.clone();
        note(&mut state.callers, callers)?;
        Ok(state)
    }
}

pub(super) fn note(
    known: &mut BTreeMap<Target, Option<SpiffeId>>,
    callers: Vec<v1::Caller>,
) -> Result<(), InvalidState> {
    for v1::Caller { name, spiffe_id } in callers {
        let holder = if spiffe_id.is_empty() { None } else { Some(parse_id("callers.spiffe_id", &spiffe_id)?) };
        known.insert(parse_target(name)?, holder);
    }
    Ok(())
}

pub(super) fn messages(known: &BTreeMap<Target, Option<SpiffeId>>) -> Vec<v1::Caller> {
    let message = |(name, holder): (&Target, &Option<SpiffeId>)| v1::Caller {
        name: Some(target_message(name)),
        spiffe_id: holder.as_ref().map(ToString::to_string).unwrap_or_default(),
    };
    known.iter().map(message).collect()
}
