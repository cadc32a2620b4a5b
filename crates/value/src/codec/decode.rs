//! Bytes to values.

use bytes::Bytes;

use super::flags_width;
use super::leb128::{Signed, Step, Unsigned};
use crate::limits::{Budget, Exceeded, Limits};
use crate::{FunctionType, Type, Value};

/// Why bytes are not the values they should be. The peer that sent them must act, except for [`DecodeError::Incomplete`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes are the beginning of values: a reader of a stream waits, and a complete message is cut short.
    #[error("the value is cut short: at least {more} more bytes are needed")]
    Incomplete {
        /// At least this many bytes are missing.
        more: usize,
    },
    /// No continuation of the bytes is a value of the type.
    #[error("malformed value at byte {offset}: {fault}")]
    Malformed {
        /// Where it was noticed.
        offset: usize,
        /// What is wrong.
        fault: Fault,
    },
    /// Bytes follow the last value.
    #[error("{extra} bytes follow the last value")]
    Trailing {
        /// How many.
        extra: usize,
    },
    /// The value is, or claims to be, larger than the limits allow.
    #[error(transparent)]
    TooLarge(#[from] Exceeded),
}

/// What is wrong at one place of an encoded value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The tag of a `bool`, `option` or `result`.
    #[error("the tag of a `{of}` is 0 or 1, not {found}")]
    Tag {
        /// `bool`, `option` or `result`.
        of: &'static str,
        /// The byte found.
        found: u8,
    },
    /// An integer that does not fit its type.
    #[error("an integer overflows {bits} bits")]
    Overflow {
        /// The width of its type.
        bits: u32,
    },
    /// A `string` or `char` that is not UTF-8.
    #[error("a `{of}` is not UTF-8")]
    Utf8 {
        /// `string` or `char`.
        of: &'static str,
    },
    /// The discriminant of a `variant` or `enum` names no case.
    #[error("there is no case {found} in a `{of}` of {cases}")]
    Case {
        /// `variant` or `enum`.
        of: &'static str,
        /// The discriminant found.
        found: u32,
        /// How many cases the type has.
        cases: usize,
    },
    /// A bit of `flags` that has no name is set.
    #[error("a bit without a name is set in a `flags` of {names}")]
    Flag {
        /// How many names the type has.
        names: usize,
    },
}

/// Reads exactly one value of each type, in order, from all of `bytes`.
///
/// # Errors
/// When the bytes are not values of these types or exceed the limits.
pub fn decode<'t>(
    types: impl IntoIterator<Item = &'t Type>,
    bytes: &[u8],
    limits: &Limits,
) -> Result<Vec<Value>, DecodeError> {
    let types = types.into_iter();
    let mut reader = Reader::new(bytes, limits);
    let mut values = Vec::with_capacity(types.size_hint().0);
    for ty in types {
        values.push(reader.root(ty)?);
    }
    reader.finish()?;
    Ok(values)
}

/// Reads the parameters of a call.
///
/// # Errors
/// As [`decode`].
pub fn decode_params(function: &FunctionType, bytes: &[u8], limits: &Limits) -> Result<Vec<Value>, DecodeError> {
    let mut reader = Reader::new(bytes, limits);
    let mut values = Vec::with_capacity(function.params.len());
    for (_, ty) in &function.params {
        values.push(reader.root(ty)?);
    }
    reader.finish()?;
    Ok(values)
}

/// Reads the result of a call: `None` where the function has none.
///
/// # Errors
/// As [`decode`].
pub fn decode_result(function: &FunctionType, bytes: &[u8], limits: &Limits) -> Result<Option<Value>, DecodeError> {
    let mut reader = Reader::new(bytes, limits);
    let value = function.result.as_ref().map(|ty| reader.root(ty)).transpose()?;
    reader.finish()?;
    Ok(value)
}

struct Reader<'a> {
    rest: &'a [u8],
    total: usize,
    budget: Budget,
}

impl<'a> Reader<'a> {
    fn new(bytes: &'a [u8], limits: &Limits) -> Self {
        Self { rest: bytes, total: bytes.len(), budget: Budget::new(limits) }
    }

    fn root(&mut self, ty: &Type) -> Result<Value, DecodeError> {
        self.budget.reach(self.total)?;
        self.value(ty, self.budget.depth())
    }

    fn finish(&self) -> Result<(), DecodeError> {
        match self.rest.len() {
            0 => Ok(()),
            extra => Err(DecodeError::Trailing { extra }),
        }
    }

    fn value(&mut self, ty: &Type, levels: usize) -> Result<Value, DecodeError> {
        let inner = self.budget.descend(levels)?;
        Ok(match ty {
            Type::Bool => Value::Bool(self.tag("bool")?),
            Type::U8 => Value::U8(self.byte()?),
            Type::U16 => Value::U16(self.unsigned(u16::BITS)?),
            Type::U32 => Value::U32(self.unsigned(u32::BITS)?),
            Type::U64 => Value::U64(self.unsigned(u64::BITS)?),
            Type::S8 => Value::S8(i8::from_le_bytes([self.byte()?])),
            Type::S16 => Value::S16(self.signed(i16::BITS)?),
            Type::S32 => Value::S32(self.signed(i32::BITS)?),
            Type::S64 => Value::S64(self.signed(i64::BITS)?),
            Type::F32 => Value::F32(f32::from_le_bytes(self.array()?)),
            Type::F64 => Value::F64(f64::from_le_bytes(self.array()?)),
            Type::Char => Value::Char(self.char()?),
            Type::String => Value::String(self.string()?),
            Type::Bytes => Value::Bytes(Bytes::copy_from_slice(self.counted()?)),
            Type::List(element) => Value::List(self.list(element, inner)?),
            Type::Tuple(types) => Value::Tuple(self.parts(types.iter(), inner)?),
            Type::Record(record) => Value::Record(self.parts(record.fields.iter().map(|(_, ty)| ty), inner)?),
            Type::Variant(variant) => {
                let (discriminant, payload) = self.case("variant", &variant.cases)?;
                Value::Variant(discriminant, self.payload(payload.1.as_ref(), inner)?)
            }
            Type::Enum(names) => Value::Enum(self.case("enum", &names.cases)?.0),
            Type::Option(payload) => {
                let present = self.tag("option")?;
                Value::Option(self.payload(present.then_some(payload), inner)?)
            }
            Type::Result(result) => Value::Result(if self.tag("result")? {
                Err(self.payload(result.err.as_ref(), inner)?)
            } else {
                Ok(self.payload(result.ok.as_ref(), inner)?)
            }),
            Type::Flags(flags) => Value::Flags(self.flags(flags.names.len())?),
        })
    }

    fn list(&mut self, element: &Type, levels: usize) -> Result<Vec<Value>, DecodeError> {
        let count = self.length()?;
        self.budget.charge(count)?;
        // Nothing is reserved for elements that the remaining bytes cannot hold; elements of no bytes grow the list as they come.
        let mut values = Vec::with_capacity(count.min(self.rest.len()));
        for _ in 0..count {
            values.push(self.value(element, levels)?);
        }
        Ok(values)
    }

    fn parts<'t>(
        &mut self,
        types: impl ExactSizeIterator<Item = &'t Type>,
        levels: usize,
    ) -> Result<Vec<Value>, DecodeError> {
        self.budget.charge(types.len())?;
        let mut values = Vec::with_capacity(types.len());
        for ty in types {
            values.push(self.value(ty, levels)?);
        }
        Ok(values)
    }

    fn payload(&mut self, ty: Option<&Type>, levels: usize) -> Result<Option<Box<Value>>, DecodeError> {
        let Some(ty) = ty else { return Ok(None) };
        self.budget.charge(1)?;
        Ok(Some(Box::new(self.value(ty, levels)?)))
    }

    fn case<'t, T>(&mut self, of: &'static str, cases: &'t [T]) -> Result<(u32, &'t T), DecodeError> {
        let found = self.unsigned(u32::BITS)?;
        match usize::try_from(found).ok().and_then(|position| cases.get(position)) {
            Some(case) => Ok((found, case)),
            None => Err(self.malformed(Fault::Case { of, found, cases: cases.len() })),
        }
    }

    fn flags(&mut self, names: usize) -> Result<Vec<bool>, DecodeError> {
        let bytes = self.take(flags_width(names))?;
        let mut bits = bytes.iter().flat_map(|byte| (0..u8::BITS).map(move |bit| byte >> bit & 1 == 1));
        let flags = bits.by_ref().take(names).collect();
        if bits.any(|bit| bit) {
            return Err(self.malformed(Fault::Flag { names }));
        }
        Ok(flags)
    }

    fn string(&mut self) -> Result<String, DecodeError> {
        let bytes = self.counted()?;
        match str::from_utf8(bytes) {
            Ok(text) => Ok(text.to_owned()),
            Err(_) => Err(self.malformed(Fault::Utf8 { of: "string" })),
        }
    }

    fn char(&mut self) -> Result<char, DecodeError> {
        let width = match self.rest.first() {
            None | Some(0..=0x7f) => 1,
            Some(0xc2..=0xdf) => 2,
            Some(0xe0..=0xef) => 3,
            Some(0xf0..=0xf4) => 4,
            Some(_) => return Err(self.malformed(Fault::Utf8 { of: "char" })),
        };
        let bytes = self.take(width)?;
        match str::from_utf8(bytes).ok().and_then(|text| text.chars().next()) {
            Some(scalar) => Ok(scalar),
            None => Err(self.malformed(Fault::Utf8 { of: "char" })),
        }
    }

    fn tag(&mut self, of: &'static str) -> Result<bool, DecodeError> {
        match self.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            found => Err(self.malformed(Fault::Tag { of, found })),
        }
    }

    fn length(&mut self) -> Result<usize, DecodeError> {
        self.unsigned(u32::BITS)
    }

    /// Bytes after their length. A length beyond the limit is refused before anyone waits for it.
    fn counted(&mut self) -> Result<&'a [u8], DecodeError> {
        let length = self.length()?;
        self.budget.reach(self.offset().saturating_add(length))?;
        self.take(length)
    }

    fn unsigned<T: TryFrom<u64>>(&mut self, bits: u32) -> Result<T, DecodeError> {
        let mut integer = Unsigned::new(bits);
        loop {
            match integer.push(self.byte()?) {
                Step::More => {}
                Step::Overflow => return Err(self.malformed(Fault::Overflow { bits })),
                Step::Done(value) => {
                    return T::try_from(value).map_err(|_| self.malformed(Fault::Overflow { bits }));
                }
            }
        }
    }

    fn signed<T: TryFrom<i64>>(&mut self, bits: u32) -> Result<T, DecodeError> {
        let mut integer = Signed::new(bits);
        loop {
            match integer.push(self.byte()?) {
                Step::More => {}
                Step::Overflow => return Err(self.malformed(Fault::Overflow { bits })),
                Step::Done(value) => {
                    return T::try_from(value).map_err(|_| self.malformed(Fault::Overflow { bits }));
                }
            }
        }
    }

    fn byte(&mut self) -> Result<u8, DecodeError> {
        let Some((byte, rest)) = self.rest.split_first() else {
            return Err(DecodeError::Incomplete { more: 1 });
        };
        self.rest = rest;
        Ok(*byte)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let Some((bytes, rest)) = self.rest.split_first_chunk() else {
            return Err(DecodeError::Incomplete { more: N.saturating_sub(self.rest.len()) });
        };
        self.rest = rest;
        Ok(*bytes)
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], DecodeError> {
        let Some((bytes, rest)) = self.rest.split_at_checked(length) else {
            return Err(DecodeError::Incomplete { more: length.saturating_sub(self.rest.len()) });
        };
        self.rest = rest;
        Ok(bytes)
    }

    fn offset(&self) -> usize {
        self.total.saturating_sub(self.rest.len())
    }

    fn malformed(&self, fault: Fault) -> DecodeError {
        DecodeError::Malformed { offset: self.offset(), fault }
    }
}

#[cfg(test)]
mod tests {
    use super::{DecodeError, Fault, decode, decode_params, decode_result};
    use crate::{Bound, Exceeded, FunctionType, Limits, Type, Value};

    const GIB: [u8; 5] = [0x80, 0x80, 0x80, 0x80, 0x04];

    fn one(ty: &Type, bytes: &[u8]) -> Result<Value, DecodeError> {
        decode([ty], bytes, &Limits::default()).map(|values| values[0].clone())
    }

    fn too_large(bound: Bound, limit: usize) -> DecodeError {
        DecodeError::TooLarge(Exceeded { bound, limit })
    }

    #[test]
    fn each_fault_has_its_name_and_place() {
        let shape = Type::variant([("a", None), ("b", Some(Type::U8))]);
        let cases: &[(Type, &[u8], usize, Fault)] = &[
            (Type::Bool, &[2], 1, Fault::Tag { of: "bool", found: 2 }),
            (Type::option(Type::U8), &[0xff], 1, Fault::Tag { of: "option", found: 0xff }),
            (Type::result(None, None), &[2], 1, Fault::Tag { of: "result", found: 2 }),
            (Type::U16, &[0xff, 0xff, 0x04], 3, Fault::Overflow { bits: 16 }),
            (Type::S32, &[0x80, 0x80, 0x80, 0x80, 0x08], 5, Fault::Overflow { bits: 32 }),
            (Type::U64, &[0x80; 11], 10, Fault::Overflow { bits: 64 }),
            (Type::String, &[2, 0xc3, 0x28], 3, Fault::Utf8 { of: "string" }),
            (Type::String, &[3, 0xed, 0xa0, 0x80], 4, Fault::Utf8 { of: "string" }),
            (Type::Char, &[0x80], 0, Fault::Utf8 { of: "char" }),
            (Type::Char, &[0xed, 0xa0, 0x80], 3, Fault::Utf8 { of: "char" }),
            (Type::Char, &[0xc0, 0x80], 0, Fault::Utf8 { of: "char" }),
            (Type::Char, &[0xf4, 0x90, 0x80, 0x80], 4, Fault::Utf8 { of: "char" }),
            (shape, &[2], 1, Fault::Case { of: "variant", found: 2, cases: 2 }),
            (Type::enumeration(["a"]), &[0x80, 0x01], 2, Fault::Case { of: "enum", found: 128, cases: 1 }),
            (Type::flags(["a", "b", "c"]), &[0x08], 1, Fault::Flag { names: 3 }),
            (Type::tuple([Type::U8, Type::Bool]), &[7, 9], 2, Fault::Tag { of: "bool", found: 9 }),
        ];
        for (ty, bytes, offset, fault) in cases {
            assert_eq!(one(ty, bytes), Err(DecodeError::Malformed { offset: *offset, fault: *fault }), "{ty}");
        }
    }

    #[test]
    fn a_message_says_where_and_what() {
        let error = one(&Type::tuple([Type::U8, Type::Bool]), &[7, 9]).unwrap_err();
        assert_eq!(error.to_string(), "malformed value at byte 2: the tag of a `bool` is 0 or 1, not 9");
        let error = one(&Type::String, &GIB).unwrap_err();
        assert_eq!(error.to_string(), "the value is larger than 4194304 bytes");
    }

    #[test]
    fn a_lying_length_is_refused_before_anything_is_reserved() {
        assert_eq!(one(&Type::Bytes, &GIB), Err(too_large(Bound::Bytes, 4 << 20)));
        assert_eq!(one(&Type::String, &GIB), Err(too_large(Bound::Bytes, 4 << 20)));
        for element in [Type::Bool, Type::String, Type::tuple([]), Type::record::<&str>([])] {
            assert_eq!(one(&Type::list(element), &GIB), Err(too_large(Bound::Items, 1_000_000)));
        }
    }

    #[test]
    fn a_length_within_the_limits_waits_for_its_bytes() {
        assert_eq!(one(&Type::Bytes, &[100, 1, 2]), Err(DecodeError::Incomplete { more: 98 }));
        assert_eq!(one(&Type::list(Type::F64), &[100, 1, 2]), Err(DecodeError::Incomplete { more: 6 }));
    }

    #[test]
    fn lengths_inside_lengths_share_one_budget() {
        // Every level claims 60 000 elements: together they would be millions before a single one is complete.
        let nested = (0..40).fold(Type::Bool, |ty, _| Type::list(ty));
        let bytes = [0xe0, 0xd4, 0x03].repeat(40);
        assert_eq!(one(&nested, &bytes), Err(too_large(Bound::Items, 1_000_000)));
    }

    #[test]
    fn elements_without_bytes_are_counted() {
        let limits = Limits { items: 1_000, ..Limits::default() };
        let nothing = Type::list(Type::tuple([]));
        assert_eq!(decode([&nothing], &[0xe8, 0x07], &limits).map(|values| values.len()), Ok(1));
        assert_eq!(decode([&nothing], &[0xe9, 0x07], &limits), Err(too_large(Bound::Items, 1_000)));
        // One byte of input for a type that doubles forty times.
        let vast = (0..40).fold(Type::tuple([]), |ty, _| Type::tuple([ty.clone(), ty]));
        assert_eq!(decode([&vast], &[], &Limits::default()), Err(too_large(Bound::Items, 1_000_000)));
    }

    #[test]
    fn nesting_ends_at_the_limit() {
        let deep = |levels| (1..levels).fold(Type::Bool, |ty, _| Type::option(ty));
        let bytes = |levels| vec![1; levels];
        assert!(one(&deep(64), &bytes(64)).is_ok());
        assert_eq!(one(&deep(65), &bytes(65)), Err(too_large(Bound::Depth, 64)));
        // A type may be deeper than any of its values.
        assert_eq!(one(&deep(65), &[0]), Ok(Value::none()));
        assert_eq!(one(&deep(5_000), &bytes(5_000)), Err(too_large(Bound::Depth, 64)));
    }

    #[test]
    fn bytes_after_the_last_value_are_refused() {
        let function = FunctionType { params: vec![("a".to_owned(), Type::U8)], result: None };
        let limits = Limits::default();
        assert_eq!(decode_params(&function, &[1, 2, 3], &limits), Err(DecodeError::Trailing { extra: 2 }));
        assert_eq!(decode_result(&function, &[0], &limits), Err(DecodeError::Trailing { extra: 1 }));
        assert_eq!(decode_result(&function, &[], &limits), Ok(None));
    }

    #[test]
    fn more_bytes_than_the_limit_are_refused_unread() {
        let limits = Limits { bytes: 3, ..Limits::default() };
        assert_eq!(decode([&Type::Bool], &[1, 0, 0, 0], &limits), Err(too_large(Bound::Bytes, 3)));
        assert_eq!(decode([&Type::String], &[3, b'a'], &limits), Err(too_large(Bound::Bytes, 3)));
        assert_eq!(decode([&Type::String], &[2, b'a', b'b'], &limits), Ok(vec![Value::String("ab".to_owned())]));
    }

    #[test]
    fn flags_have_at_least_one_byte() {
        assert_eq!(one(&Type::flags::<&str>([]), &[0]), Ok(Value::Flags(Vec::new())));
        let unnamed = DecodeError::Malformed { offset: 1, fault: Fault::Flag { names: 0 } };
        assert_eq!(one(&Type::flags::<&str>([]), &[1]), Err(unnamed));
    }
}
