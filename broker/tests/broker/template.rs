//! Templates: a node says what it attested, the broker says which identity that makes.

use portcullis_api::v1;
use tonic::Code;

use crate::lab::{Lab, Watch};

fn template(node: &str, pattern: &str) -> v1::CreateEntryRequest {
    v1::CreateEntryRequest {
        node: node.to_owned(),
        spiffe_id: pattern.to_owned(),
        x509_ttl_seconds: 60,
        ..v1::CreateEntryRequest::default()
    }
}

fn filling(template: &str, values: &[&str]) -> v1::FillRequest {
    v1::FillRequest { template: template.to_owned(), values: values.iter().map(|&value| value.to_owned()).collect() }
}

const PATTERN: &str = "spiffe://acme.test/svc/{unix:uid}/{systemd:id}";

#[tokio::test]
async fn an_attested_workload_s_entry_is_made_pushed_signed_and_audited() {
    let lab = Lab::start().await;
    let mut operator = lab.operator().await;
    let made = operator.create_entry(template("n1", PATTERN)).await.unwrap().into_inner().entry.unwrap();
    assert_eq!(made.spiffe_id, PATTERN);
    let mut client = lab.joined("n1").await;
    let mut watch = Watch::open(&mut client).await.unwrap();
    let told = watch.state().await;
    assert_eq!((told.templates.len(), told.entries.len()), (1, 0));
    assert_eq!(told.templates[0].pattern, PATTERN);

    let entry = client.fill(filling(&made.id, &["999", "redis.service"])).await.unwrap().into_inner().entry;
    let change = watch.change().await;
    assert_eq!(change.entries[0].id, entry);
    assert_eq!(change.entries[0].selectors, ["systemd:id:redis.service", "unix:uid:999"]);
    let svid = watch.sign(&entry).await.unwrap();
    assert_eq!(svid.id().to_string(), "spiffe://acme.test/svc/999/redis.service");
    // A template itself is never signed for.
    watch.sign(&made.id).await.unwrap_err();

    let listed = operator.list_entries(v1::ListEntriesRequest::default()).await.unwrap().into_inner().entries;
    let listed: Vec<_> = listed.iter().map(|entry| (entry.spiffe_id.as_str(), entry.template.as_str())).collect();
    assert_eq!(listed, [(PATTERN, ""), ("spiffe://acme.test/svc/999/redis.service", made.id.as_str())]);
    operator.remove_entry(v1::RemoveEntryRequest { id: made.id.clone() }).await.unwrap();
    let change = watch.change().await;
    assert_eq!((change.templates_removed, change.entries_removed), (vec![made.id], vec![entry.clone()]));
    let folder = lab.stop().await;
    let log = std::fs::read_dir(folder.path().join("data/audit")).unwrap();
    let log: String = log.map(|file| std::fs::read_to_string(file.unwrap().path()).unwrap_or_default()).collect();
    let line = log.lines().find(|line| line.contains("spiffe://acme.test/svc/999/redis.service on n1")).unwrap();
    assert!(line.contains("\"n1\"") && line.contains(&entry), "{line}");
}

#[tokio::test]
async fn no_value_reaches_beyond_its_segment_and_no_node_beyond_its_templates() {
    let lab = Lab::start().await;
    let mut operator = lab.operator().await;
    let id = operator.create_entry(template("n1", PATTERN)).await.unwrap().into_inner().entry.unwrap().id;
    let (mut n1, mut n2) = (lab.joined("n1").await, lab.joined("n2").await);
    for values in [&["999", "../../portcullis/broker"][..], &["999", ".."], &["999", "a%2fb"], &["999"], &["", "x"]] {
        let refused = n1.fill(filling(&id, values)).await.unwrap_err();
        assert_eq!(refused.code(), Code::FailedPrecondition, "{values:?}: {refused}");
    }
    let refused = n2.fill(filling(&id, &["999", "x"])).await.unwrap_err();
    assert!(refused.message().contains("there is no entry"), "{refused}");
    assert_eq!(n1.fill(filling("../x", &["999", "x"])).await.unwrap_err().code(), Code::InvalidArgument);
    for pattern in [
        "spiffe://acme.test/{unix:uid}",
        "spiffe://acme.test/portcullis/node/{unix:uid}",
        "spiffe://other.test/svc/{unix:uid}",
        "spiffe://acme.test/svc/x{unix:uid}",
        "spiffe://acme.test/svc/{unix:path}",
    ] {
        let refused = operator.create_entry(template("n1", pattern)).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{pattern}: {refused}");
    }
    let entries = operator.list_entries(v1::ListEntriesRequest::default()).await.unwrap().into_inner().entries;
    assert_eq!(entries.len(), 1);
}

#[tokio::test]
async fn templates_and_what_they_made_survive_a_restart() {
    let lab = Lab::start().await;
    let mut operator = lab.operator().await;
    let request = v1::CreateEntryRequest { hint: "primary".to_owned(), ..template("n1", PATTERN) };
    let id = operator.create_entry(request).await.unwrap().into_inner().entry.unwrap().id;
    lab.joined("n1").await.fill(filling(&id, &["1", "x"])).await.unwrap();
    let list = async |lab: &Lab| {
        lab.operator().await.list_entries(v1::ListEntriesRequest::default()).await.unwrap().into_inner().entries
    };
    let before = list(&lab).await;
    assert_eq!(before.len(), 2);
    let lab = Lab::start_in(lab.stop().await, "acme.test", |_| {}).await;
    assert_eq!(list(&lab).await, before);
}
