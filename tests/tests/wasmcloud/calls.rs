//! Calls of components on a host, and by them.

use std::path::{Path, PathBuf};
use std::time::Instant;

use e2e::nats::NatsServer;
use e2e::{Lab, Operator, WasmcloudHost, eventually, guest};

use crate::scene::{AT_ONCE, OWED, Scene, billing, cancel, total};

#[test]
#[ignore = "needs a wasmCloud host: tests/wasmcloud/run.sh"]
fn a_component_on_a_host_is_answered_by_the_legacy_service() {
    let mut scene = Scene::open("");
    let mut host = scene.host_with_checkout(&[]);
    for identity in ["spiffe://test.example/host/one", "spiffe://test.example/wash"] {
        scene.lab.broker().logged(&["joined the lattice", identity]);
    }
    // A denied call fails at once, and both logs say why.
    let began = Instant::now();
    scene.cancel("checkout").unwrap_err();
    let took = began.elapsed();
    println!("a denied call failed after {took:?}");
    assert!(took < AT_ONCE, "{took:?}");
    host.daemon.logged(&["failed to handle invocation"]);
    let why = host.daemon.logged(&["received a response with code `403`"]);
    assert!(why.contains("id=checkout") && why.contains("denied by policy `nobody-cancels`"), "{why}");
    scene.sidecar.logged(&["refused", "host:checkout", "denied"]);
    // The component goes on, also for a caller with an SVID, and for the shell under the sidecar's own identity.
    assert_eq!(scene.total("checkout").unwrap(), OWED);
    let alice = scene.alice();
    assert_eq!(scene.lab.block_on(crate::scene::total(&alice, "checkout")).unwrap(), OWED);
    // More than fits into one message: the rest goes to the host's own inbox. The component gets it all, and is denied at once.
    let refusals = |scene: &Scene| scene.sidecar.log().matches("nobody-cancels").count();
    let (before, began) = (refusals(&scene), Instant::now());
    scene.cancel_by(&alice, "checkout", &"x".repeat(3 << 20)).unwrap_err();
    assert!(began.elapsed() < AT_ONCE, "{:?}", began.elapsed());
    eventually("the refusal of a large call", || (refusals(&scene) > before).then_some(()));
    let config = scene.lab.path().join("billing.toml");
    let wit = wit_of_checkout(&scene);
    let invoke = ["invoke", "--config", config.to_str().unwrap(), "--over", "nats", "--wit", wit.to_str().unwrap()];
    let answer = e2e::run("portcullis-sidecar", &[&invoke[..], &["demo/checkout", "total", "[\"acme\"]"]].concat());
    assert_eq!(answer.ok().out, format!("{{\"ok\":{OWED}}}\n"));
    // It leaves as it should.
    host.daemon.terminate();
    assert!(host.daemon.wait().success(), "{}", host.daemon.log());
    let began = Instant::now();
    scene.total("checkout").unwrap_err();
    assert!(began.elapsed() < AT_ONCE);
}

/// What the component offers and needs, in one folder.
fn wit_of_checkout(scene: &Scene) -> PathBuf {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    let folder = scene.lab.path().join("checkout-wit");
    std::fs::create_dir_all(folder.join("deps")).unwrap();
    for (from, to) in
        [("guests/checkout/wit/checkout.wit", "checkout.wit"), ("invoices/wit/invoices.wit", "deps/invoices.wit")]
    {
        std::fs::copy(examples.join(from), folder.join(to)).unwrap();
    }
    folder
}

#[test]
#[ignore = "needs a wasmCloud host: tests/wasmcloud/run.sh"]
fn a_component_that_no_policy_names_is_denied_whatever_it_is_called() {
    let scene = Scene::open("");
    let host = scene.host_with_checkout(&[]);
    scene.operator.link(&scene.lab, "other", "vc.billing.host");
    scene.operator.start(&scene.lab, &host, "other", &guest("checkout"));
    eventually("the call to be denied", || {
        let began = Instant::now();
        scene.total("other").unwrap_err();
        assert!(began.elapsed() < AT_ONCE);
        let denied = |line: &str| line.contains("host:other") && line.contains("no policy permits it");
        scene.sidecar.log().lines().any(denied).then_some(())
    });
    host.daemon.logged(&["id=other", "received a response with code `403`", "no policy permits it"]);
    assert_eq!(scene.total("checkout").unwrap(), OWED);
}

#[test]
#[ignore = "needs a wasmCloud host: tests/wasmcloud/run.sh"]
fn a_stock_provider_with_a_key_calls_components_and_is_called_by_them() {
    let mut scene = Scene::open("");
    let host = scene.host_with_checkout(&[]);
    let provider = e2e::provider(&scene.lab, &scene.lattice, "ledger", "checkout");
    scene.lab.broker().logged(&["joined the lattice", "spiffe://test.example/ledger", "provider"]);
    provider.logged(&[&format!("checkout says that acme owes Ok(Ok({OWED}))")]);
    // The same component, linked to the provider.
    scene.operator.link(&scene.lab, "quill", "ledger");
    scene.operator.start(&scene.lab, &host, "quill", &guest("checkout"));
    eventually("the provider's answer", || (scene.total("quill") == Ok(42)).then_some(()));
}

#[test]
#[ignore = "needs a wasmCloud host: tests/wasmcloud/run.sh"]
fn on_a_lattice_without_logins_a_host_calls_a_plain_address_and_its_component_is_anonymous() {
    let server = NatsServer::with_streams();
    let lab = Lab::start();
    let nats =
        format!("[nats]\nservers = [\"{}\"]\ndanger_plain = true\ndanger_plain_addresses = true\n", server.url());
    let (_invoices, sidecar) = billing(&lab, &nats);
    lab.policy(
        "billing.cedar",
        "@id(\"anyone-searches\") permit(principal == HostedComponent::\"anonymous\", action == \
         Action::\"acme:billing/invoices@1.0.0#search\", resource);\n\
         @id(\"checkout\") permit(principal == HostedComponent::\"checkout\", action, resource);\n",
    );
    let on_it = || (lab.status("billing")["nats"]["connected"] == true).then_some(());
    eventually("the sidecar to join the lattice", on_it);
    let host = WasmcloudHost::start_unknown(&lab, &server, "host");
    let operator = Operator::unknown(&lab, &server);
    // A target without dots: `wash link put` takes it.
    operator.link(&lab, "checkout", "billing");
    operator.start(&lab, &host, "checkout", &guest("checkout"));
    eventually("an answer", || lab.block_on(total(&operator.joined, "checkout")).ok().filter(|total| *total == OWED));
    let began = Instant::now();
    lab.block_on(cancel(&operator.joined, "checkout", "INV-1001")).unwrap_err();
    assert!(began.elapsed() < AT_ONCE, "{:?}", began.elapsed());
    sidecar.logged(&["refused", "peer=\"anonymous\"", "denied"]);
    let links = lab.status("billing")["nats"]["links"].clone();
    assert_eq!((&links[0]["source"], &links[0]["target"]), (&"checkout".into(), &"billing".into()));
}
