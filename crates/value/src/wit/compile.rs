//! Resolved WIT to our types.

use std::collections::HashMap;
use std::sync::Arc;

use wit_parser::{
    FunctionKind as ParsedKind, InterfaceId, PackageId, Resolve, Type as Parsed, TypeDefKind, TypeId, WorldItem,
    WorldKey,
};

use super::{Function, FunctionKind, Interface, Streams};
use crate::{Enum, Flags, FunctionType, Record, ResultType, Type, Variant};

/// Nesting of a type: more is Opaque, so that no walk over a type can exhaust the stack.
const DEEPEST: usize = 100;
/// Parts of a type, counted with repetition: aliases can double a type at each line of WIT.
const LARGEST: usize = 10_000;
/// Streams of one type whose paths are kept.
const MOST_PATHS: usize = 64;

/// The name of a package.
pub(super) fn package_name(resolve: &Resolve, package: PackageId) -> String {
    resolve.packages.get(package).map(|package| package.name.to_string()).unwrap_or_default()
}

/// The interfaces of interest.
pub(super) fn interfaces(resolve: &Resolve, package: PackageId) -> Vec<Interface> {
    let types = Types::compile(resolve);
    let Some(package) = resolve.packages.get(package) else {
        return Vec::new();
    };
    let mut found = Found { resolve, types, interfaces: Vec::new() };
    for world in package.worlds.values() {
        let Some(world) = resolve.worlds.get(*world) else {
            continue;
        };
        for (key, item) in &world.exports {
            found.export(key, item);
        }
    }
    if found.interfaces.is_empty() {
        for id in package.interfaces.values() {
            found.interface(None, *id);
        }
    }
    found.interfaces
}

struct Found<'r> {
    resolve: &'r Resolve,
    types: Types,
    interfaces: Vec<Interface>,
}

impl Found<'_> {
    fn export(&mut self, key: &WorldKey, item: &WorldItem) {
        match (item, key) {
            (WorldItem::Interface { id, .. }, WorldKey::Interface(_)) => self.interface(None, *id),
            (WorldItem::Interface { id, .. }, WorldKey::Name(name)) => self.interface(Some(name), *id),
            (WorldItem::Function(function), _) => {
                let function = self.types.function(function);
                self.root_function(function);
            }
            (WorldItem::Type { .. }, _) => {}
        }
    }

    fn interface(&mut self, name: Option<&str>, id: InterfaceId) {
        let Some(interface) = self.resolve.interfaces.get(id) else {
            return;
        };
        let name = name.map(str::to_owned).or_else(|| self.resolve.id_of(id)).unwrap_or_default();
        if self.interfaces.iter().any(|known| known.name == name) {
            return;
        }
        let functions = interface.functions.values().map(|function| self.types.function(function)).collect();
        self.interfaces.push(Interface { name, docs: interface.docs.contents.clone(), functions });
    }

    /// A function that a world exports itself belongs to the instance without a name.
    fn root_function(&mut self, function: Function) {
        let Some(root) = self.interfaces.iter_mut().find(|interface| interface.name.is_empty()) else {
            self.interfaces.push(Interface { name: String::new(), docs: None, functions: vec![function] });
            return;
        };
        match root.functions.iter_mut().find(|known| known.name == function.name) {
            None => root.functions.push(function),
            Some(known) if known.kind == function.kind => {}
            Some(known) => {
                known.kind = FunctionKind::Opaque("two worlds export it with different types".to_owned());
                known.streams.in_params |= function.streams.in_params;
                known.streams.in_result |= function.streams.in_result;
            }
        }
    }
}

/// A type that is not a value type, and why.
type Unreadable = Arc<str>;

/// A type and its size.
#[derive(Debug, Clone)]
struct Compiled {
    ty: Type,
    depth: usize,
    parts: usize,
}

impl Compiled {
    fn scalar(ty: Type) -> Self {
        Self { ty, depth: 1, parts: 1 }
    }
}

/// Every type definition of a package and its dependencies, by its index.
struct Types {
    compiled: Vec<(TypeId, Result<Compiled, Unreadable>)>,
    /// Those that hold a stream or future, and where.
    pending: HashMap<TypeId, Pending>,
}

/// The streams and futures in a type.
#[derive(Debug, Clone, Default)]
struct Pending {
    any: bool,
    /// The type is one.
    itself: bool,
    /// Below the type, sorted.
    paths: Vec<Vec<u32>>,
}

impl Pending {
    /// What a value has whose part `number` this is.
    fn at(self, number: u32) -> Self {
        let own = self.itself.then(|| vec![number]);
        let below = self.paths.into_iter().map(|path| [&[number], &*path].concat());
        Self { any: self.any, itself: false, paths: own.into_iter().chain(below).take(MOST_PATHS).collect() }
    }

    /// Of any number of these nothing is known but that there are some.
    fn many(self) -> Self {
        Self { any: self.any, ..Self::default() }
    }

    fn and(mut self, other: Self) -> Self {
        self.paths.extend(other.paths);
        self.paths.sort_unstable();
        self.paths.dedup();
        self.paths.truncate(MOST_PATHS);
        Self { any: self.any || other.any, itself: self.itself || other.itself, paths: self.paths }
    }
}

impl Types {
    /// Definitions come in topological order, so that one pass without recursion suffices.
    fn compile(resolve: &Resolve) -> Self {
        let mut types = Self { compiled: Vec::with_capacity(resolve.types.len()), pending: HashMap::new() };
        for (id, definition) in resolve.types.iter() {
            let compiled = types.definition(&definition.kind);
            types.compiled.push((id, compiled));
            let pending = types.definition_pending(&definition.kind);
            if pending.any {
                types.pending.insert(id, pending);
            }
        }
        types
    }

    fn function(&self, function: &wit_parser::Function) -> Function {
        let kind = match self.function_type(function) {
            Ok(ty) => FunctionKind::Typed(ty),
            Err(reason) => FunctionKind::Opaque(reason),
        };
        let result = function.result.as_ref().map(|ty| self.pending(ty).at(0)).unwrap_or_default();
        let streams = Streams {
            in_params: function.params.iter().any(|param| self.pending(&param.ty).any),
            in_result: result.any,
            result_paths: result.paths,
        };
        Function { name: wrpc_name(function), kind, streams, docs: function.docs.contents.clone() }
    }

    fn function_type(&self, function: &wit_parser::Function) -> Result<FunctionType, String> {
        let mut params = Vec::with_capacity(function.params.len());
        for param in &function.params {
            let compiled = self.get(&param.ty).map_err(|reason| format!("parameter `{}` is {reason}", param.name))?;
            params.push((param.name.clone(), compiled.ty));
        }
        let result = function.result.as_ref().map(|ty| self.get(ty)).transpose();
        let result = result.map_err(|reason| format!("the result is {reason}"))?;
        Ok(FunctionType { params, result: result.map(|compiled| compiled.ty) })
    }

    fn get(&self, ty: &Parsed) -> Result<Compiled, Unreadable> {
        Ok(Compiled::scalar(match ty {
            Parsed::Bool => Type::Bool,
            Parsed::U8 => Type::U8,
            Parsed::U16 => Type::U16,
            Parsed::U32 => Type::U32,
            Parsed::U64 => Type::U64,
            Parsed::S8 => Type::S8,
            Parsed::S16 => Type::S16,
            Parsed::S32 => Type::S32,
            Parsed::S64 => Type::S64,
            Parsed::F32 => Type::F32,
            Parsed::F64 => Type::F64,
            Parsed::Char => Type::Char,
            Parsed::String => Type::String,
            Parsed::ErrorContext => return Err("or holds an error-context".into()),
            Parsed::Id(id) => {
                let known = self.compiled.get(id.index()).filter(|(known, _)| known == id);
                return known
                    .map_or_else(|| Err("or holds an unresolved type".into()), |(_, compiled)| compiled.clone());
            }
        }))
    }

    fn pending(&self, ty: &Parsed) -> Pending {
        let Parsed::Id(id) = ty else { return Pending::default() };
        self.pending.get(id).cloned().unwrap_or_default()
    }

    /// As wRPC numbers what is pending: a field or element adds its number, a case adds nothing.
    fn definition_pending(&self, kind: &TypeDefKind) -> Pending {
        let maybe = |ty: Option<&Parsed>| ty.map(|ty| self.pending(ty)).unwrap_or_default();
        let numbered = |types: &mut dyn Iterator<Item = &Parsed>| {
            (0..).zip(types).map(|(number, ty)| self.pending(ty).at(number)).fold(Pending::default(), Pending::and)
        };
        match kind {
            TypeDefKind::Stream(_) | TypeDefKind::Future(_) => Pending { any: true, itself: true, paths: Vec::new() },
            TypeDefKind::Type(ty) | TypeDefKind::Option(ty) => self.pending(ty),
            TypeDefKind::List(ty) | TypeDefKind::FixedLengthList(ty, _) => self.pending(ty).many(),
            TypeDefKind::Map(key, value) => self.pending(key).and(self.pending(value)).many(),
            TypeDefKind::Tuple(tuple) => numbered(&mut tuple.types.iter()),
            TypeDefKind::Record(record) => numbered(&mut record.fields.iter().map(|field| &field.ty)),
            TypeDefKind::Variant(variant) => {
                variant.cases.iter().map(|case| maybe(case.ty.as_ref())).fold(Pending::default(), Pending::and)
            }
            TypeDefKind::Result(result) => maybe(result.ok.as_ref()).and(maybe(result.err.as_ref())),
            TypeDefKind::Enum(_)
            | TypeDefKind::Flags(_)
            | TypeDefKind::Resource
            | TypeDefKind::Handle(_)
            | TypeDefKind::Unknown => Pending::default(),
        }
    }

    fn definition(&self, kind: &TypeDefKind) -> Result<Compiled, Unreadable> {
        let mut size = Size::default();
        let ty = match kind {
            TypeDefKind::Type(ty) => return self.get(ty),
            TypeDefKind::List(element) => Type::list(size.add(self.get(element)?)),
            TypeDefKind::Option(payload) => Type::option(size.add(self.get(payload)?)),
            TypeDefKind::Tuple(tuple) => {
                let types = tuple.types.iter().map(|ty| self.get(ty).map(|ty| size.add(ty)));
                Type::Tuple(types.collect::<Result<_, _>>()?)
            }
            TypeDefKind::Record(record) => {
                let fields = record.fields.iter();
                let fields = fields.map(|field| Ok((field.name.clone(), size.add(self.get(&field.ty)?))));
                Type::Record(Arc::new(Record { fields: fields.collect::<Result<_, Unreadable>>()? }))
            }
            TypeDefKind::Variant(variant) => {
                let cases = variant.cases.iter();
                let cases = cases.map(|case| Ok((case.name.clone(), self.optional(case.ty.as_ref(), &mut size)?)));
                Type::Variant(Arc::new(Variant { cases: cases.collect::<Result<_, Unreadable>>()? }))
            }
            TypeDefKind::Result(result) => {
                let ok = self.optional(result.ok.as_ref(), &mut size)?;
                let err = self.optional(result.err.as_ref(), &mut size)?;
                Type::Result(Arc::new(ResultType { ok, err }))
            }
            TypeDefKind::Enum(names) => {
                let cases = names.cases.iter().map(|case| case.name.clone()).collect();
                Type::Enum(Arc::new(Enum { cases }))
            }
            TypeDefKind::Flags(flags) => {
                let names = flags.flags.iter().map(|flag| flag.name.clone()).collect();
                Type::Flags(Arc::new(Flags { names }))
            }
            TypeDefKind::Resource | TypeDefKind::Handle(_) => return Err("or holds a resource".into()),
            TypeDefKind::Stream(_) => return Err("or holds a stream".into()),
            TypeDefKind::Future(_) => return Err("or holds a future".into()),
            TypeDefKind::Map(..) => return Err("or holds a map".into()),
            TypeDefKind::FixedLengthList(..) => return Err("or holds a list of fixed length".into()),
            TypeDefKind::Unknown => return Err("or holds an unresolved type".into()),
        };
        size.bound(ty)
    }

    fn optional(&self, ty: Option<&Parsed>, size: &mut Size) -> Result<Option<Type>, Unreadable> {
        ty.map(|ty| self.get(ty).map(|ty| size.add(ty))).transpose()
    }
}

/// The size of a type from those of its parts.
#[derive(Debug, Default)]
struct Size {
    depth: usize,
    parts: usize,
}

impl Size {
    fn add(&mut self, part: Compiled) -> Type {
        self.depth = self.depth.max(part.depth);
        self.parts = self.parts.saturating_add(part.parts);
        part.ty
    }

    fn bound(self, ty: Type) -> Result<Compiled, Unreadable> {
        let (depth, parts) = (self.depth + 1, self.parts.saturating_add(1));
        if depth > DEEPEST {
            return Err(format!("or holds a type nested deeper than {DEEPEST} levels").into());
        }
        if parts > LARGEST {
            return Err(format!("or holds a type of more than {LARGEST} parts").into());
        }
        Ok(Compiled { ty, depth, parts })
    }
}

/// The name on the wire: resources lose the kind of function (`rpc_func_name` of wRPC).
fn wrpc_name(function: &wit_parser::Function) -> String {
    let name = function.name.as_str();
    match function.kind {
        ParsedKind::Freestanding | ParsedKind::AsyncFreestanding => name,
        ParsedKind::Constructor(_) => name.strip_prefix("[constructor]").unwrap_or(name),
        ParsedKind::Method(_) | ParsedKind::AsyncMethod(_) => name.strip_prefix("[method]").unwrap_or(name),
        ParsedKind::Static(_) | ParsedKind::AsyncStatic(_) => name.strip_prefix("[static]").unwrap_or(name),
    }
    .to_owned()
}
