//! The running sidecar: joins, takes its identity, listens, serves, drains.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use portcullis_client::node::{
    Entry, Identity, Node, NodeConfig, NodeKind, NodeState, ServedComponent, SignError, StartError,
};
use portcullis_identity::{InvalidJoinToken, JoinToken, PeerRule, PeerVerifier};
use portcullis_transport::CloseReason;
use portcullis_transport::quic::{BindError, Listener, QuicLimits};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{Instrument as _, debug, error, info, info_span, warn};

use crate::admin::Admin;
use crate::clock;
use crate::config::{Config, LimitsSection, Mistake};
use crate::connection::Connections;
use crate::gate::{Gate, Served};
use crate::meters::Meters;
use crate::upstream::Upstream;

/// How often age and expiry are looked at.
const LOOK: Duration = Duration::from_millis(500);
/// The wait before asking the broker again for the identity it refused.
const ASK_AGAIN: Duration = Duration::from_secs(1);
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
    /// The node does not start.
    #[error(transparent)]
    Node(#[from] StartError),
    /// The identity cannot be had.
    #[error("cannot get the component's identity: {0}")]
    Identity(#[from] SignError),
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

/// The one virtual component of a running sidecar.
#[derive(Debug)]
struct Component {
    config: Config,
    node: Node,
    gate: Arc<Gate>,
    meters: Arc<Meters>,
    identity: Arc<Identity>,
    /// What the gate was last opened with: a change of something else leaves every cached verdict alone.
    loaded: Mutex<Option<ServedComponent>>,
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
    let verifier = verifier(&component.node);
    let listener = component.listen(Arc::clone(&verifier)).map(Arc::new)?;
    let quic = listener.local_addr()?;
    let admin = Admin::open(&component.config.admin)
        .await
        .map_err(|cause| RunError::Admin {
            address: Admin::name(&component.config.admin),
            cause,
        })?;
    let bound = Bound {
        quic,
        admin: admin.address(),
    };
    let calls = TaskTracker::new();
    let end = CancellationToken::new();
    component.load();
    tasks.spawn(Arc::clone(&component).keep_current(stop.clone()));
    tasks.spawn(admin.serve(component.view(quic, Arc::clone(&listener)), stop.clone()));
    component
        .node
        .announce(component.config.component.target.clone(), component.advertised(quic))
        .await;
    info!(address = %quic, id = %component.identity.id(), "listening");
    ready(&bound);
    let connections = Connections {
        gate: Arc::clone(&component.gate),
        verifier,
        trust: component.node.trust(),
        state: component.node.state(),
        end: end.clone(),
        tasks: calls.clone(),
    };
    tasks.spawn(accept(
        Arc::clone(&listener),
        connections,
        tasks.clone(),
        Arc::clone(&component.meters),
    ));
    shutdown.cancelled().await;
    drain(&component, &listener, &calls, &end).await;
    stop.cancel();
    tasks.close();
    tasks.wait().await;
    Ok(())
}

fn node_config(config: &Config) -> Result<NodeConfig, RunError> {
    Ok(NodeConfig {
        state_dir: config.node.state.clone(),
        kind: NodeKind::Sidecar,
        join_token: config
            .node
            .join_token_file
            .as_ref()
            .map(join_token)
            .transpose()?
            .flatten(),
        broker: config.node.broker.clone(),
    })
}

/// The token in a file; nothing where the file is gone, as it may be once the node has joined.
pub(crate) fn join_token(path: &PathBuf) -> Result<Option<JoinToken>, RunError> {
    let name = || path.display().to_string();
    match std::fs::read_to_string(path) {
        Ok(text) => text
            .trim()
            .parse()
            .map(Some)
            .map_err(|cause| RunError::Token { path: name(), cause }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(cause) => Err(RunError::TokenFile { path: name(), cause }),
    }
}

/// Accepts every caller of a trusted domain. Why it refuses one is logged here: the peer and the connection's error learn nothing.
fn verifier(node: &Node) -> Arc<PeerVerifier> {
    PeerVerifier::observed(node.trust(), PeerRule::AnyTrusted, |refused| {
        info!(reason = %refused.reason(), "certificate refused");
    })
}

fn quic_limits(limits: &LimitsSection) -> QuicLimits {
    // Room for more streams than calls: what is over the limit is refused visibly instead of waiting in the client.
    let streams = u32::try_from(limits.calls_per_peer.saturating_add(64)).unwrap_or(u32::MAX);
    QuicLimits {
        connections: limits.connections,
        handshakes_per_second: u32::try_from(limits.connections_per_second).unwrap_or(u32::MAX),
        streams,
        ..QuicLimits::default()
    }
}

/// Waits for the entry of the component and its SVID.
async fn identity(node: &Node, config: &Config) -> Result<Arc<Identity>, RunError> {
    let target = &config.component.target;
    let mut state = node.state();
    loop {
        let entry = entry_of(&state.borrow_and_update(), config);
        if let Some(entry) = entry {
            match node.identity(&entry, "").await {
                Ok(identity) => return Ok(identity),
                Err(error @ (SignError::Refused(_) | SignError::Offline)) => warn!(%error, %target, "no identity yet"),
                Err(error @ SignError::Unusable(_)) => return Err(error.into()),
            }
            tokio::time::sleep(ASK_AGAIN).await;
            continue;
        }
        info!(%target, node = %node.id(), "waiting for the component to be registered with this node");
        if state.changed().await.is_err() {
            return Err(RunError::Stopped);
        }
    }
}

fn entry_of(state: &NodeState, config: &Config) -> Option<Entry> {
    let served = state.served.get(&config.component.target)?;
    state
        .entries
        .values()
        .find(|entry| entry.spiffe_id == served.record.spiffe_id)
        .cloned()
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
    info!(
        calls = component.gate.quota.calls(),
        deadline_seconds = deadline.as_secs(),
        "draining"
    );
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
    if tokio::time::timeout(Duration::from_secs(1), listener.wait_idle())
        .await
        .is_err()
    {
        debug!("some callers did not acknowledge the end");
    }
}

impl Component {
    /// Joins the broker and waits for the identity; the gate is closed still.
    async fn join(config: Config, tasks: &TaskTracker, stop: &CancellationToken) -> Result<Self, RunError> {
        let upstream = Upstream::open(&config.upstream).map_err(RunError::Configuration)?;
        let node = Node::start(node_config(&config)?, tasks, stop.clone()).await?;
        let identity = identity(&node, &config).await?;
        let meters = Meters::new();
        let gate = Arc::new(Gate::new(
            upstream,
            config.limits,
            Arc::clone(&meters),
            config.record_allowed,
        ));
        Ok(Self {
            node,
            gate,
            meters,
            identity,
            config,
            loaded: Mutex::default(),
        })
    }

    fn listen(&self, verifier: Arc<PeerVerifier>) -> Result<Listener, BindError> {
        let slot = Arc::clone(self.identity.slot());
        Listener::bind(
            self.config.listen.quic,
            verifier,
            slot,
            quic_limits(&self.config.limits),
        )
    }

    fn advertised(&self, quic: SocketAddr) -> Vec<String> {
        let advertise = &self.config.listen.advertise;
        if advertise.is_empty() {
            vec![quic.to_string()]
        } else {
            advertise.clone()
        }
    }

    fn view(self: &Arc<Self>, quic: SocketAddr, listener: Arc<Listener>) -> crate::status::Source {
        crate::status::Source {
            target: self.config.component.target.clone(),
            quic,
            node: self.node.clone(),
            identity: Arc::clone(&self.identity),
            gate: Arc::clone(&self.gate),
            meters: Arc::clone(&self.meters),
            connections: listener,
        }
    }

    /// Follows the broker, and closes the gate when what it holds grows too old.
    async fn keep_current(self: Arc<Self>, stop: CancellationToken) {
        let mut state = self.node.state();
        state.mark_changed();
        loop {
            tokio::select! {
                changed = state.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    state.mark_unchanged();
                    self.load();
                }
                () = tokio::time::sleep(LOOK) => self.check_age(),
                () = stop.cancelled() => return,
            }
        }
    }

    /// Puts the broker's word into force, or says why it cannot be.
    fn load(&self) {
        let state = self.node.state().borrow().clone();
        let target = &self.config.component.target;
        if let Some(why) = self.too_old() {
            self.gate.close(why);
            return;
        }
        let Some(component) = state.served.get(target) else {
            warn!(%target, "not registered with this node: every call is refused");
            self.gate.close(format!("`{target}` is not registered with this node"));
            return;
        };
        let before = self.gate.served();
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        if before.is_some() && loaded.as_ref() == Some(component) {
            self.node.applied(state.version);
            return;
        }
        let built = Served::build(
            component,
            state.version,
            &self.gate.upstream,
            &self.meters,
            before.as_deref(),
        );
        match built {
            Ok(served) => {
                self.gate.serve_from_now(served);
                *loaded = Some(component.clone());
                self.node.applied(state.version);
                debug!(version = %state.version, policies = component.policies.len(), "policies in force");
            }
            Err(error) => {
                error!(%target, %error, "every call is refused");
                self.gate.close(error.to_string());
            }
        }
    }

    fn check_age(&self) {
        match (self.too_old(), self.gate.served().is_some()) {
            (Some(why), true) => {
                error!(why, "every call is refused");
                self.gate.close(why);
            }
            (Some(why), false) => self.gate.close(why),
            (None, false) => self.load_again(),
            (None, true) => {}
        }
    }

    /// After the reason for closing has gone.
    fn load_again(&self) {
        if self
            .node
            .state()
            .borrow()
            .served
            .contains_key(&self.config.component.target)
        {
            self.load();
        }
    }

    fn too_old(&self) -> Option<String> {
        if self.identity.svid().not_after() <= clock::now() {
            return Some("the component's SVID has expired".to_owned());
        }
        let (age, limit) = (self.node.state_age(), self.config.node.policy_max_age);
        (age > limit).then(|| {
            format!(
                "the policies are {} s old; the limit is {} s",
                age.as_secs(),
                limit.as_secs()
            )
        })
    }
}
