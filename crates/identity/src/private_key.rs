//! A private key: P-256, in PKCS#8.

use std::{fmt, sync::Arc};

use ring::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _},
};
use rustls::{
    crypto::ring::sign::any_ecdsa_type,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
    sign::SigningKey,
};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::request::sha256;

/// The bytes are not a P-256 private key in PKCS#8.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("not a P-256 private key in PKCS#8")]
pub struct InvalidKey;

/// The operating system gave no randomness.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("the operating system's random number generator failed")]
pub struct NoRandomness;

/// A P-256 private key in PKCS#8. It is never cloned, never printed, and its encoding is wiped on drop.
///
/// What ring and rustls keep of it in order to sign is not wiped: they offer no way.
pub struct PrivateKey {
    pkcs8: Zeroizing<Vec<u8>>,
    pair: EcdsaKeyPair,
    random: SystemRandom,
}

impl PrivateKey {
    /// Makes a new key.
    ///
    /// # Errors
    /// [`NoRandomness`].
    pub fn generate() -> Result<Self, NoRandomness> {
        let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &SystemRandom::new())
            .map_err(|_unspecified| NoRandomness)?;
        Self::from_pkcs8(document.as_ref()).map_err(|InvalidKey| NoRandomness)
    }

    /// Reads a key from its PKCS#8 encoding (RFC 5208, with the public key, as [`PrivateKey::pkcs8`] gives it).
    ///
    /// # Errors
    /// [`InvalidKey`] for any other kind of key or encoding.
    pub fn from_pkcs8(der: &[u8]) -> Result<Self, InvalidKey> {
        let random = SystemRandom::new();
        let pair =
            EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, der, &random).map_err(|_rejected| InvalidKey)?;
        Ok(Self { pkcs8: Zeroizing::new(der.to_vec()), pair, random })
    }

    /// The key's PKCS#8 encoding. Whoever copies it has to wipe the copy.
    #[must_use]
    pub fn pkcs8(&self) -> &[u8] {
        &self.pkcs8
    }

    /// The SHA-256 of the public key's SubjectPublicKeyInfo.
    #[must_use]
    pub fn public_key_sha256(&self) -> [u8; 32] {
        sha256(&rcgen::PublicKeyData::subject_public_key_info(self))
    }

    pub(crate) fn signing_key(&self) -> Result<Arc<dyn SigningKey>, InvalidKey> {
        any_ecdsa_type(&PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.pkcs8()))).map_err(|_error| InvalidKey)
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKey(..)")
    }
}

impl rcgen::PublicKeyData for PrivateKey {
    fn der_bytes(&self) -> &[u8] {
        self.pair.public_key().as_ref()
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        &rcgen::PKCS_ECDSA_P256_SHA256
    }
}

impl rcgen::SigningKey for PrivateKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        let signature = self.pair.sign(&self.random, message).map_err(|_unspecified| rcgen::Error::RingUnspecified)?;
        Ok(signature.as_ref().to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_survives_its_encoding() {
        let key = PrivateKey::generate().unwrap();
        let again = PrivateKey::from_pkcs8(key.pkcs8()).unwrap();
        assert_eq!(key.pkcs8(), again.pkcs8());
        assert_eq!(key.public_key_sha256(), again.public_key_sha256());
        assert_ne!(key.public_key_sha256(), PrivateKey::generate().unwrap().public_key_sha256());
    }

    #[test]
    fn a_key_is_not_printed() {
        assert_eq!(format!("{:?}", PrivateKey::generate().unwrap()), "PrivateKey(..)");
    }

    #[test]
    fn other_keys_and_damaged_ones_are_refused() {
        let key = PrivateKey::generate().unwrap();
        let p384 = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
        let ed25519 = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        let cut = &key.pkcs8()[..key.pkcs8().len() - 1];
        let longer = [key.pkcs8(), &[0]].concat();
        for der in [&[][..], cut, &longer, p384.serialized_der(), ed25519.serialized_der()] {
            assert_eq!(PrivateKey::from_pkcs8(der).unwrap_err(), InvalidKey);
        }
    }
}
