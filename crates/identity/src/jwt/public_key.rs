//! Public keys of JWT authorities: P-256, P-384 and RSA with 2048 to 4096 bits.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use thiserror::Error;
use x509_parser::{
    oid_registry::{OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY},
    prelude::FromDer as _,
    public_key::{PublicKey as ParsedKey, RSAPublicKey},
    x509::SubjectPublicKeyInfo,
};

use super::JwtAlgorithm;
use crate::{
    InvalidRequest,
    der::{BIT_STRING, SEQUENCE, tlv, unsigned, without_leading_zeros},
    request::{check_key, check_rsa, sha256},
};

/// id-ecPublicKey with the named curve (RFC 5480 §2.1.1).
const P256_ALGORITHM: [u8; 21] =
    [0x30, 19, 0x06, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1, 0x06, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7];
const P384_ALGORITHM: [u8; 18] =
    [0x30, 16, 0x06, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1, 0x06, 5, 0x2b, 0x81, 4, 0, 0x22];
/// rsaEncryption with NULL (RFC 3279 §2.3.1).
const RSA_ALGORITHM: [u8; 15] = [0x30, 13, 0x06, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1, 0x05, 0];
/// The first byte of a point that is written with both coordinates (SEC 1 §2.3.3).
const UNCOMPRESSED: u8 = 4;

/// Why a key cannot verify JWT-SVIDs.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum InvalidPublicKey {
    /// It is not the one DER encoding of a public key.
    #[error("not a public key in DER")]
    Malformed,
    /// It is of another kind, too weak, or too costly.
    #[error("unsupported key ({found}): use P-256, P-384 or RSA of 2048 to 4096 bits")]
    Unsupported {
        /// What kind of key it is.
        found: String,
    },
    /// A coordinate has not its curve's length (RFC 7518 §6.2.1.2).
    #[error("coordinate has {bytes} bytes, {expected} are needed")]
    Coordinate {
        /// How many it has.
        bytes: usize,
        /// How many the curve's coordinates have.
        expected: usize,
    },
    /// The algorithm is not one for keys of this kind.
    #[error("algorithm {algorithm} does not fit the key")]
    Algorithm {
        /// The algorithm that was named.
        algorithm: JwtAlgorithm,
    },
}

impl From<InvalidRequest> for InvalidPublicKey {
    fn from(error: InvalidRequest) -> Self {
        match error {
            InvalidRequest::UnsupportedKey { found } => Self::Unsupported { found },
            InvalidRequest::TooLarge { .. }
            | InvalidRequest::Malformed
            | InvalidRequest::TrailingBytes { .. }
            | InvalidRequest::UnsupportedSignature
            | InvalidRequest::NoProof => Self::Malformed,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Curve {
    P256,
    P384,
}

impl Curve {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::P256 => "P-256",
            Self::P384 => "P-384",
        }
    }

    fn coordinate_bytes(self) -> usize {
        match self {
            Self::P256 => 32,
            Self::P384 => 48,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    Ec { curve: Curve, x: Vec<u8>, y: Vec<u8> },
    Rsa { modulus: Vec<u8>, exponent: Vec<u8> },
}

/// A public key whose kind and size were checked. Whether an EC point lies on its curve shows when it verifies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PublicKey {
    kind: Kind,
    /// The content of subjectPublicKey: what ring reads.
    bits: Vec<u8>,
}

/// The members of a JWK that carry the key (RFC 7518 §6.2.1, §6.3.1), encoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum JwkMembers {
    Ec { crv: &'static str, x: String, y: String },
    Rsa { n: String, e: String },
}

impl PublicKey {
    /// Reads a SubjectPublicKeyInfo in DER.
    pub(crate) fn from_spki(der: &[u8]) -> Result<Self, InvalidPublicKey> {
        let (rest, spki) = SubjectPublicKeyInfo::from_der(der).map_err(|_parse| InvalidPublicKey::Malformed)?;
        if !rest.is_empty() {
            return Err(InvalidPublicKey::Malformed);
        }
        check_key(&spki)?;
        let key = if spki.algorithm.algorithm == OID_KEY_TYPE_EC_PUBLIC_KEY {
            let named = spki.algorithm.parameters.as_ref().and_then(|any| any.as_oid().ok());
            let curve = if named == Some(OID_EC_P256) { Curve::P256 } else { Curve::P384 };
            let (UNCOMPRESSED, point) = spki
                .subject_public_key
                .data
                .split_first()
                .ok_or(InvalidPublicKey::Malformed)
                .map(|(tag, point)| (*tag, point))?
            else {
                return Err(InvalidPublicKey::Malformed);
            };
            let (x, y) = point.split_at_checked(curve.coordinate_bytes()).ok_or(InvalidPublicKey::Malformed)?;
            Self::ec(curve, x, y)?
        } else {
            let Ok(ParsedKey::RSA(rsa)) = spki.parsed() else { return Err(InvalidPublicKey::Malformed) };
            Self::rsa(rsa.modulus, rsa.exponent)?
        };
        // The parser reads some BER; a key has one encoding here.
        if key.spki() == der { Ok(key) } else { Err(InvalidPublicKey::Malformed) }
    }

    pub(crate) fn ec(curve: Curve, x: &[u8], y: &[u8]) -> Result<Self, InvalidPublicKey> {
        let expected = curve.coordinate_bytes();
        if let Some(wrong) = [x, y].iter().find(|coordinate| coordinate.len() != expected) {
            return Err(InvalidPublicKey::Coordinate { bytes: wrong.len(), expected });
        }
        let bits = [&[UNCOMPRESSED], x, y].concat();
        Ok(Self { kind: Kind::Ec { curve, x: x.to_vec(), y: y.to_vec() }, bits })
    }

    pub(crate) fn rsa(modulus: &[u8], exponent: &[u8]) -> Result<Self, InvalidPublicKey> {
        let (modulus, exponent) = (without_leading_zeros(modulus), without_leading_zeros(exponent));
        check_rsa(&RSAPublicKey { modulus, exponent })?;
        let bits = tlv(SEQUENCE, &[unsigned(modulus), unsigned(exponent)].concat());
        Ok(Self { kind: Kind::Rsa { modulus: modulus.to_vec(), exponent: exponent.to_vec() }, bits })
    }

    /// The key's SubjectPublicKeyInfo in DER.
    pub(crate) fn spki(&self) -> Vec<u8> {
        let algorithm: &[u8] = match &self.kind {
            Kind::Ec { curve: Curve::P256, .. } => &P256_ALGORITHM,
            Kind::Ec { curve: Curve::P384, .. } => &P384_ALGORITHM,
            Kind::Rsa { .. } => &RSA_ALGORITHM,
        };
        let bits = tlv(BIT_STRING, &[&[0], self.bits.as_slice()].concat());
        tlv(SEQUENCE, &[algorithm, &bits].concat())
    }

    /// The content of subjectPublicKey.
    pub(crate) fn bits(&self) -> &[u8] {
        &self.bits
    }

    pub(crate) fn jwk(&self) -> JwkMembers {
        let encode = |bytes: &Vec<u8>| URL_SAFE_NO_PAD.encode(bytes);
        match &self.kind {
            Kind::Ec { curve, x, y } => JwkMembers::Ec { crv: curve.name(), x: encode(x), y: encode(y) },
            Kind::Rsa { modulus, exponent } => JwkMembers::Rsa { n: encode(modulus), e: encode(exponent) },
        }
    }

    /// The JWK thumbprint over SHA-256 (RFC 7638), as base64url: 43 characters.
    pub(crate) fn thumbprint(&self) -> String {
        // RFC 7638 §3: the required members in lexicographic order, without white space.
        let members = match self.jwk() {
            JwkMembers::Ec { crv, x, y } => format!(r#"{{"crv":"{crv}","kty":"EC","x":"{x}","y":"{y}"}}"#),
            JwkMembers::Rsa { n, e } => format!(r#"{{"e":"{e}","kty":"RSA","n":"{n}"}}"#),
        };
        URL_SAFE_NO_PAD.encode(sha256(members.as_bytes()))
    }

    /// The algorithm that this key is for: of an RSA key RS256 unless another one is named, as SPIRE signs.
    pub(crate) fn algorithm(&self, named: Option<JwtAlgorithm>) -> Result<JwtAlgorithm, InvalidPublicKey> {
        let own = match &self.kind {
            Kind::Ec { curve: Curve::P256, .. } => JwtAlgorithm::Es256,
            Kind::Ec { curve: Curve::P384, .. } => JwtAlgorithm::Es384,
            Kind::Rsa { .. } => JwtAlgorithm::Rs256,
        };
        match named {
            None => Ok(own),
            Some(algorithm) if algorithm == own || (algorithm.is_rsa() && own.is_rsa()) => Ok(algorithm),
            Some(algorithm) => Err(InvalidPublicKey::Algorithm { algorithm }),
        }
    }
}
