//! The binary: what survives SIGKILL, how it ends, what its exit codes say.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::lab::WIT;

const BINARY: &str = env!("CARGO_BIN_EXE_portcullis-broker");

struct Process {
    child: Child,
    folder: PathBuf,
}

impl Process {
    fn start(folder: &Path) -> Self {
        Self::start_with(folder, &[])
    }

    fn start_with(folder: &Path, arguments: &[&str]) -> Self {
        let ready = folder.join("ready.json");
        let _ = std::fs::remove_file(&ready);
        let log = std::fs::OpenOptions::new().create(true).append(true).open(folder.join("log")).unwrap();
        let mut child = Command::new(BINARY)
            .args(["run", "--trust-domain", "acme.test", "--listen", "127.0.0.1:0", "--log-format", "json", "--data"])
            .arg(folder.join("data"))
            .arg("--ready-file")
            .arg(&ready)
            .args(arguments)
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let deadline = Instant::now() + Duration::from_secs(20);
        while !ready.exists() {
            assert!(child.try_wait().unwrap().is_none(), "{}", std::fs::read_to_string(folder.join("log")).unwrap());
            assert!(Instant::now() < deadline, "the broker does not get ready");
            std::thread::sleep(Duration::from_millis(5));
        }
        Self { child, folder: folder.to_owned() }
    }

    fn ready(&self) -> serde_json::Value {
        serde_json::from_slice(&std::fs::read(self.folder.join("ready.json")).unwrap()).unwrap()
    }

    fn operate(&self, arguments: &[&str]) -> Output {
        let socket = self.ready()["operator_socket"].as_str().unwrap().to_owned();
        Command::new(BINARY).args(arguments).args(["--socket", &socket]).output().unwrap()
    }

    fn json(&self, arguments: &[&str]) -> serde_json::Value {
        let output = self.operate(&[arguments, &["--json"]].concat());
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    fn signal(&mut self, signal: Signal) -> std::process::ExitStatus {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
        self.child.wait().unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn wit(folder: &Path) -> String {
    let wit = folder.join("wit");
    std::fs::create_dir_all(&wit).unwrap();
    std::fs::write(wit.join("billing.wit"), WIT).unwrap();
    wit.to_str().unwrap().to_owned()
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn no_acknowledged_write_is_lost_to_sigkill() {
    let folder = tempfile::tempdir().unwrap();
    let wit = wit(folder.path());
    let mut acknowledged = 0;
    let mut token = String::new();
    for round in 0..5 {
        let mut process = Process::start(folder.path());
        let listed = process.json(&["component", "list"]);
        assert_eq!(listed.as_array().unwrap().len(), acknowledged, "round {round}");
        for number in 0..3 {
            let name = format!("prod/c{round}-{number}");
            process.json(&["component", "register", &name, "--wit", &wit, "--node", "sidecar"]);
            acknowledged += 1;
        }
        if token.is_empty() {
            process.json(&["token", "create", "--node", "n1"]);
            token = "made".to_owned();
        }
        // At once after the last acknowledgement: nothing was closed or flushed in order.
        process.signal(Signal::KILL);
    }
    let mut process = Process::start(folder.path());
    assert_eq!(process.json(&["component", "list"]).as_array().unwrap().len(), acknowledged);
    assert_eq!(process.json(&["entry", "list"]).as_array().unwrap().len(), acknowledged);
    assert_eq!(process.json(&["status"])["version"], format!("1.{}", acknowledged + 3));
    assert_eq!(process.signal(Signal::TERM).code(), Some(0));
}

#[test]
fn a_seal_key_made_by_command_seals_the_ca_keys() {
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("seal.key");
    let key = key.to_str().unwrap();
    let make = || Command::new(BINARY).args(["seal-key", "new", "--out", key]).output().unwrap();
    let made = make();
    assert!(made.status.success(), "{}", text(&made.stderr));
    assert!(!text(&made.stdout).contains(std::fs::read_to_string(key).unwrap().trim()), "the key is printed");
    assert_eq!(code(&make()), 1, "a key was replaced");

    // Plain at first, then sealed.
    let mut plain = Process::start(folder.path());
    assert_eq!(plain.json(&["status"])["unsealed"], true);
    plain.signal(Signal::TERM);
    let mut sealed = Process::start_with(folder.path(), &["--seal-key-file", key]);
    assert_eq!(sealed.json(&["status"])["unsealed"], false);
    sealed.signal(Signal::TERM);
    let refused = Command::new(BINARY)
        .args(["run", "--trust-domain", "acme.test", "--listen", "127.0.0.1:0", "--data"])
        .arg(folder.path().join("data"))
        .output()
        .unwrap();
    assert_eq!(code(&refused), 1);
    assert!(text(&refused.stderr).contains("is sealed"), "{}", text(&refused.stderr));
}

/// Killed at random moments while writes are under way: what was acknowledged is there, and the store opens.
#[test]
fn a_kill_in_the_middle_of_writes_leaves_a_whole_store() {
    let folder = tempfile::tempdir().unwrap();
    let mut acknowledged = std::collections::BTreeSet::new();
    for round in 0..6_u64 {
        let mut process = Process::start(folder.path());
        let socket = process.ready()["operator_socket"].as_str().unwrap().to_owned();
        let writer = std::thread::spawn(move || {
            let mut done = Vec::new();
            for number in 0..1000 {
                let id = format!("spiffe://acme.test/w/{round}-{number}");
                let arguments = ["entry", "create", "--node", "n", "--spiffe-id", &id, "--socket", &socket];
                if !Command::new(BINARY).args(arguments).output().unwrap().status.success() {
                    return done;
                }
                done.push(id);
            }
            done
        });
        std::thread::sleep(Duration::from_millis(150 + 37 * round));
        process.signal(Signal::KILL);
        acknowledged.extend(writer.join().unwrap());
    }
    let process = Process::start(folder.path());
    let entries = process.json(&["entry", "list"]);
    let stored: std::collections::BTreeSet<_> =
        entries.as_array().unwrap().iter().map(|entry| entry["spiffe_id"].as_str().unwrap().to_owned()).collect();
    assert!(!acknowledged.is_empty(), "nothing was written between the kills");
    let lost: Vec<_> = acknowledged.difference(&stored).collect();
    assert!(lost.is_empty(), "lost: {lost:?}");
}

#[test]
fn sigterm_ends_it_in_order_within_five_seconds() {
    let folder = tempfile::tempdir().unwrap();
    for signal in [Signal::TERM, Signal::INT] {
        let mut process = Process::start(folder.path());
        let socket = PathBuf::from(process.ready()["operator_socket"].as_str().unwrap());
        assert_eq!(process.ready()["pid"], process.child.id());
        assert!(socket.is_absolute() && socket.exists());
        let began = Instant::now();
        assert_eq!(process.signal(signal).code(), Some(0));
        assert!(began.elapsed() < Duration::from_secs(5));
        assert!(!socket.exists());
    }
    let log = std::fs::read_to_string(folder.path().join("log")).unwrap();
    assert!(log.lines().any(|line| line.contains("\"message\":\"ready\"")), "{log}");
}

#[test]
fn exit_codes_tell_a_refusal_from_a_failure_and_a_misuse() {
    let folder = tempfile::tempdir().unwrap();
    let wit = wit(folder.path());
    let process = Process::start(folder.path());
    let caller = "spiffe://acme.test/component/prod/checkout";
    let function = "acme:billing/invoices@1.0.0#get";
    assert_eq!(code(&process.operate(&["component", "register", "prod/billing", "--wit", &wit])), 0);
    assert_eq!(code(&process.operate(&["explain", caller, "prod/billing", function])), 3);
    let policy = folder.path().join("a.cedar");
    std::fs::write(&policy, "permit (principal, action, resource);").unwrap();
    assert_eq!(code(&process.operate(&["policy", "put", policy.to_str().unwrap()])), 0);
    assert_eq!(code(&process.operate(&["explain", caller, "prod/billing", function])), 0);

    std::fs::write(&policy, "permit (principal, action, resource) when { context.nothing };\npermit (").unwrap();
    let output = process.operate(&["policy", "put", policy.to_str().unwrap()]);
    assert_eq!(code(&output), 3);
    assert!(text(&output.stdout).contains("a.cedar:"), "{}", text(&output.stdout));
    assert!(text(&output.stderr).contains("nothing was changed"), "{}", text(&output.stderr));

    let output = process.operate(&["component", "register", "prod/billing", "--wit", &wit, "--upstream", "splice"]);
    assert_eq!(code(&output), 3);
    assert!(text(&output.stderr).contains("--replace"), "{}", text(&output.stderr));
    assert_eq!(code(&process.operate(&["entry", "create", "--node", "n", "--component", "prod/x"])), 2);
    assert_eq!(code(&process.operate(&["explain", caller, "prod/billing", "get"])), 2);
    assert_eq!(code(&process.operate(&["component", "register", "prod", "--wit", &wit])), 2);
    assert_eq!(code(&process.operate(&["component", "register", "prod/y", "--wit", "/does/not/exist"])), 1);
    drop(process);
    let nobody = folder.path().join("nobody.sock");
    let output = Command::new(BINARY).args(["status", "--socket"]).arg(nobody).output().unwrap();
    assert_eq!(code(&output), 1);
    assert!(text(&output.stderr).contains("nobody.sock"), "{}", text(&output.stderr));
}

#[test]
fn a_token_goes_to_a_private_file_or_a_pipe() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let process = Process::start(folder.path());
    let file = folder.path().join("n1.token");
    let output = process.operate(&["token", "create", "--node", "n1", "--out", file.to_str().unwrap()]);
    assert!(!text(&output.stdout).contains("portcullis-join"), "{}", text(&output.stdout));
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let token: portcullis_identity::JoinToken = std::fs::read_to_string(&file).unwrap().parse().unwrap();
    assert_eq!(token.node.as_str(), "n1");
    assert_eq!(token.broker, process.ready()["control"].as_str().unwrap());
    let output = process.operate(&["token", "create", "--node", "n2", "--ttl", "1h"]);
    assert!(text(&output.stdout).trim_end().parse::<portcullis_identity::JoinToken>().is_ok());
    assert!(!std::fs::read_to_string(folder.path().join("log")).unwrap().contains("portcullis-join"));
}

#[test]
fn a_broken_setup_starts_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("broker.toml");
    std::fs::write(&config, "trust_domain = 'Acme'\nlisten = 'here'\nnode_ttl = '1s'").unwrap();
    let output =
        Command::new(BINARY).args(["run", "--config"]).arg(&config).current_dir(folder.path()).output().unwrap();
    assert_eq!(code(&output), 2);
    for setting in ["trust_domain", "listen", "node_ttl"] {
        assert!(text(&output.stderr).contains(setting), "{setting}: {}", text(&output.stderr));
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "something was made");
}

#[test]
fn every_command_has_help_and_completions_exist() {
    for command in ["run", "component", "entry", "token", "policy", "grant", "explain", "nodes", "status"] {
        let output = Command::new(BINARY).args([command, "--help"]).output().unwrap();
        assert!(output.status.success() && output.stdout.len() > 200, "{command}");
    }
    for shell in ["bash", "zsh", "fish"] {
        let output = Command::new(BINARY).args(["completion", shell]).output().unwrap();
        assert!(text(&output.stdout).contains("portcullis-broker"), "{shell}");
    }
}
