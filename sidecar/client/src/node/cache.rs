//! The on-disk cache of a node: what it needs to serve again while the broker is away.
//!
//! Three files in a 0700 folder, each replaced as a whole, mode 0600: `identity` (keys and certificates), `state` (registry and
//! policies) and `audit.json` (how long the broker's audit log was). With a seal key the first is encrypted (D11); without, `status`
//! calls the cache *unsealed*.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use portcullis_api::v1;
use portcullis_identity::{PrivateKey, SealBroken, SealError, SealKey, Svid, is_sealed};
use prost::Message as _;
use rustls::pki_types::CertificateDer;
use zeroize::{Zeroize as _, Zeroizing};

use super::audit::AuditHead;

/// A cache file larger than this is not read: twice the largest message of the broker.
const MAX_FILE_BYTES: u64 = 2 * portcullis_api::MAX_MESSAGE_BYTES as u64;

/// Why the cache cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// A file or folder cannot be read or written.
    #[error("cannot {action} `{path}`: {cause}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: String,
        /// Why it failed.
        cause: io::Error,
    },
    /// Somebody else could read or write the keys.
    #[error("`{path}` has mode {mode:03o}: others can read it (hint: chmod {wanted:o})")]
    Exposed {
        /// File or folder.
        path: String,
        /// Its mode.
        mode: u32,
        /// The mode it should have.
        wanted: u32,
    },
    /// Another process holds the folder.
    #[error("`{0}` is in use by another process")]
    Locked(String),
    /// The keys are sealed, and there is no key to open them.
    #[error("`{0}` is sealed (hint: name the seal key it was written with)")]
    Sealed(String),
    /// The seal key does not open it.
    #[error("the seal key does not open `{path}`: {cause}")]
    SealBroken {
        /// Which file.
        path: String,
        /// Why.
        cause: SealBroken,
    },
    /// It cannot be sealed.
    #[error("cannot seal `{path}`: {cause}")]
    Seal {
        /// Which file.
        path: String,
        /// Why.
        cause: SealError,
    },
    /// The content is not what this program writes.
    #[error("`{path}` is damaged: {cause} (hint: remove it and join again with a new token)")]
    Damaged {
        /// Which file.
        path: String,
        /// What is wrong.
        cause: String,
    },
}

/// How a process uses the folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Reads and writes, alone.
    Own,
    /// Reads only, beside a running owner: a shell command.
    Borrow,
}

/// An SVID of the cache, by the entry it belongs to (empty: the node's own).
#[derive(Clone, Debug)]
pub(crate) struct CachedSvid {
    pub(crate) entry: String,
    pub(crate) digest: String,
    pub(crate) svid: Arc<Svid>,
}

/// What the identity file holds.
#[derive(Debug)]
pub(crate) struct Identities {
    pub(crate) broker: String,
    /// SHA-256 of the secret of the token that the node joined with.
    pub(crate) token: Vec<u8>,
    pub(crate) bundles: Vec<v1::Bundle>,
    pub(crate) svids: Vec<CachedSvid>,
    /// The key for which the node is asking a new certificate in exchange for an expired one.
    pub(crate) next_key: Option<Arc<PrivateKey>>,
}

/// The folder.
#[derive(Debug)]
pub(crate) struct Cache {
    folder: PathBuf,
    access: Access,
    seal: Option<SealKey>,
    /// Held for its lock.
    _lock: Option<File>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct IdentityFile {
    #[prost(uint32, tag = "1")]
    format: u32,
    #[prost(string, tag = "2")]
    broker: String,
    #[prost(message, repeated, tag = "3")]
    bundles: Vec<v1::Bundle>,
    #[prost(message, repeated, tag = "4")]
    svids: Vec<SvidFile>,
    #[prost(bytes = "vec", tag = "5")]
    token: Vec<u8>,
    #[prost(bytes = "vec", tag = "6")]
    next_key: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct SvidFile {
    #[prost(string, tag = "1")]
    entry: String,
    #[prost(string, tag = "2")]
    digest: String,
    #[prost(bytes = "vec", repeated, tag = "3")]
    chain: Vec<Vec<u8>>,
    #[prost(bytes = "vec", tag = "4")]
    key: Vec<u8>,
}

/// Written into every identity file; another number is another program's file.
const FORMAT: u32 = 1;
/// What the identity file is sealed for.
const PURPOSE: &str = "portcullis node identity";
/// The one file that others read too: `portcullis-broker audit verify --against`.
const AUDIT: &str = "audit.json";

impl Cache {
    /// Opens the folder, making it where it is missing.
    pub(crate) fn open(folder: &Path, access: Access, seal: Option<SealKey>) -> Result<Self, CacheError> {
        if access == Access::Own {
            DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed("create", folder))?;
        }
        check_mode(folder, 0o700)?;
        let lock = match access {
            Access::Own => Some(lock(&folder.join("lock"))?),
            Access::Borrow => None,
        };
        Ok(Self { folder: folder.to_owned(), access, seal, _lock: lock })
    }

    /// Whether what is written here is encrypted.
    pub(crate) fn is_sealed(&self) -> bool {
        self.seal.is_some()
    }

    /// The identities, or nothing where the node never joined. A plain file is sealed where there is a key by now.
    pub(crate) fn identities(&self) -> Result<Option<Identities>, CacheError> {
        let path = self.folder.join("identity");
        let Some(bytes) = read(&path)?.map(Zeroizing::new) else { return Ok(None) };
        let bytes = match &self.seal {
            Some(_) if !is_sealed(&bytes) => {
                self.replace_identity(&bytes)?;
                bytes
            }
            None if !is_sealed(&bytes) => bytes,
            Some(key) => key
                .open(PURPOSE, &bytes)
                .map_err(|cause| CacheError::SealBroken { path: path.display().to_string(), cause })?,
            None => return Err(CacheError::Sealed(path.display().to_string())),
        };
        let damaged = |cause: String| CacheError::Damaged { path: path.display().to_string(), cause };
        let file = IdentityFile::decode(bytes.as_slice()).map_err(|error| damaged(error.to_string()))?;
        let IdentityFile { format, broker, bundles, svids, token, next_key } = file;
        let next_key = Zeroizing::new(next_key);
        if format != FORMAT {
            return Err(damaged(format!("format {format} is unknown")));
        }
        let svids = svids.into_iter().map(|svid| parse_svid(svid).map_err(&damaged)).collect::<Result<_, _>>()?;
        let next_key = if next_key.is_empty() {
            None
        } else {
            Some(Arc::new(PrivateKey::from_pkcs8(&next_key).map_err(|error| damaged(error.to_string()))?))
        };
        Ok(Some(Identities { broker, token, bundles, svids, next_key }))
    }

    /// Replaces the identities; returns once they are on disk.
    pub(crate) fn store_identities(&self, identities: &Identities) -> Result<(), CacheError> {
        let Identities { broker, token, bundles, svids, next_key } = identities;
        let mut file = IdentityFile {
            format: FORMAT,
            broker: broker.clone(),
            token: token.clone(),
            bundles: bundles.clone(),
            svids: svids
                .iter()
                .map(|CachedSvid { entry, digest, svid }| SvidFile {
                    entry: entry.clone(),
                    digest: digest.clone(),
                    chain: svid.chain().iter().map(|certificate| certificate.to_vec()).collect(),
                    key: svid.key().pkcs8().to_vec(),
                })
                .collect(),
            next_key: next_key.as_ref().map(|key| key.pkcs8().to_vec()).unwrap_or_default(),
        };
        let bytes = Zeroizing::new(file.encode_to_vec());
        file.svids.iter_mut().for_each(|svid| svid.key.zeroize());
        file.next_key.zeroize();
        self.replace_identity(&bytes)
    }

    fn replace_identity(&self, bytes: &[u8]) -> Result<(), CacheError> {
        let Some(key) = &self.seal else { return self.replace("identity", bytes) };
        let path = || self.folder.join("identity").display().to_string();
        let sealed = key.seal(PURPOSE, bytes).map_err(|cause| CacheError::Seal { path: path(), cause })?;
        self.replace("identity", &sealed)
    }

    /// The last state, or nothing.
    pub(crate) fn state(&self) -> Result<Option<v1::State>, CacheError> {
        let path = self.folder.join("state");
        let Some(bytes) = read(&path)? else { return Ok(None) };
        v1::State::decode(bytes.as_slice())
            .map(Some)
            .map_err(|error| CacheError::Damaged { path: path.display().to_string(), cause: error.to_string() })
    }

    /// Replaces the state; returns once it is on disk.
    pub(crate) fn store_state(&self, state: &v1::State) -> Result<(), CacheError> {
        self.replace("state", &state.encode_to_vec())
    }

    /// What the broker last said of its audit log, or nothing.
    pub(crate) fn audit_head(&self) -> Result<Option<AuditHead>, CacheError> {
        let path = self.folder.join(AUDIT);
        let Some(bytes) = read(&path)? else { return Ok(None) };
        serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|error| CacheError::Damaged { path: path.display().to_string(), cause: error.to_string() })
    }

    /// Replaces it; returns once it is on disk.
    pub(crate) fn store_audit_head(&self, head: &AuditHead) -> Result<(), CacheError> {
        let json = serde_json::to_vec(head).unwrap_or_default();
        self.replace(AUDIT, &json)
    }

    fn replace(&self, name: &str, bytes: &[u8]) -> Result<(), CacheError> {
        if self.access == Access::Borrow {
            return Ok(());
        }
        let path = self.folder.join(name);
        let fresh = self.folder.join(format!("{name}.new"));
        let write = || -> io::Result<()> {
            let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
            file.write_all(bytes)?;
            file.sync_all()?;
            std::fs::rename(&fresh, &path)?;
            File::open(&self.folder)?.sync_all()
        };
        write().map_err(failed("write", &path))
    }
}

fn parse_svid(file: SvidFile) -> Result<CachedSvid, String> {
    let SvidFile { entry, digest, chain, key } = file;
    let key = PrivateKey::from_pkcs8(&Zeroizing::new(key)).map_err(|error| error.to_string())?;
    let chain = chain.into_iter().map(CertificateDer::from).collect();
    let svid = Arc::new(Svid::new(chain, key).map_err(|error| error.to_string())?);
    Ok(CachedSvid { entry, digest, svid })
}

fn lock(path: &Path) -> Result<File, CacheError> {
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(failed("open", path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => Err(CacheError::Locked(path.display().to_string())),
        Err(std::fs::TryLockError::Error(cause)) => Err(failed("lock", path)(cause)),
    }
}

fn read(path: &Path) -> Result<Option<Vec<u8>>, CacheError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed("open", path)(error)),
    };
    check_mode(path, 0o600)?;
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES).read_to_end(&mut bytes).map_err(failed("read", path))?;
    Ok(Some(bytes))
}

fn check_mode(path: &Path, wanted: u32) -> Result<(), CacheError> {
    let mode = std::fs::metadata(path).map_err(failed("inspect", path))?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(CacheError::Exposed { path: path.display().to_string(), mode, wanted });
    }
    Ok(())
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> CacheError {
    let path = path.display().to_string();
    move |cause| CacheError::Io { action, path, cause }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identities() -> Identities {
        Identities {
            broker: "broker.test:7440".to_owned(),
            token: Vec::new(),
            bundles: Vec::new(),
            svids: Vec::new(),
            next_key: None,
        }
    }

    fn open(folder: &Path, seal: Option<&SealKey>) -> Cache {
        let seal = seal.map(|key| SealKey::parse(key.reveal().as_bytes()).unwrap());
        Cache::open(folder, Access::Own, seal).unwrap()
    }

    #[test]
    fn a_plain_identity_file_is_sealed_at_the_next_start_and_opened_by_its_key_alone() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("state");
        open(&folder, None).store_identities(&identities()).unwrap();
        let file = || std::fs::read(folder.join("identity")).unwrap();
        assert!(!is_sealed(&file()));

        let key = SealKey::generate().unwrap();
        let cache = open(&folder, Some(&key));
        assert!(cache.is_sealed());
        assert_eq!(cache.identities().unwrap().unwrap().broker, "broker.test:7440");
        assert!(is_sealed(&file()) && !file().windows(6).any(|window| window == b"broker"));
        cache.store_identities(&identities()).unwrap();
        assert!(is_sealed(&file()));
        assert_eq!(cache.identities().unwrap().unwrap().broker, "broker.test:7440");
        drop(cache);

        let without = open(&folder, None).identities().unwrap_err();
        assert!(matches!(without, CacheError::Sealed(_)), "{without}");
        let other = open(&folder, Some(&SealKey::generate().unwrap())).identities().unwrap_err();
        assert!(matches!(other, CacheError::SealBroken { cause: SealBroken::OtherKey { .. }, .. }), "{other}");
    }

    #[test]
    fn who_borrows_a_sealed_cache_needs_the_key_and_writes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("state");
        let key = SealKey::generate().unwrap();
        open(&folder, None).store_identities(&identities()).unwrap();
        let plain = std::fs::read(folder.join("identity")).unwrap();
        let shell =
            Cache::open(&folder, Access::Borrow, Some(SealKey::parse(key.reveal().as_bytes()).unwrap())).unwrap();
        assert!(shell.identities().unwrap().is_some());
        assert_eq!(std::fs::read(folder.join("identity")).unwrap(), plain);
    }
}
