//! The certificate authority of a trust domain: a root, a signing certificate below it, and the leaves it issues.
//!
//! The root lives ten years and signs only signing certificates, so its key is read from disk when one is due and dropped again. A signing
//! certificate lives 90 days and is replaced at half-life, at start or while running; leaves name it in their chain, so a node
//! needs nothing but the root. Both keys lie in the data folder, in 0600 files, each together with its certificate: there is no
//! moment in which one matches and the other does not.

mod ca_file;
mod jwt_file;
mod profile;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use portcullis_identity::{
    Audience, Bundle, InvalidBundle, InvalidRequest, InvalidSvid, JwtAuthority, JwtId, JwtKey, JwtNotSigned, JwtSvid,
    KeyId, NoRandomness, PrivateKey, RequestedKey, SpiffeId, Svid, TrustDomain, UnsignedJwt, broker_id, key_request,
};
use rcgen::{Issuer, KeyPair, SerialNumber, SubjectPublicKeyInfo};
use rustls::pki_types::CertificateDer;

use self::ca_file::CaFile;
pub use self::ca_file::CaFileError;
use self::profile::Validity;
use crate::atomic_file::{self, Existing};
use crate::audit::Head;
use crate::data_folder::make_private;
use crate::dns_name::DnsName;
use crate::ttl::{JwtTtl, Ttl};

/// Ten years: a root outlives the machines that pinned it in a join token.
const ROOT_LIFETIME: Duration = Duration::from_secs(3650 * 24 * 3600);
/// A signing certificate is replaced at half of this.
const SIGNING_LIFETIME: Duration = Duration::from_secs(90 * 24 * 3600);

/// Why there is no certificate authority.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// The folder of the keys cannot be used.
    #[error("cannot use the CA folder `{}`: {cause}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the file system said.
        cause: std::io::Error,
    },
    /// One of its files cannot be read, written or believed.
    #[error(transparent)]
    File(#[from] CaFileError),
    /// The root's time is over: nothing that it signed is valid.
    #[error("the root certificate in `{}` expired: make a new trust domain or restore a newer data folder", path.display())]
    RootExpired {
        /// The root's file.
        path: PathBuf,
    },
    /// A certificate of our own could not be made.
    #[error("cannot make a CA certificate: {0}")]
    Issue(#[from] IssueError),
    /// A root of ours is not one by the X509-SVID profile.
    #[error("the root certificate is not usable: {0}")]
    Bundle(#[from] InvalidBundle),
}

/// Why a certificate was not issued.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// The SPIFFE ID belongs to another trust domain, or has no path.
    #[error("`{0}` is not a workload of this trust domain")]
    ForeignId(SpiffeId),
    /// A workload asked for a certificate on a key of the authority itself.
    #[error("the key is one of the authority's own")]
    AuthorityKey,
    /// Every certificate above the leaf is expired.
    #[error("the signing certificate expired")]
    Expired,
    /// The system gave no random bytes.
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
    /// The encoder refused.
    #[error("cannot encode the certificate: {0}")]
    Encode(#[from] rcgen::Error),
    /// Our own request.
    #[error(transparent)]
    Request(#[from] InvalidRequest),
    /// Our own certificate.
    #[error(transparent)]
    Svid(#[from] InvalidSvid),
    /// A token that cannot be.
    #[error(transparent)]
    Jwt(#[from] JwtNotSigned),
}

/// Whom a certificate names.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// Its SPIFFE ID.
    pub id: &'a SpiffeId,
    /// Further names.
    pub dns_names: &'a [DnsName],
}

impl<'a> From<&'a SpiffeId> for Subject<'a> {
    fn from(id: &'a SpiffeId) -> Self {
        Self { id, dns_names: &[] }
    }
}

/// A leaf and what is above it, without the root.
#[derive(Debug, Clone)]
pub struct Issued {
    /// Leaf first.
    pub chain: Vec<CertificateDer<'static>>,
    /// When the leaf ends.
    pub not_after: SystemTime,
    /// The leaf's serial number.
    pub serial: Vec<u8>,
}

/// A JWT-SVID and what is told of it.
#[derive(Debug)]
pub struct IssuedJwt {
    /// The token.
    pub svid: JwtSvid,
    /// Its `jti`.
    pub jti: JwtId,
    /// The key that signed it.
    pub kid: KeyId,
}

/// A signed head of the audit log.
#[derive(Debug, Clone)]
pub struct SignedHead {
    /// Whose signature it is.
    pub signer: JwtAuthority,
    /// As the contract has it.
    pub signature: Vec<u8>,
}

/// Whether a new signing certificate was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SigningRenewal {
    /// The present one is before its half-life.
    NotDue,
    /// A new one signs from now on.
    Renewed,
}

/// The certificate authority of one trust domain.
#[derive(Debug)]
pub struct Authority {
    trust_domain: TrustDomain,
    folder: PathBuf,
    root: Root,
    signing: ArcSwap<Signing>,
    jwt: JwtKey,
    jwt_authorities: Vec<JwtAuthority>,
}

/// What is known of the root without its key.
#[derive(Debug)]
struct Root {
    certificate: portcullis_identity::Authority,
    bundle: Bundle,
}

#[derive(Debug)]
struct Signing {
    certificate: portcullis_identity::Authority,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// Whether `folder` holds a root already.
    #[must_use]
    pub fn exists(folder: &Path) -> bool {
        root_path(folder).exists()
    }

    /// Opens the authority in `folder`; makes the folder, a root and a signing certificate where they are missing.
    ///
    /// # Errors
    /// When a file there cannot be read or written, is readable by others, is not what it should be, or belongs to another trust domain.
    pub fn open(folder: &Path, trust_domain: &TrustDomain, now: SystemTime) -> Result<Self, AuthorityError> {
        let failed = |cause| AuthorityError::Folder { path: folder.to_owned(), cause };
        make_private(folder).map_err(failed)?;
        atomic_file::remove_leftovers(folder).map_err(failed)?;
        let path = root_path(folder);
        if !path.exists() {
            let key = KeyPair::generate().map_err(IssueError::from)?;
            let validity = Validity::from_now(now, ROOT_LIFETIME, None);
            let certificate = profile::root(trust_domain, validity)?.self_signed(&key).map_err(IssueError::from)?;
            CaFile::write(&path, &key, certificate.der(), Existing::Keep)?;
        }
        let root = Root::new(CaFile::read(&path, trust_domain)?, trust_domain)?;
        if root.certificate.not_after() <= now {
            return Err(AuthorityError::RootExpired { path });
        }
        let signing = match CaFile::read(&signing_path(folder), trust_domain) {
            Ok(file) => Signing::new(file)?,
            Err(CaFileError::Missing { .. }) => make_signing(folder, trust_domain, now)?,
            Err(error) => return Err(error.into()),
        };
        let jwt = jwt_file::open(folder)?;
        let authority = Self {
            jwt_authorities: vec![jwt.authority(Some(root.certificate.not_after()))],
            jwt,
            trust_domain: trust_domain.clone(),
            folder: folder.to_owned(),
            root,
            signing: ArcSwap::from_pointee(signing),
        };
        authority.renew_signing(now)?;
        Ok(authority)
    }

    /// Makes a new signing certificate where the present one is past its half-life.
    ///
    /// # Errors
    /// When the root's key cannot be read or the new file not be written; the present certificate stays then.
    pub fn renew_signing(&self, now: SystemTime) -> Result<SigningRenewal, AuthorityError> {
        let signing = self.signing.load();
        let lifetime =
            signing.certificate.not_after().duration_since(signing.certificate.not_before()).unwrap_or_default();
        if signing.certificate.not_before().checked_add(lifetime / 2).is_some_and(|half_life| now < half_life) {
            return Ok(SigningRenewal::NotDue);
        }
        self.signing.store(Arc::new(make_signing(&self.folder, &self.trust_domain, now)?));
        Ok(SigningRenewal::Renewed)
    }

    /// Issues an X.509-SVID for `subject` on `key`; nothing else comes from the requester (D3).
    ///
    /// The lifetime is cut to that of the signing certificate.
    ///
    /// # Errors
    /// When the ID is not of this trust domain, the key is one of ours, or the signing certificate expired.
    pub fn issue<'a>(
        &self,
        key: &RequestedKey,
        subject: impl Into<Subject<'a>>,
        ttl: Ttl,
        now: SystemTime,
    ) -> Result<Issued, IssueError> {
        let subject = subject.into();
        self.check_member(subject.id)?;
        let signing = self.signing.load();
        if [&self.root.certificate, &signing.certificate].iter().any(|own| own.public_key_sha256() == key.sha256()) {
            return Err(IssueError::AuthorityKey);
        }
        let validity = Validity::from_now(now, ttl.duration(), Some(signing.certificate.not_after()));
        if validity.not_after <= now {
            return Err(IssueError::Expired);
        }
        let spki = SubjectPublicKeyInfo::from_der(key.spki_der())?;
        let params = profile::leaf(subject, validity)?;
        let serial = params.serial_number.as_ref().map(SerialNumber::to_bytes).unwrap_or_default();
        let leaf = params.signed_by(&spki, &signing.issuer)?;
        let chain = vec![leaf.der().clone(), signing.certificate.der().clone()];
        Ok(Issued { chain, not_after: validity.not_after, serial })
    }

    /// Signs the head of the audit log, by the key of JWT-SVIDs: forty bytes that begin with a count are no token.
    ///
    /// # Errors
    /// When the system gives no random bytes.
    pub fn sign_head(&self, head: &Head) -> Result<SignedHead, NoRandomness> {
        let signature = self.jwt.sign_audit_head(head.records, &head.hash)?;
        Ok(SignedHead { signer: self.jwt.authority(None), signature })
    }

    /// Issues a JWT-SVID for `id` that is meant for `audience`.
    ///
    /// The lifetime is cut to that of the signing key.
    ///
    /// # Errors
    /// When the ID is not of this trust domain, there is no audience or too many, or the key's time is over.
    pub fn jwt_svid(
        &self,
        id: &SpiffeId,
        audience: &[Audience],
        ttl: JwtTtl,
        now: SystemTime,
    ) -> Result<IssuedJwt, IssueError> {
        self.check_member(id)?;
        let wanted = now.checked_add(ttl.duration()).unwrap_or(now);
        let expires_at = wanted.min(self.root.certificate.not_after());
        let jti = JwtId::generate()?;
        let unsigned = UnsignedJwt { id, audience, issued_at: now, expires_at, jti: Some(jti), issuer: None };
        Ok(IssuedJwt { svid: unsigned.sign(&self.jwt)?, jti, kid: self.jwt.kid().clone() })
    }

    /// The keys whose JWT-SVIDs nodes trust.
    #[must_use]
    pub fn jwt_authorities(&self) -> &[JwtAuthority] {
        &self.jwt_authorities
    }

    fn check_member(&self, id: &SpiffeId) -> Result<(), IssueError> {
        if id.is_member_of(&self.trust_domain) && !id.path().is_empty() {
            Ok(())
        } else {
            Err(IssueError::ForeignId(id.clone()))
        }
    }

    /// The broker's own SVID. Its chain carries the root too, because a joining node knows of it only the hash in its token (D4).
    ///
    /// # Errors
    /// As for [`Authority::issue`].
    pub fn own_svid(&self, ttl: Ttl, now: SystemTime) -> Result<Svid, IssueError> {
        let key = PrivateKey::generate()?;
        let requested = RequestedKey::parse(&key_request(&key)?)?;
        let mut chain = self.issue(&requested, &broker_id(&self.trust_domain), ttl, now)?.chain;
        chain.push(self.root.certificate.der().clone());
        Ok(Svid::new(chain, key)?)
    }

    /// What nodes trust: the root, and not the signing certificate.
    #[must_use]
    pub fn bundle(&self) -> &Bundle {
        &self.root.bundle
    }

    /// The root, DER.
    #[must_use]
    pub fn root_certificate(&self) -> &CertificateDer<'static> {
        self.root.certificate.der()
    }

    /// The root as PEM text.
    #[must_use]
    pub fn root_pem(&self) -> String {
        ca_file::pem_certificate(self.root_certificate())
    }

    /// What a join token pins (D4).
    #[must_use]
    pub fn root_spki_sha256(&self) -> [u8; 32] {
        self.root.certificate.public_key_sha256()
    }

    /// When the root ends.
    #[must_use]
    pub fn root_not_after(&self) -> SystemTime {
        self.root.certificate.not_after()
    }

    /// When the present signing certificate ends.
    #[must_use]
    pub fn signing_not_after(&self) -> SystemTime {
        self.signing.load().certificate.not_after()
    }
}

impl Root {
    /// The key is checked and dropped here: only a new signing certificate needs it.
    fn new(file: CaFile, trust_domain: &TrustDomain) -> Result<Self, AuthorityError> {
        let certificate = file.certificate;
        let bundle = Bundle::new(trust_domain.clone(), [certificate.der().clone()])?;
        Ok(Self { certificate, bundle })
    }
}

impl Signing {
    fn new(file: CaFile) -> Result<Self, AuthorityError> {
        let issuer = Issuer::from_ca_cert_der(file.certificate.der(), file.key).map_err(IssueError::from)?;
        Ok(Self { certificate: file.certificate, issuer })
    }
}

fn make_signing(folder: &Path, trust_domain: &TrustDomain, now: SystemTime) -> Result<Signing, AuthorityError> {
    let root = CaFile::read(&root_path(folder), trust_domain)?;
    let issuer = Issuer::from_ca_cert_der(root.certificate.der(), root.key).map_err(IssueError::from)?;
    let key = KeyPair::generate().map_err(IssueError::from)?;
    let validity = Validity::from_now(now, SIGNING_LIFETIME, Some(root.certificate.not_after()));
    let certificate = profile::signing(trust_domain, validity)?.signed_by(&key, &issuer).map_err(IssueError::from)?;
    let path = signing_path(folder);
    CaFile::write(&path, &key, certificate.der(), Existing::Replace)?;
    Signing::new(CaFile::read(&path, trust_domain)?)
}

fn root_path(folder: &Path) -> PathBuf {
    folder.join("root.pem")
}

fn signing_path(folder: &Path) -> PathBuf {
    folder.join("signing.pem")
}

#[cfg(test)]
mod tests;
