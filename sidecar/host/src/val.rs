//! wasmtime's values and ours, one from the other by their type.

use bytes::Bytes;
use portcullis_value::{Type, Value};
use wasmtime::component::Val;

/// A value that does not have the type that was agreed on; a fault of this host.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a value is not a `{0}`")]
pub(crate) struct WrongType(String);

impl WrongType {
    fn expected(ty: &Type) -> Self {
        Self(ty.to_string())
    }
}

/// Our value of what a component gave.
///
/// # Errors
/// When `val` does not have the type.
pub(crate) fn from_val(val: &Val, ty: &Type) -> Result<Value, WrongType> {
    Ok(match (val, ty) {
        (Val::Bool(value), Type::Bool) => Value::Bool(*value),
        (Val::U8(value), Type::U8) => Value::U8(*value),
        (Val::U16(value), Type::U16) => Value::U16(*value),
        (Val::U32(value), Type::U32) => Value::U32(*value),
        (Val::U64(value), Type::U64) => Value::U64(*value),
        (Val::S8(value), Type::S8) => Value::S8(*value),
        (Val::S16(value), Type::S16) => Value::S16(*value),
        (Val::S32(value), Type::S32) => Value::S32(*value),
        (Val::S64(value), Type::S64) => Value::S64(*value),
        (Val::Float32(value), Type::F32) => Value::F32(*value),
        (Val::Float64(value), Type::F64) => Value::F64(*value),
        (Val::Char(value), Type::Char) => Value::Char(*value),
        (Val::String(value), Type::String) => Value::String(value.clone()),
        (Val::List(elements), Type::Bytes) => Value::Bytes(bytes_of(elements, ty)?),
        (Val::List(elements), Type::List(element)) => {
            Value::List(elements.iter().map(|val| from_val(val, element)).collect::<Result<_, _>>()?)
        }
        (Val::Tuple(elements), Type::Tuple(types)) if elements.len() == types.len() => {
            let elements = elements.iter().zip(types.iter());
            Value::Tuple(elements.map(|(val, ty)| from_val(val, ty)).collect::<Result<_, _>>()?)
        }
        (Val::Record(fields), Type::Record(record)) if fields.len() == record.fields.len() => {
            let fields = fields.iter().zip(&record.fields);
            Value::Record(fields.map(|((_, val), (_, ty))| from_val(val, ty)).collect::<Result<_, _>>()?)
        }
        (Val::Variant(name, payload), Type::Variant(variant)) => {
            let case = variant.cases.iter().position(|(case, _)| case == name);
            let case = case.ok_or_else(|| WrongType::expected(ty))?;
            let payload_type = variant.cases.get(case).and_then(|(_, payload)| payload.as_ref());
            Value::Variant(index(case, ty)?, payload_of(payload.as_deref(), payload_type, ty)?)
        }
        (Val::Enum(name), Type::Enum(cases)) => {
            let case = cases.cases.iter().position(|case| case == name);
            Value::Enum(index(case.ok_or_else(|| WrongType::expected(ty))?, ty)?)
        }
        (Val::Option(None), Type::Option(_)) => Value::none(),
        (Val::Option(Some(val)), Type::Option(payload)) => Value::some(from_val(val, payload)?),
        (Val::Result(Ok(val)), Type::Result(result)) => {
            Value::Result(Ok(payload_of(val.as_deref(), result.ok.as_ref(), ty)?))
        }
        (Val::Result(Err(val)), Type::Result(result)) => {
            Value::Result(Err(payload_of(val.as_deref(), result.err.as_ref(), ty)?))
        }
        (Val::Flags(set), Type::Flags(flags)) if set.iter().all(|name| flags.names.contains(name)) => {
            Value::Flags(flags.names.iter().map(|name| set.contains(name)).collect())
        }
        _ => return Err(WrongType::expected(ty)),
    })
}

fn bytes_of(elements: &[Val], ty: &Type) -> Result<Bytes, WrongType> {
    let bytes = elements.iter().map(|val| {
        let Val::U8(byte) = val else {
            return Err(WrongType::expected(ty));
        };
        Ok(*byte)
    });
    bytes.collect::<Result<Vec<u8>, _>>().map(Bytes::from)
}

fn index(case: usize, ty: &Type) -> Result<u32, WrongType> {
    u32::try_from(case).map_err(|_| WrongType::expected(ty))
}

fn payload_of(val: Option<&Val>, payload: Option<&Type>, ty: &Type) -> Result<Option<Box<Value>>, WrongType> {
    match (val, payload) {
        (None, None) => Ok(None),
        (Some(val), Some(payload)) => from_val(val, payload).map(|value| Some(Box::new(value))),
        (None, Some(_)) | (Some(_), None) => Err(WrongType::expected(ty)),
    }
}

/// wasmtime's value of ours.
///
/// # Errors
/// When `value` does not have the type.
pub(crate) fn to_val(value: Value, ty: &Type) -> Result<Val, WrongType> {
    Ok(match (value, ty) {
        (Value::Bool(value), Type::Bool) => Val::Bool(value),
        (Value::U8(value), Type::U8) => Val::U8(value),
        (Value::U16(value), Type::U16) => Val::U16(value),
        (Value::U32(value), Type::U32) => Val::U32(value),
        (Value::U64(value), Type::U64) => Val::U64(value),
        (Value::S8(value), Type::S8) => Val::S8(value),
        (Value::S16(value), Type::S16) => Val::S16(value),
        (Value::S32(value), Type::S32) => Val::S32(value),
        (Value::S64(value), Type::S64) => Val::S64(value),
        (Value::F32(value), Type::F32) => Val::Float32(value),
        (Value::F64(value), Type::F64) => Val::Float64(value),
        (Value::Char(value), Type::Char) => Val::Char(value),
        (Value::String(value), Type::String) => Val::String(value),
        (Value::Bytes(bytes), Type::Bytes) => Val::List(bytes.iter().map(|byte| Val::U8(*byte)).collect()),
        (Value::List(elements), Type::List(element)) => {
            Val::List(elements.into_iter().map(|value| to_val(value, element)).collect::<Result<_, _>>()?)
        }
        (Value::Tuple(elements), Type::Tuple(types)) if elements.len() == types.len() => {
            let elements = elements.into_iter().zip(types.iter());
            Val::Tuple(elements.map(|(value, ty)| to_val(value, ty)).collect::<Result<_, _>>()?)
        }
        (Value::Record(fields), Type::Record(record)) if fields.len() == record.fields.len() => {
            let fields = fields.into_iter().zip(&record.fields);
            let fields = fields.map(|(value, (name, ty))| Ok((name.clone(), to_val(value, ty)?)));
            Val::Record(fields.collect::<Result<_, _>>()?)
        }
        (Value::Variant(case, payload), Type::Variant(variant)) => {
            let case = usize::try_from(case).ok().and_then(|case| variant.cases.get(case));
            let (name, payload_type) = case.ok_or_else(|| WrongType::expected(ty))?;
            Val::Variant(name.clone(), payload_to(payload, payload_type.as_ref(), ty)?)
        }
        (Value::Enum(case), Type::Enum(cases)) => {
            let name = usize::try_from(case).ok().and_then(|case| cases.cases.get(case));
            Val::Enum(name.ok_or_else(|| WrongType::expected(ty))?.clone())
        }
        (Value::Option(None), Type::Option(_)) => Val::Option(None),
        (Value::Option(Some(value)), Type::Option(payload)) => Val::Option(Some(Box::new(to_val(*value, payload)?))),
        (Value::Result(Ok(value)), Type::Result(result)) => Val::Result(Ok(payload_to(value, result.ok.as_ref(), ty)?)),
        (Value::Result(Err(value)), Type::Result(result)) => {
            Val::Result(Err(payload_to(value, result.err.as_ref(), ty)?))
        }
        (Value::Flags(set), Type::Flags(flags)) if set.len() == flags.names.len() => {
            let names = flags.names.iter().zip(set).filter(|(_, set)| *set);
            Val::Flags(names.map(|(name, _)| name.clone()).collect())
        }
        _ => return Err(WrongType::expected(ty)),
    })
}

fn payload_to(value: Option<Box<Value>>, payload: Option<&Type>, ty: &Type) -> Result<Option<Box<Val>>, WrongType> {
    match (value, payload) {
        (None, None) => Ok(None),
        (Some(value), Some(payload)) => to_val(*value, payload).map(|val| Some(Box::new(val))),
        (None, Some(_)) | (Some(_), None) => Err(WrongType::expected(ty)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values of every kind, by type, as wasmtime and as we have them.
    fn pairs() -> Vec<(Type, Val, Value)> {
        let shape = Type::variant([("dot", None), ("circle", Some(Type::F32))]);
        let access = Type::flags(["read", "write", "lock"]);
        let record = Type::record([("x", Type::S32), ("label", Type::option(Type::String))]);
        let outcome = Type::result(Some(Type::U32), None);
        let bytes = || Val::List(vec![Val::U8(0), Val::U8(255)]);
        let text = |text: &str| text.to_owned();
        vec![
            (Type::Bool, Val::Bool(true), Value::Bool(true)),
            (Type::U8, Val::U8(1), Value::U8(1)),
            (Type::U16, Val::U16(2), Value::U16(2)),
            (Type::U32, Val::U32(3), Value::U32(3)),
            (Type::U64, Val::U64(4), Value::U64(4)),
            (Type::S8, Val::S8(-1), Value::S8(-1)),
            (Type::S16, Val::S16(-2), Value::S16(-2)),
            (Type::S32, Val::S32(-3), Value::S32(-3)),
            (Type::S64, Val::S64(-4), Value::S64(-4)),
            (Type::F32, Val::Float32(0.5), Value::F32(0.5)),
            (Type::F64, Val::Float64(-0.25), Value::F64(-0.25)),
            (Type::Char, Val::Char('ß'), Value::Char('ß')),
            (Type::String, Val::String(text("a")), Value::String(text("a"))),
            (Type::Bytes, bytes(), Value::Bytes(Bytes::from_static(&[0, 255]))),
            (Type::list(Type::U16), Val::List(vec![Val::U16(7)]), Value::List(vec![Value::U16(7)])),
            (
                Type::list(Type::Bytes),
                Val::List(vec![bytes()]),
                Value::List(vec![Value::Bytes(Bytes::from_static(&[0, 255]))]),
            ),
            (
                Type::tuple([Type::U8, Type::Bool]),
                Val::Tuple(vec![Val::U8(1), Val::Bool(false)]),
                Value::Tuple(vec![Value::U8(1), Value::Bool(false)]),
            ),
            (
                record,
                Val::Record(vec![(text("x"), Val::S32(1)), (text("label"), Val::Option(None))]),
                Value::Record(vec![Value::S32(1), Value::none()]),
            ),
            (shape.clone(), Val::Variant(text("dot"), None), Value::Variant(0, None)),
            (
                shape,
                Val::Variant(text("circle"), Some(Box::new(Val::Float32(1.0)))),
                Value::Variant(1, Some(Box::new(Value::F32(1.0)))),
            ),
            (Type::enumeration(["red", "green"]), Val::Enum(text("green")), Value::Enum(1)),
            (Type::option(Type::U8), Val::Option(Some(Box::new(Val::U8(1)))), Value::some(Value::U8(1))),
            (
                outcome.clone(),
                Val::Result(Ok(Some(Box::new(Val::U32(1))))),
                Value::Result(Ok(Some(Box::new(Value::U32(1))))),
            ),
            (outcome, Val::Result(Err(None)), Value::Result(Err(None))),
            (access.clone(), Val::Flags(vec![text("read"), text("lock")]), Value::Flags(vec![true, false, true])),
            (access, Val::Flags(Vec::new()), Value::Flags(vec![false; 3])),
        ]
    }

    #[test]
    fn a_value_of_every_type_is_the_same_on_both_sides() {
        for (ty, val, value) in pairs() {
            assert_eq!(from_val(&val, &ty).unwrap(), value, "{ty}");
            assert_eq!(to_val(value, &ty).unwrap(), val, "{ty}");
        }
    }

    #[test]
    fn a_value_of_another_type_is_refused() {
        for (position, (ty, ..)) in pairs().iter().enumerate() {
            for (other, (other_type, val, value)) in pairs().into_iter().enumerate() {
                if position != other && other_type != *ty {
                    assert!(from_val(&val, ty).is_err(), "{other_type} for {ty}");
                    assert!(to_val(value, ty).is_err(), "{other_type} for {ty}");
                }
            }
        }
    }

    #[test]
    fn cases_flags_and_payloads_that_the_type_lacks_are_refused() {
        let text = |text: &str| text.to_owned();
        let shape = Type::variant([("dot", None), ("circle", Some(Type::F32))]);
        for val in [Val::Variant(text("square"), None), Val::Variant(text("circle"), None)] {
            assert!(from_val(&val, &shape).is_err());
        }
        for value in [Value::Variant(2, None), Value::Variant(1, None), Value::Variant(0, Some(Box::new(Value::U8(1))))]
        {
            assert!(to_val(value, &shape).is_err());
        }
        assert!(from_val(&Val::Enum(text("blue")), &Type::enumeration(["red"])).is_err());
        assert!(to_val(Value::Enum(1), &Type::enumeration(["red"])).is_err());
        assert!(from_val(&Val::Flags(vec![text("fly")]), &Type::flags(["walk"])).is_err());
        assert!(to_val(Value::Flags(vec![true, true]), &Type::flags(["walk"])).is_err());
        assert!(to_val(Value::Record(Vec::new()), &Type::record([("x", Type::U8)])).is_err());
    }
}
