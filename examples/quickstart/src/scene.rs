//! The play: who is started, what is called, what is shown.

use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use serde_json::{Value, json};

use crate::daemon::Daemon;
use crate::say;

const TRUST_DOMAIN: &str = "demo.example";
/// Short, so that a renewal can be seen: it comes after half of it.
const SVID_LIFETIME: &str = "8s";
/// Between two calls while a renewal is waited for.
const PAUSE: Duration = Duration::from_millis(5);
/// Calls until we give up waiting for a renewal.
const PATIENCE: u32 = 4000;

/// Everything that runs.
#[derive(Debug)]
pub(crate) struct Scene {
    binaries: PathBuf,
    folder: PathBuf,
    // Ended in this order: callers before those they call.
    host: std::cell::RefCell<Host>,
    sidecar: Daemon,
    invoices: Daemon,
    broker: Daemon,
}

/// The running component: a line in is a call, a line out its outcome.
#[derive(Debug)]
struct Host {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Scene {
    /// Starts broker, legacy service, sidecar and component, and registers what has to be.
    pub(crate) fn open(binaries: &Path, folder: &Path) -> anyhow::Result<Self> {
        let assets = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets");
        let wasm = Path::new(env!("CARGO_MANIFEST_DIR")).join("../guests/checkout/checkout.wasm");
        let wit = Path::new(env!("CARGO_MANIFEST_DIR")).join("../invoices/wit");
        say(
            "\n1. a broker, a ten-year-old invoice service, a sidecar beside it, and a wasm component, each a process of its own",
        )?;
        let data = folder.join("broker");
        let arguments: [&OsStr; 7] = [
            "run".as_ref(),
            "--trust-domain".as_ref(),
            TRUST_DOMAIN.as_ref(),
            "--data".as_ref(),
            data.as_ref(),
            "--listen".as_ref(),
            "127.0.0.1:0".as_ref(),
        ];
        let broker = Daemon::start(&binaries.join("portcullis-broker"), folder, "broker", &arguments)?;
        say(&format!("   broker     {} issues identities for spiffe://{TRUST_DOMAIN}", broker.told("control")?))?;
        let listen: [&OsStr; 2] = ["--listen".as_ref(), "127.0.0.1:0".as_ref()];
        let invoices = Daemon::start(&binaries.join("invoices"), folder, "invoices", &listen)?;
        say(&format!("   invoices   http://{} knows nothing of wasm", invoices.told("address")?))?;
        let operator = Operator { program: binaries.join("portcullis-broker"), socket: data.join("operator.sock") };
        std::fs::copy(assets.join("policy.cedar"), folder.join("policy.cedar"))?;
        std::fs::copy(assets.join("mapping.toml"), folder.join("mapping.toml"))?;
        operator.register(folder, &wit, &wasm)?;
        let config = sidecar_config(folder, invoices.told("address")?)?;
        let run: [&OsStr; 3] = ["run".as_ref(), "--config".as_ref(), config.as_ref()];
        let sidecar = Daemon::start(&binaries.join("portcullis-sidecar"), folder, "sidecar", &run)?;
        say(&format!("   sidecar    {} (quic) is virtual component demo/billing", sidecar.told("quic")?))?;
        let host = Host::start(&binaries.join("portcullis-host"), folder, &wasm)?;
        say("   component  demo/checkout imports acme:billing/invoices and has no network of its own")?;
        let (binaries, folder) = (binaries.to_owned(), folder.to_owned());
        Ok(Self { binaries, folder, host: host.into(), sidecar, invoices, broker })
    }

    /// Calls, is refused, changes a policy, waits for a renewal.
    pub(crate) fn play(&self) -> anyhow::Result<()> {
        say("\n2. the component calls the service through its WIT interface")?;
        let owed = self.call("total", &json!(["acme"]))?;
        let cents = owed.pointer("/ok/ok").and_then(Value::as_u64).with_context(|| format!("no total in {owed}"))?;
        say(&format!("   total(\"acme\") = {}.{:02}", cents / 100, cents % 100))?;

        say("\n3. a call that policy forbids")?;
        let refused = self.call("cancel", &json!(["INV-1002"]))?;
        let text = |value: &Value, pointer: &str| value.pointer(pointer).map(plain).unwrap_or_default();
        ensure!(text(&refused, "/refusal/code") == "denied", "this call was to be denied: {refused}");
        say("   cancel(\"INV-1002\") is refused")?;
        say(&format!("   reason: {}", text(&refused, "/refusal/reason")))?;
        say(&format!("   policy: {}", text(&refused, "/refusal/policies/0/id")))?;

        say("\n4. the operator changes the policy; the connection stays as it is")?;
        let relaxed = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/policy-relaxed.cedar");
        std::fs::copy(relaxed, self.folder.join("policy.cedar"))?;
        self.operator().run(&["policy".as_ref(), "put".as_ref(), self.folder.join("policy.cedar").as_ref()])?;
        let cancelled = self.until_allowed()?;
        say(&format!("   cancel(\"INV-1002\") = {}", text(&cancelled, "/ok/ok")))?;
        let other = self.call("cancel", &json!(["INV-1001"]))?;
        ensure!(text(&other, "/refusal/code") == "denied", "this call was to be denied: {other}");
        say(&format!("   cancel(\"INV-1001\") is still refused: {}", text(&other, "/refusal/reason")))?;

        say(&format!("\n5. SVIDs live {SVID_LIFETIME} here and are renewed at half of it, under load"))?;
        let (calls, renewed) = self.until_renewed()?;
        say(&format!("   {calls} calls while the sidecar's certificate was renewed ({renewed}): none failed"))
    }

    /// Prints what to try and waits for Ctrl-C.
    pub(crate) fn stay(&self) -> anyhow::Result<()> {
        let (binaries, folder) = (self.binaries.display(), self.folder.display());
        let socket = self.folder.join("broker/operator.sock");
        say(&format!(
            "\neverything stays up until Ctrl-C; try:\n  {binaries}/portcullis-sidecar status --config {folder}/sidecar.toml\n  \
             {binaries}/portcullis-broker nodes --socket {socket}\n  {binaries}/portcullis-broker policy list --socket {socket}\n  \
             curl http://{invoices}/api/v1/invoices/INV-1001\n  tail -f {folder}/sidecar.log\n(broker: {control})",
            socket = socket.display(),
            invoices = self.invoices.told("address")?,
            control = self.broker.told("control")?,
        ))?;
        // Ctrl-C reaches every process of the group; a closed standard input ends the wait as well.
        std::io::stdin().lock().read_line(&mut String::new())?;
        Ok(())
    }

    fn operator(&self) -> Operator {
        Operator { program: self.binaries.join("portcullis-broker"), socket: self.folder.join("broker/operator.sock") }
    }

    fn call(&self, function: &str, arguments: &Value) -> anyhow::Result<Value> {
        self.host.borrow_mut().call(function, arguments)
    }

    /// A policy takes some milliseconds from the operator to every sidecar.
    fn until_allowed(&self) -> anyhow::Result<Value> {
        for _ in 0..PATIENCE {
            let outcome = self.call("cancel", &json!(["INV-1002"]))?;
            if outcome.pointer("/ok/ok").is_some() {
                return Ok(outcome);
            }
            std::thread::sleep(PAUSE);
        }
        bail!("the new policy is not in force")
    }

    fn until_renewed(&self) -> anyhow::Result<(u32, String)> {
        let before = self.svid_not_after()?;
        for calls in 1..PATIENCE {
            let outcome = self.call("total", &json!(["acme"]))?;
            ensure!(outcome.pointer("/ok/ok").is_some(), "a call failed: {outcome}");
            // Every status is a process; one for each hundred calls is enough.
            if calls % 100 == 0 {
                let now = self.svid_not_after()?;
                if now > before {
                    return Ok((calls, format!("it now ends {} s later", now - before)));
                }
            }
            std::thread::sleep(PAUSE);
        }
        bail!("no certificate was renewed")
    }

    fn svid_not_after(&self) -> anyhow::Result<u64> {
        let output = Command::new(self.binaries.join("portcullis-sidecar"))
            .args(["status", "--json", "--admin", self.sidecar.told("admin")?])
            .output()?;
        ensure!(output.status.success(), "status: {}", String::from_utf8_lossy(&output.stderr));
        let status: Value = serde_json::from_slice(&output.stdout)?;
        status.get("svid_not_after").and_then(Value::as_u64).context("the status lacks the certificate's end")
    }
}

/// The operator's command line.
#[derive(Debug)]
struct Operator {
    program: PathBuf,
    socket: PathBuf,
}

impl Operator {
    fn run(&self, arguments: &[&OsStr]) -> anyhow::Result<String> {
        let output = Command::new(&self.program).args(arguments).arg("--socket").arg(&self.socket).output()?;
        let told = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "portcullis-broker {arguments:?}: {told}");
        Ok(String::from_utf8(output.stdout)?)
    }

    /// The virtual component, the wasm component, the policy, and a join token for each node.
    fn register(&self, folder: &Path, wit: &Path, wasm: &Path) -> anyhow::Result<()> {
        let words = |line: &'static str| line.split(' ').map(OsStr::new).collect::<Vec<_>>();
        let mut component = words("component register demo/billing --node billing-sidecar");
        component.extend::<[&OsStr; 4]>(["--ttl".as_ref(), SVID_LIFETIME.as_ref(), "--wit".as_ref(), wit.as_ref()]);
        self.run(&component)?;
        let mut entry = words("entry create --node runner --component demo/checkout");
        entry.extend::<[&OsStr; 4]>(["--ttl".as_ref(), SVID_LIFETIME.as_ref(), "--digest-of".as_ref(), wasm.as_ref()]);
        self.run(&entry)?;
        self.run(&["policy".as_ref(), "put".as_ref(), folder.join("policy.cedar").as_ref()])?;
        for (node, file) in [("billing-sidecar", "sidecar.token"), ("runner", "runner.token")] {
            let path = folder.join(file);
            self.run(&[
                "token".as_ref(),
                "create".as_ref(),
                "--node".as_ref(),
                node.as_ref(),
                "--out".as_ref(),
                path.as_ref(),
            ])?;
        }
        Ok(())
    }
}

impl Host {
    fn start(program: &Path, folder: &Path, wasm: &Path) -> anyhow::Result<Self> {
        let log = std::fs::File::create(folder.join("host.log"))?;
        let mut child = Command::new(program)
            .args(["run", "--lattice", "demo", "--id", "checkout", "--stdin", "--state"])
            .arg(folder.join("runner-state"))
            .arg("--join-token-file")
            .arg(folder.join("runner.token"))
            .arg(wasm)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .context("cannot start portcullis-host")?;
        let input = child.stdin.take();
        let output = BufReader::new(child.stdout.take().context("the host has no standard output")?);
        Ok(Self { child, input, output })
    }

    fn call(&mut self, function: &str, arguments: &Value) -> anyhow::Result<Value> {
        let input = self.input.as_mut().context("the host is stopped")?;
        let call = json!({ "call": format!("acme:checkout/orders@1.0.0#{function}"), "args": arguments });
        writeln!(input, "{call}").context("the host has ended; host.log says why")?;
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        serde_json::from_str(&line).with_context(|| format!("the host answered `{}`", line.trim()))
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // The end of its input ends the host.
        self.input = None;
        let _ = self.child.wait();
    }
}

fn sidecar_config(folder: &Path, invoices: &str) -> anyhow::Result<PathBuf> {
    let path = folder.join("sidecar.toml");
    let text = format!(
        r#"[node]
state = "sidecar-state"
join_token_file = "sidecar.token"

[component]
lattice = "demo"
id = "billing"

[listen]
quic = "127.0.0.1:0"

[upstream.http]
url = "http://{invoices}"
mapping = "mapping.toml"
caller_header = "x-caller"
"#
    );
    std::fs::write(&path, text)?;
    Ok(path)
}

/// JSON as a person reads it.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => value.to_string(),
    }
}
