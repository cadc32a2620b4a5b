//! Types of a component's functions, from wasmtime's to ours, once when the component is loaded.

use std::sync::Arc;

use portcullis_value::{Enum, Flags, FunctionType, Record, ResultType, Type, Variant};
use wasmtime::component::{
    ResourceType,
    types::{ComponentFunc, Type as WasmType},
};

/// What an imported function does where its call fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnFailure {
    /// It traps: its result has no place for the reason.
    Trap,
    /// It returns `result<_, string>`: the reason is the `err` arm.
    ErrorText,
    /// It returns `result<T, error>` with the `error` of `wrpc:rpc/error`: the reason is the `err` arm, and what travels is `T` alone.
    RpcError,
}

/// The type of a function, or why it has parts that are no values.
pub(crate) fn function_type(ty: &ComponentFunc) -> Result<FunctionType, String> {
    if ty.async_() {
        return Err("it is an async function".to_owned());
    }
    let params = ty.params().map(|(name, ty)| Ok((name.to_owned(), value_type(&ty)?)));
    let params = params.collect::<Result<_, String>>()?;
    let result = ty.results().next().map(|ty| value_type(&ty)).transpose()?;
    Ok(FunctionType { params, result })
}

/// The type of an imported function as it travels, and what becomes of a failure.
pub(crate) fn imported_function_type(
    ty: &ComponentFunc,
    rpc_error: Option<ResourceType>,
) -> Result<(FunctionType, OnFailure), String> {
    if let (Some(rpc_error), Some(WasmType::Result(result))) = (rpc_error, ty.results().next())
        && result.err() == Some(WasmType::Own(rpc_error))
    {
        let params = ty.params().map(|(name, ty)| Ok((name.to_owned(), value_type(&ty)?)));
        let params = params.collect::<Result<_, String>>()?;
        let result = result.ok().map(|ty| value_type(&ty)).transpose()?;
        return Ok((FunctionType { params, result }, OnFailure::RpcError));
    }
    let ty = function_type(ty)?;
    let on_failure = match &ty.result {
        Some(Type::Result(result)) if result.err == Some(Type::String) => OnFailure::ErrorText,
        _ => OnFailure::Trap,
    };
    Ok((ty, on_failure))
}

fn value_type(ty: &WasmType) -> Result<Type, String> {
    Ok(match ty {
        WasmType::Bool => Type::Bool,
        WasmType::S8 => Type::S8,
        WasmType::U8 => Type::U8,
        WasmType::S16 => Type::S16,
        WasmType::U16 => Type::U16,
        WasmType::S32 => Type::S32,
        WasmType::U32 => Type::U32,
        WasmType::S64 => Type::S64,
        WasmType::U64 => Type::U64,
        WasmType::Float32 => Type::F32,
        WasmType::Float64 => Type::F64,
        WasmType::Char => Type::Char,
        WasmType::String => Type::String,
        WasmType::List(list) => Type::list(value_type(&list.ty())?),
        WasmType::Option(option) => Type::option(value_type(&option.ty())?),
        WasmType::Tuple(tuple) => Type::Tuple(tuple.types().map(|ty| value_type(&ty)).collect::<Result<_, _>>()?),
        WasmType::Record(record) => {
            let fields = record.fields().map(|field| Ok((field.name.to_owned(), value_type(&field.ty)?)));
            Type::Record(Arc::new(Record { fields: fields.collect::<Result<_, String>>()? }))
        }
        WasmType::Variant(variant) => {
            let cases = variant.cases().map(|case| Ok((case.name.to_owned(), optional(case.ty)?)));
            Type::Variant(Arc::new(Variant { cases: cases.collect::<Result<_, String>>()? }))
        }
        WasmType::Enum(cases) => Type::Enum(Arc::new(Enum { cases: cases.names().map(str::to_owned).collect() })),
        WasmType::Result(result) => {
            Type::Result(Arc::new(ResultType { ok: optional(result.ok())?, err: optional(result.err())? }))
        }
        WasmType::Flags(flags) => Type::Flags(Arc::new(Flags { names: flags.names().map(str::to_owned).collect() })),
        WasmType::Own(_) | WasmType::Borrow(_) => return Err("it has a resource".to_owned()),
        WasmType::Stream(_) => return Err("it has a stream".to_owned()),
        WasmType::Future(_) => return Err("it has a future".to_owned()),
        WasmType::ErrorContext => return Err("it has an error-context".to_owned()),
        WasmType::Map(_) => return Err("it has a map".to_owned()),
        WasmType::FixedLengthList(_) => return Err("it has a list of fixed length".to_owned()),
    })
}

fn optional(ty: Option<WasmType>) -> Result<Option<Type>, String> {
    ty.map(|ty| value_type(&ty)).transpose()
}
