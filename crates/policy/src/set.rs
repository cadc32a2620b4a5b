//! The operator's policies: read, checked as a whole, cut into slices.

mod admission;
mod draft;
mod names;
mod stack;
mod validation;

use std::collections::{BTreeMap, BTreeSet};

use cedar_policy::{EntityUid, Policy, PolicyId, ResourceConstraint};

use crate::problem::Problem;
use crate::schema::Schema;
use crate::slice::{PolicyText, Slice};
use crate::source::Source;
use crate::vocabulary::{EntityKind, component_entity_id};
pub use admission::AdmissionSet;
use draft::Draft;
pub(crate) use draft::{ADVICE, DRY_RUN};

/// A file of policies as the operator wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyFile {
    /// For problems, and without its folders for the ids of policies without `@id`.
    pub name: String,
    /// Cedar.
    pub text: String,
}

/// A set of policies without a mistake.
///
/// The default is the empty set, which denies everything.
#[derive(Debug, Clone, Default)]
pub struct PolicySet {
    members: Vec<Member>,
    warnings: Vec<Problem>,
}

#[derive(Debug, Clone)]
struct Member {
    text: PolicyText,
    policy: Policy,
}

impl PolicySet {
    /// Reads and checks `files` together: syntax, ids, annotations, the names they use, and types by Cedar's strict validation.
    /// A policy that can never apply is a mistake too: a `forbid` that never forbids looks like protection.
    ///
    /// A policy's id is its `@id("..")`, else `FILE:N`, the N-th policy of its file, named without its folders. `@advice("..")` is what a caller is told;
    /// `@dry_run` puts a policy on trial.
    ///
    /// # Errors
    ///
    /// Every mistake of every file, in the order of the files.
    pub fn parse(files: &[PolicyFile], schema: &Schema) -> Result<Self, Vec<Problem>> {
        stack::with_own(|| Self::check(files, schema)).unwrap_or_else(|error| Err(unchecked(files, &error)))
    }

    fn check(files: &[PolicyFile], schema: &Schema) -> Result<Self, Vec<Problem>> {
        let sources: Vec<_> = files.iter().map(|file| Source::new(&file.text)).collect();
        let mut findings = Findings::default();
        let mut drafts = Vec::new();
        let mut file_names = BTreeSet::new();
        for (index, (file, source)) in files.iter().zip(&sources).enumerate() {
            let page = Page { index, name: &file.name, source };
            if !file_names.insert(&file.name) {
                let message = format!("file `{}` is there twice", file.name);
                findings.add(&page, 0, Finding { severity: Severity::Mistake, policy: None, message, hint: None });
            }
            drafts.extend(draft::read(&page, &mut findings));
        }
        draft::check_unique(&drafts, &mut findings);
        let misnamed = names::check(&drafts, schema.names(), &mut findings);
        validation::check(&drafts, &misnamed, schema, &mut findings);
        if findings.mistakes.is_empty() {
            let warnings = findings.warnings.into_values().collect();
            Ok(Self { members: drafts.into_iter().map(Member::from).collect(), warnings })
        } else {
            Err(findings.mistakes.into_values().collect())
        }
    }

    /// The policies that a component's sidecar needs: all whose resource scope could match it.
    #[must_use]
    pub fn for_component(&self, lattice: &str, id: &str) -> Slice {
        let component = EntityKind::VirtualComponent.uid(&component_entity_id(lattice, id));
        let lattice = EntityKind::Lattice.uid(lattice);
        let matching = self.members.iter().filter(|member| could_match(&member.policy, &component, &lattice));
        Slice::from_parts(matching.map(|member| (member.text.clone(), member.policy.clone())))
    }

    /// The policies' ids, in the order of the files.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.members.iter().map(|member| member.text.id.as_str())
    }

    /// How many policies there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether there is none, so that everything is denied.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// What looks odd in the files but is no mistake.
    #[must_use]
    pub fn warnings(&self) -> &[Problem] {
        &self.warnings
    }
}

fn unchecked(files: &[PolicyFile], error: &std::io::Error) -> Vec<Problem> {
    let file = files.first().map_or_else(String::new, |file| file.name.clone());
    let message = format!("the policies cannot be checked: {error}");
    vec![Problem { file, line: 1, column: 1, policy: None, message, hint: None }]
}

impl From<Draft<'_>> for Member {
    fn from(draft: Draft<'_>) -> Self {
        let policy = draft.policy.new_id(PolicyId::new(&draft.id));
        Self { text: PolicyText { id: draft.id, text: draft.statement.text.to_owned() }, policy }
    }
}

/// Whether a policy's resource scope could match a component of a lattice.
pub(crate) fn could_match(policy: &Policy, component: &EntityUid, lattice: &EntityUid) -> bool {
    match policy.resource_constraint() {
        ResourceConstraint::Any => true,
        ResourceConstraint::Eq(uid) => uid == *component,
        ResourceConstraint::In(uid) => uid == *component || uid == *lattice,
        ResourceConstraint::Is(kind) => kind == *component.type_name(),
        ResourceConstraint::IsIn(kind, uid) => kind == *component.type_name() && (uid == *component || uid == *lattice),
    }
}

/// A file under inspection.
#[derive(Debug, Clone, Copy)]
struct Page<'a> {
    index: usize,
    name: &'a str,
    source: &'a Source<'a>,
}

impl<'a> Page<'a> {
    /// What ids call the file: its name without the folders before it.
    fn label(&self) -> &'a str {
        self.name.rsplit_once('/').map_or(self.name, |(_, label)| label)
    }
}

/// What was found so far, in the order of the files.
#[derive(Debug, Default)]
struct Findings {
    mistakes: BTreeMap<Place, Problem>,
    warnings: BTreeMap<Place, Problem>,
}

/// Orders problems; the message is part of it so that one place can have several and none twice.
type Place = (usize, usize, usize, String);

impl Findings {
    fn add(&mut self, page: &Page<'_>, offset: usize, finding: Finding<'_>) {
        let Finding { severity, policy, message, hint } = finding;
        let position = page.source.position(offset);
        let place = (page.index, position.line, position.column, message.clone());
        let problem = Problem {
            file: page.name.to_owned(),
            line: position.line,
            column: position.column,
            policy: policy.map(str::to_owned),
            message,
            hint,
        };
        match severity {
            Severity::Mistake => self.mistakes.insert(place, problem),
            Severity::Warning => self.warnings.insert(place, problem),
        };
    }
}

/// A problem without its place.
#[derive(Debug)]
struct Finding<'a> {
    severity: Severity,
    policy: Option<&'a str>,
    message: String,
    hint: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Severity {
    Mistake,
    Warning,
}
