//! The body of an answer, parsed at most once and only where somebody asks.

use std::borrow::Cow;

use http::{HeaderMap, header};
use portcullis_value::Limits;
use portcullis_value::json::{JsonError, parse_json};

use super::UpstreamNonsense;

/// A body as it was received. What the service says about its content is not trusted, with one exception: a content coding, which
/// nobody asked for, makes it unreadable.
pub(super) struct ReceivedBody<'b> {
    status: u16,
    coding: Option<Cow<'b, str>>,
    bytes: &'b [u8],
    limits: &'b Limits,
    tree: Option<Result<serde_json::Value, JsonError>>,
}

impl<'b> ReceivedBody<'b> {
    pub(super) fn new(status: u16, headers: &'b HeaderMap, bytes: &'b [u8], limits: &'b Limits) -> Self {
        let coding = headers.get(header::CONTENT_ENCODING).map(|coding| String::from_utf8_lossy(coding.as_bytes()));
        let coding = coding.filter(|coding| !coding.eq_ignore_ascii_case("identity"));
        Self { status, coding, bytes, limits, tree: None }
    }

    pub(super) fn status(&self) -> u16 {
        self.status
    }

    pub(super) fn limits(&self) -> &'b Limits {
        self.limits
    }

    /// Whether there is nothing to read: no bytes, or a status that has none (RFC 9110 §15.3.5).
    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty() || self.status == 204
    }

    /// The bytes as they came.
    pub(super) fn bytes(&self) -> Result<&'b [u8], UpstreamNonsense> {
        match &self.coding {
            Some(coding) => Err(UpstreamNonsense::Encoded(coding.clone().into_owned())),
            None => Ok(self.bytes),
        }
    }

    /// The body as JSON, to look at.
    pub(super) fn json(&mut self) -> Result<&mut serde_json::Value, UpstreamNonsense> {
        let bytes = self.bytes()?;
        let limits = self.limits;
        let tree = self.tree.get_or_insert_with(|| parse_json(bytes, limits));
        tree.as_mut().map_err(|error| UpstreamNonsense::Json { part: String::new(), error: error.clone() })
    }
}
