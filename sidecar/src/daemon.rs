//! The running sidecar: joins, takes its identity, listens, serves, drains.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use portcullis_admin::Admin;
use portcullis_client::SourceError;
use portcullis_client::lattice::LatticeError;
use portcullis_client::node::{CertificateFilesError, Identity, SealKeyError, SignError, StartError};
use portcullis_identity::{InvalidJoinToken, JoinToken, PeerRule, PeerVerifier};
use portcullis_transport::CloseReason;
use portcullis_transport::quic::{BindError, Listener};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{Instrument as _, debug, info, info_span, warn};

use crate::component::Component;
use crate::config::{Config, Mistake, UnreadCredentials};
use crate::connection::Connections;
use crate::lattice::{Lattice, LatticeListener};
use crate::meters::Meters;
use crate::workload::SocketError;

/// What the last answers get to reach their callers before connections close.
const LINGER: Duration = Duration::from_millis(100);

/// Why a sidecar does not run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The configuration or a file it names is wrong.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Configuration(Vec<Mistake>),
    /// The join token cannot be read.
    #[error("cannot read the join token `{path}`: {cause}")]
    TokenFile {
        /// Which file.
        path: String,
        /// Why.
        cause: io::Error,
    },
    /// The join token is not one.
    #[error("`{path}`: {cause}")]
    Token {
        /// Which file.
        path: String,
        /// Why.
        cause: InvalidJoinToken,
    },
    /// The certificate to join by cannot be used.
    #[error(transparent)]
    Certificate(#[from] CertificateFilesError),
    /// The key that seals the cache cannot be had.
    #[error(transparent)]
    SealKey(#[from] SealKeyError),
    /// The node does not start.
    #[error(transparent)]
    Node(#[from] StartError),
    /// The identity cannot be had.
    #[error("cannot get the component's identity: {0}")]
    Identity(#[from] SignError),
    /// The Workload API that is to give the identity does not.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The listener cannot be opened.
    #[error(transparent)]
    Listen(#[from] BindError),
    /// The admin socket cannot be opened.
    #[error("cannot open the admin address `{address}`: {cause}")]
    Admin {
        /// Which.
        address: String,
        /// Why.
        cause: io::Error,
    },
    /// The socket of the Workload API cannot be made.
    #[error(transparent)]
    Workload(#[from] SocketError),
    /// The component cannot be called over NATS.
    #[error(transparent)]
    Lattice(#[from] LatticeError),
    /// The credentials for NATS.
    #[error(transparent)]
    Credentials(#[from] UnreadCredentials),
    /// The system says no.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It was told to stop before it served.
    #[error("stopped before it could serve")]
    Stopped,
}

/// Where a running sidecar is reached.
#[derive(Clone, Debug)]
pub struct Bound {
    /// The QUIC listener.
    pub quic: SocketAddr,
    /// The admin address, as the configuration writes it.
    pub admin: String,
}

/// Runs until `shutdown`; `ready` is told the addresses once calls can be served.
///
/// # Errors
/// [`RunError`], before anything is served.
pub async fn run(
    config: Config,
    shutdown: CancellationToken,
    ready: impl FnOnce(&Bound) + Send,
) -> Result<(), RunError> {
    let tasks = TaskTracker::new();
    let stop = CancellationToken::new();
    let _stop_on_error = stop.clone().drop_guard();
    let component = tokio::select! {
        component = Component::join(config, &tasks, &stop) => Arc::new(component?),
        () = shutdown.cancelled() => return Err(RunError::Stopped),
    };
    let verifier = verifier(&component.identity);
    let listener = component.listen(Arc::clone(&verifier)).map(Arc::new)?;
    let quic = listener.local_addr()?;
    let admin = Admin::open(&component.config.admin)
        .map_err(|cause| RunError::Admin { address: component.config.admin.to_string(), cause })?;
    let bound = Bound { quic, admin: admin.address().to_string() };
    let calls = TaskTracker::new();
    let end = CancellationToken::new();
    let lattice = component.config.nats.as_ref().map(|_| Arc::<Lattice>::default());
    let on_lattice = lattice_listener(&component, lattice.as_ref())?;
    component.load();
    tasks.spawn(Arc::clone(&component).keep_current(stop.clone()));
    tasks.spawn(admin.serve(Arc::new(component.view(quic, Arc::clone(&listener), lattice)), stop.clone()));
    component.node.announce(component.config.component.target.clone(), component.advertised(quic)).await;
    info!(address = %quic, id = %component.identity.id(), "listening");
    ready(&bound);
    let connections = Connections {
        gate: Arc::clone(&component.gate),
        verifier,
        trust: component.identity.trust(),
        state: component.node.state(),
        end: end.clone(),
        tasks: calls.clone(),
    };
    tasks.spawn(accept(Arc::clone(&listener), connections, tasks.clone(), Arc::clone(&component.meters)));
    if let Some(on_lattice) = on_lattice {
        // A call of its own for the drain: it ends when the last call that came this way has.
        calls.spawn(on_lattice.run(calls.clone(), tasks.clone(), shutdown.clone(), end.clone()));
    }
    shutdown.cancelled().await;
    drain(&component, &listener, &calls, &end).await;
    stop.cancel();
    tasks.close();
    tasks.wait().await;
    Ok(())
}

fn lattice_listener(
    component: &Component,
    lattice: Option<&Arc<Lattice>>,
) -> Result<Option<LatticeListener>, RunError> {
    let (Some(section), Some(lattice)) = (&component.config.nats, lattice) else { return Ok(None) };
    let listener = LatticeListener::new(component, &section.settings()?, Arc::clone(lattice))?;
    Ok(Some(if section.plain_addresses { listener.with_plain_address() } else { listener }))
}

/// The token in a file; nothing where the file is gone, as it may be once the node has joined.
pub(crate) fn join_token(path: &PathBuf) -> Result<Option<JoinToken>, RunError> {
    let name = || path.display().to_string();
    match std::fs::read_to_string(path) {
        Ok(text) => text.trim().parse().map(Some).map_err(|cause| RunError::Token { path: name(), cause }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(cause) => Err(RunError::TokenFile { path: name(), cause }),
    }
}

/// Accepts every caller of the own trust domain and of those that the component's entry federates with. Why it refuses one is logged here:
/// the peer and the connection's error learn nothing.
fn verifier(identity: &Identity) -> Arc<PeerVerifier> {
    PeerVerifier::observed(identity.trust(), PeerRule::AnyTrusted, |refused| {
        info!(reason = %refused.reason(), "certificate refused");
    })
}

/// Ends when the listener is closed: a listener that drains turns newcomers away only while somebody accepts.
async fn accept(listener: Arc<Listener>, connections: Connections, tasks: TaskTracker, meters: Arc<Meters>) {
    while let Some(incoming) = listener.accept().await {
        let (connections, meters) = (connections.clone(), Arc::clone(&meters));
        tasks.spawn(async move {
            let span = info_span!("handshake", address = %incoming.remote_address());
            let trusted = connections.trusted();
            match incoming.handshake().instrument(span.clone()).await {
                Ok(connection) => connections.serve(connection, trusted).await,
                Err(refused) => {
                    meters.handshakes_refused.inc();
                    span.in_scope(|| info!(%refused, "handshake refused"));
                }
            }
        });
    }
}

/// Stops accepting, lets calls finish within their deadline, then closes what is left.
async fn drain(component: &Component, listener: &Listener, calls: &TaskTracker, end: &CancellationToken) {
    let deadline = component.gate.limits().drain_timeout;
    info!(calls = component.gate.quota.calls(), deadline_seconds = deadline.as_secs(), "draining");
    component.gate.drain();
    listener.drain();
    calls.close();
    match tokio::time::timeout(deadline, calls.wait()).await {
        // The last bytes of the last answers are on their way.
        Ok(()) => tokio::time::sleep(LINGER).await,
        Err(_) => warn!(calls = component.gate.quota.calls(), "calls did not finish in time"),
    }
    end.cancel();
    listener.close(CloseReason::Draining);
    if tokio::time::timeout(Duration::from_secs(1), listener.wait_idle()).await.is_err() {
        debug!("some callers did not acknowledge the end");
    }
}
