//! The agent: a node that gives identities to the machine it runs on and serves no component.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use portcullis_admin::{Admin, Observed};
use portcullis_client::node::{Connectivity, Node};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::info;

use crate::component::start_node;
use crate::config::AgentConfig;
use crate::daemon::RunError;
use crate::local::{Local, LocalStatus};

/// What an operator sees of a running agent.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AgentStatus {
    /// The node's SPIFFE ID.
    pub node_id: String,
    /// End of the node's own SVID, seconds since 1970.
    pub node_not_after: u64,
    /// `host:port`.
    pub broker: String,
    /// Why the broker is not heard, where it is not.
    pub broker_error: Option<String>,
    /// `incarnation.epoch` of what the broker told last.
    pub version: String,
    /// Seconds since the broker last confirmed it.
    pub state_age_seconds: u64,
    /// Identities, workloads, files.
    pub local: LocalStatus,
    /// This software's version.
    pub software: String,
}

/// Where a running agent is reached.
#[derive(Clone, Debug)]
pub struct AgentBound {
    /// The socket for workloads.
    pub socket: Option<PathBuf>,
    /// The admin address, as the configuration writes it.
    pub admin: String,
}

/// Runs until `shutdown`; `ready` is told the addresses once workloads can connect.
///
/// # Errors
/// [`RunError`], before anything is served.
pub async fn run(
    config: AgentConfig,
    shutdown: CancellationToken,
    ready: impl FnOnce(&AgentBound) + Send,
) -> Result<(), RunError> {
    let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
    let _stop_on_error = stop.clone().drop_guard();
    let node = tokio::select! {
        node = start_node(&config.node, &tasks, &stop) => node?,
        () = shutdown.cancelled() => return Err(RunError::Stopped),
    };
    let local = Local::start(&node, config.workload.as_ref(), &config.files, &tasks, &stop)?;
    if let Some(delegated) = &config.delegated {
        local.serve_delegated(delegated, &tasks, &stop)?;
    }
    let admin =
        Admin::open(&config.admin).map_err(|cause| RunError::Admin { address: config.admin.to_string(), cause })?;
    let socket = config.workload.as_ref().map(|workload| workload.socket.clone());
    let bound = AgentBound { socket, admin: admin.address().to_string() };
    let source = Arc::new(Source { node: node.clone(), local });
    tasks.spawn(admin.serve(source, stop.clone()));
    tasks.spawn(stop.clone().run_until_cancelled_owned(tell_applied(node.clone())));
    info!(id = %node.id(), "the agent runs");
    ready(&bound);
    shutdown.cancelled().await;
    stop.cancel();
    tasks.close();
    tasks.wait().await;
    Ok(())
}

/// Tells the broker which version is in force: every change is, at once.
async fn tell_applied(node: Node) {
    let mut state = node.state();
    loop {
        let version = state.borrow_and_update().version;
        node.applied(version);
        if state.changed().await.is_err() {
            return;
        }
    }
}

/// Where a reading comes from.
#[derive(Debug)]
struct Source {
    node: Node,
    local: Local,
}

impl Observed for Source {
    fn not_ready(&self) -> Option<String> {
        (!self.local.is_ready()).then(|| "the broker has not said which identities there are".to_owned())
    }

    fn metrics(&self) -> String {
        let LocalStatus { connections, streams, identities, .. } = self.local.status().unwrap_or_default();
        let connected = i32::from(*self.node.connectivity().borrow() == Connectivity::Connected);
        let ready = i32::from(self.not_ready().is_none());
        format!(
            "# TYPE portcullis_ready gauge\nportcullis_ready {ready}\n\
             # TYPE portcullis_broker_connected gauge\nportcullis_broker_connected {connected}\n\
             # TYPE portcullis_workload_connections gauge\nportcullis_workload_connections {connections}\n\
             # TYPE portcullis_workload_streams gauge\nportcullis_workload_streams {streams}\n\
             # TYPE portcullis_workload_identities gauge\nportcullis_workload_identities {}\n# EOF\n",
            identities.len()
        )
    }

    fn status(&self) -> Result<String, String> {
        let broker_error = match self.node.connectivity().borrow().clone() {
            Connectivity::Connected => None,
            Connectivity::Disconnected(why) => Some(why),
        };
        serde_json::to_string(&AgentStatus {
            node_id: self.node.id().to_string(),
            node_not_after: self.node.svid().not_after().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs(),
            broker: self.node.broker().to_owned(),
            broker_error,
            version: self.node.state().borrow().version.to_string(),
            state_age_seconds: self.node.state_age().as_secs(),
            local: self.local.status().unwrap_or_default(),
            software: env!("CARGO_PKG_VERSION").to_owned(),
        })
        .map_err(|error| error.to_string())
    }
}
