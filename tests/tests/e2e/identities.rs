//! The life of identities: authorities that follow one another under load, SVIDs that are revoked, and the Workload API as a client sees it that
//! is not ours.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use e2e::wire::{self, Ended, raw_call, raw_connect};
use e2e::{Behaviour, Caller, Daemon, Flaw, ITEMS, Lab, LegacyService, Load, SidecarSetup, binary, eventually};
use portcullis_api::v1;
use portcullis_transport::CloseReason;
use portcullis_transport::quic::ConnectionLost;

const ALICE: &str = "spiffe://test.example/component/demo/alice";

/// The ids of the X.509 authorities in a stage.
fn authorities(lab: &Lab, stage: &str) -> Vec<String> {
    let shown = lab.broker_command(&["ca", "show", "--json"]).ok().json();
    let all = shown["authorities"].as_array().unwrap().iter();
    all.filter(|row| row["kind"] == "x509" && row["stage"] == stage)
        .map(|row| row["id"].as_str().unwrap().to_owned())
        .collect()
}

/// How often the sidecar replaced the SVID that callers see.
fn renewals(sidecar: &Daemon) -> usize {
    sidecar.log().lines().filter(|line| line.contains("renewed an svid") && line.contains("virtual/demo/shop")).count()
}

#[test]
fn roots_follow_one_another_three_times_under_load_without_a_failed_call() {
    let lab = Lab::start();
    lab.allow_all();
    let service = LegacyService::start(Behaviour::Answer(200, "3".to_owned()));
    let sidecar = lab.sidecar(&SidecarSetup::http("shop", service.address).ttl(60));
    let alice = lab.caller_with("alice", 60);
    let record = lab.record(&alice, "shop");
    let load = Load::start(&lab, &alice, &record);
    for round in 0..3 {
        let old = authorities(&lab, "active");
        assert_eq!(old.len(), 1, "{old:?}");
        let new = lab.broker_command(&["ca", "prepare", "--json"]).ok().json();
        let new = new["id"].as_str().unwrap();
        lab.broker_command(&["ca", "activate", new]).ok();
        assert_eq!(authorities(&lab, "active"), [new]);
        let serial = |caller: &Caller| caller.identity.svid().chain()[0].clone();
        let before = (serial(&alice), renewals(&sidecar));
        lab.broker_command(&["ca", "taint", &old[0]]).ok();
        eventually("both ends' svids to be replaced", || {
            (serial(&alice) != before.0 && renewals(&sidecar) > before.1).then_some(())
        });
        // Refused while a connected node still needs it, or a connection may.
        eventually("nobody to need the old root", || {
            let revoked = lab.broker_command(&["ca", "revoke", &old[0]]);
            assert!([0, 3].contains(&revoked.code), "{revoked:?}");
            std::thread::sleep(Duration::from_millis(200));
            (revoked.code == 0).then_some(())
        });
        let calls = load.calls();
        eventually("calls below the new root", || (load.calls() > calls + 50).then_some(()));
        assert!(!sidecar.log().contains("refused"), "round {round}");
    }
    assert!(load.end(&lab) > 150);
    // Who comes new trusts the last root alone.
    let bob = lab.caller("bob");
    let record = lab.record(&bob, "shop");
    assert_eq!(lab.call(&bob, &record, "count", b"").unwrap(), &b"\x03"[..]);
}

#[test]
fn a_node_that_is_away_with_a_valid_certificate_is_not_left_behind() {
    let lab = Lab::start();
    lab.allow_all();
    let service = LegacyService::start(Behaviour::Answer(200, "3".to_owned()));
    let config = lab.register(&SidecarSetup::http("shop", service.address));
    let mut sidecar = lab.start_sidecar("shop", &config);
    sidecar.kill();
    let old = authorities(&lab, "active").remove(0);
    let new = lab.broker_command(&["ca", "prepare", "--json"]).ok().json();
    let new = new["id"].as_str().unwrap();
    let refused = lab.broker_command(&["ca", "activate", new]);
    assert_eq!(refused.code, 3, "{refused:?}");
    assert!(refused.err.contains("shop (away)"), "{refused:?}");
    // It comes back, and learns of the new root from a broker that it can still verify.
    let mut sidecar = lab.start_sidecar("shop", &config);
    lab.broker_command(&["ca", "activate", new]).ok();
    sidecar.kill();
    lab.broker_command(&["ca", "taint", &old]).ok();
    let refused = lab.broker_command(&["ca", "revoke", &old]);
    assert!(refused.code == 3 && refused.err.contains("shop (away)"), "{refused:?}");
    lab.broker_command(&["ca", "revoke", &old, "--force"]).ok();
}

#[test]
fn what_is_revoked_is_refused_and_its_connections_end_at_once() {
    let lab = Lab::start();
    lab.allow_all();
    let service = LegacyService::start(Behaviour::Answer(200, "3".to_owned()));
    let sidecar = lab.sidecar(&SidecarSetup::http("shop", service.address));
    let _alice = lab.caller("alice");
    let entries = lab
        .operator(async |mut operator| operator.list_entries(v1::ListEntriesRequest::default()).await)
        .unwrap()
        .entries;
    let entry = entries.iter().find(|entry| entry.spiffe_id == ALICE).unwrap();
    let (trust, forge, address) = (lab.trust(), lab.forge(), sidecar.address("quic"));
    let call = [wire::header(ITEMS, "count"), wire::frame(b"")].concat();
    let answer = Ended::Answer(wire::frame(b"\x03"));
    let connect = |id: &str| lab.block_on(raw_connect(&trust, Some(forge.certificate(id, Flaw::None)), address));
    // Issued a minute ago, by their word.
    let stolen = connect(ALICE).unwrap();
    let bystander = connect("spiffe://test.example/component/demo/bob").unwrap();
    for connection in [&stolen, &bystander] {
        assert_eq!(lab.block_on(raw_call(connection, &call)), answer);
    }
    let began = Instant::now();
    lab.broker_command(&["revoke", "entry", &entry.id]).ok();
    let ended = lab.block_on(stolen.closed());
    let took = began.elapsed();
    let reason = portcullis_transport::quic::classify(&ended);
    assert_eq!(reason, ConnectionLost::Closed(CloseReason::TrustWithdrawn));
    assert!(took < Duration::from_secs(1), "{took:?}");
    let again = connect(ALICE).map(|connection| lab.block_on(raw_call(&connection, &call)));
    assert!(matches!(again, Err(ConnectionLost::RefusedUs { .. }) | Ok(Ended::Lost(_))), "{again:?}");
    assert_eq!(lab.block_on(raw_call(&bystander, &call)), answer);
    let listed = lab.broker_command(&["revoke", "list", "--json"]).ok().json();
    assert_eq!(listed[0]["spiffe_id"], ALICE, "{listed}");
}

/// An agent with a socket for workloads, and the socket.
fn agent(lab: &Lab) -> (Daemon, PathBuf) {
    let socket = lab.path().join("api/workload.sock");
    let config = lab.path().join("agent.toml");
    let token = lab.token("agent");
    let text = format!(
        "[node]\nstate = \"agent-state\"\njoin_token_file = \"{}\"\n[workload_api]\nsocket = \"{}\"\n",
        token.display(),
        socket.display()
    );
    std::fs::write(&config, text).unwrap();
    (lab.start_sidecar("agent", &config), socket)
}

/// Who may have the identity `/web`, on the agent's machine.
fn entry(lab: &Lab, selector: String) {
    let request = v1::CreateEntryRequest {
        node: "agent".to_owned(),
        spiffe_id: "spiffe://test.example/web".to_owned(),
        selectors: vec![selector],
        x509_ttl_seconds: 8,
        ..Default::default()
    };
    lab.operator(async |mut operator| operator.create_entry(request).await).unwrap();
}

/// The Python that `tests/run.sh` sets up beside the binaries.
fn python() -> PathBuf {
    let path = binary("portcullis-broker").ancestors().nth(2).unwrap().join("test-python/bin/python");
    assert!(path.exists(), "{} is missing: run tests/run.sh first", path.display());
    path
}

/// What the client said, and whether it was content.
fn client(socket: &Path, arguments: &[&str]) -> (bool, String) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("python/workload_api.py");
    let output = Command::new(python())
        .arg(script)
        .arg(format!("unix://{}", socket.display()))
        .args(arguments)
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

#[test]
fn a_python_client_uses_every_call_of_the_workload_api_and_follows_rotations() {
    let lab = Lab::start();
    let (_agent, socket) = agent(&lab);
    entry(&lab, format!("unix:uid:{}", rustix::process::getuid().as_raw()));
    let (content, said) = client(&socket, &["--id", "spiffe://test.example/web", "--rotations", "2"]);
    assert!(content, "{said}");
    for fact in ["security header, no header", "a JWT-SVID for its audience", "X509Source", "2 rotations"] {
        assert!(said.contains(&format!("ok      {fact}")), "`{fact}` is not in\n{said}");
    }
}

#[test]
fn a_stranger_on_the_socket_gets_no_identity_and_the_log_says_what_it_is() {
    let lab = Lab::start();
    let (agent, socket) = agent(&lab);
    entry(&lab, "unix:path:/usr/bin/no-such-program".to_owned());
    let (content, said) = client(&socket, &[]);
    assert!(!content && said.contains("PERMISSION_DENIED"), "{said}");
    agent.logged(&["unix:uid:", "unix:path:"]);
}
