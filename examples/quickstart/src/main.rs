//! The README's first command: builds the daemons, starts them as separate processes with a small legacy service, runs a wasm component,
//! and shows what the gate does with its calls.
//!
//! It knows only what an operator knows: command lines, files, exit codes.

mod daemon;
mod scene;

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::{Context as _, ensure};
use clap::Parser;

/// Shows Portcullis at work: a component calls a legacy service, a call is refused, a policy changes, a certificate is renewed.
#[derive(Debug, Parser)]
struct Arguments {
    /// Stays up afterwards and prints the commands to try next; ends with Ctrl-C.
    #[arg(long)]
    stay: bool,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody is left to tell where standard error is closed.
            let _ = writeln!(std::io::stderr().lock(), "quickstart: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let binaries = build()?;
    let folder = tempfile::Builder::new().prefix("portcullis-").tempdir()?;
    let scene = scene::Scene::open(&binaries, folder.path())?;
    scene.play()?;
    if arguments.stay {
        scene.stay()?;
    }
    say("everything is stopped and removed")
}

/// Builds the daemons beside this program, and tells where they are.
fn build() -> anyhow::Result<PathBuf> {
    say("building the daemons (minutes the first time, seconds after)")?;
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/../../Cargo.toml");
    let mut build = Command::new(cargo);
    build.args(["build", "--release", "--workspace", "--bins", "--manifest-path", manifest]);
    // `cargo run` describes this package in the environment. Build scripts that watch those variables (ring's does) would run again in the
    // next build by hand, and half of the workspace with them.
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_")) {
            build.env_remove(name);
        }
    }
    let status = build.status().context("cannot run cargo")?;
    ensure!(status.success(), "the build failed");
    let own = std::env::current_exe()?;
    Ok(own.parent().context("this program is in no folder")?.to_owned())
}

/// One line of the account.
fn say(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}")?;
    Ok(out.flush()?)
}
