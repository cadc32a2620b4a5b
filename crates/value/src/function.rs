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

#[cfg(test)]
mod tests {
    use super::FunctionType;
    use crate::Type;

    fn function(params: &[(&str, Type)], result: Option<Type>) -> FunctionType {
        FunctionType { params: params.iter().map(|(name, ty)| ((*name).to_owned(), ty.clone())).collect(), result }
    }

    #[test]
    fn a_difference_names_its_place() {
        let order = |price: Type| {
            let line = Type::record([("price", price), ("state", Type::enumeration(["new", "paid"]))]);
            Type::record([("lines", Type::list(line))])
        };
        let outcome = |err: Option<Type>| Some(Type::result(Some(Type::tuple([Type::U8, Type::Bool])), err));
        let base = function(&[("id", Type::U8), ("order", order(Type::U32))], outcome(None));
        assert_eq!(base.difference(&base.clone()), None);
        let shape = |cases: &[(&str, Option<Type>)]| function(&[("s", Type::variant(cases.to_vec()))], None);
        for (expected, found, words) in [
            (
                &base,
                function(&[("id", Type::U8), ("order", order(Type::U64))], outcome(None)),
                "parameter `order`: field `lines`: list element: field `price`: expected `u32`, found `u64`",
            ),
            (&base, function(&[("id", Type::U8)], outcome(None)), "parameter `order` is missing"),
            (
                &base,
                function(&[("nr", Type::U8), ("order", order(Type::U32))], outcome(None)),
                "expected parameter `id` at position 0, found `nr`",
            ),
            (
                &base,
                function(&[("id", Type::U8), ("order", order(Type::U32)), ("x", Type::U8)], outcome(None)),
                "unexpected parameter `x`",
            ),
            (
                &base,
                function(&[("id", Type::U8), ("order", order(Type::U32))], None),
                "result: expected `result<tuple<u8, bool>>`, found nothing",
            ),
            (
                &base,
                function(&[("id", Type::U8), ("order", order(Type::U32))], outcome(Some(Type::String))),
                "result: `err`: expected nothing, found `string`",
            ),
            (
                &shape(&[("a", None), ("b", Some(Type::U8))]),
                shape(&[("a", None), ("b", Some(Type::U16))]),
                "parameter `s`: case `b`: expected `u8`, found `u16`",
            ),
            (&shape(&[("a", None)]), shape(&[("a", None), ("b", None)]), "parameter `s`: unexpected case `b`"),
        ] {
            assert_eq!(expected.difference(&found).as_deref(), Some(words));
        }
    }
}
