//! The web's authorities, for endpoints that prove themselves by them (Federation §5.2.1.4).

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

/// Where systems keep them, the most usual first.
const SYSTEM: [&str; 6] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
    "/usr/local/etc/ssl/cert.pem",
];

/// A PEM file of certificates. It is read at every fetch, so that what a system update withdraws is not trusted until a restart.
#[derive(Debug, Clone)]
pub(crate) struct WebRoots(Option<PathBuf>);

/// There are no authorities to believe.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoRoots {
    #[error("this system has no file of the web's authorities: name one with `federation.ca_file` or SSL_CERT_FILE")]
    Nowhere,
    #[error("cannot read the web's authorities in `{}`: {problem}", path.display())]
    File { path: PathBuf, problem: String },
}

impl WebRoots {
    /// Those in `file`, or those of the system.
    pub(crate) fn new(file: Option<PathBuf>) -> Self {
        Self(file.or_else(|| SYSTEM.iter().map(PathBuf::from).find(|path| path.exists())))
    }

    /// Reads them. A system's file may hold certificates that we cannot use; those are passed over.
    pub(crate) fn read(&self) -> Result<Arc<RootCertStore>, NoRoots> {
        let path = self.0.as_deref().ok_or(NoRoots::Nowhere)?;
        let failed = |problem: String| NoRoots::File { path: path.to_owned(), problem };
        let certificates = certificates(path).map_err(failed)?;
        let mut roots = RootCertStore::empty();
        let (added, _) = roots.add_parsable_certificates(certificates);
        if added == 0 { Err(failed("it holds no certificate".to_owned())) } else { Ok(Arc::new(roots)) }
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let certificates = CertificateDer::pem_file_iter(path).map_err(|error| error.to_string())?;
    certificates.collect::<Result<_, _>>().map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_certificates_trusts_nobody() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ca.pem");
        let read = || WebRoots::new(Some(path.clone())).read().unwrap_err().to_string();
        assert!(read().contains("ca.pem"));
        std::fs::write(&path, "nothing").unwrap();
        assert!(read().contains("holds no certificate"));
    }
}
