//! Strict parsing of SPIFFE IDs and trust domain names.
//!
//! The `spiffe` crate folds upper case in the scheme and the trust domain, accepts an ID where a trust domain name is
//! asked for, and does not bound the length of what it parses. Here an ID is accepted only if it is byte for byte what
//! it prints as (SPIFFE-ID §2.1 to §2.4): comparing bytes and comparing IDs is then the same thing.

use spiffe::{SpiffeId, SpiffeIdError, TrustDomain};
use thiserror::Error;

/// SPIFFE-ID §2.3: IDs of up to 2048 bytes are supported, longer ones are not generated; we do not accept them either.
const MAX_ID_BYTES: usize = 2048;

/// Why a text is no SPIFFE ID, or no trust domain name.
#[derive(Clone, Debug, Error, PartialEq)]
pub enum InvalidSpiffeId {
    /// It is longer than SPIFFE-ID §2.3 allows.
    #[error("SPIFFE ID of {bytes} bytes is longer than {MAX_ID_BYTES}")]
    TooLong {
        /// How long it is.
        bytes: usize,
    },
    /// It breaks a rule of SPIFFE-ID §2.
    #[error("`{text}` is not a SPIFFE ID: {reason}")]
    Malformed {
        /// What was given.
        text: String,
        /// The rule it breaks.
        reason: SpiffeIdError,
    },
    /// It would be read as another ID than the one written, for example because of upper case.
    #[error("`{text}` is not a SPIFFE ID: write it as `{canonical}`")]
    NotCanonical {
        /// What was given.
        text: String,
        /// How it must be written.
        canonical: String,
    },
    /// A trust domain name was asked for.
    #[error("`{text}` is not a trust domain name: lower-case letters, digits, `.`, `-` and `_`, without a scheme")]
    NotTrustDomain {
        /// What was given.
        text: String,
    },
}

/// Parses a SPIFFE ID that is written exactly as it prints.
///
/// The ID of a trust domain (`spiffe://TD`, no path) is a SPIFFE ID too.
///
/// # Errors
/// [`InvalidSpiffeId`] names the rule that is broken.
pub fn parse_spiffe_id(text: &str) -> Result<SpiffeId, InvalidSpiffeId> {
    if text.len() > MAX_ID_BYTES {
        return Err(InvalidSpiffeId::TooLong { bytes: text.len() });
    }
    let id = SpiffeId::new(text).map_err(|reason| InvalidSpiffeId::Malformed {
        text: text.to_owned(),
        reason,
    })?;
    let canonical = id.to_string();
    if canonical != text {
        return Err(InvalidSpiffeId::NotCanonical {
            text: text.to_owned(),
            canonical,
        });
    }
    Ok(id)
}

/// Parses a trust domain's bare name, such as `example.org`.
///
/// # Errors
/// [`InvalidSpiffeId`] for anything else, an ID included.
pub fn parse_trust_domain(text: &str) -> Result<TrustDomain, InvalidSpiffeId> {
    TrustDomain::new(text)
        .ok()
        .filter(|trust_domain| trust_domain.as_str() == text)
        .ok_or_else(|| InvalidSpiffeId::NotTrustDomain {
            text: text.chars().take(256).collect(),
        })
}
