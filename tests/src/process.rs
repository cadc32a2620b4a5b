use std::ffi::OsStr;
use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::eventually;

/// A daemon as a process of its own, its log in a file. Killed on drop, by its own process id.
#[derive(Debug)]
pub struct Daemon {
    name: String,
    child: Child,
    log: PathBuf,
    /// What it wrote into its ready file.
    pub ready: serde_json::Value,
}

/// A program of this workspace, built beside this test.
pub fn binary(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let path = test.parent().unwrap().parent().unwrap().join(name);
    assert!(path.exists(), "{} is not built: run `cargo build --release --workspace` first", path.display());
    path
}

/// What a folder's daemons log: as its file `log-level` says, else as the environment.
fn log_level(folder: &Path) -> String {
    let said = std::fs::read_to_string(folder.join("log-level")).ok().or_else(|| std::env::var("PORTCULLIS_LOG").ok());
    said.unwrap_or_else(|| "info".to_owned())
}

impl Daemon {
    /// Starts a program with `--ready-file` and waits until it is ready.
    pub fn start(folder: &Path, name: &str, program: &str, arguments: &[&OsStr]) -> Self {
        Self::start_in(folder, name, program, arguments, &[])
    }

    /// The same, with more in its environment.
    pub fn start_in(folder: &Path, name: &str, program: &str, arguments: &[&OsStr], more: &[(String, String)]) -> Self {
        let mut daemon = Self::launch_in(folder, name, program, arguments, more);
        daemon.wait_ready(folder);
        daemon
    }

    /// Starts a program and does not wait.
    pub fn launch(folder: &Path, name: &str, program: &str, arguments: &[&OsStr]) -> Self {
        Self::launch_in(folder, name, program, arguments, &[])
    }

    fn launch_in(folder: &Path, name: &str, program: &str, arguments: &[&OsStr], more: &[(String, String)]) -> Self {
        let ready = folder.join(format!("{name}.ready"));
        // A file of an earlier run would be believed.
        let _ = std::fs::remove_file(&ready);
        let log = folder.join(format!("{name}.log"));
        let file = File::options().create(true).append(true).open(&log).unwrap();
        let child = Command::new(binary(program))
            .args(arguments)
            .arg("--ready-file")
            .arg(&ready)
            .env("PORTCULLIS_LOG", log_level(folder))
            .envs(more.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(file.try_clone().unwrap())
            .stderr(file)
            .spawn()
            .unwrap();
        Self { name: name.to_owned(), child, log, ready: serde_json::Value::Null }
    }

    /// Starts a program that is not ours, with the input that it was given, and does not wait.
    pub fn foreign(folder: &Path, name: &str, command: &mut Command) -> Self {
        let log = folder.join(format!("{name}.log"));
        let file = File::options().create(true).append(true).open(&log).unwrap();
        let child = command.stdout(file.try_clone().unwrap()).stderr(file).spawn().unwrap();
        Self { name: name.to_owned(), child, log, ready: serde_json::Value::Null }
    }

    /// Waits until a launched daemon is ready.
    pub fn wait_ready(&mut self, folder: &Path) {
        let ready = folder.join(format!("{}.ready", self.name));
        self.ready = eventually(&format!("{} to be ready", self.name), || {
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("{} ended with {status}:\n{}", self.name, self.log());
            }
            serde_json::from_slice(&std::fs::read(&ready).ok()?).ok()
        });
    }

    /// Everything it has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Waits until a line of the log holds all of `words`, and returns it.
    pub fn logged(&self, words: &[&str]) -> String {
        eventually(&format!("{words:?} in the log of {}", self.name), || {
            self.log().lines().find(|line| words.iter().all(|word| line.contains(word))).map(str::to_owned)
        })
    }

    /// SIGKILL, as a power cut would.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// SIGTERM.
    pub fn terminate(&self) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        kill_process(pid, Signal::TERM).unwrap();
    }

    /// Waits for its end.
    pub fn wait(&mut self) -> ExitStatus {
        let (name, child) = (self.name.clone(), &mut self.child);
        eventually(&format!("{name} to end"), || child.try_wait().unwrap())
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has run so far, user and system, in seconds.
    pub fn ran(&self) -> f64 {
        cpu_seconds(self.child.id())
    }

    /// What it takes of the machine's memory.
    pub fn memory(&self) -> Memory {
        memory(&self.child.id().to_string())
    }

    /// An address of its ready file.
    pub fn address(&self, key: &str) -> SocketAddr {
        self.ready[key].as_str().unwrap().parse().unwrap()
    }
}

/// What the kernel charged a process so far, user and system.
pub fn cpu_seconds(pid: u32) -> f64 {
    /// `USER_HZ`, which is 100 on every Linux.
    const TICKS: f64 = 100.0;
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    // After the name, which may hold anything, comes field 3; utime is field 14, stime 15.
    let fields = stat.rsplit_once(')').unwrap().1.split_ascii_whitespace();
    fields.skip(11).take(2).map(|ticks| ticks.parse::<f64>().unwrap()).sum::<f64>() / TICKS
}

/// Resident memory of a process, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    pub now: u64,
    pub peak: u64,
}

/// Reads `/proc/PID/status`; `self` is this process.
pub fn memory(pid: &str) -> Memory {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let kilobytes = |key: &str| -> u64 {
        let line = status.lines().find(|line| line.starts_with(key)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    Memory { now: kilobytes("VmRSS:") << 10, peak: kilobytes("VmHWM:") << 10 }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let log = self.log();
            let tail: Vec<_> = log.lines().rev().take(25).collect();
            let tail = tail.into_iter().rev().collect::<Vec<_>>().join("\n");
            eprintln!("--- the end of {}'s log\n{tail}", self.name);
        }
    }
}

/// What a finished command printed and said.
#[derive(Clone, Debug)]
pub struct Ran {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Ran {
    /// The command must have succeeded.
    pub fn ok(self) -> Self {
        assert_eq!(self.code, 0, "{self:#?}");
        self
    }

    /// Standard output as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error} in {self:#?}"))
    }
}

/// Runs a program of this workspace to its end.
pub fn run<S: AsRef<OsStr>>(program: &str, arguments: &[S]) -> Ran {
    run_in(program, arguments, &[])
}

/// The same, with more in its environment.
pub fn run_in<S: AsRef<OsStr>>(program: &str, arguments: &[S], more: &[(String, String)]) -> Ran {
    let more = more.iter().map(|(name, value)| (name, value));
    let output = Command::new(binary(program)).args(arguments).envs(more).stdin(Stdio::null()).output().unwrap();
    Ran {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}
