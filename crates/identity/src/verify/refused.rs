//! Why a peer was refused: bland to the peer, exact to the local log.

use std::{error::Error, fmt, io, sync::Arc};

use rustls::{CertificateError, OtherError};
use spiffe::SpiffeId;
use thiserror::Error;

use crate::{InvalidAuthority, InvalidLeaf, MAX_INTERMEDIATES, PeerRule};

/// A peer's certificate was refused.
///
/// On QUIC the text of a verifier's error reaches the peer before it proved anything, so `Display` and `Debug` say
/// nothing; the reason is in [`Self::reason`] and in the error's source.
#[derive(Clone, PartialEq)]
pub struct PeerRefused {
    reason: RefusalReason,
}

impl PeerRefused {
    /// The reason, for the local log and never for the peer.
    #[must_use]
    pub fn reason(&self) -> &RefusalReason {
        &self.reason
    }

    /// Looks for a refusal in an error of a handshake and in the errors that it wraps, rustls' and `io`'s included.
    #[must_use]
    pub fn find<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a Self> {
        let mut next = Some(error);
        while let Some(error) = next {
            if let Some(refused) = error.downcast_ref::<Self>() {
                return Some(refused);
            }
            next = wrapped(error);
        }
        None
    }
}

fn wrapped<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a (dyn Error + 'static)> {
    if let Some(rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(inner)))) = error.downcast_ref() {
        return Some(inner.as_ref());
    }
    match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        Some(inner) => Some(inner),
        None => error.source(),
    }
}

impl fmt::Display for PeerRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("certificate refused")
    }
}

impl fmt::Debug for PeerRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PeerRefused")
    }
}

impl Error for PeerRefused {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.reason)
    }
}

impl From<RefusalReason> for PeerRefused {
    fn from(reason: RefusalReason) -> Self {
        Self { reason }
    }
}

impl From<PeerRefused> for rustls::Error {
    fn from(refused: PeerRefused) -> Self {
        Self::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(refused))))
    }
}

/// What exactly was wrong with a peer's certificate. IDs are as claimed; only [`Self::NotExpected`] is a proven one.
#[derive(Clone, Debug, Error, PartialEq)]
pub enum RefusalReason {
    /// The leaf breaks the profile.
    #[error(transparent)]
    Leaf(InvalidLeaf),
    /// The chain is longer than we look at.
    #[error("chain of `{id}` holds {count} intermediates, the limit is {MAX_INTERMEDIATES}")]
    TooManyIntermediates {
        /// The leaf's ID.
        id: SpiffeId,
        /// How many intermediates came.
        count: usize,
    },
    /// No bundle is held for the leaf's trust domain.
    #[error("no bundle is held for the trust domain of `{id}`")]
    UnknownTrustDomain {
        /// The leaf's ID.
        id: SpiffeId,
    },
    /// No path leads to an authority of the leaf's own trust domain.
    #[error("certificate of `{id}` does not chain to an authority of its trust domain")]
    UnknownIssuer {
        /// The leaf's ID.
        id: SpiffeId,
    },
    /// The path ends at an authority that is expired or not valid yet.
    #[error("certificate of `{id}` chains to an authority that is not valid now")]
    AuthorityNotCurrent {
        /// The leaf's ID.
        id: SpiffeId,
    },
    /// The path is longer than its authority allows.
    #[error("chain of `{id}` is longer than its authority's path length constraint")]
    PathTooLong {
        /// The leaf's ID.
        id: SpiffeId,
    },
    /// An intermediate on the path breaks the signing profile.
    #[error("chain of `{id}` is refused: {reason}")]
    Intermediate {
        /// The leaf's ID.
        id: SpiffeId,
        /// What is wrong with it.
        reason: InvalidAuthority,
    },
    /// A certificate on the path has expired.
    #[error("certificate of `{id}`, or one above it, has expired: `{detail}`")]
    Expired {
        /// The leaf's ID.
        id: SpiffeId,
        /// The verifier's words, with both times.
        detail: String,
    },
    /// A certificate on the path is not valid yet; clocks differ, perhaps.
    #[error("certificate of `{id}`, or one above it, is not valid yet: `{detail}`")]
    NotYetValid {
        /// The leaf's ID.
        id: SpiffeId,
        /// The verifier's words, with both times.
        detail: String,
    },
    /// RFC 5280 path validation failed otherwise.
    #[error("chain of `{id}` is invalid: `{detail}`")]
    Chain {
        /// The leaf's ID.
        id: SpiffeId,
        /// The verifier's words.
        detail: String,
    },
    /// The certificate, its identity or an intermediate on the path is revoked.
    #[error("certificate of `{id}`, or one above it, is revoked")]
    Revoked {
        /// The leaf's ID.
        id: SpiffeId,
    },
    /// The peer proved an ID that is not the one we talk to.
    #[error("peer is `{id}`, expected {expected}")]
    NotExpected {
        /// The proven ID.
        id: SpiffeId,
        /// Whom we expected.
        expected: PeerRule,
    },
    /// While joining: no presented certificate is the root that the join token pins.
    #[error("broker `{id}` presented no root with the key that the join token names")]
    RootNotPresented {
        /// The leaf's ID.
        id: SpiffeId,
    },
}
