//! The Cedar context of one call: no more of it than the policies may read.

use cedar_policy::{Context, RestrictedExpression};

use crate::call::{CallContext, ParamValue};
use crate::component::ParamType;
use crate::engine::{Action, Core};
use crate::reads::Reads;

/// The context, or why the call cannot be put to the policies.
pub(super) fn of_call(core: &Core, action: &Action, reads: &Reads, call: &CallContext<'_>) -> Result<Context, String> {
    let link_name = call.link_name.filter(|_| reads.link_name);
    let params = call.params.filter(|_| reads.params.any());
    if link_name.is_none() && params.is_none() {
        return Ok(core.context(call.transport));
    }
    let mut attributes = vec![text("transport", call.transport.name())];
    if let Some(link_name) = link_name {
        attributes.push(text("link_name", link_name));
    }
    if let Some(params) = params {
        let record =
            RestrictedExpression::new_record(readable(action, reads, params)?).map_err(|error| error.to_string())?;
        attributes.push(("params".to_owned(), record));
    }
    Context::from_pairs(attributes).map_err(|error| error.to_string())
}

fn readable(
    action: &Action,
    reads: &Reads,
    params: &[(&str, ParamValue<'_>)],
) -> Result<Vec<(String, RestrictedExpression)>, String> {
    let mut attributes = Vec::new();
    for (name, kind) in action.params.iter().filter(|(name, _)| reads.params.includes(name)) {
        let given = params.iter().find(|(given, _)| given == name).map_or(&ParamValue::Absent, |(_, value)| value);
        if let Some(value) = attribute(name, *kind, given)? {
            attributes.push((name.clone(), value));
        }
    }
    Ok(attributes)
}

/// A value that is not of the declared type is refused: policies were checked against that type.
fn attribute(name: &str, kind: ParamType, value: &ParamValue<'_>) -> Result<Option<RestrictedExpression>, String> {
    use ParamType as T;
    use ParamValue as V;
    match (kind, value) {
        (T::Unreadable, _) | (T::OptionalBool | T::OptionalLong | T::OptionalString, V::Absent) => Ok(None),
        (T::Bool | T::OptionalBool, V::Bool(value)) => Ok(Some(RestrictedExpression::new_bool(*value))),
        (T::Long | T::OptionalLong, V::Signed(value)) => Ok(Some(RestrictedExpression::new_long(*value))),
        (T::Long | T::OptionalLong, V::Unsigned(value)) => i64::try_from(*value)
            .map(|value| Some(RestrictedExpression::new_long(value)))
            .map_err(|_| format!("parameter `{name}` is {value}, more than a policy can read ({})", i64::MAX)),
        (T::String | T::OptionalString, V::String(value)) => {
            Ok(Some(RestrictedExpression::new_string(value.clone().into_owned())))
        }
        (T::Bool | T::Long | T::String, V::Absent) => Err(format!("parameter `{name}` is missing")),
        (T::Bool | T::OptionalBool, V::Signed(_) | V::Unsigned(_) | V::String(_) | V::Unreadable)
        | (T::Long | T::OptionalLong, V::Bool(_) | V::String(_) | V::Unreadable)
        | (T::String | T::OptionalString, V::Bool(_) | V::Signed(_) | V::Unsigned(_) | V::Unreadable) => {
            Err(format!("parameter `{name}` does not have its declared type"))
        }
    }
}

fn text(name: &str, value: &str) -> (String, RestrictedExpression) {
    (name.to_owned(), RestrictedExpression::new_string(value.to_owned()))
}
