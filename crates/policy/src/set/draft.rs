//! Policies as read: syntax, ids and annotations.

use std::collections::BTreeMap;

use cedar_policy::ffi::DetailedError;
use cedar_policy::{ParseErrors, Policy, PolicyId, Template};

use super::{Finding, Findings, Page, Severity};
use crate::similar::{listed, similar};
use crate::source::{Statement, check_size};

/// In characters: ids stand in records and refusals.
const LONGEST_ID: usize = 128;
/// In characters, so that `FILE:N` is an id.
const LONGEST_FILE_NAME: usize = 112;
/// In characters: advice is told to callers and logged.
const LONGEST_ADVICE: usize = 512;

const ID: &str = "id";
pub(crate) const ADVICE: &str = "advice";
pub(crate) const DRY_RUN: &str = "dry_run";

/// A policy that could be read.
#[derive(Debug)]
pub(super) struct Draft<'a> {
    pub(super) page: Page<'a>,
    pub(super) statement: Statement<'a>,
    pub(super) id: String,
    /// Under a provisional id, which no other policy has.
    pub(super) policy: Policy,
}

impl Draft<'_> {
    pub(super) fn mistake(&self, findings: &mut Findings, offset: usize, message: String, hint: Option<String>) {
        let policy = Some(self.id.as_str());
        findings.add(&self.page, offset, Finding { severity: Severity::Mistake, policy, message, hint });
    }

    /// Where `token` stands in the policy, else where the policy begins.
    pub(super) fn offset_of(&self, token: &str) -> usize {
        self.page.source.find(&self.statement, token).unwrap_or(self.statement.start)
    }
}

/// Reads a file's policies; those that cannot be read become mistakes.
pub(super) fn read<'a>(page: &Page<'a>, findings: &mut Findings) -> Vec<Draft<'a>> {
    if let Err(message) = check_text("file's name", page.label(), LONGEST_FILE_NAME, is_plain) {
        findings.add(page, 0, Finding { severity: Severity::Mistake, policy: None, message, hint: None });
    }
    let statements = page.source.statements().into_iter().enumerate();
    statements.filter_map(|(index, statement)| read_one(page, statement, index + 1, findings)).collect()
}

fn read_one<'a>(
    page: &Page<'a>,
    statement: Statement<'a>,
    number: usize,
    findings: &mut Findings,
) -> Option<Draft<'a>> {
    let mut unreadable = |offset: usize, message: String, hint: Option<String>| {
        let finding = Finding { severity: Severity::Mistake, policy: None, message, hint };
        findings.add(page, statement.start + offset, finding);
    };
    if let Err(error) = check_size(statement.text) {
        unreadable(0, error.to_string(), Some("split the policy, or put what it lists into a set".to_owned()));
        return None;
    }
    let provisional = PolicyId::new(format!("{}:{number}", page.index));
    match Policy::parse(Some(provisional), statement.text) {
        Ok(policy) => {
            let draft = Draft { page: *page, statement, id: format!("{}:{number}", page.label()), policy };
            Some(annotated(draft, findings))
        }
        Err(errors) => {
            match Template::parse(None, statement.text) {
                Ok(template) => refuse_template(page, &statement, &template, findings),
                Err(_) => refuse_text(&errors, unreadable),
            }
            None
        }
    }
}

fn refuse_text(errors: &ParseErrors, mut unreadable: impl FnMut(usize, String, Option<String>)) {
    for error in errors.iter().map(DetailedError::from) {
        let place = error.source_locations.first();
        let expected = place.and_then(|place| place.label.clone());
        unreadable(place.map_or(0, |place| place.loc.start), error.message, error.help.or(expected));
    }
}

fn refuse_template(page: &Page<'_>, statement: &Statement<'_>, template: &Template, findings: &mut Findings) {
    for slot in template.slots() {
        let slot = slot.to_string();
        let offset = page.source.find(statement, &slot).unwrap_or(statement.start);
        let message = format!("the policy is a template: it has the slot `{slot}`");
        let hint = Some("name the entity in the policy; many callers are granted by `resource.grants`".to_owned());
        findings.add(
            page,
            offset,
            Finding { severity: Severity::Mistake, policy: template.annotation(ID), message, hint },
        );
    }
}

/// Checks the annotations, and gives the draft the id it asks for.
fn annotated<'a>(draft: Draft<'a>, findings: &mut Findings) -> Draft<'a> {
    for (name, value) in draft.policy.annotations() {
        let problem = match name {
            ID => check_text(ID, value, LONGEST_ID, is_plain)
                .err()
                .map(|message| (message, format!("an id is 1 to {LONGEST_ID} printable ASCII characters"))),
            ADVICE => check_text(ADVICE, value, LONGEST_ADVICE, |c| !c.is_control())
                .err()
                .map(|message| (message, "advice is one line that a caller may read".to_owned())),
            DRY_RUN => (!value.is_empty()).then(|| {
                let hint = "write `@dry_run`, or take it away to put the policy in force".to_owned();
                (format!("`@dry_run` takes no value, and this one has `{}`", value.escape_default()), hint)
            }),
            other => {
                let meant: Vec<_> =
                    similar(other, [ID, ADVICE, DRY_RUN]).iter().map(|name| format!("@{name}")).collect();
                let message = || format!("annotation `@{other}` means nothing here");
                (!meant.is_empty()).then(|| (message(), format!("did you mean {}?", listed(&meant, usize::MAX))))
            }
        };
        if let Some((message, hint)) = problem {
            draft.mistake(findings, draft.offset_of(&format!("@{name}")), message, Some(hint));
        }
    }
    let asked = draft.policy.annotation(ID).filter(|id| check_text(ID, id, LONGEST_ID, is_plain).is_ok());
    let id = asked.map(str::to_owned);
    Draft { id: id.unwrap_or_else(|| draft.id.clone()), ..draft }
}

fn is_plain(letter: char) -> bool {
    letter == ' ' || letter.is_ascii_graphic()
}

fn check_text(what: &str, text: &str, longest: usize, printable: fn(char) -> bool) -> Result<(), String> {
    if text.is_empty() {
        return Err(format!("the {what} is empty"));
    }
    if text.chars().count() > longest {
        return Err(format!("the {what} is longer than {longest} characters"));
    }
    if text.trim() != text {
        return Err(format!("the {what} begins or ends with a space"));
    }
    match text.chars().find(|c| !printable(*c)) {
        Some(letter) => Err(format!("the {what} has the unprintable character `{}`", letter.escape_default())),
        None => Ok(()),
    }
}

/// An id names one policy in all files: verdicts are explained by it.
pub(super) fn check_unique(drafts: &[Draft<'_>], findings: &mut Findings) {
    let mut first: BTreeMap<&str, &Draft<'_>> = BTreeMap::new();
    for draft in drafts {
        let Some(other) = first.get(draft.id.as_str()) else {
            first.insert(&draft.id, draft);
            continue;
        };
        let line = other.page.source.position(other.statement.start).line;
        let message = format!("the id is taken by the policy at {}:{line}", other.page.name);
        draft.mistake(findings, draft.offset_of("@id"), message, Some("give each policy its own `@id`".to_owned()));
    }
}
