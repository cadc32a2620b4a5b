//! The broker as a process: puts the pieces together, serves, and ends them in order.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use portcullis_admin::{Admin, AdminAddress};
use portcullis_api::MAX_MESSAGE_BYTES;
use portcullis_api::v1::node_server::NodeServer;
use portcullis_api::v1::operator_server::OperatorServer;
use portcullis_identity::{ClientAuth, PeerRule, PeerVerifier, SvidSlot, server_config};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::transport::Server;

use crate::admission::Complaints;
use crate::audit::{AuditLog, Event, OpenError as AuditError, Unaudited, Unserved};
use crate::authority::{Authority, AuthorityError, IssueError, KeyFolder};
use crate::beacon::beacon;
use crate::broker::{Broker, Joins, Ttls};
use crate::clock;
use crate::config::Config;
use crate::data_folder::{DataFolder, DataFolderError};
use crate::federation::{Refresher, WebRoots};
use crate::ledger::Ledger;
use crate::listener::{self, Judgement};
use crate::nats;
use crate::node_service::NodeService;
use crate::operator_service::OperatorService;
use crate::operator_socket::{self, AllowedUsers, SocketError};
use crate::own_svid::keep_own_svid_fresh;
use crate::pages::Pages;
use crate::presence::Presence;
use crate::published::{serve_bundle, serve_oidc};
use crate::registry::{Refusal, Registry, Version};
use crate::restore::surely_stored;
use crate::seal_key::{self, SealKeyError};
use crate::signing::Signing;
use crate::store::{CommitError, OpenError, Store};
use crate::succession::{self, EstablishError, Journal, Succession};
use crate::trust::Trust;
use crate::web::CertificateError;
use crate::x509pop::{Attestor, AttestorError};

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

/// Why the broker does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data folder.
    #[error(transparent)]
    DataFolder(#[from] DataFolderError),
    /// There is a store, and its authority is gone.
    #[error("the data folder `{}` has a store but the key of its CA is not in `ca`: a new one would be strange to every node; restore it from a backup", .0.display())]
    AuthorityLost(PathBuf),
    /// The key that its files are sealed with.
    #[error(transparent)]
    SealKey(#[from] SealKeyError),
    /// The certificate authority.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// The broker's own certificate.
    #[error("cannot make the broker's own certificate: {0}")]
    OwnSvid(#[from] IssueError),
    /// The store.
    #[error(transparent)]
    Store(#[from] OpenError),
    /// The store was put back from a backup.
    #[error(
        "the store is at version {store}, but the audit log tells of {log}: it is from a backup; make it a new incarnation with `portcullis-broker restore`"
    )]
    RolledBack {
        /// Its version.
        store: Version,
        /// What it was once.
        log: Version,
    },
    /// The store cannot be written.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// The audit log cannot be written.
    #[error(transparent)]
    Unaudited(#[from] Unaudited),
    /// The registry takes no new authority.
    #[error("no authority can be set up: {0}")]
    Refused(Refusal),
    /// The authorities whose certificates let nodes join.
    #[error(transparent)]
    Attestor(#[from] AttestorError),
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
    /// The lattice's servers.
    #[error(transparent)]
    Nats(#[from] nats::CheckError),
    /// The operator socket.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// The admin address.
    #[error("cannot open the admin address `{address}`: {cause}")]
    Admin {
        /// Which.
        address: AdminAddress,
        /// Why.
        cause: io::Error,
    },
    /// The TLS stack.
    #[error("cannot set up TLS: {0}")]
    Tls(#[from] rustls::Error),
    /// The listener or a file.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl StartError {
    fn of(error: EstablishError, data: &Path) -> Self {
        match error {
            EstablishError::Authority(error) => error.into(),
            EstablishError::Refused(refusal) => Self::Refused(refusal),
            EstablishError::Unaudited(error) => error.into(),
            EstablishError::Store(error) => error.into(),
            EstablishError::Lost => Self::AuthorityLost(data.to_owned()),
        }
    }
}

/// A broker that serves.
#[derive(Debug)]
pub struct Daemon {
    control_address: SocketAddr,
    operator_socket: PathBuf,
    admin: AdminAddress,
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
    if let Some(nats) = &config.nats {
        nats::check(nats).await?;
    }
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
        if folder.store().exists() && !KeyFolder::holds_keys(&folder.authority()) {
            return Err(StartError::AuthorityLost(config.data));
        }
        let seal =
            config.seal_key.as_ref().map(|place| seal_key::read(place, config.credentials.as_deref())).transpose()?;
        let keys = KeyFolder::open(&folder.authority(), seal, &config.trust_domain)?;
        let (store, mut registry) = Store::open(&folder.store(), &config.trust_domain)?;
        check_age(&folder, &registry)?;
        let mut audit = open_audit(&folder, &registry)?;
        let (now, lifetimes) = (clock::now(), config.lifetimes());
        let journal = Journal { audit: &mut audit, store: &store, registry: &mut registry };
        succession::establish(&keys, journal, lifetimes, now).map_err(|error| StartError::of(error, &config.data))?;
        let authority = Authority::open(keys, &registry.roster(), now)?;
        let own = SvidSlot::new(authority.own_svid(config.node_ttl, now)?);
        let (tracker, stop) = (TaskTracker::new(), CancellationToken::new());
        let audit = audit.serve(&tracker);
        let (beacon, signer) = beacon(audit.clone());
        let control_address = control.local_addr()?;
        let broker = Arc::new(Broker {
            trust: Arc::new(Trust::new(&registry, now)),
            roots_file: folder.bundle(),
            ledger: Ledger::start(store, registry, audit.clone(), &tracker),
            authority,
            succession: Succession::new(lifetimes),
            own,
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
            complaints: Complaints::default(),
            signing: Signing::default(),
            callout: std::sync::OnceLock::new(),
            admissions: Arc::default(),
            attestor: config.x509pop.as_ref().map(Attestor::open).transpose()?,
        });
        broker.publish_roots();
        if let Some(settings) = config.nats.clone() {
            nats::serve(&broker, settings, &folder.answers())?;
        }
        let nodes = serve_nodes(&broker, control)?;
        let operators = serve_operators(&broker, &config)?;
        let bundle_endpoint = config.federation.endpoint.clone().map(|at| serve_bundle(&broker, at)).transpose()?;
        let oidc = config.federation.oidc.clone().map(|oidc| serve_oidc(&broker, oidc)).transpose()?;
        tracker.spawn(Arc::clone(&broker).keep_succession());
        tracker.spawn(Arc::clone(&broker).keep_trust());
        tracker.spawn(Refresher::run(Arc::clone(&broker)));
        tracker.spawn(signer.run(Arc::clone(&broker)));
        let admin = serve_pages(&broker, &config.admin)?;
        tracker.spawn(keep_own_svid_fresh(broker));
        let operator_socket = std::path::absolute(&config.operator_socket)?;
        tracing::info!(%control_address, operator_socket = %operator_socket.display(), trust_domain = %config.trust_domain, "ready");
        Ok(Self {
            control_address,
            operator_socket,
            admin,
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

    /// Where `/live`, `/ready`, `/status` and `/metrics` are served.
    #[must_use]
    pub fn admin(&self) -> &AdminAddress {
        &self.admin
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

/// A store that was put back silently would undo revocations and removals, and every node would refuse it.
fn check_age(folder: &DataFolder, registry: &Registry) -> Result<(), StartError> {
    match surely_stored(&folder.audit()) {
        Some(log) if log > registry.version() => Err(StartError::RolledBack { store: registry.version(), log }),
        Some(_) | None => Ok(()),
    }
}

/// Opens the audit log; nothing is served without it.
fn open_audit(folder: &DataFolder, registry: &Registry) -> Result<Unserved, StartError> {
    let version = registry.version().to_string();
    let beginning = Event::Begun { trust_domain: registry.trust_domain().to_string(), version: version.clone() };
    let mut audit = AuditLog::open(&folder.audit(), beginning)?;
    let software = env!("CARGO_PKG_VERSION").to_owned();
    audit.record(&[Event::Started { software, version }])?;
    Ok(audit)
}

/// An address that nodes can dial; a listener on every interface has none.
fn advertised(config: &Config, listening: SocketAddr) -> String {
    config.advertise.as_ref().map_or_else(|| listening.to_string(), ToString::to_string)
}

type Serving = JoinHandle<Result<(), tonic::transport::Error>>;

fn serve_nodes(broker: &Arc<Broker>, control: TcpListener) -> Result<Serving, StartError> {
    let rule = PeerRule::TrustDomain(broker.authority.trust_domain().clone());
    let verifier = PeerVerifier::new(broker.trust.source(), rule);
    let mut tls = server_config(Arc::clone(&verifier), Arc::clone(&broker.own), ClientAuth::Optional)?;
    tls.alpn_protocols = vec![b"h2".to_vec()];
    let stop = broker.stop.clone();
    let judgement = Judgement { tls, verifier, changes: broker.trust.changes() };
    let incoming = listener::incoming(control, judgement, &broker.tracker, stop.clone());
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

fn serve_pages(broker: &Arc<Broker>, address: &AdminAddress) -> Result<AdminAddress, StartError> {
    let admin = Admin::open(address).map_err(|cause| StartError::Admin { address: address.clone(), cause })?;
    let bound = admin.address().clone();
    let pages = Arc::new(Pages::new(Arc::clone(broker)));
    broker.tracker.spawn(admin.serve(pages, broker.stop.clone()));
    Ok(bound)
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
