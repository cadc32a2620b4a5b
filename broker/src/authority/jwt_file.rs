//! The key that signs JWT-SVIDs, in a PEM file of its own that nobody but its owner can read.

use std::path::{Path, PathBuf};

use portcullis_identity::JwtKey;
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::pki_types::pem::PemObject as _;
use zeroize::Zeroizing;

use super::ca_file::{CaFileError, read_private};
use super::{AuthorityError, IssueError};
use crate::atomic_file::{self, Existing};

/// Reads the key in `folder`; makes one where there is none.
pub(super) fn open(folder: &Path) -> Result<JwtKey, AuthorityError> {
    let path = folder.join("jwt.pem");
    match read(&path) {
        Ok(key) => Ok(key),
        Err(CaFileError::Missing { .. }) => {
            let key = JwtKey::generate().map_err(IssueError::from)?;
            write(&path, &key)?;
            Ok(key)
        }
        Err(error) => Err(error.into()),
    }
}

fn read(path: &Path) -> Result<JwtKey, CaFileError> {
    let damaged = || CaFileError::Damaged { path: PathBuf::from(path), problem: "it holds no P-256 private key" };
    let text = read_private(path)?;
    let key = PrivatePkcs8KeyDer::from_pem_slice(&text).map_err(|_| damaged())?;
    JwtKey::from_pkcs8(key.secret_pkcs8_der()).map_err(|_| damaged())
}

fn write(path: &Path, key: &JwtKey) -> Result<(), CaFileError> {
    let encoded = Zeroizing::new(base64::Engine::encode(&base64::engine::general_purpose::STANDARD, key.pkcs8()));
    let mut text = Zeroizing::new(String::with_capacity(512));
    text.push_str("-----BEGIN PRIVATE KEY-----\n");
    for (position, character) in encoded.chars().enumerate() {
        if position > 0 && position % 64 == 0 {
            text.push('\n');
        }
        text.push(character);
    }
    text.push_str("\n-----END PRIVATE KEY-----\n");
    atomic_file::write(path, text.as_bytes(), 0o600, Existing::Keep)
        .map_err(|cause| CaFileError::Write { path: path.to_owned(), cause })
}
