//! The servers' certificate, read before anything is written: a server that cannot use it does not start.

use std::path::{Path, PathBuf};

use portcullis_identity::{Leaf, SpiffeId};
use rustls::RootCertStore;
use rustls::client::verify_server_name;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::ParsedCertificate;
use rustls::sign::CertifiedKey;

const NO_CERTIFICATE: &str = "it holds no certificate in PEM";

/// The servers' certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// PEM, leaf first.
    pub chain: PathBuf,
    /// PEM.
    pub key: PathBuf,
    /// Its authority, by which the two servers know each other.
    pub ca: PathBuf,
}

/// A file that no server could use.
#[derive(Debug, thiserror::Error)]
#[error("`{}` cannot be used: {reason}", path.display())]
pub struct UnusableFile {
    path: PathBuf,
    reason: String,
}

/// Whom the servers' certificate names.
#[derive(Debug)]
pub struct Named {
    leaf: CertificateDer<'static>,
    svid: Option<SpiffeId>,
}

impl Certificate {
    /// Reads the three files.
    ///
    /// # Errors
    /// When one cannot be read, holds something else, or the key is another certificate's.
    pub fn read(&self) -> Result<Named, UnusableFile> {
        let Self { chain, key, ca } = self;
        authorities(ca)?;
        let certificates = certificates(chain)?;
        let secret = private_key(key)?;
        let leaf = certificates.first().cloned().ok_or_else(|| unusable(chain, &NO_CERTIFICATE))?;
        ParsedCertificate::try_from(&leaf).map_err(|error| unusable(chain, &error))?;
        CertifiedKey::from_der(certificates, secret, &default_provider())
            .map_err(|error| unusable(key, &format!("it is not the key of `{}`: {error}", chain.display())))?;
        let svid = Leaf::parse(&leaf).ok().map(|leaf| leaf.id().clone());
        Ok(Named { leaf, svid })
    }
}

impl Named {
    /// Its SPIFFE ID, where it is an SVID.
    #[must_use]
    pub fn svid(&self) -> Option<&SpiffeId> {
        self.svid.as_ref()
    }

    /// Whether a client that looks for `name` finds it.
    #[must_use]
    pub fn is_called(&self, name: &ServerName<'_>) -> bool {
        ParsedCertificate::try_from(&self.leaf).is_ok_and(|leaf| verify_server_name(&leaf, name).is_ok())
    }
}

/// Whether `path` holds an authority.
pub(super) fn authorities(path: &Path) -> Result<(), UnusableFile> {
    let (added, _) = RootCertStore::empty().add_parsable_certificates(certificates(path)?);
    if added == 0 { Err(unusable(path, &"it holds no authority")) } else { Ok(()) }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, UnusableFile> {
    let found = CertificateDer::pem_file_iter(path).map_err(|error| unusable(path, &error))?;
    let found = found.collect::<Result<Vec<_>, _>>().map_err(|error| unusable(path, &error))?;
    if found.is_empty() { Err(unusable(path, &NO_CERTIFICATE)) } else { Ok(found) }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, UnusableFile> {
    let mut found = PrivateKeyDer::pem_file_iter(path).map_err(|error| unusable(path, &error))?;
    let first = found.next().ok_or_else(|| unusable(path, &"it holds no key in PEM, or one under a password"))?;
    first.map_err(|error| unusable(path, &error))
}

fn unusable(path: &Path, reason: &dyn std::fmt::Display) -> UnusableFile {
    UnusableFile { path: path.to_owned(), reason: reason.to_string() }
}
