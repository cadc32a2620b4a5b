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
    if part.is_empty() { String::new() } else { format!(" at `{part}`") }
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
            let payload = self.success.as_ref().map(|part| part.read(body, self.unknown)).transpose()?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::fixture::{route, string};

    type Read = Result<Option<Value>, UpstreamNonsense>;

    fn read(signature: &str, keys: &str, (status, body): (u16, &str)) -> Read {
        route(signature, keys).response(status, &HeaderMap::new(), body.as_bytes(), &Limits::default())
    }

    fn value(signature: &str, keys: &str, answer: (u16, &str)) -> Value {
        read(signature, keys, answer).unwrap().unwrap()
    }

    fn ok(payload: Option<Value>) -> Value {
        Value::Result(Ok(payload.map(Box::new)))
    }

    fn err(payload: Option<Value>) -> Value {
        Value::Result(Err(payload.map(Box::new)))
    }

    fn case(position: u32, payload: Option<Value>) -> Value {
        Value::Variant(position, payload.map(Box::new))
    }

    #[test]
    fn success_is_the_result_or_its_ok_arm() {
        assert_eq!(value("() -> u64", "", (200, "7")), Value::U64(7));
        assert_eq!(value("() -> u64", "", (299, "\"7\"")), Value::U64(7));
        assert_eq!(value("() -> result<u64, string>", "", (201, "7")), ok(Some(Value::U64(7))));
        assert_eq!(value("() -> result<_, string>", "", (204, "")), ok(None));
        assert_eq!(value("() -> result<_, string>", "", (200, "whatever")), ok(None));
        assert_eq!(read("()", "", (204, "")), Ok(None));
        assert_eq!(read("()", "", (200, "<html>")), Ok(None));
        assert_eq!(value("() -> option<u64>", "", (200, "null")), Value::none());
        assert_eq!(value("() -> option<u64>", "", (200, "7")), Value::some(Value::U64(7)));
        assert_eq!(value("() -> result<option<u64>, string>", "", (204, "")), ok(Some(Value::none())));
    }

    #[test]
    fn success_that_is_not_the_json_of_the_wit_is_nonsense() {
        for (signature, body) in [
            ("() -> u64", ""),
            ("() -> u64", "x"),
            ("() -> u64", "7 7"),
            ("() -> u64", "\"x\""),
            ("() -> u8", "256"),
            ("() -> line", r#"{"sku":"a"}"#),
            ("() -> line", r#"{"sku":"a","unit-price":1,"more":2}"#),
            ("() -> line", r#"{"sku":"a","unit-price":1,"unit-price":2}"#),
            ("() -> result<line, string>", "<html>"),
            ("() -> list<list<u8>>", "[[1], 2]"),
        ] {
            let read = read(signature, "", (200, body));
            assert!(matches!(read, Err(UpstreamNonsense::Json { .. })), "{body}: {read:?}");
        }
    }

    #[test]
    fn statuses_without_a_meaning_are_nonsense() {
        assert_eq!(read("() -> u64", "", (404, "7")), Err(UpstreamNonsense::Status(404)));
        assert_eq!(read("()", "", (500, "")), Err(UpstreamNonsense::Status(500)));
        assert_eq!(read("() -> u64", "ok = [201]", (200, "7")), Err(UpstreamNonsense::Status(200)));
        assert_eq!(read("() -> result<_, string>", "ok = [201]", (200, "7")), Err(UpstreamNonsense::Status(200)));
        assert_eq!(value("() -> u64", "ok = [404, '2xx']", (404, "7")), Value::U64(7));
    }

    #[test]
    fn a_redirection_is_nonsense_unless_it_is_named() {
        for signature in ["() -> u64", "() -> result<u64, string>", "() -> result<u64>"] {
            assert_eq!(read(signature, "", (302, "x")), Err(UpstreamNonsense::Redirection(302)), "{signature}");
        }
        let unnamed = "errors = [{}, { pointer = '/a' }]";
        let answer = (302, r#"{"a":1}"#);
        assert_eq!(read("() -> result<u64, string>", unnamed, answer), Err(UpstreamNonsense::Redirection(302)));
        let named = "errors = [{ status = 302, value = '/a', value_as = 'text' }]";
        assert_eq!(value("() -> result<u64, string>", named, answer), err(Some(string("1"))));
        assert_eq!(value("() -> bool", "cases = [{ status = '3xx', arm = 'false' }]", (304, "")), Value::Bool(false));
    }

    #[test]
    fn failure_is_the_err_arm_by_its_type() {
        let text = "() -> result<u64, string>";
        assert_eq!(value(text, "", (404, "no such invoice")), err(Some(string("no such invoice"))));
        assert_eq!(value(text, "", (503, " \n")), err(Some(string("HTTP status 503"))));
        assert_eq!(value("() -> result<u64>", "", (500, "x")), err(None));
        assert_eq!(value("() -> result<u64, u8>", "", (400, "3")), err(Some(Value::U8(3))));
        assert_eq!(value("() -> result<u64, failure>", "", (404, r#"{"tag":"busy"}"#)), err(Some(case(3, None))));
        assert_eq!(value("() -> result<u64, state>", "", (409, "\"paid\"")), err(Some(Value::Enum(2))));
        let page = read("() -> result<u64, failure>", "", (502, "<html>"));
        assert!(matches!(page, Err(UpstreamNonsense::Json { .. })), "{page:?}");
    }

    #[test]
    fn an_error_text_is_bounded_and_always_text() {
        let long = "é".repeat(ERROR_TEXT_BYTES);
        let Value::Result(Err(Some(text))) = value("() -> result<_, string>", "", (400, &long)) else { panic!() };
        let Value::String(text) = *text else { panic!() };
        assert!(text.len() <= ERROR_TEXT_BYTES && text.ends_with('…') && text.starts_with("éé"), "{}", text.len());
        assert!(!text.contains('\u{fffd}'), "{}", text.len());
        let route = route("() -> result<_, string>", "");
        let latin = route.response(400, &HeaderMap::new(), b"caf\xe9", &Limits::default());
        assert_eq!(latin, Ok(Some(err(Some(string("caf\u{fffd}"))))));
    }

    #[test]
    fn the_first_rule_that_matches_selects_the_arm() {
        let keys = "errors = [
            { status = 404, arm = 'not-found' },
            { pointer = '/error/code', equals = 'quota', arm = 'busy' },
            { pointer = '/error/code', equals = 7, arm = 'not-found' },
            { status = [409, 412], arm = 'conflict', value = '/current' },
            { status = '4xx', arm = 'rejected', value = '/error/message' },
            { arm = 'rejected' },
        ]";
        let signature = "() -> result<string, failure>";
        let current = r#"{"current":{"id":1,"customer-id":"c"}}"#;
        let invoice = Value::Record(vec![Value::U64(1), string("c"), Value::none()]);
        for (answer, expected) in [
            ((404, "<html>"), case(0, None)),
            ((200, r#"{"error":{"code":"quota"}}"#), case(3, None)),
            ((500, r#"{"error":{"code":7}}"#), case(0, None)),
            ((412, current), case(2, Some(invoice))),
            ((400, r#"{"error":{"message":"bad"}}"#), case(1, Some(string("bad")))),
            ((500, "down"), case(1, Some(string("down")))),
        ] {
            assert_eq!(value(signature, keys, answer), err(Some(expected)), "{answer:?}");
        }
        assert_eq!(value(signature, keys, (200, "\"fine\"")), ok(Some(string("fine"))));
        let missing = read(signature, keys, (400, r#"{"error":{}}"#));
        assert_eq!(missing, Err(UpstreamNonsense::MissingPart("/error/message".to_owned())));
        let wrong = read(signature, keys, (400, r#"{"error":{"message":1}}"#));
        assert!(matches!(wrong, Err(UpstreamNonsense::Json { part, .. }) if part == "/error/message"));
    }

    #[test]
    fn a_rule_can_read_the_whole_err_value() {
        let keys = "errors = [{ status = 400, value = '/code' }, { pointer = '/detail', value = '/detail', value_as = 'text' }]";
        assert_eq!(value("() -> result<_, string>", keys, (400, r#"{"code":"x"}"#)), err(Some(string("x"))));
        assert_eq!(
            value("() -> result<_, string>", keys, (200, r#"{"detail":{"a":1}}"#)),
            err(Some(string(r#"{"a":1}"#)))
        );
        assert_eq!(value("() -> result<_, string>", keys, (200, r#"{"detail":null}"#)), ok(None));
        let enumeration = "errors = [{ value = '/code' }]";
        assert_eq!(
            value("() -> result<_, state>", enumeration, (500, r#"{"code":"open"}"#)),
            err(Some(Value::Enum(0)))
        );
        assert_eq!(value("() -> result<u8>", "errors = [{ pointer = '/error' }]", (200, r#"{"error":1}"#)), err(None));
    }

    #[test]
    fn cases_select_variants_enums_and_truth() {
        let keys = "cases = [{ status = 202, arm = 'pending' }, { pointer = '/wait', arm = 'delayed', value = '/wait' }]\nresult = '/v'";
        let signature = "() -> result<progress, string>";
        assert_eq!(value(signature, keys, (202, "")), ok(Some(case(1, None))));
        assert_eq!(value(signature, keys, (200, r#"{"wait":"1h"}"#)), ok(Some(case(2, Some(string("1h"))))));
        assert_eq!(value(signature, keys, (200, r#"{"v":{"tag":"pending"}}"#)), ok(Some(case(1, None))));
        assert_eq!(value(signature, keys, (500, r#"{"wait":"1h"}"#)), err(Some(string(r#"{"wait":"1h"}"#))));
        let exists = "method = 'HEAD'\ncases = [{ status = 200, arm = 'true' }, { status = 404, arm = 'false' }]";
        assert_eq!(value("() -> bool", exists, (200, "")), Value::Bool(true));
        assert_eq!(value("() -> bool", exists, (404, "")), Value::Bool(false));
        assert_eq!(read("() -> bool", exists, (410, "")), Err(UpstreamNonsense::Status(410)));
        let states = "cases = [{ status = 402, arm = 'past-due' }]";
        assert_eq!(value("() -> state", states, (402, "")), Value::Enum(1));
    }

    #[test]
    fn a_status_can_mean_none() {
        let keys = "none = [404, 410]";
        assert_eq!(value("() -> option<u8>", keys, (404, "gone")), Value::none());
        assert_eq!(value("() -> option<u8>", keys, (200, "1")), Value::some(Value::U8(1)));
        assert_eq!(value("() -> result<option<u8>, string>", keys, (410, "")), ok(Some(Value::none())));
        assert_eq!(read("() -> option<u8>", keys, (400, "")), Err(UpstreamNonsense::Status(400)));
    }

    #[test]
    fn a_pointer_selects_the_result() {
        assert_eq!(value("() -> u8", "result = '/a/0/b~1c'", (200, r#"{"a":[{"b/c":3}]}"#)), Value::U8(3));
        assert_eq!(read("() -> u8", "result = '/a'", (200, "{}")), Err(UpstreamNonsense::MissingPart("/a".to_owned())));
        assert_eq!(value("() -> option<u8>", "result = '/a'", (200, "{}")), Value::none());
        let wrong = read("() -> u8", "result = '/a'", (200, r#"{"a":[]}"#)).unwrap_err().to_string();
        assert!(wrong.starts_with("the body at `/a`: "), "{wrong}");
    }

    #[test]
    fn a_result_can_be_text_or_bytes() {
        assert_eq!(value("() -> string", "result_as = 'text'", (200, "<a/>")), string("<a/>"));
        assert_eq!(value("() -> string", "result_as = 'text'", (200, "")), string(""));
        assert_eq!(value("() -> option<string>", "result_as = 'text'", (200, "")), Value::some(string("")));
        assert_eq!(value("() -> option<string>", "result_as = 'text'", (204, "")), Value::none());
        assert_eq!(value("() -> string", "result_as = 'text'\nresult = '/a'", (200, r#"{"a":[1]}"#)), string("[1]"));
        let missing = read("() -> string", "result_as = 'text'\nresult = '/a'", (200, r#"{"a":null}"#));
        assert_eq!(missing, Err(UpstreamNonsense::MissingPart("/a".to_owned())));
        let keys = "result_as = 'bytes'";
        let bytes = Value::Bytes(bytes::Bytes::from_static(b"\xff"));
        let answer = route("() -> list<u8>", keys).response(200, &HeaderMap::new(), b"\xff", &Limits::default());
        assert_eq!(answer, Ok(Some(bytes)));
        assert_eq!(value("() -> option<list<u8>>", keys, (204, "")), Value::none());
        let text = route("() -> string", "result_as = 'text'");
        let broken = text.response(200, &HeaderMap::new(), b"\xff", &Limits::default());
        assert_eq!(broken, Err(UpstreamNonsense::NotUtf8));
    }

    #[test]
    fn unknown_fields_are_dropped_where_the_mapping_says_so() {
        let body = r#"{"id":1,"customer-id":"c","new":{"a":[]}}"#;
        let invoice = Value::Record(vec![Value::U64(1), string("c"), Value::none()]);
        let keys = "unknown_fields = 'ignore'";
        assert_eq!(value("() -> invoice", keys, (200, body)), invoice);
        let deep = format!(r#"[{{"val":[{{"tag":"done","val":{body}}},1]}}]"#);
        let ty = "() -> list<option<option<tuple<progress, u8>>>>";
        let tuple = Value::Tuple(vec![case(0, Some(invoice.clone())), Value::U8(1)]);
        assert_eq!(value(ty, keys, (200, &deep)), Value::List(vec![Value::some(Value::some(tuple))]));
        let arms = format!(r#"{{"err":{body}}}"#);
        assert_eq!(
            value("() -> list<result<u8, invoice>>", keys, (200, &format!("[{arms}]"))),
            Value::List(vec![err(Some(invoice.clone()))])
        );
        assert_eq!(value("() -> option<invoice>", keys, (200, body)), Value::some(invoice));
    }

    #[test]
    fn the_services_own_names_are_read_back() {
        let keys = "field_names = 'snake_case'\ncase_names = 'SCREAMING_SNAKE_CASE'\nrename = { note = 'Remark' }";
        let invoice = Value::Record(vec![Value::U64(1), string("c"), Value::some(string("n"))]);
        let body = r#"{"id":1,"customer_id":"c","Remark":"n"}"#;
        assert_eq!(value("() -> invoice", keys, (200, body)), invoice);
        assert_eq!(value("() -> state", keys, (200, "\"PAST_DUE\"")), Value::Enum(1));
        let by_wit_name = format!("{keys}\nerrors = [{{ status = 404, arm = 'not-found' }}]");
        assert_eq!(value("() -> result<u8, failure>", &by_wit_name, (404, "")), err(Some(case(0, None))));
    }

    #[test]
    fn a_content_coding_is_nonsense_where_the_body_is_read() {
        let headers: HeaderMap = [(http::header::CONTENT_ENCODING, "gzip".parse().unwrap())].into_iter().collect();
        let encoded = route("() -> u8", "").response(200, &headers, b"1", &Limits::default());
        assert_eq!(encoded, Err(UpstreamNonsense::Encoded("gzip".to_owned())));
        assert_eq!(route("()", "").response(200, &headers, b"1", &Limits::default()), Ok(None));
        let identity: HeaderMap = [(http::header::CONTENT_ENCODING, "Identity".parse().unwrap())].into_iter().collect();
        assert_eq!(route("() -> u8", "").response(200, &identity, b"1", &Limits::default()), Ok(Some(Value::U8(1))));
    }

    #[test]
    fn the_limits_hold_for_answers() {
        let route = route("() -> list<u16>", "");
        let limits = Limits { items: 10, ..Limits::default() };
        let body = format!("[{}0]", "0,".repeat(20));
        let read = route.response(200, &HeaderMap::new(), body.as_bytes(), &limits);
        assert!(matches!(read, Err(UpstreamNonsense::Json { error: JsonError::TooLarge(_), .. })), "{read:?}");
        let deep = "[".repeat(10_000);
        let read = route.response(200, &HeaderMap::new(), deep.as_bytes(), &Limits::default());
        assert!(matches!(read, Err(UpstreamNonsense::Json { .. })), "{read:?}");
    }
}
