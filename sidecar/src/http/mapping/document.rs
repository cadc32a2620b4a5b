//! The mapping file as it is written: TOML tables read into entries, every mistake of form noted on the way.
//!
//! The file is walked by hand instead of by serde, because serde stops at the first mistake and an operator wants all of them.

use std::collections::BTreeMap;

use portcullis_value::json::Int64;
use toml::de::{DeTable, DeValue};

use super::naming::Spelling;
use super::problem::{Located, Problems};
use super::table::TableReader;
use crate::http::answer::UnknownFields;
use crate::http::route::target::Slashes;

/// A whole file.
#[derive(Debug, Default)]
pub(super) struct Document {
    pub(super) style: StyleEntry,
    /// Functions that are not served at all.
    pub(super) unserved: Vec<Located<String>>,
    pub(super) routes: Vec<RouteEntry>,
}

/// What a file and a route can both set.
#[derive(Clone, Debug, Default)]
pub(super) struct StyleEntry {
    pub(super) int64: Option<Int64>,
    pub(super) unknown_fields: Option<UnknownFields>,
    pub(super) field_names: Option<Spelling>,
    pub(super) case_names: Option<Spelling>,
    pub(super) slashes: Option<Slashes>,
    pub(super) rename: BTreeMap<String, String>,
}

/// One `[[route]]`.
#[derive(Debug, Default)]
pub(super) struct RouteEntry {
    pub(super) line: usize,
    pub(super) function: Option<Located<String>>,
    pub(super) request: RequestEntry,
    pub(super) answer: AnswerEntry,
    pub(super) style: StyleEntry,
}

/// The keys of a route that say what is sent.
#[derive(Debug, Default)]
pub(super) struct RequestEntry {
    pub(super) method: Option<Located<String>>,
    pub(super) path: Option<Located<String>>,
    pub(super) query: Vec<(Located<String>, Located<String>)>,
    pub(super) headers: Vec<(Located<String>, Located<String>)>,
    pub(super) body: Option<Located<BodyEntry>>,
    pub(super) body_as: Option<Located<BodyForm>>,
    pub(super) content_type: Option<Located<String>>,
    pub(super) ignore: Vec<Located<String>>,
}

/// `body = "param"`, `body = "*"` or `body = ["param", ..]`.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum BodyEntry {
    One(String),
    Rest,
    Object(Vec<Located<String>>),
}

/// `body_as`: how a body is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BodyForm {
    Json,
    Form,
    Text,
    Bytes,
}

/// `result_as` and `value_as`: how a part of the answer is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reading {
    Json,
    Text,
    Bytes,
}

impl BodyForm {
    const WORDS: [(&'static str, Self); 4] =
        [("json", Self::Json), ("form", Self::Form), ("text", Self::Text), ("bytes", Self::Bytes)];
}

impl Reading {
    const WORDS: [(&'static str, Self); 3] = [("json", Self::Json), ("text", Self::Text), ("bytes", Self::Bytes)];
}

/// The keys of a route that say how the answer is read.
#[derive(Debug, Default)]
pub(super) struct AnswerEntry {
    pub(super) ok: Option<Located<Vec<StatusEntry>>>,
    pub(super) none: Option<Located<Vec<StatusEntry>>>,
    pub(super) result: Option<Located<String>>,
    pub(super) result_as: Option<Located<Reading>>,
    pub(super) errors: Vec<RuleEntry>,
    pub(super) cases: Vec<RuleEntry>,
}

/// A status as it is written: `404` or `"4xx"`, as the range it stands for.
pub(super) type StatusEntry = std::ops::RangeInclusive<u16>;

/// One element of `errors` or `cases`.
#[derive(Debug)]
pub(super) struct RuleEntry {
    pub(super) line: usize,
    pub(super) status: Option<Located<Vec<StatusEntry>>>,
    pub(super) pointer: Option<Located<String>>,
    pub(super) equals: Option<Located<serde_json::Value>>,
    pub(super) arm: Option<Located<String>>,
    pub(super) value: Option<Located<String>>,
    pub(super) value_as: Option<Located<Reading>>,
}

impl Document {
    /// Reads the text. Where it is not TOML at all, the syntax errors are the problems and nothing else is looked at.
    pub(super) fn read(text: &str, problems: &mut Problems) -> Self {
        let (root, errors) = DeTable::parse_recoverable(text);
        if !errors.is_empty() {
            for error in errors {
                let line = error.span().map(|span| problems.line(&span));
                problems.report(line, format!("not TOML: {}", error.message()));
            }
            return Self::default();
        }
        let mut table = TableReader::new(root.get_ref(), problems);
        let style = StyleEntry::read(&mut table);
        let unserved = table.string_list("unserved");
        let routes = table.tables("route");
        let routes = routes.into_iter().map(|(route, line)| RouteEntry::read(route, line, table.problems)).collect();
        table.finish();
        Self { style, unserved, routes }
    }
}

impl StyleEntry {
    fn read(table: &mut TableReader<'_, '_>) -> Self {
        let int64 = table.word("int64", &[("number", Int64::Number), ("string", Int64::String)]);
        let unknown =
            table.word("unknown_fields", &[("refuse", UnknownFields::Refuse), ("ignore", UnknownFields::Ignore)]);
        let slashes = table.word("slashes", &[("encode", Slashes::Encode), ("refuse", Slashes::Refuse)]);
        Self {
            int64: int64.map(|word| word.value),
            unknown_fields: unknown.map(|word| word.value),
            field_names: table.word("field_names", &Spelling::NAMES).map(|word| word.value),
            case_names: table.word("case_names", &Spelling::NAMES).map(|word| word.value),
            slashes: slashes.map(|word| word.value),
            rename: table.strings("rename").into_iter().map(|(name, to)| (name.value, to.value)).collect(),
        }
    }
}

impl RouteEntry {
    fn read(route: &DeTable<'_>, line: usize, problems: &mut Problems) -> Self {
        let mut table = TableReader::new(route, problems);
        let function = table.string("function");
        let request = RequestEntry::read(&mut table);
        let answer = AnswerEntry::read(&mut table);
        let style = StyleEntry::read(&mut table);
        table.finish();
        Self { line, function, request, answer, style }
    }
}

impl RequestEntry {
    fn read(table: &mut TableReader<'_, '_>) -> Self {
        Self {
            method: table.string("method"),
            path: table.string("path"),
            query: table.strings("query"),
            headers: table.strings("headers"),
            body: body(table),
            body_as: table.word("body_as", &BodyForm::WORDS),
            content_type: table.string("content_type"),
            ignore: table.string_list("ignore"),
        }
    }

    /// Whether the route leaves the request as the default mapping has it.
    pub(super) fn is_default(&self) -> bool {
        let Self { method, path, query, headers, body, body_as, content_type, ignore } = self;
        let untouched = [method, path, content_type].into_iter().all(Option::is_none);
        untouched && body.is_none() && body_as.is_none() && query.is_empty() && headers.is_empty() && ignore.is_empty()
    }
}

fn body(table: &mut TableReader<'_, '_>) -> Option<Located<BodyEntry>> {
    let written = table.take("body")?;
    let line = table.problems.line(&written.span());
    let value = match written.get_ref() {
        DeValue::String(name) if name == "*" => BodyEntry::Rest,
        DeValue::String(name) => BodyEntry::One(name.clone().into_owned()),
        DeValue::Array(_) => BodyEntry::Object(table.string_list("body")),
        DeValue::Integer(_) | DeValue::Float(_) | DeValue::Boolean(_) | DeValue::Datetime(_) | DeValue::Table(_) => {
            table.problems.report_with_hint(
                line,
                format!("`body` cannot be of type {}", written.get_ref().type_str()),
                "the name of a parameter, a list of names, or `*` for every parameter that is used nowhere else",
            );
            return None;
        }
    };
    Some(Located { value, line })
}

impl AnswerEntry {
    fn read(table: &mut TableReader<'_, '_>) -> Self {
        Self {
            ok: statuses(table, "ok"),
            none: statuses(table, "none"),
            result: table.string("result"),
            result_as: table.word("result_as", &Reading::WORDS),
            errors: rules(table, "errors"),
            cases: rules(table, "cases"),
        }
    }
}

fn rules(table: &mut TableReader<'_, '_>, key: &'static str) -> Vec<RuleEntry> {
    let rules = table.tables(key);
    rules.into_iter().map(|(rule, line)| RuleEntry::read(rule, line, table.problems)).collect()
}

impl RuleEntry {
    fn read(rule: &DeTable<'_>, line: usize, problems: &mut Problems) -> Self {
        let mut table = TableReader::new(rule, problems);
        let entry = Self {
            line,
            status: statuses(&mut table, "status"),
            pointer: table.string("pointer"),
            equals: scalar(&mut table, "equals"),
            arm: table.string("arm"),
            value: table.string("value"),
            value_as: table.word("value_as", &Reading::WORDS),
        };
        table.finish();
        entry
    }
}

/// Reads a status, a class of statuses or a list of both.
fn statuses(table: &mut TableReader<'_, '_>, key: &'static str) -> Option<Located<Vec<StatusEntry>>> {
    let written = table.take(key)?;
    let line = table.problems.line(&written.span());
    let elements = match written.get_ref().as_array() {
        Some(array) => array.iter().collect(),
        None => vec![written],
    };
    let mut ranges = Vec::with_capacity(elements.len());
    for element in elements {
        match status_range(element.get_ref()) {
            Some(range) => ranges.push(range),
            None => {
                let line = table.problems.line(&element.span());
                table.problems.report_with_hint(
                    line,
                    format!("`{key}` must be made of HTTP statuses from 200 to 599"),
                    "a number such as 404, a class such as \"4xx\", or a list of them",
                );
            }
        }
    }
    Some(Located { value: ranges, line })
}

fn status_range(value: &DeValue<'_>) -> Option<StatusEntry> {
    if let Some(integer) = value.as_integer() {
        let status = u16::from_str_radix(integer.as_str(), integer.radix()).ok()?;
        return (200..=599).contains(&status).then_some(status..=status);
    }
    match value.as_str()? {
        "2xx" => Some(200..=299),
        "3xx" => Some(300..=399),
        "4xx" => Some(400..=499),
        "5xx" => Some(500..=599),
        _ => None,
    }
}

/// Reads what a JSON value is compared with.
fn scalar(table: &mut TableReader<'_, '_>, key: &'static str) -> Option<Located<serde_json::Value>> {
    let written = table.take(key)?;
    let line = table.problems.line(&written.span());
    let value = match written.get_ref() {
        DeValue::String(text) => Some(serde_json::Value::from(text.as_ref())),
        DeValue::Boolean(value) => Some(serde_json::Value::from(*value)),
        DeValue::Integer(integer) => i64::from_str_radix(integer.as_str(), integer.radix()).ok().map(Into::into),
        DeValue::Float(float) => float.as_str().parse::<f64>().ok().map(Into::into),
        DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => None,
    };
    if value.is_none() {
        table.problems.report(line, format!("`{key}` must be a string, a number or a boolean"));
    }
    value.map(|value| Located { value, line })
}
