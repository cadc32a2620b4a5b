//! What a component imports.

use portcullis_value::FunctionType;
use wasmtime::{
    Engine,
    component::{
        Component, ResourceType,
        types::{ComponentInstance, ComponentItem},
    },
};

use super::InvalidGuest;
use crate::{
    InterfaceName, InvalidInterfaceName, OnFailure,
    rpc_error::{IO_ERROR, RPC_ERROR},
    signature::imported_function_type,
};

/// Whether the component imports `wrpc:rpc/error`, and under which names.
#[derive(Clone, Debug, Default)]
pub(crate) struct RpcErrorUse {
    /// As it imports `wrpc:rpc/error`.
    pub(crate) rpc: Option<String>,
    /// As it imports `wasi:io/error`, which `wrpc:rpc/error` names.
    pub(crate) io: Option<String>,
}

/// An interface that a virtual component must serve.
#[derive(Clone, Debug)]
pub struct Import {
    /// In the component's version.
    pub name: InterfaceName,
    /// The functions the component uses: not always all of the interface.
    pub functions: Vec<ImportedFunction>,
}

/// A function that a virtual component must serve.
#[derive(Clone, Debug)]
pub struct ImportedFunction {
    /// The name, which is also the wRPC name.
    pub name: String,
    /// The type as it travels.
    pub ty: FunctionType,
    /// What becomes of a failed call.
    pub on_failure: OnFailure,
}

/// Reads what a component imports, and remembers everything that is in the way.
struct Reader<'e> {
    engine: &'e Engine,
    rpc_error: RpcErrorUse,
    found: Vec<Import>,
    problems: Vec<String>,
}

/// What a component imports.
pub(super) fn read(engine: &Engine, component: &Component) -> Result<(Vec<Import>, RpcErrorUse), InvalidGuest> {
    let mut reader = Reader { engine, rpc_error: RpcErrorUse::default(), found: Vec::new(), problems: Vec::new() };
    reader.read(component);
    let Reader { engine: _, rpc_error, found, problems } = reader;
    if problems.is_empty() { Ok((found, rpc_error)) } else { Err(InvalidGuest::Unsatisfiable(problems)) }
}

impl Reader<'_> {
    fn read(&mut self, component: &Component) {
        let ty = component.component_type();
        let rpc_error = ty.imports(self.engine).find_map(|(name, item)| {
            let ComponentItem::ComponentInstance(instance) = item.ty else {
                return None;
            };
            if is(name, RPC_ERROR) { self.error_resource(&instance) } else { None }
        });
        for (name, item) in ty.imports(self.engine) {
            match item.ty {
                ComponentItem::ComponentInstance(_) if is(name, RPC_ERROR) => {
                    self.rpc_error.rpc = Some(name.to_owned());
                }
                ComponentItem::ComponentInstance(_) if is(name, IO_ERROR) => {
                    self.rpc_error.io = Some(name.to_owned());
                }
                ComponentItem::ComponentInstance(instance) => self.instance(name, &instance, rpc_error),
                ComponentItem::Type(_) => {}
                ComponentItem::ComponentFunc(_) => {
                    self.problem(format!("the function `{name}` that belongs to no interface"));
                }
                ComponentItem::CoreFunc(_)
                | ComponentItem::Module(_)
                | ComponentItem::Component(_)
                | ComponentItem::Resource(_) => self.problem(format!("`{name}`, which is no interface")),
            }
        }
    }

    fn error_resource(&self, instance: &ComponentInstance) -> Option<ResourceType> {
        let ComponentItem::Resource(resource) = instance.get_export(self.engine, "error")?.ty else {
            return None;
        };
        Some(resource)
    }

    fn instance(&mut self, name: &str, instance: &ComponentInstance, rpc_error: Option<ResourceType>) {
        let mut functions = Vec::new();
        for (item_name, item) in instance.exports(self.engine) {
            match item.ty {
                ComponentItem::ComponentFunc(ty) => match imported_function_type(&ty, rpc_error) {
                    Ok((ty, on_failure)) => {
                        functions.push(ImportedFunction { name: item_name.to_owned(), ty, on_failure });
                    }
                    Err(why) => self.problem(format!("`{name}#{item_name}`: {why}")),
                },
                // A resource that the interface takes over from `wrpc:rpc/error` is that one.
                ComponentItem::Resource(resource) if Some(resource) == rpc_error => {}
                ComponentItem::Resource(_) => self.problem(format!("`{name}`: it has the resource `{item_name}`")),
                ComponentItem::Type(_) => {}
                ComponentItem::CoreFunc(_)
                | ComponentItem::Module(_)
                | ComponentItem::Component(_)
                | ComponentItem::ComponentInstance(_) => {
                    self.problem(format!("`{name}`: `{item_name}` is no function"));
                }
            }
        }
        // An interface of types alone needs nobody.
        if functions.is_empty() {
            return;
        }
        match name.parse() {
            Ok(name) => self.found.push(Import { name, functions }),
            Err(error) => {
                let error: InvalidInterfaceName = error;
                self.problem(error.to_string());
            }
        }
    }

    fn problem(&mut self, problem: String) {
        self.problems.push(problem);
    }
}

/// Whether an import is the interface, in any version that the linker takes for it.
fn is(import: &str, interface: &str) -> bool {
    match (import.parse::<InterfaceName>(), interface.parse::<InterfaceName>()) {
        (Ok(import), Ok(interface)) => import.satisfies(&interface) || interface.satisfies(&import),
        _ => false,
    }
}
