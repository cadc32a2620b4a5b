//! What the tests of this module share.

use portcullis_value::{Value, Wit, WitSource};

use super::{Mapping, MappingProblem, Route};

/// The wRPC instance of every test.
pub(super) const INSTANCE: &str = "acme:billing/api@1.0.0";

const TYPES: &str = "
    enum state { open, past-due, paid }
    flags scopes { read, write, audit }
    record line { sku: string, unit-price: u64 }
    record invoice { id: u64, customer-id: string, note: option<string> }
    record page { limit: option<u32>, cursor: option<string> }
    variant failure { not-found, rejected(string), conflict(invoice), busy }
    variant progress { done(invoice), pending, delayed(string) }
";

/// A WIT package whose interface `api` has the shared types and these functions.
pub(super) fn wit(functions: &str) -> Wit {
    let text = format!("package acme:billing@1.0.0;\ninterface api {{ {TYPES} {functions} }}\n");
    Wit::parse(&[WitSource { path: "billing.wit".to_owned(), text }]).unwrap()
}

pub(super) fn mapping(functions: &str, toml: &str) -> Result<Mapping, Vec<MappingProblem>> {
    Mapping::parse("mapping.toml", toml, &wit(functions), &[INSTANCE.to_owned()])
}

/// The route of the function `f`, whose type is given, under the keys of one `[[route]]`.
pub(super) fn route(signature: &str, keys: &str) -> Route {
    let functions = format!("f: func{signature};");
    let toml = format!("[[route]]\nfunction = \"{INSTANCE}#f\"\n{keys}");
    let mapping = mapping(&functions, &toml).unwrap_or_else(|problems| panic!("{}", told(&problems)));
    mapping.route(INSTANCE, "f").unwrap().clone()
}

/// The problems of the same, without the file's name; the keys begin in line 3.
pub(super) fn problems(signature: &str, keys: &str) -> String {
    let functions = format!("f: func{signature};");
    let toml = format!("[[route]]\nfunction = \"{INSTANCE}#f\"\n{keys}");
    told(&mapping(&functions, &toml).expect_err("the mapping should be refused"))
}

pub(super) fn told(problems: &[MappingProblem]) -> String {
    let lines = problems.iter().map(|problem| problem.to_string().replace("mapping.toml:", ""));
    lines.collect::<Vec<_>>().join("\n")
}

pub(super) fn string(text: &str) -> Value {
    Value::String(text.to_owned())
}
