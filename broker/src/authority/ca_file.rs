//! CA keys in files that nobody but their owner can read, sealed where the broker has a seal key (D11): a key and its certificates in one PEM
//! file, so that there is no moment in which one matches and the other does not.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use portcullis_identity::{
    Authority, InvalidAuthority, JwtKey, SealBroken, SealError, SealKey, TrustDomain, is_sealed,
};
use rcgen::{KeyPair, PublicKeyData as _};
use ring::digest::{SHA256, digest};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use zeroize::Zeroizing;

use crate::atomic_file::{self, Existing};

/// Bytes; a P-256 key and a certificate take less than 2 KiB.
const MAX_BYTES: u64 = 64 * 1024;

/// Why a CA file is not used.
#[derive(Debug, thiserror::Error)]
pub enum CaFileError {
    /// There is none.
    #[error("the CA file `{}` does not exist", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// It cannot be read.
    #[error("cannot read the CA file `{}`: {cause}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the file system said.
        cause: io::Error,
    },
    /// It cannot be written.
    #[error("cannot write the CA file `{}`: {cause}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the file system said.
        cause: io::Error,
    },
    /// It is sealed, and there is no key.
    #[error("the CA file `{}` is sealed: start the broker with its seal key (--seal-key-file)", path.display())]
    Sealed {
        /// The file.
        path: PathBuf,
    },
    /// The seal key does not open it.
    #[error("the seal key does not open the CA file `{}`: {cause}", path.display())]
    SealBroken {
        /// The file.
        path: PathBuf,
        /// Why.
        cause: SealBroken,
    },
    /// It cannot be sealed.
    #[error("cannot seal the CA file `{}`: {cause}", path.display())]
    Seal {
        /// The file.
        path: PathBuf,
        /// Why.
        cause: SealError,
    },
    /// Others than its owner may read it.
    #[error("the CA file `{}` has mode {mode:o}: others may have read the key; make it 600 if they cannot have", path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It is damaged or something else.
    #[error("the CA file `{}` is damaged: {problem}; restore it from a backup", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// It is not the CA of this trust domain.
    #[error("the CA file `{}` cannot serve this trust domain: {reason}", path.display())]
    Certificate {
        /// The file.
        path: PathBuf,
        /// What is wrong with its certificate.
        reason: InvalidAuthority,
    },
}

/// A key, the certificate on it and those above that certificate.
#[derive(Debug)]
pub(super) struct CaFile {
    pub(super) key: KeyPair,
    pub(super) certificate: Authority,
    /// Without the root.
    pub(super) above: Vec<CertificateDer<'static>>,
}

impl CaFile {
    /// Writes a key and its chain, the key's certificate first: durably, mode 0600, sealed where there is a key.
    pub(super) fn write(
        path: &Path,
        seal: Option<&SealKey>,
        key: &KeyPair,
        chain: &[CertificateDer<'_>],
        existing: Existing,
    ) -> Result<(), CaFileError> {
        let mut text = Zeroizing::new(key.serialize_pem());
        chain.iter().for_each(|certificate| text.push_str(&pem_certificate(certificate)));
        write_private(path, seal, text.as_bytes(), existing)
    }

    /// Reads and checks: private to its owner, key and certificate belong together, a CA of `trust_domain`.
    pub(super) fn read(path: &Path, seal: Option<&SealKey>, trust_domain: &TrustDomain) -> Result<Self, CaFileError> {
        let damaged = |problem| CaFileError::Damaged { path: path.to_owned(), problem };
        let text = read_private(path, seal)?;
        let key = key_pair(&text).map_err(damaged)?;
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
        let mut chain = chain.map_err(|_| damaged("a certificate in it is not one"))?.into_iter();
        let certificate = chain.next().ok_or_else(|| damaged("it holds no certificate"))?;
        let certificate = Authority::parse(&certificate, trust_domain)
            .map_err(|reason| CaFileError::Certificate { path: path.to_owned(), reason })?;
        if certificate.public_key_sha256() != sha256(&key.subject_public_key_info()) {
            return Err(damaged("its key and its certificate do not belong together"));
        }
        Ok(Self { key, certificate, above: chain.collect() })
    }
}

/// Writes a key that has no certificate yet.
pub(super) fn write_key(path: &Path, seal: Option<&SealKey>, key: &KeyPair) -> Result<(), CaFileError> {
    write_private(path, seal, Zeroizing::new(key.serialize_pem()).as_bytes(), Existing::Keep)
}

/// Reads a key that has no certificate yet.
pub(super) fn read_key(path: &Path, seal: Option<&SealKey>) -> Result<KeyPair, CaFileError> {
    let text = read_private(path, seal)?;
    key_pair(&text).map_err(|problem| CaFileError::Damaged { path: path.to_owned(), problem })
}

/// Writes a key that signs tokens.
pub(super) fn write_jwt_key(path: &Path, seal: Option<&SealKey>, key: &JwtKey) -> Result<(), CaFileError> {
    write_private(path, seal, key.pkcs8(), Existing::Keep)
}

/// Reads a key that signs tokens.
pub(super) fn read_jwt_key(path: &Path, seal: Option<&SealKey>) -> Result<JwtKey, CaFileError> {
    let damaged = |_| CaFileError::Damaged { path: path.to_owned(), problem: "it holds no key for tokens" };
    JwtKey::from_pkcs8(&read_private(path, seal)?).map_err(damaged)
}

/// Removes a key for good; one that is gone already is no error.
pub(super) fn remove(path: &Path) -> Result<(), CaFileError> {
    let failed = |cause| CaFileError::Write { path: path.to_owned(), cause };
    match std::fs::remove_file(path) {
        Ok(()) => path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all()).map_err(failed),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(failed(error)),
    }
}

fn key_pair(text: &[u8]) -> Result<KeyPair, &'static str> {
    let key = PrivatePkcs8KeyDer::from_pem_slice(text).map_err(|_| "it holds no private key")?;
    KeyPair::try_from(&key).map_err(|_| "its private key is not one")
}

/// Seals a file that an earlier start left plain. One that is sealed already, with whatever key, is left to [`CaFile::read`].
pub(super) fn seal_in_place(path: &Path, seal: &SealKey) -> Result<(), CaFileError> {
    let content = read_file(path)?;
    if is_sealed(&content) {
        return Ok(());
    }
    write_private(path, Some(seal), &content, Existing::Replace)
}

fn write_private(path: &Path, seal: Option<&SealKey>, text: &[u8], existing: Existing) -> Result<(), CaFileError> {
    let sealed = seal
        .map(|key| key.seal(&purpose(path), text))
        .transpose()
        .map_err(|cause| CaFileError::Seal { path: path.to_owned(), cause })?;
    atomic_file::write(path, sealed.as_deref().unwrap_or(text), 0o600, existing)
        .map_err(|cause| CaFileError::Write { path: path.to_owned(), cause })
}

/// A plain file is read where there is a seal key, too: so it was before there was one.
fn read_private(path: &Path, seal: Option<&SealKey>) -> Result<Zeroizing<Vec<u8>>, CaFileError> {
    let content = read_file(path)?;
    if !is_sealed(&content) {
        return Ok(content);
    }
    let key = seal.ok_or_else(|| CaFileError::Sealed { path: path.to_owned() })?;
    key.open(&purpose(path), &content).map_err(|cause| CaFileError::SealBroken { path: path.to_owned(), cause })
}

fn read_file(path: &Path) -> Result<Zeroizing<Vec<u8>>, CaFileError> {
    let failed = |cause: io::Error| {
        if cause.kind() == io::ErrorKind::NotFound {
            CaFileError::Missing { path: path.to_owned() }
        } else {
            CaFileError::Read { path: path.to_owned(), cause }
        }
    };
    let file = File::open(path).map_err(failed)?;
    let mode = file.metadata().map_err(failed)?.mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(CaFileError::Exposed { path: path.to_owned(), mode });
    }
    let mut content = Zeroizing::new(Vec::new());
    file.take(MAX_BYTES).read_to_end(&mut content).map_err(failed)?;
    Ok(content)
}

/// What a file is sealed for: its name, so that one cannot stand for another.
fn purpose(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    format!("portcullis ca {name}")
}

pub(super) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, bytes).as_ref());
    hash
}

/// A certificate as RFC 7468 text.
pub(crate) fn pem_certificate(certificate: &CertificateDer<'_>) -> String {
    const LINE: usize = 64;
    let encoded = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, certificate);
    let mut text = String::from("-----BEGIN CERTIFICATE-----\n");
    for (position, character) in encoded.chars().enumerate() {
        if position > 0 && position % LINE == 0 {
            text.push('\n');
        }
        text.push(character);
    }
    text.push_str("\n-----END CERTIFICATE-----\n");
    text
}
