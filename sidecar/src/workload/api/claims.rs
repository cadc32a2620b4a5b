//! JSON as `google.protobuf.Struct`.

use prost_types::value::Kind;
use prost_types::{ListValue, Struct, Value};
use serde_json::Map;

/// The claims of a token. Numbers become 64-bit floats, as the message has no others.
pub(super) fn message(claims: Map<String, serde_json::Value>) -> Struct {
    Struct { fields: claims.into_iter().map(|(name, value)| (name, self::value(value))).collect() }
}

fn value(json: serde_json::Value) -> Value {
    let kind = match json {
        serde_json::Value::Null => Kind::NullValue(0),
        serde_json::Value::Bool(value) => Kind::BoolValue(value),
        // None only for numbers that JSON cannot write.
        serde_json::Value::Number(value) => Kind::NumberValue(value.as_f64().unwrap_or_default()),
        serde_json::Value::String(value) => Kind::StringValue(value),
        serde_json::Value::Array(values) => {
            Kind::ListValue(ListValue { values: values.into_iter().map(value).collect() })
        }
        serde_json::Value::Object(fields) => Kind::StructValue(message(fields)),
    };
    Value { kind: Some(kind) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_json_has_its_kind_of_value() {
        let json =
            serde_json::json!({ "a": null, "b": true, "c": 1_700_000_000, "d": "x", "e": [1, "y"], "f": { "g": 0.5 } });
        let serde_json::Value::Object(map) = json else { panic!("not an object") };
        let fields = message(map).fields;
        let kind = |name: &str| fields[name].kind.clone().unwrap();
        assert_eq!(kind("a"), Kind::NullValue(0));
        assert_eq!(kind("b"), Kind::BoolValue(true));
        assert_eq!(kind("c"), Kind::NumberValue(1_700_000_000.0));
        assert_eq!(kind("d"), Kind::StringValue("x".to_owned()));
        assert!(matches!(kind("e"), Kind::ListValue(list) if list.values.len() == 2));
        assert!(matches!(kind("f"), Kind::StructValue(inner) if inner.fields.contains_key("g")));
    }
}
