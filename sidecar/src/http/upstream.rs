//! The client: one request per permitted call, to one authority, answered or failed within a deadline.

use std::error::Error as _;
use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{HeaderName, HeaderValue, Request, Response, Uri};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::{Body as _, Incoming};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use portcullis_policy::Permit;
use portcullis_value::json::JsonRules;
use portcullis_value::{Limits, Value};
use tokio::time::Instant;

use super::answer::UpstreamNonsense;
use super::config::{HttpConfigMistake, HttpUpstreamConfig, Service};
use super::mapping::{Mapping, MappingProblem};
use super::route::{OutboundRequest, ParameterFault, RefusedParameter, Route};

/// The largest head of an answer, in bytes: twice what common servers send at most.
const HEAD_BYTES: usize = 64 * 1024;

/// An HTTP service: its connections, its credentials, its limits.
///
/// A request is sent once. The connection pool takes another connection only where the one it had was closed before it accepted the
/// request, so that not a byte of it was written; a request that was begun is never repeated, whatever its method.
#[derive(Clone)]
pub struct HttpUpstream {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    service: Service,
    json: JsonRules,
    timeout: Duration,
    limits: Limits,
}

/// One call, as far as the HTTP service learns of it.
#[derive(Clone, Copy, Debug)]
pub struct HttpCall<'c> {
    /// How the function is called.
    pub route: &'c Route,
    /// The caller's SPIFFE ID; `None` for a caller without a name, and then no caller header is sent.
    pub caller: Option<&'c str>,
    /// The trace the call belongs to.
    pub trace: Option<&'c TraceHeaders>,
    /// The parameters in the order of the WIT.
    pub args: &'c [Value],
    /// When the caller stops waiting, where that is before the upstream's own timeout.
    pub deadline: Option<Instant>,
}

/// W3C trace context: what is passed on to the service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceHeaders {
    /// `traceparent`.
    pub traceparent: HeaderValue,
    /// `tracestate`.
    pub tracestate: Option<HeaderValue>,
}

/// Why a call has no result, cut by whose fault it is.
#[derive(Debug, thiserror::Error)]
pub enum HttpFailure {
    /// The caller's: a parameter cannot fill its place. Nothing was sent.
    #[error(transparent)]
    Parameter(#[from] RefusedParameter),
    /// The service is not there, or closed the connection before it answered.
    #[error("the service is unreachable: {0}")]
    Unreachable(String),
    /// No whole answer came in time.
    #[error("no whole answer within {} ms", .0.as_millis())]
    DeadlineExceeded(Duration),
    /// The service's: its answer has no meaning.
    #[error(transparent)]
    Nonsense(#[from] UpstreamNonsense),
    /// The service's: its answer is larger than this many bytes.
    #[error("the answer is larger than {0} bytes")]
    TooLarge(usize),
}

impl HttpUpstream {
    /// Opens the credentials and CA files; connects to nothing yet.
    ///
    /// # Errors
    ///
    /// Every mistake in the configuration.
    pub fn new(config: &HttpUpstreamConfig) -> Result<Self, Vec<HttpConfigMistake>> {
        let service = Service::open(config)?;
        let mut tcp = HttpConnector::new();
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(config.connect_timeout));
        tcp.enforce_http(false);
        // The scheme of every request is that of the base URL, so neither is ever taken for the other.
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(service.tls.clone())
            .https_or_http()
            .enable_http1()
            .wrap_connector(tcp);
        // The tasks behind the pool hold idle connections and nothing that a drain would have to wait for.
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(config.idle_timeout)
            .pool_max_idle_per_host(config.max_idle)
            .http1_max_buf_size(HEAD_BYTES)
            .build(connector);
        let limits = Limits {
            bytes: config.max_response_bytes,
            ..Limits::default()
        };
        Ok(Self {
            client,
            service,
            json: JsonRules { int64: config.int64 },
            timeout: config.timeout,
            limits,
        })
    }

    /// Checks that no route sets a header which is the upstream's own: the caller's name, a credential, a fixed header.
    ///
    /// # Errors
    ///
    /// Every such header, with the line of its route.
    pub fn check(&self, mapping: &Mapping) -> Result<(), Vec<MappingProblem>> {
        let mut problems = Vec::new();
        for (instance, function, route) in mapping.routes() {
            for name in route.header_names().filter(|name| self.service.sets(name)) {
                problems.push(MappingProblem {
                    file: mapping.file().to_owned(),
                    line: route.line(),
                    message: format!("the route of `{instance}#{function}` sets header `{name}`, which the upstream's configuration sets"),
                    hint: Some("take it out of the route".to_owned()),
                });
            }
        }
        problems.sort_by_key(|problem| problem.line);
        if problems.is_empty() { Ok(()) } else { Err(problems) }
    }

    /// Carries out one permitted call. `None` is the result of a function that has none.
    ///
    /// # Errors
    ///
    /// [`HttpFailure`]: only [`HttpFailure::Parameter`] promises that nothing was sent.
    pub async fn call(&self, permit: Permit, call: HttpCall<'_>) -> Result<Option<Value>, HttpFailure> {
        // A permit is spent by the call it was made for.
        drop(permit);
        self.exchange(call).await
    }

    async fn exchange(&self, call: HttpCall<'_>) -> Result<Option<Value>, HttpFailure> {
        let request = self.request(&call)?;
        let start = Instant::now();
        let timeout = call
            .deadline
            .map_or(self.timeout, |at| at.saturating_duration_since(start).min(self.timeout));
        let answered = tokio::time::timeout(timeout, self.send(request)).await;
        let (head, body) = answered.unwrap_or(Err(HttpFailure::DeadlineExceeded(timeout)))?;
        Ok(call
            .route
            .response(head.status.as_u16(), &head.headers, &body, &self.limits)?)
    }

    /// The request of one call: what the route says, and over it what only the configuration may say.
    fn request(&self, call: &HttpCall<'_>) -> Result<Request<Full<Bytes>>, HttpFailure> {
        let OutboundRequest {
            method,
            target,
            mut headers,
            body,
        } = call.route.request_under(&self.json, call.args)?;
        for (name, value) in &self.service.headers {
            headers.insert(name.clone(), value.clone());
        }
        if let Some(name) = &self.service.caller_header {
            headers.remove(name);
            if let Some(caller) = call.caller {
                headers.insert(name.clone(), caller_value(caller, name)?);
            }
        }
        if let Some(TraceHeaders {
            traceparent,
            tracestate,
        }) = call.trace
        {
            headers.insert(HeaderName::from_static("traceparent"), traceparent.clone());
            if let Some(tracestate) = tracestate {
                headers.insert(HeaderName::from_static("tracestate"), tracestate.clone());
            }
        }
        let mut request = Request::new(Full::new(body.unwrap_or_default()));
        *request.method_mut() = method;
        *request.uri_mut() = self.uri(target)?;
        *request.headers_mut() = headers;
        Ok(request)
    }

    fn uri(&self, target: String) -> Result<Uri, UpstreamNonsense> {
        let prefix = &self.service.prefix;
        let target = if prefix.is_empty() {
            target
        } else {
            format!("{prefix}{target}")
        };
        // A target is ASCII without spaces and bounded, and the other parts come from a parsed URI.
        let impossible =
            |error: &dyn fmt::Display| UpstreamNonsense::Protocol(format!("not a request target: {error}"));
        let target = PathAndQuery::from_maybe_shared(Bytes::from(target)).map_err(|error| impossible(&error))?;
        let mut parts = http::uri::Parts::default();
        parts.scheme = Some(self.service.scheme.clone());
        parts.authority = Some(self.service.authority.clone());
        parts.path_and_query = Some(target);
        Uri::from_parts(parts).map_err(|error| impossible(&error))
    }

    async fn send(&self, request: Request<Full<Bytes>>) -> Result<(http::response::Parts, Bytes), HttpFailure> {
        let response = self.client.request(request).await.map_err(|error| unanswered(&error))?;
        let (head, body) = Response::into_parts(response);
        Ok((head, self.collect(body).await?))
    }

    async fn collect(&self, body: Incoming) -> Result<Bytes, HttpFailure> {
        let limit = self.limits.bytes;
        if usize::try_from(body.size_hint().lower()).map_or(true, |length| length > limit) {
            return Err(HttpFailure::TooLarge(limit));
        }
        match Limited::new(body, limit).collect().await {
            Ok(body) => Ok(body.to_bytes()),
            Err(error) if error.is::<LengthLimitError>() => Err(HttpFailure::TooLarge(limit)),
            Err(error) => Err(UpstreamNonsense::Protocol(error.to_string()).into()),
        }
    }
}

impl fmt::Debug for HttpUpstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpUpstream")
            .field("scheme", &self.service.scheme)
            .field("authority", &self.service.authority)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

/// A SPIFFE ID is visible ASCII; a name that is not is refused before it is anybody's.
fn caller_value(caller: &str, header: &HeaderName) -> Result<HeaderValue, RefusedParameter> {
    let visible = !caller.is_empty() && caller.bytes().all(|byte| byte.is_ascii_graphic());
    let value = HeaderValue::from_str(caller).ok().filter(|_| visible);
    value.ok_or_else(|| RefusedParameter {
        parameter: "the caller's name".to_owned(),
        place: format!("header `{header}`"),
        fault: ParameterFault::ControlCharacter,
    })
}

/// Why there is no answer: the service is not there, or what it sent is not HTTP.
fn unanswered(error: &hyper_util::client::legacy::Error) -> HttpFailure {
    let parse = error
        .source()
        .and_then(|cause| cause.downcast_ref::<hyper::Error>())
        .is_some_and(hyper::Error::is_parse);
    let mut causes = Vec::new();
    let mut next = error.source();
    while let Some(cause) = next {
        causes.push(cause.to_string());
        next = cause.source();
    }
    let text = causes.join(": ");
    let text = if text.is_empty() { error.to_string() } else { text };
    if parse {
        UpstreamNonsense::Protocol(text).into()
    } else {
        HttpFailure::Unreachable(text)
    }
}
