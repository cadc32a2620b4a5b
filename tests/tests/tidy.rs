//! What no compiler holds: the layers, the size of files, words that say nothing, commands that the README promises.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Members, lowest first; each may depend on those before it alone.
const LAYERS: [&str; 14] = [
    "portcullis-pidfd",
    "portcullis-admin",
    "portcullis-identity",
    "portcullis-value",
    "portcullis-policy",
    "portcullis-transport",
    "portcullis-api",
    "portcullis-broker",
    "portcullis-client",
    "portcullis-sidecar",
    "portcullis-host",
    "invoices",
    "quickstart",
    "e2e",
];
/// Crates that must reach no runtime, network or file system.
const PURE: [&str; 3] = ["portcullis-identity", "portcullis-value", "portcullis-policy"];
const IMPURE: [&str; 8] = ["tokio", "quinn", "async-nats", "hyper", "tonic", "redb", "wasmtime", "mio"];
/// Lines of a source file before its tests.
const MAX_LINES: usize = 400;
const BANNED: [&str; 8] = ["util", "utils", "common", "helper", "helpers", "manager", "handler", "misc"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn tracked(suffix: &str) -> Vec<String> {
    let output = Command::new("git").args(["ls-files"]).current_dir(root()).output().unwrap();
    let files = String::from_utf8(output.stdout).unwrap();
    let files: Vec<_> = files.lines().filter(|file| file.ends_with(suffix)).map(str::to_owned).collect();
    assert!(!files.is_empty(), "git names no file that ends in {suffix}");
    files
}

/// For each package of the resolved graph, its normal dependencies by name; and the workspace's members.
fn graph() -> (BTreeMap<String, BTreeSet<String>>, BTreeSet<String>) {
    // Packages for other platforms were never fetched where only this one was built for.
    let platform = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--offline", "--filter-platform", &platform])
        .current_dir(root())
        .output()
        .unwrap();
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    let names: BTreeMap<_, _> = metadata["packages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|package| (text(&package["id"]), text(&package["name"])))
        .collect();
    let members = metadata["workspace_members"].as_array().unwrap().iter().map(|id| names[&text(id)].clone()).collect();
    let mut graph: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for node in metadata["resolve"]["nodes"].as_array().unwrap() {
        let normal = node["deps"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|dep| dep["dep_kinds"].as_array().unwrap().iter().any(|kind| kind["kind"].is_null()));
        let deps = normal.map(|dep| names[&text(&dep["pkg"])].clone());
        graph.entry(names[&text(&node["id"])].clone()).or_default().extend(deps);
    }
    (graph, members)
}

#[test]
fn crates_depend_downwards_alone() {
    let (graph, members) = graph();
    assert_eq!(members, LAYERS.iter().map(|name| (*name).to_owned()).collect(), "a member has no layer");
    for (floor, name) in LAYERS.iter().enumerate() {
        for dependency in &graph[*name] {
            if let Some(other) = LAYERS.iter().position(|layer| layer == dependency) {
                assert!(other < floor, "{name} depends upwards on {dependency}");
            }
        }
    }
    for plane in ["portcullis-client", "portcullis-sidecar", "portcullis-host"] {
        assert!(!graph[plane].contains("portcullis-broker"), "{plane} depends on the broker");
    }
}

/// What a package reaches when it is built by itself: another member's features of a dependency they share are not its own.
fn reached(package: &str) -> BTreeSet<String> {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--offline", "--edges", "normal", "--prefix", "none", "--format", "{p}", "--package", package])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let tree = String::from_utf8(output.stdout).unwrap();
    tree.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect()
}

#[test]
fn pure_crates_reach_no_runtime() {
    for name in PURE {
        let reached = reached(name);
        assert!(reached.len() > 1, "{name} reaches nothing");
        for impure in IMPURE {
            assert!(!reached.contains(impure), "{name} reaches {impure}");
        }
    }
}

/// Somebody else's TLS is there to be tested against.
#[test]
fn no_program_links_another_s_tls() {
    for program in ["portcullis-broker", "portcullis-sidecar", "portcullis-host"] {
        assert!(!reached(program).contains("spiffe-rustls"), "{program} links spiffe-rustls");
    }
}

#[test]
fn one_tls_provider_is_linked() {
    let (graph, _) = graph();
    for provider in ["aws-lc-rs", "aws-lc-sys", "openssl-sys", "native-tls", "rustls-openssl"] {
        assert!(!graph.contains_key(provider), "{provider} is in the graph");
    }
}

#[test]
fn no_source_file_is_long() {
    for file in tracked(".rs") {
        if file.contains("tests/") || file.contains("/tests") || file.contains("benches/") {
            continue;
        }
        let text = std::fs::read_to_string(root().join(&file)).unwrap();
        let lines = text.lines().take_while(|line| !line.starts_with("#[cfg(test)]")).count();
        assert!(lines <= MAX_LINES, "{file} has {lines} lines; {MAX_LINES} are enough");
    }
}

#[test]
fn unsafe_code_is_in_one_file() {
    for file in tracked(".rs") {
        let text = std::fs::read_to_string(root().join(&file)).unwrap();
        let found = text.lines().any(|line| line.contains("unsafe {") || line.contains("unsafe fn"));
        assert!(!found || file == "crates/pidfd/src/lib.rs" || file.starts_with("tests/"), "{file} has unsafe code");
    }
    for manifest in tracked("Cargo.toml") {
        let text = std::fs::read_to_string(root().join(&manifest)).unwrap();
        let other = ["tests/", "crates/pidfd/", "examples/guests", "crates/identity/fuzz", "crates/value/fuzz"];
        if text.contains("[package]") && !other.iter().any(|prefix| manifest.starts_with(prefix)) {
            assert!(text.contains("[lints]\nworkspace = true"), "{manifest} does not take the workspace's lints");
        }
    }
}

#[test]
fn no_module_is_named_after_nothing() {
    for file in tracked(".rs") {
        assert!(!file.ends_with("/mod.rs"), "{file}: use foo.rs and foo/");
        for part in file.trim_end_matches(".rs").split('/') {
            assert!(!BANNED.contains(&part), "{file}: `{part}` says nothing");
        }
    }
}

#[test]
fn the_readme_s_commands_run_in_ci() {
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    let ci = std::fs::read_to_string(root().join(".ci/run")).unwrap();
    for (promised, run) in [
        ("cargo run --release -p quickstart", "cargo run --release --locked --quiet -p quickstart"),
        ("tests/run.sh", "tests/run.sh"),
    ] {
        assert!(readme.contains(promised), "the README lacks `{promised}`");
        assert!(ci.contains(run), ".ci/run lacks `{run}`");
    }
}
