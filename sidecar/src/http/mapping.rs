#![doc = include_str!("../../MAPPING.md")]

use std::collections::HashMap;

use portcullis_value::{Function, FunctionKind, FunctionType, Interface, Wit};

use answer_plan::ResultTypes;
use compiler::Compiler;
use document::{Document, RouteEntry, StyleEntry};
use params::{Params, shared_name};
use problem::{Located, Problems};
use request_plan::Defaults;
use style::Style;

use super::route::Route;

mod answer_plan;
mod body_plan;
mod compiler;
mod document;
pub(crate) mod header_names;
mod headers;
mod naming;
mod params;
mod path;
mod problem;
mod request_plan;
mod style;
mod table;
mod template;

pub(crate) use naming::Spelling;
pub use problem::MappingProblem;

/// The routes of every function that a virtual component serves over HTTP.
#[derive(Clone, Debug)]
pub struct Mapping {
    file: String,
    /// By wRPC instance, then by function.
    routes: HashMap<String, HashMap<String, Route>>,
}

impl Mapping {
    /// The default mapping of the interfaces.
    ///
    /// # Errors
    ///
    /// Every interface that the WIT does not have, and every function that cannot be mapped.
    pub fn default_for(wit: &Wit, interfaces: &[String]) -> Result<Self, Vec<MappingProblem>> {
        Self::parse("default mapping", "", wit, interfaces)
    }

    /// Reads a mapping file and checks it against the WIT. A function without a route has the default mapping.
    ///
    /// # Errors
    ///
    /// Every mistake, in the order of the file.
    pub fn parse(file: &str, text: &str, wit: &Wit, interfaces: &[String]) -> Result<Self, Vec<MappingProblem>> {
        let mut problems = Problems::new(file, text);
        let document = Document::read(text, &mut problems);
        let mut builder = Builder {
            wit,
            interfaces,
            style: document.style,
            routes: HashMap::new(),
            lines: HashMap::new(),
            problems: &mut problems,
        };
        for name in &document.unserved {
            builder.leave_out(name);
        }
        for route in &document.routes {
            builder.add(route);
        }
        builder.add_defaults();
        let routes = builder.routes;
        if problems.count() > 0 {
            return Err(problems.into_sorted());
        }
        Ok(Self { file: file.to_owned(), routes })
    }

    /// The route of a function by its wRPC instance and function name; `None` where the component does not serve it.
    #[must_use]
    pub fn route(&self, instance: &str, function: &str) -> Option<&Route> {
        self.routes.get(instance)?.get(function)
    }

    /// Every instance, function and route, in no order.
    pub fn routes(&self) -> impl Iterator<Item = (&str, &str, &Route)> {
        self.routes.iter().flat_map(|(instance, functions)| {
            functions.iter().map(move |(function, route)| (instance.as_str(), function.as_str(), route))
        })
    }

    /// The file as the operator named it.
    #[must_use]
    pub fn file(&self) -> &str {
        &self.file
    }
}

/// Routes while they are collected.
struct Builder<'w, 'p> {
    wit: &'w Wit,
    interfaces: &'w [String],
    style: StyleEntry,
    routes: HashMap<String, HashMap<String, Route>>,
    /// Where each function that the file names is named, whether its route could be compiled or not.
    lines: HashMap<String, usize>,
    problems: &'p mut Problems,
}

impl<'w> Builder<'w, '_> {
    /// A function that the file says is not served.
    fn leave_out(&mut self, name: &Located<String>) {
        self.claim(name);
    }

    fn add(&mut self, entry: &RouteEntry) {
        let Some(name) = &entry.function else {
            let hint = "write function = \"namespace:package/interface@version#function\"";
            self.problems.report_with_hint(entry.line, "a route must name its function", hint);
            return;
        };
        let Some((interface, function)) = self.claim(name) else {
            return;
        };
        match &function.kind {
            FunctionKind::Typed(ty) => {
                let names = (interface.name.as_str(), function.name.as_str());
                self.compile(names, ty, Some(entry));
            }
            FunctionKind::Opaque(reason) => {
                let message = format!("function `{}` cannot be mapped to HTTP: {reason}", name.value);
                self.problems.report_with_hint(name.line, message, UNSERVED);
            }
        }
    }

    /// The default route of every function that the file does not name.
    fn add_defaults(&mut self) {
        for name in self.interfaces {
            let Some(interface) = self.wit.interface(name) else {
                let known: Vec<&str> = self.wit.interfaces().map(|interface| interface.name.as_str()).collect();
                let hint = format!("interfaces of the WIT: {}", known.join(", "));
                self.problems.report_with_hint(None, format!("the WIT has no interface `{name}`"), hint);
                continue;
            };
            for function in &interface.functions {
                let full = format!("{name}#{}", function.name);
                if self.lines.contains_key(&full) {
                    continue;
                }
                match &function.kind {
                    FunctionKind::Typed(ty) => self.compile((name, &function.name), ty, None),
                    FunctionKind::Opaque(reason) => {
                        let message = format!("function `{full}` cannot be mapped to HTTP: {reason}");
                        self.problems.report_with_hint(None, message, UNSERVED);
                    }
                }
            }
        }
    }

    /// Finds the function that the file names; each may be named once.
    fn claim(&mut self, name: &Located<String>) -> Option<(&'w Interface, &'w Function)> {
        let found = name.value.split_once('#').and_then(|(instance, function)| {
            let interface =
                self.wit.interface(instance).filter(|_| self.interfaces.iter().any(|name| name == instance))?;
            Some((interface, interface.function(function)?))
        });
        let Some(found) = found else {
            let served = self.interfaces.iter().filter_map(|name| self.wit.interface(name));
            let known = served.flat_map(|interface| {
                interface.functions.iter().map(|function| format!("{}#{}", interface.name, function.name))
            });
            let hint = format!("functions: {}", known.collect::<Vec<_>>().join(", "));
            self.problems.report_with_hint(name.line, format!("no interface serves function `{}`", name.value), hint);
            return None;
        };
        if let Some(first) = self.lines.insert(name.value.clone(), name.line) {
            let message = format!("function `{}` is already named in line {first}", name.value);
            self.problems.report(name.line, message);
            return None;
        }
        Some(found)
    }

    fn compile(&mut self, (instance, function): (&str, &str), ty: &FunctionType, entry: Option<&RouteEntry>) {
        let line = entry.map(|entry| entry.line);
        let default = RouteEntry::default();
        let entry = entry.unwrap_or(&default);
        let style = Style::new(&self.style, &entry.style);
        let params = ty.params.iter().map(|(_, ty)| style.naming.rename(ty));
        if let Some(name) = params.chain(ty.result.iter().map(|ty| style.naming.rename(ty))).find_map(Result::err) {
            let message = format!("function `{function}`: {}", shared_name(&name));
            self.problems.report_with_hint(line, message, "look at field_names, case_names and rename");
            return;
        }
        let Some(path) = default_path(instance, function) else {
            let message = format!("`{instance}#{function}` has no default path: it belongs to no interface");
            self.problems.report(line, message);
            return;
        };
        let service_result = ty.result.as_ref().and_then(|ty| style.naming.rename(ty).ok());
        let params = Params::new(ty, &style.naming);
        let mut compiler = Compiler { params, problems: self.problems, line };
        let defaults = Defaults { path, slashes: style.slashes };
        let request = request_plan::compile(&entry.request, defaults, &mut compiler);
        let result = ResultTypes::new(ty.result.as_ref(), service_result.as_ref());
        let reading = (style.unknown, &request.method);
        let answer = answer_plan::compile(&entry.answer, &result, reading, &mut compiler);
        compiler.params.report_unused(line, compiler.problems);
        let route = Route {
            method: request.method,
            target: request.target,
            headers: request.headers,
            mapped_headers: request.mapped_headers,
            body: request.body,
            content_type: request.content_type,
            int64: style.int64,
            answer,
            line,
        };
        self.routes.entry(instance.to_owned()).or_default().insert(function.to_owned(), route);
    }
}

const UNSERVED: &str = "list it in `unserved` at the top of the mapping file to leave it out";

/// `/{namespace}/{package}/{interface}/{function}` of `namespace:package/interface@version`.
fn default_path(instance: &str, function: &str) -> Option<String> {
    let (package, interface) = instance.split_once('/')?;
    let (namespace, package) = package.split_once(':')?;
    let interface = interface.split_once('@').map_or(interface, |(interface, _)| interface);
    Some(format!("/{namespace}/{package}/{interface}/{function}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::fixture::{INSTANCE, mapping, problems, route, told, wit};

    #[test]
    fn every_mistake_is_told_with_its_line() {
        let toml = r#"int64 = "text"
colour = "red"

[[route]]
function = "acme:billing/api@1.0.0#get"
method = "get"
path = "/v1/{idd}/{id}"
query = { q = 3 }

[[route]]
path = "/x"

[[route]]
function = "acme:billing/api@1.0.0#gets"

[[route]]
function = "acme:billing/api@1.0.0#get"
ok = 99
"#;
        let found = told(&mapping("get: func(id: string) -> string;", toml).unwrap_err());
        assert_eq!(
            found,
            "\
1: `int64` cannot be `text` (hint: one of number, string)
2: unknown key `colour` (hint: known keys: int64, unknown_fields, slashes, field_names, case_names, rename, unserved, route)
6: `get` cannot be the method (hint: GET, HEAD, POST, PUT, PATCH, DELETE or another one in upper case, but not CONNECT or TRACE)
7: the function has no parameter `idd` (hint: parameters: id)
8: `q` must be a string, found integer
10: a route must name its function (hint: write function = \"namespace:package/interface@version#function\")
14: no interface serves function `acme:billing/api@1.0.0#gets` (hint: functions: acme:billing/api@1.0.0#get)
17: function `acme:billing/api@1.0.0#get` is already named in line 5
18: `ok` must be made of HTTP statuses from 200 to 599 (hint: a number such as 404, a class such as \"4xx\", or a list of them)"
        );
    }

    #[test]
    fn text_that_is_not_toml_is_told_with_its_line() {
        let found = told(&mapping("f: func();", "a = 1\nb = = 2\n[c").unwrap_err());
        assert!(found.starts_with("2: not TOML: "), "{found}");
        assert!(found.lines().count() >= 2, "{found}");
    }

    #[test]
    fn every_interface_must_exist_and_every_function_be_mappable() {
        let wit = wit("ok: func();\nwatch: func() -> stream<u8>;");
        let interfaces = [INSTANCE.to_owned(), "acme:billing/other@1.0.0".to_owned()];
        let found = told(&Mapping::default_for(&wit, &interfaces).unwrap_err());
        assert!(found.contains("function `acme:billing/api@1.0.0#watch` cannot be mapped to HTTP"), "{found}");
        assert!(found.contains("the WIT has no interface `acme:billing/other@1.0.0`"), "{found}");
        let unserved = "unserved = ['acme:billing/api@1.0.0#watch']";
        let mapping = Mapping::parse("m", unserved, &wit, &interfaces[..1]).unwrap();
        assert!(mapping.route(INSTANCE, "watch").is_none());
        assert!(mapping.route(INSTANCE, "ok").is_some());
        assert_eq!(mapping.routes().count(), 1);
    }

    #[test]
    fn a_function_of_an_interface_that_is_not_served_has_no_route() {
        let text = "package a:b; interface one { f: func(); } interface two { g: func(); }".to_owned();
        let wit = Wit::parse(&[portcullis_value::WitSource { path: "a.wit".to_owned(), text }]).unwrap();
        let toml = "[[route]]\nfunction = 'a:b/two#g'\n";
        let found = told(&Mapping::parse("m", toml, &wit, &["a:b/one".to_owned()]).unwrap_err());
        assert!(found.contains("no interface serves function `a:b/two#g`"), "{found}");
    }

    #[test]
    fn every_parameter_is_used_exactly_once() {
        for (signature, keys, expected) in [
            ("(id: string)", "method = 'GET'\npath = '/x'", "1: parameter `id` is not used"),
            (
                "(id: string)",
                "method = 'GET'\npath = '/{id}'\nquery = { id = '{id}' }",
                "5: parameter `id` is used twice",
            ),
            ("(id: string)", "path = '/{id}'\nbody = 'id'", "4: parameter `id` is used twice"),
            ("(id: string)", "path = '/{id}'\nignore = ['id']", "4: parameter `id` is used twice"),
            (
                "(page: page)",
                "method = 'GET'\nquery = { l = '{page.limit}' }",
                "1: parameter `page.cursor` is not used",
            ),
            (
                "(page: page)",
                "query = { l = '{page.limit}' }\nbody = 'page'",
                "4: parameters `page.limit` and `page` are used, but one is a part of the other",
            ),
            ("(page: page)", "ignore = ['pages']", "3: the function has no parameter `pages`"),
            ("(page: page)", "ignore = ['page.size']", "3: `page.size` does not exist: there is no field `size`"),
            (
                "(id: string)",
                "path = '/{id.x}'",
                "3: `id.x` does not exist: what `x` should be a field of is no record",
            ),
        ] {
            let found = problems(signature, keys);
            assert!(found.lines().any(|line| line.starts_with(expected)), "{keys}: {found}");
        }
    }

    #[test]
    fn what_cannot_stand_in_a_path_is_told() {
        for (signature, path, expected) in [
            ("()", "v1", "the path `v1` must begin with `/`"),
            ("()", "/a//b", "has an empty segment"),
            ("()", "/a/../b", "a segment of dots is not a resource"),
            ("()", "/a/%2e%2E", "a segment of dots is not a resource"),
            ("()", "/a?b=c", "a path has no query and no fragment"),
            ("()", "/a#b", "a path has no query and no fragment"),
            ("()", "/a b", "a character cannot stand in a path"),
            ("()", "/é", "a character cannot stand in a path"),
            ("()", "/%4", "`%` must be followed by two hexadecimal digits"),
            ("()", "/{id", "a `{` has no `}`"),
            ("(id: string)", "/.{id}", "dots alone beside a parameter could become `.` or `..`"),
            ("(id: string)", "/{id}%2E", "dots alone beside a parameter could become `.` or `..`"),
            ("(id: string, b: string)", "/{id}{b}", "one value is filled by one parameter"),
            ("(id: option<string>)", "/{id}", "it is an option, and a segment cannot be left out"),
            ("(id: page)", "/{id}", "is not a scalar"),
            ("(id: list<string>)", "/{id}", "is not a scalar"),
            ("(id: scopes)", "/{id}", "is not a scalar"),
            ("(id: option<invoice>)", "/{id.id}", "it is an option"),
        ] {
            let found = problems(signature, &format!("path = '{path}'"));
            assert!(found.contains(expected) && found.contains("3: "), "{path}: {found}");
        }
        route("(id: string)", "path = '/a;v=1/@{id}~/%7Bx%7D/'");
    }

    #[test]
    fn what_cannot_be_a_query_value_is_told() {
        for (signature, query, expected) in [
            ("(x: page)", "{ q = '{x}' }", "cannot fill query value `q`"),
            ("(x: list<page>)", "{ q = '{x}' }", "cannot fill query value `q`"),
            ("(x: option<list<option<u8>>>)", "{ q = '{x}' }", "cannot fill query value `q`"),
            ("(x: progress)", "{ q = '{x}' }", "cannot fill query value `q`"),
            ("()", "{ '' = 'x' }", "a query key cannot be empty"),
            ("()", "{ q = '{x' }", "query value `q`: a `{` has no `}`"),
            ("()", "'q=1'", "`query` must be a table of strings, found string"),
        ] {
            let found = problems(signature, &format!("method = 'GET'\nquery = {query}"));
            assert!(found.contains(expected), "{query}: {found}");
        }
    }

    #[test]
    fn headers_that_only_configuration_may_decide_are_refused() {
        for (header, expected) in [
            ("Connection = 'close'", "header `connection` cannot be set"),
            ("transfer-encoding = 'chunked'", "header `transfer-encoding` cannot be set"),
            ("content-length = '1'", "header `content-length` cannot be set"),
            ("content_length = '{x}'", "header `content_length` cannot be set"),
            ("host = 'other'", "header `host` cannot be set"),
            ("upgrade = 'h2c'", "header `upgrade` cannot be set"),
            ("te = 'trailers'", "header `te` cannot be set"),
            ("trailer = 'x'", "header `trailer` cannot be set"),
            ("expect = '100-continue'", "header `expect` cannot be set"),
            ("keep-alive = '1'", "header `keep-alive` cannot be set"),
            ("proxy-authorization = '{x}'", "header `proxy-authorization` cannot be set"),
            ("traceparent = '{x}'", "header `traceparent` cannot be set"),
            ("content-type = 'text/xml'", "the content type is not set among the headers"),
            ("x-http-method-override = '{x}'", "cannot be filled with a parameter: services take the method from it"),
            ("x-original-url = '{x}'", "cannot be filled with a parameter: services take the path from it"),
            ("x-forwarded-host = '{x}'", "cannot be filled with a parameter: services take the authority from it"),
            ("cookie = 's={x}'", "cannot be filled with a parameter: it is a list of pairs"),
            ("authorization = 'Bearer abc'", "a secret does not belong into the mapping"),
            ("'x y' = '1'", "`x y` is not a header name"),
            ("x = ''", "header `x` must have a value"),
            ("x = ' a'", "header `x` must have a value"),
            ("x = 'é{x}'", "header `x` can only hold visible ASCII and spaces"),
            ("x-a = '1', x_a = '2'", "header `x_a` is set twice"),
        ] {
            let found = problems("(x: string)", &format!("path = '/'\nheaders = {{ {header} }}"));
            assert!(found.contains(expected) && found.contains("4: "), "{header}: {found}");
        }
        let found = problems("(x: list<string>)", "headers = { x = '{x}' }");
        assert!(found.contains("cannot fill header `x`: its type is `list<string>`"), "{found}");
        route("(x: string)", "headers = { x-http-method-override = 'PATCH', cookie = 'a=b', x = '{x}' }");
    }

    #[test]
    fn bodies_that_cannot_be_are_told() {
        for (signature, keys, expected) in [
            ("(x: string)", "method = 'GET'\nbody = 'x'", "a GET request has no body"),
            ("(x: string)", "body = 'y'", "the function has no parameter `y`"),
            ("(x: page)", "body = 'x.limit'", "it is made of whole parameters"),
            ("(x: page)", "body = true", "`body` cannot be of type boolean"),
            ("(x: page)", "body = 'x'\nbody_as = 'xml'", "`body_as` cannot be `xml`"),
            ("(x: page)", "body = 'x'\nbody_as = 'text'", "it must be a scalar or an option of it"),
            ("(x: string)", "body = 'x'\nbody_as = 'bytes'", "it must be list<u8> or an option of it"),
            ("(x: string)", "body = ['x']\nbody_as = 'text'", "is made of exactly one parameter"),
            ("(x: string)", "body = 'x'\nbody_as = 'form'", "it must be a record"),
            ("(x: progress)", "body = ['x']\nbody_as = 'form'", "cannot be a field of a form"),
            ("(x: string)", "body = 'x'\ncontent_type = 'xml'", "`xml` is not a content type"),
            ("(x: string)", "path = '/{x}'\nbody_as = 'json'", "the request has no body that this could describe"),
            (
                "(a: string, b: string)",
                "body = '*'\nrename = { a = 'b' }",
                "two members of the body would both be called `b`",
            ),
            (
                "(x: page)",
                "rename = { limit = 'cursor' }",
                "two fields or cases of one type would both be called `cursor`",
            ),
        ] {
            let found = problems(signature, keys);
            assert!(found.contains(expected), "{keys}: {found}");
        }
    }

    #[test]
    fn errors_that_the_wit_has_no_place_for_are_told() {
        for (signature, keys, expected) in [
            ("() -> string", "errors = [{ status = 404 }]", "`errors` needs a function that returns a `result`"),
            (
                "() -> result<string, failure>",
                "errors = [{ status = 404, arm = 'missing' }]",
                "there is no arm `missing` (hint: arms: not-found, rejected, conflict, busy)",
            ),
            (
                "() -> result<string, failure>",
                "errors = [{ status = 404, arm = 'not-found', value = '/x' }]",
                "this case has no value",
            ),
            (
                "() -> result<string, failure>",
                "errors = [{ status = 404, arm = 'conflict', value_as = 'text' }]",
                "`value_as` does not fit",
            ),
            (
                "() -> result<string, state>",
                "errors = [{ status = 404, arm = 'paid', value_as = 'json' }]",
                "a case of an enum has no value",
            ),
            (
                "() -> result<string>",
                "errors = [{ status = 404, arm = 'x' }]",
                "the `err` arm of the function has no cases",
            ),
            (
                "() -> result<string>",
                "errors = [{ status = 404, value = '/x' }]",
                "the `err` arm of the function has no value",
            ),
            ("() -> result<string, string>", "errors = [{ status = 404, arm = 'x' }]", "`string` has no arm `x`"),
            ("() -> result<string, string>", "errors = [{ equals = 'x' }]", "`equals` needs a `pointer`"),
            ("() -> result<string, string>", "errors = [{ pointer = 'x' }]", "`x` is not a JSON pointer"),
            ("() -> result<string, string>", "errors = [{ pointer = '/~2' }]", "`/~2` is not a JSON pointer"),
            (
                "() -> result<string, string>",
                "errors = [{ pointer = '/a', equals = [1] }]",
                "`equals` must be a string, a number or a boolean",
            ),
            (
                "() -> result<string, string>",
                "ok = [200]\nerrors = [{ status = '2xx' }]",
                "a status is listed in `ok` and is an error without a condition",
            ),
        ] {
            let found = problems(signature, keys);
            assert!(found.contains(expected), "{keys}: {found}");
        }
    }

    #[test]
    fn results_that_the_wit_has_no_place_for_are_told() {
        for (signature, keys, expected) in [
            ("() -> result<string, string>", "errors = [{ stats = 404 }]", "unknown key `stats`"),
            ("() -> string", "cases = [{ status = 404, arm = 'x' }]", "`string` has no arm `x`"),
            ("() -> bool", "cases = [{ status = 404 }]", "an element of `cases` must name its `arm`"),
            (
                "() -> bool",
                "cases = [{ status = 404, arm = 'maybe' }]",
                "there is no arm `maybe` (hint: arms: true, false)",
            ),
            ("()", "cases = [{ status = 404, arm = 'x' }]", "`cases` needs a function whose successful result"),
            ("()", "result = '/x'", "the function has no successful result"),
            ("()", "result_as = 'json'", "the function has no successful result"),
            ("() -> u8", "result_as = 'text'", "`result_as` does not fit `u8`: only a string"),
            ("() -> string", "result_as = 'bytes'", "`result_as` does not fit `string`: only list<u8>"),
            ("() -> list<u8>", "result_as = 'bytes'\nresult = '/x'", "bytes are the whole body"),
            ("() -> string", "none = 404", "`none` needs a function that returns an option"),
            ("() -> string", "method = 'HEAD'", "the answer to HEAD has no body"),
            ("() -> string", "ok = '3x'", "`ok` must be made of HTTP statuses"),
        ] {
            let found = problems(signature, keys);
            assert!(found.contains(expected), "{keys}: {found}");
        }
    }

    /// The fenced blocks of the reference in one language.
    fn blocks(language: &str) -> Vec<&'static str> {
        let reference = include_str!("../../MAPPING.md");
        let opening = format!("```{language}\n");
        reference.split(opening.as_str()).skip(1).filter_map(|rest| Some(rest.split_once("```")?.0)).collect()
    }

    #[test]
    fn every_example_of_the_reference_is_a_mapping() {
        let text = blocks("wit").concat();
        let wit = Wit::parse(&[portcullis_value::WitSource { path: "billing.wit".to_owned(), text }]).unwrap();
        let interfaces = ["acme:billing/invoices@1.0.0".to_owned()];
        let examples = blocks("toml");
        assert_eq!(examples.len(), 3);
        for example in examples {
            let mapping = Mapping::parse("MAPPING.md", example, &wit, &interfaces);
            let mapping = mapping.unwrap_or_else(|problems| panic!("{}", told(&problems)));
            let named = example.matches("[[route]]").count();
            assert_eq!(mapping.routes().filter(|(_, _, route)| route.line().is_some()).count(), named);
        }
    }

    #[test]
    fn every_key_stands_in_the_reference() {
        let reference = include_str!("../../MAPPING.md");
        let unknown = told(
            &mapping(
                "f: func() -> result<_, string>;",
                "x = 1\n[[route]]\nfunction = 'acme:billing/api@1.0.0#f'\nx = 1\nerrors = [{ x = 1 }]",
            )
            .unwrap_err(),
        );
        let keys: Vec<&str> =
            unknown.lines().filter_map(|line| line.split_once("known keys: ")?.1.strip_suffix(')')).collect();
        assert_eq!(keys.len(), 3, "{unknown}");
        for key in keys.iter().flat_map(|keys| keys.split(", ")) {
            assert!(
                reference.contains(&format!("`{key}`")) || reference.contains(&format!("\n{key} = ")) || key == "route",
                "{key}"
            );
        }
    }

    #[test]
    fn a_problem_shows_file_line_message_and_hint() {
        let mut problem =
            MappingProblem { file: "m.toml".to_owned(), line: Some(3), message: "no".to_owned(), hint: None };
        assert_eq!(problem.to_string(), "m.toml:3: no");
        problem.hint = Some("yes".to_owned());
        problem.line = None;
        assert_eq!(problem.to_string(), "m.toml: no (hint: yes)");
    }
}
