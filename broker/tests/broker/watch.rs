//! The stream that a node holds: D2.

use portcullis_api::v1::{self, watch_reply, watch_request};
use tonic::Code;

use crate::lab::{Lab, Watch, entry, hello, policies, registration, soon, stranger, target};

const PERMIT: &str =
    r#"@id("all") permit (principal is Workload, action, resource == VirtualComponent::"prod/billing");"#;

#[tokio::test]
async fn a_node_gets_its_state_and_then_what_changes() {
    let lab = Lab::start().await;
    let mut operator = lab.operator().await;
    operator.register_component(registration("prod/billing", "sidecar")).await.unwrap();
    operator.register_component(registration("test/billing", "elsewhere")).await.unwrap();
    let (mut watch, state) = lab.watching("sidecar").await;
    assert_eq!(state.entries.len(), 1);
    assert_eq!(state.entries[0].spiffe_id, "spiffe://acme.test/virtual/prod/billing");
    assert_eq!(state.components.len(), 1, "the other lattice is not to be seen");
    assert_eq!(state.served.len(), 1);
    assert_eq!(state.served[0].wit[0].text, crate::lab::WIT);
    assert!(state.served[0].policies.is_empty());
    assert_eq!(state.bundles[0].x509_authorities.len(), 1);
    let before = state.version.unwrap();

    let reply = operator.put_policies(policies("a.cedar", PERMIT)).await.unwrap().into_inner();
    assert!(reply.problems.is_empty(), "{:?}", reply.problems);
    let change = watch.change().await;
    assert_eq!(change.version, reply.version);
    assert_eq!(change.version.unwrap().incarnation, before.incarnation);
    assert!(change.version.unwrap().epoch > before.epoch);
    assert_eq!(change.served[0].policies[0].id, "all");
    assert!(change.entries.is_empty() && change.components.is_empty() && change.bundles.is_empty());

    let caller = "spiffe://acme.test/component/prod/checkout".to_owned();
    let grant =
        v1::ChangeGrantRequest { target: Some(target("prod/billing")), spiffe_id: caller.clone(), granted: true };
    operator.change_grant(grant).await.unwrap();
    assert_eq!(watch.change().await.served[0].grants, [caller]);

    operator.register_component(registration("prod/stock", "elsewhere")).await.unwrap();
    let change = watch.change().await;
    assert_eq!(change.components[0].target, Some(target("prod/stock")));
    assert!(change.served.is_empty());

    operator.remove_policies(v1::RemovePoliciesRequest { file: "a.cedar".to_owned() }).await.unwrap();
    assert!(watch.change().await.served[0].policies.is_empty());
    let gone = v1::RemoveComponentRequest { target: Some(target("prod/billing")) };
    operator.remove_component(gone).await.unwrap();
    let change = watch.change().await;
    // With the entry goes the sight of the lattice.
    assert_eq!(change.components_removed, [target("prod/billing"), target("prod/stock")]);
    assert_eq!(change.served_removed, [target("prod/billing")]);
    assert_eq!(change.entries_removed.len(), 1);
}

#[tokio::test]
async fn what_a_node_cannot_see_is_not_sent_to_it() {
    let lab = Lab::start().await;
    let mut operator = lab.operator().await;
    operator.register_component(registration("prod/billing", "sidecar")).await.unwrap();
    let (mut watch, _) = lab.watching("sidecar").await;
    operator.register_component(registration("test/billing", "elsewhere")).await.unwrap();
    operator.create_entry(entry("host", "test/checkout")).await.unwrap();
    let reply = operator.create_entry(entry("sidecar", "prod/checkout")).await.unwrap().into_inner();
    let change = watch.change().await;
    assert_eq!(change.version, reply.version, "the first change to come is the last that was made");
    assert_eq!(change.entries.len(), 1);
}

#[tokio::test]
async fn a_sidecar_says_where_it_serves_and_callers_learn_it() {
    let lab = Lab::start().await;
    let mut operator = lab.operator().await;
    operator.register_component(registration("prod/billing", "sidecar")).await.unwrap();
    operator.create_entry(entry("host", "prod/checkout")).await.unwrap();
    let (mut sidecar, _) = lab.watching("sidecar").await;
    let (mut host, state) = lab.watching("host").await;
    assert!(state.served.is_empty() && state.components[0].addresses.is_empty());
    sidecar.announce("prod/billing", &["127.0.0.1:7500"]).await;
    assert_eq!(host.change().await.components[0].addresses, ["127.0.0.1:7500"]);
    assert_eq!(sidecar.change().await.served[0].record.clone().unwrap().addresses, ["127.0.0.1:7500"]);

    for (name, address, problem) in [
        ("prod/billing", "nowhere", "not an address"),
        ("prod/billing", "0.0.0.0:7500", "not an address"),
        ("prod/other", "127.0.0.1:1", "has no entry"),
    ] {
        sidecar.announce(name, &[address]).await;
        match sidecar.hear().await.unwrap() {
            watch_reply::Message::AnnounceRefused(refused) => {
                assert!(refused.reason.contains(problem), "{}", refused.reason);
                assert_eq!(refused.target, Some(target(name)));
            }
            other => panic!("not a refusal: {other:?}"),
        }
    }
    host.announce("prod/billing", &["127.0.0.1:666"]).await;
    assert!(matches!(host.hear().await.unwrap(), watch_reply::Message::AnnounceRefused(_)));
    sidecar.announce("prod/billing", &[]).await;
    assert!(host.change().await.components[0].addresses.is_empty());
}

#[tokio::test]
async fn nobody_but_a_registered_node_may_watch() {
    let lab = Lab::start().await;
    let mut operator = lab.operator().await;
    let token = lab.token("n1").await;
    let mut anonymous = stranger(&token).await;
    let refused = Watch::open(&mut anonymous).await.err().unwrap();
    assert_eq!(refused.code(), Code::Unauthenticated, "{refused}");
    let describe = v1::DescribeRequest { target: Some(target("prod/billing")) };
    assert_eq!(anonymous.describe(describe.clone()).await.unwrap_err().code(), Code::Unauthenticated);

    // An SVID of this trust domain, and yet not a node's.
    let reply = operator.create_entry(entry("host", "prod/checkout")).await.unwrap().into_inner();
    let (mut host, _) = lab.watching("host").await;
    let workload = host.sign(&reply.entry.unwrap().id).await.unwrap();
    let mut workload = lab.node(workload).await;
    let refused = Watch::open(&mut workload).await.err().unwrap();
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
    assert_eq!(workload.describe(describe).await.unwrap_err().code(), Code::PermissionDenied);
}

#[tokio::test]
async fn a_removed_node_is_cut_off_and_stays_out() {
    let lab = Lab::start().await;
    let mut client = lab.joined("n1").await;
    let mut watch = Watch::open(&mut client).await.unwrap();
    watch.state().await;
    lab.operator().await.remove_node(v1::RemoveNodeRequest { name: "n1".to_owned() }).await.unwrap();
    watch.hear().await.unwrap_err();
    // The channel may first have to notice that its connection is gone.
    let refused = loop {
        let refused = Watch::open(&mut client).await.err().unwrap();
        if refused.code() == Code::PermissionDenied {
            break refused;
        }
    };
    assert!(refused.message().contains("not registered"), "{refused}");
}

#[tokio::test]
async fn a_stream_begins_with_one_hello() {
    let lab = Lab::start().await;
    let mut client = lab.joined("n1").await;
    let first = |message| {
        let mut client = client.clone();
        async move {
            let mut watch = Watch::open_silently(&mut client).await.unwrap();
            watch.say(message).await;
            watch.hear().await.unwrap_err()
        }
    };
    let applied = watch_request::Message::Applied(v1::Version { incarnation: 1, epoch: 1 });
    assert_eq!(first(applied).await.code(), Code::InvalidArgument);
    assert_eq!(first(watch_request::Message::Hello(v1::Hello::default())).await.code(), Code::InvalidArgument);
    let mut silent = Watch::open_silently(&mut client).await.unwrap();
    assert_eq!(silent.hear().await.unwrap_err().code(), Code::DeadlineExceeded);
    let mut twice = Watch::open(&mut client).await.unwrap();
    twice.state().await;
    twice.say(hello()).await;
    assert_eq!(twice.hear().await.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test]
async fn an_operator_sees_who_is_connected_and_what_is_in_force_there() {
    let lab = Lab::start().await;
    let mut operator = lab.operator().await;
    let (watch, state) = lab.watching("n1").await;
    lab.token("n2").await;
    let version = state.version.unwrap();
    watch.say(watch_request::Message::Applied(version)).await;
    soon(async {
        loop {
            let nodes = operator.list_nodes(v1::ListNodesRequest {}).await.unwrap().into_inner().nodes;
            assert_eq!(nodes.len(), 1, "n2 has a token, and did not join");
            assert!(nodes[0].connected);
            assert_eq!((nodes[0].kind.as_str(), nodes[0].software.as_str()), ("sidecar", "test"));
            if nodes[0].applied == Some(version) {
                break;
            }
        }
    })
    .await;
    assert_eq!(operator.status(v1::StatusRequest {}).await.unwrap().into_inner().nodes_connected, 1);
    drop(watch);
    soon(async { while operator.status(v1::StatusRequest {}).await.unwrap().into_inner().nodes_connected > 0 {} })
        .await;
}

#[tokio::test]
async fn a_slow_reader_gets_the_latest_state_and_not_a_queue() {
    let lab = Lab::start().await;
    let mut operator = lab.operator().await;
    operator.register_component(registration("prod/billing", "sidecar")).await.unwrap();
    let (mut watch, _) = lab.watching("sidecar").await;
    // Each change ships the policy text anew, so that far more is made than the network and the queue hold.
    let long = format!("unless {{ context.transport == \"{}\" }};", "x".repeat(60_000));
    let mut last = None;
    for number in 0..100 {
        let text = PERMIT.replace("all", &format!("p{number}")).replace(';', &long);
        let reply = operator.put_policies(policies("a.cedar", &text)).await.unwrap().into_inner();
        assert!(reply.problems.is_empty(), "{:?}", reply.problems);
        last = reply.version;
    }
    let mut changes = 0;
    loop {
        let change = watch.change().await;
        changes += 1;
        if change.version == last {
            assert_eq!(change.served[0].policies[0].id, "p99");
            break;
        }
    }
    assert!(changes < 100, "every single change was queued");
}

#[tokio::test]
async fn a_component_is_described_to_nodes_of_its_lattice_alone() {
    let lab = Lab::start().await;
    let mut operator = lab.operator().await;
    operator.register_component(registration("prod/billing", "")).await.unwrap();
    operator.create_entry(entry("host", "prod/checkout")).await.unwrap();
    operator.create_entry(entry("outsider", "test/checkout")).await.unwrap();
    let describe = |name: &str| v1::DescribeRequest { target: Some(target(name)) };
    let mut host = lab.joined("host").await;
    let reply = host.describe(describe("prod/billing")).await.unwrap().into_inner();
    assert_eq!(reply.wit[0].text, crate::lab::WIT);
    assert_eq!(reply.record.unwrap().interfaces, ["acme:billing/invoices@1.0.0"]);
    let mut outsider = lab.joined("outsider").await;
    let hidden = outsider.describe(describe("prod/billing")).await.unwrap_err();
    let missing = outsider.describe(describe("prod/missing")).await.unwrap_err();
    assert_eq!(hidden.code(), Code::NotFound);
    assert_eq!(hidden.message().replace("billing", "missing"), missing.message());
}

#[tokio::test]
async fn a_connection_ends_with_the_certificate() {
    let lab = Lab::start_with(|config| config.node_ttl = 5.try_into().unwrap()).await;
    let (mut watch, _) = lab.watching("n1").await;
    watch.hear().await.unwrap_err();
}

#[tokio::test]
async fn streams_are_told_when_the_broker_shuts_down() {
    let lab = Lab::start().await;
    let (mut watch, _) = lab.watching("n1").await;
    let (ended, _folder) = tokio::join!(watch.hear(), lab.stop());
    let ended = ended.unwrap_err();
    assert_eq!(ended.code(), Code::Unavailable, "{ended}");
}
