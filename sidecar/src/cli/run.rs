use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{broken, complain, refused};
use crate::config::Config;
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
    quic: std::net::SocketAddr,
    admin: &'a str,
    pid: u32,
}

impl Run {
    pub(super) async fn carry_out(self, credentials: Option<PathBuf>) -> ExitCode {
        let config = match Config::load(&self.config) {
            Ok(config) => Config { credentials, ..config },
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
        let ready = move |bound: &Bound| {
            if let Some(path) = &ready_file
                && let Err(error) = write_ready(path, bound)
            {
                complain(&format!("cannot write `{}`: {error}", path.display()));
            }
        };
        match daemon::run(config, shutdown, ready).await {
            Ok(()) | Err(RunError::Stopped) => ExitCode::SUCCESS,
            Err(RunError::Configuration(mistakes)) => {
                mistakes.iter().for_each(|mistake| complain(&mistake.to_string()));
                refused(&"the configuration cannot be used")
            }
            Err(error) => broken(&error),
        }
    }
}

fn write_ready(path: &std::path::Path, bound: &Bound) -> std::io::Result<()> {
    let ready = Ready { quic: bound.quic, admin: &bound.admin, pid: std::process::id() };
    let fresh = path.with_extension("new");
    std::fs::write(&fresh, serde_json::to_vec(&ready)?)?;
    std::fs::rename(fresh, path)
}
