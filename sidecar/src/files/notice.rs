//! Telling a service that its files changed.

use std::io;
use std::path::PathBuf;
use std::process::Stdio;
use std::str::FromStr;
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, pidfd_open, pidfd_send_signal};
use tokio::process::Command;

/// How long a command may take.
const COMMAND_DEADLINE: Duration = Duration::from_secs(30);
/// Bytes of a command's complaint that are kept.
const MAX_COMPLAINT: usize = 512;
/// A longer pid file is none.
const MAX_PID_FILE: usize = 64;

/// How a service is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// A signal to the process whose id is in a file.
    Signal {
        /// Written by the service.
        pid_file: PathBuf,
        /// Which.
        signal: Signal,
    },
    /// A program and its arguments. No shell reads them.
    Command {
        /// The program.
        program: String,
        /// Its arguments.
        arguments: Vec<String>,
    },
}

/// The signals that services take for "read your files again".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGHUP.
    Hangup,
    /// SIGUSR1.
    User1,
    /// SIGUSR2.
    User2,
}

/// Not such a signal.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not SIGHUP, SIGUSR1 or SIGUSR2")]
pub struct InvalidSignal(String);

impl FromStr for Signal {
    type Err = InvalidSignal;

    fn from_str(text: &str) -> Result<Self, InvalidSignal> {
        match text.strip_prefix("SIG").unwrap_or(text) {
            "HUP" => Ok(Self::Hangup),
            "USR1" => Ok(Self::User1),
            "USR2" => Ok(Self::User2),
            _ => Err(InvalidSignal(text.to_owned())),
        }
    }
}

impl From<Signal> for rustix::process::Signal {
    fn from(signal: Signal) -> Self {
        match signal {
            Signal::Hangup => Self::HUP,
            Signal::User1 => Self::USR1,
            Signal::User2 => Self::USR2,
        }
    }
}

/// Why a service was not told.
#[derive(Debug, thiserror::Error)]
pub enum NoticeError {
    /// There is no process to signal.
    #[error("cannot read the pid file `{}`: {cause}", path.display())]
    PidFile {
        /// The file.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// The file holds something else.
    #[error("`{}` holds no process id", .0.display())]
    NoPid(PathBuf),
    /// The process is gone, or another user's.
    #[error("cannot signal process {pid}: {cause}")]
    Signal {
        /// The process id.
        pid: i32,
        /// Why.
        cause: io::Error,
    },
    /// The command cannot be run.
    #[error("cannot run `{program}`: {cause}")]
    Run {
        /// The program.
        program: String,
        /// Why.
        cause: io::Error,
    },
    /// The command fails.
    #[error("`{program}` failed ({status}): {complaint}")]
    Failed {
        /// The program.
        program: String,
        /// How it ended.
        status: String,
        /// The beginning of what it wrote to standard error.
        complaint: String,
    },
}

impl Notice {
    /// Tells the service.
    ///
    /// # Errors
    /// When it was not told; it may be tried again.
    pub(super) async fn give(&self) -> Result<(), NoticeError> {
        match self {
            Self::Signal { pid_file, signal } => send(pid_file, *signal),
            Self::Command { program, arguments } => run(program, arguments).await,
        }
    }
}

fn send(pid_file: &PathBuf, signal: Signal) -> Result<(), NoticeError> {
    let text = std::fs::read(pid_file).map_err(|cause| NoticeError::PidFile { path: pid_file.clone(), cause })?;
    let text = text.get(..text.len().min(MAX_PID_FILE)).and_then(|text| std::str::from_utf8(text).ok());
    let pid = text.and_then(|text| text.split_ascii_whitespace().next()?.parse().ok()).filter(|pid| *pid > 1);
    let pid: i32 = pid.ok_or_else(|| NoticeError::NoPid(pid_file.clone()))?;
    let failed = |cause: rustix::io::Errno| NoticeError::Signal { pid, cause: cause.into() };
    let process = Pid::from_raw(pid).ok_or_else(|| NoticeError::NoPid(pid_file.clone()))?;
    // Through a handle, so that the process that was there a moment ago is the one that gets it.
    let process = pidfd_open(process, PidfdFlags::empty()).map_err(failed)?;
    pidfd_send_signal(process, signal.into()).map_err(failed)
}

async fn run(program: &str, arguments: &[String]) -> Result<(), NoticeError> {
    let failed = |cause| NoticeError::Run { program: program.to_owned(), cause };
    let running = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(COMMAND_DEADLINE, running).await;
    let output = output.map_err(|_| failed(io::Error::from(io::ErrorKind::TimedOut)))?.map_err(failed)?;
    if output.status.success() {
        return Ok(());
    }
    let complaint = output.stderr.get(..output.stderr.len().min(MAX_COMPLAINT)).unwrap_or_default();
    Err(NoticeError::Failed {
        program: program.to_owned(),
        status: output.status.to_string(),
        complaint: String::from_utf8_lossy(complaint).trim().escape_debug().to_string(),
    })
}
