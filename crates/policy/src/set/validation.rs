//! Types, by Cedar's strict validation, and parameters that nobody decodes.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::mem::{Discriminant, discriminant};

use cedar_policy::ffi::DetailedError;
use cedar_policy::{
    ActionConstraint, PolicyId, PolicySet, PrincipalConstraint, ValidationError, ValidationMode, ValidationResult,
    ValidationWarning, Validator,
};

use super::draft::Draft;
use super::{Finding, Findings, Severity, could_match};
use crate::reads::Reads;
use crate::schema::{ActionRecord, Names, Schema};
use crate::similar::listed;
use crate::vocabulary::{EntityKind, component_uids};

/// How many components or functions a sentence names.
const NAMED: usize = 3;

/// A draft with what its mistakes are explained by.
struct Subject<'d, 'a> {
    draft: &'d Draft<'a>,
    names: &'d Names,
    /// Whether a name of it is unknown: what Cedar says of its scope is then said already.
    misnamed: bool,
    reads_params: bool,
    /// The functions in its scope of which it reads a parameter, and the components that serve them undecoded.
    undecoded: Vec<(&'d str, Vec<String>)>,
}

/// Validates the drafts together. `misnamed` are the positions of those with an unknown name.
pub(super) fn check(drafts: &[Draft<'_>], misnamed: &HashSet<usize>, schema: &Schema, findings: &mut Findings) {
    let subjects: HashMap<&PolicyId, Subject<'_, '_>> = drafts
        .iter()
        .enumerate()
        .map(|(position, draft)| (draft.policy.id(), Subject::new(draft, misnamed.contains(&position), schema.names())))
        .collect();
    for subject in subjects.values() {
        subject.refuse_undecoded(findings);
    }
    match PolicySet::from_policies(drafts.iter().map(|draft| draft.policy.clone())) {
        Ok(policies) => {
            let result = Validator::new(schema.cedar().clone()).validate(&policies, ValidationMode::Strict);
            report(&result, &subjects, findings);
        }
        Err(error) => {
            // Provisional ids are unique, so this is never seen; were it, the set must not pass.
            if let Some(draft) = drafts.first() {
                draft.mistake(findings, draft.statement.start, error.to_string(), None);
            }
        }
    }
}

fn report(result: &ValidationResult, subjects: &HashMap<&PolicyId, Subject<'_, '_>>, findings: &mut Findings) {
    // One mistake is found once per kind of principal and function; it is told once, in the least of its wordings.
    let mut errors: BTreeMap<(&PolicyId, usize, DetailedError), &ValidationError> = BTreeMap::new();
    for error in result.validation_errors() {
        let detail = DetailedError::from(error);
        errors.insert((error.policy_id(), start(&detail), detail), error);
    }
    let mut told: HashSet<(&PolicyId, usize, Discriminant<ValidationError>)> = HashSet::new();
    for ((id, start, detail), error) in &errors {
        if let Some(subject) = subjects.get(id).filter(|_| told.insert((id, *start, discriminant(*error)))) {
            subject.report_error(error, detail, findings);
        }
    }
    let mut mistaken: HashSet<&PolicyId> = errors.keys().map(|(id, _, _)| *id).collect();
    // A policy that fits no function is also false for every call; the first says why.
    let (misfits, others): (Vec<_>, Vec<_>) = result
        .validation_warnings()
        .partition(|warning| matches!(warning, ValidationWarning::InvalidActionApplication(_)));
    for warning in misfits.into_iter().chain(others) {
        if let Some(subject) = subjects.get(warning.policy_id()) {
            let explained = mistaken.contains(warning.policy_id()) || subject.misnamed || subject.refuses_undecoded();
            subject.report_warning(warning, explained, findings);
        }
        if matches!(warning, ValidationWarning::InvalidActionApplication(_)) {
            mistaken.insert(warning.policy_id());
        }
    }
}

impl<'d, 'a> Subject<'d, 'a> {
    fn new(draft: &'d Draft<'a>, misnamed: bool, names: &'d Names) -> Self {
        let reads = Reads::of(&draft.policy).params;
        let scope = draft.policy.action_constraint();
        let functions = names.actions.iter().filter(|(action, record)| reads.any() && in_scope(&scope, action, record));
        let undecoded = functions
            .map(|(action, record)| (action.as_str(), record.undecoded(|param| reads.includes(param))))
            .filter(|(_, components)| !components.is_empty())
            .collect();
        Self { draft, names, misnamed, reads_params: reads.any(), undecoded }
    }

    /// Of the undecoded, what the policy's own resource scope could match.
    fn unreadable(&self) -> impl Iterator<Item = (&'d str, &str)> {
        let components = self
            .undecoded
            .iter()
            .flat_map(|(action, components)| components.iter().map(|component| (*action, component.as_str())));
        components.filter(|(_, component)| {
            let (component, lattice) = component_uids(component);
            could_match(&self.draft.policy, &component, &lattice)
        })
    }

    fn refuses_undecoded(&self) -> bool {
        self.unreadable().next().is_some()
    }

    fn refuse_undecoded(&self, findings: &mut Findings) {
        if !self.refuses_undecoded() {
            return;
        }
        let (functions, components): (BTreeSet<_>, BTreeSet<_>) =
            self.unreadable().map(|(function, component)| (function.to_owned(), component.to_owned())).unzip();
        let message =
            format!("the policy reads parameters of {}, which are not decoded everywhere", listed(functions, NAMED));
        let hint = format!(
            "{} passes its bytes on untouched (splice): narrow the policy's action or resource, or register a typed upstream",
            listed(components, NAMED),
        );
        self.draft.mistake(findings, self.draft.offset_of("params"), message, Some(hint));
    }

    fn report_error(&self, error: &ValidationError, detail: &DetailedError, findings: &mut Findings) {
        let attribute = matches!(error, ValidationError::UnsafeAttributeAccess(_));
        let no_params = attribute && detail.message.contains("attribute `params` ");
        let no_such_param = attribute && detail.message.contains("attribute `params.");
        if matches!(error, ValidationError::UnrecognizedActionId(_)) || (no_params && self.refuses_undecoded()) {
            return;
        }
        let hint = if matches!(error, ValidationError::UnrecognizedEntityType(_)) {
            let types = EntityKind::ALL.map(EntityKind::name);
            Some(format!("entity types are {}", listed(types, usize::MAX)))
        } else if no_params {
            self.undecoded_hint()
        } else if no_such_param {
            self.params_hint()
        } else {
            let own = detail.help.as_deref().map(|help| self.without_id(help));
            self.principal_hint(error, detail).or(own)
        };
        let offset = self.draft.statement.start + start(detail);
        self.draft.mistake(findings, offset, self.without_id(&detail.message), hint);
    }

    fn undecoded_hint(&self) -> Option<String> {
        self.undecoded.first().map(|(action, components)| {
            format!(
                "no policy can read parameters of `{action}`, because {} serves it too and passes its bytes on untouched (splice)",
                listed(components, NAMED),
            )
        })
    }

    fn params_hint(&self) -> Option<String> {
        let ActionConstraint::Eq(action) = self.draft.policy.action_constraint() else {
            return Some("not every function in the scope has it: ask first, `context.params has .. &&`".to_owned());
        };
        let params = self.names.actions.get(action.id().unescaped())?.params()?;
        let readable: Vec<_> = params.keys().collect();
        Some(match readable.as_slice() {
            [] => "the function has no parameter that a policy can read".to_owned(),
            some => format!("what a policy can read of the function is {}", listed(some, usize::MAX)),
        })
    }

    /// Both kinds of principal have to fit where the scope lets both in.
    fn principal_hint(&self, error: &ValidationError, detail: &DetailedError) -> Option<String> {
        let open = matches!(self.draft.policy.principal_constraint(), PrincipalConstraint::Any);
        let typed = matches!(
            error,
            ValidationError::IncompatibleTypes(_)
                | ValidationError::UnexpectedType(_)
                | ValidationError::UnsafeAttributeAccess(_)
        );
        let [workload, hosted] = [EntityKind::Workload.name(), EntityKind::HostedComponent.name()];
        let named = detail.message.contains(workload) || detail.message.contains(hosted);
        (open && typed && named)
            .then(|| format!("say whom the policy is for: `principal is {workload}` or `principal is {hosted}`"))
    }

    /// `explained` says that another mistake tells why the policy never applies.
    fn report_warning(&self, warning: &ValidationWarning, explained: bool, findings: &mut Findings) {
        let detail = DetailedError::from(warning);
        let offset = self.draft.statement.start + start(&detail);
        match warning {
            ValidationWarning::ImpossiblePolicy(_) | ValidationWarning::InvalidActionApplication(_) if explained => {}
            ValidationWarning::ImpossiblePolicy(_) | ValidationWarning::InvalidActionApplication(_)
                if self.names.actions.is_empty() => {}
            ValidationWarning::ImpossiblePolicy(_) => {
                let message = "the policy can never apply: it is false for every call".to_owned();
                let hint = "`context has params` and `context.params has ..` are false where no function in the scope has such a parameter";
                self.draft.mistake(findings, offset, message, self.reads_params.then(|| hint.to_owned()));
            }
            ValidationWarning::InvalidActionApplication(_) => {
                let message = "the policy can never apply: no function fits its scope".to_owned();
                self.draft.mistake(findings, offset, message, self.group_hint());
            }
            ValidationWarning::MixedScriptString(_)
            | ValidationWarning::MixedScriptIdentifier(_)
            | ValidationWarning::ConfusableIdentifier(_) => {
                let message = self.without_id(&detail.message);
                let policy = Some(self.draft.id.as_str());
                let finding = Finding { severity: Severity::Warning, policy, message, hint: detail.help };
                findings.add(&self.draft.page, offset, finding);
            }
            // Text that hides what it says, and whatever a later Cedar may warn of.
            ValidationWarning::BidiCharsInString(_) | ValidationWarning::BidiCharsInIdentifier(_) | _ => {
                self.draft.mistake(findings, offset, self.without_id(&detail.message), detail.help);
            }
        }
    }

    fn group_hint(&self) -> Option<String> {
        match self.draft.policy.action_constraint() {
            ActionConstraint::Eq(uid) if self.names.groups.contains(uid.id().unescaped()) => {
                Some(format!("`{}` is a group of functions: write `action in {uid}`", uid.id().unescaped()))
            }
            ActionConstraint::Eq(_) | ActionConstraint::In(_) | ActionConstraint::Any => None,
        }
    }

    /// Cedar's messages begin with the provisional id.
    fn without_id(&self, message: &str) -> String {
        let prefix = format!("for policy `{}`, ", self.draft.policy.id());
        message.strip_prefix(&prefix).unwrap_or(message).to_owned()
    }
}

fn in_scope(scope: &ActionConstraint, action: &str, record: &ActionRecord) -> bool {
    match scope {
        ActionConstraint::Any => true,
        ActionConstraint::Eq(uid) => uid.id().unescaped() == action,
        ActionConstraint::In(uids) => uids.iter().any(|uid| {
            let id = uid.id().unescaped();
            id == action || record.groups.iter().any(|group| group == id)
        }),
    }
}

fn start(detail: &DetailedError) -> usize {
    detail.source_locations.first().map_or(0, |label| label.loc.start)
}
