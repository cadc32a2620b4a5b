//! Join tokens: one node gets in with one, once; everybody else gets a clear error and nothing.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use e2e::{Behaviour, Daemon, Lab, LegacyService, SidecarSetup, eventually};
use portcullis_identity::{JoinSecret, JoinToken};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

/// A component that is registered, and a configuration for its sidecar whose token file the test writes.
fn registered(lab: &Lab) -> (LegacyService, PathBuf, PathBuf) {
    lab.allow_all();
    let service = LegacyService::start(Behaviour::Answer(200, "3".to_owned()));
    let config = lab.register(&SidecarSetup::http("shop", service.address));
    let token = lab.path().join("shop.token");
    (service, config, token)
}

/// The same node in another folder.
fn second_folder(lab: &Lab, config: &Path) -> PathBuf {
    let text = std::fs::read_to_string(config).unwrap();
    let path = lab.path().join("second.toml");
    std::fs::write(&path, text.replace("shop-state", "second-state")).unwrap();
    path
}

/// What a sidecar that does not get in says, after it has ended with exit code 1.
fn turned_away(lab: &Lab, name: &str, config: &Path) -> String {
    let arguments = ["run".as_ref(), "--config".as_ref(), config.as_os_str()];
    let mut sidecar = Daemon::launch(lab.path(), name, "portcullis-sidecar", &arguments);
    let code = sidecar.wait().code();
    let log = sidecar.log();
    assert_eq!(code, Some(1), "{log}");
    let mut errors = log.lines().filter(|line| line.starts_with("error: "));
    let error = errors.next().unwrap_or_else(|| panic!("no error in {log}")).to_owned();
    assert_eq!(errors.next(), None, "{log}");
    error
}

fn nodes(lab: &Lab) -> Vec<String> {
    let nodes = lab.broker_command(&["nodes", "--json"]).ok().json();
    let mut names: Vec<_> =
        nodes.as_array().unwrap().iter().map(|node| node["node"].as_str().unwrap().to_owned()).collect();
    names.sort();
    names
}

/// How often the broker signed something, by its audit log.
fn issued(lab: &mut Lab) -> usize {
    let log = std::fs::read_to_string(lab.broker_data().join("audit/00000000000000000001.jsonl")).unwrap();
    log.lines().filter(|line| line.contains("\"what\":\"x509-issued\"")).count()
}

#[test]
fn a_token_lets_its_node_in_once_and_a_second_folder_not_at_all() {
    let mut lab = Lab::start();
    let (_service, config, token) = registered(&lab);
    std::fs::remove_file(&token).unwrap();
    let made = lab
        .broker_command(&["token", "create", "--node", "shop", "--out", token.to_str().unwrap(), "--json"])
        .ok()
        .json();
    assert_eq!((&made["node"], made.get("token")), (&"shop".into(), None), "{made}");
    let sidecar = lab.start_sidecar("shop", &config);
    eventually("the sidecar to be ready", || (lab.status("shop")["ready"] == true).then_some(()));
    assert_eq!(nodes(&lab), ["shop"]);

    let before = issued(&mut lab);
    let error = turned_away(&lab, "second", &second_folder(&lab, &config));
    assert!(error.contains("the broker refuses the join token") && error.contains("spent"), "{error}");
    lab.broker().logged(&["ALARM", "spent", "shop"]);
    assert_eq!(issued(&mut lab), before);
    assert!(!lab.path().join("second-state/identity").exists());
    // Who joined first goes on, and starts again without any token.
    assert_eq!(lab.status("shop")["ready"], true);
    drop(sidecar);
    std::fs::remove_file(&token).unwrap();
    let sidecar = lab.start_sidecar("shop", &config);
    assert!(!sidecar.log().contains("error:"));
}

#[test]
fn an_expired_token_lets_nobody_in() {
    let mut lab = Lab::start();
    let (_service, config, token) = registered(&lab);
    let out = token.to_str().unwrap();
    let refused = lab.broker_command(&["token", "create", "--node", "shop", "--ttl", "1s", "--out", out]);
    assert_eq!(refused.code, 3, "{refused:?}");
    assert!(refused.err.contains("10 seconds to 7 days"), "{refused:?}");
    let made =
        lab.broker_command(&["token", "create", "--node", "shop", "--ttl", "10s", "--out", out, "--json"]).ok().json();
    let expires_at = UNIX_EPOCH + Duration::from_secs(made["expires_at"].as_u64().unwrap());
    eventually("the token to expire", || (SystemTime::now() > expires_at + Duration::from_secs(1)).then_some(()));
    let before = issued(&mut lab);
    let error = turned_away(&lab, "shop", &config);
    assert!(error.contains("expired"), "{error}");
    assert_eq!(issued(&mut lab), before);
    assert_eq!(nodes(&lab), Vec::<String>::new());
    assert!(!lab.path().join("shop-state/identity").exists());
}

#[test]
fn a_token_that_this_broker_did_not_make_lets_nobody_in() {
    let mut lab = Lab::start();
    let other = Lab::start();
    let (_service, config, token) = registered(&lab);
    let good: JoinToken = std::fs::read_to_string(&token).unwrap().parse().unwrap();

    // Another broker's, at this broker's address: the key it pins is not this broker's.
    let text = std::fs::read_to_string(other.token("shop")).unwrap();
    let mut foreign: JoinToken = text.parse().unwrap();
    foreign.broker.clone_from(&good.broker);
    std::fs::write(&token, foreign.reveal()).unwrap();
    let before = issued(&mut lab);
    let error = turned_away(&lab, "foreign", &config);
    assert!(error.contains("is not accepted as the broker") && error.contains("another broker's"), "{error}");

    // With this broker's key, and a secret that it never drew.
    foreign.root_spki_sha256 = good.root_spki_sha256;
    std::fs::write(&token, foreign.reveal()).unwrap();
    let error = turned_away(&lab, "unknown", &config);
    assert!(error.contains("unknown join token"), "{error}");
    let mut made_up = good.clone();
    made_up.secret = JoinSecret::from([7; 16]);
    std::fs::write(&token, made_up.reveal()).unwrap();
    let error = turned_away(&lab, "made-up", &config);
    assert!(error.contains("unknown join token"), "{error}");

    // Another node's.
    let mut others = good.clone();
    others.node = "shop2".parse().unwrap();
    std::fs::write(&token, others.reveal()).unwrap();
    let error = turned_away(&lab, "others", &config);
    assert!(error.contains("made for another node"), "{error}");

    // Not a token at all.
    std::fs::write(&token, "hunter2").unwrap();
    let error = turned_away(&lab, "nonsense", &config);
    assert!(error.contains("not a join token") && error.contains("shop.token"), "{error}");
    assert!(!error.contains("hunter2"), "a secret is repeated: {error}");

    assert_eq!(issued(&mut lab), before);
    assert_eq!(nodes(&lab), Vec::<String>::new());
    assert!(!lab.path().join("shop-state/identity").exists());
    // None of this has spent the good one.
    std::fs::write(&token, good.reveal()).unwrap();
    lab.start_sidecar("shop", &config);
    assert_eq!(nodes(&lab), ["shop"]);
}

#[test]
fn without_token_and_state_a_sidecar_says_what_it_needs() {
    let lab = Lab::start();
    let (_service, config, token) = registered(&lab);
    std::fs::remove_file(&token).unwrap();
    let error = turned_away(&lab, "shop", &config);
    assert!(error.contains("a join token is needed") && error.contains("portcullis-broker token create"), "{error}");
}

#[test]
fn a_node_whose_certificate_ran_out_while_it_was_away_comes_back_by_itself_unless_it_was_removed() {
    let lab = Lab::start_with("node-ttl = \"5s\"\n");
    let (_service, config, token) = registered(&lab);
    let away = |sidecar: &mut Daemon| {
        sidecar.kill();
        let until = SystemTime::now() + Duration::from_secs(5);
        eventually("the certificate to expire", || (SystemTime::now() > until).then_some(()));
    };
    let ready = || eventually("the sidecar to be ready", || (lab.status("shop")["ready"] == true).then_some(()));
    let mut sidecar = lab.start_sidecar("shop", &config);
    std::fs::remove_file(&token).unwrap();
    away(&mut sidecar);
    let mut sidecar = lab.start_sidecar("shop", &config);
    ready();
    away(&mut sidecar);
    lab.broker_command(&["nodes", "remove", "shop"]).ok();
    let arguments = ["run".as_ref(), "--config".as_ref(), config.as_os_str()];
    let mut sidecar = Daemon::launch(lab.path(), "removed", "portcullis-sidecar", &arguments);
    sidecar.logged(&["does not let this node back in", "not registered"]);
    sidecar.kill();
    lab.token("shop");
    let _sidecar = lab.start_sidecar("shop", &config);
    ready();
}

#[test]
fn a_removed_node_is_out_at_once_and_comes_back_with_a_new_token() {
    let mut lab = Lab::start();
    let (_service, config, token) = registered(&lab);
    let mut sidecar = lab.start_sidecar("shop", &config);
    eventually("the sidecar to be connected", || (lab.status("shop")["broker_connected"] == true).then_some(()));
    let unknown = lab.broker_command(&["nodes", "remove", "shop2"]);
    assert_eq!(unknown.code, 3, "{unknown:?}");
    assert_eq!(nodes(&lab), ["shop"]);

    lab.broker_command(&["nodes", "remove", "shop"]).ok();
    assert_eq!(nodes(&lab), Vec::<String>::new());
    eventually("the sidecar to be cut off", || (lab.status("shop")["broker_connected"] == false).then_some(()));
    // Its certificate is still good, and it is refused all the same, each time it tries.
    lab.broker().logged(&["refused", "portcullis/node/shop", "not registered"]);
    let before = issued(&mut lab);
    eventually("the sidecar to say why", || {
        let status = lab.status("shop");
        status["broker_error"].as_str().unwrap_or_default().contains("needs a new join token").then_some(())
    });
    assert_eq!(lab.status("shop")["broker_connected"], false);
    assert_eq!(issued(&mut lab), before);

    lab.token("shop");
    assert!(token.exists());
    sidecar.terminate();
    assert_eq!(sidecar.wait().code(), Some(0));
    let _sidecar = lab.start_sidecar("shop", &config);
    eventually("the sidecar to be back", || (lab.status("shop")["broker_connected"] == true).then_some(()));
    assert_eq!(nodes(&lab), ["shop"]);
}

/// An authority of machines, as an operator may have one already, and a folder for what it signs.
struct Machines {
    issuer: Issuer<'static, KeyPair>,
    folder: tempfile::TempDir,
}

impl Machines {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "machines");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate().unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
        Self { issuer: Issuer::new(params, key), folder }
    }

    /// A broker that accepts the machines under the names in their certificates.
    fn lab(&self, settings: &str) -> Lab {
        let ca = self.folder.path().join("ca.pem");
        Lab::start_with(&format!("x509pop_ca = \"{}\"\nx509pop_name = \"{{cn}}\"\n{settings}", ca.display()))
    }

    /// Writes `NAME.pem` and `NAME.key` beside the lab's configurations.
    fn machine(&self, lab: &Lab, name: &str) {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        std::fs::write(lab.path().join(format!("{name}.pem")), certificate.pem()).unwrap();
        private(&lab.path().join(format!("{name}.key")), &key.serialize_pem());
    }
}

fn private(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

/// A registered component whose sidecar joins by `shop.pem`.
fn registered_by_certificate(lab: &Lab) -> (LegacyService, PathBuf) {
    let (service, config, token) = registered(lab);
    std::fs::remove_file(token).unwrap();
    let text = std::fs::read_to_string(&config).unwrap();
    let by_certificate = format!(
        "certificate = \"shop.pem\"\nkey = \"shop.key\"\nbundle = \"{}\"\ntrust_domain = \"test.example\"\nbroker = \"{}\"",
        lab.broker_data().join("bundle.pem").display(),
        lab.control()
    );
    let lines =
        text.lines().map(|line| if line.starts_with("join_token_file") { by_certificate.as_str() } else { line });
    std::fs::write(&config, lines.collect::<Vec<_>>().join("\n")).unwrap();
    (service, config)
}

fn check(config: &Path) -> e2e::Ran {
    e2e::run("portcullis-sidecar", &["check".as_ref(), "--config".as_ref(), config.as_os_str()])
}

#[test]
fn a_machine_s_certificate_lets_its_node_in_and_back_in() {
    let machines = Machines::new();
    let lab = machines.lab("node-ttl = \"5s\"\n");
    let (_service, config) = registered_by_certificate(&lab);
    machines.machine(&lab, "shop");
    check(&config).ok();
    let ready = || eventually("the sidecar to be ready", || (lab.status("shop")["ready"] == true).then_some(()));
    let mut sidecar = lab.start_sidecar("shop", &config);
    ready();
    sidecar.logged(&["joined by certificate"]);
    assert_eq!(nodes(&lab), ["shop"]);
    sidecar.kill();
    let until = SystemTime::now() + Duration::from_secs(6);
    eventually("the node's certificate to expire", || (SystemTime::now() > until).then_some(()));
    let sidecar = lab.start_sidecar("shop", &config);
    ready();
    assert_eq!(sidecar.log().matches("joined by certificate").count(), 2);
}

#[test]
fn a_certificate_that_proves_nothing_lets_nobody_in() {
    let machines = Machines::new();
    let mut lab = machines.lab("");
    let (_service, config) = registered_by_certificate(&lab);
    let before = issued(&mut lab);

    // Of another authority of the same name.
    Machines::new().machine(&lab, "shop");
    let error = turned_away(&lab, "other-ca", &config);
    assert!(error.contains("refuses the join certificate") && error.contains("no accepted authority"), "{error}");
    lab.broker().logged(&["joining by certificate refused"]);

    // Somebody else's certificate, with the own key.
    machines.machine(&lab, "shop");
    machines.machine(&lab, "bar");
    std::fs::copy(lab.path().join("bar.pem"), lab.path().join("shop.pem")).unwrap();
    let error = turned_away(&lab, "other-key", &config);
    assert!(error.contains("shop.key") && error.contains("does not belong to the certificate"), "{error}");
    let checked = check(&config);
    assert_eq!(checked.code, 3, "{checked:?}");
    assert!(checked.err.contains("does not belong to the certificate"), "{checked:?}");

    // A key that others can read.
    machines.machine(&lab, "shop");
    std::fs::set_permissions(lab.path().join("shop.key"), std::fs::Permissions::from_mode(0o644)).unwrap();
    let error = turned_away(&lab, "exposed", &config);
    assert!(error.contains("mode 644") && error.contains("chmod 600"), "{error}");

    // A broker that is not the one whose root is configured.
    machines.machine(&lab, "shop");
    let (text, other) = (std::fs::read_to_string(&config).unwrap(), Lab::start());
    let foreign = text.replace(lab.broker_data().to_str().unwrap(), other.broker_data().to_str().unwrap());
    std::fs::write(&config, &foreign).unwrap();
    let error = turned_away(&lab, "other-broker", &config);
    assert!(error.contains("is not accepted as the broker") && error.contains("`node.bundle`"), "{error}");

    assert_eq!(issued(&mut lab), before);
    assert_eq!(nodes(&lab), Vec::<String>::new());
    assert!(!lab.path().join("shop-state/identity").exists());
    // None of it has spoilt the good one; and a node that was removed does not come back by it.
    std::fs::write(&config, text).unwrap();
    let mut sidecar = lab.start_sidecar("shop", &config);
    sidecar.kill();
    lab.broker_command(&["nodes", "remove", "shop"]).ok();
    std::fs::remove_dir_all(lab.path().join("shop-state")).unwrap();
    let error = turned_away(&lab, "removed", &config);
    assert!(error.contains("removed"), "{error}");
}
