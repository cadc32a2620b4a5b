//! Samples of the same endpoint become one function.

use super::sample::{Place, Sample};
use super::shape::{Shape, numbered, singular};
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
    /// The first of its samples.
    pub(super) place: Place,
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
    /// Names of its JSON: those of WIT and those of the service.
    pub(super) fn names(&self) -> Vec<(String, String)> {
        let mut pairs = Vec::new();
        let bodies = self.params.iter().filter(|param| self.has_body && param.name == BODY);
        bodies.map(|param| &param.shape).chain(&self.answer).for_each(|shape| shape.names(&mut pairs));
        pairs
    }
}

/// What the parameter is called that is the body.
pub(super) const BODY: &str = "body";

/// A segment of a path.
#[derive(Clone, Copy, Debug)]
enum Segment<'s> {
    Fixed(&'s str),
    /// A parameter, with its name where the sample gives one.
    Parameter(Option<&'s str>),
}

/// One endpoint for each method and path pattern, in the order of the samples.
pub(super) fn endpoints(samples: &[Sample]) -> Result<Vec<Endpoint>, ScaffoldError> {
    let mut groups: Vec<(String, Vec<&Sample>)> = Vec::new();
    for sample in samples {
        let segments = pattern(sample).into_iter().map(|segment| match segment {
            Segment::Fixed(text) => text,
            Segment::Parameter(_) => "{}",
        });
        let key = format!("{} {}", sample.method, segments.collect::<Vec<_>>().join("/"));
        match groups.iter_mut().find(|(known, _)| *known == key) {
            Some((_, group)) => group.push(sample),
            None => groups.push((key, vec![sample])),
        }
    }
    let mut endpoints: Vec<Endpoint> = Vec::new();
    for (_, group) in groups {
        let mut endpoint = endpoint(&group)?;
        let taken = |name: &String| endpoints.iter().any(|other| other.function == *name);
        if let Some(free) = numbered(&endpoint.function).find(|name| !taken(name)) {
            endpoint.function = free;
        }
        endpoints.push(endpoint);
    }
    if endpoints.is_empty() { Err(ScaffoldError::NoSamples) } else { Ok(endpoints) }
}

fn pattern(sample: &Sample) -> Vec<Segment<'_>> {
    sample.segments.iter().map(|text| segment(text)).collect()
}

fn segment(text: &str) -> Segment<'_> {
    match text.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) {
        Some(name) => Segment::Parameter(Some(name).filter(|name| !name.is_empty())),
        None if is_identifier(text) => Segment::Parameter(None),
        None => Segment::Fixed(text),
    }
}

/// `42`, `INV-1001` and a UUID are identifiers; `v1`, `oauth2` and `invoices` are not.
fn is_identifier(segment: &str) -> bool {
    let word = segment.trim_end_matches(|digit: char| digit.is_ascii_digit());
    let digits = segment.len() - word.len();
    let numbered_word = word.len() >= 2 && digits <= 2 && word.bytes().all(|letter| letter.is_ascii_lowercase());
    let version = word == "v" && digits > 0;
    segment.contains(|letter: char| letter.is_ascii_digit()) && !numbered_word && !version
}

fn endpoint(group: &[&Sample]) -> Result<Endpoint, ScaffoldError> {
    let Some(first) = group.first() else {
        return Err(ScaffoldError::NoSamples);
    };
    let pattern = merged_pattern(group);
    let (path, mut params) = path(&pattern);
    let mut query = Vec::new();
    for (key, shape) in queries(group) {
        let name = unique(&kebab(&key), &params);
        query.push((key, name.clone()));
        params.push(Param { name, shape });
    }
    let body = merged(group, |sample| sample.body.as_ref())?;
    let has_body = body.is_some();
    params.extend(body.map(|shape| Param { name: BODY.to_owned(), shape }));
    let succeeded: Vec<_> = group.iter().copied().filter(|sample| sample.succeeded()).collect();
    let mut statuses: Vec<_> = succeeded.iter().map(|sample| sample.status).collect();
    statuses.sort_unstable();
    statuses.dedup();
    let noun = noun(&pattern);
    Ok(Endpoint {
        place: first.place,
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

/// The pattern of the first sample, with the names that any of them gives.
fn merged_pattern<'s>(group: &[&'s Sample]) -> Vec<Segment<'s>> {
    let mut patterns = group.iter().map(|sample| pattern(sample));
    let first = patterns.next().unwrap_or_default();
    patterns.fold(first, |merged, other| {
        let named = |(one, other)| match (one, other) {
            (Segment::Parameter(None), Segment::Parameter(name)) => Segment::Parameter(name),
            (one, Segment::Fixed(_) | Segment::Parameter(_)) => one,
        };
        merged.into_iter().zip(other).map(named).collect()
    })
}

/// The template, and a parameter for each identifier: its own name, `id`, or `customer-id` where it is not the last.
fn path(pattern: &[Segment<'_>]) -> (String, Vec<Param>) {
    let last = pattern.iter().rposition(|segment| matches!(segment, Segment::Parameter(_)));
    let mut params: Vec<Param> = Vec::new();
    let mut template = String::new();
    let mut before = None;
    for (index, segment) in pattern.iter().enumerate() {
        template.push('/');
        match segment {
            Segment::Fixed(text) => {
                template.push_str(text);
                before = Some(*text);
            }
            Segment::Parameter(given) => {
                let guess = match before.take() {
                    Some(before) if Some(index) != last => format!("{}-id", singular(&kebab(before))),
                    Some(_) | None => "id".to_owned(),
                };
                let name = unique(&given.map_or(guess, kebab), &params);
                template.push_str(&format!("{{{name}}}"));
                params.push(Param { name, shape: Shape::Text });
            }
        }
    }
    if template.is_empty() {
        template.push('/');
    }
    (template, params)
}

fn unique(name: &str, params: &[Param]) -> String {
    let taken = |name: &String| name == BODY || params.iter().any(|param| param.name == *name);
    numbered(name).find(|candidate| !taken(candidate)).unwrap_or_default()
}

/// Query keys: optional where a sample lacks them, a list where one has it twice, numbers and booleans where every value is one.
fn queries(group: &[&Sample]) -> Vec<(String, Shape)> {
    let mut keys: Vec<&String> = Vec::new();
    for (key, _) in group.iter().flat_map(|sample| &sample.query) {
        if !keys.contains(&key) {
            keys.push(key);
        }
    }
    let shaped = keys.into_iter().map(|key| {
        let values =
            group.iter().map(|sample| sample.query.iter().filter(|(known, _)| known == key).map(|(_, value)| value));
        let counts: Vec<usize> = values.clone().map(Iterator::count).collect();
        let mut shapes = values.flatten().map(|value| scalar(value));
        let first = shapes.next().unwrap_or(Shape::Text);
        let shape = shapes.fold(first, |known, shape| if known == shape { known } else { Shape::Text });
        if counts.iter().any(|count| *count > 1) {
            (key.clone(), Shape::List(Box::new(shape)))
        } else if counts.contains(&0) {
            (key.clone(), shape.optional())
        } else {
            (key.clone(), shape)
        }
    });
    shaped.collect()
}

fn scalar(value: &str) -> Shape {
    match (value.parse::<i64>(), value) {
        (Ok(number), _) if number.to_string() == value => Shape::Integer,
        (Err(_), "true" | "false") => Shape::Bool,
        (Ok(_) | Err(_), _) => Shape::Text,
    }
}

/// What the samples have in common in one part; nothing where it has no form.
fn merged<'s>(
    group: &[&'s Sample],
    part: impl Fn(&'s Sample) -> Option<&'s serde_json::Value>,
) -> Result<Option<Shape>, ScaffoldError> {
    let mut merged: Option<Shape> = None;
    for sample in group {
        let Some(json) = part(sample) else { continue };
        let unfit = |message: String| ScaffoldError::Samples { place: sample.place, message };
        let shape = Shape::of(json).map_err(unfit)?;
        merged = Some(match merged {
            Some(before) => before.merged(shape).map_err(unfit)?,
            None => shape,
        });
    }
    Ok(merged.filter(|shape| !shape.is_formless()))
}

/// The last fixed segment.
fn noun(pattern: &[Segment<'_>]) -> String {
    let fixed = pattern.iter().rev().find_map(|segment| match segment {
        Segment::Fixed(text) => Some(*text),
        Segment::Parameter(_) => None,
    });
    kebab(fixed.unwrap_or("item"))
}

fn function(method: &str, pattern: &[Segment<'_>], noun: &str) -> String {
    let is_parameter = |segment: &Segment<'_>| matches!(segment, Segment::Parameter(_));
    let one = pattern.last().is_some_and(is_parameter);
    let action = pattern.len() >= 2 && !one && pattern.iter().any(is_parameter);
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
        for part in
            ["path = \"/api/v1/invoices/{id}/void\"", "ok = [201]", "body = \"body\"", "field_names = \"camelCase\""]
        {
            assert!(made.mapping.contains(part), "`{part}` is not in\n{}", made.mapping);
        }
    }

    #[test]
    fn names_follow_the_spelling_that_explains_most_of_them() {
        let samples = r#"GET /a/1 -> 200 {"userId":1,"lastSeen":2,"ID":3,"plain":4}
GET /b/1 -> 200 {"user_id":1,"createdAt":5}
"#;
        let made = scaffold(&contract(samples)).unwrap();
        assert!(made.mapping.contains("\nfield_names = \"camelCase\"\nrename = { \"id\" = \"ID\""), "{}", made.mapping);
        let (file, routes) = made.mapping.split_once("[[route]]").unwrap();
        assert!(file.contains("\"user-id\" = \"user_id\""), "{file}");
        assert!(routes.contains("rename = { \"user-id\" = \"userId\" }"), "{routes}");
        let error = scaffold(&contract("GET /a/1 -> 200 {\"a_b\":1,\"aB\":2}")).unwrap_err().to_string();
        assert!(error.starts_with("line 1: ") && error.ends_with("would both be called `a-b`"), "{error}");
    }

    #[test]
    fn a_path_can_name_its_parameters() {
        let made =
            scaffold(&contract("GET /v2/oauth2/{Account-No}/items/{} -> 204\nGET /v2/oauth2/7/items/9 -> 204\n"))
                .unwrap();
        assert_eq!(made.functions, ["get-item"]);
        assert!(made.mapping.contains("path = \"/v2/oauth2/{account-no}/items/{id}\""), "{}", made.mapping);
        assert!(
            made.wit.contains("get-item: func(account-no: string, id: string) -> result<_, string>;"),
            "{}",
            made.wit
        );
    }

    #[test]
    fn a_query_is_decoded_and_may_repeat_a_key() {
        let made =
            scaffold(&contract("GET /a?tag=1&tag=2&my%20key=x+y&zip=007&on=true -> 204\nGET /a?on=false -> 204\n"))
                .unwrap();
        let signature = "func(tag: list<s64>, my-key: option<string>, zip: option<string>, on: bool)";
        assert!(made.wit.contains(signature), "{}", made.wit);
        assert!(made.mapping.contains("\"my key\" = \"{my-key}\""), "{}", made.mapping);
    }

    #[test]
    fn a_record_and_a_function_never_share_a_name() {
        let made = scaffold(&contract("POST /orders/1/payment {\"sum\":1} -> 200 {\"paid\":true}\n")).unwrap();
        assert_eq!(made.functions, ["payment"]);
        assert!(
            made.wit.contains("payment: func(id: string, body: payment-body) -> result<payment-n2, string>;"),
            "{}",
            made.wit
        );
    }

    #[test]
    fn what_has_no_form_is_left_out() {
        let made =
            scaffold(&contract("GET /a/1 -> 200 {\"x\":{},\"y\":[[{}]],\"z\":null}\nPOST /b {} -> 200 {}\n")).unwrap();
        assert!(!made.wit.contains("x:") && !made.wit.contains("y:"), "{}", made.wit);
        assert!(made.wit.contains("z: option<string>,"), "{}", made.wit);
        assert!(made.wit.contains("create-b: func() -> result<_, string>;"), "{}", made.wit);
    }

    #[test]
    fn an_arrow_inside_a_body_is_not_the_answer() {
        let samples = Sample::parse_all("POST /a {\"x\":\"1 -> b\"} -> 201 {\"y\":\" -> 200\"}").unwrap();
        assert_eq!((samples[0].status, samples[0].body.is_some()), (201, true));
    }

    #[test]
    fn a_har_file_is_read_for_its_calls() {
        let har = r#"{"log":{"entries":[
            {"request":{"method":"GET","url":"https://api.example/v1/items/42?full=true#top"},
             "response":{"status":200,"content":{"text":"{\"id\":42}"}}},
            {"request":{"method":"OPTIONS","url":"https://api.example/v1/items"},"response":{"status":204,"content":{}}},
            {"request":{"method":"GET","url":"https://api.example/logo.png"},"response":{"status":200,"content":{"text":"PNG"}}},
            {"request":{"method":"POST","url":"https://api.example/v1/items","postData":{"text":"{\"name\":\"a\"}"}},
             "response":{"status":201,"content":{"text":"{\"id\":43}"}}}]}}"#;
        let made = scaffold(&contract(har)).unwrap();
        assert_eq!(made.functions, ["get-item", "create-item"]);
        assert!(made.wit.contains("get-item: func(id: string, full: bool) -> result<item, string>;"), "{}", made.wit);
        for (text, expected) in
            [("{", "entry 1: the file is not JSON"), ("{}", "entry 1: the file is JSON but not HAR")]
        {
            assert!(Sample::parse_all(text).unwrap_err().to_string().starts_with(expected), "{text}");
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
