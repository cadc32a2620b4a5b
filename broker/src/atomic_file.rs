//! Files that are either wholly there or not there: written beside their place, synced, then moved.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use ring::rand::{SecureRandom as _, SystemRandom};

/// What to do where a file of that name exists already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existing {
    /// Fail with `AlreadyExists`: the old file is worth more than the new one.
    Keep,
    /// Put the new file in its place.
    Replace,
}

/// Writes `content` to `path` with permission bits `mode`; after a crash there is the old state or the new one, never half a file.
///
/// # Errors
/// When the file system refuses, or when the file exists and is to be kept.
pub fn write(path: &Path, content: &[u8], mode: u32, existing: Existing) -> io::Result<()> {
    let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    let temporary = temporary_path(folder, path)?;
    let result = write_new(&temporary, content, mode).and_then(|()| match existing {
        // A hard link fails where the name is taken; a rename would not.
        Existing::Keep => fs::hard_link(&temporary, path).and_then(|()| fs::remove_file(&temporary)),
        Existing::Replace => fs::rename(&temporary, path),
    });
    if result.is_err() {
        // Nothing more can be done about a file that cannot be removed; the first error tells more.
        let _ = fs::remove_file(&temporary);
        return result;
    }
    File::open(folder)?.sync_all()
}

/// Removes what a writer killed half-way left in `folder`.
///
/// # Errors
/// When the folder cannot be read or a file in it cannot be removed.
pub fn remove_leftovers(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with('.') && name.ends_with(SUFFIX) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

const SUFFIX: &str = ".portcullis-tmp";

fn temporary_path(folder: &Path, path: &Path) -> io::Result<PathBuf> {
    let name = path.file_name().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "not a file name"))?;
    let mut random = [0; 8];
    SystemRandom::new().fill(&mut random).map_err(|_| io::Error::other("no randomness"))?;
    let random = u64::from_ne_bytes(random);
    Ok(folder.join(format!(".{}.{random:016x}{SUFFIX}", name.to_string_lossy())))
}

fn write_new(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    file.write_all(content)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_file_is_written_with_its_mode_and_no_leftovers() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        write(&path, b"one", 0o600, Existing::Keep).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        write(&path, b"two", 0o600, Existing::Replace).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_file_to_keep_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        write(&path, b"one", 0o600, Existing::Keep).unwrap();
        let error = write(&path, b"two", 0o600, Existing::Keep).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&path).unwrap(), b"one");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn leftovers_of_a_killed_writer_are_removed() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(".root.pem.0011223344556677.portcullis-tmp"), "half").unwrap();
        fs::write(folder.path().join("root.pem"), "whole").unwrap();
        remove_leftovers(folder.path()).unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
