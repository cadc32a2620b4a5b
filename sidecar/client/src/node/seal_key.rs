//! Reads the key that seals the identity file of a node (D11).

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use portcullis_identity::{InvalidSealKey, InvalidSealKeyPlace, SealKey, SealKeyPlace};
use zeroize::Zeroizing;

/// Bytes; a key in base64 takes 45.
const MAX_BYTES: u64 = 1024;

/// Why there is no seal key.
#[derive(Debug, thiserror::Error)]
pub enum SealKeyError {
    /// It is nowhere.
    #[error(transparent)]
    Place(#[from] InvalidSealKeyPlace),
    /// The file cannot be read.
    #[error("cannot read the seal key `{path}`: {cause}")]
    Read {
        /// The file.
        path: String,
        /// Why it failed.
        cause: io::Error,
    },
    /// Others than its owner may read it.
    #[error(
        "the seal key `{path}` has mode {mode:03o}: others can read it (hint: make a new one, for its owner alone)"
    )]
    Exposed {
        /// The file.
        path: String,
        /// Its mode.
        mode: u32,
    },
    /// It is something else.
    #[error("`{path}`: {cause}")]
    Invalid {
        /// The file.
        path: String,
        /// What is wrong.
        cause: InvalidSealKey,
    },
}

/// Reads the key at `place`; `credentials` is the folder that systemd names in `$CREDENTIALS_DIRECTORY`.
///
/// # Errors
/// When it cannot be read, is readable by others, or is not a key.
pub fn read_seal_key(place: &SealKeyPlace, credentials: Option<&Path>) -> Result<SealKey, SealKeyError> {
    let path = place.path(credentials)?;
    let name = || path.display().to_string();
    let failed = |cause| SealKeyError::Read { path: name(), cause };
    let file = File::open(&path).map_err(failed)?;
    let mode = file.metadata().map_err(failed)?.permissions().mode() & 0o777;
    if !place.is_private(mode) {
        return Err(SealKeyError::Exposed { path: name(), mode });
    }
    let mut content = Zeroizing::new(Vec::with_capacity(1024));
    file.take(MAX_BYTES).read_to_end(&mut content).map_err(failed)?;
    SealKey::parse(&content).map_err(|cause| SealKeyError::Invalid { path: name(), cause })
}
