//! Signing requests on the stream: D3, threats T6 and T7.

use std::time::{Duration, SystemTime};

use portcullis_api::v1;
use portcullis_identity::{Leaf, PrivateKey, key_request};
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, SanType};

use crate::lab::{Lab, Watch, entry, join, registration, target};

#[tokio::test]
async fn a_node_gets_the_ids_of_its_entries_with_their_lifetimes() {
    let lab = Lab::start().await;
    let mut operator = lab.operator().await;
    let short = v1::CreateEntryRequest { x509_ttl_seconds: 60, ..entry("host", "prod/checkout") };
    let id = operator.create_entry(short).await.unwrap().into_inner().entry.unwrap().id;
    let (mut watch, _) = lab.watching("host").await;
    let svid = watch.sign(&id).await.unwrap();
    assert_eq!(svid.id().to_string(), "spiffe://acme.test/component/prod/checkout");
    let left = svid.not_after().duration_since(SystemTime::now()).unwrap();
    assert!(left <= Duration::from_secs(60) && left > Duration::from_secs(50), "{left:?}");
    assert!(svid.not_before() <= SystemTime::now() - Duration::from_secs(10));
}

#[tokio::test]
async fn a_node_renews_its_own_identity() {
    let lab = Lab::start().await;
    let (mut watch, _) = lab.watching("n1").await;
    let svid = watch.sign("").await.unwrap();
    assert_eq!(svid.id().to_string(), "spiffe://acme.test/portcullis/node/n1");
    let mut client = lab.node(svid).await;
    Watch::open(&mut client).await.unwrap().state().await;
}

#[tokio::test]
async fn an_entry_of_another_node_is_as_unknown_as_none() {
    let lab = Lab::start().await;
    let reply = lab.operator().await.create_entry(entry("other", "prod/checkout")).await.unwrap().into_inner();
    let id = reply.entry.unwrap().id;
    let (mut watch, _) = lab.watching("n1").await;
    let others = watch.sign(&id).await.unwrap_err();
    let missing = watch.sign("e1-999").await.unwrap_err();
    assert_eq!(others.replace(&id, "e1-999"), missing);
    watch.sign("../e1-1").await.unwrap_err();
}

#[tokio::test]
async fn a_removed_entry_signs_no_more() {
    let lab = Lab::start().await;
    let mut operator = lab.operator().await;
    let id = operator.create_entry(entry("n1", "prod/checkout")).await.unwrap().into_inner().entry.unwrap().id;
    let (mut watch, _) = lab.watching("n1").await;
    watch.sign(&id).await.unwrap();
    operator.remove_entry(v1::RemoveEntryRequest { id: id.clone() }).await.unwrap();
    assert_eq!(watch.change().await.entries_removed, std::slice::from_ref(&id));
    watch.sign(&id).await.unwrap_err();
}

#[tokio::test]
async fn a_request_for_more_than_a_key_yields_the_entrys_id_and_nothing_else() {
    let lab = Lab::start().await;
    let reply = lab.operator().await.register_component(registration("prod/billing", "sidecar")).await.unwrap();
    let id = reply.into_inner().entry;
    let (mut watch, _) = lab.watching("sidecar").await;
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.subject_alt_names = vec![
        SanType::URI("spiffe://acme.test/portcullis/broker".try_into().unwrap()),
        SanType::DnsName("broker.acme.test".try_into().unwrap()),
    ];
    let csr = params.serialize_request(&KeyPair::generate().unwrap()).unwrap().der().to_vec();
    let sign = v1::Sign { request: 1, entry: id, csr, component_digest: String::new() };
    let chain = watch.sign_request(sign).await.unwrap();
    // The leaf profile allows one URI SAN, and no CA.
    assert_eq!(Leaf::parse(&chain[0]).unwrap().id().to_string(), "spiffe://acme.test/virtual/prod/billing");
}

#[tokio::test]
async fn each_identity_has_a_key_of_its_own() {
    let lab = Lab::start().await;
    let mut operator = lab.operator().await;
    let mut make =
        async |name: &str| operator.create_entry(entry("n1", name)).await.unwrap().into_inner().entry.unwrap().id;
    let (one, two) = (make("prod/one").await, make("prod/two").await);
    let token = lab.token("n1").await;
    let own = PrivateKey::generate().unwrap();
    let own_csr = key_request(&own).unwrap();
    let mut client = lab.node(join(&token, own).await.unwrap()).await;
    let mut watch = Watch::open(&mut client).await.unwrap();
    watch.state().await;
    let csr = key_request(&PrivateKey::generate().unwrap()).unwrap();
    let sign = |entry: &str, csr: &[u8]| v1::Sign {
        request: 1,
        entry: entry.to_owned(),
        csr: csr.to_owned(),
        component_digest: String::new(),
    };
    watch.sign_request(sign(&one, &own_csr)).await.unwrap_err();
    watch.sign_request(sign(&one, &csr)).await.unwrap();
    watch.sign_request(sign(&one, &csr)).await.expect("a lost answer may be asked for again");
    watch.sign_request(sign(&two, &csr)).await.unwrap_err();
    watch.sign_request(sign("", &csr)).await.unwrap_err();
}

#[tokio::test]
async fn an_entry_bound_to_a_digest_serves_that_component_alone() {
    let lab = Lab::start().await;
    let digest = format!("sha256:{}", "ab".repeat(32));
    let request = v1::CreateEntryRequest {
        node: "host".to_owned(),
        component: Some(target("prod/checkout")),
        component_digest: digest.clone(),
        ..v1::CreateEntryRequest::default()
    };
    let id = lab.operator().await.create_entry(request).await.unwrap().into_inner().entry.unwrap().id;
    let (mut watch, state) = lab.watching("host").await;
    assert_eq!(state.entries[0].component_digest, digest);
    let sign = |digest: &str| v1::Sign {
        request: 1,
        entry: id.clone(),
        csr: key_request(&PrivateKey::generate().unwrap()).unwrap(),
        component_digest: digest.to_owned(),
    };
    watch.sign_request(sign("")).await.unwrap_err();
    watch.sign_request(sign(&digest.replace("ab", "ac"))).await.unwrap_err();
    watch.sign_request(sign(&digest)).await.unwrap();
}
