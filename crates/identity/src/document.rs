//! SPIFFE bundle documents: what trust domains publish for each other (SPIFFE Trust Domain and Bundle §4).

mod ignored;
mod key;

#[cfg(test)]
mod tests;

use serde_json::{Map, Value};
use spiffe::TrustDomain;
use thiserror::Error;

pub use self::ignored::{IgnoredKey, IgnoredReason};
use crate::{
    Bundle, JwtBundle,
    json::{InvalidJson, parse_object},
    jwk::{Jwk, JwkSet, USE_JWT},
};

/// The longest bundle document that is read, in bytes: [`MAX_DOCUMENT_KEYS`] keys of 2 KiB each.
pub const MAX_DOCUMENT_BYTES: usize = 1024 * 1024;

/// The most keys of a document, those that are ignored included.
pub const MAX_DOCUMENT_KEYS: usize = 512;

/// Why a document is refused as a whole. The last good one stays in force.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum InvalidDocument {
    /// It is longer than [`MAX_DOCUMENT_BYTES`].
    #[error("bundle document of {bytes} bytes is longer than {MAX_DOCUMENT_BYTES}")]
    TooLarge {
        /// How long it is.
        bytes: usize,
    },
    /// It is not a JSON object, or names a member twice.
    #[error("bundle document is refused: {0}")]
    Json(#[from] InvalidJson),
    /// §4.1.3: `keys` must be present. An error page is no empty bundle.
    #[error("bundle document has no `keys`")]
    NoKeys,
    /// §4.1.3: `keys` must be an array.
    #[error("bundle document's `keys` is no array")]
    Keys,
    /// There are more than [`MAX_DOCUMENT_KEYS`].
    #[error("bundle document has {count} keys, more than {MAX_DOCUMENT_KEYS}")]
    TooManyKeys {
        /// How many there are.
        count: usize,
    },
    /// §4.1.1: `spiffe_sequence` must be an integer, and fit 64 bits here.
    #[error("bundle document's `spiffe_sequence` is no integer of 64 bits")]
    Sequence,
    /// §4.1.2: `spiffe_refresh_hint` must be an integer.
    #[error("bundle document's `spiffe_refresh_hint` is no integer")]
    RefreshHint,
}

/// The X.509 and the JWT authorities belong to different trust domains.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("X.509 authorities of trust domain `{x509}` were given with JWT authorities of `{jwt}`")]
pub struct OtherTrustDomain {
    /// The X.509 authorities' trust domain.
    pub x509: TrustDomain,
    /// The JWT authorities' trust domain.
    pub jwt: TrustDomain,
}

/// An X.509 authority has a key that no JWK can express.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("X.509 authority {index} cannot be published: its key is neither EC, RSA nor Ed25519")]
pub struct Unpublishable {
    /// Which authority of the bundle, counted from 0.
    pub index: usize,
}

/// A trust domain's bundle as it is published. The document does not say whose it is: whoever stores it has to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BundleDocument {
    x509: Bundle,
    jwt: JwtBundle,
    sequence: Option<u64>,
    refresh_hint_seconds: Option<u32>,
}

/// A document that was read, and what in it was passed over.
#[derive(Clone, Debug, PartialEq)]
pub struct ParsedDocument {
    /// The document.
    pub document: BundleDocument,
    /// The keys that are not in it, in the order in which they stand: for the operator's log.
    pub ignored: Vec<IgnoredKey>,
}

impl BundleDocument {
    /// A document of one trust domain's authorities.
    ///
    /// `sequence` grows whenever the content changes (§4.1.1); `refresh_hint_seconds` says how often to look (§4.1.2).
    ///
    /// # Errors
    /// [`OtherTrustDomain`].
    pub fn new(
        x509: Bundle,
        jwt: JwtBundle,
        sequence: Option<u64>,
        refresh_hint_seconds: Option<u32>,
    ) -> Result<Self, OtherTrustDomain> {
        if x509.trust_domain() != jwt.trust_domain() {
            return Err(OtherTrustDomain { x509: x509.trust_domain().clone(), jwt: jwt.trust_domain().clone() });
        }
        Ok(Self { x509, jwt, sequence, refresh_hint_seconds })
    }

    /// Reads the document of `trust_domain`: at most [`MAX_DOCUMENT_BYTES`] and [`MAX_DOCUMENT_KEYS`].
    ///
    /// A key of an unknown type or use, and one that cannot be read, is passed over and the others count (§4.1.3, §4.2).
    /// A document without any usable key is valid: nobody of that trust domain is trusted then. Members that the
    /// standard does not name are not looked at.
    ///
    /// # Errors
    /// [`InvalidDocument`] if it is no bundle document; keep the last good one.
    pub fn parse(json: &[u8], trust_domain: &TrustDomain) -> Result<ParsedDocument, InvalidDocument> {
        if json.len() > MAX_DOCUMENT_BYTES {
            return Err(InvalidDocument::TooLarge { bytes: json.len() });
        }
        let members = parse_object(json)?;
        let keys = members.get("keys").ok_or(InvalidDocument::NoKeys)?.as_array().ok_or(InvalidDocument::Keys)?;
        if keys.len() > MAX_DOCUMENT_KEYS {
            return Err(InvalidDocument::TooManyKeys { count: keys.len() });
        }
        let sequence = integer(&members, "spiffe_sequence", InvalidDocument::Sequence)?;
        let refresh_hint = integer(&members, "spiffe_refresh_hint", InvalidDocument::RefreshHint)?;
        let mut document = Self {
            x509: Bundle::empty(trust_domain.clone()),
            jwt: JwtBundle::empty(trust_domain.clone()),
            sequence,
            refresh_hint_seconds: refresh_hint.map(|seconds| u32::try_from(seconds).unwrap_or(u32::MAX)),
        };
        let ignored = keys
            .iter()
            .enumerate()
            .filter_map(|(index, key)| {
                let reason = document.insert(key).err()?;
                Some(IgnoredKey::new(index, key, reason))
            })
            .collect();
        Ok(ParsedDocument { document, ignored })
    }

    /// The document as JSON. One content has one text, whatever the order in which the keys were given: X.509
    /// authorities by their DER, then JWT authorities by `kid`.
    ///
    /// # Errors
    /// [`Unpublishable`] if an X.509 authority's key has no JWK form.
    pub fn to_json(&self) -> Result<String, Unpublishable> {
        let mut x509: Vec<_> = self.x509.authorities().iter().enumerate().collect();
        x509.sort_by(|(_, a), (_, b)| a.der().cmp(b.der()));
        let mut keys = Vec::new();
        for (index, authority) in x509 {
            keys.push(Jwk::of_x509(authority).ok_or(Unpublishable { index })?);
        }
        keys.extend(self.jwt.by_key_id().into_iter().map(|authority| Jwk::of_jwt(authority, Some(USE_JWT))));
        let (spiffe_sequence, spiffe_refresh_hint) = (self.sequence, self.refresh_hint_seconds);
        Ok(JwkSet { spiffe_sequence, spiffe_refresh_hint, keys }.to_json())
    }

    /// Whose authorities these are.
    #[must_use]
    pub fn trust_domain(&self) -> &TrustDomain {
        self.x509.trust_domain()
    }

    /// The X.509 authorities, those that have expired included.
    #[must_use]
    pub fn x509(&self) -> &Bundle {
        &self.x509
    }

    /// The JWT authorities. A document does not say when they end.
    #[must_use]
    pub fn jwt(&self) -> &JwtBundle {
        &self.jwt
    }

    /// §4.1.1: grows whenever the content changes; `None` if the publisher does not count.
    #[must_use]
    pub fn sequence(&self) -> Option<u64> {
        self.sequence
    }

    /// §4.1.2: how often to look for a newer document, in seconds, as its publisher wishes; what is longer counts as
    /// [`u32::MAX`]. It may be 0: the caller sets the limits.
    #[must_use]
    pub fn refresh_hint_seconds(&self) -> Option<u32> {
        self.refresh_hint_seconds
    }

    /// Whether no key of it is usable: nobody of its trust domain is trusted then (§4.1.3).
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.x509.authorities().is_empty() && self.jwt.authorities().is_empty()
    }
}

fn integer(
    members: &Map<String, Value>,
    name: &str,
    otherwise: InvalidDocument,
) -> Result<Option<u64>, InvalidDocument> {
    members.get(name).map(|value| value.as_u64().ok_or(otherwise)).transpose()
}
