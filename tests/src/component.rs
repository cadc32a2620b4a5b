use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use portcullis_api::v1;
use serde_json::{Value, json};

use crate::{Lab, Memory, binary, memory};

/// A wasm component on `portcullis-host`, a process of its own that makes a call for every line it reads.
#[derive(Debug)]
pub struct Component {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    log: PathBuf,
}

/// A checked-in component of `examples/guests`.
pub fn guest(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../examples/guests/{name}/{name}.wasm"))
}

impl Component {
    /// Runs `wasm` as `demo/NAME` on a node of that name.
    pub fn start(lab: &Lab, name: &str, wasm: &Path) -> Self {
        Self::start_with(lab, name, wasm, &[])
    }

    /// The same, with further arguments for the host.
    pub fn start_with(lab: &Lab, name: &str, wasm: &Path, arguments: &[&str]) -> Self {
        let request = v1::CreateEntryRequest {
            node: name.to_owned(),
            component: Some(v1::Target { lattice: "demo".to_owned(), id: name.to_owned() }),
            danger_any_digest: true,
            ..Default::default()
        };
        lab.operator(async |mut operator| operator.create_entry(request).await).unwrap();
        let log = lab.path().join(format!("{name}.log"));
        let mut child = Command::new(binary("portcullis-host"))
            .args(["run", "--lattice", "demo", "--id", name, "--stdin", "--state"])
            .arg(lab.path().join(format!("{name}-host")))
            .arg("--join-token-file")
            .arg(lab.token(name))
            .args(arguments)
            .arg(wasm)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let input = child.stdin.take();
        let output = BufReader::new(child.stdout.take().unwrap());
        Self { child, input, output, log }
    }

    /// One call; `{"ok": …}` or `{"trap": …}`.
    pub fn call(&mut self, function: &str, arguments: &Value) -> Value {
        writeln!(self.input.as_mut().unwrap(), "{}", json!({ "call": function, "args": arguments })).unwrap();
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        let log = || std::fs::read_to_string(&self.log).unwrap_or_default();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error} in `{line}`\n{}", log()))
    }

    /// What the host takes of the machine's memory.
    pub fn memory(&self) -> Memory {
        memory(&self.child.id().to_string())
    }
}

impl Drop for Component {
    fn drop(&mut self) {
        // The end of its input ends the host; one that hangs is killed, by its own process id.
        self.input = None;
        let ended = (0..400).any(|_| {
            std::thread::sleep(std::time::Duration::from_millis(5));
            self.child.try_wait().is_ok_and(|status| status.is_some())
        });
        if !ended {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}
