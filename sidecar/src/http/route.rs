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
        let body = self.body.write(args, &JsonRules { int64: self.int64.unwrap_or(rules.int64) })?;
        if let (Some(_), Some(content_type)) = (&body, &self.content_type) {
            headers.insert(header::CONTENT_TYPE, content_type.clone());
        }
        Ok(OutboundRequest { method: self.method.clone(), target, headers, body })
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
        self.headers.keys().chain(self.mapped_headers.iter().map(|header| &header.name))
    }

    /// The line of the mapping file that the route comes from; `None` for the default mapping.
    #[must_use]
    pub const fn line(&self) -> Option<usize> {
        self.line
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::fixture::{mapping, route, string, wit};

    /// Method and target.
    fn line(route: &Route, args: &[Value]) -> String {
        let request = route.request(args).unwrap();
        format!("{} {}", request.method, request.target)
    }

    fn body(route: &Route, args: &[Value]) -> String {
        String::from_utf8(route.request(args).unwrap().body.unwrap().to_vec()).unwrap()
    }

    fn fault(route: &Route, args: &[Value]) -> ParameterFault {
        route.request(args).unwrap_err().fault
    }

    fn invoice(note: Value) -> Value {
        Value::Record(vec![Value::U64(7), string("c 1"), note])
    }

    #[test]
    fn the_default_is_a_post_of_all_parameters_to_the_wit_name() {
        let mapping = mapping("get-one: func(id: u64, expand: option<bool>) -> string;\nping: func();", "").unwrap();
        let route = mapping.route("acme:billing/api@1.0.0", "get-one").unwrap();
        assert_eq!(line(route, &[Value::U64(1), Value::none()]), "POST /acme/billing/api/get-one");
        assert_eq!(body(route, &[Value::U64(1), Value::none()]), r#"{"id":1}"#);
        assert_eq!(body(route, &[Value::U64(1), Value::some(Value::Bool(true))]), r#"{"id":1,"expand":true}"#);
        let request = route.request(&[Value::U64(1), Value::none()]).unwrap();
        assert_eq!(request.headers.get("content-type").unwrap(), "application/json");
        assert_eq!(body(mapping.route("acme:billing/api@1.0.0", "ping").unwrap(), &[]), "{}");
        assert_eq!(route.line(), None);
        assert!(mapping.route("acme:billing/api", "ping").is_none());
        assert!(mapping.route("acme:billing/api@1.0.0", "pong").is_none());
    }

    #[test]
    fn the_default_body_is_what_the_json_rules_say() {
        let signature = "(a: invoice, b: progress, c: list<u8>, d: option<option<s64>>) -> string";
        let wit = wit(&format!("f: func{signature};"));
        let ty = wit.function("acme:billing/api@1.0.0", "f").unwrap().typed().unwrap();
        let args = [
            invoice(Value::none()),
            Value::Variant(2, Some(Box::new(string("\"quoted\"")))),
            Value::Bytes(Bytes::from_static(&[1, 2])),
            Value::some(Value::none()),
        ];
        let mut expected = Vec::new();
        portcullis_value::json::params_to_json(ty, &args, &JsonRules::default(), &mut expected).unwrap();
        assert_eq!(body(&route(signature, ""), &args), String::from_utf8(expected).unwrap());
    }

    #[test]
    fn a_path_parameter_fills_one_segment() {
        let route = route("(id: string, part: u32) -> string", "method = 'GET'\npath = '/v1/{id}/parts/p-{part}.json'");
        assert_eq!(
            line(&route, &[string("a/b?c#d e%2f"), Value::U32(7)]),
            "GET /v1/a%2Fb%3Fc%23d%20e%252f/parts/p-7.json"
        );
        assert_eq!(line(&route, &[string("é\u{1F600}"), Value::U32(0)]), "GET /v1/%C3%A9%F0%9F%98%80/parts/p-0.json");
        assert!(route.request(&[string("x"), Value::U32(0)]).unwrap().body.is_none());
    }

    #[test]
    fn a_path_parameter_that_could_change_the_path_is_refused() {
        let lenient = route("(id: string) -> string", "method = 'GET'\npath = '/v1/{id}/x'");
        for (text, expected) in [
            ("", ParameterFault::Empty),
            (".", ParameterFault::DotSegment),
            ("..", ParameterFault::DotSegment),
            ("../admin", ParameterFault::DotSegment),
            ("a/../../admin", ParameterFault::DotSegment),
            ("..\\admin", ParameterFault::DotSegment),
            ("a/.", ParameterFault::DotSegment),
            ("a\r\nHost: b", ParameterFault::ControlCharacter),
            ("a\0", ParameterFault::ControlCharacter),
            ("\u{7f}", ParameterFault::ControlCharacter),
            ("\u{85}", ParameterFault::ControlCharacter),
        ] {
            assert_eq!(fault(&lenient, &[string(text)]), expected, "{text:?}");
        }
        for text in ["...", ".a", "a..", "%2e%2e", "..%2f", "a b", "//", "~"] {
            assert!(lenient.request(&[string(text)]).is_ok(), "{text:?}");
        }
        let long = string(&"a".repeat(TARGET_BYTES));
        assert_eq!(fault(&lenient, &[long]), ParameterFault::TooLong { limit: TARGET_BYTES });
        let long = string(&"%".repeat(TARGET_BYTES / 2));
        assert_eq!(fault(&lenient, &[long]), ParameterFault::TooLong { limit: TARGET_BYTES });
    }

    #[test]
    fn slashes_are_refused_where_the_mapping_says_so() {
        let strict = route("(id: string) -> string", "method = 'GET'\npath = '/v1/{id}'\nslashes = 'refuse'");
        assert_eq!(fault(&strict, &[string("a/b")]), ParameterFault::Slash);
        assert_eq!(fault(&strict, &[string("a\\b")]), ParameterFault::Slash);
        assert!(strict.request(&[string("a-b")]).is_ok());
    }

    #[test]
    fn a_refusal_names_the_parameter_and_the_place_but_not_the_value() {
        let route = route("(id: string) -> string", "method = 'GET'\npath = '/v1/{id}'");
        let refused = route.request(&[string("../s3cret")]).unwrap_err().to_string();
        assert_eq!(refused, "parameter `id` cannot fill a path segment: it is or contains a `.` or `..` path segment");
    }

    #[test]
    fn query_values_are_encoded_in_the_order_of_the_file() {
        let route = route(
            "(q: string, tags: list<string>, scopes: scopes, page: page, state: option<state>) -> string",
            "method = 'GET'\npath = '/find'\nquery = { z = '{q}', 'a b' = 'x{tags}y', fixed = '1&2', scope = '{scopes}', limit = '{page.limit}', cursor = '{page.cursor}', state = '{state}' }",
        );
        let page = Value::Record(vec![Value::some(Value::U32(10)), Value::none()]);
        let args = [
            string("a&b=c #+ü"),
            Value::List(vec![string("1"), string("&")]),
            Value::Flags(vec![true, false, true]),
            page,
            Value::some(Value::Enum(1)),
        ];
        assert_eq!(
            line(&route, &args),
            "GET /find?z=a%26b%3Dc%20%23%2B%C3%BC&a%20b=x1y&a%20b=x%26y&fixed=1%262&scope=read%2Caudit&limit=10&state=past-due"
        );
    }

    #[test]
    fn what_is_absent_is_left_out_of_the_query() {
        let route = route(
            "(tags: list<u16>, scopes: scopes, page: option<page>) -> string",
            "method = 'GET'\npath = '/find'\nquery = { t = '{tags}', s = '{scopes}', limit = '{page.limit}' }\nignore = ['page.cursor']",
        );
        let nothing = [Value::List(Vec::new()), Value::Flags(vec![false; 3]), Value::none()];
        assert_eq!(line(&route, &nothing), "GET /find");
        let page = Value::some(Value::Record(vec![Value::some(Value::U32(3)), Value::some(string("c"))]));
        assert_eq!(line(&route, &[Value::List(Vec::new()), Value::Flags(vec![false; 3]), page]), "GET /find?limit=3");
    }

    #[test]
    fn a_query_value_may_be_empty_but_holds_no_control_characters() {
        let route = route("(q: string) -> string", "method = 'GET'\npath = '/find'\nquery = { q = '{q}' }");
        assert_eq!(line(&route, &[string("")]), "GET /find?q=");
        assert_eq!(line(&route, &[string("..")]), "GET /find?q=..");
        assert_eq!(fault(&route, &[string("a\nb")]), ParameterFault::ControlCharacter);
        assert_eq!(fault(&route, &[string(&"a".repeat(9000))]), ParameterFault::TooLong { limit: TARGET_BYTES });
    }

    #[test]
    fn a_query_that_grows_too_long_is_refused() {
        let route = route("(q: list<u32>) -> string", "method = 'GET'\npath = '/find'\nquery = { q = '{q}' }");
        let many = Value::List(vec![Value::U32(1); 100_000]);
        assert_eq!(fault(&route, &[many]), ParameterFault::TooLong { limit: TARGET_BYTES });
    }

    #[test]
    fn a_header_holds_a_parameter_exactly() {
        let route = route(
            "(token: string, tenant: option<string>, scopes: scopes) -> string",
            "method = 'GET'\nheaders = { authorization = 'Bearer {token}', X-Tenant = '{tenant}', x-scopes = '{scopes}', accept = 'application/json' }",
        );
        let headers = |args: &[Value]| route.request(args).unwrap().headers;
        let all = headers(&[string("t ~!"), Value::some(string("acme")), Value::Flags(vec![true, true, false])]);
        assert_eq!(all.get("authorization").unwrap(), "Bearer t ~!");
        assert_eq!(all.get("x-tenant").unwrap(), "acme");
        assert_eq!(all.get("x-scopes").unwrap(), "read,write");
        assert_eq!(all.get("accept").unwrap(), "application/json");
        assert_eq!(all.len(), 4);
        let few = headers(&[string("t"), Value::none(), Value::Flags(vec![false; 3])]);
        assert_eq!(few.len(), 2);
    }

    #[test]
    fn a_header_value_that_would_not_arrive_as_it_is_is_refused() {
        let route = route("(tenant: string) -> string", "method = 'GET'\nheaders = { x-tenant = '{tenant}' }");
        for (text, expected) in [
            ("", ParameterFault::Empty),
            ("a\r\nx-admin: 1", ParameterFault::ControlCharacter),
            ("a\nb", ParameterFault::ControlCharacter),
            ("a\0", ParameterFault::ControlCharacter),
            ("a\tb", ParameterFault::ControlCharacter),
            ("é", ParameterFault::NotAscii),
            (" a", ParameterFault::OuterSpace),
            ("a ", ParameterFault::OuterSpace),
        ] {
            assert_eq!(fault(&route, &[string(text)]), expected, "{text:?}");
        }
        let long = string(&"a".repeat(HEADER_BYTES + 1));
        assert_eq!(fault(&route, &[long]), ParameterFault::TooLong { limit: HEADER_BYTES });
    }

    #[test]
    fn a_body_is_one_parameter_or_an_object_of_several() {
        let signature = "(id: u64, invoice: invoice, key: option<string>)";
        let args = [Value::U64(1), invoice(Value::some(string("n"))), Value::none()];
        let one = route(signature, "path = '/{id}'\nbody = 'invoice'\nignore = ['key']");
        assert_eq!(body(&one, &args), r#"{"id":7,"customer-id":"c 1","note":"n"}"#);
        let named = route(signature, "path = '/{id}'\nbody = ['key', 'invoice']");
        assert_eq!(body(&named, &args), r#"{"invoice":{"id":7,"customer-id":"c 1","note":"n"}}"#);
        let rest = route(signature, "path = '/{id}'");
        assert_eq!(body(&rest, &args), body(&named, &args));
        let all = route(signature, "method = 'DELETE'\npath = '/x'\nbody = '*'\n");
        assert_eq!(body(&all, &args), r#"{"id":1,"invoice":{"id":7,"customer-id":"c 1","note":"n"}}"#);
    }

    #[test]
    fn a_post_whose_parameters_are_all_elsewhere_has_no_body() {
        let route = route("(id: u64)", "path = '/{id}/cancel'");
        let request = route.request(&[Value::U64(1)]).unwrap();
        assert_eq!((request.body, request.headers.len()), (None, 0));
    }

    #[test]
    fn a_form_is_made_of_scalars() {
        let signature = "(invoice: invoice, tags: list<string>, scopes: scopes)";
        let args = [
            invoice(Value::some(string("two\r\nlines & more"))),
            Value::List(vec![string("a"), string("b")]),
            Value::Flags(vec![false, true, false]),
        ];
        let record = route(signature, "path = '/'\nbody = 'invoice'\nbody_as = 'form'\nignore = ['tags', 'scopes']");
        assert_eq!(body(&record, &args), "id=7&customer-id=c%201&note=two%0D%0Alines%20%26%20more");
        let several = route(signature, "path = '/'\nbody = ['scopes', 'tags']\nbody_as = 'form'\nignore = ['invoice']");
        assert_eq!(body(&several, &args), "scopes=write&tags=a&tags=b");
        let request = several.request(&args).unwrap();
        assert_eq!(request.headers.get("content-type").unwrap(), "application/x-www-form-urlencoded");
        let nothing = [invoice(Value::none()), Value::List(Vec::new()), Value::Flags(vec![false; 3])];
        assert_eq!(body(&several, &nothing), "");
    }

    #[test]
    fn a_body_can_be_text_or_bytes() {
        let xml =
            route("(doc: string)", "path = '/'\nbody = 'doc'\nbody_as = 'text'\ncontent_type = 'application/xml'");
        let request = xml.request(&[string("<a>é</a>\n")]).unwrap();
        assert_eq!(request.body.unwrap(), "<a>é</a>\n".as_bytes());
        assert_eq!(request.headers.get("content-type").unwrap(), "application/xml");
        let number = route("(n: option<u8>)", "path = '/'\nbody = 'n'\nbody_as = 'text'");
        assert_eq!(body(&number, &[Value::some(Value::U8(3))]), "3");
        let absent = number.request(&[Value::none()]).unwrap();
        assert_eq!((absent.body, absent.headers.len()), (None, 0));
        let bytes = route("(b: list<u8>)", "path = '/'\nbody = 'b'\nbody_as = 'bytes'");
        let request = bytes.request(&[Value::Bytes(Bytes::from_static(&[0, 255]))]).unwrap();
        assert_eq!(request.body.unwrap(), [0, 255].as_slice());
        assert_eq!(request.headers.get("content-type").unwrap(), "application/octet-stream");
    }

    #[test]
    fn names_and_64_bit_integers_are_written_as_the_service_wants_them() {
        let keys = "path = '/{state}'\nbody = '*'\nint64 = 'string'\nfield_names = 'camelCase'\ncase_names = 'SCREAMING_SNAKE_CASE'\nrename = { note = 'Remark' }";
        let route = route("(state: state, the-invoice: invoice, scopes: scopes)", keys);
        let args = [Value::Enum(1), invoice(Value::some(string("n"))), Value::Flags(vec![true, false, false])];
        assert_eq!(line(&route, &args), "POST /PAST_DUE");
        assert_eq!(
            body(&route, &args),
            r#"{"theInvoice":{"id":"7","customerId":"c 1","Remark":"n"},"scopes":["READ"]}"#
        );
    }

    #[test]
    fn values_of_another_type_are_refused() {
        let route = route("(id: string, n: u8)", "method = 'PUT'\npath = '/{id}'");
        assert_eq!(fault(&route, &[Value::U8(1), Value::U8(1)]), ParameterFault::WrongType);
        assert!(matches!(fault(&route, &[string("a"), string("b")]), ParameterFault::Json(_)));
        assert_eq!(fault(&route, &[string("a")]), ParameterFault::WrongType);
        assert_eq!(fault(&route, &[]), ParameterFault::WrongType);
    }
}
