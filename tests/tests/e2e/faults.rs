//! What must hold when the machine fails: power, disk, clock; and when an old store is put back.

use std::collections::BTreeSet;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use e2e::wire::{self, Ended, raw_call, raw_connect};
use e2e::{
    Behaviour, Caller, Daemon, Flaw, ITEMS, Lab, LegacyService, Ran, SidecarSetup, audit_events, eventually, get, run,
    run_in,
};
use portcullis_api::v1;
use portcullis_client::CallError;
use portcullis_client::node::{Connectivity, Node, PeerRecord, SignError, WantedJwt};
use portcullis_client::peers::FunctionName;
use portcullis_identity::Leaf;
use portcullis_transport::Refusal;
use portcullis_transport::quic::ConnectionLost;
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use serde_json::Value;
use tonic::Code;

const COUNT: FunctionName<'static> = FunctionName { instance: ITEMS, function: "count" };

fn counting() -> LegacyService {
    LegacyService::start(Behaviour::Answer(200, "3".to_owned()))
}

fn answers(lab: &Lab, caller: &Caller, record: &PeerRecord) -> bool {
    lab.call(caller, record, "count", b"").is_ok_and(|answer| answer == b"\x03"[..])
}

/// One field of all events of a kind.
fn recorded(data: &Path, what: &str, field: &str) -> BTreeSet<String> {
    let events = audit_events(data).into_iter().filter(|event| event["what"] == what);
    events.map(|event| event[field].as_str().unwrap().to_owned()).collect()
}

fn audit_verify(lab: &Lab, more: &[&str]) -> Ran {
    let data = lab.broker_data();
    run("portcullis-broker", &[&["audit", "verify", "--data", data.to_str().unwrap()], more].concat())
}

fn entries(lab: &Lab, node: &str, count: usize) -> Vec<String> {
    let entry = |number| v1::CreateEntryRequest {
        node: node.to_owned(),
        spiffe_id: format!("spiffe://test.example/{node}/{number}"),
        ..v1::CreateEntryRequest::default()
    };
    let request = v1::CreateEntriesRequest { entries: (0..count).map(entry).collect() };
    lab.operator(async |mut operator| operator.create_entries(request).await).unwrap().ids
}

fn wanted(entry: &str) -> Vec<WantedJwt> {
    let audience = vec!["somebody".to_owned().try_into().unwrap()];
    vec![WantedJwt { entry: entry.to_owned(), audience, vouched_by: None }; 8]
}

async fn tokens(node: &Node, entry: &str) -> Result<Vec<String>, SignError> {
    let tokens = node.jwt_svids(wanted(entry)).await?;
    tokens.into_iter().map(|token| token.map(|token| token.token().to_owned())).collect()
}

/// The `jti` in a token.
fn jti(token: &str) -> String {
    let claims = token.split('.').nth(1).unwrap();
    let claims = base64::Engine::decode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, claims).unwrap();
    serde_json::from_slice::<Value>(&claims).unwrap()["jti"].as_str().unwrap().to_owned()
}

#[test]
fn a_broker_that_is_killed_while_it_issues_has_every_svid_on_record() {
    let mut lab = Lab::start();
    let ids = entries(&lab, "busy", 400);
    let node = lab.node("busy");
    let mut state = node.state();
    lab.block_on(state.wait_for(|state| state.entries.len() == 400)).unwrap();
    let (serials, jtis) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(Vec::new())));
    let mut asking = Vec::new();
    for ids in ids.chunks(50).map(<[String]>::to_vec) {
        let (node, serials, jtis) = (node.clone(), Arc::clone(&serials), Arc::clone(&jtis));
        asking.push(lab.spawn(async move {
            let entries = node.state().borrow().entries.clone();
            for id in ids {
                let Ok(identity) = node.identity(&entries[&id], "").await else { return };
                let leaf = Leaf::parse(&identity.svid().chain()[0]).unwrap();
                serials
                    .lock()
                    .unwrap()
                    .push(leaf.serial().iter().map(|byte| format!("{byte:02x}")).collect::<String>());
                let Ok(tokens) = tokens(&node, &id).await else { return };
                jtis.lock().unwrap().extend(tokens.iter().map(|token| jti(token)));
            }
        }));
    }
    eventually("the load", || (serials.lock().unwrap().len() > 100).then_some(()));
    lab.broker().kill();
    let (had, had_tokens) = (serials.lock().unwrap().len(), jtis.lock().unwrap().len());
    assert!(had < 400, "it was killed too late to prove anything");
    lab.start_broker();
    for asking in asking {
        lab.block_on(asking).unwrap();
    }
    audit_verify(&lab, &[]).ok();
    let (on_record, tokens_on_record) =
        (recorded(&lab.broker_data(), "x509-issued", "serial"), recorded(&lab.broker_data(), "jwt-issued", "jti"));
    let missing: Vec<_> = serials.lock().unwrap().iter().filter(|had| !on_record.contains(*had)).cloned().collect();
    assert_eq!(missing, [""; 0], "of {had} certificates");
    let missing: Vec<_> = jtis.lock().unwrap().iter().filter(|had| !tokens_on_record.contains(*had)).cloned().collect();
    assert_eq!(missing, [""; 0], "of {had_tokens} tokens");
    // The node carries on.
    eventually("the node to be back", || lab.block_on(tokens(&node, &ids[0])).ok());
}

/// Lets no file of the broker grow beyond so many bytes; `None`: as before.
fn limit_files(broker: &Daemon, bytes: Option<u64>) {
    let pid = Pid::from_raw(broker.pid().try_into().unwrap());
    prlimit(pid, Resource::Fsize, Rlimit { current: bytes, maximum: None }).unwrap();
}

#[test]
fn a_full_disk_stops_issuance_and_with_room_it_goes_on() {
    let mut lab = Lab::start();
    let id = entries(&lab, "busy", 1).remove(0);
    let node = lab.node("busy");
    let mut state = node.state();
    lab.block_on(state.wait_for(|state| state.entries.len() == 1)).unwrap();
    // Longer than every other file that the broker writes meanwhile.
    let audit = lab.broker_data().join("audit/00000000000000000001.jsonl");
    let size = || std::fs::metadata(&audit).unwrap().len();
    let log = lab.path().join("broker.log");
    while size() < std::fs::metadata(&log).unwrap().len() + 100_000 {
        lab.block_on(tokens(&node, &id)).unwrap();
    }
    let (had, issued) = (size(), recorded(&lab.broker_data(), "jwt-issued", "jti").len());
    // In the middle of a record: the kernel writes what fits, and refuses the rest, as it does on a full disk.
    limit_files(lab.broker(), Some(had + 100));
    for _ in 0..3 {
        let error = lab.block_on(tokens(&node, &id)).unwrap_err();
        assert!(matches!(&error, SignError::Refused(why) if why.contains("cannot write its audit log")), "{error}");
    }
    let request = v1::CreateEntryRequest {
        node: "busy".to_owned(),
        spiffe_id: "spiffe://test.example/other".to_owned(),
        ..v1::CreateEntryRequest::default()
    };
    let status = lab.operator(async |mut operator| operator.create_entry(request.clone()).await).unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    lab.broker().logged(&["ALARM", "nothing is issued and nothing changes"]);
    assert!(lab.broker().is_running());
    let pages = lab.broker_data().join("admin.sock");
    let (code, why) = get(&pages, "/ready").unwrap();
    assert!(code == 503 && why.contains("audit log cannot be written"), "{code} {why}");

    limit_files(lab.broker(), None);
    assert_eq!(lab.block_on(tokens(&node, &id)).unwrap().len(), 8);
    lab.operator(async |mut operator| operator.create_entry(request).await).unwrap();
    lab.broker().logged(&["the audit log can be written again"]);
    assert_eq!(get(&pages, "/ready").unwrap().0, 200);
    audit_verify(&lab, &[]).ok();
    assert_eq!(recorded(&lab.broker_data(), "jwt-issued", "jti").len(), issued + 8, "what was refused was not issued");
}

/// A wall clock of its own for the daemons that are started with it.
struct Clock {
    offset: std::fs::File,
    environment: Vec<(String, String)>,
}

impl Clock {
    fn new(folder: &Path) -> Self {
        let (shim, path) = (folder.join("clock.so"), folder.join("clock.offset"));
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e/clock_shim.c");
        let mut compiler = std::process::Command::new("cc");
        let compiled = compiler.args(["-shared", "-fPIC", "-O1", "-o"]).arg(&shim).arg(source).status().unwrap();
        assert!(compiled.success());
        std::fs::write(&path, 0_i64.to_ne_bytes()).unwrap();
        let offset = std::fs::File::options().write(true).open(&path).unwrap();
        let text = |path: PathBuf| path.to_str().unwrap().to_owned();
        let environment = vec![("LD_PRELOAD".to_owned(), text(shim)), ("CLOCK_OFFSET".to_owned(), text(path))];
        Self { offset, environment }
    }

    fn step(&self, seconds: i64) {
        self.offset.write_all_at(&seconds.to_ne_bytes(), 0).unwrap();
    }
}

/// A broker and a sidecar on a machine whose clock can be set; SVIDs live for half an hour, and the authority is two hours old.
fn on_a_clock() -> (Lab, Clock, Daemon, LegacyService) {
    let mut lab = Lab::without_broker("node_ttl = \"30m\"\nsvid_ttl = \"30m\"\n");
    let clock = Clock::new(lab.path());
    lab.environment.clone_from(&clock.environment);
    clock.step(-7200);
    lab.start_broker();
    lab.broker().kill();
    clock.step(0);
    lab.start_broker();
    lab.allow_all();
    let service = counting();
    let sidecar = lab.sidecar(&SidecarSetup::http("shop", service.address));
    (lab, clock, sidecar, service)
}

/// A call of the sidecar's own component, by a command on the same machine.
fn invoked(lab: &Lab) -> Ran {
    let state = lab.path().join("shop-state");
    run_in(
        "portcullis-sidecar",
        &["invoke", "--state", state.to_str().unwrap(), "demo/shop", "count"],
        &lab.environment,
    )
}

/// A clock is noticed within seconds; connections that it ended are noticed within half a minute.
fn soon<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(90);
    loop {
        match probe() {
            Some(found) => return found,
            None => assert!(Instant::now() < deadline, "waited in vain for {what}"),
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn never_panicked(lab: &mut Lab, sidecar: &mut Daemon) {
    for log in [lab.broker().log(), sidecar.log()] {
        assert!(!log.contains("panicked"), "{log}");
    }
    assert!(lab.broker().is_running() && sidecar.is_running());
}

#[test]
fn a_clock_that_is_set_an_hour_ahead_closes_the_gate_until_there_are_new_svids() {
    let (mut lab, clock, mut sidecar, _service) = on_a_clock();
    eventually("calls", || (invoked(&lab).code == 0).then_some(()));
    let before = lab.status("shop")["svid_not_after"].as_u64().unwrap();
    clock.step(3600);
    let stepped = Instant::now();
    let refused = invoked(&lab);
    assert_ne!(refused.code, 0, "an expired SVID was used: {refused:?}");
    soon("calls with new SVIDs", || (invoked(&lab).code == 0).then_some(()));
    println!("open again {:.1} s after the clock was set an hour ahead", stepped.elapsed().as_secs_f64());
    let status = lab.status("shop");
    assert!(status["svid_not_after"].as_u64().unwrap() > before + 3000, "{status}");
    // The node's own certificate is another one too, and the broker's: a broker that starts anew is believed, and believes.
    soon("the node's own new certificate", || {
        (lab.status("shop")["node_not_after"].as_u64().unwrap() > before + 3000).then_some(())
    });
    lab.broker().kill();
    lab.start_broker();
    soon("the node to be back", || (lab.status("shop")["broker_connected"] == true).then_some(()));
    never_panicked(&mut lab, &mut sidecar);
}

#[test]
fn a_clock_that_is_set_an_hour_back_lets_nobody_in_who_was_out_and_disturbs_nobody_for_long() {
    let (mut lab, clock, mut sidecar, _service) = on_a_clock();
    eventually("calls", || (invoked(&lab).code == 0).then_some(()));
    // Somebody who is out.
    let (chain, key) = lab.forge().certificate("spiffe://test.example/component/demo/thief", Flaw::None);
    let serial: String = Leaf::parse(&chain[0]).unwrap().serial().iter().map(|byte| format!("{byte:02x}")).collect();
    let (trust, address) = (lab.trust(), sidecar.address("quic"));
    let call = [wire::header(ITEMS, "count"), wire::frame(b"")].concat();
    let thief = |lab: &Lab| {
        let connected = lab.block_on(raw_connect(&trust, Some((chain.clone(), key.clone_key())), address));
        connected.map(|connection| lab.block_on(raw_call(&connection, &call)))
    };
    assert!(matches!(thief(&lab), Ok(Ended::Answer(_))));
    lab.broker_command(&["revoke", "svid", &serial]).ok();
    let is_out = |lab: &Lab| matches!(thief(lab), Err(ConnectionLost::RefusedUs { .. }) | Ok(Ended::Lost(_)));
    eventually("the revocation", || is_out(&lab).then_some(()));

    clock.step(-3600);
    let stepped = Instant::now();
    // What was issued before is not valid yet.
    assert_ne!(invoked(&lab).code, 0, "an SVID of the future was used");
    soon("calls with new SVIDs", || (invoked(&lab).code == 0).then_some(()));
    println!("open again {:.1} s after the clock was set an hour back", stepped.elapsed().as_secs_f64());
    let data = lab.broker_data();
    let (ran, began) = ((lab.broker().ran(), sidecar.ran()), Instant::now());
    let issued = || recorded(&data, "x509-issued", "serial").len();
    let before = issued();
    eventually("some seconds to pass", || (began.elapsed() > Duration::from_secs(5)).then_some(()));
    let (broker, node) = (lab.broker().ran() - ran.0, sidecar.ran() - ran.1);
    assert!(broker < 1.0 && node < 1.0, "busy: the broker {broker} s, the sidecar {node} s of 5");
    assert!(issued() - before < 5, "{} certificates in 5 s", issued() - before);

    // And to the right time again.
    clock.step(0);
    soon("calls at the right time", || (invoked(&lab).code == 0).then_some(()));
    assert!(is_out(&lab), "a revoked SVID was accepted");
    never_panicked(&mut lab, &mut sidecar);
}

#[test]
fn a_node_serves_past_half_life_refuses_past_expiry_and_is_back_within_a_second() {
    let mut lab = Lab::start_with("node_ttl = \"8s\"\n");
    lab.allow_all();
    let service = counting();
    let sidecar = lab.sidecar(&SidecarSetup::http("shop", service.address).ttl(8));
    let alice = lab.caller_with("alice", 3600);
    let record = lab.record(&alice, "shop");
    assert!(answers(&lab, &alice, &record));
    // A fresh SVID, and then no broker any more.
    let renewals = sidecar.log().matches("renewed an svid").count();
    eventually("a renewal", || (sidecar.log().matches("renewed an svid").count() > renewals + 1).then_some(()));
    lab.broker().kill();
    let away = Instant::now();
    let half = Duration::from_secs(4);
    while away.elapsed() < half + Duration::from_millis(500) {
        // The sidecar may have taken another SVID just before.
        assert!(answers(&lab, &alice, &record), "refused {:?} after the broker went", away.elapsed());
    }
    let refused = eventually("the SVID to expire", || lab.call(&alice, &record, "count", b"").err());
    assert!(
        matches!(
            refused,
            CallError::Refused { refusal: Refusal::NotReady, .. }
                | CallError::Unreachable { .. }
                | CallError::Lost { .. }
        ),
        "{refused}"
    );
    sidecar.logged(&["every call is refused", "SVID has expired"]);
    // Its own certificate too, so that it has to rejoin.
    eventually("the node's own certificate to expire", || (away.elapsed() > Duration::from_secs(9)).then_some(()));
    lab.start_broker();
    let back = Instant::now();
    eventually("calls to be answered", || answers(&lab, &alice, &record).then_some(()));
    let closed = back.elapsed();
    println!("serving {closed:?} after the broker's return");
    sidecar.logged(&["rejoined"]);
    assert!(closed < Duration::from_secs(1), "closed for {closed:?} after the broker's return");
}

/// What lies in the store now.
fn backup(lab: &Lab) -> PathBuf {
    let copy = lab.path().join("backup.redb");
    std::fs::copy(lab.broker_data().join("store.redb"), &copy).unwrap();
    copy
}

fn put_back(lab: &Lab, backup: &Path) {
    std::fs::copy(backup, lab.broker_data().join("store.redb")).unwrap();
}

fn restore(lab: &Lab) -> Value {
    let data = lab.broker_data();
    let arguments = ["restore", "--trust-domain", "test.example", "--json", "--data", data.to_str().unwrap()];
    run("portcullis-broker", &arguments).ok().json()
}

fn stopped(lab: &mut Lab) {
    lab.broker().terminate();
    assert!(lab.broker().wait().success());
}

#[test]
fn a_store_from_an_old_backup_is_served_as_a_new_incarnation_and_nobody_is_locked_out_or_let_back_in() {
    let mut lab = Lab::start();
    let service = counting();
    let shop = lab.sidecar(&SidecarSetup::http("shop", service.address));
    lab.allow_all();
    let (early, leaver) = (lab.caller("early"), lab.caller("leaver"));
    let record = lab.record(&early, "shop");
    assert!(answers(&lab, &early, &record));
    stopped(&mut lab);
    let copy = backup(&lab);
    lab.start_broker();

    // Since the backup: one joins, one leaves, one identity is revoked, a policy and an entry are made.
    let late = lab.caller("late");
    lab.policy(
        "late.cedar",
        "@id(\"late\") permit (principal == Workload::\"spiffe://test.example/late\", action, resource);",
    );
    lab.broker_command(&["revoke", "node", "leaver"]).ok();
    let revoked =
        recorded(&lab.broker_data(), "changed", "name").into_iter().filter(|name| name.contains("/leaver")).count();
    assert!(revoked > 0);
    let witness = eventually("the audit head at the sidecar", || {
        let status = lab.status("shop");
        (status["audit"]["records"].as_u64() > Some(10)).then_some(status)
    });
    let seen = lab.path().join("seen.json");
    std::fs::write(&seen, witness.to_string()).unwrap();
    stopped(&mut lab);
    put_back(&lab, &copy);

    // By itself the broker does not start on it.
    let data = lab.broker_data();
    let arguments =
        ["run", "--trust-domain", "test.example", "--listen", "127.0.0.1:0", "--data", data.to_str().unwrap()];
    let refused = run("portcullis-broker", &arguments);
    assert!(refused.code == 1 && refused.err.contains("portcullis-broker restore"), "{refused:?}");

    let restored = restore(&lab);
    let incarnation = |version: &str| version.split_once('.').unwrap().0.parse::<u64>().unwrap();
    assert!(incarnation(restored["version"].as_str().unwrap()) > 1, "{restored}");
    assert_eq!(restored["readmitted"], serde_json::json!(["late"]));
    assert_eq!(restored["shut_out"], serde_json::json!(["leaver"]));
    let lost: Vec<_> = restored["lost"].as_array().unwrap().iter().map(|lost| lost["kind"].clone()).collect();
    assert!(lost.contains(&"policy file".into()) && lost.contains(&"entry".into()), "{restored}");

    lab.start_broker();
    let version = incarnation(restored["version"].as_str().unwrap());
    for caller in [&early, &late] {
        let mut state = caller.node.state();
        lab.block_on(state.wait_for(|state| state.version.incarnation == version)).unwrap();
    }
    shop.logged(&["the broker's store was restored from a backup"]);
    let shown = lab.status("shop")["version"].as_str().unwrap().to_owned();
    assert_eq!(incarnation(&shown), version);
    assert!(answers(&lab, &early, &record));
    // The one that joined since has no entry any more, until somebody makes it again; then it is served as before.
    assert!(late.node.state().borrow().entries.is_empty());
    let again = lab.operator(async |mut operator| {
        let request = v1::CreateEntryRequest {
            node: "late".to_owned(),
            component: Some(v1::Target { lattice: "demo".to_owned(), id: "late".to_owned() }),
            danger_any_digest: true,
            ..v1::CreateEntryRequest::default()
        };
        operator.create_entry(request).await
    });
    let id = again.unwrap().entry.unwrap().id;
    let mut state = late.node.state();
    lab.block_on(state.wait_for(|state| state.entries.contains_key(&id))).unwrap();
    lab.block_on(tokens(&late.node, &id)).unwrap();
    // The one that left stays out, and what it held stays revoked: here and at who verifies.
    let mut connectivity = leaver.node.connectivity();
    lab.block_on(connectivity.wait_for(|state| matches!(state, Connectivity::Disconnected(_)))).unwrap();
    let error = lab.block_on(leaver.peers.call(&record, COUNT, Bytes::new(), Duration::from_secs(5))).unwrap_err();
    assert!(matches!(error, CallError::Unreachable { .. } | CallError::Lost { .. }), "{error}");
    // The log goes on, and tells.
    audit_verify(&lab, &["--against", seen.to_str().unwrap()]).ok();
    let told: Vec<_> =
        audit_events(&lab.broker_data()).into_iter().filter(|event| event["what"] == "restored").collect();
    assert_eq!(told[0]["by"]["operator"]["uid"], rustix::process::getuid().as_raw());
    let shown = lab.broker_command(&["trust-domain", "list", "--json"]).ok();
    println!("{}", shown.out);

    // The same backup once more: above that too.
    stopped(&mut lab);
    put_back(&lab, &copy);
    let once_more = restore(&lab);
    assert!(incarnation(once_more["version"].as_str().unwrap()) > version, "{once_more}");
    assert_eq!(once_more["readmitted"], serde_json::json!(["late"]));
    lab.start_broker();
    let mut state = early.node.state();
    lab.block_on(state.wait_for(|state| state.version.incarnation > version)).unwrap();
}

#[test]
fn a_backup_without_its_audit_log_is_told_from_the_real_one_by_every_node() {
    let mut lab = Lab::start();
    let early = lab.caller("early");
    stopped(&mut lab);
    let (data, copy) = (lab.broker_data(), lab.path().join("whole-backup"));
    let copied = std::process::Command::new("cp").arg("-a").arg(&data).arg(&copy).status().unwrap();
    assert!(copied.success());
    lab.start_broker();
    let late = lab.caller("late");
    let witness = eventually("a head of the audit log", || {
        early
            .node
            .audit_head()
            .filter(|head| head.records > u64::try_from(audit_events(&lab.broker_data()).len()).unwrap() - 4)
    });
    let seen = lab.path().join("seen.json");
    let head = serde_json::json!({
        "records": witness.records, "hash": witness.hash, "signature": witness.signature, "kid": witness.kid
    });
    std::fs::write(&seen, head.to_string()).unwrap();
    stopped(&mut lab);
    std::fs::remove_dir_all(&data).unwrap();
    std::fs::rename(&copy, &data).unwrap();
    let restored = restore(&lab);
    assert_eq!(restored["readmitted"], serde_json::json!([]));
    // Nobody can forget what the nodes remember.
    let cut = audit_verify(&lab, &["--against", seen.to_str().unwrap()]);
    assert_eq!(cut.code, 3, "{cut:?}");
    lab.start_broker();
    let mut state = early.node.state();
    lab.block_on(state.wait_for(|state| state.version.incarnation > 1)).unwrap();
    eventually("the witness", || early.node.audit_head()?.contradiction);
    // Of whom nothing at all is left, it needs a token.
    let mut connectivity = late.node.connectivity();
    let told = |state: &Connectivity| matches!(state, Connectivity::Disconnected(why) if why.contains("join token"));
    lab.block_on(connectivity.wait_for(told)).unwrap();
}
