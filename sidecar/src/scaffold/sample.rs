//! One line of samples: `METHOD PATH[?QUERY] [JSON] -> STATUS [JSON]`.

use portcullis_value::Limits;
use serde_json::Value;

/// What the service was seen to do once.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Where it was written, counted from 1.
    pub line: usize,
    /// `GET`, `POST` …
    pub method: String,
    /// Segments of the path, percent-decoding left alone.
    pub segments: Vec<String>,
    /// Keys and values of the query.
    pub query: Vec<(String, String)>,
    /// The request's JSON body.
    pub body: Option<Value>,
    /// The answer's status.
    pub status: u16,
    /// The answer's JSON body.
    pub answer: Option<Value>,
}

/// A line that is no sample.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {message} (hint: GET /v1/items/42?full=true -> 200 {{\"id\":\"42\"}})")]
pub struct InvalidSample {
    /// Counted from 1.
    pub line: usize,
    /// What is wrong.
    pub message: String,
}

impl Sample {
    /// Every sample of a text; empty lines and lines that begin with `#` are passed over.
    ///
    /// # Errors
    /// The first line that is none.
    pub fn parse_all(text: &str) -> Result<Vec<Self>, InvalidSample> {
        let lines = text.lines().enumerate().map(|(index, line)| (index + 1, line.trim()));
        let lines = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
        lines.map(|(number, line)| Self::parse(number, line)).collect()
    }

    fn parse(line: usize, text: &str) -> Result<Self, InvalidSample> {
        let wrong = |message: &str| InvalidSample { line, message: message.to_owned() };
        let (request, answer) = text.split_once(" -> ").ok_or_else(|| wrong("there is no ` -> `"))?;
        let (method, rest) = request.trim().split_once(' ').ok_or_else(|| wrong("there is no path"))?;
        let (rest, answer) = (rest.trim(), answer.trim());
        let (target, body) = rest.split_once(' ').unwrap_or((rest, ""));
        let (status, answer) = answer.split_once(' ').unwrap_or((answer, ""));
        if !["GET", "POST", "PUT", "PATCH", "DELETE"].contains(&method) {
            return Err(wrong(&format!("`{method}` is not GET, POST, PUT, PATCH or DELETE")));
        }
        let target = target.strip_prefix('/').ok_or_else(|| wrong("the path does not begin with `/`"))?;
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let pairs = query.split('&').filter(|pair| !pair.is_empty());
        let query = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        let status = status.parse().ok().filter(|status| (200..600).contains(status));
        Ok(Self {
            line,
            method: method.to_owned(),
            segments: path.split('/').filter(|segment| !segment.is_empty()).map(str::to_owned).collect(),
            query: query.map(|(key, value)| (key.to_owned(), value.to_owned())).collect(),
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

fn json(text: &str) -> Result<Option<Value>, String> {
    if text.trim().is_empty() {
        return Ok(None);
    }
    let json = portcullis_value::json::parse_json(text.trim().as_bytes(), &Limits::default());
    json.map(Some).map_err(|error| error.to_string())
}
