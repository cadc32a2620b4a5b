//! What is allowed, what is denied, and how a verdict says why.

use std::sync::Arc;

use portcullis_policy::{
    ActionIndex, CallContext, DryRunOutcome, Engine, ParamValue, PolicySet, Principal, Slice, Transport, Verdict,
};

use crate::fixture::{CHECKOUT, FILES, INVOICES, checkout, engine, facts, file, policies, problems, schema};

const QUIC: CallContext<'static> = CallContext { transport: Transport::Quic, link_name: None, params: None };

fn action(engine: &Engine, function: &str) -> ActionIndex {
    engine.action(INVOICES, function).unwrap()
}

/// The verdict for checkout's call of `pay`, without parameters.
fn verdict(text: &str) -> Verdict {
    let engine = engine(text, &[]);
    engine.decide(&checkout(), action(&engine, "pay"), &QUIC)
}

fn summary(text: &str) -> String {
    verdict(text).summary()
}

#[test]
fn nothing_is_allowed_that_no_policy_permits() {
    let empty = Engine::new(&Slice::default(), &facts(&[]), 1).unwrap();
    let verdict = empty.decide(&checkout(), action(&empty, "pay"), &QUIC);
    assert_eq!(verdict.summary(), "denied: no policy permits it");
    assert!(verdict.permit().is_none() && verdict.reasons().is_empty() && verdict.errors().is_empty());
    assert_eq!(summary("forbid(principal, action, resource in Lattice::\"dev\");"), "denied: no policy permits it");
}

#[test]
fn only_an_allowed_call_gets_a_permit() {
    let allowed = verdict("@id(\"p\") permit(principal, action, resource);");
    assert!(allowed.is_allowed() && allowed.permit().is_some() && allowed.permit().is_some());
    assert_eq!(allowed.summary(), "allowed by policy `p`");
    let denied =
        verdict("@id(\"p\") permit(principal, action, resource); @id(\"f\") forbid(principal, action, resource);");
    assert!(!denied.is_allowed() && denied.permit().is_none());
    assert_eq!(denied.summary(), "denied by policy `f`");
}

#[test]
fn a_verdict_names_its_policies_in_order_with_their_advice() {
    let verdict = verdict(
        "@id(\"z\") @advice(\"ask the billing team\") forbid(principal, action, resource);
         @id(\"a\") forbid(principal, action, resource);
         @id(\"m\") permit(principal, action, resource);",
    );
    let reasons: Vec<_> = verdict.reasons().iter().map(|reason| (reason.id(), reason.advice())).collect();
    assert_eq!(reasons, [("a", None), ("z", Some("ask the billing team"))]);
    assert_eq!(verdict.summary(), "denied by policy `a`, policy `z` (ask the billing team)");
}

#[test]
fn a_sentence_names_only_so_many_policies() {
    let forbids: Vec<_> = (0..20).map(|n| format!("@id(\"f{n:02}\") forbid(principal, action, resource);")).collect();
    let summary = summary(&forbids.join("\n"));
    assert!(
        summary.starts_with("denied by policy `f00`, policy `f01`") && summary.ends_with("policy `f07` and 12 more"),
        "{summary}"
    );
}

#[test]
fn scopes_match_function_version_interface_and_everything() {
    for scope in [
        "action == Action::\"acme:billing/invoices@1.0.0#pay\"",
        "action in Action::\"acme:billing/invoices@1.0.0\"",
        "action in Action::\"acme:billing/invoices\"",
        "action in Action::\"any\"",
        "action in [Action::\"acme:store/files\", Action::\"acme:billing/invoices@1.0.0#pay\"]",
        "action",
    ] {
        assert!(verdict(&format!("permit(principal, {scope}, resource);")).is_allowed(), "{scope}");
        if scope != "action" {
            let text = format!("permit(principal, action, resource) when {{ {scope} }};");
            assert!(verdict(&text).is_allowed(), "{scope}");
        }
    }
    for scope in [
        "action == Action::\"acme:billing/invoices@1.0.0#get-invoice\"",
        "action in Action::\"acme:store/files\"",
        "action in [Action::\"acme:store/files@0.2.0#read\", Action::\"acme:billing/invoices@1.0.0#get-invoice\"]",
    ] {
        assert!(!verdict(&format!("permit(principal, {scope}, resource);")).is_allowed(), "{scope}");
    }
}

#[test]
fn scopes_match_caller_and_component() {
    for (scope, allowed) in [
        (format!("principal == Workload::\"{CHECKOUT}\", action, resource"), true),
        (format!("principal == Workload::\"{CHECKOUT}x\", action, resource"), false),
        ("principal in TrustDomain::\"example.org\", action, resource".to_owned(), true),
        ("principal in TrustDomain::\"example.com\", action, resource".to_owned(), false),
        ("principal is Workload, action, resource".to_owned(), true),
        ("principal is Workload in TrustDomain::\"example.org\", action, resource".to_owned(), true),
        ("principal is HostedComponent, action, resource".to_owned(), false),
        ("principal, action, resource == VirtualComponent::\"prod/billing\"".to_owned(), true),
        ("principal, action, resource in VirtualComponent::\"prod/billing\"".to_owned(), true),
        ("principal, action, resource in Lattice::\"prod\"".to_owned(), true),
        ("principal, action, resource is VirtualComponent in Lattice::\"prod\"".to_owned(), true),
        ("principal, action, resource == VirtualComponent::\"dev/billing\"".to_owned(), false),
        ("principal, action, resource in Lattice::\"dev\"".to_owned(), false),
    ] {
        assert_eq!(verdict(&format!("permit({scope});")).is_allowed(), allowed, "{scope}");
    }
}

#[test]
fn conditions_read_the_caller_and_the_component() {
    for (condition, allowed) in [
        ("principal.path == \"/component/prod/checkout\" && principal.trust_domain == \"example.org\"", true),
        ("principal.path like \"/component/prod/*\"", true),
        ("principal.path like \"/node/*\"", false),
        ("resource.lattice == \"prod\" && resource.id == \"billing\"", true),
        ("resource.id == \"archive\"", false),
        ("resource.grants.contains(principal)", false),
    ] {
        let text = format!("permit(principal is Workload, action, resource) when {{ {condition} }};");
        assert_eq!(verdict(&text).is_allowed(), allowed, "{condition}");
    }
}

#[test]
fn grants_are_data() {
    let text = "@id(\"granted\") permit(principal is Workload, action, resource) when { resource.grants.contains(principal) };";
    let stranger = "spiffe://example.org/stranger";
    for (grants, allowed) in
        [(vec![CHECKOUT], true), (vec![stranger, CHECKOUT], true), (vec![stranger], false), (vec![], false)]
    {
        let engine = engine(text, &grants);
        assert_eq!(engine.decide(&checkout(), action(&engine, "pay"), &QUIC).is_allowed(), allowed, "{grants:?}");
    }
    // A hosted component of the same name is not the workload that was granted.
    let engine = engine(text, &[CHECKOUT]);
    assert!(!engine.decide(&Principal::hosted(CHECKOUT, None), action(&engine, "pay"), &QUIC).is_allowed());
}

#[test]
fn the_two_kinds_of_caller_never_match_each_others_policies() {
    let host = "spiffe://example.org/portcullis/node/h1";
    let callers = [
        Principal::workload(CHECKOUT, "example.org", "/component/prod/checkout"),
        Principal::hosted(CHECKOUT, Some(host)),
    ];
    for (scope, workload, hosted) in [
        (format!("principal == Workload::\"{CHECKOUT}\""), true, false),
        (format!("principal == HostedComponent::\"{CHECKOUT}\""), false, true),
        (format!("principal in Workload::\"{CHECKOUT}\""), true, false),
        (format!("principal in HostedComponent::\"{CHECKOUT}\""), false, true),
        ("principal is Workload".to_owned(), true, false),
        ("principal is HostedComponent".to_owned(), false, true),
        ("principal in TrustDomain::\"example.org\"".to_owned(), true, false),
        (format!("principal in Workload::\"{host}\""), false, false),
        ("principal".to_owned(), true, true),
    ] {
        let engine = engine(&format!("permit({scope}, action, resource);"), &[]);
        let allowed =
            callers.each_ref().map(|caller| engine.decide(caller, action(&engine, "pay"), &QUIC).is_allowed());
        assert_eq!(allowed, [workload, hosted], "{scope}");
    }
}

#[test]
fn a_hosted_component_is_known_by_the_host_that_vouches() {
    let text = "permit(principal is HostedComponent, action, resource)
                when { principal has vouched_by && principal.vouched_by == \"spiffe://example.org/portcullis/node/h1\" };";
    let engine = engine(text, &[]);
    for (host, allowed) in [
        (Some("spiffe://example.org/portcullis/node/h1"), true),
        (Some("spiffe://example.org/h2"), false),
        (None, false),
    ] {
        let caller = Principal::hosted("checkout", host);
        assert_eq!(engine.decide(&caller, action(&engine, "pay"), &QUIC).is_allowed(), allowed, "{host:?}");
    }
}

#[test]
fn a_policy_that_fails_denies_whatever_the_others_say() {
    // Strict validation lets through what overflows.
    let failing = "{ context.params.amount + 9223372036854775807 > 0 }";
    let on_pay = "principal, action == Action::\"acme:billing/invoices@1.0.0#pay\", resource";
    for effect in ["permit", "forbid"] {
        let text =
            format!("@id(\"ok\") permit(principal, action, resource); @id(\"bad\") {effect}({on_pay}) when {failing};");
        let engine = engine(&text, &[]);
        let params = [("amount", ParamValue::Signed(1)), ("urgent", ParamValue::Bool(false))];
        let verdict =
            engine.decide(&checkout(), action(&engine, "pay"), &CallContext { params: Some(&params), ..QUIC });
        assert_eq!(verdict.summary(), "denied: policy `bad` could not be evaluated");
        assert!(verdict.reasons().is_empty() && verdict.permit().is_none());
        let [error] = verdict.errors() else { panic!("{verdict:?}") };
        assert_eq!(error.policy(), Some("bad"));
        assert!(error.message().contains("overflow"), "{error}");
        let params = [("amount", ParamValue::Signed(-1)), ("urgent", ParamValue::Bool(false))];
        let verdict =
            engine.decide(&checkout(), action(&engine, "pay"), &CallContext { params: Some(&params), ..QUIC });
        assert_eq!(verdict.is_allowed(), effect == "permit");
    }
}

/// Runs `work` on a thread that has only so many bytes of stack.
fn on_a_stack_of<T: Send + 'static>(bytes: usize, work: impl FnOnce() -> T + Send + 'static) -> T {
    std::thread::Builder::new().stack_size(bytes).spawn(work).unwrap().join().unwrap()
}

#[test]
fn what_is_accepted_is_decided_within_half_a_threads_stack() {
    let nested = |chain: &str| format!("{}{chain}{}", "(".repeat(31), ")".repeat(31));
    let id = "resource.id == \"billing\"";
    for condition in [
        nested(&format!("{id}{}", format!(" && {id}").repeat(126))),
        nested(&format!("{id}{}", " || false".repeat(126))),
        nested(&format!("{}{id}", "if false then false else ".repeat(126))),
        format!("{}{id}{}", "if (".repeat(31), ") then true else false".repeat(31)),
        nested(&format!("1{} > 2", "+1".repeat(126))),
        format!("{}1{} has a", "{a:".repeat(31), "}".repeat(31)),
        format!("[{}].contains(resource.id)", "\"billing\",".repeat(2000)),
    ] {
        let text = format!("permit(principal, action, resource) when {{ {condition} }};");
        let decided = on_a_stack_of(1024 * 1024, move || summary(&text));
        assert_eq!(decided, "allowed by policy `a.cedar:1`", "{condition}");
    }
}

/// Cedar's validator passes over what it has no stack for, so that a mistake deep down would go unseen.
#[test]
fn a_mistake_is_found_however_deep_it_is_and_however_little_stack_is_left() {
    let nested = |chain: &str| format!("{}{chain}{}", "(".repeat(31), ")".repeat(31));
    for condition in [
        nested(&format!("context.nope == 1{}", " && resource.id == \"x\"".repeat(126))),
        nested(&format!("{}context.nope == 1", "if resource.id == \"x\" then false else ".repeat(126))),
        format!("context{}", ".a".repeat(512)),
    ] {
        let text = format!("forbid(principal, action, resource) when {{ {condition} }};");
        let found = on_a_stack_of(128 * 1024, move || problems(&text));
        assert!(found.len() == 1 && found[0].message.contains("not found"), "{condition}: {found:?}");
    }
}

#[test]
fn a_policy_under_trial_is_told_and_does_not_count() {
    let verdict = verdict(
        "@id(\"ok\") permit(principal, action, resource);
         @id(\"t1\") @dry_run forbid(principal, action, resource);
         @id(\"t2\") @dry_run permit(principal is Workload, action, resource);
         @id(\"t3\") @dry_run forbid(principal is HostedComponent, action, resource);
         @id(\"t4\") @dry_run permit(principal, action == Action::\"acme:billing/invoices@1.0.0#pay\", resource) when { context.params.urgent };",
    );
    assert_eq!(verdict.summary(), "allowed by policy `ok`");
    let told: Vec<_> = verdict.dry_run().iter().map(|trial| (trial.policy.id(), trial.outcome.clone())).collect();
    assert_eq!(told[..2], [("t1", DryRunOutcome::WouldForbid), ("t2", DryRunOutcome::WouldPermit)]);
    assert!(matches!(told.as_slice(), [_, _, ("t4", DryRunOutcome::WouldFail(_))]), "{told:?}");
    assert_eq!(summary("@dry_run permit(principal, action, resource);"), "denied: no policy permits it");
}

/// The verdict for a call of `function` by the one policy that permits it under `condition`.
fn verdict_on(function: &str, condition: &str, params: &[(&str, ParamValue<'_>)]) -> Verdict {
    let text =
        format!("permit(principal, action == Action::\"{INVOICES}#{function}\", resource) when {{ {condition} }};");
    let engine = engine(&text, &[]);
    let params: Vec<(&str, ParamValue<'_>)> = params.to_vec();
    engine.decide(&checkout(), action(&engine, function), &CallContext { params: Some(&params), ..QUIC })
}

#[test]
fn parameters_are_read_by_their_names() {
    let customer = "context.params[\"customer-id\"] == \"c7\"";
    let limit = "if context.params has limit then context.params.limit < 10 else true";
    let named = |name: &'static str| ("customer-id", ParamValue::String(name.into()));
    for (function, condition, params, allowed) in [
        ("get-invoice", customer, vec![named("c7")], true),
        ("get-invoice", customer, vec![named("c8")], false),
        ("get-invoice", "context.params.number <= 9", vec![("number", ParamValue::Unsigned(9))], true),
        ("get-invoice", "context.params.number <= 9", vec![("number", ParamValue::Unsigned(10))], false),
        // A parameter that no policy reads may be as large as it likes.
        ("get-invoice", customer, vec![("number", ParamValue::Unsigned(u64::MAX)), named("c7")], true),
        ("list-invoices", limit, vec![("limit", ParamValue::Absent)], true),
        ("list-invoices", limit, vec![], true),
        ("list-invoices", limit, vec![("limit", ParamValue::Signed(9))], true),
        ("list-invoices", limit, vec![("limit", ParamValue::Signed(10))], false),
        ("pay", "context.params.urgent", vec![("urgent", ParamValue::Bool(true))], true),
    ] {
        let verdict = verdict_on(function, condition, &params);
        assert_eq!((verdict.is_allowed(), verdict.errors()), (allowed, &[][..]), "{condition} {params:?}");
    }
}

#[test]
fn parameters_that_are_not_as_declared_deny() {
    let customer = "context.params[\"customer-id\"] == \"c7\"";
    let too_large = u64::try_from(i64::MAX).unwrap() + 1;
    let large = "parameter `number` is 9223372036854775808, more than a policy can read (9223372036854775807)";
    let untyped = "parameter `customer-id` does not have its declared type";
    for (condition, params, message) in [
        (customer, vec![], "parameter `customer-id` is missing"),
        (customer, vec![("customer-id", ParamValue::Absent)], "parameter `customer-id` is missing"),
        (customer, vec![("customer-id", ParamValue::Signed(7))], untyped),
        (customer, vec![("customer-id", ParamValue::Unreadable)], untyped),
        ("context.params.number > 0", vec![("number", ParamValue::Unsigned(too_large))], large),
    ] {
        let verdict = verdict_on("get-invoice", condition, &params);
        assert_eq!(verdict.errors().iter().map(ToString::to_string).collect::<Vec<_>>(), [message]);
        assert_eq!(verdict.summary(), "denied: the call cannot be put to the policies");
        assert!(verdict.permit().is_none());
    }
}

#[test]
fn a_policy_that_reads_parameters_denies_a_call_without_them() {
    let text = "@id(\"small\") permit(principal, action == Action::\"acme:billing/invoices@1.0.0#pay\", resource) when { context.params.amount < 10 };";
    assert_eq!(summary(text), "denied: policy `small` could not be evaluated");
}

#[test]
fn link_name_and_transport_are_read() {
    let text = "permit(principal, action, resource)
                when { context.transport == \"quic\" || (context has link_name && context.link_name == \"billing\") };";
    let engine = engine(text, &[]);
    let pay = action(&engine, "pay");
    let view = engine.view(&checkout());
    for _ in 0..2 {
        for (transport, link_name, allowed) in [
            (Transport::Quic, None, true),
            (Transport::Nats, None, false),
            (Transport::Nats, Some("billing"), true),
            (Transport::Nats, Some("other"), false),
            (Transport::Quic, Some("other"), true),
            (Transport::Nats, None, false),
        ] {
            let verdict = view.decide(pay, &CallContext { transport, link_name, params: None });
            assert_eq!(verdict.is_allowed(), allowed, "{transport} {link_name:?}");
        }
    }
}

#[test]
fn a_verdict_is_kept_only_where_nothing_else_of_the_call_matters() {
    let pay = "action == Action::\"acme:billing/invoices@1.0.0#pay\"";
    let text = format!(
        "permit(principal, action, resource);
         forbid(principal, {pay}, resource) when {{ context.params.amount > 10 }};
         forbid(principal, action in Action::\"{FILES}\", resource) when {{ context has link_name && context.link_name == \"x\" }};"
    );
    let engine = engine(&text, &[]);
    let view = engine.view(&checkout());
    let (pay, get) = (action(&engine, "pay"), action(&engine, "get-invoice"));
    let read = engine.action(FILES, "read").unwrap();
    let linked = CallContext { link_name: Some("y"), ..QUIC };
    assert_eq!([pay, get, read].map(|action| engine.reads_params(action)), [true, false, false]);
    assert_eq!([pay, get, read].map(|action| view.reads_params(action)), [true, false, false]);
    let same = |action, call: &CallContext<'_>| Arc::ptr_eq(&view.decide(action, call), &view.decide(action, call));
    assert!(same(get, &QUIC) && same(get, &linked) && same(read, &QUIC));
    assert!(!same(read, &linked) && !same(pay, &QUIC));
    for amount in [5, 50, 5] {
        let params = [("amount", ParamValue::Signed(amount))];
        let verdict = view.decide(pay, &CallContext { params: Some(&params), ..QUIC });
        assert_eq!(verdict.is_allowed(), amount <= 10, "{amount}");
    }
}

#[test]
fn a_kind_of_caller_reads_only_what_its_own_policies_read() {
    let text = "permit(principal, action, resource);
                forbid(principal is HostedComponent, action == Action::\"acme:billing/invoices@1.0.0#pay\", resource) when { context.params.urgent };";
    let engine = engine(text, &[]);
    let pay = action(&engine, "pay");
    assert!(engine.reads_params(pay));
    assert!(!engine.view(&checkout()).reads_params(pay));
    assert!(engine.view(&Principal::hosted("checkout", None)).reads_params(pay));
}

#[test]
fn what_the_component_does_not_serve_has_no_action() {
    let engine = engine("permit(principal, action, resource);", &[]);
    for (instance, function) in [(INVOICES, "delete"), ("acme:billing/invoices", "pay"), (FILES, "pay"), ("", "")] {
        assert!(engine.action(instance, function).is_none(), "{instance} {function}");
    }
}

#[test]
fn an_action_of_another_engine_is_denied() {
    let text = "permit(principal, action, resource);";
    let (before, after) = (engine(text, &[]), engine(text, &[]));
    let stale = action(&before, "pay");
    let verdict = after.decide(&checkout(), stale, &QUIC);
    assert_eq!(verdict.summary(), "denied: the call cannot be put to the policies");
    assert_eq!(verdict.errors()[0].message(), "the function belongs to another version of the policies");
    assert!(!after.reads_params(stale));
    assert!(before.decide(&checkout(), stale, &QUIC).is_allowed());
    assert_eq!((before.epoch(), before.view(&checkout()).engine().epoch()), (7, 7));
}

#[test]
fn whoever_may_call_something_is_known() {
    let pay = "action == Action::\"acme:billing/invoices@1.0.0#pay\"";
    for (text, quic, nats) in [
        ("permit(principal, action, resource);".to_owned(), true, true),
        (format!("permit(principal, {pay}, resource);"), true, true),
        (format!("permit(principal, {pay}, resource) when {{ context.transport == \"nats\" }};"), false, true),
        ("forbid(principal, action, resource);".to_owned(), false, false),
        ("permit(principal is HostedComponent, action, resource);".to_owned(), false, false),
        // What depends on unknown parameters does not count.
        (format!("permit(principal, {pay}, resource) when {{ context.params.amount < 10 }};"), false, false),
        ("permit(principal, action, resource) when { context has link_name };".to_owned(), false, false),
        (String::new(), false, false),
    ] {
        let view = engine(&text, &[]).view(&checkout());
        for _ in 0..2 {
            assert_eq!([Transport::Quic, Transport::Nats].map(|over| view.may_call_any(over)), [quic, nats], "{text}");
        }
    }
}

#[test]
fn a_slice_holds_every_policy_that_could_match_and_no_other() {
    let set = policies(
        "@id(\"any\") permit(principal, action, resource);
         @id(\"is\") permit(principal, action, resource is VirtualComponent);
         @id(\"eq\") permit(principal, action, resource == VirtualComponent::\"prod/billing\");
         @id(\"in-self\") permit(principal, action, resource in VirtualComponent::\"prod/billing\");
         @id(\"in\") permit(principal, action, resource in Lattice::\"prod\");
         @id(\"is-in\") permit(principal, action, resource is VirtualComponent in Lattice::\"prod\");
         @id(\"eq-other\") permit(principal, action, resource == VirtualComponent::\"dev/billing\");
         @id(\"in-other\") permit(principal, action, resource in Lattice::\"dev\");
         @id(\"is-in-other\") permit(principal, action, resource is VirtualComponent in Lattice::\"dev\");
         @id(\"when\") permit(principal, action, resource) when { resource in Lattice::\"dev\" };",
    );
    let ids = |lattice, id| -> Vec<String> {
        set.for_component(lattice, id).policies().iter().map(|policy| policy.id.clone()).collect()
    };
    assert_eq!(ids("prod", "billing"), ["any", "is", "eq", "in-self", "in", "is-in", "when"]);
    assert_eq!(ids("prod", "archive"), ["any", "is", "in", "is-in", "when"]);
    assert_eq!(ids("dev", "billing"), ["any", "is", "eq-other", "in-other", "is-in-other", "when"]);
}

#[test]
fn a_slice_travels_with_ids_and_annotations() {
    let text = "// why\n@advice(\"ask us\")\nforbid( // whom\n  principal, action, resource\n);\n@dry_run permit(principal, action, resource);";
    let set = PolicySet::parse(&[file("team a/x.cedar", text)], &schema()).unwrap();
    let sent = set.for_component("prod", "billing");
    assert_eq!((sent.len(), sent.is_empty()), (2, false));
    let received = Slice::parse(sent.policies()).unwrap();
    assert_eq!(received.policies(), sent.policies());
    assert_eq!(sent.policies()[0].text, "@advice(\"ask us\")\nforbid( // whom\n  principal, action, resource\n);");
    let engine = Engine::new(&received, &facts(&[]), 1).unwrap();
    let verdict = engine.decide(&checkout(), action(&engine, "pay"), &QUIC);
    assert_eq!(verdict.summary(), "denied by policy `x.cedar:1` (ask us)");
    assert_eq!(verdict.dry_run()[0].policy.id(), "x.cedar:2");
}

#[test]
fn a_function_that_is_there_twice_makes_no_engine() {
    let mut twice = facts(&[]);
    twice.interfaces.extend(twice.interfaces.clone());
    let error = Engine::new(&Slice::default(), &twice, 1).unwrap_err();
    assert_eq!(error.to_string(), format!("function `get-invoice` of interface `{INVOICES}` is there twice"));
}
