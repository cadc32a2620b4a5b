//! The data folder: one broker at a time, readable by its user alone.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;

/// The audit log's name in the data folder.
pub const AUDIT_FOLDER: &str = "audit";

/// Why the data folder is not used.
#[derive(Debug, thiserror::Error)]
pub enum DataFolderError {
    /// Another broker has it.
    #[error("the data folder `{}` is in use by another broker", .0.display())]
    InUse(PathBuf),
    /// The file system refuses.
    #[error("cannot use the data folder `{}`: {cause}", path.display())]
    Io {
        /// The folder.
        path: PathBuf,
        /// What it said.
        cause: io::Error,
    },
}

/// A data folder that is ours as long as this value lives.
#[derive(Debug)]
pub(crate) struct DataFolder {
    path: PathBuf,
    _lock: File,
}

impl DataFolder {
    /// Makes the folder where it is missing (mode 0700) and takes its lock.
    ///
    /// # Errors
    /// When another broker holds the lock, or the folder cannot be used.
    pub(crate) fn open(path: &Path) -> Result<Self, DataFolderError> {
        let failed = |cause| DataFolderError::Io { path: path.to_owned(), cause };
        make_private(path).map_err(failed)?;
        let lock = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path.join("lock"))
            .map_err(failed)?;
        // The kernel gives the lock back when the process ends, however it ends.
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { path: path.to_owned(), _lock: lock }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(DataFolderError::InUse(path.to_owned())),
            Err(error) => Err(failed(error.into())),
        }
    }

    /// The folder of the CA keys.
    #[must_use]
    pub(crate) fn authority(&self) -> PathBuf {
        self.path.join("ca")
    }

    /// The store.
    #[must_use]
    pub(crate) fn store(&self) -> PathBuf {
        self.path.join("store.redb")
    }

    /// What hosts were answered.
    #[must_use]
    pub(crate) fn answers(&self) -> PathBuf {
        self.path.join("answers.redb")
    }

    /// The audit log.
    #[must_use]
    pub(crate) fn audit(&self) -> PathBuf {
        self.path.join(AUDIT_FOLDER)
    }

    /// The public root certificate, PEM, for tools that verify chains.
    #[must_use]
    pub(crate) fn bundle(&self) -> PathBuf {
        self.path.join("bundle.pem")
    }
}

/// Makes `folder` for its owner alone; an existing one keeps its mode, because the files in it have their own.
pub(crate) fn make_private(folder: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_has_one_broker_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data");
        let first = DataFolder::open(&path).unwrap();
        assert!(matches!(DataFolder::open(&path), Err(DataFolderError::InUse(_))));
        drop(first);
        DataFolder::open(&path).unwrap();
    }
}
