//! Reads the certificate by which a node joins, its key, and the authorities by which the broker is known.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use portcullis_identity::{Bundle, TrustDomain};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use zeroize::Zeroizing;

use super::JoinCertificate;

/// Bytes of a file; four certificates take a tenth of it.
const MAX_BYTES: u64 = 256 << 10;
/// Certificates that a broker looks at.
const MAX_CHAIN: usize = 4;

/// What a configuration says of joining by certificate, as far as it says anything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CertificateSettings {
    /// PEM: the certificate and what is above it.
    pub certificate: Option<PathBuf>,
    /// PEM: its key.
    pub key: Option<PathBuf>,
    /// PEM: the authorities of the broker's trust domain.
    pub bundle: Option<PathBuf>,
    /// The broker's trust domain.
    pub trust_domain: Option<TrustDomain>,
    /// `host:port` of the broker.
    pub broker: Option<String>,
}

/// Something is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`node.{0}` is missing: to join by certificate takes `certificate`, `key`, `bundle`, `trust_domain` and `broker`"
)]
pub struct IncompleteSettings(pub &'static str);

impl CertificateSettings {
    /// Where everything is; nothing where nothing is said of a certificate.
    ///
    /// # Errors
    /// When a part of it is missing.
    pub fn complete(self) -> Result<Option<CertificateFiles>, IncompleteSettings> {
        let Self { certificate, key, bundle, trust_domain, broker } = self;
        if certificate.is_none() && key.is_none() && bundle.is_none() && trust_domain.is_none() {
            return Ok(None);
        }
        Ok(Some(CertificateFiles {
            certificate: certificate.ok_or(IncompleteSettings("certificate"))?,
            key: key.ok_or(IncompleteSettings("key"))?,
            bundle: bundle.ok_or(IncompleteSettings("bundle"))?,
            trust_domain: trust_domain.ok_or(IncompleteSettings("trust_domain"))?,
            broker: broker.ok_or(IncompleteSettings("broker"))?,
        }))
    }
}

/// Where a certificate to join by lies, and whom it joins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFiles {
    certificate: PathBuf,
    key: PathBuf,
    bundle: PathBuf,
    trust_domain: TrustDomain,
    broker: String,
}

/// Why a node cannot join by the certificate that is configured.
#[derive(Debug, thiserror::Error)]
pub enum CertificateFilesError {
    /// A file cannot be read.
    #[error("cannot read `{path}`: {cause}")]
    Read {
        /// Which.
        path: String,
        /// Why.
        cause: io::Error,
    },
    /// Others than its owner may read the key.
    #[error("the key `{path}` has mode {mode:03o}: others can read it (hint: chmod 600)")]
    Exposed {
        /// The key's file.
        path: String,
        /// Its mode.
        mode: u32,
    },
    /// It is something else.
    #[error("`{path}`: {cause}")]
    Invalid {
        /// Which.
        path: String,
        /// What is wrong.
        cause: String,
    },
    /// The certificate was made for another key.
    #[error("the key `{key}` does not belong to the certificate `{certificate}`")]
    OtherKey {
        /// The key's file.
        key: String,
        /// The certificate's.
        certificate: String,
    },
}

impl CertificateFiles {
    /// Reads and checks everything that can be checked without the broker.
    ///
    /// # Errors
    /// [`CertificateFilesError`] names the file.
    pub fn read(&self) -> Result<JoinCertificate, CertificateFilesError> {
        let chain = certificates(&self.certificate)?;
        if chain.len() > MAX_CHAIN {
            return Err(invalid(&self.certificate, &format!("{} certificates are more than {MAX_CHAIN}", chain.len())));
        }
        let key = key(&self.key)?;
        let signing =
            rustls::crypto::ring::sign::any_supported_type(&key).map_err(|error| invalid(&self.key, &error))?;
        let certified = CertifiedKey::new(chain, signing);
        certified.keys_match().map_err(|_mismatch| CertificateFilesError::OtherKey {
            key: self.key.display().to_string(),
            certificate: self.certificate.display().to_string(),
        })?;
        let bundle = Bundle::new(self.trust_domain.clone(), certificates(&self.bundle)?);
        let bundle = bundle.map_err(|error| invalid(&self.bundle, &error))?;
        Ok(JoinCertificate { broker: self.broker.clone(), bundle, chain: certified.cert, key })
    }
}

/// At least one.
fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, CertificateFilesError> {
    let pem = read(path, &open(path)?)?;
    let certificates = CertificateDer::pem_slice_iter(&pem).collect::<Result<Vec<_>, _>>();
    let certificates = certificates.map_err(|error| invalid(path, &error))?;
    if certificates.is_empty() { Err(invalid(path, &"it holds no certificate")) } else { Ok(certificates) }
}

fn key(path: &Path) -> Result<PrivateKeyDer<'static>, CertificateFilesError> {
    let file = open(path)?;
    let metadata = file.metadata().map_err(|cause| CertificateFilesError::Read { path: name(path), cause })?;
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(CertificateFilesError::Exposed { path: name(path), mode });
    }
    PrivateKeyDer::from_pem_slice(&read(path, &file)?).map_err(|error| invalid(path, &error))
}

fn open(path: &Path) -> Result<File, CertificateFilesError> {
    File::open(path).map_err(|cause| CertificateFilesError::Read { path: name(path), cause })
}

fn read(path: &Path, file: &File) -> Result<Zeroizing<Vec<u8>>, CertificateFilesError> {
    let mut bytes = Zeroizing::new(Vec::new());
    let read = file.take(MAX_BYTES).read_to_end(&mut bytes);
    read.map_err(|cause| CertificateFilesError::Read { path: name(path), cause })?;
    Ok(bytes)
}

fn invalid(path: &Path, cause: &dyn std::fmt::Display) -> CertificateFilesError {
    CertificateFilesError::Invalid { path: name(path), cause: cause.to_string() }
}

fn name(path: &Path) -> String {
    path.display().to_string()
}
