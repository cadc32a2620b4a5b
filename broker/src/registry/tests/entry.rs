//! Entries with terms: what makes two of them one, and what altering one does.

use super::*;

fn texts(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

fn terms(selectors: &[&str]) -> Terms {
    Terms { selectors: texts(selectors).try_into().unwrap(), ..Terms::new(Ttl::DEFAULT) }
}

fn attested(node: &str, selectors: &[&str]) -> Command {
    let spiffe_id = id("spiffe://acme.test/redis");
    let holder = Holder::Workload { spiffe_id, lattice: None, digest: Digest::NotApplicable };
    Command::CreateEntry(Box::new(NewEntry { node: parse(node), holder, terms: terms(selectors) }))
}

fn unchanged(id: &str) -> Amendment {
    Amendment {
        id: parse(id),
        selectors: None,
        ttl: None,
        jwt_ttl: None,
        hint: None,
        dns_names: None,
        federates_with: None,
        admin: None,
    }
}

fn amend(registry: &mut Registry, amendment: Amendment) -> Result<Plan, Refusal> {
    execute(registry, Command::AmendEntry(Box::new(amendment)))
}

#[test]
fn one_identity_may_be_earned_in_several_ways_and_each_is_written_once() {
    let mut registry = with([attested("n", &["unix:uid:1", "unix:gid:1"]), attested("n", &["unix:uid:2"])]);
    assert_eq!(registry.entries().len(), 2);
    let again = execute(&mut registry, attested("n", &["unix:gid:1", "unix:uid:1"])).unwrap();
    assert_eq!((again.changes.len(), again.entries), (0, vec![parse("e1-1")]));
    execute(&mut registry, attested("other", &["unix:uid:1", "unix:gid:1"])).unwrap();
    let hinted = Terms { hint: parse("x"), ..terms(&["unix:uid:2"]) };
    let holder =
        Holder::Workload { spiffe_id: id("spiffe://acme.test/redis"), lattice: None, digest: Digest::NotApplicable };
    let command = Command::CreateEntry(Box::new(NewEntry { node: parse("n"), holder, terms: hinted }));
    let refused = execute(&mut registry, command).unwrap_err().to_string();
    assert!(refused.contains("entry update e1-2"), "{refused}");
}

#[test]
fn an_entry_is_altered_in_what_is_said_and_in_nothing_else() {
    let mut registry = with([attested("n", &["unix:uid:1"])]);
    let before = Entry::clone(registry.entry(&parse("e1-1")).unwrap());
    let amendment = Amendment {
        hint: Some(parse("primary")),
        dns_names: Some(texts(&["redis.acme.test"]).try_into().unwrap()),
        jwt_ttl: Some(60.try_into().unwrap()),
        ..unchanged("e1-1")
    };
    amend(&mut registry, amendment.clone()).unwrap();
    let after = registry.entry(&parse("e1-1")).unwrap();
    let expected = Terms {
        hint: parse("primary"),
        dns_names: texts(&["redis.acme.test"]).try_into().unwrap(),
        jwt_ttl: 60.try_into().unwrap(),
        ..before.terms.clone()
    };
    assert_eq!(**after, Entry { terms: expected, ..before });
    assert!(amend(&mut registry, amendment).unwrap().changes.is_empty(), "said again it changes nothing");
    assert!(amend(&mut registry, unchanged("e1-1")).unwrap().changes.is_empty());
    assert!(matches!(amend(&mut registry, unchanged("e1-9")), Err(Refusal::NoEntry(_))));
}

#[test]
fn no_entry_is_altered_into_another() {
    let mut registry = with([attested("n", &["unix:uid:1"]), attested("n", &["unix:uid:2"])]);
    let twin = Amendment { selectors: Some(texts(&["unix:uid:1"]).try_into().unwrap()), ..unchanged("e1-2") };
    let refused = amend(&mut registry, twin);
    assert!(matches!(refused, Err(Refusal::EntryExists { id }) if id.to_string() == "e1-1"));
}

#[test]
fn a_change_of_an_entry_is_seen_by_its_node_alone() {
    let mut registry = with([attested("n", &["unix:uid:1"]), attested("other", &["unix:uid:1"])]);
    let (mine, others) = (registry.view(&parse("n")), registry.view(&parse("other")));
    amend(&mut registry, Amendment { admin: Some(true), ..unchanged("e1-1") }).unwrap();
    assert!(registry.may_have_changed(&mine) && !registry.may_have_changed(&others));
    let change = mine.change_to(&registry.view(&parse("n"))).unwrap();
    assert_eq!(change.entries.len(), 1);
    assert!(change.entries[0].terms.admin);
    assert!(others.change_to(&registry.view(&parse("other"))).is_none());
}

#[test]
fn nobody_federates_with_the_own_trust_domain() {
    let mut registry = with([attested("n", &[])]);
    let own = Amendment { federates_with: Some(texts(&["acme.test"]).try_into().unwrap()), ..unchanged("e1-1") };
    assert!(matches!(amend(&mut registry, own), Err(Refusal::OwnTrustDomain(_))));
    let unknown_yet = Amendment { federates_with: Some(texts(&["b.test"]).try_into().unwrap()), ..unchanged("e1-1") };
    amend(&mut registry, unknown_yet).unwrap();
}

#[test]
fn registering_a_component_again_leaves_the_terms_of_its_entry_alone() {
    let mut registry = with([register("prod/billing", Some("sidecar"))]);
    amend(&mut registry, Amendment { hint: Some(parse("x")), ..unchanged("e1-1") }).unwrap();
    assert!(execute(&mut registry, register("prod/billing", Some("sidecar"))).unwrap().changes.is_empty());
    let shorter = Registration {
        ttl: Ttl::try_from(60).unwrap(),
        present: Present::Replace,
        ..registration("prod/billing", Some("sidecar"))
    };
    execute(&mut registry, Command::RegisterComponent(Box::new(shorter))).unwrap();
    let terms = &registry.entry(&parse("e1-1")).unwrap().terms;
    assert_eq!((terms.ttl.seconds(), terms.hint.as_str()), (60, "x"));
}

fn many(entries: &[(&str, &str)]) -> Command {
    let entry = |(node, spiffe_id): &(&str, &str)| NewEntry {
        node: parse(node),
        holder: Holder::Workload { spiffe_id: id(spiffe_id), lattice: None, digest: Digest::NotApplicable },
        terms: Terms::new(Ttl::DEFAULT),
    };
    Command::CreateEntries(entries.iter().map(entry).collect())
}

#[test]
fn many_entries_are_one_change_and_each_has_a_name_that_no_later_one_gets() {
    let mut registry = empty();
    let plan = execute(
        &mut registry,
        many(&[("n", "spiffe://acme.test/a"), ("n", "spiffe://acme.test/b"), ("n", "spiffe://acme.test/a")]),
    )
    .unwrap();
    assert_eq!(plan.entries, ["e1-1", "e1-2", "e1-1"].map(parse));
    assert_eq!((registry.entries().len(), registry.version().epoch), (2, 2));
    let plan = execute(&mut registry, many(&[("n", "spiffe://acme.test/b"), ("m", "spiffe://acme.test/b")])).unwrap();
    assert_eq!(plan.entries, ["e1-2", "e1-3"].map(parse));
    assert_eq!(registry.version().epoch, 3);
    let again = execute(&mut registry, many(&[("m", "spiffe://acme.test/b")])).unwrap();
    assert!(again.changes.is_empty());
}

#[test]
fn of_many_entries_all_are_made_or_none() {
    let mut registry = empty();
    for wrong in ["spiffe://other.test/x", "spiffe://acme.test/portcullis/broker", "spiffe://acme.test"] {
        execute(&mut registry, many(&[("n", "spiffe://acme.test/a"), ("n", wrong)])).unwrap_err();
    }
    let too_many = vec![("n", "spiffe://acme.test/a"); 1001];
    assert!(matches!(execute(&mut registry, many(&too_many)), Err(Refusal::TooMany { .. })));
    assert_eq!((registry.entries().len(), registry.version()), (0, Version::FIRST));
}
