//! Values to JSON text.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;

use super::{Int64, JsonError, JsonRules};
use crate::{FunctionType, Type, Value};

/// Appends a value as JSON.
///
/// # Errors
/// When the value does not have the type; `out` is then as it was.
pub fn to_json(value: &Value, ty: &Type, rules: &JsonRules, out: &mut Vec<u8>) -> Result<(), JsonError> {
    all_or_nothing(out, |out| Writer { rules, out }.value(value, ty))
}

/// Appends the parameters of a call as one JSON object.
///
/// # Errors
/// As [`to_json`], or when there are more or fewer values than parameters.
pub fn params_to_json(
    function: &FunctionType,
    values: &[Value],
    rules: &JsonRules,
    out: &mut Vec<u8>,
) -> Result<(), JsonError> {
    all_or_nothing(out, |out| Writer { rules, out }.fields(&function.params, values))
}

/// Appends the result of a call as JSON: `null` where the function has none.
///
/// # Errors
/// As [`to_json`], or when a value is missing or there is one too many.
pub fn result_to_json(
    function: &FunctionType,
    value: Option<&Value>,
    rules: &JsonRules,
    out: &mut Vec<u8>,
) -> Result<(), JsonError> {
    all_or_nothing(out, |out| Writer { rules, out }.payload(value, function.result.as_ref()))
}

fn all_or_nothing(
    out: &mut Vec<u8>,
    write: impl FnOnce(&mut Vec<u8>) -> Result<(), JsonError>,
) -> Result<(), JsonError> {
    let before = out.len();
    write(out).inspect_err(|_| out.truncate(before))
}

struct Writer<'a> {
    rules: &'a JsonRules,
    out: &'a mut Vec<u8>,
}

impl Writer<'_> {
    fn value(&mut self, value: &Value, ty: &Type) -> Result<(), JsonError> {
        match (ty, value) {
            (Type::Bytes, Value::Bytes(value)) => self.base64(value),
            (Type::List(element), Value::List(values)) => self.elements(values.iter().map(|value| (value, &**element))),
            (Type::Tuple(types), Value::Tuple(values)) if types.len() == values.len() => {
                self.elements(values.iter().zip(types.iter()))
            }
            (Type::Record(record), Value::Record(values)) => self.fields(&record.fields, values),
            (Type::Variant(variant), Value::Variant(position, payload)) => {
                let Some((name, payload_type)) = case(*position, &variant.cases) else {
                    return Err(JsonError::mismatch(ty, format!("case {position}")));
                };
                self.variant(name, payload.as_deref(), payload_type.as_ref())
            }
            (Type::Enum(names), Value::Enum(position)) => match case(*position, &names.cases) {
                Some(name) => self.plain(name),
                None => Err(JsonError::mismatch(ty, format!("case {position}"))),
            },
            (Type::Option(_), Value::Option(None)) => self.plain(&()),
            (Type::Option(payload_type), Value::Option(Some(payload))) if payload_type.is_option() => {
                self.out.extend_from_slice(b"{\"val\":");
                self.value(payload, payload_type).map_err(|error| error.within("val"))?;
                self.out.push(b'}');
                Ok(())
            }
            (Type::Option(payload_type), Value::Option(Some(payload))) => self.value(payload, payload_type),
            (Type::Result(arms), Value::Result(result)) => self.result(result, &arms.ok, &arms.err),
            (Type::Flags(flags), Value::Flags(bits)) if flags.names.len() == bits.len() => self
                .sequence(flags.names.iter().zip(bits).filter(|(_, set)| **set), |writer, (name, _)| {
                    writer.plain(name)
                }),
            (ty, value) => self.scalar(value, ty),
        }
    }

    fn scalar(&mut self, value: &Value, ty: &Type) -> Result<(), JsonError> {
        match (ty, value) {
            (Type::Bool, Value::Bool(value)) => self.plain(value),
            (Type::U8, Value::U8(value)) => self.plain(value),
            (Type::U16, Value::U16(value)) => self.plain(value),
            (Type::U32, Value::U32(value)) => self.plain(value),
            (Type::U64, Value::U64(value)) => self.int64(value),
            (Type::S8, Value::S8(value)) => self.plain(value),
            (Type::S16, Value::S16(value)) => self.plain(value),
            (Type::S32, Value::S32(value)) => self.plain(value),
            (Type::S64, Value::S64(value)) => self.int64(value),
            (Type::F32, Value::F32(value)) => self.float(value, f64::from(*value)),
            (Type::F64, Value::F64(value)) => self.float(value, *value),
            (Type::Char, Value::Char(value)) => self.plain(value),
            (Type::String, Value::String(value)) => self.plain(value),
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
            ) => Err(JsonError::mismatch(ty, a_value(value))),
        }
    }

    /// What `serde_json` writes as the rules want it; an `f32` too comes out in its own shortest form.
    fn plain<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), JsonError> {
        serde_json::to_writer(&mut *self.out, value)
            .map_err(|error| JsonError::mismatch(&"a scalar", error.to_string()))
    }

    fn int64<T: Serialize + ToString>(&mut self, value: &T) -> Result<(), JsonError> {
        match self.rules.int64 {
            Int64::Number => self.plain(value),
            Int64::String => {
                self.out.push(b'"');
                self.plain(value)?;
                self.out.push(b'"');
                Ok(())
            }
        }
    }

    fn float<T: Serialize>(&mut self, value: &T, class: f64) -> Result<(), JsonError> {
        if class.is_nan() {
            self.plain("NaN")
        } else if class == f64::INFINITY {
            self.plain("Infinity")
        } else if class == f64::NEG_INFINITY {
            self.plain("-Infinity")
        } else {
            self.plain(value)
        }
    }

    fn base64(&mut self, bytes: &[u8]) -> Result<(), JsonError> {
        self.out.push(b'"');
        let start = self.out.len();
        let length = base64::encoded_len(bytes.len(), true).unwrap_or(usize::MAX);
        self.out.resize(start.saturating_add(length), 0);
        let written = self.out.get_mut(start..).map(|room| STANDARD.encode_slice(bytes, room));
        self.out.push(b'"');
        match written {
            Some(Ok(_)) => Ok(()),
            Some(Err(_)) | None => Err(JsonError::mismatch(&Type::Bytes, "bytes that have no base64 form")),
        }
    }

    fn elements<'v>(&mut self, elements: impl Iterator<Item = (&'v Value, &'v Type)>) -> Result<(), JsonError> {
        self.sequence(elements.enumerate(), |writer, (position, (value, ty))| {
            writer.value(value, ty).map_err(|error| error.at(position))
        })
    }

    fn sequence<T>(
        &mut self,
        items: impl Iterator<Item = T>,
        mut write: impl FnMut(&mut Self, T) -> Result<(), JsonError>,
    ) -> Result<(), JsonError> {
        let mut before = b'[';
        for item in items {
            self.out.push(before);
            before = b',';
            write(self, item)?;
        }
        if before == b'[' {
            self.out.push(b'[');
        }
        self.out.push(b']');
        Ok(())
    }

    /// An object without the fields that are `none`.
    fn fields(&mut self, fields: &[(String, Type)], values: &[Value]) -> Result<(), JsonError> {
        if fields.len() != values.len() {
            return Err(JsonError::mismatch(&format_args!("{} fields", fields.len()), values.len().to_string()));
        }
        let mut before = b'{';
        for ((name, ty), value) in fields.iter().zip(values) {
            if let (Type::Option(_), Value::Option(None)) = (ty, value) {
                continue;
            }
            self.out.push(before);
            before = b',';
            self.plain(name)?;
            self.out.push(b':');
            self.value(value, ty).map_err(|error| error.within(name))?;
        }
        if before == b'{' {
            self.out.push(b'{');
        }
        self.out.push(b'}');
        Ok(())
    }

    fn variant(&mut self, name: &str, payload: Option<&Value>, ty: Option<&Type>) -> Result<(), JsonError> {
        self.out.extend_from_slice(b"{\"tag\":");
        self.plain(name)?;
        if payload.is_some() || ty.is_some() {
            self.out.extend_from_slice(b",\"val\":");
            self.payload(payload, ty).map_err(|error| error.within("val"))?;
        }
        self.out.push(b'}');
        Ok(())
    }

    fn result(
        &mut self,
        result: &Result<Option<Box<Value>>, Option<Box<Value>>>,
        ok: &Option<Type>,
        err: &Option<Type>,
    ) -> Result<(), JsonError> {
        let (open, key, payload, ty): (&[u8], _, _, _) = match result {
            Ok(payload) => (b"{\"ok\":", "ok", payload, ok),
            Err(payload) => (b"{\"err\":", "err", payload, err),
        };
        self.out.extend_from_slice(open);
        self.payload(payload.as_deref(), ty.as_ref()).map_err(|error| error.within(key))?;
        self.out.push(b'}');
        Ok(())
    }

    /// A value that a type may not have: `null` where there is none.
    fn payload(&mut self, value: Option<&Value>, ty: Option<&Type>) -> Result<(), JsonError> {
        match (value, ty) {
            (Some(value), Some(ty)) => self.value(value, ty),
            (None, None) => self.plain(&()),
            (None, Some(ty)) => Err(JsonError::mismatch(ty, "no value")),
            (Some(value), None) => Err(JsonError::mismatch(&"nothing", a_value(value))),
        }
    }
}

/// What a value is, for messages.
fn a_value(value: &Value) -> String {
    format!("a value of kind `{}`", value.kind())
}

fn case<T>(position: u32, cases: &[T]) -> Option<&T> {
    usize::try_from(position).ok().and_then(|position| cases.get(position))
}
