//! What a decision says: allowed or denied, by which policies, with which errors.

use std::fmt;
use std::sync::Arc;

/// The answer to one call. It always answers: an error is a denial that says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// At least one policy permits the call, none forbids it, none failed.
    Allowed(Allowed),
    /// Everything else.
    Denied(Denied),
}

/// Why a call is allowed. Only a decision makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allowed {
    reasons: Vec<PolicyRef>,
    dry_run: Vec<DryRun>,
}

/// Why a call is denied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denied {
    reasons: Vec<PolicyRef>,
    errors: Vec<EvaluationError>,
    dry_run: Vec<DryRun>,
}

/// Leave to forward one call. Only [`Verdict::permit`] makes one, it cannot be copied, and who forwards a call asks for it.
#[derive(Debug)]
#[must_use = "a permit that is not spent forwards nothing"]
pub struct Permit(());

/// A policy that determined a verdict.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PolicyRef {
    id: Arc<str>,
    advice: Option<Arc<str>>,
}

/// A policy that could not be evaluated, or a call that could not be put to the policies.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct EvaluationError {
    policy: Option<Arc<str>>,
    message: String,
}

/// What a policy under trial (`@dry_run`) would have said. It never counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DryRun {
    /// The policy.
    pub policy: PolicyRef,
    /// What it would have done.
    pub outcome: DryRunOutcome,
}

/// The outcome of a policy under trial that applied to the call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DryRunOutcome {
    /// It would have permitted the call.
    WouldPermit,
    /// It would have forbidden the call.
    WouldForbid,
    /// It would have denied the call, because it cannot be evaluated.
    WouldFail(String),
}

impl Verdict {
    pub(crate) fn allowed(reasons: Vec<PolicyRef>, dry_run: Vec<DryRun>) -> Self {
        Self::Allowed(Allowed { reasons, dry_run })
    }

    pub(crate) fn denied(reasons: Vec<PolicyRef>, errors: Vec<EvaluationError>, dry_run: Vec<DryRun>) -> Self {
        Self::Denied(Denied { reasons, errors, dry_run })
    }

    /// Leave to forward one call, where the verdict allows it.
    pub fn permit(&self) -> Option<Permit> {
        match self {
            Self::Allowed(_) => Some(Permit(())),
            Self::Denied(_) => None,
        }
    }

    /// Whether the call is allowed.
    #[must_use]
    pub fn is_allowed(&self) -> bool {
        matches!(self, Self::Allowed(_))
    }

    /// The policies that determined the verdict, by id: those that permit, or those that forbid. A denial without any is the
    /// default, or comes from [`Self::errors`].
    #[must_use]
    pub fn reasons(&self) -> &[PolicyRef] {
        match self {
            Self::Allowed(Allowed { reasons, .. }) | Self::Denied(Denied { reasons, .. }) => reasons,
        }
    }

    /// What could not be evaluated; each of them alone denies. The texts are for the operator, not for the caller.
    #[must_use]
    pub fn errors(&self) -> &[EvaluationError] {
        match self {
            Self::Allowed(_) => &[],
            Self::Denied(Denied { errors, .. }) => errors,
        }
    }

    /// What the policies under trial would have said, where they apply.
    #[must_use]
    pub fn dry_run(&self) -> &[DryRun] {
        match self {
            Self::Allowed(Allowed { dry_run, .. }) | Self::Denied(Denied { dry_run, .. }) => dry_run,
        }
    }

    /// The verdict in one sentence. It names policies and their advice, never their text, so that a caller may read it.
    #[must_use]
    pub fn summary(&self) -> String {
        match self {
            Self::Allowed(Allowed { reasons, .. }) => format!("allowed by {}", listed(reasons)),
            Self::Denied(Denied { errors, .. }) if !errors.is_empty() => failed(errors),
            Self::Denied(Denied { reasons, .. }) if reasons.is_empty() => "denied: no policy permits it".to_owned(),
            Self::Denied(Denied { reasons, .. }) => format!("denied by {}", listed(reasons)),
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.summary())
    }
}

impl PolicyRef {
    pub(crate) fn new(id: &str, advice: Option<&str>) -> Self {
        Self { id: id.into(), advice: advice.map(Into::into) }
    }

    /// The policy's id.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// What the policy's `@advice` tells the caller.
    #[must_use]
    pub fn advice(&self) -> Option<&str> {
        self.advice.as_deref()
    }
}

impl EvaluationError {
    pub(crate) fn of_policy(policy: &PolicyRef, message: String) -> Self {
        Self { policy: Some(Arc::clone(&policy.id)), message }
    }

    pub(crate) fn of_call(message: String) -> Self {
        Self { policy: None, message }
    }

    /// The id of the policy, unless the call itself is at fault.
    #[must_use]
    pub fn policy(&self) -> Option<&str> {
        self.policy.as_deref()
    }

    /// What went wrong, for the operator.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl fmt::Display for EvaluationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.policy {
            Some(policy) => write!(f, "policy `{policy}`: {}", self.message),
            None => f.write_str(&self.message),
        }
    }
}

/// How many policies a sentence names.
const NAMED: usize = 8;

fn sentence(policies: &[String]) -> String {
    let named: Vec<_> = policies.iter().take(NAMED).map(String::as_str).collect();
    match policies.len().saturating_sub(NAMED) {
        0 => named.join(", "),
        more => format!("{} and {more} more", named.join(", ")),
    }
}

fn listed(reasons: &[PolicyRef]) -> String {
    let policies: Vec<_> = reasons
        .iter()
        .map(|policy| match policy.advice() {
            Some(advice) => format!("policy `{}` ({advice})", policy.id),
            None => format!("policy `{}`", policy.id),
        })
        .collect();
    sentence(&policies)
}

fn failed(errors: &[EvaluationError]) -> String {
    let mut policies: Vec<_> = errors.iter().filter_map(EvaluationError::policy).map(|id| format!("`{id}`")).collect();
    policies.sort();
    policies.dedup();
    match policies.as_slice() {
        [] => "denied: the call cannot be put to the policies".to_owned(),
        [policy] => format!("denied: policy {policy} could not be evaluated"),
        several => format!("denied: policies {} could not be evaluated", sentence(several)),
    }
}
