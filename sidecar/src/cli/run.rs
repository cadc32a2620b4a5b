use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{broken, complain, refused};
use crate::agent::{self, AgentBound};
use crate::config::Program;
use crate::daemon::{self, Bound, RunError};

/// Runs the sidecar until SIGTERM or SIGINT, then drains.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  portcullis-sidecar run --config billing.toml")]
pub(super) struct Run {
    /// The configuration file.
    #[arg(long, value_name = "FILE", default_value = "sidecar.toml")]
    config: PathBuf,
    /// Written once calls are served: JSON with the addresses and the process id.
    #[arg(long, value_name = "FILE")]
    ready_file: Option<PathBuf>,
}

#[derive(Serialize)]
struct Ready<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    quic: Option<SocketAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    workload_api: Option<&'a Path>,
    admin: &'a str,
    pid: u32,
}

impl<'a> Ready<'a> {
    fn new(quic: Option<SocketAddr>, workload_api: Option<&'a Path>, admin: &'a str) -> Self {
        Self { quic, workload_api, admin, pid: std::process::id() }
    }
}

impl Run {
    pub(super) async fn carry_out(self, credentials: Option<PathBuf>) -> ExitCode {
        let program = match Program::load(&self.config) {
            Ok(program) => program.with_credentials(credentials),
            Err(mistakes) => {
                mistakes.iter().for_each(|mistake| complain(&mistake.to_string()));
                return refused(&format!("`{}` has {} mistakes", self.config.display(), mistakes.len()));
            }
        };
        let shutdown = CancellationToken::new();
        let tasks = TaskTracker::new();
        let (Ok(mut terminate), Ok(mut interrupt)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
        else {
            return broken(&"cannot listen to signals");
        };
        let told = shutdown.clone();
        tasks.spawn(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            told.cancel();
        });
        let ready_file = self.ready_file;
        let ready = move |ready: &Ready<'_>| {
            if let Some(path) = &ready_file
                && let Err(error) = write_ready(path, ready)
            {
                complain(&format!("cannot write `{}`: {error}", path.display()));
            }
        };
        let ended = match program {
            Program::Sidecar(config) => {
                let socket = config.workload.as_ref().map(|workload| workload.socket.clone());
                let told = |bound: &Bound| ready(&Ready::new(Some(bound.quic), socket.as_deref(), &bound.admin));
                daemon::run(*config, shutdown, told).await
            }
            Program::Agent(config) => {
                let told = |bound: &AgentBound| ready(&Ready::new(None, bound.socket.as_deref(), &bound.admin));
                agent::run(*config, shutdown, told).await
            }
        };
        match ended {
            Ok(()) | Err(RunError::Stopped) => ExitCode::SUCCESS,
            Err(RunError::Configuration(mistakes)) => {
                mistakes.iter().for_each(|mistake| complain(&mistake.to_string()));
                refused(&"the configuration cannot be used")
            }
            Err(error) => broken(&error),
        }
    }
}

fn write_ready(path: &Path, ready: &Ready<'_>) -> std::io::Result<()> {
    let fresh = path.with_extension("new");
    std::fs::write(&fresh, serde_json::to_vec(ready)?)?;
    std::fs::rename(fresh, path)
}
