//! What `nats init` wrote for the broker: names of accounts, credentials and keys, in a folder for its owner alone.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::brokers;
use super::key::{InvalidKey, Owner, PublicKey, SealingKey, SigningKey};
use super::permissions::PermissionClaims;
use super::token;

/// The names of the accounts, JSON.
pub const ACCOUNTS: &str = "accounts.json";
/// Credentials of the user that servers ask.
pub const CALLOUT_USER: &str = "callout.creds";
/// Credentials of the user that ends connections.
pub const SYSTEM_USER: &str = "system.creds";
/// Credentials of the user that makes the buckets of lattices and answers their questions.
pub const LATTICE_USER: &str = "lattice.creds";
/// The seed that signs answers.
pub const CALLOUT_SIGNING: &str = "callout.nk";
/// The seed that signs users of the lattice's account.
pub const LATTICE_SIGNING: &str = "lattice.nk";
/// The seed that opens requests and seals answers.
pub const CALLOUT_SEAL: &str = "callout.xk";
/// Bytes of a file.
const MAX_FILE: u64 = 64 << 10;

/// Why the folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// A file cannot be read.
    #[error("cannot read `{}`: {cause}; `portcullis-broker nats init` makes it", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// Others can read a secret.
    #[error("others may read `{}` (mode {mode:o}): make it 600", path.display())]
    Exposed {
        /// Which.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// A file holds something else.
    #[error("`{}` is refused: {reason}", path.display())]
    Content {
        /// Which.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}

/// The accounts of a set-up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AccountNames {
    /// The operator's public key.
    pub operator: String,
    /// The account that is told of connections and ends them.
    pub system: String,
    /// The account in which servers ask who somebody is.
    pub callout: String,
    /// The account of the lattices.
    pub lattice: String,
}

/// The folder, read.
#[derive(Debug)]
pub struct Material {
    /// Whose users servers ask.
    pub callout: PublicKey,
    /// Whose users are admitted.
    pub lattice: PublicKey,
    /// Signs answers.
    pub callout_key: SigningKey,
    /// Signs users.
    pub lattice_key: SigningKey,
    /// Opens requests.
    pub seal: SealingKey,
    /// Credentials, as the client wants them.
    pub(super) users: Users,
}

/// The broker's own credentials.
pub(super) struct Users {
    pub(super) callout: Zeroizing<String>,
    pub(super) system: Zeroizing<String>,
    pub(super) lattice: Zeroizing<String>,
}

impl std::fmt::Debug for Users {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Users").finish_non_exhaustive()
    }
}

impl Material {
    /// Reads `folder`.
    ///
    /// # Errors
    /// When a file is missing, readable by others, or not what it should be.
    pub fn read(folder: &Path) -> Result<Self, FolderError> {
        let path = folder.join(ACCOUNTS);
        let names = secret(&path)?;
        let wrong = |reason: String| FolderError::Content { path: path.clone(), reason };
        let names: AccountNames = serde_json::from_str(&names).map_err(|error| wrong(error.to_string()))?;
        let account = |text: &str| PublicKey::parse(Owner::Account, text).map_err(|error| wrong(error.to_string()));
        PublicKey::parse(Owner::Operator, &names.operator).map_err(|error| wrong(error.to_string()))?;
        account(&names.system)?;
        Ok(Self {
            callout: account(&names.callout)?,
            lattice: account(&names.lattice)?,
            callout_key: key(folder, CALLOUT_SIGNING, |seed| SigningKey::from_seed(Owner::Account, seed))?,
            lattice_key: key(folder, LATTICE_SIGNING, |seed| SigningKey::from_seed(Owner::Account, seed))?,
            seal: key(folder, CALLOUT_SEAL, SealingKey::from_seed)?,
            users: Users {
                callout: secret(&folder.join(CALLOUT_USER))?,
                system: secret(&folder.join(SYSTEM_USER))?,
                lattice: secret(&folder.join(LATTICE_USER))?,
            },
        })
    }
}

impl Material {
    /// Whether the callout's user may speak to other brokers: earlier versions gave it less.
    pub(super) fn lets_brokers_speak(&self) -> bool {
        let token = self.users.callout.lines().find(|line| line.starts_with("ey"));
        let read = token.and_then(|token| token::decode::<PermissionClaims>(token, Owner::Account).ok());
        read.is_some_and(|(_, claims)| claims.nats.publish.allows(brokers::ALL))
    }
}

fn key<K>(folder: &Path, name: &str, parse: impl Fn(&str) -> Result<K, InvalidKey>) -> Result<K, FolderError> {
    let path = folder.join(name);
    let text = secret(&path)?;
    parse(&text).map_err(|error| FolderError::Content { path, reason: error.to_string() })
}

fn secret(path: &Path) -> Result<Zeroizing<String>, FolderError> {
    let failed = |cause| FolderError::Read { path: path.to_owned(), cause };
    let file = File::open(path).map_err(failed)?;
    let mode = file.metadata().map_err(failed)?.mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(FolderError::Exposed { path: path.to_owned(), mode });
    }
    let mut text = Zeroizing::new(String::with_capacity(4096));
    file.take(MAX_FILE).read_to_string(&mut text).map_err(failed)?;
    Ok(text)
}
