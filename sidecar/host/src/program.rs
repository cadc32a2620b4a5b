//! A component linked to those who serve its imports, ready to be called any number of times.

use std::{fmt, sync::Arc, time::Duration};

use portcullis_identity::Target;
use portcullis_value::{FunctionType, Value};
use wasmtime::{
    Store,
    component::{ComponentExportIndex, InstancePre, Linker, ResourceTable, Val},
};

use crate::{
    Call, CallFailure, Guest, HostLimits,
    limits::Meter,
    outgoing::Outgoing,
    rpc_error,
    ticker::Ticker,
    val::{WrongType, from_val, to_val},
};

/// Who serves one import.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binding {
    /// The virtual component.
    pub target: Target,
    /// The wRPC instance, in the callee's version.
    pub instance: String,
}

/// A component that can be called. Every call has an instance and a store of its own.
pub struct Program {
    instance: InstancePre<State>,
    limits: HostLimits,
    _ticker: Ticker,
}

/// A function of a component that can be called with values.
#[derive(Clone, Copy, Debug)]
pub struct Entrance<'g> {
    /// Its type.
    pub ty: &'g FunctionType,
    pub(crate) index: ComponentExportIndex,
}

/// What a store holds.
pub(crate) struct State {
    pub(crate) table: ResourceTable,
    meter: Meter,
}

/// Why a component cannot be linked.
#[derive(Debug, thiserror::Error)]
#[error("cannot link the component: {0}")]
pub struct LinkError(String);

/// Why a call of a component ended without its result.
#[derive(Debug, thiserror::Error)]
pub enum Trap {
    /// A call that it made failed, and its WIT has no place for the reason.
    #[error(transparent)]
    Call(CallFailure),
    /// It took too long.
    #[error("the component took longer than {}", humantime::format_duration(*after))]
    DeadlineExceeded {
        /// The limit.
        after: Duration,
    },
    /// It did something that it must not do.
    #[error("the component failed: {0}")]
    Guest(String),
    /// The values given or taken are not those of its types.
    #[error("the values do not fit the component: {0}")]
    Values(String),
}

impl fmt::Debug for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Program").field("limits", &self.limits).finish_non_exhaustive()
    }
}

impl From<WrongType> for Trap {
    fn from(error: WrongType) -> Self {
        Self::Values(error.to_string())
    }
}

impl Program {
    /// Links a component: `bindings` says for each of [`Guest::imports`], in their order, who serves it; `calls` makes the calls.
    ///
    /// # Errors
    /// When wasmtime refuses, or when there is no thread to be had.
    pub fn link<C: Call>(
        guest: &Guest,
        bindings: &[Binding],
        calls: &Arc<C>,
        limits: HostLimits,
    ) -> Result<Self, LinkError> {
        if bindings.len() != guest.imports().len() {
            return Err(LinkError("not every import has a callee".to_owned()));
        }
        let instance = linked(guest, bindings, calls, limits).map_err(|error| LinkError(format!("{error:#}")))?;
        let ticker = Ticker::start(guest.component.engine()).map_err(|error| LinkError(error.to_string()))?;
        Ok(Self { instance, limits, _ticker: ticker })
    }

    /// What one call may take.
    #[must_use]
    pub fn limits(&self) -> &HostLimits {
        &self.limits
    }

    /// Calls a function of the component.
    ///
    /// # Errors
    /// See [`Trap`].
    pub async fn call(&self, entrance: Entrance<'_>, arguments: Vec<Value>) -> Result<Option<Value>, Trap> {
        let ty = entrance.ty;
        if arguments.len() != ty.params.len() {
            return Err(Trap::Values(format!("{} arguments for {} parameters", arguments.len(), ty.params.len())));
        }
        let arguments = arguments.into_iter().zip(&ty.params).map(|(value, (_, ty))| to_val(value, ty));
        let arguments = arguments.collect::<Result<Vec<Val>, _>>()?;
        let after = self.limits.call_timeout;
        let results = tokio::time::timeout(after, self.run(entrance, &arguments))
            .await
            .map_err(|_| Trap::DeadlineExceeded { after })?
            .map_err(|error| trap(&error))?;
        match (results.first(), &ty.result) {
            (Some(result), Some(ty)) => Ok(Some(from_val(result, ty)?)),
            (None, _) | (_, None) => Ok(None),
        }
    }

    async fn run(&self, entrance: Entrance<'_>, arguments: &[Val]) -> wasmtime::Result<Vec<Val>> {
        let state = State { table: ResourceTable::new(), meter: Meter::new(&self.limits) };
        let mut store = Store::new(self.instance.engine(), state);
        store.limiter(|state| &mut state.meter);
        // What the host copies out of the component counts like the component's own memory.
        store.set_hostcall_fuel(self.limits.memory_bytes);
        // At every epoch the component gives way, so that the timeout round this future is seen.
        store.set_epoch_deadline(1);
        store.epoch_deadline_async_yield_and_update(1);
        let instance = self.instance.instantiate_async(&mut store).await?;
        let function = instance
            .get_func(&mut store, entrance.index)
            .ok_or_else(|| wasmtime::Error::msg("the function belongs to another component"))?;
        let mut results = vec![Val::Bool(false); usize::from(entrance.ty.result.is_some())];
        function.call_async(&mut store, arguments, &mut results).await?;
        Ok(results)
    }
}

fn linked<C: Call>(
    guest: &Guest,
    bindings: &[Binding],
    calls: &Arc<C>,
    limits: HostLimits,
) -> wasmtime::Result<InstancePre<State>> {
    let mut linker = Linker::new(guest.component.engine());
    rpc_error::define(&mut linker, &guest.rpc_error)?;
    for (import, binding) in guest.imports().iter().zip(bindings) {
        let mut instance = linker.instance(&import.name.to_string())?;
        for function in &import.functions {
            let (calls, binding) = (Arc::clone(calls), binding.clone());
            let outgoing = Arc::new(Outgoing { calls, binding, function: function.clone(), limits });
            instance.func_new_async(&function.name, move |store, _ty, params, results| {
                let outgoing = Arc::clone(&outgoing);
                Box::new(async move { outgoing.call(store, params, results).await })
            })?;
        }
    }
    linker.instantiate_pre(&guest.component)
}

/// What to say of an error that came out of wasmtime.
fn trap(error: &wasmtime::Error) -> Trap {
    if let Some(failure) = error.downcast_ref::<CallFailure>() {
        return Trap::Call(failure.clone());
    }
    match error.downcast_ref::<wasmtime::Trap>() {
        Some(trap) => Trap::Guest(trap.to_string()),
        None => Trap::Guest(error.root_cause().to_string()),
    }
}
