//! What a node gives to its own machine: identities over the Workload API, and as files.

use std::path::PathBuf;
use std::time::UNIX_EPOCH;

use portcullis_client::node::Node;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::info;

use crate::files::{Files, FilesConfig, FilesStatus};
use crate::supply::Supply;
use crate::workload::{SocketError, WorkloadApi, WorkloadConfig, delegated};

/// How it is, for the operator's eyes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocalStatus {
    /// The socket of the Workload API, where it is served.
    pub socket: Option<String>,
    /// Connections of workloads.
    pub connections: usize,
    /// Their open streams.
    pub streams: usize,
    /// What may be handed out.
    pub identities: Vec<IdentityStatus>,
    /// Sets of files.
    pub files: Vec<FilesStatus>,
}

/// One identity that may be handed out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdentityStatus {
    /// The broker's name for its entry.
    pub entry: String,
    /// The SPIFFE ID.
    pub spiffe_id: String,
    /// What is demanded of a workload.
    pub selectors: Vec<String>,
    /// Which of several identities it is.
    pub hint: String,
    /// End of the SVID in force, seconds since 1970; nothing where there is none yet.
    pub not_after: Option<u64>,
}

/// The local services of a node.
#[derive(Clone, Debug)]
pub(crate) struct Local {
    /// Nothing where neither socket nor files are configured: then no SVID is taken for them.
    supply: Option<Supply>,
    api: Option<(PathBuf, WorkloadApi)>,
    files: Files,
}

impl Local {
    /// Starts what is configured; it ends with `stop`.
    ///
    /// # Errors
    /// When the socket cannot be made.
    pub(crate) fn start(
        node: &Node,
        workload: Option<&WorkloadConfig>,
        files: &[FilesConfig],
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) -> Result<Self, SocketError> {
        if workload.is_none() && files.is_empty() {
            return Ok(Self { supply: None, api: None, files: Files::default() });
        }
        let listener = workload.map(|config| WorkloadApi::bind(config).map(|listener| (config, listener)));
        let named = files.iter().map(|files| files.spiffe_id.clone()).collect();
        let listener = listener.transpose()?;
        let logins = workload.map(|config| config.login_audiences.iter().cloned().collect()).unwrap_or_default();
        let supply = Supply::start(node, named, logins, tasks, stop);
        let api = listener.map(|(config, listener)| {
            info!(socket = %config.socket.display(), "the workload API is served");
            (config.socket.clone(), WorkloadApi::serve(listener, config, supply.clone(), tasks, stop))
        });
        let files = Files::keep(files.to_vec(), &supply, tasks, stop);
        Ok(Self { supply: Some(supply), api, files })
    }

    /// Lets wasmCloud hosts fetch identities for their components, until `stop`. Without identities of their own there are no hosts.
    ///
    /// # Errors
    /// When the socket cannot be made.
    pub(crate) fn serve_delegated(
        &self,
        config: &WorkloadConfig,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) -> Result<(), SocketError> {
        if let Some(supply) = &self.supply {
            let listener = delegated::bind(config)?;
            info!(socket = %config.socket.display(), "hosts may fetch identities for their components");
            delegated::serve(listener, config, supply.clone(), tasks, stop);
        }
        Ok(())
    }

    /// How it is; nothing where nothing is configured.
    pub(crate) fn status(&self) -> Option<LocalStatus> {
        let snapshot = self.supply.as_ref()?.current();
        let held = snapshot.as_ref().map(|snapshot| snapshot.held()).unwrap_or_default();
        let identities = held.iter().map(|held| IdentityStatus {
            entry: held.entry.id.clone(),
            spiffe_id: held.entry.spiffe_id.to_string(),
            selectors: held.entry.selectors.iter().cloned().collect(),
            hint: held.entry.hint.clone(),
            not_after: held
                .svid
                .as_ref()
                .map(|svid| svid.not_after().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()),
        });
        let (socket, api) = self.api.as_ref().map(|(socket, api)| (socket.display().to_string(), api)).unzip();
        Some(LocalStatus {
            socket,
            connections: api.map_or(0, WorkloadApi::connections),
            streams: api.map_or(0, WorkloadApi::streams),
            identities: identities.collect(),
            files: self.files.status(),
        })
    }

    /// Whether the broker has said which identities there are.
    pub(crate) fn is_ready(&self) -> bool {
        self.supply.as_ref().is_none_or(|supply| supply.current().is_some())
    }
}

impl LocalStatus {
    /// Lines for people: name and value.
    pub(crate) fn rows(&self, left: impl Fn(u64) -> String) -> Vec<(&'static str, String)> {
        let left = |not_after: Option<u64>| not_after.map_or_else(|| "no svid yet".to_owned(), &left);
        let mut rows = Vec::new();
        if let Some(socket) = &self.socket {
            rows.push(("workloads", format!("{socket} ({} connections, {} streams)", self.connections, self.streams)));
        }
        for identity in &self.identities {
            let IdentityStatus { spiffe_id, selectors, hint, not_after, .. } = identity;
            let hint = if hint.is_empty() { String::new() } else { format!(" hint {hint}") };
            let demands = if selectors.is_empty() { "files alone".to_owned() } else { selectors.join(" ") };
            rows.push(("entry", format!("{spiffe_id} ({}){hint}: {demands}", left(*not_after))));
        }
        for files in &self.files {
            let FilesStatus { folder, spiffe_id, not_after, error } = files;
            let state = error.as_ref().map_or_else(|| left(*not_after), |error| format!("not in force: {error}"));
            rows.push(("files", format!("{folder} {spiffe_id} ({state})")));
        }
        rows
    }
}
