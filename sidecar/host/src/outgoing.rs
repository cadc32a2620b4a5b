//! A call that a component makes: from its values to bytes, to the callee, and back.

use std::sync::Arc;

use bytes::Bytes;
use portcullis_value::{Value, decode_result, encode_params};
use tracing::warn;
use wasmtime::{StoreContextMut, component::Val};

use crate::{
    Binding, Call, CallFailure, Callee, HostLimits, ImportedFunction, OnFailure,
    program::State,
    rpc_error,
    val::{from_val, to_val},
};

/// An imported function and who serves it.
pub(crate) struct Outgoing<C> {
    pub(crate) calls: Arc<C>,
    pub(crate) binding: Binding,
    pub(crate) function: ImportedFunction,
    pub(crate) limits: HostLimits,
}

impl<C: Call> Outgoing<C> {
    pub(crate) async fn call(
        &self,
        mut store: StoreContextMut<'_, State>,
        params: &[Val],
        results: &mut [Val],
    ) -> wasmtime::Result<()> {
        let result = match self.exchange(params).await {
            Ok(value) => self.answer(value)?,
            Err(failure) => self.failure(&mut store, failure).map(Some)?,
        };
        match (results, result) {
            ([], None) => Ok(()),
            ([slot], Some(result)) => {
                *slot = result;
                Ok(())
            }
            _ => Err(wasmtime::Error::msg("the result does not fit the function's type")),
        }
    }

    async fn exchange(&self, params: &[Val]) -> Result<Option<Value>, CallFailure> {
        let ty = &self.function.ty;
        let params = params.iter().zip(&ty.params).map(|(val, (_, ty))| from_val(val, ty));
        let params = params.collect::<Result<Vec<_>, _>>().map_err(|error| CallFailure::new(error.to_string()))?;
        let mut bytes = Vec::new();
        encode_params(ty, &params, &mut bytes).map_err(|error| CallFailure::new(error.to_string()))?;
        drop(params);
        let limit = self.limits.values.bytes;
        if bytes.len() > limit {
            return Err(CallFailure::new(format!("the parameters are larger than {limit} bytes")));
        }
        let callee =
            Callee { target: &self.binding.target, instance: &self.binding.instance, function: &self.function.name };
        let answer = self.calls.call(callee, Bytes::from(bytes), self.limits.import_timeout).await?;
        decode_result(ty, &answer, &self.limits.values)
            .map_err(|error| CallFailure::new(format!("{} answered nonsense: {error}", self.binding.target)))
    }

    /// The result that the component sees of an answer.
    fn answer(&self, value: Option<Value>) -> wasmtime::Result<Option<Val>> {
        let value = match (value, &self.function.ty.result) {
            (Some(value), Some(ty)) => Some(to_val(value, ty)?),
            (None, _) | (_, None) => None,
        };
        Ok(match self.function.on_failure {
            OnFailure::Trap | OnFailure::ErrorText => value,
            OnFailure::RpcError => Some(Val::Result(Ok(value.map(Box::new)))),
        })
    }

    /// The result that the component sees of a failure; an error is a trap, of which whoever called the component hears.
    fn failure(&self, store: &mut StoreContextMut<'_, State>, failure: CallFailure) -> wasmtime::Result<Val> {
        if self.function.on_failure != OnFailure::Trap {
            warn!(target = %self.binding.target, error = %failure, "call failed; the component is told why");
        }
        let reason = match self.function.on_failure {
            OnFailure::Trap => return Err(wasmtime::Error::new(failure)),
            OnFailure::ErrorText => Val::String(failure.message),
            OnFailure::RpcError => Val::Resource(rpc_error::lower(store, failure)?),
        };
        Ok(Val::Result(Err(Some(Box::new(reason)))))
    }
}
