//! The answer side of a route: what the file says, checked against the WIT.

use http::Method;
use portcullis_value::{Type, Variant};

use super::compiler::Compiler;
use super::document::{AnswerEntry, Reading, RuleEntry, StatusEntry};
use super::problem::Located;
use crate::http::answer::{
    Answer, Condition, Failure, Outcome, Part, PartForm, Rule, Scope, Shape, Statuses, UnknownFields,
};

/// The result of a function, opened once: what success holds and what failure holds.
#[derive(Debug)]
pub(super) struct ResultTypes<'f> {
    shape: Shape,
    ok: Option<TypePair<'f>>,
    err: Option<TypePair<'f>>,
}

/// One type with the names of the WIT, in which the operator writes, and with those of the service, in which it answers.
#[derive(Clone, Copy, Debug)]
struct TypePair<'f> {
    wit: &'f Type,
    service: &'f Type,
}

impl<'f> ResultTypes<'f> {
    pub(super) fn new(wit: Option<&'f Type>, service: Option<&'f Type>) -> Self {
        let (Some(wit), Some(service)) = (wit, service) else {
            return Self { shape: Shape::Nothing, ok: None, err: None };
        };
        let (Type::Result(wit), Type::Result(service)) = (wit, service) else {
            return Self { shape: Shape::Plain, ok: Some(TypePair { wit, service }), err: None };
        };
        let pair = |(wit, service)| TypePair { wit, service };
        let ok = wit.ok.as_ref().zip(service.ok.as_ref()).map(pair);
        let err = wit.err.as_ref().zip(service.err.as_ref()).map(pair);
        Self { shape: Shape::Result, ok, err }
    }
}

/// Compiles the answer side.
pub(super) fn compile(
    entry: &AnswerEntry,
    result: &ResultTypes<'_>,
    (unknown, method): (UnknownFields, &Method),
    compiler: &mut Compiler<'_, '_>,
) -> Answer {
    let success = success(entry, result, compiler);
    if *method == Method::HEAD && success.is_some() && entry.cases.is_empty() {
        let hint = "select the result by status: cases = [{ status = 200, arm = \"true\" }, ..]";
        compiler.report_with_hint(compiler.line, "the answer to HEAD has no body to read the result from", hint);
    }
    if let Some(none) = &entry.none
        && !result.ok.is_some_and(|ok| ok.wit.is_option())
    {
        compiler.report(none.line, "`none` needs a function that returns an option");
    }
    Answer {
        ok: entry.ok.as_ref().map_or_else(|| Statuses(vec![200..=299]), statuses),
        none: entry.none.as_ref().map(statuses).unwrap_or_default(),
        errors: entry
            .errors
            .iter()
            .filter_map(|rule| error(rule, entry.ok.as_ref(), (result, &mut *compiler)))
            .collect(),
        cases: entry.cases.iter().filter_map(|rule| case(rule, result, compiler)).collect(),
        shape: result.shape,
        success,
        failure: failure(result),
        unknown,
    }
}

fn statuses(written: &Located<Vec<StatusEntry>>) -> Statuses {
    Statuses(written.value.clone())
}

fn success(entry: &AnswerEntry, result: &ResultTypes<'_>, compiler: &mut Compiler<'_, '_>) -> Option<Part> {
    let part = PartEntry { pointer: entry.result.as_ref(), form: ("result_as", entry.result_as.as_ref()) };
    let Some(ok) = result.ok else {
        part.refuse("the function has no successful result that this could describe", compiler);
        return None;
    };
    part.compile(ok.service, Audience::Program, compiler)
}

/// What a 4xx or 5xx without a rule means: the `err` arm, where there is one.
fn failure(result: &ResultTypes<'_>) -> Failure {
    match (result.shape, result.err) {
        (Shape::Nothing | Shape::Plain, _) => Failure::Nonsense,
        (Shape::Result, None) => Failure::Unit,
        (Shape::Result, Some(err)) => {
            let form = if *err.service == Type::String { PartForm::ErrorText } else { PartForm::Json };
            Failure::Part(Part { pointer: String::new(), form, ty: err.service.clone() })
        }
    }
}

/// Compiles one element of `errors`.
fn error(
    entry: &RuleEntry,
    ok: Option<&Located<Vec<StatusEntry>>>,
    (result, compiler): (&ResultTypes<'_>, &mut Compiler<'_, '_>),
) -> Option<Rule> {
    if result.shape != Shape::Result {
        let message = "`errors` needs a function that returns a `result`";
        compiler.report_with_hint(entry.line, message, "write `cases` to select a case of a variant, enum or bool");
        return None;
    }
    let condition = condition(entry, compiler);
    let scope = match &entry.status {
        Some(status) => {
            let overlap = |error: &StatusEntry| {
                ok.into_iter().flat_map(|ok| &ok.value).any(|ok| error.start() <= ok.end() && ok.start() <= error.end())
            };
            if condition.is_none() && status.value.iter().any(overlap) {
                compiler.report(status.line, "a status is listed in `ok` and is an error without a condition");
            }
            Scope::Named(statuses(status))
        }
        None if condition.is_some() => Scope::Any,
        None => Scope::Failure,
    };
    let outcome = match (&entry.arm, result.err) {
        (Some(arm), Some(err)) => select(arm, (entry, err), Audience::People, compiler)?,
        (Some(arm), None) => {
            compiler.report(arm.line, "the `err` arm of the function has no cases");
            return None;
        }
        (None, Some(err)) => Outcome::Whole(PartEntry::of(entry).compile(err.service, Audience::People, compiler)?),
        (None, None) => {
            PartEntry::of(entry).refuse("the `err` arm of the function has no value", compiler);
            Outcome::Unit
        }
    };
    Some(Rule { scope, condition, outcome })
}

/// Compiles one element of `cases`.
fn case(entry: &RuleEntry, result: &ResultTypes<'_>, compiler: &mut Compiler<'_, '_>) -> Option<Rule> {
    let condition = condition(entry, compiler);
    let scope = entry.status.as_ref().map_or(Scope::Success, |status| Scope::Named(statuses(status)));
    let Some(arm) = &entry.arm else {
        compiler.report(entry.line, "an element of `cases` must name its `arm`");
        return None;
    };
    let Some(ok) = result.ok else {
        compiler.report(entry.line, "`cases` needs a function whose successful result is a variant, an enum or a bool");
        return None;
    };
    let outcome = select(arm, (entry, ok), Audience::Program, compiler)?;
    Some(Rule { scope, condition, outcome })
}

fn condition(entry: &RuleEntry, compiler: &mut Compiler<'_, '_>) -> Option<Condition> {
    match (&entry.pointer, &entry.equals) {
        (Some(pointer), equals) => Some(Condition {
            pointer: checked_pointer(pointer, compiler),
            equals: equals.as_ref().map(|equals| equals.value.clone()),
        }),
        (None, Some(equals)) => {
            compiler.report(equals.line, "`equals` needs a `pointer` that says what it is compared with");
            None
        }
        (None, None) => None,
    }
}

/// The case that `arm` names, with the payload that the rule reads.
fn select(
    arm: &Located<String>,
    (entry, ty): (&RuleEntry, TypePair<'_>),
    audience: Audience,
    compiler: &mut Compiler<'_, '_>,
) -> Option<Outcome> {
    let part = PartEntry::of(entry);
    let names: Vec<&str> = match (ty.wit, ty.service) {
        (Type::Variant(wit), Type::Variant(service)) => {
            if let Some(position) = wit.cases.iter().position(|(name, _)| *name == arm.value) {
                return variant(position, service, (part, audience), compiler);
            }
            wit.cases.iter().map(|(name, _)| name.as_str()).collect()
        }
        (Type::Enum(wit), _) => {
            if let Some(position) = wit.cases.iter().position(|name| *name == arm.value) {
                part.refuse("a case of an enum has no value", compiler);
                return u32::try_from(position).ok().map(Outcome::Enum);
            }
            wit.cases.iter().map(String::as_str).collect()
        }
        (Type::Bool, _) => {
            if let Ok(value) = arm.value.parse() {
                part.refuse("a bool has no further value", compiler);
                return Some(Outcome::Bool(value));
            }
            vec!["true", "false"]
        }
        (other, _) => {
            let hint = "only a variant, an enum and a bool have arms";
            compiler.report_with_hint(arm.line, format!("`{other}` has no arm `{}`", arm.value), hint);
            return None;
        }
    };
    compiler.report_with_hint(
        arm.line,
        format!("there is no arm `{}`", arm.value),
        format!("arms: {}", names.join(", ")),
    );
    None
}

fn variant(
    position: usize,
    service: &Variant,
    (part, audience): (PartEntry<'_>, Audience),
    compiler: &mut Compiler<'_, '_>,
) -> Option<Outcome> {
    let payload = match service.cases.get(position).and_then(|(_, payload)| payload.as_ref()) {
        Some(ty) => Some(part.compile(ty, audience, compiler)?),
        None => {
            part.refuse("this case has no value", compiler);
            None
        }
    };
    u32::try_from(position).ok().map(|position| Outcome::Variant(position, payload))
}

/// Whom a text is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Audience {
    /// It is a value and must arrive exactly.
    Program,
    /// It is a message about a failure.
    People,
}

/// The keys that say where a value is in the body.
#[derive(Clone, Copy, Debug)]
struct PartEntry<'e> {
    pointer: Option<&'e Located<String>>,
    form: (&'static str, Option<&'e Located<Reading>>),
}

impl<'e> PartEntry<'e> {
    fn of(rule: &'e RuleEntry) -> Self {
        Self { pointer: rule.value.as_ref(), form: ("value_as", rule.value_as.as_ref()) }
    }

    /// Reports the keys where there is nothing to read.
    fn refuse(self, reason: &str, compiler: &mut Compiler<'_, '_>) {
        let lines = [self.pointer.map(|pointer| pointer.line), self.form.1.map(|form| form.line)];
        for line in lines.into_iter().flatten() {
            compiler.report(line, reason);
        }
    }

    fn compile(self, ty: &Type, audience: Audience, compiler: &mut Compiler<'_, '_>) -> Option<Part> {
        let pointer = self.pointer.map(|pointer| checked_pointer(pointer, compiler)).unwrap_or_default();
        let text = match audience {
            Audience::People if pointer.is_empty() => PartForm::ErrorText,
            Audience::People | Audience::Program => PartForm::Text,
        };
        let (key, Some(written)) = self.form else {
            let message = *ty == Type::String && audience == Audience::People && pointer.is_empty();
            return Some(Part { pointer, form: if message { text } else { PartForm::Json }, ty: ty.clone() });
        };
        let inner = if let Type::Option(payload) = ty { payload.as_ref() } else { ty };
        let (form, mistake) = match written.value {
            Reading::Json => (PartForm::Json, None),
            Reading::Text => {
                (text, (*inner != Type::String).then_some("only a string, or an option of it, is read as text"))
            }
            Reading::Bytes if !pointer.is_empty() => {
                (PartForm::Bytes, Some("bytes are the whole body, not a part of it"))
            }
            Reading::Bytes => (
                PartForm::Bytes,
                (*inner != Type::Bytes).then_some("only list<u8>, or an option of it, is read as bytes"),
            ),
        };
        if let Some(reason) = mistake {
            compiler.report(written.line, format!("`{key}` does not fit `{ty}`: {reason}"));
            return None;
        }
        Some(Part { pointer, form, ty: ty.clone() })
    }
}

/// RFC 6901: empty, or segments that each begin with a slash, with `~0` and `~1` as the only escapes.
fn checked_pointer(written: &Located<String>, compiler: &mut Compiler<'_, '_>) -> String {
    let pointer = &written.value;
    let rooted = pointer.is_empty() || pointer.starts_with('/');
    let escaped = pointer.split('~').skip(1).all(|rest| rest.starts_with(['0', '1']));
    if !(rooted && escaped) {
        let message = format!("`{pointer}` is not a JSON pointer");
        compiler.report_with_hint(written.line, message, "such as \"/data/0/name\" (RFC 6901)");
    }
    pointer.clone()
}
