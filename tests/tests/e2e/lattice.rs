//! A component on its lattice: a sidecar that is called over NATS, by hosts and by identities, with a real server between them.

use bytes::Bytes;
use e2e::nats::{NatsServer, request_subject};
use e2e::{Behaviour, Daemon, ITEMS, Lab, LegacyService, SidecarSetup, eventually};
use portcullis_api::v1;
use portcullis_client::lattice::{Callee, LatticeCaller, LatticeSettings, NatsSecurity};
use portcullis_client::peers::{CallError, FunctionName};
use portcullis_identity::lattice_name;
use portcullis_transport::nats::{
    Call, CallFailed, Deadlines, Headers, Link, NatsLimits, NatsRefusal, Target, VirtualAddress,
};
use portcullis_transport::{Header, Refusal};
use tokio_stream::StreamExt as _;
use wrpc_transport::{InvokeExt as _, ServeExt as _};

fn on(server: &NatsServer) -> String {
    format!("[nats]\nservers = [\"{}\"]\ndanger_plain = true\n", server.url())
}

fn address(id: &str) -> VirtualAddress {
    VirtualAddress { lattice: "demo".parse().unwrap(), id: id.parse().unwrap() }
}

fn of(source: &str) -> Headers {
    let mut headers = Headers::new();
    headers.append("source-id", source).unwrap();
    headers.append("link-name", "default").unwrap();
    headers
}

/// Lets hosts' component `app` call everything.
fn allow_app(lab: &Lab) {
    lab.policy("app", "@id(\"app\") permit(principal == HostedComponent::\"app\", action, resource);");
}

fn connected(lab: &Lab, id: &str) {
    eventually("the sidecar to be on its lattice", || (lab.status(id)["nats"]["connected"] == true).then_some(()));
}

/// What a host gets that calls for `source`, by our own client, which reads refusals.
async fn call(link: &Link, function: &str, headers: &Headers, params: &[u8]) -> Result<Bytes, CallFailed> {
    let subject = request_subject(&address("shop"), "host", ITEMS, function);
    let params = Bytes::copy_from_slice(params);
    link.call(Call { subject: &subject, headers, params, deadlines: Deadlines::default() }, 1 << 20).await
}

fn refused(result: Result<Bytes, CallFailed>) -> NatsRefusal {
    match result {
        Err(CallFailed::Refused(refusal)) => refusal,
        other => panic!("{other:?}"),
    }
}

fn scene(server: &NatsServer, answer: &str) -> (Lab, LegacyService, Daemon) {
    let lab = Lab::start();
    let service = LegacyService::start(Behaviour::Answer(200, answer.to_owned()));
    let sidecar = lab.sidecar(&SidecarSetup::http("shop", service.address).with(&on(server)));
    connected(&lab, "shop");
    (lab, service, sidecar)
}

#[test]
fn a_hosts_component_is_answered_and_its_refusals_say_why() {
    let server = NatsServer::start();
    let (lab, service, sidecar) = scene(&server, "3");
    let host = lab.block_on(async { server.link("_INBOX").await });
    let count = |source: &str| lab.block_on(call(&host, "count", &of(source), b""));
    // Nobody may call anything yet, and nobody learns what there is.
    for function in ["count", "no-such-function"] {
        let denied = refused(lab.block_on(call(&host, function, &of("app"), b"")));
        assert_eq!((denied.status, denied.refusal), (403, Some(Refusal::Denied)), "{denied}");
        assert!(denied.reason.contains("no policy permits it"), "{denied}");
    }
    allow_app(&lab);
    eventually("the policy to be in force", || count("app").ok());
    assert_eq!(count("app").unwrap(), &b"\x03"[..]);
    assert_eq!(service.seen().pop().unwrap().header("x-caller"), Some("host:app"));
    assert_eq!(refused(count("other")).refusal, Some(Refusal::Denied));
    let unknown = refused(lab.block_on(call(&host, "no-such-function", &of("app"), b"")));
    assert_eq!(unknown.refusal, Some(Refusal::UnknownFunction), "{unknown}");
    // A workload of that name is another principal.
    lab.policy("alice", "@id(\"alice\") @advice(\"ask the shop\") forbid(principal == HostedComponent::\"app\", action == Action::\"test:shop/items@1.0.0#count\", resource);");
    let forbidden = eventually("the new policy to be in force", || count("app").err().map(|error| refused(Err(error))));
    assert!(forbidden.reason.contains("ask the shop"), "{forbidden}");
    sidecar.logged(&["refused", "host:app", "denied"]);
}

#[test]
fn what_is_no_call_is_refused_at_once_and_the_rest_go_on() {
    let server = NatsServer::start();
    let (lab, _service, sidecar) = scene(&server, "3");
    allow_app(&lab);
    let host = lab.block_on(async { server.link("_INBOX").await });
    let count = |headers: &Headers, params: &[u8]| lab.block_on(call(&host, "count", headers, params));
    eventually("the policy to be in force", || count(&of("app"), b"").ok());
    // A host that does not say for whom it calls, or says it twice, or in words that are no name.
    let mut twice = of("app");
    twice.append("source-id", "app").unwrap();
    for headers in [Headers::new(), twice, of("two words"), of("anonymous")] {
        let refusal = refused(count(&headers, b""));
        assert_eq!(refusal.refusal, Some(Refusal::MalformedHeader), "{refusal}");
    }
    // A name that nobody has; and an answer that is wanted elsewhere than in the inbox of who calls.
    let under = |name: &str, inbox: &str| {
        let link = lab.block_on(server.link(inbox));
        let subject = request_subject(&address("shop"), name, ITEMS, "count");
        let (headers, params) = (of("app"), Bytes::new());
        let call = Call { subject: &subject, headers: &headers, params, deadlines: Deadlines::default() };
        refused(lab.block_on(link.call(call, 64)))
    };
    assert_eq!(under("mallory", "_I.demo.mallory").refusal, Some(Refusal::Denied));
    for (name, inbox) in [("mallory", "_I.demo.mallory2"), ("mallory", "_INBOX"), ("host", "_I.demo.shop")] {
        let elsewhere = under(name, inbox);
        assert!(
            elsewhere.refusal == Some(Refusal::MalformedHeader) && elsewhere.reason.contains("own inbox"),
            "{elsewhere}"
        );
    }
    // More than the parameters, where there are none.
    let surplus = count(&of("app"), b"\x01").unwrap_err();
    assert!(
        matches!(&surplus, CallFailed::Refused(refusal) if refusal.refusal == Some(Refusal::MalformedValue)),
        "{surplus}"
    );
    // No reply subject: nobody to tell, but the operator.
    let stock = lab.block_on(server.stock());
    let silent = format!("demo.vc.shop.host.wrpc.0.0.1.{ITEMS}.count");
    lab.block_on(async {
        stock.publish(silent, Bytes::new()).await.unwrap();
        stock.flush().await.unwrap();
    });
    sidecar.logged(&["request has no reply subject"]);
    assert_eq!(count(&of("app"), b"").unwrap(), &b"\x03"[..]);
}

#[test]
fn a_name_is_whose_the_broker_says_it_is() {
    let server = NatsServer::start();
    let (mut lab, service, mut sidecar) = scene(&server, "3");
    let (alice, bob) = (lab.caller("alice"), lab.caller("bob"));
    let alice = under_its_name(&lab, &server, &alice);
    let bob = under_its_name(&lab, &server, &bob);
    let refusal = |result: Result<Bytes, CallError>| match result {
        Err(CallError::Refused { refusal, .. }) => refusal,
        other => panic!("{other:?}"),
    };
    assert_eq!(refusal(count(&lab, &alice)), Refusal::Denied);
    let permit = "@id(\"alice\") permit(principal == Workload::\"spiffe://test.example/component/demo/alice\", action, resource);";
    lab.policy("alice", permit);
    assert_eq!(eventually("the policy to be in force", || count(&lab, &alice).ok()), &b"\x03"[..]);
    assert_eq!(service.seen().pop().unwrap().header("x-caller"), Some("spiffe://test.example/component/demo/alice"));
    assert_eq!(refusal(count(&lab, &bob)), Refusal::Denied);

    // What a host says of its component counts under `host` alone: bob does not become `app` by it.
    allow_app(&lab);
    let host = lab.block_on(server.link("_INBOX"));
    eventually("the policy to be in force", || lab.block_on(call(&host, "count", &of("app"), b"")).ok());
    let forger = lab.block_on(server.link("_I.demo.bob"));
    let (subject, headers) = (request_subject(&address("shop"), "bob", ITEMS, "count"), of("app"));
    let forged = Call { subject: &subject, headers: &headers, params: Bytes::new(), deadlines: Deadlines::default() };
    assert_eq!(refused(lab.block_on(forger.call(forged, 64))).refusal, Some(Refusal::Denied));

    // A host that speaks for a component of that name is somebody else.
    assert_eq!(refused(lab.block_on(call(&host, "count", &of("alice"), b""))).refusal, Some(Refusal::Denied));

    // Without the broker who was met is known, also to a sidecar that starts then; who was not, is not.
    eventually("the names on disk", || {
        std::fs::read(lab.path().join("shop-state/state")).ok().filter(|state| holds(state, b"alice"))
    });
    lab.broker().kill();
    assert_eq!(count(&lab, &alice).unwrap(), &b"\x03"[..]);
    sidecar.terminate();
    sidecar.wait();
    let _sidecar = lab.start_sidecar("shop", &lab.path().join("shop.toml"));
    assert_eq!(eventually("the sidecar to be back", || count(&lab, &alice).ok()), &b"\x03"[..]);
    let link = lab.block_on(server.link("_I.demo.carol"));
    let subject = request_subject(&address("shop"), "carol", ITEMS, "count");
    let (headers, params) = (Headers::new(), Bytes::new());
    let unknown = Call { subject: &subject, headers: &headers, params, deadlines: Deadlines::default() };
    assert_eq!(refused(lab.block_on(link.call(unknown, 64))).refusal, Some(Refusal::NotReady));

    // An identity whose entry is gone has no name any more, and one that comes has one.
    lab.start_broker();
    let entries = lab.broker_command(&["entry", "list", "--json"]).ok().json();
    let entry = entries
        .as_array()
        .unwrap()
        .iter()
        .find(|entry| entry["spiffe_id"].as_str().unwrap().ends_with("/alice"))
        .unwrap()["id"]
        .as_str()
        .unwrap()
        .to_owned();
    lab.broker_command(&["entry", "remove", &entry]).ok();
    eventually("alice to have no name", || {
        (count(&lab, &alice).err().map(Err).map(refusal) == Some(Refusal::Denied)).then_some(())
    });
    lab.create(v1::CreateEntryRequest {
        node: "alice".to_owned(),
        component: Some(v1::Target { lattice: "demo".to_owned(), id: "alice".to_owned() }),
        danger_any_digest: true,
        ..Default::default()
    });
    assert_eq!(eventually("alice to have a name again", || count(&lab, &alice).ok()), &b"\x03"[..]);
}

/// `count` of the shop, as that caller.
fn count(lab: &Lab, caller: &LatticeCaller) -> Result<Bytes, CallError> {
    let callee = Callee::Virtual("demo/shop".parse().unwrap());
    let name = FunctionName { instance: ITEMS, function: "count" };
    lab.block_on(caller.call(&callee, name, Bytes::new(), e2e::PATIENCE))
}

fn holds(bytes: &[u8], word: &[u8]) -> bool {
    bytes.windows(word.len()).any(|window| window == word)
}

/// A caller under its own name on the server of a lattice.
fn under_its_name(lab: &Lab, server: &NatsServer, caller: &e2e::Caller) -> LatticeCaller {
    let settings = LatticeSettings {
        servers: vec![server.url().parse().unwrap()],
        security: NatsSecurity::DangerPlain,
        credentials: None,
    };
    let name = lattice_name(&caller.identity.id()).unwrap();
    let settings = settings.of(&caller.identity, &name, NatsLimits::default()).unwrap();
    let member = portcullis_client::lattice::address(&name).unwrap();
    lab.block_on(LatticeCaller::connect(settings, &member, 64, lab.tasks())).unwrap()
}

#[test]
fn a_stock_client_calls_both_kinds_of_upstream() {
    let server = NatsServer::start();
    let (lab, _service, _sidecar) = scene(&server, "3");
    allow_app(&lab);
    let client = lab.block_on(async {
        let nats = server.stock().await;
        wrpc_transport_nats::Client::new(nats, "demo.vc.shop.host", None).await.unwrap()
    });
    let none: [[Option<usize>; 0]; 0] = [];
    let count = || {
        let mut headers = async_nats::HeaderMap::new();
        headers.insert("source-id", "app");
        lab.block_on(client.invoke_values_blocking::<_, (), (u32,)>(Some(headers), ITEMS, "count", (), none))
    };
    let answer = eventually("the policy to be in force", || count().ok());
    assert_eq!(answer, (3,));
}

#[test]
fn whoever_calls_a_plain_address_is_anonymous() {
    let server = NatsServer::start();
    let lab = Lab::start();
    let service = LegacyService::start(Behaviour::Answer(200, "3".to_owned()));
    let plain = format!("{}danger_plain_addresses = true\n", on(&server));
    let sidecar = lab.sidecar(&SidecarSetup::http("shop", service.address).with(&plain));
    connected(&lab, "shop");
    sidecar.logged(&["every caller on the lattice is anonymous"]);
    let subject = |function: &str| {
        let to = Target::Component { lattice: "demo".parse().unwrap(), id: "shop".parse().unwrap() };
        to.request_subject(&Header { instance: ITEMS.to_owned(), function: function.to_owned() }).unwrap()
    };
    let ask = |inbox: &str, function: &str| {
        let link = lab.block_on(server.link(inbox));
        let (subject, headers, params) = (subject(function), of("app"), Bytes::new());
        let call = Call { subject: &subject, headers: &headers, params, deadlines: Deadlines::default() };
        lab.block_on(link.call(call, 64))
    };
    // What a caller says of itself counts for nothing here.
    lab.policy(
        "app",
        "@id(\"app\") permit(principal == HostedComponent::\"app\", action, resource);
         @id(\"all\") permit(principal == HostedComponent::\"anonymous\", action == Action::\"test:shop/items@1.0.0#count\", resource);",
    );
    // As a link in a stock host has it, to a target without dots.
    let client = lab
        .block_on(async { wrpc_transport_nats::Client::new(server.stock().await, "demo.shop", None).await.unwrap() });
    let none: [[Option<usize>; 0]; 0] = [];
    let count = || lab.block_on(client.invoke_values_blocking::<_, (), (u32,)>(None, ITEMS, "count", (), none));
    assert_eq!(eventually("the policy to be in force", || count().ok()), (3,));
    assert_eq!(service.seen().pop().unwrap().header("x-caller"), Some("anonymous"));
    let denied = refused(ask("_INBOX", "get"));
    assert_eq!(denied.refusal, Some(Refusal::Denied), "{denied}");
    sidecar.logged(&["refused", "anonymous", "denied"]);
    // Nobody has the sidecar publish anywhere else than to an inbox.
    let elsewhere = refused(ask("_I.demo.alice", "count"));
    assert_eq!(elsewhere.refusal, Some(Refusal::MalformedHeader), "{elsewhere}");
    // The address with callers in it does not exist beside this one.
    let host = lab.block_on(async { server.link("_INBOX").await });
    assert_eq!(lab.block_on(call(&host, "count", &of("app"), b"")), Err(CallFailed::NoResponder));
    // Links name it without dots.
    let link = r#"{"source_id":"app","target":"shop","name":"default","wit_namespace":"test","wit_package":"shop","interfaces":["items"]}"#;
    let stock = lab.block_on(server.stock());
    eventually("the link to show", || {
        lab.block_on(async {
            stock.publish("wasmbus.rpc.demo.shop.linkdefs.put", link.into()).await.unwrap();
            stock.flush().await.unwrap();
        });
        (lab.status("shop")["nats"]["links"][0]["source"] == "app").then_some(())
    });
}

#[test]
fn the_lattice_may_come_late_and_go_away() {
    let mut server = NatsServer::start();
    let (lab, _service, mut sidecar) = scene(&server, "3");
    allow_app(&lab);
    let host = lab.block_on(async { server.link("_INBOX").await });
    let answered = || lab.block_on(call(&host, "count", &of("app"), b"")).ok();
    eventually("an answer", answered);
    // Over QUIC it is served meanwhile.
    server.kill();
    eventually("the sidecar to miss the server", || (lab.status("shop")["nats"]["connected"] == false).then_some(()));
    assert_eq!(lab.status("shop")["ready"], true);
    server.revive();
    eventually("an answer after the server came back", answered);
    // A sidecar that starts before the server waits for it.
    server.kill();
    sidecar.kill();
    let config = lab.path().join("shop.toml");
    let mut sidecar = lab.start_sidecar("shop", &config);
    sidecar.logged(&["cannot join the lattice"]);
    server.revive();
    eventually("an answer of a sidecar that was first", answered);
    sidecar.terminate();
    assert!(sidecar.wait().success());
    let gone = lab.block_on(call(&host, "count", &of("app"), b"")).unwrap_err();
    assert_eq!(gone, CallFailed::NoResponder);
}

#[test]
fn the_shell_calls_a_component_on_a_host() {
    let server = NatsServer::start();
    let (lab, _service, _sidecar) = scene(&server, "3");
    // What a host does for a component: subscribes to its functions.
    let component = lab.block_on(async {
        let nats = server.stock().await;
        wrpc_transport_nats::Client::new(nats, "demo.cart", Some("demo.cart".into())).await.unwrap()
    });
    let paths: std::sync::Arc<[Box<[Option<usize>]>]> = std::sync::Arc::default();
    let mut calls = lab.block_on(component.serve_values::<(), (u32,)>(ITEMS, "count", paths)).map(Box::pin).unwrap();
    drop(lab.spawn(async move {
        while let Some(Ok((_, (), _, answer))) = calls.next().await {
            answer((7,)).await.unwrap();
        }
    }));
    let wit = lab.path().join("cart-wit");
    std::fs::create_dir(&wit).unwrap();
    std::fs::write(wit.join("shop.wit"), e2e::WIT).unwrap();
    let (wit, config) = (wit.to_str().unwrap(), lab.path().join("shop.toml"));
    let config = config.to_str().unwrap();
    let invoke = |more: &[&str]| e2e::run("portcullis-sidecar", &[&["invoke", "--config", config], more].concat());
    let answer = invoke(&["--over", "nats", "--wit", wit, "demo/cart", "count"]).ok();
    assert_eq!(answer.out, "7\n");
    let nobody = invoke(&["--over", "nats", "--wit", wit, "demo/nobody", "count"]);
    assert!(nobody.code == 1 && nobody.err.contains("nobody serves the function"), "{nobody:?}");
    let missing = invoke(&["--over", "nats", "--wit", wit, "demo/cart", "no-such-function"]);
    assert!(missing.code == 1 && missing.err.contains("there are: "), "{missing:?}");
    let wrong = invoke(&["--wit", wit, "demo/cart", "count"]);
    assert!(wrong.code == 2 && wrong.err.contains("add --over nats"), "{wrong:?}");
}

#[test]
fn a_call_that_is_given_up_keeps_the_service_no_longer() {
    let server = NatsServer::start();
    let lab = Lab::start();
    let socket = lab.path().join("silent.sock");
    // It accepts into its queue, and says nothing.
    let _service = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let _sidecar = lab.sidecar(&SidecarSetup::splice("shop", &socket).with(&on(&server)));
    connected(&lab, "shop");
    allow_app(&lab);
    let host = lab.block_on(async { server.link("_INBOX").await });
    let underway = || lab.status("shop")["calls_underway"].as_u64().unwrap();
    let calling = eventually("the policy to be in force", || {
        let host = host.clone();
        let calling = lab.spawn(async move { call(&host, "count", &of("app"), b"").await });
        eventually("a refusal, or a call under way", || (calling.is_finished() || underway() == 1).then_some(()));
        (!calling.is_finished()).then_some(calling)
    });
    calling.abort();
    // Long before `limits.call_timeout`.
    eventually("the call to end", || (underway() == 0).then_some(()));
}

#[test]
fn parameters_without_an_end_count_against_the_budget() {
    let server = NatsServer::start();
    let lab = Lab::start();
    let service = LegacyService::start(Behaviour::Answer(200, "3".to_owned()));
    let more = format!("{}[limits]\nbytes_in_flight = 100000\n", on(&server));
    let _sidecar = lab.sidecar(&SidecarSetup::http("shop", service.address).with(&more));
    connected(&lab, "shop");
    allow_app(&lab);
    let host = lab.block_on(async { server.link("_INBOX").await });
    eventually("the policy to be in force", || lab.block_on(call(&host, "count", &of("app"), b"")).ok());
    let subject = request_subject(&address("shop"), "host", ITEMS, "echo");
    let begin = || {
        let headers = of("app");
        let params = Bytes::from(vec![0xff; 60_000]);
        let call = Call { subject: &subject, headers: &headers, params, deadlines: Deadlines::default() };
        lab.block_on(host.invoke(call)).unwrap()
    };
    // Neither says that its parameters are complete.
    let (_first, _) = begin();
    let (_second, mut results) = begin();
    let refusal = refused(lab.block_on(results.read_root(64)));
    assert_eq!(refusal.refusal, Some(Refusal::TooMany), "{refusal}");
}

#[test]
fn status_says_why_a_lattice_is_not_joined() {
    let mut server = NatsServer::start();
    server.kill();
    let lab = Lab::start();
    let service = LegacyService::start(Behaviour::Answer(200, "3".to_owned()));
    let _sidecar = lab.sidecar(&SidecarSetup::http("shop", service.address).with(&on(&server)));
    let why = eventually("an attempt to fail", || lab.status("shop")["nats"]["error"].as_str().map(str::to_owned));
    assert!(why.starts_with("cannot connect to a nats server"), "{why}");
    let config = lab.path().join("shop.toml");
    let ran = e2e::run("portcullis-sidecar", &["status", "--config", config.to_str().unwrap()]).ok();
    assert!(ran.out.contains("(nats: not connected: cannot connect"), "{ran:?}");
    server.revive();
    connected(&lab, "shop");
    assert!(lab.status("shop")["nats"]["error"].is_null());
}

#[test]
fn invoke_tells_misuse_from_failure() {
    let misused = |arguments: &[&str]| {
        let ran = e2e::run("portcullis-sidecar", &[&["invoke", "--json"], arguments].concat());
        assert_eq!(ran.code, 2, "{ran:?}");
        assert!(ran.json()["error"].is_string(), "{ran:?}");
    };
    misused(&["--config", "/no/such.toml", "demo/shop", "count"]);
    misused(&["--state", "/tmp", "--over", "nats", "demo/shop", "count"]);
    let broken = e2e::run("portcullis-sidecar", &["invoke", "--json", "--state", "/no/such", "demo/shop", "count"]);
    assert!(broken.code == 1 && broken.json()["error"].is_string(), "{broken:?}");
}
