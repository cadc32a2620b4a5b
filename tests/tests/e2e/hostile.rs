//! Peers that want to exhaust the other end: callers against the sidecar, callees against our client.

use std::collections::BTreeSet;
use std::io::Read as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use e2e::wire::{self, Ended, begin, raw_call, raw_connect, read_to_end};
use e2e::{
    Answer, Behaviour, Caller, Component, Daemon, FakeCallee, Flaw, ITEMS, Lab, LegacyService, PIPE_WIT, PIPES,
    ScriptedUpstream, SidecarSetup, guest, memory,
};
use portcullis_client::CallError;
use portcullis_client::node::PeerRecord;
use portcullis_client::peers::{CallOutcome, FunctionName};
use portcullis_transport::Refusal;
use tokio::io::AsyncReadExt as _;
use wrpc_transport::{Index as _, Invoke as _, InvokeExt as _};

const MALLORY: &str = "spiffe://test.example/component/demo/mallory";
const CALLEE: &str = "spiffe://test.example/virtual/demo/shop";
const GIGABYTE: u64 = 1 << 30;
const MEGABYTE: u64 = 1 << 20;

fn code(refusal: Refusal) -> Ended {
    Ended::Reset(refusal.code().into())
}

/// A connection to the sidecar by hand, as whom everything is permitted.
fn intruder(lab: &Lab, sidecar: &Daemon) -> quinn::Connection {
    let certificate = lab.forge().certificate(MALLORY, Flaw::None);
    lab.block_on(raw_connect(&lab.trust(), Some(certificate), sidecar.address("quic"))).unwrap()
}

/// Sends `bytes` on `count` streams that stay open, and says how each ended.
fn probe(lab: &Lab, connection: &quinn::Connection, bytes: &[u8], count: usize) -> Vec<Ended> {
    lab.block_on(async {
        let mut open = Vec::new();
        for _ in 0..count {
            open.push(begin(connection, bytes).await.unwrap());
        }
        let mut ended = Vec::new();
        for (_send, mut recv) in open {
            ended.push(read_to_end(&mut recv).await);
        }
        ended
    })
}

#[test]
fn fifty_frames_that_claim_a_gigabyte_cost_the_sidecar_nothing() {
    let lab = Lab::start();
    lab.allow_all();
    let service = LegacyService::start(Behaviour::Answer(200, "3".to_owned()));
    let sidecar = lab.sidecar(&SidecarSetup::http("shop", service.address));
    let mallory = intruder(&lab, &sidecar);
    let call = [wire::header(ITEMS, "count"), wire::frame(b"")].concat();
    let answered = lab.block_on(raw_call(&mallory, &call));
    assert_eq!(answered, Ended::Answer(wire::frame(b"\x03")));

    let before = sidecar.memory().peak;
    let bytes = [wire::header(ITEMS, "echo"), wire::frame_head(GIGABYTE)].concat();
    assert!(bytes.len() < 40);
    for ended in probe(&lab, &mallory, &bytes, 50) {
        assert_eq!(ended, code(Refusal::TooLarge));
    }
    // The same inside a value: a small frame that holds a list of a gigabyte.
    let bytes = [wire::header(ITEMS, "echo"), wire::frame(&wire::leb(GIGABYTE))].concat();
    for ended in probe(&lab, &mallory, &bytes, 50) {
        assert_eq!(ended, code(Refusal::TooLarge));
    }
    let grown = sidecar.memory().peak - before;
    assert!(grown < 20 * MEGABYTE, "{grown} bytes");
    sidecar.logged(&["decision", "refused", "too-large", "mallory", "echo"]);
    // Nothing was closed, and nothing else is refused.
    assert_eq!(lab.block_on(raw_call(&mallory, &call)), Ended::Answer(wire::frame(b"\x03")));
    assert_eq!(service.seen().len(), 2);
}

#[test]
fn a_gigabyte_does_not_pass_through_a_splice_either() {
    let lab = Lab::start();
    lab.allow_all();
    let socket = lab.path().join("pipe.sock");
    // What each connection brought, once it has ended.
    let brought = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&brought);
    let _upstream = ScriptedUpstream::start(&socket, move |mut stream| {
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes);
        seen.lock().unwrap().push(bytes);
    });
    let sidecar = lab.sidecar(&SidecarSetup::splice("pipe", &socket).wit(PIPE_WIT));
    let mallory = intruder(&lab, &sidecar);
    let before = sidecar.memory().peak;
    for function in ["flow", "double"] {
        let bytes = [wire::header(PIPES, function), wire::frame_head(GIGABYTE)].concat();
        for ended in probe(&lab, &mallory, &bytes, 50) {
            assert_eq!(ended, code(Refusal::TooLarge), "{function}");
        }
    }
    // A stream's own frame, and one for a function that has no stream.
    let nested = [wire::leb(1), wire::leb(0), wire::leb(GIGABYTE)].concat();
    let bytes = [wire::header(PIPES, "flow"), wire::frame(&[0]), nested.clone()].concat();
    for ended in probe(&lab, &mallory, &bytes, 50) {
        assert_eq!(ended, code(Refusal::TooLarge));
    }
    let bytes = [wire::header(PIPES, "double"), nested].concat();
    assert_eq!(probe(&lab, &mallory, &bytes, 1), [code(Refusal::MalformedValue)]);
    let grown = sidecar.memory().peak - before;
    assert!(grown < 20 * MEGABYTE, "{grown} bytes");
    // A decoder that believes lengths never sees one: the last byte of each was kept back.
    let longest = e2e::eventually("the service's connections to end", || {
        let brought = brought.lock().unwrap();
        (brought.len() >= 151).then(|| brought.iter().map(Vec::len).max().unwrap())
    });
    assert!(longest < wire::header(PIPES, "double").len() + 10, "{longest} bytes");
}

#[test]
fn what_is_no_header_is_refused_with_one_line_in_the_log() {
    let lab = Lab::start();
    lab.allow_all();
    let service = LegacyService::start(Behaviour::Answer(200, "3".to_owned()));
    let sidecar = lab.sidecar(&SidecarSetup::http("shop", service.address));
    let mallory = intruder(&lab, &sidecar);
    let long = "a".repeat(300);
    let cases = [
        ("another version", b"\x01\x03a:b\x01f\x00\x00".to_vec()),
        ("another protocol", b"GET / HTTP/1.1\r\n\r\n".to_vec()),
        ("a long instance", wire::header(&long, "count")),
        ("a long function", wire::header(ITEMS, &long)),
        ("a name of a gigabyte", [vec![0], wire::leb(GIGABYTE)].concat()),
        ("a length without end", vec![0, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80]),
        ("no text", b"\x00\x02\xc3\x28\x01f\x00\x00".to_vec()),
        ("a control character", wire::header("a:b\n2026 INFO allowed", "count")),
        ("half a header", wire::header(ITEMS, "count")[..9].to_vec()),
    ];
    let count = cases.len();
    for (case, bytes) in cases {
        let ended = lab.block_on(raw_call(&mallory, &bytes));
        assert_eq!(ended, code(Refusal::MalformedHeader), "{case}");
    }
    let refusals = |log: &str| log.lines().filter(|line| line.contains("refused")).count();
    e2e::eventually("a line for each", || (refusals(&sidecar.log()) >= count).then_some(()));
    let log = sidecar.log();
    assert_eq!(refusals(&log), count, "{log}");
    assert!(log.lines().all(|line| line.starts_with("20")), "a name broke a line:\n{log}");
    let call = [wire::header(ITEMS, "count"), wire::frame(b"")].concat();
    assert_eq!(lab.block_on(raw_call(&mallory, &call)), Ended::Answer(wire::frame(b"\x03")));
    assert!(!log.contains("disconnected"));
}

#[test]
fn what_never_becomes_a_call_runs_out_of_time() {
    let lab = Lab::start();
    lab.allow_all();
    let service = LegacyService::start(Behaviour::Answer(200, "3".to_owned()));
    let limits = "[limits]\nheader_timeout = \"300ms\"\ncall_timeout = \"700ms\"\n";
    let sidecar = lab.sidecar(&SidecarSetup::http("shop", service.address).with(limits));
    let mallory = intruder(&lab, &sidecar);
    let header = wire::header(ITEMS, "echo");
    let began = Instant::now();
    for ended in probe(&lab, &mallory, &header[..header.len() - 1], 20) {
        assert_eq!(ended, code(Refusal::HeaderTimeout));
    }
    assert!(began.elapsed() >= Duration::from_millis(300));
    let unfinished = [
        // No frame; a frame's head; half a frame; a whole frame with half a value.
        Vec::new(),
        wire::frame_head(100),
        [wire::frame_head(100), vec![99, 1, 2, 3]].concat(),
        wire::frame(&[99, 1, 2, 3]),
    ];
    for rest in unfinished {
        for ended in probe(&lab, &mallory, &[header.clone(), rest].concat(), 5) {
            assert_eq!(ended, code(Refusal::DeadlineExceeded));
        }
    }
    sidecar.logged(&["decision", "refused", "header-timeout", "mallory"]);
    sidecar.logged(&["decision", "refused", "deadline-exceeded", "mallory", "echo"]);
    assert!(service.seen().is_empty());
    assert_eq!(lab.status("shop")["calls_underway"], 0);
}

#[test]
fn a_thousand_made_up_names_leave_no_trace_and_others_are_served() {
    let lab = Lab::start();
    lab.allow_all();
    let service = LegacyService::start(Behaviour::Answer(200, "3".to_owned()));
    let sidecar = lab.sidecar(&SidecarSetup::http("shop", service.address));
    let alice = lab.caller("alice");
    let record = lab.record(&alice, "shop");
    lab.call(&alice, &record, "count", b"").unwrap();
    let mallory = intruder(&lab, &sidecar);
    let before = sidecar.memory().peak;
    let others = {
        let (peers, record) = (alice.peers.clone(), record.clone());
        lab.spawn(async move {
            for _ in 0..50 {
                let count = FunctionName { instance: ITEMS, function: "count" };
                peers.call(&record, count, Bytes::new(), Duration::from_secs(10)).await?;
            }
            Ok::<(), CallError>(())
        })
    };
    let outcomes = lab.block_on(async {
        let calls = (0..1000).map(|number| {
            let connection = mallory.clone();
            let header = match number % 2 {
                0 => wire::header(ITEMS, &format!("made-up-{number}")),
                _ => wire::header(&format!("made-up:thing/number-{number}"), "count"),
            };
            tokio::spawn(async move { raw_call(&connection, &[header, wire::frame(b"")].concat()).await })
        });
        let calls: Vec<_> = calls.collect();
        let mut outcomes = Vec::new();
        for call in calls {
            outcomes.push(call.await.unwrap());
        }
        outcomes
    });
    assert!(outcomes.iter().all(|ended| *ended == code(Refusal::UnknownFunction)));
    lab.block_on(others).unwrap().unwrap();
    let grown = sidecar.memory().peak - before;
    assert!(grown < 20 * MEGABYTE, "{grown} bytes");
    let (_, metrics) = e2e::get(&lab.admin_socket("shop"), "/metrics").unwrap();
    assert!(!metrics.contains("made-up") && metrics.contains("refusal=\"unknown-function\"} 1000\n"), "{metrics}");
}

/// Every way in which an answer can be an attack, and whether it is one for a function without streams.
fn attacks() -> Vec<(&'static str, Answer)> {
    // A megabyte a frame, the first bytes of which claim a list of a gigabyte.
    let mut first = wire::leb(GIGABYTE);
    first.resize(1 << 20, 7);
    vec![
        ("a frame of a gigabyte", Answer::Begun(wire::frame_head(GIGABYTE))),
        ("a path of a gigabyte", Answer::Begun(wire::leb(GIGABYTE))),
        ("a number without end", Answer::Begun(vec![0x80; 64])),
        ("frames without end", Answer::Endless(wire::frame(&first))),
        ("empty frames without end", Answer::Endless(wire::frame(b"").repeat(1000))),
        ("a nested path", Answer::Whole(wire::nested_frame(&[0], b"\x03"))),
        ("half a frame", Answer::Whole([wire::frame_head(5), vec![3]].concat())),
        ("another protocol", Answer::Whole(b"HTTP/1.1 200 OK\r\n\r\n".to_vec())),
    ]
}

struct Trap {
    alice: Caller,
    lab: Lab,
}

impl Trap {
    fn set() -> Self {
        let lab = Lab::start();
        let alice = lab.caller("alice");
        Self { alice, lab }
    }

    fn callee(&self, answer: Answer) -> (FakeCallee, PeerRecord) {
        let svid = self.lab.forge().svid(CALLEE);
        let callee = FakeCallee::start(&self.lab, &self.lab.trust(), svid, answer);
        let record = self.lab.record_at("shop", callee.address);
        (callee, record)
    }

    fn call(&self, record: &PeerRecord, deadline: Duration) -> Result<Bytes, CallError> {
        let echo = FunctionName { instance: ITEMS, function: "echo" };
        let params = Bytes::from_static(b"\x00");
        self.lab.block_on(self.alice.peers.call(record, echo, params, deadline))
    }
}

#[test]
fn a_hostile_callee_gets_an_error_out_of_our_client_and_no_memory() {
    let trap = Trap::set();
    for (attack, answer) in attacks() {
        let (callee, record) = trap.callee(answer);
        let error = trap.call(&record, Duration::from_secs(20)).unwrap_err();
        assert!(matches!(error, CallError::Malformed { .. }), "{attack}: {error}");
        assert!(callee.visits().sent < 32 << 20, "{attack}: {:?}", callee.visits());
    }
    // Who stays silent gets the caller's deadline.
    let (_callee, record) = trap.callee(Answer::Begun(Vec::new()));
    let error = trap.call(&record, Duration::from_millis(300)).unwrap_err();
    assert!(matches!(error, CallError::DeadlineExceeded { .. }), "{error}");
    // Other tests of this process have their own megabytes; a gigabyte would stand out.
    assert!(memory("self").peak < 700 * MEGABYTE);
}

#[test]
fn a_hostile_callee_gets_an_error_out_of_wrpc_bindings_and_no_memory() {
    let trap = Trap::set();
    let mut told = BTreeSet::new();
    let nothing = ("no answer", Answer::Whole(Vec::new()));
    for (attack, answer) in attacks().into_iter().chain([nothing]) {
        let (callee, record) = trap.callee(answer);
        let client = trap.alice.peers.client(&record);
        let outcome = CallOutcome::default();
        let paths: [[Option<usize>; 0]; 0] = [];
        let data = Bytes::from_static(b"x");
        let calling = client.invoke_values_blocking::<_, (Bytes,), (Bytes,)>(outcome, ITEMS, "echo", (data,), paths);
        let error = trap.lab.block_on(calling).expect_err(attack);
        told.insert(format!("{attack}: {error:#}"));
        assert!(callee.visits().sent < 128 << 20, "{attack}: {:?}", callee.visits());
    }
    let told = told.into_iter().collect::<Vec<_>>().join("\n");
    for reason in [
        "frame of 1073741824 bytes exceeds the limit",
        "path of 1073741824 indices exceeds",
        "exceed the limit of 67108864 in all",
        "incomplete results",
        "stream ended inside a frame",
    ] {
        assert!(told.contains(reason), "`{reason}` is not in\n{told}");
    }
    assert!(memory("self").peak < 700 * MEGABYTE);
}

#[test]
fn a_stream_of_an_answer_that_breaks_ends_in_an_error() {
    let trap = Trap::set();
    let whole = [wire::frame(&[0]), wire::nested_frame(&[0], b"\x03abc")].concat();
    let cases = [
        ("a whole stream", [whole.clone(), wire::nested_frame(&[0], b"\x00")].concat(), true),
        ("half a frame", [whole.clone(), vec![1, 0, 5, 1]].concat(), false),
        ("a gigabyte", [whole, vec![1, 0], wire::leb(GIGABYTE)].concat(), false),
    ];
    for (case, answer, good) in cases {
        let (_callee, record) = trap.callee(Answer::Whole(answer));
        let client = trap.alice.peers.client(&record);
        let read = trap.lab.block_on(async {
            let paths = [[Some(0)]];
            let params = Bytes::from_static(&[0]);
            let invoked = client.invoke(CallOutcome::default(), PIPES, "flow", params, paths).await;
            let (_outgoing, incoming) = invoked.unwrap();
            let mut bytes = Vec::new();
            incoming.index(&[0]).unwrap().read_to_end(&mut bytes).await.map(|_| bytes)
        });
        match read {
            Ok(bytes) => assert!(good && bytes == b"\x03abc\x00", "{case}: {bytes:?}"),
            Err(error) => assert!(!good, "{case}: {error}"),
        }
    }
}

#[test]
fn the_command_line_survives_a_hostile_callee() {
    let lab = Lab::start();
    lab.allow_all();
    // The registered sidecar itself is the attacker: it announces its address like any other.
    lab.register(&SidecarSetup::http("shop", ([127, 0, 0, 1], 1).into()));
    let attacker = lab.node("shop");
    let alice = lab.caller("alice");
    let state = lab.path().join("alice-state");
    let served = AtomicUsize::new(0);
    let nothing = ("no answer", Answer::Whole(Vec::new()));
    for (attack, answer) in attacks().into_iter().chain([nothing]) {
        let callee = FakeCallee::start(&lab, &lab.trust(), lab.forge().svid(CALLEE), answer);
        let addresses = vec![callee.address.to_string()];
        let target = "demo/shop".parse().unwrap();
        lab.block_on(attacker.announce(target, addresses.clone()));
        e2e::eventually("the announcement", || {
            let state = alice.node.state();
            let known = state.borrow().components.values().any(|record| record.addresses == addresses);
            known.then_some(())
        });
        let arguments = ["invoke", "--state", state.to_str().unwrap(), "demo/shop", "echo", r#"{"data":""}"#];
        let ran = e2e::run("portcullis-sidecar", &arguments);
        assert_eq!(ran.code, 1, "{attack}: {ran:?}");
        assert!(ran.out.is_empty() && ran.err.contains("error: "), "{attack}: {ran:?}");
        served.fetch_add(callee.visits().calls, Ordering::Relaxed);
    }
    assert_eq!(served.load(Ordering::Relaxed), attacks().len() + 1);
}

#[test]
fn a_wasm_host_survives_a_hostile_callee_and_the_component_goes_on() {
    let lab = Lab::start();
    let wit = include_str!("../../../examples/invoices/wit/invoices.wit");
    lab.register(&SidecarSetup::http("billing", ([127, 0, 0, 1], 1).into()).wit(wit));
    let attacker = lab.node("billing");
    let svid = lab.forge().svid("spiffe://test.example/virtual/demo/billing");
    // `ok({ invoices: [], matched: 0 })`
    let good = Answer::Whole(wire::frame(&[0, 0, 0]));
    let callee = FakeCallee::start(&lab, &lab.trust(), svid, good.clone());
    lab.block_on(attacker.announce("demo/billing".parse().unwrap(), vec![callee.address.to_string()]));
    let mut checkout = Component::start(&lab, "checkout", &guest("checkout"));
    let arguments = serde_json::json!(["acme"]);
    assert_eq!(checkout.call("total", &arguments)["ok"]["ok"], 0);
    let before = checkout.memory().peak;
    let nothing = ("no answer", Answer::Whole(Vec::new()));
    // A value whose list claims a gigabyte of items, in a small frame.
    let lying = ("a list of a gigabyte", Answer::Whole(wire::frame(&[vec![0], wire::leb(GIGABYTE)].concat())));
    for (attack, answer) in attacks().into_iter().chain([nothing, lying]) {
        callee.answer(answer);
        let outcome = checkout.call("total", &arguments);
        let trap = outcome["trap"].as_str().unwrap_or_default();
        assert!(trap.contains("demo/billing"), "{attack}: {outcome}");
    }
    let grown = checkout.memory().peak - before;
    assert!(grown < 32 * MEGABYTE, "{grown} bytes");
    callee.answer(good);
    assert_eq!(checkout.call("total", &arguments)["ok"]["ok"], 0);
}
