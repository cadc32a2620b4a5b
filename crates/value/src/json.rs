//! WIT values as JSON: the rules, the same in both directions and without loss.
//!
//! | WIT | JSON written | also read |
//! |---|---|---|
//! | `bool` | `true`, `false` | |
//! | `u8` `u16` `u32` `s8` `s16` `s32` | number | |
//! | `u64` `s64` | number; a decimal string under [`Int64::String`] | decimal string or number, whatever the rule |
//! | `f32` `f64` | the shortest number that reads back the same; `"NaN"`, `"Infinity"`, `"-Infinity"` | any number in range |
//! | `char` | string of one character | |
//! | `string` | string | |
//! | `list<u8>` | base64 string (RFC 4648 §4, with padding) | array of numbers |
//! | `list<T>`, `tuple` | array | |
//! | `record` | object with the WIT names; a field that is `none` is left out | `null` for a field that is an `option` |
//! | `variant` | `{"tag": case, "val": payload}`, without `val` where the case has no payload | `"val": null` there; no `val` where the payload is an `option` and `none` |
//! | `enum` | string | |
//! | `flags` | array of the names that are set, in the order of the WIT | any order |
//! | `option<T>` | `null` or the value | |
//! | `option<option<T>>` | `null` or `{"val": value}`, at each level whose payload is again an option | |
//! | `result` | `{"ok": value}` or `{"err": value}`, `null` where that arm has no payload | |
//!
//! * The parameters of a call are one object, as if they were the fields of a record; an array by position is read too. The result is
//!   the value itself, and `null` where a function has none.
//! * Types are taken by structure: an alias is what it stands for, and names are compared exactly as the WIT has them.
//! * An integer has no fraction and no exponent: `1.0` and `1e3` are refused, also where they are whole, and so is `-0`. A decimal
//!   string has no `+` and no leading zero.
//! * A number is rounded once, to the nearest float of its type; one whose nearest is infinite is refused. `-0.0` keeps its sign; the
//!   payload and sign of a NaN are lost.
//! * Refused: an unknown or repeated key, a missing field that is not an `option`, a repeated flag, a tuple of another length, text
//!   after the value.
//!
//! The text functions ([`params_from_json_text`] and the like) read text into values at once, in memory that the
//! [`Limits`](crate::Limits) bound. [`parse_json`] makes a tree of it under the same rules, for whoever must look at its shape:
//! `serde_json` itself keeps the last of two equal keys and rounds some decimal fractions to a neighbour, so a tree that it parsed may
//! already be another value.

mod read;
mod scalar;
mod text;
mod tree;
mod write;

pub use read::{from_json_text, params_from_json_text, result_from_json_text};
pub use tree::{from_json, params_from_json, parse_json, result_from_json};
pub use write::{params_to_json, result_to_json, to_json};

use std::fmt;

use crate::limits::Exceeded;
use crate::place::{Place, Shortened};

/// What a reader of the JSON wants where the rules leave a choice.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct JsonRules {
    /// How `u64` and `s64` are written.
    pub int64: Int64,
}

/// How `u64` and `s64` are written. Both are always read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Int64 {
    /// As a JSON number.
    #[default]
    Number,
    /// As a decimal string, for readers whose only number is an `f64`.
    String,
}

/// Why JSON is not a value of the type, or a value cannot be written as JSON.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    /// The text is not JSON, or repeats a key.
    #[error("not JSON at line {line} column {column}: {problem}")]
    Syntax {
        /// Counted from 1.
        line: usize,
        /// In bytes, counted from 1.
        column: usize,
        /// What is wrong there.
        problem: String,
    },
    /// A part of the JSON is not what its WIT type asks for.
    #[error("{}: {found}, expected `{wit}`", place_or_whole(pointer))]
    Mismatch {
        /// Where: a JSON pointer (RFC 6901), empty for the whole.
        pointer: String,
        /// The WIT type at that place, shortened where it is long.
        wit: String,
        /// What stands there instead.
        found: String,
    },
    /// The value is larger than the limits allow.
    #[error(transparent)]
    TooLarge(#[from] Exceeded),
}

fn place_or_whole(pointer: &str) -> String {
    if pointer.is_empty() { "the value".to_owned() } else { format!("`{pointer}`") }
}

impl JsonError {
    fn mismatch(wit: &impl fmt::Display, found: impl Into<String>) -> Self {
        Self::Mismatch { pointer: String::new(), wit: Shortened(wit).to_string(), found: found.into() }
    }

    fn syntax(text: &[u8], at: usize, problem: impl Into<String>) -> Self {
        let before = text.get(..at).unwrap_or(text);
        let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
        let column = before.iter().rev().take_while(|byte| **byte != b'\n').count() + 1;
        Self::Syntax { line, column, problem: problem.into() }
    }

    /// The error is in the element at `position` of something larger.
    fn at(self, position: usize) -> Self {
        self.within(&position.to_string())
    }

    /// The error is in the member `name` of something larger.
    fn within(self, name: &str) -> Self {
        match self {
            Self::Mismatch { pointer, wit, found } => {
                let mut place = Place::from_pointer(pointer);
                place.enter(name);
                Self::Mismatch { pointer: place.into_pointer(), wit, found }
            }
            error @ (Self::Syntax { .. } | Self::TooLarge(_)) => error,
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::{
        Int64, JsonRules, from_json, from_json_text, params_from_json, params_from_json_text, params_to_json,
        parse_json, result_from_json, result_to_json, to_json,
    };
    use crate::{FunctionType, Limits, Type, Value};

    const NUMBERS: JsonRules = JsonRules { int64: Int64::Number };
    const STRINGS: JsonRules = JsonRules { int64: Int64::String };

    fn written(value: &Value, ty: &Type, rules: &JsonRules) -> String {
        let mut out = Vec::new();
        to_json(value, ty, rules, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    fn read(text: &str, ty: &Type) -> Result<Value, String> {
        let limits = Limits::default();
        from_json_text(text.as_bytes(), ty, &NUMBERS, &limits).map_err(|error| error.to_string())
    }

    fn boxed(value: Value) -> Option<Box<Value>> {
        Some(Box::new(value))
    }

    fn text(text: &str) -> Value {
        Value::String(text.to_owned())
    }

    fn point() -> Type {
        Type::record([("x", Type::S32), ("the-label", Type::option(Type::String))])
    }

    fn shape() -> Type {
        let maybe = Type::option(Type::option(Type::U8));
        Type::variant([("nothing", None), ("at", Some(point())), ("maybe", Some(maybe))])
    }

    /// The table of the rules: a value, its only written form, and other forms that are read.
    #[test]
    #[expect(clippy::too_many_lines, reason = "a table")]
    fn every_type_has_its_form() {
        let twice = Type::option(Type::option(Type::U8));
        let outcome = Type::result(Some(Type::U8), None);
        let flags = Type::flags(["read", "write", "run"]);
        let table: &[(Type, Value, &str, &[&str])] = &[
            (Type::Bool, Value::Bool(true), "true", &[]),
            (Type::U8, Value::U8(255), "255", &[" 255\n"]),
            (Type::S32, Value::S32(i32::MIN), "-2147483648", &[]),
            (Type::U64, Value::U64(u64::MAX), "18446744073709551615", &["\"18446744073709551615\""]),
            (Type::S64, Value::S64(i64::MIN), "-9223372036854775808", &["\"-9223372036854775808\""]),
            (Type::S64, Value::S64(0), "0", &["\"0\""]),
            (Type::F32, Value::F32(0.1), "0.1", &["0.10000000149011612", "1e-1"]),
            (Type::F32, Value::F32(-0.0), "-0.0", &["-0", "-0e7"]),
            (Type::F64, Value::F64(0.1), "0.1", &["0.1000000000000000055511151231257827"]),
            (Type::F64, Value::F64(5.0), "5.0", &["5", "5e0", "500E-2"]),
            (Type::F64, Value::F64(f64::INFINITY), "\"Infinity\"", &[]),
            (Type::F64, Value::F64(f64::NEG_INFINITY), "\"-Infinity\"", &[]),
            (Type::Char, Value::Char('é'), "\"é\"", &["\"\\u00e9\""]),
            (Type::Char, Value::Char('😀'), "\"😀\"", &["\"\\ud83d\\uDE00\""]),
            (Type::String, text("a\"\n\u{1}"), r#""a\"\n\u0001""#, &[r#""\u0061\u0022\u000A\u0001""#]),
            (Type::Bytes, Value::Bytes(Bytes::from_static(b"hi!!")), "\"aGkhIQ==\"", &["[104, 105, 33, 33]"]),
            (Type::Bytes, Value::Bytes(Bytes::new()), "\"\"", &["[]"]),
            (Type::list(Type::U16), Value::List(vec![Value::U16(1), Value::U16(500)]), "[1,500]", &[" [ 1 , 500 ] "]),
            (Type::list(Type::U16), Value::List(vec![]), "[]", &[]),
            (
                Type::tuple([Type::U8, Type::Bool]),
                Value::Tuple(vec![Value::U8(1), Value::Bool(false)]),
                "[1,false]",
                &[],
            ),
            (Type::tuple([]), Value::Tuple(vec![]), "[]", &[]),
            (
                point(),
                Value::Record(vec![Value::S32(-3), Value::some(text("here"))]),
                r#"{"x":-3,"the-label":"here"}"#,
                &[r#"{"the-label": "here", "x": -3}"#],
            ),
            (
                point(),
                Value::Record(vec![Value::S32(1), Value::none()]),
                r#"{"x":1}"#,
                &[r#"{"x":1,"the-label":null}"#],
            ),
            (Type::record::<&str>([]), Value::Record(vec![]), "{}", &[]),
            (shape(), Value::Variant(0, None), r#"{"tag":"nothing"}"#, &[r#"{"val":null,"tag":"nothing"}"#]),
            (
                shape(),
                Value::Variant(1, boxed(Value::Record(vec![Value::S32(1), Value::none()]))),
                r#"{"tag":"at","val":{"x":1}}"#,
                &[],
            ),
            (
                shape(),
                Value::Variant(2, boxed(Value::none())),
                r#"{"tag":"maybe","val":null}"#,
                &[r#"{"tag":"maybe"}"#],
            ),
            (
                shape(),
                Value::Variant(2, boxed(Value::some(Value::none()))),
                r#"{"tag":"maybe","val":{"val":null}}"#,
                &[],
            ),
            (Type::enumeration(["red", "green"]), Value::Enum(1), "\"green\"", &[]),
            (Type::option(Type::U8), Value::none(), "null", &[]),
            (Type::option(Type::U8), Value::some(Value::U8(7)), "7", &[]),
            (twice.clone(), Value::none(), "null", &[]),
            (twice.clone(), Value::some(Value::none()), r#"{"val":null}"#, &[]),
            (twice, Value::some(Value::some(Value::U8(7))), r#"{"val":7}"#, &[]),
            (outcome.clone(), Value::Result(Ok(boxed(Value::U8(1)))), r#"{"ok":1}"#, &[]),
            (outcome, Value::Result(Err(None)), r#"{"err":null}"#, &[]),
            (flags.clone(), Value::Flags(vec![true, false, true]), r#"["read","run"]"#, &[r#"["run","read"]"#]),
            (flags, Value::Flags(vec![false; 3]), "[]", &[]),
        ];
        for (ty, value, form, others) in table {
            assert_eq!(written(value, ty, &NUMBERS), *form, "{ty}");
            for form in [*form].iter().chain(*others) {
                assert_eq!(read(form, ty).as_ref().map(|read| format!("{read:?}")), Ok(format!("{value:?}")), "{form}");
            }
        }
    }

    #[test]
    fn int64_is_a_string_where_the_rule_says_so() {
        assert_eq!(written(&Value::U64(u64::MAX), &Type::U64, &STRINGS), "\"18446744073709551615\"");
        assert_eq!(written(&Value::S64(-1), &Type::S64, &STRINGS), "\"-1\"");
        assert_eq!(written(&Value::U32(1), &Type::U32, &STRINGS), "1");
    }

    #[test]
    fn nan_is_a_string_and_comes_back_as_nan() {
        assert_eq!(written(&Value::F32(-f32::NAN), &Type::F32, &NUMBERS), "\"NaN\"");
        assert!(matches!(read("\"NaN\"", &Type::F64), Ok(Value::F64(value)) if value.is_nan()));
    }

    #[test]
    #[expect(clippy::too_many_lines, reason = "a table")]
    fn what_the_rules_do_not_allow_is_refused_with_its_place() {
        let order = Type::record([("lines", Type::list(point()))]);
        let nothing = Type::result(None, Some(Type::U8));
        let flags = Type::flags(["read", "write"]);
        let twice = Type::option(Type::option(Type::U8));
        for (ty, text, message) in [
            (Type::U8, "256", "the value: the number `256`, expected `u8`"),
            (Type::U8, "1.0", "the value: the number `1.0`, expected `u8`"),
            (Type::U32, "1e3", "the value: the number `1e3`, expected `u32`"),
            (Type::S8, "-0", "the value: the number `-0`, expected `s8`"),
            (Type::U32, "\"1\"", "the value: the string `1`, expected `u32`"),
            (Type::U64, "\"01\"", "the value: the string `01`, expected `u64`"),
            (Type::U64, "\"+1\"", "the value: the string `+1`, expected `u64`"),
            (Type::S64, "\"-0\"", "the value: the string `-0`, expected `s64`"),
            (Type::S64, "\"9223372036854775808\"", "the value: the string `9223372036854775808`, expected `s64`"),
            (Type::F32, "3.5e38", "the value: the number `3.5e38`, expected `f32`"),
            (Type::F64, "\"inf\"", "the value: the string `inf`, expected `f64`"),
            (Type::F64, "1e400", "the value: the number `1e400`, expected `f64`"),
            (Type::Bool, "1", "the value: the number `1`, expected `bool`"),
            (Type::Char, "\"\"", "the value: the string ``, expected `char`"),
            (Type::Char, "\"ab\"", "the value: the string `ab`, expected `char`"),
            (Type::String, "null", "the value: null, expected `string`"),
            (Type::Bytes, "\"aGk\"", "the value: a string that is not base64 (invalid padding), expected `list<u8>`"),
            (Type::Bytes, "[1, 256]", "`/1`: the number `256`, expected `u8`"),
            (Type::enumeration(["a", "b"]), "\"c\"", "the value: the string `c`, expected `enum { a, b }`"),
            (Type::tuple([Type::U8]), "[1, 2]", "the value: an array of more than 1, expected `tuple<u8>`"),
            (order.clone(), r#"{"lines":[{"x":1},{"x":true}]}"#, "`/lines/1/x`: `true`, expected `s32`"),
            (order, r#"{"lines":[{}]}"#, "`/lines/0/x`: nothing, expected `s32`"),
            (
                point(),
                r#"{"x":1,"y":2}"#,
                "the value: the unknown name `y`, expected `record { x: s32, the-label: option<string> }`",
            ),
            (point(), r#"{"x":1,"x":2}"#, "not JSON at line 1 column 8: the key `x` is repeated"),
            (
                Type::variant([("a", None), ("b", Some(Type::U8))]),
                r#"{"tag":"c"}"#,
                "`/tag`: the string `c`, expected `variant { a, b(u8) }`",
            ),
            (Type::variant([("a", Some(Type::U8))]), r#"{"tag":"a"}"#, "`/val`: nothing, expected `u8`"),
            (Type::variant([("a", None)]), r#"{"tag":"a","val":1}"#, "`/val`: the number `1`, expected `null`"),
            (Type::variant([("a", None)]), r#"{"val":1}"#, "`/tag`: nothing, expected `variant { a }`"),
            (
                Type::variant([("a", None)]),
                r#"{"tag":"a","value":1}"#,
                "the value: the unknown name `value`, expected `variant { a }`",
            ),
            (flags.clone(), r#"["run"]"#, "`/0`: the string `run`, expected `flags { read, write }`"),
            (
                flags,
                r#"["read","read"]"#,
                "`/1`: the string `read` for the second time, expected `flags { read, write }`",
            ),
            (
                nothing.clone(),
                r#"{"ok":null,"err":1}"#,
                r#"the value: an object that is neither {"ok": ..} nor {"err": ..}, expected `result<_, u8>`"#,
            ),
            (
                nothing.clone(),
                "{}",
                r#"the value: an object that is neither {"ok": ..} nor {"err": ..}, expected `result<_, u8>`"#,
            ),
            (nothing.clone(), r#"{"ok":1}"#, "`/ok`: the number `1`, expected `null`"),
            (nothing, r#"{"ok":true}"#, "`/ok`: `true`, expected `null`"),
            (
                twice.clone(),
                "7",
                r#"the value: the number `7` where null or {"val": ..} should be, expected `option<option<u8>>`"#,
            ),
            (twice, "{}", r#"the value: an object where null or {"val": ..} should be, expected `option<option<u8>>`"#),
        ] {
            assert_eq!(read(text, &ty), Err(message.to_owned()), "{text}");
        }
    }

    #[test]
    fn text_that_is_not_json_is_refused_with_its_line() {
        for (text, place) in [
            ("", "line 1 column 1: the text ends where a value should be"),
            ("{\n  \"a\": 1,\n}", "line 3 column 1: expected a key in quotes"),
            ("[1 2]", "line 1 column 4: expected `,` or `]`"),
            ("[1,]", "line 1 column 4: expected a value"),
            ("01", "line 1 column 1: a number begins with a superfluous 0"),
            ("1 2", "line 1 column 3: text follows the value"),
            ("\"a", "line 1 column 3: the text ends inside a string"),
            ("\"\t\"", "line 1 column 2: a control character stands in a string"),
            (r#""\ud800""#, "line 1 column 8: a surrogate stands alone"),
            (r#""\udc00\ud800""#, "line 1 column 14: a surrogate stands alone"),
            (r#""\x""#, "line 1 column 3: there is no such escape"),
            (r#""\u+123""#, "line 1 column 4: expected four hexadecimal digits"),
            ("nul", "line 1 column 1: expected a value"),
            ("NaN", "line 1 column 1: expected a value"),
            ("{\"a\":1,\"b\":2,\"\\u0061\":3}", "line 1 column 14: the key `a` is repeated"),
        ] {
            let error = parse_json(text.as_bytes(), &Limits::default()).unwrap_err();
            assert_eq!(error.to_string(), format!("not JSON at {place}"), "{text}");
            // Nothing that is not JSON is a value of any type either.
            for ty in [
                Type::String,
                Type::U8,
                Type::option(Type::Bool),
                Type::list(Type::U16),
                Type::record([("a", Type::U8)]),
            ] {
                assert!(read(text, &ty).is_err(), "{text}");
            }
        }
        let error = parse_json(b"[\n\"\xc3\x28\"]", &Limits::default()).unwrap_err();
        assert_eq!(error.to_string(), "not JSON at line 2 column 2: the text is not UTF-8");
        assert!(parse_json(b"\xef\xbb\xbf1", &Limits::default()).is_err(), "a byte order mark is no JSON");
    }

    #[test]
    fn json_ends_at_the_limits() {
        let limits = Limits { bytes: 20_000, depth: 4, items: 10 };
        assert!(parse_json(b"[[[[[0]]]]]", &limits).is_ok());
        let refused = |text: &[u8]| parse_json(text, &limits).unwrap_err().to_string();
        assert_eq!(refused(b"[[[[[[0]]]]]]"), "the value nests deeper than 4 levels");
        assert_eq!(refused(&[b'['; 19_000]), "the value nests deeper than 4 levels");
        assert_eq!(refused(&[b' '; 20_001]), "the value is larger than 20000 bytes");
        assert_eq!(refused(b"[0,0,0,0,0,0,0,0,0,0,0]"), "the value holds more than 10 items");

        let json = serde_json::json!([[[[0]]]]);
        let deep = Type::list(Type::list(Type::list(Type::list(Type::U16))));
        let error = from_json(&json, &deep, &NUMBERS, &limits).unwrap_err();
        assert_eq!(error.to_string(), "the value nests deeper than 4 levels");
        let json = serde_json::json!([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        let error = from_json(&json, &Type::list(Type::U16), &NUMBERS, &limits).unwrap_err();
        assert_eq!(error.to_string(), "the value holds more than 10 items");
    }

    #[test]
    fn text_after_the_value_is_refused() {
        for (text, ty) in [("1 2", Type::U8), ("[] x", Type::list(Type::U16)), ("null,", Type::option(Type::U8))] {
            assert!(read(text, &ty).unwrap_err().ends_with("text follows the value"), "{text}");
        }
    }

    #[test]
    fn a_payload_before_its_tag_is_read_when_the_tag_is_known() {
        let inner = Type::variant([("n", Some(Type::list(Type::U16)))]);
        let outer = Type::variant([("none", None), ("some", Some(inner))]);
        let expected =
            Value::Variant(1, boxed(Value::Variant(0, boxed(Value::List(vec![Value::U16(1), Value::U16(2)])))));
        assert_eq!(read(r#"{"val":{"val":[1,2],"tag":"n"},"tag":"some"}"#, &outer), Ok(expected));
        for (text, message) in [
            (r#"{"val":{"val":[1,"x"],"tag":"n"},"tag":"some"}"#, "`/val/val/1`: the string `x`, expected `u16`"),
            (r#"{"val":[1 2],"tag":"some"}"#, "not JSON at line 1 column 11: expected `,` or `]`"),
            (r#"{"val":{"a":1,"a":2},"tag":"none"}"#, "`/val`: an object, expected `null`"),
            (r#"{"tag":"none","tag":"none"}"#, "not JSON at line 1 column 15: the key `tag` is repeated"),
            (r#"{"val":null,"val":null,"tag":"none"}"#, "not JSON at line 1 column 13: the key `val` is repeated"),
        ] {
            assert_eq!(read(text, &outer), Err(message.to_owned()), "{text}");
        }
        let blob = Type::variant([("b", Some(Type::Bytes))]);
        for text in [r#"{"tag":"b","val":[1]}"#, r#"{"val":[1],"tag":"b"}"#] {
            assert!(
                from_json_text(text.as_bytes(), &blob, &NUMBERS, &Limits { depth: 2, ..Limits::default() }).is_ok()
            );
        }
        let deep = format!("{{\"val\":{}", "[".repeat(100_000));
        assert_eq!(read(&deep, &outer), Err("the value nests deeper than 64 levels".to_owned()));
    }

    #[test]
    fn parameters_are_an_object_and_a_missing_result_is_null() {
        let function = FunctionType {
            params: vec![("id".to_owned(), Type::U8), ("note".to_owned(), Type::option(Type::String))],
            result: None,
        };
        let limits = Limits::default();
        let mut out = Vec::new();
        params_to_json(&function, &[Value::U8(1), Value::none()], &NUMBERS, &mut out).unwrap();
        result_to_json(&function, None, &NUMBERS, &mut out).unwrap();
        assert_eq!(out, br#"{"id":1}null"#);
        let read = |json: serde_json::Value| {
            let text = params_from_json_text(&function, json.to_string().as_bytes(), &NUMBERS, &limits);
            assert_eq!(text, params_from_json(&function, &json, &NUMBERS, &limits));
            text.map_err(|error| error.to_string())
        };
        assert_eq!(read(serde_json::json!({"id": 1})), Ok(vec![Value::U8(1), Value::none()]));
        assert_eq!(read(serde_json::json!([1, null])), Ok(vec![Value::U8(1), Value::none()]));
        let signature = "func(id: u8, note: option<string>)";
        assert_eq!(read(serde_json::json!([1])), Err(format!("the value: an array of 1, expected `{signature}`")));
        assert_eq!(
            read(serde_json::json!([1, null, 2])),
            Err(format!("the value: an array of more than 2, expected `{signature}`"))
        );
        assert_eq!(read(serde_json::json!(1)), Err(format!("the value: the number `1`, expected `{signature}`")));
        assert_eq!(
            read(serde_json::json!({"id": 1, "x": 1})),
            Err(format!("the value: the unknown name `x`, expected `{signature}`"))
        );
        assert_eq!(result_from_json(&function, &serde_json::Value::Null, &NUMBERS, &limits), Ok(None));
        assert!(result_from_json(&function, &serde_json::json!(1), &NUMBERS, &limits).is_err());
        let error = params_to_json(&function, &[Value::U8(1), Value::U8(1)], &NUMBERS, &mut out).unwrap_err();
        assert_eq!(error.to_string(), "`/note`: a value of kind `u8`, expected `option<string>`");
        assert_eq!(out, br#"{"id":1}null"#);
    }
}
