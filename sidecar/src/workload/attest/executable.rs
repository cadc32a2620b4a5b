//! The file a process runs.

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;

use rustix::fs::{AtFlags, Mode, OFlags, Stat, fstat, openat, readlinkat, statat};
use rustix::io::Errno;

use super::NotAttested;
use super::process::{Caller, gone_or};

/// The file a process runs, by what tells it from any other and from itself before a change.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Executable {
    device: u64,
    inode: u64,
    pub(super) size: u64,
    modified: (i64, u64),
    changed: (i64, u64),
}

impl Executable {
    /// What `caller` runs now; nothing where this process may not know.
    pub(super) fn of(caller: &Caller) -> Result<Option<Self>, NotAttested> {
        match openat(caller.folder(), "exe", OFlags::PATH | OFlags::CLOEXEC, Mode::empty()) {
            Ok(file) => fstat(&file).map(|stat| Some(Self::from(&stat))).map_err(|error| gone_or(&error.into())),
            // Another user's process, for a sidecar that is not root.
            Err(Errno::ACCESS | Errno::PERM) => Ok(None),
            Err(error) => Err(gone_or(&error.into())),
        }
    }

    /// The file, opened for reading.
    pub(super) fn open(&self, caller: &Caller) -> Option<OwnedFd> {
        let file = openat(caller.folder(), "exe", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()?;
        self.is(&file).then_some(file)
    }

    /// Whether an open file is this one, unchanged.
    pub(super) fn is(&self, file: &OwnedFd) -> bool {
        fstat(file).is_ok_and(|stat| Self::from(&stat) == *self)
    }

    /// Its path: only where the caller sees the same mounts as this process and the very file lies there. A deleted file, one in memory, and
    /// one that something else was mounted over have none.
    pub(super) fn path(&self, caller: &Caller) -> Option<String> {
        let own = rustix::fs::readlink("/proc/self/ns/mnt", Vec::new()).ok()?;
        if readlinkat(caller.folder(), "ns/mnt", Vec::new()).ok()? != own {
            return None;
        }
        let path = readlinkat(caller.folder(), "exe", Vec::new()).ok()?;
        let path = PathBuf::from(OsString::from_vec(path.into_bytes()));
        let there = statat(rustix::fs::CWD, &path, AtFlags::SYMLINK_NOFOLLOW).ok()?;
        if Self::from(&there) != *self {
            return None;
        }
        path.into_os_string().into_string().ok()
    }
}

impl From<&Stat> for Executable {
    fn from(stat: &Stat) -> Self {
        Self {
            device: stat.st_dev,
            inode: stat.st_ino,
            size: u64::try_from(stat.st_size).unwrap_or_default(),
            modified: (stat.st_mtime, stat.st_mtime_nsec),
            changed: (stat.st_ctime, stat.st_ctime_nsec),
        }
    }
}
