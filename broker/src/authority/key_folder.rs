//! The folder of the authorities' private keys: made, found again, destroyed.
//!
//! An authority of our own has two files: `x509-ID.pem` with its root, which signs nothing but signing certificates, so that its key is read
//! when one is due and dropped again; and `x509-ID-signing.pem`. One below an upstream root has the second alone. A key for tokens is
//! `jwt-ID.key`. Keys are here while they may sign, and no longer.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use portcullis_identity::{Authority, JwtKey, SealKey, TrustDomain};
use rcgen::{Issuer, KeyPair};
use rustls::pki_types::CertificateDer;

use super::ca_file::{self, CaFile, CaFileError};
use super::profile::{self, Validity};
use super::upstream::Answer;
use super::{AuthorityError, IssueError};
use crate::atomic_file::{self, Existing};
use crate::data_folder::make_private;
use crate::registry::{AuthorityId, AuthorityRecord, Material, NewAuthority};

/// A signing certificate is replaced at half of this.
const SIGNING_LIFETIME: Duration = Duration::from_secs(90 * 24 * 3600);
/// The key that waits for an upstream authority's signature.
const REQUEST: &str = "x509-request.key";

/// The folder.
#[derive(Debug)]
pub struct KeyFolder {
    path: PathBuf,
    seal: Option<SealKey>,
    trust_domain: TrustDomain,
}

/// What signs leaves.
#[derive(Debug)]
pub(super) struct SigningKey {
    pub(super) issuer: Issuer<'static, KeyPair>,
    pub(super) certificate: Authority,
    /// The signing certificate and what is above it, without the root.
    pub(super) chain: Vec<CertificateDer<'static>>,
}

impl KeyFolder {
    /// Opens the folder; makes it where it is missing. With a seal key, files that lie there plain are sealed.
    ///
    /// # Errors
    /// When the folder or a file in it cannot be used.
    pub fn open(path: &Path, seal: Option<SealKey>, trust_domain: &TrustDomain) -> Result<Self, AuthorityError> {
        let failed = |cause| AuthorityError::Folder { path: path.to_owned(), cause };
        make_private(path).map_err(failed)?;
        atomic_file::remove_leftovers(path).map_err(failed)?;
        let folder = Self { path: path.to_owned(), seal, trust_domain: trust_domain.clone() };
        if let Some(key) = &folder.seal {
            for name in folder.names()? {
                ca_file::seal_in_place(&folder.path.join(name), key)?;
            }
        }
        Ok(folder)
    }

    /// Whether a folder holds any key.
    #[must_use]
    pub fn holds_keys(path: &Path) -> bool {
        std::fs::read_dir(path).is_ok_and(|mut entries| {
            entries.any(|entry| entry.is_ok_and(|entry| is_key_file(&entry.file_name().to_string_lossy())))
        })
    }

    /// The trust domain whose keys these are.
    #[must_use]
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// Whether the keys lie here encrypted.
    #[must_use]
    pub fn is_sealed(&self) -> bool {
        self.seal.is_some()
    }

    /// Makes a root and a signing certificate below it. Nobody knows them before they are published.
    ///
    /// # Errors
    /// When the files cannot be written.
    pub fn make_root(&self, lifetime: Duration, now: SystemTime) -> Result<NewAuthority, AuthorityError> {
        let key = KeyPair::generate().map_err(IssueError::from)?;
        let validity = Validity::from_now(now, lifetime, None);
        let certificate = profile::root(&self.trust_domain, validity)?.self_signed(&key).map_err(IssueError::from)?;
        let root = Authority::parse(certificate.der(), &self.trust_domain).map_err(AuthorityError::Unusable)?;
        let id = AuthorityId::of_key(&root.public_key_sha256());
        let chain = [certificate.der().clone()];
        CaFile::write(&self.root_path(&id), self.seal.as_ref(), &key, &chain, Existing::Keep)?;
        self.make_signing(&id, now)?;
        Ok(NewAuthority::root(&self.trust_domain, &root)?)
    }

    /// Makes a key for tokens. Nobody knows it before it is published.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn make_jwt(&self, lifetime: Duration, now: SystemTime) -> Result<NewAuthority, AuthorityError> {
        let key = JwtKey::generate().map_err(IssueError::from)?;
        let validity = Validity::from_now(now, lifetime, None);
        let new = NewAuthority::jwt(key.authority(Some(validity.not_after)), validity.not_before, validity.not_after);
        let id = AuthorityId::of_key(&new.material.public_key_sha256());
        ca_file::write_jwt_key(&self.jwt_path(&id), self.seal.as_ref(), &key)?;
        Ok(new)
    }

    /// Whether the authority's key is here.
    #[must_use]
    pub fn holds(&self, record: &AuthorityRecord) -> bool {
        match &record.material {
            Material::Root(_) => self.root_path(&record.id).exists(),
            Material::Upstream { .. } => self.signing_path(&record.id).exists(),
            Material::Jwt(_) => self.jwt_path(&record.id).exists(),
        }
    }

    /// Roots whose publication a crash prevented: the key is here, and nobody knows of it.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn unpublished(&self, known: &BTreeSet<AuthorityId>) -> Result<Vec<NewAuthority>, AuthorityError> {
        let mut found = Vec::new();
        for name in self.names()? {
            let Some(id) = name.strip_prefix("x509-").and_then(|rest| rest.strip_suffix(".pem")) else { continue };
            let Ok(id) = id.parse::<AuthorityId>() else { continue };
            if !known.contains(&id) {
                let file = CaFile::read(&self.path.join(&name), self.seal.as_ref(), &self.trust_domain)?;
                found.push(NewAuthority::root(&self.trust_domain, &file.certificate)?);
            }
        }
        found.sort_by_key(|new| new.not_before);
        Ok(found)
    }

    /// Destroys what an authority signs with.
    ///
    /// # Errors
    /// When a file cannot be removed.
    pub fn destroy(&self, id: &AuthorityId) -> Result<(), AuthorityError> {
        for path in [self.root_path(id), self.signing_path(id), self.jwt_path(id)] {
            ca_file::remove(&path)?;
        }
        Ok(())
    }

    /// A request for an upstream authority, PKCS#10 in PEM. Asking again repeats it, until it is answered.
    ///
    /// # Errors
    /// When the key cannot be written or read.
    pub fn request(&self) -> Result<String, AuthorityError> {
        let path = self.path.join(REQUEST);
        if !path.exists() {
            let key = KeyPair::generate().map_err(IssueError::from)?;
            ca_file::write_key(&path, self.seal.as_ref(), &key)?;
        }
        let key = ca_file::read_key(&path, self.seal.as_ref())?;
        let request = profile::request(&self.trust_domain)?.serialize_request(&key).map_err(IssueError::from)?;
        Ok(request.pem().map_err(IssueError::from)?)
    }

    /// Takes over the answer to the request: PEM, the signing certificate first and the self-signed root last. Nobody knows it before it is
    /// published.
    ///
    /// # Errors
    /// When there is no request, or the chain is not for its key, or vouches for nothing that peers accept.
    pub fn install(&self, pem: &[u8], now: SystemTime) -> Result<NewAuthority, AuthorityError> {
        let read = || match ca_file::read_key(&self.path.join(REQUEST), self.seal.as_ref()) {
            Err(CaFileError::Missing { .. }) => Err(AuthorityError::NoRequest),
            key => Ok(key?),
        };
        let Answer { below, new } = Answer::judge(pem, read()?, &self.trust_domain, now)?;
        let path = self.signing_path(&AuthorityId::of_key(&new.material.public_key_sha256()));
        CaFile::write(&path, self.seal.as_ref(), &read()?, &below, Existing::Replace)?;
        Ok(new)
    }

    /// Forgets the request that was answered.
    ///
    /// # Errors
    /// When the file cannot be removed.
    pub fn answered(&self) -> Result<(), AuthorityError> {
        Ok(ca_file::remove(&self.path.join(REQUEST))?)
    }

    /// What an X.509 authority signs leaves with; made anew where it is missing and the root is ours.
    pub(super) fn signing_key(&self, record: &AuthorityRecord, now: SystemTime) -> Result<SigningKey, AuthorityError> {
        let path = self.signing_path(&record.id);
        let own_root = matches!(record.material, Material::Root(_));
        if own_root {
            // Its key is needed in weeks; that it cannot be read is to be known today.
            CaFile::read(&self.root_path(&record.id), self.seal.as_ref(), &self.trust_domain)?;
        }
        let file = match CaFile::read(&path, self.seal.as_ref(), &self.trust_domain) {
            Err(CaFileError::Missing { .. }) if own_root => {
                self.make_signing(&record.id, now)?;
                CaFile::read(&path, self.seal.as_ref(), &self.trust_domain)?
            }
            file => file?,
        };
        let CaFile { key, certificate, above } = file;
        let issuer = Issuer::from_ca_cert_der(certificate.der(), key).map_err(IssueError::from)?;
        let chain = std::iter::once(certificate.der().clone()).chain(above).collect();
        Ok(SigningKey { issuer, certificate, chain })
    }

    /// The key of an authority for tokens.
    pub(super) fn jwt_key(&self, id: &AuthorityId) -> Result<JwtKey, AuthorityError> {
        Ok(ca_file::read_jwt_key(&self.jwt_path(id), self.seal.as_ref())?)
    }

    /// Makes a signing certificate below the authority's own root, in the place of the present one.
    pub(super) fn make_signing(&self, id: &AuthorityId, now: SystemTime) -> Result<(), AuthorityError> {
        let root = CaFile::read(&self.root_path(id), self.seal.as_ref(), &self.trust_domain)?;
        let issuer = Issuer::from_ca_cert_der(root.certificate.der(), root.key).map_err(IssueError::from)?;
        let key = KeyPair::generate().map_err(IssueError::from)?;
        let validity = Validity::from_now(now, SIGNING_LIFETIME, Some(root.certificate.not_after()));
        let certificate =
            profile::signing(&self.trust_domain, validity)?.signed_by(&key, &issuer).map_err(IssueError::from)?;
        let chain = [certificate.der().clone()];
        CaFile::write(&self.signing_path(id), self.seal.as_ref(), &key, &chain, Existing::Replace)?;
        Ok(())
    }

    fn names(&self) -> Result<Vec<String>, AuthorityError> {
        let failed = |cause| AuthorityError::Folder { path: self.path.clone(), cause };
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&self.path).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name().to_string_lossy().into_owned();
            if is_key_file(&name) {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn root_path(&self, id: &AuthorityId) -> PathBuf {
        self.path.join(format!("x509-{id}.pem"))
    }

    fn signing_path(&self, id: &AuthorityId) -> PathBuf {
        self.path.join(format!("x509-{id}-signing.pem"))
    }

    fn jwt_path(&self, id: &AuthorityId) -> PathBuf {
        self.path.join(format!("jwt-{id}.key"))
    }
}

fn is_key_file(name: &str) -> bool {
    name.starts_with("x509-") || name.starts_with("jwt-")
}
