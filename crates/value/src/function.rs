//! The type of a function.

use std::fmt;

use crate::types::{Type, named_difference, optional_difference, separated};

/// The type of a function whose parameters and result are values.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct FunctionType {
    /// Names and types in the order of the WIT, which is the order on the wire.
    pub params: Vec<(String, Type)>,
    /// The result, where there is one.
    pub result: Option<Type>,
}

impl FunctionType {
    /// The first place where `other` differs from this type, in words; `None` when they are equal. `self` is what is expected.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Option<String> {
        named_difference("parameter", &self.params, &other.params, Type::difference).or_else(|| {
            optional_difference(self.result.as_ref(), other.result.as_ref())
                .map(|difference| format!("result: {difference}"))
        })
    }
}

impl fmt::Display for FunctionType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("func(")?;
        separated(f, &self.params, |f, (name, ty)| write!(f, "{name}: {ty}"))?;
        f.write_str(")")?;
        match &self.result {
            Some(result) => write!(f, " -> {result}"),
            None => Ok(()),
        }
    }
}
