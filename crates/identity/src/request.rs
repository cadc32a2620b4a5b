//! Certificate signing requests (PKCS#10): a request carries a public key and the proof that its sender holds the
//! private one, and nothing else. What a request says about names, usages and lifetimes is not even read.

use std::fmt;

use rcgen::{CertificateParams, DistinguishedName, PublicKeyData as _, SubjectPublicKeyInfo};
use ring::digest::{SHA256, digest};
use thiserror::Error;
use x509_parser::{
    asn1_rs::Tag,
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
    sha256: [u8; 32],
    parsed: SubjectPublicKeyInfo,
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
        request.verify_signature().map_err(|_signature| InvalidRequest::NoProof)?;
        // The parser reads some BER; what we certify and hash is the one DER encoding of the key.
        let parsed = SubjectPublicKeyInfo::from_der(key.raw).map_err(|_parse| InvalidRequest::Malformed)?;
        let spki = parsed.subject_public_key_info();
        if spki != key.raw {
            return Err(InvalidRequest::Malformed);
        }
        let sha256 = sha256(&spki);
        Ok(Self { spki, sha256, parsed })
    }

    /// The key's SubjectPublicKeyInfo in DER: what the certificate is made for.
    #[must_use]
    pub fn spki_der(&self) -> &[u8] {
        &self.spki
    }

    /// The same, as the encoder of certificates takes it: reading it twice costs a twentieth of a signature.
    #[must_use]
    pub fn spki(&self) -> &SubjectPublicKeyInfo {
        &self.parsed
    }

    /// The SHA-256 of [`Self::spki_der`].
    #[must_use]
    pub fn sha256(&self) -> [u8; 32] {
        self.sha256
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

pub(crate) fn check_key(key: &ParsedPublicKey<'_>) -> Result<(), InvalidRequest> {
    let ParsedPublicKey { algorithm: AlgorithmIdentifier { algorithm, parameters }, .. } = key;
    if *algorithm == OID_KEY_TYPE_EC_PUBLIC_KEY {
        // Reading an OID does not check that it is one.
        let name = parameters.as_ref().filter(|any| any.tag() == Tag::Oid).and_then(|any| any.as_oid().ok());
        return match name {
            Some(curve) if curve == OID_EC_P256 || curve == OID_NIST_EC_P384 => Ok(()),
            Some(curve) => Err(InvalidRequest::UnsupportedKey { found: format!("curve {curve}") }),
            None => Err(InvalidRequest::UnsupportedKey { found: "curve without a name".to_owned() }),
        };
    }
    if *algorithm != OID_PKCS1_RSAENCRYPTION {
        return Err(InvalidRequest::UnsupportedKey { found: format!("algorithm {algorithm}") });
    }
    match key.parsed() {
        Ok(PublicKey::RSA(rsa)) => check_rsa(&rsa),
        Ok(_) | Err(_) => Err(InvalidRequest::Malformed),
    }
}

pub(crate) fn check_rsa(key: &RSAPublicKey<'_>) -> Result<(), InvalidRequest> {
    let bits = bit_length(key.modulus);
    if !(MIN_RSA_BITS..=MAX_RSA_BITS).contains(&bits) {
        return Err(InvalidRequest::UnsupportedKey { found: format!("RSA of {bits} bits") });
    }
    match key.try_exponent() {
        Ok(exponent) if exponent >= MIN_RSA_EXPONENT && exponent % 2 == 1 => Ok(()),
        Ok(exponent) => Err(InvalidRequest::UnsupportedKey { found: format!("RSA with exponent {exponent}") }),
        Err(_) => Err(InvalidRequest::UnsupportedKey { found: "RSA with an exponent over 64 bits".to_owned() }),
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
    if accepted.contains(&algorithm.algorithm) { Ok(()) } else { Err(InvalidRequest::UnsupportedSignature) }
}

#[cfg(test)]
mod tests {
    use super::*;

    macro_rules! fixture {
        ($name:literal) => {
            include_bytes!(concat!("../fixtures/", $name, ".csr")).as_slice()
        };
    }

    fn unsupported(der: &[u8]) -> String {
        match RequestedKey::parse(der) {
            Err(InvalidRequest::UnsupportedKey { found }) => found,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn our_own_request_carries_the_key() {
        let key = PrivateKey::generate().unwrap();
        let requested = RequestedKey::parse(&key_request(&key).unwrap()).unwrap();
        assert_eq!(requested.sha256(), key.public_key_sha256());
        assert_eq!(requested.spki_der(), key.subject_public_key_info());
    }

    #[test]
    fn requests_of_openssl_are_read() {
        for (der, bytes) in [
            (fixture!("p256-greedy"), 91),
            (fixture!("p384-sha256"), 120),
            (fixture!("rsa2048"), 294),
            (fixture!("rsa2048-pss"), 294),
            (fixture!("rsa4096"), 550),
        ] {
            assert_eq!(RequestedKey::parse(der).unwrap().spki_der().len(), bytes);
        }
    }

    /// What the request asks for (another's SPIFFE ID, CA:TRUE, keyCertSign) has no way into a certificate: the type
    /// holds the key alone.
    #[test]
    fn a_requested_key_can_be_certified() {
        for der in [fixture!("p256-greedy"), fixture!("p384-sha256"), fixture!("rsa2048")] {
            let requested = RequestedKey::parse(der).unwrap();
            let key = SubjectPublicKeyInfo::from_der(requested.spki_der()).unwrap();
            assert_eq!(key.subject_public_key_info(), requested.spki_der());
        }
    }

    #[test]
    fn keys_that_are_weak_costly_or_unusual_are_refused() {
        assert_eq!(unsupported(fixture!("rsa1024")), "RSA of 1024 bits");
        assert_eq!(unsupported(fixture!("rsa8192")), "RSA of 8192 bits");
        assert_eq!(unsupported(fixture!("rsa-exponent3")), "RSA with exponent 3");
        assert_eq!(unsupported(fixture!("p521")), "curve 1.3.132.0.35");
        assert_eq!(unsupported(fixture!("k256")), "curve 1.3.132.0.10");
        assert_eq!(unsupported(fixture!("p256-explicit")), "curve without a name");
        assert_eq!(unsupported(fixture!("ed25519")), "algorithm 1.3.101.112");
    }

    /// With the exponent 1 a signature is its own padded message: anybody could make one.
    #[test]
    fn an_rsa_exponent_is_large_and_odd() {
        let check = |exponent| check_rsa(&RSAPublicKey { modulus: &[0xff; 256], exponent });
        assert_eq!(check(&[1, 0, 1]), Ok(()));
        for exponent in [&[1][..], &[3], &[1, 0, 0], &[1, 0, 2], &[], &[0xff; 3], &[1; 9]] {
            assert!(matches!(check(exponent), Err(InvalidRequest::UnsupportedKey { .. })), "{exponent:?}");
        }
    }

    #[test]
    fn an_rsa_key_that_is_not_der_is_refused() {
        let mut der = fixture!("rsa2048").to_vec();
        let at = der.windows(5).position(|window| window == [0x02, 0x03, 0x01, 0x00, 0x01]).unwrap();
        der[at + 2..at + 5].copy_from_slice(&[0, 0, 1]);
        assert_eq!(RequestedKey::parse(&der), Err(InvalidRequest::Malformed));
    }

    #[test]
    fn a_proof_over_sha1_is_refused() {
        assert_eq!(RequestedKey::parse(fixture!("rsa2048-sha1")), Err(InvalidRequest::UnsupportedSignature));
    }

    #[test]
    fn a_request_without_proof_is_refused() {
        let mut der = key_request(&PrivateKey::generate().unwrap()).unwrap();
        *der.last_mut().unwrap() ^= 1;
        assert_eq!(RequestedKey::parse(&der), Err(InvalidRequest::NoProof));
    }

    #[test]
    fn a_request_for_another_ones_key_is_refused() {
        let (mine, other) = (PrivateKey::generate().unwrap(), PrivateKey::generate().unwrap());
        let mut der = key_request(&mine).unwrap();
        let point = rcgen::PublicKeyData::der_bytes(&mine);
        let at = der.windows(point.len()).position(|window| window == point).unwrap();
        der[at..at + point.len()].copy_from_slice(rcgen::PublicKeyData::der_bytes(&other));
        assert_eq!(RequestedKey::parse(&der), Err(InvalidRequest::NoProof));
    }

    /// The name of the signature's algorithm is not signed, so some changes go unnoticed; none of them tells another key.
    #[test]
    fn a_changed_request_never_carries_another_key() {
        let key = PrivateKey::generate().unwrap();
        let der = key_request(&key).unwrap();
        for at in 0..der.len() {
            for bit in 0..8 {
                let mut changed = der.clone();
                changed[at] ^= 1 << bit;
                if let Ok(requested) = RequestedKey::parse(&changed) {
                    assert_eq!(requested.sha256(), key.public_key_sha256(), "byte {at}, bit {bit}");
                }
            }
        }
    }

    /// Of one key there would be several hashes otherwise; a join token is bound to the hash.
    #[test]
    fn a_key_is_encoded_in_one_way() {
        let key = PrivateKey::generate().unwrap();
        let request = |spki: &[u8]| {
            let content = [&[0x02, 1, 0, 0x30, 0], spki, &[0xa0, 0]].concat();
            let info = [&[0x30, u8::try_from(content.len()).unwrap()], content.as_slice()].concat();
            let signature = [vec![0], rcgen::SigningKey::sign(&key, &info).unwrap()].concat();
            let ecdsa_with_sha256 = [0x30, 10, 0x06, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2];
            let bits = [&[0x03, u8::try_from(signature.len()).unwrap()], signature.as_slice()].concat();
            let content = [info.as_slice(), &ecdsa_with_sha256, &bits].concat();
            [&[0x30, 0x81, u8::try_from(content.len()).unwrap()], content.as_slice()].concat()
        };
        let spki = key.subject_public_key_info();
        assert_eq!(RequestedKey::parse(&request(&spki)).unwrap().spki_der(), spki);
        // The length in two bytes where one is enough.
        let longer = [&[0x30, 0x81], &spki[1..]].concat();
        assert_eq!(RequestedKey::parse(&request(&longer)), Err(InvalidRequest::Malformed));
    }

    #[test]
    fn bytes_after_the_request_are_refused() {
        let der = [fixture!("p256-greedy"), &[0, 0]].concat();
        assert_eq!(RequestedKey::parse(&der), Err(InvalidRequest::TrailingBytes { bytes: 2 }));
    }

    #[test]
    fn what_is_no_request_is_refused() {
        for der in [&[][..], b"hello", &fixture!("rsa2048")[..100]] {
            assert_eq!(RequestedKey::parse(der), Err(InvalidRequest::Malformed));
        }
        assert_eq!(RequestedKey::parse(&vec![0x30; 8193]), Err(InvalidRequest::TooLarge { bytes: 8193 }));
    }

    #[test]
    fn a_length_in_bits_ignores_leading_zeros() {
        assert_eq!([bit_length(&[]), bit_length(&[0, 0]), bit_length(&[0, 1]), bit_length(&[0x80, 0])], [0, 0, 1, 16]);
    }
}
