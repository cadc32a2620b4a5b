//! Policies as read: syntax, ids and annotations.

use std::collections::BTreeMap;

use cedar_policy::ffi::DetailedError;
use cedar_policy::{Policy, PolicyId, Template};

use super::{Finding, Findings, Page, Severity};
use crate::similar::{either, similar};
use crate::source::Statement;

/// In characters.
const LONGEST_ID: usize = 128;
/// In characters: advice is told to callers and logged.
const LONGEST_ADVICE: usize = 512;
/// In bytes: more is no policy that a person wrote, and deep nesting costs stack.
const LONGEST_POLICY: usize = 64 * 1024;

const ID: &str = "id";
const ADVICE: &str = "advice";
pub(crate) const DRY_RUN: &str = "dry_run";

/// A policy that could be read.
#[derive(Debug)]
pub(super) struct Draft<'a> {
    pub(super) page: Page<'a>,
    pub(super) statement: Statement<'a>,
    pub(super) id: String,
    pub(super) policy: Policy,
}

impl Draft<'_> {
    pub(super) fn mistake(&self, findings: &mut Findings, offset: usize, message: String, hint: Option<String>) {
        let finding = Finding {
            severity: Severity::Mistake,
            policy: Some(&self.id),
            message,
            hint,
        };
        findings.add(&self.page, offset, finding);
    }

    /// Where `token` stands in the policy, else where the policy begins.
    pub(super) fn offset_of(&self, token: &str) -> usize {
        self.page
            .source
            .find(&self.statement, token)
            .unwrap_or(self.statement.start)
    }
}

/// Reads a file's policies; those that cannot be read become mistakes.
pub(super) fn read<'a>(page: &Page<'a>, findings: &mut Findings) -> Vec<Draft<'a>> {
    let statements = page.source.statements().into_iter().enumerate();
    statements
        .filter_map(|(index, statement)| read_one(page, statement, index + 1, findings))
        .collect()
}

fn read_one<'a>(
    page: &Page<'a>,
    statement: Statement<'a>,
    number: usize,
    findings: &mut Findings,
) -> Option<Draft<'a>> {
    if statement.text.len() > LONGEST_POLICY {
        findings.mistake(
            page,
            None,
            statement.start,
            format!("a policy is longer than {LONGEST_POLICY} bytes"),
        );
        return None;
    }
    // A number no other policy has: ids may still turn out to be there twice.
    let provisional = PolicyId::new(format!("{}:{number}", page.index));
    match Policy::parse(Some(provisional), statement.text) {
        Ok(policy) => {
            let id = policy
                .annotation(ID)
                .map_or_else(|| format!("{}:{number}", page.name), str::to_owned);
            let draft = Draft {
                page: *page,
                statement,
                id,
                policy,
            };
            check_annotations(&draft, findings);
            Some(draft)
        }
        Err(errors) => {
            match Template::parse(None, statement.text) {
                Ok(template) => refuse_template(page, &statement, &template, findings),
                Err(_) => {
                    for error in errors.iter() {
                        let error = DetailedError::from(error);
                        let offset = error.source_locations.first().map_or(0, |label| label.loc.start);
                        let finding = Finding {
                            severity: Severity::Mistake,
                            policy: None,
                            message: error.message,
                            hint: error.help,
                        };
                        findings.add(page, statement.start + offset, finding);
                    }
                }
            }
            None
        }
    }
}

fn refuse_template(page: &Page<'_>, statement: &Statement<'_>, template: &Template, findings: &mut Findings) {
    for slot in template.slots() {
        let slot = slot.to_string();
        let offset = page.source.find(statement, &slot).unwrap_or(statement.start);
        let finding = Finding {
            severity: Severity::Mistake,
            policy: template.annotation(ID),
            message: format!("the policy is a template: it has the slot `{slot}`"),
            hint: Some("name the entity in the policy; many callers are granted with `resource.grants`".to_owned()),
        };
        findings.add(page, offset, finding);
    }
}

fn check_annotations(draft: &Draft<'_>, findings: &mut Findings) {
    if let Err(message) = check_text("id", &draft.id, LONGEST_ID, |c| c == ' ' || c.is_ascii_graphic()) {
        let hint = Some("an id is 1 to 128 printable ASCII characters".to_owned());
        draft.mistake(findings, draft.offset_of("@id"), message, hint);
    }
    for (name, value) in draft.policy.annotations() {
        let offset = draft.offset_of(&format!("@{name}"));
        match name {
            ID => {}
            ADVICE => {
                if let Err(message) = check_text("advice", value, LONGEST_ADVICE, |c| !c.is_control()) {
                    draft.mistake(
                        findings,
                        offset,
                        message,
                        Some("advice is one line that a caller may read".to_owned()),
                    );
                }
            }
            DRY_RUN if value.is_empty() => {}
            DRY_RUN => {
                let hint = Some("write `@dry_run`, or take it away to put the policy in force".to_owned());
                draft.mistake(
                    findings,
                    offset,
                    format!("`@dry_run` takes no value, and this one has `{value}`"),
                    hint,
                );
            }
            other => {
                let meant = similar(other, [ID, ADVICE, DRY_RUN]);
                if !meant.is_empty() {
                    let hint = Some(format!("did you mean {}?", either(&meant)));
                    draft.mistake(
                        findings,
                        offset,
                        format!("annotation `@{other}` means nothing here"),
                        hint,
                    );
                }
            }
        }
    }
}

fn check_text(what: &str, text: &str, longest: usize, printable: fn(char) -> bool) -> Result<(), String> {
    if text.is_empty() {
        return Err(format!("the {what} is empty"));
    }
    if text.chars().count() > longest {
        return Err(format!("the {what} is longer than {longest} characters"));
    }
    match text.chars().find(|c| !printable(*c)) {
        Some(letter) => Err(format!(
            "the {what} has the unprintable character `{}`",
            letter.escape_default()
        )),
        None => Ok(()),
    }
}

/// An id names one policy in all files: verdicts are explained by it.
pub(super) fn check_unique(drafts: &[Draft<'_>], findings: &mut Findings) {
    let mut first: BTreeMap<&str, &Draft<'_>> = BTreeMap::new();
    for draft in drafts {
        match first.get(draft.id.as_str()) {
            Some(other) => {
                let place = other.page.source.position(other.statement.start);
                let message = format!("the id is taken by the policy at {}:{}", other.page.name, place.line);
                draft.mistake(
                    findings,
                    draft.offset_of("@id"),
                    message,
                    Some("give each policy its own `@id`".to_owned()),
                );
            }
            None => {
                first.insert(&draft.id, draft);
            }
        }
    }
}
