//! placeholder

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
        Ok(Self {
            file: file.to_owned(),
            routes,
        })
    }

    /// The route of a function by its wRPC instance and function name; `None` where the component does not serve it.
    #[must_use]
    pub fn route(&self, instance: &str, function: &str) -> Option<&Route> {
        self.routes.get(instance)?.get(function)
    }

    /// Every instance, function and route, in no order.
    pub fn routes(&self) -> impl Iterator<Item = (&str, &str, &Route)> {
        self.routes.iter().flat_map(|(instance, functions)| {
            functions
                .iter()
                .map(move |(function, route)| (instance.as_str(), function.as_str(), route))
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
            self.problems
                .report_with_hint(entry.line, "a route must name its function", hint);
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
                self.problems
                    .report_with_hint(None, format!("the WIT has no interface `{name}`"), hint);
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
            let interface = self
                .wit
                .interface(instance)
                .filter(|_| self.interfaces.iter().any(|name| name == instance))?;
            Some((interface, interface.function(function)?))
        });
        let Some(found) = found else {
            let served = self.interfaces.iter().filter_map(|name| self.wit.interface(name));
            let known = served.flat_map(|interface| {
                interface
                    .functions
                    .iter()
                    .map(|function| format!("{}#{}", interface.name, function.name))
            });
            let hint = format!("functions: {}", known.collect::<Vec<_>>().join(", "));
            self.problems.report_with_hint(
                name.line,
                format!("no interface serves function `{}`", name.value),
                hint,
            );
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
        if let Some(name) = params
            .chain(ty.result.iter().map(|ty| style.naming.rename(ty)))
            .find_map(Result::err)
        {
            let message = format!("function `{function}`: {}", shared_name(&name));
            self.problems
                .report_with_hint(line, message, "look at field_names, case_names and rename");
            return;
        }
        let Some(path) = default_path(instance, function) else {
            let message = format!("`{instance}#{function}` has no default path: it belongs to no interface");
            self.problems.report(line, message);
            return;
        };
        let service_result = ty.result.as_ref().and_then(|ty| style.naming.rename(ty).ok());
        let params = Params::new(ty, &style.naming);
        let mut compiler = Compiler {
            params,
            problems: self.problems,
            line,
        };
        let defaults = Defaults {
            path,
            slashes: style.slashes,
        };
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
        self.routes
            .entry(instance.to_owned())
            .or_default()
            .insert(function.to_owned(), route);
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
