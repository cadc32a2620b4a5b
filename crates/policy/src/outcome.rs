//! From the policy engine's answer to a verdict. What this says of errors holds for every kind of decision.

use std::collections::HashMap;

use cedar_policy::{AuthorizationError, Decision, Effect, PolicyId, Response};

use crate::engine::Trial;
use crate::verdict::{DryRun, DryRunOutcome, EvaluationError, PolicyRef, Verdict};

/// How verdicts name the policies.
pub(crate) type References = HashMap<PolicyId, PolicyRef>;

/// What `response` means. Cedar leaves out a policy that fails, also one that forbids; here its failure denies.
pub(crate) fn verdict(response: &Response, references: &References, dry_run: Vec<DryRun>) -> Verdict {
    let mut reasons: Vec<_> = response.diagnostics().reason().map(|id| reference(references, id)).collect();
    reasons.sort();
    let mut errors: Vec<_> = response.diagnostics().errors().map(|error| failure(references, error)).collect();
    errors.sort();
    match response.decision() {
        Decision::Allow if errors.is_empty() => Verdict::allowed(reasons, dry_run),
        // The permits did not decide: a policy that failed might have forbidden.
        Decision::Allow => Verdict::denied(Vec::new(), errors, dry_run),
        Decision::Deny => Verdict::denied(reasons, errors, dry_run),
    }
}

/// What the policy under trial would have said, by the answer to it alone.
pub(crate) fn tried(trial: &Trial, response: &Response, references: &References) -> Option<DryRun> {
    let failed = response.diagnostics().errors().next().map(|error| failure(references, error).message().to_owned());
    let applies = response.diagnostics().reason().next().is_some();
    let outcome = match (failed, trial.effect) {
        (Some(message), _) => DryRunOutcome::WouldFail(message),
        (None, _) if !applies => return None,
        (None, Effect::Permit) => DryRunOutcome::WouldPermit,
        (None, Effect::Forbid) => DryRunOutcome::WouldForbid,
    };
    Some(DryRun { policy: trial.policy.clone(), outcome })
}

fn failure(references: &References, error: &AuthorizationError) -> EvaluationError {
    match error {
        AuthorizationError::PolicyEvaluationError(error) => {
            EvaluationError::of_policy(&reference(references, error.policy_id()), error.inner().to_string())
        }
    }
}

fn reference(references: &References, id: &PolicyId) -> PolicyRef {
    references.get(id).cloned().unwrap_or_else(|| PolicyRef::new(id.as_ref(), None))
}
