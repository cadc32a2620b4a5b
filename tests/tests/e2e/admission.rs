//! The policy service of wasmCloud hosts, asked as a host asks: a plain request on NATS, by a member that logged in as one.

use std::collections::BTreeSet;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use e2e::{Agent, Joined, Lab, Lattice, SidecarSetup, eventually};
use portcullis_api::delegated::delegated_identity_client::DelegatedIdentityClient;
use portcullis_api::delegated::{FetchJwtsviDsRequest, Selector};
use portcullis_api::v1;
use portcullis_client::node::WantedJwt;
use serde_json::{Value, json};
use tokio_stream::StreamExt as _;

const HOST: &str = "spiffe://test.example/host/one";
const AUDIENCE: &str = "spiffe://test.example/nats";
const ASK: &str = "portcullis.policy.demo.ask";
const CHANGES: &str = "portcullis.policy.demo.changes";
const DIGEST: &str = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
/// A 1.9.2 host waits so long.
const PATIENCE: Duration = Duration::from_secs(1);

struct Scene {
    lab: Lab,
    lattice: Lattice,
    host: Joined,
}

impl Scene {
    fn start() -> Self {
        let (mut lab, lattice) = Lattice::start("");
        lab.broker().logged(&["answering what hosts may start"]);
        lab.lattice_entry("/host/one");
        let host = join(&lab, &lattice, HOST);
        Self { lab, lattice, host }
    }

    /// Puts a file of admission policies in force.
    fn policy(&self, name: &str, text: &str) {
        let path = self.lab.path().join(name);
        std::fs::write(&path, text).unwrap();
        self.lab.broker_command(&["policy", "put", "--admission", path.to_str().unwrap()]).ok();
    }

    fn remove(&self, name: &str) {
        self.lab.broker_command(&["policy", "remove", name]).ok();
    }

    /// The answer to `question`, which must come in time.
    fn ask_on(&self, subject: &str, question: &Value) -> Value {
        self.raw(subject, question.to_string().into_bytes())
    }

    fn ask(&self, question: &Value) -> Value {
        self.ask_on(ASK, question)
    }

    fn raw(&self, subject: &str, bytes: Vec<u8>) -> Value {
        let asked = Instant::now();
        let answer = self.lab.block_on(self.host.client.request(subject.to_owned(), bytes.into())).unwrap();
        assert!(asked.elapsed() < PATIENCE, "{:?}", asked.elapsed());
        serde_json::from_slice(&answer.payload).unwrap()
    }

    /// What is told on the topic of changes from now on.
    fn changes(&self) -> Receiver<Value> {
        self.changes_for(&self.host)
    }

    fn changes_for(&self, host: &Joined) -> Receiver<Value> {
        let (sender, receiver) = channel();
        let mut changes = self.lab.block_on(async {
            let changes = host.subscribe(CHANGES, None).await;
            host.round_trip().await;
            changes
        });
        // A subscription has to end on a runtime.
        drop(self.lab.spawn(async move {
            while let Some(change) = changes.next().await {
                let _ = sender.send(serde_json::from_slice(&change.payload).unwrap());
            }
        }));
        receiver
    }

    fn counts(&self) -> Value {
        self.lab.broker_command(&["nats", "status", "--json"]).ok().json()["admissions"].clone()
    }
}

/// The next change, which must come.
fn change(changes: &Receiver<Value>) -> Value {
    changes.recv_timeout(e2e::PATIENCE).expect("no change was told")
}

fn join(lab: &Lab, lattice: &Lattice, id: &str) -> Joined {
    let token = lab.login_token(id, AUDIENCE, "5m");
    lab.block_on(lattice.by_token(&token)).unwrap()
}

fn start(request: &str, id: &str, image: &str) -> Value {
    json!({"requestId": request, "kind": "startComponent", "version": "v1",
        "request": {"componentId": id, "imageRef": image, "maxInstances": 5, "annotations": {"team": "billing"}, "claims": null},
        "host": {"publicKey": "NAL44", "lattice": "demo", "labels": {"hostcore.os": "linux", "zone": "eu"}}})
}

fn permitted(request: &str) -> Value {
    json!({"requestId": request, "permitted": true})
}

/// Checks a denial; returns its reason.
fn denied(answer: &Value, request: &str) -> String {
    assert_eq!((&answer["requestId"], &answer["permitted"]), (&json!(request), &json!(false)), "{answer}");
    answer["message"].as_str().unwrap().to_owned()
}

#[test]
fn a_host_is_told_what_it_may_start_and_why_not() {
    let mut scene = Scene::start();
    let none = denied(&scene.ask(&start("r0", "app", "ghcr.io/acme/app:1")), "r0");
    assert!(none.contains("there is no admission policy for lattice `demo`"), "{none}");

    scene.policy(
        "hosts.cedar",
        &format!(
            "@id(\"linux\") permit (principal, action == Action::\"startComponent\", resource in Lattice::\"demo\")
               when {{ principal.hasTag(\"hostcore.os\") && principal.getTag(\"hostcore.os\") == \"linux\"
                    && resource.hasTag(\"team\") && resource.getTag(\"team\") == \"billing\" }};
             @id(\"old\") @advice(\"version 0 is out of support\") forbid (principal, action, resource)
               when {{ resource.image has tag && resource.image.tag like \"0.*\" }};
             @id(\"pinned\") @advice(\"pin the digest that was reviewed\") forbid (principal, action, resource == Component::\"demo/bank\")
               unless {{ resource.image has digest && resource.image.digest == \"{DIGEST}\" }};
             @id(\"http\") permit (principal, action == Action::\"startProvider\", resource == Provider::\"demo/http\");
             @id(\"handle\") permit (principal, action == Action::\"performInvocation\", resource)
               when {{ context.interface like \"wasi:http/*\" && context.function == \"handle\" }};"
        ),
    );
    assert_eq!(scene.ask(&start("r1", "app", "ghcr.io/acme/app:1.2")), permitted("r1"));
    let old = denied(&scene.ask(&start("r2", "app", "ghcr.io/acme/app:0.9")), "r2");
    assert_eq!(old, "denied by policy `old` (version 0 is out of support)");

    // A rule that needs a digest is met by a reference that pins it, and by nothing else.
    let bank = |request: &str, image: &str| scene.ask(&start(request, "bank", image));
    assert_eq!(bank("r3", &format!("ghcr.io/acme/bank:1@{DIGEST}")), permitted("r3"));
    for (request, image) in [
        ("r4", "ghcr.io/acme/bank:1".to_owned()),
        ("r5", format!("ghcr.io/acme/bank@{}", DIGEST.replace('0', "1"))),
        ("r6", "file:///srv/bank.wasm".to_owned()),
    ] {
        let reason = denied(&bank(request, &image), request);
        assert_eq!(reason, "denied by policy `pinned` (pin the digest that was reviewed)", "{image}");
    }

    // Labels and annotations are the host's word; without them the rule does not speak.
    let mut question = start("r7", "app", "ghcr.io/acme/app:1");
    question["request"]["annotations"] = json!({});
    assert_eq!(denied(&scene.ask(&question), "r7"), "denied: no policy permits it");

    let mut provider = start("r8", "x", "x");
    provider["kind"] = json!("startProvider");
    provider["request"] =
        json!({"providerId": "http", "imageRef": "wasmcloud+builtin://http-server", "annotations": {}, "claims": null});
    assert_eq!(scene.ask(&provider), permitted("r8"));
    let mut call = start("r9", "app", "ghcr.io/acme/app:1");
    call["kind"] = json!("performInvocation");
    call["request"] =
        json!({"interface": "wasi:http/incoming-handler@0.2.0", "function": "handle", "target": call["request"]});
    assert_eq!(scene.ask(&call), permitted("r9"));
    call["requestId"] = json!("r10");
    call["request"]["function"] = json!("other");
    denied(&scene.ask(&call), "r10");

    // The operator's side: counts, the log, the audit log, the list, the same question without a host.
    let counts = scene.counts();
    assert_eq!((&counts["allowed"], &counts["denied"], &counts["remembered"]), (&json!(4), &json!(7), &json!(11)));
    scene.lab.broker().logged(&["decision", "refused", "r2", "version 0 is out of support"]);
    let list = scene.lab.broker_command(&["policy", "list", "--json"]).ok().json();
    assert_eq!((&list[0]["file"], &list[0]["kind"]), (&json!("hosts.cedar"), &json!("admissions")));
    let data = scene.lab.broker_data();
    let audit =
        e2e::run("portcullis-broker", &["audit", "tail", "-n", "200", "--data", data.to_str().unwrap()]).ok().out;
    assert!(audit.contains("admission policy file") && audit.contains("hosts.cedar"), "{audit}");
    let path = scene.lab.path().join("question.json");
    std::fs::write(&path, start("x", "app", "ghcr.io/acme/app:0.9").to_string()).unwrap();
    let explained = scene.lab.broker_command(&["policy", "admit", path.to_str().unwrap()]);
    assert_eq!((explained.code, explained.out.trim()), (3, old.as_str()));
    let wrong = scene.lab.path().join("wrong.cedar");
    std::fs::write(&wrong, "permit (principal, action, resource) when { resource.image.digest == \"x\" };").unwrap();
    let checked = scene.lab.broker_command(&["policy", "check", "--admission", wrong.to_str().unwrap()]);
    assert_eq!(checked.code, 3, "{checked:?}");
    assert!(checked.out.contains("wrong.cedar:1:"), "{checked:?}");
}

#[test]
fn what_a_host_was_told_changes_with_the_policies_within_a_second() {
    let scene = Scene::start();
    scene.policy("hosts.cedar", "@id(\"all\") permit (principal, action, resource);");
    let changes = scene.changes();
    for (request, id) in [("one", "app"), ("two", "other")] {
        assert_eq!(scene.ask(&start(request, id, "ghcr.io/acme/app:1")), permitted(request));
    }
    let timed = |changes: &Receiver<Value>, act: &dyn Fn(), permitted: bool| {
        let began = Instant::now();
        act();
        let told = loop {
            let told = change(changes);
            // What was told before is told again a second later.
            if told["permitted"] == permitted {
                break told;
            }
        };
        println!("a change was told after {:?}", began.elapsed());
        assert!(began.elapsed() < PATIENCE, "{:?}", began.elapsed());
        told
    };
    let stop = "@id(\"stop\") @advice(\"recalled\") forbid (principal, action, resource == Component::\"demo/app\");";
    let told = timed(&changes, &|| scene.policy("stop.cedar", stop), false);
    assert_eq!(denied(&told, "one"), "denied by policy `stop` (recalled)");
    let told = timed(&changes, &|| scene.remove("stop.cedar"), true);
    assert_eq!(told, permitted("one"));

    // Whoever was away when it was told hears it after it is back; what never changed is not told.
    let late = join(&scene.lab, &scene.lattice, HOST);
    let heard = scene.changes_for(&late);
    assert_eq!(change(&heard), permitted("one"));
    scene.remove("hosts.cedar");
    let mut told = BTreeSet::new();
    while told.len() < 2 {
        let told_now = change(&changes);
        if told_now["permitted"] == false {
            let reason = told_now["message"].as_str().unwrap();
            assert!(reason.contains("there is no admission policy"), "{reason}");
            told.insert(told_now["requestId"].as_str().unwrap().to_owned());
        }
    }
    assert_eq!(told, ["one", "two"].map(str::to_owned).into());
}

#[test]
fn a_broker_that_was_started_again_takes_back_what_it_allowed_before() {
    let mut scene = Scene::start();
    scene.policy("hosts.cedar", "@id(\"all\") permit (principal, action, resource);");
    let changes = scene.changes();
    assert_eq!(scene.ask(&start("before", "app", "ghcr.io/acme/app:1")), permitted("before"));
    scene.lab.broker().kill();
    // Nobody answers: a host goes no further.
    let nobody = scene.lab.block_on(scene.host.client.request(ASK, start("x", "app", "a/b").to_string().into()));
    assert!(nobody.is_err(), "{nobody:?}");
    scene.lab.start_broker();
    scene.lab.broker().logged(&["answering what hosts may start"]);
    assert_eq!(scene.counts()["remembered"], 1);
    let began = Instant::now();
    scene.remove("hosts.cedar");
    denied(&change(&changes), "before");
    assert!(began.elapsed() < PATIENCE, "{:?}", began.elapsed());
    // Nor is it forgotten that it was taken back: the next broker says so to who may have missed it.
    scene.lab.broker().kill();
    let changes = scene.changes();
    scene.lab.start_broker();
    scene.lab.broker().logged(&["answering what hosts may start"]);
    denied(&change(&changes), "before");
    assert_eq!(scene.host.connects(), 1, "{:?}", scene.host.events());
}

#[test]
fn a_topic_of_its_own_proves_which_host_asks() {
    let scene = Scene::start();
    scene.lab.lattice_entry("/host/two");
    let topic = |id: &str| {
        let told = e2e::run("portcullis-broker", &["nats", "topics", "demo", id]).ok().out;
        assert!(told.contains(&format!("WASMCLOUD_POLICY_CHANGES_TOPIC={CHANGES}")), "{told}");
        let line = told.lines().find_map(|line| line.strip_prefix("WASMCLOUD_POLICY_TOPIC=")).unwrap();
        line.to_owned()
    };
    let (own, other) = (topic(HOST), topic("spiffe://test.example/host/two"));
    scene.policy("hosts.cedar", &format!("@id(\"one\") permit (principal in Workload::\"{HOST}\", action, resource);"));
    let image = "ghcr.io/acme/app:1";
    assert_eq!(scene.ask_on(&own, &start("own", "app", image)), permitted("own"));
    // What it says of itself proves nothing.
    assert_eq!(denied(&scene.ask(&start("common", "app", image)), "common"), "denied: no policy permits it");
    scene.lab.block_on(scene.host.may_not_publish(&other));
    let two = join(&scene.lab, &scene.lattice, "spiffe://test.example/host/two");
    scene.lab.block_on(two.may_not_publish(&own));
    let scene = Scene { host: two, ..scene };
    assert_eq!(denied(&scene.ask_on(&other, &start("two", "app", image)), "two"), "denied: no policy permits it");
    // Under an id that another host used it is told nothing that could be taken for an answer to that one.
    let used = denied(&scene.ask_on(&other, &start("own", "app", image)), "own");
    assert!(used.contains("used for another question"), "{used}");
}

#[test]
fn nobody_but_the_broker_tells_changes_and_nobody_makes_it_tell_them() {
    let scene = Scene::start();
    let lab = &scene.lab;
    scene.policy("hosts.cedar", "@id(\"all\") permit (principal, action, resource);");
    lab.register(&SidecarSetup::http("shop", ([127, 0, 0, 1], 1).into()));
    lab.create(v1::CreateEntryRequest {
        node: "machine".to_owned(),
        component: Some(v1::Target { lattice: "demo".to_owned(), id: "alice".to_owned() }),
        danger_any_digest: true,
        ..Default::default()
    });
    lab.allow_all();
    let certificate = |id: &str| lab.block_on(scene.lattice.by_certificate(lab.minted(id))).unwrap();
    let members = [
        certificate("spiffe://test.example/component/demo/alice"),
        certificate("spiffe://test.example/virtual/demo/shop"),
    ];
    lab.block_on(async {
        for member in &members {
            member.may_not_publish(CHANGES).await;
            member.may_not_publish(ASK).await;
            member.may_not_subscribe(CHANGES, None).await;
            member.may_not_subscribe(ASK, Some("portcullis.policy")).await;
        }
        scene.host.may_not_publish(CHANGES).await;
        scene.host.may_not_publish("portcullis.policy.other.ask").await;
        scene.host.may_not_subscribe(ASK, Some("portcullis.policy")).await;
        scene.host.may_not_subscribe("portcullis.policy.demo.>", None).await;
    });
    // The answer to a question goes to a host's inbox: otherwise a host could have the broker publish a change of its own making.
    let changes = scene.changes();
    lab.block_on(async {
        for reply in [CHANGES, "$JS.API.STREAM.CREATE.evil", "wasmbus.ctl.v1.demo.link.put", "_B.x"] {
            let question = start("forged", "app", "ghcr.io/acme/app:1").to_string();
            scene.host.client.publish_with_reply(ASK, reply, question.into()).await.unwrap();
        }
        scene.host.client.publish(ASK, start("silent", "app", "a/b").to_string().into()).await.unwrap();
        scene.host.client.flush().await.unwrap();
    });
    eventually("the forgeries to be dropped", || (scene.counts()["dropped"] == 5).then_some(()));
    assert_eq!(scene.counts()["allowed"], 0);
    assert_eq!(scene.ask(&start("real", "app", "ghcr.io/acme/app:1")), permitted("real"));
    scene.remove("hosts.cedar");
    // Had there been one before, it would have come first.
    denied(&change(&changes), "real");
}

#[test]
fn what_is_no_question_is_answered_too() {
    let scene = Scene::start();
    scene.policy("hosts.cedar", "@id(\"all\") permit (principal, action, resource);");
    let good = start("bad", "app", "ghcr.io/acme/app:1");
    let with = |pointer: &str, value: Value| {
        let mut question = good.clone();
        *question.pointer_mut(pointer).unwrap() = value;
        question
    };
    for (question, reason) in [
        (with("/version", json!("v2")), "version is not `v1`"),
        (with("/kind", json!("unknown")), "kind is none of"),
        (with("/host/lattice", json!("other")), "came in from lattice `demo`"),
        (with("/request/componentId", json!("../app")), "the id is refused"),
        (with("/request/imageRef", json!("ghcr.io/acme/app@sha256:ff")), "its digest is not"),
        (with("/request/annotations", json!({"a": "x".repeat(2000)})), "the annotations are too many or too long"),
        (with("/request/maxInstances", json!("many")), "cannot be read"),
    ] {
        let answer = denied(&scene.ask(&question), "bad");
        assert!(answer.contains(reason), "{answer}");
        assert!(answer.len() <= 512, "{answer}");
    }
    for bytes in [&b""[..], b"nonsense", b"\xff\xfe\x00", &[b'['; 30_000], &[b' '; 200_000]] {
        denied(&scene.raw(ASK, bytes.to_vec()), "");
    }
    let counts = scene.counts();
    assert_eq!((&counts["malformed"], &counts["remembered"]), (&json!(12), &json!(0)));
    // It answers still.
    assert_eq!(scene.ask(&good), permitted("bad"));
}

#[test]
fn many_hosts_at_once_are_answered_in_time() {
    const QUESTIONS: usize = 500;
    let scene = Scene::start();
    scene.policy("hosts.cedar", "@id(\"all\") permit (principal, action, resource);");
    let took = scene.lab.block_on(async {
        let mut tasks = tokio::task::JoinSet::new();
        for number in 0..QUESTIONS {
            let client = scene.host.client.clone();
            tasks.spawn(async move {
                let question = start(&format!("r{number}"), &format!("app{number}"), "ghcr.io/acme/app:1");
                let asked = Instant::now();
                let answer = client.request(ASK, question.to_string().into()).await.unwrap();
                (asked.elapsed(), serde_json::from_slice::<Value>(&answer.payload).unwrap()["permitted"] == true)
            });
        }
        tasks.join_all().await
    });
    let slowest = took.iter().map(|(took, _)| *took).max().unwrap();
    println!("{QUESTIONS} questions at once: the slowest answer took {slowest:?}");
    assert!(took.iter().all(|(_, permitted)| *permitted));
    assert!(slowest < PATIENCE, "{slowest:?}");
    // All of them are taken back by one change.
    let changes = scene.changes();
    let began = Instant::now();
    scene.remove("hosts.cedar");
    let mut told = BTreeSet::new();
    while told.len() < QUESTIONS {
        told.insert(change(&changes)["requestId"].as_str().unwrap().to_owned());
    }
    println!("{QUESTIONS} answers were taken back within {:?}", began.elapsed());
    assert!(began.elapsed() < PATIENCE, "{:?}", began.elapsed());
}

/// What a component's `wasmcloud:identity/store` gives it on a host whose `SPIRE_ADMIN_ENDPOINT_SOCKET` is the agent's.
#[test]
fn a_component_has_an_identity_where_its_host_was_allowed_to_start_it() {
    let scene = Scene::start();
    let agent = Agent::start_delegating(&scene.lab, "agent");
    let socket = agent.delegated.clone().unwrap();
    let demo = |entry: v1::CreateEntryRequest| v1::CreateEntryRequest { lattice: "demo".to_owned(), ..entry };
    scene.lab.create(demo(agent.entry("host/one")));
    let component = |id: &str, lattice: &str| {
        let selectors = vec![format!("wasmcloud:component:{id}")];
        let entry = agent.entry(&format!("component/{lattice}/{id}"));
        scene.lab.create(v1::CreateEntryRequest { selectors, lattice: lattice.to_owned(), ..entry });
    };
    component("app", "demo");
    component("other", "demo");
    component("abroad", "elsewhere");
    let fetch = |audience: &str, selectors: &[(&str, &str)]| {
        let selectors =
            selectors.iter().map(|(kind, value)| Selector { r#type: (*kind).to_owned(), value: (*value).to_owned() });
        let request =
            FetchJwtsviDsRequest { audience: vec![audience.to_owned()], selectors: selectors.collect(), pid: 0 };
        scene.lab.block_on(async {
            let channel = portcullis_api::connect_operator(&socket).await.unwrap();
            DelegatedIdentityClient::new(channel).fetch_jwtsvi_ds(request).await.map(|reply| reply.into_inner().svids)
        })
    };
    let of = |component: &str| fetch("somebody", &[("wasmcloud", &format!("component:{component}"))]);
    let refusal = |component: &str| of(component).map(drop).unwrap_err().message().to_owned();
    eventually("the agent to know its entries", || {
        of("app").err().filter(|status| status.message().contains("has not allowed")).map(drop)
    });

    // Allowed on the common topic is allowed to nobody in particular.
    scene.policy("hosts.cedar", "@id(\"app\") permit (principal, action, resource == Component::\"demo/app\");");
    assert_eq!(scene.ask(&start("common", "app", "ghcr.io/acme/app:1")), permitted("common"));
    assert!(refusal("app").contains("has not allowed `spiffe://test.example/host/one` to start component `app`"));
    let told = e2e::run("portcullis-broker", &["nats", "topics", "demo", HOST]).ok().out;
    let own = told.lines().find_map(|line| line.strip_prefix("WASMCLOUD_POLICY_TOPIC=")).unwrap();
    assert_eq!(scene.ask_on(own, &start("own", "app", "ghcr.io/acme/app:1")), permitted("own"));
    denied(&scene.ask_on(own, &start("no", "other", "ghcr.io/acme/app:1")), "no");

    let svids = of("app").unwrap();
    let id = svids[0].id.clone().unwrap();
    assert_eq!((svids.len(), id.trust_domain.as_str(), id.path.as_str()), (1, "test.example", "/component/demo/app"));
    assert_eq!(svids[0].token.split('.').count(), 3);
    let data = scene.lab.broker_data();
    let audit =
        e2e::run("portcullis-broker", &["audit", "tail", "--json", "-n", "50", "--data", data.to_str().unwrap()])
            .ok()
            .out;
    let issued =
        audit.lines().find(|line| line.contains("/component/demo/app") && line.contains("jwt-issued")).unwrap();
    assert!(issued.contains("\"vouched_by\":\"spiffe://test.example/host/one\""), "{issued}");
    // No certificate, which the agent could use for itself.
    assert!(audit.lines().any(|line| line.contains("/host/one") && line.contains("x509-issued")), "{audit}");
    assert!(!audit.lines().any(|line| line.contains("/component/") && line.contains("x509-issued")), "{audit}");

    // Denied, of another lattice, not registered, no component, what is attested, and a way into the lattice.
    assert!(refusal("other").contains("has not allowed"));
    assert!(refusal("abroad").contains("not a host of the entry's lattice"));
    assert!(of("unknown").unwrap().is_empty());
    fetch("somebody", &[("wasmcloud", "ns:x")]).unwrap_err();
    fetch("somebody", &[("wasmcloud", "component:app"), ("unix", "uid:0")]).unwrap_err();
    fetch(AUDIENCE, &[("wasmcloud", "component:app")]).unwrap_err();
    // Taken back is taken back at once: nothing is kept.
    scene.remove("hosts.cedar");
    assert!(refusal("app").contains("has not allowed"));
}

/// Whoever has the node's key could have it signed, and be the component.
#[test]
fn nothing_is_signed_for_a_component_that_no_host_vouches_for() {
    let lab = Lab::start();
    let id = lab.create(v1::CreateEntryRequest {
        node: "n".to_owned(),
        spiffe_id: "spiffe://test.example/component/demo/app".to_owned(),
        selectors: vec!["wasmcloud:component:app".to_owned()],
        ..Default::default()
    });
    let node = lab.node("n");
    let entry = eventually("the node to know its entry", || node.state().borrow().entries.get(&id).cloned());
    let certificate = lab.block_on(node.identity(&entry, "")).unwrap_err().to_string();
    assert!(certificate.contains("the host has to vouch for it"), "{certificate}");
    let wanted = WantedJwt { entry: id, audience: vec!["a".parse().unwrap()], vouched_by: None };
    let token = lab.block_on(node.jwt_svids(vec![wanted])).unwrap().remove(0).unwrap_err().to_string();
    assert!(token.contains("the host has to vouch for it"), "{token}");
}
