//! What every benchmark ends with: promises kept or missed, and rows in a file; and how it begins: with daemons that are up to date.

use std::fmt;
use std::path::PathBuf;
use std::process::Command;

use anyhow::ensure;
use serde_json::Value;

use crate::options::Options;

/// One promise: a value and what it may be at most or must be at least.
#[derive(Debug)]
pub struct Target {
    what: String,
    unit: &'static str,
    value: f64,
    bound: Bound,
}

#[derive(Clone, Copy, Debug)]
enum Bound {
    AtMost(f64),
    AtLeast(f64),
}

impl Target {
    pub fn at_most(what: impl Into<String>, unit: &'static str, value: f64, most: f64) -> Self {
        Self { what: what.into(), unit, value, bound: Bound::AtMost(most) }
    }

    pub fn at_least(what: impl Into<String>, unit: &'static str, value: f64, least: f64) -> Self {
        Self { what: what.into(), unit, value, bound: Bound::AtLeast(least) }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (met, words, bound) = match self.bound {
            Bound::AtMost(most) => (self.value <= most, "at most", most),
            Bound::AtLeast(least) => (self.value >= least, "at least", least),
        };
        let verdict = if met { "met   " } else { "MISSED" };
        write!(
            f,
            "{verdict} {:<58} {:>10.2} {}, {words} {bound:.2} ({:.2})",
            self.what,
            self.value,
            self.unit,
            self.value / bound
        )
    }
}

/// Writes the rows as JSON to `portcullis-bench/NAME.json` in the target folder (`NAME-quick.json` of a smoke run).
#[expect(clippy::print_stdout, reason = "says where the file is")]
pub fn write(name: &str, rows: &[Value], options: &Options) -> anyhow::Result<()> {
    let file = if options.quick { format!("{name}-quick.json") } else { format!("{name}.json") };
    let folder = target().join("portcullis-bench");
    std::fs::create_dir_all(&folder)?;
    let path = folder.join(file);
    std::fs::write(&path, serde_json::to_vec_pretty(rows)?)?;
    println!("\nwritten to {}", path.display());
    Ok(())
}

/// The smallest value that is not below the share `at` of all.
pub fn percentile(values: &mut [f64], at: f64) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    let rank = (values.len() as f64 * at).ceil() as usize;
    values[rank.clamp(1, values.len()) - 1]
}

/// To thousandths: what is finer is noise.
pub fn rounded(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
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
    // TARGET/release/deps/NAME-…
    program.ancestors().nth(3).expect("a target folder").to_owned()
}
