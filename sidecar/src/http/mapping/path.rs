//! Path templates: `/v1/invoices/{id}`.

use percent_encoding::percent_decode_str;

use super::compiler::Compiler;
use super::problem::Located;
use super::template::Template;
use crate::http::route::slot::Presence;
use crate::http::route::target::PathPiece;
use crate::http::route::text::Form;

/// Compiles a path template. What is not a parameter is sent as it is written.
pub(super) fn compile(written: &Located<String>, compiler: &mut Compiler<'_, '_>) -> Vec<PathPiece> {
    let mut pieces = Vec::new();
    let mut constant = String::new();
    let line = written.line;
    let Some(rest) = written.value.strip_prefix('/') else {
        compiler.report(line, format!("the path `{}` must begin with `/`", written.value));
        return pieces;
    };
    let segments: Vec<&str> = rest.split('/').collect();
    for (position, segment) in segments.iter().enumerate() {
        constant.push('/');
        if segment.is_empty() && position + 1 < segments.len() {
            compiler.report(line, format!("the path `{}` has an empty segment", written.value));
            continue;
        }
        let template = match read_segment(segment) {
            Ok(template) => template,
            Err((message, hint)) => {
                compiler.report_with_hint(line, format!("path segment `{segment}`: {message}"), hint);
                continue;
            }
        };
        constant.push_str(&template.prefix);
        if let Some(parameter) = template.parameter {
            pieces.push(PathPiece::Constant(std::mem::take(&mut constant)));
            pieces.extend(slot(&Located { value: parameter, line }, compiler));
        }
        constant.push_str(&template.suffix);
    }
    if !constant.is_empty() {
        pieces.push(PathPiece::Constant(constant));
    }
    pieces
}

fn slot(parameter: &Located<String>, compiler: &mut Compiler<'_, '_>) -> Option<PathPiece> {
    let slot = compiler.take(parameter)?;
    let name = &parameter.value;
    if slot.presence == Presence::Optional {
        let message =
            format!("parameter `{name}` cannot fill a path segment: it is an option, and a segment cannot be left out");
        compiler.report_with_hint(parameter.line, message, "put it into query or headers");
        return None;
    }
    if Form::of(&slot.ty) != Some(Form::Scalar) {
        let message = format!("parameter `{name}` cannot fill a path segment: `{}` is not a scalar", slot.ty);
        compiler.report_with_hint(parameter.line, message, SCALARS);
        return None;
    }
    Some(PathPiece::Slot(slot))
}

/// What a scalar is, for hints.
pub(super) const SCALARS: &str =
    "scalars are bool, numbers, char, string, enums and list<u8>; `{param.field}` reaches into a record";

fn read_segment(segment: &str) -> Result<Template, (&'static str, &'static str)> {
    let template = Template::parse(segment).map_err(|message| (message, "write a literal brace as %7B or %7D"))?;
    for constant in [&template.prefix, &template.suffix] {
        check_constant(constant)?;
    }
    let is_dots = |text: &str| {
        let decoded: Vec<u8> = percent_decode_str(text).collect();
        !decoded.is_empty() && decoded.iter().all(|byte| *byte == b'.')
    };
    if template.parameter.is_none() && is_dots(&template.prefix) {
        return Err(("a segment of dots is not a resource", "write the path without it"));
    }
    if template.parameter.is_some() && (is_dots(&template.prefix) || is_dots(&template.suffix)) {
        return Err(("dots alone beside a parameter could become `.` or `..`", "use another constant, or none"));
    }
    Ok(template)
}

/// RFC 3986 §3.3: `pchar` and nothing else.
fn check_constant(constant: &str) -> Result<(), (&'static str, &'static str)> {
    let mut bytes = constant.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => {}
            b'-' | b'.' | b'_' | b'~' | b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'='
            | b':' | b'@' => {}
            b'%' => {
                let is_hex = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_hexdigit());
                if !(is_hex(bytes.next()) && is_hex(bytes.next())) {
                    return Err((
                        "`%` must be followed by two hexadecimal digits",
                        "write a literal percent sign as %25",
                    ));
                }
            }
            b'?' | b'#' => {
                return Err(("a path has no query and no fragment", "write query = { key = \"value\" }"));
            }
            _ => return Err(("a character cannot stand in a path", "percent-encode it")),
        }
    }
    Ok(())
}
