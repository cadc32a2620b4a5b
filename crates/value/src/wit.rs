//! WIT sources to the types of functions.
//!
//! A function whose type holds anything but values (a resource, a stream, a future, an error-context, a map, a list of fixed
//! length) is [`FunctionKind::Opaque`]: its calls can be passed on but not read.

mod compile;

use std::collections::HashMap;

use wit_parser::{Resolve, SourceMap, Span, UnresolvedPackageGroup};

use crate::FunctionType;

/// One WIT file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WitSource {
    /// Relative to the WIT folder, with `/`: `NAME.wit` belongs to the package itself, `deps/NAME.wit` and `deps/NAME/FILE.wit` to
    /// one it depends on.
    pub path: String,
    /// The text of the file.
    pub text: String,
}

/// WIT sources that could not be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {message}", location(file, *line))]
pub struct InvalidWit {
    /// The path of the source; `.` where the fault is in no single file.
    pub file: String,
    /// Counted from 1; 0 where the fault is in no single line.
    pub line: usize,
    /// What is wrong.
    pub message: String,
}

fn location(file: &str, line: usize) -> String {
    if line == 0 { file.to_owned() } else { format!("{file}:{line}") }
}

impl InvalidWit {
    fn whole(file: &str, message: impl Into<String>) -> Self {
        Self { file: file.to_owned(), line: 0, message: message.into() }
    }

    fn spanned(sources: &SourceMap, span: Span, message: impl Into<String>) -> Self {
        let place = sources.render_location(span);
        let mut parts = place.rsplitn(3, ':');
        let _column = parts.next();
        let line = parts.next().and_then(|line| line.parse().ok()).unwrap_or(0);
        Self { file: parts.next().unwrap_or(".").to_owned(), line, message: message.into() }
    }
}

/// The interfaces that WIT sources offer.
#[derive(Debug, Clone)]
pub struct Wit {
    package: String,
    interfaces: Vec<Interface>,
    index: HashMap<String, (usize, HashMap<String, usize>)>,
}

/// An interface: one wRPC instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// The wRPC instance name, `ns:pkg/iface@version`; empty for functions that a world exports itself.
    pub name: String,
    /// The doc comment.
    pub docs: Option<String>,
    /// The functions in the order of the WIT.
    pub functions: Vec<Function>,
}

/// A function of an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Function {
    /// The wRPC name: `f`; `r` for the constructor of the resource `r`, `r.m` for its methods and static functions.
    pub name: String,
    /// Its type.
    pub kind: FunctionKind,
    /// Where its calls go on after their plain values.
    pub streams: Streams,
    /// The doc comment.
    pub docs: Option<String>,
}

/// Whether a function has streams or futures, which cross beside the plain values.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Streams {
    /// Among its parameters.
    pub in_params: bool,
    /// In its result.
    pub in_result: bool,
    /// The paths of those in its result, but for those in lists and in other streams, whose number no type says; at most 64.
    pub result_paths: Vec<Vec<u32>>,
}

/// Whether the calls of a function can be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FunctionKind {
    /// Parameters and result are values.
    Typed(FunctionType),
    /// They are not, for this reason.
    Opaque(String),
}

impl Function {
    /// The type, where the function has one that can be read.
    #[must_use]
    pub const fn typed(&self) -> Option<&FunctionType> {
        match &self.kind {
            FunctionKind::Typed(ty) => Some(ty),
            FunctionKind::Opaque(_) => None,
        }
    }
}

impl Interface {
    /// A function by its wRPC name.
    #[must_use]
    pub fn function(&self, name: &str) -> Option<&Function> {
        self.functions.iter().find(|function| function.name == name)
    }
}

impl Wit {
    /// Parses a package and the packages it depends on.
    ///
    /// The interfaces are those that its worlds export, in the order of the WIT; where none exports any, all of the package.
    ///
    /// # Errors
    /// The first mistake that is found, with its place.
    pub fn parse(sources: &[WitSource]) -> Result<Self, InvalidWit> {
        let groups = Groups::sort(sources)?;
        let main = parse_group(&groups.main)?;
        let deps = groups.deps.iter().map(|(_, files)| parse_group(files)).collect::<Result<Vec<_>, _>>()?;
        let mut resolve = Resolve::new();
        let package = resolve
            .push_groups(main, deps)
            .map_err(|error| InvalidWit::spanned(&resolve.source_map, error.kind().span(), error.to_string()))?;
        Ok(Self::index(compile::package_name(&resolve, package), compile::interfaces(&resolve, package)))
    }

    fn index(package: String, interfaces: Vec<Interface>) -> Self {
        let index = interfaces.iter().enumerate().map(|(position, interface)| {
            let functions = interface.functions.iter().enumerate();
            let functions = functions.map(|(position, function)| (function.name.clone(), position)).collect();
            (interface.name.clone(), (position, functions))
        });
        Self { package, index: index.collect(), interfaces }
    }

    /// The name of the package: `ns:pkg@version`.
    #[must_use]
    pub fn package(&self) -> &str {
        &self.package
    }

    /// The interfaces in the order of the WIT.
    pub fn interfaces(&self) -> impl ExactSizeIterator<Item = &Interface> {
        self.interfaces.iter()
    }

    /// An interface by its wRPC instance name.
    #[must_use]
    pub fn interface(&self, name: &str) -> Option<&Interface> {
        self.index.get(name).and_then(|(position, _)| self.interfaces.get(*position))
    }

    /// A function by its wRPC instance and function name.
    #[must_use]
    pub fn function(&self, instance: &str, function: &str) -> Option<&Function> {
        let (position, functions) = self.index.get(instance)?;
        self.interfaces.get(*position)?.functions.get(*functions.get(function)?)
    }
}

/// The sources by package.
struct Groups<'s> {
    main: Vec<&'s WitSource>,
    deps: Vec<(&'s str, Vec<&'s WitSource>)>,
}

impl<'s> Groups<'s> {
    fn sort(sources: &'s [WitSource]) -> Result<Self, InvalidWit> {
        const LARGEST: usize = 16 << 20; // bytes: the parser counts positions in 32 bits
        if sources.iter().map(|source| source.text.len()).sum::<usize>() > LARGEST {
            return Err(InvalidWit::whole(".", format!("the files are larger than {LARGEST} bytes together")));
        }
        let mut groups = Self { main: Vec::new(), deps: Vec::new() };
        for source in sources {
            groups.add(source)?;
        }
        if groups.main.is_empty() {
            return Err(InvalidWit::whole(".", "no `.wit` file stands in the folder itself"));
        }
        Ok(groups)
    }

    fn add(&mut self, source: &'s WitSource) -> Result<(), InvalidWit> {
        let path = source.path.strip_prefix("./").unwrap_or(&source.path);
        let parts = path.split('/').collect::<Vec<_>>();
        let proper = path.ends_with(".wit") && parts.iter().all(|part| !matches!(*part, "" | "." | ".." | ".wit"));
        match *parts.as_slice() {
            [_] if proper => self.main.push(source),
            ["deps", name] | ["deps", name, _] if proper => {
                match self.deps.iter_mut().find(|(dependency, _)| *dependency == name) {
                    Some((_, files)) => files.push(source),
                    None => self.deps.push((name, vec![source])),
                }
            }
            _ => {
                let hint = "expected `NAME.wit`, `deps/NAME.wit` or `deps/NAME/FILE.wit`";
                return Err(InvalidWit::whole(&source.path, hint));
            }
        }
        Ok(())
    }
}

fn parse_group(files: &[&WitSource]) -> Result<UnresolvedPackageGroup, InvalidWit> {
    let mut map = SourceMap::new();
    for file in files {
        map.push_str(&file.path, file.text.as_str());
    }
    map.parse().map_err(|(map, error)| InvalidWit::spanned(&map, error.kind().span(), error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::{FunctionKind, InvalidWit, Streams, Wit, WitSource};
    use crate::Type;

    fn sources(files: &[(&str, &str)]) -> Vec<WitSource> {
        files.iter().map(|(path, text)| WitSource { path: (*path).to_owned(), text: (*text).to_owned() }).collect()
    }

    fn parse(files: &[(&str, &str)]) -> Wit {
        Wit::parse(&sources(files)).unwrap()
    }

    fn refusal(files: &[(&str, &str)]) -> InvalidWit {
        Wit::parse(&sources(files)).unwrap_err()
    }

    fn names(wit: &Wit) -> Vec<&str> {
        wit.interfaces().map(|interface| interface.name.as_str()).collect()
    }

    fn kind(body: &str, name: &str) -> FunctionKind {
        let wit = parse(&[("i.wit", &format!("package a:b; interface i {{ {body} }}"))]);
        wit.function("a:b/i", name).unwrap_or_else(|| panic!("no `{name}`")).kind.clone()
    }

    fn shown(body: &str, name: &str) -> String {
        match kind(body, name) {
            FunctionKind::Typed(ty) => ty.to_string(),
            FunctionKind::Opaque(reason) => format!("opaque: {reason}"),
        }
    }

    const BILLING: &str = "
        package acme:billing@1.0.0;

        /// Invoices.
        interface invoices {
            use money:types/money@0.2.0.{amount as sum};
            type id = u64;
            record invoice { id: id, total: sum }
            /// Gets one.
            /// By its number.
            get: func(id: id) -> result<invoice, string>;
        }
        interface audit { log: func(line: string); }
        world service { export invoices; }
    ";
    const MONEY: &str = "
        package money:types@0.2.0;
        interface money { record amount { cents: s64, currency: list<char> } }
    ";

    #[test]
    fn names_documentation_and_aliases_across_packages() {
        let wit = parse(&[("billing.wit", BILLING), ("deps/money.wit", MONEY)]);
        assert_eq!(wit.package(), "acme:billing@1.0.0");
        assert_eq!(names(&wit), ["acme:billing/invoices@1.0.0"]);
        let interface = wit.interface("acme:billing/invoices@1.0.0").unwrap();
        assert_eq!(interface.docs.as_deref(), Some("Invoices."));
        let get = wit.function("acme:billing/invoices@1.0.0", "get").unwrap();
        assert_eq!(interface.function("get"), Some(get));
        assert_eq!(get.docs.as_deref(), Some("Gets one.\nBy its number."));
        assert_eq!(
            get.typed().unwrap().to_string(),
            "func(id: u64) -> result<record { id: u64, total: record { cents: s64, currency: list<char> } }, string>"
        );
        assert_eq!(wit.function("acme:billing/invoices@1.0.0", "put"), None);
        assert_eq!(wit.function("acme:billing/invoices", "get"), None);
    }

    #[test]
    fn a_dependency_may_be_a_folder_and_a_package_several_files() {
        let wit = parse(&[
            ("deps/money/more.wit", "package money:types@0.2.0; interface more {}"),
            ("./billing.wit", BILLING),
            ("deps/money/types.wit", MONEY),
            ("extra.wit", "package acme:billing@1.0.0; interface extra { f: func(); } world w { export extra; }"),
        ]);
        assert_eq!(names(&wit).len(), 2);
    }

    #[test]
    fn without_an_exporting_world_every_interface_counts() {
        let wit = parse(&[("i.wit", "package a:b; interface x { f: func(); } interface y { g: func(); }")]);
        assert_eq!(names(&wit), ["a:b/x", "a:b/y"]);
        let wit = parse(&[("i.wit", "package a:b; interface x { f: func(); } world w { import x; }")]);
        assert_eq!(names(&wit), ["a:b/x"]);
    }

    #[test]
    fn what_a_world_exports_itself_has_its_own_instance() {
        let text = "package a:b;
            world one { export run: func(a: u8); export inner: interface { f: func(); } }
            world two { export run: func(a: u8); export stop: func(); }
            world three { export stop: func(now: bool); }";
        let wit = parse(&[("w.wit", text)]);
        assert_eq!(names(&wit), ["", "inner"]);
        assert!(wit.function("", "run").unwrap().typed().is_some());
        let FunctionKind::Opaque(reason) = &wit.function("", "stop").unwrap().kind else { panic!("typed") };
        assert_eq!(reason, "two worlds export it with different types");
    }

    #[test]
    fn streams_are_found_wherever_they_are() {
        let body = "
            record holder { deep: list<option<tuple<u8, stream<u8>>>> }
            variant either { none, some(later) }
            type later = future<result<list<string>, u8>>;
            resource r { m: func() -> stream<u8>; }
            a: func(x: holder) -> u8;
            b: func(x: u8) -> result<either, u8>;
            c: func(x: stream<u8>) -> stream<u8>;
            d: func(x: list<u8>) -> result<own<r>>;
            record found { a: u8, b: option<stream<stream<u8>>>, c: tuple<u8, later> }
            e: func() -> result<found, string>;
            f: func() -> list<stream<u8>>;
        ";
        let wit = parse(&[("s.wit", &format!("package a:b; interface c {{ {body} }}"))]);
        let paths = |paths: &[&[u32]]| paths.iter().map(|path| path.to_vec()).collect::<Vec<_>>();
        for (name, in_params, in_result, result_paths) in [
            ("a", true, false, paths(&[])),
            ("b", false, true, paths(&[&[0]])),
            ("c", true, true, paths(&[&[0]])),
            ("d", false, false, paths(&[])),
            ("e", false, true, paths(&[&[0, 1], &[0, 2, 1]])),
            ("f", false, true, paths(&[])),
            ("r.m", false, true, paths(&[&[0]])),
        ] {
            let function = wit.function("a:b/c", name).unwrap();
            assert_eq!(function.streams, Streams { in_params, in_result, result_paths }, "{name}");
        }
    }

    #[test]
    fn a_function_that_holds_more_than_values_is_opaque_and_its_neighbours_are_not() {
        let body = "
            resource r { constructor(a: u8); m: func(b: u8); s: static func(c: u8) -> u8; }
            record holder { deep: list<option<borrowed>> }
            type borrowed = own<r>;
            a: func(x: holder);
            b: func() -> stream<u8>;
            c: func(ok: u8, x: future<string>);
            d: func() -> result<_, error-context>;
            e: func(x: map<string, u8>);
            f: func(x: list<u8, 4>);
            g: async func(x: list<u8>) -> u8;
        ";
        for (name, expected) in [
            ("r", "opaque: the result is or holds a resource"),
            ("r.m", "opaque: parameter `self` is or holds a resource"),
            ("r.s", "func(c: u8) -> u8"),
            ("a", "opaque: parameter `x` is or holds a resource"),
            ("b", "opaque: the result is or holds a stream"),
            ("c", "opaque: parameter `x` is or holds a future"),
            ("d", "opaque: the result is or holds an error-context"),
            ("e", "opaque: parameter `x` is or holds a map"),
            ("f", "opaque: parameter `x` is or holds a list of fixed length"),
            ("g", "func(x: list<u8>) -> u8"),
        ] {
            assert_eq!(shown(body, name), expected, "{name}");
        }
    }

    #[test]
    fn every_value_type_is_compiled() {
        let body = "
            enum color { red, green }
            flags rights { read, write }
            variant shape { dot, line(tuple<f32, f64>), %record(list<string>) }
            f: func(a: color, b: rights, c: shape, d: option<option<s8>>, e: result, f: result<_, u16>, g: list<list<u8>>);
        ";
        assert_eq!(
            shown(body, "f"),
            "func(a: enum { red, green }, b: flags { read, write }, \
             c: variant { dot, line(tuple<f32, f64>), record(list<string>) }, d: option<option<s8>>, e: result, \
             f: result<_, u16>, g: list<list<u8>>)"
        );
    }

    #[test]
    fn a_mistake_has_its_file_and_line() {
        let error = refusal(&[("a.wit", "package a:b;\ninterface i {\n  f: func(a: nothing);\n}")]);
        assert_eq!((error.file.as_str(), error.line), ("a.wit", 3));
        assert_eq!(error.to_string(), "a.wit:3: name `nothing` does not exist");
        let error = refusal(&[("a.wit", "package a:b;\n\ninterface i {")]);
        assert_eq!((error.file.as_str(), error.line), ("a.wit", 3));
        let error = refusal(&[("b.wit", BILLING)]);
        assert_eq!((error.file.as_str(), error.line), ("b.wit", 6));
        assert!(error.message.starts_with("package 'money:types@0.2.0' not found"), "{error}");
        let error = refusal(&[("b.wit", BILLING), ("deps/m/a.wit", MONEY), ("deps/m/b.wit", "package x:y;\n!")]);
        assert_eq!((error.file.as_str(), error.line), ("deps/m/b.wit", 2));
        let other = "package money:types@0.2.0;\ninterface money {}";
        let error = refusal(&[("b.wit", BILLING), ("deps/m.wit", other)]);
        assert_eq!((error.file.as_str(), error.line), ("b.wit", 6));
    }

    #[test]
    fn a_file_that_belongs_nowhere_is_refused() {
        for path in ["../a.wit", "/a.wit", "sub/a.wit", "deps/a/b/c.wit", "a.txt", "deps/.wit", "deps//a.wit", ""] {
            let error = refusal(&[("ok.wit", "package a:b;"), (path, "package a:b;")]);
            assert_eq!((error.file.as_str(), error.line), (path, 0), "{path}");
        }
        assert_eq!(refusal(&[]).to_string(), ".: no `.wit` file stands in the folder itself");
        assert_eq!(refusal(&[("deps/a.wit", "package a:b;")]).line, 0);
    }

    #[test]
    fn a_type_that_doubles_at_each_line_is_opaque() {
        let lines = (1..60).map(|line| format!("type t{line} = tuple<t{}, t{}>;", line - 1, line - 1));
        let body = format!("type t0 = tuple<u8, u8>; {} f: func(x: t59); g: func(x: t5);", lines.collect::<String>());
        assert_eq!(shown(&body, "f"), "opaque: parameter `x` is or holds a type of more than 10000 parts");
        assert!(shown(&body, "g").starts_with("func(x: tuple<"));
    }

    #[test]
    fn a_type_that_nests_at_each_line_is_opaque() {
        let lines = (1..1_000).map(|line| format!("record r{line} {{ f: r{} }}", line - 1));
        let body = format!("record r0 {{ f: u8 }} {} f: func(x: r999);", lines.collect::<String>());
        assert_eq!(shown(&body, "f"), "opaque: parameter `x` is or holds a type nested deeper than 100 levels");
    }

    #[test]
    fn aliases_of_options_are_options() {
        let FunctionKind::Typed(ty) = kind("type o = option<u8>; type p = o; f: func(x: option<p>);", "f") else {
            panic!("opaque");
        };
        assert_eq!(ty.params[0].1, Type::option(Type::option(Type::U8)));
    }
}
