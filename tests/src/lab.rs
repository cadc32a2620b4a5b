use std::ffi::OsStr;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use portcullis_api::v1::{self, operator_client::OperatorClient};
use portcullis_client::node::{Entry, Identity, Node, NodeConfig, NodeKind, PeerRecord};
use portcullis_client::peers::{CallLimits, FunctionName};
use portcullis_client::{CallError, Peers};
use portcullis_identity::{Bundle, Target, TrustBundles, TrustDomain, TrustSource};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::transport::Channel;

use crate::{Daemon, Forge, PATIENCE, Ran, run};

/// The contract of the component under test.
pub const WIT: &str = "package test:shop@1.0.0;

interface items {
    record item { id: string, price: u64 }
    get: func(id: string) -> result<item, string>;
    put: func(item: item) -> bool;
    echo: func(data: list<u8>) -> list<u8>;
    count: func() -> u32;
}

world shop { export items; }
";

/// The interface in [`WIT`].
pub const ITEMS: &str = "test:shop/items@1.0.0";

/// The contract of a component whose calls carry streams.
pub const PIPE_WIT: &str = "package test:pipe@1.0.0;

interface pipes {
    flow: func(data: stream<u8>) -> stream<u8>;
    double: func(number: u32) -> u32;
}

world pipe { export pipes; }
";

/// The interface in [`PIPE_WIT`].
pub const PIPES: &str = "test:pipe/pipes@1.0.0";

/// A trust domain of its own: a broker, its operator, and whatever a test adds.
#[derive(Debug)]
pub struct Lab {
    runtime: Runtime,
    broker: Option<Daemon>,
    control: Option<SocketAddr>,
    /// The broker's settings file, where it has one.
    settings: Option<PathBuf>,
    trust_domain: String,
    folder: TempDir,
    /// What daemons that are started from now on have in their environment.
    pub environment: Vec<(String, String)>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// How a sidecar of a lab is set up.
#[derive(Clone, Debug)]
pub struct SidecarSetup {
    /// `ID` of `demo/ID`; also the node's name.
    pub id: String,
    /// The `[upstream…]` tables.
    pub upstream: String,
    /// Further keys of `[node]`.
    pub node: String,
    /// Whatever else the configuration holds.
    pub more: String,
    pub kind: v1::Upstream,
    pub wit: String,
    pub ttl_seconds: u32,
}

impl SidecarSetup {
    /// Before an HTTP service, with the default mapping.
    pub fn http(id: &str, service: SocketAddr) -> Self {
        Self {
            id: id.to_owned(),
            upstream: format!(
                "[upstream.http]\nurl = \"http://{service}\"\ncaller_header = \"x-caller\"\ntimeout = \"1s\"\n"
            ),
            node: String::new(),
            more: String::new(),
            kind: v1::Upstream::Typed,
            wit: WIT.to_owned(),
            ttl_seconds: 0,
        }
    }

    /// Before a framed wRPC server on a Unix socket.
    pub fn splice(id: &str, socket: &Path) -> Self {
        let upstream = format!("[upstream.splice]\naddress = \"unix:{}\"\n", socket.display());
        Self { upstream, kind: v1::Upstream::Splice, ..Self::http(id, ([127, 0, 0, 1], 1).into()) }
    }

    pub fn with(mut self, more: &str) -> Self {
        self.more.push_str(more);
        self
    }

    pub fn node(mut self, keys: &str) -> Self {
        self.node.push_str(keys);
        self
    }

    pub fn wit(mut self, wit: &str) -> Self {
        wit.clone_into(&mut self.wit);
        self
    }

    pub fn ttl(mut self, seconds: u32) -> Self {
        self.ttl_seconds = seconds;
        self
    }
}

/// A caller of virtual components: a joined node with one identity.
#[derive(Debug)]
pub struct Caller {
    pub node: Node,
    pub identity: Arc<Identity>,
    pub peers: Peers,
    pub stop: CancellationToken,
}

impl Lab {
    /// Starts a broker for `test.example`.
    pub fn start() -> Self {
        Self::start_with("")
    }

    /// The same, with further settings for the broker, in TOML.
    pub fn start_with(settings: &str) -> Self {
        Self::start_as("test.example", settings)
    }

    /// The same for another trust domain.
    pub fn start_as(trust_domain: &str, settings: &str) -> Self {
        let mut lab = Self::prepared(trust_domain, settings);
        lab.start_broker();
        lab
    }

    /// A lab whose broker is started later.
    pub fn without_broker(settings: &str) -> Self {
        Self::prepared("test.example", settings)
    }

    fn prepared(trust_domain: &str, settings: &str) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let settings = (!settings.is_empty()).then(|| {
            let path = folder.path().join("broker.toml");
            std::fs::write(&path, settings).unwrap();
            path
        });
        let (trust_domain, environment) = (trust_domain.to_owned(), Vec::new());
        Self { runtime, broker: None, control: None, settings, trust_domain, folder, environment, tasks, stop }
    }

    /// What the daemons that start from now on log.
    pub fn log_level(&self, level: &str) {
        std::fs::write(self.path().join("log-level"), level).unwrap();
    }

    /// Starts the broker, at the address it had before.
    pub fn start_broker(&mut self) {
        let data = self.broker_data();
        if let Some(control) = self.control {
            crate::until_free(control);
        }
        let listen = self.control.map_or_else(|| "127.0.0.1:0".to_owned(), |control| control.to_string());
        let mut arguments: Vec<&OsStr> = vec![
            "run".as_ref(),
            "--trust-domain".as_ref(),
            self.trust_domain.as_ref(),
            "--data".as_ref(),
            data.as_ref(),
            "--listen".as_ref(),
            listen.as_ref(),
        ];
        if let Some(settings) = &self.settings {
            arguments.extend(["--config".as_ref(), settings.as_os_str()]);
        }
        let broker = Daemon::start_in(self.path(), "broker", "portcullis-broker", &arguments, &self.environment);
        self.control = Some(broker.ready["control"].as_str().unwrap().parse().unwrap());
        self.broker = Some(broker);
    }

    pub fn broker(&mut self) -> &mut Daemon {
        self.broker.as_mut().unwrap()
    }

    pub fn broker_data(&self) -> PathBuf {
        self.path().join("broker")
    }

    pub fn trust_domain(&self) -> TrustDomain {
        TrustDomain::new(&self.trust_domain).unwrap()
    }

    pub fn control(&self) -> SocketAddr {
        self.control.unwrap()
    }

    pub fn operator_socket(&self) -> PathBuf {
        self.broker_data().join("operator.sock")
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    pub fn tasks(&self) -> &TaskTracker {
        &self.tasks
    }

    /// Cancelled when the lab ends.
    pub fn stop(&self) -> &CancellationToken {
        &self.stop
    }

    /// Runs a future beside the test.
    pub fn spawn<F>(&self, future: F) -> JoinHandle<F::Output>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        self.tasks.spawn_on(future, self.runtime.handle())
    }

    /// What a member of the trust domain trusts.
    pub fn trust(&self) -> TrustSource {
        let root = CertificateDer::from_pem_file(self.broker_data().join("bundle.pem")).unwrap();
        let bundle = Bundle::new(self.trust_domain(), [root]).unwrap();
        TrustBundles::new([bundle], SystemTime::now()).into_source()
    }

    /// Whoever stole the broker's keys.
    pub fn forge(&self) -> Forge {
        Forge::stolen_from(&self.broker_data())
    }

    /// Runs an operator's command.
    pub fn broker_command(&self, arguments: &[&str]) -> Ran {
        let socket = self.operator_socket();
        let socket = ["--socket", socket.to_str().unwrap()];
        run("portcullis-broker", &[arguments, &socket].concat())
    }

    /// Where a sidecar of this lab answers operators.
    pub fn admin_socket(&self, id: &str) -> PathBuf {
        self.path().join(format!("{id}-state/admin.sock"))
    }

    /// A reading of a sidecar's status.
    pub fn status(&self, id: &str) -> serde_json::Value {
        let (code, body) = crate::get(&self.admin_socket(id), "/status").unwrap();
        assert_eq!(code, 200, "{body}");
        serde_json::from_str(&body).unwrap()
    }

    /// Runs a future to its end, which must come.
    pub fn block_on<F: Future>(&self, future: F) -> F::Output {
        self.runtime.block_on(async { tokio::time::timeout(PATIENCE, future).await.expect("a step took too long") })
    }

    /// Calls the broker's operator service.
    pub fn operator<T>(
        &self,
        call: impl AsyncFnOnce(OperatorClient<Channel>) -> Result<tonic::Response<T>, tonic::Status>,
    ) -> Result<T, tonic::Status> {
        self.block_on(async {
            let channel = portcullis_api::connect_operator(&self.operator_socket()).await.unwrap();
            call(OperatorClient::new(channel)).await.map(tonic::Response::into_inner)
        })
    }

    /// Puts one policy file; it must be right.
    pub fn policy(&self, name: &str, text: &str) {
        let file = v1::PolicyFile { name: name.to_owned(), text: text.to_owned() };
        let reply = self
            .operator(async |mut operator| {
                operator.put_policies(v1::PutPoliciesRequest { files: vec![file], ..Default::default() }).await
            })
            .unwrap();
        assert_eq!(reply.problems, [], "the policy is wrong");
    }

    /// A policy that lets everybody do everything.
    pub fn allow_all(&self) {
        self.policy("all.cedar", "@id(\"all\")\npermit (principal, action, resource);\n");
    }

    /// A join token for a node, in a file.
    pub fn token(&self, node: &str) -> PathBuf {
        let request = v1::CreateJoinTokenRequest { node: node.to_owned(), ..Default::default() };
        let reply = self.operator(async |mut operator| operator.create_join_token(request).await).unwrap();
        let path = self.path().join(format!("{node}.token"));
        std::fs::write(&path, reply.token).unwrap();
        path
    }

    /// Registers a component and writes its sidecar's configuration.
    pub fn register(&self, setup: &SidecarSetup) -> PathBuf {
        let request = v1::RegisterComponentRequest {
            target: Some(v1::Target { lattice: "demo".to_owned(), id: setup.id.clone() }),
            wit: vec![v1::WitFile { path: "shop.wit".to_owned(), text: setup.wit.clone() }],
            upstream: setup.kind.into(),
            node: setup.id.clone(),
            x509_ttl_seconds: setup.ttl_seconds,
            ..Default::default()
        };
        self.operator(async |mut operator| operator.register_component(request).await).unwrap();
        let token = self.token(&setup.id);
        let config = format!(
            "[node]\nstate = \"{id}-state\"\njoin_token_file = \"{token}\"\n{node}\n[component]\nlattice = \"demo\"\nid = \"{id}\"\n[listen]\nquic = \"127.0.0.1:0\"\n{upstream}\n{more}\n",
            id = setup.id,
            token = token.display(),
            upstream = setup.upstream,
            node = setup.node,
            more = setup.more,
        );
        let path = self.path().join(format!("{}.toml", setup.id));
        std::fs::write(&path, config).unwrap();
        path
    }

    /// Registers a component and starts its sidecar.
    pub fn sidecar(&self, setup: &SidecarSetup) -> Daemon {
        let config = self.register(setup);
        self.start_sidecar(&setup.id, &config)
    }

    pub fn start_sidecar(&self, id: &str, config: &Path) -> Daemon {
        let arguments: [&OsStr; 3] = ["run".as_ref(), "--config".as_ref(), config.as_ref()];
        Daemon::start_in(self.path(), id, "portcullis-sidecar", &arguments, &self.environment)
    }

    /// A joined caller with the identity `spiffe://test.example/component/demo/NAME`.
    pub fn caller(&self, name: &str) -> Caller {
        self.caller_with(name, 0)
    }

    /// The same, with SVIDs of another lifetime.
    pub fn caller_with(&self, name: &str, ttl_seconds: u32) -> Caller {
        self.caller_as(name, v1::CreateEntryRequest { x509_ttl_seconds: ttl_seconds, ..Default::default() })
    }

    /// The same, with an entry on these terms.
    pub fn caller_as(&self, name: &str, terms: v1::CreateEntryRequest) -> Caller {
        let request = v1::CreateEntryRequest {
            node: name.to_owned(),
            component: Some(v1::Target { lattice: "demo".to_owned(), id: name.to_owned() }),
            danger_any_digest: true,
            ..terms
        };
        let token = self.token(name);
        self.operator(async |mut operator| operator.create_entry(request).await).unwrap();
        let join_token = Some(std::fs::read_to_string(token).unwrap().trim().parse().unwrap());
        let state_dir = self.path().join(format!("{name}-state"));
        let config = NodeConfig { state_dir, kind: NodeKind::Host, join_token, broker: None, seal_key: None };
        let stop = self.stop.child_token();
        self.block_on(async {
            let node = Node::start(config, &self.tasks, stop.clone()).await.unwrap();
            let mut state = node.state();
            let state = state.wait_for(|state| !state.entries.is_empty()).await.unwrap().clone();
            let entry: Entry = state.entries.values().next().unwrap().clone();
            let identity = node.identity(&entry, "sha256:00").await.unwrap();
            let peers = Peers::new(Arc::clone(&identity), CallLimits::default(), self.tasks.clone());
            Caller { node, identity, peers, stop }
        })
    }

    /// A joined node without a daemon, whose registrations exist already.
    pub fn node(&self, name: &str) -> Node {
        let token = std::fs::read_to_string(self.token(name)).unwrap();
        let config = NodeConfig {
            state_dir: self.path().join(format!("{name}-node")),
            kind: NodeKind::Sidecar,
            join_token: Some(token.trim().parse().unwrap()),
            broker: None,
            seal_key: None,
        };
        self.block_on(Node::start(config, &self.tasks, self.stop.child_token())).unwrap()
    }

    /// One call of [`ITEMS`] over our client.
    pub fn call(
        &self,
        caller: &Caller,
        record: &PeerRecord,
        function: &str,
        params: &[u8],
    ) -> Result<Bytes, CallError> {
        let name = FunctionName { instance: ITEMS, function };
        let params = Bytes::copy_from_slice(params);
        self.block_on(caller.peers.call(record, name, params, Duration::from_secs(10)))
    }

    /// What the registry would say of `demo/ID` if a sidecar had announced `address`.
    pub fn record_at(&self, id: &str, address: SocketAddr) -> PeerRecord {
        let target: Target = format!("demo/{id}").parse().unwrap();
        let trust_domain = self.trust_domain();
        PeerRecord {
            spiffe_id: portcullis_identity::virtual_component_id(&trust_domain, &target),
            target,
            interfaces: vec![ITEMS.to_owned()],
            addresses: vec![address.to_string()],
        }
    }

    /// Waits until a caller's node knows where `demo/ID` is served.
    pub fn record(&self, caller: &Caller, id: &str) -> PeerRecord {
        let target: Target = format!("demo/{id}").parse().unwrap();
        self.block_on(async {
            let mut state = caller.node.state();
            let known = |state: &Arc<portcullis_client::NodeState>| {
                state.components.get(&target).is_some_and(|record| !record.addresses.is_empty())
            };
            let state = state.wait_for(known).await.unwrap().clone();
            state.components[&target].clone()
        })
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.stop.cancel();
        self.tasks.close();
        let tasks = self.tasks.clone();
        let ended = self.runtime.block_on(async { tokio::time::timeout(Duration::from_secs(5), tasks.wait()).await });
        if ended.is_err() && !std::thread::panicking() {
            eprintln!("a caller's tasks did not end");
        }
    }
}
