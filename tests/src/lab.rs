use std::ffi::OsStr;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use portcullis_api::v1::{self, operator_client::OperatorClient};
use portcullis_client::Peers;
use portcullis_client::node::{Entry, Identity, Node, NodeConfig, NodeKind, PeerRecord};
use portcullis_client::peers::CallLimits;
use portcullis_identity::Target;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::transport::Channel;

use crate::{Daemon, PATIENCE};

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

/// A trust domain of its own: a broker, its operator, and whatever a test adds.
#[derive(Debug)]
pub struct Lab {
    runtime: Runtime,
    broker: Option<Daemon>,
    control: Option<SocketAddr>,
    folder: TempDir,
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
            more: String::new(),
            kind: v1::Upstream::Typed,
            wit: WIT.to_owned(),
            ttl_seconds: 0,
        }
    }

    /// Before a framed wRPC server on a Unix socket.
    pub fn splice(id: &str, socket: &Path) -> Self {
        let upstream = format!("[upstream.splice]\naddress = \"unix:{}\"\n", socket.display());
        Self {
            upstream,
            kind: v1::Upstream::Splice,
            ..Self::http(id, ([127, 0, 0, 1], 1).into())
        }
    }

    pub fn with(mut self, more: &str) -> Self {
        self.more.push_str(more);
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
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let folder = tempfile::tempdir().unwrap();
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let mut lab = Self {
            runtime,
            broker: None,
            control: None,
            folder,
            tasks,
            stop,
        };
        lab.start_broker();
        lab
    }

    /// Starts the broker, at the address it had before.
    pub fn start_broker(&mut self) {
        let data = self.broker_data();
        let listen = self
            .control
            .map_or_else(|| "127.0.0.1:0".to_owned(), |control| control.to_string());
        let arguments: [&OsStr; 7] = [
            "run".as_ref(),
            "--trust-domain".as_ref(),
            "test.example".as_ref(),
            "--data".as_ref(),
            data.as_ref(),
            "--listen".as_ref(),
            listen.as_ref(),
        ];
        let broker = Daemon::start(self.path(), "broker", "portcullis-broker", &arguments);
        self.control = Some(broker.ready["control"].as_str().unwrap().parse().unwrap());
        self.broker = Some(broker);
    }

    pub fn broker(&mut self) -> &mut Daemon {
        self.broker.as_mut().unwrap()
    }

    pub fn broker_data(&self) -> PathBuf {
        self.path().join("broker")
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

    /// Runs a future to its end, which must come.
    pub fn block_on<F: Future>(&self, future: F) -> F::Output {
        self.runtime.block_on(async {
            tokio::time::timeout(PATIENCE, future)
                .await
                .expect("a step took too long")
        })
    }

    /// Calls the broker's operator service.
    pub fn operator<T>(
        &self,
        call: impl AsyncFnOnce(OperatorClient<Channel>) -> Result<tonic::Response<T>, tonic::Status>,
    ) -> Result<T, tonic::Status> {
        self.block_on(async {
            let channel = portcullis_api::connect_operator(&self.operator_socket()).await.unwrap();
            call(OperatorClient::new(channel))
                .await
                .map(tonic::Response::into_inner)
        })
    }

    /// Puts one policy file; it must be right.
    pub fn policy(&self, name: &str, text: &str) {
        let file = v1::PolicyFile {
            name: name.to_owned(),
            text: text.to_owned(),
        };
        let reply = self
            .operator(async |mut operator| {
                operator
                    .put_policies(v1::PutPoliciesRequest { files: vec![file] })
                    .await
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
        let request = v1::CreateJoinTokenRequest {
            node: node.to_owned(),
            ..Default::default()
        };
        let reply = self
            .operator(async |mut operator| operator.create_join_token(request).await)
            .unwrap();
        let path = self.path().join(format!("{node}.token"));
        std::fs::write(&path, reply.token).unwrap();
        path
    }

    /// Registers a component and writes its sidecar's configuration.
    pub fn register(&self, setup: &SidecarSetup) -> PathBuf {
        let request = v1::RegisterComponentRequest {
            target: Some(v1::Target {
                lattice: "demo".to_owned(),
                id: setup.id.clone(),
            }),
            wit: vec![v1::WitFile {
                path: "shop.wit".to_owned(),
                text: setup.wit.clone(),
            }],
            upstream: setup.kind.into(),
            node: setup.id.clone(),
            x509_ttl_seconds: setup.ttl_seconds,
            ..Default::default()
        };
        self.operator(async |mut operator| operator.register_component(request).await)
            .unwrap();
        let token = self.token(&setup.id);
        let config = format!(
            "[node]\nstate = \"{id}-state\"\njoin_token_file = \"{token}\"\n[component]\nlattice = \"demo\"\nid = \"{id}\"\n[listen]\nquic = \"127.0.0.1:0\"\n{upstream}\n{more}\n",
            id = setup.id,
            token = token.display(),
            upstream = setup.upstream,
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
        Daemon::start(self.path(), id, "portcullis-sidecar", &arguments)
    }

    /// A joined caller with the identity `spiffe://test.example/component/demo/NAME`.
    pub fn caller(&self, name: &str) -> Caller {
        self.caller_with(name, 0)
    }

    /// The same, with SVIDs of another lifetime.
    pub fn caller_with(&self, name: &str, ttl_seconds: u32) -> Caller {
        let request = v1::CreateEntryRequest {
            node: name.to_owned(),
            component: Some(v1::Target {
                lattice: "demo".to_owned(),
                id: name.to_owned(),
            }),
            danger_any_digest: true,
            x509_ttl_seconds: ttl_seconds,
            ..Default::default()
        };
        let token = self.token(name);
        self.operator(async |mut operator| operator.create_entry(request).await)
            .unwrap();
        let join_token = Some(std::fs::read_to_string(token).unwrap().trim().parse().unwrap());
        let state_dir = self.path().join(format!("{name}-state"));
        let config = NodeConfig {
            state_dir,
            kind: NodeKind::Host,
            join_token,
            broker: None,
        };
        let stop = self.stop.child_token();
        self.block_on(async {
            let node = Node::start(config, &self.tasks, stop.clone()).await.unwrap();
            let mut state = node.state();
            let state = state.wait_for(|state| !state.entries.is_empty()).await.unwrap().clone();
            let entry: Entry = state.entries.values().next().unwrap().clone();
            let identity = node.identity(&entry, "sha256:00").await.unwrap();
            let peers = Peers::new(
                node.trust(),
                Arc::clone(&identity),
                CallLimits::default(),
                self.tasks.clone(),
            );
            Caller {
                node,
                identity,
                peers,
                stop,
            }
        })
    }

    /// Waits until a caller's node knows where `demo/ID` is served.
    pub fn record(&self, caller: &Caller, id: &str) -> PeerRecord {
        let target: Target = format!("demo/{id}").parse().unwrap();
        self.block_on(async {
            let mut state = caller.node.state();
            let known = |state: &Arc<portcullis_client::NodeState>| {
                state
                    .components
                    .get(&target)
                    .is_some_and(|record| !record.addresses.is_empty())
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
        let ended = self
            .runtime
            .block_on(async { tokio::time::timeout(Duration::from_secs(5), tasks.wait()).await });
        if ended.is_err() && !std::thread::panicking() {
            eprintln!("a caller's tasks did not end");
        }
    }
}
