//! Sidecars: in this process, and as the program that operators start.

use std::path::Path;

use anyhow::Context as _;
use portcullis_sidecar::config::Config;
use portcullis_sidecar::daemon::{self, Bound, RunError};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// A sidecar on the bench's own runtime.
pub struct Inside {
    pub bound: Bound,
    running: JoinHandle<Result<(), RunError>>,
    stop: CancellationToken,
}

impl Inside {
    pub fn start(runtime: &Runtime, config: &Path) -> anyhow::Result<Self> {
        let config = Config::load(config)
            .map_err(|mistakes| anyhow::anyhow!("{mistakes:?}"))
            .context("the sidecar's configuration")?;
        let stop = CancellationToken::new();
        let (told, bound) = tokio::sync::oneshot::channel();
        let running = runtime.spawn(daemon::run(config, stop.clone(), move |bound| {
            // Waited for below.
            let _ = told.send(bound.clone());
        }));
        let bound = runtime.block_on(bound).context("the sidecar did not start")?;
        Ok(Self { bound, running, stop })
    }

    pub fn stop(self, runtime: &Runtime) {
        self.stop.cancel();
        runtime.block_on(self.running).unwrap().unwrap();
    }
}
