//! A loaded component: what it is made of, what it imports and exports, compiled and not yet linked to anybody.

mod imports;

use portcullis_value::FunctionKind;
use wasmtime::{
    Config, Engine,
    component::{Component, ComponentExportIndex, types::ComponentItem},
};

pub(crate) use imports::RpcErrorUse;
pub use imports::{Import, ImportedFunction};

use crate::{Entrance, signature::function_type};

/// A component, compiled.
#[derive(Debug)]
pub struct Guest {
    pub(crate) component: Component,
    pub(crate) rpc_error: RpcErrorUse,
    digest: String,
    imports: Vec<Import>,
    exports: Vec<Export>,
}

/// A function that can be called.
#[derive(Clone, Debug)]
pub struct Export {
    /// The interface, `namespace:package/interface@version`; none for a function of the component itself.
    pub interface: Option<String>,
    /// The name in it.
    pub function: String,
    /// Its type.
    pub kind: FunctionKind,
    index: ComponentExportIndex,
}

impl std::fmt::Display for Export {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.interface {
            Some(interface) => write!(f, "{interface}#{}", self.function),
            None => f.write_str(&self.function),
        }
    }
}

/// Why a file is no component that this host can run.
#[derive(Debug, thiserror::Error)]
pub enum InvalidGuest {
    /// It does not compile.
    #[error("not a component: {0} (hint: a core module becomes one by `wasm-tools component new`)")]
    NotAComponent(String),
    /// It imports what no virtual component can be.
    #[error("the component needs what this host cannot give: {}", .0.join("; "))]
    Unsatisfiable(Vec<String>),
}

/// Why no exported function is meant.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnknownExport {
    /// There is no such function.
    #[error("the component exports no `{name}`; it has {exports}")]
    None {
        /// What was asked for.
        name: String,
        /// All there is.
        exports: String,
    },
    /// The name alone could be more than one.
    #[error("`{name}` could be {candidates} (hint: name the interface, INTERFACE#FUNCTION)")]
    Ambiguous {
        /// What was asked for.
        name: String,
        /// What it could be.
        candidates: String,
    },
    /// No name was given, and there is more than one function and none is called `run`.
    #[error("which function? the component exports {0} (hint: --call)")]
    Unnamed(String),
    /// The function cannot be called with values.
    #[error("`{name}` cannot be called from here: {why}")]
    Opaque {
        /// The function.
        name: String,
        /// What is in the way.
        why: String,
    },
}

/// An engine that runs components under [`HostLimits`](crate::HostLimits).
///
/// # Errors
/// When the machine is one that wasmtime does not compile for.
pub fn engine() -> wasmtime::Result<Engine> {
    let mut config = Config::new();
    config.epoch_interruption(true);
    Engine::new(&config)
}

impl Guest {
    /// Compiles a component.
    ///
    /// # Errors
    /// When the bytes are no component, or one that needs anything but functions of values.
    pub fn load(engine: &Engine, bytes: &[u8]) -> Result<Self, InvalidGuest> {
        let component =
            Component::from_binary(engine, bytes).map_err(|error| InvalidGuest::NotAComponent(format!("{error:#}")))?;
        let (imports, rpc_error) = imports::read(engine, &component)?;
        let exports = exports(engine, &component);
        Ok(Self { component, rpc_error, digest: digest(bytes), imports, exports })
    }

    /// The digest of the file, `sha256:HEX`: what an entry binds an identity to.
    #[must_use]
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// What virtual components must serve.
    #[must_use]
    pub fn imports(&self) -> &[Import] {
        &self.imports
    }

    /// What can be called.
    #[must_use]
    pub fn exports(&self) -> &[Export] {
        &self.exports
    }

    /// The exported function that `name` means: `INTERFACE#FUNCTION`, or `FUNCTION` where only one has that name. Without a name, the only
    /// function there is, or the one called `run`.
    ///
    /// # Errors
    /// When there is none, more than one, or one that does not take and give values.
    pub fn entrance(&self, name: Option<&str>) -> Result<Entrance<'_>, UnknownExport> {
        let wanted = name.unwrap_or("run");
        let mut candidates: Vec<&Export> =
            self.exports.iter().filter(|export| export.to_string() == wanted || export.function == wanted).collect();
        if let (None, [only]) = (name, self.exports.as_slice()) {
            candidates = vec![only];
        }
        match (candidates.as_slice(), name) {
            ([export], _) => match &export.kind {
                FunctionKind::Typed(ty) => Ok(Entrance { ty, index: export.index }),
                FunctionKind::Opaque(why) => Err(UnknownExport::Opaque { name: export.to_string(), why: why.clone() }),
            },
            ([], None) => Err(UnknownExport::Unnamed(listed(&self.exports))),
            ([], Some(name)) => Err(UnknownExport::None { name: name.to_owned(), exports: listed(&self.exports) }),
            ([_, _, ..], _) => {
                Err(UnknownExport::Ambiguous { name: wanted.to_owned(), candidates: listed(candidates) })
            }
        }
    }
}

fn listed<'e>(exports: impl IntoIterator<Item = &'e Export>) -> String {
    let names: Vec<String> = exports.into_iter().map(|export| format!("`{export}`")).collect();
    if names.is_empty() { "no function".to_owned() } else { names.join(", ") }
}

fn digest(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut text = "sha256:".to_owned();
    for byte in ring::digest::digest(&ring::digest::SHA256, bytes).as_ref() {
        // Writing to a `String` does not fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

fn exports(engine: &Engine, component: &Component) -> Vec<Export> {
    let mut exports = Vec::new();
    for (name, item) in component.component_type().exports(engine) {
        match item.ty {
            ComponentItem::ComponentInstance(instance) => {
                let Some(outer) = component.get_export_index(None, name) else {
                    continue;
                };
                for (function, item) in instance.exports(engine) {
                    let index = component.get_export_index(Some(&outer), function);
                    exports.extend(export(Some(name), function, &item.ty, index));
                }
            }
            ComponentItem::ComponentFunc(_) => {
                exports.extend(export(None, name, &item.ty, component.get_export_index(None, name)));
            }
            ComponentItem::CoreFunc(_)
            | ComponentItem::Module(_)
            | ComponentItem::Component(_)
            | ComponentItem::Type(_)
            | ComponentItem::Resource(_) => {}
        }
    }
    exports
}

fn export(
    interface: Option<&str>,
    function: &str,
    item: &ComponentItem,
    index: Option<ComponentExportIndex>,
) -> Option<Export> {
    let ComponentItem::ComponentFunc(ty) = item else {
        return None;
    };
    let kind = function_type(ty).map_or_else(FunctionKind::Opaque, FunctionKind::Typed);
    Some(Export { interface: interface.map(str::to_owned), function: function.to_owned(), kind, index: index? })
}
