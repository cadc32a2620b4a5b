//! One peer before one component: its entities, built once, and the verdicts it has had.

mod context;

use std::sync::{Arc, OnceLock};

use cedar_policy::{Entities, PolicySet, Request};

use crate::call::{CallContext, Transport};
use crate::engine::{Action, ActionIndex, Engine, Rules};
use crate::outcome;
use crate::principal::Principal;
use crate::verdict::{EvaluationError, Verdict};

/// What one connection decides with. It belongs to the engine it came from: when that is replaced, so must the view be.
///
/// A verdict is kept per function and transport, and only where nothing else of the call can matter to the function's policies:
/// neither its parameters nor a link name that it gives. The room it takes is fixed by the component's functions, whatever the
/// peer asks for.
#[derive(Debug)]
pub struct PeerView {
    engine: Engine,
    principal: Principal,
    /// `None` where the policy engine refuses the peer's entity; then everything is denied.
    entities: Option<Entities>,
    verdicts: Box<[[OnceLock<Arc<Verdict>>; 2]]>,
    may_call_any: [OnceLock<bool>; 2],
}

impl PeerView {
    pub(crate) fn new(engine: Engine, principal: Principal) -> Self {
        let entities = engine.core.entities.clone().add_entities([principal.entity().clone()], None).ok();
        let verdicts = engine.core.actions().map(|_| Default::default()).collect();
        Self { engine, principal, entities, verdicts, may_call_any: Default::default() }
    }

    /// The engine that decides.
    #[must_use]
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// The peer.
    #[must_use]
    pub fn principal(&self) -> &Principal {
        &self.principal
    }

    /// Whether some policy that can apply to this kind of peer may read the function's parameters.
    #[must_use]
    pub fn reads_params(&self, action: ActionIndex) -> bool {
        self.rules(action).is_some_and(|rules| rules.reads.params.any())
    }

    /// Decides one call.
    #[must_use]
    pub fn decide(&self, action: ActionIndex, call: &CallContext<'_>) -> Arc<Verdict> {
        let Some((index, found)) = self.engine.core.find(action) else {
            return Arc::new(denied_call("the function belongs to another version of the policies".to_owned()));
        };
        let rules = found.rules(self.principal.kind());
        let evaluate = || Arc::new(self.evaluate(found, rules, call));
        let depends_on_call = rules.reads.params.any() || (rules.reads.link_name && call.link_name.is_some());
        match self.verdicts.get(index) {
            Some(slots) if !depends_on_call => Arc::clone(slot(slots, call.transport).get_or_init(evaluate)),
            Some(_) | None => evaluate(),
        }
    }

    /// Whether the peer may call some function of the component over `transport`.
    ///
    /// Parameters and link names are taken to be unknown: a function whose policies need them counts only where they allow the
    /// call without. A peer for which nothing counts is told `denied` for every name, so that it cannot find out which exist.
    #[must_use]
    pub fn may_call_any(&self, transport: Transport) -> bool {
        let call = CallContext::over(transport);
        let find = || self.engine.core.actions().any(|action| self.decide(action, &call).is_allowed());
        *slot(&self.may_call_any, transport).get_or_init(find)
    }

    fn rules(&self, action: ActionIndex) -> Option<&Rules> {
        self.engine.core.find(action).map(|(_, action)| action.rules(self.principal.kind()))
    }

    fn evaluate(&self, action: &Action, rules: &Rules, call: &CallContext<'_>) -> Verdict {
        let Some(entities) = &self.entities else {
            return denied_call("the caller's entity is refused".to_owned());
        };
        let core = &self.engine.core;
        let context = match context::of_call(core, action, &rules.reads, call) {
            Ok(context) => context,
            Err(message) => return denied_call(message),
        };
        let (principal, resource) = (self.principal.uid().clone(), core.resource.clone());
        let request = match Request::new(principal, action.uid.clone(), resource, context, None) {
            Ok(request) => request,
            Err(error) => return denied_call(error.to_string()),
        };
        let ask = |policies: &PolicySet| core.authorizer.is_authorized(&request, policies, entities);
        let trials = rules.on_trial.iter();
        let dry_run = trials.filter_map(|trial| outcome::tried(trial, &ask(&trial.alone), &core.policies)).collect();
        outcome::verdict(&ask(&rules.in_force), &core.policies, dry_run)
    }
}

fn slot<T>(slots: &[T; 2], transport: Transport) -> &T {
    let [quic, nats] = slots;
    match transport {
        Transport::Quic => quic,
        Transport::Nats => nats,
    }
}

fn denied_call(message: String) -> Verdict {
    Verdict::denied(Vec::new(), vec![EvaluationError::of_call(message)], Vec::new())
}
