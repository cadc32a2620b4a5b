//! JSON of strangers: each member of an object is named once, or the whole text is refused.
//!
//! RFC 8259 §4 leaves open which of two members with one name counts, so that two readers of one document could see
//! two documents. RFC 7515 §4 and RFC 7519 §4 allow to refuse them; the SPIFFE bundle map asks for it.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use thiserror::Error;

use crate::id::shown;

/// Why a text is not the JSON object that was asked for.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum InvalidJson {
    /// It is not JSON, names a member twice, or nests too deeply.
    #[error("not acceptable as JSON: {reason}")]
    Malformed {
        /// What is wrong, and where.
        reason: String,
    },
    /// It is JSON, but no object.
    #[error("not a JSON object")]
    NotObject,
}

/// Reads one object and nothing after it. The caller bounds the length; depth is bounded by 128.
pub(crate) fn parse_object(json: &[u8]) -> Result<Map<String, Value>, InvalidJson> {
    let malformed = |error: serde_json::Error| InvalidJson::Malformed { reason: shown(&error.to_string()) };
    let mut reader = serde_json::Deserializer::from_slice(json);
    let value = Unique.deserialize(&mut reader).map_err(malformed)?;
    reader.end().map_err(malformed)?;
    match value {
        Value::Object(object) => Ok(object),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            Err(InvalidJson::NotObject)
        }
    }
}

/// Reads any value whose objects name each member once.
struct Unique;

impl<'de> DeserializeSeed<'de> for Unique {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Unique {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("number out of range"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Value, A::Error> {
        let mut array = Vec::new();
        while let Some(element) = elements.next_element_seed(Self)? {
            array.push(element);
        }
        Ok(Value::Array(array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(name) = members.next_key::<String>()? {
            if object.contains_key(&name) {
                return Err(A::Error::custom(format_args!("member `{}` is named twice", shown(&name))));
            }
            object.insert(name, members.next_value_seed(Self)?);
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_member_that_is_named_twice_is_refused_at_any_depth() {
        for text in
            [r#"{"a":1,"a":1}"#, r#"{"a":1,"\u0061":2}"#, r#"{"b":{"a":1,"a":2}}"#, r#"{"b":[0,{"c":{"a":1,"a":2}}]}"#]
        {
            let error = parse_object(text.as_bytes()).unwrap_err().to_string();
            assert!(error.contains("member `a` is named twice"), "{error}");
        }
        assert!(parse_object(br#"{"a":{"a":1},"b":[{"a":1},{"a":2}]}"#).is_ok());
    }

    #[test]
    fn only_one_object_is_read() {
        for text in ["null", "[]", "1", "\"a\"", "true"] {
            assert_eq!(parse_object(text.as_bytes()), Err(InvalidJson::NotObject), "{text}");
        }
        let deep = format!("{}1{}", "{\"a\":".repeat(200), "}".repeat(200));
        for text in
            ["", "{", "{}{}", "{} x", "{\"a\":1e999}", "{a:1}", "{'a':1}", "{\"a\":1,}", "{\"a\":\"\u{7}\"}", &deep]
        {
            assert!(matches!(parse_object(text.as_bytes()), Err(InvalidJson::Malformed { .. })), "{text}");
        }
        assert!(parse_object(b"{\"a\":\"\xff\"}").is_err());
    }

    #[test]
    fn an_error_repeats_names_without_their_control_characters() {
        let error = parse_object(br#"{"\u001b":1,"\u001b":1}"#).unwrap_err().to_string();
        assert!(!error.contains(char::is_control), "{error:?}");
    }

    proptest! {
        #[test]
        fn what_serde_json_writes_is_read_as_it_was(text in "[a-z\"\\\\\u{0}-\u{1f}ä]{0,9}", number: u64, float in -1e30..1e30) {
            let value = json!({ "text": text, "number": number, "float": float, "null": null, "deep": [{ "a": [true] }] });
            prop_assert_eq!(Value::Object(parse_object(value.to_string().as_bytes()).unwrap()), value);
        }
    }
}
