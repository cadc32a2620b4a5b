//! The signing profile: what makes a certificate an authority or an intermediate of a trust domain (X509-SVID §3.2, §4).

use std::time::SystemTime;

use rustls::pki_types::{CertificateDer, UnixTime};
use spiffe::{SpiffeId, TrustDomain};
use thiserror::Error;

use crate::{InvalidCertificate, certificate::Certificate, request::sha256, validity::ValidityPeriod};

/// Why a certificate may not sign SVIDs of a trust domain.
#[derive(Clone, Debug, Error, PartialEq)]
pub enum InvalidAuthority {
    /// It cannot be read.
    #[error(transparent)]
    Certificate(#[from] InvalidCertificate),
    /// X509-SVID §4.1: `cA` must be true.
    #[error("signing certificate is no certificate authority: basicConstraints lacks cA")]
    NotAuthority,
    /// X509-SVID §4.3: KeyUsage must hold `keyCertSign`, and be critical on an SVID.
    #[error("signing certificate's KeyUsage lacks keyCertSign, or is not critical")]
    KeyUsage,
    /// X509-SVID §3.2: a signing certificate's SPIFFE ID has no path.
    #[error("signing certificate carries `{id}`: the ID of an authority has no path")]
    Path {
        /// The ID it carries.
        id: SpiffeId,
    },
    /// The SPIFFE ID is another trust domain's.
    #[error("signing certificate of trust domain `{found}` was given for `{expected}`")]
    OtherTrustDomain {
        /// The trust domain it was given for.
        expected: TrustDomain,
        /// The trust domain it names.
        found: TrustDomain,
    },
}

/// A certificate that fits the signing profile of its trust domain. That says nothing about whether it is trusted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authority {
    der: CertificateDer<'static>,
    validity: ValidityPeriod,
    public_key_sha256: [u8; 32],
    path_len: Option<u32>,
    serial: Vec<u8>,
}

impl Authority {
    /// Reads a certificate and checks the signing profile for `trust_domain`.
    ///
    /// A root of an ordinary PKI carries no SPIFFE ID and is accepted; where there is an ID it is the trust domain's.
    ///
    /// # Errors
    /// [`InvalidAuthority`] names the clause that is broken.
    pub fn parse(der: &[u8], trust_domain: &TrustDomain) -> Result<Self, InvalidAuthority> {
        let Certificate { x509, validity, id } = Certificate::parse(der)?;
        let malformed = |extension| InvalidCertificate::Extension { extension };
        let path_len = match x509.basic_constraints().map_err(|_| malformed("basicConstraints"))? {
            Some(constraints) if constraints.value.ca => constraints.value.path_len_constraint,
            Some(_) | None => return Err(InvalidAuthority::NotAuthority),
        };
        match x509.key_usage().map_err(|_| malformed("keyUsage"))? {
            Some(usage) if usage.value.key_cert_sign() && (usage.critical || id.is_none()) => {}
            Some(_) | None => return Err(InvalidAuthority::KeyUsage),
        }
        if let Some(id) = id {
            if !id.path().is_empty() {
                return Err(InvalidAuthority::Path { id });
            }
            if id.trust_domain() != trust_domain {
                let (expected, found) = (trust_domain.clone(), id.trust_domain().clone());
                return Err(InvalidAuthority::OtherTrustDomain { expected, found });
            }
        }
        let public_key_sha256 = sha256(x509.public_key().raw);
        let serial = x509.raw_serial().to_vec();
        Ok(Self { der: CertificateDer::from(der.to_vec()), validity, public_key_sha256, path_len, serial })
    }

    /// The certificate.
    #[must_use]
    pub fn der(&self) -> &CertificateDer<'static> {
        &self.der
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

    /// The SHA-256 of its SubjectPublicKeyInfo: what a join token pins.
    #[must_use]
    pub fn public_key_sha256(&self) -> [u8; 32] {
        self.public_key_sha256
    }

    /// The serial number: the content bytes of its DER integer, big-endian.
    #[must_use]
    pub fn serial(&self) -> &[u8] {
        &self.serial
    }

    pub(crate) fn is_valid_at(&self, now: UnixTime) -> bool {
        self.validity.contains(now)
    }

    /// How many intermediates may stand below it (RFC 5280 §4.2.1.9).
    pub(crate) fn allows_intermediates(&self, count: usize) -> bool {
        self.path_len.is_none_or(|limit| u32::try_from(count).is_ok_and(|count| count <= limit))
    }
}
