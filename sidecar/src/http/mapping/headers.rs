//! The headers of a route.

use http::{HeaderMap, HeaderName, HeaderValue, header};

use super::compiler::Compiler;
use super::header_names::{constant_only, forbidden, same};
use super::path::SCALARS;
use super::problem::Located;
use super::request_plan::template;
use super::template::Template;
use crate::http::route::mapped_header::MappedHeader;
use crate::http::route::text::Form;

/// The headers of one route, as far as they are read.
#[derive(Debug, Default)]
pub(super) struct Headers {
    pub(super) constant: HeaderMap,
    pub(super) mapped: Vec<MappedHeader>,
}

impl Headers {
    /// Adds a header, or reports why it cannot be set.
    pub(super) fn add(&mut self, name: &Located<String>, value: &Located<String>, compiler: &mut Compiler<'_, '_>) {
        let Some(name) = self.name(name, compiler) else { return };
        let Some(template) = template(&format!("header `{name}`"), value, compiler) else {
            return;
        };
        let constants = [&template.prefix, &template.suffix];
        if !constants.iter().all(|constant| constant.bytes().all(|byte| matches!(byte, b' '..=b'~'))) {
            compiler.report(value.line, format!("header `{name}` can only hold visible ASCII and spaces"));
            return;
        }
        if template.parameter.is_some() {
            self.add_mapped(name, template, (value.line, compiler));
        } else {
            self.add_constant(name, &template.prefix, (value.line, compiler));
        }
    }

    fn name(&self, written: &Located<String>, compiler: &mut Compiler<'_, '_>) -> Option<HeaderName> {
        let Ok(name) = HeaderName::try_from(written.value.as_str()) else {
            compiler.report(written.line, format!("`{}` is not a header name", written.value));
            return None;
        };
        if let Some(reason) = forbidden(&name) {
            compiler.report(written.line, format!("header `{name}` cannot be set: {reason}"));
            return None;
        }
        if name == header::CONTENT_TYPE {
            let hint = "write content_type = \"...\"";
            compiler.report_with_hint(written.line, "the content type is not set among the headers", hint);
            return None;
        }
        let mapped = self.mapped.iter().map(|header| &header.name);
        if self.constant.keys().chain(mapped).any(|other| same(other, &name)) {
            compiler.report(written.line, format!("header `{name}` is set twice"));
            return None;
        }
        Some(name)
    }

    fn add_constant(&mut self, name: HeaderName, value: &str, (line, compiler): (usize, &mut Compiler<'_, '_>)) {
        if name == header::AUTHORIZATION {
            let hint = "put it into a file of mode 0600 and name it in the upstream's credentials_file";
            compiler.report_with_hint(line, "a secret does not belong into the mapping", hint);
            return;
        }
        let proper = !value.is_empty() && !value.starts_with(' ') && !value.ends_with(' ');
        match HeaderValue::from_str(value).ok().filter(|_| proper) {
            Some(value) => {
                self.constant.insert(name, value);
            }
            None => {
                let message = format!("header `{name}` must have a value that neither begins nor ends with a space");
                compiler.report(line, message);
            }
        }
    }

    fn add_mapped(&mut self, name: HeaderName, template: Template, (line, compiler): (usize, &mut Compiler<'_, '_>)) {
        let Template { prefix, parameter, suffix } = template;
        let parameter = Located { value: parameter.unwrap_or_default(), line };
        let Some(slot) = compiler.take(&parameter) else { return };
        if let Some(reason) = constant_only(&name) {
            compiler.report(line, format!("header `{name}` cannot be filled with a parameter: {reason}"));
            return;
        }
        let Some(form @ (Form::Scalar | Form::Flags)) = Form::of(slot.inner()) else {
            compiler.report_with_hint(
                line,
                format!("parameter `{}` cannot fill header `{name}`: its type is `{}`", slot.label, slot.ty),
                format!("a header value is a scalar or flags, or an option of these; {SCALARS}"),
            );
            return;
        };
        self.mapped.push(MappedHeader { name, slot, form, prefix, suffix });
    }
}
