//! Certificate signing requests (PKCS#10): a request carries a public key and the proof that its sender holds the
//! private one, and nothing else. What a request says about names, usages and lifetimes is not even read.

use std::fmt;

use rcgen::{CertificateParams, DistinguishedName, PublicKeyData as _, SubjectPublicKeyInfo};
use ring::digest::{SHA256, digest};
use thiserror::Error;
use x509_parser::{
    certification_request::X509CertificationRequest,
    oid_registry::{
        OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_NIST_EC_P384, OID_PKCS1_RSAENCRYPTION, OID_PKCS1_RSASSAPSS,
        OID_PKCS1_SHA256WITHRSA, OID_PKCS1_SHA384WITHRSA, OID_PKCS1_SHA512WITHRSA, OID_SIG_ECDSA_WITH_SHA256,
        OID_SIG_ECDSA_WITH_SHA384,
    },
    prelude::FromDer as _,
    public_key::{PublicKey, RSAPublicKey},
    x509::{AlgorithmIdentifier, SubjectPublicKeyInfo as ParsedPublicKey},
};

use crate::{NoRandomness, PrivateKey};

/// A request for an RSA-4096 key with a dozen names stays under 3 KiB.
const MAX_REQUEST_BYTES: usize = 8 * 1024;
const MIN_RSA_BITS: usize = 2048;
/// Larger keys cost the verifier, not their owner.
const MAX_RSA_BITS: usize = 4096;
/// NIST SP 800-56B §6.2: the smallest exponent in use; 1 would make every signature valid.
const MIN_RSA_EXPONENT: u64 = 65_537;

/// Why a request is refused.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum InvalidRequest {
    /// It is too long to be an honest request.
    #[error("certificate request of {bytes} bytes is longer than {MAX_REQUEST_BYTES}")]
    TooLarge {
        /// How long it is.
        bytes: usize,
    },
    /// It is not a PKCS#10 request in DER.
    #[error("not a certificate request in DER")]
    Malformed,
    /// Bytes follow the request.
    #[error("certificate request is followed by {bytes} bytes")]
    TrailingBytes {
        /// How many.
        bytes: usize,
    },
    /// The key is of a kind that we do not certify.
    #[error("certificate request for an unsupported key ({found}): use P-256, P-384 or RSA of 2048 to 4096 bits")]
    UnsupportedKey {
        /// What kind of key it is.
        found: String,
    },
    /// The request is signed in a way that proves too little, for example over SHA-1.
    #[error("certificate request is signed with an unsupported algorithm: use SHA-256 or SHA-384")]
    UnsupportedSignature,
    /// The signature does not fit the key: its sender does not hold the private key.
    #[error("certificate request does not prove possession of its key")]
    NoProof,
}

/// Makes the request for a certificate over `key`: a CSR in DER with an empty subject and no extensions.
///
/// # Errors
/// [`NoRandomness`] if signing fails.
pub fn key_request(key: &PrivateKey) -> Result<Vec<u8>, NoRandomness> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    let request = params.serialize_request(key).map_err(|_failed| NoRandomness)?;
    Ok(request.der().to_vec())
}

/// The public key of a request whose sender proved to hold the private one.
#[derive(Clone, PartialEq, Eq)]
pub struct RequestedKey {
    spki: Vec<u8>,
}

impl RequestedKey {
    /// Reads a CSR, checks its key and the proof of possession, and forgets the rest.
    ///
    /// Keys are P-256, P-384 or RSA with 2048 to 4096 bits.
    ///
    /// # Errors
    /// [`InvalidRequest`] says which check failed.
    pub fn parse(der: &[u8]) -> Result<Self, InvalidRequest> {
        if der.len() > MAX_REQUEST_BYTES {
            return Err(InvalidRequest::TooLarge { bytes: der.len() });
        }
        let (rest, request) = X509CertificationRequest::from_der(der).map_err(|_parse| InvalidRequest::Malformed)?;
        if !rest.is_empty() {
            return Err(InvalidRequest::TrailingBytes { bytes: rest.len() });
        }
        let key = &request.certification_request_info.subject_pki;
        check_key(key)?;
        check_signature_algorithm(&request.signature_algorithm)?;
        request
            .verify_signature()
            .map_err(|_signature| InvalidRequest::NoProof)?;
        // The parser reads some BER; what we certify and hash is the one DER encoding of the key.
        let spki = SubjectPublicKeyInfo::from_der(key.raw)
            .map_err(|_parse| InvalidRequest::Malformed)?
            .subject_public_key_info();
        if spki != key.raw {
            return Err(InvalidRequest::Malformed);
        }
        Ok(Self { spki })
    }

    /// The key's SubjectPublicKeyInfo in DER: what the certificate is made for.
    #[must_use]
    pub fn spki_der(&self) -> &[u8] {
        &self.spki
    }

    /// The SHA-256 of [`Self::spki_der`].
    #[must_use]
    pub fn sha256(&self) -> [u8; 32] {
        sha256(&self.spki)
    }
}

impl fmt::Debug for RequestedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestedKey").finish_non_exhaustive()
    }
}

pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest(&SHA256, bytes).as_ref());
    out
}

fn check_key(key: &ParsedPublicKey<'_>) -> Result<(), InvalidRequest> {
    let algorithm = &key.algorithm;
    if algorithm.algorithm == OID_KEY_TYPE_EC_PUBLIC_KEY {
        let curve = algorithm
            .parameters
            .as_ref()
            .and_then(|parameters| parameters.as_oid().ok());
        return match curve {
            Some(curve) if curve == OID_EC_P256 || curve == OID_NIST_EC_P384 => Ok(()),
            Some(curve) => Err(InvalidRequest::UnsupportedKey {
                found: format!("curve {curve}"),
            }),
            None => Err(InvalidRequest::UnsupportedKey {
                found: "explicit curve parameters".to_owned(),
            }),
        };
    }
    if algorithm.algorithm == OID_PKCS1_RSAENCRYPTION
        && let Ok(PublicKey::RSA(rsa)) = key.parsed()
    {
        return check_rsa(&rsa);
    }
    Err(InvalidRequest::UnsupportedKey {
        found: format!("algorithm {}", algorithm.algorithm),
    })
}

fn check_rsa(key: &RSAPublicKey<'_>) -> Result<(), InvalidRequest> {
    let bits = bit_length(key.modulus);
    if !(MIN_RSA_BITS..=MAX_RSA_BITS).contains(&bits) {
        return Err(InvalidRequest::UnsupportedKey {
            found: format!("RSA of {bits} bits"),
        });
    }
    match key.try_exponent() {
        Ok(exponent) if exponent >= MIN_RSA_EXPONENT && exponent % 2 == 1 => Ok(()),
        Ok(exponent) => Err(InvalidRequest::UnsupportedKey {
            found: format!("RSA with exponent {exponent}"),
        }),
        Err(_) => Err(InvalidRequest::UnsupportedKey {
            found: "RSA with an exponent over 64 bits".to_owned(),
        }),
    }
}

fn bit_length(integer: &[u8]) -> usize {
    let zeros = integer.iter().take_while(|byte| **byte == 0).count();
    match integer.get(zeros) {
        // At most 8 bits of one byte: it fits.
        Some(first) => (integer.len() - zeros) * 8 - first.leading_zeros() as usize,
        None => 0,
    }
}

fn check_signature_algorithm(algorithm: &AlgorithmIdentifier<'_>) -> Result<(), InvalidRequest> {
    let accepted = [
        OID_SIG_ECDSA_WITH_SHA256,
        OID_SIG_ECDSA_WITH_SHA384,
        OID_PKCS1_SHA256WITHRSA,
        OID_PKCS1_SHA384WITHRSA,
        OID_PKCS1_SHA512WITHRSA,
        OID_PKCS1_RSASSAPSS,
    ];
    if accepted.contains(&algorithm.algorithm) {
        Ok(())
    } else {
        Err(InvalidRequest::UnsupportedSignature)
    }
}
