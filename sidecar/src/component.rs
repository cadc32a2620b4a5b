//! The one virtual component of a running sidecar: joined, identified, and kept at what the broker last said.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use portcullis_client::WorkloadSource;
use portcullis_client::node::{
    Entry, Identity, Node, NodeConfig, NodeKind, NodeState, SealKeyError, ServedComponent, SignError, read_seal_key,
};
use portcullis_identity::{PeerVerifier, SealKey};
use portcullis_transport::quic::{BindError, Listener, QuicLimits};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, error, info, warn};

use crate::clock;
use crate::config::{Config, IdentitySection, LimitsSection, NodeSection};
use crate::daemon::{RunError, join_token};
use crate::gate::{Gate, Served};
use crate::lattice::Lattice;
use crate::local::Local;
use crate::meters::Meters;
use crate::upstream::Upstream;

/// How often age and expiry are looked at.
const LOOK: Duration = Duration::from_millis(500);
/// The wait before asking the broker again for the identity it refused.
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// The one virtual component of a running sidecar.
#[derive(Debug)]
pub(crate) struct Component {
    pub(crate) config: Config,
    pub(crate) node: Node,
    pub(crate) gate: Arc<Gate>,
    pub(crate) meters: Arc<Meters>,
    pub(crate) identity: Arc<Identity>,
    local: Local,
    /// What the gate was last opened with: a change of something else leaves every cached verdict alone.
    loaded: Mutex<Option<ServedComponent>>,
}

impl Component {
    /// Joins the broker and waits for the identity; the gate is closed still.
    pub(crate) async fn join(config: Config, tasks: &TaskTracker, stop: &CancellationToken) -> Result<Self, RunError> {
        let upstream = Upstream::open(&config.upstream).map_err(RunError::Configuration)?;
        let node = start_node(&config.node, tasks, stop).await?;
        // Before the component is registered: the service beside it may need an identity in order to start.
        let local = Local::start(&node, config.workload.as_ref(), &config.files, tasks, stop)?;
        let identity = identity(&node, &config, tasks, stop).await?;
        let meters = Meters::new();
        let gate = Arc::new(Gate::new(upstream, config.limits, Arc::clone(&meters), config.record_allowed));
        Ok(Self { node, gate, meters, identity, local, config, loaded: Mutex::default() })
    }

    pub(crate) fn listen(&self, verifier: Arc<PeerVerifier>) -> Result<Listener, BindError> {
        let slot = Arc::clone(self.identity.slot());
        Listener::bind(self.config.listen.quic, verifier, slot, quic_limits(&self.config.limits))
    }

    pub(crate) fn advertised(&self, quic: SocketAddr) -> Vec<String> {
        let advertise = &self.config.listen.advertise;
        if advertise.is_empty() { vec![quic.to_string()] } else { advertise.clone() }
    }

    pub(crate) fn view(
        self: &Arc<Self>,
        quic: SocketAddr,
        listener: Arc<Listener>,
        lattice: Option<Arc<Lattice>>,
    ) -> crate::status::Source {
        crate::status::Source {
            target: self.config.component.target.clone(),
            quic,
            node: self.node.clone(),
            identity: Arc::clone(&self.identity),
            gate: Arc::clone(&self.gate),
            meters: Arc::clone(&self.meters),
            connections: listener,
            local: self.local.clone(),
            lattice,
        }
    }

    /// Follows the broker, and closes the gate when what it holds grows too old.
    pub(crate) async fn keep_current(self: Arc<Self>, stop: CancellationToken) {
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
    pub(crate) fn load(&self) {
        let state = self.node.state().borrow().clone();
        let target = &self.config.component.target;
        if let Some(why) = self.too_old() {
            self.gate.close(why);
            return;
        }
        let Some(component) = state.served.get(target) else {
            warn!(%target, "not registered with this node: every call is refused");
            self.gate.close(format!("`{target}` is not registered with this node"));
            // Refusing everything is what this version asks for; whoever waits for the node to know a bundle waits no longer.
            self.node.applied(state.version);
            return;
        };
        let before = self.gate.served();
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        if before.is_some() && loaded.as_ref() == Some(component) {
            self.node.applied(state.version);
            return;
        }
        let built = Served::build(component, state.version, &self.gate.upstream, &self.meters, before.as_deref());
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
        if self.node.state().borrow().served.contains_key(&self.config.component.target) {
            self.load();
        }
    }

    fn too_old(&self) -> Option<String> {
        if let Some(why) = self.identity.lost() {
            return Some(format!("the component's identity is lost: {why}"));
        }
        if self.identity.svid().not_after() <= clock::now() {
            return Some("the component's SVID has expired".to_owned());
        }
        let (age, limit) = (self.node.state_age(), self.config.node.policy_max_age);
        (age > limit).then(|| format!("the policies are {} s old; the limit is {} s", age.as_secs(), limit.as_secs()))
    }
}

/// The node: by its certificate where it is configured, else by token or cache.
pub(crate) async fn start_node(
    section: &NodeSection,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) -> Result<Node, RunError> {
    let config = node_config(section)?;
    match &section.certificate {
        Some(files) => Ok(Node::start_with_certificate(config, &files.read()?, tasks, stop.clone()).await?),
        None => Ok(Node::start(config, tasks, stop.clone()).await?),
    }
}

fn node_config(node: &NodeSection) -> Result<NodeConfig, RunError> {
    Ok(NodeConfig {
        state_dir: node.state.clone(),
        kind: NodeKind::Sidecar,
        join_token: node.join_token_file.as_ref().map(join_token).transpose()?.flatten(),
        broker: node.broker.clone(),
        seal_key: seal_key(node)?,
    })
}

pub(crate) fn seal_key(node: &NodeSection) -> Result<Option<SealKey>, SealKeyError> {
    node.seal_key.as_ref().map(|place| read_seal_key(place, node.credentials.as_deref())).transpose()
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

/// Waits for the entry of the component and its SVID: from the broker, or from the Workload API that is configured.
async fn identity(
    node: &Node,
    config: &Config,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) -> Result<Arc<Identity>, RunError> {
    let target = &config.component.target;
    let mut state = node.state();
    loop {
        let entry = entry_of(&state.borrow_and_update(), config);
        if let Some(entry) = entry {
            if let Some(IdentitySection { workload_api }) = &config.identity {
                let source = WorkloadSource::start(workload_api, entry.spiffe_id, node, tasks, stop.clone()).await?;
                return Ok(source.identity());
            }
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
    state.entries.values().find(|entry| entry.spiffe_id == served.record.spiffe_id).cloned()
}
