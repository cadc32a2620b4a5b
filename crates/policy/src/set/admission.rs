//! Policies of admissions: read as those of calls are, checked against a schema that is always the same.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use cedar_policy::ffi::DetailedError;
use cedar_policy::{EntityUid, Policy, PolicyId, PolicySet, ValidationMode, ValidationWarning, Validator};

use super::draft::{self, Draft};
use super::names::is_spiffe_id;
use super::{Finding, Findings, Page, PolicyFile, Severity, stack, unchecked};
use crate::admission::{Kind, schema};
use crate::problem::Problem;
use crate::similar::listed;
use crate::source::Source;

/// Policies of admissions without a mistake.
#[derive(Debug, Clone, Default)]
pub struct AdmissionSet {
    policies: Vec<Policy>,
}

impl AdmissionSet {
    /// Reads and checks `files` together, as [`PolicySet::parse`](super::PolicySet::parse) does for calls.
    ///
    /// # Errors
    /// Every mistake of every file, in the order of the files.
    pub fn parse(files: &[PolicyFile]) -> Result<Self, Vec<Problem>> {
        stack::with_own(|| Self::check(files)).unwrap_or_else(|error| Err(unchecked(files, &error)))
    }

    fn check(files: &[PolicyFile]) -> Result<Self, Vec<Problem>> {
        let sources: Vec<_> = files.iter().map(|file| Source::new(&file.text)).collect();
        let mut findings = Findings::default();
        let mut drafts = Vec::new();
        for (index, (file, source)) in files.iter().zip(&sources).enumerate() {
            drafts.extend(draft::read(&Page { index, name: &file.name, source }, &mut findings));
        }
        draft::check_unique(&drafts, &mut findings);
        drafts.iter().for_each(|draft| check_names(draft, &mut findings));
        check_types(&drafts, &mut findings);
        if findings.mistakes.is_empty() {
            let named = drafts.into_iter().map(|draft| draft.policy.new_id(PolicyId::new(&draft.id)));
            Ok(Self { policies: named.collect() })
        } else {
            Err(findings.mistakes.into_values().collect())
        }
    }

    pub(crate) fn policies(&self) -> impl Iterator<Item = &Policy> {
        self.policies.iter()
    }

    /// The policies' ids, in the order of the files.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.policies.iter().map(|policy| policy.id().as_ref())
    }
}

/// Names that can match nothing. Whether there is such a component, nobody knows before a host asks.
fn check_names(draft: &Draft<'_>, findings: &mut Findings) {
    let literals: BTreeSet<EntityUid> = draft.policy.entity_literals().into_iter().collect();
    for literal in literals {
        let id = literal.id().unescaped();
        let wrong = match Kind::of(&literal) {
            Some(kind @ (Kind::Component | Kind::Provider)) => {
                let named = id.split_once('/').is_some_and(|(lattice, id)| !lattice.is_empty() && !id.is_empty());
                (!named).then(|| {
                    let name = kind.name();
                    (
                        format!("`{id}` is not the name of a {}", name.to_lowercase()),
                        format!("it is {name}::\"LATTICE/ID\""),
                    )
                })
            }
            Some(Kind::Workload) => (!is_spiffe_id(id)).then(|| {
                (format!("`{id}` is not a SPIFFE ID"), "a workload is named `spiffe://TRUST-DOMAIN/PATH`".to_owned())
            }),
            Some(Kind::Lattice | Kind::Host | Kind::Action) | None => None,
        };
        if let Some((message, hint)) = wrong {
            let quoted = format!("\"{}\"", literal.id().escaped());
            draft.mistake(findings, draft.offset_of(&quoted), message, Some(hint));
        }
    }
}

/// Types, by Cedar's strict validation. Its warnings are mistakes: a `forbid` that never forbids looks like protection.
fn check_types(drafts: &[Draft<'_>], findings: &mut Findings) {
    let of: HashMap<&PolicyId, &Draft<'_>> = drafts.iter().map(|draft| (draft.policy.id(), draft)).collect();
    let policies = match PolicySet::from_policies(drafts.iter().map(|draft| draft.policy.clone())) {
        Ok(policies) => policies,
        Err(error) => {
            // Provisional ids are unique, so this is never seen; were it, the set must not pass.
            if let Some(draft) = drafts.first() {
                draft.mistake(findings, draft.statement.start, error.to_string(), None);
            }
            return;
        }
    };
    let result = Validator::new(schema().clone()).validate(&policies, ValidationMode::Strict);
    // One mistake is found once for each action.
    let mut errors: BTreeMap<(&PolicyId, usize, String), Option<String>> = BTreeMap::new();
    for error in result.validation_errors() {
        let detail = DetailedError::from(error);
        errors.insert((error.policy_id(), start(&detail), detail.message), detail.help);
    }
    let mistaken: BTreeSet<&PolicyId> = errors.keys().map(|(id, ..)| *id).collect();
    for ((id, start, message), help) in &errors {
        let Some(draft) = of.get(id) else { continue };
        let hint = help.clone().or_else(|| {
            let known = || listed(Kind::ALL.map(Kind::name), usize::MAX);
            message.contains("entity type").then(|| format!("entity types are {}", known()))
        });
        draft.mistake(findings, draft.statement.start + start, without_id(draft, message), hint);
    }
    for warning in result.validation_warnings() {
        let Some(draft) = of.get(warning.policy_id()) else { continue };
        let detail = DetailedError::from(warning);
        let offset = draft.statement.start + start(&detail);
        match warning {
            ValidationWarning::ImpossiblePolicy(_) | ValidationWarning::InvalidActionApplication(_)
                if mistaken.contains(warning.policy_id()) => {}
            ValidationWarning::ImpossiblePolicy(_) | ValidationWarning::InvalidActionApplication(_) => {
                let message = "the policy can never apply: it is false for every question".to_owned();
                let hint = "components are started and called, providers are started".to_owned();
                draft.mistake(findings, offset, message, Some(hint));
            }
            ValidationWarning::MixedScriptString(_)
            | ValidationWarning::MixedScriptIdentifier(_)
            | ValidationWarning::ConfusableIdentifier(_) => {
                let message = without_id(draft, &detail.message);
                let policy = Some(draft.id.as_str());
                let finding = Finding { severity: Severity::Warning, policy, message, hint: detail.help };
                findings.add(&draft.page, offset, finding);
            }
            // Text that hides what it says, and whatever a later Cedar may warn of.
            ValidationWarning::BidiCharsInString(_) | ValidationWarning::BidiCharsInIdentifier(_) | _ => {
                draft.mistake(findings, offset, without_id(draft, &detail.message), detail.help);
            }
        }
    }
}

/// Cedar's messages begin with the provisional id.
fn without_id(draft: &Draft<'_>, message: &str) -> String {
    let prefix = format!("for policy `{}`, ", draft.policy.id());
    message.strip_prefix(&prefix).unwrap_or(message).to_owned()
}

fn start(detail: &DetailedError) -> usize {
    detail.source_locations.first().map_or(0, |label| label.loc.start)
}
