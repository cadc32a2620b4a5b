//! Foreign trust domains: two brokers, and endpoints that lie.

use std::path::Path;
use std::time::Duration;

use portcullis_api::v1;
use portcullis_api::v1::change_authority_request::Step;
use portcullis_broker::config::{BundleEndpoint, CertificateFiles, Config, Oidc};
use portcullis_identity::{Bundle, BundleDocument, JwtBundle, TrustDomain};
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, KeyUsagePurpose};
use rustls::pki_types::CertificateDer;
use rustls::version::{TLS12, TLS13};
use serde_json::{Value, json};
use tonic::Code;

use crate::authorities::{active, change, prepare};
use crate::lab::{Lab, entry, policies, registration, soon, target};
use crate::web::{Answer, Endpoint, WebCa, ask};

const FOREIGN: &str = "partner.test";

fn root() -> CertificateDer<'static> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone()
}

fn document(roots: &[&CertificateDer<'static>], sequence: Option<u64>) -> String {
    let name = TrustDomain::new(FOREIGN).unwrap();
    let jwt = JwtBundle::new(name.clone(), []).unwrap();
    let x509 = Bundle::new(name, roots.iter().map(|root| (*root).clone())).unwrap();
    BundleDocument::new(x509, jwt, sequence, Some(3600)).unwrap().to_json().unwrap()
}

/// A lab that believes `ca` for the web.
async fn lab(ca: &WebCa) -> Lab {
    Lab::start_with(|config| believe(config, ca)).await
}

fn believe(config: &mut Config, ca: &WebCa) {
    config.federation.ca_file = Some(ca.root());
    config.federation.bounds.timeout = Duration::from_secs(2);
}

fn web(url: &str) -> v1::AddTrustDomainRequest {
    v1::AddTrustDomainRequest {
        name: FOREIGN.to_owned(),
        bundle_endpoint: url.to_owned(),
        profile: v1::BundleProfile::HttpsWeb.into(),
        ..v1::AddTrustDomainRequest::default()
    }
}

async fn add(lab: &Lab, request: v1::AddTrustDomainRequest) -> v1::TrustDomainStatus {
    lab.operator().await.add_trust_domain(request).await.unwrap().into_inner().domain.unwrap()
}

async fn refresh(lab: &Lab) -> Result<v1::RefreshTrustDomainReply, String> {
    let mut operator = lab.operator().await;
    let request = v1::RefreshTrustDomainRequest { name: FOREIGN.to_owned() };
    soon(operator.refresh_trust_domain(request)).await.map(tonic::Response::into_inner).map_err(|status| {
        assert_eq!(status.code(), Code::FailedPrecondition, "{status}");
        status.message().to_owned()
    })
}

async fn show(lab: &Lab, name: &str) -> v1::TrustDomainStatus {
    let request = v1::ListTrustDomainsRequest { name: name.to_owned() };
    lab.operator().await.list_trust_domains(request).await.unwrap().into_inner().domains.remove(0)
}

fn audited(data: &Path, what: &str) -> Vec<Value> {
    let files = portcullis_broker::audit::segments(&data.join("audit")).unwrap();
    let text: String = files.iter().map(|file| std::fs::read_to_string(&file.path).unwrap()).collect();
    let events = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["event"].clone());
    events.filter(|event| event["what"] == what).collect()
}

#[tokio::test]
async fn a_bundle_is_fetched_believed_and_told_of() {
    let ca = WebCa::for_names(&["127.0.0.1"]);
    let (lab, one) = (lab(&ca).await, root());
    let endpoint = Endpoint::start(&ca, Answer::document(document(&[&one], Some(7)))).await;
    let status = add(&lab, web(&endpoint.url())).await;
    assert_eq!((status.sequence, status.x509_authorities, status.problem.as_str()), (7, 1, ""));
    assert!(status.fetched_at > 0 && status.received_at > 0);
    assert_eq!(endpoint.take_paths(), ["/bundle"]);
    let [fetched] = audited(&lab.data(), "bundle-fetched").try_into().unwrap();
    assert_eq!((&fetched["trust_domain"], &fetched["sequence"]), (&json!(FOREIGN), &json!(7)));
    assert_eq!(fetched["server_sha256"].as_str().unwrap().len(), 64);

    endpoint.say(Answer::document(document(&[&one, &root()], Some(8))));
    assert!(refresh(&lab).await.unwrap().changed);
    assert!(!refresh(&lab).await.unwrap().changed);
    assert_eq!(show(&lab, FOREIGN).await.x509_authorities, 2);
    // Between its floor and the publisher's wish nobody asks unasked.
    assert_eq!(endpoint.requests(), 3);
}

#[tokio::test]
async fn what_a_lying_endpoint_says_changes_nothing() {
    let ca = WebCa::for_names(&["127.0.0.1"]);
    let (lab, one) = (lab(&ca).await, root());
    let held = document(&[&one], Some(7));
    let endpoint = Endpoint::start(&ca, Answer::document(&held)).await;
    add(&lab, web(&endpoint.url())).await;
    let before = show(&lab, FOREIGN).await.document;
    let other = root();
    let oversize = format!("{}{}", " ".repeat(1 << 20), held);
    let endless = [b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".to_vec(), {
        let chunk = [b"10000\r\n".as_slice(), &[b' '; 0x10000], b"\r\n"].concat();
        chunk.repeat(17)
    }]
    .concat();
    for (answer, reason, alarm) in [
        (Answer::document(document(&[&one], Some(6))), "it is an older one", true),
        (Answer::document(document(&[&other], Some(7))), "both have sequence 7", true),
        (Answer::document(document(&[&one, &other], None)), "has no sequence", true),
        (Answer::document(document(&[], Some(8))), "no usable key", false),
        (Answer::document("{\"keys\":[{\"kty\":\"EC\",\"use\":\"x509-svid\"}]}"), "no usable key", false),
        (Answer::document("{}"), "no `keys`", false),
        (Answer::document("[]"), "bundle document", false),
        (Answer::document("<html>Service unavailable</html>"), "bundle document", false),
        (Answer::document(held.get(..held.len() / 2).unwrap()), "bundle document", false),
        (Answer::document(&oversize), "larger than", false),
        (Answer::Bytes(endless), "larger than", false),
        (Answer::raw("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{"), "HTTP", false),
        (Answer::raw("SSH-2.0-OpenSSH\r\n\r\n"), "HTTP", false),
        (Answer::raw("HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n"), "status 500", false),
        (Answer::raw("HTTP/1.1 204 No\r\n\r\n"), "status 204", false),
        (Answer::Silence, "no whole answer", false),
    ] {
        endpoint.say(answer);
        let error = refresh(&lab).await.unwrap_err();
        assert!(error.contains(reason), "{error}, not: {reason}");
        let status = show(&lab, FOREIGN).await;
        assert_eq!((&status.document, status.sequence), (&before, 7), "{reason}");
        assert_eq!((status.problem, status.alarm), (error.clone(), alarm), "{reason}");
        // Nobody waits for the record of a refusal.
        soon(async {
            while audited(&lab.data(), "bundle-refused").last().is_none_or(|refused| refused["reason"] != error) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
    }
    // Only when it was told to: nobody asks again at once because of a failure.
    assert_eq!(endpoint.requests(), 17);
    endpoint.say(Answer::document(&held));
    refresh(&lab).await.unwrap();
    assert_eq!(show(&lab, FOREIGN).await.problem, "");
}

#[tokio::test]
async fn a_key_that_cannot_be_read_does_not_discard_the_others() {
    let ca = WebCa::for_names(&["127.0.0.1"]);
    let lab = lab(&ca).await;
    let mut odd: Value = serde_json::from_str(&document(&[&root()], Some(1))).unwrap();
    let keys = odd["keys"].as_array_mut().unwrap();
    keys.insert(0, json!({ "kty": "PQ", "use": "x509-svid" }));
    keys.insert(0, json!({ "kty": "EC", "use": "wit-svid", "kid": "w" }));
    keys.insert(0, json!({ "kty": "EC" }));
    keys.push(json!({ "kty": "EC", "use": "x509-svid", "x5c": ["AAAA"] }));
    let endpoint = Endpoint::start(&ca, Answer::document(odd.to_string())).await;
    let status = add(&lab, web(&endpoint.url())).await;
    assert_eq!((status.x509_authorities, status.problem.as_str()), (1, ""));
}

#[tokio::test]
async fn a_redirection_obeys_the_same_rules_and_is_forgotten() {
    let ca = WebCa::for_names(&["127.0.0.1"]);
    let (lab, stranger) = (lab(&ca).await, WebCa::for_names(&["127.0.0.1"]));
    let held = document(&[&root()], Some(1));
    let target = Endpoint::start(&ca, Answer::document(&held)).await;
    let untrusted = Endpoint::start(&stranger, Answer::document(&held)).await;
    let endpoint = Endpoint::start(&ca, Answer::redirect(301, &target.url())).await;
    assert_eq!(add(&lab, web(&endpoint.url())).await.problem, "");
    assert_eq!(target.requests(), 1);
    endpoint.say(Answer::document(&held));
    refresh(&lab).await.unwrap();
    assert_eq!((endpoint.requests(), target.requests()), (2, 1), "a permanent redirection is for one fetch");

    for (location, reason) in [
        (format!("http://{}/bundle", target.address), "not an https URL"),
        (format!("https://user@{}/bundle", target.address), "user"),
        (untrusted.url(), "does not prove itself"),
        ("/bundle".to_owned(), "more than 3 times"),
        ("file:///etc/passwd".to_owned(), "refused"),
    ] {
        endpoint.say(Answer::redirect(302, &location));
        let error = refresh(&lab).await.unwrap_err();
        assert!(error.contains(reason), "{error}, not: {reason}");
    }
    assert_eq!((target.requests(), untrusted.requests()), (1, 0));
}

#[tokio::test]
async fn an_endpoint_of_the_web_proves_its_host() {
    let ca = WebCa::for_names(&["other.test"]);
    let lab = lab(&ca).await;
    let endpoint = Endpoint::start(&ca, Answer::document(document(&[&root()], Some(1)))).await;
    let status = add(&lab, web(&endpoint.url())).await;
    assert!(status.problem.contains("does not prove itself") && status.alarm, "{}", status.problem);
    assert_eq!((status.document.len(), endpoint.requests()), (0, 0));
}

#[tokio::test]
async fn what_the_command_says_must_fit_together() {
    let lab = Lab::start().await;
    let mut operator = lab.operator().await;
    let good = web("https://127.0.0.1:1/");
    let spiffe = v1::BundleProfile::HttpsSpiffe.into();
    let seed = document(&[&root()], Some(1)).into_bytes();
    for (request, code) in [
        (v1::AddTrustDomainRequest { name: "acme.test".to_owned(), ..good.clone() }, Code::InvalidArgument),
        (v1::AddTrustDomainRequest { name: "Partner.test".to_owned(), ..good.clone() }, Code::InvalidArgument),
        (
            v1::AddTrustDomainRequest { bundle_endpoint: "http://127.0.0.1:1/".to_owned(), ..good.clone() },
            Code::InvalidArgument,
        ),
        (
            v1::AddTrustDomainRequest { bundle_endpoint: "https://u:p@127.0.0.1/".to_owned(), ..good.clone() },
            Code::InvalidArgument,
        ),
        (v1::AddTrustDomainRequest { bundle_endpoint: String::new(), ..good.clone() }, Code::InvalidArgument),
        (v1::AddTrustDomainRequest { profile: 0, ..good.clone() }, Code::InvalidArgument),
        (
            v1::AddTrustDomainRequest { endpoint_id: "spiffe://partner.test/x".to_owned(), ..good.clone() },
            Code::InvalidArgument,
        ),
        (v1::AddTrustDomainRequest { profile: spiffe, ..good.clone() }, Code::FailedPrecondition),
        (v1::AddTrustDomainRequest { bundle: b"{}".to_vec(), ..good.clone() }, Code::InvalidArgument),
        (
            v1::AddTrustDomainRequest { name: FOREIGN.to_owned(), ..v1::AddTrustDomainRequest::default() },
            Code::InvalidArgument,
        ),
    ] {
        let refused = operator.add_trust_domain(request.clone()).await.unwrap_err();
        assert_eq!(refused.code(), code, "{request:?}: {refused}");
    }
    let by_hand =
        v1::AddTrustDomainRequest { name: FOREIGN.to_owned(), bundle: seed, ..v1::AddTrustDomainRequest::default() };
    let status = add(&lab, by_hand.clone()).await;
    assert_eq!((status.x509_authorities, status.fetched_at), (1, 0));
    assert_eq!(operator.add_trust_domain(by_hand).await.unwrap_err().code(), Code::AlreadyExists);
    assert!(refresh(&lab).await.unwrap_err().contains("no bundle endpoint"));
    operator.remove_trust_domain(v1::RemoveTrustDomainRequest { name: FOREIGN.to_owned() }).await.unwrap();
    let all = operator.list_trust_domains(v1::ListTrustDomainsRequest::default()).await.unwrap().into_inner().domains;
    assert_eq!(all.iter().map(|domain| (domain.name.as_str(), domain.own)).collect::<Vec<_>>(), [("acme.test", true)]);
}

#[tokio::test]
async fn trust_survives_a_restart_while_the_endpoint_is_down() {
    let ca = WebCa::for_names(&["127.0.0.1"]);
    let lab = lab(&ca).await;
    let endpoint = Endpoint::start(&ca, Answer::document(document(&[&root()], Some(9)))).await;
    let before = add(&lab, web(&endpoint.url())).await;
    endpoint.say(Answer::raw("HTTP/1.1 503 Down\r\ncontent-length: 0\r\n\r\n"));
    let lab = Lab::start_in(lab.stop().await, "acme.test", |config| believe(config, &ca)).await;
    let after = show(&lab, FOREIGN).await;
    assert_eq!((after.document, after.sequence, after.received_at), (before.document, 9, before.received_at));
    endpoint.say(Answer::document(document(&[&root()], Some(8))));
    assert!(refresh(&lab).await.unwrap_err().contains("older"), "the sequence is remembered");
}

/// An entry of `node` that federates with the foreign trust domain.
fn federating(node: &str) -> v1::CreateEntryRequest {
    v1::CreateEntryRequest { federates_with: vec![FOREIGN.to_owned()], ..entry(node, "prod/a") }
}

#[tokio::test]
async fn a_node_sees_the_domains_that_its_entries_federate_with_and_no_others() {
    let lab = Lab::start().await;
    let mut operator = lab.operator().await;
    // The entry may come before the domain.
    let federating = operator.create_entry(federating("n")).await.unwrap().into_inner().entry.unwrap();
    operator.create_entry(entry("other", "prod/b")).await.unwrap();
    let (mut watch, state) = lab.watching("n").await;
    let (mut other, _) = lab.watching("other").await;
    assert_eq!(state.bundles.len(), 1);
    let bundle = document(&[&root()], Some(3)).into_bytes();
    let request =
        v1::AddTrustDomainRequest { name: FOREIGN.to_owned(), bundle, ..v1::AddTrustDomainRequest::default() };
    add(&lab, request.clone()).await;
    let change = watch.change().await;
    let [pushed] = change.bundles.try_into().unwrap();
    assert_eq!((pushed.trust_domain.as_str(), pushed.sequence, pushed.x509_authorities.len()), (FOREIGN, 3, 1));

    // Who joins later has it in the first state, after the own one.
    let (_later, state) = lab.watching("n").await;
    let names: Vec<_> = state.bundles.iter().map(|bundle| bundle.trust_domain.as_str()).collect();
    assert_eq!(names, ["acme.test", FOREIGN]);

    operator.remove_trust_domain(v1::RemoveTrustDomainRequest { name: FOREIGN.to_owned() }).await.unwrap();
    assert_eq!(watch.change().await.bundles_removed, [FOREIGN]);
    add(&lab, request).await;
    assert_eq!(watch.change().await.bundles.len(), 1);
    operator.remove_entry(v1::RemoveEntryRequest { id: federating.id }).await.unwrap();
    let change = watch.change().await;
    assert_eq!((change.bundles_removed.as_slice(), change.entries_removed.len()), ([FOREIGN.to_owned()].as_slice(), 1));

    // The other node heard of nothing: the next change it sees is its own.
    operator.create_entry(entry("other", "prod/c")).await.unwrap();
    let change = other.change().await;
    assert_eq!((change.bundles.len(), change.bundles_removed.len(), change.entries.len()), (0, 0, 1));
}

#[tokio::test]
async fn a_policy_and_a_grant_may_name_foreign_principals() {
    let lab = Lab::start().await;
    let mut operator = lab.operator().await;
    operator.register_component(registration("prod/billing", "")).await.unwrap();
    let text = "permit (principal == Workload::\"spiffe://partner.test/shop\", action, resource == VirtualComponent::\"prod/billing\");";
    let reply = operator.put_policies(policies("partner.cedar", text)).await.unwrap().into_inner();
    assert_eq!(reply.problems, []);
    let ask = |principal: &str| v1::ExplainRequest {
        principal: principal.to_owned(),
        target: Some(target("prod/billing")),
        instance: "acme:billing/invoices@1.0.0".to_owned(),
        function: "total".to_owned(),
        ..v1::ExplainRequest::default()
    };
    assert!(operator.explain(ask("spiffe://partner.test/shop")).await.unwrap().into_inner().allowed);
    // The same path of our own trust domain is somebody else.
    assert!(!operator.explain(ask("spiffe://acme.test/shop")).await.unwrap().into_inner().allowed);
    let grant = v1::ChangeGrantRequest {
        target: Some(target("prod/billing")),
        spiffe_id: "spiffe://partner.test/desk".to_owned(),
        granted: true,
    };
    operator.change_grant(grant).await.unwrap();
}

/// A broker of the foreign trust domain that serves its bundle and proves itself by its SVID.
async fn partner() -> Lab {
    let serve = |config: &mut Config| {
        let listen = "127.0.0.1:0".parse().unwrap();
        config.federation.endpoint = Some(BundleEndpoint { listen, path: "/".to_owned(), certificate: None });
    };
    Lab::start_in(tempfile::tempdir().unwrap(), FOREIGN, serve).await
}

#[tokio::test]
async fn two_brokers_federate_by_their_svids() {
    let (lab, partner) = (Lab::start().await, partner().await);
    let seed = show(&partner, FOREIGN).await;
    assert!(seed.own);
    let url = format!("https://{}/", partner.bundle_endpoint.unwrap());
    let by_spiffe = v1::AddTrustDomainRequest {
        profile: v1::BundleProfile::HttpsSpiffe.into(),
        bundle: seed.document.clone(),
        ..web(&url)
    };
    let status = add(&lab, by_spiffe.clone()).await;
    assert_eq!((status.problem.as_str(), status.endpoint_id.as_str()), ("", "spiffe://partner.test/portcullis/broker"));
    assert_eq!((status.document, status.x509_authorities), (seed.document.clone(), 1));
    assert!(!refresh(&lab).await.unwrap().changed);

    // Another ID of the same trust domain is another server.
    let mut operator = lab.operator().await;
    operator.remove_trust_domain(v1::RemoveTrustDomainRequest { name: FOREIGN.to_owned() }).await.unwrap();
    let other =
        v1::AddTrustDomainRequest { endpoint_id: "spiffe://partner.test/other".to_owned(), ..by_spiffe.clone() };
    let status = add(&lab, other).await;
    assert!(status.problem.contains("spiffe://partner.test/other") && status.alarm, "{}", status.problem);

    // A root of somebody else verifies nobody there; and no web certificate takes the SVID's place.
    operator.remove_trust_domain(v1::RemoveTrustDomainRequest { name: FOREIGN.to_owned() }).await.unwrap();
    let forged = document(&[&root()], Some(1)).into_bytes();
    let status = add(&lab, v1::AddTrustDomainRequest { bundle: forged, ..by_spiffe }).await;
    assert!(status.problem.contains("does not prove itself") && status.alarm, "{}", status.problem);
}

/// Federation §5.2.2.4: the given bundle is for the first fetch alone; what was fetched last proves the server the next time.
#[tokio::test]
async fn an_endpoint_s_latest_bundle_proves_it_the_next_time() {
    let (mut lab, partner) = (Lab::start().await, partner().await);
    let seed = show(&partner, FOREIGN).await.document;
    let by_spiffe = v1::AddTrustDomainRequest {
        profile: v1::BundleProfile::HttpsSpiffe.into(),
        bundle: seed.clone(),
        ..web(&format!("https://{}/", partner.bundle_endpoint.unwrap()))
    };
    assert_eq!(add(&lab, by_spiffe).await.problem, "");
    for round in 0..2 {
        let old = active(&partner, v1::AuthorityKind::X509).await;
        let new = prepare(&partner, v1::AuthorityKind::X509).await;
        assert!(refresh(&lab).await.unwrap().changed);
        change(&partner, &new, Step::Activate, false).await.unwrap();
        change(&partner, &old, Step::Taint, false).await.unwrap();
        change(&partner, &old, Step::Revoke, true).await.unwrap();
        if round == 1 {
            // A restart in between forgets nothing of it.
            lab = Lab::start_in(lab.stop().await, "acme.test", |_| {}).await;
        }
        refresh(&lab).await.unwrap();
        let status = show(&lab, FOREIGN).await;
        assert_eq!((status.x509_authorities, status.problem.as_str()), (1, ""));
    }
    // Of the roots of the beginning none is left.
    let roots = |document: &[u8]| {
        let document: Value = serde_json::from_slice(document).unwrap();
        document["keys"].as_array().unwrap().iter().map(|key| key["x5c"].clone()).collect::<Vec<_>>()
    };
    let now = roots(&show(&lab, FOREIGN).await.document);
    assert!(roots(&seed).iter().all(|root| root.is_null() || !now.contains(root)));
}

#[tokio::test]
async fn our_bundle_is_served_to_any_client_of_the_web() {
    let ca = WebCa::for_names(&["localhost"]);
    let files = CertificateFiles { chain: ca.chain(), key: ca.key() };
    let lab = Lab::start_with(|config| {
        let (listen, path) = ("127.0.0.1:0".parse().unwrap(), "/bundle".to_owned());
        config.federation.endpoint = Some(BundleEndpoint { listen, path, certificate: Some(files.clone()) });
        let (issuer, path) = ("https://localhost/oidc".to_owned(), "/oidc".to_owned());
        config.federation.oidc = Some(Oidc { issuer, path, listen, certificate: files.clone() });
    })
    .await;
    let (address, own) = (lab.bundle_endpoint.unwrap(), show(&lab, "acme.test").await.document);
    for version in [&TLS12, &TLS13] {
        let got = ask(address, &ca.root(), version, "GET /bundle").await.unwrap();
        assert_eq!((got.status, got.body.as_bytes()), (200, own.as_slice()));
        assert!(got.head.contains("content-type: application/json"), "{}", got.head);
    }
    let document: Value = serde_json::from_slice(&own).unwrap();
    assert_eq!(document["keys"][0]["use"], "x509-svid");
    assert!(document["spiffe_sequence"].is_u64() && document["spiffe_refresh_hint"].is_u64());
    for (request, status) in
        [("HEAD /bundle", 405), ("POST /bundle", 405), ("GET /", 404), ("GET /bundle/", 404), ("GET /bundle?x", 200)]
    {
        assert_eq!(ask(address, &ca.root(), &TLS13, request).await.unwrap().status, status, "{request}");
    }
    let oidc = lab.oidc.unwrap();
    let got = ask(oidc, &ca.root(), &TLS13, "GET /oidc/.well-known/openid-configuration").await.unwrap();
    let configuration: Value = serde_json::from_str(&got.body).unwrap();
    assert_eq!(configuration["issuer"], "https://localhost/oidc");
    assert_eq!(configuration["jwks_uri"], "https://localhost/oidc/keys");
    let got = ask(oidc, &ca.root(), &TLS13, "GET /oidc/keys").await.unwrap();
    assert_eq!(keys(&got.body), 1);
    assert_eq!(ask(oidc, &ca.root(), &TLS13, "GET /bundle").await.unwrap().status, 404);

    // What is prepared is published, under a later number, before it signs anything.
    for kind in [v1::AuthorityKind::X509, v1::AuthorityKind::Jwt] {
        prepare(&lab, kind).await;
    }
    let got = ask(address, &ca.root(), &TLS13, "GET /bundle").await.unwrap();
    let later: Value = serde_json::from_str(&got.body).unwrap();
    assert_eq!((keys(&got.body), document["keys"].as_array().unwrap().len()), (4, 2));
    assert!(later["spiffe_sequence"].as_u64() > document["spiffe_sequence"].as_u64());
    assert_eq!(keys(&ask(oidc, &ca.root(), &TLS13, "GET /oidc/keys").await.unwrap().body), 2);
}

fn keys(jwks: &str) -> usize {
    serde_json::from_str::<Value>(jwks).unwrap()["keys"].as_array().unwrap().len()
}
