//! The operator service: what it refuses, and that a refusal changes nothing.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use portcullis_api::v1;
use portcullis_broker::config::Config;
use portcullis_broker::{Daemon, StartError};
use tokio::net::TcpListener;
use tonic::Code;

use crate::lab::{Lab, entry, policies, registration, target};

/// The CA file whose name ends so; the root's is shorter than the signing certificate's.
fn ca_file(data: &Path, suffix: &str) -> PathBuf {
    let files = std::fs::read_dir(data.join("ca")).unwrap().map(|entry| entry.unwrap().path());
    let of_suffix = files.filter(|path| path.to_string_lossy().ends_with(suffix));
    of_suffix.min_by_key(|path| path.to_string_lossy().len()).unwrap()
}

/// The epoch in which a new broker begins to serve: its two authorities are changes, too.
const BEGINNING: u64 = 2;

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[tokio::test]
async fn data_and_socket_are_for_their_owner_alone() {
    let lab = Lab::start().await;
    assert_eq!(mode(&lab.data()), 0o700);
    assert_eq!(mode(lab.socket()), 0o600);
    for path in [ca_file(&lab.data(), ".pem"), ca_file(&lab.data(), ".key"), lab.data().join("store.redb")] {
        assert_eq!(mode(&path), 0o600, "{path:?}");
    }
    assert_eq!(mode(&lab.data().join("bundle.pem")), 0o644);
    assert!(!std::fs::read_to_string(lab.data().join("bundle.pem")).unwrap().contains("PRIVATE"));
}

#[tokio::test]
async fn a_data_folder_has_one_broker() {
    let lab = Lab::start().await;
    let config = Config::new("acme.test", &lab.data()).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    assert!(matches!(Daemon::start(config, listener), Err(StartError::DataFolder(_))));
    lab.operator().await.status(v1::StatusRequest {}).await.expect("the first one goes on");
}

async fn restarted(lab: Lab, trust_domain: &str, damage: impl FnOnce(&Path)) -> String {
    let folder = lab.stop().await;
    let data = folder.path().join("data");
    damage(&data);
    let config = Config::new(trust_domain, &data).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    Daemon::start(config, listener).unwrap_err().to_string()
}

#[tokio::test]
async fn a_damaged_data_folder_is_not_served_from() {
    let error = restarted(Lab::start().await, "other.test", |_| {}).await;
    assert!(error.contains("acme.test"), "{error}");
    let lose = |data: &Path| std::fs::remove_dir_all(data.join("ca")).unwrap();
    let error = restarted(Lab::start().await, "acme.test", lose).await;
    assert!(error.contains("the key of its CA is not in `ca`"), "{error}");
    let lose_one = |data: &Path| std::fs::remove_file(ca_file(data, ".pem")).unwrap();
    let error = restarted(Lab::start().await, "acme.test", lose_one).await;
    assert!(error.contains("the key of its CA is not in `ca`"), "{error}");
    let cut = |data: &Path| std::fs::write(ca_file(data, "-signing.pem"), "-----BEGIN").unwrap();
    let error = restarted(Lab::start().await, "acme.test", cut).await;
    assert!(error.contains("-signing.pem") && error.contains("damaged"), "{error}");
}

#[tokio::test]
async fn bad_policies_change_nothing_and_every_mistake_is_listed() {
    let lab = Lab::start().await;
    let mut operator = lab.operator().await;
    operator.register_component(registration("prod/billing", "")).await.unwrap();
    let good = policies("a.cedar", "permit (principal, action, resource == VirtualComponent::\"prod/billing\");");
    let version = operator.put_policies(good).await.unwrap().into_inner().version;
    let bad = "permit (principal, action == Action::\"acme:billing/invoices@1.0.0#gett\", resource);\n\
               permit (principal, action, resource) when { context.no_such };\n\
               permit (principal, action, resource == VirtualComponent::\"prod/biling\");\n";
    let mut request = policies("a.cedar", bad);
    request.files.push(v1::PolicyFile { name: "b.cedar".to_owned(), text: "permit (principal".to_owned() });
    for reply in [operator.check_policies(request.clone()).await, operator.put_policies(request.clone()).await] {
        let reply = reply.unwrap().into_inner();
        let places: Vec<_> = reply.problems.iter().map(|problem| (problem.file.as_str(), problem.line)).collect();
        for place in [("a.cedar", 1), ("a.cedar", 2), ("a.cedar", 3), ("b.cedar", 1)] {
            assert!(places.contains(&place), "{place:?} is not among {places:?}");
        }
        assert_eq!(reply.version, version);
    }
    let listed = operator.list_policies(v1::ListPoliciesRequest {}).await.unwrap().into_inner();
    assert_eq!(listed.files.len(), 1);
    assert!(listed.files[0].text.starts_with("permit (principal, action, resource == "));
}

#[tokio::test]
async fn a_check_keeps_nothing() {
    let lab = Lab::start().await;
    let mut operator = lab.operator().await;
    let reply = operator.check_policies(policies("a.cedar", "permit (principal, action, resource);")).await.unwrap();
    assert!(reply.into_inner().problems.is_empty());
    assert!(operator.list_policies(v1::ListPoliciesRequest {}).await.unwrap().into_inner().files.is_empty());
}

#[tokio::test]
async fn what_policies_rest_on_is_not_removed() {
    let lab = Lab::start().await;
    let mut operator = lab.operator().await;
    operator.register_component(registration("prod/billing", "")).await.unwrap();
    let text = r#"@id("keeper") permit (principal, action == Action::"acme:billing/invoices@1.0.0#get", resource);"#;
    operator.put_policies(policies("a.cedar", text)).await.unwrap();
    let remove = v1::RemoveComponentRequest { target: Some(target("prod/billing")) };
    let refused = operator.remove_component(remove).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(refused.message().contains("keeper") && refused.message().contains("a.cedar"), "{refused}");
}

#[tokio::test]
async fn reserved_and_foreign_ids_are_refused() {
    let lab = Lab::start().await;
    let mut operator = lab.operator().await;
    for (spiffe_id, code) in [
        ("spiffe://acme.test/portcullis/broker", Code::PermissionDenied),
        ("spiffe://acme.test/portcullis/node/n2", Code::PermissionDenied),
        ("spiffe://other.test/x", Code::InvalidArgument),
        ("spiffe://acme.test", Code::InvalidArgument),
        ("spiffe://acme.test/a/../portcullis/broker", Code::InvalidArgument),
        ("spiffe://ACME.test/x", Code::InvalidArgument),
        ("spiffe://acme.test/%70ortcullis/broker", Code::InvalidArgument),
    ] {
        let request = v1::CreateEntryRequest {
            node: "n1".to_owned(),
            spiffe_id: spiffe_id.to_owned(),
            ..v1::CreateEntryRequest::default()
        };
        let refused = operator.create_entry(request).await.unwrap_err();
        assert_eq!(refused.code(), code, "{spiffe_id}: {refused}");
        let request =
            v1::RegisterComponentRequest { spiffe_id: spiffe_id.to_owned(), ..registration("prod/billing", "") };
        assert_eq!(operator.register_component(request).await.unwrap_err().code(), code, "{spiffe_id}");
    }
    let status = operator.status(v1::StatusRequest {}).await.unwrap().into_inner();
    assert_eq!((status.components, status.entries, status.version.unwrap().epoch), (0, 0, BEGINNING));
}

#[tokio::test]
async fn messages_that_cannot_be_are_refused() {
    let lab = Lab::start().await;
    let mut operator = lab.operator().await;
    let good = registration("prod/billing", "n1");
    for (bad, problem) in [
        (v1::RegisterComponentRequest { target: None, ..good.clone() }, "missing"),
        (v1::RegisterComponentRequest { target: Some(target("prod/vc")), ..good.clone() }, "reserved"),
        (v1::RegisterComponentRequest { target: Some(target("pr.od/x")), ..good.clone() }, "pr.od"),
        (v1::RegisterComponentRequest { upstream: 0, ..good.clone() }, "typed or spliced"),
        (v1::RegisterComponentRequest { x509_ttl_seconds: 4, ..good.clone() }, "4 seconds"),
        (v1::RegisterComponentRequest { wit: Vec::new(), ..good.clone() }, "WIT"),
        (v1::RegisterComponentRequest { node: "a/b".to_owned(), ..good.clone() }, "a/b"),
    ] {
        let refused = operator.register_component(bad).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
        assert!(refused.message().contains(problem), "{problem}: {refused}");
    }
}

#[tokio::test]
async fn an_entry_names_one_holder_and_a_component_its_file() {
    let lab = Lab::start().await;
    let mut operator = lab.operator().await;
    let both = v1::CreateEntryRequest { spiffe_id: "spiffe://acme.test/x".to_owned(), ..entry("n1", "prod/x") };
    let neither = v1::CreateEntryRequest { component: None, danger_any_digest: false, ..entry("n1", "prod/x") };
    let careless = v1::CreateEntryRequest { danger_any_digest: false, ..entry("n1", "prod/x") };
    for bad in [both, neither, careless] {
        assert_eq!(operator.create_entry(bad).await.unwrap_err().code(), Code::InvalidArgument);
    }
}

#[tokio::test]
async fn a_decision_is_explained() {
    let lab = Lab::start().await;
    let mut operator = lab.operator().await;
    operator.register_component(registration("prod/billing", "")).await.unwrap();
    let text = r#"@id("granted") permit (principal is Workload, action, resource) when { resource.grants.contains(principal) };
        @id("no-totals") @advice("totals are for auditors")
        forbid (principal, action == Action::"acme:billing/invoices@1.0.0#total", resource);"#;
    let reply = operator.put_policies(policies("a.cedar", text)).await.unwrap().into_inner();
    assert_eq!((reply.problems.len(), reply.policy_ids.len()), (0, 2), "{:?}", reply.problems);
    let caller = "spiffe://acme.test/component/prod/checkout";
    let grant =
        v1::ChangeGrantRequest { target: Some(target("prod/billing")), spiffe_id: caller.to_owned(), granted: true };
    operator.change_grant(grant).await.unwrap();
    let ask = |principal: &str, function: &str| v1::ExplainRequest {
        principal: principal.to_owned(),
        target: Some(target("prod/billing")),
        instance: "acme:billing/invoices@1.0.0".to_owned(),
        function: function.to_owned(),
        ..v1::ExplainRequest::default()
    };
    let allowed = operator.explain(ask(caller, "get")).await.unwrap().into_inner();
    assert!(allowed.allowed && allowed.reasons[0].policy == "granted", "{allowed:?}");
    let forbidden = operator.explain(ask(caller, "total")).await.unwrap().into_inner();
    assert!(!forbidden.allowed);
    assert_eq!(forbidden.reasons[0].advice, "totals are for auditors");
    let stranger = operator.explain(ask("spiffe://acme.test/x", "get")).await.unwrap().into_inner();
    assert!(!stranger.allowed && stranger.reasons.is_empty() && !stranger.summary.is_empty(), "{stranger:?}");
    assert_eq!(operator.explain(ask(caller, "steal")).await.unwrap_err().code(), Code::InvalidArgument);
}
