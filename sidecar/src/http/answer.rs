//! What an HTTP answer means: the result of the function, or nonsense.

use std::ops::RangeInclusive;

use http::HeaderMap;
use portcullis_value::json::JsonError;
use portcullis_value::{Limits, Value};

use body::ReceivedBody;
pub(crate) use part::{Part, PartForm, UnknownFields};

mod body;
mod part;

pub use part::ERROR_TEXT_BYTES;

/// How the answers to one route are read.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    /// Statuses that mean success.
    pub(crate) ok: Statuses,
    /// Statuses that mean success with `none`.
    pub(crate) none: Statuses,
    /// What means an `err`, the first that matches.
    pub(crate) errors: Vec<Rule>,
    /// What selects a case of the successful result, the first that matches.
    pub(crate) cases: Vec<Rule>,
    pub(crate) shape: Shape,
    /// Where the successful result is; `None` where it has no value.
    pub(crate) success: Option<Part>,
    /// What a 4xx or 5xx without a rule means.
    pub(crate) failure: Failure,
    pub(crate) unknown: UnknownFields,
}

/// A set of statuses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Statuses(pub(crate) Vec<RangeInclusive<u16>>);

impl Statuses {
    pub(crate) fn contains(&self, status: u16) -> bool {
        self.0.iter().any(|range| range.contains(&status))
    }
}

/// What the function returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// Nothing at all.
    Nothing,
    /// A value that is not a `result`.
    Plain,
    /// A `result`.
    Result,
}

/// What a 4xx or 5xx without a rule means.
#[derive(Clone, Debug)]
pub(crate) enum Failure {
    /// The WIT has no place for it.
    Nonsense,
    /// `err` without a payload.
    Unit,
    /// `err` with what the body says.
    Part(Part),
}

/// A condition and what follows from it.
#[derive(Clone, Debug)]
pub(crate) struct Rule {
    pub(crate) scope: Scope,
    pub(crate) condition: Option<Condition>,
    pub(crate) outcome: Outcome,
}

/// The statuses a rule applies to. A redirection is never among them unless it is named.
#[derive(Clone, Debug)]
pub(crate) enum Scope {
    /// Those the rule names.
    Named(Statuses),
    /// Those that mean success.
    Success,
    /// 4xx and 5xx that do not mean success.
    Failure,
    /// Every status but 3xx.
    Any,
}

/// What the JSON of the body must hold.
#[derive(Clone, Debug)]
pub(crate) struct Condition {
    /// RFC 6901.
    pub(crate) pointer: String,
    /// What must stand there; `None` for anything but `null`.
    pub(crate) equals: Option<serde_json::Value>,
}

/// The value that a rule makes.
#[derive(Clone, Debug)]
pub(crate) enum Outcome {
    /// No payload: a `result` arm without a type.
    Unit,
    /// The payload is read from the body.
    Whole(Part),
    /// A case of a variant and its payload.
    Variant(u32, Option<Part>),
    /// A case of an enum.
    Enum(u32),
    /// A truth value.
    Bool(bool),
}

/// An answer that has no meaning under the route.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UpstreamNonsense {
    /// The status is neither a success nor anything a rule or the WIT has a place for.
    #[error("the status {0} has no meaning in the mapping")]
    Status(u16),
    /// Redirections are never followed.
    #[error("the status {0} is a redirection, which is never followed")]
    Redirection(u16),
    /// A content coding was not asked for and cannot be read (RFC 9110 §8.4).
    #[error("the body has the content coding `{0}`")]
    Encoded(String),
    /// The body, or a part of it, is not UTF-8.
    #[error("the body is not UTF-8")]
    NotUtf8,
    /// The body is not JSON, or not the JSON of the WIT type.
    #[error("the body{}: {error}", of_part(part))]
    Json {
        /// The JSON pointer (RFC 6901) of the part that was read; empty for the whole body.
        part: String,
        /// What is wrong in that part.
        error: JsonError,
    },
    /// The part that the mapping selects is not there.
    #[error("the body has nothing at `{0}`")]
    MissingPart(String),
    /// The connection ended or broke inside the answer, or the answer is not HTTP.
    #[error("not an HTTP answer: {0}")]
    Protocol(String),
}

fn of_part(part: &str) -> String {
    if part.is_empty() {
        String::new()
    } else {
        format!(" at `{part}`")
    }
}

impl Answer {
    /// The result that an answer stands for.
    pub(crate) fn read(
        &self,
        status: u16,
        headers: &HeaderMap,
        body: &[u8],
        limits: &Limits,
    ) -> Result<Option<Value>, UpstreamNonsense> {
        let mut body = ReceivedBody::new(status, headers, body, limits);
        if let Some(rule) = self.errors.iter().find(|rule| self.applies(rule, &mut body)) {
            let payload = self.outcome(&rule.outcome, body)?;
            return Ok(Some(Value::Result(Err(payload.map(Box::new)))));
        }
        if let Some(rule) = self.cases.iter().find(|rule| self.applies(rule, &mut body)) {
            let payload = self.outcome(&rule.outcome, body)?;
            return Ok(self.succeed(payload));
        }
        if self.none.contains(status) {
            return Ok(self.succeed(Some(Value::none())));
        }
        if self.ok.contains(status) {
            let payload = self
                .success
                .as_ref()
                .map(|part| part.read(body, self.unknown))
                .transpose()?;
            return Ok(self.succeed(payload));
        }
        if (300..400).contains(&status) {
            return Err(UpstreamNonsense::Redirection(status));
        }
        let payload = match &self.failure {
            Failure::Part(part) if status >= 400 => Some(Box::new(part.read(body, self.unknown)?)),
            Failure::Unit if status >= 400 => None,
            Failure::Part(_) | Failure::Unit | Failure::Nonsense => return Err(UpstreamNonsense::Status(status)),
        };
        Ok(Some(Value::Result(Err(payload))))
    }

    fn succeed(&self, payload: Option<Value>) -> Option<Value> {
        match self.shape {
            Shape::Nothing => None,
            Shape::Plain => payload,
            Shape::Result => Some(Value::Result(Ok(payload.map(Box::new)))),
        }
    }

    fn applies(&self, rule: &Rule, body: &mut ReceivedBody<'_>) -> bool {
        let status = body.status();
        let success = self.ok.contains(status) || self.none.contains(status);
        let in_scope = match &rule.scope {
            Scope::Named(statuses) => statuses.contains(status),
            Scope::Success => success,
            Scope::Failure => status >= 400 && !success,
            Scope::Any => !(300..400).contains(&status),
        };
        in_scope && rule.condition.as_ref().is_none_or(|condition| condition.holds(body))
    }

    fn outcome(&self, outcome: &Outcome, body: ReceivedBody<'_>) -> Result<Option<Value>, UpstreamNonsense> {
        Ok(match outcome {
            Outcome::Unit => None,
            Outcome::Whole(part) => Some(part.read(body, self.unknown)?),
            Outcome::Variant(case, payload) => {
                let payload = payload.as_ref().map(|part| part.read(body, self.unknown)).transpose()?;
                Some(Value::Variant(*case, payload.map(Box::new)))
            }
            Outcome::Enum(case) => Some(Value::Enum(*case)),
            Outcome::Bool(value) => Some(Value::Bool(*value)),
        })
    }
}

impl Condition {
    /// Whether the body is JSON and holds what is asked for. A body that is not JSON holds nothing.
    fn holds(&self, body: &mut ReceivedBody<'_>) -> bool {
        let found = body.json().ok().and_then(|tree| tree.pointer(&self.pointer));
        match (&self.equals, found) {
            (Some(expected), Some(found)) => expected == found,
            (None, Some(found)) => !found.is_null(),
            (Some(_) | None, None) => false,
        }
    }
}
