use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use nkeys::KeyPair;
use serde_json::{Value, json};

use crate::nats::NatsServer;
use crate::{Agent, Daemon, Joined, Lab, Lattice, eventually};

/// Names the program that `tests/wasmcloud/run.sh` builds.
const PROGRAM: &str = "PORTCULLIS_WASMCLOUD_HOST";

/// An unmodified wasmCloud host beside an agent, as a process of its own. Killed on drop.
#[derive(Debug)]
pub struct WasmcloudHost {
    pub daemon: Daemon,
    /// What the control interface calls it.
    pub id: String,
}

fn program() -> PathBuf {
    let path = std::env::var_os(PROGRAM).unwrap_or_else(|| panic!("{PROGRAM} is not set: run tests/wasmcloud/run.sh"));
    let path = PathBuf::from(path);
    assert!(path.exists(), "{} is not there: run tests/wasmcloud/run.sh", path.display());
    path
}

/// A host of the lattice `demo` at a port of this machine.
fn host(port: u16) -> (KeyPair, Command) {
    let key = KeyPair::new_server();
    let mut command = Command::new(program());
    command.args(["--lattice", "demo", "--allow-file-load", "--host-seed", &key.seed().unwrap()]);
    command.args(["--nats-port", &port.to_string()]).stdin(Stdio::null());
    (key, command)
}

/// Has a host log what became of each of its calls: why one was refused is nowhere else in its log.
const REASONS: &str = "wrpc_transport_nats[poll_active]=trace";

impl WasmcloudHost {
    /// A host of the lattice `demo` with what `nats init` says of its environment, and further arguments.
    pub fn launch(lab: &Lab, lattice: &Lattice, agent: &Agent, name: &str, arguments: &[&str]) -> Self {
        let told = lattice.told["host_environment"].as_object().unwrap().iter();
        let told = told.map(|(name, value)| (name.as_str(), value.as_str().unwrap()));
        let (key, mut command) = host(lattice.hosts_address.port());
        command.args(["--ctl-tls", "--rpc-tls", "--nats-host", "localhost"]).args(arguments);
        command
            .envs(told)
            .env("RUST_LOG", REASONS)
            .env("SPIFFE_ENDPOINT_SOCKET", format!("unix:{}", agent.socket.display()));
        if let Some(socket) = &agent.delegated {
            command.env("SPIRE_ADMIN_ENDPOINT_SOCKET", format!("unix:{}", socket.display()));
        }
        Self { daemon: Daemon::foreign(lab.path(), name, &mut command), id: key.public_key() }
    }

    /// The same, and it has joined.
    pub fn start(lab: &Lab, lattice: &Lattice, agent: &Agent, name: &str, arguments: &[&str]) -> Self {
        Self::launch(lab, lattice, agent, name, arguments).started()
    }

    /// A host that has joined a lattice whose server lets everybody do everything.
    pub fn start_unknown(lab: &Lab, server: &NatsServer, name: &str) -> Self {
        let (key, mut command) = host(server.port());
        Self { daemon: Daemon::foreign(lab.path(), name, &mut command), id: key.public_key() }.started()
    }

    fn started(mut self) -> Self {
        eventually("the host to start", || {
            assert!(self.daemon.is_running(), "the host ended:\n{}", self.daemon.log());
            self.daemon.log().contains("wasmCloud host started").then_some(())
        });
        self
    }
}

/// A stock provider `demo/ID` that nobody's host started: with its own credentials, and a link to the component `target`.
pub fn provider(lab: &Lab, lattice: &Lattice, id: &str, target: &str) -> Daemon {
    let credentials = std::fs::read_to_string(lattice.credentials(id)).unwrap();
    let lines: Vec<_> = credentials.lines().filter(|line| !line.starts_with('-') && !line.is_empty()).collect();
    let [jwt, seed] = lines[..] else { panic!("the credentials have {} lines", lines.len()) };
    let link = json!({
        "source_id": id, "target": target, "name": "default", "source_config": {}, "target_config": {},
        "wit_namespace": "acme", "wit_package": "checkout", "interfaces": ["orders"],
    });
    let told = json!({
        "lattice_rpc_prefix": "demo", "lattice_rpc_user_jwt": jwt, "lattice_rpc_user_seed": seed, "provider_key": id,
        "lattice_rpc_url": format!("nats://localhost:{}", lattice.hosts_address.port()), "env_values": {},
        "link_definitions": [link],
    });
    let input = lab.path().join(format!("{id}.input"));
    std::fs::write(&input, format!("{}\n", STANDARD.encode(told.to_string()))).unwrap();
    let mut command = Command::new(program().with_file_name("provider"));
    command.stdin(File::open(input).unwrap()).env("SSL_CERT_FILE", lattice.authority());
    Daemon::foreign(lab.path(), id, &mut command)
}

/// What an operator does with `wash`: a connection that may use the control interface of `demo`.
#[derive(Debug)]
pub struct Operator {
    pub joined: Joined,
}

impl Operator {
    /// Joins by the credentials of `name`, as `wash` does.
    pub fn join(lab: &Lab, lattice: &Lattice, name: &str) -> Self {
        Self { joined: lab.block_on(lattice.by_credentials(name)).unwrap() }
    }

    /// The same on a lattice whose server lets everybody in.
    pub fn unknown(lab: &Lab, server: &NatsServer) -> Self {
        Self { joined: lab.block_on(Joined::unknown(server)) }
    }

    /// A command of the control interface, which must succeed.
    pub fn command(&self, lab: &Lab, what: &str, request: &Value) -> Value {
        let answer =
            lab.block_on(self.joined.client.request(format!("wasmbus.ctl.v1.demo.{what}"), request.to_string().into()));
        let answer: Value = serde_json::from_slice(&answer.unwrap().payload).unwrap();
        assert_eq!(answer["success"], true, "{what}: {answer}");
        answer
    }

    /// Asks a host to start `wasm` as the component `id`, with as many instances as there may be.
    pub fn scale(&self, lab: &Lab, host: &WasmcloudHost, id: &str, (wasm, count): (&Path, u32)) {
        let wasm = format!("file://{}", std::fs::canonicalize(wasm).unwrap().display());
        let request = json!({"component_ref": wasm, "component_id": id, "count": count, "host_id": host.id});
        self.command(lab, &format!("component.scale.{}", host.id), &request);
    }

    /// Starts it, and it runs.
    pub fn start(&self, lab: &Lab, host: &WasmcloudHost, id: &str, wasm: &Path) {
        self.scale(lab, host, id, (wasm, 16));
        eventually("the component to run", || {
            let inventory = self.command(lab, &format!("host.get.{}", host.id), &json!({}));
            let components = inventory["response"]["components"].as_array().unwrap().iter();
            components.map(|component| &component["id"]).any(|running| *running == *id).then_some(())
        });
    }

    /// Asks a host to start the provider `id`.
    pub fn provide(&self, lab: &Lab, host: &WasmcloudHost, id: &str, reference: &str) {
        let request = json!({"provider_ref": reference, "provider_id": id, "host_id": host.id});
        self.command(lab, &format!("provider.start.{}", host.id), &request);
    }

    /// Links what `source` imports of `acme:billing` to `target`.
    pub fn link(&self, lab: &Lab, source: &str, target: &str) {
        self.link_by(lab, (source, target), ("acme", "billing", "invoices"));
    }

    /// The same, with what it imports of `namespace:package/interface`.
    pub fn link_by(
        &self,
        lab: &Lab,
        (source, target): (&str, &str),
        (namespace, package, interface): (&str, &str, &str),
    ) {
        let link = json!({
            "source_id": source, "target": target, "name": "default", "source_config": [], "target_config": [],
            "wit_namespace": namespace, "wit_package": package, "interfaces": [interface],
        });
        self.command(lab, "link.put", &link);
    }
}
