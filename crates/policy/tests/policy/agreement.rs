//! Slices, prefilters and kept verdicts change nothing: the engine says what Cedar says of the whole set.

use std::collections::{HashMap, HashSet};

use cedar_policy::{
    Authorizer, Context, Decision, Entities, Entity, EntityId, EntityUid, Policy, PolicySet as CedarSet, Request,
    RestrictedExpression,
};
use portcullis_policy::{CallContext, ComponentFacts, Engine, ParamValue, PolicySet, Principal, Slice, Transport};
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use crate::fixture::{FILES, INVOICES, file, files, invoices, schema};

const WORKLOADS: [(&str, &str); 3] = [("example.org", "/a"), ("example.org", "/b"), ("example.com", "/a")];
const HOSTED: [&str; 2] = ["a", "spiffe://example.org/a"];
const COMPONENTS: [(&str, &str); 3] = [("prod", "billing"), ("prod", "archive"), ("dev", "billing")];
const GRANTED: &str = "spiffe://example.org/a";

fn scopes() -> impl Strategy<Value = String> {
    let principal = select(vec![
        "principal",
        "principal is Workload",
        "principal is HostedComponent",
        "principal == Workload::\"spiffe://example.org/a\"",
        "principal == HostedComponent::\"spiffe://example.org/a\"",
        "principal in HostedComponent::\"a\"",
        "principal in TrustDomain::\"example.org\"",
        "principal is Workload in TrustDomain::\"example.com\"",
    ]);
    let action = select(vec![
        "action",
        "action in Action::\"any\"",
        "action in Action::\"acme:billing/invoices\"",
        "action in Action::\"acme:store/files@0.2.0\"",
        "action == Action::\"acme:billing/invoices@1.0.0#pay\"",
        "action in [Action::\"acme:billing/invoices@1.0.0#get-invoice\", Action::\"acme:store/files\"]",
    ]);
    let resource = select(vec![
        "resource",
        "resource is VirtualComponent",
        "resource == VirtualComponent::\"prod/billing\"",
        "resource in VirtualComponent::\"prod/archive\"",
        "resource in Lattice::\"prod\"",
        "resource is VirtualComponent in Lattice::\"dev\"",
    ]);
    (principal, action, resource).prop_map(|(principal, action, resource)| format!("{principal}, {action}, {resource}"))
}

fn conditions() -> impl Strategy<Value = Vec<&'static str>> {
    let known = vec![
        "when { context.transport == \"quic\" }",
        "unless { context.transport == \"quic\" }",
        "when { context has link_name && context.link_name == \"x\" }",
        "unless { context has link_name }",
        "when { principal is Workload && resource.grants.contains(principal) }",
        "when { principal is Workload && principal.path == \"/a\" }",
        "when { resource.id == \"billing\" }",
        "when { resource in Lattice::\"prod\" }",
        "when { action in Action::\"acme:billing/invoices\" }",
        "when { context has params && context.params has amount && context.params.amount > 5 }",
        "when { context has params && context.params has amount && context.params.amount + 9223372036854775800 > 5 }",
        "when { context has params && context.params has urgent && context.params.urgent }",
    ];
    let most = known.len();
    subsequence(known, 0..=most.min(2))
}

fn policy_texts() -> impl Strategy<Value = String> {
    let effect = select(vec!["permit", "permit", "forbid"]);
    let trial = select(vec!["", "", "", "@dry_run "]);
    (effect, trial, scopes(), conditions())
        .prop_map(|(effect, trial, scope, conditions)| format!("{trial}{effect}({scope}) {};", conditions.join(" ")))
}

#[derive(Debug, Clone)]
struct Call {
    function: (&'static str, &'static str),
    transport: Transport,
    link_name: Option<&'static str>,
    amount: i64,
    urgent: bool,
}

fn calls() -> impl Strategy<Value = Call> {
    let function = select(vec![
        (INVOICES, "get-invoice"),
        (INVOICES, "list-invoices"),
        (INVOICES, "pay"),
        (FILES, "read"),
        (FILES, "drop-all"),
    ]);
    let transport = select(vec![Transport::Quic, Transport::Nats]);
    (function, transport, select(vec![None, Some("x"), Some("y")]), 0..20_i64, any::<bool>()).prop_map(
        |(function, transport, link_name, amount, urgent)| Call { function, transport, link_name, amount, urgent },
    )
}

#[derive(Debug, Clone, Copy)]
enum Caller {
    Workload(&'static str, &'static str),
    Hosted(&'static str),
}

impl Caller {
    fn all() -> Vec<Self> {
        let workloads = WORKLOADS.into_iter().map(|(trust_domain, path)| Self::Workload(trust_domain, path));
        workloads.chain(HOSTED.into_iter().map(Self::Hosted)).collect()
    }

    fn principal(self) -> Principal {
        match self {
            Self::Workload(trust_domain, path) => {
                Principal::workload(&format!("spiffe://{trust_domain}{path}"), trust_domain, path)
            }
            Self::Hosted(id) => Principal::hosted(id, None),
        }
    }

    fn entity(self) -> Entity {
        let text = |value: &str| RestrictedExpression::new_string(value.to_owned());
        match self {
            Self::Workload(trust_domain, path) => {
                let attributes =
                    HashMap::from([("trust_domain".to_owned(), text(trust_domain)), ("path".to_owned(), text(path))]);
                let parents = HashSet::from([uid("TrustDomain", trust_domain)]);
                Entity::new(uid("Workload", &format!("spiffe://{trust_domain}{path}")), attributes, parents).unwrap()
            }
            Self::Hosted(id) => Entity::with_uid(uid("HostedComponent", id)),
        }
    }
}

fn uid(kind: &str, id: &str) -> EntityUid {
    EntityUid::from_type_name_and_id(kind.parse().unwrap(), EntityId::new(id))
}

/// Cedar alone, with nothing prepared: all policies, all entities.
fn cedar_says(texts: &[String], caller: Caller, component: (&str, &str), call: &Call) -> bool {
    let counting = texts.iter().filter(|text| !text.starts_with("@dry_run")).enumerate();
    let policies = counting.map(|(n, text)| Policy::parse(Some(n.to_string().parse().unwrap()), text).unwrap());
    let policies = CedarSet::from_policies(policies).unwrap();
    let (lattice, id) = component;
    let resource = uid("VirtualComponent", &format!("{lattice}/{id}"));
    let text = |value: &str| RestrictedExpression::new_string(value.to_owned());
    let attributes = HashMap::from([
        ("lattice".to_owned(), text(lattice)),
        ("id".to_owned(), text(id)),
        (
            "grants".to_owned(),
            RestrictedExpression::new_set([RestrictedExpression::new_entity_uid(uid("Workload", GRANTED))]),
        ),
    ]);
    let mut entities = vec![
        Entity::new(resource.clone(), attributes, HashSet::from([uid("Lattice", lattice)])).unwrap(),
        caller.entity(),
        Entity::new_no_attrs(uid("Action", "acme:billing/invoices"), HashSet::from([uid("Action", "any")])),
        Entity::new_no_attrs(uid("Action", "acme:store/files"), HashSet::from([uid("Action", "any")])),
        Entity::new_no_attrs(uid("Action", INVOICES), HashSet::from([uid("Action", "acme:billing/invoices")])),
        Entity::new_no_attrs(uid("Action", FILES), HashSet::from([uid("Action", "acme:store/files")])),
    ];
    let (interface, function) = call.function;
    let action = uid("Action", &format!("{interface}#{function}"));
    entities.push(Entity::new_no_attrs(action.clone(), HashSet::from([uid("Action", interface)])));
    let mut context = vec![("transport".to_owned(), text(call.transport.name()))];
    context.extend(call.link_name.map(|name| ("link_name".to_owned(), text(name))));
    let params = if function == "pay" {
        vec![
            ("amount".to_owned(), RestrictedExpression::new_long(call.amount)),
            ("urgent".to_owned(), RestrictedExpression::new_bool(call.urgent)),
        ]
    } else {
        Vec::new()
    };
    context.push(("params".to_owned(), RestrictedExpression::new_record(params).unwrap()));
    let context = Context::from_pairs(context).unwrap();
    let request = Request::new(caller.entity().uid(), action, resource, context, None).unwrap();
    let response =
        Authorizer::new().is_authorized(&request, &policies, &Entities::from_entities(entities, None).unwrap());
    response.decision() == Decision::Allow && response.diagnostics().errors().next().is_none()
}

/// What the sidecar would do: the slice off the wire, one view per peer, every call through it.
fn engine(texts: &[String], (lattice, id): (&str, &str)) -> Engine {
    let set = PolicySet::parse(&[file("a.cedar", &texts.join("\n"))], &schema()).unwrap();
    let slice = Slice::parse(set.for_component(lattice, id).policies()).unwrap();
    let facts = ComponentFacts {
        lattice: lattice.to_owned(),
        id: id.to_owned(),
        interfaces: vec![invoices(), files()],
        grants: vec![GRANTED.to_owned()],
    };
    Engine::new(&slice, &facts, 1).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_decision_by_the_slice_is_the_decision_by_the_whole_set(
        texts in prop::collection::vec(policy_texts(), 1..12),
        component in select(COMPONENTS.to_vec()),
        caller in select(Caller::all()),
        calls in prop::collection::vec(calls(), 1..12),
    ) {
        // Some combinations can never apply, or read what archive does not decode: those are refused, and left out here.
        let valid = |text: &String| PolicySet::parse(&[file("a.cedar", text)], &schema()).is_ok();
        let texts: Vec<_> = texts.into_iter().filter(valid).collect();
        let engine = engine(&texts, component);
        let view = engine.view(&caller.principal());
        for call in &calls {
            let (interface, function) = call.function;
            let action = engine.action(interface, function).unwrap();
            let values = [("amount", ParamValue::Signed(call.amount)), ("urgent", ParamValue::Bool(call.urgent)),
                ("customer-id", ParamValue::String("c".into())), ("number", ParamValue::Unsigned(1)), ("path", ParamValue::String("p".into()))];
            // As the sidecar does, parameters are decoded only where they are read.
            let params = view.reads_params(action).then_some(&values[..]);
            let context = CallContext { transport: call.transport, link_name: call.link_name, params };
            let verdict = view.decide(action, &context);
            let expected = cedar_says(&texts, caller, component, call);
            prop_assert_eq!(verdict.is_allowed(), expected, "{} on {:?} {:?}:\n{}", verdict, component, call, texts.join("\n"));
            prop_assert_eq!(verdict.permit().is_some(), expected);
        }
    }

    #[test]
    fn no_text_makes_the_parser_panic(text in "(permit|forbid|[()@\";,=.a-z{}\\[\\] \n/\\\\?:!|&é]){0,60}") {
        let parsed = PolicySet::parse(&[file("a.cedar", &text)], &schema());
        if let Err(problems) = parsed {
            prop_assert!(!problems.is_empty());
            prop_assert!(problems.iter().all(|problem| problem.line >= 1 && problem.column >= 1));
        }
    }
}
