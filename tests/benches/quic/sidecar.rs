//! Sidecars: in this process, and as the program that operators start.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};
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

/// Brings the daemons up to date: `cargo bench` alone builds no binaries of other packages.
pub fn build() -> anyhow::Result<()> {
    let Some(cargo) = std::env::var_os("CARGO") else {
        // Started by hand: the harness says what is missing.
        return Ok(());
    };
    let mut build = Command::new(cargo);
    build
        .args(["build", "--quiet", "--release", "--workspace"])
        .args(["--bin", "portcullis-broker", "--bin", "portcullis-sidecar"])
        .arg("--target-dir")
        .arg(target());
    // What cargo says of this package would make build scripts that watch it run again, now and in the next build by hand.
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_")) {
            build.env_remove(name);
        }
    }
    let status = build.status()?;
    ensure!(status.success(), "the daemons do not build");
    Ok(())
}

/// The target folder this bench was built in.
pub fn target() -> PathBuf {
    let program = std::env::current_exe().expect("the path of this program");
    // TARGET/release/deps/quic-…
    program.ancestors().nth(3).expect("a target folder").to_owned()
}
