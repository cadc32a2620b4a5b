//! The audit log of a whole broker: what is in it, that nothing is missing, and that a cut is found out.

use std::path::Path;

use portcullis_api::v1::change_authority_request::Step;
use portcullis_api::v1::revoke_request::What;
use portcullis_api::v1::{self, watch_reply};
use portcullis_broker::audit::{RememberedHead, Signature, VerifyError, segments, verify};
use portcullis_identity::PrivateKey;
use serde_json::Value;

use crate::authorities::{active, change, prepare, revoke};
use crate::lab::{Lab, Watch, entry, join, join_request, policies, registration, soon, stranger, target};

fn records(data: &Path) -> Vec<Value> {
    let files = segments(&data.join("audit")).unwrap();
    let texts = files.iter().map(|segment| std::fs::read_to_string(&segment.path).unwrap());
    texts.flat_map(|text| text.lines().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<_>>()).collect()
}

/// The events of one kind.
fn of(data: &Path, what: &str) -> Vec<Value> {
    let events = records(data).into_iter().map(|record| record["event"].clone());
    events.filter(|event| event["what"] == what).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

async fn audited_head(watch: &mut Watch) -> v1::AuditHead {
    loop {
        if let watch_reply::Message::Audit(head) = watch.hear_any().await.unwrap() {
            return head;
        }
    }
}

#[tokio::test]
async fn every_issuance_is_on_record_before_it_is_had() {
    let lab = Lab::start().await;
    let (mut watch, _) = lab.watching("n").await;
    let reply = lab.operator().await.create_entry(entry("n", "prod/a")).await.unwrap().into_inner();
    let id = reply.entry.unwrap().id;
    watch.change().await;
    for count in 1..=3 {
        let svid = watch.sign(&id).await.unwrap();
        let issued = of(&lab.data(), "x509-issued");
        assert_eq!(issued.len(), 1 + count, "the node's own and these");
        let last = issued.last().unwrap();
        let leaf = portcullis_identity::Leaf::parse(&svid.chain()[0]).unwrap();
        assert_eq!(last["serial"], hex(leaf.serial()));
        assert_eq!(last["spiffe_id"], "spiffe://acme.test/component/prod/a");
        assert_eq!((&last["node"], &last["entry"]), (&Value::from("n"), &Value::from(id.clone())));
    }
}

#[tokio::test]
async fn a_change_is_told_with_who_made_it() {
    let lab = Lab::start().await;
    let mut operator = lab.operator().await;
    operator.register_component(registration("prod/billing", "n")).await.unwrap();
    let text = "permit (principal, action, resource == VirtualComponent::\"prod/billing\");";
    operator.put_policies(policies("a.cedar", text)).await.unwrap();
    let (watch, _) = lab.watching("n").await;
    watch.announce("prod/billing", &["127.0.0.1:1"]).await;
    let changed = || of(&lab.data(), "changed");
    soon(async {
        while !changed().iter().any(|event| event["kind"] == "addresses") {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    })
    .await;
    let by_kind = |kind: &str| changed().into_iter().find(|event| event["kind"] == kind).unwrap();
    let uid = rustix::process::getuid().as_raw();
    for kind in ["component", "entry", "policy file", "join token"] {
        assert_eq!(by_kind(kind)["by"]["operator"]["uid"], uid, "{kind}");
    }
    assert_eq!(by_kind("addresses")["by"]["node"]["node"], "n");
    assert_eq!(by_kind("join token redeemed")["by"]["joining"]["node"], "n");
    assert_eq!(
        by_kind("policy file")["sha256"],
        hex(ring::digest::digest(&ring::digest::SHA256, text.as_bytes()).as_ref())
    );
}

#[tokio::test]
async fn refusals_are_told_and_no_secret_is() {
    let lab = Lab::start().await;
    let token = lab.token("n").await;
    join(&token, PrivateKey::generate().unwrap()).await.unwrap();
    join(&token, PrivateKey::generate().unwrap()).await.unwrap_err();
    let (mut watch, _) = lab.watching("other").await;
    watch.sign("e1-999").await.unwrap_err();
    let mut guess = join_request(&token, &PrivateKey::generate().unwrap());
    guess.secret = vec![7; 16];
    stranger(&token).await.join(guess).await.unwrap_err();
    let remove = v1::RemoveComponentRequest { target: Some(target("prod/none")) };
    lab.operator().await.remove_component(remove).await.unwrap_err();
    let data = lab.data();
    let folder = lab.stop().await;
    let refused = of(&data, "change-refused");
    let reasons: Vec<_> = refused.iter().map(|event| event["reason"].as_str().unwrap()).collect();
    assert!(reasons.iter().any(|reason| reason.contains("spent")), "{reasons:?}");
    assert!(reasons.iter().any(|reason| reason.contains("unknown join token")), "{reasons:?}");
    assert!(reasons.iter().any(|reason| reason.contains("prod/none")), "{reasons:?}");
    assert_eq!(of(&data, "issue-refused")[0]["entry"], "e1-999");
    let text: String = records(&data).iter().map(ToString::to_string).collect();
    assert!(!text.contains(&token.reveal()) && !text.contains(&hex(&token.secret()[..])), "{text}");
    assert_eq!(records(&data).last().unwrap()["event"]["what"], "stopped");
    drop(folder);
}

#[tokio::test]
async fn a_node_s_memory_proves_a_cut() {
    let lab = Lab::start().await;
    let (mut watch, _) = lab.watching("n").await;
    let v1::AuditHead { records: count, hash, signature, kid } = soon(audited_head(&mut watch)).await;
    let json = serde_json::json!({ "records": count, "hash": hex(&hash), "signature": hex(&signature), "kid": kid });
    let remembered = RememberedHead::parse(&json.to_string()).unwrap();
    let audit = lab.data().join("audit");
    let folder = lab.stop().await;
    let verified = verify(&audit, Some(&remembered)).unwrap();
    assert_eq!(verified.signature, Some(Signature::Good));

    let path = &segments(&audit).unwrap()[0].path;
    let text = std::fs::read_to_string(path).unwrap();
    let cut: String = text.lines().take(usize::try_from(count).unwrap() - 1).map(|line| format!("{line}\n")).collect();
    std::fs::write(path, cut).unwrap();
    verify(&audit, None).expect("it hangs together");
    assert!(matches!(verify(&audit, Some(&remembered)), Err(VerifyError::Truncated { .. })));
    drop(folder);
}

#[tokio::test]
async fn every_step_and_revocation_is_on_record_with_who_asked_for_it() {
    let lab = Lab::start().await;
    let old = active(&lab, v1::AuthorityKind::X509).await;
    let next = prepare(&lab, v1::AuthorityKind::X509).await;
    lab.operator().await.prepare_authority(v1::PrepareAuthorityRequest { kind: 1 }).await.unwrap_err();
    change(&lab, &next, Step::Activate, false).await.unwrap();
    change(&lab, &old, Step::Taint, false).await.unwrap();
    let recent = change(&lab, &old, Step::Revoke, false).await.unwrap_err();
    assert!(recent.message().contains("tainted 0 s ago") && recent.message().contains("--force"), "{recent}");
    change(&lab, &old, Step::Revoke, true).await.unwrap();
    revoke(&lab, What::Serial(vec![7; 16])).await.unwrap();
    let data = lab.data();
    let steps: Vec<_> = of(&data, "authority-changed")
        .into_iter()
        .filter(|event| event["authority"] == old || event["authority"] == next)
        .map(|event| {
            let by = if event["by"] == "broker" { "broker" } else { "operator" };
            let which = if event["authority"] == old { "old" } else { "next" };
            format!("{which} {} by {by}", event["change"].as_str().unwrap())
        })
        .collect();
    assert_eq!(
        steps,
        [
            "old x509 active by broker",
            "next x509 prepared by operator",
            "next x509 active by operator",
            "old x509 old by operator",
            "old x509 old, tainted by operator",
            "old removed by operator",
        ]
    );
    let uid = rustix::process::getuid().as_raw();
    let refused = of(&data, "change-refused");
    assert_eq!(refused[0]["command"], "publish authority");
    assert_eq!(refused[0]["by"]["operator"]["uid"], uid);
    let revocation = of(&data, "changed").into_iter().find(|event| event["kind"] == "revocation").unwrap();
    assert_eq!(revocation["by"]["operator"]["uid"], uid);
    assert_eq!(revocation["name"], format!("certificate {}", "07".repeat(16)));
    let audit = data.join("audit");
    let folder = lab.stop().await;
    verify(&audit, None).unwrap();
    drop(folder);
}

#[tokio::test]
async fn the_head_of_the_audit_log_is_signed_by_whichever_key_signs_tokens() {
    let lab = Lab::start().await;
    let (mut watch, _) = lab.watching("n").await;
    let first = soon(audited_head(&mut watch)).await;
    let id = prepare(&lab, v1::AuthorityKind::Jwt).await;
    change(&lab, &id, Step::Activate, true).await.unwrap();
    let second = soon(async {
        loop {
            let head = audited_head(&mut watch).await;
            if head.kid != first.kid {
                return head;
            }
        }
    })
    .await;
    let audit = lab.data().join("audit");
    let folder = lab.stop().await;
    for v1::AuditHead { records, hash, signature, kid } in [first, second] {
        let json =
            serde_json::json!({ "records": records, "hash": hex(&hash), "signature": hex(&signature), "kid": kid });
        let remembered = RememberedHead::parse(&json.to_string()).unwrap();
        assert_eq!(verify(&audit, Some(&remembered)).unwrap().signature, Some(Signature::Good));
    }
    drop(folder);
}
