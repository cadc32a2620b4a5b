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
    if line == 0 {
        file.to_owned()
    } else {
        format!("{file}:{line}")
    }
}

impl InvalidWit {
    fn whole(file: &str, message: impl Into<String>) -> Self {
        Self {
            file: file.to_owned(),
            line: 0,
            message: message.into(),
        }
    }

    fn spanned(sources: &SourceMap, span: Span, message: impl Into<String>) -> Self {
        let place = sources.render_location(span);
        let mut parts = place.rsplitn(3, ':');
        let _column = parts.next();
        let line = parts.next().and_then(|line| line.parse().ok()).unwrap_or(0);
        Self {
            file: parts.next().unwrap_or(".").to_owned(),
            line,
            message: message.into(),
        }
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
    /// The doc comment.
    pub docs: Option<String>,
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
        let deps = groups
            .deps
            .iter()
            .map(|(_, files)| parse_group(files))
            .collect::<Result<Vec<_>, _>>()?;
        let mut resolve = Resolve::new();
        let package = resolve
            .push_groups(main, deps)
            .map_err(|error| InvalidWit::spanned(&resolve.source_map, error.kind().span(), error.to_string()))?;
        Ok(Self::index(
            compile::package_name(&resolve, package),
            compile::interfaces(&resolve, package),
        ))
    }

    fn index(package: String, interfaces: Vec<Interface>) -> Self {
        let index = interfaces.iter().enumerate().map(|(position, interface)| {
            let functions = interface.functions.iter().enumerate();
            let functions = functions
                .map(|(position, function)| (function.name.clone(), position))
                .collect();
            (interface.name.clone(), (position, functions))
        });
        Self {
            package,
            index: index.collect(),
            interfaces,
        }
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
        self.index
            .get(name)
            .and_then(|(position, _)| self.interfaces.get(*position))
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
            return Err(InvalidWit::whole(
                ".",
                format!("the files are larger than {LARGEST} bytes together"),
            ));
        }
        let mut groups = Self {
            main: Vec::new(),
            deps: Vec::new(),
        };
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
    map.parse()
        .map_err(|(map, error)| InvalidWit::spanned(&map, error.kind().span(), error.to_string()))
}
