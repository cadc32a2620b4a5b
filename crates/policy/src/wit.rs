//! WIT interfaces and values as policy sees them.
//!
//! The one place that says which WIT parameters a policy can read, for the broker's schema and the sidecar's decisions alike.

use std::borrow::Cow;

use portcullis_value::{FunctionKind, FunctionType, Type, Value};

use crate::{Function, Interface, ParamType, ParamValue};

impl From<&portcullis_value::Interface> for Interface {
    fn from(interface: &portcullis_value::Interface) -> Self {
        Self { name: interface.name.clone(), functions: interface.functions.iter().map(Function::from).collect() }
    }
}

impl From<&portcullis_value::Function> for Function {
    fn from(function: &portcullis_value::Function) -> Self {
        let params = match &function.kind {
            FunctionKind::Typed(FunctionType { params, .. }) => {
                params.iter().map(|(name, ty)| (name.clone(), ParamType::from(ty))).collect()
            }
            FunctionKind::Opaque(_) => Vec::new(),
        };
        Self { name: function.name.clone(), params }
    }
}

impl From<&Type> for ParamType {
    fn from(ty: &Type) -> Self {
        if let Type::Option(inner) = ty {
            return match Self::from(inner.as_ref()) {
                Self::Bool => Self::OptionalBool,
                Self::Long => Self::OptionalLong,
                Self::String => Self::OptionalString,
                Self::OptionalBool | Self::OptionalLong | Self::OptionalString | Self::Unreadable => Self::Unreadable,
            };
        }
        match ty {
            Type::Bool => Self::Bool,
            Type::U8 | Type::U16 | Type::U32 | Type::U64 | Type::S8 | Type::S16 | Type::S32 | Type::S64 => Self::Long,
            Type::Char | Type::String | Type::Enum(_) => Self::String,
            Type::F32
            | Type::F64
            | Type::Bytes
            | Type::List(_)
            | Type::Tuple(_)
            | Type::Record(_)
            | Type::Variant(_)
            | Type::Option(_)
            | Type::Result(_)
            | Type::Flags(_) => Self::Unreadable,
        }
    }
}

/// The parameters of a call as a policy can read them: by their WIT names, in order.
#[must_use]
pub fn readable_params<'a>(ty: &'a FunctionType, values: &'a [Value]) -> Vec<(&'a str, ParamValue<'a>)> {
    ty.params.iter().zip(values).map(|((name, ty), value)| (name.as_str(), readable(ty, value))).collect()
}

fn readable<'a>(ty: &'a Type, value: &'a Value) -> ParamValue<'a> {
    match (ty, value) {
        (Type::Option(_), Value::Option(None)) => ParamValue::Absent,
        (Type::Option(inner), Value::Option(Some(value))) => readable(inner, value),
        (Type::Enum(cases), Value::Enum(case)) => {
            let name = usize::try_from(*case).ok().and_then(|case| cases.cases.get(case));
            name.map_or(ParamValue::Unreadable, |name| ParamValue::String(Cow::Borrowed(name)))
        }
        (_, Value::Bool(value)) => ParamValue::Bool(*value),
        (_, Value::U8(value)) => ParamValue::Unsigned((*value).into()),
        (_, Value::U16(value)) => ParamValue::Unsigned((*value).into()),
        (_, Value::U32(value)) => ParamValue::Unsigned((*value).into()),
        (_, Value::U64(value)) => ParamValue::Unsigned(*value),
        (_, Value::S8(value)) => ParamValue::Signed((*value).into()),
        (_, Value::S16(value)) => ParamValue::Signed((*value).into()),
        (_, Value::S32(value)) => ParamValue::Signed((*value).into()),
        (_, Value::S64(value)) => ParamValue::Signed(*value),
        (_, Value::Char(value)) => ParamValue::String(Cow::Owned(value.to_string())),
        (_, Value::String(value)) => ParamValue::String(Cow::Borrowed(value)),
        (
            _,
            Value::F32(_)
            | Value::F64(_)
            | Value::Bytes(_)
            | Value::List(_)
            | Value::Tuple(_)
            | Value::Record(_)
            | Value::Variant(..)
            | Value::Enum(_)
            | Value::Option(_)
            | Value::Result(_)
            | Value::Flags(_),
        ) => ParamValue::Unreadable,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use portcullis_value::Enum;

    use super::*;

    #[test]
    fn a_parameter_is_read_through_one_option_and_no_further() {
        let option = |ty: Type| Type::Option(Arc::new(ty));
        assert_eq!(ParamType::from(&option(Type::U64)), ParamType::OptionalLong);
        assert_eq!(ParamType::from(&option(option(Type::U64))), ParamType::Unreadable);
        assert_eq!(ParamType::from(&Type::Bytes), ParamType::Unreadable);
        let some = |value: Value| Value::Option(Some(Box::new(value)));
        assert_eq!(readable(&option(Type::U8), &some(Value::U8(3))), ParamValue::Unsigned(3));
        assert_eq!(readable(&option(Type::U8), &Value::Option(None)), ParamValue::Absent);
    }

    #[test]
    fn an_enum_is_read_by_its_name() {
        let ty = Type::Enum(Arc::new(Enum { cases: vec!["red".to_owned(), "green".to_owned()] }));
        assert_eq!(readable(&ty, &Value::Enum(1)), ParamValue::String("green".into()));
        assert_eq!(readable(&ty, &Value::Enum(2)), ParamValue::Unreadable);
    }
}
