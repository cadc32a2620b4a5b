//! The authorities of the trust domain: which there are and how far each has come. Their private keys are elsewhere.
//!
//! Each goes through *prepared* (in the bundle, signs nothing yet), *active* (signs) and *old* (signed what is not expired yet), and leaves the
//! bundle when it is revoked or expired. Of each kind one is active. A *tainted* one is trusted still, and whatever it signed is to be
//! replaced at once.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::SystemTime;

use portcullis_identity::{Authority, Bundle, InvalidBundle, JwtAuthority, JwtBundle, SerialNumber, TrustDomain};
use ring::digest::{SHA256, digest};
use rustls::pki_types::CertificateDer;

use super::command::TrustChange;
use super::record::Version;
use super::{Registry, Revoking};

/// The name of an authority: the first bytes of its public key's SHA-256, in hexadecimal.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AuthorityId(String);

/// Not the name of an authority.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not the id of an authority: `ca show` lists them")]
pub struct InvalidAuthorityId(String);

/// Digits of an id: 64 bits tell any number of authorities apart.
const DIGITS: usize = 16;

impl AuthorityId {
    /// The name of who holds this key.
    #[must_use]
    pub fn of_key(public_key_sha256: &[u8; 32]) -> Self {
        Self(public_key_sha256.iter().take(DIGITS / 2).map(|byte| format!("{byte:02x}")).collect())
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for AuthorityId {
    type Err = InvalidAuthorityId;

    fn from_str(text: &str) -> Result<Self, InvalidAuthorityId> {
        let hex = |digit: u8| digit.is_ascii_digit() || (b'a'..=b'f').contains(&digit);
        if text.len() == DIGITS && text.bytes().all(hex) {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidAuthorityId(text.chars().take(64).collect()))
        }
    }
}

impl fmt::Display for AuthorityId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What an authority signs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum AuthorityKind {
    /// X.509-SVIDs.
    X509,
    /// JWT-SVIDs.
    Jwt,
}

impl AuthorityKind {
    /// As people write it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::X509 => "x509",
            Self::Jwt => "jwt",
        }
    }
}

/// How far an authority has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// In the bundle; has signed nothing.
    Prepared,
    /// Signs.
    Active,
    /// Signed until another became active.
    Old,
}

impl Stage {
    /// As people read it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Prepared => "prepared",
            Self::Active => "active",
            Self::Old => "old",
        }
    }
}

/// Whether what an authority signed is to be replaced at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taint {
    /// It is good.
    None,
    /// It is to be replaced.
    Tainted,
}

/// The public half of an authority.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Material {
    /// A root of our own, with its signing certificates below it.
    Root(Bundle),
    /// The root of an upstream authority, and the one certificate that it signed for us.
    Upstream {
        /// What nodes trust.
        root: Bundle,
        /// What signs for us.
        signing: Box<Authority>,
    },
    /// A key for tokens.
    Jwt(JwtAuthority),
}

/// An authority as the registry knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthorityRecord {
    /// Its name.
    pub id: AuthorityId,
    /// Its public half.
    pub material: Material,
    /// How far it has come.
    pub stage: Stage,
    /// Whether what it signed is to be replaced.
    pub taint: Taint,
    /// From when it is valid.
    pub not_before: SystemTime,
    /// When everything it signed is expired.
    pub not_after: SystemTime,
    /// The version with which it came into the bundle: a node that applied it trusts what this authority signs.
    pub published: Version,
}

/// A new authority whose key lies on disk.
#[derive(Debug, Clone)]
pub struct NewAuthority {
    /// Its public half.
    pub material: Material,
    /// From when it is valid.
    pub not_before: SystemTime,
    /// Until when.
    pub not_after: SystemTime,
}

impl NewAuthority {
    /// An authority with a root of our own.
    ///
    /// # Errors
    /// When the certificate is none of an authority of `trust_domain`.
    pub fn root(trust_domain: &TrustDomain, root: &Authority) -> Result<Self, InvalidBundle> {
        let bundle = Bundle::new(trust_domain.clone(), [root.der().clone()])?;
        Ok(Self { material: Material::Root(bundle), not_before: root.not_before(), not_after: root.not_after() })
    }

    /// An authority below the root of an upstream one.
    ///
    /// # Errors
    /// When the root is none of an authority of `trust_domain`.
    pub fn upstream(
        trust_domain: &TrustDomain,
        root: CertificateDer<'static>,
        signing: Authority,
    ) -> Result<Self, InvalidBundle> {
        let root = Bundle::new(trust_domain.clone(), [root])?;
        let (not_before, not_after) = (signing.not_before(), signing.not_after());
        Ok(Self { material: Material::Upstream { root, signing: Box::new(signing) }, not_before, not_after })
    }

    /// A key for tokens.
    #[must_use]
    pub fn jwt(authority: JwtAuthority, not_before: SystemTime, not_after: SystemTime) -> Self {
        Self { material: Material::Jwt(authority), not_before, not_after }
    }
}

impl Material {
    /// What the authority signs.
    #[must_use]
    pub fn kind(&self) -> AuthorityKind {
        match self {
            Self::Root(_) | Self::Upstream { .. } => AuthorityKind::X509,
            Self::Jwt(_) => AuthorityKind::Jwt,
        }
    }

    /// The SHA-256 of the key that is withdrawn when the authority is: its SubjectPublicKeyInfo's.
    #[must_use]
    pub fn public_key_sha256(&self) -> [u8; 32] {
        match self {
            Self::Root(root) => root.authorities().first().map_or([0; 32], Authority::public_key_sha256),
            Self::Upstream { signing, .. } => signing.public_key_sha256(),
            Self::Jwt(authority) => sha256(&authority.spki_der()),
        }
    }

    /// What nodes trust.
    #[must_use]
    pub fn root(&self) -> Option<&Bundle> {
        match self {
            Self::Root(root) | Self::Upstream { root, .. } => Some(root),
            Self::Jwt(_) => None,
        }
    }

    /// The certificate to revoke with the authority: where the root stays, because it is not ours to withdraw.
    #[must_use]
    pub(super) fn revocable(&self) -> Option<SerialNumber> {
        match self {
            Self::Upstream { signing, .. } => SerialNumber::new(signing.serial()).ok(),
            Self::Root(_) | Self::Jwt(_) => None,
        }
    }
}

impl AuthorityRecord {
    /// What it signs.
    #[must_use]
    pub fn kind(&self) -> AuthorityKind {
        self.material.kind()
    }

    /// Whether everything that it signed is expired.
    #[must_use]
    pub fn is_over(&self, now: SystemTime) -> bool {
        self.not_after < now
    }
}

/// Every authority at one moment, and what they make together.
#[derive(Debug, Clone)]
pub struct Roster {
    /// By id.
    pub records: Vec<Arc<AuthorityRecord>>,
    /// What members of the trust domain trust.
    pub bundle: Arc<OwnBundle>,
}

impl Roster {
    /// The authority of `kind` that signs.
    #[must_use]
    pub fn active(&self, kind: AuthorityKind) -> Option<&Arc<AuthorityRecord>> {
        self.records.iter().find(|record| record.stage == Stage::Active && record.kind() == kind)
    }
}

/// What members of the trust domain trust, as one value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnBundle {
    /// Roots.
    pub x509: Bundle,
    /// Keys for tokens.
    pub jwt: Vec<JwtAuthority>,
    /// The SHA-256 of the keys of tainted authorities.
    pub tainted: Vec<[u8; 32]>,
    /// Grows with each change of the above.
    pub sequence: u64,
}

impl OwnBundle {
    /// Of no authority.
    #[must_use]
    pub(super) fn empty(trust_domain: TrustDomain) -> Self {
        Self { x509: Bundle::merged(trust_domain, []), jwt: Vec::new(), tainted: Vec::new(), sequence: 0 }
    }

    /// Of these authorities.
    #[must_use]
    pub(super) fn of<'a>(
        trust_domain: TrustDomain,
        records: impl Iterator<Item = &'a AuthorityRecord> + Clone,
        sequence: u64,
    ) -> Self {
        let jwt = records.clone().filter_map(|record| match &record.material {
            Material::Jwt(authority) => Some(authority.clone()),
            Material::Root(_) | Material::Upstream { .. } => None,
        });
        let tainted = records.clone().filter(|record| record.taint == Taint::Tainted);
        Self {
            jwt: jwt.collect(),
            tainted: tainted.map(|record| record.material.public_key_sha256()).collect(),
            x509: Bundle::merged(trust_domain, records.filter_map(|record| record.material.root())),
            sequence,
        }
    }

    /// Its keys for tokens.
    #[must_use]
    pub fn jwt_bundle(&self) -> Option<JwtBundle> {
        JwtBundle::new(self.trust_domain().clone(), self.jwt.clone()).ok()
    }

    /// Whose it is.
    #[must_use]
    pub fn trust_domain(&self) -> &TrustDomain {
        self.x509.trust_domain()
    }
}

impl Registry {
    /// What members of the trust domain trust.
    #[must_use]
    pub fn bundle(&self) -> &Arc<OwnBundle> {
        &self.bundle
    }

    /// Every authority of the trust domain.
    pub fn authorities(&self) -> impl Iterator<Item = &Arc<AuthorityRecord>> {
        self.authorities.values()
    }

    /// The same, to look at for longer.
    #[must_use]
    pub fn roster(&self) -> Roster {
        Roster { records: self.authorities.values().cloned().collect(), bundle: Arc::clone(&self.bundle) }
    }

    /// What is revoked.
    #[must_use]
    pub fn revocations(&self) -> &Revoking {
        &self.revocations
    }

    pub(super) fn apply_trust(&mut self, change: &TrustChange) {
        match change {
            TrustChange::Authority(record) => {
                self.authorities.insert(record.id.clone(), Arc::clone(record));
                self.rebundle(self.bundle.sequence);
            }
            TrustChange::AuthorityRemoved(id) => {
                self.authorities.remove(id);
                self.rebundle(self.bundle.sequence);
            }
            TrustChange::BundleSequence(sequence) => self.rebundle(*sequence),
            TrustChange::Revocation(revocation) => {
                self.marks.all = self.version.epoch;
                Arc::make_mut(&mut self.revocations).insert(revocation.revoked.clone(), Arc::clone(revocation));
            }
            TrustChange::RevocationRemoved(revoked) => {
                // Nodes forget it by themselves.
                Arc::make_mut(&mut self.revocations).remove(revoked);
            }
        }
    }

    fn rebundle(&mut self, sequence: u64) {
        self.marks.all = self.version.epoch;
        let records = self.authorities.values().map(Arc::as_ref);
        self.bundle = Arc::new(OwnBundle::of(self.trust_domain.clone(), records, sequence));
    }
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, bytes).as_ref());
    hash
}
