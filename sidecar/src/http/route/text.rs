//! Values as text: what a path segment, a query value, a header or a form field is made of.
//!
//! A value is written as in JSON, without the quotes: `true`, `42`, `0.5`, `NaN`, a character, a string, the name of an enum case,
//! `list<u8>` as base64. Flags are the names that are set, with commas between them.

use std::borrow::Cow;
use std::fmt::Display;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use portcullis_value::{Type, Value};

/// Everything but the unreserved characters of RFC 3986 §2.3.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Appends text with everything percent-encoded that is not unreserved.
pub(crate) fn push_encoded(out: &mut String, text: &str) {
    out.extend(utf8_percent_encode(text, RESERVED));
}

/// Text with everything percent-encoded that is not unreserved.
pub(crate) fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    push_encoded(&mut out, text);
    out
}

/// How a type turns into text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// One text.
    Scalar,
    /// The names that are set; nothing at all where none is.
    Flags,
    /// One text for each element.
    List,
}

impl Form {
    /// The form of a type; `None` where it has none.
    pub(crate) fn of(ty: &Type) -> Option<Self> {
        match ty {
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
            | Type::Enum(_) => Some(Self::Scalar),
            Type::Flags(_) => Some(Self::Flags),
            Type::List(element) => (Self::of(element) == Some(Self::Scalar)).then_some(Self::List),
            Type::Tuple(_) | Type::Record(_) | Type::Variant(_) | Type::Option(_) | Type::Result(_) => None,
        }
    }
}

/// The text of a scalar or of flags; `None` where the value is not of the type, or the type has no single text.
pub(crate) fn text<'v>(value: &'v Value, ty: &'v Type) -> Option<Cow<'v, str>> {
    match (value, ty) {
        (Value::String(text), Type::String) => Some(Cow::Borrowed(text)),
        (Value::Bool(value), Type::Bool) => Some(Cow::Borrowed(if *value { "true" } else { "false" })),
        (Value::U8(number), Type::U8) => displayed(number),
        (Value::U16(number), Type::U16) => displayed(number),
        (Value::U32(number), Type::U32) => displayed(number),
        (Value::U64(number), Type::U64) => displayed(number),
        (Value::S8(number), Type::S8) => displayed(number),
        (Value::S16(number), Type::S16) => displayed(number),
        (Value::S32(number), Type::S32) => displayed(number),
        (Value::S64(number), Type::S64) => displayed(number),
        // Single precision first: `0.1f32` is `0.1`, not the nearest double.
        (Value::F32(number), Type::F32) => Some(float(format!("{number:?}"))),
        (Value::F64(number), Type::F64) => Some(float(format!("{number:?}"))),
        (Value::Char(character), Type::Char) => displayed(character),
        (Value::Bytes(bytes), Type::Bytes) => Some(Cow::Owned(STANDARD.encode(bytes))),
        (Value::Enum(case), Type::Enum(cases)) => {
            let case = usize::try_from(*case).ok()?;
            cases.cases.get(case).map(|name| Cow::Borrowed(name.as_str()))
        }
        (Value::Flags(set), Type::Flags(flags)) => {
            let named = flags.names.iter().zip(set).filter(|(_, set)| **set);
            Some(Cow::Owned(named.map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(",")))
        }
        (_, _) => None,
    }
}

fn displayed<'v>(value: &impl Display) -> Option<Cow<'v, str>> {
    Some(Cow::Owned(value.to_string()))
}

/// Rust and JSON write finite numbers alike; the infinities get the names that the JSON rules give them.
fn float<'v>(written: String) -> Cow<'v, str> {
    match written.as_str() {
        "inf" => Cow::Borrowed("Infinity"),
        "-inf" => Cow::Borrowed("-Infinity"),
        _ => Cow::Owned(written),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(value: &Value, ty: &Type) -> String {
        text(value, ty).unwrap().into_owned()
    }

    #[test]
    fn a_scalar_is_written_as_in_json_without_quotes() {
        let cases = Type::enumeration(["past-due", "paid"]);
        for (value, ty, expected) in [
            (Value::Bool(true), Type::Bool, "true"),
            (Value::Bool(false), Type::Bool, "false"),
            (Value::U8(255), Type::U8, "255"),
            (Value::U16(1), Type::U16, "1"),
            (Value::U32(2), Type::U32, "2"),
            (Value::U64(u64::MAX), Type::U64, "18446744073709551615"),
            (Value::S8(-1), Type::S8, "-1"),
            (Value::S16(-2), Type::S16, "-2"),
            (Value::S32(-3), Type::S32, "-3"),
            (Value::S64(i64::MIN), Type::S64, "-9223372036854775808"),
            (Value::F32(0.1), Type::F32, "0.1"),
            (Value::F64(1.0), Type::F64, "1.0"),
            (Value::F64(1e300), Type::F64, "1e300"),
            (Value::F64(f64::NAN), Type::F64, "NaN"),
            (Value::F64(f64::INFINITY), Type::F64, "Infinity"),
            (Value::F32(f32::NEG_INFINITY), Type::F32, "-Infinity"),
            (Value::Char('ß'), Type::Char, "ß"),
            (Value::String("a b".to_owned()), Type::String, "a b"),
            (Value::Bytes(vec![0xfb, 0xff].into()), Type::Bytes, "+/8="),
            (Value::Enum(0), cases, "past-due"),
        ] {
            assert_eq!(written(&value, &ty), expected, "{ty}");
        }
    }

    #[test]
    fn flags_are_the_names_that_are_set() {
        let flags = Type::flags(["read", "write", "own"]);
        assert_eq!(written(&Value::Flags(vec![true, false, true]), &flags), "read,own");
        assert_eq!(written(&Value::Flags(vec![false; 3]), &flags), "");
    }

    #[test]
    fn a_value_of_another_type_has_no_text() {
        assert_eq!(text(&Value::U8(1), &Type::U16), None);
        assert_eq!(text(&Value::Enum(2), &Type::enumeration(["a", "b"])), None);
        assert_eq!(text(&Value::List(Vec::new()), &Type::list(Type::U16)), None);
    }

    #[test]
    fn only_unreserved_characters_stay_as_they_are() {
        let mut out = String::new();
        push_encoded(&mut out, "aZ0-._~ /?#%&+=;:@[]\"é\u{1}");
        assert_eq!(out, "aZ0-._~%20%2F%3F%23%25%26%2B%3D%3B%3A%40%5B%5D%22%C3%A9%01");
    }
}
