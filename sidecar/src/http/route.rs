//! A route: how one WIT function becomes one HTTP request, and how the answer becomes its result.
//!
//! Everything that can be known before a call is in here already, checked against the WIT and against the rules of HTTP by the
//! mapping; what is left for a call is to put its parameters into their places, or to refuse them.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use portcullis_value::json::{Int64, JsonRules};
use portcullis_value::{Limits, Value};

use body::BodyPlan;
use mapped_header::MappedHeader;
use target::Target;

use super::answer::{Answer, UpstreamNonsense};

pub(crate) mod body;
pub(crate) mod mapped_header;
mod refusal;
pub(crate) mod slot;
pub(crate) mod target;
pub(crate) mod text;

pub use mapped_header::HEADER_BYTES;
pub use refusal::{ParameterFault, RefusedParameter};
pub use target::TARGET_BYTES;

/// How one function is called and answered.
#[derive(Clone, Debug)]
pub struct Route {
    pub(crate) method: Method,
    pub(crate) target: Target,
    /// Headers that are the same for every call.
    pub(crate) headers: HeaderMap,
    pub(crate) mapped_headers: Vec<MappedHeader>,
    pub(crate) body: BodyPlan,
    /// Sent where there is a body.
    pub(crate) content_type: Option<HeaderValue>,
    /// How 64-bit integers are written in JSON, where the mapping says so.
    pub(crate) int64: Option<Int64>,
    pub(crate) answer: Answer,
    /// The line of the mapping file; none for the default mapping.
    pub(crate) line: Option<usize>,
}

/// A request as far as the mapping decides it: no authority, no framing, no fixed headers.
#[derive(Clone, Debug)]
pub struct OutboundRequest {
    /// The method, from configuration.
    pub method: Method,
    /// Path and query, to be appended to the path of the base URL.
    pub target: String,
    /// The headers of the route, its content type among them.
    pub headers: HeaderMap,
    /// The body; `None` where the route sends none.
    pub body: Option<Bytes>,
}

impl Route {
    /// The request for one call.
    ///
    /// # Errors
    ///
    /// A parameter that cannot fill its place; nothing may be sent then.
    pub fn request(&self, args: &[Value]) -> Result<OutboundRequest, RefusedParameter> {
        self.request_under(&JsonRules::default(), args)
    }

    /// The request under the JSON rules that hold where the mapping says nothing.
    pub(crate) fn request_under(&self, rules: &JsonRules, args: &[Value]) -> Result<OutboundRequest, RefusedParameter> {
        let target = self.target.write(args)?;
        let mut headers = HeaderMap::with_capacity(self.headers.len() + self.mapped_headers.len() + 4);
        headers.extend(self.headers.clone());
        for header in &self.mapped_headers {
            header.insert(&mut headers, args)?;
        }
        let body = self.body.write(
            args,
            &JsonRules {
                int64: self.int64.unwrap_or(rules.int64),
            },
        )?;
        if let (Some(_), Some(content_type)) = (&body, &self.content_type) {
            headers.insert(header::CONTENT_TYPE, content_type.clone());
        }
        Ok(OutboundRequest {
            method: self.method.clone(),
            target,
            headers,
            body,
        })
    }

    /// The result that an answer stands for; `None` for a function without a result.
    ///
    /// # Errors
    ///
    /// An answer that the route gives no meaning to, or a body that is not what the WIT says.
    pub fn response(
        &self,
        status: u16,
        headers: &HeaderMap,
        body: &[u8],
        limits: &Limits,
    ) -> Result<Option<Value>, UpstreamNonsense> {
        self.answer.read(status, headers, body, limits)
    }

    /// The method, as `check` and `status` show it.
    #[must_use]
    pub const fn method(&self) -> &Method {
        &self.method
    }

    /// The names of the headers that the route sets.
    pub fn header_names(&self) -> impl Iterator<Item = &HeaderName> {
        self.headers
            .keys()
            .chain(self.mapped_headers.iter().map(|header| &header.name))
    }

    /// The line of the mapping file that the route comes from; `None` for the default mapping.
    #[must_use]
    pub const fn line(&self) -> Option<usize> {
        self.line
    }
}
