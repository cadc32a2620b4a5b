//! The program from outside: what it prints and how it ends, as far as that needs no broker.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    path::Path,
    process::{Command, Output},
};

use serde_json::Value as Json;

fn host(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_portcullis-host"));
    command.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/guests"));
    command.args(arguments).output().unwrap()
}

fn stdout(output: &Output) -> &str {
    str::from_utf8(&output.stdout).unwrap()
}

fn stderr(output: &Output) -> &str {
    str::from_utf8(&output.stderr).unwrap()
}

#[test]
fn inspect_says_what_an_operator_needs_to_know() {
    let output = host(&["inspect", "checkout/checkout.wasm"]);
    assert!(output.status.success());
    let mut lines = stdout(&output).lines();
    assert!(lines.next().unwrap().starts_with("digest sha256:"));
    assert!(
        lines
            .next()
            .unwrap()
            .starts_with("import acme:billing/invoices@1.0.0#get: func(id: string) -> result<record {")
    );
    assert!(
        stdout(&output)
            .contains("\nexport acme:checkout/orders@1.0.0#total: func(customer: string) -> result<u64, string>\n")
    );
}

#[test]
fn inspect_says_the_same_as_json() {
    let output = host(&["--json", "inspect", "checkout/checkout.wasm"]);
    let told: Json = serde_json::from_str(stdout(&output)).unwrap();
    assert!(told["digest"].as_str().unwrap().starts_with("sha256:"));
    assert_eq!(told["imports"][0]["interface"], "acme:billing/invoices@1.0.0");
    assert_eq!(told["exports"][0]["name"], "acme:checkout/orders@1.0.0#total");
}

#[test]
fn wrong_usage_ends_with_2_and_says_what_is_missing() {
    let state = tempfile::tempdir().unwrap();
    let state = state.path().to_str().unwrap();
    for (arguments, said) in [
        (&["run"][..], "which component? name its file"),
        (&["run", "checkout/checkout.wasm"], "name its folder with --state"),
        (&["run", "--state", state, "--args", "[", "checkout/checkout.wasm"], "--args: not JSON"),
        (&["run", "--state", state, "--lattice", "demo", "checkout/checkout.wasm"], "with --lattice goes --id"),
        (&["run", "--state", state, "--import", "x=demo/y", "checkout/checkout.wasm"], "`x` is not an interface name"),
        (&["run", "--state", state, "--config", "lost.toml", "checkout/checkout.wasm"], "lost.toml: cannot be read"),
        (&["run", "--stdin", "--args", "[]", "checkout/checkout.wasm"], "cannot be used with"),
        (&["dance"], "unrecognized subcommand"),
    ] {
        let output = host(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(said), "{arguments:?}: {}", stderr(&output));
    }
}

#[test]
fn what_cannot_be_run_ends_with_1_and_says_why() {
    let state = tempfile::tempdir().unwrap();
    let state = state.path().join("state");
    let state = state.to_str().unwrap();
    for (arguments, said) in [
        (&["run", "--state", state, "lost.wasm"][..], "cannot read `lost.wasm`"),
        (&["run", "--state", state, "build.sh"], "not a component"),
        (&["run", "--state", state, "--import", "a:b/c=demo/y", "checkout/checkout.wasm"], "does not import `a:b/c`"),
        (&["run", "--state", state, "checkout/checkout.wasm"], "a join token is needed"),
        (&["inspect", "build.sh"], "`build.sh`: not a component"),
    ] {
        let output = host(arguments);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(said), "{arguments:?}: {}", stderr(&output));
        assert_eq!(stdout(&output), "");
    }
}

#[test]
fn a_join_token_that_is_none_is_wrong_usage() {
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    std::fs::write(&token, "hunter2\n").unwrap();
    let (state, token) = (folder.path().join("state"), token.to_str().unwrap());
    let arguments = ["run", "--state", state.to_str().unwrap(), "--join-token-file", token, "checkout/checkout.wasm"];
    let output = host(&arguments);
    assert_eq!(output.status.code(), Some(2));
    assert!(!stderr(&output).contains("hunter2"), "{}", stderr(&output));
}

#[test]
fn help_has_examples_and_a_completion_script_can_be_had() {
    assert!(stdout(&host(&["run", "--help"])).contains("Examples:\n  portcullis-host run --state"));
    assert!(stdout(&host(&["completion", "bash"])).contains("portcullis-host"));
}
