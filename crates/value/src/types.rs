//! WIT value types, by structure: two types are equal when their text is, whatever they were called.

use std::fmt;
use std::sync::Arc;

/// A WIT value type. Cloning is cheap; equality is structural.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Type {
    /// `bool`
    Bool,
    /// `u8`
    U8,
    /// `u16`
    U16,
    /// `u32`
    U32,
    /// `u64`
    U64,
    /// `s8`
    S8,
    /// `s16`
    S16,
    /// `s32`
    S32,
    /// `s64`
    S64,
    /// `f32`
    F32,
    /// `f64`
    F64,
    /// `char`
    Char,
    /// `string`
    String,
    /// `list<T>` of anything but `u8`: make it with [`Type::list`]
    List(Arc<Self>),
    /// `list<u8>`
    Bytes,
    /// `tuple`
    Tuple(Arc<[Self]>),
    /// `record`
    Record(Arc<Record>),
    /// `variant`
    Variant(Arc<Variant>),
    /// `enum`
    Enum(Arc<Enum>),
    /// `option`
    Option(Arc<Self>),
    /// `result`
    Result(Arc<ResultType>),
    /// `flags`
    Flags(Arc<Flags>),
}

/// The fields of a `record`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Record {
    /// Names and types in the order of the WIT.
    pub fields: Vec<(String, Type)>,
}

/// The cases of a `variant`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Variant {
    /// Names and payloads in the order of the WIT.
    pub cases: Vec<(String, Option<Type>)>,
}

/// The cases of an `enum`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Enum {
    /// Names in the order of the WIT.
    pub cases: Vec<String>,
}

/// The two arms of a `result`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ResultType {
    /// The payload of `ok`.
    pub ok: Option<Type>,
    /// The payload of `err`.
    pub err: Option<Type>,
}

/// The names of a `flags` type.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Flags {
    /// Names in the order of the WIT: the first is the lowest bit.
    pub names: Vec<String>,
}

impl Type {
    /// `list<element>`: [`Type::Bytes`] where the element is `u8`.
    #[must_use]
    pub fn list(element: Self) -> Self {
        if element == Self::U8 { Self::Bytes } else { Self::List(Arc::new(element)) }
    }

    /// `option<payload>`.
    #[must_use]
    pub fn option(payload: Self) -> Self {
        Self::Option(Arc::new(payload))
    }

    /// `tuple<..>`.
    #[must_use]
    pub fn tuple(types: impl IntoIterator<Item = Self>) -> Self {
        Self::Tuple(types.into_iter().collect())
    }

    /// `record { .. }`.
    #[must_use]
    pub fn record<N: Into<String>>(fields: impl IntoIterator<Item = (N, Self)>) -> Self {
        let fields = fields.into_iter().map(|(name, ty)| (name.into(), ty)).collect();
        Self::Record(Arc::new(Record { fields }))
    }

    /// `variant { .. }`.
    #[must_use]
    pub fn variant<N: Into<String>>(cases: impl IntoIterator<Item = (N, Option<Self>)>) -> Self {
        let cases = cases.into_iter().map(|(name, payload)| (name.into(), payload)).collect();
        Self::Variant(Arc::new(Variant { cases }))
    }

    /// `enum { .. }`.
    #[must_use]
    pub fn enumeration<N: Into<String>>(cases: impl IntoIterator<Item = N>) -> Self {
        Self::Enum(Arc::new(Enum { cases: cases.into_iter().map(Into::into).collect() }))
    }

    /// `result<ok, err>`.
    #[must_use]
    pub fn result(ok: Option<Self>, err: Option<Self>) -> Self {
        Self::Result(Arc::new(ResultType { ok, err }))
    }

    /// `flags { .. }`.
    #[must_use]
    pub fn flags<N: Into<String>>(names: impl IntoIterator<Item = N>) -> Self {
        Self::Flags(Arc::new(Flags { names: names.into_iter().map(Into::into).collect() }))
    }

    /// Whether the type is an `option`.
    #[must_use]
    pub const fn is_option(&self) -> bool {
        matches!(self, Self::Option(_))
    }

    /// The first place where `other` differs from this type, in words; `None` when they are equal.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Option<String> {
        if self == other {
            return None;
        }
        Some(self.nearest_difference(other).unwrap_or_else(|| format!("expected `{self}`, found `{other}`")))
    }

    /// A difference inside two types of the same kind; `None` when they differ as a whole.
    fn nearest_difference(&self, other: &Self) -> Option<String> {
        match (self, other) {
            (Self::List(a), Self::List(b)) => within("list element", a.difference(b)),
            (Self::Option(a), Self::Option(b)) => within("option payload", a.difference(b)),
            (Self::Tuple(a), Self::Tuple(b)) if a.len() == b.len() => a
                .iter()
                .zip(b.iter())
                .enumerate()
                .find_map(|(position, (a, b))| within(&format!("tuple element {position}"), a.difference(b))),
            (Self::Record(a), Self::Record(b)) => named_difference("field", &a.fields, &b.fields, Self::difference),
            (Self::Variant(a), Self::Variant(b)) => {
                named_difference("case", &a.cases, &b.cases, |a, b| optional_difference(a.as_ref(), b.as_ref()))
            }
            (Self::Result(a), Self::Result(b)) => within("`ok`", optional_difference(a.ok.as_ref(), b.ok.as_ref()))
                .or_else(|| within("`err`", optional_difference(a.err.as_ref(), b.err.as_ref()))),
            (_, _) => None,
        }
    }
}

fn within(place: &str, difference: Option<String>) -> Option<String> {
    difference.map(|difference| format!("{place}: {difference}"))
}

/// The difference of two types that may be absent.
pub(crate) fn optional_difference(expected: Option<&Type>, found: Option<&Type>) -> Option<String> {
    match (expected, found) {
        (None, None) => None,
        (Some(expected), None) => Some(format!("expected `{expected}`, found nothing")),
        (None, Some(found)) => Some(format!("expected nothing, found `{found}`")),
        (Some(expected), Some(found)) => expected.difference(found),
    }
}

/// The first difference of two lists of named things.
pub(crate) fn named_difference<T>(
    noun: &str,
    expected: &[(String, T)],
    found: &[(String, T)],
    difference: impl Fn(&T, &T) -> Option<String>,
) -> Option<String> {
    for (position, (name, ty)) in expected.iter().enumerate() {
        let Some((other_name, other)) = found.get(position) else {
            return Some(format!("{noun} `{name}` is missing"));
        };
        if name != other_name {
            return Some(format!("expected {noun} `{name}` at position {position}, found `{other_name}`"));
        }
        if let Some(difference) = difference(ty, other) {
            return Some(format!("{noun} `{name}`: {difference}"));
        }
    }
    found.get(expected.len()).map(|(name, _)| format!("unexpected {noun} `{name}`"))
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool => f.write_str("bool"),
            Self::U8 => f.write_str("u8"),
            Self::U16 => f.write_str("u16"),
            Self::U32 => f.write_str("u32"),
            Self::U64 => f.write_str("u64"),
            Self::S8 => f.write_str("s8"),
            Self::S16 => f.write_str("s16"),
            Self::S32 => f.write_str("s32"),
            Self::S64 => f.write_str("s64"),
            Self::F32 => f.write_str("f32"),
            Self::F64 => f.write_str("f64"),
            Self::Char => f.write_str("char"),
            Self::String => f.write_str("string"),
            Self::Bytes => f.write_str("list<u8>"),
            Self::List(element) => write!(f, "list<{element}>"),
            Self::Option(payload) => write!(f, "option<{payload}>"),
            Self::Tuple(types) => {
                f.write_str("tuple<")?;
                separated(f, types.iter(), |f, ty| ty.fmt(f))?;
                f.write_str(">")
            }
            Self::Record(record) => {
                f.write_str("record { ")?;
                separated(f, &record.fields, |f, (name, ty)| write!(f, "{name}: {ty}"))?;
                f.write_str(" }")
            }
            Self::Variant(variant) => {
                f.write_str("variant { ")?;
                separated(f, &variant.cases, |f, (name, payload)| match payload {
                    Some(payload) => write!(f, "{name}({payload})"),
                    None => f.write_str(name),
                })?;
                f.write_str(" }")
            }
            Self::Enum(cases) => names(f, "enum", &cases.cases),
            Self::Flags(flags) => names(f, "flags", &flags.names),
            Self::Result(result) => result.fmt(f),
        }
    }
}

impl fmt::Display for ResultType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.ok, &self.err) {
            (None, None) => f.write_str("result"),
            (Some(ok), None) => write!(f, "result<{ok}>"),
            (None, Some(err)) => write!(f, "result<_, {err}>"),
            (Some(ok), Some(err)) => write!(f, "result<{ok}, {err}>"),
        }
    }
}

fn names(f: &mut fmt::Formatter<'_>, keyword: &str, names: &[String]) -> fmt::Result {
    write!(f, "{keyword} {{ ")?;
    separated(f, names, |f, name| f.write_str(name))?;
    f.write_str(" }")
}

/// Writes items with commas between them.
pub(crate) fn separated<T>(
    f: &mut fmt::Formatter<'_>,
    items: impl IntoIterator<Item = T>,
    mut write: impl FnMut(&mut fmt::Formatter<'_>, T) -> fmt::Result,
) -> fmt::Result {
    for (position, item) in items.into_iter().enumerate() {
        if position > 0 {
            f.write_str(", ")?;
        }
        write(f, item)?;
    }
    Ok(())
}
