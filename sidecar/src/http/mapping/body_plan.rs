//! The body of a route.

use std::collections::HashSet;

use http::{HeaderValue, Method};
use portcullis_value::Type;

use super::compiler::Compiler;
use super::document::{BodyEntry, BodyForm, RequestEntry};
use super::path::SCALARS;
use super::problem::Located;
use crate::http::route::body::{BodyPlan, Member};
use crate::http::route::slot::{Presence, Slot};
use crate::http::route::target::{Pair, PairValue};
use crate::http::route::text::{Form, encoded};

impl BodyForm {
    const fn content_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Form => "application/x-www-form-urlencoded",
            Self::Text => "text/plain; charset=utf-8",
            Self::Bytes => "application/octet-stream",
        }
    }
}

/// Compiles the body, and the content type that goes with it.
pub(super) fn compile(
    method: &Method,
    entry: &RequestEntry,
    compiler: &mut Compiler<'_, '_>,
) -> (BodyPlan, Option<HeaderValue>) {
    let form = entry.body_as.as_ref().map_or(BodyForm::Json, |form| form.value);
    let content_type = content_type(entry.content_type.as_ref(), form, compiler);
    let line = entry.body.as_ref().map(|body| body.line).or(compiler.line);
    if entry.body.is_some() && [Method::GET, Method::HEAD].contains(method) {
        compiler.report(line, format!("a {method} request has no body"));
        return (BodyPlan::Nothing, None);
    }
    let has_body = [Method::POST, Method::PUT, Method::PATCH].contains(method);
    let plan = match entry.body.as_ref().map(|body| &body.value) {
        Some(BodyEntry::One(name)) => {
            let name = Located { value: name.clone(), line: line.unwrap_or_default() };
            whole(&name, compiler).map(|slot| one(slot, form, (line, compiler)))
        }
        Some(BodyEntry::Object(names)) => {
            let slots = names.iter().filter_map(|name| whole(name, compiler)).collect();
            Some(several(slots, form, (line, compiler)))
        }
        Some(BodyEntry::Rest) => Some(several(compiler.params.take_rest(), form, (line, compiler))),
        None if has_body && (compiler.params.has_rest() || entry.is_default()) => {
            Some(several(compiler.params.take_rest(), form, (line, compiler)))
        }
        None => {
            let lines = [entry.body_as.as_ref().map(|form| form.line), entry.content_type.as_ref().map(|ty| ty.line)];
            for line in lines.into_iter().flatten() {
                compiler.report(line, "the request has no body that this could describe");
            }
            None
        }
    };
    (plan.unwrap_or(BodyPlan::Nothing), content_type)
}

fn content_type(
    written: Option<&Located<String>>,
    form: BodyForm,
    compiler: &mut Compiler<'_, '_>,
) -> Option<HeaderValue> {
    let Some(written) = written else {
        return Some(HeaderValue::from_static(form.content_type()));
    };
    let proper = written.value.contains('/') && written.value.bytes().all(|byte| matches!(byte, b' '..=b'~'));
    let value = HeaderValue::from_str(&written.value).ok().filter(|_| proper);
    if value.is_none() {
        compiler.report(written.line, format!("`{}` is not a content type", written.value));
    }
    value
}

/// A whole parameter: a body does not reach into records.
fn whole(name: &Located<String>, compiler: &mut Compiler<'_, '_>) -> Option<Slot> {
    if name.value.contains('.') {
        compiler.report(name.line, format!("`body` cannot be `{}`: it is made of whole parameters", name.value));
        return None;
    }
    compiler.take(name)
}

/// The body made of one parameter.
fn one(slot: Slot, form: BodyForm, (line, compiler): (Option<usize>, &mut Compiler<'_, '_>)) -> BodyPlan {
    let wanted = match form {
        BodyForm::Json => return BodyPlan::Json(slot),
        BodyForm::Form => return fields(&slot, (line, compiler)),
        BodyForm::Text if Form::of(slot.inner()) == Some(Form::Scalar) => return BodyPlan::Text(slot),
        BodyForm::Bytes if *slot.inner() == Type::Bytes => return BodyPlan::Bytes(slot),
        BodyForm::Text => "a scalar",
        BodyForm::Bytes => "list<u8>",
    };
    let (label, ty) = (&slot.label, &slot.ty);
    let message = format!("parameter `{label}` cannot be the body: it must be {wanted} or an option of it, not `{ty}`");
    compiler.report(line, message);
    BodyPlan::Nothing
}

/// The form made of the fields of one record.
fn fields(slot: &Slot, (line, compiler): (Option<usize>, &mut Compiler<'_, '_>)) -> BodyPlan {
    let Type::Record(record) = slot.inner() else {
        let message = format!("parameter `{}` cannot be a form: it must be a record, not `{}`", slot.label, slot.ty);
        let hint = "write body = [\"name\", ..] to make a form of several parameters";
        compiler.report_with_hint(line, message, hint);
        return BodyPlan::Nothing;
    };
    let wit_names = compiler.params.field_names(slot);
    let pairs = record.fields.iter().zip(wit_names).enumerate().filter_map(|(position, ((name, ty), wit_name))| {
        let label = format!("{}.{wit_name}", slot.label);
        let fields = vec![position];
        let field = Slot { label, param: slot.param, fields, ty: ty.clone(), presence: Presence::Optional };
        pair(name, field, (line, &mut *compiler))
    });
    BodyPlan::Form(pairs.collect())
}

/// The body made of several parameters under the service's names.
fn several(slots: Vec<Slot>, form: BodyForm, (line, compiler): (Option<usize>, &mut Compiler<'_, '_>)) -> BodyPlan {
    let mut names = HashSet::new();
    let mut named = Vec::with_capacity(slots.len());
    for slot in slots {
        let name = compiler.params.service_name(&slot);
        if !names.insert(name.clone()) {
            compiler.report(line, format!("two members of the body would both be called `{name}`"));
        }
        named.push((name, slot));
    }
    match form {
        BodyForm::Json => {
            let members = named.into_iter().map(|(name, slot)| {
                let key = format!("{}:", serde_json::Value::from(name));
                Member { key, slot }
            });
            BodyPlan::Object(members.collect())
        }
        BodyForm::Form => {
            let pairs = named.into_iter().filter_map(|(name, slot)| pair(&name, slot, (line, &mut *compiler)));
            BodyPlan::Form(pairs.collect())
        }
        BodyForm::Text | BodyForm::Bytes => {
            let message = "a body of text or bytes is made of exactly one parameter";
            compiler.report_with_hint(line, message, "write body = \"name\"");
            BodyPlan::Nothing
        }
    }
}

fn pair(name: &str, slot: Slot, (line, compiler): (Option<usize>, &mut Compiler<'_, '_>)) -> Option<Pair> {
    let Some(form) = Form::of(slot.inner()) else {
        compiler.report_with_hint(
            line,
            format!("parameter `{}` cannot be a field of a form: its type is `{}`", slot.label, slot.ty),
            format!("a form field is a scalar, a list of scalars or flags, or an option of these; {SCALARS}"),
        );
        return None;
    };
    let value = PairValue::Slot { slot, form, prefix: String::new(), suffix: String::new() };
    Some(Pair { name: name.to_owned(), key: encoded(name) + "=", value })
}
