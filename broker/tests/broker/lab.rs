//! A broker in this process, and what a test needs to speak to it.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use portcullis_api::v1::node_client::NodeClient;
use portcullis_api::v1::operator_client::OperatorClient;
use portcullis_api::v1::{self, watch_reply, watch_request};
use portcullis_api::{ConnectError, connect_node, connect_operator};
use portcullis_broker::Daemon;
use portcullis_broker::config::Config;
use portcullis_identity::{
    Bundle, JoinToken, PeerRule, PeerVerifier, PrivateKey, Svid, SvidSlot, TrustBundles, TrustDomain, TrustSource,
    broker_id, client_config, joining_client_config, key_request,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};

pub(crate) const WIT: &str = "package acme:billing@1.0.0;
interface invoices { get: func(customer: string) -> result<string, string>; total: func() -> u64; }
world service { export invoices; }";

/// How long a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct Lab {
    pub(crate) folder: TempDir,
    pub(crate) control: SocketAddr,
    pub(crate) bundle_endpoint: Option<SocketAddr>,
    pub(crate) oidc: Option<SocketAddr>,
    socket: PathBuf,
    shutdown: CancellationToken,
    daemon: JoinHandle<()>,
}

/// A node's stream.
pub(crate) struct Watch {
    pub(crate) up: mpsc::Sender<v1::WatchRequest>,
    pub(crate) down: Streaming<v1::WatchReply>,
    /// What came while an answer was waited for.
    passed_over: VecDeque<v1::Change>,
}

pub(crate) fn trust_domain() -> TrustDomain {
    TrustDomain::new("acme.test").unwrap()
}

pub(crate) fn target(name: &str) -> v1::Target {
    let (lattice, id) = name.split_once('/').unwrap();
    v1::Target { lattice: lattice.to_owned(), id: id.to_owned() }
}

pub(crate) fn registration(name: &str, node: &str) -> v1::RegisterComponentRequest {
    v1::RegisterComponentRequest {
        target: Some(target(name)),
        wit: vec![v1::WitFile { path: "billing.wit".to_owned(), text: WIT.to_owned() }],
        upstream: v1::Upstream::Typed.into(),
        node: node.to_owned(),
        ..v1::RegisterComponentRequest::default()
    }
}

pub(crate) fn entry(node: &str, component: &str) -> v1::CreateEntryRequest {
    v1::CreateEntryRequest {
        node: node.to_owned(),
        component: Some(target(component)),
        danger_any_digest: true,
        ..v1::CreateEntryRequest::default()
    }
}

pub(crate) fn policies(name: &str, text: &str) -> v1::PutPoliciesRequest {
    let files = vec![v1::PolicyFile { name: name.to_owned(), text: text.to_owned() }];
    v1::PutPoliciesRequest { files, ..Default::default() }
}

/// Fails with the test's own words where something does not come.
pub(crate) async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("it did not come in time")
}

impl Lab {
    pub(crate) async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    pub(crate) async fn start_with(change: impl FnOnce(&mut Config)) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), "acme.test", change).await
    }

    /// A broker of some trust domain, whose data folder may be there already.
    pub(crate) async fn start_in(folder: TempDir, trust_domain: &str, change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::new(trust_domain, &folder.path().join("data")).unwrap();
        change(&mut config);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let daemon = Daemon::start(config, listener).unwrap();
        let (control, socket) = (daemon.control_address(), daemon.operator_socket().to_owned());
        let (bundle_endpoint, oidc) = (daemon.bundle_endpoint(), daemon.oidc());
        let shutdown = CancellationToken::new();
        let daemon = tokio::spawn(daemon.run(shutdown.clone()));
        Self { folder, control, bundle_endpoint, oidc, socket, shutdown, daemon }
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }

    pub(crate) async fn stop(self) -> TempDir {
        self.shutdown.cancel();
        soon(self.daemon).await.unwrap();
        self.folder
    }

    pub(crate) async fn operator(&self) -> OperatorClient<Channel> {
        OperatorClient::new(connect_operator(&self.socket).await.unwrap())
    }

    pub(crate) async fn token(&self, node: &str) -> JoinToken {
        let request = v1::CreateJoinTokenRequest { node: node.to_owned(), ..v1::CreateJoinTokenRequest::default() };
        let reply = self.operator().await.create_join_token(request).await.unwrap().into_inner();
        reply.token.parse().unwrap()
    }

    /// What members of the trust domain trust.
    pub(crate) fn trust(&self) -> TrustSource {
        let roots = CertificateDer::pem_file_iter(self.data().join("bundle.pem")).unwrap().map(Result::unwrap);
        let bundle = Bundle::new(trust_domain(), roots).unwrap();
        TrustBundles::new([bundle], SystemTime::now()).into_source()
    }

    /// A client with `svid`; it accepts the broker alone.
    pub(crate) async fn node(&self, svid: Svid) -> NodeClient<Channel> {
        self.try_node(svid).await.unwrap()
    }

    /// The same; a broker that refuses the certificate is no surprise.
    pub(crate) async fn try_node(&self, svid: Svid) -> Result<NodeClient<Channel>, ConnectError> {
        let verifier = PeerVerifier::new(self.trust(), PeerRule::Exactly(broker_id(&trust_domain())));
        let config = client_config(verifier, SvidSlot::new(svid)).unwrap();
        Ok(NodeClient::new(connect_node(&self.control.to_string(), &config).await?))
    }

    /// A joined node's client.
    pub(crate) async fn joined(&self, name: &str) -> NodeClient<Channel> {
        let token = self.token(name).await;
        let svid = join(&token, PrivateKey::generate().unwrap()).await.unwrap();
        self.node(svid).await
    }

    /// A joined node's stream, after its first state.
    pub(crate) async fn watching(&self, name: &str) -> (Watch, v1::State) {
        let mut watch = Watch::open(&mut self.joined(name).await).await.unwrap();
        let state = watch.state().await;
        (watch, state)
    }
}

/// A client without certificate, as a node has it before it joined.
pub(crate) async fn stranger(token: &JoinToken) -> NodeClient<Channel> {
    let config = joining_client_config(token.root_spki_sha256, &token.trust_domain).unwrap();
    NodeClient::new(connect_node(&token.broker, &config).await.unwrap())
}

pub(crate) fn join_request(token: &JoinToken, key: &PrivateKey) -> v1::JoinRequest {
    v1::JoinRequest { node: token.node.to_string(), secret: token.secret().to_vec(), csr: key_request(key).unwrap() }
}

pub(crate) async fn join(token: &JoinToken, key: PrivateKey) -> Result<Svid, Status> {
    let request = join_request(token, &key);
    let reply = stranger(token).await.join(request).await?.into_inner();
    Ok(svid(reply.chain, key))
}

pub(crate) fn svid(chain: Vec<Vec<u8>>, key: PrivateKey) -> Svid {
    Svid::new(chain.into_iter().map(CertificateDer::from).collect(), key).unwrap()
}

impl Watch {
    pub(crate) async fn open(client: &mut NodeClient<Channel>) -> Result<Self, Status> {
        let watch = Self::open_silently(client).await?;
        watch.say(hello()).await;
        Ok(watch)
    }

    /// Opens the stream and says nothing.
    pub(crate) async fn open_silently(client: &mut NodeClient<Channel>) -> Result<Self, Status> {
        let (up, queue) = mpsc::channel(16);
        let down = client.watch(ReceiverStream::new(queue)).await?.into_inner();
        Ok(Self { up, down, passed_over: VecDeque::new() })
    }

    pub(crate) async fn say(&self, message: watch_request::Message) {
        self.up.send(v1::WatchRequest { message: Some(message) }).await.unwrap();
    }

    /// The next message, but for heads of the audit log, which come at any time.
    pub(crate) async fn hear(&mut self) -> Result<watch_reply::Message, Status> {
        match self.passed_over.pop_front() {
            Some(change) => Ok(watch_reply::Message::Change(change)),
            None => self.hear_next().await,
        }
    }

    async fn hear_next(&mut self) -> Result<watch_reply::Message, Status> {
        loop {
            match self.hear_any().await? {
                watch_reply::Message::Audit(_) => {}
                other => return Ok(other),
            }
        }
    }

    pub(crate) async fn hear_any(&mut self) -> Result<watch_reply::Message, Status> {
        let reply = soon(self.down.message()).await?;
        Ok(reply.ok_or_else(|| Status::new(Code::Ok, "the stream ended"))?.message.unwrap())
    }

    pub(crate) async fn state(&mut self) -> v1::State {
        match self.hear().await.unwrap() {
            watch_reply::Message::State(state) => state,
            other => panic!("not a state: {other:?}"),
        }
    }

    pub(crate) async fn change(&mut self) -> v1::Change {
        match self.hear().await.unwrap() {
            watch_reply::Message::Change(change) => change,
            other => panic!("not a change: {other:?}"),
        }
    }

    /// Asks for an SVID of `entry`, on a key of its own.
    pub(crate) async fn sign(&mut self, entry: &str) -> Result<Svid, String> {
        let key = PrivateKey::generate().unwrap();
        let chain = self.sign_request(v1::Sign {
            request: 7,
            entry: entry.to_owned(),
            csr: key_request(&key).unwrap(),
            component_digest: String::new(),
        });
        chain.await.map(|chain| svid(chain, key))
    }

    pub(crate) async fn sign_request(&mut self, sign: v1::Sign) -> Result<Vec<Vec<u8>>, String> {
        let request = sign.request;
        self.say(watch_request::Message::Sign(sign)).await;
        let answer = loop {
            match self.hear_next().await.unwrap() {
                // It may come at any time too.
                watch_reply::Message::Change(change) => self.passed_over.push_back(change),
                other => break other,
            }
        };
        match answer {
            watch_reply::Message::Signed(signed) => {
                assert_eq!(signed.request, request);
                Ok(signed.chain)
            }
            watch_reply::Message::SignRefused(refused) => {
                assert_eq!(refused.request, request);
                Err(refused.reason)
            }
            other => panic!("not an answer to a signing request: {other:?}"),
        }
    }

    pub(crate) async fn announce(&self, name: &str, addresses: &[&str]) {
        let addresses = addresses.iter().map(|address| (*address).to_owned()).collect();
        self.say(watch_request::Message::Announce(v1::Announce { target: Some(target(name)), addresses })).await;
    }
}

pub(crate) fn hello() -> watch_request::Message {
    watch_request::Message::Hello(v1::Hello {
        kind: v1::NodeKind::Sidecar.into(),
        last: None,
        software: "test".to_owned(),
    })
}
