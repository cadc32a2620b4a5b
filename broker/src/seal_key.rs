//! Reads and makes the key that seals CA files (D11).

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use portcullis_identity::{InvalidSealKey, InvalidSealKeyPlace, NoRandomness, SealKey, SealKeyId, SealKeyPlace};
use zeroize::Zeroizing;

use crate::atomic_file::{self, Existing};

/// Bytes; a key in base64 takes 45.
const MAX_BYTES: u64 = 1024;

/// Why there is no seal key.
#[derive(Debug, thiserror::Error)]
pub enum SealKeyError {
    /// It is nowhere.
    #[error(transparent)]
    Place(#[from] InvalidSealKeyPlace),
    /// The file cannot be read.
    #[error("cannot read the seal key `{}`: {cause}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the file system said.
        cause: io::Error,
    },
    /// Others than its owner may read it.
    #[error("the seal key `{}` has mode {mode:o}: others may have read it; make a new one, for its owner alone", path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It is something else.
    #[error("`{}`: {cause}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        cause: InvalidSealKey,
    },
    /// A new one cannot be written.
    #[error("cannot write the seal key `{}`: {cause}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the file system said.
        cause: io::Error,
    },
    /// A new one cannot be drawn.
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
}

/// Reads the key at `place`; `credentials` is the folder that systemd names.
///
/// # Errors
/// When it cannot be read, is readable by others, or is not a key.
pub fn read(place: &SealKeyPlace, credentials: Option<&Path>) -> Result<SealKey, SealKeyError> {
    let path = place.path(credentials)?;
    let failed = |cause| SealKeyError::Read { path: path.clone(), cause };
    let file = File::open(&path).map_err(failed)?;
    let mode = file.metadata().map_err(failed)?.mode() & 0o777;
    if !place.is_private(mode) {
        return Err(SealKeyError::Exposed { path, mode });
    }
    let mut content = Zeroizing::new(Vec::with_capacity(1024));
    file.take(MAX_BYTES).read_to_end(&mut content).map_err(failed)?;
    SealKey::parse(&content).map_err(|cause| SealKeyError::Invalid { path, cause })
}

/// Makes a new key in a file for its owner alone, which must not exist yet.
///
/// # Errors
/// When the file exists or cannot be written.
pub fn make(path: &Path) -> Result<SealKeyId, SealKeyError> {
    let key = SealKey::generate()?;
    atomic_file::write(path, key.reveal().as_bytes(), 0o600, Existing::Keep)
        .map_err(|cause| SealKeyError::Write { path: path.to_owned(), cause })?;
    Ok(key.id())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_key_that_was_made_is_read_and_never_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("seal");
        let id = make(&path).unwrap();
        assert_eq!(read(&SealKeyPlace::File(path.clone()), None).unwrap().id(), id);
        assert!(matches!(make(&path), Err(SealKeyError::Write { .. })));
        let credential: SealKeyPlace = "credential:seal".parse().unwrap();
        assert_eq!(read(&credential, Some(folder.path())).unwrap().id(), id);
    }

    #[test]
    fn a_key_that_others_can_read_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("seal");
        make(&path).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        let error = read(&SealKeyPlace::File(path.clone()), None).unwrap_err().to_string();
        assert!(error.contains("mode 644"), "{error}");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        std::fs::write(&path, "too short").unwrap();
        let error = read(&SealKeyPlace::File(path), None).unwrap_err().to_string();
        assert!(error.contains("32 bytes"), "{error}");
    }
}
