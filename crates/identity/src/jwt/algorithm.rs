//! The algorithms of JWT-SVIDs (JWT-SVID §2.1, RFC 7518 §3).

use std::{fmt, str::FromStr};

use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384,
    RSA_PKCS1_2048_8192_SHA512, RSA_PSS_2048_8192_SHA256, RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512,
    VerificationAlgorithm,
};
use thiserror::Error;

use crate::id::shown;

/// An `alg` that is not verified here.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum InvalidJwtAlgorithm {
    /// JWT-SVID §2.1 forbids it: `none`, `HS256`, `EdDSA` and everything else outside the nine.
    #[error("`{alg}` is no algorithm of JWT-SVIDs")]
    Forbidden {
        /// What was given.
        alg: String,
    },
    /// JWT-SVID §2.1 allows it, but no P-521 signature can be checked here.
    #[error("`ES512` is not supported: use ES256, ES384, or RSA")]
    Es512,
}

/// How a JWT-SVID is signed: eight of the nine algorithms of JWT-SVID §2.1, all but ES512.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum JwtAlgorithm {
    /// ECDSA with P-256 and SHA-256.
    Es256,
    /// ECDSA with P-384 and SHA-384.
    Es384,
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    Rs256,
    /// RSASSA-PKCS1-v1_5 with SHA-384.
    Rs384,
    /// RSASSA-PKCS1-v1_5 with SHA-512.
    Rs512,
    /// RSASSA-PSS with SHA-256.
    Ps256,
    /// RSASSA-PSS with SHA-384.
    Ps384,
    /// RSASSA-PSS with SHA-512.
    Ps512,
}

impl JwtAlgorithm {
    /// Its name in `alg`; case counts.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Es256 => "ES256",
            Self::Es384 => "ES384",
            Self::Rs256 => "RS256",
            Self::Rs384 => "RS384",
            Self::Rs512 => "RS512",
            Self::Ps256 => "PS256",
            Self::Ps384 => "PS384",
            Self::Ps512 => "PS512",
        }
    }

    pub(super) fn is_rsa(self) -> bool {
        match self {
            Self::Es256 | Self::Es384 => false,
            Self::Rs256 | Self::Rs384 | Self::Rs512 | Self::Ps256 | Self::Ps384 | Self::Ps512 => true,
        }
    }

    pub(super) fn verification(self) -> &'static dyn VerificationAlgorithm {
        match self {
            Self::Es256 => &ECDSA_P256_SHA256_FIXED,
            Self::Es384 => &ECDSA_P384_SHA384_FIXED,
            Self::Rs256 => &RSA_PKCS1_2048_8192_SHA256,
            Self::Rs384 => &RSA_PKCS1_2048_8192_SHA384,
            Self::Rs512 => &RSA_PKCS1_2048_8192_SHA512,
            Self::Ps256 => &RSA_PSS_2048_8192_SHA256,
            Self::Ps384 => &RSA_PSS_2048_8192_SHA384,
            Self::Ps512 => &RSA_PSS_2048_8192_SHA512,
        }
    }
}

impl FromStr for JwtAlgorithm {
    type Err = InvalidJwtAlgorithm;

    fn from_str(text: &str) -> Result<Self, InvalidJwtAlgorithm> {
        Ok(match text {
            "ES256" => Self::Es256,
            "ES384" => Self::Es384,
            "RS256" => Self::Rs256,
            "RS384" => Self::Rs384,
            "RS512" => Self::Rs512,
            "PS256" => Self::Ps256,
            "PS384" => Self::Ps384,
            "PS512" => Self::Ps512,
            "ES512" => return Err(InvalidJwtAlgorithm::Es512),
            other => return Err(InvalidJwtAlgorithm::Forbidden { alg: shown(other) }),
        })
    }
}

impl fmt::Display for JwtAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_algorithms_of_the_standard_are_read_and_es512_is_named() {
        for name in ["ES256", "ES384", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512"] {
            assert_eq!(name.parse::<JwtAlgorithm>().unwrap().to_string(), name);
        }
        for name in
            ["", "none", "None", "HS256", "HS512", "EdDSA", "es256", "ES256K", "ES256 ", "RSA-OAEP", "ML-DSA-44"]
        {
            assert!(matches!(name.parse::<JwtAlgorithm>(), Err(InvalidJwtAlgorithm::Forbidden { .. })), "{name}");
        }
        assert_eq!("ES512".parse::<JwtAlgorithm>(), Err(InvalidJwtAlgorithm::Es512));
    }
}
