//! Samples of the same endpoint become one function.

use super::sample::Sample;
use super::shape::{Shape, singular};
use super::{ScaffoldError, kebab};

/// A parameter and what was seen of it.
#[derive(Clone, Debug)]
pub(super) struct Param {
    pub(super) name: String,
    pub(super) shape: Shape,
}

/// A function and its route.
#[derive(Clone, Debug)]
pub(super) struct Endpoint {
    pub(super) function: String,
    /// The sample it came from, for people.
    pub(super) described: String,
    pub(super) method: String,
    /// A path template.
    pub(super) path: String,
    pub(super) params: Vec<Param>,
    /// Query keys and the parameters that fill them.
    pub(super) query: Vec<(String, String)>,
    pub(super) has_body: bool,
    /// What a record of the answer is called.
    pub(super) noun: String,
    pub(super) answer: Option<Shape>,
    /// Statuses of success.
    pub(super) statuses: Vec<u16>,
}

impl Endpoint {
    /// Names of its values that JSON spells otherwise than WIT.
    pub(super) fn renamed(&self) -> Vec<(String, String)> {
        let mut pairs = Vec::new();
        let bodies = self.params.iter().filter(|param| self.has_body && param.name == "body").map(|param| &param.shape);
        bodies.chain(&self.answer).for_each(|shape| shape.renamed(&mut pairs));
        pairs
    }
}

/// One endpoint for each method and path pattern, in the order of the samples.
pub(super) fn endpoints(samples: &[Sample]) -> Result<Vec<Endpoint>, ScaffoldError> {
    if samples.is_empty() {
        return Err(ScaffoldError::NoSamples);
    }
    let mut groups: Vec<(String, Vec<&Sample>)> = Vec::new();
    for sample in samples {
        let pattern = format!("{} {}", sample.method, pattern(sample).join("/"));
        match groups.iter_mut().find(|(known, _)| *known == pattern) {
            Some((_, group)) => group.push(sample),
            None => groups.push((pattern, vec![sample])),
        }
    }
    let mut endpoints: Vec<Endpoint> = Vec::new();
    for (_, group) in groups {
        let mut endpoint = endpoint(&group)?;
        let taken = |name: &str| endpoints.iter().any(|other| other.function == name);
        let name = endpoint.function.clone();
        let free = (1..).map(|number| if number == 1 { name.clone() } else { format!("{name}-n{number}") });
        if let Some(free) = free.into_iter().find(|candidate| !taken(candidate)) {
            endpoint.function = free;
        }
        endpoints.push(endpoint);
    }
    Ok(endpoints)
}

/// The path with `{}` where a segment looks like an identifier.
fn pattern(sample: &Sample) -> Vec<&str> {
    let fixed = |segment: &str| {
        // `v1` is a version, `INV-1001` and `42` are identifiers.
        let version = segment.strip_prefix('v').is_some_and(|rest| rest.chars().all(|digit| digit.is_ascii_digit()));
        version || !segment.contains(|letter: char| letter.is_ascii_digit())
    };
    sample.segments.iter().map(|segment| if fixed(segment) { segment.as_str() } else { "{}" }).collect()
}

fn endpoint(group: &[&Sample]) -> Result<Endpoint, ScaffoldError> {
    let Some(first) = group.first() else {
        return Err(ScaffoldError::NoSamples);
    };
    let pattern = pattern(first);
    let (path, mut params) = path(&pattern);
    let mut query = Vec::new();
    for (key, shape) in queries(group)? {
        let name = unique(kebab(&key), &params);
        query.push((key, name.clone()));
        params.push(Param { name, shape });
    }
    let body = merged(group, |sample| sample.body.as_ref())?;
    let has_body = body.is_some();
    if let Some(shape) = body {
        params.push(Param { name: "body".to_owned(), shape });
    }
    let succeeded: Vec<_> = group.iter().copied().filter(|sample| sample.succeeded()).collect();
    let mut statuses: Vec<_> = succeeded.iter().map(|sample| sample.status).collect();
    statuses.sort_unstable();
    statuses.dedup();
    let noun = noun(&pattern);
    Ok(Endpoint {
        function: function(&first.method, &pattern, &noun),
        described: format!("{} {path}", first.method),
        method: first.method.clone(),
        path,
        params,
        query,
        has_body,
        answer: merged(&succeeded, |sample| sample.answer.as_ref())?,
        noun: singular(&noun),
        statuses,
    })
}

/// The template, and a parameter for each identifier: `id`, or `customer-id` where it is not the last.
fn path(pattern: &[&str]) -> (String, Vec<Param>) {
    let last = pattern.iter().rposition(|segment| *segment == "{}");
    let mut params: Vec<Param> = Vec::new();
    let mut template = String::new();
    for (index, segment) in pattern.iter().enumerate() {
        template.push('/');
        if *segment != "{}" {
            template.push_str(segment);
            continue;
        }
        let before = index.checked_sub(1).and_then(|index| pattern.get(index)).filter(|before| **before != "{}");
        let name = match before {
            Some(before) if Some(index) != last => format!("{}-id", singular(&kebab(before))),
            Some(_) | None => "id".to_owned(),
        };
        let name = unique(name, &params);
        template.push_str(&format!("{{{name}}}"));
        params.push(Param { name, shape: Shape::Text });
    }
    if template.is_empty() {
        template.push('/');
    }
    (template, params)
}

fn unique(name: String, params: &[Param]) -> String {
    let taken = |name: &str| name == "body" || params.iter().any(|param| param.name == name);
    let candidates = (1..).map(|number| if number == 1 { name.clone() } else { format!("{name}-n{number}") });
    candidates.into_iter().find(|candidate| !taken(candidate)).unwrap_or(name)
}

/// Query keys, optional where a sample lacks them; numbers and booleans where every value is one.
fn queries(group: &[&Sample]) -> Result<Vec<(String, Shape)>, ScaffoldError> {
    let mut found: Vec<(String, Shape, usize)> = Vec::new();
    for sample in group {
        for (key, value) in &sample.query {
            let shape = match (value.parse::<i64>(), value.as_str()) {
                (Ok(_), _) => Shape::Integer,
                (Err(_), "true" | "false") => Shape::Bool,
                (Err(_), _) => Shape::Text,
            };
            match found.iter_mut().find(|(known, ..)| known == key) {
                Some((_, known, count)) => {
                    *count += 1;
                    if *known != shape {
                        *known = Shape::Text;
                    }
                }
                None => found.push((key.clone(), shape, 1)),
            }
        }
    }
    let optional =
        |(key, shape, count): (String, Shape, usize)| (key, if count < group.len() { shape.optional() } else { shape });
    Ok(found.into_iter().map(optional).collect())
}

fn merged<'s>(
    group: &[&'s Sample],
    part: impl Fn(&'s Sample) -> Option<&'s serde_json::Value>,
) -> Result<Option<Shape>, ScaffoldError> {
    let mut merged: Option<Shape> = None;
    for sample in group {
        let Some(json) = part(sample) else { continue };
        let unfit = |message: String| ScaffoldError::Samples { line: sample.line, message };
        let shape = Shape::of(json).map_err(unfit)?;
        merged = Some(match merged {
            Some(before) => before.merged(shape).map_err(unfit)?,
            None => shape,
        });
    }
    Ok(merged)
}

/// The last fixed segment that is no version.
fn noun(pattern: &[&str]) -> String {
    let fixed = pattern.iter().rev().find(|segment| **segment != "{}").copied().unwrap_or("item");
    kebab(fixed)
}

fn function(method: &str, pattern: &[&str], noun: &str) -> String {
    let one = pattern.last().is_some_and(|last| *last == "{}");
    let action = pattern.len() >= 2 && !one && pattern.contains(&"{}");
    let verb = match (method, one) {
        ("GET", true) => "get",
        ("GET", false) => "list",
        // `POST /invoices/42/void` is an action, `POST /invoices` makes one.
        ("POST", _) if action => return noun.to_owned(),
        ("POST", _) => "create",
        ("PUT", _) => "put",
        ("PATCH", _) => "update",
        _ => "delete",
    };
    let noun = if verb == "list" { noun.to_owned() } else { singular(noun) };
    format!("{verb}-{noun}")
}

#[cfg(test)]
mod tests {
    use super::super::{Contract, scaffold};
    use super::*;

    const SAMPLES: &str = r#"
# read
GET /api/v1/invoices/INV-1?full=true -> 200 {"id":"INV-1","customerId":7,"lines":[{"price":3}],"note":null}
GET /api/v1/invoices/INV-2 -> 200 {"id":"INV-2","customerId":8,"lines":[],"due":"2020-01-01"}
GET /api/v1/invoices/INV-9 -> 404 {"error":"none"}
GET /api/v1/invoices?limit=5 -> 200 {"invoices":[],"type":"page"}
POST /api/v1/invoices {"customerId":7} -> 201 {"id":"INV-3"}
POST /api/v1/invoices/INV-1/void -> 204
"#;

    fn contract(samples: &str) -> Contract {
        Contract {
            package: "acme:billing@1.0.0".to_owned(),
            interface: "invoices".to_owned(),
            samples: Sample::parse_all(samples).unwrap(),
        }
    }

    #[test]
    fn samples_become_a_contract_that_the_sidecar_reads() {
        let made = scaffold(&contract(SAMPLES)).unwrap();
        assert_eq!(made.functions, ["get-invoice", "list-invoices", "create-invoice", "void"]);
        for part in [
            "get-invoice: func(id: string, full: option<bool>) -> result<invoice, string>;",
            "list-invoices: func(limit: s64) -> result<",
            "void: func(id: string) -> result<_, string>;",
            "customer-id: s64,",
            "note: option<string>,",
            "due: option<string>,",
            "%type: string,",
        ] {
            assert!(made.wit.contains(part), "`{part}` is not in\n{}", made.wit);
        }
        for part in [
            "path = \"/api/v1/invoices/{id}/void\"",
            "ok = [201]",
            "body = \"body\"",
            "\"customer-id\" = \"customerId\"",
        ] {
            assert!(made.mapping.contains(part), "`{part}` is not in\n{}", made.mapping);
        }
    }

    #[test]
    fn samples_that_contradict_each_other_are_refused_with_their_line() {
        let samples = "GET /a/1 -> 200 {\"x\":1}\nGET /a/2 -> 200 {\"x\":\"y\"}\n";
        let error = scaffold(&contract(samples)).unwrap_err().to_string();
        assert_eq!(error, "line 2: `x`: a number and a string stand at the same place");
        assert!(matches!(scaffold(&contract("")), Err(ScaffoldError::NoSamples)));
        assert!(Sample::parse_all("GET /a 200").is_err());
        assert!(Sample::parse_all("\nSTEAL /a -> 200").unwrap_err().to_string().starts_with("line 2"));
    }

    #[test]
    fn names_that_are_not_wit_are_refused() {
        for package in ["acme", "Acme:x@1.0.0", "acme:billing"] {
            let contract = Contract { package: package.to_owned(), ..contract("GET /a -> 200 1\n") };
            assert!(matches!(scaffold(&contract), Err(ScaffoldError::Name(_))), "{package}");
        }
    }
}
