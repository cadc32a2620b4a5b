//! Reading X.509 certificates: what every profile asks of them before its own rules.

use spiffe::SpiffeId;
use thiserror::Error;
use x509_parser::{certificate::X509Certificate, extensions::GeneralName, prelude::FromDer as _};

use crate::{InvalidSpiffeId, MAX_CERTIFICATE_BYTES, parse_spiffe_id, validity::ValidityPeriod};

/// Why a certificate cannot be read at all.
#[derive(Clone, Debug, Error, PartialEq)]
pub enum InvalidCertificate {
    /// It is longer than [`MAX_CERTIFICATE_BYTES`].
    #[error("certificate of {bytes} bytes is longer than {MAX_CERTIFICATE_BYTES}")]
    TooLarge {
        /// How long it is.
        bytes: usize,
    },
    /// It is not an X.509 certificate in DER.
    #[error("not a certificate in DER")]
    Malformed,
    /// Bytes follow the certificate.
    #[error("certificate is followed by {bytes} bytes")]
    TrailingBytes {
        /// How many.
        bytes: usize,
    },
    /// An extension cannot be read, or is present twice.
    #[error("certificate extension {extension} is malformed or present twice")]
    Extension {
        /// Its name.
        extension: &'static str,
    },
    /// The dates cannot be expressed.
    #[error("certificate's dates are out of range")]
    Dates,
    /// X509-SVID §2: at most one URI name.
    #[error("certificate carries {count} URI names, an X.509-SVID carries one")]
    UriNames {
        /// How many there are.
        count: usize,
    },
    /// The URI name is not a SPIFFE ID.
    #[error("certificate's URI name is refused: {0}")]
    SpiffeId(#[from] InvalidSpiffeId),
}

/// What both the leaf and the authority profile look at.
pub(crate) struct Certificate<'a> {
    pub(crate) x509: X509Certificate<'a>,
    pub(crate) validity: ValidityPeriod,
    /// The one URI name, if there is any.
    pub(crate) id: Option<SpiffeId>,
}

impl<'a> Certificate<'a> {
    pub(crate) fn parse(der: &'a [u8]) -> Result<Self, InvalidCertificate> {
        if der.len() > MAX_CERTIFICATE_BYTES {
            return Err(InvalidCertificate::TooLarge { bytes: der.len() });
        }
        let (rest, x509) = X509Certificate::from_der(der).map_err(|_parse| InvalidCertificate::Malformed)?;
        if !rest.is_empty() {
            return Err(InvalidCertificate::TrailingBytes { bytes: rest.len() });
        }
        let validity = ValidityPeriod::of(x509.validity()).ok_or(InvalidCertificate::Dates)?;
        let id = spiffe_id(&x509)?;
        Ok(Self { x509, validity, id })
    }
}

fn spiffe_id(x509: &X509Certificate<'_>) -> Result<Option<SpiffeId>, InvalidCertificate> {
    let malformed = InvalidCertificate::Extension { extension: "subjectAltName" };
    let Some(names) = x509.subject_alternative_name().map_err(|_| malformed.clone())? else {
        return Ok(None);
    };
    let mut uris = Vec::new();
    for name in &names.value.general_names {
        match name {
            GeneralName::URI(uri) => uris.push(*uri),
            // A name that one parser skips is a URI to another.
            GeneralName::Invalid(..) => return Err(malformed),
            GeneralName::OtherName(..)
            | GeneralName::RFC822Name(_)
            | GeneralName::DNSName(_)
            | GeneralName::X400Address(_)
            | GeneralName::DirectoryName(_)
            | GeneralName::EDIPartyName(_)
            | GeneralName::IPAddress(_)
            | GeneralName::RegisteredID(_) => {}
        }
    }
    match uris.as_slice() {
        [] => Ok(None),
        [uri] => Ok(Some(parse_spiffe_id(uri)?)),
        more => Err(InvalidCertificate::UriNames { count: more.len() }),
    }
}
