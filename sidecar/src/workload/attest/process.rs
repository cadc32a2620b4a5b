//! The process that connected, held so that nobody can take its place.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsRawFd as _, OwnedFd};

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::UnixStream;

use super::NotAttested;
use super::executable::Executable;

/// The most of a file under `/proc` that is read.
const MAX_PROC_BYTES: u64 = 256 << 10;
/// Units of `starttime` in `/proc/PID/stat` to the second, on every Linux (`USER_HZ`).
const TICKS_PER_SECOND: f64 = 100.0;

/// Why a connection has no caller.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoCaller {
    /// The kernel says nothing about the other end.
    #[error("the kernel names no process: {0}")]
    NoCredentials(io::Error),
    /// Its process id means nothing here.
    #[error("the process is in another PID namespace (hint: run the sidecar in the host's)")]
    OtherNamespace,
    /// It ended meanwhile, or somebody else has its process id now.
    #[error("the process has ended")]
    Ended,
    /// `/proc` does not answer as it should.
    #[error("cannot read `{what}`: {cause}")]
    Unreadable {
        /// Which file.
        what: String,
        /// Why.
        cause: io::Error,
    },
}

/// The process that connected.
#[derive(Debug)]
pub(crate) struct Caller {
    pid: i32,
    uid: u32,
    gid: u32,
    /// Readable once the process has ended.
    handle: OwnedFd,
    /// Its folder under `/proc`: of this very process, or of none once it has ended.
    folder: OwnedFd,
}

/// What must not change while a process is attested.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct State {
    /// In ticks since the machine started.
    started: u64,
    pub(super) owner: Owner,
    pub(super) executable: Option<Executable>,
    /// The text of `/proc/PID/cgroup`.
    pub(super) cgroup: String,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) groups: Vec<u32>,
}

impl Caller {
    /// The process at the other end of a connection that was just accepted.
    ///
    /// # Errors
    /// When there is none that can be held.
    pub(crate) fn of(stream: &UnixStream) -> Result<Self, NoCaller> {
        let credentials = stream.peer_cred().map_err(NoCaller::NoCredentials)?;
        // The kernel says 0 for a process that has no id in this namespace.
        let pid = credentials.pid().and_then(Pid::from_raw).ok_or(NoCaller::OtherNamespace)?;
        match portcullis_pidfd::peer_pidfd(stream) {
            Ok(Some(handle)) => Self::held(pid, handle, (credentials.uid(), credentials.gid())),
            Ok(None) => Self::of_older_kernel(pid, (credentials.uid(), credentials.gid())),
            Err(_ended) => Err(NoCaller::Ended),
        }
    }

    /// Without `SO_PEERPIDFD` the process id is all there is: whoever has it now must have started before this moment, and a process that
    /// started since the peer connected is not told apart. The window is the time from `connect` to `accept`.
    fn of_older_kernel(pid: Pid, owner: (u32, u32)) -> Result<Self, NoCaller> {
        let uptime = std::fs::read_to_string("/proc/uptime").map_err(unreadable("uptime"))?;
        let handle = pidfd_open(pid, PidfdFlags::empty()).map_err(|_gone| NoCaller::Ended)?;
        let caller = Self::held(pid, handle, owner)?;
        let seconds = uptime.split(' ').next().and_then(|seconds| seconds.parse::<f64>().ok());
        #[expect(clippy::cast_precision_loss, reason = "ticks of centuries are exact")]
        let started = caller.started().map_err(|_gone| NoCaller::Ended)? as f64;
        match seconds {
            Some(seconds) if started <= seconds * TICKS_PER_SECOND => Ok(caller),
            Some(_) | None => Err(NoCaller::Ended),
        }
    }

    fn held(pid: Pid, handle: OwnedFd, (uid, gid): (u32, u32)) -> Result<Self, NoCaller> {
        let path = format!("/proc/{}", pid.as_raw_nonzero());
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let folder = openat(CWD, path.as_str(), flags, Mode::empty()).map_err(|_gone| NoCaller::Ended)?;
        // If the handle's process still has this id now, then the folder that was opened before is its own.
        if pid_of(&handle)? != pid.as_raw_nonzero().get() {
            return Err(NoCaller::Ended);
        }
        Ok(Self { pid: pid.as_raw_nonzero().get(), uid, gid, handle, folder })
    }

    /// Its process id, for the log.
    pub(crate) fn pid(&self) -> i32 {
        self.pid
    }

    /// The user who connected.
    pub(crate) fn uid(&self) -> u32 {
        self.uid
    }

    /// User and group at the time of `connect`.
    pub(super) fn credentials(&self) -> (u32, u32) {
        (self.uid, self.gid)
    }

    /// Waits for the process to end.
    ///
    /// # Errors
    /// When there are too many descriptors.
    pub(crate) fn end(&self) -> io::Result<impl Future<Output = ()> + use<>> {
        #[expect(deprecated, reason = "the other constructor is unsafe for types that might change their descriptor")]
        let handle = AsyncFd::with_interest(self.handle.try_clone()?, Interest::READABLE)?;
        Ok(async move {
            // An error would mean that the runtime ends.
            drop(handle.readable().await);
        })
    }

    pub(super) fn folder(&self) -> &OwnedFd {
        &self.folder
    }

    pub(super) fn state(&self) -> Result<State, NotAttested> {
        Ok(State {
            started: self.started()?,
            owner: owner(&self.read("status")?).ok_or_else(|| NotAttested::Unreadable("status".to_owned()))?,
            executable: Executable::of(self)?,
            cgroup: self.read("cgroup")?,
        })
    }

    fn started(&self) -> Result<u64, NotAttested> {
        started(&self.read("stat")?).ok_or_else(|| NotAttested::Unreadable("stat".to_owned()))
    }

    /// A small text file of its folder.
    fn read(&self, name: &str) -> Result<String, NotAttested> {
        let file = openat(&self.folder, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|error| gone_or(&error.into()))?;
        let mut text = String::new();
        let length =
            File::from(file).take(MAX_PROC_BYTES).read_to_string(&mut text).map_err(|error| gone_or(&error))?;
        if u64::try_from(length).unwrap_or(u64::MAX) >= MAX_PROC_BYTES {
            return Err(NotAttested::Unreadable(format!("{name} is too long")));
        }
        Ok(text)
    }
}

/// An ended process's files are not found, or there is "no such process".
pub(super) fn gone_or(error: &io::Error) -> NotAttested {
    if error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error()) {
        NotAttested::Ended
    } else {
        NotAttested::Unreadable(error.to_string())
    }
}

fn unreadable(what: &str) -> impl FnOnce(io::Error) -> NoCaller {
    move |cause| NoCaller::Unreadable { what: what.to_owned(), cause }
}

/// The process id of a pidfd's process in this namespace: -1 once it has ended, 0 where it has none here.
fn pid_of(handle: &OwnedFd) -> Result<i32, NoCaller> {
    let what = format!("/proc/self/fdinfo/{}", handle.as_raw_fd());
    let text = std::fs::read_to_string(&what).map_err(unreadable(&what))?;
    match text.lines().find_map(|line| line.strip_prefix("Pid:")).and_then(|pid| pid.trim().parse().ok()) {
        Some(0) => Err(NoCaller::OtherNamespace),
        Some(pid) => Ok(pid),
        None => Err(NoCaller::Ended),
    }
}

/// Field 22 of `/proc/PID/stat`. The second field, the name, may hold anything, parentheses and line breaks too.
fn started(stat: &str) -> Option<u64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    after_name.split_ascii_whitespace().nth(19)?.parse().ok()
}

/// The effective user and group, and the supplementary groups.
fn owner(status: &str) -> Option<Owner> {
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name));
    let effective = |name: &str| field(name)?.split_ascii_whitespace().nth(1)?.parse().ok();
    let groups = field("Groups:")?.split_ascii_whitespace().map(str::parse).collect::<Result<_, _>>().ok()?;
    Some(Owner { uid: effective("Uid:")?, gid: effective("Gid:")?, groups })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_is_found_whatever_the_name_holds() {
        let rest = "S 1 1 1 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 1 0 4711 0 0";
        for name in ["redis", "a) S 9 9 (b", "x\ny", "))"] {
            assert_eq!(started(&format!("12 ({name}) {rest}")), Some(4711), "{name}");
        }
        assert_eq!(started("12 (a) S 1"), None);
        assert_eq!(started(""), None);
    }

    #[test]
    fn the_effective_user_counts() {
        let status = "Name:\tx\nUid:\t1\t2\t3\t4\nGid:\t5\t6\t7\t8\nGroups:\t9 10 \n";
        assert_eq!(owner(status), Some(Owner { uid: 2, gid: 6, groups: vec![9, 10] }));
        assert_eq!(owner("Uid:\t1\t2\t3\t4\n"), None);
        assert_eq!(owner("Uid:\t1\tx\t3\t4\nGid:\t5\t6\t7\t8\nGroups:\t\n"), None);
    }
}
