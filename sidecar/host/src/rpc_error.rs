//! `wrpc:rpc/error`: the resource in which a component receives the failure of a call it made.

use wasmtime::StoreContextMut;
use wasmtime::component::{Linker, Resource, ResourceAny, ResourceTable, ResourceType};

use crate::{CallFailure, guest::RpcErrorUse, program::State};

/// The interface.
pub(crate) const RPC_ERROR: &str = "wrpc:rpc/error@0.1.0";
/// The interface whose `error` it can be made from.
pub(crate) const IO_ERROR: &str = "wasi:io/error@0.2.0";

/// The host's side of `wrpc:rpc/error.error`.
pub(crate) struct RpcError(CallFailure);

/// The host's side of `wasi:io/error.error`. There is none: nothing here makes streams.
pub(crate) enum IoError {}

/// Gives a failure to the component.
pub(crate) fn lower(store: &mut StoreContextMut<'_, State>, failure: CallFailure) -> wasmtime::Result<ResourceAny> {
    let error = store.data_mut().table.push(RpcError(failure))?;
    error.try_into_resource_any(store)
}

/// Defines what the component imports of the two interfaces.
pub(crate) fn define(linker: &mut Linker<State>, used: &RpcErrorUse) -> wasmtime::Result<()> {
    if let Some(name) = &used.io {
        let mut instance = linker.instance(name)?;
        instance.resource("error", ResourceType::host::<IoError>(), |_, _| Ok(()))?;
        instance
            .func_wrap("[method]error.to-debug-string", |_, (_this,): (Resource<IoError>,)| Ok((String::new(),)))?;
    }
    if let Some(name) = &used.rpc {
        let mut instance = linker.instance(name)?;
        instance.resource("error", ResourceType::host::<RpcError>(), |mut store, index| {
            table(&mut store).delete(Resource::<RpcError>::new_own(index))?;
            Ok(())
        })?;
        instance.func_wrap("[method]error.to-debug-string", |mut store, (this,): (Resource<RpcError>,)| {
            let RpcError(failure) = table(&mut store).get(&this)?;
            Ok((failure.to_string(),))
        })?;
        instance.func_wrap("[static]error.from-io-error", |_, (error,): (Resource<IoError>,)| {
            let mismatch: Result<Resource<RpcError>, Resource<IoError>> = Err(error);
            Ok((mismatch,))
        })?;
    }
    Ok(())
}

fn table<'s>(store: &'s mut StoreContextMut<'_, State>) -> &'s mut ResourceTable {
    &mut store.data_mut().table
}
