//! What a sidecar holds in memory before its first call.

use std::time::Duration;

use anyhow::Context as _;

use crate::options::Options;
use crate::report::Report;
use crate::scene::Scene;

/// Reads the resident memory of the sidecar processes, once they have come to rest.
pub fn measure(scene: &Scene, options: &Options, report: &mut Report) -> anyhow::Result<()> {
    if !options.quick {
        std::thread::sleep(Duration::from_secs(2));
    }
    for (kind, process) in &scene.processes {
        report.idle_rss_mb.push((kind, resident_mb(process.pid())?));
    }
    Ok(())
}

fn resident_mb(pid: u32) -> anyhow::Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib: f64 = line.and_then(|line| line.trim().strip_suffix(" kB")).context("no VmRSS in /proc")?.parse()?;
    Ok(kib * 1024.0 / 1e6)
}
