//! JSON to values that have no parts.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::{Number, Value as Json};

use super::JsonError;
use super::read::describe;
use crate::{Type, Value};

/// Reads a value that has no parts.
pub(super) fn scalar(json: &Json, ty: &Type) -> Result<Value, JsonError> {
    let value = match (ty, json) {
        (Type::Bool, Json::Bool(value)) => Some(Value::Bool(*value)),
        (Type::U8, Json::Number(number)) => unsigned(number).map(Value::U8),
        (Type::U16, Json::Number(number)) => unsigned(number).map(Value::U16),
        (Type::U32, Json::Number(number)) => unsigned(number).map(Value::U32),
        (Type::U64, Json::Number(number)) => number.as_u64().map(Value::U64),
        (Type::S8, Json::Number(number)) => signed(number).map(Value::S8),
        (Type::S16, Json::Number(number)) => signed(number).map(Value::S16),
        (Type::S32, Json::Number(number)) => signed(number).map(Value::S32),
        (Type::S64, Json::Number(number)) => number.as_i64().map(Value::S64),
        (Type::U64, Json::String(text)) => decimal(text).map(Value::U64),
        (Type::S64, Json::String(text)) => decimal(text).map(Value::S64),
        (Type::F32, json) => float32(json).map(Value::F32),
        (Type::F64, json) => float64(json).map(Value::F64),
        (Type::Char, Json::String(text)) => only_char(text).map(Value::Char),
        (Type::String, Json::String(text)) => Some(Value::String(text.clone())),
        (Type::Bytes, Json::String(text)) => match STANDARD.decode(text) {
            Ok(bytes) => Some(Value::Bytes(Bytes::from(bytes))),
            Err(error) => {
                return Err(JsonError::mismatch(
                    ty,
                    format!("a string that is not base64 ({})", lowered(&error)),
                ));
            }
        },
        (Type::Enum(names), Json::String(text)) => position(&names.cases, text).map(Value::Enum),
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
            _,
        ) => None,
    };
    value.ok_or_else(|| JsonError::mismatch(ty, describe(json)))
}

fn unsigned<T: TryFrom<u64>>(number: &Number) -> Option<T> {
    number.as_u64().and_then(|value| T::try_from(value).ok())
}

fn signed<T: TryFrom<i64>>(number: &Number) -> Option<T> {
    number.as_i64().and_then(|value| T::try_from(value).ok())
}

/// An integer as its decimal string: no `+`, no leading zero, no `-0`.
fn decimal<T: std::str::FromStr + ToString>(text: &str) -> Option<T> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let canonical = text == "0" || !(digits.starts_with('0') || digits.starts_with('+'));
    if canonical { text.parse().ok() } else { None }
}

fn float64(json: &Json) -> Option<f64> {
    match json {
        Json::Number(number) => number.as_f64(),
        Json::String(text) => match text.as_str() {
            "NaN" => Some(f64::NAN),
            "Infinity" => Some(f64::INFINITY),
            "-Infinity" => Some(f64::NEG_INFINITY),
            _ => None,
        },
        Json::Null | Json::Bool(_) | Json::Array(_) | Json::Object(_) => None,
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "rounding to the nearest f32 is the rule, and overflow is checked"
)]
fn float32(json: &Json) -> Option<f32> {
    let wide = float64(json)?;
    let narrow = wide as f32;
    if narrow.is_infinite() && wide.is_finite() {
        None
    } else {
        Some(narrow)
    }
}

fn only_char(text: &str) -> Option<char> {
    let mut chars = text.chars();
    match (chars.next(), chars.next()) {
        (Some(only), None) => Some(only),
        (None | Some(_), _) => None,
    }
}

fn position(names: &[String], name: &str) -> Option<u32> {
    names
        .iter()
        .position(|known| known == name)
        .and_then(|position| u32::try_from(position).ok())
}

/// A message of another crate in the style of ours.
fn lowered(error: &base64::DecodeError) -> String {
    let mut message = error.to_string();
    if let Some(first) = message.get_mut(..1) {
        first.make_ascii_lowercase();
    }
    message
}
