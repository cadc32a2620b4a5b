//! Any type, and any value of it.

use bytes::Bytes;
use portcullis_value::{Type, Value};
use proptest::collection::{SizeRange, vec};
use proptest::option;
use proptest::prelude::*;

/// A value and its type.
pub(crate) type Typed = (Type, Value);

pub(crate) fn any_typed() -> impl Strategy<Value = Typed> {
    any_type().prop_flat_map(|ty| {
        let value = any_value(&ty);
        (Just(ty), value)
    })
}

pub(crate) fn any_type() -> impl Strategy<Value = Type> {
    let leaf = prop_oneof![
        Just(Type::Bool),
        Just(Type::U8),
        Just(Type::U16),
        Just(Type::U32),
        Just(Type::U64),
        Just(Type::S8),
        Just(Type::S16),
        Just(Type::S32),
        Just(Type::S64),
        Just(Type::F32),
        Just(Type::F64),
        Just(Type::Char),
        Just(Type::String),
        Just(Type::Bytes),
        (1..6usize).prop_map(|count| Type::enumeration(names(count))),
        prop_oneof![1..40usize, Just(8), Just(16)].prop_map(|count| Type::flags(names(count))),
    ];
    leaf.prop_recursive(5, 40, 4, |inner| {
        prop_oneof![
            1 => inner.clone().prop_map(Type::list),
            2 => inner.clone().prop_map(Type::option),
            1 => vec(inner.clone(), 0..5).prop_map(Type::tuple),
            2 => vec(inner.clone(), 0..5).prop_map(|types| Type::record(names(types.len()).zip(types))),
            1 => vec(option::of(inner.clone()), 1..5).prop_map(|types| Type::variant(names(types.len()).zip(types))),
            1 => (option::of(inner.clone()), option::of(inner)).prop_map(|(ok, err)| Type::result(ok, err)),
        ]
    })
}

/// Names as WIT has them; a few are the words of the JSON rules.
fn names(count: usize) -> impl Iterator<Item = String> {
    let first = ["val", "tag", "ok", "err", "a-name"].into_iter().map(str::to_owned);
    first.chain((0..).map(|position| format!("n{position}"))).take(count)
}

pub(crate) fn any_value(ty: &Type) -> BoxedStrategy<Value> {
    match ty {
        Type::Bool => any::<bool>().prop_map(Value::Bool).boxed(),
        Type::U8 => any::<u8>().prop_map(Value::U8).boxed(),
        Type::U16 => any::<u16>().prop_map(Value::U16).boxed(),
        Type::U32 => any::<u32>().prop_map(Value::U32).boxed(),
        Type::U64 => (any::<u64>(), 0..64u32).prop_map(|(bits, shift)| Value::U64(bits >> shift)).boxed(),
        Type::S8 => any::<i8>().prop_map(Value::S8).boxed(),
        Type::S16 => any::<i16>().prop_map(Value::S16).boxed(),
        Type::S32 => any::<i32>().prop_map(Value::S32).boxed(),
        Type::S64 => (any::<i64>(), 0..64u32).prop_map(|(bits, shift)| Value::S64(bits >> shift)).boxed(),
        Type::F32 => any::<u32>().prop_map(|bits| Value::F32(f32::from_bits(bits))).boxed(),
        Type::F64 => any::<u64>().prop_map(|bits| Value::F64(f64::from_bits(bits))).boxed(),
        Type::Char => any::<char>().prop_map(Value::Char).boxed(),
        Type::String => any_text().prop_map(Value::String).boxed(),
        Type::Bytes => vec(any::<u8>(), few(40)).prop_map(|bytes| Value::Bytes(Bytes::from(bytes))).boxed(),
        Type::List(element) => vec(any_value(element), few(4)).prop_map(Value::List).boxed(),
        Type::Tuple(types) => types.iter().map(any_value).collect::<Vec<_>>().prop_map(Value::Tuple).boxed(),
        Type::Record(record) => {
            let fields = record.fields.iter().map(|(_, ty)| any_value(ty)).collect::<Vec<_>>();
            fields.prop_map(Value::Record).boxed()
        }
        Type::Variant(variant) => {
            let cases = variant.cases.iter().zip(0u32..).map(|((_, ty), position)| {
                any_payload(ty.as_ref()).prop_map(move |payload| Value::Variant(position, payload)).boxed()
            });
            proptest::strategy::Union::new(cases).boxed()
        }
        Type::Enum(names) => (0..u32::try_from(names.cases.len()).unwrap()).prop_map(Value::Enum).boxed(),
        Type::Option(payload) => option::of(any_value(payload).prop_map(Box::new)).prop_map(Value::Option).boxed(),
        Type::Result(arms) => {
            let ok = any_payload(arms.ok.as_ref()).prop_map(|payload| Value::Result(Ok(payload)));
            let err = any_payload(arms.err.as_ref()).prop_map(|payload| Value::Result(Err(payload)));
            prop_oneof![ok, err].boxed()
        }
        Type::Flags(flags) => vec(any::<bool>(), flags.names.len()).prop_map(Value::Flags).boxed(),
    }
}

fn any_payload(ty: Option<&Type>) -> BoxedStrategy<Option<Box<Value>>> {
    match ty {
        None => Just(None).boxed(),
        Some(ty) => any_value(ty).prop_map(|value| Some(Box::new(value))).boxed(),
    }
}

pub(crate) fn any_text() -> impl Strategy<Value = String> {
    let awkward = prop_oneof![Just('"'), Just('\\'), Just('\0'), Just('\u{1f}'), Just('\u{7f}'), Just('\u{2028}')];
    vec(prop_oneof![4 => any::<char>(), 1 => awkward], few(12)).prop_map(String::from_iter)
}

fn few(most: usize) -> SizeRange {
    (0..most).into()
}

/// A text that two values share exactly when they are the same: every bit of a float but the payload of a NaN.
pub(crate) fn shown(value: &Value) -> String {
    format!("{value:?}").replace("-NaN", "NaN")
}
