//! `new http`: a WIT contract and a mapping file from sample requests of a legacy HTTP service.
//!
//! What comes out is a beginning, checked by the same parsers that the sidecar uses, and meant to be read and renamed by a person. It is
//! pure: files are written by the command.

mod infer;
mod names;
mod sample;
mod shape;

use std::fmt::Write as _;

use portcullis_value::{Wit, WitSource};

use crate::http::Mapping;
use infer::{BODY, Endpoint};
use names::{Names, Renamed};
pub use sample::{InvalidSample, Place, Sample};
use shape::Records;

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Contract {
    /// `namespace:name@version`.
    pub package: String,
    /// The interface's name, kebab-case.
    pub interface: String,
    /// What the service was seen to do.
    pub samples: Vec<Sample>,
}

/// The files of a new component.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scaffold {
    /// `wit/INTERFACE.wit`.
    pub wit: String,
    /// `mapping.toml`.
    pub mapping: String,
    /// The wRPC instance.
    pub instance: String,
    /// The functions, in the order of the samples.
    pub functions: Vec<String>,
}

/// Why no contract comes out.
#[derive(Debug, thiserror::Error)]
pub enum ScaffoldError {
    /// There is nothing to infer from.
    #[error("there are no samples (hint: GET /v1/items/42 -> 200 {{\"id\":\"42\"}})")]
    NoSamples,
    /// The package or interface name is not one of WIT.
    #[error("`{0}` is not a WIT name (hint: acme:billing@1.0.0, invoices)")]
    Name(String),
    /// Samples of one endpoint contradict each other.
    #[error("{place}: {message}")]
    Samples {
        /// The sample that does not fit.
        place: Place,
        /// What does not fit.
        message: String,
    },
    /// The result does not pass the checks that it would have to pass.
    #[error("the samples do not make a contract: {0}")]
    Unfit(String),
}

/// Infers a contract.
///
/// # Errors
/// [`ScaffoldError`]
pub fn scaffold(contract: &Contract) -> Result<Scaffold, ScaffoldError> {
    let (name, version) = contract.package.split_once('@').unwrap_or((&contract.package, ""));
    let named = name.split_once(':').is_some_and(|(space, name)| is_kebab(space) && is_kebab(name));
    if !named || version.is_empty() {
        return Err(ScaffoldError::Name(contract.package.clone()));
    }
    if !is_kebab(&contract.interface) {
        return Err(ScaffoldError::Name(contract.interface.clone()));
    }
    let endpoints = infer::endpoints(&contract.samples)?;
    let instance = format!("{name}/{}@{version}", contract.interface);
    let made = Scaffold {
        wit: wit(contract, &endpoints),
        mapping: mapping(&instance, &endpoints, &Names::find(&endpoints)?),
        functions: endpoints.iter().map(|endpoint| endpoint.function.clone()).collect(),
        instance,
    };
    verified(made)
}

/// What is written must be what the sidecar reads.
fn verified(made: Scaffold) -> Result<Scaffold, ScaffoldError> {
    let source = WitSource { path: "new.wit".to_owned(), text: made.wit.clone() };
    let wit = Wit::parse(&[source]).map_err(|error| ScaffoldError::Unfit(error.to_string()))?;
    match Mapping::parse("mapping.toml", &made.mapping, &wit, std::slice::from_ref(&made.instance)) {
        Ok(_) => Ok(made),
        Err(problems) => {
            let told = problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
            Err(ScaffoldError::Unfit(told))
        }
    }
}

fn wit(contract: &Contract, endpoints: &[Endpoint]) -> String {
    let mut records = Records::new(endpoints.iter().map(|endpoint| endpoint.function.clone()).collect());
    let mut functions = String::new();
    for endpoint in endpoints {
        let params = endpoint.params.iter().map(|param| {
            let noun = if param.name == BODY { format!("{}-{BODY}", endpoint.function) } else { param.name.clone() };
            format!("{}: {}", escaped(&param.name), param.shape.wit(&noun, &mut records))
        });
        let params = params.collect::<Vec<_>>().join(", ");
        let ok = match &endpoint.answer {
            Some(shape) => shape.wit(&endpoint.noun, &mut records),
            None => "_".to_owned(),
        };
        // Writing to a string cannot fail.
        let _ = write!(
            functions,
            "\n    /// `{}`\n    {}: func({params}) -> result<{ok}, string>;\n",
            endpoint.described,
            escaped(&endpoint.function),
        );
    }
    let records = records.into_wit();
    let (package, interface) = (&contract.package, escaped(&contract.interface));
    format!(
        "package {package};\n\ninterface {interface} {{\n{records}{functions}}}\n\nworld service {{\n    export {interface};\n}}\n"
    )
}

fn mapping(instance: &str, endpoints: &[Endpoint], names: &Names) -> String {
    let mut out = String::from(
        "# Inferred from samples; sidecar/MAPPING.md explains every key.\n\nunknown_fields = \"ignore\"\n",
    );
    if names.spelling != "wit" {
        let _ = writeln!(out, "field_names = {}", quoted(names.spelling));
    }
    out.push_str(&rename(&names.renamed));
    for (endpoint, renamed) in endpoints.iter().zip(&names.by_endpoint) {
        let function = quoted(&format!("{instance}#{}", endpoint.function));
        let (method, path) = (quoted(&endpoint.method), quoted(&endpoint.path));
        let _ = write!(out, "\n[[route]]\nfunction = {function}\nmethod = {method}\npath = {path}\n");
        let query = endpoint.query.iter().map(|(key, param)| {
            let key = quoted(key);
            format!("{key} = {}", quoted(&format!("{{{param}}}")))
        });
        let query = query.collect::<Vec<_>>().join(", ");
        if !query.is_empty() {
            let _ = writeln!(out, "query = {{ {query} }}");
        }
        if endpoint.has_body {
            let _ = writeln!(out, "body = {}", quoted(BODY));
        }
        let statuses = endpoint.statuses.iter().map(u16::to_string).collect::<Vec<_>>().join(", ");
        if !statuses.is_empty() {
            let _ = writeln!(out, "ok = [{statuses}]");
        }
        out.push_str(&rename(renamed));
    }
    out
}

/// The line that gives names their JSON spelling; nothing where there are none.
fn rename(renamed: &Renamed) -> String {
    if renamed.is_empty() {
        return String::new();
    }
    let pairs = renamed.iter().map(|(wit, json)| format!("{} = {}", quoted(wit), quoted(json)));
    format!("rename = {{ {} }}\n", pairs.collect::<Vec<_>>().join(", "))
}

fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

/// Words that WIT keeps for itself are written with `%`.
fn escaped(name: &str) -> String {
    const KEYWORDS: [&str; 42] = [
        "as",
        "async",
        "bool",
        "borrow",
        "char",
        "constructor",
        "enum",
        "error-context",
        "export",
        "f32",
        "f64",
        "flags",
        "from",
        "func",
        "future",
        "import",
        "include",
        "interface",
        "list",
        "map",
        "option",
        "own",
        "package",
        "record",
        "resource",
        "result",
        "s16",
        "s32",
        "s64",
        "s8",
        "static",
        "stream",
        "string",
        "tuple",
        "type",
        "u16",
        "u32",
        "u64",
        "u8",
        "use",
        "variant",
        "with",
    ];
    let keyword = KEYWORDS.contains(&name) || name == "world";
    if keyword { format!("%{name}") } else { name.to_owned() }
}

fn is_kebab(name: &str) -> bool {
    !name.is_empty()
        && name.split('-').all(|word| {
            word.starts_with(|first: char| first.is_ascii_lowercase())
                && word.chars().all(|letter| letter.is_ascii_lowercase() || letter.is_ascii_digit())
        })
}

/// A name of JSON or of a URL as WIT writes it: `customerId`, `customer_id` and `Customer-ID` become `customer-id`.
fn kebab(name: &str) -> String {
    let mut out = String::new();
    let mut before = ' ';
    for letter in name.chars() {
        if letter.is_ascii_alphanumeric() {
            if letter.is_ascii_uppercase() && (before.is_ascii_lowercase() || before.is_ascii_digit()) {
                out.push('-');
            }
            out.push(letter.to_ascii_lowercase());
        } else if !out.is_empty() && !out.ends_with('-') {
            out.push('-');
        }
        before = letter;
    }
    let words = out.split('-').filter(|word| !word.is_empty()).map(|word| {
        if word.starts_with(|first: char| first.is_ascii_digit()) { format!("n{word}") } else { word.to_owned() }
    });
    let name = words.collect::<Vec<_>>().join("-");
    if name.is_empty() { "value".to_owned() } else { name }
}
