//! Who may join the lattice: real NATS servers, set up by `nats init`, ask the broker about every login.

use std::io::{Read as _, Write as _};
use std::time::{Duration, Instant};

use async_nats::{Auth, AuthError, ConnectError, ConnectOptions};
use e2e::{Agent, Behaviour, Flaw, Forge, ITEMS, Joined, Lab, Lattice, LegacyService, SidecarSetup, WIT, eventually};
use portcullis_api::v1;
use tokio_stream::StreamExt as _;
use wrpc_transport::InvokeExt as _;

const HOST: &str = "spiffe://test.example/host/one";
const AUDIENCE: &str = "spiffe://test.example/nats";
const ALICE: &str = "spiffe://test.example/component/demo/alice";
pub(crate) const SHOP: &str = "spiffe://test.example/virtual/demo/shop";

pub(crate) fn host_token(lab: &Lab) -> String {
    lab.login_token(HOST, AUDIENCE, "5m")
}

pub(crate) fn host(lab: &Lab, lattice: &Lattice) -> Joined {
    lab.block_on(lattice.by_token(&host_token(lab))).unwrap()
}

/// A refused login, and the reason that the operator finds.
fn refused<T: std::fmt::Debug>(lab: &mut Lab, result: Result<T, ConnectError>, reason: &str) {
    let error = result.unwrap_err();
    assert!(error.to_string().contains("authorization violation"), "{error}");
    lab.broker().logged(&["a login to the lattice was refused", reason]);
    let audit = lab.broker_data().join("audit");
    eventually("the refusal in the audit log", || {
        let files = std::fs::read_dir(&audit)
            .unwrap()
            .map(|entry| std::fs::read_to_string(entry.unwrap().path()).unwrap_or_default());
        let told = |text: String| text.lines().any(|line| line.contains("lattice-refused") && line.contains(reason));
        files.into_iter().any(told).then_some(())
    });
}

/// Registers `demo/shop` for a node, and alice as a caller whom policy allows everything.
pub(crate) fn shop_and_alice(lab: &Lab) {
    lab.register(&SidecarSetup::http("shop", ([127, 0, 0, 1], 1).into()));
    alice(lab);
    lab.policy(
        "alice.cedar",
        &format!("@id(\"alice\") permit (principal == Workload::\"{ALICE}\", action, resource);\n"),
    );
}

fn alice(lab: &Lab) {
    lab.create(v1::CreateEntryRequest {
        node: "machine".to_owned(),
        component: Some(v1::Target { lattice: "demo".to_owned(), id: "alice".to_owned() }),
        danger_any_digest: true,
        ..Default::default()
    });
}

#[test]
fn a_host_joins_by_its_token_once_and_does_what_hosts_do_alone() {
    let (mut lab, lattice) = Lattice::start("");
    lab.lattice_entry("/host/one");
    let token = host_token(&lab);
    let host = lab.block_on(lattice.by_token(&token)).unwrap();
    lab.broker().logged(&["joined the lattice", HOST, "jwt-svid"]);

    // The same token again, and tokens that are not for us, too old, of others, of nobody.
    let again = lab.block_on(lattice.by_token(&token));
    refused(&mut lab, again, "its token was used before");
    let other = lab.login_token(HOST, "spiffe://test.example/else", "5m");
    let other = lab.block_on(lattice.by_token(&other));
    refused(&mut lab, other, "is not meant for");
    let by_certificate = lab.block_on(lattice.by_certificate(lab.minted(HOST)));
    refused(&mut lab, by_certificate, "is a host: hosts join with a token");
    let unregistered = lab.login_token("spiffe://test.example/host/two", AUDIENCE, "5m");
    let unregistered = lab.block_on(lattice.by_token(&unregistered));
    refused(&mut lab, unregistered, "no entry names it");
    let forged = lab.block_on(lattice.by_token("eyJhbGciOiJub25lIn0.e30."));
    refused(&mut lab, forged, "alg is refused");
    let nobody = lab.block_on(lattice.connect(ConnectOptions::new(), lattice.hosts_address));
    refused(&mut lab, nobody, "it shows no identity");
    let evil = Lab::start_as("evil.example", "");
    let foreign = evil.login_token("spiffe://evil.example/host/one", AUDIENCE, "5m");
    let foreign = lab.block_on(lattice.by_token(&foreign));
    refused(&mut lab, foreign, "trust domain `evil.example` is not known");

    lab.block_on(async {
        host.may_publish("demo.vc.shop.host.wrpc.0.0.1.a:b/c@1.0.0.get").await;
        host.may_publish("demo.component.wrpc.0.0.1.a:b/c@1.0.0.get").await;
        host.may_publish("wasmbus.evt.demo.host_heartbeat").await;
        for subject in [
            "demo.vc.shop.alice.wrpc.0.0.1.a:b/c@1.0.0.get",
            "other.vc.shop.host.wrpc.0.0.1.a:b/c@1.0.0.get",
            "wasmbus.ctl.v1.demo.component.scale.N",
            "$JS.API.STREAM.CREATE.KV_LATTICEDATA_demo",
            "$JS.API.STREAM.CREATE.all",
            "$SYS.REQ.USER.AUTH",
        ] {
            host.may_not_publish(subject).await;
        }
        for subject in ["demo.vc.shop.>", "demo.vc.shop.*.wrpc.0.0.1.>", "demo.>", "_I.demo.alice.>", ">"] {
            host.may_not_subscribe(subject, None).await;
        }
        host.may_not_subscribe("demo.vc.shop.*.wrpc.0.0.1.>", Some("demo.vc.shop")).await;
    });
    assert_eq!(host.connects(), 1);
}

/// A wasmCloud host logs in twice at a time.
#[test]
fn no_token_for_a_lattice_is_handed_out_twice() {
    let lab = Lab::start();
    let agent = Agent::start_with(&lab, "agent", "login_audiences = [\"other\"]");
    lab.create(agent.entry("host/one"));
    let client = lab.block_on(spiffe::WorkloadApiClient::connect_to(agent.endpoint())).unwrap();
    let token = |audience: &str| {
        let fetched = eventually("a token", || lab.block_on(client.fetch_jwt_svid([audience], None)).ok());
        fetched.token().to_owned()
    };
    assert_ne!(token(AUDIENCE), token(AUDIENCE));
    assert_ne!(token("other"), token("other"));
    assert_eq!(token("db"), token("db"));
}

#[test]
fn a_host_calls_a_service_that_joined_by_its_svid_until_it_is_revoked() {
    let (lab, lattice) = Lattice::start_with_svids();
    let entry = lab.lattice_entry("/host/one");
    let service = LegacyService::start(Behaviour::Answer(200, "3".to_owned()));
    let nats = format!(
        "[nats]\nservers = [\"tls://{}\"]\nserver_id = \"spiffe://test.example/nats\"\ntls_first = true\n",
        lattice.nodes_address
    );
    let _sidecar = lab.sidecar(&SidecarSetup::http("shop", service.address).with(&nats));
    lab.policy("app", "@id(\"app\") permit(principal == HostedComponent::\"app\", action, resource);");
    eventually("the sidecar to join the lattice", || (lab.status("shop")["nats"]["connected"] == true).then_some(()));
    let host = host(&lab, &lattice);
    let client =
        lab.block_on(wrpc_transport_nats::Client::new(host.client.clone(), "demo.vc.shop.host", None)).unwrap();
    let none: [[Option<usize>; 0]; 0] = [];
    let count = |source: &str| {
        let mut headers = async_nats::HeaderMap::new();
        headers.insert("source-id", source);
        lab.block_on(client.invoke_values_blocking::<_, (), (u32,)>(Some(headers), ITEMS, "count", (), none))
    };
    assert_eq!(eventually("an answer", || count("app").ok()), (3,));
    let denied = format!("{:#}", count("other").unwrap_err());
    assert!(denied.contains("403") && denied.contains("no policy permits it"), "{denied}");
    assert_eq!(host.connects(), 1);
    lab.broker_command(&["revoke", "entry", &entry]).ok();
    lab.block_on(host.hears("disconnected"));
}

#[test]
fn an_identity_calls_a_service_by_its_name() {
    let (lab, lattice) = Lattice::start_with_svids();
    let service = LegacyService::start(Behaviour::Answer(200, "3".to_owned()));
    let nats = format!(
        "[nats]\nservers = [\"tls://{}\"]\nserver_id = \"spiffe://test.example/nats\"\ntls_first = true\n",
        lattice.nodes_address
    );
    let _sidecar = lab.sidecar(&SidecarSetup::http("shop", service.address).with(&nats));
    let _pay = lab.sidecar(&SidecarSetup::http("pay", service.address).with(&nats));
    let config = lab.path().join("pay.toml");
    let count = || {
        let arguments = ["invoke", "--config", config.to_str().unwrap(), "--over", "nats", "demo/shop", "count"];
        e2e::run("portcullis-sidecar", &arguments)
    };
    eventually("the sidecar to join the lattice", || (lab.status("shop")["nats"]["connected"] == true).then_some(()));
    // Nobody may call it: the server does not let the call through.
    let denied = count();
    assert!(denied.code == 1 && denied.err.contains("does not permit to publish"), "{denied:?}");
    lab.policy(
        "pay",
        "@id(\"pay\") permit(principal == Workload::\"spiffe://test.example/virtual/demo/pay\", action, resource);",
    );
    let answer = eventually("an answer", || Some(count()).filter(|ran| ran.code == 0));
    assert_eq!(answer.out, "3\n");
    assert_eq!(service.seen().pop().unwrap().header("x-caller"), Some("spiffe://test.example/virtual/demo/pay"));
}

#[test]
fn the_links_to_a_component_are_shown() {
    let (mut lab, lattice) = Lattice::start_with_svids();
    lab.lattice_entry("/host/one");
    lab.broker().logged(&["the lattice's buckets are there"]);
    let host = host(&lab, &lattice);
    let link = |source: &str, config: serde_json::Value| {
        serde_json::json!({
            "source_id": source, "target": "vc.shop.host", "name": "default", "wit_namespace": "test", "wit_package": "shop",
            "interfaces": ["items"], "source_config": {}, "target_config": config,
        })
    };
    // As a host stores a link: one that stood before the sidecar came.
    let stored =
        serde_json::json!({ "url": "file:///cart.wasm", "links": [link("cart", serde_json::json!(["prices"]))] });
    lab.block_on(async {
        let stored =
            host.client.request("$KV.LATTICEDATA_demo.COMPONENT_cart", stored.to_string().into()).await.unwrap();
        assert!(String::from_utf8_lossy(&stored.payload).contains("\"seq\":1"), "{stored:?}");
    });
    let service = LegacyService::start(Behaviour::Answer(200, "3".to_owned()));
    let nats = format!(
        "[nats]\nservers = [\"tls://{}\"]\nserver_id = \"spiffe://test.example/nats\"\ntls_first = true\n",
        lattice.nodes_address
    );
    let _sidecar = lab.sidecar(&SidecarSetup::http("shop", service.address).with(&nats));
    let links = || lab.status("shop")["nats"]["links"].as_array().cloned().unwrap_or_default();
    let [cart] = &eventually("the link that stands", || Some(links()).filter(|links| !links.is_empty()))[..] else {
        panic!()
    };
    assert_eq!((&cart["source"], &cart["interfaces"][0]), (&"cart".into(), &"test:shop/items".into()));
    assert_eq!(cart["config_names"][0], "prices");
    // As it announces one, and its end.
    let announce = |verb: &str| {
        let subject = format!("wasmbus.rpc.demo.vc.shop.host.linkdefs.{verb}");
        let told = link("till", serde_json::json!({ "currency": "EUR" })).to_string();
        lab.block_on(async {
            host.client.publish(subject, told.into()).await.unwrap();
            host.client.flush().await.unwrap();
        });
    };
    announce("put");
    let both = eventually("the link that was announced", || Some(links()).filter(|links| links.len() == 2));
    assert_eq!(both[1]["config"]["currency"], "EUR");
    let config = lab.path().join("shop.toml");
    let shown = e2e::run("portcullis-sidecar", &["status", "--config", config.to_str().unwrap()]).ok();
    assert!(shown.out.contains("till (default): test:shop/items, with currency=EUR"), "{}", shown.out);
    announce("del");
    eventually("the link to be gone", || (links().len() == 1).then_some(()));
}

/// A server that cannot show that it is the registered one gets no call to answer.
#[test]
fn a_sidecar_joins_no_server_but_that_of_its_configuration() {
    let (lab, lattice) = Lattice::start_with_svids();
    let service = LegacyService::start(Behaviour::Answer(200, "3".to_owned()));
    let nats = format!(
        "[nats]\nservers = [\"tls://{}\"]\nserver_id = \"spiffe://test.example/other\"\ntls_first = true\n",
        lattice.nodes_address
    );
    let sidecar = lab.sidecar(&SidecarSetup::http("shop", service.address).with(&nats));
    sidecar.logged(&["cannot join the lattice", "spiffe://test.example/nats", "spiffe://test.example/other"]);
    assert_eq!(lab.status("shop")["nats"]["connected"], false);
}

#[test]
fn a_host_finds_the_buckets_that_it_may_not_make() {
    let (mut lab, lattice) = Lattice::start("");
    lab.lattice_entry("/host/one");
    lab.broker().logged(&["the lattice's buckets are there"]);
    let host = host(&lab, &lattice);
    lab.block_on(async {
        for bucket in ["LATTICEDATA_demo", "CONFIGDATA_demo"] {
            let answer = host.client.request(format!("$JS.API.STREAM.INFO.KV_{bucket}"), "".into()).await.unwrap();
            let answer: serde_json::Value = serde_json::from_slice(&answer.payload).unwrap();
            assert_eq!(answer["config"]["name"], format!("KV_{bucket}"), "{answer}");
            let stored = host.client.request(format!("$KV.{bucket}.key"), "value".into()).await.unwrap();
            assert!(String::from_utf8_lossy(&stored.payload).contains("\"seq\":1"), "{stored:?}");
        }
    });
}

#[test]
fn members_join_by_certificate_and_are_held_to_their_names() {
    let (mut lab, lattice) = Lattice::start("");
    shop_and_alice(&lab);
    let shop = lab.block_on(lattice.by_certificate(lab.minted(SHOP))).unwrap();
    lab.broker().logged(&["joined the lattice", SHOP, "x509-svid", "member"]);
    let alice = lab.block_on(lattice.by_certificate(lab.minted(ALICE))).unwrap();
    lab.block_on(async {
        let mut calls = shop.subscribe("demo.vc.shop.*.wrpc.0.0.1.>", Some("demo.vc.shop")).await;
        shop.round_trip().await;
        let mut answers = alice.subscribe("_I.demo.alice.1.>", None).await;
        let call = "demo.vc.shop.alice.wrpc.0.0.1.test:shop/items@1.0.0.count";
        alice.client.publish_with_reply(call, "_I.demo.alice.1.x", "call".into()).await.unwrap();
        let heard = calls.next().await.unwrap();
        assert_eq!((heard.subject.as_str(), &heard.payload[..]), (call, &b"call"[..]));
        shop.client.publish("_I.demo.alice.1.x.results", "answer".into()).await.unwrap();
        assert_eq!(&answers.next().await.unwrap().payload[..], b"answer");

        // The callee's subjects are the callee's, in its queue group alone.
        alice.may_not_subscribe("demo.vc.shop.*.wrpc.0.0.1.>", Some("demo.vc.shop")).await;
        alice.may_not_subscribe("demo.vc.shop.alice.wrpc.0.0.1.>", None).await;
        shop.may_not_subscribe("demo.vc.shop.*.wrpc.0.0.1.>", None).await;
        shop.may_not_subscribe("demo.vc.pay.*.wrpc.0.0.1.>", Some("demo.vc.pay")).await;
        // A name is its holder's.
        for subject in [
            "demo.vc.shop.bob.wrpc.0.0.1.x.y",
            "demo.vc.shop.host.wrpc.0.0.1.x.y",
            "demo.vc.pay.alice.wrpc.0.0.1.x.y",
            "demo.component.wrpc.0.0.1.x.y",
            "wasmbus.ctl.v1.demo.link.put",
            "_I.demo.bob.1.results",
            "_INBOX.a.b.results",
            "$JS.API.CONSUMER.CREATE.KV_LATTICEDATA_demo",
        ] {
            alice.may_not_publish(subject).await;
        }
        shop.may_not_publish("_I.demo.bob.1.results").await;
        alice.may_not_subscribe("_I.demo.shop.>", None).await;
        alice.may_not_subscribe("_INBOX.>", None).await;
    });
}

/// A callee that learned a host's inbox from a call, and would have the host's own client answer a handshake: once by calling somebody else in
/// the host's name, once by what a forged result would say.
#[test]
fn a_callee_that_knows_an_inbox_can_neither_call_as_its_owner_nor_answer_identities() {
    let (lab, lattice) = Lattice::start("");
    lab.lattice_entry("/host/one");
    shop_and_alice(&lab);
    lab.register(&SidecarSetup::http("pay", ([127, 0, 0, 1], 1).into()));
    let host = host(&lab, &lattice);
    let shop = lab.block_on(lattice.by_certificate(lab.minted(SHOP))).unwrap();
    lab.block_on(async {
        let mut calls = shop.subscribe("demo.vc.shop.*.wrpc.0.0.1.>", Some("demo.vc.shop")).await;
        shop.round_trip().await;
        let mut answers = host.subscribe("_INBOX.one.>", None).await;
        host.round_trip().await;
        host.client
            .publish_with_reply("demo.vc.shop.host.wrpc.0.0.1.a:b/c@1.0.0.get", "_INBOX.one.call", "x".into())
            .await
            .unwrap();
        let inbox = calls.next().await.unwrap().reply.unwrap();
        // The relay: a request to another component whose handshake the host would answer.
        let refusal = "Permissions Violation for Publish to \"demo.vc.pay.host.wrpc.0.0.1.a:b/c@1.0.0.get\"";
        shop.client
            .publish_with_reply("demo.vc.pay.host.wrpc.0.0.1.a:b/c@1.0.0.get", inbox.clone(), "x".into())
            .await
            .unwrap();
        shop.hears(refusal).await;
        // In an identity's inbox it can say nothing.
        shop.may_not_publish("_I.demo.bob.1.call.results").await;
        // In a host's it can, as every callee of hosts must: theirs is one inbox for all (ARCHITECTURE §7).
        shop.client.publish(format!("{inbox}.results"), "forged".into()).await.unwrap();
        assert_eq!(&answers.next().await.unwrap().payload[..], b"forged");
    });
}

#[test]
fn a_certificate_that_is_not_ours_does_not_get_in() {
    let (mut lab, lattice) = Lattice::start("");
    shop_and_alice(&lab);
    let forge = lab.forge();
    // The servers know the authority, and nothing of SPIFFE.
    let foreign =
        lab.block_on(lattice.by_certificate(forge.certificate("spiffe://evil.example/virtual/demo/shop", Flaw::None)));
    refused(&mut lab, foreign, "its certificate is refused");
    let two = lab.block_on(lattice.by_certificate(forge.certificate(SHOP, Flaw::TwoUris)));
    refused(&mut lab, two, "its certificate is refused");
    let broker =
        lab.block_on(lattice.by_certificate(forge.certificate("spiffe://test.example/portcullis/broker", Flaw::None)));
    refused(&mut lab, broker, "reserved");
    let both = lab.block_on(async {
        let (chain, key) = forge.certificate(SHOP, Flaw::None);
        lattice.by_certificate((chain, key)).await
    });
    // Whoever stole the CA gets in: the registry names this identity.
    both.unwrap();
    // These the servers refuse by themselves, in the handshake.
    let stranger = Forge::stranger("test.example");
    for certificate in [stranger.certificate(SHOP, Flaw::None), forge.certificate(SHOP, Flaw::Expired)] {
        lab.block_on(lattice.by_certificate(certificate)).unwrap_err();
    }
}

#[test]
fn what_is_revoked_is_cut_within_a_second() {
    let (lab, lattice) = Lattice::start("");
    let entry = lab.lattice_entry("/host/one");
    shop_and_alice(&lab);
    let cut = |joined: &Joined, command: &[&str]| {
        assert!(!joined.events().iter().any(|event| event == "disconnected"));
        lab.broker_command(command).ok();
        let revoked = Instant::now();
        lab.block_on(joined.hears("disconnected"));
        let took = revoked.elapsed();
        println!("{command:?}: cut after {took:?}");
        assert!(took < Duration::from_secs(1), "{command:?} took {took:?}");
    };
    // An identity's SVIDs: that of a host by token, of an identity by certificate.
    let by_token = host(&lab, &lattice);
    cut(&by_token, &["revoke", "entry", &entry]);
    let certificate = lab.minted(ALICE);
    let alice = lab.block_on(lattice.by_certificate((certificate.0.clone(), certificate.1.clone_key()))).unwrap();
    let (_, leaf) = x509_parser::parse_x509_certificate(&certificate.0[0]).unwrap();
    cut(&alice, &["revoke", "svid", &leaf.raw_serial_as_string()]);
    lab.block_on(lattice.by_certificate(certificate)).unwrap_err();
    // The entry itself. What was issued in the second of the revocation is revoked, too.
    let by_token = eventually("a token from after the revocation", || {
        let token = host_token(&lab);
        lab.block_on(lattice.by_token(&token)).ok()
    });
    cut(&by_token, &["entry", "remove", &entry]);
    // A right: who is granted nothing more does not keep what it had.
    let alice = lab.block_on(lattice.by_certificate(lab.minted(ALICE))).unwrap();
    cut(&alice, &["policy", "remove", "alice.cedar"]);
}

#[test]
fn a_sidecar_whose_node_is_revoked_leaves_the_lattice_within_a_second() {
    let (lab, lattice) = Lattice::start_with_svids();
    let service = LegacyService::start(Behaviour::Answer(200, "3".to_owned()));
    let nats = format!(
        "[nats]\nservers = [\"tls://{}\"]\nserver_id = \"spiffe://test.example/nats\"\ntls_first = true\n",
        lattice.nodes_address
    );
    let _sidecar = lab.sidecar(&SidecarSetup::http("shop", service.address).with(&nats));
    let sessions = || {
        let status = lab.broker_command(&["nats", "status", "--json"]).ok().json();
        status["sessions"].as_array().unwrap().iter().filter(|session| session["identity"] == SHOP).count()
    };
    eventually("the sidecar to join the lattice", || (sessions() == 1).then_some(()));
    lab.broker_command(&["revoke", "node", "shop"]).ok();
    let revoked = Instant::now();
    eventually("the sidecar to be cut off", || (sessions() == 0).then_some(()));
    let took = revoked.elapsed();
    println!("cut after {took:?}");
    assert!(took < Duration::from_secs(1), "{took:?}");
    // It tries again, and is refused.
    eventually("its next attempt to be refused", || {
        let status = lab.broker_command(&["nats", "status", "--json"]).ok().json();
        assert_eq!(sessions(), 0);
        (lab.status("shop")["nats"]["connected"] == false && !status["refusals"].as_array().unwrap().is_empty())
            .then_some(())
    });
}

#[test]
fn a_new_component_reconnects_no_host_and_its_callers_gently() {
    let (lab, lattice) = Lattice::start("");
    lab.lattice_entry("/host/one");
    alice(&lab);
    lab.allow_all();
    let host = host(&lab, &lattice);
    let caller = lab.block_on(lattice.by_certificate(lab.minted(ALICE))).unwrap();
    lab.block_on(caller.may_not_publish("demo.vc.shop.alice.wrpc.0.0.1.x.y"));
    lab.register(&SidecarSetup::http("shop", ([127, 0, 0, 1], 1).into()).wit(WIT));
    // The caller has more rights now: it is told to come again, and cut some seconds later where it does not.
    lab.block_on(caller.hears("lame duck"));
    assert!(!caller.events().iter().any(|event| event == "disconnected"), "{:?}", caller.events());
    lab.block_on(async {
        caller.hears("disconnected").await;
        caller.hears("connected").await;
    });
    eventually("the caller to be back", || (caller.connects() == 2).then_some(()));
    lab.block_on(caller.may_publish("demo.vc.shop.alice.wrpc.0.0.1.x.y"));
    lab.block_on(host.may_publish("demo.vc.shop.host.wrpc.0.0.1.x.y"));
    assert_eq!(host.connects(), 1, "{:?}", host.events());
}

#[test]
fn while_the_broker_is_away_members_stay_and_nobody_joins() {
    let (mut lab, lattice) = Lattice::start("");
    let entry = lab.lattice_entry("/host/one");
    let (here, later) = (host(&lab, &lattice), host_token(&lab));
    lab.broker().kill();
    lab.block_on(lattice.by_token(&later)).unwrap_err();
    lab.block_on(here.may_publish("wasmbus.evt.demo.x"));
    lab.start_broker();
    let joined = eventually("the broker to answer again", || {
        let token = host_token(&lab);
        lab.block_on(lattice.by_token(&token)).ok()
    });
    lab.block_on(joined.may_publish("wasmbus.evt.demo.x"));
    // Of the older session it knows what the servers tell.
    assert_eq!(here.connects(), 1);
    eventually("the broker to find the session", || {
        lab.broker_command(&["nats", "status", "--json"]).ok().json()["sessions"]
            .as_array()
            .is_some_and(|sessions| sessions.len() == 2)
            .then_some(())
    });
    lab.broker_command(&["revoke", "entry", &entry]).ok();
    lab.block_on(async {
        here.hears("disconnected").await;
        joined.hears("disconnected").await;
    });
}

#[test]
fn servers_that_come_back_are_answered_again() {
    let (mut lab, mut lattice) = Lattice::start("");
    lab.lattice_entry("/host/one");
    host(&lab, &lattice);
    lattice.kill_hosts();
    lab.broker().logged(&["disconnected from the lattice", "callout"]);
    lattice.start_servers_again();
    let joined = eventually("the servers to be answered", || {
        let token = host_token(&lab);
        lab.block_on(lattice.by_token(&token)).ok()
    });
    lab.block_on(joined.may_publish("wasmbus.evt.demo.x"));
}

#[test]
fn a_session_ends_with_its_time_and_a_fresh_token_begins_another() {
    let (mut lab, lattice) = Lattice::start("session = \"10s\"");
    lab.lattice_entry("/host/one");
    let (sender, tokens) = tokio::sync::mpsc::channel::<String>(4);
    for _ in 0..2 {
        sender.try_send(host_token(&lab)).unwrap();
    }
    let tokens = std::sync::Arc::new(tokio::sync::Mutex::new(tokens));
    let options = ConnectOptions::with_auth_callback(move |_nonce| {
        let tokens = std::sync::Arc::clone(&tokens);
        async move {
            let mut auth = Auth::new();
            auth.token = Some(tokens.lock().await.recv().await.ok_or_else(|| AuthError::new("no token is left"))?);
            Ok(auth)
        }
    });
    let began = Instant::now();
    let host = lab.block_on(lattice.connect(options, lattice.hosts_address)).unwrap();
    let heard = lab.block_on(host.subscribe("demo.x.wrpc.>", None));
    lab.block_on(host.hears("disconnected"));
    let lasted = began.elapsed();
    assert!((Duration::from_secs(7)..Duration::from_secs(11)).contains(&lasted), "{lasted:?}");
    eventually("the host to be back", || (host.connects() == 2).then_some(()));
    // Its subscription is back, too.
    lab.block_on(async move {
        host.client.publish("demo.x.wrpc.0.0.1.a.b", "again".into()).await.unwrap();
        // Here to its end: it is dropped on a runtime alone.
        let mut heard = heard;
        assert_eq!(&heard.next().await.unwrap().payload[..], b"again");
    });
    assert!(lab.broker().log().matches("joined the lattice").count() >= 2);
}

#[test]
fn who_has_no_svid_joins_by_a_key_that_the_settings_name() {
    let (wadm, wash, other) = (nkeys::KeyPair::new_user(), nkeys::KeyPair::new_user(), nkeys::KeyPair::new_user());
    let key = |key: &nkeys::KeyPair, name: &str, class: &str| {
        let public = key.public_key();
        format!(
            "[[nats.key]]\nnkey = \"{public}\"\nidentity = \"spiffe://test.example/{name}\"\nlattice = \"demo\"\nclass = \"{class}\"\n"
        )
    };
    let keys = format!("{}{}id = \"http\"\n", key(&wadm, "wadm", "wadm"), key(&wash, "http", "provider"));
    let (mut lab, lattice) = Lattice::start(&keys);
    let wadm = lab.block_on(lattice.by_nkey(&wadm.seed().unwrap())).unwrap();
    lab.broker().logged(&["joined the lattice", "spiffe://test.example/wadm", "nkey"]);
    let provider = lab.block_on(lattice.by_nkey(&wash.seed().unwrap())).unwrap();
    let stranger = lab.block_on(lattice.by_nkey(&other.seed().unwrap()));
    refused(&mut lab, stranger, "is not configured");
    lab.block_on(async {
        wadm.may_publish("wasmbus.ctl.v1.demo.component.scale.N").await;
        wadm.may_not_publish("wasmbus.ctl.v1.other.component.scale.N").await;
        provider.may_not_publish("wasmbus.ctl.v1.demo.component.scale.N").await;
        let _served = provider.subscribe("demo.http.wrpc.>", Some("demo.http")).await;
        provider.may_not_subscribe("demo.vc.http.*.wrpc.0.0.1.>", None).await;
    });
}

#[test]
fn servers_that_cannot_be_used_are_said_at_the_start() {
    let mut lab = Lab::without_broker("# written later");
    let lattice = Lattice::init(&lab, "");
    // A server of another age.
    let listener = std::net::TcpListener::bind(lattice.hosts_address).unwrap();
    let old = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let hello = r#"INFO {"server_id":"NA","version":"2.9.15","max_payload":1048576,"proto":1,"host":"x","port":1,"go":"","nonce":"abc","auth_required":true}"#;
        stream.write_all(format!("{hello}\r\n").as_bytes()).unwrap();
        let (mut heard, mut buffer) = (Vec::new(), [0; 4096]);
        while !heard.windows(4).any(|word| word == b"PING") {
            let read = stream.read(&mut buffer).unwrap();
            heard.extend_from_slice(&buffer[..read]);
        }
        stream.write_all(b"PONG\r\n").unwrap();
        let _ = stream.read(&mut buffer);
    });
    let broker = |lab: &Lab| {
        let (data, settings) = (lab.broker_data(), lab.path().join("broker.toml"));
        let arguments = ["run", "--trust-domain", "test.example", "--listen", "127.0.0.1:0"];
        let places = ["--data", data.to_str().unwrap(), "--config", settings.to_str().unwrap()];
        e2e::run("portcullis-broker", &[&arguments[..], &places[..]].concat())
    };
    let ran = broker(&lab);
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.err.contains("nats-server 2.9.15 is too old"), "{ran:?}");
    old.join().unwrap();

    // Servers of another set-up do not know our users.
    lab.start_broker();
    let mut other = Lattice::init(&lab, "");
    other.start_servers();
    lab.broker().kill();
    let settings = std::fs::read_to_string(lab.path().join("broker.toml")).unwrap();
    let (theirs, ours) =
        (other.told["broker_folder"].as_str().unwrap(), lattice.told["broker_folder"].as_str().unwrap());
    std::fs::write(lab.path().join("broker.toml"), settings.replace(theirs, ours)).unwrap();
    let ran = broker(&lab);
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.err.contains("the server refuses the broker's credentials"), "{ran:?}");
}
