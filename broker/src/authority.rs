//! The authorities of a trust domain at work: what signs now, for whom, and what nodes are to trust.
//!
//! Which authorities there are and how far each has come is for the [registry](crate::registry) to say; [`KeyFolder`] keeps the keys; here
//! they are put together. A root signs nothing but signing certificates. These live 90 days and are replaced at half-life; leaves name
//! them in their chain, so a node needs nothing but the root. An authority below an upstream root has one signing certificate, and
//! no root key is ever on this disk (D3).

mod ca_file;
mod error;
mod key_folder;
mod profile;
mod upstream;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use portcullis_identity::{
    Audience, JwtAuthority, JwtId, JwtKey, JwtSvid, KeyId, NoRandomness, PrivateKey, RequestedKey, SpiffeId, Svid,
    TrustDomain, UnsignedJwt, broker_id, key_request,
};
use rcgen::SerialNumber;
use rustls::pki_types::CertificateDer;

pub use self::ca_file::CaFileError;
pub use self::error::{AuthorityError, IssueError};
pub use self::key_folder::KeyFolder;
use self::key_folder::SigningKey;
use self::profile::Validity;
use crate::audit::Head;
use crate::dns_name::DnsName;
use crate::registry::{AuthorityKind, AuthorityRecord, Material, OwnBundle, Roster};
use crate::ttl::{JwtTtl, Ttl};

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

/// What signs for one trust domain.
#[derive(Debug)]
pub struct Authority {
    keys: KeyFolder,
    signers: ArcSwap<Signers>,
}

#[derive(Debug)]
struct Signers {
    x509: X509Signer,
    jwt: JwtSigner,
    bundle: Arc<OwnBundle>,
    /// The SHA-256 of every key that is an authority's: no workload gets a certificate on one.
    authority_keys: HashSet<[u8; 32]>,
}

#[derive(Debug)]
struct X509Signer {
    record: Arc<AuthorityRecord>,
    root: portcullis_identity::Authority,
    signing: SigningKey,
}

#[derive(Debug)]
struct JwtSigner {
    key: JwtKey,
    not_after: SystemTime,
}

impl Authority {
    /// The authorities that `roster` names, with the keys in `keys`.
    ///
    /// # Errors
    /// When an active one's key cannot be read, or its time is over.
    pub fn open(keys: KeyFolder, roster: &Roster, now: SystemTime) -> Result<Self, AuthorityError> {
        let signers = ArcSwap::from_pointee(signers(&keys, roster, now)?);
        let authority = Self { keys, signers };
        authority.renew_signing(roster, now)?;
        Ok(authority)
    }

    /// Lets those sign that are active in `roster` now.
    ///
    /// # Errors
    /// As for [`Authority::open`]; what signed before signs on then.
    pub fn follow(&self, roster: &Roster, now: SystemTime) -> Result<(), AuthorityError> {
        self.signers.store(Arc::new(signers(&self.keys, roster, now)?));
        Ok(())
    }

    /// Makes a new signing certificate where the present one is past its half-life and the root allows a longer one.
    ///
    /// # Errors
    /// When the root's key cannot be read or the new file not be written; the present certificate stays then.
    pub fn renew_signing(&self, roster: &Roster, now: SystemTime) -> Result<SigningRenewal, AuthorityError> {
        let signers = self.signers.load();
        let X509Signer { record, root, signing } = &signers.x509;
        let (not_before, not_after) = (signing.certificate.not_before(), signing.certificate.not_after());
        let half = not_after.duration_since(not_before).unwrap_or_default() / 2;
        let due = not_before.checked_add(half).is_none_or(|half_life| half_life <= now);
        if !due || not_after >= root.not_after() || !matches!(record.material, Material::Root(_)) {
            return Ok(SigningRenewal::NotDue);
        }
        self.keys.make_signing(&record.id, now)?;
        self.follow(roster, now)?;
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
        let signers = self.signers.load();
        if signers.authority_keys.contains(&key.sha256()) {
            return Err(IssueError::AuthorityKey);
        }
        let signing = &signers.x509.signing;
        let validity = Validity::from_now(now, ttl.duration(), Some(signing.certificate.not_after()));
        if validity.not_after <= now {
            return Err(IssueError::Expired);
        }
        let params = profile::leaf(subject, validity)?;
        let serial = params.serial_number.as_ref().map(SerialNumber::to_bytes).unwrap_or_default();
        let leaf = params.signed_by(key.spki(), &signing.issuer)?;
        let chain = std::iter::once(leaf.der().clone()).chain(signing.chain.iter().cloned()).collect();
        Ok(Issued { chain, not_after: validity.not_after, serial })
    }

    /// Signs the head of the audit log, by the key that signs JWT-SVIDs now: forty bytes that begin with a count are no token.
    ///
    /// # Errors
    /// When the system gives no random bytes.
    pub fn sign_head(&self, head: &Head) -> Result<SignedHead, NoRandomness> {
        let signers = self.signers.load();
        let key = &signers.jwt.key;
        let signature = key.sign_audit_head(head.records, &head.hash)?;
        Ok(SignedHead { signer: key.authority(None), signature })
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
        let signers = self.signers.load();
        let wanted = now.checked_add(ttl.duration()).unwrap_or(now);
        let expires_at = wanted.min(signers.jwt.not_after);
        if expires_at <= now {
            return Err(IssueError::Expired);
        }
        let jti = JwtId::generate()?;
        let unsigned = UnsignedJwt { id, audience, issued_at: now, expires_at, jti: Some(jti), issuer: None };
        let key = &signers.jwt.key;
        Ok(IssuedJwt { svid: unsigned.sign(key)?, jti, kid: key.kid().clone() })
    }

    fn check_member(&self, id: &SpiffeId) -> Result<(), IssueError> {
        if id.is_member_of(self.keys.trust_domain()) && !id.path().is_empty() {
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
        let mut chain = self.issue(&requested, &broker_id(self.trust_domain()), ttl, now)?.chain;
        chain.push(self.root_certificate());
        Ok(Svid::new(chain, key)?)
    }

    /// The trust domain.
    #[must_use]
    pub fn trust_domain(&self) -> &TrustDomain {
        self.keys.trust_domain()
    }

    /// The keys.
    #[must_use]
    pub fn keys(&self) -> &KeyFolder {
        &self.keys
    }

    /// What nodes trust, as of the last time the registry was followed.
    #[must_use]
    pub fn bundle(&self) -> Arc<OwnBundle> {
        Arc::clone(&self.signers.load().bundle)
    }

    /// The keys whose JWT-SVIDs nodes trust.
    #[must_use]
    pub fn jwt_authorities(&self) -> Vec<JwtAuthority> {
        self.bundle().jwt.clone()
    }

    /// The root above the signing certificate, DER.
    #[must_use]
    pub fn root_certificate(&self) -> CertificateDer<'static> {
        self.signers.load().x509.root.der().clone()
    }

    /// Every root that nodes trust, as PEM text; the one that signs now comes first.
    #[must_use]
    pub fn bundle_pem(&self) -> String {
        let signers = self.signers.load();
        let first = signers.x509.root.der();
        let others = signers.bundle.x509.certificates().filter(|root| *root != first);
        std::iter::once(first).chain(others).map(ca_file::pem_certificate).collect()
    }

    /// What a join token pins (D4).
    #[must_use]
    pub fn root_spki_sha256(&self) -> [u8; 32] {
        self.signers.load().x509.root.public_key_sha256()
    }

    /// Whether the keys lie on disk encrypted.
    #[must_use]
    pub fn is_sealed(&self) -> bool {
        self.keys.is_sealed()
    }

    /// When the root above the signing certificate ends.
    #[must_use]
    pub fn root_not_after(&self) -> SystemTime {
        self.signers.load().x509.root.not_after()
    }

    /// When the present signing certificate ends.
    #[must_use]
    pub fn signing_not_after(&self) -> SystemTime {
        self.signers.load().x509.signing.certificate.not_after()
    }
}

fn signers(keys: &KeyFolder, roster: &Roster, now: SystemTime) -> Result<Signers, AuthorityError> {
    let active = |kind: AuthorityKind| {
        let record = roster.active(kind).ok_or_else(|| AuthorityError::NoneActive { kind: kind.name() })?;
        if record.is_over(now) { Err(AuthorityError::Expired { kind: kind.name() }) } else { Ok(record) }
    };
    let record = active(AuthorityKind::X509)?;
    let signing = keys.signing_key(record, now)?;
    let root = record.material.root().and_then(|bundle| bundle.authorities().first()).cloned();
    let root = root.ok_or_else(|| AuthorityError::NoneActive { kind: AuthorityKind::X509.name() })?;
    let jwt = active(AuthorityKind::Jwt)?;
    let jwt = JwtSigner { key: keys.jwt_key(&jwt.id)?, not_after: jwt.not_after };
    let bundle = Arc::clone(&roster.bundle);
    let mut authority_keys: HashSet<_> =
        roster.records.iter().map(|record| record.material.public_key_sha256()).collect();
    authority_keys.extend(bundle.x509.authorities().iter().map(portcullis_identity::Authority::public_key_sha256));
    authority_keys.insert(signing.certificate.public_key_sha256());
    Ok(Signers { x509: X509Signer { record: Arc::clone(record), root, signing }, jwt, bundle, authority_keys })
}

#[cfg(test)]
mod tests;
