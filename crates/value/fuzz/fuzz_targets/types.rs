//! The types an input can choose from.

use portcullis_value::{Limits, Type};

/// Small enough that a limit is soon reached.
pub const LIMITS: Limits = Limits {
    bytes: 1 << 20,
    depth: 32,
    items: 10_000,
};

/// The type that the first byte chooses, and the rest.
pub fn choose(input: &[u8]) -> Option<(Type, &[u8])> {
    let (first, rest) = input.split_first()?;
    let types = types();
    let chosen = usize::from(*first) % types.len();
    Some((types.into_iter().nth(chosen)?, rest))
}

fn types() -> Vec<Type> {
    let numbers = Type::tuple([
        Type::U8,
        Type::U16,
        Type::U32,
        Type::U64,
        Type::S8,
        Type::S16,
        Type::S32,
        Type::S64,
        Type::F32,
        Type::F64,
    ]);
    let record = Type::record([
        ("val", Type::option(Type::option(Type::String))),
        ("tag", Type::Char),
        ("blob", Type::Bytes),
        ("flags", Type::flags((0..11).map(|bit| format!("f{bit}")))),
        ("color", Type::enumeration(["red", "green"])),
        ("on", Type::Bool),
    ]);
    let variant = Type::variant([
        ("none", None),
        ("one", Some(record.clone())),
        ("many", Some(Type::list(numbers.clone()))),
        ("maybe", Some(Type::option(Type::U8))),
        ("outcome", Some(Type::result(Some(Type::String), None))),
    ]);
    let nested = (0..40).fold(Type::Bool, |ty, level| {
        if level % 2 == 0 {
            Type::list(ty)
        } else {
            Type::option(ty)
        }
    });
    let nothing = Type::list(Type::list(Type::tuple([Type::record::<&str>([])])));
    vec![
        numbers,
        Type::list(record.clone()),
        record,
        Type::list(variant.clone()),
        variant,
        nested,
        nothing,
        Type::list(Type::String),
    ]
}
