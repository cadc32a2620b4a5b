//! One value inside the parameters of a call, and where a route puts it.

use std::fmt;

use portcullis_value::{Type, Value};

use super::refusal::{ParameterFault, RefusedParameter};

/// A parameter, or a field of a record parameter; options on the way to it are followed.
#[derive(Clone, Debug)]
pub(crate) struct Slot {
    /// The WIT names that lead to it: `page.limit`.
    pub(crate) label: String,
    pub(crate) param: usize,
    pub(crate) fields: Vec<usize>,
    /// The type of the parameter or field as declared, with the service's names.
    pub(crate) ty: Type,
    /// Whether an `option` on the way, its own included, can make it absent.
    pub(crate) presence: Presence,
}

/// Whether a slot always holds a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Presence {
    Always,
    Optional,
}

/// Where a parameter goes, for messages.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Place<'r> {
    Path,
    Query(&'r str),
    Header(&'r str),
    Body,
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path => f.write_str("a path segment"),
            Self::Query(key) => write!(f, "query value `{key}`"),
            Self::Header(name) => write!(f, "header `{name}`"),
            Self::Body => f.write_str("the body"),
        }
    }
}

impl Slot {
    /// The type of the value that [`Slot::present`] finds.
    pub(crate) fn inner(&self) -> &Type {
        match &self.ty {
            Type::Option(payload) => payload,
            Type::Bool
            | Type::U8
            | Type::U16
            | Type::U32
            | Type::U64
            | Type::S8
            | Type::S16
            | Type::S32
            | Type::S64
            | Type::F32
            | Type::F64
            | Type::Char
            | Type::String
            | Type::List(_)
            | Type::Bytes
            | Type::Tuple(_)
            | Type::Record(_)
            | Type::Variant(_)
            | Type::Enum(_)
            | Type::Result(_)
            | Type::Flags(_) => &self.ty,
        }
    }

    /// The value with every option opened; `None` where one of them is `none`.
    pub(crate) fn present<'v>(
        &self,
        args: &'v [Value],
        place: Place<'_>,
    ) -> Result<Option<&'v Value>, RefusedParameter> {
        let mut value = self.whole(args, place)?;
        for field in &self.fields {
            let Some(record) = open(value) else { return Ok(None) };
            let Value::Record(fields) = record else {
                return Err(self.refuse(place, ParameterFault::WrongType));
            };
            value = fields.get(*field).ok_or_else(|| self.refuse(place, ParameterFault::WrongType))?;
        }
        if self.ty.is_option() { Ok(open(value)) } else { Ok(Some(value)) }
    }

    /// The whole parameter that the slot is, or is inside of.
    pub(crate) fn whole<'v>(&self, args: &'v [Value], place: Place<'_>) -> Result<&'v Value, RefusedParameter> {
        args.get(self.param).ok_or_else(|| self.refuse(place, ParameterFault::WrongType))
    }

    pub(crate) fn refuse(&self, place: Place<'_>, fault: ParameterFault) -> RefusedParameter {
        RefusedParameter { parameter: self.label.clone(), place: place.to_string(), fault }
    }
}

/// What an option holds, or the value itself where it is none.
fn open(value: &Value) -> Option<&Value> {
    if let Value::Option(payload) = value { payload.as_deref() } else { Some(value) }
}
