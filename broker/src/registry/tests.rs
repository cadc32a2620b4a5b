mod admission;
mod entry;
mod node;
mod restoration;
mod template;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use portcullis_value::WitSource;
use proptest::prelude::*;

use super::*;
use crate::ttl::Ttl;

const WIT: &str = "package acme:billing@1.0.0;
interface invoices { get: func(customer: string, limit: u32) -> result<string, string>; total: func() -> u64; }
interface admin { wipe: func(); }
world service { export invoices; export admin; }";

const PERMIT: &str = r#"@id("readers") @advice("ask billing")
permit (principal is Workload, action == Action::"acme:billing/invoices@1.0.0#get", resource == VirtualComponent::"prod/billing");"#;

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

fn parse<T: std::str::FromStr<Err: std::fmt::Debug>>(text: &str) -> T {
    text.parse().unwrap()
}

fn id(text: &str) -> SpiffeId {
    SpiffeId::new(text).unwrap()
}

fn empty() -> Registry {
    Registry::empty(TrustDomain::new("acme.test").unwrap()).unwrap()
}

fn registration(target: &str, node: Option<&str>) -> Registration {
    Registration {
        target: parse(target),
        wit: vec![WitSource { path: "billing.wit".to_owned(), text: WIT.to_owned() }],
        interfaces: Vec::new(),
        spiffe_id: None,
        upstream: Upstream::Typed,
        addresses: Vec::new(),
        node: node.map(parse),
        ttl: Ttl::DEFAULT,
        present: Present::Refuse,
    }
}

fn register(target: &str, node: Option<&str>) -> Command {
    Command::RegisterComponent(Box::new(registration(target, node)))
}

fn file(name: &str, text: &str) -> PolicyFile {
    PolicyFile { name: name.to_owned(), text: text.to_owned() }
}

fn grant(target: &str, caller: &str, direction: GrantDirection) -> Command {
    Command::ChangeGrant(GrantChange { target: parse(target), spiffe_id: id(caller), direction })
}

fn component_entry(node: &str, target: &str) -> Command {
    let holder = Holder::Component { target: parse(target), digest: Digest::DangerAny };
    Command::CreateEntry(Box::new(NewEntry { node: parse(node), holder, terms: Terms::new(Ttl::DEFAULT) }))
}

fn workload_entry(node: &str, spiffe_id: &str, lattice: Option<&str>) -> Command {
    let holder =
        Holder::Workload { spiffe_id: id(spiffe_id), lattice: lattice.map(parse), digest: Digest::NotApplicable };
    Command::CreateEntry(Box::new(NewEntry { node: parse(node), holder, terms: Terms::new(Ttl::DEFAULT) }))
}

/// Plans and applies, as the ledger does.
fn execute(registry: &mut Registry, command: Command) -> Result<Plan, Refusal> {
    execute_at(registry, command, now())
}

fn execute_at(registry: &mut Registry, command: Command, now: SystemTime) -> Result<Plan, Refusal> {
    let plan = registry.plan(command, now)?;
    if !plan.changes.is_empty() {
        let version = registry.version().next().skip(plan.further_epochs);
        registry.apply(&plan.changes, version, plan.schema.clone());
    }
    Ok(plan)
}

fn with(commands: impl IntoIterator<Item = Command>) -> Registry {
    let mut registry = empty();
    for command in commands {
        execute(&mut registry, command).unwrap();
    }
    registry
}

#[test]
fn a_component_is_registered_under_its_default_id_with_an_entry_for_its_node() {
    let registry = with([register("prod/billing", Some("sidecar"))]);
    let component = registry.component(&parse("prod/billing")).unwrap();
    assert_eq!(component.spiffe_id, id("spiffe://acme.test/virtual/prod/billing"));
    let interfaces: Vec<_> = component.interface_names().collect();
    assert_eq!(interfaces, ["acme:billing/invoices@1.0.0", "acme:billing/admin@1.0.0"]);
    let entries: Vec<_> = registry.entries().collect();
    assert_eq!(entries.len(), 1);
    assert_eq!(entries[0].id.to_string(), "e1-1");
    assert_eq!(entries[0].spiffe_id, component.spiffe_id);
    assert_eq!(entries[0].lattice, Some(parse("prod")));
}

#[test]
fn the_same_registration_again_changes_nothing_and_a_different_one_is_refused() {
    let mut registry = with([register("prod/billing", Some("sidecar"))]);
    let again = execute(&mut registry, register("prod/billing", Some("sidecar"))).unwrap();
    assert!(again.changes.is_empty());
    assert_eq!(again.entries, [parse("e1-1")]);
    assert_eq!(registry.version().epoch, 1);
    let splice = Registration { upstream: Upstream::Splice, ..registration("prod/billing", None) };
    let refused = execute(&mut registry, Command::RegisterComponent(Box::new(splice.clone())));
    assert!(matches!(refused, Err(Refusal::ComponentExists(_))));
    let replace = Registration { present: Present::Replace, ..splice };
    execute(&mut registry, Command::RegisterComponent(Box::new(replace))).unwrap();
    assert_eq!(registry.component(&parse("prod/billing")).unwrap().upstream, Upstream::Splice);
}

#[test]
fn only_chosen_interfaces_are_registered() {
    let mut registry = empty();
    let chosen = vec!["acme:billing/admin@1.0.0".to_owned()];
    let some = Registration { interfaces: chosen, ..registration("prod/billing", None) };
    execute(&mut registry, Command::RegisterComponent(Box::new(some))).unwrap();
    assert_eq!(registry.peer_record(&parse("prod/billing")).unwrap().interfaces, ["acme:billing/admin@1.0.0"]);
    let none = Registration { interfaces: vec!["acme:billing/x".to_owned()], ..registration("prod/other", None) };
    let refused = execute(&mut registry, Command::RegisterComponent(Box::new(none))).unwrap_err().to_string();
    assert!(refused.contains("`acme:billing/x`") && refused.contains("`acme:billing/invoices@1.0.0`"), "{refused}");
}

#[test]
fn broken_wit_is_refused_with_its_place() {
    let wit = vec![WitSource { path: "a.wit".to_owned(), text: "package a:b;\ninterface i { f: fnc(); }".to_owned() }];
    let broken = Registration { wit, ..registration("prod/billing", None) };
    let refused = empty().plan(Command::RegisterComponent(Box::new(broken)), now()).unwrap_err().to_string();
    assert!(refused.contains("a.wit:2"), "{refused}");
}

#[test]
fn ids_of_the_control_plane_and_of_others_are_never_assigned() {
    let mut registry = empty();
    for (spiffe_id, reserved) in [
        ("spiffe://acme.test/portcullis/broker", true),
        ("spiffe://acme.test/portcullis/node/other", true),
        ("spiffe://acme.test/portcullis", true),
        ("spiffe://other.test/x", false),
        ("spiffe://acme.test", false),
    ] {
        let component = Registration { spiffe_id: Some(id(spiffe_id)), ..registration("prod/billing", None) };
        for command in [Command::RegisterComponent(Box::new(component)), workload_entry("n", spiffe_id, None)] {
            let refused = execute(&mut registry, command);
            assert_eq!(matches!(refused, Err(Refusal::ReservedId(_))), reserved, "{spiffe_id}: {refused:?}");
            assert!(refused.is_err());
        }
    }
    // The prefix is a whole segment, not a beginning of one.
    execute(&mut registry, workload_entry("n", "spiffe://acme.test/portcullis-like/x", None)).unwrap();
}

#[test]
fn a_component_of_another_trust_domain_is_where_the_operator_says() {
    let abroad = |spiffe_id: &str, node: Option<&str>| {
        let addresses = vec![parse("shop.other.test:7443")];
        Command::RegisterComponent(Box::new(Registration {
            spiffe_id: Some(id(spiffe_id)),
            addresses,
            ..registration("prod/shop", node)
        }))
    };
    let mut registry = empty();
    for (spiffe_id, node) in [("spiffe://acme.test/shop", None), ("spiffe://other.test/shop", Some("n"))] {
        let refused = execute(&mut registry, abroad(spiffe_id, node)).unwrap_err();
        assert!(matches!(refused, Refusal::Announced(_)), "{refused}");
    }
    let reserved = execute(&mut registry, abroad("spiffe://other.test/portcullis/broker", None)).unwrap_err();
    assert!(matches!(reserved, Refusal::ReservedId(_)), "{reserved}");
    execute(&mut registry, abroad("spiffe://other.test/shop", None)).unwrap();
    let record = registry.peer_record(&parse("prod/shop")).unwrap();
    assert_eq!(record.addresses, [parse("shop.other.test:7443")]);
    // Nobody of this trust domain can be it.
    execute(&mut registry, workload_entry("n", "spiffe://other.test/shop", None)).unwrap_err();
}

#[test]
fn an_entry_is_made_once_and_its_id_never_comes_back() {
    let mut registry = with([component_entry("host", "prod/checkout")]);
    let again = execute(&mut registry, component_entry("host", "prod/checkout")).unwrap();
    assert_eq!((again.changes.len(), again.entries), (0, vec![parse("e1-1")]));
    let longer = NewEntry {
        node: parse("host"),
        holder: Holder::Component { target: parse("prod/checkout"), digest: Digest::DangerAny },
        terms: Terms::new(Ttl::try_from(60).unwrap()),
    };
    let refused = execute(&mut registry, Command::CreateEntry(Box::new(longer)));
    assert!(matches!(refused, Err(Refusal::EntryExists { .. })));
    execute(&mut registry, Command::RemoveEntry(parse("e1-1"))).unwrap();
    let anew = execute(&mut registry, component_entry("host", "prod/checkout")).unwrap();
    assert_eq!(anew.entries, [parse("e1-3")]);
}

#[test]
fn a_node_sees_the_lattices_of_its_entries_and_serves_what_its_entries_name() {
    let registry = with([
        register("prod/billing", Some("sidecar")),
        register("prod/stock", Some("other")),
        register("test/billing", Some("tester")),
        component_entry("host", "prod/checkout"),
        workload_entry("laptop", "spiffe://acme.test/people/ada", Some("test")),
        workload_entry("watcher", "spiffe://acme.test/people/bob", None),
    ]);
    let seen = |node: &str| {
        let view = registry.view(&parse(node));
        let names = |targets: Vec<&Target>| targets.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
        (names(view.components.keys().collect()), names(view.served.keys().collect()), view.entries.len())
    };
    assert_eq!(seen("sidecar"), ("prod/billing prod/stock".to_owned(), "prod/billing".to_owned(), 1));
    assert_eq!(seen("host"), ("prod/billing prod/stock".to_owned(), String::new(), 1));
    assert_eq!(seen("laptop"), ("test/billing".to_owned(), String::new(), 1));
    assert_eq!(seen("watcher"), (String::new(), String::new(), 1));
    assert_eq!(seen("stranger"), (String::new(), String::new(), 0));
    assert!(registry.may_see(&parse("host"), &parse("prod")));
    assert!(!registry.may_see(&parse("host"), &parse("test")));
}

#[test]
fn a_component_registered_later_for_an_entry_is_served_by_its_node() {
    let mut registry = with([workload_entry("sidecar", "spiffe://acme.test/virtual/prod/billing", None)]);
    let before = registry.view(&parse("sidecar"));
    execute(&mut registry, register("prod/billing", None)).unwrap();
    assert!(registry.may_have_changed(&before));
    let change = before.change_to(&registry.view(&parse("sidecar"))).unwrap();
    assert_eq!((change.components.len(), change.served.len()), (1, 1));
}

#[test]
fn a_change_ships_only_what_it_touches() {
    let mut registry = with([
        register("prod/billing", Some("sidecar")),
        register("prod/stock", Some("sidecar")),
        component_entry("host", "prod/checkout"),
    ]);
    let (sidecar, host) = (registry.view(&parse("sidecar")), registry.view(&parse("host")));
    execute(&mut registry, Command::PutPolicies(vec![file("a.cedar", PERMIT)])).unwrap();
    let change = sidecar.change_to(&registry.view(&parse("sidecar"))).unwrap();
    assert_eq!(change.served.len(), 1);
    assert_eq!(change.served[0].record.target, parse("prod/billing"));
    assert_eq!(change.served[0].policies.iter().map(|policy| policy.id.as_str()).collect::<Vec<_>>(), ["readers"]);
    assert!(change.components.is_empty() && change.entries.is_empty());
    assert!(host.change_to(&registry.view(&parse("host"))).is_none());

    let (sidecar, host) = (registry.view(&parse("sidecar")), registry.view(&parse("host")));
    let addresses = vec![parse("10.0.0.1:7500")];
    let announcement = Announcement { node: parse("sidecar"), target: parse("prod/stock"), addresses };
    execute(&mut registry, Command::Announce(announcement)).unwrap();
    let change = host.change_to(&registry.view(&parse("host"))).unwrap();
    assert_eq!(change.components[0].addresses, [parse("10.0.0.1:7500")]);
    assert_eq!((change.components.len(), change.served.len()), (1, 0));
    let change = sidecar.change_to(&registry.view(&parse("sidecar"))).unwrap();
    assert_eq!((change.components.len(), change.served.len()), (1, 1));
}

#[test]
fn nobody_is_bothered_by_what_they_cannot_see() {
    let mut registry = with([register("prod/billing", Some("sidecar")), register("test/billing", Some("tester"))]);
    let view = registry.view(&parse("sidecar"));
    execute(&mut registry, grant("test/billing", "spiffe://acme.test/x", GrantDirection::Give)).unwrap();
    execute(&mut registry, component_entry("other", "prod/checkout")).unwrap();
    assert!(!registry.may_have_changed(&view));
    execute(&mut registry, grant("prod/billing", "spiffe://acme.test/x", GrantDirection::Give)).unwrap();
    assert!(registry.may_have_changed(&view));
}

#[test]
fn policies_come_into_force_all_together_or_not_at_all() {
    let mut registry = with([register("prod/billing", None)]);
    let unknown = PERMIT.replace("#get", "#steal").replace("readers", "thieves");
    let files = vec![file("good.cedar", PERMIT), file("bad.cedar", &unknown), file("worse.cedar", "permit (")];
    let Err(Refusal::Policies(problems)) = execute(&mut registry, Command::PutPolicies(files)) else {
        panic!("bad policies were accepted")
    };
    let places: Vec<_> = problems.iter().map(|problem| problem.file.as_str()).collect();
    assert!(places.contains(&"bad.cedar") && places.contains(&"worse.cedar"), "{problems:?}");
    assert!(problems.iter().all(|problem| problem.line > 0));
    assert_eq!(registry.policies().len(), 0);
    assert_eq!(registry.version().epoch, 1);
}

#[test]
fn an_id_is_used_once_across_files() {
    let mut registry = with([register("prod/billing", None), Command::PutPolicies(vec![file("a.cedar", PERMIT)])]);
    let refused = execute(&mut registry, Command::PutPolicies(vec![file("b.cedar", PERMIT)])).unwrap_err().to_string();
    assert!(refused.contains("readers"), "{refused}");
    // The file itself may be put again, and altered.
    let again = execute(&mut registry, Command::PutPolicies(vec![file("a.cedar", PERMIT)])).unwrap();
    assert!(again.changes.is_empty());
    let altered = PERMIT.replace("permit", "forbid");
    execute(&mut registry, Command::PutPolicies(vec![file("a.cedar", &altered)])).unwrap();
    assert!(registry.served(&parse("prod/billing")).unwrap().policies[0].text.contains("forbid"));
}

#[test]
fn an_id_twice_among_new_files_is_found_beside_other_mistakes() {
    let mut registry = with([
        register("prod/billing", None),
        Command::PutPolicies(vec![file("old.cedar", &PERMIT.replace("readers", "old"))]),
    ]);
    let files = vec![
        file("a.cedar", PERMIT),
        file("b.cedar", PERMIT),
        file("c.cedar", "permit ("),
        file("d.cedar", &PERMIT.replace("readers", "old")),
    ];
    let Err(Refusal::Policies(problems)) = execute(&mut registry, Command::PutPolicies(files)) else {
        panic!("bad policies were accepted")
    };
    for name in ["b.cedar", "c.cedar", "d.cedar"] {
        assert!(problems.iter().any(|problem| problem.file == name), "{name}: {problems:?}");
    }
    // An id may move from one file to another in one step.
    let moved = vec![file("old.cedar", ""), file("new.cedar", &PERMIT.replace("readers", "old"))];
    execute(&mut registry, Command::PutPolicies(moved)).unwrap();
}

#[test]
fn a_policy_file_has_a_plain_name() {
    for name in ["", ".hidden", "a/b", "../a", "a b", &"x".repeat(129)] {
        let refused = empty().plan(Command::PutPolicies(vec![file(name, "")]), now());
        assert!(matches!(refused, Err(Refusal::PolicyFileName(_))), "{name}");
    }
    let twice = Command::PutPolicies(vec![file("a.cedar", ""), file("a.cedar", "")]);
    assert!(matches!(empty().plan(twice, now()), Err(Refusal::PolicyFileTwice(_))));
}

#[test]
fn a_component_that_policies_name_is_not_taken_away_from_under_them() {
    let mut registry = with([register("prod/billing", None), Command::PutPolicies(vec![file("a.cedar", PERMIT)])]);
    let Err(Refusal::Breaks(problems)) = execute(&mut registry, Command::RemoveComponent(parse("prod/billing"))) else {
        panic!("the component was removed")
    };
    assert!(problems.iter().all(|problem| problem.policy.as_deref() == Some("readers")), "{problems:?}");
    let chosen = vec!["acme:billing/admin@1.0.0".to_owned()];
    let narrower = Registration { interfaces: chosen, present: Present::Replace, ..registration("prod/billing", None) };
    let refused = execute(&mut registry, Command::RegisterComponent(Box::new(narrower)));
    assert!(matches!(refused, Err(Refusal::Breaks(_))));
    execute(&mut registry, Command::RemovePolicies("a.cedar".to_owned())).unwrap();
    execute(&mut registry, Command::RemoveComponent(parse("prod/billing"))).unwrap();
    assert_eq!(registry.component_count(), 0);
}

#[test]
fn a_removed_component_takes_what_hangs_on_it() {
    let announcement =
        Announcement { node: parse("sidecar"), target: parse("prod/billing"), addresses: vec![parse("10.0.0.1:7500")] };
    let mut registry = with([
        register("prod/billing", Some("sidecar")),
        grant("prod/billing", "spiffe://acme.test/x", GrantDirection::Give),
        Command::Announce(announcement),
    ]);
    execute(&mut registry, Command::RemoveComponent(parse("prod/billing"))).unwrap();
    assert_eq!(registry.entries().len(), 0);
    execute(&mut registry, register("prod/billing", None)).unwrap();
    let served = registry.served(&parse("prod/billing")).unwrap();
    assert!(served.grants.is_empty() && served.record.addresses.is_empty());
}

#[test]
fn grants_are_given_once_and_taken_back_once() {
    let caller = "spiffe://partner.test/shop";
    let mut registry = with([register("prod/billing", None), grant("prod/billing", caller, GrantDirection::Give)]);
    assert!(execute(&mut registry, grant("prod/billing", caller, GrantDirection::Give)).unwrap().changes.is_empty());
    assert_eq!(registry.served(&parse("prod/billing")).unwrap().grants, [id(caller)]);
    execute(&mut registry, grant("prod/billing", caller, GrantDirection::TakeBack)).unwrap();
    let refused = execute(&mut registry, grant("prod/billing", caller, GrantDirection::TakeBack));
    assert!(matches!(refused, Err(Refusal::NotGranted { .. })));
    let node = "spiffe://acme.test/portcullis/node/n";
    let refused = execute(&mut registry, grant("prod/billing", node, GrantDirection::Give));
    assert!(matches!(refused, Err(Refusal::ReservedId(_))));
}

#[test]
fn only_who_serves_a_component_says_where() {
    let mut registry = with([register("prod/billing", Some("sidecar")), component_entry("host", "prod/billing")]);
    let announce = |node: &str, target: &str, count: u16| {
        let addresses = (1..=count).map(|port| parse(&format!("10.0.0.1:{port}"))).collect();
        Command::Announce(Announcement { node: parse(node), target: parse(target), addresses })
    };
    for (node, target) in [("host", "prod/billing"), ("sidecar", "prod/other"), ("stranger", "prod/billing")] {
        let refused = execute(&mut registry, announce(node, target, 1));
        assert!(matches!(refused, Err(Refusal::NotServed { .. })), "{node} {target}");
    }
    assert!(matches!(execute(&mut registry, announce("sidecar", "prod/billing", 9)), Err(Refusal::TooMany { .. })));
    execute(&mut registry, announce("sidecar", "prod/billing", 8)).unwrap();
    let record = |registry: &Registry| registry.peer_record(&parse("prod/billing")).unwrap().addresses.len();
    assert_eq!(record(&registry), 8);
    // Without the entry, the addresses are nobody's.
    execute(&mut registry, Command::RemoveEntry(parse("e1-1"))).unwrap();
    assert_eq!(record(&registry), 0);
}

fn token(node: &str, secret: [u8; 32]) -> Command {
    Command::CreateToken(NewToken { node: parse(node), lifetime: Duration::from_secs(600), secret_sha256: secret })
}

fn redeem(node: &str, secret_sha256: [u8; 32], key_sha256: [u8; 32]) -> Command {
    Command::Redeem(Redemption { node: parse(node), secret_sha256, key_sha256 })
}

fn refusal(registry: &mut Registry, command: Command, at: SystemTime) -> TokenRefusal {
    match execute_at(registry, command, at) {
        Err(Refusal::Token(refusal)) => refusal,
        other => panic!("not a refusal of a token: {other:?}"),
    }
}

#[test]
fn a_token_is_redeemed_by_one_key_and_again_by_the_same_until_it_expires() {
    let mut registry = with([token("n1", [7; 32])]);
    let late = now() + Duration::from_secs(600);
    assert_eq!(refusal(&mut registry, redeem("n1", [8; 32], [1; 32]), now()), TokenRefusal::Unknown);
    assert_eq!(refusal(&mut registry, redeem("n2", [7; 32], [1; 32]), now()), TokenRefusal::OtherNode);
    assert_eq!(refusal(&mut registry, redeem("n1", [7; 32], [1; 32]), late), TokenRefusal::Expired);
    assert!(registry.node(&parse("n1")).is_none());
    execute(&mut registry, redeem("n1", [7; 32], [1; 32])).unwrap();
    assert_eq!(registry.node(&parse("n1")).unwrap().key_sha256, [1; 32]);
    assert!(execute(&mut registry, redeem("n1", [7; 32], [1; 32])).unwrap().changes.is_empty());
    assert_eq!(refusal(&mut registry, redeem("n1", [7; 32], [2; 32]), now()), TokenRefusal::Spent);
    assert_eq!(refusal(&mut registry, redeem("n1", [7; 32], [2; 32]), late), TokenRefusal::Spent);
    assert_eq!(refusal(&mut registry, redeem("n1", [7; 32], [1; 32]), late), TokenRefusal::Expired);
}

#[test]
fn a_secret_that_shares_the_index_proves_nothing() {
    let mut registry = with([token("n1", [7; 32])]);
    let mut near = [7; 32];
    near[31] = 8;
    assert_eq!(refusal(&mut registry, redeem("n1", near, [1; 32]), now()), TokenRefusal::Unknown);
}

#[test]
fn a_removed_node_does_not_come_back_with_its_token() {
    let mut registry = with([token("n1", [7; 32]), redeem("n1", [7; 32], [1; 32])]);
    execute(&mut registry, Command::RemoveNode(parse("n1"))).unwrap();
    assert!(registry.node(&parse("n1")).is_none());
    assert_eq!(refusal(&mut registry, redeem("n1", [7; 32], [1; 32]), now()), TokenRefusal::Unknown);
    assert!(matches!(execute(&mut registry, Command::RemoveNode(parse("n1"))), Err(Refusal::NoNode(_))));
}

#[test]
fn an_expired_token_is_remembered_for_a_day() {
    let mut registry = with([token("n1", [7; 32])]);
    let expired = now() + Duration::from_secs(600);
    execute_at(&mut registry, token("n2", [8; 32]), expired + Duration::from_secs(24 * 3600 - 1)).unwrap();
    assert_eq!(registry.tokens.len(), 2);
    execute_at(&mut registry, token("n3", [9; 32]), expired + Duration::from_secs(24 * 3600)).unwrap();
    assert_eq!(registry.tokens.len(), 2);
}

#[test]
fn a_tokens_life_has_bounds() {
    for seconds in [0, 9, 7 * 24 * 3600 + 1, u64::MAX] {
        let lifetime = Duration::from_secs(seconds);
        let command = Command::CreateToken(NewToken { node: parse("n"), lifetime, secret_sha256: [0; 32] });
        assert!(matches!(empty().plan(command, now()), Err(Refusal::TokenLifetime(_))), "{seconds}");
    }
}

#[test]
fn a_decision_is_explained_with_its_policies() {
    let registry = with([register("prod/billing", None), Command::PutPolicies(vec![file("a.cedar", PERMIT)])]);
    let served = registry.served(&parse("prod/billing")).unwrap();
    let question = |function: &str, params: Option<&str>| Question {
        principal: id("spiffe://acme.test/component/prod/checkout"),
        instance: "acme:billing/invoices@1.0.0".to_owned(),
        function: function.to_owned(),
        params_json: params.map(str::to_owned),
        transport: portcullis_policy::Transport::Quic,
    };
    let allowed = Explanation::of(served, &question("get", None)).unwrap();
    assert!(allowed.verdict.is_allowed());
    assert_eq!(allowed.verdict.reasons()[0].id(), "readers");
    assert_eq!(allowed.verdict.reasons()[0].advice(), Some("ask billing"));
    assert!(!Explanation::of(served, &question("total", None)).unwrap().verdict.is_allowed());
    let unknown = Explanation::of(served, &question("steal", None)).unwrap_err().to_string();
    assert!(unknown.contains("steal") && unknown.contains("#get"), "{unknown}");
    let params = Explanation::of(served, &question("get", Some("{\"customer\": 7}"))).unwrap_err().to_string();
    assert!(params.contains("customer"), "{params}");
}

#[test]
fn a_policy_that_reads_a_parameter_is_explained_with_parameters() {
    let text = r#"@id("own") permit (principal, action == Action::"acme:billing/invoices@1.0.0#get", resource)
        when { context.params.customer == "c-7" };"#;
    let registry = with([register("prod/billing", None), Command::PutPolicies(vec![file("a.cedar", text)])]);
    let served = registry.served(&parse("prod/billing")).unwrap();
    let ask = |params: Option<&str>| {
        let question = Question {
            principal: id("spiffe://acme.test/x"),
            instance: "acme:billing/invoices@1.0.0".to_owned(),
            function: "get".to_owned(),
            params_json: params.map(str::to_owned),
            transport: portcullis_policy::Transport::Quic,
        };
        let explanation = Explanation::of(served, &question).unwrap();
        (explanation.verdict.is_allowed(), explanation.params_missing)
    };
    assert_eq!(ask(Some(r#"{"customer": "c-7", "limit": 1}"#)), (true, false));
    assert_eq!(ask(Some(r#"{"customer": "c-8", "limit": 1}"#)), (false, false));
    assert_eq!(ask(None), (false, true));
}

/// A step of a made-up history.
#[derive(Debug, Clone)]
enum Step {
    Register(u8, u8),
    Remove(u8),
    Entry(u8, u8),
    RemoveEntry(u8),
    Grant(u8, u8),
    Announce(u8, u8, u16),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..4u8, 0..3u8).prop_map(|(component, node)| Step::Register(component, node)),
        (0..4u8).prop_map(Step::Remove),
        (0..3u8, 0..4u8).prop_map(|(node, component)| Step::Entry(node, component)),
        (0..8u8).prop_map(Step::RemoveEntry),
        (0..4u8, 0..3u8).prop_map(|(component, caller)| Step::Grant(component, caller)),
        (0..3u8, 0..4u8, 1..9u16).prop_map(|(node, component, port)| Step::Announce(node, component, port)),
    ]
}

fn target_name(number: u8) -> String {
    format!("l{}/c{number}", number % 2)
}

impl Step {
    fn command(self, registry: &Registry) -> Option<Command> {
        Some(match self {
            Self::Register(component, node) => register(&target_name(component), Some(&format!("n{node}"))),
            Self::Remove(component) => Command::RemoveComponent(parse(&target_name(component))),
            Self::Entry(node, component) => component_entry(&format!("n{node}"), &target_name(component)),
            Self::RemoveEntry(number) => Command::RemoveEntry(registry.entries().nth(number.into())?.id.clone()),
            Self::Grant(component, caller) => {
                grant(&target_name(component), &format!("spiffe://acme.test/x{caller}"), GrantDirection::Give)
            }
            Self::Announce(node, component, port) => Command::Announce(Announcement {
                node: parse(&format!("n{node}")),
                target: parse(&target_name(component)),
                addresses: vec![parse(&format!("10.0.0.1:{port}"))],
            }),
        })
    }
}

/// What a node that got `change` holds, in a comparable form.
fn held(view: &NodeView) -> String {
    let served: Vec<_> = view.served.values().map(|served| (&served.record, &served.grants)).collect();
    format!("{:?} {:?} {served:?}", view.entries, view.components)
}

fn followed(mut view: NodeView, change: ViewChange) -> NodeView {
    view.entries.extend(change.entries.into_iter().map(|entry| (entry.id.clone(), entry)));
    view.entries.retain(|id, _| !change.entries_removed.contains(id));
    view.components.extend(change.components.into_iter().map(|record| (record.target.clone(), record)));
    view.components.retain(|target, _| !change.components_removed.contains(target));
    view.served.extend(change.served.into_iter().map(|served| (served.record.target.clone(), served)));
    view.served.retain(|target, _| !change.served_removed.contains(target));
    view
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whoever follows the changes, all of them or only some, holds what the registry shows.
    #[test]
    fn following_changes_gives_the_view(steps in prop::collection::vec((step(), any::<bool>()), 1..40)) {
        let mut registry = empty();
        let node = parse("n0");
        let mut mirror = registry.view(&node);
        let mut sent = mirror.clone();
        for (step, looks) in steps {
            let Some(command) = step.command(&registry) else { continue };
            // Refusals are part of the history.
            let _ = execute(&mut registry, command);
            let view = registry.view(&node);
            if !registry.may_have_changed(&sent) {
                prop_assert!(sent.change_to(&view).is_none(), "a change was not noticed");
            } else if looks {
                if let Some(change) = sent.change_to(&view) {
                    mirror = followed(mirror, change);
                }
                sent = view.clone();
                prop_assert_eq!(held(&mirror), held(&view));
            }
        }
    }
}
