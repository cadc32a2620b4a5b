//! A value of any WIT value type.

use bytes::Bytes;

/// A value; which [`Type`](crate::Type) it has is known beside it, never in it: fields, cases and flags are positions in the type.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// `bool`
    Bool(bool),
    /// `u8`
    U8(u8),
    /// `u16`
    U16(u16),
    /// `u32`
    U32(u32),
    /// `u64`
    U64(u64),
    /// `s8`
    S8(i8),
    /// `s16`
    S16(i16),
    /// `s32`
    S32(i32),
    /// `s64`
    S64(i64),
    /// `f32`; the payload of a NaN means nothing
    F32(f32),
    /// `f64`; the payload of a NaN means nothing
    F64(f64),
    /// `char`
    Char(char),
    /// `string`
    String(String),
    /// `list<u8>`
    Bytes(Bytes),
    /// any other `list`
    List(Vec<Self>),
    /// `tuple`
    Tuple(Vec<Self>),
    /// `record`: the fields in the order of the type
    Record(Vec<Self>),
    /// `variant`: the position of the case and its payload
    Variant(u32, Option<Box<Self>>),
    /// `enum`: the position of the case
    Enum(u32),
    /// `option`
    Option(Option<Box<Self>>),
    /// `result`
    Result(Result<Option<Box<Self>>, Option<Box<Self>>>),
    /// `flags`: one for every name of the type
    Flags(Vec<bool>),
}

impl Value {
    /// `some` of a value.
    #[must_use]
    pub fn some(value: Self) -> Self {
        Self::Option(Some(Box::new(value)))
    }

    /// `none`.
    #[must_use]
    pub const fn none() -> Self {
        Self::Option(None)
    }

    /// What kind of type the value belongs to, for messages.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Bool(_) => "bool",
            Self::U8(_) => "u8",
            Self::U16(_) => "u16",
            Self::U32(_) => "u32",
            Self::U64(_) => "u64",
            Self::S8(_) => "s8",
            Self::S16(_) => "s16",
            Self::S32(_) => "s32",
            Self::S64(_) => "s64",
            Self::F32(_) => "f32",
            Self::F64(_) => "f64",
            Self::Char(_) => "char",
            Self::String(_) => "string",
            Self::Bytes(_) => "list<u8>",
            Self::List(_) => "list",
            Self::Tuple(_) => "tuple",
            Self::Record(_) => "record",
            Self::Variant(..) => "variant",
            Self::Enum(_) => "enum",
            Self::Option(_) => "option",
            Self::Result(_) => "result",
            Self::Flags(_) => "flags",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Value;

    #[test]
    fn a_value_stays_small() {
        assert!(size_of::<Value>() <= 40, "{} bytes", size_of::<Value>());
    }
}
