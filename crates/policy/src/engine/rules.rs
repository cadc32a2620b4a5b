//! Which policies can apply to a function, so that the others cost nothing: Cedar evaluates a set policy by policy.

use std::collections::HashMap;
use std::sync::Arc;

use cedar_policy::{ActionConstraint, Effect, EntityUid, Policy, PolicyId, PolicySet, PrincipalConstraint};

use super::InvalidEngine;
use crate::principal::PrincipalKind;
use crate::reads::Reads;
use crate::set::{ADVICE, DRY_RUN};
use crate::verdict::PolicyRef;
use crate::vocabulary::EntityKind;

/// The policies whose scope can match one kind of principal, one function and the component.
#[derive(Debug)]
pub(crate) struct Rules {
    pub(crate) in_force: PolicySet,
    pub(crate) on_trial: Vec<Trial>,
    /// What any of them, trials included, reads of the context.
    pub(crate) reads: Reads,
}

/// A policy under trial, alone in its set: of a set, Cedar names only the policies that decided.
#[derive(Debug)]
pub(crate) struct Trial {
    pub(crate) policy: PolicyRef,
    pub(crate) effect: Effect,
    pub(crate) alone: PolicySet,
}

/// A slice's policies with what is known of each before any call.
#[derive(Debug)]
pub(super) struct Candidates {
    policies: Vec<Candidate>,
}

#[derive(Debug)]
struct Candidate {
    policy: Policy,
    reference: PolicyRef,
    reads: Reads,
    principal: PrincipalConstraint,
    action: ActionConstraint,
}

/// Rules by the positions of their policies: functions with the same policies share them.
#[derive(Debug, Default)]
pub(super) struct Shelf {
    rules: HashMap<Vec<usize>, Arc<Rules>>,
}

impl Candidates {
    pub(super) fn new(policies: &[&Policy]) -> Self {
        let candidate = |policy: &&Policy| Candidate {
            policy: (*policy).clone(),
            reference: PolicyRef::new(policy.id().as_ref(), policy.annotation(ADVICE)),
            reads: Reads::of(policy),
            principal: policy.principal_constraint(),
            action: policy.action_constraint(),
        };
        Self { policies: policies.iter().map(candidate).collect() }
    }

    /// How verdicts name the policies.
    pub(super) fn references(&self) -> HashMap<PolicyId, PolicyRef> {
        self.policies.iter().map(|candidate| (candidate.policy.id().clone(), candidate.reference.clone())).collect()
    }
}

impl Candidate {
    /// Conservative where a principal's own name decides, exact for actions.
    fn could_match(&self, kind: PrincipalKind, action: &EntityUid, groups: &[EntityUid]) -> bool {
        let within = |uid: &EntityUid| uid == action || groups.contains(uid);
        let principal = match &self.principal {
            PrincipalConstraint::Any => true,
            PrincipalConstraint::Eq(uid) => uid.type_name() == kind.entity().type_name(),
            PrincipalConstraint::In(uid) => could_contain(uid, kind),
            PrincipalConstraint::Is(name) => name == kind.entity().type_name(),
            PrincipalConstraint::IsIn(name, uid) => name == kind.entity().type_name() && could_contain(uid, kind),
        };
        principal
            && match &self.action {
                ActionConstraint::Any => true,
                ActionConstraint::Eq(uid) => uid == action,
                ActionConstraint::In(uids) => uids.iter().any(within),
            }
    }
}

/// Whether a principal of this kind can be `uid` or a member of it.
fn could_contain(uid: &EntityUid, kind: PrincipalKind) -> bool {
    let own = uid.type_name() == kind.entity().type_name();
    match kind {
        PrincipalKind::Workload => own || uid.type_name() == EntityKind::TrustDomain.type_name(),
        PrincipalKind::Hosted => own,
    }
}

impl Shelf {
    /// The rules for calls of one function by one kind of principal.
    pub(super) fn rules(
        &mut self,
        candidates: &Candidates,
        kind: PrincipalKind,
        action: &EntityUid,
        groups: &[EntityUid],
    ) -> Result<Arc<Rules>, InvalidEngine> {
        let matching =
            candidates.policies.iter().enumerate().filter(|(_, candidate)| candidate.could_match(kind, action, groups));
        let (positions, matching): (Vec<_>, Vec<_>) = matching.unzip();
        if let Some(shared) = self.rules.get(&positions) {
            return Ok(Arc::clone(shared));
        }
        let rules = Arc::new(Rules::new(&matching)?);
        self.rules.insert(positions, Arc::clone(&rules));
        Ok(rules)
    }
}

impl Rules {
    fn new(candidates: &[&Candidate]) -> Result<Self, InvalidEngine> {
        let policies = candidates.iter().map(|candidate| (&candidate.policy, &candidate.reference));
        let (in_force, on_trial) = divide(policies)?;
        let reads = candidates.iter().map(|candidate| candidate.reads.clone()).fold(Reads::default(), Reads::and);
        Ok(Self { in_force, on_trial, reads })
    }
}

/// The policies that decide, and those under trial.
pub(crate) fn divide<'a>(
    policies: impl IntoIterator<Item = (&'a Policy, &'a PolicyRef)>,
) -> Result<(PolicySet, Vec<Trial>), InvalidEngine> {
    let mut in_force = Vec::new();
    let mut on_trial = Vec::new();
    for (policy, reference) in policies {
        match policy.annotation(DRY_RUN) {
            Some(_) => on_trial.push(Trial {
                policy: reference.clone(),
                effect: policy.effect(),
                alone: policy_set([policy.clone()])?,
            }),
            None => in_force.push(policy.clone()),
        }
    }
    Ok((policy_set(in_force)?, on_trial))
}

fn policy_set(policies: impl IntoIterator<Item = Policy>) -> Result<PolicySet, InvalidEngine> {
    PolicySet::from_policies(policies).map_err(|error| InvalidEngine::Policies(error.to_string()))
}
