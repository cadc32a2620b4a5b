//! Identities from a SPIFFE Workload API that is not the broker's own stream: a sidecar and a host take theirs from the socket of an agent.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use e2e::{
    Agent, Behaviour, Component, Daemon, ITEMS, Lab, LegacyService, SidecarSetup, audit_events, eventually, guest,
};
use portcullis_api::v1;
use portcullis_client::peers::{CallLimits, FunctionName};
use portcullis_client::{CallError, Peers, WorkloadSource};
use portcullis_identity::parse_spiffe_id;
use serde_json::json;

const SHOP: &str = "spiffe://test.example/virtual/demo/shop";
const ALICE: &str = "spiffe://test.example/component/demo/alice";
const COUNT: FunctionName<'static> = FunctionName { instance: ITEMS, function: "count" };

/// An agent whose socket gives what the lab's operator lets everybody of this user have.
fn agent(lab: &Lab) -> (PathBuf, PathBuf) {
    let socket = lab.path().join("api/workload.sock");
    let config = lab.path().join("agent.toml");
    let token = lab.token("agent");
    let text = format!(
        "[node]\nstate = \"agent-state\"\njoin_token_file = \"{}\"\n[workload_api]\nsocket = \"{}\"\n",
        token.display(),
        socket.display()
    );
    std::fs::write(&config, text).unwrap();
    (config, socket)
}

/// Lets this user have `spiffe_id` from the agent, in short-lived SVIDs.
fn entry(lab: &Lab, spiffe_id: &str) -> String {
    let request = v1::CreateEntryRequest {
        node: "agent".to_owned(),
        spiffe_id: spiffe_id.to_owned(),
        selectors: vec![format!("unix:uid:{}", rustix::process::getuid().as_raw())],
        x509_ttl_seconds: 8,
        ..Default::default()
    };
    lab.operator(async |mut operator| operator.create_entry(request).await).unwrap().entry.unwrap().id
}

fn remove(lab: &Lab, entry: &str) {
    lab.broker_command(&["entry", "remove", entry]).ok();
}

fn from(socket: &Path) -> String {
    format!("[identity]\nworkload_api = \"unix:{}\"\n", socket.display())
}

fn ready(lab: &Lab, wanted: bool) -> serde_json::Value {
    eventually(&format!("the sidecar's readiness to be {wanted}"), || {
        let status = lab.status("shop");
        (status["ready"] == wanted).then_some(status)
    })
}

fn renewals(sidecar: &Daemon) -> usize {
    sidecar.log().matches("the workload API renewed an svid").count()
}

#[test]
fn both_ends_live_on_svids_from_a_socket_and_no_call_fails_while_they_rotate() {
    let lab = Lab::start();
    lab.allow_all();
    let (config, socket) = agent(&lab);
    let _agent = lab.start_sidecar("agent", &config);
    entry(&lab, SHOP);
    entry(&lab, ALICE);
    let service = LegacyService::start(Behaviour::Answer(200, "3".to_owned()));
    let sidecar = lab.sidecar(&SidecarSetup::http("shop", service.address).with(&from(&socket)));
    let alice = lab.caller("alice");
    let record = lab.record(&alice, "shop");
    let place = format!("unix:{}", socket.display()).parse().unwrap();
    let id = parse_spiffe_id(ALICE).unwrap();
    let source = WorkloadSource::start(&place, id, &alice.node, lab.tasks(), lab.stop().child_token());
    let source = lab.block_on(source).unwrap();
    let identity = source.identity();
    let peers = Peers::new(Arc::clone(&identity), CallLimits::default(), lab.tasks().clone());

    let (done, calls) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let running = {
        let (done, calls) = (Arc::clone(&done), Arc::clone(&calls));
        lab.spawn(async move {
            while !done.load(Ordering::Acquire) {
                let answer = peers.call(&record, COUNT, Bytes::new(), Duration::from_secs(10)).await?;
                assert_eq!(answer, &b"\x03"[..]);
                calls.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            Ok::<_, CallError>(())
        })
    };
    eventually("both ends' svids to be renewed twice", || {
        (renewals(&sidecar) >= 2 && *identity.renewals().borrow() >= 2).then_some(())
    });
    let so_far = calls.load(Ordering::Relaxed);
    eventually("calls after that", || (calls.load(Ordering::Relaxed) > so_far + 20).then_some(()));
    done.store(true, Ordering::Release);
    lab.block_on(running).unwrap().unwrap();
    // What the broker would have signed for the sidecar lives for an hour.
    let left = lab.status("shop")["svid_not_after"].as_u64().unwrap();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    assert!(left <= now + 8, "{left} {now}");
    assert!(service.seen().iter().all(|seen| seen.header("x-caller") == Some(ALICE)));
}

#[test]
fn a_lost_identity_closes_the_gate_and_a_lost_socket_does_not() {
    let lab = Lab::start();
    lab.allow_all();
    let (config, socket) = agent(&lab);
    let mut agent = lab.start_sidecar("agent", &config);
    let shop = entry(&lab, SHOP);
    let other = entry(&lab, "spiffe://test.example/other");
    let service = LegacyService::start(Behaviour::Answer(200, "3".to_owned()));
    let sidecar = lab.sidecar(&SidecarSetup::http("shop", service.address).with(&from(&socket)));
    let alice = lab.caller("alice");
    let record = lab.record(&alice, "shop");
    assert_eq!(lab.call(&alice, &record, "count", b"").unwrap(), &b"\x03"[..]);

    // Another identity of the same socket is not ours.
    remove(&lab, &shop);
    let status = ready(&lab, false);
    let why = status["not_ready"].as_str().unwrap().to_owned();
    assert!(why.contains("identity is lost") && why.contains("test.example/other") && why.contains(SHOP), "{why}");
    let refused = lab.call(&alice, &record, "count", b"").unwrap_err().to_string();
    assert!(refused.contains("not-ready"), "{refused}");
    let shop = entry(&lab, SHOP);
    ready(&lab, true);
    assert_eq!(lab.call(&alice, &record, "count", b"").unwrap(), &b"\x03"[..]);

    // Without any identity left, the socket says no.
    remove(&lab, &other);
    remove(&lab, &shop);
    let why = ready(&lab, false)["not_ready"].as_str().unwrap().to_owned();
    assert!(why.contains("identity is lost"), "{why}");
    entry(&lab, SHOP);
    ready(&lab, true);

    // A socket that is away for a while is no loss: the SVID in force is good until it ends.
    agent.kill();
    assert_eq!(lab.call(&alice, &record, "count", b"").unwrap(), &b"\x03"[..]);
    assert_eq!(lab.status("shop")["ready"], true);
    // Beyond its end it is.
    let why = ready(&lab, false)["not_ready"].as_str().unwrap().to_owned();
    assert!(why.contains("SVID has expired"), "{why}");
    let before = renewals(&sidecar);
    let _agent = lab.start_sidecar("agent", &config);
    ready(&lab, true);
    assert!(renewals(&sidecar) > before);
    assert_eq!(lab.call(&alice, &record, "count", b"").unwrap(), &b"\x03"[..]);
}

#[test]
fn an_identity_that_is_not_the_registered_one_serves_nothing() {
    let lab = Lab::start();
    lab.allow_all();
    let (config, socket) = agent(&lab);
    let _agent = lab.start_sidecar("agent", &config);
    entry(&lab, "spiffe://test.example/other");
    let service = LegacyService::start(Behaviour::Answer(200, "3".to_owned()));
    let config = lab.register(&SidecarSetup::http("shop", service.address).with(&from(&socket)));
    let arguments = ["run".as_ref(), "--config".as_ref(), config.as_os_str()];
    let mut sidecar = Daemon::launch(lab.path(), "shop", "portcullis-sidecar", &arguments);
    sidecar.logged(&["waiting for the workload API", "spiffe://test.example/other", SHOP]);
    assert!(!lab.path().join("shop.ready").exists());
    entry(&lab, SHOP);
    sidecar.wait_ready(lab.path());
    ready(&lab, true);
}

#[test]
fn a_socket_of_another_trust_domain_gives_no_identity_here() {
    let (lab, abroad) = (Lab::start(), Lab::start_as("partner.test", ""));
    lab.allow_all();
    let agent = Agent::start(&abroad, "agent");
    // The same path, and who issues it is somebody else.
    let theirs = SHOP.replace("test.example", "partner.test");
    abroad.create(v1::CreateEntryRequest { spiffe_id: theirs.clone(), ..agent.entry("shop") });
    let service = LegacyService::start(Behaviour::Answer(200, "3".to_owned()));
    let config = lab.register(&SidecarSetup::http("shop", service.address).with(&from(&agent.socket)));
    let arguments = ["run".as_ref(), "--config".as_ref(), config.as_os_str()];
    let sidecar = Daemon::launch(lab.path(), "shop", "portcullis-sidecar", &arguments);
    sidecar.logged(&["waiting for the workload API", &theirs, "of another trust domain", SHOP]);
    assert!(!lab.path().join("shop.ready").exists());
}

#[test]
fn a_host_takes_its_component_s_identity_from_a_socket() {
    let lab = Lab::start();
    lab.allow_all();
    let (config, socket) = agent(&lab);
    let _agent = lab.start_sidecar("agent", &config);
    let id = "spiffe://test.example/component/demo/checkout";
    entry(&lab, id);
    let wit = include_str!("../../../examples/invoices/wit/invoices.wit");
    let service = LegacyService::start(Behaviour::Answer(200, r#"{"invoices":[],"matched":0}"#.to_owned()));
    let _sidecar = lab.sidecar(&SidecarSetup::http("billing", service.address).wit(wit));
    let place = format!("unix:{}", socket.display());
    let mut checkout = Component::start_with(&lab, "checkout", &guest("checkout"), &["--workload-api", &place]);
    assert_eq!(checkout.call("total", &json!(["acme"]))["ok"]["ok"], 0);
    assert_eq!(service.seen().pop().unwrap().header("x-caller"), Some(id));
    // To the host itself the broker gave nothing but what makes it a node.
    let events = audit_events(&lab.broker_data());
    let issued_to = |node: &str| {
        events.iter().filter(|event| event["what"] == "x509-issued" && event["node"] == node).collect::<Vec<_>>()
    };
    let (own, agents) = (issued_to("checkout"), issued_to("agent"));
    assert!(!own.is_empty() && own.iter().all(|event| event["entry"].is_null()), "{own:?}");
    assert!(agents.iter().any(|event| event["spiffe_id"] == id), "{agents:?}");
}
