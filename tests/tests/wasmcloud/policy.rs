//! What a host may start and serve, as the broker's policy service decides.

use std::time::Instant;

use e2e::{eventually, guest};
use portcullis_api::v1;
use spiffe::WorkloadApiClient;

use crate::scene::{AT_ONCE, OWED, Scene, token};

const HOST: &str = "spiffe://test.example/host/one";
/// This host may start and serve the component, and nobody anything else.
const CHECKOUT: &str = "@id(\"checkout-here\") permit(principal in Workload::\"spiffe://test.example/host/one\", action, \
                        resource == Component::\"demo/checkout\");\n";
const NO_CALLS: &str = "@id(\"closed\") @advice(\"the shop is closed\") forbid(principal, action == Action::\"performInvocation\", resource);\n";

/// This host may start two components, and serve them.
const BADGES: &str = "@id(\"badge\") permit(principal in Workload::\"spiffe://test.example/host/one\", action, \
                      resource == Component::\"demo/badge\");\n\
                      @id(\"stranger\") permit(principal in Workload::\"spiffe://test.example/host/one\", action, \
                      resource == Component::\"demo/stranger\");\n";
/// What is part of the host may start there, under one name.
const CLIENT: &str = "@id(\"client\") permit(principal, action == Action::\"startProvider\", resource == Provider::\"demo/client\") \
                      when { resource.image.kind == \"builtin\" };\n";
const NO_STARTS: &str = "@id(\"full\") forbid(principal, action == Action::\"startComponent\", resource);\n";

impl Scene {
    fn admission(&self, name: &str, text: &str) {
        let path = self.lab.path().join(name);
        std::fs::write(&path, text).unwrap();
        self.lab.broker_command(&["policy", "put", "--admission", path.to_str().unwrap()]).ok();
    }

    /// What a host's environment holds for the policy service: the topic of its own, and that of changes.
    fn topics(&self) -> [String; 2] {
        let told = e2e::run("portcullis-broker", &["nats", "topics", "demo", HOST]).ok().out;
        let topics: Vec<_> =
            told.lines().filter_map(|line| line.split_once('=')).map(|(_, topic)| topic.to_owned()).collect();
        topics.try_into().unwrap()
    }
}

#[test]
#[ignore = "needs a wasmCloud host: tests/wasmcloud/run.sh"]
fn a_host_starts_and_serves_what_it_may_and_no_longer_than_it_may() {
    let mut scene = Scene::open("");
    scene.lab.broker().logged(&["answering what hosts may start"]);
    scene.admission("checkout.cedar", CHECKOUT);
    let [ask, changes] = scene.topics();
    let topics = ["--policy-topic", &ask, "--policy-changes-topic", &changes, "--policy-timeout-ms", "1000"];
    let host = scene.host_with_checkout(&topics);
    // What no policy names does not start, and the host says why.
    scene.operator.link(&scene.lab, "quill", "vc.billing.host");
    scene.operator.scale(&scene.lab, &host, "quill", (&guest("checkout"), 1));
    host.daemon.logged(&["Policy denied request to scale component `quill`", "no policy permits"]);
    let began = Instant::now();
    scene.total("quill").unwrap_err();
    assert!(began.elapsed() < AT_ONCE);
    // So do providers. What is allowed goes on, to where the host itself does not.
    scene.admission("client.cedar", CLIENT);
    scene.operator.provide(&scene.lab, &host, "server", "wasmcloud+builtin://http-client");
    host.daemon.logged(&["failed to start provider", "policy denied request to start provider", "no policy permits"]);
    scene.operator.provide(&scene.lab, &host, "client", "wasmcloud+builtin://http-client");
    host.daemon.logged(&["failed to start provider", "feature `builtin-http-client` is not enabled"]);
    // What was allowed is taken back while the host runs, which keeps every answer until it is told otherwise.
    assert_eq!(scene.total("checkout").unwrap(), OWED);
    scene.admission("closed.cedar", NO_CALLS);
    let began = Instant::now();
    eventually("the calls to be denied", || scene.total("checkout").err());
    println!("a call was denied {:?} after the policy", began.elapsed());
    scene.lab.broker_command(&["policy", "remove", "closed.cedar"]).ok();
    eventually("an answer", || (scene.total("checkout") == Ok(OWED)).then_some(()));
}

#[test]
#[ignore = "needs a wasmCloud host: tests/wasmcloud/run.sh"]
fn a_component_gets_a_token_of_its_own_while_its_host_may_start_it() {
    const AUDIENCE: &str = "ledger";
    let mut scene = Scene::open("");
    scene.lab.broker().logged(&["answering what hosts may start"]);
    scene.admission("badges.cedar", BADGES);
    let [ask, changes] = scene.topics();
    let topics = ["--policy-topic", &ask, "--policy-changes-topic", &changes, "--policy-timeout-ms", "1000"];
    let features = ["--feature", "workload-identity-auth,workload-identity-interface"];
    let host = scene.host("host", &[&topics[..], &features].concat());
    scene.lab.create(v1::CreateEntryRequest {
        selectors: vec!["wasmcloud:component:badge".to_owned()],
        lattice: "demo".to_owned(),
        ..scene.agent.entry("component/demo/badge")
    });
    for component in ["badge", "stranger"] {
        scene.operator.start(&scene.lab, &host, component, &guest("badge"));
    }
    let asked = |component: &str| scene.lab.block_on(token(&scene.operator.joined, component, AUDIENCE));
    let given = eventually("a token", || asked("badge").ok());
    // Whoever it is shown to can check it.
    let valid = scene.lab.block_on(async {
        let client = WorkloadApiClient::connect_to(scene.agent.endpoint()).await.unwrap();
        client.validate_jwt_token("somebody", &given).await.unwrap_err();
        client.validate_jwt_token(AUDIENCE, &given).await.unwrap()
    });
    assert_eq!(valid.spiffe_id().to_string(), "spiffe://test.example/component/demo/badge");
    // What runs beside it under another name has no identity.
    assert_eq!(asked("stranger"), Err("no identity".to_owned()));
    // The host may not start it any more: it runs on, and gets no other token.
    scene.admission("full.cedar", NO_STARTS);
    let refused = eventually("the token to be refused", || asked("badge").err());
    assert!(
        refused.contains("has not allowed `spiffe://test.example/host/one` to start component `badge`"),
        "{refused}"
    );
}
