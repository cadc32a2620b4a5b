//! JWT authorities: the public keys with which JWT-SVIDs of one trust domain are verified.

use std::{fmt, str::FromStr, time::SystemTime};

use ring::signature::UnparsedPublicKey;
use thiserror::Error;

use super::{InvalidPublicKey, JwtAlgorithm, public_key::PublicKey};

/// The longest `kid` that is read, in bytes: SPIRE's have 32, ours 43.
pub const MAX_KEY_ID_BYTES: usize = 256;

/// A text that cannot name a key.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("key id of {bytes} bytes: use 1 to {MAX_KEY_ID_BYTES}")]
pub struct InvalidKeyId {
    /// How long it is.
    pub bytes: usize,
}

/// The `kid` of a key, case-sensitive (RFC 7517 §4.5).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(String);

impl KeyId {
    pub(super) fn thumbprint_of(key: &PublicKey) -> Self {
        Self(key.thumbprint())
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for KeyId {
    type Err = InvalidKeyId;

    fn from_str(text: &str) -> Result<Self, InvalidKeyId> {
        if (1..=MAX_KEY_ID_BYTES).contains(&text.len()) {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidKeyId { bytes: text.len() })
        }
    }
}

/// Without control characters: a foreign trust domain may have chosen it.
impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.escape_debug().fmt(f)
    }
}

/// A key that verifies JWT-SVIDs, with the one algorithm that it is for (JWT-SVID §6).
#[derive(Clone, PartialEq, Eq)]
pub struct JwtAuthority {
    kid: KeyId,
    algorithm: JwtAlgorithm,
    key: PublicKey,
    not_after: Option<SystemTime>,
}

impl JwtAuthority {
    /// An authority of a SubjectPublicKeyInfo in DER: P-256, P-384, or RSA with 2048 to 4096 bits.
    ///
    /// Without `algorithm` a P-256 key is for ES256, a P-384 key for ES384 and an RSA key for RS256. From `not_after`
    /// on nothing is accepted that it signed; `None` where that is not known.
    ///
    /// # Errors
    /// [`InvalidPublicKey`] if the key is unreadable or unsupported, or the algorithm does not fit it.
    pub fn from_spki(
        kid: KeyId,
        spki: &[u8],
        algorithm: Option<JwtAlgorithm>,
        not_after: Option<SystemTime>,
    ) -> Result<Self, InvalidPublicKey> {
        Self::new(kid, PublicKey::from_spki(spki)?, algorithm, not_after)
    }

    pub(crate) fn new(
        kid: KeyId,
        key: PublicKey,
        algorithm: Option<JwtAlgorithm>,
        not_after: Option<SystemTime>,
    ) -> Result<Self, InvalidPublicKey> {
        let algorithm = key.algorithm(algorithm)?;
        Ok(Self { kid, algorithm, key, not_after })
    }

    /// This key, trusted until `not_after`.
    pub(super) fn until(&self, not_after: Option<SystemTime>) -> Self {
        Self { not_after, ..self.clone() }
    }

    /// The key's name.
    #[must_use]
    pub fn kid(&self) -> &KeyId {
        &self.kid
    }

    /// The one algorithm with which its signatures are verified.
    #[must_use]
    pub fn algorithm(&self) -> JwtAlgorithm {
        self.algorithm
    }

    /// When it stops to count; `None`: not known.
    #[must_use]
    pub fn not_after(&self) -> Option<SystemTime> {
        self.not_after
    }

    /// The key's SubjectPublicKeyInfo in DER.
    #[must_use]
    pub fn spki_der(&self) -> Vec<u8> {
        self.key.spki()
    }

    pub(crate) fn key(&self) -> &PublicKey {
        &self.key
    }

    /// Whether `alg` says something that the key does not say already.
    pub(crate) fn needs_algorithm(&self) -> bool {
        self.key.algorithm(None) != Ok(self.algorithm)
    }

    /// Whether this key signed these bytes with its algorithm.
    pub(super) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(self.algorithm.verification(), self.key.bits()).verify(message, signature).is_ok()
    }

    /// Whether this key signed the head of an audit log: see [`JwtKey::sign_audit_head`](super::JwtKey::sign_audit_head).
    #[must_use]
    pub fn verifies_audit_head(&self, records: u64, hash: &[u8; 32], signature: &[u8]) -> bool {
        self.verifies(&super::key::audit_head(records, hash), signature)
    }
}

impl fmt::Debug for JwtAuthority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JwtAuthority")
            .field("kid", &self.kid)
            .field("algorithm", &self.algorithm)
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}
