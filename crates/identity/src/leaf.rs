//! The leaf profile: what makes a certificate an X.509-SVID that may authenticate (X509-SVID §2 to §4, §5.2).

use std::time::SystemTime;

use spiffe::SpiffeId;
use thiserror::Error;

use crate::{InvalidCertificate, certificate::Certificate, request::sha256, validity::ValidityPeriod};

/// Why a certificate may not authenticate anybody.
#[derive(Clone, Debug, Error, PartialEq)]
pub enum InvalidLeaf {
    /// There is no certificate.
    #[error("no certificate was presented")]
    Missing,
    /// It cannot be read.
    #[error(transparent)]
    Certificate(#[from] InvalidCertificate),
    /// X509-SVID §2: it carries no SPIFFE ID.
    #[error("certificate carries no SPIFFE ID")]
    NoSpiffeId,
    /// X509-SVID §3.1: the ID of a trust domain itself belongs to its authority.
    #[error("`{id}` names a trust domain, not a workload: the ID needs a path")]
    NoPath {
        /// The ID.
        id: SpiffeId,
    },
    /// X509-SVID §4.1: `cA` must be false, and said to be.
    #[error("certificate of `{id}` does not say that it is no certificate authority")]
    NotEndEntity {
        /// The ID it claims.
        id: SpiffeId,
    },
    /// X509-SVID §4.3: KeyUsage must be present and critical.
    #[error("certificate of `{id}` has no critical KeyUsage")]
    NoKeyUsage {
        /// The ID it claims.
        id: SpiffeId,
    },
    /// X509-SVID §4.3: `digitalSignature`, and neither `keyCertSign` nor `cRLSign`.
    #[error("key usage of `{id}` is not that of a leaf: digitalSignature without keyCertSign and cRLSign")]
    KeyUsage {
        /// The ID it claims.
        id: SpiffeId,
    },
    /// X509-SVID §4.4: where there is an extended key usage, it allows both directions.
    #[error("extended key usage of `{id}` does not allow both serverAuth and clientAuth")]
    ExtendedKeyUsage {
        /// The ID it claims.
        id: SpiffeId,
    },
}

/// An X.509-SVID's leaf whose profile was checked. That says nothing about who signed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaf {
    id: SpiffeId,
    validity: ValidityPeriod,
    serial: Vec<u8>,
    public_key_sha256: [u8; 32],
}

impl Leaf {
    /// Reads a certificate and checks the leaf profile.
    ///
    /// # Errors
    /// [`InvalidLeaf`] names the clause that is broken.
    pub fn parse(der: &[u8]) -> Result<Self, InvalidLeaf> {
        let Certificate { x509, validity, id } = Certificate::parse(der)?;
        let id = id.ok_or(InvalidLeaf::NoSpiffeId)?;
        if id.path().is_empty() {
            return Err(InvalidLeaf::NoPath { id });
        }
        let malformed = |extension| InvalidCertificate::Extension { extension };
        match x509.basic_constraints().map_err(|_| malformed("basicConstraints"))? {
            Some(constraints) if !constraints.value.ca => {}
            Some(_) | None => return Err(InvalidLeaf::NotEndEntity { id }),
        }
        match x509.key_usage().map_err(|_| malformed("keyUsage"))? {
            Some(usage) if usage.critical => {
                let usage = usage.value;
                if !usage.digital_signature() || usage.key_cert_sign() || usage.crl_sign() {
                    return Err(InvalidLeaf::KeyUsage { id });
                }
            }
            Some(_) | None => return Err(InvalidLeaf::NoKeyUsage { id }),
        }
        if let Some(usage) = x509.extended_key_usage().map_err(|_| malformed("extendedKeyUsage"))?
            && !(usage.value.server_auth && usage.value.client_auth)
        {
            return Err(InvalidLeaf::ExtendedKeyUsage { id });
        }
        Ok(Self {
            id,
            validity,
            serial: x509.raw_serial().to_vec(),
            public_key_sha256: sha256(x509.public_key().raw),
        })
    }

    /// Whose certificate it claims to be.
    #[must_use]
    pub fn id(&self) -> &SpiffeId {
        &self.id
    }

    /// The first moment at which it is valid.
    #[must_use]
    pub fn not_before(&self) -> SystemTime {
        self.validity.not_before
    }

    /// The last moment at which it is valid.
    #[must_use]
    pub fn not_after(&self) -> SystemTime {
        self.validity.not_after
    }

    /// The serial number: the content bytes of its DER integer, big-endian.
    #[must_use]
    pub fn serial(&self) -> &[u8] {
        &self.serial
    }

    /// The SHA-256 of its SubjectPublicKeyInfo.
    #[must_use]
    pub fn public_key_sha256(&self) -> [u8; 32] {
        self.public_key_sha256
    }
}
