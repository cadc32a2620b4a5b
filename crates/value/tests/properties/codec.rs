//! The wRPC encoding.

use portcullis_value::{Bound, DecodeError, Exceeded, FunctionType, Limits, Type, Value};
use portcullis_value::{decode, decode_params, encode, encode_params};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::typed::{Typed, any_type, any_typed, shown};

fn encoded((ty, value): &Typed) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode(value, ty, &mut bytes).unwrap();
    bytes
}

/// The values inside a value, as the limits count them.
fn items(value: &Value) -> usize {
    let inside = |values: &[Value]| values.iter().map(|value| 1 + items(value)).sum();
    let payload = |payload: &Option<Box<Value>>| payload.as_deref().map_or(0, |value| 1 + items(value));
    match value {
        Value::List(values) | Value::Tuple(values) | Value::Record(values) => inside(values),
        Value::Variant(_, value) | Value::Option(value) | Value::Result(Ok(value) | Err(value)) => payload(value),
        Value::Bool(_)
        | Value::U8(_)
        | Value::U16(_)
        | Value::U32(_)
        | Value::U64(_)
        | Value::S8(_)
        | Value::S16(_) => 0,
        Value::S32(_) | Value::S64(_) | Value::F32(_) | Value::F64(_) | Value::Char(_) | Value::String(_) => 0,
        Value::Bytes(_) | Value::Enum(_) | Value::Flags(_) => 0,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_encoded_is_decoded(typed in any_typed()) {
        let bytes = encoded(&typed);
        let decoded = decode([&typed.0], &bytes, &Limits::default()).unwrap();
        prop_assert_eq!(shown(&decoded[0]), shown(&typed.1));
    }

    #[test]
    fn parameters_are_decoded_in_their_order(typed in vec(any_typed(), 0..4)) {
        let params = typed.iter().zip(0..).map(|((ty, _), position)| (format!("p{position}"), ty.clone())).collect();
        let function = FunctionType { params, result: None };
        let values = typed.into_iter().map(|(_, value)| value).collect::<Vec<_>>();
        let mut bytes = Vec::new();
        encode_params(&function, &values, &mut bytes).unwrap();
        let decoded = decode_params(&function, &bytes, &Limits::default()).unwrap();
        prop_assert_eq!(decoded.iter().map(shown).collect::<Vec<_>>(), values.iter().map(shown).collect::<Vec<_>>());
    }

    #[test]
    fn every_prefix_is_incomplete_and_says_at_most_what_is_missing(typed in any_typed()) {
        let bytes = encoded(&typed);
        for length in 0..bytes.len() {
            let prefix = decode([&typed.0], &bytes[..length], &Limits::default());
            let Err(DecodeError::Incomplete { more }) = prefix else {
                return Err(TestCaseError::fail(format!("{length} of {} bytes: {prefix:?}", bytes.len())));
            };
            prop_assert!((1..=bytes.len() - length).contains(&more));
        }
    }

    #[test]
    fn what_follows_is_refused(typed in any_typed(), rest in vec(any::<u8>(), 1..20)) {
        let bytes = [encoded(&typed), rest.clone()].concat();
        let trailing = decode([&typed.0], &bytes, &Limits::default());
        prop_assert_eq!(trailing, Err(DecodeError::Trailing { extra: rest.len() }));
    }

    #[test]
    fn the_items_of_a_value_are_the_limit_it_needs(typed in any_typed()) {
        let bytes = encoded(&typed);
        let needed = items(&typed.1);
        let limits = Limits { items: needed, bytes: bytes.len(), ..Limits::default() };
        prop_assert!(decode([&typed.0], &bytes, &limits).is_ok());
        if let Some(fewer) = needed.checked_sub(1) {
            let refused = decode([&typed.0], &bytes, &Limits { items: fewer, ..limits });
            prop_assert_eq!(refused, Err(DecodeError::TooLarge(Exceeded { bound: Bound::Items, limit: fewer })));
        }
        if let Some(fewer) = bytes.len().checked_sub(1) {
            let refused = decode([&typed.0], &bytes, &Limits { bytes: fewer, ..limits });
            prop_assert_eq!(refused, Err(DecodeError::TooLarge(Exceeded { bound: Bound::Bytes, limit: fewer })));
        }
    }

    #[test]
    fn arbitrary_bytes_are_an_error_or_a_value_within_the_limits(ty in any_type(), bytes in vec(any::<u8>(), 0..200)) {
        let limits = Limits { items: 100, ..Limits::default() };
        if let Ok(values) = decode([&ty], &bytes, &limits) {
            prop_assert!(items(&values[0]) <= 100);
            let mut again = Vec::new();
            encode(&values[0], &ty, &mut again).unwrap();
            prop_assert_eq!(shown(&decode([&ty], &again, &limits).unwrap()[0]), shown(&values[0]));
        }
    }

    #[test]
    fn a_spoilt_byte_is_an_error_or_another_value(
        typed in any_typed(), at in any::<prop::sample::Index>(), byte in any::<u8>(),
    ) {
        let mut bytes = encoded(&typed);
        if !bytes.is_empty() {
            let at = at.index(bytes.len());
            bytes[at] = byte;
            let limits = Limits { items: 1_000, ..Limits::default() };
            if let Ok(values) = decode([&typed.0], &bytes, &limits) {
                prop_assert!(items(&values[0]) <= 1_000);
            }
        }
    }

    #[test]
    fn a_value_of_another_type_is_not_encoded(typed in any_typed(), other in any_typed()) {
        let mut out = vec![1, 2, 3];
        if encode(&typed.1, &other.0, &mut out).is_err() {
            prop_assert_eq!(&out, &[1, 2, 3]);
        } else {
            let decoded = decode([&other.0], &out[3..], &Limits::default()).unwrap();
            prop_assert_eq!(shown(&decoded[0]), shown(&typed.1));
        }
    }
}

#[test]
fn two_equal_types_have_no_difference_and_two_others_have_one() {
    let config = ProptestConfig { cases: 1_000, failure_persistence: None, ..ProptestConfig::default() };
    proptest!(config, |(a in any_type(), b in any_type())| {
        prop_assert_eq!(a.difference(&a.clone()), None);
        prop_assert_eq!(a.difference(&b).is_none(), a == b);
        prop_assert_eq!(a.to_string() == b.to_string(), a == b);
    });
}

#[test]
fn a_type_reads_as_the_wit_it_was_compiled_from() {
    use portcullis_value::{Wit, WitSource};

    let config = ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() };
    let anonymous = any_type().prop_filter("WIT names it or has no text for it", |ty| {
        let text = ty.to_string();
        !["record", "variant", "enum", "flags", "tuple<>"].iter().any(|word| text.contains(word))
    });
    proptest!(config, |(ty in anonymous)| {
        let text = format!("package a:b; interface i {{ f: func(p: {ty}) -> {ty}; }}");
        let wit = Wit::parse(&[WitSource { path: "i.wit".to_owned(), text }]).unwrap();
        let function = wit.function("a:b/i", "f").unwrap().typed().unwrap();
        prop_assert_eq!(&function.params[0].1, &ty);
        prop_assert_eq!(function.result.as_ref(), Some(&ty));
        prop_assert_eq!(function.to_string(), format!("func(p: {ty}) -> {ty}"));
    });
}

#[test]
fn a_named_type_is_its_structure() {
    assert_eq!(Type::list(Type::U8), Type::Bytes);
}
