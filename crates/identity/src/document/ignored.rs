//! What in a document was passed over, and why.

use std::fmt;

use serde_json::Value;
use thiserror::Error;

use crate::{InvalidAuthority, InvalidJwtAlgorithm, InvalidPublicKey, id::shown};

/// Why a key of a document does not count. All texts are safe to log.
#[derive(Clone, Debug, Error, PartialEq)]
pub enum IgnoredReason {
    /// It is no JSON object.
    #[error("not a JSON object")]
    NotObject,
    /// §4.2.1: `kty` is missing, or one that is not known here.
    #[error("unknown key type `{kty}`")]
    KeyType {
        /// What stands there.
        kty: String,
    },
    /// §4.2.2: `use` is missing.
    #[error("it has no use")]
    NoUse,
    /// §4.2.2: `use` is neither `x509-svid` nor `jwt-svid`.
    #[error("unknown use `{usage}`")]
    Use {
        /// What stands there.
        usage: String,
    },
    /// It holds the private key: whoever read the document can sign.
    #[error("its private key is published: it must be replaced")]
    PrivateKey,
    /// A member is missing, or has another form than RFC 7517 and RFC 7518 give it.
    #[error("`{member}` is missing or malformed")]
    Member {
        /// Its name.
        member: &'static str,
    },
    /// X509-SVID §6.2: the certificate may not sign.
    #[error(transparent)]
    Authority(#[from] InvalidAuthority),
    /// RFC 7517 §4.7: the key that is named is not the certificate's.
    #[error("its key is not that of its certificate")]
    OtherKey,
    /// JWT-SVID §2.1: `alg` is none that is verified here.
    #[error(transparent)]
    Algorithm(#[from] InvalidJwtAlgorithm),
    /// The key cannot verify JWT-SVIDs.
    #[error(transparent)]
    Key(#[from] InvalidPublicKey),
    /// An earlier key has the same `kid`.
    #[error("an earlier key has the same kid")]
    KeyIdTwice,
}

/// A key of a document that does not count.
#[derive(Clone, Debug, PartialEq)]
pub struct IgnoredKey {
    index: usize,
    kid: Option<String>,
    reason: IgnoredReason,
}

impl IgnoredKey {
    pub(super) fn new(index: usize, key: &Value, reason: IgnoredReason) -> Self {
        let kid = key.get("kid").and_then(Value::as_str).map(shown);
        Self { index, kid, reason }
    }

    /// Which element of `keys`, counted from 0.
    #[must_use]
    pub fn index(&self) -> usize {
        self.index
    }

    /// Its `kid`, safe to log.
    #[must_use]
    pub fn kid(&self) -> Option<&str> {
        self.kid.as_deref()
    }

    /// Why.
    #[must_use]
    pub fn reason(&self) -> &IgnoredReason {
        &self.reason
    }
}

impl fmt::Display for IgnoredKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { index, kid, reason } = self;
        match kid {
            Some(kid) => write!(f, "key {index} (`{kid}`) is ignored: {reason}"),
            None => write!(f, "key {index} is ignored: {reason}"),
        }
    }
}
