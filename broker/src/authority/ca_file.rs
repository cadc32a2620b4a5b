//! A CA key and its certificate in one PEM file that nobody but its owner can read.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use portcullis_identity::{Authority, InvalidAuthority, TrustDomain};
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

/// A key and the certificate on it.
#[derive(Debug)]
pub(super) struct CaFile {
    pub(super) key: KeyPair,
    pub(super) certificate: Authority,
}

impl CaFile {
    /// Writes key and certificate, durably, mode 0600.
    pub(super) fn write(
        path: &Path,
        key: &KeyPair,
        certificate: &CertificateDer<'_>,
        existing: Existing,
    ) -> Result<(), CaFileError> {
        let mut text = Zeroizing::new(key.serialize_pem());
        text.push_str(&pem_certificate(certificate));
        atomic_file::write(path, text.as_bytes(), 0o600, existing)
            .map_err(|cause| CaFileError::Write { path: path.to_owned(), cause })
    }

    /// Reads and checks: private to its owner, key and certificate belong together, a CA of `trust_domain`.
    pub(super) fn read(path: &Path, trust_domain: &TrustDomain) -> Result<Self, CaFileError> {
        let damaged = |problem| CaFileError::Damaged { path: path.to_owned(), problem };
        let text = read_private(path)?;
        let key = PrivatePkcs8KeyDer::from_pem_slice(&text).map_err(|_| damaged("it holds no private key"))?;
        let key = KeyPair::try_from(&key).map_err(|_| damaged("its private key is not one"))?;
        let certificate = CertificateDer::from_pem_slice(&text).map_err(|_| damaged("it holds no certificate"))?;
        let certificate = Authority::parse(&certificate, trust_domain)
            .map_err(|reason| CaFileError::Certificate { path: path.to_owned(), reason })?;
        if certificate.public_key_sha256() != sha256(&key.subject_public_key_info()) {
            return Err(damaged("its key and its certificate do not belong together"));
        }
        Ok(Self { key, certificate })
    }
}

pub(super) fn read_private(path: &Path) -> Result<Zeroizing<Vec<u8>>, CaFileError> {
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
    let mut text = Zeroizing::new(Vec::new());
    file.take(MAX_BYTES).read_to_end(&mut text).map_err(failed)?;
    Ok(text)
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
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
