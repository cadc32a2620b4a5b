//! The client: one request per permitted call, to one authority, answered or failed within a deadline.

use std::error::Error as _;
use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{HeaderName, HeaderValue, Method, Request, Response, Uri, header};
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
        let limits = Limits { bytes: config.max_response_bytes, ..Limits::default() };
        Ok(Self { client, service, json: JsonRules { int64: config.int64 }, timeout: config.timeout, limits })
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

    pub(super) async fn exchange(&self, call: HttpCall<'_>) -> Result<Option<Value>, HttpFailure> {
        let request = self.request(&call)?;
        let start = Instant::now();
        let timeout = call.deadline.map_or(self.timeout, |at| at.saturating_duration_since(start).min(self.timeout));
        let answered = tokio::time::timeout(timeout, self.send(request)).await;
        let (head, body) = answered.unwrap_or(Err(HttpFailure::DeadlineExceeded(timeout)))?;
        Ok(call.route.response(head.status.as_u16(), &head.headers, &body, &self.limits)?)
    }

    /// The request of one call: what the route says, and over it what only the configuration may say.
    fn request(&self, call: &HttpCall<'_>) -> Result<Request<Full<Bytes>>, HttpFailure> {
        let OutboundRequest { method, target, mut headers, body } = call.route.request_under(&self.json, call.args)?;
        for (name, value) in &self.service.headers {
            headers.insert(name.clone(), value.clone());
        }
        if let Some(name) = &self.service.caller_header {
            headers.remove(name);
            if let Some(caller) = call.caller {
                headers.insert(name.clone(), caller_value(caller, name)?);
            }
        }
        if let Some(TraceHeaders { traceparent, tracestate }) = call.trace {
            headers.insert(HeaderName::from_static("traceparent"), traceparent.clone());
            if let Some(tracestate) = tracestate {
                headers.insert(HeaderName::from_static("tracestate"), tracestate.clone());
            }
        }
        let body = body.unwrap_or_default();
        if body.is_empty() && [Method::POST, Method::PUT, Method::PATCH].contains(&method) {
            // RFC 9110 §8.6: these methods say so where they have no content; there are services that insist.
            headers.insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = self.uri(target)?;
        *request.headers_mut() = headers;
        Ok(request)
    }

    fn uri(&self, target: String) -> Result<Uri, UpstreamNonsense> {
        let prefix = &self.service.prefix;
        let target = if prefix.is_empty() { target } else { format!("{prefix}{target}") };
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
    let parse =
        error.source().and_then(|cause| cause.downcast_ref::<hyper::Error>()).is_some_and(hyper::Error::is_parse);
    let mut causes = Vec::new();
    let mut next = error.source();
    while let Some(cause) = next {
        causes.push(cause.to_string());
        next = cause.source();
    }
    let text = causes.join(": ");
    let text = if text.is_empty() { error.to_string() } else { text };
    if parse { UpstreamNonsense::Protocol(text).into() } else { HttpFailure::Unreachable(text) }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::Ordering;

    use http::StatusCode;
    use portcullis_policy::{
        CallContext, Component, ComponentFacts, Engine, Function, Interface, ParamsReadable, PolicyFile, PolicySet,
        Principal, Schema, Transport,
    };

    use super::*;
    use crate::http::credentials;
    use crate::http::fixture::{self, string};
    use crate::http::legacy::{Legacy, Seen, Then, raw, testdata};

    const CHUNKED: &[u8] =
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n6\r\n\"01234\r\n6\r\n56789\"\r\n0\r\n\r\n";

    fn answer(status: u16, body: &'static str) -> impl Fn(&Seen) -> Response<Full<Bytes>> + Send + Sync + 'static {
        move |_| {
            let mut response = Response::new(Full::new(Bytes::from_static(body.as_bytes())));
            *response.status_mut() = StatusCode::from_u16(status).unwrap();
            response
        }
    }

    fn upstream(config: &HttpUpstreamConfig) -> HttpUpstream {
        HttpUpstream::new(config).unwrap_or_else(|mistakes| panic!("{mistakes:?}"))
    }

    fn call<'c>(route: &'c Route, args: &'c [Value]) -> HttpCall<'c> {
        HttpCall {
            route,
            caller: Some("spiffe://lattice.example/component/main/checkout"),
            trace: None,
            args,
            deadline: None,
        }
    }

    #[tokio::test]
    async fn a_permitted_call_goes_to_the_service_and_back() {
        let legacy = Legacy::start(answer(200, r#"{"sku":"a","unit-price":3}"#)).await;
        let route = fixture::route("(id: string) -> result<line, string>", "method = 'GET'\npath = '/v1/{id}'");
        let result =
            upstream(&HttpUpstreamConfig::new(legacy.url())).call(permit(), call(&route, &[string("4/2")])).await;
        let line = Value::Record(vec![string("a"), Value::U64(3)]);
        assert_eq!(result.unwrap(), Some(Value::Result(Ok(Some(Box::new(line))))));
        assert_eq!(legacy.take()[0].target, "/v1/4%2F2");
    }

    /// A permit, as only a decision makes it.
    fn permit() -> Permit {
        let interface = Interface {
            name: fixture::INSTANCE.to_owned(),
            functions: vec![Function { name: "f".to_owned(), params: Vec::new() }],
        };
        let component = Component {
            lattice: "main".to_owned(),
            id: "billing".to_owned(),
            interfaces: vec![interface.clone()],
            params: ParamsReadable::Decoded,
        };
        let schema = Schema::new(&[component]).unwrap();
        let text = "permit(principal, action, resource);".to_owned();
        let policies = PolicySet::parse(&[PolicyFile { name: "all.cedar".to_owned(), text }], &schema).unwrap();
        let facts = ComponentFacts {
            lattice: "main".to_owned(),
            id: "billing".to_owned(),
            interfaces: vec![interface],
            grants: Vec::new(),
        };
        let engine = Engine::new(&policies.for_component("main", "billing"), &facts, 1).unwrap();
        let peer = Principal::workload("spiffe://lattice.example/a", "lattice.example", "/a");
        let action = engine.action(fixture::INSTANCE, "f").unwrap();
        let context = CallContext { transport: Transport::Quic, link_name: None, params: None };
        engine.view(&peer).decide(action, &context).permit().unwrap()
    }

    #[tokio::test]
    async fn what_the_configuration_says_is_on_every_request() {
        let legacy = Legacy::start(answer(204, "")).await;
        let folder = tempfile::tempdir().unwrap();
        let credentials = credentials::tests::file(&folder, "basic user:p:w\nheader x-api-key: k 1\n", 0o600);
        let config = HttpUpstreamConfig {
            headers: vec![("x-site".to_owned(), "berlin".to_owned())],
            credentials_file: Some(credentials),
            caller_header: Some("X-Caller".to_owned()),
            ..HttpUpstreamConfig::new(format!("{}/legacy/", legacy.url()))
        };
        let route = fixture::route("(x: string)", "path = '/f'\nheaders = { x-x = '{x}', accept = 'a/b' }");
        let trace = TraceHeaders {
            traceparent: HeaderValue::from_static("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
            tracestate: Some(HeaderValue::from_static("a=b")),
        };
        let args = [string("1")];
        let upstream = upstream(&config);
        upstream.exchange(HttpCall { trace: Some(&trace), ..call(&route, &args) }).await.unwrap();
        let [seen] = legacy.take().try_into().unwrap();
        assert_eq!((seen.method.as_str(), seen.target.as_str()), ("POST", "/legacy/f"));
        let expected = [
            ("x-x", "1"),
            ("accept", "a/b"),
            ("host", &legacy.address.to_string()),
            ("x-site", "berlin"),
            ("authorization", "Basic dXNlcjpwOnc="),
            ("x-api-key", "k 1"),
            ("x-caller", "spiffe://lattice.example/component/main/checkout"),
            ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
            ("tracestate", "a=b"),
            ("content-length", "0"),
        ];
        for (name, value) in expected {
            let values: Vec<_> = seen.headers.get_all(name).iter().collect();
            assert_eq!(values, [value], "{name}");
        }
        assert_eq!(seen.headers.len(), expected.len(), "{:?}", seen.headers);
        assert!(!format!("{upstream:?}").contains("dXNlcjpwOnc="));
    }

    #[tokio::test]
    async fn nothing_but_the_handshake_fills_the_caller_header() {
        let legacy = Legacy::start(answer(204, "")).await;
        let config = HttpUpstreamConfig {
            caller_header: Some("x-caller".to_owned()),
            headers: vec![("x-site".to_owned(), "a".to_owned())],
            ..HttpUpstreamConfig::new(legacy.url())
        };
        let functions = "f: func(who: string); g: func(who: string);";
        let toml = "[[route]]\nfunction = 'acme:billing/api@1.0.0#f'\nheaders = { X_Caller = '{who}' }
[[route]]\nfunction = 'acme:billing/api@1.0.0#g'\nheaders = { x-site = '{who}' }";
        let mapping = fixture::mapping(functions, toml).unwrap();
        let upstream = upstream(&config);
        let problems = fixture::told(&upstream.check(&mapping).unwrap_err());
        assert_eq!(
            problems,
            "1: the route of `acme:billing/api@1.0.0#f` sets header `x_caller`, which the upstream's configuration sets (hint: take it out of the route)
4: the route of `acme:billing/api@1.0.0#g` sets header `x-site`, which the upstream's configuration sets (hint: take it out of the route)"
        );
        assert_eq!(upstream.check(&fixture::mapping(functions, "").unwrap()), Ok(()));
        // Even a mapping that nobody checked cannot forge the name.
        let route = fixture::route("(who: string)", "headers = { x-caller = '{who}', x-site = 'b' }");
        let args = [string("spiffe://lattice.example/admin")];
        upstream.exchange(call(&route, &args)).await.unwrap();
        upstream.exchange(HttpCall { caller: None, ..call(&route, &args) }).await.unwrap();
        let seen = legacy.take();
        assert_eq!(seen[0].headers.get("x-caller").unwrap(), "spiffe://lattice.example/component/main/checkout");
        assert_eq!(seen[0].headers.get_all("x-caller").iter().count(), 1);
        assert_eq!(seen[0].headers.get("x-site").unwrap(), "a");
        assert!(seen[1].headers.get("x-caller").is_none());
        let forged = HttpCall { caller: Some("spiffe://a/b\r\nx: y"), ..call(&route, &args) };
        assert!(matches!(upstream.exchange(forged).await, Err(HttpFailure::Parameter(_))));
        assert!(legacy.take().is_empty());
    }

    #[tokio::test]
    async fn a_refused_parameter_sends_nothing() {
        let legacy = Legacy::start(answer(200, "1")).await;
        let route = fixture::route("(id: string) -> u8", "method = 'DELETE'\npath = '/v1/{id}'");
        let upstream = upstream(&HttpUpstreamConfig::new(legacy.url()));
        let failure = upstream.exchange(call(&route, &[string("..")])).await.unwrap_err();
        assert!(matches!(failure, HttpFailure::Parameter(_)), "{failure}");
        assert_eq!(legacy.connections(), 0);
    }

    #[tokio::test]
    async fn a_redirection_is_not_followed() {
        let legacy = Legacy::start(|_| {
            let mut response = Response::new(Full::default());
            *response.status_mut() = StatusCode::FOUND;
            response.headers_mut().insert("location", HeaderValue::from_static("/elsewhere"));
            response
        })
        .await;
        let route = fixture::route("() -> result<u8, string>", "method = 'GET'");
        let failure = upstream(&HttpUpstreamConfig::new(legacy.url())).exchange(call(&route, &[])).await.unwrap_err();
        assert!(matches!(failure, HttpFailure::Nonsense(UpstreamNonsense::Redirection(302))), "{failure}");
        assert_eq!(legacy.take().len(), 1);
    }

    #[tokio::test]
    async fn connections_are_used_again() {
        let legacy = Legacy::start(answer(200, "7")).await;
        let route = fixture::route("() -> u8", "");
        let upstream = upstream(&HttpUpstreamConfig::new(legacy.url()));
        for _ in 0..20 {
            assert_eq!(upstream.exchange(call(&route, &[])).await.unwrap(), Some(Value::U8(7)));
        }
        assert_eq!(legacy.connections(), 1);
        assert_eq!(legacy.take().len(), 20);
    }

    #[tokio::test]
    async fn a_service_that_is_not_there_is_unreachable() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let route = fixture::route("() -> u8", "");
        let failure = upstream(&HttpUpstreamConfig::new(format!("http://{address}"))).exchange(call(&route, &[])).await;
        let failure = failure.unwrap_err();
        assert!(matches!(failure, HttpFailure::Unreachable(_)), "{failure}");
        assert!(failure.to_string().contains("refused"), "{failure}");
    }

    #[tokio::test]
    async fn the_length_of_an_empty_body_is_said_once() {
        let legacy = Legacy::start(answer(204, "")).await;
        let upstream = upstream(&HttpUpstreamConfig::new(legacy.url()));
        for (method, expected) in [("POST", 1), ("PUT", 1), ("PATCH", 1), ("GET", 0), ("DELETE", 0), ("HEAD", 0)] {
            let route = fixture::route("(x: string)", &format!("method = '{method}'\nquery = {{ x = '{{x}}' }}"));
            upstream.exchange(call(&route, &[string("")])).await.unwrap();
            let seen = legacy.take();
            assert_eq!(seen[0].headers.get_all("content-length").iter().count(), expected, "{method}");
            assert!(seen[0].body.is_empty());
        }
        let route = fixture::route("(x: string)", "body = 'x'");
        upstream.exchange(call(&route, &[string("é")])).await.unwrap();
        let seen = legacy.take();
        assert_eq!(seen[0].headers.get("content-length").unwrap(), "4");
        assert_eq!(seen[0].body, "\"é\"");
    }

    #[tokio::test]
    async fn a_request_that_was_begun_is_never_repeated() {
        let (address, requests) = raw(&[b"HTTP/1.1 204 No Content\r\n\r\n", b""], Then::Close).await;
        let route = fixture::route("()", "method = 'GET'");
        let upstream = upstream(&HttpUpstreamConfig::new(format!("http://{address}")));
        upstream.exchange(call(&route, &[])).await.unwrap();
        let failure = upstream.exchange(call(&route, &[])).await.unwrap_err();
        assert!(matches!(failure, HttpFailure::Unreachable(_)), "{failure}");
        assert_eq!(requests.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn an_answer_that_is_not_http_or_is_cut_is_nonsense() {
        for answer in [
            b"SSH-2.0-OpenSSH_9.2\r\n\r\n".as_slice(),
            b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n12",
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\n12",
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
            b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n12",
        ] {
            let (address, _) = raw(&[answer], Then::Close).await;
            let route = fixture::route("() -> u8", "");
            let config = HttpUpstreamConfig {
                timeout: Duration::from_millis(500),
                ..HttpUpstreamConfig::new(format!("http://{address}"))
            };
            let failure = upstream(&config).exchange(call(&route, &[])).await.unwrap_err();
            let text = String::from_utf8_lossy(answer);
            assert!(matches!(failure, HttpFailure::Nonsense(UpstreamNonsense::Protocol(_))), "{text}: {failure:?}");
        }
    }

    #[tokio::test]
    async fn a_service_that_closes_without_an_answer_is_unreachable() {
        let (address, _) = raw(&[], Then::Close).await;
        let route = fixture::route("() -> u8", "");
        let failure = upstream(&HttpUpstreamConfig::new(format!("http://{address}"))).exchange(call(&route, &[])).await;
        assert!(matches!(failure, Err(HttpFailure::Unreachable(_))), "{failure:?}");
    }

    #[tokio::test]
    async fn the_deadline_bounds_the_head_and_the_body() {
        for answer in [b"".as_slice(), b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n"] {
            let (address, _) = raw(&[answer], Then::Wait).await;
            let route = fixture::route("() -> u8", "");
            let brief = Duration::from_millis(50);
            let own = HttpUpstreamConfig { timeout: brief, ..HttpUpstreamConfig::new(format!("http://{address}")) };
            let failure = upstream(&own).exchange(call(&route, &[])).await.unwrap_err();
            assert!(matches!(failure, HttpFailure::DeadlineExceeded(limit) if limit == brief), "{failure:?}");
            let patient = upstream(&HttpUpstreamConfig::new(format!("http://{address}")));
            let deadline = Some(Instant::now() + brief);
            let failure = patient.exchange(HttpCall { deadline, ..call(&route, &[]) }).await.unwrap_err();
            assert!(matches!(failure, HttpFailure::DeadlineExceeded(limit) if limit <= brief), "{failure:?}");
        }
    }

    #[tokio::test]
    async fn an_answer_over_the_limit_is_given_up() {
        let legacy = Legacy::start(answer(200, "\"0123456789\"")).await;
        let (address, _) = raw(&[CHUNKED], Then::Wait).await;
        let route = fixture::route("() -> string", "");
        for url in [legacy.url(), format!("http://{address}")] {
            let fits = HttpUpstreamConfig { max_response_bytes: 12, ..HttpUpstreamConfig::new(&url) };
            assert_eq!(upstream(&fits).exchange(call(&route, &[])).await.unwrap(), Some(string("0123456789")));
        }
        let (address, _) = raw(&[CHUNKED], Then::Wait).await;
        for url in [legacy.url(), format!("http://{address}")] {
            let small = HttpUpstreamConfig { max_response_bytes: 11, ..HttpUpstreamConfig::new(&url) };
            let failure = upstream(&small).exchange(call(&route, &[])).await.unwrap_err();
            assert!(matches!(failure, HttpFailure::TooLarge(11)), "{failure:?}");
        }
    }

    #[tokio::test]
    async fn an_endless_head_is_nonsense() {
        let head = [b"HTTP/1.1 200 OK\r\nx: ".as_slice(), &[b'a'; 2 * HEAD_BYTES]].concat();
        let (address, _) = raw(&[&head], Then::Wait).await;
        let route = fixture::route("() -> u8", "");
        let failure = upstream(&HttpUpstreamConfig::new(format!("http://{address}"))).exchange(call(&route, &[])).await;
        assert!(matches!(failure, Err(HttpFailure::Nonsense(UpstreamNonsense::Protocol(_)))), "{failure:?}");
    }

    #[tokio::test]
    async fn https_trusts_the_ca_file_and_nothing_else() {
        let legacy = Legacy::start_tls("127.0.0.1:0", answer(200, "1")).await;
        let route = fixture::route("() -> u8", "");
        let config = |host: &str, ca: &str| HttpUpstreamConfig {
            ca_file: Some(testdata(ca)),
            ..HttpUpstreamConfig::new(format!("https://{host}:{}", legacy.address.port()))
        };
        for host in ["127.0.0.1", "localhost"] {
            let answer = upstream(&config(host, "ca.pem")).exchange(call(&route, &[])).await;
            assert_eq!(answer.unwrap(), Some(Value::U8(1)), "{host}");
        }
        let untrusted = upstream(&config("localhost", "other-ca.pem")).exchange(call(&route, &[])).await.unwrap_err();
        assert!(matches!(untrusted, HttpFailure::Unreachable(_)), "{untrusted:?}");
        assert!(untrusted.to_string().contains("certificate"), "{untrusted}");
        assert_eq!(legacy.take().len(), 2);
    }

    #[tokio::test]
    async fn https_checks_the_name_of_the_service() {
        let legacy = Legacy::start_tls("127.0.0.2:0", answer(200, "1")).await;
        let config = HttpUpstreamConfig {
            ca_file: Some(testdata("ca.pem")),
            ..HttpUpstreamConfig::new(format!("https://{}", legacy.address))
        };
        let route = fixture::route("() -> u8", "");
        let failure = upstream(&config).exchange(call(&route, &[])).await.unwrap_err();
        assert!(matches!(failure, HttpFailure::Unreachable(_)), "{failure:?}");
        assert!(legacy.take().is_empty());
    }

    #[test]
    fn an_upstream_can_be_shared_between_tasks() {
        fn shared<T: Send + Sync + 'static>(_: Arc<T>) {}
        shared(Arc::new(upstream(&HttpUpstreamConfig::new("http://localhost"))));
    }
}
