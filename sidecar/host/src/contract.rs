//! Whether a callee's WIT is what the component was built against. Pure.

use portcullis_value::{FunctionKind, Wit};

use crate::{Binding, Import, OnFailure};

/// A callee whose interface differs from what the component imports.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{target}` does not fit the import `{import}`: {}", .differences.join("; "))]
pub struct Misfit {
    /// The virtual component.
    pub target: String,
    /// What the component imports.
    pub import: String,
    /// All that differs.
    pub differences: Vec<String>,
}

/// Checks every function that the component uses against the callee's WIT, by structure.
pub(crate) fn check(import: &Import, binding: &Binding, wit: &Wit) -> Result<(), Misfit> {
    let differences: Vec<String> = import
        .functions
        .iter()
        .filter_map(|function| {
            let difference = match wit.function(&binding.instance, &function.name).map(|function| &function.kind) {
                None => Some("the callee does not have it".to_owned()),
                Some(FunctionKind::Typed(offered)) => function.ty.difference(offered),
                // With `wrpc:rpc/error` in its result, the function is written alike on both sides and nothing of the resource travels.
                Some(FunctionKind::Opaque(_)) if function.on_failure == OnFailure::RpcError => None,
                Some(FunctionKind::Opaque(why)) => Some(format!("the callee's is not one of values: {why}")),
            };
            difference.map(|difference| format!("`{}`: {difference}", function.name))
        })
        .collect();
    if differences.is_empty() {
        return Ok(());
    }
    Err(Misfit { target: binding.target.to_string(), import: import.name.to_string(), differences })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ImportedFunction;
    use portcullis_value::{FunctionType, Type, WitSource};

    fn import(function: &str, result: Type, on_failure: OnFailure) -> Import {
        let ty = FunctionType { params: vec![("id".to_owned(), Type::String)], result: Some(result) };
        let function = ImportedFunction { name: function.to_owned(), ty, on_failure };
        Import { name: "a:b/c@1.0.0".parse().unwrap(), functions: vec![function] }
    }

    fn checked(import: &Import) -> Result<(), String> {
        let text = "package a:b@1.2.0;
            interface c {
                resource r {}
                get: func(id: string) -> u32;
                grasp: func(id: string) -> result<u32, r>;
            }"
        .to_owned();
        let wit = Wit::parse(&[WitSource { path: "b.wit".to_owned(), text }]).unwrap();
        let binding = Binding { target: "l/x".parse().unwrap(), instance: "a:b/c@1.2.0".to_owned() };
        check(import, &binding, &wit).map_err(|misfit| misfit.to_string())
    }

    #[test]
    fn a_callee_fits_by_structure_in_its_own_version() {
        assert_eq!(checked(&import("get", Type::U32, OnFailure::Trap)), Ok(()));
        assert_eq!(checked(&import("grasp", Type::U32, OnFailure::RpcError)), Ok(()));
    }

    #[test]
    fn a_callee_that_differs_is_refused_with_the_difference() {
        for (function, result, said) in [
            ("get", Type::U64, "`get`: result: expected `u64`, found `u32`"),
            ("put", Type::U32, "`put`: the callee does not have it"),
            ("grasp", Type::U32, "`grasp`: the callee's is not one of values"),
        ] {
            let error = checked(&import(function, result, OnFailure::Trap)).unwrap_err();
            assert!(error.starts_with("`l/x` does not fit the import `a:b/c@1.0.0`: "), "{error}");
            assert!(error.contains(said), "{error}");
        }
    }
}
