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
        Self {
            rest: bytes,
            total: bytes.len(),
            budget: Budget::new(limits),
        }
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
            None => Err(self.malformed(Fault::Case {
                of,
                found,
                cases: cases.len(),
            })),
        }
    }

    fn flags(&mut self, names: usize) -> Result<Vec<bool>, DecodeError> {
        let bytes = self.take(flags_width(names))?;
        let mut bits = bytes
            .iter()
            .flat_map(|byte| (0..u8::BITS).map(move |bit| byte >> bit & 1 == 1));
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
            return Err(DecodeError::Incomplete {
                more: N.saturating_sub(self.rest.len()),
            });
        };
        self.rest = rest;
        Ok(*bytes)
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], DecodeError> {
        let Some((bytes, rest)) = self.rest.split_at_checked(length) else {
            return Err(DecodeError::Incomplete {
                more: length.saturating_sub(self.rest.len()),
            });
        };
        self.rest = rest;
        Ok(bytes)
    }

    fn offset(&self) -> usize {
        self.total.saturating_sub(self.rest.len())
    }

    fn malformed(&self, fault: Fault) -> DecodeError {
        DecodeError::Malformed {
            offset: self.offset(),
            fault,
        }
    }
}
