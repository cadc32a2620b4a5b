//! JSON to values that have no parts.

use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;

use super::JsonError;
use super::text::{Number, Token};
use crate::{Type, Value};

/// A value that has no parts.
pub(super) fn scalar(ty: &Type, token: Token<'_>) -> Result<Value, JsonError> {
    let value = match (ty, &token) {
        (Type::Bool, Token::Bool(value)) => Some(Value::Bool(*value)),
        (Type::U8, Token::Number(number)) => integer(*number).map(Value::U8),
        (Type::U16, Token::Number(number)) => integer(*number).map(Value::U16),
        (Type::U32, Token::Number(number)) => integer(*number).map(Value::U32),
        (Type::U64, Token::Number(number)) => integer(*number).map(Value::U64),
        (Type::S8, Token::Number(number)) => integer(*number).map(Value::S8),
        (Type::S16, Token::Number(number)) => integer(*number).map(Value::S16),
        (Type::S32, Token::Number(number)) => integer(*number).map(Value::S32),
        (Type::S64, Token::Number(number)) => integer(*number).map(Value::S64),
        (Type::U64, Token::String(text)) => decimal(text).map(Value::U64),
        (Type::S64, Token::String(text)) => decimal(text).map(Value::S64),
        (Type::F32, Token::Number(number)) => {
            number.text.parse().ok().filter(|value: &f32| value.is_finite()).map(Value::F32)
        }
        (Type::F64, Token::Number(number)) => {
            number.text.parse().ok().filter(|value: &f64| value.is_finite()).map(Value::F64)
        }
        (Type::F32, Token::String(text)) => special(text).map(|[value, _]| value),
        (Type::F64, Token::String(text)) => special(text).map(|[_, value]| value),
        (Type::Char, Token::String(text)) => only_char(text).map(Value::Char),
        (Type::Bytes, Token::String(text)) => Some(bytes(text)?),
        (Type::Enum(names), Token::String(text)) => {
            let position = names.cases.iter().position(|name| name == text);
            position.and_then(|position| u32::try_from(position).ok()).map(Value::Enum)
        }
        (Type::String, Token::String(_)) => {
            let Token::String(text) = token else {
                return Err(JsonError::mismatch(ty, token.describe()));
            };
            return Ok(Value::String(text.into_owned()));
        }
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
            _,
        ) => None,
    };
    value.ok_or_else(|| JsonError::mismatch(ty, token.describe()))
}

/// A number that is written as an integer of its type: `-0` is none.
pub(super) fn integer<T: FromStr>(number: Number<'_>) -> Option<T> {
    if number.whole && number.text != "-0" { number.text.parse().ok() } else { None }
}

/// An integer as its decimal string: no `+`, no leading zero, no `-0`.
fn decimal<T: FromStr>(text: &str) -> Option<T> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let canonical = text == "0" || !(digits.starts_with('0') || digits.starts_with('+'));
    if canonical { text.parse().ok() } else { None }
}

/// A float that JSON has no number for, in both widths.
fn special(text: &str) -> Option<[Value; 2]> {
    match text {
        "NaN" => Some([Value::F32(f32::NAN), Value::F64(f64::NAN)]),
        "Infinity" => Some([Value::F32(f32::INFINITY), Value::F64(f64::INFINITY)]),
        "-Infinity" => Some([Value::F32(f32::NEG_INFINITY), Value::F64(f64::NEG_INFINITY)]),
        _ => None,
    }
}

fn only_char(text: &str) -> Option<char> {
    let mut chars = text.chars();
    match (chars.next(), chars.next()) {
        (Some(only), None) => Some(only),
        (None | Some(_), _) => None,
    }
}

fn bytes(text: &str) -> Result<Value, JsonError> {
    match STANDARD.decode(text) {
        Ok(bytes) => Ok(Value::Bytes(Bytes::from(bytes))),
        Err(error) => {
            let mut reason = error.to_string();
            if let Some(first) = reason.get_mut(..1) {
                first.make_ascii_lowercase();
            }
            Err(JsonError::mismatch(&Type::Bytes, format!("a string that is not base64 ({reason})")))
        }
    }
}
