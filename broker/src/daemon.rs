//! The broker as a process: puts the pieces together, serves, and ends them in order.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use portcullis_api::MAX_MESSAGE_BYTES;
use portcullis_api::v1::node_server::NodeServer;
use portcullis_api::v1::operator_server::OperatorServer;
use portcullis_identity::{ClientAuth, PeerRule, PeerVerifier, RenewalSchedule, SvidSlot, TrustBundles, server_config};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::transport::Server;

use crate::atomic_file::{self, Existing};
use crate::audit::{AuditLog, Event, OpenError as AuditError, Unaudited};
use crate::authority::{Authority, AuthorityError, IssueError, SigningRenewal};
use crate::beacon::beacon;
use crate::broker::{Broker, Joins, Ttls};
use crate::config::Config;
use crate::data_folder::{DataFolder, DataFolderError};
use crate::federation::{Refresher, WebRoots};
use crate::ledger::Ledger;
use crate::node_service::NodeService;
use crate::operator_service::OperatorService;
use crate::operator_socket::{self, AllowedUsers, SocketError};
use crate::presence::Presence;
use crate::published::{serve_bundle, serve_oidc};
use crate::registry::Registry;
use crate::signing::Signing;
use crate::store::{OpenError, Store};
use crate::web::CertificateError;
use crate::{clock, listener};

/// Bytes; what a node says is small: a certificate request has at most 8 KiB.
const MAX_NODE_MESSAGE: usize = 64 << 10;
/// Requests of one node at one time.
const MAX_NODE_STREAMS: u32 = 32;
/// Bytes of the headers of one request.
const MAX_HEADERS: u32 = 16 << 10;
/// Streams that a peer opened and reset before we looked (HTTP/2 rapid reset).
const MAX_RESET_STREAMS: usize = 20;
/// A node that answers no ping for so long is gone.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// How long a node's single question may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);
/// How long streams have to end when the broker does.
const DRAIN: Duration = Duration::from_secs(3);
/// How long the store has to close then.
const CLOSE: Duration = Duration::from_secs(1);
/// How often we look whether a signing certificate is due; they live for months.
const LOOK_AFTER_SIGNING: Duration = Duration::from_secs(3600);
/// The wait after a renewal that failed.
const RENEWAL_PAUSE: Duration = Duration::from_secs(10);

/// Why the broker does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data folder.
    #[error(transparent)]
    DataFolder(#[from] DataFolderError),
    /// There is a store, and its authority is gone.
    #[error("the data folder `{}` has a store but no CA key in `ca/root.pem`: a new one would be strange to every node; restore it from a backup", .0.display())]
    AuthorityLost(PathBuf),
    /// The certificate authority.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// The broker's own certificate.
    #[error("cannot make the broker's own certificate: {0}")]
    OwnSvid(#[from] IssueError),
    /// The store.
    #[error(transparent)]
    Store(#[from] OpenError),
    /// The audit log.
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// A listener of the web.
    #[error("cannot listen on `{address}`: {cause}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why.
        cause: io::Error,
    },
    /// Its certificate.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// The operator socket.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// The TLS stack.
    #[error("cannot set up TLS: {0}")]
    Tls(#[from] rustls::Error),
    /// The listener or a file.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// A broker that serves.
#[derive(Debug)]
pub struct Daemon {
    control_address: SocketAddr,
    operator_socket: PathBuf,
    bundle_endpoint: Option<SocketAddr>,
    oidc: Option<SocketAddr>,
    tracker: TaskTracker,
    stop: CancellationToken,
    audit: AuditLog,
    servers: Vec<JoinHandle<Result<(), tonic::transport::Error>>>,
    _folder: DataFolder,
}

/// Starts a broker and runs it until `shutdown`, then ends it in order.
///
/// # Errors
/// When it cannot start; nothing is served then.
pub async fn run(config: Config, control: TcpListener, shutdown: CancellationToken) -> Result<(), StartError> {
    Daemon::start(config, control)?.run(shutdown).await;
    Ok(())
}

impl Daemon {
    /// Opens keys and store, and serves nodes on `control` and operators on the configured socket.
    ///
    /// To be called on a tokio runtime.
    ///
    /// # Errors
    /// When something is missing, damaged, foreign or in use.
    pub fn start(config: Config, control: TcpListener) -> Result<Self, StartError> {
        let folder = DataFolder::open(&config.data)?;
        if folder.store().exists() && !Authority::exists(&folder.authority()) {
            return Err(StartError::AuthorityLost(config.data));
        }
        let authority = Authority::open(&folder.authority(), &config.trust_domain, clock::now())?;
        atomic_file::write(&folder.bundle(), authority.root_pem().as_bytes(), 0o644, Existing::Replace)?;
        let (store, registry) = Store::open(&folder.store(), &config.trust_domain)?;
        let (tracker, stop) = (TaskTracker::new(), CancellationToken::new());
        let audit = open_audit(&folder, &registry, &tracker)?;
        let (beacon, signer) = beacon(audit.clone());
        let control_address = control.local_addr()?;
        let broker = Arc::new(Broker {
            ledger: Ledger::start(store, registry, audit.clone(), &tracker),
            authority,
            audit: audit.clone(),
            beacon,
            presence: Presence::default(),
            refresher: Refresher::new(WebRoots::new(config.federation.ca_file.clone()), config.federation.bounds),
            ttls: Ttls { node: config.node_ttl, entry: config.svid_ttl },
            advertised: advertised(&config, control_address),
            control_address,
            tracker: tracker.clone(),
            stop: stop.clone(),
            joins: Joins::default(),
            signing: Signing::default(),
        });
        let slot = SvidSlot::new(broker.authority.own_svid(config.node_ttl, clock::now())?);
        let nodes = serve_nodes(&broker, control, Arc::clone(&slot))?;
        let operators = serve_operators(&broker, &config)?;
        let endpoint = config.federation.endpoint.clone();
        let bundle_endpoint =
            endpoint.map(|endpoint| serve_bundle(&broker, endpoint, Arc::clone(&slot))).transpose()?;
        let oidc = config.federation.oidc.clone().map(|oidc| serve_oidc(&broker, oidc)).transpose()?;
        tracker.spawn(Refresher::run(Arc::clone(&broker)));
        tracker.spawn(keep_signing_fresh(Arc::clone(&broker)));
        tracker.spawn(signer.run(Arc::clone(&broker)));
        tracker.spawn(keep_own_svid_fresh(broker, slot));
        let operator_socket = std::path::absolute(&config.operator_socket)?;
        tracing::info!(%control_address, operator_socket = %operator_socket.display(), trust_domain = %config.trust_domain, "ready");
        Ok(Self {
            control_address,
            operator_socket,
            bundle_endpoint,
            oidc,
            tracker,
            stop,
            audit,
            servers: vec![nodes, operators],
            _folder: folder,
        })
    }

    /// Where nodes are served.
    #[must_use]
    pub fn control_address(&self) -> SocketAddr {
        self.control_address
    }

    /// Where operators are served, as an absolute path.
    #[must_use]
    pub fn operator_socket(&self) -> &Path {
        &self.operator_socket
    }

    /// Where the bundle is served to foreign trust domains.
    #[must_use]
    pub fn bundle_endpoint(&self) -> Option<SocketAddr> {
        self.bundle_endpoint
    }

    /// Where OpenID Connect discovery is served.
    #[must_use]
    pub fn oidc(&self) -> Option<SocketAddr> {
        self.oidc
    }

    /// Serves until `shutdown`; then stops accepting, ends the streams, closes the store, within five seconds.
    pub async fn run(self, shutdown: CancellationToken) {
        shutdown.cancelled().await;
        tracing::info!("shutting down");
        self.stop.cancel();
        let aborts: Vec<_> = self.servers.iter().map(JoinHandle::abort_handle).collect();
        let servers = async {
            for server in self.servers {
                if let Ok(Err(error)) = server.await {
                    tracing::warn!(%error, "a server ended with an error");
                }
            }
        };
        if tokio::time::timeout(DRAIN, servers).await.is_err() {
            tracing::warn!("connections are still open; leaving them");
            aborts.iter().for_each(tokio::task::AbortHandle::abort);
        }
        if let Err(error @ Unaudited::Disk(_)) = self.audit.record(Event::Stopped).await {
            tracing::warn!(%error, "the audit log lacks the end of this run");
        }
        drop(self.audit);
        self.tracker.close();
        if tokio::time::timeout(CLOSE, self.tracker.wait()).await.is_err() {
            tracing::warn!("tasks are still running; leaving them");
        }
        // A socket that nobody serves only misleads; a leftover is replaced at the next start anyway.
        let _ = std::fs::remove_file(&self.operator_socket);
        tracing::info!("stopped");
    }
}

/// Opens the audit log; nothing is served without it.
fn open_audit(folder: &DataFolder, registry: &Registry, tracker: &TaskTracker) -> Result<AuditLog, StartError> {
    let version = registry.version().to_string();
    let beginning = Event::Begun { trust_domain: registry.trust_domain().to_string(), version: version.clone() };
    let audit = AuditLog::open(&folder.audit(), beginning, tracker)?;
    let software = env!("CARGO_PKG_VERSION").to_owned();
    audit.note(Event::Started { software, version });
    Ok(audit)
}

/// An address that nodes can dial; a listener on every interface has none.
fn advertised(config: &Config, listening: SocketAddr) -> String {
    config.advertise.as_ref().map_or_else(|| listening.to_string(), ToString::to_string)
}

type Serving = JoinHandle<Result<(), tonic::transport::Error>>;

fn serve_nodes(broker: &Arc<Broker>, control: TcpListener, slot: Arc<SvidSlot>) -> Result<Serving, StartError> {
    let bundle = broker.authority.bundle().clone();
    let rule = PeerRule::TrustDomain(bundle.trust_domain().clone());
    let trust = TrustBundles::new([bundle], clock::now()).into_source();
    let mut tls = server_config(PeerVerifier::new(trust, rule), slot, ClientAuth::Optional)?;
    tls.alpn_protocols = vec![b"h2".to_vec()];
    let stop = broker.stop.clone();
    let incoming = listener::incoming(control, tls, &broker.tracker, stop.clone());
    let service = NodeServer::new(NodeService(Arc::clone(broker))).max_decoding_message_size(MAX_NODE_MESSAGE);
    let server = Server::builder()
        .max_concurrent_streams(MAX_NODE_STREAMS)
        .http2_max_header_list_size(MAX_HEADERS)
        .http2_max_pending_accept_reset_streams(Some(MAX_RESET_STREAMS))
        .http2_max_local_error_reset_streams(Some(MAX_RESET_STREAMS))
        .http2_keepalive_interval(Some(KEEP_ALIVE))
        .http2_keepalive_timeout(Some(KEEP_ALIVE))
        .timeout(ANSWER_TIMEOUT)
        .add_service(service)
        .serve_with_incoming_shutdown(incoming, stop.cancelled_owned());
    Ok(broker.tracker.spawn(server))
}

fn serve_operators(broker: &Arc<Broker>, config: &Config) -> Result<Serving, StartError> {
    let socket = operator_socket::bind(&config.operator_socket)?;
    let allowed = AllowedUsers::own_and(config.operator_uids.iter().copied());
    let stop = broker.stop.clone();
    let incoming = operator_socket::incoming(socket, allowed, &broker.tracker, stop.clone());
    let service = OperatorServer::new(OperatorService(Arc::clone(broker))).max_decoding_message_size(MAX_MESSAGE_BYTES);
    let server = Server::builder().add_service(service).serve_with_incoming_shutdown(incoming, stop.cancelled_owned());
    Ok(broker.tracker.spawn(server))
}

async fn keep_signing_fresh(broker: Arc<Broker>) {
    while sleep_unless_stopped(&broker, LOOK_AFTER_SIGNING).await {
        match broker.authority.renew_signing(clock::now()) {
            Ok(SigningRenewal::NotDue) => {}
            Ok(SigningRenewal::Renewed) => tracing::info!("a new signing certificate is in use"),
            Err(error) => tracing::error!(%error, "the signing certificate was not renewed"),
        }
    }
}

async fn keep_own_svid_fresh(broker: Arc<Broker>, slot: Arc<SvidSlot>) {
    /// Nobody renews at the same time as the one broker, so the exact half-life will do.
    const NO_JITTER: f64 = 0.5;
    loop {
        // It came just now; its notBefore is backdated, by more than half of the shortest lifetimes.
        let now = clock::now();
        let wait = RenewalSchedule::new(now, slot.load().not_after(), NO_JITTER).wait(now);
        if !sleep_unless_stopped(&broker, wait).await {
            return;
        }
        loop {
            match broker.authority.own_svid(broker.ttls.node, clock::now()) {
                Ok(svid) => {
                    slot.store(svid);
                    tracing::info!("the broker's own certificate was renewed");
                    break;
                }
                Err(error) => tracing::error!(%error, "the broker's own certificate was not renewed"),
            }
            if !sleep_unless_stopped(&broker, RENEWAL_PAUSE).await {
                return;
            }
        }
    }
}

/// `false` once the broker stops.
async fn sleep_unless_stopped(broker: &Broker, wait: Duration) -> bool {
    tokio::select! {
        () = tokio::time::sleep(wait) => true,
        () = broker.stop.cancelled() => false,
    }
}
