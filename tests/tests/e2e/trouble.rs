//! The lattice when something is not as it should be: a broker that comes late or back, servers that are gone, JetStream as a way round.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use e2e::nats::NatsServer;
use e2e::{Behaviour, Joined, Lab, Lattice, LegacyService, SidecarSetup, eventually};
use tokio_stream::StreamExt as _;

use crate::callout::{SHOP, host, host_token, shop_and_alice};

/// The one session of `identity`.
fn session(lab: &Lab, identity: &str) -> Option<serde_json::Value> {
    let status = lab.broker_command(&["nats", "status", "--json"]).ok().json();
    status["sessions"].as_array().unwrap().iter().find(|session| session["identity"] == identity).cloned()
}

/// Whether nothing has arrived for `subscription` of what was sent to its client's server before.
async fn is_empty(client: &Joined, subscription: &mut async_nats::Subscriber) -> bool {
    client.round_trip().await;
    tokio::select! {
        biased;
        _ = subscription.next() => false,
        () = std::future::ready(()) => true,
    }
}

#[test]
fn servers_that_were_there_before_the_broker_ask_it_too() {
    let mut lab = Lab::without_broker("# written later");
    let mut lattice = Lattice::init(&lab, "");
    // It writes the roots that the servers read.
    lab.start_broker();
    lab.broker().kill();
    lattice.start_servers();
    lab.start_broker();
    lab.broker().logged(&["answering who may join the lattice"]);
    lab.lattice_entry("/host/one");
    lab.block_on(host(&lab, &lattice).may_publish("wasmbus.evt.demo.x"));
}

#[test]
fn a_broker_that_comes_back_has_all_but_hosts_show_themselves_again() {
    let (mut lab, lattice) = Lattice::start("");
    lab.lattice_entry("/host/one");
    shop_and_alice(&lab);
    let host = host(&lab, &lattice);
    let shop = lab.block_on(lattice.by_certificate(lab.minted(SHOP))).unwrap();
    let before = session(&lab, SHOP).unwrap();
    assert_eq!((&before["class"], &before["proof"]), (&"member".into(), &"x509-svid".into()));
    lab.broker().kill();
    lab.start_broker();
    lab.block_on(shop.hears("lame duck"));
    eventually("the member to be back", || (shop.connects() == 2).then_some(()));
    let again = eventually("the member to be known by its proof", || {
        session(&lab, SHOP).filter(|session| session["proof"] == "x509-svid")
    });
    assert_eq!(again["course"], "stays");
    assert_eq!(host.connects(), 1, "{:?}", host.events());
    let learned = session(&lab, "spiffe://test.example/host/one").unwrap();
    assert_eq!((&learned["proof"], &learned["until"]), (&"".into(), &0.into()));
    // What it did not admit itself is held to the registry all the same.
    lab.broker_command(&["component", "remove", "demo/shop"]).ok();
    lab.block_on(shop.hears("disconnected"));
}

#[test]
fn a_broker_that_is_away_for_longer_than_a_session_keeps_hosts_out_until_it_is_back() {
    let (mut lab, lattice) = Lattice::start("session = \"10s\"");
    lab.lattice_entry("/host/one");
    let later = host_token(&lab);
    let began = Instant::now();
    let here = host(&lab, &lattice);
    lab.broker().kill();
    // The server ends it, and lets nobody in.
    lab.block_on(here.hears("disconnected"));
    assert!(began.elapsed() > Duration::from_secs(7), "{:?}", began.elapsed());
    lab.block_on(lattice.by_token(&later)).unwrap_err();
    lab.start_broker();
    let joined = eventually("the broker to answer again", || {
        let token = host_token(&lab);
        lab.block_on(lattice.by_token(&token)).ok()
    });
    lab.block_on(joined.may_publish("wasmbus.evt.demo.x"));
}

#[test]
fn a_session_by_certificate_lasts_as_long_as_that() {
    let (lab, lattice) = Lattice::start("");
    shop_and_alice(&lab);
    let (chain, key) = lab.minted(SHOP);
    let (_, leaf) = x509_parser::parse_x509_certificate(&chain[0]).unwrap();
    let not_after = leaf.validity().not_after.timestamp();
    let _shop = lab.block_on(lattice.by_certificate((chain.clone(), key))).unwrap();
    assert_eq!(session(&lab, SHOP).unwrap()["until"], not_after);
}

#[test]
fn a_token_is_good_more_than_once_where_the_operator_says_so() {
    let (lab, lattice) = Lattice::start("danger_reuse_tokens = true");
    lab.lattice_entry("/host/one");
    let token = host_token(&lab);
    for _ in 0..2 {
        lab.block_on(lattice.by_token(&token)).unwrap();
    }
}

#[test]
fn a_broker_that_lost_its_servers_says_so() {
    let (mut lab, mut lattice) = Lattice::start("");
    // Its lattice's buckets are made, over a connection of which nothing is left then.
    lab.lattice_entry("/host/one");
    lab.broker().logged(&["the lattice's buckets are there"]);
    let status = || lab.broker_command(&["nats", "status", "--json"]);
    let connections = eventually("all connections", || {
        let seen = Some(status()).filter(|ran| ran.code == 0)?.json();
        let connections = seen["connections"].as_array().unwrap().clone();
        (connections.len() >= 4).then_some(connections)
    });
    assert!(connections.iter().all(|connection| connection["connected"] == true), "{connections:?}");
    lattice.kill_hosts();
    let lost = eventually("the loss to be seen", || Some(status()).filter(|ran| ran.code == 1));
    assert!(lost.err.contains("to the lattice's servers: "), "{lost:?}");
    lattice.start_servers_again();
    eventually("all connections to be back", || (status().code == 0).then_some(()));
}

/// A server judges the subject that is published, and not the one on which JetStream answers: whoever may ask it anything has it publish
/// anywhere. So members may ask it nothing.
#[test]
fn a_member_cannot_have_jetstream_or_the_broker_publish_for_it() {
    let (mut lab, lattice) = Lattice::start("");
    lab.lattice_entry("/host/one");
    shop_and_alice(&lab);
    lab.broker().logged(&["the lattice's buckets are there"]);
    let host = host(&lab, &lattice);
    let shop = lab.block_on(lattice.by_certificate(lab.minted(SHOP))).unwrap();
    lab.block_on(async {
        let mut commands = host.subscribe("wasmbus.ctl.v1.demo.>", None).await;
        host.round_trip().await;
        for subject in [
            "$JS.API.INFO",
            "$JS.API.STREAM.INFO.KV_LATTICEDATA_demo",
            "$JS.API.STREAM.MSG.GET.KV_LATTICEDATA_demo",
            "$JS.API.DIRECT.GET.KV_LATTICEDATA_demo",
            "$JS.API.DIRECT.GET.KV_LATTICEDATA_demo.$KV.LATTICEDATA_demo.COMPONENT_x",
            "$JS.API.CONSUMER.CREATE.KV_LATTICEDATA_demo",
            "portcullis.links.demo.alice",
        ] {
            shop.may_not_publish(subject).await;
        }
        // It may ask for its links, and is answered in its own inbox alone.
        let ask = async |reply: &str| {
            shop.client.publish_with_reply("portcullis.links.demo.shop", reply.to_owned(), "".into()).await.unwrap();
        };
        let mut own = shop.subscribe("_I.demo.shop.1.>", None).await;
        ask("wasmbus.ctl.v1.demo.config.del.prices").await;
        ask("_I.demo.shop.1.2").await;
        // The second question was answered after the first.
        let answer: serde_json::Value = serde_json::from_slice(&own.next().await.unwrap().payload).unwrap();
        assert_eq!(answer, serde_json::json!({"links": [], "complete": true}));
        assert!(is_empty(&host, &mut commands).await);
    });
    lab.broker().logged(&["who asks for links has no inbox for them"]);
}

/// ARCHITECTURE §7: hosts need JetStream, so a host is as mighty as its account.
#[test]
fn a_host_can_have_jetstream_command_other_hosts() {
    let (mut lab, lattice) = Lattice::start("");
    lab.lattice_entry("/host/one");
    lab.lattice_entry("/host/two");
    lab.broker().logged(&["the lattice's buckets are there"]);
    let one = host(&lab, &lattice);
    let token = lab.login_token("spiffe://test.example/host/two", "spiffe://test.example/nats", "5m");
    let two = lab.block_on(lattice.by_token(&token)).unwrap();
    lab.block_on(async {
        let mut commands = one.subscribe("wasmbus.ctl.v1.demo.>", None).await;
        one.round_trip().await;
        two.may_not_publish("wasmbus.ctl.v1.demo.config.del.prices").await;
        let ask = "$JS.API.STREAM.INFO.KV_LATTICEDATA_demo";
        two.client.publish_with_reply(ask, "wasmbus.ctl.v1.demo.config.del.prices", "".into()).await.unwrap();
        let command = commands.next().await.unwrap();
        assert_eq!(command.subject.as_str(), "wasmbus.ctl.v1.demo.config.del.prices");
    });
}

/// The SVID of a server without auth callout, which asks its clients for theirs.
struct ServerCertificate(tempfile::TempDir);

impl ServerCertificate {
    fn mint(lab: &Lab) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let id = ["--spiffe-id", "spiffe://test.example/nats", "--dns", "localhost"];
        lab.broker_command(&[&["x509", "mint"][..], &id, &["--out", folder.path().to_str().unwrap()]].concat()).ok();
        Self(folder)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// What a server's configuration says of it, with further keys.
    fn tls(&self, more: &str) -> String {
        let [chain, key, bundle] = ["svid.pem", "svid_key.pem", "bundle.pem"].map(|name| self.file(name));
        format!("tls {{ cert_file: {chain:?}, key_file: {key:?}, ca_file: {bundle:?}, verify: true {more} }}\n")
    }
}

/// Without auth callout the name of a caller in a subject is whatever the caller writes.
#[test]
fn a_sidecar_takes_no_calls_from_servers_that_let_anybody_call_as_a_host() {
    let lab = Lab::start();
    let certificate = ServerCertificate::mint(&lab);
    let server = NatsServer::with(&certificate.tls(""));
    let nats = |more: &str| {
        let port = server.port();
        format!("[nats]\nservers = [\"tls://127.0.0.1:{port}\"]\nserver_id = \"spiffe://test.example/nats\"\n{more}")
    };
    let service = LegacyService::start(Behaviour::Answer(200, "3".to_owned()));
    let sidecar = lab.sidecar(&SidecarSetup::http("shop", service.address).with(&nats("")));
    sidecar.logged(&["cannot join the lattice", "do not hold clients to their names"]);
    let status = lab.status("shop");
    assert_eq!(status["nats"]["connected"], false, "{status}");
    let error = eventually("the reason", || lab.status("shop")["nats"]["error"].as_str().map(str::to_owned));
    assert!(error.contains("could call as a host"), "{error}");
    // Whoever says that he believes nobody gets calls of nobody in particular.
    let _open =
        lab.sidecar(&SidecarSetup::http("open", service.address).with(&nats("danger_plain_addresses = true\n")));
    eventually("the other to join", || (lab.status("open")["nats"]["connected"] == true).then_some(()));
}

/// async-nats connects again by itself, and may find another server then, or the same with another configuration.
#[test]
fn a_sidecar_takes_no_calls_from_a_connection_made_anew_that_holds_nobody_to_a_name() {
    let lab = Lab::start();
    let certificate = ServerCertificate::mint(&lab);
    let open = certificate.tls("");
    let deny = "publish = { deny = [\"demo.vc.*.host.>\"] }";
    let users = format!("{{ user = \"{SHOP}\", permissions = {{ {deny} }} }}");
    let held = certificate.tls(", verify_and_map: true") + &format!("authorization {{ users = [{users}] }}\n");
    let mut server = NatsServer::with(&held);
    let service = LegacyService::start(Behaviour::Answer(200, "3".to_owned()));
    let nats = format!(
        "[nats]\nservers = [\"tls://127.0.0.1:{}\"]\nserver_id = \"spiffe://test.example/nats\"\n",
        server.port()
    );
    let sidecar = lab.sidecar(&SidecarSetup::http("shop", service.address).with(&nats));
    let connected = || lab.status("shop")["nats"]["connected"] == true;
    eventually("the sidecar to join", || connected().then_some(()));

    server.begin_anew(&open);
    sidecar.logged(&["cannot connect anew", "could call as a host"]);
    assert!(!connected());
    let error = eventually("the reason", || lab.status("shop")["nats"]["error"].as_str().map(str::to_owned));
    assert!(error.contains("could call as a host"), "{error}");
    // Whoever calls as a host now is told that nobody is there.
    let nobody = lab.block_on(async {
        let options = async_nats::ConnectOptions::new()
            .require_tls(true)
            .add_root_certificates(certificate.file("bundle.pem"))
            .add_client_certificate(certificate.file("svid.pem"), certificate.file("svid_key.pem"));
        let host = options.connect(format!("tls://localhost:{}", server.port())).await.unwrap();
        host.request("demo.vc.shop.host.wrpc.0.0.1.test:shop/items.list", "".into()).await.unwrap_err()
    });
    assert_eq!(nobody.kind(), async_nats::RequestErrorKind::NoResponders, "{nobody}");
    assert!(service.seen().is_empty());

    server.begin_anew(&held);
    eventually("the sidecar to be back", || connected().then_some(()));
    assert_eq!(lab.status("shop")["nats"]["error"], serde_json::Value::Null);
}

#[test]
fn a_set_up_that_no_server_could_use_is_not_written() {
    let lab = Lab::start();
    let folder = tempfile::tempdir().unwrap();
    let id = ["--spiffe-id", "spiffe://test.example/nats", "--dns", "nats.test.example"];
    lab.broker_command(&[&["x509", "mint"][..], &id, &["--out", folder.path().to_str().unwrap()]].concat()).ok();
    let place = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (svid, key, bundle, out) = (place("svid.pem"), place("svid_key.pem"), place("bundle.pem"), place("out"));
    let init = |certificate: &str, more: &[&str]| {
        let arguments = [
            &["nats", "init", "--trust-domain", "test.example", "--out", &out, "--json"][..],
            &["--tls-cert", certificate, "--tls-key", &key, "--tls-ca", &bundle, "--nodes-ca", &bundle],
            more,
        ];
        e2e::run("portcullis-broker", &arguments.concat())
    };
    for (certificate, more, reason) in [
        (place("nope.pem"), &[][..], "nope.pem"),
        (key.clone(), &[], "svid_key.pem"),
        (svid.clone(), &["--hosts-listen", "127.0.0.1:4222", "--nodes-listen", "127.0.0.1:4222"], "cannot both listen"),
    ] {
        let ran = init(&certificate, more);
        assert!(ran.code == 2 && ran.err.contains(reason), "{ran:?}");
        assert!(!std::path::Path::new(&out).exists());
    }
    let told = init(&svid, &["--hosts-listen", "0.0.0.0:4222", "--nodes-name", "nats.test.example"]).ok().json();
    let (broker, sidecar) = (&told["broker_settings"], &told["sidecar_settings"]);
    assert_eq!(broker["servers"][0], "tls://localhost:4222", "{told}");
    assert_eq!(sidecar["servers"][0], "tls://nats.test.example:4223", "{told}");
    assert_eq!((&sidecar["server_id"], &sidecar["tls_first"]), (&"spiffe://test.example/nats".into(), &true.into()));
    let broker_folder = told["broker_folder"].as_str().unwrap();
    let named = ["nats", "credentials", "--folder", broker_folder, "--name", "my wash", "--out", &place("w.creds")];
    assert_eq!(e2e::run("portcullis-broker", &named).code, 2);
}
