//! Values to bytes.

use super::flags_width;
use super::leb128::{write_signed, write_unsigned};
use crate::place::{Place, Shortened};
use crate::{FunctionType, Type, Value};

/// A value that does not have the type it is written as: a mistake on our side, never the peer's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot encode{place}: {problem}")]
pub struct EncodeError {
    place: Place,
    problem: String,
}

impl EncodeError {
    fn new(problem: String) -> Self {
        Self { place: Place::default(), problem }
    }

    fn mismatch(ty: &Type, value: &Value) -> Self {
        Self::new(format!("expected `{}`, found a `{}`", Shortened(ty), value.kind()))
    }

    fn within(mut self, name: &str) -> Self {
        self.place.enter(name);
        self
    }

    fn at(self, position: usize) -> Self {
        self.within(&position.to_string())
    }
}

/// Appends the encoding of a value.
///
/// # Errors
/// When the value does not have the type; `out` is then as it was.
pub fn encode(value: &Value, ty: &Type, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    all_or_nothing(out, |out| write(value, ty, out))
}

/// Appends the encoding of the parameters of a call.
///
/// # Errors
/// As [`encode`], or when there are more or fewer values than parameters.
pub fn encode_params(function: &FunctionType, values: &[Value], out: &mut Vec<u8>) -> Result<(), EncodeError> {
    all_or_nothing(out, |out| {
        same_length("parameters", function.params.len(), values.len())?;
        for (value, (name, ty)) in values.iter().zip(&function.params) {
            write(value, ty, out).map_err(|error| error.within(name))?;
        }
        Ok(())
    })
}

/// Appends the encoding of the result of a call, where the function has one.
///
/// # Errors
/// As [`encode`], or when a value is missing or there is one too many.
pub fn encode_result(function: &FunctionType, value: Option<&Value>, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    match (value, &function.result) {
        (Some(value), Some(ty)) => encode(value, ty, out),
        (None, None) => Ok(()),
        (Some(value), None) => Err(EncodeError::new(format!("expected no result, found a `{}`", value.kind()))),
        (None, Some(ty)) => Err(EncodeError::new(format!("expected a result `{}`, found none", Shortened(ty)))),
    }
}

fn all_or_nothing(
    out: &mut Vec<u8>,
    write: impl FnOnce(&mut Vec<u8>) -> Result<(), EncodeError>,
) -> Result<(), EncodeError> {
    let before = out.len();
    write(out).inspect_err(|_| out.truncate(before))
}

fn write(value: &Value, ty: &Type, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    match (ty, value) {
        (Type::String, Value::String(value)) => write_counted(value.as_bytes(), out)?,
        (Type::Bytes, Value::Bytes(value)) => write_counted(value, out)?,
        (Type::List(element), Value::List(values)) => {
            write_length(values.len(), out)?;
            for (position, value) in values.iter().enumerate() {
                write(value, element, out).map_err(|error| error.at(position))?;
            }
        }
        (Type::Tuple(types), Value::Tuple(values)) => {
            same_length("elements", types.len(), values.len())?;
            for (position, (value, ty)) in values.iter().zip(types.iter()).enumerate() {
                write(value, ty, out).map_err(|error| error.at(position))?;
            }
        }
        (Type::Record(record), Value::Record(values)) => {
            same_length("fields", record.fields.len(), values.len())?;
            for (value, (name, ty)) in values.iter().zip(&record.fields) {
                write(value, ty, out).map_err(|error| error.within(name))?;
            }
        }
        (Type::Variant(variant), Value::Variant(position, payload)) => {
            let (name, ty) = write_case(*position, &variant.cases, out)?;
            write_payload(payload.as_deref(), ty.as_ref(), out).map_err(|error| error.within(name))?;
        }
        (Type::Enum(names), Value::Enum(position)) => {
            write_case(*position, &names.cases, out)?;
        }
        (Type::Option(ty), Value::Option(payload)) => {
            out.push(u8::from(payload.is_some()));
            write_payload(payload.as_deref(), payload.as_ref().map(|_| &**ty), out)?;
        }
        (Type::Result(ty), Value::Result(Ok(payload))) => {
            out.push(0);
            write_payload(payload.as_deref(), ty.ok.as_ref(), out).map_err(|error| error.within("ok"))?;
        }
        (Type::Result(ty), Value::Result(Err(payload))) => {
            out.push(1);
            write_payload(payload.as_deref(), ty.err.as_ref(), out).map_err(|error| error.within("err"))?;
        }
        (Type::Flags(flags), Value::Flags(bits)) => {
            same_length("flags", flags.names.len(), bits.len())?;
            write_flags(bits, out);
        }
        (ty, value) => write_scalar(value, ty, out)?,
    }
    Ok(())
}

fn write_scalar(value: &Value, ty: &Type, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    match (ty, value) {
        (Type::Bool, Value::Bool(value)) => out.push(u8::from(*value)),
        (Type::U8, Value::U8(value)) => out.push(*value),
        (Type::U16, Value::U16(value)) => write_unsigned(u64::from(*value), out),
        (Type::U32, Value::U32(value)) => write_unsigned(u64::from(*value), out),
        (Type::U64, Value::U64(value)) => write_unsigned(*value, out),
        (Type::S8, Value::S8(value)) => out.extend_from_slice(&value.to_le_bytes()),
        (Type::S16, Value::S16(value)) => write_signed(i64::from(*value), out),
        (Type::S32, Value::S32(value)) => write_signed(i64::from(*value), out),
        (Type::S64, Value::S64(value)) => write_signed(*value, out),
        (Type::F32, Value::F32(value)) => {
            let canonical = if value.is_nan() { CANONICAL_NAN_F32 } else { value.to_bits() };
            out.extend_from_slice(&canonical.to_le_bytes());
        }
        (Type::F64, Value::F64(value)) => {
            let canonical = if value.is_nan() { CANONICAL_NAN_F64 } else { value.to_bits() };
            out.extend_from_slice(&canonical.to_le_bytes());
        }
        (Type::Char, Value::Char(value)) => out.extend_from_slice(value.encode_utf8(&mut [0; 4]).as_bytes()),
        (
            Type::Bool
            | Type::U8
            | Type::U16
            | Type::U32
            | Type::U64
            | Type::S8
            | Type::S16
            | Type::S32
            | Type::S64
            | Type::F32
            | Type::F64
            | Type::Char
            | Type::String
            | Type::Bytes
            | Type::List(_)
            | Type::Tuple(_)
            | Type::Record(_)
            | Type::Variant(_)
            | Type::Enum(_)
            | Type::Option(_)
            | Type::Result(_)
            | Type::Flags(_),
            value,
        ) => return Err(EncodeError::mismatch(ty, value)),
    }
    Ok(())
}

/// The quiet NaN without payload (Component Model, Canonical ABI, "canonicalize_nan32").
const CANONICAL_NAN_F32: u32 = 0x7fc0_0000;
/// The same of `f64`.
const CANONICAL_NAN_F64: u64 = 0x7ff8_0000_0000_0000;

fn write_payload(value: Option<&Value>, ty: Option<&Type>, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    match (value, ty) {
        (Some(value), Some(ty)) => write(value, ty, out),
        (None, None) => Ok(()),
        (Some(value), None) => Err(EncodeError::new(format!("expected no payload, found a `{}`", value.kind()))),
        (None, Some(ty)) => Err(EncodeError::new(format!("expected a payload `{}`, found none", Shortened(ty)))),
    }
}

fn write_case<'t, T>(position: u32, cases: &'t [T], out: &mut Vec<u8>) -> Result<&'t T, EncodeError> {
    let case = usize::try_from(position).ok().and_then(|position| cases.get(position));
    let case = case.ok_or_else(|| EncodeError::new(format!("there is no case {position} among {}", cases.len())))?;
    write_unsigned(u64::from(position), out);
    Ok(case)
}

fn write_flags(bits: &[bool], out: &mut Vec<u8>) {
    let end = out.len() + flags_width(bits.len());
    out.extend(bits.chunks(8).map(|chunk| chunk.iter().rev().fold(0, |byte, bit| byte << 1 | u8::from(*bit))));
    out.resize(end, 0);
}

fn write_counted(bytes: &[u8], out: &mut Vec<u8>) -> Result<(), EncodeError> {
    write_length(bytes.len(), out)?;
    out.extend_from_slice(bytes);
    Ok(())
}

fn write_length(length: usize, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    let length =
        u32::try_from(length).map_err(|_| EncodeError::new(format!("a length of {length} does not fit 32 bits")))?;
    write_unsigned(u64::from(length), out);
    Ok(())
}

fn same_length(noun: &str, expected: usize, found: usize) -> Result<(), EncodeError> {
    if expected == found {
        return Ok(());
    }
    Err(EncodeError::new(format!("expected {expected} {noun}, found {found}")))
}

#[cfg(test)]
mod tests {
    use super::{encode, encode_params, encode_result};
    use crate::{FunctionType, Type, Value};

    fn refusal(value: &Value, ty: &Type) -> String {
        let mut out = vec![0xaa];
        let error = encode(value, ty, &mut out).unwrap_err();
        assert_eq!(out, [0xaa]);
        error.to_string()
    }

    #[test]
    fn a_refusal_says_where_and_leaves_nothing_behind() {
        let line = Type::record([("price", Type::U32), ("note", Type::String)]);
        let order = Type::record([("id", Type::U8), ("lines", Type::list(line))]);
        let good = Value::Record(vec![Value::U32(1), Value::String("a".to_owned())]);
        let bad = Value::Record(vec![Value::U64(1), Value::String("a".to_owned())]);
        let value = Value::Record(vec![Value::U8(1), Value::List(vec![good, bad])]);
        assert_eq!(refusal(&value, &order), "cannot encode at `/lines/1/price`: expected `u32`, found a `u64`");
    }

    #[test]
    fn positions_and_counts_are_checked() {
        let shape = Type::variant([("a", None), ("b", Some(Type::U8))]);
        let boxed = |value| Some(Box::new(value));
        for (value, ty, message) in [
            (Value::Enum(2), Type::enumeration(["a", "b"]), "cannot encode: there is no case 2 among 2"),
            (Value::Variant(7, None), shape.clone(), "cannot encode: there is no case 7 among 2"),
            (
                Value::Variant(0, boxed(Value::U8(1))),
                shape.clone(),
                "cannot encode at `/a`: expected no payload, found a `u8`",
            ),
            (Value::Variant(1, None), shape, "cannot encode at `/b`: expected a payload `u8`, found none"),
            (Value::Flags(vec![true]), Type::flags(["a", "b"]), "cannot encode: expected 2 flags, found 1"),
            (Value::Tuple(vec![]), Type::tuple([Type::U8]), "cannot encode: expected 1 elements, found 0"),
            (
                Value::Result(Ok(None)),
                Type::result(Some(Type::U8), None),
                "cannot encode at `/ok`: expected a payload `u8`, found none",
            ),
        ] {
            assert_eq!(refusal(&value, &ty), message);
        }
    }

    #[test]
    fn a_call_has_the_values_its_function_has() {
        let function = FunctionType {
            params: vec![("a".to_owned(), Type::U8), ("b".to_owned(), Type::Bool)],
            result: Some(Type::U8),
        };
        let nothing = FunctionType { params: Vec::new(), result: None };
        let mut out = Vec::new();
        encode_params(&function, &[Value::U8(5), Value::Bool(true)], &mut out).unwrap();
        encode_result(&function, Some(&Value::U8(9)), &mut out).unwrap();
        encode_result(&nothing, None, &mut out).unwrap();
        assert_eq!(out, [5, 1, 9]);
        let error = encode_params(&function, &[Value::U8(5), Value::U8(1)], &mut out).unwrap_err();
        assert_eq!(error.to_string(), "cannot encode at `/b`: expected `bool`, found a `u8`");
        assert!(encode_params(&function, &[Value::U8(5)], &mut out).is_err());
        assert!(encode_result(&function, None, &mut out).is_err());
        assert!(encode_result(&nothing, Some(&Value::U8(1)), &mut out).is_err());
        assert_eq!(out, [5, 1, 9]);
    }
}
