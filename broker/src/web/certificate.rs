//! A certificate for a listener of the web, from files that somebody else renews.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

/// How often the files are read again: whoever renews a certificate does it days before its end.
const READ_AGAIN: Duration = Duration::from_secs(600);

/// A certificate that is not served.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// The chain.
    #[error("cannot read the certificate chain in `{}`: {problem}", path.display())]
    Chain {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// The key.
    #[error("cannot read the private key in `{}`: {problem}", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// Others may read the key.
    #[error("the private key in `{}` has mode {mode:o}: others can read it; make it 600", path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The two do not belong together.
    #[error("the key in `{}` is not that of the certificate in `{}`", key.display(), chain.display())]
    Mismatch {
        /// The certificate's file.
        chain: PathBuf,
        /// The key's file.
        key: PathBuf,
    },
}

/// The certificate that the next handshake shows.
#[derive(Debug)]
pub(crate) struct FileCertificate {
    chain: PathBuf,
    key: PathBuf,
    current: ArcSwap<CertifiedKey>,
}

impl FileCertificate {
    /// Reads the files.
    pub(crate) fn open(chain: PathBuf, key: PathBuf) -> Result<Arc<Self>, CertificateError> {
        let current = ArcSwap::from_pointee(read(&chain, &key)?);
        Ok(Arc::new(Self { chain, key, current }))
    }

    /// Reads the files again from time to time. What cannot be used leaves the present certificate in its place.
    pub(crate) async fn keep_fresh(self: Arc<Self>) {
        loop {
            tokio::time::sleep(READ_AGAIN).await;
            match read(&self.chain, &self.key) {
                Ok(certified) => self.current.store(Arc::new(certified)),
                Err(error) => tracing::error!(%error, "the certificate of a listener was not read again"),
            }
        }
    }
}

impl ResolvesServerCert for FileCertificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.load_full())
    }
}

fn read(chain: &Path, key: &Path) -> Result<CertifiedKey, CertificateError> {
    let of_chain = |problem: String| CertificateError::Chain { path: chain.to_owned(), problem };
    let of_key = |problem: String| CertificateError::Key { path: key.to_owned(), problem };
    let certificates: Vec<_> = CertificateDer::pem_file_iter(chain)
        .and_then(Iterator::collect::<Result<_, _>>)
        .map_err(|error| of_chain(error.to_string()))?;
    if certificates.is_empty() {
        return Err(of_chain("it holds no certificate".to_owned()));
    }
    let mode = mode(key).map_err(|error| of_key(error.to_string()))?;
    if mode & 0o077 != 0 {
        return Err(CertificateError::Exposed { path: key.to_owned(), mode });
    }
    let der = PrivateKeyDer::from_pem_file(key).map_err(|error| of_key(error.to_string()))?;
    let signer = any_supported_type(&der).map_err(|error| of_key(error.to_string()))?;
    let certified = CertifiedKey::new(certificates, signer);
    let mismatch = |_| CertificateError::Mismatch { chain: chain.to_owned(), key: key.to_owned() };
    certified.keys_match().map_err(mismatch)?;
    Ok(certified)
}

fn mode(path: &Path) -> io::Result<u32> {
    use std::os::unix::fs::MetadataExt as _;
    Ok(std::fs::metadata(path)?.mode() & 0o777)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn write(folder: &Path, name: &str, text: &str, mode: u32) -> PathBuf {
        let path = folder.join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    #[test]
    fn a_chain_and_its_key_are_served_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let made = |name: &str| rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
        let (one, other) = (made("a.test"), made("b.test"));
        let chain = write(folder, "chain.pem", &one.cert.pem(), 0o644);
        let key = write(folder, "key.pem", &one.signing_key.serialize_pem(), 0o600);
        FileCertificate::open(chain.clone(), key.clone()).unwrap();

        let exposed = write(folder, "exposed.pem", &one.signing_key.serialize_pem(), 0o640);
        assert!(matches!(read(&chain, &exposed), Err(CertificateError::Exposed { mode: 0o640, .. })));
        let foreign = write(folder, "foreign.pem", &other.signing_key.serialize_pem(), 0o600);
        assert!(matches!(read(&chain, &foreign), Err(CertificateError::Mismatch { .. })));
        assert!(matches!(read(&chain, &chain), Err(CertificateError::Exposed { .. })));
        assert!(matches!(read(&key, &key), Err(CertificateError::Chain { .. })));
        assert!(matches!(read(&chain, &folder.join("none")), Err(CertificateError::Key { .. })));
    }
}
