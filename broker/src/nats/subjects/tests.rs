use proptest::prelude::*;

use super::*;
use crate::nats::permissions::matches;

fn lattice() -> Lattice {
    "prod".parse().unwrap()
}

fn id(text: &str) -> ComponentId {
    text.parse().unwrap()
}

fn host_id(name: &str) -> SpiffeId {
    portcullis_identity::parse_spiffe_id(&format!("spiffe://acme.test/host/{name}")).unwrap()
}

fn target(text: &str) -> Target {
    format!("prod/{text}").parse().unwrap()
}

fn publishes(all: &Permissions, subject: &str) -> bool {
    all.published().any(|pattern| matches(pattern, subject))
}

/// Whether a subscription of `subject`, plain or in `queue`, is allowed, as a server judges it.
fn subscribes(all: &Permissions, subject: &str, queue: Option<&str>) -> bool {
    all.subscribed().any(|allowed| match allowed.split_once(' ') {
        None => matches(allowed, subject),
        Some((pattern, group)) => queue == Some(group) && matches(pattern, subject),
    })
}

fn shop() -> Permissions {
    let serving = vec![Serving { target: target("shop"), callers: vec![id("alice")] }];
    let calling =
        vec![Calling { lattice: lattice(), name: id("shop"), reach: vec![id("pay")], hosted: Hosted::OutOfReach }];
    member(&Part { serving, calling })
}

fn every_class() -> Vec<(&'static str, Permissions)> {
    vec![
        ("host", host(&lattice(), &host_id("one"))),
        ("member", shop()),
        ("provider", provider(&lattice(), &id("http"))),
        ("operator", operator(&lattice())),
        ("wadm", wadm(&lattice())),
        ("broker", broker()),
        ("node", node(&[Part { serving: vec![], ..Part::default() }])),
    ]
}

#[test]
fn a_virtual_component_is_served_by_its_own_identity_in_its_queue_group_alone() {
    let call = "prod.vc.shop.alice.wrpc.0.0.1.a:b/c@1.0.0.get";
    assert!(subscribes(&shop(), call, Some("prod.vc.shop")));
    assert!(!subscribes(&shop(), call, None));
    assert!(!subscribes(&shop(), call, Some("prod.vc.pay")));
    assert!(!subscribes(&shop(), "prod.vc.pay.alice.wrpc.0.0.1.x.y", Some("prod.vc.pay")));
    for (class, all) in every_class().into_iter().filter(|(class, _)| *class != "member") {
        for queue in [None, Some("prod.vc.shop")] {
            assert!(!subscribes(&all, call, queue), "{class}");
        }
    }
}

#[test]
fn a_caller_publishes_under_its_own_name_to_what_it_may_reach_alone() {
    assert!(publishes(&shop(), "prod.vc.pay.shop.wrpc.0.0.1.x.y"));
    for refused in [
        "prod.vc.pay.alice.wrpc.0.0.1.x.y",
        "prod.vc.pay.host.wrpc.0.0.1.x.y",
        "prod.vc.bank.shop.wrpc.0.0.1.x.y",
        "other.vc.pay.shop.wrpc.0.0.1.x.y",
        "prod.pay.wrpc.0.0.1.x.y",
        "_I.prod.bob.1.results",
        "$JS.API.CONSUMER.CREATE.KV_LATTICEDATA_prod",
        "$JS.API.STREAM.CREATE.x",
        "$KV.LATTICEDATA_prod.COMPONENT_x",
        "wasmbus.evt.prod.x",
        "portcullis.links.prod.pay",
    ] {
        assert!(!publishes(&shop(), refused), "{refused}");
    }
    // Its own inbox, those of its callers, and the hosts'.
    for allowed in ["_I.prod.shop.1", "_I.prod.alice.1.results", "_INBOX.a.b.results"] {
        assert!(publishes(&shop(), allowed), "{allowed}");
    }
}

#[test]
fn hosts_call_under_the_reserved_name_alone() {
    let host = host(&lattice(), &host_id("one"));
    assert!(publishes(&host, "prod.vc.shop.host.wrpc.0.0.1.x.y"));
    assert!(publishes(&host, "prod.some-component.wrpc.0.0.1.x.y"));
    for refused in [
        "prod.vc.shop.alice.wrpc.0.0.1.x.y",
        "other.vc.shop.host.wrpc.0.0.1.x.y",
        "$JS.API.STREAM.CREATE.KV_LATTICEDATA_prod",
        "$JS.API.STREAM.UPDATE.KV_LATTICEDATA_prod",
        "$JS.API.CONSUMER.CREATE.other",
        "$KV.LATTICEDATA_other.x",
    ] {
        assert!(!publishes(&host, refused), "{refused}");
    }
}

#[test]
fn nobody_but_operators_and_wadm_commands_the_lattice() {
    for (class, all) in every_class() {
        let commands = publishes(&all, "wasmbus.ctl.v1.prod.component.scale.N");
        assert_eq!(commands, ["operator", "wadm"].contains(&class), "{class}");
        assert!(!publishes(&all, "wasmbus.ctl.v1.other.component.scale.N"), "{class}");
    }
}

#[test]
fn nobody_reads_another_identity_s_inbox() {
    for (class, all) in every_class() {
        for inbox in ["_I.prod.alice.1", "_I.prod.>", "_I.>", ">", "*.>", "_B.x", "$SYS.REQ.USER.AUTH"] {
            let own = class == "broker" && inbox == "_B.x";
            assert_eq!(subscribes(&all, inbox, None), own, "{class} {inbox}");
        }
    }
}

#[test]
fn nobody_speaks_to_the_callout_or_the_system() {
    for (class, all) in every_class() {
        for subject in ["$SYS.REQ.USER.AUTH", "$SYS.REQ.SERVER.X.KICK", "$SYS.REQ.ACCOUNT.X.CLAIMS.UPDATE"] {
            assert!(!publishes(&all, subject), "{class} {subject}");
        }
    }
}

#[test]
fn a_long_list_becomes_one_pattern_under_the_same_name() {
    let reach: Vec<_> = (0..=MAX_LISTED).map(|number| id(&format!("c{number}"))).collect();
    let calling = vec![Calling { lattice: lattice(), name: id("x"), reach, hosted: Hosted::OutOfReach }];
    let all = node(&[Part { calling, ..Part::default() }]);
    assert!(all.published().count() < 5);
    assert!(publishes(&all, "prod.vc.c7.x.wrpc.0.0.1.i.f") && !publishes(&all, "prod.vc.c7.y.wrpc.0.0.1.i.f"));
}

proptest! {
    /// Whatever the names: what one identity may do, another may not do in its place.
    #[test]
    fn no_two_names_overlap(one in "[A-Za-z0-9_-]{1,8}", other in "[A-Za-z0-9_-]{1,8}", callee in "[A-Za-z0-9_-]{1,8}") {
        prop_assume!(one != other);
        let (Ok(one), Ok(other), Ok(callee)) =
            (one.parse::<ComponentId>(), other.parse::<ComponentId>(), callee.parse::<ComponentId>()) else { return Ok(()) };
        let part = |name: &ComponentId| Part {
            serving: vec![Serving { target: Target { lattice: lattice(), id: name.clone() }, callers: vec![] }],
            calling: vec![Calling { lattice: lattice(), name: name.clone(), reach: vec![callee.clone()], hosted: Hosted::Callable }],
        };
        let (mine, theirs) = (member(&part(&one)), member(&part(&other)));
        let call = format!("prod.vc.{callee}.{other}.wrpc.0.0.1.a.b");
        prop_assert!(publishes(&theirs, &call) && !publishes(&mine, &call));
        let queue = format!("prod.vc.{other}");
        let served = format!("prod.vc.{other}.x.wrpc.0.0.1.a.b");
        prop_assert!(subscribes(&theirs, &served, Some(&queue)) && !subscribes(&mine, &served, Some(&queue)));
        let answer = format!("_I.prod.{other}.1");
        prop_assert!(subscribes(&theirs, &answer, None) && !subscribes(&mine, &answer, None));
    }
}

#[test]
fn hosts_alone_ask_what_they_may_start_and_brokers_alone_say_that_it_changed() {
    let (one, two) = (host_id("one"), host_id("two"));
    let (ask, own, others) =
        (questions(&lattice(), None), questions(&lattice(), Some(&one)), questions(&lattice(), Some(&two)));
    assert_eq!(own.len(), "portcullis.policy.prod.ask.".len() + 32);
    for (class, all) in every_class() {
        let (is_host, is_broker) = (class == "host", class == "broker");
        assert_eq!((publishes(&all, &ask), publishes(&all, &own)), (is_host, is_host), "{class}");
        assert!(!publishes(&all, &others), "{class}");
        assert_eq!(publishes(&all, &changes(&lattice())), is_broker, "{class}");
        assert_eq!(subscribes(&all, &changes(&lattice()), None), is_host, "{class}");
        for subject in [&ask, &own] {
            assert!(!subscribes(&all, subject, None), "{class}");
            assert_eq!(subscribes(&all, subject, Some(QUESTIONS_QUEUE)), is_broker, "{class}");
        }
        assert!(!publishes(&all, "portcullis.policy.other.ask"), "{class}");
    }
}

/// A server holds nobody to the subject on which JetStream answers him.
#[test]
fn nobody_asks_jetstream_but_hosts_wadm_and_brokers() {
    for (class, all) in every_class() {
        let asks = all.published().any(|pattern| pattern.starts_with('$') || pattern.starts_with('>'));
        assert_eq!(asks, ["host", "wadm", "broker"].contains(&class), "{class}");
    }
}

#[test]
fn members_ask_for_their_own_links_alone() {
    for (class, all) in every_class() {
        assert_eq!(publishes(&all, &links(&target("shop"))), class == "member", "{class}");
        assert!(!publishes(&all, &links(&target("pay"))), "{class}");
        assert_eq!(subscribes(&all, LINKS, Some(LINKS_QUEUE)), class == "broker", "{class}");
        assert!(!subscribes(&all, LINKS, None), "{class}");
    }
}
