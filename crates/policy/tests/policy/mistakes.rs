//! What bad input gets: every mistake of every file, with its place and what to do.

use portcullis_policy::{
    Component, Function, InvalidSchema, InvalidSlice, ParamsReadable, PolicySet, PolicyText, Schema, Slice,
};

use crate::fixture::{FILES, INVOICES, file, invoices, policies, problems, registry, schema};

/// A text with one mistake, and where and how it is told: line, column, part of the message, part of the hint.
type Case = (String, usize, usize, &'static str, &'static str);

fn check(cases: Vec<Case>) {
    for (text, line, column, message, hint) in cases {
        let found = problems(&text);
        assert_eq!(found.len(), 1, "{text}\n{found:#?}");
        let problem = &found[0];
        assert_eq!((problem.line, problem.column), (line, column), "{text}\n{problem}");
        assert!(problem.message.contains(message), "{text}\n{problem}");
        assert!(problem.hint.as_deref().unwrap_or("").contains(hint), "{text}\n{problem}");
        assert!(!problem.to_string().contains("`0:"), "a provisional id: {problem}");
    }
}

fn scoped(scope: &str) -> String {
    format!("permit({scope});")
}

fn on(action: &str, condition: &str) -> String {
    format!("permit(principal, action {action}, resource) when {{ {condition} }};")
}

#[test]
fn a_mistyped_function_is_told_with_its_line_and_the_names_it_may_have_been() {
    let text = format!(
        "// who may read\n\npermit(\n  principal,\n  action == Action::\"{INVOICES}#get-invoise\",\n  resource\n);\n"
    );
    let found = problems(&text);
    assert_eq!(
        found.iter().map(ToString::to_string).collect::<Vec<_>>(),
        [format!(
            "a.cedar:5:21: policy `a.cedar:1`: interface `{INVOICES}` has no function `get-invoise` (hint: did you mean `get-invoice`?)"
        )]
    );
}

#[test]
fn names_that_are_not_registered_are_mistakes() {
    check(vec![
        (
            scoped(&format!("principal, action == Action::\"{INVOICES}#zzz\", resource")),
            1,
            37,
            "has no function `zzz`",
            "it has `get-invoice`, `list-invoices`, `pay`",
        ),
        (
            scoped("principal, action in Action::\"acme:billing/invoices@2.0.0\", resource"),
            1,
            37,
            "no interface `acme:billing/invoices@2.0.0`",
            "registered is `acme:billing/invoices@1.0.0`",
        ),
        (
            scoped("principal, action == Action::\"acme:billing/invoces@1.0.0#pay\", resource"),
            1,
            37,
            "no interface `acme:billing/invoces@1.0.0`",
            "did you mean `acme:billing/invoices@1.0.0`?",
        ),
        (scoped("principal, action in Action::\"ani\", resource"), 1, 37, "no interface `ani`", "did you mean `any`?"),
        (
            scoped("principal, action, resource in Lattice::\"prdo\""),
            1,
            48,
            "no virtual component is registered in a lattice `prdo`",
            "did you mean `prod`?",
        ),
        (
            scoped("principal, action, resource == VirtualComponent::\"prod/bilings\""),
            1,
            57,
            "no virtual component `prod/bilings`",
            "did you mean `prod/billing`?",
        ),
        (
            "permit(principal, action, resource)\nwhen { resource == VirtualComponent::\"stage/x\" };".to_owned(),
            2,
            38,
            "no virtual component `stage/x`",
            "",
        ),
        (
            scoped("principal == Workload::\"spiffe:/example.org/a\", action, resource"),
            1,
            31,
            "is not a SPIFFE ID",
            "spiffe://TRUST-DOMAIN/PATH",
        ),
        (scoped("principal == User::\"x\", action, resource"), 1, 21, "unrecognized entity type `User`", "`Workload`"),
    ]);
}

#[test]
fn what_does_not_fit_the_parameters_is_a_mistake() {
    let pay = format!("== Action::\"{INVOICES}#pay\"");
    let list = format!("== Action::\"{INVOICES}#list-invoices\"");
    let group = "in Action::\"acme:billing/invoices\"";
    let unguarded = "not every function in the scope has it";
    check(vec![
        (on(&pay, "context.params.amount > \"3\""), 1, 113, "expected Long but saw String", ""),
        (on(&pay, "context.params.amonut > 3"), 1, 89, "`params.amonut`", "`amount`, `urgent`"),
        (on(&pay, "context.params.blob == \"x\""), 1, 89, "`params.blob`", "what a policy can read"),
        (on(&pay, "context == {transport: \"quic\"}"), 1, 89, "not compatible", ""),
        (on(group, "context.params.amount > 3"), 1, 79, "`params.amount`", unguarded),
        (on(&list, "context.params.limit < 3"), 1, 99, "optional attribute `params.limit`", "params has limit"),
        (on(&list, "context.params[\"customer-id\"] == 3"), 1, 99, "not compatible", ""),
    ]);
}

#[test]
fn what_does_not_fit_the_types_is_a_mistake() {
    let workload = "principal is Workload";
    check(vec![
        (on("", "context.link_name == \"x\""), 1, 45, "optional attribute `link_name`", "context has link_name"),
        (on("", "context.linkname == \"x\""), 1, 45, "`linkname`", "did you mean `link_name`?"),
        (on("", "resource.grants.contains(principal)"), 1, 45, "not compatible", workload),
        (on("", "principal.path like \"/a*\""), 1, 45, "`path` on entity type `HostedComponent`", workload),
        (on("", "principal == \"spiffe://example.org/a\""), 1, 45, "not compatible", ""),
    ]);
}

#[test]
fn a_policy_that_can_never_apply_is_a_mistake() {
    check(vec![
        (on("", "false"), 1, 1, "can never apply", ""),
        (on("", "principal in Lattice::\"prod\""), 1, 1, "can never apply", ""),
        (scoped("principal in Lattice::\"prod\", action, resource"), 1, 1, "no function fits its scope", ""),
        (
            scoped("principal, action == Action::\"acme:billing/invoices\", resource"),
            1,
            1,
            "no function fits its scope",
            "write `action in Action::\"acme:billing/invoices\"`",
        ),
        (
            on(&format!("== Action::\"{INVOICES}#pay\""), "context.params has limit && context.params.limit > 3"),
            1,
            1,
            "can never apply",
            "no function in the scope has such a parameter",
        ),
    ]);
}

#[test]
fn parameters_that_pass_undecoded_cannot_be_read() {
    let read = format!("== Action::\"{FILES}#read\"");
    let asked = "context has params && context.params has path && context.params.path == \"x\"";
    check(vec![
        (
            on(&read, "context.params.path == \"x\""),
            1,
            93,
            "reads parameters of `acme:store/files@0.2.0#read`",
            "`prod/archive` passes",
        ),
        (on(&read, asked), 1, 97, "reads parameters of `acme:store/files@0.2.0#read`", "`prod/archive` passes"),
        (
            on("in Action::\"any\"", asked),
            1,
            73,
            "reads parameters of `acme:store/files@0.2.0#read`",
            "`prod/archive` passes",
        ),
        // Within the scope is only billing, which decodes; but the function has one type for all.
        (
            format!(
                "permit(principal, action {read}, resource == VirtualComponent::\"prod/billing\") when {{ context.params.path == \"x\" }};"
            ),
            1,
            121,
            "`params` in context for",
            "because `prod/archive` serves it too",
        ),
    ]);
    // What archive does not serve is read; and a parameter that none of its functions has.
    policies(&on("in Action::\"acme:billing/invoices\"", "context.params has amount && context.params.amount > 3"));
    policies(&on("in Action::\"any\"", "context has params && context.params has amount && context.params.amount > 3"));
}

#[test]
fn what_is_no_policy_is_a_mistake() {
    let deep = format!("{}true{}", "(".repeat(40), ")".repeat(40));
    check(vec![
        ("permit(principal, action, resource)".to_owned(), 1, 36, "unexpected end of input", "expected `;`"),
        (
            "permit(principal, action, resource)\npermit(principal, action, resource);".to_owned(),
            2,
            7,
            "unexpected token `(`",
            "",
        ),
        ("allow(principal, action, resource);".to_owned(), 1, 1, "invalid policy effect", "`permit` or `forbid`"),
        ("permit(principal, action);".to_owned(), 1, 25, "missing the `resource` variable", ""),
        (";".to_owned(), 1, 1, "unexpected token `;`", ""),
        ("permit(principal, action, resource) when { resource.id = \"x\" };".to_owned(), 1, 44, "'='", "'=='"),
        ("permit(principal, action, resource) when { \"\u{202e}\" == resource.id };".to_owned(), 1, 44, "BIDI", ""),
        ("/* no */ permit(principal, action, resource);".to_owned(), 1, 1, "unexpected token `/`", ""),
        (on("", &deep), 1, 1, "nests deeper than 32", ""),
        (on("", "resource.id == \"x\" || ".repeat(200).trim_end_matches(" || ")), 1, 1, "more than 128", ""),
    ]);
}

#[test]
fn a_template_is_refused_slot_by_slot() {
    let found = problems("permit(principal == ?principal, action, resource in ?resource);");
    let places: Vec<_> = found.iter().map(|problem| (problem.column, problem.message.as_str())).collect();
    assert_eq!(
        places,
        [
            (21, "the policy is a template: it has the slot `?principal`"),
            (53, "the policy is a template: it has the slot `?resource`"),
        ]
    );
    assert!(found.iter().all(|problem| problem.hint.as_deref().unwrap().contains("resource.grants")));
}

#[test]
fn annotations_are_checked() {
    let policy = "permit(principal, action, resource);";
    check(vec![
        (format!("@id(\"\") {policy}"), 1, 1, "the id is empty", "1 to 128"),
        (format!("@id(\" a\") {policy}"), 1, 1, "begins or ends with a space", "1 to 128"),
        (format!("@id(\"a\\nb\") {policy}"), 1, 1, "unprintable character `\\n`", "1 to 128"),
        (format!("@id(\"größe\") {policy}"), 1, 1, "unprintable character `\\u{f6}`", "1 to 128"),
        (format!("@id(\"{}\") {policy}", "x".repeat(129)), 1, 1, "longer than 128", "1 to 128"),
        (format!("@id(\"a\") @id(\"b\") {policy}"), 1, 10, "duplicate annotation: @id", ""),
        (format!("@advice(\"one\\ntwo\") {policy}"), 1, 1, "unprintable", "one line"),
        (format!("@advice(\"{}\") {policy}", "x".repeat(513)), 1, 1, "longer than 512", "one line"),
        (format!("@id(\"a\") @dry_run(\"no\") {policy}"), 1, 10, "takes no value", "put the policy in force"),
        (format!("@id(\"a\")\n@dryrun {policy}"), 2, 1, "`@dryrun` means nothing", "did you mean `@dry_run`?"),
    ]);
}

#[test]
fn other_annotations_are_the_operators_own_business() {
    let policy = "permit(principal, action, resource);";
    let set = policies(&format!("@id(\"{}\") @owner(\"billing team\") @advice(\"größer\") {policy}", "x".repeat(128)));
    assert_eq!(set.iter().map(str::len).collect::<Vec<_>>(), [128]);
}

#[test]
fn ids_come_from_the_annotation_or_from_the_place() {
    let text = "permit(principal, action, resource);";
    let files = [file("a.cedar", &format!("{text} @id(\"mine\") {text} // {text}\n {text}")), file("b.cedar", text)];
    let set = PolicySet::parse(&files, &schema()).unwrap();
    assert_eq!(set.iter().collect::<Vec<_>>(), ["a.cedar:1", "mine", "a.cedar:3", "b.cedar:1"]);
    assert_eq!((set.len(), set.is_empty()), (4, false));
}

#[test]
fn an_id_is_taken_once_in_all_files() {
    let text = "@id(\"x\")\npermit(principal, action, resource);";
    let files = [
        file("a.cedar", &format!("\n{text}")),
        file("b.cedar", text),
        file("c.cedar", "@id(\"x\") permit(principal,action,resource);"),
    ];
    let found = PolicySet::parse(&files, &schema()).unwrap_err();
    let told: Vec<_> = found.iter().map(|problem| (problem.file.as_str(), problem.message.as_str())).collect();
    let message = "the id is taken by the policy at a.cedar:2";
    assert_eq!(told, [("b.cedar", message), ("c.cedar", message)]);
    // An id may also take the name that another policy has from its place.
    assert_eq!(
        problems("permit(principal,action,resource); @id(\"a.cedar:1\") permit(principal,action,resource);").len(),
        1
    );
}

#[test]
fn a_file_is_there_once_and_has_a_printable_name() {
    let policy = "@id(\"x\") permit(principal, action, resource);";
    let found = PolicySet::parse(&[file("a", policy), file("a", "")], &schema()).unwrap_err();
    assert_eq!(found[0].message, "file `a` is there twice");
    let long = format!("/{}/x", "folder/".repeat(40));
    let set = PolicySet::parse(&[file(&long, "permit(principal, action, resource);")], &schema()).unwrap();
    assert_eq!(set.iter().collect::<Vec<_>>(), ["x:1"]);
    let found = PolicySet::parse(&[file("a\nb", policy)], &schema()).unwrap_err();
    assert!(found[0].message.contains("file's name has the unprintable character"), "{}", found[0]);
}

#[test]
fn every_mistake_of_every_file_is_told_at_once_and_in_order() {
    let first = format!(
        "permit(principal, action == Action::\"{INVOICES}#gett\", resource) when {{ context.transport == 3 }};\n\
         permit(principal, action, resource;\n\
         @id(\"twice\") permit(principal, action, resource) when {{ resource.nam == \"x\" || resource.size == 2 }};\n\
         permit(principal == ?principal, action, resource);\n"
    );
    let second = "@id(\"twice\") permit(principal, action, resource in Lattice::\"nowhere\");";
    let found = PolicySet::parse(&[file("a.cedar", &first), file("b.cedar", second)], &schema()).unwrap_err();
    let places: Vec<_> = found.iter().map(|p| (p.file.as_str(), p.line, p.policy.as_deref())).collect();
    assert_eq!(
        places,
        [
            ("a.cedar", 1, Some("a.cedar:1")),
            ("a.cedar", 2, None),
            ("a.cedar", 3, Some("twice")),
            ("a.cedar", 3, Some("twice")),
            ("a.cedar", 4, None),
            ("b.cedar", 1, Some("twice")),
            ("b.cedar", 1, Some("twice")),
        ],
        "{found:#?}"
    );
}

#[test]
fn what_only_looks_odd_is_a_warning() {
    let set = policies("permit(principal, action, resource) when { resource.id == \"say_һello\" };");
    let [warning] = set.warnings() else { panic!("{:?}", set.warnings()) };
    assert!(warning.message.contains("mixed scripts"), "{warning}");
    assert_eq!((warning.line, warning.policy.as_deref()), (1, Some("a.cedar:1")));
    assert!(policies("permit(principal, action, resource);").warnings().is_empty());
}

#[test]
fn with_nothing_registered_general_policies_are_accepted() {
    let schema = Schema::new(&[]).unwrap();
    let set =
        PolicySet::parse(&[file("a", "permit(principal, action in Action::\"any\", resource);")], &schema).unwrap();
    assert_eq!(set.len(), 1);
    assert!(PolicySet::parse(&[], &schema).unwrap().is_empty());
}

#[test]
fn components_that_contradict_each_other_make_no_schema() {
    let twice = [registry(), registry()].concat();
    assert_eq!(Schema::new(&twice).unwrap_err(), InvalidSchema::DuplicateComponent("prod/billing".to_owned()));
    let serving = |interfaces| {
        let component =
            Component { lattice: "prod".to_owned(), id: "x".to_owned(), interfaces, params: ParamsReadable::Decoded };
        Schema::new(&[component]).map(|_| ())
    };
    let again = |name: &str| Function { name: name.to_owned(), params: Vec::new() };
    let named = |name: &str, functions| portcullis_policy::Interface { name: name.to_owned(), functions };
    assert!(matches!(serving(vec![invoices(), invoices()]), Err(InvalidSchema::DuplicateInterface { .. })));
    let functions = vec![again("get"), again("get")];
    assert!(matches!(serving(vec![named("a:b/c", functions)]), Err(InvalidSchema::DuplicateFunction { .. })));
    for name in ["", "any", "a#b", "a\nb"] {
        assert!(matches!(serving(vec![named(name, Vec::new())]), Err(InvalidSchema::Name(_))), "{name}");
        assert!(matches!(serving(vec![named("a:b/c", vec![again(name)])]), Err(InvalidSchema::Name(_))), "{name}");
    }
}

#[test]
fn names_with_quotes_stay_names() {
    let functions = vec![Function { name: "[method]a\"b\\.c".to_owned(), params: Vec::new() }];
    let interfaces = vec![portcullis_policy::Interface { name: "a:b/c".to_owned(), functions }];
    let component =
        Component { lattice: "l".to_owned(), id: "i".to_owned(), interfaces, params: ParamsReadable::Decoded };
    let schema = Schema::new(&[component]).unwrap();
    assert!(schema.text().contains("action \"a:b/c#[method]a\\\"b\\\\.c\""), "{}", schema.text());
    let text = "permit(principal, action == Action::\"a:b/c#[method]a\\\"b\\\\.c\", resource);";
    assert_eq!(PolicySet::parse(&[file("a", text)], &schema).unwrap().len(), 1);
}

#[test]
fn a_slice_that_cannot_be_read_is_refused_whole() {
    let policy = |id: &str, text: &str| PolicyText { id: id.to_owned(), text: text.to_owned() };
    let good = policy("a", "permit(principal, action, resource);");
    assert_eq!(Slice::parse(std::slice::from_ref(&good)).unwrap().len(), 1);
    let twice = Slice::parse(&[good.clone(), good.clone()]).unwrap_err();
    assert_eq!(twice, InvalidSlice::DuplicateId("a".to_owned()));
    let deep = format!("permit(principal, action, resource) when {{ {}true{} }};", "(".repeat(5000), ")".repeat(5000));
    for text in [
        "",
        "permit(principal, action, resource)",
        &format!("{} {}", good.text, good.text),
        "permit(principal == ?principal, action, resource);",
        &deep,
    ] {
        let refused = Slice::parse(&[good.clone(), policy("b", text)]).unwrap_err();
        assert!(matches!(&refused, InvalidSlice::Policy { id, .. } if id == "b"), "{refused}");
    }
}
