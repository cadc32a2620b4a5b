//! What happens to one call: answered, or refused with a code, a reason and one log line, while the connection and other calls go on.

use std::time::Duration;

use bytes::Bytes;
use e2e::{Behaviour, Caller, Daemon, ITEMS, Lab, LegacyService, SidecarSetup};
use portcullis_client::CallError;
use portcullis_client::node::PeerRecord;
use portcullis_client::peers::FunctionName;
use portcullis_transport::Refusal;

const ITEM: &str = r#"{"id":"7","price":100}"#;

struct Shop {
    // Dropped in this order: callers before the daemons they call.
    record: PeerRecord,
    caller: Caller,
    sidecar: Daemon,
    service: LegacyService,
    lab: Lab,
}

impl Shop {
    fn open(more: &str) -> Self {
        let lab = Lab::start();
        let service = LegacyService::start(Behaviour::Answer(200, ITEM.to_owned()));
        // Policies may only name what is registered; the sidecar starts with them in force.
        let config = lab.register(&SidecarSetup::http("shop", service.address).with(more));
        lab.policy("shop.cedar", POLICY);
        let sidecar = lab.start_sidecar("shop", &config);
        let caller = lab.caller("alice");
        let record = lab.record(&caller, "shop");
        Self { record, caller, sidecar, service, lab }
    }

    fn call(&self, function: &str, params: &[u8]) -> Result<Bytes, CallError> {
        self.call_as(&self.caller, function, params)
    }

    fn call_as(&self, caller: &Caller, function: &str, params: &[u8]) -> Result<Bytes, CallError> {
        let name = FunctionName { instance: ITEMS, function };
        let params = Bytes::copy_from_slice(params);
        self.lab.block_on(caller.peers.call(&self.record, name, params, Duration::from_secs(10)))
    }

    fn refusal(&self, function: &str, params: &[u8]) -> (Refusal, String, Vec<String>) {
        let error = self.call(function, params).unwrap_err();
        let CallError::Refused { refusal, explanation, .. } = error else { panic!("{error}") };
        let explanation = explanation.expect("the sidecar explains");
        assert_eq!(explanation.refusal, refusal.name());
        (refusal, explanation.reason, explanation.policies.into_iter().map(|policy| policy.id).collect())
    }
}

const POLICY: &str = r#"
@id("alice-reads")
permit (
    principal == Workload::"spiffe://test.example/component/demo/alice",
    action in [Action::"test:shop/items@1.0.0#get", Action::"test:shop/items@1.0.0#echo", Action::"test:shop/items@1.0.0#put"],
    resource == VirtualComponent::"demo/shop"
);
@id("nobody-puts")
@advice("the shop is read only")
forbid (principal, action == Action::"test:shop/items@1.0.0#put", resource);
"#;

#[test]
fn a_permitted_call_is_answered_by_the_legacy_service() {
    let shop = Shop::open("");
    // result<item, string>: ok, id, price.
    assert_eq!(shop.call("get", b"\x017").unwrap(), &b"\x00\x017\x64"[..]);
    let seen = shop.service.seen().pop().unwrap();
    assert_eq!((seen.method.as_str(), seen.target.as_str()), ("POST", "/test/shop/items/get"));
    assert_eq!(seen.body, r#"{"id":"7"}"#);
    assert_eq!(seen.header("x-caller"), Some("spiffe://test.example/component/demo/alice"));
}

#[test]
fn a_denied_call_names_the_policy_and_nothing_reaches_the_service() {
    let shop = Shop::open("");
    let (refusal, reason, policies) = shop.refusal("put", b"\x017\x64");
    assert_eq!(refusal, Refusal::Denied);
    assert_eq!(policies, ["nobody-puts"]);
    assert!(reason.contains("nobody-puts"), "{reason}");
    let (refusal, _, policies) = shop.refusal("count", b"");
    assert_eq!((refusal, policies.as_slice()), (Refusal::Denied, &[][..]));
    assert!(shop.service.seen().is_empty());
    shop.sidecar.logged(&["decision", "refused", "denied", "component/demo/alice", "put", "nobody-puts"]);
    // The connection lives on.
    shop.call("get", b"\x017").unwrap();
}

#[test]
fn who_may_call_nothing_learns_nothing() {
    let shop = Shop::open("");
    let mallory = shop.lab.caller("mallory");
    for function in ["get", "put", "no-such-function"] {
        let error = shop.call_as(&mallory, function, b"\x017").unwrap_err();
        let CallError::Refused { refusal, explanation, .. } = error else { panic!("{error}") };
        assert_eq!(refusal, Refusal::Denied, "{function}");
        assert_eq!(explanation.unwrap().policies, []);
    }
    let (refusal, ..) = shop.refusal("no-such-function", b"");
    assert_eq!(refusal, Refusal::UnknownFunction, "alice may call something, so she is told");
}

#[test]
fn a_policy_change_is_in_force_on_a_live_connection() {
    let shop = Shop::open("");
    assert_eq!(shop.refusal("count", b"").0, Refusal::Denied);
    shop.service.behave(Behaviour::Answer(200, "3".to_owned()));
    shop.lab.policy(
        "more.cedar",
        "@id(\"count\") permit (principal, action == Action::\"test:shop/items@1.0.0#count\", resource);",
    );
    let answer = e2e::eventually("the new policy", || shop.call("count", b"").ok());
    assert_eq!(answer, &b"\x03"[..]);
    let connected = shop
        .sidecar
        .log()
        .lines()
        .filter(|line| line.contains("connection: connected") && line.contains("demo/alice"))
        .count();
    assert_eq!(connected, 1, "the connection was never made anew");
}

#[test]
fn every_fault_has_its_own_code_and_the_connection_lives_on() {
    let shop = Shop::open("[limits]\nvalue_bytes = 65536\ncall_timeout = \"3s\"\n");
    // Malformed: the string says two bytes and has one; and one value too many.
    assert_eq!(shop.refusal("get", b"\x027").0, Refusal::MalformedValue);
    assert_eq!(shop.refusal("get", b"\x0177").0, Refusal::MalformedValue);
    // Oversize.
    let mut large = vec![0x80, 0x80, 0x08];
    large.resize(131_072 + 3, 7);
    assert_eq!(shop.refusal("echo", &large).0, Refusal::TooLarge);
    // The service's faults.
    shop.service.behave(Behaviour::Answer(200, "<html>".to_owned()));
    assert_eq!(shop.refusal("get", b"\x017").0, Refusal::UpstreamProtocol);
    shop.service.behave(Behaviour::Answer(302, String::new()));
    assert_eq!(shop.refusal("get", b"\x017").0, Refusal::UpstreamProtocol);
    shop.service.behave(Behaviour::Raw(b"SSH-2.0-OpenSSH\r\n".to_vec()));
    assert_eq!(shop.refusal("get", b"\x017").0, Refusal::UpstreamProtocol);
    shop.service.behave(Behaviour::Silent);
    assert_eq!(shop.refusal("get", b"\x017").0, Refusal::DeadlineExceeded);
    shop.service.behave(Behaviour::Hangup);
    assert_eq!(shop.refusal("get", b"\x017").0, Refusal::UpstreamUnavailable);
    shop.service.behave(Behaviour::Answer(200, ITEM.to_owned()));
    shop.call("get", b"\x017").unwrap();
    for code in ["malformed-value", "too-large", "upstream-protocol", "deadline-exceeded", "upstream-unavailable"] {
        shop.sidecar.logged(&["decision", "refused", code]);
    }
    let connected = shop.sidecar.log().lines().filter(|line| line.contains("connection: connected")).count();
    assert_eq!(connected, 1);
}

#[test]
fn a_service_that_is_down_is_unavailable_until_it_is_back() {
    let shop = Shop::open("");
    let Shop { service, lab, caller, record, sidecar } = shop;
    drop(service);
    let name = FunctionName { instance: ITEMS, function: "get" };
    let call = || lab.block_on(caller.peers.call(&record, name, Bytes::from_static(b"\x017"), Duration::from_secs(5)));
    let error = call().unwrap_err();
    assert!(matches!(error, CallError::Refused { refusal: Refusal::UpstreamUnavailable, .. }), "{error}");
    sidecar.logged(&["refused", "upstream-unavailable"]);
}

#[test]
fn too_many_calls_are_refused_and_the_others_answered() {
    let shop = Shop::open("[limits]\ncalls_per_peer = 2\n");
    shop.service.behave(Behaviour::Slow(Duration::from_millis(300), ITEM.to_owned()));
    let name = FunctionName { instance: ITEMS, function: "get" };
    let outcomes = shop.lab.block_on(async {
        shop.caller.peers.connect(&shop.record).await.unwrap();
        let calls = (0..6).map(|_| {
            let (peers, record) = (shop.caller.peers.clone(), shop.record.clone());
            tokio::spawn(async move {
                peers.call(&record, name, Bytes::from_static(b"\x017"), Duration::from_secs(5)).await
            })
        });
        let calls: Vec<_> = calls.collect();
        let mut outcomes = Vec::new();
        for call in calls {
            outcomes.push(call.await.unwrap());
        }
        outcomes
    });
    let answered = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
    let refused = outcomes
        .iter()
        .filter(|outcome| matches!(outcome, Err(CallError::Refused { refusal: Refusal::TooMany, .. })))
        .count();
    assert_eq!((answered, refused), (2, 4), "{outcomes:?}");
}
