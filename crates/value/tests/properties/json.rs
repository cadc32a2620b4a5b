//! The JSON rules.

use portcullis_value::json::{
    Int64, JsonRules, from_json, from_json_text, params_from_json, params_from_json_text, params_to_json, parse_json,
    to_json,
};
use portcullis_value::{FunctionType, Limits, Type, Value};
use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::Value as Json;

use crate::typed::{any_text, any_type, any_typed, shown};

/// JSON holds more values than the WIT value it stands for: a case and its payload are two.
fn ample() -> Limits {
    Limits { depth: 200, ..Limits::default() }
}

fn any_rules() -> impl Strategy<Value = JsonRules> {
    prop_oneof![Just(Int64::Number), Just(Int64::String)].prop_map(|int64| JsonRules { int64 })
}

fn any_json() -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::from),
        any::<u64>().prop_map(Json::from),
        any::<i64>().prop_map(Json::from),
        any::<f64>().prop_map(Json::from),
        any_text().prop_map(Json::from),
        prop_oneof![Just("val"), Just("tag"), Just("n0"), Just("NaN"), Just("12"), Just("aGk=")].prop_map(Json::from),
    ];
    let key = prop_oneof![Just("val"), Just("tag"), Just("ok"), Just("err"), Just("a-name"), Just("n0"), Just("é\"\n")];
    leaf.prop_recursive(4, 30, 5, move |inner| {
        prop_oneof![
            vec(inner.clone(), 0..5).prop_map(Json::from),
            vec((key.clone(), inner), 0..4)
                .prop_map(|members| members.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()),
        ]
    })
}

/// Whether two trees are equal but for the last digits of floats, which `serde_json` may get wrong.
fn close(exact: &Json, rounded: &Json) -> bool {
    match (exact, rounded) {
        (Json::Array(a), Json::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| close(a, b)),
        (Json::Object(a), Json::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| close(a, b)))
        }
        (Json::Number(a), Json::Number(b)) if a.is_f64() && b.is_f64() => {
            let (a, b) = (a.as_f64().unwrap(), b.as_f64().unwrap());
            a.to_bits().abs_diff(b.to_bits()) <= 64
        }
        (exact, rounded) => exact == rounded,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_written_is_read(typed in any_typed(), written in any_rules(), read in any_rules()) {
        let (ty, value) = typed;
        let mut text = Vec::new();
        to_json(&value, &ty, &written, &mut text).unwrap();
        let back = from_json_text(&text, &ty, &read, &Limits::default()).unwrap();
        prop_assert_eq!(shown(&back), shown(&value), "{}", String::from_utf8_lossy(&text));
    }

    #[test]
    fn parameters_are_read_by_name_and_by_position(typed in vec(any_typed(), 0..4), rules in any_rules()) {
        let params = typed.iter().zip(0..).map(|((ty, _), position)| (format!("p{position}"), ty.clone())).collect();
        let function = FunctionType { params, result: None };
        let values = typed.iter().map(|(_, value)| value.clone()).collect::<Vec<_>>();
        let expected = values.iter().map(shown).collect::<Vec<_>>();

        let mut object = Vec::new();
        params_to_json(&function, &values, &rules, &mut object).unwrap();
        let named = params_from_json_text(&function, &object, &rules, &Limits::default()).unwrap();
        prop_assert_eq!(&named.iter().map(shown).collect::<Vec<_>>(), &expected);

        let mut elements = Vec::new();
        for (ty, value) in &typed {
            let mut text = Vec::new();
            to_json(value, ty, &rules, &mut text).unwrap();
            elements.push(parse_json(&text, &ample()).unwrap());
        }
        let placed = params_from_json(&function, &Json::Array(elements), &rules, &Limits::default()).unwrap();
        prop_assert_eq!(placed.iter().map(shown).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn arbitrary_json_is_an_error_or_a_value_that_is_written(ty in any_type(), json in any_json()) {
        let text = from_json_text(json.to_string().as_bytes(), &ty, &JsonRules::default(), &Limits::default());
        let tree = from_json(&json, &ty, &JsonRules::default(), &Limits::default());
        prop_assert_eq!(text.map(|value| shown(&value)), tree.map(|value| shown(&value)));
        if let Ok(value) = from_json(&json, &ty, &JsonRules::default(), &Limits::default()) {
            let mut text = Vec::new();
            to_json(&value, &ty, &JsonRules::default(), &mut text).unwrap();
            let again = parse_json(&text, &ample()).unwrap();
            let back = from_json(&again, &ty, &JsonRules::default(), &Limits::default()).unwrap();
            prop_assert_eq!(shown(&back), shown(&value));
        }
    }

    #[test]
    fn a_value_of_another_type_is_not_written(typed in any_typed(), other in any_type()) {
        let mut out = vec![1, 2, 3];
        if to_json(&typed.1, &other, &JsonRules::default(), &mut out).is_err() {
            prop_assert_eq!(&out, &[1, 2, 3]);
        } else {
            let json = parse_json(&out[3..], &ample()).unwrap();
            let back = from_json(&json, &other, &JsonRules::default(), &Limits::default()).unwrap();
            prop_assert_eq!(shown(&back), shown(&typed.1));
        }
    }

    #[test]
    fn the_parser_reads_what_serde_json_writes(json in any_json(), pretty in any::<bool>()) {
        let text = if pretty { serde_json::to_vec_pretty(&json) } else { serde_json::to_vec(&json) }.unwrap();
        prop_assert_eq!(parse_json(&text, &ample()).unwrap(), json);
    }

    /// Spoilt JSON is refused exactly when `serde_json` refuses it: keys that repeat do not come up here.
    #[test]
    fn the_parser_refuses_what_serde_json_refuses(
        json in any_json(),
        at in any::<prop::sample::Index>(),
        with in vec(prop::sample::select(br#"{}[],:"\/0123456789.-+eEtrufalsnb x"#.to_vec()), 0..3),
        removed in 0..3usize,
    ) {
        let mut text = serde_json::to_vec(&json).unwrap();
        let start = at.index(text.len() + 1);
        let end = (start + removed).min(text.len());
        text.splice(start..end, with);
        let ours = parse_json(&text, &ample());
        let theirs = serde_json::from_slice::<Json>(&text);
        match (&ours, &theirs) {
            (Ok(exact), Ok(rounded)) => prop_assert!(close(exact, rounded), "{exact} {rounded}"),
            (Err(_), Err(_)) => {}
            (Err(error), Ok(_)) if error.to_string().contains("is repeated") => {}
            (Ok(_), Err(_)) | (Err(_), Ok(_)) => {
                prop_assert!(false, "{}: {ours:?} {theirs:?}", String::from_utf8_lossy(&text));
            }
        }
    }

    #[test]
    fn arbitrary_bytes_are_parsed_or_refused(text in vec(any::<u8>(), 0..60)) {
        prop_assert_eq!(parse_json(&text, &ample()).is_ok(), serde_json::from_slice::<Json>(&text).is_ok());
    }

    #[test]
    fn every_float_survives(bits in any::<u64>(), narrow in any::<u32>()) {
        for (ty, value) in [
            (Type::F64, Value::F64(f64::from_bits(bits))),
            (Type::F32, Value::F32(f32::from_bits(narrow))),
        ] {
            let mut text = Vec::new();
            to_json(&value, &ty, &JsonRules::default(), &mut text).unwrap();
            let direct = from_json_text(&text, &ty, &JsonRules::default(), &Limits::default()).unwrap();
            prop_assert_eq!(shown(&direct), shown(&value));
            let json = parse_json(&text, &Limits::default()).unwrap();
            let back = from_json(&json, &ty, &JsonRules::default(), &Limits::default()).unwrap();
            prop_assert_eq!(shown(&back), shown(&value));
        }
    }

    /// A value whose text is spoilt: what is still read is JSON, and the same value by way of a tree.
    #[test]
    fn spoilt_text_is_an_error_or_a_value(
        typed in any_typed(),
        at in any::<prop::sample::Index>(),
        with in vec(prop::sample::select(br#"{}[],:"\/0123456789.-+eEtrufalsnb x"#.to_vec()), 0..3),
        removed in 0..3usize,
    ) {
        let (ty, value) = typed;
        let mut text = Vec::new();
        to_json(&value, &ty, &JsonRules::default(), &mut text).unwrap();
        let start = at.index(text.len() + 1);
        let end = (start + removed).min(text.len());
        text.splice(start..end, with);
        let direct = from_json_text(&text, &ty, &JsonRules::default(), &Limits::default());
        let tree = parse_json(&text, &ample());
        let by_tree = tree.and_then(|json| from_json(&json, &ty, &JsonRules::default(), &Limits::default()));
        prop_assert_eq!(direct.is_ok(), by_tree.is_ok(), "{} {:?} {:?}", String::from_utf8_lossy(&text), direct, by_tree);
    }

    /// The same JSON with its members in another order is the same value.
    #[test]
    fn the_order_of_members_means_nothing(typed in any_typed()) {
        let (ty, value) = typed;
        let mut text = Vec::new();
        to_json(&value, &ty, &JsonRules::default(), &mut text).unwrap();
        let back = from_json_text(&reversed(&text), &ty, &JsonRules::default(), &Limits::default()).unwrap();
        prop_assert_eq!(shown(&back), shown(&value));
    }
}

/// The JSON with the members of every object in descending order, so that `val` stands before `tag`.
fn reversed(text: &[u8]) -> Vec<u8> {
    fn write(json: &Json, out: &mut String) {
        match json {
            Json::Array(elements) => {
                out.push('[');
                for (position, element) in elements.iter().enumerate() {
                    out.push_str(if position > 0 { "," } else { "" });
                    write(element, out);
                }
                out.push(']');
            }
            Json::Object(members) => {
                out.push('{');
                for (position, (key, value)) in members.iter().rev().enumerate() {
                    out.push_str(if position > 0 { "," } else { "" });
                    out.push_str(&Json::from(key.as_str()).to_string());
                    out.push(':');
                    write(value, out);
                }
                out.push('}');
            }
            Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => out.push_str(&json.to_string()),
        }
    }
    let mut out = String::new();
    write(&parse_json(text, &ample()).unwrap(), &mut out);
    out.into_bytes()
}
