//! Who gets a connection and who does not: callers at the sidecar's door, callees at the host's, whoever sits at the broker's address.

use std::time::{Duration, Instant};

use e2e::wire::{self, Ended, raw_call, raw_connect};
use e2e::{
    Answer, Behaviour, Certificate, Daemon, FakeCallee, Flaw, Forge, ITEMS, Impostor, Lab, LegacyService, SidecarSetup,
    eventually,
};
use portcullis_client::CallError;
use portcullis_client::node::Connectivity;
use portcullis_transport::quic::{ConnectionLost, QuicLimits};
use portcullis_transport::{CloseReason, Refusal};

const ALICE: &str = "spiffe://test.example/component/demo/alice";
const CALLEE: &str = "spiffe://test.example/virtual/demo/shop";

struct Door {
    // Dropped in this order.
    sidecar: Daemon,
    service: LegacyService,
    lab: Lab,
}

impl Door {
    /// Everybody may call everything: what is refused here is refused in the handshake.
    fn open() -> Self {
        let lab = Lab::start();
        lab.allow_all();
        let service = LegacyService::start(Behaviour::Answer(200, "3".to_owned()));
        let sidecar = lab.sidecar(&SidecarSetup::http("shop", service.address));
        Self { sidecar, service, lab }
    }

    /// What a caller with this certificate gets for a call of `count`.
    fn knock(&self, certificate: Option<Certificate>) -> Ended {
        let address = self.sidecar.address("quic");
        let trust = self.lab.trust();
        let call = [wire::header(ITEMS, "count"), wire::frame(b"")].concat();
        self.lab.block_on(async {
            match raw_connect(&trust, certificate, address).await {
                Ok(connection) => raw_call(&connection, &call).await,
                Err(lost) => Ended::Lost(lost),
            }
        })
    }
}

#[test]
fn who_cannot_prove_an_svid_of_the_trust_domain_gets_no_connection() {
    let door = Door::open();
    let (forge, stranger) = (door.lab.forge(), Forge::stranger("test.example"));
    let elsewhere = Forge::stranger("other.example");
    let foreign = "spiffe://other.example/component/demo/alice";
    let cases = [
        ("no certificate", None, "certificate"),
        ("expired", Some(forge.certificate(ALICE, Flaw::Expired)), "expired"),
        ("two URI SANs", Some(forge.certificate(ALICE, Flaw::TwoUris)), "2 URI names"),
        ("a CA as leaf", Some(forge.certificate(ALICE, Flaw::Ca)), "certificate authority"),
        ("no key usage", Some(forge.certificate(ALICE, Flaw::NoKeyUsage)), "KeyUsage"),
        ("another authority", Some(stranger.certificate(ALICE, Flaw::None)), "does not chain"),
        ("another trust domain", Some(elsewhere.certificate(foreign, Flaw::None)), "no bundle"),
        ("another trust domain's ID, signed here", Some(forge.certificate(foreign, Flaw::None)), "no bundle"),
    ];
    let count = cases.len();
    for (case, certificate, word) in cases {
        let ended = door.knock(certificate);
        assert!(matches!(ended, Ended::Lost(ConnectionLost::RefusedUs { .. })), "{case}: {ended:?}");
        door.sidecar.logged(&["refused", "handshake", "127.0.0.1", word]);
    }
    eventually("every refusal to be logged", || {
        (door.sidecar.log().matches("handshake refused").count() == count).then_some(())
    });
    assert!(door.service.seen().is_empty());
    assert!(!door.sidecar.log().contains("connection: connected "), "one got in");
    let (_, metrics) = e2e::get(&door.lab.admin_socket("shop"), "/metrics").unwrap();
    assert!(metrics.contains(&format!("portcullis_handshakes_refused_total {count}\n")), "{metrics}");
    // The same way in, without a flaw: what was refused above was refused for its flaw.
    let answered = door.knock(Some(forge.certificate(ALICE, Flaw::None)));
    assert_eq!(answered, Ended::Answer(wire::frame(b"\x03")));
}

#[test]
fn an_id_that_only_shares_a_prefix_with_a_permitted_one_is_another_id() {
    let door = Door::open();
    let text = format!("@id(\"alice\")\npermit (principal == Workload::\"{ALICE}\", action, resource);\n");
    door.lab.policy("all.cedar", &text);
    let forge = door.lab.forge();
    // The policy above is in force once alice2 is not let in any more.
    let denied = Ended::Reset(Refusal::Denied.code().into());
    eventually("the policy", || {
        (door.knock(Some(forge.certificate(&format!("{ALICE}2"), Flaw::None))) == denied).then_some(())
    });
    let before = door.service.seen().len();
    for id in [
        format!("{ALICE}2"),
        format!("{ALICE}/x"),
        "spiffe://test.example/component/demo/alic".to_owned(),
        "spiffe://test.example/component/demo/Alice".to_owned(),
    ] {
        assert_eq!(door.knock(Some(forge.certificate(&id, Flaw::None))), denied, "{id}");
        door.sidecar.logged(&["decision", "refused", "denied", &format!("\"{id}\"")]);
    }
    assert_eq!(door.service.seen().len(), before);
    let answered = door.knock(Some(forge.certificate(ALICE, Flaw::None)));
    assert_eq!(answered, Ended::Answer(wire::frame(b"\x03")));
}

#[test]
fn a_callee_that_is_not_the_registered_one_gets_no_call() {
    let lab = Lab::start();
    let alice = lab.caller("alice");
    let (trust, forge) = (lab.trust(), lab.forge());
    let answer = || Answer::Whole(wire::frame(b"\x03"));
    for id in [
        format!("{CALLEE}2"),
        format!("{CALLEE}/x"),
        "spiffe://test.example/virtual/demo/sho".to_owned(),
        "spiffe://test.example/component/demo/shop".to_owned(),
        "spiffe://test.example/portcullis/broker".to_owned(),
    ] {
        let callee = FakeCallee::start(&lab, &trust, forge.svid(&id), answer());
        let record = lab.record_at("shop", callee.address);
        let error = lab.call(&alice, &record, "count", b"").unwrap_err();
        assert!(matches!(error, CallError::Unreachable { .. }), "{id}: {error}");
        eventually("the callee to see the refusal", || (callee.visits().refused > 0).then_some(()));
        assert_eq!((callee.visits().accepted, callee.visits().calls), (0, 0), "{id}");
    }
    let stranger = Forge::stranger("test.example").svid(CALLEE);
    let callee = FakeCallee::start(&lab, &trust, stranger, answer());
    let error = lab.call(&alice, &lab.record_at("shop", callee.address), "count", b"").unwrap_err();
    assert!(matches!(error, CallError::Unreachable { .. }), "{error}");
    assert_eq!(callee.visits().calls, 0);
    // Who has the registered ID is called: the refusals above were for the ID.
    let callee = FakeCallee::start(&lab, &trust, forge.svid(CALLEE), answer());
    let answered = lab.call(&alice, &lab.record_at("shop", callee.address), "count", b"");
    assert_eq!(answered.unwrap(), &b"\x03"[..]);
}

#[test]
fn another_components_sidecar_at_the_registered_address_gets_no_call() {
    let lab = Lab::start();
    lab.allow_all();
    let service = LegacyService::start(Behaviour::Answer(200, "3".to_owned()));
    let other = lab.sidecar(&SidecarSetup::http("shop2", service.address));
    let alice = lab.caller("alice");
    let record = lab.record_at("shop", other.address("quic"));
    let error = lab.call(&alice, &record, "count", b"").unwrap_err();
    assert!(matches!(error, CallError::Unreachable { .. }), "{error}");
    assert!(service.seen().is_empty());
    let record = lab.record(&alice, "shop2");
    assert_eq!(lab.call(&alice, &record, "count", b"").unwrap(), &b"\x03"[..]);
}

#[test]
fn a_control_server_that_is_not_the_broker_is_refused_and_the_broker_found_when_it_is_back() {
    let Door { sidecar, service, mut lab } = Door::open();
    let alice = lab.caller("alice");
    let record = lab.record(&alice, "shop");
    assert_eq!(lab.call(&alice, &record, "count", b"").unwrap(), &b"\x03"[..]);
    let (trust, forge, address) = (lab.trust(), lab.forge(), lab.control());
    lab.broker().kill();
    let stranger = Forge::stranger("test.example");
    for svid in [
        forge.svid("spiffe://test.example/portcullis/broker2"),
        forge.svid("spiffe://test.example/portcullis/broker/x"),
        forge.svid("spiffe://test.example/portcullis/node/shop"),
        forge.svid("spiffe://test.example/virtual/demo/shop"),
        stranger.svid("spiffe://test.example/portcullis/broker"),
    ] {
        let id = svid.id().to_string();
        let impostor = Impostor::start(address, &trust, svid);
        let outcomes =
            eventually("the nodes to try", || Some(impostor.outcomes()).filter(|outcomes| outcomes.len() >= 3));
        for outcome in outcomes {
            let refused = outcome.unwrap_err();
            assert!(refused.contains("alert"), "{id}: {refused}");
        }
        assert_eq!(lab.status("shop")["broker_connected"], false);
        assert_eq!(lab.call(&alice, &record, "count", b"").unwrap(), &b"\x03"[..], "{id}");
    }
    // With the broker's own ID the same server gets its handshake.
    let true_id = forge.svid("spiffe://test.example/portcullis/broker");
    let impostor = Impostor::start(address, &trust, true_id);
    eventually("a handshake", || impostor.outcomes().iter().any(Result::is_ok).then_some(()));
    drop(impostor);

    lab.start_broker();
    let back = Instant::now();
    lab.block_on(async {
        let mut connectivity = alice.node.connectivity();
        connectivity.wait_for(|state| *state == Connectivity::Connected).await.unwrap();
    });
    eventually("the sidecar to find the broker", || (lab.status("shop")["broker_connected"] == true).then_some(()));
    let away = back.elapsed();
    assert!(away < Duration::from_secs(2), "the nodes took {away:?}");
    assert_eq!(lab.call(&alice, &record, "count", b"").unwrap(), &b"\x03"[..]);
    sidecar.logged(&["lost the broker"]);
    drop((alice, service));
}

#[test]
fn connections_beyond_a_limit_are_refused_and_the_others_live_on() {
    let lab = Lab::start();
    lab.allow_all();
    let service = LegacyService::start(Behaviour::Answer(200, "3".to_owned()));
    let limits = "[limits]\nconnections = 3\nconnections_per_second = 1000\n";
    let sidecar = lab.sidecar(&SidecarSetup::http("shop", service.address).with(limits));
    let (trust, forge, address) = (lab.trust(), lab.forge(), sidecar.address("quic"));
    let call = [wire::header(ITEMS, "count"), wire::frame(b"")].concat();
    let answer = Ended::Answer(wire::frame(b"\x03"));
    let connect = || lab.block_on(raw_connect(&trust, Some(forge.certificate(ALICE, Flaw::None)), address));
    let mut inside: Vec<_> = (0..3).map(|_| connect().unwrap()).collect();
    for connection in &inside {
        assert_eq!(lab.block_on(raw_call(connection, &call)), answer);
    }
    assert_eq!(connect().unwrap_err(), ConnectionLost::Busy);
    for connection in &inside {
        assert_eq!(lab.block_on(raw_call(connection, &call)), answer);
    }
    // A place that becomes free is given away again.
    inside.pop().unwrap().close(0u32.into(), b"");
    let late = eventually("a free place", || connect().ok());
    assert_eq!(lab.block_on(raw_call(&late, &call)), answer);
    drop(inside);
}

#[test]
fn one_spiffe_id_has_only_so_many_connections() {
    let lab = Lab::start();
    lab.allow_all();
    let service = LegacyService::start(Behaviour::Answer(200, "3".to_owned()));
    let limits = "[limits]\nconnections_per_second = 1000\n";
    let sidecar = lab.sidecar(&SidecarSetup::http("shop", service.address).with(limits));
    let (trust, forge, address) = (lab.trust(), lab.forge(), sidecar.address("quic"));
    let call = [wire::header(ITEMS, "count"), wire::frame(b"")].concat();
    let answer = Ended::Answer(wire::frame(b"\x03"));
    let connect = |id: &str| lab.block_on(raw_connect(&trust, Some(forge.certificate(id, Flaw::None)), address));
    let most = QuicLimits::default().connections_per_peer;
    let inside: Vec<_> = (0..most).map(|_| connect(ALICE).unwrap()).collect();
    for connection in &inside {
        assert_eq!(lab.block_on(raw_call(connection, &call)), answer);
    }
    let excess = connect(ALICE).unwrap();
    let ended = lab.block_on(raw_call(&excess, &call));
    assert_eq!(ended, Ended::Lost(ConnectionLost::Closed(CloseReason::TooManyConnections)));
    // It is this identity's limit, nobody else's.
    let other = connect("spiffe://test.example/component/demo/bob").unwrap();
    assert_eq!(lab.block_on(raw_call(&other, &call)), answer);
    assert_eq!(lab.block_on(raw_call(&inside[0], &call)), answer);
}
