//! Samples: lines `METHOD PATH[?QUERY] [JSON] -> STATUS [JSON]`, or what a browser saved as HAR.
//!
//! A segment `{name}` of a path is a parameter; other segments are taken for one where they look like an identifier.

mod har;

use std::fmt;

use percent_encoding::percent_decode_str;
use portcullis_value::Limits;
use serde_json::Value;

/// What the service was seen to do once.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Where it was written.
    pub place: Place,
    /// `GET`, `POST` …
    pub method: String,
    /// Segments of the path, percent-decoding left alone.
    pub segments: Vec<String>,
    /// Keys and values of the query, decoded.
    pub query: Vec<(String, String)>,
    /// The request's JSON body.
    pub body: Option<Value>,
    /// The answer's status.
    pub status: u16,
    /// The answer's JSON body.
    pub answer: Option<Value>,
}

/// Where a sample was written, counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// A line of text.
    Line(usize),
    /// An entry of a HAR file.
    Entry(usize),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line(number) => write!(f, "line {number}"),
            Self::Entry(number) => write!(f, "entry {number}"),
        }
    }
}

/// What is no sample.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {message} (hint: GET /v1/items/42?full=true -> 200 {{\"id\":\"42\"}})")]
pub struct InvalidSample {
    /// Where.
    pub place: Place,
    /// What is wrong.
    pub message: String,
}

/// The parts of a sample as text.
struct Parts<'t> {
    method: &'t str,
    /// Path and query.
    target: &'t str,
    body: &'t str,
    status: &'t str,
    answer: &'t str,
}

impl Sample {
    /// Every sample of a text: of lines, empty ones and those that begin with `#` passed over, or of a HAR file.
    ///
    /// # Errors
    /// The first that is none.
    pub fn parse_all(text: &str) -> Result<Vec<Self>, InvalidSample> {
        if text.trim_start().starts_with('{') {
            return har::samples(text);
        }
        let lines = text.lines().enumerate().map(|(index, line)| (index + 1, line.trim()));
        let lines = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
        lines.map(|(number, line)| Self::parse_line(Place::Line(number), line)).collect()
    }

    fn parse_line(place: Place, text: &str) -> Result<Self, InvalidSample> {
        let wrong = |message: &str| InvalidSample { place, message: message.to_owned() };
        // An arrow inside the body is followed by something else than a status.
        let status = |rest: &str| rest.trim_start().starts_with(|first: char| first.is_ascii_digit());
        let mut arrows = text.match_indices(" -> ").filter_map(|(at, _)| text.split_at_checked(at));
        let split =
            arrows.find_map(|(request, rest)| Some((request, rest.strip_prefix(" -> ").filter(|rest| status(rest))?)));
        let (request, answer) = split.ok_or_else(|| wrong("there is no ` -> ` with a status behind it"))?;
        let (method, rest) = request.trim().split_once(' ').ok_or_else(|| wrong("there is no path"))?;
        let (rest, answer) = (rest.trim(), answer.trim());
        let (target, body) = rest.split_once(' ').unwrap_or((rest, ""));
        let (status, answer) = answer.split_once(' ').unwrap_or((answer, ""));
        Self::new(place, &Parts { method, target, body, status, answer })
    }

    fn new(place: Place, parts: &Parts<'_>) -> Result<Self, InvalidSample> {
        let wrong = |message: &str| InvalidSample { place, message: message.to_owned() };
        let Parts { method, target, body, status, answer } = *parts;
        if !["GET", "POST", "PUT", "PATCH", "DELETE"].contains(&method) {
            return Err(wrong(&format!("`{method}` is not GET, POST, PUT, PATCH or DELETE")));
        }
        let target = target.strip_prefix('/').ok_or_else(|| wrong("the path does not begin with `/`"))?;
        let target = target.split_once('#').map_or(target, |(target, _)| target);
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let pairs = query.split('&').filter(|pair| !pair.is_empty());
        let query = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        let status = status.parse().ok().filter(|status| (200..600).contains(status));
        Ok(Self {
            place,
            method: method.to_owned(),
            segments: path.split('/').filter(|segment| !segment.is_empty()).map(str::to_owned).collect(),
            query: query.map(|(key, value)| (decoded(key), decoded(value))).collect(),
            body: json(body).map_err(|error| wrong(&format!("the request's body: {error}")))?,
            status: status.ok_or_else(|| wrong("there is no status from 200 to 599"))?,
            answer: json(answer).map_err(|error| wrong(&format!("the answer's body: {error}")))?,
        })
    }

    /// Whether the service did what was asked.
    pub(super) fn succeeded(&self) -> bool {
        (200..300).contains(&self.status)
    }
}

/// A key or value of a query; `+` is a space there.
fn decoded(text: &str) -> String {
    let text = text.replace('+', " ");
    percent_decode_str(&text).decode_utf8_lossy().into_owned()
}

fn json(text: &str) -> Result<Option<Value>, String> {
    if text.trim().is_empty() {
        return Ok(None);
    }
    let json = portcullis_value::json::parse_json(text.trim().as_bytes(), &Limits::default());
    json.map(Some).map_err(|error| error.to_string())
}
