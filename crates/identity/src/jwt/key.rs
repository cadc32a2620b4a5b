//! The private key of a JWT authority: P-256, for ES256.

use std::{fmt, time::SystemTime};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _},
};
use zeroize::Zeroizing;

use super::{
    JwtAlgorithm, JwtAuthority, KeyId,
    public_key::{Curve, PublicKey},
};
use crate::{InvalidKey, NoRandomness};

/// The private key with which an issuer signs JWT-SVIDs: P-256. It is never cloned, never printed, and its encoding is
/// wiped on drop.
///
/// It is a type of its own so that no X.509 authority's key signs a token (SPIFFE Trust Domain and Bundle §2). What
/// ring keeps of it in order to sign is not wiped: it offers no way.
pub struct JwtKey {
    pkcs8: Zeroizing<Vec<u8>>,
    pair: EcdsaKeyPair,
    random: SystemRandom,
    authority: JwtAuthority,
    /// The header of every token, encoded.
    header: String,
}

impl JwtKey {
    /// Makes a new key.
    ///
    /// # Errors
    /// [`NoRandomness`].
    pub fn generate() -> Result<Self, NoRandomness> {
        let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new())
            .map_err(|_unspecified| NoRandomness)?;
        Self::from_pkcs8(document.as_ref()).map_err(|InvalidKey| NoRandomness)
    }

    /// Reads a key from its PKCS#8 encoding (RFC 5208, with the public key, as [`JwtKey::pkcs8`] gives it).
    ///
    /// # Errors
    /// [`InvalidKey`] for any other kind of key or encoding.
    pub fn from_pkcs8(der: &[u8]) -> Result<Self, InvalidKey> {
        let random = SystemRandom::new();
        let pair =
            EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der, &random).map_err(|_rejected| InvalidKey)?;
        // An uncompressed point: its tag and two coordinates of 32 bytes.
        let (x, y) =
            pair.public_key().as_ref().get(1..).and_then(|point| point.split_at_checked(32)).ok_or(InvalidKey)?;
        let key = PublicKey::ec(Curve::P256, x, y).map_err(|_coordinate| InvalidKey)?;
        let kid = KeyId::thumbprint_of(&key);
        // Base64url needs no escape in JSON.
        let header = format!(r#"{{"alg":"{}","kid":"{}","typ":"JWT"}}"#, JwtAlgorithm::Es256, kid.as_str());
        let authority = JwtAuthority::new(kid, key, Some(JwtAlgorithm::Es256), None).map_err(|_key| InvalidKey)?;
        let pkcs8 = Zeroizing::new(der.to_vec());
        Ok(Self { pkcs8, pair, random, authority, header: URL_SAFE_NO_PAD.encode(header) })
    }

    /// The key's PKCS#8 encoding. Whoever copies it has to wipe the copy.
    #[must_use]
    pub fn pkcs8(&self) -> &[u8] {
        &self.pkcs8
    }

    /// The key's name: its JWK thumbprint over SHA-256 (RFC 7638) as base64url, 43 characters.
    #[must_use]
    pub fn kid(&self) -> &KeyId {
        self.authority.kid()
    }

    /// The public half as it goes into bundles, trusted until `not_after`.
    #[must_use]
    pub fn authority(&self, not_after: Option<SystemTime>) -> JwtAuthority {
        self.authority.until(not_after)
    }

    /// Signs the head of an audit log: 64 bytes (r and s) over `records`, big endian, and `hash`.
    ///
    /// No such message is a token's signing input: that begins with `ey`, and no log has 7 × 10^18 records.
    ///
    /// # Errors
    /// [`NoRandomness`].
    pub fn sign_audit_head(&self, records: u64, hash: &[u8; 32]) -> Result<Vec<u8>, NoRandomness> {
        self.sign(&audit_head(records, hash))
    }

    pub(super) fn header(&self) -> &str {
        &self.header
    }

    pub(super) fn sign(&self, message: &[u8]) -> Result<Vec<u8>, NoRandomness> {
        let signature = self.pair.sign(&self.random, message).map_err(|_unspecified| NoRandomness)?;
        Ok(signature.as_ref().to_vec())
    }
}

impl fmt::Debug for JwtKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JwtKey").field("kid", self.kid()).finish_non_exhaustive()
    }
}

pub(super) fn audit_head(records: u64, hash: &[u8; 32]) -> Vec<u8> {
    [&records.to_be_bytes(), hash.as_slice()].concat()
}
