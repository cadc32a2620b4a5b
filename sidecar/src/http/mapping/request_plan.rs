//! The request side of a route: what the file says, checked against the WIT and the rules of HTTP.

use http::{HeaderMap, HeaderValue, Method};

use super::body_plan;
use super::compiler::Compiler;
use super::document::RequestEntry;
use super::headers::Headers;
use super::path::{self, SCALARS};
use super::problem::Located;
use super::template::Template;
use crate::http::route::body::BodyPlan;
use crate::http::route::mapped_header::MappedHeader;
use crate::http::route::target::{Pair, PairValue, PathPiece, Slashes, Target};
use crate::http::route::text::{Form, encoded};

/// What is sent for a call.
#[derive(Debug)]
pub(super) struct RequestPlan {
    pub(super) method: Method,
    pub(super) target: Target,
    pub(super) headers: HeaderMap,
    pub(super) mapped_headers: Vec<MappedHeader>,
    pub(super) body: BodyPlan,
    pub(super) content_type: Option<HeaderValue>,
}

/// What a request is where its route says nothing.
#[derive(Debug)]
pub(super) struct Defaults {
    pub(super) path: String,
    pub(super) slashes: Slashes,
}

/// Compiles the request side. Parameters are taken in the order path, query, headers, ignore, body, so that the body can be the rest.
pub(super) fn compile(entry: &RequestEntry, defaults: Defaults, compiler: &mut Compiler<'_, '_>) -> RequestPlan {
    let method = method(entry.method.as_ref(), compiler);
    let path = match &entry.path {
        Some(written) => path::compile(written, compiler),
        None => vec![PathPiece::Constant(defaults.path)],
    };
    let query = entry.query.iter().filter_map(|(key, value)| pair(key, value, compiler)).collect();
    let mut headers = Headers::default();
    for (name, value) in &entry.headers {
        headers.add(name, value, compiler);
    }
    for ignored in &entry.ignore {
        compiler.take(ignored);
    }
    let (body, content_type) = body_plan::compile(&method, entry, compiler);
    let target = Target { path, query, slashes: defaults.slashes };
    RequestPlan { method, target, headers: headers.constant, mapped_headers: headers.mapped, body, content_type }
}

/// Any method but those that make another protocol of the connection or send the request back.
fn method(written: Option<&Located<String>>, compiler: &mut Compiler<'_, '_>) -> Method {
    let Some(written) = written else { return Method::POST };
    let method = Method::from_bytes(written.value.as_bytes()).ok();
    let upper_case = !written.value.bytes().any(|byte| byte.is_ascii_lowercase());
    match method.filter(|method| upper_case && *method != Method::CONNECT && *method != Method::TRACE) {
        Some(method) => method,
        None => {
            compiler.report_with_hint(
                written.line,
                format!("`{}` cannot be the method", written.value),
                "GET, HEAD, POST, PUT, PATCH, DELETE or another one in upper case, but not CONNECT or TRACE",
            );
            Method::POST
        }
    }
}

fn pair(key: &Located<String>, value: &Located<String>, compiler: &mut Compiler<'_, '_>) -> Option<Pair> {
    let name = &key.value;
    if name.is_empty() {
        compiler.report(key.line, "a query key cannot be empty");
    }
    let template = template(&format!("query value `{name}`"), value, compiler)?;
    let (prefix, suffix) = (encoded(&template.prefix), encoded(&template.suffix));
    let value = match template.parameter {
        None => PairValue::Constant(prefix),
        Some(parameter) => {
            let slot = compiler.take(&Located { value: parameter, line: value.line })?;
            let Some(form) = Form::of(slot.inner()) else {
                compiler.report_with_hint(
                    value.line,
                    format!("parameter `{}` cannot fill query value `{name}`: its type is `{}`", slot.label, slot.ty),
                    format!("a query value is a scalar, a list of scalars or flags, or an option of these; {SCALARS}"),
                );
                return None;
            };
            PairValue::Slot { slot, form, prefix, suffix }
        }
    };
    Some(Pair { name: name.clone(), key: encoded(name) + "=", value })
}

/// Reads the template of a query value or a header.
pub(super) fn template(place: &str, value: &Located<String>, compiler: &mut Compiler<'_, '_>) -> Option<Template> {
    match Template::parse(&value.value) {
        Ok(template) => Some(template),
        Err(message) => {
            let hint = "write a literal brace as {{ or }}";
            compiler.report_with_hint(value.line, format!("{place}: {message}"), hint);
            None
        }
    }
}
