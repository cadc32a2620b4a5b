//! Templates: which entries they make, how many, and what goes with them.

use super::*;

const PATTERN: &str = "spiffe://acme.test/svc/{unix:uid}/{systemd:id}";

fn template(node: &str, pattern: &str) -> Command {
    let terms = Terms { selectors: vec!["unix:gid:27".to_owned()].try_into().unwrap(), ..Terms::new(Ttl::DEFAULT) };
    let holder = Holder::Template { pattern: parse(pattern), lattice: None };
    Command::CreateEntry(Box::new(NewEntry { node: parse(node), holder, terms }))
}

fn fill(registry: &mut Registry, node: &str, values: &[&str]) -> Result<Plan, Refusal> {
    let values = values.iter().map(|&value| value.to_owned()).collect();
    execute(registry, Command::Fill(Filling { node: parse(node), template: parse("e1-1"), values }))
}

#[test]
fn a_template_makes_one_entry_for_each_set_of_values_which_demands_them() {
    let mut registry = with([template("n", PATTERN)]);
    assert_eq!(registry.entries().len(), 0);
    let made = fill(&mut registry, "n", &["999", "redis.service"]).unwrap().entries.remove(0);
    let entry = registry.entry(&made).unwrap();
    assert_eq!(entry.spiffe_id, id("spiffe://acme.test/svc/999/redis.service"));
    let selectors: Vec<_> = entry.terms.selectors.iter().map(Selector::as_str).collect();
    assert_eq!(selectors, ["systemd:id:redis.service", "unix:gid:27", "unix:uid:999"]);
    assert_eq!(entry.template, Some(parse("e1-1")));
    let again = fill(&mut registry, "n", &["999", "redis.service"]).unwrap();
    assert_eq!((again.changes.len(), again.entries), (0, vec![made]));
    fill(&mut registry, "n", &["999", "nats.service"]).unwrap();
    assert_eq!(registry.view(&parse("n")).entries.len(), 2);
}

#[test]
fn only_the_template_s_node_fills_it_and_with_segments_alone() {
    let mut registry = with([template("n", PATTERN), template("other", PATTERN)]);
    assert!(matches!(fill(&mut registry, "other", &["1", "x"]), Err(Refusal::NoEntry(_))));
    for values in [&["1", ".."][..], &["1", "a/b"], &["", "x"], &["1", "%2e"], &["1"], &["1", "x", "y"]] {
        assert!(matches!(fill(&mut registry, "n", values), Err(Refusal::Unfit(_))), "{values:?}");
    }
    assert_eq!(registry.entries().len(), 0);
    let foreign = execute(&mut registry, template("n", "spiffe://other.test/x/{unix:uid}"));
    assert!(matches!(foreign, Err(Refusal::ForeignTemplate(_))));
}

#[test]
fn a_template_makes_no_more_identities_than_its_bound() {
    let mut registry = with([template("n", PATTERN)]);
    for uid in 0..bounds::FILLED {
        fill(&mut registry, "n", &[&uid.to_string(), "x"]).unwrap();
    }
    let refused = fill(&mut registry, "n", &["100000", "x"]).unwrap_err().to_string();
    assert!(refused.contains("identities of one template") && refused.contains("256"), "{refused}");
    // What is there already is found still, and what is removed makes room.
    let first = fill(&mut registry, "n", &["0", "x"]).unwrap().entries.remove(0);
    execute(&mut registry, Command::RemoveEntry(first)).unwrap();
    fill(&mut registry, "n", &["100000", "x"]).unwrap();
}

#[test]
fn with_a_template_go_its_entries_and_what_it_made_can_be_revoked() {
    let mut registry = with([template("n", PATTERN), workload_entry("n", "spiffe://acme.test/kept", None)]);
    fill(&mut registry, "n", &["1", "x"]).unwrap();
    let revoked = execute(&mut registry, Command::Revoke(Revoke::Entry(parse("e1-1")))).unwrap();
    assert_eq!(revoked.changes.len(), 1);
    assert!(registry.revocations().contains_key(&Revoked::Identity(id("spiffe://acme.test/svc/1/x"))));
    let amendment = Amendment {
        id: parse("e1-1"),
        selectors: None,
        ttl: None,
        jwt_ttl: None,
        hint: None,
        dns_names: None,
        federates_with: None,
        admin: Some(true),
    };
    let amended = execute(&mut registry, Command::AmendEntry(Box::new(amendment)));
    assert!(matches!(amended, Err(Refusal::IsTemplate(_))));
    execute(&mut registry, Command::RemoveEntry(parse("e1-1"))).unwrap();
    let left: Vec<_> = registry.entries().map(|entry| entry.spiffe_id.path().to_owned()).collect();
    assert_eq!(left, ["/kept"]);
    assert!(registry.view(&parse("n")).templates.is_empty());
}

#[test]
fn a_node_is_told_of_its_templates_alone() {
    let mut registry = with([template("n", PATTERN)]);
    let (before, others) = (registry.view(&parse("n")), registry.view(&parse("other")));
    assert_eq!((before.templates.len(), others.templates.len()), (1, 0));
    execute(&mut registry, Command::RemoveEntry(parse("e1-1"))).unwrap();
    assert!(registry.may_have_changed(&before));
    let change = before.change_to(&registry.view(&parse("n"))).unwrap();
    assert_eq!(change.templates_removed, [parse("e1-1")]);
}
