//! Authorities that follow one another, and SVIDs that are revoked: what nodes are told, and what the broker itself accepts.

use std::collections::BTreeSet;
use std::time::{Duration, Instant, SystemTime};

use portcullis_api::v1::change_authority_request::Step;
use portcullis_api::v1::revoke_request::What;
use portcullis_api::v1::{self, watch_reply, watch_request};
use portcullis_identity::{Bundle, Peer, PeerRule, PeerVerifier, PrivateKey, Svid, TrustBundles, Usage};
use rustls::pki_types::{CertificateDer, UnixTime};
use tonic::Code;

use crate::lab::{Lab, Watch, entry, join, soon, trust_domain};

/// The bundle that this node holds, followed change by change.
fn bundle(message: &v1::Bundle) -> Bundle {
    let roots = message.x509_authorities.iter().cloned().map(CertificateDer::from);
    Bundle::new(trust_domain(), roots).unwrap()
}

fn accepts(bundle: &v1::Bundle, svid: &Svid) -> bool {
    let trust = TrustBundles::new([self::bundle(bundle)], SystemTime::now()).into_source();
    let verifier = PeerVerifier::new(trust, PeerRule::TrustDomain(trust_domain()));
    verifier.verify_again(&Peer::from_chain(svid.chain()).unwrap(), UnixTime::now(), Usage::ClientAuth).is_ok()
}

pub(crate) async fn change(lab: &Lab, id: &str, step: Step, force: bool) -> Result<v1::Version, tonic::Status> {
    let request = v1::ChangeAuthorityRequest { id: id.to_owned(), step: step.into(), force };
    Ok(lab.operator().await.change_authority(request).await?.into_inner().version.unwrap())
}

pub(crate) async fn prepare(lab: &Lab, kind: v1::AuthorityKind) -> String {
    let request = v1::PrepareAuthorityRequest { kind: kind.into() };
    lab.operator().await.prepare_authority(request).await.unwrap().into_inner().id
}

async fn authorities(lab: &Lab) -> Vec<v1::Authority> {
    lab.operator().await.list_authorities(v1::ListAuthoritiesRequest {}).await.unwrap().into_inner().authorities
}

pub(crate) async fn active(lab: &Lab, kind: v1::AuthorityKind) -> String {
    let of_kind = |one: &v1::Authority| one.kind() == kind && one.stage() == v1::AuthorityStage::Active;
    authorities(lab).await.into_iter().find(of_kind).unwrap().id
}

async fn applied(watch: &Watch, version: Option<v1::Version>) {
    watch.say(watch_request::Message::Applied(version.unwrap())).await;
}

pub(crate) async fn revoke(lab: &Lab, what: What) -> Result<(), tonic::Status> {
    lab.operator().await.revoke(v1::RevokeRequest { what: Some(what) }).await.map(drop)
}

#[tokio::test]
async fn nodes_hear_of_an_authority_before_it_signs_and_of_its_end() {
    let lab = Lab::start().await;
    let (mut watch, state) = lab.watching("n1").await;
    let made = lab.operator().await.create_entry(entry("n1", "prod/shop")).await.unwrap().into_inner();
    let entry = made.entry.unwrap().id;
    watch.change().await;
    let old = watch.sign(&entry).await.unwrap();
    assert!(accepts(&state.bundles[0], &old));
    assert_eq!(state.bundles[0].jwt_authorities.len(), 1);
    let first = active(&lab, v1::AuthorityKind::X509).await;

    let second = prepare(&lab, v1::AuthorityKind::X509).await;
    let prepared = watch.change().await;
    let both = prepared.bundles[0].clone();
    assert_eq!(both.x509_authorities.len(), 2);
    assert!(both.sequence > state.bundles[0].sequence);
    assert_eq!(watch.sign(&entry).await.unwrap().chain()[1], old.chain()[1], "it signs before it is active");

    // This node has not said that it trusts the new one: nothing may be signed by it yet.
    let refused = change(&lab, &second, Step::Activate, false).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(refused.message().contains("n1") && refused.message().contains("--force"), "{}", refused.message());
    applied(&watch, prepared.version).await;
    change(&lab, &second, Step::Activate, false).await.unwrap();
    watch.change().await;
    let new = watch.sign(&entry).await.unwrap();
    assert_ne!(new.chain()[1], old.chain()[1]);
    assert!(accepts(&both, &new) && accepts(&both, &old));
    assert!(!accepts(&state.bundles[0], &new));

    // Withdrawn in two steps, neither of which can be skipped.
    let early = change(&lab, &first, Step::Revoke, false).await.unwrap_err();
    assert!(early.message().contains("taint it first"), "{}", early.message());
    let active = change(&lab, &second, Step::Taint, false).await.unwrap_err();
    assert!(active.message().contains("is active"), "{}", active.message());
    change(&lab, &first, Step::Taint, false).await.unwrap();
    let tainted = watch.change().await.bundles[0].clone();
    assert_eq!((tainted.tainted.len(), tainted.x509_authorities.len()), (1, 2));
    assert!(tainted.sequence > both.sequence);
    // The node's own certificate was signed by what is to be withdrawn: it would be cut off for good.
    let held = change(&lab, &first, Step::Revoke, false).await.unwrap_err();
    assert!(held.message().contains("n1") && held.message().contains("--force"), "{}", held.message());
    change(&lab, &first, Step::Revoke, true).await.unwrap();
    let end = soon(async {
        loop {
            match watch.hear().await {
                Ok(watch_reply::Message::Change(change)) => assert_eq!(change.bundles[0].x509_authorities.len(), 1),
                Ok(other) => panic!("{other:?}"),
                Err(end) => return end,
            }
        }
    });
    end.await;
    assert_eq!(authorities(&lab).await.len(), 2);
    assert!(std::fs::read_to_string(lab.data().join("bundle.pem")).unwrap().matches("BEGIN").count() == 1);
}

#[tokio::test]
async fn tokens_get_a_new_authority_too() {
    let lab = Lab::start().await;
    let (mut watch, state) = lab.watching("n1").await;
    let first = active(&lab, v1::AuthorityKind::Jwt).await;
    let second = prepare(&lab, v1::AuthorityKind::Jwt).await;
    let prepared = watch.change().await;
    let kids = |bundle: &v1::Bundle| bundle.jwt_authorities.iter().map(|key| key.kid.clone()).collect::<BTreeSet<_>>();
    assert!(kids(&prepared.bundles[0]).is_superset(&kids(&state.bundles[0])));
    assert_eq!(kids(&prepared.bundles[0]).len(), 2);
    applied(&watch, prepared.version).await;
    change(&lab, &second, Step::Activate, false).await.unwrap();
    change(&lab, &first, Step::Taint, false).await.unwrap();
    change(&lab, &first, Step::Revoke, false).await.unwrap();
    let last = soon(async {
        loop {
            let change = watch.change().await;
            if kids(&change.bundles[0]).len() == 1 {
                return change;
            }
        }
    });
    assert!(kids(&last.await.bundles[0]).is_disjoint(&kids(&state.bundles[0])));
}

#[tokio::test]
async fn a_revoked_svid_is_pushed_and_kept_over_a_restart() {
    let lab = Lab::start().await;
    let (mut watch, state) = lab.watching("n1").await;
    assert!(state.revocations.is_empty());
    let made = lab.operator().await.create_entry(entry("n1", "prod/shop")).await.unwrap().into_inner();
    let entry = made.entry.unwrap().id;
    watch.change().await;
    let svid = watch.sign(&entry).await.unwrap();

    revoke(&lab, What::Serial(svid.leaf().serial().to_vec())).await.unwrap();
    let pushed = watch.change().await.revocations;
    assert_eq!(pushed[0].what, Some(v1::revocation::What::Serial(svid.leaf().serial().to_vec())));
    revoke(&lab, What::Entry(entry.clone())).await.unwrap();
    let pushed = watch.change().await.revocations;
    assert_eq!(pushed.len(), 1, "what is known already is sent again");
    let id = svid.id().to_string();
    assert_eq!(pushed[0].what, Some(v1::revocation::What::SpiffeId(id)));
    assert!(pushed[0].until > pushed[0].issued_until + 24 * 3600);
    // The entry is there still: its holder has a right to another.
    watch.sign(&entry).await.unwrap();

    for (what, code) in [
        (What::Serial(Vec::new()), Code::InvalidArgument),
        (What::Entry("e9-9".to_owned()), Code::NotFound),
        (What::Node("nobody".to_owned()), Code::NotFound),
    ] {
        assert_eq!(revoke(&lab, what).await.unwrap_err().code(), code);
    }
    drop(watch);
    let folder = lab.stop().await;
    let data = folder.path().join("data");
    let lab = Lab::start_with(|config| {
        *config = portcullis_broker::config::Config::new("acme.test", &data).unwrap();
    })
    .await;
    let kept = lab.operator().await.list_revocations(v1::ListRevocationsRequest {}).await.unwrap().into_inner();
    assert_eq!(kept.revocations.len(), 2);
}

/// The node holds its connection and its certificate; both are worth nothing from now on.
#[tokio::test]
async fn a_revoked_node_is_cut_off_at_once() {
    let lab = Lab::start().await;
    let token = lab.token("n1").await;
    let stolen = PrivateKey::generate().unwrap();
    let copy = PrivateKey::from_pkcs8(stolen.pkcs8()).unwrap();
    let svid = join(&token, stolen).await.unwrap();
    let chain = svid.chain().to_vec();
    let mut watch = Watch::open(&mut lab.node(svid).await).await.unwrap();
    watch.state().await;
    let (mut bystander, _) = lab.watching("n2").await;

    let asked = Instant::now();
    revoke(&lab, What::Node("n1".to_owned())).await.unwrap();
    soon(async { while watch.hear().await.is_ok() {} }).await;
    assert!(asked.elapsed() < Duration::from_secs(1), "{:?}", asked.elapsed());
    let told = bystander.change().await.revocations;
    let node = v1::revocation::What::SpiffeId("spiffe://acme.test/portcullis/node/n1".to_owned());
    assert_eq!(told.into_iter().map(|revocation| revocation.what).collect::<Vec<_>>(), [Some(node)]);

    // The certificate is not expired, and its authority is trusted.
    if let Ok(mut client) = lab.try_node(Svid::new(chain, copy).unwrap()).await {
        assert!(Watch::open(&mut client).await.is_err(), "a revoked node came back");
    }
    // A new token makes it a node again.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    lab.watching("n1").await;
}

#[tokio::test]
async fn one_revoked_certificate_ends_its_connection_and_no_other() {
    let lab = Lab::start().await;
    let svid = join(&lab.token("n1").await, PrivateKey::generate().unwrap()).await.unwrap();
    let serial = svid.leaf().serial().to_vec();
    let mut watch = Watch::open(&mut lab.node(svid).await).await.unwrap();
    watch.state().await;
    let (mut other, _) = lab.watching("n2").await;
    revoke(&lab, What::Serial(serial)).await.unwrap();
    soon(async { while watch.hear().await.is_ok() {} }).await;
    assert_eq!(other.change().await.revocations.len(), 1);
    other.sign("").await.unwrap();
}

/// Roots of twelve seconds: three successions by the clock alone, while a node asks for SVIDs all the time.
#[tokio::test]
async fn authorities_follow_one_another_by_time_and_no_svid_is_ever_refused() {
    let lab = Lab::start_with(|config| {
        config.ca_lifetime = Duration::from_secs(12);
        config.jwt_key_lifetime = Duration::from_secs(12);
        config.node_ttl = 5.try_into().unwrap();
        config.svid_ttl = 5.try_into().unwrap();
    })
    .await;
    let joined = join(&lab.token("n1").await, PrivateKey::generate().unwrap()).await.unwrap();
    let made = lab.operator().await.create_entry(entry("n1", "prod/shop")).await.unwrap().into_inner();
    let entry = made.entry.unwrap().id;
    let (mut own, mut signers, mut roots) = (joined, BTreeSet::new(), BTreeSet::new());
    let begun = Instant::now();
    let mut sequence = 0;
    while signers.len() < 4 {
        assert!(begun.elapsed() < Duration::from_secs(60), "{} authorities signed so far", signers.len());
        // The broker's certificate and the node's own change under way, so that each stream is short.
        let key = PrivateKey::from_pkcs8(own.key().pkcs8()).unwrap();
        let mut watch = Watch::open(&mut lab.node(Svid::new(own.chain().to_vec(), key).unwrap()).await).await.unwrap();
        let state = watch.state().await;
        let held = state.bundles[0].clone();
        assert!(held.sequence >= sequence);
        sequence = held.sequence;
        roots.extend(held.x509_authorities.iter().cloned());
        let svid = watch.sign(&entry).await.unwrap();
        assert!(accepts(&held, &svid) && accepts(&held, &own), "signed by an authority that is not published");
        signers.insert(svid.chain()[1].to_vec());
        own = watch.sign("").await.unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(roots.len() >= 4);
    // What is over leaves the bundle.
    assert!(authorities(&lab).await.len() <= 6, "{:?}", authorities(&lab).await);
}
