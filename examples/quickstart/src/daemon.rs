//! Processes: started, waited for, ended by their own id.

use std::ffi::OsStr;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, kill_process};

/// How often a file or a process is looked at.
const LOOK: Duration = Duration::from_millis(20);
/// How many looks until we give up: 30 s.
const LOOKS: u32 = 1500;

/// A running daemon, ended on drop.
#[derive(Debug)]
pub(crate) struct Daemon {
    child: Child,
    /// What it wrote once it was ready.
    pub(crate) ready: serde_json::Value,
}

impl Daemon {
    /// Starts a program that takes `--ready-file` and waits until it is ready. Its log is `NAME.log` in the folder.
    pub(crate) fn start(program: &Path, folder: &Path, name: &str, arguments: &[&OsStr]) -> anyhow::Result<Self> {
        let ready = folder.join(format!("{name}.ready"));
        let log = folder.join(format!("{name}.log"));
        let file = File::create(&log)?;
        let child = Command::new(program)
            .args(arguments)
            .arg("--ready-file")
            .arg(&ready)
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        let mut daemon = Self { child, ready: serde_json::Value::Null };
        daemon.ready = daemon.wait_ready(&ready, &log).with_context(|| format!("{name} does not come up"))?;
        Ok(daemon)
    }

    fn wait_ready(&mut self, ready: &PathBuf, log: &Path) -> anyhow::Result<serde_json::Value> {
        for _ in 0..LOOKS {
            if let Some(status) = self.child.try_wait()? {
                let log = std::fs::read_to_string(log).unwrap_or_default();
                bail!("it ended with {status}:\n{log}");
            }
            if let Ok(bytes) = std::fs::read(ready) {
                return Ok(serde_json::from_slice(&bytes)?);
            }
            std::thread::sleep(LOOK);
        }
        bail!("nothing within 30 s")
    }

    /// A string of the ready file.
    pub(crate) fn told(&self, key: &str) -> anyhow::Result<&str> {
        self.ready.get(key).and_then(serde_json::Value::as_str).with_context(|| format!("the ready file lacks `{key}`"))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            // Fails only where it has ended already.
            let _ = kill_process(pid, Signal::TERM);
        }
        for _ in 0..LOOKS {
            match self.child.try_wait() {
                Ok(None) => std::thread::sleep(LOOK),
                Ok(Some(_)) | Err(_) => return,
            }
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
