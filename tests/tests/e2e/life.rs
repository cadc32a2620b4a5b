//! What lasts and what ends: power cuts, restarts, drains, renewals, expiry, policies that change or grow old.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use e2e::wire::{self, Ended, begin, raw_call, raw_connect, read_to_end};
use e2e::{
    Behaviour, Caller, Flaw, ITEMS, Lab, LegacyService, PIPE_WIT, PIPES, ScriptedUpstream, SidecarSetup, eventually,
};
use portcullis_api::v1;
use portcullis_client::node::PeerRecord;
use portcullis_client::peers::{CallLimits, FunctionName};
use portcullis_client::{CallError, Peers};
use portcullis_transport::Refusal;
use portcullis_transport::quic::ConnectionLost;

const ALICE: &str = "spiffe://test.example/component/demo/alice";
const COUNT: FunctionName<'static> = FunctionName { instance: ITEMS, function: "count" };

fn counting() -> LegacyService {
    LegacyService::start(Behaviour::Answer(200, "3".to_owned()))
}

fn answers(lab: &Lab, caller: &Caller, record: &PeerRecord) -> bool {
    lab.call(caller, record, "count", b"").is_ok_and(|answer| answer == b"\x03"[..])
}

#[test]
fn no_acknowledged_write_is_lost_when_the_broker_is_killed() {
    let mut lab = Lab::start();
    lab.register(&SidecarSetup::http("shop", ([127, 0, 0, 1], 1).into()));
    for round in 0..5 {
        let name = format!("caller-{round}");
        let component = v1::Target { lattice: "demo".to_owned(), id: name.clone() };
        let request = v1::CreateEntryRequest {
            node: name.clone(),
            component: Some(component),
            danger_any_digest: true,
            ..Default::default()
        };
        let entry = lab.operator(async |mut operator| operator.create_entry(request).await).unwrap().entry.unwrap();
        lab.broker().kill();
        lab.start_broker();
        let entries = lab
            .operator(async |mut operator| operator.list_entries(v1::ListEntriesRequest::default()).await)
            .unwrap()
            .entries;
        assert!(entries.contains(&entry), "round {round}: {entry:?} is not in {entries:?}");

        let file = format!("{name}.cedar");
        lab.policy(&file, &format!("@id(\"{name}\") permit (principal, action, resource);"));
        lab.broker().kill();
        lab.start_broker();
        let files =
            lab.operator(async |mut operator| operator.list_policies(v1::ListPoliciesRequest {}).await).unwrap().files;
        assert!(files.iter().any(|policy| policy.name == file), "round {round}: {files:?}");
    }
    let grant = v1::ChangeGrantRequest {
        target: Some(v1::Target { lattice: "demo".to_owned(), id: "shop".to_owned() }),
        spiffe_id: ALICE.to_owned(),
        granted: true,
    };
    lab.operator(async |mut operator| operator.change_grant(grant).await).unwrap();
    lab.broker().kill();
    lab.start_broker();
    let components = lab
        .operator(async |mut operator| operator.list_components(v1::ListComponentsRequest {}).await)
        .unwrap()
        .components;
    assert_eq!(components[0].grants, [ALICE]);
    // A token that was made before a power cut is good after it.
    let token = lab.token("caller-0");
    lab.broker().kill();
    lab.start_broker();
    assert!(token.exists());
    let versions: Vec<_> = (0..2)
        .map(|_| {
            let version = lab.broker_command(&["status", "--json"]).ok().json()["version"].clone();
            lab.broker().kill();
            lab.start_broker();
            version
        })
        .collect();
    assert_eq!(versions[0], versions[1], "a restart alone changes nothing");
}

#[test]
fn a_killed_sidecar_starts_again_from_its_cache_while_the_broker_is_away() {
    let mut lab = Lab::start();
    lab.policy(
        "shop.cedar",
        &format!("@id(\"alice-counts\") permit (principal == Workload::\"{ALICE}\", action, resource);"),
    );
    let service = counting();
    let config = lab.register(&SidecarSetup::http("shop", service.address));
    let mut sidecar = lab.start_sidecar("shop", &config);
    let (alice, mallory) = (lab.caller("alice"), lab.caller("mallory"));
    let record = lab.record(&alice, "shop");
    assert!(answers(&lab, &alice, &record));
    let state = lab.path().join("shop-state/state");
    eventually("the policy in the cache", || {
        let bytes = std::fs::read(&state).ok()?;
        bytes.windows(12).any(|window| window == b"alice-counts").then_some(())
    });
    // The callers know this address, so the sidecar must come back to it; and the token must not be needed.
    let address = sidecar.address("quic");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, text.replace("127.0.0.1:0", &address.to_string())).unwrap();
    std::fs::remove_file(lab.path().join("shop.token")).unwrap();
    lab.broker().kill();
    sidecar.kill();
    assert!(!answers_anew(&lab, &alice, &record));

    let sidecar = lab.start_sidecar("shop", &config);
    assert_eq!(sidecar.address("quic"), address);
    assert!(answers_anew(&lab, &alice, &record));
    // Who still holds a connection to the process that was killed finds out before QUIC does, after 30 s.
    let began = Instant::now();
    eventually("the old connection to be given up", || answers(&lab, &alice, &record).then_some(()));
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    // The policies came from the cache too: it does not let everybody in.
    let error = lab.call(&mallory, &record, "count", b"").unwrap_err();
    assert!(matches!(error, CallError::Refused { refusal: Refusal::Denied, .. }), "{error}");
    let status = lab.status("shop");
    assert_eq!((&status["ready"], &status["broker_connected"]), (&true.into(), &false.into()));
    assert_eq!(service.seen().len(), 3);
}

/// Like [`answers`], over a new connection.
fn answers_anew(lab: &Lab, caller: &Caller, record: &PeerRecord) -> bool {
    let limits = CallLimits { connect: Duration::from_secs(2), ..CallLimits::default() };
    let peers = Peers::new(Arc::clone(&caller.identity), limits, lab.tasks().clone());
    let called = lab.block_on(peers.call(record, COUNT, Bytes::new(), Duration::from_secs(5)));
    called.is_ok_and(|answer| answer == b"\x03"[..])
}

#[test]
fn a_sidecar_that_stops_answers_what_it_began_and_refuses_what_is_new() {
    let lab = Lab::start();
    lab.allow_all();
    let service = LegacyService::start(Behaviour::Slow(Duration::from_secs(3), "3".to_owned()));
    let mut setup = SidecarSetup::http("shop", service.address);
    setup.upstream = setup.upstream.replace("\"1s\"", "\"20s\"");
    let mut sidecar = lab.sidecar(&setup);
    let alice = lab.caller("alice");
    let record = lab.record(&alice, "shop");
    let address = sidecar.address("quic");
    let (trust, certificate) = (lab.trust(), lab.forge().certificate(ALICE, Flaw::None));
    let raw = lab.block_on(raw_connect(&trust, Some(certificate), address)).unwrap();
    let slow = {
        let (peers, record) = (alice.peers.clone(), record.clone());
        lab.spawn(async move { peers.call(&record, COUNT, Bytes::new(), Duration::from_secs(20)).await })
    };
    eventually("the slow call to reach the service", || (service.seen().len() == 1).then_some(()));
    sidecar.terminate();
    sidecar.logged(&["draining", "calls=1"]);

    // New calls on connections that stand, ours and another's.
    let call = [wire::header(ITEMS, "count"), wire::frame(b"")].concat();
    let ended = lab.block_on(raw_call(&raw, &call));
    assert_eq!(ended, Ended::Reset(Refusal::Draining.code().into()));
    let error = lab.call(&alice, &record, "count", b"").unwrap_err();
    assert!(
        matches!(error, CallError::Unreachable { .. } | CallError::Refused { refusal: Refusal::Draining, .. }),
        "{error}"
    );
    // New connections.
    let certificate = lab.forge().certificate(ALICE, Flaw::None);
    let lost = lab.block_on(raw_connect(&trust, Some(certificate), address)).unwrap_err();
    assert_eq!(lost, ConnectionLost::Busy);
    assert!(sidecar.is_running());

    let answered = lab.block_on(slow).unwrap().unwrap();
    assert_eq!(answered, &b"\x03"[..], "the call under way was cut");
    assert!(sidecar.wait().success());
    assert_eq!(service.seen().len(), 1);
}

#[test]
fn svids_are_renewed_at_half_life_without_a_failed_call() {
    let lab = Lab::start();
    lab.allow_all();
    let service = counting();
    let sidecar = lab.sidecar(&SidecarSetup::http("shop", service.address).ttl(6));
    let began = Instant::now();
    let alice = lab.caller_with("alice", 6);
    let record = lab.record(&alice, "shop");
    let (done, calls) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let callers: Vec<_> = (0..4)
        .map(|_| {
            let (peers, record) = (alice.peers.clone(), record.clone());
            let (done, calls) = (Arc::clone(&done), Arc::clone(&calls));
            lab.spawn(async move {
                while !done.load(Ordering::Acquire) {
                    let answer = peers.call(&record, COUNT, Bytes::new(), Duration::from_secs(10)).await?;
                    assert_eq!(answer, &b"\x03"[..]);
                    calls.fetch_add(1, Ordering::Relaxed);
                    // Leaves the machine's cores to the other tests.
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
                Ok::<(), CallError>(())
            })
        })
        .collect();
    let renewals = |log: &str| {
        log.lines().filter(|line| line.contains("renewed an svid") && line.contains("virtual/demo/shop")).count()
    };
    let theirs = eventually("two renewals on both sides", || {
        let (ours, theirs) = (*alice.identity.renewals().borrow(), renewals(&sidecar.log()));
        (ours >= 2 && theirs >= 2).then_some(theirs)
    });
    // At half-life: not at once, over and over.
    let lived = usize::try_from(began.elapsed().as_secs()).unwrap();
    assert!(lived >= 4 && theirs <= lived / 2 + 1, "{theirs} renewals in {lived} s");
    done.store(true, Ordering::Release);
    for caller in callers {
        lab.block_on(caller).unwrap().unwrap();
    }
    assert!(calls.load(Ordering::Relaxed) > 100);
    // Each renewal on either side moves the calls to a connection of its own.
    let connected = sidecar.log().matches("connection: connected ").count();
    assert!(connected > 2, "{connected} connections");
}

#[test]
fn when_svids_expire_with_the_broker_away_calls_are_refused_until_it_is_back() {
    let mut lab = Lab::start();
    lab.allow_all();
    let service = counting();
    // One whose own SVID is short, called by one whose is long; and the other way round.
    let brief = lab.sidecar(&SidecarSetup::http("brief", service.address).ttl(5));
    let lasting = lab.sidecar(&SidecarSetup::http("lasting", service.address));
    let (alice, bob) = (lab.caller("alice"), lab.caller_with("bob", 5));
    let (to_brief, to_lasting) = (lab.record(&alice, "brief"), lab.record(&bob, "lasting"));
    assert!(answers(&lab, &alice, &to_brief) && answers(&lab, &bob, &to_lasting));
    lab.broker().kill();

    let refused = eventually("the sidecar's SVID to expire", || lab.call(&alice, &to_brief, "count", b"").err());
    match &refused {
        CallError::Refused { refusal: Refusal::NotReady, .. } => {}
        // Dialled anew in the moment of expiry.
        CallError::Unreachable { .. } => {}
        error => panic!("{error}"),
    }
    brief.logged(&["every call is refused", "SVID has expired"]);
    let (code, why) = e2e::get(&lab.admin_socket("brief"), "/ready").unwrap();
    assert_eq!((code, why.trim()), (503, "the component's SVID has expired"));
    eventually("the caller's SVID to expire", || lab.call(&bob, &to_lasting, "count", b"").err());
    lasting.logged(&["disconnected", "certificate-expired", "demo/bob"]);
    let error = lab.call(&bob, &to_lasting, "count", b"").unwrap_err();
    assert!(matches!(error, CallError::Lost { .. } | CallError::Unreachable { .. }), "{error}");
    assert!(lab.call(&alice, &to_brief, "count", b"").is_err());

    lab.start_broker();
    let back = Instant::now();
    eventually("both to be served again", || {
        (answers(&lab, &alice, &to_brief) && answers(&lab, &bob, &to_lasting)).then_some(())
    });
    let closed = back.elapsed();
    assert!(closed < Duration::from_secs(4), "closed for {closed:?} after the return");
}

#[test]
fn policies_that_grow_too_old_close_the_gate_until_the_broker_is_back() {
    let mut lab = Lab::start();
    lab.allow_all();
    let service = counting();
    let setup = SidecarSetup::http("shop", service.address).node("policy_max_age = \"2s\"");
    let sidecar = lab.sidecar(&setup);
    let alice = lab.caller("alice");
    let record = lab.record(&alice, "shop");
    assert!(answers(&lab, &alice, &record));
    lab.broker().kill();
    let error = eventually("the policies to grow old", || lab.call(&alice, &record, "count", b"").err());
    let CallError::Refused { refusal: Refusal::NotReady, .. } = error else { panic!("{error}") };
    sidecar.logged(&["every call is refused", "the limit is 2 s"]);
    let status = lab.status("shop");
    assert_eq!(status["ready"], false);
    assert!(status["not_ready"].as_str().unwrap().contains("the limit is 2 s"), "{status}");

    // A power cut does not make them younger.
    let seen = service.seen().len();
    drop(sidecar);
    let _sidecar = lab.start_sidecar("shop", &lab.path().join("shop.toml"));
    assert_eq!(lab.status("shop")["ready"], false);
    lab.start_broker();
    let record = eventually("the gate to open", || {
        let record = alice.node.state().borrow().components[&record.target].clone();
        answers(&lab, &alice, &record).then_some(record)
    });
    assert_eq!(service.seen().len(), seen + 1);
    drop(record);
}

/// Answers any call with a stream that does not end.
fn endless(mut stream: UnixStream, started: &AtomicUsize) {
    let mut head = [0; 64];
    if stream.read(&mut head).unwrap_or(0) == 0 {
        return;
    }
    started.fetch_add(1, Ordering::Release);
    // A pending stream, then its chunks: each a list of one byte.
    let mut sent = stream.write_all(&wire::frame(&[0]));
    while sent.is_ok() {
        sent = stream.write_all(&wire::nested_frame(&[0], &[1, 7]));
        std::thread::sleep(Duration::from_millis(5));
    }
    started.fetch_sub(1, Ordering::Release);
}

fn pipe(lab: &Lab, socket: &Path) -> SidecarSetup {
    assert!(socket.starts_with(lab.path()));
    SidecarSetup::splice("pipe", socket).wit(PIPE_WIT)
}

#[test]
fn a_call_under_way_is_cut_off_when_a_new_policy_denies_it() {
    let lab = Lab::start();
    lab.allow_all();
    let socket = lab.path().join("pipe.sock");
    let underway = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&underway);
    let _upstream = ScriptedUpstream::start(&socket, move |stream| endless(stream, &counter));
    let sidecar = lab.sidecar(&pipe(&lab, &socket));
    let (trust, forge) = (lab.trust(), lab.forge());
    let call = [wire::header(PIPES, "flow"), wire::frame(&[0])].concat();
    let certificate = |id: &str| Some(forge.certificate(id, Flaw::None));
    let bob = "spiffe://test.example/component/demo/bob";
    let (mut alices, mut bobs) = lab.block_on(async {
        let address = sidecar.address("quic");
        let alice = raw_connect(&trust, certificate(ALICE), address).await.unwrap();
        let bob = raw_connect(&trust, certificate(bob), address).await.unwrap();
        let mut alices = begin(&alice, &call).await.unwrap();
        let mut bobs = begin(&bob, &call).await.unwrap();
        // Both streams flow.
        let mut some = [0; 100];
        alices.1.read_exact(&mut some).await.unwrap();
        bobs.1.read_exact(&mut some).await.unwrap();
        ((alice, alices), (bob, bobs))
    });
    lab.policy(
        "not-alice.cedar",
        &format!("@id(\"not-alice\")\nforbid (principal == Workload::\"{ALICE}\", action, resource);"),
    );
    let ended = lab.block_on(read_to_end(&mut alices.1.1));
    assert_eq!(ended, Ended::Reset(Refusal::Denied.code().into()));
    sidecar.logged(&["decision", "refused", "denied", "demo/alice", "not-alice"]);
    eventually("the service to be told", || (underway.load(Ordering::Acquire) == 1).then_some(()));
    // Nobody else's call was touched.
    lab.block_on(async {
        let mut some = [0; 100];
        bobs.1.1.read_exact(&mut some).await.unwrap();
    });
    assert!(!sidecar.log().contains("disconnected"));
}
