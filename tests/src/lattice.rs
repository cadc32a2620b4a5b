use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_nats::{Client, ConnectError, ConnectErrorKind, ConnectOptions, Event};
use portcullis_api::v1;
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tempfile::TempDir;

use crate::forge::Certificate;
use crate::{Lab, binary, eventually, run};

/// A subject that nobody may publish to.
const NOBODYS: &str = "nobody.may.publish.this";

/// Between two servers: three that accounts are dealt out to, and that of the system account. Before all are there, what is said in some account
/// is lost between them, a login's question for instance.
const ROUTES: usize = 4;

/// Two clustered NATS servers as `nats init` sets them up: hosts in the clear or with TLS, nodes by certificate.
#[derive(Debug)]
pub struct Lattice {
    folder: TempDir,
    hosts_tls: HostsTls,
    hosts: Option<Child>,
    nodes: Option<Child>,
    pub hosts_address: SocketAddr,
    pub nodes_address: SocketAddr,
    /// What `nats init` said.
    pub told: serde_json::Value,
}

/// How hosts are served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum HostsTls {
    Required,
    Plain,
}

/// A client of a lattice, and everything its server said to it.
#[derive(Clone, Debug)]
pub struct Joined {
    pub client: Client,
    events: Arc<Mutex<Vec<String>>>,
}

/// How many routes by the log of a server are open.
fn open_routes(log: &str) -> usize {
    let count = |words| log.matches(words).count();
    count("Route connection created").saturating_sub(count("Router connection closed"))
}

/// A port that nobody has, below those that the kernel gives away: clustered servers have to know each other's before they start.
fn free() -> SocketAddr {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let begin = std::process::id().wrapping_mul(97);
    loop {
        let number = begin.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % 12_000;
        let port = 20_000 + u16::try_from(number).unwrap();
        if let Ok(listener) = TcpListener::bind(("127.0.0.1", port)) {
            return listener.local_addr().unwrap();
        }
    }
}

impl Lattice {
    /// A set-up for the broker of `lab`, whose servers do not run yet, and its settings, with `more` under `[nats]`.
    pub fn init(lab: &Lab, more: &str) -> Self {
        Self::init_with(lab, HostsTls::Plain, more)
    }

    fn init_with(lab: &Lab, hosts_tls: HostsTls, more: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let place = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        certify(folder.path());
        let [hosts, nodes, hosts_route, nodes_route] = [free(), free(), free(), free()];
        let (out, bundle) = (place("set-up"), lab.broker_data().join("bundle.pem"));
        let trust_domain = lab.trust_domain().to_string();
        let (server, plain) = match hosts_tls {
            HostsTls::Plain => (format!("nats://{hosts}"), &["--danger-plain-hosts"][..]),
            // The name that the certificate will hold.
            HostsTls::Required => (format!("tls://localhost:{}", hosts.port()), &[][..]),
        };
        let told = run(
            "portcullis-broker",
            &[
                &["nats", "init", "--trust-domain", &trust_domain, "--out", &out][..],
                &["--hosts-listen", &hosts.to_string(), "--nodes-listen", &nodes.to_string()],
                &["--hosts-route", &hosts_route.to_string(), "--nodes-route", &nodes_route.to_string()],
                &["--tls-cert", &place("server.pem"), "--tls-key", &place("server.key"), "--tls-ca", &place("ca.pem")],
                &["--nodes-ca", bundle.to_str().unwrap(), "--json"],
                plain,
            ]
            .concat(),
        )
        .ok()
        .json();
        let settings = format!(
            "[nats]\nservers = [\"{server}\"]\nfolder = {}\nca_file = \"{}\"\nhosts = [\"spiffe://{trust_domain}/host/*\"]\n{more}\n",
            told["broker_folder"],
            place("ca.pem"),
        );
        std::fs::write(lab.path().join("broker.toml"), settings).unwrap();
        Self { folder, hosts_tls, hosts: None, nodes: None, hosts_address: hosts, nodes_address: nodes, told }
    }

    /// A lab whose broker answers the servers of a lattice, both running.
    pub fn start(more: &str) -> (Lab, Self) {
        Self::started((HostsTls::Plain, more), &[], |_, _| ())
    }

    /// The same, where hosts are served with TLS, and the servers' certificate is an SVID of `spiffe://test.example/nats`. Each of `holders`, a
    /// name and the keys of its settings, has credentials.
    pub fn start_with_tls(more: &str, holders: &[(&str, &str)]) -> (Lab, Self) {
        Self::started((HostsTls::Required, more), holders, Self::certify_by_svid)
    }

    /// The same, whose servers' certificate is an SVID of `spiffe://test.example/nats`.
    pub fn start_with_svids() -> (Lab, Self) {
        Self::started((HostsTls::Plain, ""), &[], Self::certify_by_svid)
    }

    fn certify_by_svid(lab: &Lab, lattice: &Self) {
        let folder = lattice.folder.path();
        let out = folder.to_str().unwrap();
        let id = ["--spiffe-id", "spiffe://test.example/nats", "--dns", "localhost"];
        lab.broker_command(&[&["x509", "mint"][..], &id, &["--out", out]].concat()).ok();
        for (from, to) in [("svid.pem", "server.pem"), ("svid_key.pem", "server.key"), ("bundle.pem", "ca.pem")] {
            std::fs::rename(folder.join(from), folder.join(to)).unwrap();
        }
    }

    fn started(
        (hosts_tls, more): (HostsTls, &str),
        holders: &[(&str, &str)],
        prepare: impl FnOnce(&Lab, &Self),
    ) -> (Lab, Self) {
        let mut lab = Lab::without_broker("# written later");
        let mut lattice = Self::init_with(&lab, hosts_tls, more);
        holders.iter().for_each(|(name, keys)| lattice.issue_credentials(&lab, name, keys));
        // First the broker: the servers read its roots.
        lab.start_broker();
        prepare(&lab, &lattice);
        lattice.start_servers();
        lab.broker().logged(&["answering who may join the lattice"]);
        lab.broker().logged(&["connected to the lattice", "system"]);
        (lab, lattice)
    }

    fn issue_credentials(&self, lab: &Lab, name: &str, keys: &str) {
        let (folder, out) = (self.told["broker_folder"].as_str().unwrap(), self.credentials(name));
        let arguments = ["nats", "credentials", "--folder", folder, "--name", name, "--json", "--out"];
        let issued = run("portcullis-broker", &[&arguments[..], &[out.to_str().unwrap()]].concat()).ok().json();
        let settings = lab.path().join("broker.toml");
        let before = std::fs::read_to_string(&settings).unwrap();
        let identity = format!("spiffe://{}/{name}", lab.trust_domain());
        let holder =
            format!("[[nats.key]]\nnkey = {}\nidentity = \"{identity}\"\nlattice = \"demo\"\n", issued["nkey"]);
        std::fs::write(settings, format!("{before}{holder}{keys}\n")).unwrap();
    }

    /// By whom the servers' certificates are signed.
    pub fn authority(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// The credentials that a member without SVID was given.
    pub fn credentials(&self, name: &str) -> PathBuf {
        self.folder.path().join(format!("{name}.creds"))
    }

    pub fn start_servers(&mut self) {
        self.hosts = Some(self.serve("hosts_config", "hosts.log"));
        self.nodes = Some(self.serve("nodes_config", "nodes.log"));
        for address in [self.hosts_address, self.nodes_address] {
            eventually("a NATS server", || std::net::TcpStream::connect(address).ok());
        }
        // One asks about logins through the other, and JetStream has a leader, once they know each other.
        eventually("the NATS servers to be a cluster", || {
            let knows = |name: &str| std::fs::read_to_string(self.folder.path().join(name)).ok();
            let led = |log: Option<String>| {
                log.is_some_and(|log| log.contains("metadata leader") && open_routes(&log) == ROUTES)
            };
            (led(knows("hosts.log")) && led(knows("nodes.log"))).then_some(())
        });
    }

    fn serve(&self, config: &str, log: &str) -> Child {
        let server = binary("portcullis-broker").ancestors().nth(2).unwrap().join("test-python/bin/nats-server");
        assert!(server.exists(), "{} is missing: tests/run.sh installs it", server.display());
        let log = std::fs::File::create(self.folder.path().join(log)).unwrap();
        Command::new(server)
            .args(["-c", self.told[config].as_str().unwrap()])
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap()
    }

    /// What both servers logged.
    pub fn log(&self) -> String {
        let read = |name: &str| std::fs::read_to_string(self.folder.path().join(name)).unwrap_or_default();
        format!("{}{}", read("hosts.log"), read("nodes.log"))
    }

    /// Starts what was killed.
    pub fn start_servers_again(&mut self) {
        self.hosts = Some(self.serve("hosts_config", "hosts-again.log"));
        eventually("a NATS server", || std::net::TcpStream::connect(self.hosts_address).ok());
    }

    /// SIGKILL to the server of hosts.
    pub fn kill_hosts(&mut self) {
        end(self.hosts.take());
    }

    /// What hosts do: the token alone, in the clear.
    pub async fn by_token(&self, token: &str) -> Result<Joined, ConnectError> {
        self.connect(ConnectOptions::with_token(token.to_owned()), self.hosts_address).await
    }

    /// A member without SVID.
    pub async fn by_nkey(&self, seed: &str) -> Result<Joined, ConnectError> {
        self.connect(ConnectOptions::with_nkey(seed.to_owned()), self.hosts_address).await
    }

    /// What `wash`, wadm and stock providers do.
    pub async fn by_credentials(&self, name: &str) -> Result<Joined, ConnectError> {
        let options = ConnectOptions::with_credentials_file(self.credentials(name)).await.unwrap();
        self.connect(options, self.hosts_address).await
    }

    /// What sidecars do: the handshake first, with their SVID.
    pub async fn by_certificate(&self, certificate: Certificate) -> Result<Joined, ConnectError> {
        self.connect(self.certified(certificate), self.nodes_address).await
    }

    /// The same, answered below `inbox`.
    pub async fn by_certificate_at(&self, certificate: Certificate, inbox: &str) -> Result<Joined, ConnectError> {
        self.connect(self.certified(certificate).custom_inbox_prefix(inbox), self.nodes_address).await
    }

    fn certified(&self, (chain, key): Certificate) -> ConnectOptions {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(self.authority()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)
            .unwrap();
        ConnectOptions::new().require_tls(true).tls_first().tls_client_config(tls)
    }

    pub async fn connect(&self, options: ConnectOptions, server: SocketAddr) -> Result<Joined, ConnectError> {
        let events = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&events);
        let note = move |event: Event| {
            heard.lock().unwrap().push(event.to_string());
            async {}
        };
        let options = options
            .event_callback(note)
            .ignore_discovered_servers()
            .connection_timeout(Duration::from_secs(5))
            .request_timeout(Some(Duration::from_secs(5)));
        let (options, server) = match self.hosts_tls {
            // The servers' certificate holds a name, and no address.
            HostsTls::Required => (
                options.require_tls(true).add_root_certificates(self.authority()),
                format!("localhost:{}", server.port()),
            ),
            HostsTls::Plain => (options, server.to_string()),
        };
        let client = options.connect(server).await?;
        let joined = Joined { client, events };
        // The client takes any word of the server for leave to come in, also that another server of the cluster is there.
        if joined.is_in().await { Ok(joined) } else { Err(ConnectError::new(ConnectErrorKind::AuthorizationViolation)) }
    }
}

impl Joined {
    /// A connection to a server that lets everybody in.
    pub async fn unknown(server: &crate::nats::NatsServer) -> Self {
        Self { client: server.stock().await, events: Arc::default() }
    }

    /// Everything that happened to the connection so far.
    pub fn events(&self) -> Vec<String> {
        self.events.lock().unwrap().clone()
    }

    /// Whether the server judges what it publishes, instead of ending the connection.
    async fn is_in(&self) -> bool {
        let deadline = std::time::Instant::now() + crate::PATIENCE;
        // The connection may have ended; then the events say so.
        let _ = self.client.publish(NOBODYS, "x".into()).await;
        let _ = self.client.flush().await;
        loop {
            if self.heard(NOBODYS) > 0 {
                return true;
            }
            if self.heard("disconnected") > 0 || self.heard("uthorization") > 0 {
                return false;
            }
            assert!(std::time::Instant::now() < deadline, "the server says nothing: {:?}", self.events());
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Waits until something happens to the connection whose text holds `words`.
    pub async fn hears(&self, words: &str) {
        self.hears_more(words, 0).await;
    }

    async fn hears_more(&self, words: &str, than: usize) {
        let deadline = std::time::Instant::now() + crate::PATIENCE;
        while self.heard(words) <= than {
            assert!(std::time::Instant::now() < deadline, "waited in vain for `{words}`: {:?}", self.events());
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// How often something happened whose text holds `words`.
    pub fn heard(&self, words: &str) -> usize {
        self.events().iter().filter(|event| event.contains(words)).count()
    }

    /// The server must refuse a publication.
    pub async fn may_not_publish(&self, subject: &str) {
        let refusal = format!("Permissions Violation for Publish to \"{subject}\"");
        let before = self.heard(&refusal);
        self.client.publish(subject.to_owned(), "x".into()).await.unwrap();
        self.client.flush().await.unwrap();
        self.hears_more(&refusal, before).await;
    }

    /// The server must take it.
    pub async fn may_publish(&self, subject: &str) {
        let refusal = format!("to \"{subject}\"");
        let before = self.heard(&refusal);
        self.client.publish(subject.to_owned(), "x".into()).await.unwrap();
        self.round_trip().await;
        assert_eq!(self.heard(&refusal), before, "{:?}", self.events());
    }

    /// The server must refuse a subscription.
    pub async fn may_not_subscribe(&self, subject: &str, queue: Option<&str>) {
        let refusal = format!("Permissions Violation for Subscription to \"{subject}\"");
        let before = self.heard(&refusal);
        let _subscription = self.subscribe(subject, queue).await;
        self.client.flush().await.unwrap();
        self.hears_more(&refusal, before).await;
    }

    pub async fn subscribe(&self, subject: &str, queue: Option<&str>) -> async_nats::Subscriber {
        match queue {
            Some(queue) => self.client.queue_subscribe(subject.to_owned(), queue.to_owned()).await.unwrap(),
            None => self.client.subscribe(subject.to_owned()).await.unwrap(),
        }
    }

    /// Returns once the server has judged everything that was sent so far: nobody may publish this, and its refusal comes last.
    pub async fn round_trip(&self) {
        self.may_not_publish(NOBODYS).await;
    }

    /// How often it connected.
    pub fn connects(&self) -> u64 {
        self.client.statistics().connects.load(Ordering::Relaxed)
    }
}

impl Lab {
    /// A login token for `id`, fresh.
    pub fn login_token(&self, id: &str, audience: &str, ttl: &str) -> String {
        self.broker_command(&["jwt", "mint", "--spiffe-id", id, "--audience", audience, "--ttl", ttl])
            .ok()
            .out
            .trim()
            .to_owned()
    }

    /// An X.509-SVID for `id`.
    pub fn minted(&self, id: &str) -> Certificate {
        let minted = self.broker_command(&["x509", "mint", "--spiffe-id", id, "--json"]).ok().json();
        let chain = CertificateDer::pem_slice_iter(minted["chain"].as_str().unwrap().as_bytes());
        let key = PrivateKeyDer::from_pem_slice(minted["key"].as_str().unwrap().as_bytes()).unwrap();
        (chain.map(Result::unwrap).collect(), key)
    }

    /// An entry for `spiffe://test.example/PATH` in the lattice `demo`; returns its id.
    pub fn lattice_entry(&self, path: &str) -> String {
        self.create(v1::CreateEntryRequest {
            node: "machine".to_owned(),
            spiffe_id: format!("spiffe://{}{path}", self.trust_domain()),
            lattice: "demo".to_owned(),
            ..Default::default()
        })
    }
}

/// An authority and the servers' certificate: `ca.pem`, `server.pem`, `server.key`.
fn certify(folder: &Path) {
    let write = |name: &str, text: String| std::fs::write(folder.join(name) as PathBuf, text).unwrap();
    let authority_key = KeyPair::generate().unwrap();
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    write("ca.pem", authority.self_signed(&authority_key).unwrap().pem());
    let issuer = Issuer::new(authority, authority_key);
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![SanType::IpAddress([127, 0, 0, 1].into())];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    write("server.pem", params.signed_by(&key, &issuer).unwrap().pem());
    write("server.key", key.serialize_pem());
}

fn end(child: Option<Child>) {
    if let Some(mut child) = child {
        let _ = child.kill();
        let _ = child.wait();
    }
}

impl Drop for Lattice {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the NATS servers logged ---\n{}", self.log());
        }
        end(self.hosts.take());
        end(self.nodes.take());
    }
}
